//! The terminal's own keys, from its vault; and shown, once, to whoever enrols them.
//!
//! Promises: keys are handed over only once somebody has confirmed that they are
//! written down; until then every start shows the same ones. Never: a payment, the
//! radio or another screen before that; keys on a display that nobody looks at.

use embassy_futures::select::{Either, select};
use risiti_wire::seal::code::{self, CodeRows};

use super::NO_STORAGE;
use crate::hardware::{Board, Clock, Display, Key, Keypad, Screen, Watchdog};
use crate::limits::{KEYS_SHOWN_MS, READ_MS, SCREEN_COLUMNS, SCREEN_ROWS};
use crate::printing::line::Line;
use crate::settings::SealKeys;
use crate::vault::{Holder, OwnKeys, Vault, VaultError};

/// Where a person stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Fetches paper and pencil.
    Ready,
    /// Writes.
    Reads,
    /// Is asked whether all of it is on paper.
    Asked,
}

/// The parts of a board that this takes.
pub struct Enrolment<'a, B: Board> {
    pub clock: &'a B::Clock,
    pub flash: &'a mut B::Flash,
    pub keypad: &'a mut B::Keypad,
    pub display: &'a mut B::Display,
    pub watchdog: &'a mut B::Watchdog,
    pub entropy: &'a mut B::Entropy,
}

impl<B: Board> Enrolment<'_, B> {
    /// The keys of this holder.
    ///
    /// # Errors
    /// There are none; this is to stand on the display.
    pub async fn keys(&mut self, holder: Holder<'_>) -> Result<OwnKeys, &'static Screen> {
        let mut are_written_down = false;
        loop {
            let mut vault = Vault::of(&mut *self.flash);
            let keys = vault.keys(holder, are_written_down, self.entropy);
            let keys = keys.await.map_err(told)?;
            if keys.is_confirmed() {
                return Ok(keys);
            }
            self.show(holder, &keys.seal()).await;
            are_written_down = true;
        }
    }

    /// Returns once somebody has written them down.
    async fn show(&mut self, holder: Holder<'_>, keys: &SealKeys<'_>) {
        let code = code::encode(holder.id, holder.generation, keys.record, keys.receipt);
        let mut step = Step::Ready;
        loop {
            let screen = match step {
                Step::Ready => ready(holder.generation),
                Step::Reads => rows(&code),
                Step::Asked => ASKED,
            };
            self.display.show(&screen).await;
            step = match (step, self.key().await) {
                (Step::Ready, Some(Key::Enter)) => Step::Reads,
                (Step::Reads, Some(Key::Enter)) => Step::Asked,
                (Step::Asked, Some(Key::Enter)) => return,
                (Step::Asked, Some(_)) => Step::Reads,
                (step, Some(_)) => step,
                (_, None) => Step::Ready,
            };
        }
    }

    /// The next key, of somebody who has seen the screen; none if nobody is there.
    async fn key(&mut self) -> Option<Key> {
        let from_ms = self.clock.now_ms() + READ_MS;
        let until_ms = from_ms + KEYS_SHOWN_MS;
        loop {
            self.watchdog.feed();
            let now_ms = self.clock.now_ms();
            if now_ms >= until_ms {
                return None;
            }
            let feed_at_ms = now_ms + u64::from(self.watchdog.feed_within_ms());
            let wait = self.clock.sleep_until(feed_at_ms.min(until_ms));
            if let Either::First(key) = select(self.keypad.key(), wait).await
                && self.clock.now_ms() >= from_ms
            {
                return Some(key);
            }
        }
    }
}

fn ready(generation: u8) -> Screen {
    let mut screen = READY;
    let [_, row, ..] = &mut screen.0;
    Line::new(row).text("GENERATION ").number(generation.into());
    screen
}

/// Groups of four, five and five characters.
fn rows(code: &CodeRows) -> Screen {
    let mut screen = Screen([[b' '; SCREEN_COLUMNS]; SCREEN_ROWS]);
    for (row, characters) in screen.0.iter_mut().zip(code) {
        let mut line = Line::new(row);
        for (at, character) in characters.iter().enumerate() {
            if at == 4 || at == 9 {
                line.byte(b' ');
            }
            line.byte(*character);
        }
    }
    screen
}

fn told(error: VaultError) -> &'static Screen {
    match error {
        VaultError::Flash => &NO_STORAGE,
        VaultError::Damaged => &DAMAGED,
        VaultError::NoEntropy => &NO_RANDOM,
    }
}

const READY: Screen = Screen([
    *b"WRITE DOWN KEYS ",
    *b"                ",
    *b"4 ROWS, ON PAPER",
    *b"ENTER SHOWS THEM",
]);

const ASKED: Screen = Screen([
    *b"WRITTEN DOWN?   ",
    *b"NOT SHOWN AGAIN ",
    *b"ENTER: YES      ",
    *b"CANCEL: LOOK    ",
]);

const DAMAGED: Screen = Screen([
    *b"KEYS DAMAGED    ",
    *b"NEEDS NEW ONES  ",
    *b"                ",
    *b"CALL SERVICE    ",
]);

const NO_RANDOM: Screen = Screen([
    *b"NO RANDOM BYTES ",
    *b"                ",
    *b"                ",
    *b"CALL SERVICE    ",
]);
