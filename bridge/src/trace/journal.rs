//! Notes what the journal has made durable.
//!
//! Promises: only terminals' records, which carry a number to ask for. Never: a
//! wait on the committer's thread.

use std::sync::Arc;

use risiti_store::{DurableObserver, Identity, NewRecord, Position};

use super::{Step, TraceLog};

/// Tells the recorder; to be given to the store when it is opened.
pub struct DurableSteps {
    trace: Arc<TraceLog>,
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl DurableSteps {
    /// `now_ms` gives Unix milliseconds.
    #[must_use]
    pub fn new(
        trace: Arc<TraceLog>,
        now_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            trace,
            now_ms: Box::new(now_ms),
        })
    }
}

impl DurableObserver for DurableSteps {
    fn durable(&self, first: Position, records: &[NewRecord]) {
        if !self.trace.is_enabled() {
            return;
        }
        let now_ms = (self.now_ms)();
        let mut notes = self.trace.notes();
        for (position, record) in (first..).zip(records) {
            let Some((terminal, sequence, resend)) = payment(record) else {
                continue;
            };
            let step = Step::Durable {
                received_ms: record.received_ms,
                position,
                resend,
            };
            notes.note(now_ms, terminal, sequence, step);
        }
    }
}

/// Terminal, sequence number and resend mark of a terminal's record.
pub(crate) fn payment(record: &NewRecord) -> Option<(&str, u64, bool)> {
    match record.identity {
        Identity::Sequence {
            sequence,
            resend_mark,
            ..
        } => {
            let terminal = std::str::from_utf8(&record.client_id).ok()?;
            Some((terminal, sequence, resend_mark))
        }
        Identity::Packet { .. } | Identity::None => None,
    }
}
