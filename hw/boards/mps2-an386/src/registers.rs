//! The registers and interrupts of the board: the only file with `unsafe` in it.
//!
//! Promises: what it hands out can be called from anywhere without harm to
//! memory safety. Never: a decision; the drivers around it make those.
//!
//! | at | what | interrupt |
//! | --- | --- | --- |
//! | 0x4000_2000 | dual timer (SP804) at 25 MHz: 1 the clock, 2 the alarm | 10 |
//! | 0x4000_4000 | UART0: keypad and display | receive 0, send 1 |
//! | 0x4000_5000 | UART1: modem | 2, 3 |
//! | 0x4000_6000 | UART2: printer | 4, 5 |
//! | 0x4000_7000 | UART3: control | 18, 19 |
//! | 0x4000_8000 | watchdog (SP805) at 25 MHz | reset |
//! | 0x0038_0000 | settings, put there by the emulator | |
//! | 0x0038_0400 | seed, 8 bytes, put there by the emulator | |
//! | 0x0038_0408 | how many times as fast the clock runs, likewise; 0 is once | |
//! | 0x2100_0000 | 16 MB that outlive the emulator: the NOR flash | |
#![allow(unsafe_code)]

use cortex_m::peripheral::NVIC;
use cortex_m_rt::{ExceptionFrame, exception};
use risiti_terminal::limits::SETTINGS_BYTES_MAX;

use crate::{clock, control, serial};

/// What the timers and UARTs run at.
pub const CLOCK_HZ: u32 = 25_000_000;

/// Bytes of the NOR flash that are used: as much as the chip on a real board.
pub const NOR_BYTES: usize = 8 * 1024 * 1024;

const SETTINGS: usize = 0x0038_0000;
const SEED: usize = 0x0038_0400;
const _: () = assert!(SETTINGS + SETTINGS_BYTES_MAX <= SEED);
const PACE: usize = 0x0038_0408;
const NOR: usize = 0x2100_0000;

/// A UART of the board.
#[derive(Clone, Copy)]
pub struct UartRegisters(usize);

/// The UARTs, by their number.
pub const UARTS: [UartRegisters; 4] = [
    UartRegisters(0x4000_4000),
    UartRegisters(0x4000_5000),
    UartRegisters(0x4000_6000),
    UartRegisters(0x4000_7000),
];

/// Receive and send interrupts of each UART.
const UART_INTERRUPTS: [(u16, u16); 4] = [(0, 1), (2, 3), (4, 5), (18, 19)];
const TIMER_INTERRUPT: u16 = 10;

fn read(at: usize) -> u32 {
    // SAFETY: every caller passes the address of a register of this board, which
    // may be read at any time.
    unsafe { core::ptr::with_exposed_provenance::<u32>(at).read_volatile() }
}

fn write(at: usize, value: u32) {
    // SAFETY: every caller passes the address of a register of this board; none
    // of them makes the board access memory.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(at).write_volatile(value) }
}

impl UartRegisters {
    const DATA: usize = 0x00;
    const STATE: usize = 0x04;
    const CONTROL: usize = 0x08;
    const INTERRUPT: usize = 0x0C;
    const DIVISOR: usize = 0x10;

    /// Sets the speed and enables both ways, with their interrupts.
    pub fn start(self, baud: u32) {
        write(self.0 + Self::DIVISOR, CLOCK_HZ / baud);
        self.receive_interrupt(true);
    }

    /// Whether a byte that was received interrupts; it waits otherwise.
    pub fn receive_interrupt(self, on: bool) {
        let receive = if on { 0b1000 } else { 0 };
        write(self.0 + Self::CONTROL, 0b0111 | receive);
    }

    /// The byte that was received, if there is one.
    pub fn receive(self) -> Option<u8> {
        let full = read(self.0 + Self::STATE) & 0b10 != 0;
        full.then(|| read(self.0 + Self::DATA) as u8)
    }

    /// Whether a byte can be sent now.
    pub fn can_send(self) -> bool {
        read(self.0 + Self::STATE) & 0b01 == 0
    }

    /// Sends this byte.
    pub fn send(self, byte: u8) {
        write(self.0 + Self::DATA, u32::from(byte));
    }

    /// Takes both interrupts back.
    pub fn clear(self) {
        write(self.0 + Self::INTERRUPT, 0b11);
    }
}

/// The dual timer: 32 bits that count down at [`TICKS`](timer::TICKS_HZ_TIMES_64).
pub mod timer {
    use super::{read, write};

    /// Ticks a second, times 64: the clock divided by 256 is 97,656.25 Hz.
    pub const TICKS_HZ_TIMES_64: u32 = super::CLOCK_HZ / 4;

    const BASE: usize = 0x4000_2000;
    const ALARM: usize = BASE + 0x20;
    const LOAD: usize = 0x00;
    const VALUE: usize = 0x04;
    const CONTROL: usize = 0x08;
    const CLEAR: usize = 0x0C;
    /// Enabled, 32 bits, divided by 256.
    const RUN: u32 = 0b1000_1010;
    const INTERRUPT: u32 = 0b0010_0000;
    const ONE_SHOT: u32 = 0b0000_0001;

