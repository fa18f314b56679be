//! The consumer's course: which partitions it reads, where it is in them, what it
//! makes of a message. A core: no Kafka, no disk.
//!
//! Promises: a message that was taken is not taken again; delivery events are read
//! only once the receipts were read to their ends, so that they find the rows that
//! they end; a delivery event of this gateway's own journal ends nothing. Never: a
//! message passed over that is neither taken, nor told why not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::Delivered;
use super::intake::Message;
use super::poll::{Elsewhere, NextOffset, Poll};

/// A partition of a topic.
pub type Place = (Arc<str>, i32);

/// Partitions with the next offset to take; none: nothing was taken from there yet.
pub type Places = BTreeMap<Place, Option<i64>>;

/// See the head of the file.
#[derive(Debug, Clone)]
pub struct Course {
    receipts: Arc<str>,
    deliveries: Arc<str>,
    /// This gateway's journal.
    journal_id: String,
    places: Places,
    /// Partitions of the receipts whose end was not reached yet.
    behind: BTreeSet<i32>,
    /// Partitions from which something came since they last ended.
    busy: BTreeSet<Place>,
    caught_up: bool,
}

impl Course {
    /// Of these topics; no partition is read yet.
    #[must_use]
    pub fn new(receipts: &str, deliveries: &str, journal_id: &str) -> Self {
        Self {
            receipts: receipts.into(),
            deliveries: deliveries.into(),
            journal_id: journal_id.to_owned(),
            places: Places::new(),
            behind: BTreeSet::new(),
            busy: BTreeSet::new(),
            caught_up: false,
        }
    }

    /// The topics, and whether each is to be read now.
    #[must_use]
    pub fn topics(&self) -> [(Arc<str>, bool); 2] {
        [
            (Arc::clone(&self.receipts), true),
            (Arc::clone(&self.deliveries), self.caught_up),
        ]
    }

    /// Whether this partition is read.
    #[must_use]
    pub fn knows(&self, place: &Place) -> bool {
        self.places.contains_key(place)
    }

    /// What is read, and where it goes on.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Whether the receipts were read to their ends.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Further partitions, with what the outbox knows of them.
    pub fn add(&mut self, new: Places) {
        for (topic, partition) in new.keys() {
            if *topic == self.receipts {
                self.behind.insert(*partition);
                self.caught_up = false;
            }
        }
        self.places.extend(new);
    }

    /// Whether this was taken before: to take it twice would deliver it twice.
    #[must_use]
    pub fn was_taken(&self, topic: &str, partition: i32, offset: i64) -> bool {
        let place = (self.topic(topic), partition);
        let next = self.places.get(&place).copied().flatten();
        next.is_some_and(|next| offset < next)
    }

    fn topic(&self, name: &str) -> Arc<str> {
        if name == &*self.receipts {
            Arc::clone(&self.receipts)
        } else {
            Arc::clone(&self.deliveries)
        }
    }

    /// Puts a message into a poll. `journal`: the header that names the journal that
    /// it came from.
    ///
    /// # Errors
    /// Why it is no receipt; the poll passes it all the same.
    pub fn take(
        &mut self,
        topic: &str,
        message: &Message<'_>,
        journal: Option<&[u8]>,
        poll: &mut Poll,
    ) -> Result<(), String> {
        let topic = self.topic(topic);
        let mut taken = Ok(());
        if topic == self.receipts {
            taken = message.read().map(|receipt| poll.receipts.push(receipt));
        } else {
            // Of another gateway, or of this one before its disk was lost.
            let ours = journal == Some(self.journal_id.as_bytes());
            if !ours && let Some(delivered) = message.value.and_then(Delivered::decode) {
                poll.elsewhere.push(Elsewhere {
                    terminal: delivered.terminal,
                    sequence: delivered.sequence,
                });
            }
        }
        poll.passed(NextOffset {
            topic: Arc::clone(&topic),
            partition: message.partition,
            next: message.offset + 1,
        });
        self.busy.insert((topic, message.partition));
        taken
    }

