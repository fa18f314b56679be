//! What stands around an emulated terminal, and outlives it: modem, printer,
//! battery gauge, display, keys.
//!
//! Promises: modem and printer lose their power with the terminal; a key reaches
//! the machine that runs now, or none. Never: a look into the terminal past its
//! display and its papers.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use risiti_terminal::hardware::{Clock as _, Key, Screen};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Lines;
use super::console::ScreenReader;
use super::control::{self, ControlReader, RANDOM_BYTES, Said};
use crate::clock::SimClock;
use crate::modem::{ModemSim, Serial};
use crate::operator::console_byte;
use crate::printer::{Paper, PrinterCore, PrinterModel};

/// A printer that has nothing to say is looked at this often: its papers come out
/// by the passing of time alone.
const PRINTER_LOOK: Duration = Duration::from_millis(100);

/// Keys that wait for the machine: more than a person types ahead.
const KEYS_WAITING_MAX: usize = 64;

/// What a battery shows until somebody sets it: a good one.
const MILLIVOLTS: u16 = 3_900;

/// Where a terminal's random bytes come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Entropy {
    /// This machine: keys that a terminal makes are its secret.
    #[default]
    Machine,
    /// A source that is stuck at this byte.
    Stuck(u8),
}

impl Entropy {
    fn bytes(self) -> io::Result<[u8; RANDOM_BYTES]> {
        let mut bytes = [0; RANDOM_BYTES];
        match self {
            Self::Machine => File::open("/dev/urandom")?.read_exact(&mut bytes)?,
            Self::Stuck(byte) => bytes.fill(byte),
        }
        Ok(bytes)
    }
}

/// What stands around a terminal. Clones are the same.
#[derive(Debug, Clone)]
pub struct World {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: SimClock,
    modem: ModemSim,
    printer: Mutex<PrinterCore>,
    papers: Mutex<Vec<Paper>>,
    millivolts: Mutex<u16>,
    entropy: Mutex<Entropy>,
    panics: Mutex<Vec<u32>>,
    screen: watch::Sender<Option<Screen>>,
}

/// The lines of one machine to the world around it. They end with the machine.
#[derive(Debug)]
pub struct Wiring {
    keys: mpsc::Sender<Key>,
    tasks: Vec<JoinHandle<()>>,
}

