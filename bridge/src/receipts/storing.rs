//! Into the outbox: a poll becomes a commit, and its listeners hear of it.
//!
//! Promises: receipts, rows that end and offsets are one atomic commit; numbers
//! that were given for a commit that was not taken are given again; listeners
//! hear of receipts after the sync, commit by commit. Never: two submitted at
//! once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use risiti_store::{Batch, CommitSink, StoreError};

use super::consumer::ReceiptsFault;
use super::ledger::{Before, Full};
use super::metrics::ReceiptsMetrics;
use super::outbox::Outbox;
use super::poll::{Elsewhere, NextOffset, Poll, Received};
use super::{ReceiptNumber, StoredReceipt, rows};
use crate::dead_letters::DeadLetter;
use crate::error::BridgeError;
use crate::limits;
use crate::trace::Step;

/// A commit under way.
pub(super) struct UnderWay {
    arrivals: Vec<(Arc<str>, Vec<StoredReceipt>)>,
    /// For the recorder: terminal, sequence and what became of the record.
    steps: Vec<(Arc<str>, u64, Step<&'static str>)>,
    ended: Vec<(Arc<str>, ReceiptNumber)>,
    offsets: Vec<NextOffset>,
}

impl Outbox {
    /// Submits receipts and the offsets behind them as one commit. Reads the disk
    /// for terminals that are new.
    ///
    /// # Errors
    /// The disk's, or too much waits for it: nothing was taken, try again.
    pub fn submit(&self, cluster: &str, poll: &Poll) -> Result<(), StoreError> {
        let offsets = &poll.offsets;
        let _submitting = self.submitting.lock();
        // A poll that holds delivery events alone has nothing to lose.
        if self.setup.options.offset_before_row && !poll.receipts.is_empty() {
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
        let now_ms = self.now_ms();
        for delivery in elsewhere {
            let terminal = &delivery.terminal;
            // Before the look, and taken back after it: what becomes durable meanwhile
            // is ended by one of the two.
            self.early.lock().heard(terminal, delivery.sequence, now_ms);
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
            if found > 0 {
                self.early.lock().take(terminal, delivery.sequence, now_ms);
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

    /// Waits until fewer than `most` commits are under way, or the timeout.
    pub(super) fn wait_below(&self, most: usize, timeout: Duration) -> bool {
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
        let arrivals = self.without_early(under_way.arrivals, now_ms);
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
        if let Some(listener) = self.arrivals.get() {
            for (terminal, receipts) in &arrivals {
                listener.arrived(terminal, receipts);
            }
        }
    }

    /// Lets go what another gateway delivered before it was durable here; what stays.
    fn without_early(
        &self,
        arrivals: Vec<(Arc<str>, Vec<StoredReceipt>)>,
        now_ms: u64,
    ) -> Vec<(Arc<str>, Vec<StoredReceipt>)> {
        let stay = |(terminal, mut receipts): (Arc<str>, Vec<StoredReceipt>)| {
            receipts.retain(|receipt| {
                let delivered = self.early.lock().take(&terminal, receipt.sequence, now_ms);
                if delivered {
                    self.expired(&terminal, receipt.number);
                    ReceiptsMetrics::add(&self.metrics.delivered_elsewhere, 1);
                }
                !delivered
            });
            (!receipts.is_empty()).then_some((terminal, receipts))
        };
        arrivals.into_iter().filter_map(stay).collect()
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
