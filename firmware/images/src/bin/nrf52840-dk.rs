//! The terminal on the nRF52840 DK.
#![no_std]
#![no_main]

use embassy_futures::select::select;
use risiti_idle::block_on;
use risiti_nrf52840_dk as board;
use risiti_terminal::modem::Modem as _;
use risiti_terminal::settings::Settings;

#[cortex_m_rt::entry]
fn main() -> ! {
    let settings = Settings::decode(board::settings());
    block_on(async {
        let (mut hardware, background) = board::take().await;
        let work = async {
            loop {
                if let Ok(settings) = &settings {
                    let _ = hardware.modem.power_on(&settings.network()).await;
                    hardware.modem.power_off().await;
                }
            }
        };
        select(work, background.run()).await;
        cortex_m::peripheral::SCB::sys_reset()
    })
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    board::panicked(info.location().map_or(0, |at| at.line()))
}
