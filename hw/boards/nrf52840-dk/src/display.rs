//! An OLED of 128 by 64 pixels with an SSD1306, by I²C.
//!
//! Promises: a display that is slow, broken or not there delays nobody; it is dark
//! a while after the last key and the last change. Never: a font of its own; the
//! rows of a font of 8 by 8 are drawn twice, so that four of them fill it.

use embassy_futures::select::{Either3, select3};
use embassy_nrf::twim::Twim;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Timer, with_timeout};
use font8x8::legacy::BASIC_LEGACY;
use risiti_terminal::hardware::{self, Screen};
use risiti_terminal::limits::{SCREEN_COLUMNS, SCREEN_ROWS};
use ssd1306::command::AddrMode;
use ssd1306::mode::BasicMode;
use ssd1306::prelude::*;
use ssd1306::{I2CDisplayInterface, Ssd1306Async};

/// A whole screen takes 30 ms at 400 kHz.
const DRAW_MAX: Duration = Duration::from_millis(200);

/// It takes more than all else together.
const DARK_AFTER: Duration = Duration::from_secs(60);

static SHOWN: Signal<CriticalSectionRawMutex, Screen> = Signal::new();

/// A key was pressed: somebody looks.
pub(crate) static KEYED: Signal<CriticalSectionRawMutex, ()> = Signal::new();

/// The display.
pub struct Display(pub(crate) ());

impl hardware::Display for Display {
    async fn show(&mut self, screen: &Screen) {
        SHOWN.signal(*screen);
    }
}

type Panel = Ssd1306Async<I2CInterface<Twim<'static>>, DisplaySize128x64, BasicMode>;

/// Draws what is shown. Never returns.
pub(crate) async fn draw(bus: Twim<'static>) {
    let interface = I2CDisplayInterface::new(bus);
    let mut panel = Ssd1306Async::new(interface, DisplaySize128x64, DisplayRotation::Rotate0);
    let mut set_up = false;
    let mut lit = true;
    loop {
        match select3(SHOWN.wait(), KEYED.wait(), Timer::after(DARK_AFTER)).await {
            Either3::First(screen) => {
                let drawn = with_timeout(DRAW_MAX, screen_on(&mut panel, &screen, set_up)).await;
                set_up = matches!(drawn, Ok(Ok(())));
                lit = true;
            }
            Either3::Second(()) if lit => {}
            Either3::Second(()) => lit = true,
            Either3::Third(()) => lit = false,
        }
        let _ = with_timeout(DRAW_MAX, panel.set_display_on(lit)).await;
    }
}

async fn screen_on(
    panel: &mut Panel,
    screen: &Screen,
    set_up: bool,
) -> Result<(), display_interface::DisplayError> {
    if !set_up {
        panel.init_with_addr_mode(AddrMode::Horizontal).await?;
    }
    panel.set_draw_area((0, 0), (128, 64)).await?;
    for row in &screen.0 {
        for half in 0..2 {
            let mut pixels = [0; SCREEN_COLUMNS * 8];
            for (&character, columns) in row.iter().zip(pixels.chunks_exact_mut(8)) {
                half_of(character, half, columns);
            }
            panel.draw(&pixels).await?;
        }
    }
    Ok(())
}

const _: () = assert!(SCREEN_COLUMNS * 8 == 128 && SCREEN_ROWS * 16 == 64);

/// The upper (0) or lower half of a character as 8 columns of 8 pixels, the lowest
/// bit on top. The font has rows, the lowest bit on the left.
fn half_of(character: u8, half: usize, columns: &mut [u8]) {
    let Some(rows) = BASIC_LEGACY.get(usize::from(character)) else {
        return;
    };
    for (x, column) in columns.iter_mut().enumerate() {
        for (y, row) in rows.iter().skip(half * 4).take(4).enumerate() {
            if row >> x & 1 != 0 {
                *column |= 0b11 << (y * 2);
            }
        }
    }
}
