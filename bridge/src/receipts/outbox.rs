//! The outbox: rows on disk in step with the ledger in memory.
//!
//! Promises: what [`Outbox::page`] gives is durable and not acknowledged.
//! Memory: some 100 bytes a terminal, and what is between two syncs. Never: the
//! ledger's lock held while the disk is read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Condvar, Mutex};
use risiti_config::Terminals;
use risiti_store::{Batch, RecordSink, Rows, StoreError};

use super::consumer::{ReceiptsOptions, ReceiptsStatus};
use super::delivered::Exits;
use super::early::Early;
use super::ledger::{Bounds, Ledger};
use super::metrics::ReceiptsMetrics;
use super::poll::NextOffset;
use super::rows::{self, ReceiptRow, TerminalRow};
use super::storing::UnderWay;
use super::{Arrivals, ReceiptNumber, StoredReceipt};
use crate::error::BridgeError;
use crate::limits;
use crate::trace::TraceLog;

/// Tells the time, Unix milliseconds.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What an outbox works with.
pub struct OutboxSetup {
    /// Where its rows are.
    pub state: Arc<dyn Rows>,
    /// Where delivery events go.
    pub journal: Arc<dyn RecordSink>,
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

/// Receipts that wait for their terminals.
pub struct Outbox {
    pub(super) setup: OutboxSetup,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) metrics: Arc<ReceiptsMetrics>,
    pub(super) exits: Exits,
    /// Other gateways' deliveries of what is not on disk here yet.
    pub(super) early: Mutex<Early>,
    /// Held while something is submitted: the consumer's and a person's.
    pub(super) submitting: Mutex<()>,
    /// Whether [`OutboxSetup::receipts_max`] is reached.
    full: AtomicBool,
    pub(super) arrivals: OnceLock<Arc<dyn Arrivals>>,
    pub(super) commits: Mutex<BTreeMap<u64, UnderWay>>,
    /// Offsets that are durable and not passed to Kafka yet.
    pub(super) durable: Mutex<Vec<NextOffset>>,
    pub(super) settled: Condvar,
    pub(super) next_token: AtomicU64,
    pub(super) this: Weak<Self>,
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
        let outbox = Self::open_idle(setup)?;
        super::delivered::start(&outbox).map_err(BridgeError::Thread)?;
        Ok(outbox)
    }

    /// The same without the thread that lets receipts out: whoever has it calls
    /// [`Outbox::let_out`].
    ///
    /// # Errors
    /// The disk's.
    pub fn open_idle(setup: OutboxSetup) -> Result<Arc<Self>, StoreError> {
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
            early: Mutex::default(),
            submitting: Mutex::new(()),
            full: AtomicBool::new(false),
            arrivals: OnceLock::new(),
            commits: Mutex::default(),
            durable: Mutex::default(),
            settled: Condvar::new(),
            next_token: AtomicU64::new(1),
            this: Weak::clone(this),
        });
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
        let mut first = after == 0;
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
            let mut ledger = self.ledger.lock();
            if complete && std::mem::take(&mut first) {
                ledger.recount(terminal, end, page.len());
            }
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

    /// The next number of a terminal whose own row is not there: new, or lost to
    /// damage.
    pub(super) fn look_up(&self, terminal: &str) -> Result<(ReceiptNumber, u32), StoreError> {
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

    /// Why no receipts can be taken now, if so.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
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

    /// Commits of polls that are not durable yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.commits.lock().len()
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
}
