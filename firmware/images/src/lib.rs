//! What images share: a terminal that does not know who it is.
#![no_std]

use core::convert::Infallible;

use risiti_terminal::hardware::{Board, Clock, Display, Hardware, Screen, Watchdog};
use risiti_terminal::limits::{SCREEN_COLUMNS, SCREEN_ROWS};
use risiti_terminal::wipe::{Order, wipe};

/// Nothing can be done without settings but to say so.
const UNPROVISIONED: Screen = {
    let mut rows = [[b' '; SCREEN_COLUMNS]; SCREEN_ROWS];
    rows[0] = *b"NO SETTINGS     ";
    rows[1] = *b"CALL SERVICE    ";
    Screen(rows)
};

/// Does what stands in the place of settings: an order to wipe. If it is none, says
/// that this terminal has no settings, or none that it can read.
pub async fn unprovisioned<B: Board>(mut hardware: Hardware<B>, found: &[u8]) -> Infallible {
    let screen = match Order::decode(found) {
        Some(order) => wipe(&mut hardware, order).await,
        None => UNPROVISIONED,
    };
    hardware.display.show(&screen).await;
    loop {
        // A reset would not help.
        hardware.watchdog.feed();
        let feed_within_ms = hardware.watchdog.feed_within_ms();
        hardware.clock.sleep(feed_within_ms.into()).await;
    }
}
