//! The terminal on the nRF52840 DK.
#![no_std]
#![no_main]

use core::pin::pin;

use embassy_futures::join::join;
use risiti_idle::block_on;
use risiti_images::unprovisioned;
use risiti_nrf52840_dk as board;
use risiti_terminal::settings::Settings;
use risiti_terminal::terminal;

#[cortex_m_rt::entry]
fn main() -> ! {
    let (hardware, background) = block_on(pin!(board::take()));
    match Settings::decode(board::settings()) {
        Ok(settings) => {
            let work = terminal::run(hardware, &settings);
            match block_on(pin!(join(work, background.run()))).0 {}
        }
        Err(_) => {
            let work = unprovisioned(hardware, board::settings());
            match block_on(pin!(join(work, background.run()))).0 {}
        }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    board::panicked(info.location().map_or(0, |at| at.line()))
}
