//! The transaction coordinator: who may write under which name, and how a
//! transaction ends.
//!
//! Promises: of the producers that share a transactional id only the last one to
//! begin can write (fencing by epoch); a transaction that stands open for longer
//! than its timeout is aborted and its producer fenced; an end that was decided is
//! carried out, partition by partition, each at its own time. Never: a transaction
//! that is committed here and aborted there.
//!
//! After KIP-98, KIP-360 (a producer that asks with its own id and epoch may go on)
//! and the first part of KIP-890 (a write to a partition that was not added to the
//! transaction is refused, so none hangs). As librdkafka 2.12, it speaks version 1
//! of the protocol: the epoch does not change from one transaction to the next.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::log::{ProducerId, sooner};
use super::{Code, Ms};

/// A place that takes part in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A partition of a topic.
    Partition(Rc<str>, i32),
    /// The offsets of a group.
    Group(Rc<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Nothing under way; how the last one ended, of this producer.
    Empty {
        last: Option<bool>,
    },
    Ongoing {
        since: Ms,
    },
    /// Decided: these places still have to be told, at these times.
    Ending {
        commit: bool,
    },
}

#[derive(Debug)]
struct Transactional {
    producer: ProducerId,
    epoch: i16,
    /// The epoch before the last change, by which a call that comes again is known.
    former: Option<i16>,
    timeout_ms: Ms,
    phase: Phase,
    /// Transactions that were begun.
    begun: u64,
    /// Places that take part, and when the marker gets there once it is decided.
    places: BTreeMap<Place, Ms>,
}

/// A marker to be written.
#[derive(Debug)]
pub struct Marker {
    /// Whose transaction.
    pub producer: ProducerId,
    /// Its epoch at the coordinator.
    pub epoch: i16,
    /// Whether it is committed.
    pub commit: bool,
    /// Where.
    pub place: Place,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Coordinator {
    ids: BTreeMap<Rc<str>, Transactional>,
    next_producer: ProducerId,
    /// Transactions that were committed everywhere, and aborted.
    ended: (u64, u64),
}

impl Coordinator {
    /// A number for a producer without transactions.
    pub fn new_producer(&mut self) -> ProducerId {
        self.next_producer += 1;
        self.next_producer
    }

    /// `InitProducerId`. `own` is what the producer has, if it only asks for a new
    /// epoch (KIP-360).
    pub fn init(
        &mut self,
        id: &Rc<str>,
        timeout_ms: Ms,
        own: Option<(ProducerId, i16)>,
        decided: &mut impl FnMut() -> Ms,
    ) -> Result<(ProducerId, i16), Code> {
        let Some(known) = self.ids.get_mut(id) else {
            let producer = self.new_producer();
            self.ids.insert(
                Rc::clone(id),
                Transactional {
                    producer,
                    epoch: 0,
                    former: None,
                    timeout_ms,
                    phase: Phase::Empty { last: None },
                    begun: 0,
                    places: BTreeMap::new(),
                },
            );
            return Ok((producer, 0));
        };
        if let Some((producer, epoch)) = own {
            let is_now = epoch == known.epoch;
            let came_again = Some(epoch) == known.former;
            if producer != known.producer || !(is_now || came_again) {
                return Err(Code::ProducerFenced);
            }
            if came_again && matches!(known.phase, Phase::Empty { .. }) {
                return Ok((known.producer, known.epoch));
            }
        }
        match known.phase {
            Phase::Ending { .. } => Err(Code::ConcurrentTransactions),
            Phase::Ongoing { .. } => {
                known.fence();
                known.decide(false, decided);
                Err(Code::ConcurrentTransactions)
            }
            Phase::Empty { .. } => {
                known.fence();
                known.timeout_ms = timeout_ms;
                known.phase = Phase::Empty { last: None };
                Ok((known.producer, known.epoch))
            }
        }
    }

    /// Adds a place to a producer's transaction, which that begins.
    pub fn add(
        &mut self,
        id: &Rc<str>,
        producer: ProducerId,
        epoch: i16,
        place: Place,
        now: Ms,
    ) -> Result<(), Code> {
        let known = self.of(id, producer, epoch)?;
        match known.phase {
            Phase::Ending { .. } => return Err(Code::ConcurrentTransactions),
            Phase::Empty { .. } => {
                known.phase = Phase::Ongoing { since: now };
                known.begun += 1;
            }
            Phase::Ongoing { .. } => {}
        }
        known.places.insert(place, Ms::MAX);
        Ok(())
    }

