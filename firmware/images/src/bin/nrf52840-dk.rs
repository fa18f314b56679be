//! The terminal on the nRF52840 DK.
#![no_std]
#![no_main]

use embassy_futures::select::select;
use embedded_io_async::Write;
use embedded_storage_async::nor_flash::{NorFlash, ReadNorFlash};
use risiti_idle::block_on;
use risiti_nrf52840_dk as board;
use risiti_terminal::hardware::{Battery, Clock, Display, Screen};

#[cortex_m_rt::entry]
fn main() -> ! {
    block_on(async {
        let mut parts = board::take().await;
        let work = async {
            let mut screen = Screen([[b' '; 16]; 4]);
            loop {
                let mv = parts.battery.millivolts().await;
                let ms = parts.clock.now_ms();
                let mut page = [0; 4];
                let _ = parts.flash.read(0, &mut page).await;
                screen.0[0][0] = b'0' + (mv / 1000) as u8;
                screen.0[1][0] = b'0' + (ms / 1000 % 10) as u8;
                screen.0[2][0] = page[0];
                parts.display.show(&screen).await;
                let _ = parts.flash.erase(0, 4096).await;
                let _ = parts.flash.write(0, b"Zabc").await;
                let _ = parts.printer.write_all(b"hello\n").await;
                parts.clock.sleep(1000).await;
            }
        };
        select(work, parts.background.run()).await;
        cortex_m::peripheral::SCB::sys_reset()
    })
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    board::panicked(info.location().map_or(0, |at| at.line()))
}
