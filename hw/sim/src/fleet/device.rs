//! One simulated terminal: board, modem, battery, and whoever stands before it.
//!
//! Promises: the terminal is the firmware's own; what survives a power cut is
//! flash, paper and people's memory, nothing else. Never: a cut that the firmware
//! is told of.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use embassy_futures::select::{Either3, select, select3};
use embedded_hal::digital::{ErrorType, OutputPin};
use fastrand::Rng;
use risiti_terminal::energy::State;
use risiti_terminal::hardware::{Clock, Hardware};
use risiti_terminal::limits::SETTINGS_BYTES_MAX;
use risiti_terminal::modem::Sim800;
use risiti_terminal::settings::Settings;
use risiti_terminal::terminal;
use tokio::sync::{Notify, watch};

use super::board::{BoardClock, BoardEntropy, BoardFlash, BoardWatchdog, SimBoard};
use super::book::Book;
use super::console::Console;
use super::person::Person;
use super::{Order, TerminalSpec, lock};
use crate::battery::{Battery, BatteryProfile, Gauge};
use crate::clock::SimClock;
use crate::modem::{Dialer, Family, ModemSetup, ModemSim, PowerKey, Serial};
use crate::nor::Nor;
use crate::operator::Operator;
use crate::printer::Printer;
use crate::site::{Keys, Site};
use crate::village::EPOCH_S;

type Modem = Sim800<Serial, WatchedKey, BoardClock>;

/// One terminal with all that stays when its power is cut.
pub struct Device {
    spec: TerminalSpec,
    settings: Vec<u8>,
    world: SimClock,
    nor: Nor,
    printer: Rc<Printer<SimClock>>,
    gauge: Gauge<SimClock>,
    modem: ModemSim,
    key: Rc<Notify>,
    console: Console,
    book: Arc<Mutex<Book>>,
    orders: watch::Receiver<Order>,
    chance: Rng,
}

impl Device {
    /// A new terminal with a blank flash. `book` is what is known of it outside.
    pub fn new<D: Dialer>(
        spec: TerminalSpec,
        world: &SimClock,
        dialer: D,
        book: Arc<Mutex<Book>>,
        orders: watch::Receiver<Order>,
        mut chance: Rng,
    ) -> Self {
        let mut setup = ModemSetup::new(Family::Sim800, spec.network.clone());
        setup.began_s = EPOCH_S;
        // A serial line's time is some milliseconds, and an event for each line.
        setup.baud = None;
        setup.chatter = spec.chatter;
        let modem = ModemSim::start(setup, chance.u64(..), world.clone(), dialer);
        let (profile, charge) = spec.battery.unwrap_or((BatteryProfile::SOLAR, 1.0));
        let battery = Battery::new(profile, charge, chance.u64(..));
        let mut settings = vec![0; SETTINGS_BYTES_MAX];
        let keys = Site::default()
            .keys(&spec.id)
            .expect("a simulation names its terminals as terminals");
        let length = provision(&spec, &keys)
            .encode(&mut settings)
            .expect("what a simulation provisions is within its bounds");
        settings.truncate(length);
        Self {
            settings,
            nor: Nor::new(spec.flash_bytes),
            printer: Rc::new(Printer::new(spec.printer, world.clone())),
            gauge: Gauge::new(battery, world.clone()),
            modem,
            key: Rc::default(),
            console: Console::default(),
            world: world.clone(),
            book,
            orders,
            chance,
            spec,
        }
    }

    /// The modem's controls.
    pub fn modem(&self) -> &ModemSim {
        &self.modem
    }

    /// Lives until all terminals are to vanish.
    pub async fn live(mut self) {
        let now_ms = self.world.now_ms();
        let habits = self.spec.habits.clone();
        let operator = Operator::new(habits, self.chance.u64(..), now_ms);
        let person = Person::new(
            self.world.clone(),
            self.console.clone(),
            Rc::clone(&self.printer),
            operator,
            Arc::clone(&self.book),
            self.orders.clone(),
        );
        let mut orders = self.orders.clone();
        let vanishes = async {
            // Whoever gives orders is gone: nobody wants to know any more.
            let _ = orders.wait_for(|order| *order == Order::Vanish).await;
        };
        let printer = Rc::clone(&self.printer);
        let (book, world) = (Arc::clone(&self.book), self.world.clone());
        select3(vanishes, person.run(), self.power()).await;
        for paper in printer.take_papers() {
            lock(&book).paper(&paper, world.now_ms());
        }
    }

    /// Power comes and goes.
    async fn power(&mut self) {
        loop {
            self.nor.power_up();
            self.modem.set_supply(true);
            let image = self.spec.forgets.then(|| self.nor.image());
            let why = self.work().await;
            if let Some(image) = image {
                self.nor.overwrite(0, &image);
            }
            self.console.switch_off();
            self.nor.cut_now();
            self.printer
                .with(|printer, now_ms| printer.cut_power(now_ms));
            match why {
                Why::Cut { dark_ms } => {
                    lock(&self.book).power_cuts += 1;
                    self.modem.set_supply(false);
                    self.world.sleep(dark_ms).await;
                }
                Why::Battery => {
                    lock(&self.book).brown_outs += 1;
                    self.modem.set_supply(false);
                    self.charge().await;
                }
                // The modem has its own supply and notices nothing.
                Why::Watchdog => lock(&self.book).resets += 1,
            }
        }
    }

