//! What errands cost on the air, one by one.
//!
//! Promises: the firmware's own core through a simulated modem to the village,
//! driven by keys; bytes counted by the gateway, seconds and joules by the modem.
//! Never: a first errand, which subscribes and reports; it is over before.

use std::fmt;
use std::time::Duration;

use embassy_futures::select::{Either, select};
use risiti_terminal::energy::{Radio, State};
use risiti_terminal::hardware::{Clock, Hardware, Key};
use risiti_terminal::modem::Sim800;
use risiti_terminal::settings::Settings;
use risiti_terminal::terminal;

use super::board::{BoardClock, BoardEntropy, BoardFlash, BoardWatchdog, SimBoard};
use super::console::Console;
use crate::battery::{Battery, BatteryProfile, Gauge};
use crate::clock::SimClock;
use crate::modem::{Family, ModemSetup, ModemSim, PowerKey, Serial};
use crate::network::NetworkProfile;
use crate::nor::Nor;
use crate::printer::{Printer, PrinterModel};
use crate::site::Site;
use crate::village::{SettlementProfile, Traffic, Village, VillageProfile};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// So many payments, each with its receipt.
    Payments(u32),
    /// The key that fetches, with nothing waiting.
    Idle,
}

/// What it costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Airtime {
    /// What was done.
    pub errand: Errand,
    /// What passed.
    pub traffic: Traffic,
    /// With the modem powered, from its key to its power-down, seconds.
    pub radio_s: f64,
    /// Of them with packet data, seconds.
    pub data_s: f64,
    /// Taken by the modem, joules.
    pub energy_j: f64,
    /// From the modem's being ready to the PUBACK of the last receipt, in round
    /// trips; none without a receipt. Exact where nothing else takes time.
    pub round_trips: Option<f64>,
}

impl Airtime {
    /// MQTT in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.traffic.up_bytes + self.traffic.down_bytes
    }
}

/// What a board and its people are for one measurement.
struct Desk {
    world: SimClock,
    village: Village,
    modem: ModemSim,
    printer: Printer<SimClock>,
    console: Console,
}

/// Its id: what real ones have.
const ID: &str = "ke-00042";

/// Measures an errand on this network. `instant`: the gateway and settlement take
/// no time, so that round trips can be told; else a disk takes 5 ms, and
/// settlement 300 ms. Call it in a `LocalSet` on a paused clock, or it takes as
/// long as it takes.
pub async fn measure(errand: Errand, network: NetworkProfile, instant: bool) -> Airtime {
    let round_trip = network.link.round_trip;
    // In a task of its own: the firmware's queues wake a waker that is not the one
    // they know, and that of a runtime's first future is a new one each time.
    let measuring = tokio::task::spawn_local(async move {
        let desk = Desk::new(network, instant);
        let carried = desk.village.clone();
        let carrying = tokio::spawn(async move { carried.run().await });
        let measured = select(desk.terminal(), desk.measure(errand)).await;
        carrying.abort();
        match measured {
            Either::First(never) => match never {},
            Either::Second(measured) => measured,
        }
    });
    let (traffic, radio) = measuring.await.expect("nobody ends it before");
    let trips = |after_ms: u64| {
        let after = Duration::from_millis(after_ms) + round_trip; // TCP's own
        after.as_secs_f64() / round_trip.as_secs_f64()
    };
    Airtime {
        errand,
        traffic,
        radio_s: radio.on_ms as f64 / 1e3,
        data_s: radio.connected_ms as f64 / 1e3,
        energy_j: radio.energy_mj as f64 / 1e3,
        round_trips: (traffic.delivered_after_ms > 0).then(|| trips(traffic.delivered_after_ms)),
    }
}

impl Desk {
    fn new(network: NetworkProfile, instant: bool) -> Self {
        let world = SimClock::start();
        let (durable_ms, answer_ms) = if instant { (0, 0) } else { (5, 300) };
        let profile = VillageProfile {
            durable_after_ms: (durable_ms, durable_ms),
            forward_after_ms: (0, 0),
            settlement: SettlementProfile {
                answers_after_ms: (answer_ms, answer_ms),
                slow_of_1000: 0,
                rejects_of_1000: 0,
                wordy: false,
                ..SettlementProfile::default()
            },
        };
        let village = Village::new(profile, 1);
        let mut setup = ModemSetup::new(Family::Sim800, network);
        if instant {
            setup.baud = None;
        }
        let modem = ModemSim::start(setup, 1, world.clone(), village.clone());
        Self {
            printer: Printer::new(PrinterModel::default(), world.clone()),
            console: Console::default(),
            world,
            village,
            modem,
        }
    }

