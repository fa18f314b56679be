//! An emulated terminal before a person, its power cut by `kill -9`.
//!
//! Promises: the flash is the same file from machine to machine, and all that is;
//! who judges knows only what the display showed and what came out of the printer.
//! Never: a machine left behind.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use risiti_terminal::hardware::Key;
use risiti_terminal::limits::SETTINGS_BYTES_MAX;
use risiti_terminal::settings::Settings;
use risiti_terminal::wipe::Order;
use risiti_wire::seal::FIRST_GENERATION;
use tokio::time::{Instant, timeout_at};

use super::{Machine, MachineSpec, Wiring, World, blank_flash};
use crate::clock::SimClock;
use crate::modem::{Dialer, Family, ModemSetup, ModemSim};
use crate::network::NetworkProfile;
use crate::operator::{Act, Operator, text};
use crate::package::Package;
use crate::printer::{Paper, PrinterModel};
use crate::site::{Keys, Site};

/// Lines on a roll that a person puts in.
const ROLL_LINES: u64 = 10_000;

/// A person looks at the papers this often, too.
const LOOK: Duration = Duration::from_millis(50);

/// What an emulated terminal is set up with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The image.
    pub image: PathBuf,
    /// Its id.
    pub id: String,
    /// What it was given, its token and its keys; without it, it has no token and the
    /// keys of the simulated [`Site`].
    pub package: Option<Package>,
    /// `host:port` of its gateway.
    pub gateway: SocketAddr,
    /// The network between.
    pub network: NetworkProfile,
    /// How many times as fast time runs for it.
    pub pace: u32,
    /// Whether its flash keeps what was written; if not it is the negative
    /// control.
    pub keeps: bool,
    /// All chances are drawn from it.
    pub seed: u64,
}

/// What is going on at a terminal.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The person.
    pub operator: &'a Operator,
    /// Every paper that came out so far.
    pub papers: &'a [Paper],
    /// What the display showed when the person looked.
    pub shown: &'a str,
    /// The key that was then pressed.
    pub pressed: Option<Key>,
    /// Whether the printer is at work.
    pub prints: bool,
}

/// An emulated terminal. It has no power until [`boot`](Self::boot).
#[derive(Debug)]
pub struct EmulatedTerminal {
    spec: MachineSpec,
    dir: PathBuf,
    world: World,
    running: Option<(Machine, Wiring)>,
    chance: fastrand::Rng,
    boots: u32,
    cuts: u32,
}

impl EmulatedTerminal {
    /// A terminal with its files in `dir`, which outlives it; its flash is a virgin
    /// one unless it is there already. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// Its files can't be made, or its package is none.
    pub fn new<D: Dialer>(setup: &Setup, dir: &Path, dialer: D) -> io::Result<Self> {
        let spec = MachineSpec {
            image: setup.image.clone(),
            flash: dir.join("flash"),
            settings: dir.join("settings"),
            pace: setup.pace,
            keeps: setup.keeps,
        };
        blank_flash(&spec.flash)?;
        let mut settings = [0; SETTINGS_BYTES_MAX];
        let simulated = Site::default();
        let package = match &setup.package {
            Some(package) => package.clone(),
            None => Package::new(&setup.id, "", None).sealed(simulated.root(), FIRST_GENERATION)?,
        };
        let keys = package.keys()?;
        let len = Settings {
            seal: keys.as_ref().map(Keys::settings),
            own_keys: package.own_keys(),
            token: package.token.as_bytes(),
            id: &setup.id,
            host: &setup.gateway.ip().to_string(),
            port: setup.gateway.port(),
            apn: "internet",
            title: "SUNRISE SCHOOL",
            currency: 404,
            ..Settings::default()
        }
        .encode(&mut settings)
        .map_err(|error| io::Error::other(format!("settings: {error:?}")))?;
        fs::write(&spec.settings, &settings[..len])?;
        let mut chance = fastrand::Rng::with_seed(setup.seed);
        let modem = ModemSim::start(
            ModemSetup::new(Family::Sim800, setup.network.clone()),
            chance.u64(..),
            SimClock::faster(setup.pace),
            dialer,
        );
        Ok(Self {
            spec,
            dir: dir.to_owned(),
            world: World::new(modem, PrinterModel::default()),
            running: None,
            chance,
            boots: 0,
            cuts: 0,
        })
    }