    /// From a start to the end of power.
    async fn work(&mut self) -> Why {
        let clock = BoardClock::start(&self.world);
        let (keypad, display) = self.console.switch_on();
        let (watchdog, reset) = BoardWatchdog::start(&clock);
        let key = WatchedKey {
            key: self.modem.power_key(),
            pressed: Rc::clone(&self.key),
        };
        let settings = Settings::decode(&self.settings)
            .expect("these settings were encoded by this very crate");
        let hardware = Hardware::<SimBoard<Modem>> {
            flash: BoardFlash::new(&self.nor),
            keypad,
            display,
            printer: self.printer.line(),
            modem: Modem::new(self.modem.serial(), key, clock.clone()),
            battery: self.gauge.clone(),
            watchdog,
            entropy: BoardEntropy(Rng::with_seed(self.chance.u64(..))),
            seed: self.chance.u64(..),
            clock,
        };
        let terminal = Box::pin(terminal::run(hardware, &settings));
        let cut = self.spec.cuts.map(|cuts| cuts.draw(&mut self.chance));
        let powered = async {
            match &cut {
                Some(cut) => {
                    cut.run(terminal, self.due(cut.after_ms), &self.nor).await;
                    Why::Cut {
                        dark_ms: cut.dark_ms,
                    }
                }
                None => match terminal.await {},
            }
        };
        let lasting = async {
            match self.spec.battery {
                Some(_) => self.discharge().await,
                None => std::future::pending().await,
            }
        };
        match select3(powered, reset.reset(), lasting).await {
            Either3::First(why) => why,
            Either3::Second(()) => Why::Watchdog,
            Either3::Third(()) => Why::Battery,
        }
    }

    /// Ends when a cut is due; never while the terminals rest.
    async fn due(&self, after_ms: u64) {
        self.world.sleep(after_ms).await;
        if *self.orders.borrow() != Order::Work {
            std::future::pending::<()>().await;
        }
    }

    /// Ends when the battery gives up.
    async fn discharge(&self) {
        let mut warned = false;
        loop {
            let state = self.modem.state();
            let (millivolts, down) = self.gauge.with(|battery, now_ms| {
                battery.set_load(BOARD_MA + load_ma(state), now_ms);
                (battery.millivolts(now_ms), battery.is_down(now_ms))
            });
            if down {
                return;
            }
            if state == State::Off {
                warned = false;
                let rest = self.world.sleep(LOOK_IDLE_MS);
                select(rest, self.key.notified()).await;
                continue;
            }
            if millivolts < UNDER_VOLTAGE_MV && !warned {
                warned = true;
                self.modem.under_voltage(false);
            }
            self.world.sleep(LOOK_BUSY_MS).await;
        }
    }

    /// Ends when the battery can start the board again.
    async fn charge(&self) {
        loop {
            let down = self.gauge.with(|battery, now_ms| {
                battery.set_load(0.0, now_ms);
                battery.is_down(now_ms)
            });
            if !down {
                return;
            }
            self.world.sleep(LOOK_IDLE_MS).await;
        }
    }
}

/// Why a terminal has no power.
enum Why {
    Cut { dark_ms: u64 },
    Battery,
    Watchdog,
}

fn provision<'a>(spec: &'a TerminalSpec, keys: &'a Keys) -> Settings<'a> {
    Settings {
        id: &spec.id,
        host: "127.0.0.1",
        apn: "internet",
        currency: 404,
        title: "KIJIJI SACCO",
        patience_ms: u16::try_from(spec.patience.as_millis()).unwrap_or(u16::MAX),
        resend_after_s: u32::try_from(spec.resend_after.as_secs()).unwrap_or(u32::MAX),
        seal: Some(keys.settings()),
        ..Settings::default()
    }
}

/// What the modem's states take from a battery: the currents of its datasheet,
/// with the bursts of a connection as what they are for a battery's sag.
fn load_ma(state: State) -> f64 {
    match state {
        State::Off => 0.15,
        State::Idle => 18.0,
        State::Data => 450.0,
    }
}

/// Everything else on the board, asleep most of the time.
const BOARD_MA: f64 = 1.5;

/// A SIM800 says `UNDER-VOLTAGE WARNNING` below this.
const UNDER_VOLTAGE_MV: u16 = 3_300;

/// How often a battery is looked at with the modem on: its slow resistance takes
/// a minute.
const LOOK_BUSY_MS: u64 = 1_000;

/// And with the modem off: the sun moves.
const LOOK_IDLE_MS: u64 = 600_000;

/// The power key's pin, and a bell for the battery.
#[derive(Debug)]
pub struct WatchedKey {
    key: PowerKey,
    pressed: Rc<Notify>,
}

impl ErrorType for WatchedKey {
    type Error = Infallible;
}

impl OutputPin for WatchedKey {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.key.set_low()
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.pressed.notify_one();
        self.key.set_high()
    }
}
