//! A simulated modem that runs: the core on tokio's time, between a serial line
//! and its peers.
//!
//! Promises: nothing is done but on an event. Never: a decision; those are the
//! core's.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use embedded_hal::digital::{ErrorType, OutputPin};
use parking_lot::Mutex;
use risiti_terminal::energy::{Radio, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::core::{Effect, ModemCore};
use super::dialer::Dialer;
use super::fault::Fault;
use super::pipe::Serial;
use super::setup::ModemSetup;
use crate::clock::SimClock;
use crate::limits::{LOST_CONNECTIONS_KEPT, SEGMENT_BYTES_MAX};

/// What a modem and its controls share.
#[derive(Debug)]
struct Shared {
    core: Mutex<ModemCore>,
    clock: SimClock,
    /// Something was done to the core from outside.
    touched: Notify,
    terminal: Serial,
}

/// A simulated modem that runs. It ends when its last control is dropped.
#[derive(Debug, Clone)]
pub struct ModemSim {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running(Option<JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl ModemSim {
    /// Starts a modem in a task of its own. Call it inside a tokio runtime.
    #[must_use]
    pub fn start<D: Dialer>(setup: ModemSetup, seed: u64, clock: SimClock, dialer: D) -> Self {
        let (mut sim, run) = Self::prepare(setup, seed, clock, dialer);
        sim.running = Arc::new(Running(Some(tokio::spawn(run))));
        sim
    }

    /// A modem, and what runs it: for whoever has a task for it already.
    pub fn prepare<D: Dialer>(
        setup: ModemSetup,
        seed: u64,
        clock: SimClock,
        dialer: D,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (terminal, modem) = Serial::pair();
        let shared = Arc::new(Shared {
            core: Mutex::new(ModemCore::new(setup, seed)),
            clock,
            touched: Notify::new(),
            terminal,
        });
        let run = run(Arc::clone(&shared), modem, dialer);
        let running = Arc::new(Running(None));
        (Self { shared, running }, run)
    }

    /// The terminal's end of the serial line, as a terminal that starts now has
    /// it: without what came before.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.shared.terminal.discard();
        self.shared.terminal.clone()
    }

    /// The pin of the power key; high is pressed.
    #[must_use]
    pub fn power_key(&self) -> PowerKey {
        PowerKey(self.clone())
    }

    /// The clock that the modem goes by.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.shared.clock.clone()
    }

    /// The power key is pressed or let go.
    pub fn press(&self, pressed: bool) {
        self.touch(|core, now| core.key(now, pressed));
    }

    /// The supply comes or goes. A modem does not start by itself when it comes.
    pub fn set_supply(&self, supplied: bool) {
        self.touch(|core, now| core.set_supply(now, supplied));
    }

    /// The supply is too low; `off` if so low that the modem goes off.
    pub fn under_voltage(&self, off: bool) {
        self.touch(|core, now| core.under_voltage(now, off));
    }

    /// Orders a fault.
    pub fn order(&self, fault: Fault) {
        self.touch(|core, _| core.order(fault));
    }

    /// What the radio has really done up to now; bytes and connections are the
    /// driver's to count.
    #[must_use]
    pub fn radio(&self) -> Radio {
        let mut core = self.shared.core.lock();
        core.advance(self.shared.clock.now());
        core.radio()
    }

    /// What it is doing, as far as its supply current goes.
    #[must_use]
    pub fn state(&self) -> State {
        let mut core = self.shared.core.lock();
        core.advance(self.shared.clock.now());
        core.state()
    }

    /// Command lines that it has heard since the beginning.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.shared.core.lock().commands()
    }

    fn touch<T>(&self, action: impl FnOnce(&mut ModemCore, std::time::Duration) -> T) -> T {
        let now = self.shared.clock.now();
        let done = action(&mut self.shared.core.lock(), now);
        self.shared.touched.notify_one();
        done
    }
}

/// The pin of a power key that nothing hangs on.
#[derive(Debug, Clone, Copy)]
pub struct NoKey;

impl ErrorType for NoKey {
    type Error = Infallible;
}