    /// Puts the order to erase where its settings stood: what a technician flashes. It
    /// is looked at when it is given power.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn order_wipe(&self, order: Order) -> io::Result<()> {
        fs::write(&self.spec.settings, order.encode())
    }

    /// What its flash holds.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn flash(&self) -> io::Result<Vec<u8>> {
        fs::read(&self.spec.flash)
    }

    /// Gives it power.
    ///
    /// # Errors
    /// QEMU does not start.
    pub async fn boot(&mut self) -> io::Result<()> {
        let seed = self.chance.u64(..);
        let (machine, lines) = Machine::start(&self.spec, &self.dir, seed).await?;
        self.running = Some((machine, self.world.connect(lines)));
        self.boots += 1;
        Ok(())
    }

    /// Cuts its power: SIGKILL, wherever it is.
    pub async fn cut_power(&mut self) {
        if let Some((mut machine, wiring)) = self.running.take() {
            machine.kill();
            // What was on the lines is on its way, and arrives.
            wiring.drained().await;
            self.world.cut_power();
            self.cuts += 1;
        }
    }

    /// Has this person work at it until `until`, or until `stop` holds.
    ///
    /// # Errors
    /// QEMU has ended by itself.
    pub async fn attend(
        &mut self,
        operator: &mut Operator,
        until: Instant,
        mut stop: impl FnMut(&Moment<'_>) -> bool,
    ) -> io::Result<()> {
        let mut screens = self.world.screen();
        while Instant::now() < until {
            let Some((machine, wiring)) = &mut self.running else {
                return Err(io::Error::other("it has no power"));
            };
            if let Some(status) = machine.ended() {
                return Err(io::Error::other(format!("QEMU has ended: {status}")));
            }
            let papers = self.world.papers();
            let screen = screens.borrow_and_update().as_ref().map(text);
            let shown = screen.unwrap_or_default();
            let act = operator.act(&shown, &papers, self.world.now_ms());
            let mut pressed = None;
            let mut look_at = Instant::now() + LOOK;
            match act {
                Act::Press(key) => {
                    wiring.press(key);
                    pressed = Some(key);
                }
                Act::PutRoll => self
                    .world
                    .with_printer(|printer, now_ms| printer.put_roll(ROLL_LINES, now_ms)),
                Act::ClosePrinter => self
                    .world
                    .with_printer(|printer, now_ms| printer.set_open(false, now_ms)),
                Act::LookAt { at_ms } => {
                    let in_ms = at_ms.saturating_sub(self.world.now_ms());
                    let real = Duration::from_millis(in_ms) / self.spec.pace;
                    look_at = look_at.min(Instant::now() + real + Duration::from_millis(1));
                }
                Act::Done => {}
            }
            let prints = self
                .world
                .with_printer(|printer, _| printer.due().is_some());
            let moment = Moment {
                operator,
                papers: &papers,
                shown: &shown,
                pressed,
                prints,
            };
            if stop(&moment) {
                return Ok(());
            }
            // Either the screen changes, or it is time to look again.
            let _ = timeout_at(look_at.min(until), screens.changed()).await;
        }
        Ok(())
    }

    /// Presses a key; it is lost if it has no power.
    pub fn press(&self, key: Key) {
        if let Some((_, wiring)) = &self.running {
            wiring.press(key);
        }
    }

    /// What stands around it.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The display, as text; empty if it is dark.
    #[must_use]
    pub fn shown(&self) -> String {
        self.world
            .screen()
            .borrow()
            .as_ref()
            .map(text)
            .unwrap_or_default()
    }

    /// Waits until the display shows what `wanted` holds of.
    ///
    /// # Errors
    /// It did not by then; the error holds what it shows.
    pub async fn wait_shown(
        &self,
        until: Instant,
        wanted: impl Fn(&str) -> bool,
    ) -> io::Result<String> {
        let mut screens = self.world.screen();
        loop {
            let shown = self.shown();
            if wanted(&shown) {
                return Ok(shown);
            }
            if timeout_at(until, screens.changed()).await.is_err() {
                return Err(io::Error::other(format!("the display shows:\n{shown}")));
            }
        }
    }

    /// The board's RAM as it is now.
    ///
    /// # Errors
    /// It has no power, or QEMU does not answer.
    pub async fn ram(&mut self) -> io::Result<Vec<u8>> {
        match &mut self.running {
            Some((machine, _)) => machine.ram().await,
            None => Err(io::Error::other("it has no power")),
        }
    }

    /// How often its power was cut.
    #[must_use]
    pub fn cuts(&self) -> u32 {
        self.cuts
    }
}
