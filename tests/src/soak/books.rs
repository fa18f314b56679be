//! What terminals did against what stands in Kafka, an epoch at a time.
//!
//! Promises: every payment of an epoch is judged by the ledger of
//! [`risiti_sim::ledger`]: in Kafka, settled and printed once; what comes up later of
//! an epoch that is closed is a fault of the next. Memory is that of one epoch.
//! Never: a log read twice, or a message that a reader of committed records does not
//! see.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use risiti_bridge::headers;
use risiti_sim::ledger::{
    self, Account, Accounts, Delivery, Entry, Found, ReceiptsLog, receipts_verdict, verdict,
};

use super::house::topics;
use super::limits;

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// A number that no terminal ever gave: what it is put in place of is never paid.
const NOBODYS: u64 = u64::MAX;

/// What was read since the last epoch was closed.
#[derive(Debug, Default)]
pub struct Epoch {
    /// Records, and which gateway brought them.
    pub records: Vec<(Found, String)>,
    /// Receipts.
    pub receipts: Vec<Found>,
    /// Finalised transactions.
    pub settled: Vec<Found>,
    /// Delivery events.
    pub deliveries: Vec<Delivery>,
    /// Messages of plain clients.
    pub raw: u64,
    /// Messages that are not what their topic says.
    pub wrong: Vec<String>,
}

impl Epoch {
    /// How much it holds, to see that nothing more comes.
    #[must_use]
    pub fn size(&self) -> [usize; 5] {
        [
            self.records.len(),
            self.receipts.len(),
            self.settled.len(),
            self.deliveries.len(),
            self.raw as usize,
        ]
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let header = |name: &str| headers::text(message, name);
        let entry = Entry {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default(),
            value: message.payload().unwrap_or_default(),
            ce_id: header("ce_id"),
            ce_type: header("ce_type"),
        };
        let read = match message.topic() {
            topics::RECORDS => ledger::record(&entry).map(|one| {
                let gateway = header("risiti-gateway").unwrap_or_default();
                self.records.push((one, gateway.to_owned()));
            }),
            topics::RECEIPTS => ledger::receipt(&entry).map(|one| self.receipts.push(one)),
            topics::TRANSACTIONS => ledger::transaction(&entry).map(|one| self.settled.push(one)),
            topics::DELIVERIES => ledger::delivery(&entry).map(|one| self.deliveries.push(one)),
            _ => {
                self.raw += 1;
                Ok(())
            }
        };
        if let Err(wrong) = read
            && self.wrong.len() < 10
        {
            self.wrong.push(format!("{}: {wrong}", message.topic()));
        }
    }
}

