//! The oracle: what people and auditors see, and what they may conclude.
//!
//! Promises: told of displays, papers, PUBACKs, disks and Kafka's committed log, it
//! says after each step whether a guarantee is broken, and at the end whether all
//! has arrived. It knows nothing of how the product works. Never: a verdict from
//! what nobody outside could see, or mercy that a fault does not account for.
//!
//! | guarantee | broken, if |
//! | --- | --- |
//! | G1 | a record with a PUBACK is neither on that gateway's synced disk nor in Kafka |
//! | G2 | a journal's position stands twice in Kafka; a record twice without the resend mark; a payment is settled twice |
//! | G3 | a terminal's record stands behind a later one of the same journal |
//! | G4 | a receipt below the stored offset is on no disk, and its terminal has not taken it |
//! | G5 | a second paper of a payment does not say that it is one |
//! | G6 | a number is shown for two payments; a terminal forgets one; another payment than the one shown reaches Kafka |
//! | G7 | with a gateway's disk lost, a payment does not arrive |
//! | G8 | a bound does not hold; a record is acknowledged and dropped while the disk is full |
//! | G9 | a hostile client's bytes stand in Kafka under another's name, or it gets a receipt |
//! | G10 | what its terminal has not sealed is settled, or a record that it has is refused; a paper of what was not settled |
//! | G11 | damage took what nobody counted, though the gateway looked at it |
//!
//! What a wiped disk held is lost with it; what a flipped bit hit is lost if the
//! gateway has counted it; if that was its memory of a terminal's resends, that
//! terminal's records may stand twice; if it was a record that nobody had a PUBACK
//! for, that one may come again and stand behind later ones. All must be settled once,
//! and must arrive in the end all the same: the terminal keeps a record until its
//! receipt.

mod book;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use risiti_sim::printer::Paper;

use crate::contract::{GatewayEvent, Onlooker};
use crate::kafka::Kafka;
use crate::terminal::Seen;
use book::Book;
use log::Log;

/// A guarantee that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which: `G1` to `G11`, or `liveness`.
    pub guarantee: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guarantee, self.what)
    }
}

/// Of a guarantee that is broken.
pub(crate) fn broken<T>(guarantee: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { guarantee, what })
}

/// A record, by its terminal and number.
type Name = (String, u64);

/// What is known of one gateway's disk.
#[derive(Debug, Default)]
struct Disk {
    /// Acknowledged, and not seen in Kafka yet.
    owed: BTreeSet<Name>,
    /// Owed, not found at a start; a transaction that is decided and not visible
    /// yet may account for it.
    suspects: BTreeSet<Name>,
    /// The first offsets of this disk's life, by partition.
    begins: BTreeMap<i32, i64>,
    is_first: bool,
    full: bool,
    flipped: bool,
    /// What the gateway has counted as lost, and the records that are missed.
    told_lost: u64,
    missing: BTreeSet<Name>,
    /// Receipts that are missed since a bit flipped. A row is looked at when its
    /// terminal comes, and not before.
    missing_receipts: BTreeSet<Name>,
    /// Terminals that were given receipts since then.
    served: BTreeSet<String>,
}

/// What went on, for the coverage of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Payments shown as saved.
    pub saved: u64,
    /// PUBACKs that left.
    pub acked: u64,
    /// Records withheld.
    pub withheld: u64,
    /// Records that came again and were recognised.
    pub duplicates: u64,
    /// Records in Kafka.
    pub records: u64,
    /// Of them, with the resend mark.
    pub resent: u64,
    /// Payments settled.
    pub settled: u64,
    /// Receipts in Kafka.
    pub receipts: u64,
    /// Receipts that left for their terminal.
    pub delivered: u64,
    /// Papers that say that they may not be the only ones.
    pub again: u64,
    /// Papers that are torn.
    pub torn: u64,
    /// First papers.
    pub printed: u64,
    /// Records and rows that gateways counted as damaged.
    pub damaged: u64,
    /// Forged records that settlement refused.
    pub refused: u64,
}

/// The oracle of one run.
pub struct Reference {
    books: BTreeMap<String, Book>,
    disks: Vec<Disk>,
    log: Log,
    /// Receipts whose PUBACK a gateway has.
    taken: BTreeSet<Name>,
    wiped: bool,
    /// What went on.
    pub tally: Tally,
}

