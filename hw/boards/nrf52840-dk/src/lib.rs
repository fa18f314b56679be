//! Nordic nRF52840 DK (PCA10056): the board to buy, with 8 MB of NOR flash on it.
//!
//! Promises: pins, clocks, memory and drivers, and nothing else; the processor
//! sleeps whenever nothing is due. Never: a decision of the terminal's.
//!
//! | pin | Arduino | goes to |
//! | --- | --- | --- |
//! | P1.01 | D0 | modem TXD |
//! | P1.02 | D1 | modem RXD |
//! | P1.03 | D2 | modem PWRKEY, through a transistor: high presses it |
//! | P1.04 | D3 | printer TXD |
//! | P1.05 | D4 | printer RXD |
//! | P1.15 | D13 | printer's supply: high switches it on |
//! | P1.06, P1.07, P1.08, P1.10 | D5 to D8 | keypad rows 1 to 4 |
//! | P1.11, P1.12, P1.13, P1.14 | D9 to D12 | keypad columns 1 to 4 |
//! | P0.26, P0.27 | SDA, SCL | display |
//! | P0.03 | A0 | half of the battery's voltage |
//! | P0.17, P0.19 to P0.23 | on the board | NOR flash |
//!
//! `hw/README.md` has the wiring step by step and the bill of materials.
#![no_std]

pub mod battery;
mod bound;
pub mod clock;
pub mod display;
mod entropy;
pub mod keypad;
pub mod nor;
pub mod printer;
mod watchdog;

use embassy_futures::join::{join, join3};
use embassy_nrf::buffered_uarte::BufferedUarte;
use embassy_nrf::gpio::{Input, Level, Output, OutputDrive, Pull};
use embassy_nrf::twim::{self, Twim};
use embassy_nrf::uarte::{self, Baudrate};
use static_cell::ConstStaticCell;

use battery::Battery;
use bound::Interrupts;
use clock::Clock;
use display::Display;
pub use entropy::Entropy;
use keypad::{Keypad, Matrix};
use nor::Nor;
use printer::Printer;
use risiti_terminal::hardware::{Board, Hardware};
use risiti_terminal::modem::Sim800;
pub use watchdog::Watchdog;

/// The modem adapts to it.
const MODEM_BAUD: Baudrate = Baudrate::Baud115200;

/// As small receipt printers come.
const PRINTER_BAUD: Baudrate = Baudrate::Baud9600;

/// What a modem says while the terminal writes to flash: 20 ms at 115,200 baud.
static MODEM_IN: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);
static MODEM_OUT: ConstStaticCell<[u8; 64]> = ConstStaticCell::new([0; 64]);
/// Its answers are of a byte each.
static PRINTER_IN: ConstStaticCell<[u8; 32]> = ConstStaticCell::new([0; 32]);
static PRINTER_OUT: ConstStaticCell<[u8; 64]> = ConstStaticCell::new([0; 64]);
/// The display's commands that stand in flash.
static DISPLAY_OUT: ConstStaticCell<[u8; 32]> = ConstStaticCell::new([0; 32]);

/// The board.
#[derive(Debug)]
pub enum Nrf52840Dk {}

impl Board for Nrf52840Dk {
    type Clock = Clock;
    type Flash = Nor;
    type Keypad = Keypad;
    type Display = Display;
    type Printer = Printer;
    type Modem = Sim800<BufferedUarte<'static>, Output<'static>, Clock>;
    type Battery = Battery;
    type Watchdog = Watchdog;
    type Entropy = Entropy;
}

/// What goes on beside the terminal: keys are scanned, screens drawn, and what
/// nobody uses is put to sleep.
pub struct Background {
    matrix: Matrix,
    panel: Twim<'static>,
}

impl Background {
    /// To be polled together with the terminal. Never returns.
    pub async fn run(mut self) {
        let rest = join(nor::rest(), printer::rest());
        join3(self.matrix.scan(), display::draw(self.panel), rest).await;
    }
}

