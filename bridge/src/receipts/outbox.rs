//! The outbox: rows on disk in step with the ledger in memory.
//!
//! Promises: what was submitted is one commit, receipts and offsets together;
//! [`Arrivals`] hear of receipts only when they are durable, in the order of
//! their numbers; what [`Outbox::page`] gives is durable and not acknowledged.
//! Memory: some 100 bytes a terminal, and what is between two syncs. Never: the
//! ledger's lock held while the disk is read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Condvar, Mutex};
use risiti_config::Terminals;
use risiti_store::{Batch, CommitSink, Journal, State, StoreError};

use super::consumer::{ReceiptsFault, ReceiptsOptions, ReceiptsStatus};
use super::delivered::Exits;
use super::ledger::{Before, Bounds, Full, Ledger};
use super::metrics::ReceiptsMetrics;
use super::rows::{self, ReceiptRow, TerminalRow};
use super::{Arrivals, ReceiptNumber, StoredReceipt};
use crate::dead_letters::DeadLetter;
use crate::error::BridgeError;
use crate::limits;
use crate::trace::{Step, TraceLog};

/// Tells the time, Unix milliseconds.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What an outbox works with.
pub struct OutboxSetup {
    /// Where its rows are.
    pub state: Arc<State>,
    /// Where delivery events go.
    pub journal: Arc<Journal>,
    /// This gateway.
    pub gateway_id: String,
    /// The topics of a terminal.
    pub terminals: Terminals,
    /// Receipts kept in all; see [`limits::receipts_max`]. Beyond, none is taken
    /// from Kafka.
    pub receipts_max: u64,
    /// Receipts kept for terminals that never were here.
    pub unknown_receipts_max: u64,
    /// Receipts kept for one terminal.
    pub receipts_per_terminal_max: u32,
    /// The time of day.
    pub now: Now,
    /// Told of each receipt that is stored.
    pub trace: Arc<TraceLog>,
    /// For tests.
    pub options: ReceiptsOptions,
}

/// A receipt as it came from Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Whose it is: the message's key, a valid terminal id.
    pub terminal: String,
    /// The sequence number of the record that it answers.
    pub sequence: u64,
    /// 0 accepted, else the reason for the rejection.
    pub status: u16,
    /// When settlement issued it, Unix milliseconds.
    pub settled_ms: u64,
    /// When it is of no use any more, Unix milliseconds; none = never.
    pub expires_ms: Option<u64>,
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The receipt in the wire format.
    pub payload: bytes::Bytes,
}

/// The next offset to take from a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextOffset {
    /// Kafka topic.
    pub topic: Arc<str>,
    /// Partition of it.
    pub partition: i32,
    /// One past the last offset taken.
    pub next: i64,
}

/// Another gateway delivered the receipt of this record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// To which terminal.
    pub terminal: String,
    /// The sequence number of the record.
    pub sequence: u64,
}

/// What becomes one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Poll {
    /// In the order of their offsets.
    pub receipts: Vec<Received>,
    /// What other gateways delivered.
    pub elsewhere: Vec<Elsewhere>,
    /// How far the partitions are with these, each once.
    pub offsets: Vec<NextOffset>,
}

impl Poll {
    /// Whether one more message, whatever it is, fits into an atomic commit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // A receipt is a row and its terminal's; a delivery may end some rows.
        let keys = self.receipts.len() * 2
            + self.elsewhere.len() * (limits::ROWS_PER_DELIVERY + 1)
            + self.offsets.len();
        keys + limits::ROWS_PER_DELIVERY + 2 <= risiti_store::limits::BATCH_KEYS_MAX
    }

    /// Notes how far a partition is.
    pub fn passed(&mut self, to: NextOffset) {
        let same = |o: &&mut NextOffset| o.partition == to.partition && o.topic == to.topic;
        match self.offsets.iter_mut().find(same) {
            Some(offset) => offset.next = to.next,
            None => self.offsets.push(to),
        }
    }
}