impl Reference {
    /// Over these terminals, with all payments that people mean to make, and so
    /// many gateways.
    #[must_use]
    pub fn new(terminals: Vec<(String, Vec<(String, u64)>)>, gateways: usize) -> Self {
        let books = terminals.into_iter();
        let books = books.map(|(id, meant)| (id, Book::new(meant))).collect();
        let disk = |_| Disk {
            is_first: true,
            ..Disk::default()
        };
        Self {
            books,
            disks: (0..gateways).map(disk).collect(),
            log: Log::default(),
            taken: BTreeSet::new(),
            wiped: false,
            tally: Tally::default(),
        }
    }

    /// Somebody reads a display.
    ///
    /// # Errors
    /// G6.
    pub fn seen(&mut self, terminal: &str, seen: &Seen) -> Result<(), Violation> {
        self.tally.saved += u64::from(matches!(seen, Seen::Saved(_)));
        let (log, book) = (&self.log, self.books.get_mut(terminal));
        book.map_or(Ok(()), |book| book.seen(terminal, seen, log))
    }

    /// A paper comes out.
    ///
    /// # Errors
    /// G5, G10.
    pub fn paper(&mut self, terminal: &str, paper: &Paper) -> Result<(), Violation> {
        let tally = &mut self.tally;
        match (paper.whole, paper.again()) {
            (false, _) => tally.torn += 1,
            (true, true) => tally.again += 1,
            (true, false) => tally.printed += 1,
        }
        if let (Some(sequence), true) = (paper.payment(), paper.whole)
            && !self.log.is_answered(&(terminal.to_owned(), sequence))
        {
            let what = format!("{terminal}/{sequence} has a paper and was not settled");
            return broken("G10", what);
        }
        let book = self.books.get_mut(terminal);
        book.map_or(Ok(()), |book| book.paper(terminal, paper))
    }

    /// Somebody has written these to Kafka, and had no key.
    pub fn forged(&mut self, values: [Vec<u8>; 2]) {
        self.log.forged.extend(values);
    }

    /// Somebody has copied a record to this partition, where it does not belong, and
    /// offset.
    pub fn copied(&mut self, (partition, offset): (i32, i64)) {
        self.log.forged_at.insert((i64::from(partition), offset));
    }

    /// Something can be seen at a gateway that runs. What is missed because of it is
    /// told by [`Self::after_step`].
    pub fn at_gateway(&mut self, gateway: usize, event: &GatewayEvent, onlooker: &dyn Onlooker) {
        let disk = &mut self.disks[gateway];
        match event {
            GatewayEvent::Acked { terminal, sequence } => {
                self.tally.acked += 1;
                let name = (terminal.clone(), *sequence);
                if !self.log.holds(&name) && disk.owed.insert(name.clone()) {
                    let there = onlooker.holds_record(terminal, *sequence);
                    if !there && !disk.missing.contains(&name) {
                        disk.suspects.insert(name);
                    }
                }
            }
            GatewayEvent::Withheld { .. } => self.tally.withheld += 1,
            GatewayEvent::Duplicate { .. } => self.tally.duplicates += 1,
            GatewayEvent::Delivered { terminal, .. } => {
                self.tally.delivered += 1;
                disk.served.insert(terminal.clone());
            }
            GatewayEvent::Taken { terminal, sequence } => {
                self.taken.insert((terminal.clone(), *sequence));
            }
            GatewayEvent::Damaged { lost } => {
                self.tally.damaged += lost;
                disk.told_lost += lost;
                self.log.told_lost += lost;
            }
            GatewayEvent::Stored { .. } | GatewayEvent::Note(_) => {}
        }
    }

    /// A gateway has begun, on what its disk holds.
    ///
    /// # Errors
    /// G4. What G1 and G11 have to say follows with [`Self::after_step`].
    pub fn began(&mut self, gateway: usize, onlooker: &dyn Onlooker) -> Result<(), Violation> {
        let disk = &mut self.disks[gateway];
        let gone = |name: &&Name| !onlooker.holds_record(&name.0, name.1);
        let gone: Vec<Name> = disk.owed.iter().filter(gone).cloned().collect();
        disk.suspects.extend(gone);
        self.receipts(gateway, onlooker)
    }

