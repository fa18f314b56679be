//! The terminal on Arm MPS2 AN386, in QEMU.
#![no_std]
#![no_main]

use risiti_idle::block_on;
use risiti_mps2_an386 as board;
use risiti_terminal::modem::Modem as _;
use risiti_terminal::settings::Settings;

#[cortex_m_rt::entry]
fn main() -> ! {
    let mut hardware = board::take();
    let settings = Settings::decode(board::settings());
    block_on(async {
        loop {
            if let Ok(settings) = &settings {
                let _ = hardware.modem.power_on(&settings.network()).await;
                let _ = hardware.modem.open(settings.host, settings.port).await;
                let _ = hardware.modem.send(b"hello").await;
                let mut b = [0; 9];
                let _ = hardware.modem.receive(&mut b).await;
                hardware.modem.power_off().await;
            }
        }
    })
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    board::panicked(info.location().map_or(0, |at| at.line()))
}
