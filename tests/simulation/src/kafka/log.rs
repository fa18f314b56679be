//! One partition's log: offsets, transactions, what each kind of reader sees.
//!
//! Promises: offsets grow and are never used twice; a batch that a producer sends
//! again is recognised by its sequence number; a reader of committed records sees
//! nothing of an open transaction, nor what follows it (the last stable offset),
//! nor anything aborted. Never: a record changed once it stands.
//!
//! After KIP-98 (idempotence, transactions, markers, the last stable offset) and
//! KIP-360 (a producer that begins anew with a higher epoch).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Code, Ms};

/// A producer's number in the cluster.
pub type ProducerId = i64;

/// Batches of a producer that a partition remembers, to recognise one that comes
/// again (`ProducerStateEntry.NumBatchesToRetain` of Kafka).
const BATCHES_REMEMBERED: usize = 5;

/// What a producer writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Bytes)>,
}

/// A record that stands in the committed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Bytes)>,
    /// When it was appended: Unix milliseconds by the brokers' clock.
    pub time_ms: u64,
}

impl Committed {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key == name)
            .map(|(_, value)| &value[..])
    }
}

/// What a place of the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// A record of a transaction that is not ended.
    Open(ProducerId),
    Committed,
    Aborted,
    /// The end of a transaction.
    Marker,
}

#[derive(Debug)]
struct Entry {
    standing: Standing,
    record: Committed,
}

#[derive(Debug)]
struct Known {
    epoch: i16,
    next_sequence: i32,
    /// First sequence number, count and offset of the last batches.
    batches: VecDeque<(i32, i32, i64)>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Partition {
    number: i32,
    /// In the order of their offsets; compaction leaves gaps.
    entries: Vec<Entry>,
    next_offset: i64,
    /// First offset of each open transaction.
    open: BTreeMap<ProducerId, i64>,
    producers: BTreeMap<ProducerId, Known>,
    /// Offsets in the order in which they became visible to readers of committed
    /// records.
    visible: Vec<i64>,
    stable_seen: i64,
}

/// What a fetch gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// What stands there, in its order.
    pub records: Vec<Committed>,
    /// Where to fetch on: behind markers and aborted records too.
    pub next: i64,
}

/// A batch of a producer.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Who.
    pub producer: ProducerId,
    /// In which of its lives.
    pub epoch: i16,
    /// The sequence number of the first record.
    pub sequence: i32,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
}

impl Partition {
    /// An empty one.
    pub fn new(number: i32) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    /// Whether a batch may be appended: `Some(offset)` if it stands already.
    fn check(&self, origin: Origin, count: i32) -> Result<Option<i64>, Code> {
        let Some(known) = self.producers.get(&origin.producer) else {
            // Kafka takes any number from a producer that it does not know (KIP-360).
            return Ok(None);
        };
        if origin.epoch < known.epoch {
            return Err(Code::InvalidProducerEpoch);
        }
        if origin.epoch > known.epoch {
            let fresh = origin.sequence == 0;
            return if fresh {
                Ok(None)
            } else {
                Err(Code::OutOfOrderSequence)
            };
        }
        let mut batches = known.batches.iter();
        if let Some((_, _, offset)) =
            batches.find(|(first, length, _)| (*first, *length) == (origin.sequence, count))
        {
            return Ok(Some(*offset));
        }
        if origin.sequence == known.next_sequence {
            Ok(None)
        } else if origin.sequence < known.next_sequence {
            Err(Code::DuplicateSequence)
        } else {
            Err(Code::OutOfOrderSequence)
        }
    }

    /// Appends a batch, or recognises it. Gives the offset of its first record.
    pub fn append(
        &mut self,
        origin: Origin,
        messages: &[Message],
        time_ms: u64,
    ) -> Result<i64, Code> {
        let count = i32::try_from(messages.len()).map_err(|_| Code::InvalidRecord)?;
        if let Some(offset) = self.check(origin, count)? {
            return Ok(offset);
        }
        let base = self.next_offset;
        let standing = if origin.transactional {
            self.open.entry(origin.producer).or_insert(base);
            Standing::Open(origin.producer)
        } else {
            Standing::Committed
        };
        for message in messages {
            let record = Committed {
                partition: self.number,
                offset: self.next_offset,
                key: message.key.clone(),
                value: message.value.clone(),
                headers: message.headers.clone(),
                time_ms,
            };
            self.entries.push(Entry { standing, record });
            self.next_offset += 1;
        }
        let known = self.producers.entry(origin.producer).or_insert(Known {
            epoch: origin.epoch,
            next_sequence: 0,
            batches: VecDeque::new(),
        });
        if known.epoch != origin.epoch {
            known.epoch = origin.epoch;
            known.batches.clear();
        }
        known.next_sequence = origin.sequence + count;
        known.batches.push_back((origin.sequence, count, base));
        if known.batches.len() > BATCHES_REMEMBERED {
            known.batches.pop_front();
        }
        self.settle();
        Ok(base)
    }