    /// Every receipt below the stored offsets waits on that disk, or was taken.
    ///
    /// # Errors
    /// G4.
    pub fn receipts(&mut self, gateway: usize, onlooker: &dyn Onlooker) -> Result<(), Violation> {
        let disk = &mut self.disks[gateway];
        for (partition, offset, name) in self.log.receipts() {
            let Some(next) = onlooker.receipts_next(partition) else {
                continue;
            };
            let begin = if disk.is_first { 0 } else { next };
            let begin = *disk.begins.entry(partition).or_insert(begin);
            if offset < begin || offset >= next || self.taken.contains(name) {
                continue;
            }
            if onlooker.holds_receipt(&name.0, name.1) {
                continue;
            }
            if disk.flipped {
                disk.missing_receipts.insert(name.clone());
                continue;
            }
            return broken(
                "G4",
                format!(
                    "the receipt of {}/{} at {partition}@{offset} is below the offset {next} that \
                     gateway {gateway} has stored, and on no disk of it",
                    name.0, name.1
                ),
            );
        }
        Ok(())
    }

    /// A gateway's disk is lost.
    pub fn wiped(&mut self, gateway: usize) {
        self.wiped = true;
        self.disks[gateway] = Disk::default();
    }

    /// A bit of a gateway's disk has flipped.
    pub fn flipped(&mut self, gateway: usize) {
        let disk = &mut self.disks[gateway];
        disk.flipped = true;
        disk.served.clear();
    }

    /// A gateway's disk is full, or is not any more.
    pub fn full(&mut self, gateway: usize, full: bool) {
        self.disks[gateway].full |= full;
    }

    /// What is new in Kafka's committed log.
    ///
    /// # Errors
    /// G2, G3, G6, G9, G10.
    pub fn read(&mut self, kafka: &Kafka) -> Result<(), Violation> {
        self.log.read(kafka, &self.books, &mut self.tally)?;
        for disk in &mut self.disks {
            disk.owed.retain(|name| !self.log.holds(name));
            disk.suspects.retain(|name| !self.log.holds(name));
        }
        Ok(())
    }

    /// After a step: who is missed for good.
    ///
    /// # Errors
    /// G1, G8.
    pub fn after_step(&mut self, kafka: &Kafka) -> Result<(), Violation> {
        for (gateway, disk) in self.disks.iter_mut().enumerate() {
            // What a decided transaction holds is as good as in Kafka.
            if disk.suspects.is_empty() || kafka.open_transactions() > 0 {
                continue;
            }
            for name in std::mem::take(&mut disk.suspects) {
                disk.owed.remove(&name);
                // Damage is told when it is read: by the forwarder, at the latest.
                if disk.flipped {
                    disk.missing.insert(name);
                    continue;
                }
                let guarantee = if disk.full { "G8" } else { "G1" };
                let (terminal, sequence) = name;
                return broken(
                    guarantee,
                    format!(
                        "gateway {gateway} has acknowledged {terminal}/{sequence}, which is \
                         neither on its synced disk nor in Kafka"
                    ),
                );
            }
        }
        Ok(())
    }

    /// Bytes that a hostile client got.
    ///
    /// # Errors
    /// G9.
    pub fn told_hostile(&self, bytes: &[u8]) -> Result<(), Violation> {
        for book in self.books.keys() {
            let topic = format!("t/{book}/");
            let topic = topic.as_bytes();
            if bytes.windows(topic.len()).any(|part| part == topic) {
                return broken("G9", format!("a hostile client was told of {book}"));
            }
        }
        Ok(())
    }

    /// Whether every acknowledged record stands in Kafka.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        self.disks.iter().all(|disk| disk.owed.is_empty())
    }

    /// It was quiet for long: what has not arrived never will.
    ///
    /// # Errors
    /// The first that is missed.
    pub fn end(&self) -> Result<(), Violation> {
        let late = if self.wiped { "G7" } else { "liveness" };
        for (terminal, book) in &self.books {
            for sequence in book.saved() {
                let name = (terminal.clone(), sequence);
                let what = if !self.log.is_settled(&name) {
                    "was not settled"
                } else if !book.is_printed(sequence) {
                    "has no paper"
                } else {
                    continue;
                };
                return broken(late, format!("{terminal}/{sequence} {what}"));
            }
        }
        for (gateway, disk) in self.disks.iter().enumerate() {
            let looked_at = |(terminal, _): &&Name| disk.served.contains(terminal);
            let missed = disk.missing_receipts.iter().filter(looked_at).count();
            if (disk.missing.len() + missed) as u64 > disk.told_lost {
                let what = format!(
                    "gateway {gateway} misses {:?} and {missed} receipts since a bit flipped, and \
                     has told of {}",
                    disk.missing, disk.told_lost
                );
                return broken("G11", what);
            }
            if let Some((terminal, sequence)) = disk.owed.first() {
                let what = format!("gateway {gateway} has not forwarded {terminal}/{sequence}");
                return broken("liveness", what);
            }
        }
        Ok(())
    }
}
