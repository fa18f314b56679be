//! A TCP proxy that behaves like a bad 2G link.
//!
//! Promises: bytes come out whole and in order, or the connection ends by a
//! reset on both sides, as when the network is gone; with one seed, the n-th
//! connection always meets the same delays and lasts as long. Never: a byte lost
//! inside a connection that goes on (TCP would have sent it again), or memory
//! beyond the bounds in `limits`.

mod carry;
mod connection;
mod lane;
mod profile;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::limits::CONNECTIONS_MAX;
pub(crate) use lane::Lane;
pub use profile::{LinkProfile, Stalls};

/// What the controls of a link say at the moment.
#[derive(Debug, Clone, Copy)]
struct Control {
    upstream: SocketAddr,
    paused: bool,
    /// Counts calls of [`Link::cut_now`]; a connection ends when it changes.
    cuts_ordered: u64,
}

/// What a link has counted.
#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    cuts: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
}

/// What has happened on a link since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections cut, by chance or by [`Link::cut_now`].
    pub cuts: u64,
    /// Bytes delivered to the upstream.
    pub up_bytes: u64,
    /// Bytes delivered to clients.
    pub down_bytes: u64,
}

/// A running link. Dropping it ends its connections.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    control: watch::Sender<Control>,
    counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

impl Link {
    /// Starts a link to `upstream` on a free port of 127.0.0.1. Call it inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// No port or file descriptor is left.
    pub fn start(upstream: SocketAddr, profile: LinkProfile, seed: u64) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let addr = listener.local_addr()?;
        let (control, seen) = watch::channel(Control {
            upstream,
            paused: false,
            cuts_ordered: 0,
        });
        let counters = Arc::new(Counters::default());
        let accepting = tokio::spawn(accept(listener, profile, seed, seen, Arc::clone(&counters)));
        Ok(Self {
            addr,
            control,
            counters,
            accepting,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Resets every connection that there is, on both sides.
    pub fn cut_now(&self) {
        self.control
            .send_modify(|control| control.cuts_ordered += 1);
    }

    /// Lets nothing through any more, although every connection stays open and
    /// still takes a bounded number of bytes: what a peer sees whose radio is
    /// gone. Connections made meanwhile are accepted and wait.
    pub fn pause(&self) {
        self.control.send_modify(|control| control.paused = true);
    }

    /// Ends [`Link::pause`]; what waits is delivered.
    pub fn resume(&self) {
        self.control.send_modify(|control| control.paused = false);
    }

    /// Leads connections that are made from now on to another address; those
    /// that there are stay where they are.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.control
            .send_modify(|control| control.upstream = upstream);
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> LinkCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkCounts {
            connections: read(&self.counters.connections),
            cuts: read(&self.counters.cuts),
            up_bytes: read(&self.counters.up_bytes),
            down_bytes: read(&self.counters.down_bytes),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The connections are in the task's JoinSet and end with it.
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    profile: LinkProfile,
    seed: u64,
    control: watch::Receiver<Control>,
    counters: Arc<Counters>,
) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            // Ended connections give their memory back at once.
            Some(_) = connections.join_next() => continue,
        };
        let Ok((client, _)) = client else {
            // No descriptor left, or the client has gone: give others a turn.
            tokio::task::yield_now().await;
            continue;
        };
        counters.connections.fetch_add(1, Ordering::Relaxed);
        // A generator of its own, so that what one connection meets does not
        // depend on how much the others sent.
        let chance = chance.fork();
        let connection = connection::run(
            client,
            profile.clone(),
            chance,
            control.clone(),
            Arc::clone(&counters),
        );
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
}