    /// Ends a producer's transaction here; its epoch is that of the coordinator, so
    /// that whatever an older one still has under way is refused.
    pub fn mark(&mut self, producer: ProducerId, epoch: i16, commit: bool, time_ms: u64) {
        let standing = if commit {
            Standing::Committed
        } else {
            Standing::Aborted
        };
        if let Some(first) = self.open.remove(&producer) {
            let from = self.index(first);
            for entry in &mut self.entries[from..] {
                if entry.standing == Standing::Open(producer) {
                    entry.standing = standing;
                }
            }
        }
        let record = Committed {
            partition: self.number,
            offset: self.next_offset,
            key: None,
            value: None,
            headers: Vec::new(),
            time_ms,
        };
        self.entries.push(Entry {
            standing: Standing::Marker,
            record,
        });
        self.next_offset += 1;
        let known = self.producers.entry(producer).or_insert(Known {
            epoch,
            next_sequence: 0,
            batches: VecDeque::new(),
        });
        if epoch > known.epoch {
            known.epoch = epoch;
            known.next_sequence = 0;
            known.batches.clear();
        }
        self.settle();
    }

    /// Notes what became visible.
    fn settle(&mut self) {
        let stable = self.stable();
        let from = self.index(self.stable_seen);
        for entry in &self.entries[from..] {
            if entry.record.offset >= stable {
                break;
            }
            if entry.standing == Standing::Committed {
                self.visible.push(entry.record.offset);
            }
        }
        self.stable_seen = stable;
    }

    fn index(&self, offset: i64) -> usize {
        self.entries
            .partition_point(|entry| entry.record.offset < offset)
    }

    /// The next offset to be written.
    pub fn end(&self) -> i64 {
        self.next_offset
    }

    /// The first offset of the oldest open transaction: readers of committed
    /// records see nothing from there on.
    pub fn stable(&self) -> i64 {
        self.open
            .values()
            .copied()
            .min()
            .unwrap_or(self.next_offset)
    }

    /// How many records have ever become visible.
    pub fn visible(&self) -> usize {
        self.visible.len()
    }

    /// Reads from an offset on, `count_max` records at most.
    pub fn fetch(&self, from: i64, count_max: usize, committed_only: bool) -> Fetched {
        let end = if committed_only {
            self.stable()
        } else {
            self.end()
        };
        let mut fetched = Fetched {
            records: Vec::new(),
            next: from,
        };
        for entry in &self.entries[self.index(from)..] {
            if entry.record.offset >= end {
                break;
            }
            if fetched.records.len() >= count_max {
                return fetched;
            }
            fetched.next = entry.record.offset + 1;
            let shown = match entry.standing {
                Standing::Committed => true,
                Standing::Open(_) | Standing::Aborted => !committed_only,
                Standing::Marker => false,
            };
            if shown {
                fetched.records.push(entry.record.clone());
            }
        }
        fetched.next = fetched.next.max(end);
        fetched
    }

    /// What stands committed, in its order, whether or not readers see it yet.
    pub fn committed(&self) -> impl Iterator<Item = &Committed> {
        let committed = |entry: &&Entry| entry.standing == Standing::Committed;
        let entries = self.entries.iter().filter(committed);
        entries.map(|entry| &entry.record)
    }

    /// What became visible after the first `seen` records that did.
    pub fn since(&self, seen: usize) -> impl Iterator<Item = &Committed> {
        self.visible[seen.min(self.visible.len())..]
            .iter()
            .filter_map(|offset| {
                let entry = self.entries.get(self.index(*offset))?;
                (entry.record.offset == *offset).then_some(&entry.record)
            })
    }

    /// Removes what has a newer record of its key, and what was aborted, below an
    /// offset: the active segment, from there on, is never compacted.
    pub fn compact(&mut self, below: i64) {
        let below = below.min(self.stable());
        let mut newest: BTreeMap<Bytes, i64> = BTreeMap::new();
        for entry in &self.entries {
            // The cleaner's map ends with what may be cleaned.
            if entry.record.offset < below
                && entry.standing == Standing::Committed
                && let Some(key) = &entry.record.key
            {
                newest.insert(key.clone(), entry.record.offset);
            }
        }
        self.entries.retain(|entry| {
            let offset = entry.record.offset;
            offset >= below
                || match (entry.standing, &entry.record.key) {
                    (Standing::Committed, Some(key)) => newest.get(key) == Some(&offset),
                    (Standing::Committed, None) => true,
                    (Standing::Aborted | Standing::Marker, _) => false,
                    (Standing::Open(_), _) => true,
                }
        });
    }

    /// The brokers forget a producer that wrote nothing for long
    /// (`producer.id.expiration.ms`).
    pub fn forget_producers(&mut self) {
        let open = &self.open;
        self.producers
            .retain(|producer, _| open.contains_key(producer));
    }
}

/// When a thing is due, for those that are not due at all too.
pub fn sooner(one: Option<Ms>, other: Option<Ms>) -> Option<Ms> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
