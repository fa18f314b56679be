//! What can be wrong with a TCP connection.
//!
//! Promises: plain values, all of them at once if wanted. Never: a decision; those
//! are the lane's and the connection's.

use std::time::Duration;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server behind the proxy.
    Up,
    /// From the server to the client.
    Down,
}

/// What becomes of bytes that a sender gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// They are taken and delivered.
    All,
    /// None are taken: the sender's window closes, as before a reader that hangs.
    Nothing,
    /// They are taken and gone, for the rest of the connection, which stays open:
    /// what a peer sees whose other half has died without a word.
    Vanishing,
}

/// What one direction does to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Added to every segment.
    pub delay: Duration,
    /// Added on top, from none to this, new for every segment; order is kept.
    pub jitter: Duration,
    /// No more than this; none = no limit.
    pub bytes_per_s: Option<u64>,
    /// Bytes written at once, from 1; each write is a segment of its own.
    pub piece_bytes_max: usize,
    /// What becomes of bytes.
    pub taking: Taking,
}

impl Fault {
    /// A wire.
    pub const NONE: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        bytes_per_s: None,
        piece_bytes_max: usize::MAX,
        taking: Taking::All,
    };

    /// Later by this, and by up to as much again.
    #[must_use]
    pub const fn slow(delay: Duration) -> Self {
        Self {
            delay,
            jitter: delay,
            ..Self::NONE
        }
    }

    /// So many bytes a second.
    #[must_use]
    pub const fn narrow(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s: Some(bytes_per_s),
            ..Self::NONE
        }
    }

    /// So many bytes at a time.
    #[must_use]
    pub const fn in_pieces(bytes: usize) -> Self {
        Self {
            piece_bytes_max: bytes,
            ..Self::NONE
        }
    }

    /// Nothing is read.
    pub const UNREAD: Self = Self {
        taking: Taking::Nothing,
        ..Self::NONE
    };

    /// Everything vanishes.
    pub const VANISHING: Self = Self {
        taking: Taking::Vanishing,
        ..Self::NONE
    };
}

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order, on both sides: each reads its end of file. What is on the way is
    /// lost all the same.
    Fin,
    /// By a reset, on both sides.
    Reset,
}

/// An end that comes in the middle of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutAfter {
    /// Once so many more bytes have arrived in this direction.
    pub direction: Direction,
    /// So many.
    pub bytes: u64,
    /// So.
    pub end: End,
}

/// What a new connection meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connecting {
    /// The server.
    Through,
    /// Nobody: it stands and stays silent, and reaches the server once there is
    /// one again. (Below an application nobody can leave a SYN unanswered.)
    Silent,
    /// A reset.
    Refused,
}