/// Reads all topics from their beginning on, for as long as it lives.
#[derive(Debug)]
pub struct Reader {
    epoch: Arc<Mutex<Epoch>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Waits until all topics are there, and begins.
    ///
    /// # Errors
    /// They did not come.
    pub fn start(bootstrap: &str) -> io::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "risiti-soak")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "50")
            // One epoch is a few MiB; what librdkafka reads ahead must not look like
            // growth of the soak.
            .set("queued.max.messages.kbytes", "2048")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .map_err(io::Error::other)?;
        let until = Instant::now() + limits::START;
        let mut list = TopicPartitionList::new();
        for topic in topics::ALL {
            loop {
                let metadata = consumer.fetch_metadata(Some(topic), limits::START);
                let partitions: Vec<i32> = metadata
                    .ok()
                    .and_then(|all| {
                        let found = all.topics().first()?.partitions().iter();
                        Some(found.map(|partition| partition.id()).collect())
                    })
                    .unwrap_or_default();
                for partition in &partitions {
                    list.add_partition_offset(topic, *partition, Offset::Beginning)
                        .map_err(io::Error::other)?;
                }
                if !partitions.is_empty() {
                    break;
                }
                if Instant::now() > until {
                    return Err(io::Error::other(format!("there is no topic {topic}")));
                }
                std::thread::sleep(limits::LOOK);
            }
        }
        consumer.assign(&list).map_err(io::Error::other)?;
        let epoch = Arc::new(Mutex::new(Epoch::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (epoch, stop) = (Arc::clone(&epoch), Arc::clone(&stop));
            move || {
                while !stop.load(Relaxed) {
                    // An error is Kafka's absence; what is there comes once it is back.
                    if let Some(Ok(message)) = consumer.poll(POLL) {
                        lock(&epoch).take(&message);
                    }
                }
            }
        });
        Ok(Self {
            epoch,
            stop,
            thread: Some(thread),
        })
    }

    /// Looks at what was read of this epoch.
    pub fn look<T>(&self, look: impl FnOnce(&Epoch) -> T) -> T {
        look(&lock(&self.epoch))
    }

    /// Closes the epoch.
    #[must_use]
    pub fn take(&self) -> Epoch {
        std::mem::take(&mut lock(&self.epoch))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(epoch: &Mutex<Epoch>) -> MutexGuard<'_, Epoch> {
    epoch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all closed epochs have come to.
#[derive(Debug, Default)]
pub struct Books {
    /// The last number of each terminal in the epochs before.
    bases: BTreeMap<String, u64>,
    /// Payments saved.
    pub payments: u64,
    /// Of them, printed.
    pub printed: u64,
    /// Records in Kafka, those sent again included.
    pub records: u64,
    /// Records with the resend mark.
    pub resent: u64,
    /// Receipts that came to a terminal again and were recognised. No fault.
    pub repeated: u64,
    /// Deliveries of one receipt by both gateways, to a terminal that moved between
    /// them. No fault.
    pub crossed: u64,
    /// Records that came by both gateways without the resend mark, from terminals
    /// that moved before their PUBACK. No fault: settlement counts them once.
    pub moved: u64,
    /// Messages of plain clients in Kafka.
    pub raw: u64,
    /// Epochs that are closed.
    pub epochs: u64,
    /// Faults, in words, by epoch.
    pub faults: Vec<String>,
}

impl Books {
    /// Payments of all closed epochs.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.bases.values().sum()
    }

    /// Judges an epoch in which everything has come to rest.
    pub fn close(&mut self, accounts: Accounts, epoch: Epoch) {
        let mut next = self.bases.clone();
        let mut judged = Accounts::new();
        for (terminal, account) in accounts {
            let base = self.bases.get(&terminal).copied().unwrap_or(0);
            next.insert(terminal.clone(), account.published);
            judged.insert(terminal, since(account, base));
        }
        let base = |found: &mut Found| {
            let base = self.bases.get(&found.client).copied().unwrap_or(0);
            found.sequence = renumbered(found.sequence, base);
        };
        let renumber = |mut log: Vec<Found>| {
            log.iter_mut().for_each(base);
            log
        };
        let (records, moved) = drop_moved(epoch.records);
        self.moved += moved;
        // Order is each gateway's promise: the second one knows nothing of what still
        // waits at the first.
        let mut out_of_order = 0;
        let gateways: BTreeSet<String> = records.iter().map(|(_, g)| g.clone()).collect();
        for gateway in gateways {
            let its = records.iter().filter(|(_, by)| *by == gateway);
            let its = renumber(its.map(|(one, _)| one.clone()).collect());
            out_of_order += verdict(&judged, &its).out_of_order;
        }
        let records = renumber(records.into_iter().map(|(one, _)| one).collect());
        let receipts = renumber(epoch.receipts);
        let settled = renumber(epoch.settled);
        let mut deliveries = epoch.deliveries;
        for one in &mut deliveries {
            let base = self.bases.get(&one.terminal).copied().unwrap_or(0);
            one.sequence = renumbered(one.sequence, base);
        }
        self.crossed += drop_crossed(&receipts, &mut deliveries);
        let mut up = verdict(&judged, &records);
        up.out_of_order = out_of_order;
        let log = ReceiptsLog {
            settled,
            receipts,
            deliveries: Some(deliveries),
        };
        let round = receipts_verdict(&judged, &log);
        self.epochs += 1;
        let nth = self.epochs;
        if !up.is_clean() {
            self.faults.push(format!("epoch {nth}: way up: {up}"));
        }
        if !round.is_clean() {
            self.faults.push(format!("epoch {nth}: way round: {round}"));
        }
        self.faults.extend(epoch.wrong);
        self.payments += round.payments;
        self.printed += round.printed;
        self.repeated += round.repeated;
        self.resent += up.resent;
        self.records += records.len() as u64;
        self.raw += epoch.raw;
        self.bases = next;
    }
}

