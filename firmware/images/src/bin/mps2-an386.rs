//! The terminal on Arm MPS2 AN386, in QEMU.
#![no_std]
#![no_main]

use core::pin::pin;

use risiti_idle::block_on;
use risiti_images::unprovisioned;
use risiti_mps2_an386 as board;
use risiti_terminal::settings::Settings;
use risiti_terminal::terminal;

#[cortex_m_rt::entry]
fn main() -> ! {
    match Settings::decode(board::settings()) {
        Ok(settings) => match block_on(pin!(terminal::run(board::take(), &settings))) {},
        Err(_) => match block_on(pin!(unprovisioned(board::take(), board::settings()))) {},
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    board::panicked(info.location().map_or(0, |at| at.line()))
}
