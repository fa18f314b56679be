//! The task of those who stand before the terminal: keys and display.
//!
//! Promises: what is told as saved is durable. Never: a key left waiting for the
//! printer or the radio.

use core::convert::Infallible;

use embassy_futures::select::{Either3, select3};
use embedded_storage_async::nor_flash::NorFlash;

use super::desk::{Desk, SharedStore};
use super::levels;
use super::pulse::Task;
use crate::application::{Application, Draft, Effect, Fact, NotSaved};
use crate::hardware::{Clock, Display, Keypad, Screen};
use crate::limits::STORAGE_MS_MAX;
use crate::store::SaveError;

/// The application and what it works with.
pub struct People<'a, F, K, D, C> {
    pub desk: &'a Desk,
    pub store: &'a SharedStore<F>,
    pub clock: C,
    pub keypad: &'a mut K,
    pub display: &'a mut D,
    pub application: Application,
    /// What is on display.
    pub shown: Option<Screen>,
}

impl<F: NorFlash, K: Keypad, D: Display, C: Clock> People<'_, F, K, D, C> {
    /// Works for ever.
    pub async fn run(&mut self) -> Infallible {
        let levels = levels(self.store).await;
        let mut effect = self.application.fact(levels, self.clock.now_ms());
        loop {
            while let Some(wanted) = effect {
                effect = self.act(wanted).await;
            }
            self.show().await;
            let due_ms = self.application.due();
            let due = async {
                match due_ms {
                    Some(at_ms) => self.clock.sleep_until(at_ms).await,
                    None => core::future::pending().await,
                }
            };
            let next = select3(self.keypad.key(), self.desk.facts.receive(), due).await;
            let now_ms = self.clock.now_ms();
            effect = match next {
                Either3::First(key) => self.application.key(key, now_ms),
                Either3::Second(fact) => {
                    let fact = self.as_of_now(fact).await;
                    self.application.fact(fact, now_ms)
                }
                Either3::Third(()) => self.application.tick(now_ms),
            };
        }
    }

    /// What another task has counted is older than a payment that was saved while it
    /// lay on the desk: a number that was shown must not be taken back.
    async fn as_of_now(&self, fact: Fact) -> Fact {
        match fact {
            Fact::Levels(_) => levels(self.store).await,
            fact => fact,
        }
    }

    async fn act(&mut self, effect: Effect) -> Option<Effect> {
        match effect {
            Effect::Save(draft) => {
                // The display says so while the flash is written.
                self.show().await;
                let done_by_ms = self.clock.now_ms() + STORAGE_MS_MAX;
                self.desk.pulse.works(Task::People, done_by_ms);
                let fact = self.save(&draft).await;
                self.desk.pulse.waits(Task::People);
                let after = self.application.fact(fact, self.clock.now_ms());
                let levels = levels(self.store).await;
                let then = self.application.fact(levels, self.clock.now_ms());
                after.or(then)
            }
            Effect::Fetch => {
                self.desk.fetch.signal(());
                None
            }
            Effect::Print | Effect::PrintLast | Effect::Answer { .. } => {
                self.desk.paper.signal(effect);
                None
            }
        }
    }

    async fn save(&mut self, draft: &Draft) -> Fact {
        let time_s = self.application.time_s(self.clock.now_ms());
        let mut store = self.store.lock().await;
        let saved = store
            .save(|sequence, buffer| draft.encode(sequence, time_s, buffer))
            .await;
        match saved {
            Ok(sequence) => {
                let count = &self.desk.saved_count;
                count.set(count.get().saturating_add(1));
                self.desk.saved.signal(());
                Fact::Saved { sequence }
            }
            Err(SaveError::Full) => Fact::NotSaved(NotSaved::Full),
            Err(_) => Fact::NotSaved(NotSaved::Failed),
        }
    }

    async fn show(&mut self) {
        let screen = self.application.screen(self.clock.now_ms());
        if self.shown != Some(screen) {
            self.display.show(&screen).await;
            self.shown = Some(screen);
        }
    }
}
