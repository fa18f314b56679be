//! Arm MPS2 with the FPGA image AN386 (Cortex-M4F), as QEMU emulates it: the
//! board on which a terminal runs without any hardware.
//!
//! Promises: the peripherals behave as those of a real board do, slow flash and
//! all. Never: a way into the terminal that a real board does not have.
//!
//! UART0 is keypad and display ([`console`]), UART1 the modem, UART2 the printer,
//! UART3 the rest of the world ([`control`]).
#![no_std]

pub mod clock;
pub mod console;
pub mod control;
pub mod nor;
mod registers;
pub mod serial;
mod watchdog;

use clock::Clock;
use console::{Display, Keypad};
use control::{Battery, Entropy, PowerKey};
use nor::Nor;
use risiti_terminal::hardware::{Board, Hardware};
use risiti_terminal::modem::Sim800;
use serial::{Sender, Serial};
pub use watchdog::Watchdog;

/// Speed of the lines to the modem and the printer. The emulator's have none.
const BAUD: u32 = 115_200;

/// The emulated board.
#[derive(Debug)]
pub enum Mps2An386 {}

impl Board for Mps2An386 {
    type Clock = Clock;
    type Flash = Nor;
    type Keypad = Keypad;
    type Display = Display;
    type Printer = Serial;
    type Modem = Sim800<Serial, PowerKey, Clock>;
    type Battery = Battery;
    type Watchdog = Watchdog;
    type Entropy = Entropy;
}

/// Starts the board. To be called once, first of all.
#[must_use]
pub fn take() -> Hardware<Mps2An386> {
    let clock = Clock::start();
    let console = Serial::start(0, BAUD);
    let modem = Serial::start(1, BAUD);
    let control = Serial::start(control::LINE, BAUD);
    let power_key = PowerKey(Sender::of(control::LINE));
    let hardware = Hardware {
        clock,
        flash: Nor::start(clock),
        keypad: Keypad(console.receiver),
        display: Display(console.sender),
        printer: Serial::start(2, BAUD),
        modem: Sim800::new(modem, power_key, clock),
        battery: Battery::new(control, clock),
        watchdog: Watchdog::start(),
        entropy: Entropy::new(clock),
        seed: registers::seed(),
    };
    registers::enable_interrupts();
    hardware
}

/// The settings, as a host wrote them: somewhere in these bytes.
#[must_use]
pub fn settings() -> &'static [u8] {
    registers::settings()
}

/// Says which line of a source has panicked, and starts anew.
pub fn panicked(line: u32) -> ! {
    control::tell_panic(line);
    cortex_m::peripheral::SCB::sys_reset()
}