fn renumbered(sequence: u64, base: u64) -> u64 {
    match sequence.checked_sub(base) {
        Some(0) | None => NOBODYS,
        Some(sequence) => sequence,
    }
}

/// An account whose numbers begin after `base`.
fn since(account: Account, base: u64) -> Account {
    let renumber = |number: u64| renumbered(number, base);
    // Printed before, and now again: as bad as another's receipt.
    let again = account.printed.range(..=base).count() as u64;
    Account {
        strangers: account.strangers + again,
        published: account.published.saturating_sub(base),
        skipped: account.skipped.into_iter().map(renumber).collect(),
        acknowledged: account.acknowledged.into_iter().map(renumber).collect(),
        printed: account
            .printed
            .into_iter()
            .map(|(number, times)| (renumber(number), times))
            .collect(),
        ..account
    }
}

/// Leaves out records that another gateway brought as well: one that had no PUBACK
/// when its terminal moved, and was sent again to the other gateway, which can't know
/// it. Twice by one gateway stays. Tells how many.
fn drop_moved(records: Vec<(Found, String)>) -> (Vec<(Found, String)>, u64) {
    let mut first: BTreeMap<(String, u64), String> = BTreeMap::new();
    let before = records.len();
    let left: Vec<(Found, String)> = records
        .into_iter()
        .filter(|(one, gateway)| {
            let key = (one.client.clone(), one.sequence);
            one.resend || first.entry(key).or_insert_with(|| gateway.clone()) == gateway
        })
        .collect();
    let moved = (before - left.len()) as u64;
    (left, moved)
}

