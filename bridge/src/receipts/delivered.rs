//! A receipt's way out: PUBACK → delivery event in the journal → row deleted.
//!
//! Promises: a row goes only after its delivery event is durable in the journal
//! (or is recognised there as a duplicate), so that after a kill at any step the
//! event stands there once; what can't be done now is done later, in order.
//! Never: an MQTT thread that waits for the disk.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use risiti_store::{AckSink, Batch, CommitSink, Outcome, StoreError};

use super::ReceiptNumber;
use super::consumer::ReceiptsFault;
use super::event::{self, Delivered};
use super::metrics::ReceiptsMetrics;
use super::outbox::Outbox;
use super::rows::{self, ReceiptRow};
use crate::limits;

/// A receipt on its way out.
#[derive(Debug, Clone)]
struct Exit {
    terminal: Arc<str>,
    number: ReceiptNumber,
    /// `Some(again)`: acknowledged; `None`: no event is due.
    again: Option<bool>,
    at_ms: u64,
    /// The row's value once the event is durable.
    done: Option<Vec<u8>>,
}

/// Receipts on their way out.
#[derive(Default)]
pub(super) struct Exits {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Exit>,
    /// Events that are on their way into the journal, by token.
    events: HashMap<u64, Exit>,
    /// Rows that are being deleted, by token.
    deletions: HashMap<u64, Exit>,
    next_token: u64,
    closing: bool,
    /// Nothing more is given to the journal.
    closed: bool,
}

impl Queue {
    /// Whether one that waits may take its step now.
    fn may_go(&self) -> bool {
        !self.waiting.is_empty() && self.events.len() < limits::EVENTS_MAX
    }
}

impl Outbox {
    pub(super) fn exit(&self, terminal: &str, number: ReceiptNumber, again: Option<bool>) {
        let at_ms = (self.setup.now)();
        let mut queue = self.exits.queue.lock();
        if queue.waiting.len() + queue.events.len() >= limits::EXITS_MAX {
            // It stays, and is sent again at the next connection.
            ReceiptsMetrics::add(&self.metrics.acknowledgements_refused, 1);
            return;
        }
        let Some(terminal) = self.ledger.lock().going(terminal, number) else {
            return;
        };
        queue.waiting.push_back(Exit {
            terminal,
            number,
            again,
            at_ms,
            done: None,
        });
        drop(queue);
        self.exits.changed.notify_all();
    }