    /// Whether this place takes part in an ongoing transaction (KIP-890).
    pub fn takes_part(
        &mut self,
        id: &Rc<str>,
        producer: ProducerId,
        epoch: i16,
        place: &Place,
    ) -> Result<(), Code> {
        let known = self.of(id, producer, epoch)?;
        match known.phase {
            Phase::Ongoing { .. } if known.places.contains_key(place) => Ok(()),
            _ => Err(Code::InvalidTxnState),
        }
    }

    /// `EndTxn`.
    pub fn end(
        &mut self,
        id: &Rc<str>,
        producer: ProducerId,
        epoch: i16,
        commit: bool,
        decided: &mut impl FnMut() -> Ms,
    ) -> Result<(), Code> {
        let known = self.of(id, producer, epoch)?;
        match known.phase {
            Phase::Ongoing { .. } => {
                known.decide(commit, decided);
                Ok(())
            }
            // The same again: its answer was lost.
            Phase::Ending { commit: was } if was == commit => Err(Code::ConcurrentTransactions),
            Phase::Empty { last } if last == Some(commit) => Ok(()),
            Phase::Ending { .. } | Phase::Empty { .. } => Err(Code::InvalidTxnState),
        }
    }

    /// Another producer of this id begins: what the one of now has open is aborted.
    pub fn fence(&mut self, id: &str, decided: &mut impl FnMut() -> Ms) {
        if let Some(known) = self.ids.get_mut(id) {
            let ongoing = matches!(known.phase, Phase::Ongoing { .. });
            known.fence();
            // Not the producer itself: nobody may take it for a call that came again.
            known.former = None;
            if ongoing {
                known.decide(false, decided);
            }
        }
    }

    fn of(
        &mut self,
        id: &Rc<str>,
        producer: ProducerId,
        epoch: i16,
    ) -> Result<&mut Transactional, Code> {
        let known = self.ids.get_mut(id).ok_or(Code::InvalidProducerIdMapping)?;
        if known.producer != producer {
            return Err(Code::InvalidProducerIdMapping);
        }
        if known.epoch != epoch {
            return Err(Code::ProducerFenced);
        }
        Ok(known)
    }

    /// Aborts what has stood open for too long, and gives the markers that are due.
    pub fn advance(&mut self, now: Ms, decided: &mut impl FnMut() -> Ms) -> Vec<Marker> {
        let mut markers = Vec::new();
        for known in self.ids.values_mut() {
            if let Phase::Ongoing { since } = known.phase
                && since + known.timeout_ms <= now
            {
                known.fence();
                known.former = None;
                known.decide(false, decided);
            }
            let Phase::Ending { commit } = known.phase else {
                continue;
            };
            let (producer, epoch) = (known.producer, known.epoch);
            known.places.retain(|place, due| {
                let waits = *due > now;
                if !waits {
                    markers.push(Marker {
                        producer,
                        epoch,
                        commit,
                        place: place.clone(),
                    });
                }
                waits
            });
            if known.places.is_empty() {
                known.phase = Phase::Empty { last: Some(commit) };
                if commit {
                    self.ended.0 += 1;
                } else {
                    self.ended.1 += 1;
                }
            }
        }
        markers
    }

    /// When something is due next.
    pub fn due(&self) -> Option<Ms> {
        self.ids.values().fold(None, |due, known| {
            let own = match known.phase {
                Phase::Empty { .. } => None,
                Phase::Ongoing { since } => Some(since + known.timeout_ms),
                Phase::Ending { .. } => known.places.values().copied().min(),
            };
            sooner(due, own)
        })
    }

    /// Which of its transactions a request that is sent now belongs to.
    pub fn serial(&self, id: &str) -> u64 {
        self.ids.get(id).map_or(1, |known| match known.phase {
            Phase::Empty { .. } => known.begun + 1,
            Phase::Ongoing { .. } | Phase::Ending { .. } => known.begun,
        })
    }

    /// Transactions that were committed everywhere, and aborted.
    pub fn ended(&self) -> (u64, u64) {
        self.ended
    }

    /// Transactions that are not ended.
    pub fn open(&self) -> usize {
        let ended = |known: &&Transactional| !matches!(known.phase, Phase::Empty { .. });
        self.ids.values().filter(ended).count()
    }
}

impl Transactional {
    /// The producer of now can't go on.
    fn fence(&mut self) {
        self.former = Some(self.epoch);
        if self.epoch == i16::MAX - 1 {
            // Kafka gives a new producer id then; nobody lives that long here.
            self.epoch = 0;
        } else {
            self.epoch += 1;
        }
    }

    /// How it ends is decided; `decided` says when each place is told.
    fn decide(&mut self, commit: bool, decided: &mut impl FnMut() -> Ms) {
        self.phase = Phase::Ending { commit };
        for due in self.places.values_mut() {
            *due = decided();
        }
    }
}