    /// The end of a partition was reached. librdkafka does not say of which topic: of
    /// the one from which something came, if that says it. Which it may have been.
    pub fn reached_end(&mut self, partition: i32) -> Vec<Place> {
        let here = self.places.keys().filter(|(_, p)| *p == partition);
        let (busy, quiet): (Vec<Place>, Vec<Place>) =
            here.cloned().partition(|place| self.busy.contains(place));
        let ended = if busy.is_empty() { quiet } else { busy };
        for place in &ended {
            self.busy.remove(place);
            if place.0 == self.receipts {
                self.behind.remove(&partition);
            }
        }
        ended
    }

    /// Whether all receipts were read to their ends now, and were not before: then
    /// there are further partitions to read.
    pub fn catches_up(&mut self) -> bool {
        let now = !self.caught_up && self.behind.is_empty();
        self.caught_up |= now;
        now
    }

    /// A poll was given to the outbox.
    pub fn stored(&mut self, offsets: Vec<NextOffset>) {
        for offset in offsets {
            self.places
                .insert((offset.topic, offset.partition), Some(offset.next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_read_only_once_the_receipts_were() {
        let mut course = Course::new("r", "d", "j");
        course.add(Places::from([
            (("r".into(), 0), None),
            (("r".into(), 1), Some(7)),
        ]));
        course.reached_end(0);
        assert!(!course.catches_up());
        assert!(!course.topics()[1].1);
        course.reached_end(1);
        assert!(course.catches_up() && !course.catches_up());
        assert!(course.topics()[1].1);
        assert!(course.was_taken("r", 1, 6) && !course.was_taken("r", 1, 7));
        // A partition that is added later is behind again.
        course.add(Places::from([(("r".into(), 2), None)]));
        assert!(!course.is_caught_up());
    }

    #[test]
    fn the_end_is_that_of_the_topic_from_which_something_came() {
        let mut course = Course::new("r", "d", "j");
        let place = |topic: &str| -> Place { (topic.into(), 0) };
        course.add(Places::from([
            (place("r"), None),
            (place("d"), None),
            (("r".into(), 1), None),
        ]));
        assert_eq!(course.reached_end(0), [place("d"), place("r")]);
        let message = Message {
            partition: 0,
            offset: 5,
            timestamp_ms: None,
            key: None,
            value: None,
            expiry: None,
        };
        let mut poll = Poll::default();
        course.take("d", &message, None, &mut poll).expect("passed");
        assert_eq!(course.reached_end(0), [place("d")]);
        assert_eq!(course.reached_end(0), [place("d"), place("r")]);
    }

    #[test]
    fn its_own_delivery_events_end_nothing() {
        let mut course = Course::new("r", "d", "ours");
        let delivered = Delivered {
            terminal: "t1".into(),
            sequence: 3,
            number: 1,
            status: 0,
            gateway: "gw".into(),
            stored_ms: 0,
            acknowledged_ms: 0,
        };
        let value = serde_json::to_vec(&delivered).expect("JSON");
        for (journal, ends) in [(&b"ours"[..], 0), (b"theirs", 1)] {
            let message = Message {
                partition: 2,
                offset: 5,
                timestamp_ms: None,
                key: None,
                value: Some(&value),
                expiry: None,
            };
            let mut poll = Poll::default();
            course
                .take("d", &message, Some(journal), &mut poll)
                .expect("an event");
            assert_eq!(poll.elsewhere.len(), ends);
            assert_eq!((poll.offsets[0].partition, poll.offsets[0].next), (2, 6));
        }
    }

    #[test]
    fn what_was_given_to_the_outbox_is_not_taken_again() {
        let mut course = Course::new("r", "d", "j");
        let place = |topic: &str, partition| -> Place { (topic.into(), partition) };
        assert!(!course.knows(&place("r", 0)));
        course.add(Places::from([
            (place("r", 0), None),
            (place("d", 0), Some(4)),
        ]));
        assert!(course.knows(&place("r", 0)) && !course.knows(&place("r", 1)));
        assert!(!course.is_caught_up());
        course.reached_end(0);
        assert!(course.catches_up() && course.is_caught_up());
        assert!(!course.was_taken("r", 0, 0));
        course.stored(vec![NextOffset {
            topic: "r".into(),
            partition: 0,
            next: 9,
        }]);
        assert!(course.was_taken("r", 0, 8) && !course.was_taken("r", 0, 9));
        let expected = Places::from([(place("r", 0), Some(9)), (place("d", 0), Some(4))]);
        assert_eq!(course.places(), &expected);
    }
}