/// A commit under way.
struct UnderWay {
    arrivals: Vec<(Arc<str>, Vec<StoredReceipt>)>,
    /// For the recorder: terminal, sequence and what became of the record.
    steps: Vec<(Arc<str>, u64, Step<'static>)>,
    ended: Vec<(Arc<str>, ReceiptNumber)>,
    offsets: Vec<NextOffset>,
}

/// Receipts that wait for their terminals.
pub struct Outbox {
    pub(super) setup: OutboxSetup,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) metrics: Arc<ReceiptsMetrics>,
    pub(super) exits: Exits,
    /// Held while something is submitted: the consumer's and a person's.
    submitting: Mutex<()>,
    /// Whether [`OutboxSetup::receipts_max`] is reached.
    full: AtomicBool,
    arrivals: OnceLock<Arc<dyn Arrivals>>,
    commits: Mutex<BTreeMap<u64, UnderWay>>,
    /// Offsets that are durable and not passed to Kafka yet.
    durable: Mutex<Vec<NextOffset>>,
    settled: Condvar,
    next_token: AtomicU64,
    this: Weak<Self>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// Opens the outbox that is in the state database.
    ///
    /// # Errors
    /// The disk's, or the operating system gave no thread.
    pub fn open(setup: OutboxSetup) -> Result<Arc<Self>, BridgeError> {
        let mut ledger = Ledger::new(Bounds {
            terminals_max: limits::TERMINALS_MAX,
            unknown_receipts_max: setup.unknown_receipts_max,
            per_terminal_max: setup.receipts_per_terminal_max,
        });
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = setup.state.scan(
                rows::TERMINALS,
                after.as_deref(),
                limits::TERMINAL_ROWS_PAGE,
            )?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, value) in page {
                let Some(terminal) = rows::terminal_of(&key) else {
                    continue;
                };
                match TerminalRow::decode(&value) {
                    Ok(row) => ledger.restore(terminal, row),
                    // It becomes a stranger, whose numbers are found from its rows.
                    Err(error) => {
                        tracing::error!(terminal, %error, "what the outbox knew of a terminal can't be read");
                    }
                }
            }
        }
        let outbox = Arc::new_cyclic(|this| Self {
            setup,
            ledger: Mutex::new(ledger),
            metrics: Arc::default(),
            exits: Exits::default(),
            submitting: Mutex::new(()),
            full: AtomicBool::new(false),
            arrivals: OnceLock::new(),
            commits: Mutex::default(),
            durable: Mutex::default(),
            settled: Condvar::new(),
            next_token: AtomicU64::new(1),
            this: Weak::clone(this),
        });
        super::delivered::start(&outbox).map_err(BridgeError::Thread)?;
        Ok(outbox)
    }

    /// Who is told of arrivals. Once, before the consumer starts.
    pub fn listen(&self, arrivals: Arc<dyn Arrivals>) {
        if self.arrivals.set(arrivals).is_err() {
            tracing::error!("a bug: the outbox was given a second listener; please report it");
        }
    }

    /// One past the newest durable receipt's number: the number that the next one
    /// to arrive gets. May read the disk.
    ///
    /// # Errors
    /// The disk's: try again later.
    pub fn end(&self, terminal: &str) -> Result<ReceiptNumber, StoreError> {
        if let Some(end) = self.ledger.lock().end(terminal) {
            return Ok(end);
        }
        let (next, _) = self.look_up(terminal)?;
        // A stranger's first receipt may have come meanwhile.
        Ok(self.ledger.lock().end(terminal).unwrap_or(next))
    }

    /// Receipts that wait for this terminal, beyond the one numbered `after`, in
    /// the order of their numbers; fewer than `limit` means that these are all.
    /// Reads the disk.
    ///
    /// # Errors
    /// The disk's: try again later.
    pub fn page(
        &self,
        terminal: &str,
        after: ReceiptNumber,
        limit: usize,
    ) -> Result<Vec<StoredReceipt>, StoreError> {
        let mut found = Vec::new();
        let mut after = rows::receipt_key(terminal, after);
        let prefix = rows::receipts_of(terminal);
        while found.len() < limit {
            // Before the scan: what is acknowledged during it may be given again,
            // never what was acknowledged before.
            let (end, name) = {
                let ledger = self.ledger.lock();
                (
                    ledger.end(terminal).unwrap_or(u64::MAX),
                    ledger.name(terminal),
                )
            };
            let wanted = limit - found.len();
            let page = self.setup.state.scan(&prefix, Some(&after), wanted)?;
            let complete = page.len() < wanted;
            let ledger = self.ledger.lock();
            for (key, value) in page {
                let number = rows::receipt_number(&key);
                after = key;
                match ReceiptRow::decode(value) {
                    Ok(row) if row.receipt.number >= end => return Ok(found),
                    Ok(row) => {
                        let number = row.receipt.number;
                        if !name.as_ref().is_some_and(|n| ledger.is_going(n, number)) {
                            found.push(row.receipt);
                        }
                    }
                    Err(error) => {
                        tracing::error!(terminal, number, %error, "a receipt can't be read; its terminal asks for it again");
                    }
                }
            }
            if complete {
                break;
            }
        }
        Ok(found)
    }

    /// The newest receipt ever received for this terminal, acknowledged or not, if
    /// it is still known. Reads the disk.
    ///
    /// # Errors
    /// The disk's: try again later.
    pub fn last(&self, terminal: &str) -> Result<Option<StoredReceipt>, StoreError> {
        let state = &self.setup.state;
        let end = self.end(terminal)?;
        let newest = match end.checked_sub(1).filter(|number| *number > 0) {
            Some(number) => state.get(&rows::receipt_key(terminal, number))?,
            None => None,
        };
        let value = match newest {
            Some(value) => Some(value),
            None => state.get(&rows::last_key(terminal))?,
        };
        Ok(value
            .and_then(|value| ReceiptRow::decode(value).ok())
            .map(|row| row.receipt))
    }

    /// Its terminal acknowledged a receipt (PUBACK); `again` if it was sent more
    /// than once. The delivery event goes into the journal, and when it is durable
    /// the receipt's row goes. Never blocks.
    pub fn acknowledged(&self, terminal: &str, number: ReceiptNumber, again: bool) {
        self.exit(terminal, number, Some(again));
    }

    /// A receipt expired before it was delivered: its row goes, without a
    /// delivery event. Never blocks.
    pub fn expired(&self, terminal: &str, number: ReceiptNumber) {
        self.exit(terminal, number, None);
    }

    /// This terminal is here: it subscribed to its receipts. Never blocks.
    pub fn seen(&self, terminal: &str) {
        let mut ledger = self.ledger.lock();
        let Some(forgotten) = ledger.seen(terminal) else {
            return;
        };
        let Some(row) = ledger.row(terminal) else {
            return;
        };
        let mut batch = Batch::new();
        if let Some(forgotten) = forgotten {
            batch.delete(rows::terminal_key(&forgotten));
        }
        batch.put(rows::terminal_key(terminal), row.encode());
        if let Err(error) = self.setup.state.submit(batch, None) {
            // It is written with its next receipt.
            tracing::debug!(terminal, %error, "a terminal's first visit is not on disk yet");
        }
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ReceiptsMetrics> {
        &self.metrics
    }

    /// Receipts that wait for their terminals.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.ledger.lock().waiting()
    }

    /// Those of them whose terminals never were here.
    #[must_use]
    pub fn waiting_unknown(&self) -> u64 {
        self.ledger.lock().unknown()
    }

    /// Terminals known.
    #[must_use]
    pub fn terminals(&self) -> usize {
        self.ledger.lock().terminals()
    }

    /// The next offset to take from a partition, as it is on disk; none if nothing
    /// was taken from there yet. Reads the disk.
    ///
    /// # Errors
    /// The disk's: try again later.
    pub fn offset(
        &self,
        cluster: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<i64>, StoreError> {
        let key = rows::offset_key(cluster, topic, partition);
        let Some(value) = self.setup.state.get(&key)? else {
            return Ok(None);
        };
        match rows::decode_offset(&value) {
            Ok(next) => Ok(Some(next)),
            Err(error) => {
                tracing::error!(topic, partition, %error, "an offset can't be read; begins at the beginning");
                Ok(None)
            }
        }
    }

    /// Submits receipts and the offsets behind them as one commit. Reads the disk
    /// for terminals that are new.
    ///
    /// # Errors
    /// The disk's, or too much waits for it: nothing was taken, try again.
    pub fn submit(&self, cluster: &str, poll: &Poll) -> Result<(), StoreError> {
        let offsets = &poll.offsets;
        let _submitting = self.submitting.lock();
        if self.setup.options.offset_before_row {
            let mut early = Batch::new();
            put_offsets(&mut early, cluster, offsets);
            self.setup.state.commit(early)?;
            self.setup.options.at(ReceiptsFault::BetweenOffsetAndRow);
        }
        self.introduce(&poll.receipts)?;
        let ended = self.find_ended(&poll.elsewhere)?;
        let now_ms = self.now_ms();
        let mut before = Before::new();
        let mut arrivals: BTreeMap<Arc<str>, Vec<StoredReceipt>> = BTreeMap::new();
        let mut batch = Batch::new();
        let mut steps = Vec::new();
        let (mut unknown, mut full, mut expired) = (0, 0, 0);
        let mut ledger = self.ledger.lock();
        for received in &poll.receipts {
            if received.expires_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                ledger.dismiss(&received.terminal);
                expired += 1;
                continue;
            }
            match ledger.admit(&received.terminal, &mut before) {
                Ok((terminal, number)) => {
                    let row = received.row(number, now_ms);
                    batch.put(rows::receipt_key(&terminal, number), row.encode());
                    steps.push((
                        Arc::clone(&terminal),
                        received.sequence,
                        received.step(number),
                    ));
                    arrivals.entry(terminal).or_default().push(row.receipt);
                }
                Err(Full::Unknown) => {
                    ledger.dismiss(&received.terminal);
                    unknown += 1;
                }
                Err(Full::Terminal) => full += 1,
            }
        }
        let ended: Vec<(Arc<str>, ReceiptNumber)> = ended
            .into_iter()
            .filter_map(|(terminal, number)| Some((ledger.going(&terminal, number)?, number)))
            .collect();
        for (terminal, number) in &ended {
            ledger.leaves(terminal);
            batch.delete(rows::receipt_key(terminal, *number));
        }
        let mut touched: Vec<&Arc<str>> = arrivals.keys().collect();
        touched.extend(ended.iter().map(|(terminal, _)| terminal));
        touched.sort_unstable();
        touched.dedup();
        for terminal in touched {
            if let Some(row) = ledger.row(terminal) {
                batch.put(rows::terminal_key(terminal), row.encode());
            }
        }
        put_offsets(&mut batch, cluster, offsets);
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay {
            arrivals: arrivals.into_iter().collect(),
            steps,
            ended: ended.clone(),
            offsets: offsets.clone(),
        };
        self.commits.lock().insert(token, under_way);
        let Some(this) = self.this.upgrade() else {
            return Err(StoreError::Closing);
        };
        let sink: Arc<dyn CommitSink> = Arc::new(Arrived(this));
        if let Err(error) = self.setup.state.submit(batch, Some((sink, token))) {
            self.commits.lock().remove(&token);
            ledger.undo(before);
            for (terminal, number) in &ended {
                ledger.stays(terminal);
                ledger.gone(terminal, *number);
            }
            return Err(error);
        }
        ReceiptsMetrics::add(&self.metrics.unknown, unknown);
        ReceiptsMetrics::add(&self.metrics.terminal_full, full);
        ReceiptsMetrics::add(&self.metrics.expired, expired);
        Ok(())
    }

    /// The rows of receipts that were delivered elsewhere. Reads the disk only for
    /// terminals for which something waits.
    fn find_ended(
        &self,
        elsewhere: &[Elsewhere],
    ) -> Result<Vec<(String, ReceiptNumber)>, StoreError> {
        let mut ended = Vec::new();
        for delivery in elsewhere {
            let terminal = &delivery.terminal;
            if !self.ledger.lock().has_waiting(terminal) {
                continue;
            }
            let (mut after, mut found) = (0, 0);
            loop {
                let page = self.page(terminal, after, limits::RECEIPT_ROWS_PAGE)?;
                let Some(last) = page.last() else { break };
                after = last.number;
                for receipt in page {
                    if receipt.sequence == delivery.sequence && found < limits::ROWS_PER_DELIVERY {
                        found += 1;
                        ended.push((terminal.clone(), receipt.number));
                    }
                }
            }
        }
        Ok(ended)
    }

    /// Asks the disk for the numbers of terminals that are new to the ledger.
    fn introduce(&self, receipts: &[Received]) -> Result<(), StoreError> {
        for received in receipts {
            let terminal = &received.terminal;
            if !self.ledger.lock().is_strange(terminal) {
                continue;
            }
            let (next, waiting) = self.look_up(terminal)?;
            self.ledger.lock().introduce(terminal, next, waiting);
        }
        Ok(())
    }

    /// The next number of a terminal whose own row is not there: new, or lost to
    /// damage.
    fn look_up(&self, terminal: &str) -> Result<(ReceiptNumber, u32), StoreError> {
        let state = &self.setup.state;
        let last = state
            .get(&rows::last_key(terminal))?
            .and_then(|value| ReceiptRow::decode(value).ok())
            .map_or(0, |row| row.receipt.number);
        let prefix = rows::receipts_of(terminal);
        let (mut highest, mut waiting) = (last, 0_u32);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = state.scan(&prefix, after.as_deref(), limits::RECEIPT_ROWS_PAGE)?;
            let Some((key, _)) = page.last() else { break };
            waiting += u32::try_from(page.len()).unwrap_or(u32::MAX);
            highest = highest.max(rows::receipt_number(key).unwrap_or(0));
            after = Some(key.clone());
        }
        if highest == 0 {
            return Ok((1, 0));
        }
        // Numbers above may have been given and delivered: not used again.
        tracing::warn!(
            terminal,
            highest,
            "what the outbox knew of a terminal was lost; found again from its receipts"
        );
        Ok((highest + limits::NUMBERS_SKIPPED, waiting))
    }

    /// A message that was no receipt is one after all, for instance after an
    /// upgrade: stores it, durably.
    ///
    /// # Errors
    /// It still is none, or there is no room; the reason says what to do.
    pub fn requeue(&self, letter: &DeadLetter) -> Result<(), BridgeError> {
        let refused = |reason: String| BridgeError::DeadLetter {
            id: letter.id(),
            reason,
        };
        let message = super::intake::message_of(letter)
            .ok_or_else(|| refused("it is not of the receipts' topic".into()))?;
        let received = message.read().map_err(refused)?;
        if let Some(why) = self.refused() {
            return Err(refused(format!("there is no room for it: {why}")));
        }
        let terminal = received.terminal.clone();
        let before = self.end(&terminal)?;
        let poll = Poll {
            receipts: vec![received],
            ..Poll::default()
        };
        self.submit("", &poll)?;
        // Behind everything that was submitted before it.
        self.setup.state.commit(Batch::new())?;
        if self.end(&terminal)? == before {
            return Err(refused(format!(
                "as many receipts wait for terminal {terminal}, or for terminals that never were here, as [receipts] allows, or it has expired; raise the bound, or drop it: its terminal asks for it again"
            )));
        }
        Ok(())
    }

    /// Why no receipts can be taken now, if so.
    pub(super) fn refused(&self) -> Option<String> {
        if let Some(alarm) = self.setup.state.receipts_refused() {
            return Some(alarm.to_string());
        }
        let (waiting, most) = (self.waiting(), self.setup.receipts_max);
        // Once refused, until there is room for more than the next few.
        let margin = if self.full.load(Ordering::Relaxed) {
            most / 16
        } else {
            0
        };
        let full = waiting >= most.saturating_sub(margin).max(1);
        self.full.store(full, Ordering::Relaxed);
        full.then(|| format!(
            "{waiting} receipts wait for their terminals, the most that the disk budget leaves room for; it goes on by itself when terminals take theirs; raise store.budget_bytes if that is too few"
        ))
    }

    pub(super) fn options(&self) -> &ReceiptsOptions {
        &self.setup.options
    }

    pub(super) fn now_ms(&self) -> u64 {
        (self.setup.now)()
    }

    /// Tells of bounds that are reached.
    pub(super) fn tell_bounds(&self, status: &mut ReceiptsStatus) {
        let (unknown, max) = (self.waiting_unknown(), self.setup.unknown_receipts_max);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refused = count(&self.metrics.unknown);
        if refused > 0 && unknown >= max {
            status.alarms.push(format!(
                "{unknown} receipts wait for terminals that never were at this gateway; {refused} newer ones were not kept (their terminals ask again); check what writes the receipts' topic, or raise receipts.unknown_receipts_max"
            ));
        }
        let full = count(&self.metrics.terminal_full);
        if full > 0 {
            status.notes.push(format!(
                "{full} receipts were not kept since the start because {} wait for their terminal already (it asks again); raise receipts.receipts_per_terminal_max if that is too few",
                self.setup.receipts_per_terminal_max
            ));
        }
    }

    /// Waits until fewer than `most` commits are under way, or the timeout.
    pub(super) fn wait_below(&self, most: usize, timeout: std::time::Duration) -> bool {
        let mut commits = self.commits.lock();
        if commits.len() >= most {
            self.settled.wait_for(&mut commits, timeout);
        }
        commits.len() < most
    }

    /// Offsets that became durable since the last call, the last of each
    /// partition.
    pub(super) fn take_durable(&self) -> Vec<NextOffset> {
        std::mem::take(&mut *self.durable.lock())
    }

    fn committed(&self, token: u64, result: Result<(), StoreError>) {
        let Some(under_way) = self.commits.lock().remove(&token) else {
            return;
        };
        self.settled.notify_all();
        if result.is_err() {
            return; // closing: the next start takes it from Kafka again
        }
        self.setup.options.at(ReceiptsFault::AfterCommit);
        let mut stored = 0;
        {
            let mut ledger = self.ledger.lock();
            for (terminal, receipts) in &under_way.arrivals {
                stored += receipts.len() as u64;
                if let Some(newest) = receipts.last() {
                    ledger.durable(terminal, newest.number);
                }
            }
            for (terminal, number) in &under_way.ended {
                ledger.gone(terminal, *number);
            }
        }
        ReceiptsMetrics::add(&self.metrics.stored, stored);
        let now_ms = self.now_ms();
        for (terminal, sequence, step) in &under_way.steps {
            self.setup.trace.note(now_ms, terminal, *sequence, *step);
        }
        let ended = under_way.ended.len() as u64;
        ReceiptsMetrics::add(&self.metrics.delivered_elsewhere, ended);
        let mut durable = self.durable.lock();
        for offset in under_way.offsets {
            durable.retain(|o| (&o.topic, o.partition) != (&offset.topic, offset.partition));
            durable.push(offset);
        }
        drop(durable);
        if let Some(arrivals) = self.arrivals.get() {
            for (terminal, receipts) in &under_way.arrivals {
                arrivals.arrived(terminal, receipts);
            }
        }
    }
}

impl Received {
    fn step(&self, number: ReceiptNumber) -> Step<'static> {
        Step::Stored {
            partition: self.partition,
            offset: self.offset,
            settled_ms: self.settled_ms,
            number,
            status: self.status,
        }
    }

    fn row(&self, number: ReceiptNumber, now_ms: u64) -> ReceiptRow {
        ReceiptRow {
            receipt: StoredReceipt {
                number,
                sequence: self.sequence,
                stored_ms: now_ms,
                expires_ms: self.expires_ms,
                payload: self.payload.clone(),
            },
            settled_ms: self.settled_ms,
            status: self.status,
            partition: self.partition,
            offset: self.offset,
        }
    }
}

fn put_offsets(batch: &mut Batch, cluster: &str, offsets: &[NextOffset]) {
    for offset in offsets {
        batch.put(
            rows::offset_key(cluster, &offset.topic, offset.partition),
            rows::encode_offset(offset.next),
        );
    }
}

struct Arrived(Arc<Outbox>);

impl CommitSink for Arrived {
    fn committed(&self, token: u64, result: Result<(), StoreError>) {
        self.0.committed(token, result);
    }
}
