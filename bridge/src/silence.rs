//! Whether a reader that hears nothing of a partition has nothing to hear.
//!
//! Promises: a partition that grows while its reader hears nothing of it, or about
//! which nobody answers, for longer than [`limits::UNANSWERED`], is told, whatever is
//! heard of others; a quiet one that is answered for never is, whatever it holds.
//! Never: a clock or a question of its own.
//!
//! Where a reader is says less: markers of transactions lie behind the last message,
//! and no reader ever passes them. So two looks at the same end are compared.
//! librdkafka (2.12.1) can leave a partition unread for good after its broker hung,
//! whether it answers questions about it or not, and goes on with others.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::limits;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Silence<Place> {
    places: BTreeMap<Place, Ear>,
}

/// What is known of one partition.
#[derive(Debug)]
struct Ear {
    heard_at: Instant,
    asked_at: Instant,
    /// Where it ended at the last look since something was heard.
    end: Option<i64>,
    /// Since when there is more than was heard of.
    grown_at: Option<Instant>,
    /// Since when nobody says where it ends.
    unanswered_at: Option<Instant>,
}

impl Ear {
    fn new(now: Instant) -> Self {
        Self {
            heard_at: now,
            asked_at: now,
            end: None,
            grown_at: None,
            unanswered_at: None,
        }
    }
}

impl<Place: Ord + Clone> Silence<Place> {
    /// Of no partition yet.
    pub(crate) fn new() -> Self {
        Self {
            places: BTreeMap::new(),
        }
    }

    /// These are read, and no others.
    pub(crate) fn reads(&mut self, places: &[Place], now: Instant) {
        self.places.retain(|place, _| places.contains(place));
        for place in places {
            let ear = || Ear::new(now);
            self.places.entry(place.clone()).or_insert_with(ear);
        }
    }

    /// Something came from there, if only the news that there is no more.
    pub(crate) fn heard(&mut self, place: &Place, now: Instant) {
        if let Some(ear) = self.places.get_mut(place) {
            *ear = Ear {
                asked_at: ear.asked_at,
                ..Ear::new(now)
            };
        }
    }

    /// Asks where those partitions end of which it is time to. Who does not answer for
    /// one is not asked for the others.
    pub(crate) fn look(&mut self, now: Instant, ask: impl Fn(&Place) -> Option<i64>) {
        let mut answers = true;
        for place in self.due(now) {
            let end = if answers { ask(&place) } else { None };
            answers = end.is_some();
            self.looked(&place, end, now);
        }
    }

    /// Partitions of which it is time to ask where they end.
    fn due(&self, now: Instant) -> Vec<Place> {
        let is_due = |ear: &Ear| {
            let since = ear.heard_at.max(ear.asked_at);
            now.saturating_duration_since(since) >= limits::SILENCE
        };
        let due = self.places.iter().filter(|(_, ear)| is_due(ear));
        due.map(|(place, _)| place.clone()).collect()
    }

    /// It ends there; none: nobody answered.
    fn looked(&mut self, place: &Place, end: Option<i64>, now: Instant) {
        let Some(ear) = self.places.get_mut(place) else {
            return;
        };
        ear.asked_at = now;
        let Some(end) = end else {
            ear.unanswered_at.get_or_insert(now);
            return;
        };
        ear.unanswered_at = None;
        if ear.end.is_some_and(|before| before < end) {
            ear.grown_at.get_or_insert(now);
        }
        ear.end = Some(end);
    }

    /// A partition that has held more than was heard of, or that nobody has answered
    /// for, for too long.
    pub(crate) fn deaf_to(&self, now: Instant) -> Option<&Place> {
        let long = |at: Option<Instant>| {
            at.is_some_and(|at| now.saturating_duration_since(at) > limits::UNANSWERED)
        };
        let mut places = self.places.iter();
        places
            .find(|(_, ear)| long(ear.grown_at) || long(ear.unanswered_at))
            .map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Reads partitions 0 and 1 for ten minutes, looks whenever it is due; when it
    /// was told deaf, and to which. `heard`: whether something comes from there in
    /// that second.
    fn deaf_after(
        end: impl Fn(i32, u64) -> Option<i64>,
        heard: impl Fn(i32, u64) -> bool,
    ) -> Option<(u64, i32)> {
        let begun = Instant::now();
        let mut silence = Silence::new();
        silence.reads(&[0, 1], begun);
        for second in 0..600 {
            let now = begun + Duration::from_secs(second);
            for place in [0, 1] {
                if heard(place, second) {
                    silence.heard(&place, now);
                }
            }
            for place in silence.due(now) {
                silence.looked(&place, end(place, second), now);
            }
            if let Some(place) = silence.deaf_to(now) {
                return Some((second, *place));
            }
        }
        None
    }

    #[test]
    fn g8_a_reader_that_hears_nothing_of_a_growing_log_is_deaf() {
        let deaf = deaf_after(|_, second| Some(second as i64), |_, _| false);
        assert!(deaf.is_some_and(|(second, _)| second < 60), "{deaf:?}");
        // It grew once only.
        let deaf = deaf_after(|_, second| Some(i64::from(second > 100)), |_, _| false);
        assert!(
            deaf.is_some_and(|(second, _)| (100..160).contains(&second)),
            "{deaf:?}"
        );
    }

    #[test]
    fn g8_what_is_heard_of_one_partition_hides_no_other() {
        let deaf = deaf_after(|_, second| Some(second as i64), |place, _| place == 0);
        assert!(
            deaf.is_some_and(|(second, place)| second < 60 && place == 1),
            "{deaf:?}"
        );
    }

    #[test]
    fn g8_a_partition_that_nobody_answers_for_is_told_too() {
        let deaf = deaf_after(|place, _| (place == 0).then_some(7), |_, _| false);
        assert!(
            deaf.is_some_and(|(second, place)| second < 60 && place == 1),
            "{deaf:?}"
        );
        // Now and then is an answer.
        let now_and_then = |_, second: u64| second.is_multiple_of(20).then_some(7);
        assert_eq!(deaf_after(now_and_then, |_, _| false), None);
    }

    #[test]
    fn a_quiet_log_and_one_that_is_heard_are_no_reason() {
        assert_eq!(deaf_after(|_, _| Some(7), |_, _| false), None);
        let grows = |_, second| Some(second as i64);
        let heard = |_, second: u64| second.is_multiple_of(15);
        assert_eq!(deaf_after(grows, heard), None);
        assert_eq!(deaf_after(|_, _| None, heard), None);
    }

    #[test]
    fn partitions_that_are_not_read_any_more_are_not_asked_about() {
        let (begun, mut silence) = (Instant::now(), Silence::new());
        let after = |seconds| begun + Duration::from_secs(seconds);
        silence.reads(&[0, 1], begun);
        silence.reads(&[1, 2], after(5));
        assert_eq!(silence.due(after(12)), [1]);
        assert_eq!(silence.due(after(15)), [1, 2]);
        silence.looked(&0, None, after(15));
        assert_eq!(silence.deaf_to(after(600)), None);
    }
}