impl World {
    /// A world with this modem and this printer.
    #[must_use]
    pub fn new(modem: ModemSim, printer: PrinterModel) -> Self {
        let shared = Shared {
            clock: modem.clock(),
            modem,
            printer: Mutex::new(PrinterCore::new(printer)),
            papers: Mutex::default(),
            millivolts: Mutex::new(MILLIVOLTS),
            entropy: Mutex::default(),
            panics: Mutex::default(),
            screen: watch::Sender::new(None),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Connects a machine that has just started: there is power again. Call it
    /// inside a tokio runtime.
    #[must_use]
    pub fn connect(&self, lines: Lines) -> Wiring {
        let Lines {
            console,
            modem,
            printer,
            control,
        } = lines;
        self.shared.modem.set_supply(true);
        let (keys, typed) = mpsc::channel(KEYS_WAITING_MAX);
        let (read, write) = console.into_split();
        let tasks = vec![
            tokio::spawn(end(type_keys(typed, write))),
            tokio::spawn(end(self.clone().watch_screen(read))),
            tokio::spawn(end(speak(modem, self.shared.modem.serial()))),
            tokio::spawn(end(self.clone().print(printer))),
            tokio::spawn(end(self.clone().control(control))),
        ];
        Wiring { keys, tasks }
    }

    /// The time in this world, milliseconds since it began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// The display: dark between machines.
    #[must_use]
    pub fn screen(&self) -> watch::Receiver<Option<Screen>> {
        self.shared.screen.subscribe()
    }

    /// Every paper that came out so far.
    #[must_use]
    pub fn papers(&self) -> Vec<Paper> {
        self.look_at_printer();
        self.shared.papers.lock().clone()
    }

    /// The lines of sources in which images have panicked; 0 is a fault.
    #[must_use]
    pub fn panics(&self) -> Vec<u32> {
        self.shared.panics.lock().clone()
    }

    /// Does something to the printer; the time goes with it.
    pub fn with_printer<T>(&self, act: impl FnOnce(&mut PrinterCore, u64) -> T) -> T {
        act(&mut self.shared.printer.lock(), self.shared.clock.now_ms())
    }

    /// From now on the battery has this voltage.
    pub fn set_millivolts(&self, millivolts: u16) {
        *self.shared.millivolts.lock() = millivolts;
    }

    /// From now on its random bytes come from there.
    pub fn set_entropy(&self, entropy: Entropy) {
        *self.shared.entropy.lock() = entropy;
    }

    /// The modem.
    #[must_use]
    pub fn modem(&self) -> &ModemSim {
        &self.shared.modem
    }

    /// The power is gone: the printer stops where it is, the modem is off, the
    /// display dark.
    pub fn cut_power(&self) {
        self.shared.modem.set_supply(false);
        self.with_printer(PrinterCore::cut_power);
        self.shared.screen.send_replace(None);
    }

    fn look_at_printer(&self) {
        let papers = self.with_printer(PrinterCore::take_papers);
        self.shared.papers.lock().extend(papers);
    }

    async fn watch_screen(self, mut line: OwnedReadHalf) -> io::Result<()> {
        let mut reader = ScreenReader::default();
        loop {
            for byte in read(&mut line).await? {
                if let Some(screen) = reader.take(byte) {
                    self.shared.screen.send_replace(Some(screen));
                }
            }
        }
    }

    async fn print(self, line: UnixStream) -> io::Result<()> {
        let (mut from, mut to) = line.into_split();
        loop {
            let due = self.with_printer(|printer, now_ms| {
                let in_ms = printer.due().map(|due| due.saturating_sub(now_ms));
                in_ms.map_or(PRINTER_LOOK, |in_ms| {
                    Duration::from_millis(in_ms).min(PRINTER_LOOK)
                })
            });
            if let Ok(bytes) = tokio::time::timeout(due, read(&mut from)).await {
                let bytes = bytes?;
                self.with_printer(|printer, now_ms| printer.take(&bytes, now_ms));
            }
            let answers = self.with_printer(PrinterCore::answers);
            to.write_all(&answers).await?;
            self.look_at_printer();
        }
    }

    async fn control(self, mut line: UnixStream) -> io::Result<()> {
        let mut reader = ControlReader::default();
        loop {
            for byte in read(&mut line).await? {
                match reader.take(byte) {
                    Some(Said::HowMuch) => {
                        let millivolts = *self.shared.millivolts.lock();
                        line.write_all(&control::millivolts(millivolts)).await?;
                    }
                    Some(Said::HowRandom) => {
                        let entropy = *self.shared.entropy.lock();
                        line.write_all(&entropy.bytes()?).await?;
                    }
                    Some(Said::KeyHigh) => self.shared.modem.press(true),
                    Some(Said::KeyLow) => self.shared.modem.press(false),
                    Some(Said::Panicked(line)) => self.shared.panics.lock().push(line),
                    None => {}
                }
            }
        }
    }
}

impl Wiring {
    /// Presses a key. It is lost if the machine is gone, or does not follow.
    pub fn press(&self, key: Key) {
        let _ = self.keys.try_send(key);
    }

    /// Waits until what the machine has sent before it ended has arrived.
    pub async fn drained(self) {
        drop(self.keys);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// A line ends with its machine, by whatever error.
async fn end(line: impl Future<Output = io::Result<()>>) {
    let _ = line.await;
}

async fn type_keys(mut keys: mpsc::Receiver<Key>, mut line: OwnedWriteHalf) -> io::Result<()> {
    while let Some(key) = keys.recv().await {
        line.write_all(&[console_byte(key)]).await?;
    }
    Ok(())
}

async fn speak(mut line: UnixStream, modem: Serial) -> io::Result<()> {
    let (mut from, mut to) = line.split();
    let mut said = [0; 256];
    loop {
        tokio::select! {
            heard = read(&mut from) => modem.push(&heard?),
            count = modem.take(&mut said) => {
                to.write_all(said.get(..count).unwrap_or_default()).await?;
            }
        }
    }
}

/// The next bytes; an error at the end.
async fn read(line: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    match line.read_buf(&mut bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(bytes),
    }
}
