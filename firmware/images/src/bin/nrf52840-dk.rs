//! The terminal on the nRF52840 DK.
#![no_std]
#![no_main]

use embassy_futures::join::join;
use risiti_idle::block_on;
use risiti_images::unprovisioned;
use risiti_nrf52840_dk as board;
use risiti_terminal::settings::Settings;
use risiti_terminal::terminal;

#[cortex_m_rt::entry]
fn main() -> ! {
    block_on(async {
        let (hardware, background) = board::take().await;
        let work = async {
            match Settings::decode(board::settings()) {
                Ok(settings) => match terminal::run(hardware, &settings).await {},
                Err(_) => unprovisioned(hardware).await,
            }
        };
        join(work, background.run()).await.0
    })
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    board::panicked(info.location().map_or(0, |at| at.line()))
}