    async fn terminal(&self) -> std::convert::Infallible {
        type Modem = Sim800<Serial, PowerKey, BoardClock>;
        let clock = BoardClock::start(&self.world);
        let (keypad, display) = self.console.switch_on();
        let (watchdog, _reset) = BoardWatchdog::start(&clock);
        let nor = Nor::new(64 * 1024);
        let battery = Battery::new(BatteryProfile::SOLAR, 1.0, 1);
        let hardware = Hardware::<SimBoard<Modem>> {
            flash: BoardFlash::new(&nor),
            keypad,
            display,
            printer: self.printer.line(),
            modem: Modem::new(self.modem.serial(), self.modem.power_key(), clock.clone()),
            battery: Gauge::new(battery, self.world.clone()),
            watchdog,
            entropy: BoardEntropy(fastrand::Rng::with_seed(1)),
            seed: 1,
            clock,
        };
        let keys = Site::default().keys(ID).expect("it is a terminal's id");
        let settings = Settings {
            id: ID,
            host: "10.0.0.1",
            currency: 404,
            seal: Some(keys.settings()),
            ..Settings::default()
        };
        terminal::run(hardware, &settings).await
    }

    async fn measure(&self, errand: Errand) -> (Traffic, Radio) {
        // The first errand is due within seconds of the start.
        self.world.sleep(10 * 60_000).await;
        let (traffic, radio) = (self.village.traffic(ID), self.modem.radio());
        match errand {
            Errand::Idle => self.press(Key::Fetch).await,
            Errand::Payments(count) => {
                for _ in 0..count {
                    self.pay().await;
                }
            }
        }
        while self.village.traffic(ID) == traffic || self.modem.state() != State::Off {
            self.world.sleep(10).await;
        }
        let after = self.modem.radio();
        let radio = Radio {
            on_ms: after.on_ms - radio.on_ms,
            connected_ms: after.connected_ms - radio.connected_ms,
            energy_mj: after.energy_mj - radio.energy_mj,
            ..Radio::default()
        };
        (self.village.traffic(ID).since(&traffic), radio)
    }

    /// By quick hands: three of them before the modem has found its network.
    async fn pay(&self) {
        for digit in [4, 2, 4, 2, 4, 2, 4, 2] {
            self.press(Key::Digit(digit)).await;
        }
        self.press(Key::Enter).await;
        for digit in [1, 5, 0, 0, 0, 0] {
            self.press(Key::Digit(digit)).await;
        }
        self.press(Key::Enter).await;
        self.world.sleep(500).await;
        self.press(Key::Enter).await;
        self.world.sleep(500).await;
    }

    async fn press(&self, key: Key) {
        self.console.press(key);
        self.world.sleep(20).await;
    }
}

impl fmt::Display for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payments(1) => f.write_str("1 payment, its receipt"),
            Self::Payments(count) => write!(f, "{count} payments, their receipts"),
            Self::Idle => f.write_str("idle check"),
        }
    }
}

/// The rows of a table, with its head.
#[derive(Debug, Clone)]
pub struct AirtimeTable(pub Vec<Airtime>);

impl fmt::Display for AirtimeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| errand | MQTT bytes up | down | all | packets up / down | segments up / down | radio, s | with data, s | modem, J |"
        )?;
        write!(
            f,
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
        )?;
        for row in &self.0 {
            let traffic = &row.traffic;
            write!(
                f,
                "\n| {} | {} | {} | {} | {} / {} | {} / {} | {:.1} | {:.1} | {:.2} |",
                row.errand,
                traffic.up_bytes,
                traffic.down_bytes,
                row.bytes(),
                traffic.up_packets,
                traffic.down_packets,
                traffic.up_segments,
                traffic.down_segments,
                row.radio_s,
                row.data_s,
                row.energy_j,
            )?;
        }
        Ok(())
    }
}
