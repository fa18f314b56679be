//! A TCP proxy that is told, while it runs, what goes wrong on its connections.
//!
//! Promises: each direction has its own [`Fault`]; a fault that is set holds at once
//! for the connections that there are and for those to come; with one seed the n-th
//! connection meets the same chances. Never: bytes changed, or delivered behind a
//! gap: a connection is cut or stays silent instead, as TCP would have it.
//!
//! [`risiti_sim::link`] is the radio between a terminal and its gateway, bad by
//! itself all the time; this one is any wire, and does what it is told.

mod connection;
mod fault;
mod lane;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

pub use fault::{Connecting, CutAfter, Direction, End, Fault, Taking};

/// What the kernel takes for a side that is not read (Linux doubles it): small, so
/// that a window that closes is noticed by its sender.
const RECEIVE_BUFFER_BYTES: u32 = 64 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// A pause when no descriptor is left for a connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(10);

/// What a proxy is told.
#[derive(Debug, Clone, Copy)]
struct Control {
    upstream: SocketAddr,
    up: Fault,
    down: Fault,
    connecting: Connecting,
    /// Counts calls of [`FaultProxy::cut`]; a connection ends when it changes.
    cuts_ordered: u64,
    cut_end: End,
    cut_after: Option<CutAfter>,
    cut_after_ordered: u64,
}

impl Control {
    fn through(upstream: SocketAddr) -> Self {
        Self {
            upstream,
            up: Fault::NONE,
            down: Fault::NONE,
            connecting: Connecting::Through,
            cuts_ordered: 0,
            cut_end: End::Reset,
            cut_after: None,
            cut_after_ordered: 0,
        }
    }

    fn fault(&self, direction: Direction) -> &Fault {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    cuts: AtomicU64,
    vanished: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
}

/// What has happened on a proxy since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProxyCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections cut by order.
    pub cuts: u64,
    /// Directions of connections in which bytes vanish.
    pub vanished: u64,
    /// Bytes delivered to the server.
    pub up_bytes: u64,
    /// Bytes delivered to clients.
    pub down_bytes: u64,
}

/// A running proxy. Dropping it ends its connections.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    control: watch::Sender<Control>,
    counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy before `upstream` on a free port of 127.0.0.1, without a
    /// fault. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// No port or file descriptor is left.
    pub fn start(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        let (control, told) = watch::channel(Control::through(upstream));
        let counters = Arc::new(Counters::default());
        let accepting = tokio::spawn(accept(listener, seed, told, Arc::clone(&counters)));
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

    /// Leads connections that are made from now on to another address.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.control
            .send_modify(|control| control.upstream = upstream);
    }

    /// What one direction does from now on. [`Taking::Vanishing`] can't be taken
    /// back from a connection that it has met.
    pub fn set(&self, direction: Direction, fault: Fault) {
        self.control.send_modify(|control| match direction {
            Direction::Up => control.up = fault,
            Direction::Down => control.down = fault,
        });
    }

    /// What new connections meet from now on.
    pub fn set_connecting(&self, connecting: Connecting) {
        self.control
            .send_modify(|control| control.connecting = connecting);
    }

    /// Ends every connection that there is now.
    pub fn cut(&self, end: End) {
        self.control.send_modify(|control| {
            control.cuts_ordered += 1;
            control.cut_end = end;
        });
    }

    /// Ends each connection, those to come as well, in the middle of what it
    /// carries: counted for each from now, or from its beginning.
    pub fn cut_after(&self, cut: CutAfter) {
        self.control.send_modify(|control| {
            control.cut_after = Some(cut);
            control.cut_after_ordered += 1;
        });
    }

    /// No fault any more, and the server is reached again. Connections in which
    /// bytes have vanished stay silent; [`Self::cut`] ends those.
    pub fn heal(&self) {
        self.control.send_modify(|control| {
            (control.up, control.down) = (Fault::NONE, Fault::NONE);
            control.connecting = Connecting::Through;
            control.cut_after = None;
        });
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> ProxyCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProxyCounts {
            connections: read(&self.counters.connections),
            cuts: read(&self.counters.cuts),
            vanished: read(&self.counters.vanished),
            up_bytes: read(&self.counters.up_bytes),
            down_bytes: read(&self.counters.down_bytes),
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // The connections are in the task's JoinSet and end with it.
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    seed: u64,
    control: watch::Receiver<Control>,
    counters: Arc<Counters>,
) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            // Ended connections give their memory back at once.
            Some(_) = connections.join_next() => continue,
        };
        let Ok((client, _)) = client else {
            sleep(OUT_OF_DESCRIPTORS).await;
            continue;
        };
        counters.connections.fetch_add(1, Ordering::Relaxed);
        let chance = chance.fork();
        let (control, counters) = (control.clone(), Arc::clone(&counters));
        connections.spawn(async move { connection::run(client, chance, control, &counters).await });
    }
}
