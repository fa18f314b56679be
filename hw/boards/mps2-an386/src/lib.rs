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
use control::{Battery, PowerKey};
use nor::Nor;
use serial::{Sender, Serial};
pub use watchdog::Watchdog;

/// Speed of the lines to the modem and the printer. The emulator's have none.
const BAUD: u32 = 115_200;

/// What a board is made of.
pub struct Parts {
    /// Time.
    pub clock: Clock,
    /// The NOR flash.
    pub flash: Nor,
    /// The keys.
    pub keypad: Keypad,
    /// The display.
    pub display: Display,
    /// The line to the printer.
    pub printer: Serial,
    /// The line to the modem.
    pub modem_line: Serial,
    /// The modem's power key.
    pub power_key: PowerKey,
    /// The battery gauge.
    pub battery: Battery,
    /// The watchdog.
    pub watchdog: Watchdog,
    /// Differs from start to start.
    pub seed: u64,
}

/// Starts the board. To be called once, first of all.
#[must_use]
pub fn take() -> Parts {
    let clock = Clock::start();
    let console = Serial::start(0, BAUD);
    let control = Serial::start(control::LINE, BAUD);
    let parts = Parts {
        clock,
        flash: Nor::start(clock),
        keypad: Keypad(console.receiver),
        display: Display(console.sender),
        modem_line: Serial::start(1, BAUD),
        printer: Serial::start(2, BAUD),
        power_key: PowerKey(Sender::of(control::LINE)),
        battery: Battery::new(control, clock),
        watchdog: Watchdog::start(),
        seed: registers::seed(),
    };
    registers::enable_interrupts();
    parts
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