    /// Ends the thread that lets receipts out, once it has given the journal what
    /// was acknowledged, or after a moment. To be called before the journal is
    /// closed. What is not done by then is sent again after the next start.
    pub fn close(&self) {
        let until = Instant::now() + limits::EXITS_CLOSE;
        let mut queue = self.exits.queue.lock();
        queue.closing = true;
        self.exits.changed.notify_all();
        while !queue.waiting.is_empty() {
            if self.exits.changed.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
        queue.closed = true;
    }

    /// Lets the first of the receipts on their way out go a step further; false if
    /// there is none that may go now.
    ///
    /// # Errors
    /// The disk's: it stays the first, try again later.
    pub fn let_out(self: &Arc<Self>) -> Result<bool, StoreError> {
        let exit = {
            let mut queue = self.exits.queue.lock();
            if !queue.may_go() {
                return Ok(false);
            }
            queue.waiting.pop_front()
        };
        let Some(exit) = exit else { return Ok(false) };
        match self.step(exit) {
            Ok(()) => Ok(true),
            Err((exit, error)) => {
                self.exits.queue.lock().waiting.push_front(exit);
                Err(error)
            }
        }
    }

    /// Lets one receipt go a step further. `Err`: not now.
    fn step(self: &Arc<Self>, mut exit: Exit) -> Result<(), (Exit, StoreError)> {
        if exit.done.is_some() {
            return self.delete(exit);
        }
        let key = rows::receipt_key(&exit.terminal, exit.number);
        let value = match self.setup.state.get(&key) {
            Ok(value) => value,
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err((exit, error)),
        };
        let Some(value) = value else {
            self.ledger.lock().gone(&exit.terminal, exit.number);
            return Ok(());
        };
        let event = match (exit.again, ReceiptRow::decode(value.clone())) {
            (Some(again), Ok(row)) => Some(self.event(&exit, &row).to_record(
                &event::topic_of(&self.setup.terminals.receipts, &exit.terminal),
                again,
            )),
            _ => None,
        };
        exit.done = Some(value);
        let Some(event) = event else {
            return self.delete(exit);
        };
        self.setup.options.at(ReceiptsFault::BeforeEvent);
        let token = {
            let mut queue = self.exits.queue.lock();
            queue.next_token += 1;
            let token = queue.next_token;
            queue.events.insert(token, exit);
            token
        };
        let sink: Arc<dyn AckSink> = Arc::new(Written(Arc::clone(self)));
        self.setup.journal.append(event, &sink, token);
        Ok(())
    }

    fn event(&self, exit: &Exit, row: &ReceiptRow) -> Delivered {
        Delivered {
            terminal: exit.terminal.to_string(),
            sequence: row.receipt.sequence,
            number: exit.number,
            status: row.status,
            gateway: self.setup.gateway_id.clone(),
            stored_ms: row.receipt.stored_ms,
            acknowledged_ms: exit.at_ms,
        }
    }

    fn written(self: &Arc<Self>, token: u64, outcome: Outcome) {
        let Some(exit) = self.exits.queue.lock().events.remove(&token) else {
            return;
        };
        match outcome {
            Outcome::Durable { .. } => ReceiptsMetrics::add(&self.metrics.delivered, 1),
            Outcome::Duplicate => {}
            Outcome::TooLarge => {
                tracing::error!(
                    terminal = &*exit.terminal,
                    number = exit.number,
                    "a bug: a delivery event is too large; please report it"
                );
            }
            Outcome::Closing => return,
        }
        self.setup.options.at(ReceiptsFault::BeforeDeletion);
        if let Err((exit, _)) = self.delete(exit) {
            self.exits.queue.lock().waiting.push_back(exit);
        }
        self.exits.changed.notify_all();
    }

    /// Submits the deletion of a row.
    fn delete(self: &Arc<Self>, exit: Exit) -> Result<(), (Exit, StoreError)> {
        let token = {
            let mut queue = self.exits.queue.lock();
            queue.next_token += 1;
            let token = queue.next_token;
            queue.deletions.insert(token, exit.clone());
            token
        };
        let mut ledger = self.ledger.lock();
        ledger.leaves(&exit.terminal);
        let mut batch = Batch::new();
        batch.delete(rows::receipt_key(&exit.terminal, exit.number));
        if let Some(row) = ledger.row(&exit.terminal) {
            batch.put(rows::terminal_key(&exit.terminal), row.encode());
            if exit.again.is_some()
                && exit.number + 1 == row.next
                && let Some(value) = &exit.done
            {
                batch.put(rows::last_key(&exit.terminal), value.clone());
            }
        }
        let sink: Arc<dyn CommitSink> = Arc::new(Deleted(Arc::clone(self)));
        if let Err(error) = self.setup.state.submit(batch, Some((sink, token))) {
            ledger.stays(&exit.terminal);
            drop(ledger);
            self.exits.queue.lock().deletions.remove(&token);
            return Err((exit, error));
        }
        Ok(())
    }

    fn deleted(&self, token: u64, result: Result<(), StoreError>) {
        let Some(exit) = self.exits.queue.lock().deletions.remove(&token) else {
            return;
        };
        if result.is_err() {
            return; // closing
        }
        self.setup.options.at(ReceiptsFault::AfterDeletion);
        if exit.again.is_none() {
            self.metrics.expired.fetch_add(1, Ordering::Relaxed);
        }
        self.ledger.lock().gone(&exit.terminal, exit.number);
    }
}

/// Starts the thread that reads rows for the events. It ends with the outbox.
pub(super) fn start(outbox: &Arc<Outbox>) -> std::io::Result<()> {
    let weak = Arc::downgrade(outbox);
    std::thread::Builder::new()
        .name("receipts-exits".into())
        .spawn(move || {
            while let Some(outbox) = weak.upgrade() {
                {
                    let mut queue = outbox.exits.queue.lock();
                    if queue.closed || queue.closing && queue.waiting.is_empty() {
                        outbox.exits.changed.notify_all();
                        return;
                    }
                    if !queue.may_go() {
                        outbox.exits.changed.wait_for(&mut queue, limits::IDLE_WAIT);
                        continue;
                    }
                }
                if let Err(error) = outbox.let_out() {
                    tracing::debug!(%error, "a receipt's way out waits for the disk");
                    let mut queue = outbox.exits.queue.lock();
                    outbox
                        .exits
                        .changed
                        .wait_for(&mut queue, limits::BACKOFF_MAX);
                }
            }
        })
        .map(drop)
}

struct Written(Arc<Outbox>);

impl AckSink for Written {
    fn settled(&self, token: u64, outcome: Outcome) {
        self.0.written(token, outcome);
    }
}

struct Deleted(Arc<Outbox>);

impl CommitSink for Deleted {
    fn committed(&self, token: u64, result: Result<(), StoreError>) {
        self.0.deleted(token, result);
    }
}