impl OutputPin for NoKey {
    fn set_low(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The pin of a simulated modem's power key.
#[derive(Debug, Clone)]
pub struct PowerKey(ModemSim);

impl ErrorType for PowerKey {
    type Error = Infallible;
}

impl OutputPin for PowerKey {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.press(false);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.press(true);
        Ok(())
    }
}

type Dialling<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// The connection of a modem to its peer.
struct Peer<S> {
    reading: ReadHalf<S>,
    writing: WriteHalf<S>,
    /// Bytes that have reached the peer's end of the network.
    arrived: VecDeque<u8>,
    /// The end follows the bytes.
    ends: bool,
}

async fn run<D: Dialer>(shared: Arc<Shared>, serial: Serial, mut dialer: D) {
    let mut from_terminal = [0; 512];
    let mut from_peer = [0; SEGMENT_BYTES_MAX];
    let mut dialling: Option<Dialling<D::Stream>> = None;
    let mut peer: Option<Peer<D::Stream>> = None;
    // The peers of connections that are gone without a word.
    let mut lost = VecDeque::new();
    loop {
        let (next_at, takes_from_peer) = {
            let mut core = shared.core.lock();
            core.advance(shared.clock.now());
            while let Some(said) = core.take_said() {
                serial.push(&said);
            }
            while let Some(effect) = core.take_effect() {
                match effect {
                    Effect::Dial { host, port } => {
                        dialling = Some(Box::pin(dialer.dial(host, port)));
                    }
                    Effect::ToPeer(bytes) => {
                        if let Some(peer) = &mut peer {
                            peer.arrived.extend(bytes);
                        }
                    }
                    Effect::HangUp => {
                        dialling = None;
                        if let Some(peer) = &mut peer {
                            peer.ends = true;
                        }
                    }
                    Effect::Vanish => {
                        dialling = None;
                        if let Some(peer) = peer.take() {
                            lost.push_back(peer);
                            if lost.len() > LOST_CONNECTIONS_KEPT {
                                lost.pop_front();
                            }
                        }
                    }
                }
            }
            (core.next_at(), core.takes_from_peer())
        };
        if peer
            .as_ref()
            .is_some_and(|peer| peer.ends && peer.arrived.is_empty())
            && let Some(mut peer) = peer.take()
        {
            // A peer that is gone already needs no goodbye.
            let _ = peer.writing.shutdown().await;
        }
        let (reading, writing) = match &mut peer {
            Some(Peer {
                reading,
                writing,
                arrived,
                ends,
            }) => {
                let reads = takes_from_peer && !*ends;
                let bytes = arrived.make_contiguous();
                (
                    reads.then_some(reading),
                    (!bytes.is_empty()).then_some((writing, &*bytes)),
                )
            }
            None => (None, None),
        };
        tokio::select! {
            count = serial.take(&mut from_terminal) => {
                let bytes = from_terminal.get(..count).unwrap_or_default();
                shared.core.lock().hear(shared.clock.now(), bytes);
            }
            () = shared.touched.notified() => {}
            () = reach(&shared.clock, next_at) => {}
            dialled = or_never(dialling.as_mut()) => {
                dialling = None;
                let made = dialled.is_ok();
                peer = dialled.ok().map(|stream| {
                    let (reading, writing) = split(stream);
                    Peer { reading, writing, arrived: VecDeque::new(), ends: false }
                });
                shared.core.lock().dialled(shared.clock.now(), made);
            }
            read = read_from(reading, &mut from_peer) => {
                let now = shared.clock.now();
                let mut core = shared.core.lock();
                match read {
                    Ok(count) if count > 0 => {
                        let bytes = from_peer.get(..count).unwrap_or_default();
                        core.hear_peer(now, bytes.to_vec());
                    }
                    Ok(_) | Err(_) => core.peer_ended(now),
                }
            }
            written = write_to(writing) => {
                if let Some(peer) = &mut peer {
                    match written {
                        Ok(count) => drop(peer.arrived.drain(..count)),
                        // The read side tells that it is gone.
                        Err(_) => peer.arrived.clear(),
                    }
                }
            }
        }
    }
}

async fn reach(clock: &SimClock, at: Option<std::time::Duration>) {
    match at {
        Some(at) => clock.reach(at).await,
        None => pending().await,
    }
}

async fn or_never<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn read_from<R: AsyncReadExt + Unpin>(
    from: Option<&mut R>,
    into: &mut [u8],
) -> io::Result<usize> {
    match from {
        Some(from) => from.read(into).await,
        None => pending().await,
    }
}

async fn write_to<W: AsyncWriteExt + Unpin>(to: Option<(&mut W, &[u8])>) -> io::Result<usize> {
    match to {
        Some((to, bytes)) => to.write(bytes).await,
        None => pending().await,
    }
}