/// Leaves out deliveries of the second gateway beyond what there are receipts for: a
/// terminal that moves between two gateways may be sent a receipt by the other one
/// before that one hears that it was delivered. Tells how many.
fn drop_crossed(receipts: &[Found], deliveries: &mut Vec<Delivery>) -> u64 {
    let mut wanted: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for one in receipts {
        *wanted.entry((&one.client, one.sequence)).or_default() += 1;
    }
    let mut gateways: BTreeMap<(String, u64), BTreeSet<String>> = BTreeMap::new();
    let mut counts: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for one in &*deliveries {
        let key = (one.terminal.clone(), one.sequence);
        gateways
            .entry(key.clone())
            .or_default()
            .insert(one.gateway.clone());
        *counts.entry(key).or_default() += 1;
    }
    let before = deliveries.len();
    // The later gateway's go, and only where both delivered.
    for one in std::mem::take(deliveries) {
        let key = (one.terminal.clone(), one.sequence);
        let wanted = wanted.get(&(&*key.0, key.1)).copied().unwrap_or(0);
        let surplus = counts.get(&key).is_some_and(|count| *count > wanted);
        let both = gateways.get(&key).is_some_and(|all| all.len() > 1);
        let later = gateways
            .get(&key)
            .is_some_and(|all| all.last() == Some(&one.gateway));
        if surplus && both && later {
            if let Some(count) = counts.get_mut(&key) {
                *count -= 1;
            }
        } else {
            deliveries.push(one);
        }
    }
    (before - deliveries.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(published: u64, done: impl Iterator<Item = u64> + Clone) -> Accounts {
        let account = Account {
            published,
            acknowledged: done.clone().collect(),
            printed: done.map(|number| (number, 1)).collect(),
            ..Account::default()
        };
        Accounts::from([("a".to_owned(), account)])
    }

    fn found(numbers: impl Iterator<Item = u64>) -> Vec<Found> {
        (0..)
            .zip(numbers)
            .map(|(offset, sequence)| Found {
                client: "a".into(),
                sequence,
                resend: false,
                partition: 0,
                offset,
            })
            .collect()
    }

    fn delivery(sequence: u64, number: u64, gateway: &str) -> Delivery {
        Delivery {
            terminal: "a".into(),
            sequence,
            number,
            gateway: gateway.into(),
        }
    }

    fn epoch(numbers: impl Iterator<Item = u64> + Clone) -> Epoch {
        Epoch {
            records: found(numbers.clone())
                .into_iter()
                .map(|one| (one, "g1".to_owned()))
                .collect(),
            receipts: found(numbers.clone()),
            settled: found(numbers.clone()),
            deliveries: numbers.map(|n| delivery(n, n, "g1")).collect(),
            ..Epoch::default()
        }
    }

    #[test]
    fn epochs_in_order_are_clean_and_counted() {
        let mut books = Books::default();
        books.close(account(3, 1..=3), epoch(1..=3));
        books.close(account(5, 4..=5), epoch(4..=5));
        assert_eq!(books.faults, Vec::<String>::new());
        assert_eq!((books.payments, books.printed, books.base()), (5, 5, 5));
    }

    #[test]
    fn a_payment_missing_in_its_epoch_is_a_fault() {
        let mut books = Books::default();
        books.close(account(3, 1..=3), epoch(1..=3));
        books.close(account(5, 4..=5), epoch(4..=4));
        assert!(books.faults.join("").contains("lost 1"), "{books:?}");
    }

    #[test]
    fn what_comes_again_in_a_later_epoch_is_a_fault() {
        let mut books = Books::default();
        books.close(account(3, 1..=3), epoch(1..=3));
        let mut late = epoch(4..=5);
        late.settled.extend(found(2..=2));
        books.close(account(5, 4..=5), late);
        assert!(books.faults.join("").contains("never paid 1"), "{books:?}");
    }

    #[test]
    fn a_receipt_printed_again_in_a_later_epoch_is_a_fault() {
        let mut books = Books::default();
        books.close(account(3, 1..=3), epoch(1..=3));
        books.close(account(5, 3..=5), epoch(4..=5));
        assert!(
            books.faults.join("").contains("wrong terminal 1"),
            "{books:?}"
        );
    }

    #[test]
    fn a_record_that_came_by_both_gateways_is_told_and_twice_by_one_is_a_fault() {
        let mut books = Books::default();
        let mut both = epoch(1..=3);
        let again = found(2..=2).remove(0);
        both.records.push((again.clone(), "g2".to_owned()));
        both.receipts.push(again.clone());
        both.deliveries.push(delivery(2, 9, "g2"));
        books.close(account(3, 1..=3), both);
        assert_eq!(books.faults, Vec::<String>::new());
        assert_eq!(books.moved, 1);
        let mut twice = epoch(4..=5);
        let again = found(4..=4).remove(0);
        twice.records.push((again, "g1".to_owned()));
        books.close(account(5, 4..=5), twice);
        assert!(books.faults.join("").contains("duplicated 1"), "{books:?}");
    }

    #[test]
    fn a_receipt_that_both_gateways_delivered_is_told_and_no_fault() {
        let mut books = Books::default();
        let mut both = epoch(1..=3);
        both.deliveries.push(delivery(2, 7, "g2"));
        books.close(account(3, 1..=3), both);
        assert_eq!(books.faults, Vec::<String>::new());
        assert_eq!(books.crossed, 1);
        // One gateway that delivers twice is a fault.
        let mut twice = epoch(4..=5);
        twice.deliveries.push(delivery(4, 9, "g1"));
        books.close(account(5, 4..=5), twice);
        assert!(books.faults.join("").contains("delivery event twice 1"));
    }
}
