//! What a gateway process is started with: which switches, which port.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use risiti_bridge::receipts::ReceiptsFault;

/// A place at which the gateway kills itself, when it comes there the nth time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillAt {
    /// Half of a batch was handed to Kafka.
    InsideBatch(u64),
    /// A batch was delivered, nothing committed.
    AfterSend(u64),
    /// A transaction was committed, but the forwarder does not know yet.
    AfterCommit(u64),
    /// On the way of a receipt.
    Receipts(ReceiptsFault, u64),
}

/// What no configuration has.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessSwitches {
    /// Recognises no resend: the negative control of G2.
    pub without_dedup: bool,
    /// The position in a transaction of its own: the other one.
    pub position_outside_transaction: bool,
    /// Takes a receipt for acknowledged as soon as it is sent: the negative
    /// control of G4.
    pub delete_before_puback: bool,
    /// Has the offsets of receipts on disk before the receipts: the other one.
    pub offset_before_row: bool,
    /// Dies there.
    pub kill_at: Option<KillAt>,
    /// Only stops there, until [`Signal::CONT`](rustix::process::Signal::CONT).
    pub stop_there: bool,
}

impl ProcessSwitches {
    pub(super) fn args(self) -> Vec<String> {
        let mut args = Vec::new();
        if self.without_dedup {
            args.push("--without-dedup".into());
        }
        if self.position_outside_transaction {
            args.push("--position-outside-transaction".into());
        }
        if self.delete_before_puback {
            args.push("--delete-before-puback".into());
        }
        if self.offset_before_row {
            args.push("--offset-before-row".into());
        }
        if self.stop_there {
            args.push("--stop-there".into());
        }
        if let Some(at) = self.kill_at {
            args.extend(["--kill-at".into(), at.name().into()]);
            args.extend(["--kill-at-nth".into(), at.nth().to_string()]);
        }
        args
    }
}

impl KillAt {
    /// What the program calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InsideBatch(_) => "inside-batch",
            Self::AfterSend(_) => "after-send",
            Self::AfterCommit(_) => "after-commit",
            Self::Receipts(place, _) => receipts_place(place),
        }
    }

    fn nth(self) -> u64 {
        match self {
            Self::InsideBatch(nth)
            | Self::AfterSend(nth)
            | Self::AfterCommit(nth)
            | Self::Receipts(_, nth) => nth,
        }
    }
}

/// What the program calls a place on the way of a receipt.
fn receipts_place(place: ReceiptsFault) -> &'static str {
    match place {
        ReceiptsFault::BeforeCommit => "receipts-before-commit",
        ReceiptsFault::BetweenOffsetAndRow => "receipts-between-offset-and-row",
        ReceiptsFault::AfterCommit => "receipts-after-commit",
        ReceiptsFault::BeforeEvent => "receipts-before-event",
        ReceiptsFault::BeforeDeletion => "receipts-before-deletion",
        ReceiptsFault::AfterDeletion => "receipts-after-deletion",
    }
}

/// A port that is free, and that no outgoing connection is given while its
/// server is down: else a client that reconnects could come to hold it (it
/// could even connect to itself).
pub fn free_port() -> io::Result<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first: u16 = range
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(32_768);
    for _ in 0..1_000 {
        let port = if first > 2_048 {
            fastrand::u16(1_024..first)
        } else {
            0
        };
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener.local_addr()?.port());
        }
    }
    Err(io::Error::other("no port is free"))
}