/// Starts the board. To be called once, first of all.
pub async fn take() -> (Hardware<Nrf52840Dk>, Background) {
    let mut config = embassy_nrf::config::Config::default();
    // The internal oscillator may be 8 % off: too much for a serial line.
    config.hfclk_source = embassy_nrf::config::HfclkSource::ExternalXtal;
    config.lfclk_source = embassy_nrf::config::LfclkSource::ExternalXtal;
    config.dcdc.reg1 = true;
    let p = embassy_nrf::init(config);

    let watchdog = Watchdog::start(p.WDT);
    let mut serial = uarte::Config::default();
    serial.baudrate = MODEM_BAUD;
    let modem_line = BufferedUarte::new(
        p.UARTE1,
        p.TIMER1,
        p.PPI_CH0,
        p.PPI_CH1,
        p.PPI_GROUP0,
        p.P1_01,
        p.P1_02,
        Interrupts,
        serial,
        MODEM_IN.take(),
        MODEM_OUT.take(),
    );
    let mut serial = uarte::Config::default();
    serial.baudrate = PRINTER_BAUD;
    let line = BufferedUarte::new(
        p.UARTE0,
        p.TIMER2,
        p.PPI_CH2,
        p.PPI_CH3,
        p.PPI_GROUP1,
        p.P1_04,
        p.P1_05,
        Interrupts,
        serial,
        PRINTER_IN.take(),
        PRINTER_OUT.take(),
    );
    let mut bus = twim::Config::default();
    bus.frequency = twim::Frequency::K400;
    bus.sda_pullup = true;
    bus.scl_pullup = true;
    let panel = Twim::new(
        p.TWISPI0,
        Interrupts,
        p.P0_26,
        p.P0_27,
        bus,
        DISPLAY_OUT.take(),
    );

    // A row that is not asked is let go, or two keys at once would short two rows.
    let drive = OutputDrive::Standard0Disconnect1;
    let matrix = Matrix {
        rows: [
            Output::new(p.P1_06, Level::High, drive),
            Output::new(p.P1_07, Level::High, drive),
            Output::new(p.P1_08, Level::High, drive),
            Output::new(p.P1_10, Level::High, drive),
        ],
        columns: [
            Input::new(p.P1_11, Pull::Up),
            Input::new(p.P1_12, Pull::Up),
            Input::new(p.P1_13, Pull::Up),
            Input::new(p.P1_14, Pull::Up),
        ],
    };
    let wires = nor::Wires {
        bus: p.QSPI,
        clock: p.P0_19,
        select: p.P0_17,
        io0: p.P0_20,
        io1: p.P0_21,
        io2: p.P0_22,
        io3: p.P0_23,
    };
    let mut entropy = Entropy::start(p.RNG);
    let seed = entropy.seed();

    let supply = Output::new(p.P1_15, Level::Low, OutputDrive::Standard);
    let power_key = Output::new(p.P1_03, Level::Low, OutputDrive::Standard);
    let hardware = Hardware {
        clock: Clock,
        flash: Nor::start(wires).await,
        keypad: Keypad(()),
        display: Display(()),
        printer: Printer::start(line, supply),
        modem: Sim800::new(modem_line, power_key, Clock),
        battery: Battery {
            converter: p.SAADC,
            input: p.P0_03,
        },
        watchdog,
        entropy,
        seed,
    };
    (hardware, Background { matrix, panel })
}

/// The settings, as `make flash` wrote them: somewhere in these bytes.
#[must_use]
pub fn settings() -> &'static [u8] {
    bound::settings()
}

/// Notes which line of a source has panicked, and starts anew.
pub fn panicked(line: u32) -> ! {
    let [low, high, ..] = line.to_le_bytes();
    // These two outlast the reset.
    embassy_nrf::pac::POWER
        .gpregret()
        .write(|w| w.set_gpregret(low));
    embassy_nrf::pac::POWER
        .gpregret2()
        .write(|w| w.set_gpregret(high));
    cortex_m::peripheral::SCB::sys_reset()
}
