//! A matrix of 4 by 4 keys.
//!
//! | | column 1 | 2 | 3 | 4 |
//! | --- | --- | --- | --- | --- |
//! | row 1 | 1 | 2 | 3 | A: Print |
//! | row 2 | 4 | 5 | 6 | B: Fetch |
//! | row 3 | 7 | 8 | 9 | C: Delete |
//! | row 4 | *: Cancel | 0 | #: Enter | D: Cancel |
//!
//! Promises: the processor sleeps until a key closes; each press is one key,
//! however its contact bounces. Never: a key that was lost because the terminal
//! was busy, up to eight.

use embassy_futures::select::select_array;
use embassy_nrf::gpio::{Input, Output};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_time::Timer;
use risiti_terminal::hardware::{self, Key};

use crate::display;

/// Keys that wait for the terminal: more than anybody types ahead of a screen.
const WAITING_MAX: usize = 8;

/// Contacts of a membrane are quiet after this long.
const BOUNCE_MS: u64 = 10;

static PRESSED: Channel<CriticalSectionRawMutex, Key, WAITING_MAX> = Channel::new();

const KEYS: [[Key; 4]; 4] = [
    [Key::Digit(1), Key::Digit(2), Key::Digit(3), Key::Print],
    [Key::Digit(4), Key::Digit(5), Key::Digit(6), Key::Fetch],
    [Key::Digit(7), Key::Digit(8), Key::Digit(9), Key::Delete],
    [Key::Cancel, Key::Digit(0), Key::Enter, Key::Cancel],
];

/// The keys.
pub struct Keypad(pub(crate) ());

impl hardware::Keypad for Keypad {
    async fn key(&mut self) -> Key {
        PRESSED.receive().await
    }
}

/// The matrix: rows are driven low, columns pulled high.
pub(crate) struct Matrix {
    pub(crate) rows: [Output<'static>; 4],
    pub(crate) columns: [Input<'static>; 4],
}

impl Matrix {
    /// Puts every key that is pressed where [`Keypad`] finds it. Never returns.
    pub(crate) async fn scan(&mut self) {
        loop {
            self.rows.iter_mut().for_each(Output::set_low);
            select_array(self.columns.each_mut().map(Input::wait_for_low)).await;
            Timer::after_millis(BOUNCE_MS).await;
            if let Some(key) = self.closed().await {
                display::KEYED.signal(());
                // Whoever types ahead of a terminal that does not follow sees it
                // on the display.
                let _ = PRESSED.try_send(key);
            }
            self.rows.iter_mut().for_each(Output::set_low);
            while self.columns.iter().any(Input::is_low) {
                Timer::after_millis(BOUNCE_MS).await;
            }
            Timer::after_millis(BOUNCE_MS).await;
        }
    }

    /// The first key that is closed now.
    async fn closed(&mut self) -> Option<Key> {
        for (row, keys) in KEYS.iter().enumerate() {
            for (n, pin) in self.rows.iter_mut().enumerate() {
                pin.set_level((n != row).into());
            }
            // The pull-ups have to charge the wires.
            Timer::after_micros(60).await;
            let closed = self.columns.iter().zip(keys).find(|(pin, _)| pin.is_low());
            if let Some((_, &key)) = closed {
                return Some(key);
            }
        }
        None
    }
}