    /// Starts the clock.
    pub fn start() {
        write(BASE + LOAD, u32::MAX);
        write(BASE + CONTROL, RUN);
    }

    /// Ticks since the start, which wrap.
    pub fn ticks() -> u32 {
        u32::MAX - read(BASE + VALUE)
    }

    /// Interrupts once after so many ticks.
    pub fn alarm(ticks: u32) {
        write(ALARM + CONTROL, 0);
        write(ALARM + CLEAR, 1);
        write(ALARM + LOAD, ticks.max(1));
        write(ALARM + CONTROL, RUN | INTERRUPT | ONE_SHOT);
    }

    /// Takes the alarm's interrupt back.
    pub fn alarm_over() {
        write(ALARM + CONTROL, 0);
        write(ALARM + CLEAR, 1);
    }
}

/// The watchdog.
pub mod watchdog {
    use super::{read, write};

    const BASE: usize = 0x4000_8000;
    const LOAD: usize = BASE;
    const CONTROL: usize = BASE + 0x08;
    const CLEAR: usize = BASE + 0x0C;
    const LOCK: usize = BASE + 0xC00;
    const KEY: u32 = 0x1ACC_E551;

    /// Resets the board after twice so many ticks of its 25 MHz without a
    /// [`feed`].
    pub fn start(ticks: u32) {
        write(LOCK, KEY);
        write(LOAD, ticks);
        write(CONTROL, 0b11);
    }

    /// Starts the time anew.
    pub fn feed() {
        write(LOCK, KEY);
        write(CLEAR, read(LOAD));
    }
}

/// What the emulator put there: the settings as a host wrote them.
pub fn settings() -> &'static [u8; SETTINGS_BYTES_MAX] {
    // SAFETY: this memory is outside of what the linker knows, holds what it
    // holds from before the reset on, and nothing writes to it.
    unsafe { &*core::ptr::with_exposed_provenance(SETTINGS) }
}

/// What the emulator put there: a number that differs from start to start.
pub fn seed() -> u64 {
    u64::from(read(SEED)) | u64::from(read(SEED + 4)) << 32
}

/// What the emulator put there: how many times as fast as the counter time runs
/// for the terminal, so that its waits for radios and printers cost a test less.
pub fn pace() -> u32 {
    read(PACE).clamp(1, 100)
}

/// The byte of the NOR flash at this offset, if it has one there.
pub fn nor_byte(offset: usize) -> Option<u8> {
    // SAFETY: within the 16 MB that are there, and that the linker does not know.
    (offset < NOR_BYTES)
        .then(|| unsafe { core::ptr::with_exposed_provenance::<u8>(NOR + offset).read_volatile() })
}

/// Puts this byte at that offset of the NOR flash, if it has one there: in the
/// memory, that is; what flash would make of it is the driver's to say.
pub fn put_nor_byte(offset: usize, byte: u8) {
    if offset < NOR_BYTES {
        // SAFETY: as above.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(NOR + offset).write_volatile(byte) }
    }
}

/// Lets the interrupts come.
pub fn enable_interrupts() {
    let uarts = UART_INTERRUPTS.iter().flat_map(|&(r, s)| [r, s]);
    for number in uarts.chain([TIMER_INTERRUPT]) {
        // SAFETY: the handlers below know every interrupt that is enabled, and
        // nothing relies on one staying masked.
        unsafe { NVIC::unmask(Number(number)) }
    }
    // SAFETY: as above.
    unsafe { cortex_m::interrupt::enable() }
}

/// An interrupt of the board.
#[derive(Clone, Copy)]
struct Number(u16);

// SAFETY: it is the number as the processor counts it, and is constant.
unsafe impl cortex_m::interrupt::InterruptNumber for Number {
    fn number(self) -> u16 {
        self.0
    }
}

/// The part of the vector table that cortex-m-rt leaves to a device. All of them
/// are one function, which asks who it was.
// SAFETY: each entry is the address of a function that handles an interrupt, in
// the section and under the name that cortex-m-rt reserves for them.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
pub static __INTERRUPTS: [unsafe extern "C" fn(); 20] = [dispatch; 20];

unsafe extern "C" {
    /// By cortex-m-rt: calls [`DefaultHandler`] with the number of the interrupt.
    #[link_name = "DefaultHandler"]
    fn dispatch();
}

/// A fault of the processor is a bug of ours: say so, and start anew.
#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    control::tell_panic(0);
    cortex_m::peripheral::SCB::sys_reset()
}

#[exception]
unsafe fn DefaultHandler(interrupt: i16) {
    match u16::try_from(interrupt) {
        Ok(TIMER_INTERRUPT) => clock::alarm_rang(),
        Ok(number) => {
            let uart = |&(receive, send): &(u16, u16)| number == receive || number == send;
            if let Some(line) = UART_INTERRUPTS.iter().position(uart) {
                serial::interrupted(line);
            }
        }
        // The watchdog's warning; what it warns of follows.
        Err(_) => {}
    }
}
