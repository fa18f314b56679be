//! One batch: begin, hand over, await every delivery, commit.
//!
//! Promises: the position is handed over in the same transaction as its records;
//! every delivery report is in before the commit (librdkafka's own commit would
//! poll in steps of 100 ms). Never: a commit of a batch of which a record failed.

use std::time::Instant;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};
use risiti_config::Mode;
use risiti_store::Position;

use super::FaultPoint;
use super::core::{Delivery, Outgoing, Verdict, refusal, verdict};
use super::session::{End, Session, unix_ms};
use crate::metrics::ForwarderMetrics;
use crate::remedy::{Remedy, remedy};
use crate::trace::{Step, payment};
use crate::transactional::{self, await_events};
use crate::{limits, position};

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Sent {
    /// It and its position stand in Kafka.
    Committed,
    /// It does not; send it again.
    Again,
    /// It does not; some of it was refused, send less to find out what.
    Divide,
    /// It does not; these were refused for good.
    Refused(Vec<(usize, RDKafkaErrorCode)>),
}

/// How a record was taken.
enum Handed {
    Over,
    Refused(RDKafkaErrorCode),
    /// The transaction can't go on.
    Broken,
}

impl Session<'_> {
    /// Sends a batch with the position behind it, by the cluster's mode.
    pub(super) fn send(&mut self, sends: &[Outgoing], next: Position) -> Result<Sent, End> {
        match self.setup.cluster.mode {
            Mode::ExactlyOnce if self.setup.options.position_outside_transaction => {
                match self.transaction(sends, None)? {
                    Sent::Committed => self.transaction(&[], Some(next)),
                    other => Ok(other),
                }
            }
            Mode::ExactlyOnce => self.transaction(sends, Some(next)),
            Mode::Idempotent => self.idempotent(sends, next),
        }
    }

    fn transaction(&mut self, sends: &[Outgoing], next: Option<Position>) -> Result<Sent, End> {
        if let Err(error) = self.producer.begin_transaction() {
            return match remedy(&error) {
                Remedy::Abort => self.abort().map(|()| Sent::Again),
                Remedy::Again => Ok(Sent::Again),
                Remedy::Anew => Err(self.finished(&error)),
            };
        }
        let whole = self.hand_over_all(sends, next)?;
        if whole {
            self.await_deliveries()?;
        }
        self.fault(FaultPoint::AfterSend)?;
        // The last place is the position's.
        let deliveries = self.context.deliveries();
        let judged = verdict(&deliveries[..sends.len()]);
        let position_failed = next.is_some() && deliveries.last() != Some(&Delivery::Delivered);
        if judged == Verdict::Clean && !position_failed && whole {
            match transactional::commit(&self.producer, self.control)? {
                Ok(()) => {
                    self.fault(FaultPoint::AfterCommit)?;
                    self.count(sends);
                    return Ok(Sent::Committed);
                }
                Err(error) if remedy(&error) == Remedy::Anew => return Err(self.finished(&error)),
                Err(error) => {
                    self.abort()?;
                    return self.unclear(&error, sends);
                }
            }
        }
        self.abort()?;
        match judged {
            Verdict::Refused(refused) => Ok(Sent::Refused(refused)),
            Verdict::Divide(_) if sends.len() > 1 => Ok(Sent::Divide),
            Verdict::Divide(code) => Ok(Sent::Refused(vec![(0, code)])),
            Verdict::Clean | Verdict::Again(_) => {
                self.note_failure(&deliveries);
                Ok(Sent::Again)
            }
        }
    }

    /// The transaction itself was refused, and no delivery says which record was
    /// the reason: find out by sending less, and clear the position's name first.
    fn unclear(&mut self, error: &KafkaError, sends: &[Outgoing]) -> Result<Sent, End> {
        self.setup.metrics.set_last_error(Some(error.to_string()));
        let code = error.rdkafka_error_code();
        let Some(code) = code.filter(|code| refusal(*code).is_some()) else {
            return Ok(Sent::Again);
        };
        match sends.len() {
            0 => {
                self.alarm(format!(
                    "Kafka refuses the position: {error}; grant writing to {}",
                    self.setup.cluster.positions_topic
                ));
                Ok(Sent::Again)
            }
            1 => match self.transaction(&[], Some(self.position_now()))? {
                Sent::Committed => Ok(Sent::Refused(vec![(0, code)])),
                _ => Ok(Sent::Again),
            },
            _ => Ok(Sent::Divide),
        }
    }

    /// Without transactions: the records, and when all are acknowledged the
    /// position. A crash in between repeats the batch.
    fn idempotent(&mut self, sends: &[Outgoing], next: Position) -> Result<Sent, End> {
        let whole = self.hand_over_all(sends, None)?;
        self.await_deliveries()?;
        self.fault(FaultPoint::AfterSend)?;
        let deliveries = self.context.deliveries();
        let judged = verdict(&deliveries[..sends.len()]);
        if judged != Verdict::Clean || !whole {
            // Nothing can be taken back here: what is delivered is settled.
            let mut count = 0;
            for (send, delivery) in sends.iter().zip(&deliveries) {
                if *delivery == Delivery::Delivered {
                    self.settled.insert(send.record.position);
                    count += 1;
                }
            }
            ForwarderMetrics::add(&self.setup.metrics.forwarded, count);
            return Ok(match judged {
                Verdict::Refused(refused) => Sent::Refused(refused),
                Verdict::Divide(_) if sends.len() > 1 => Sent::Divide,
                Verdict::Divide(code) => Sent::Refused(vec![(0, code)]),
                Verdict::Clean | Verdict::Again(_) => {
                    self.note_failure(&deliveries);
                    Sent::Again
                }
            });
        }
        loop {
            self.hand_over_all(&[], Some(next))?;
            self.await_deliveries()?;
            let deliveries = self.context.deliveries();
            if deliveries.last() == Some(&Delivery::Delivered) {
                break;
            }
            self.note_failure(&deliveries);
            self.alarm(format!(
                "the position can't be saved in {}; see the last error",
                self.setup.cluster.positions_topic
            ));
            self.pause_or_stop()?;
        }
        self.fault(FaultPoint::AfterCommit)?;
        self.count(sends);
        Ok(Sent::Committed)
    }

    /// Hands over the records and the position. `false` if the transaction broke
    /// on the way.
    fn hand_over_all(&mut self, sends: &[Outgoing], next: Option<Position>) -> Result<bool, End> {
        self.context
            .begin(sends.len() + usize::from(next.is_some()));
        for (place, send) in sends.iter().enumerate() {
            if place == sends.len() / 2 {
                self.fault(FaultPoint::InsideBatch)?;
            }
            let new = &send.record.record;
            let record = BaseRecord::with_opaque_to(&send.route.route.topic, place)
                .key(send.key.as_slice())
                .payload(&new.payload[..])
                .timestamp(i64::try_from(new.received_ms).unwrap_or(i64::MAX))
                .headers(self.provenance.headers(&send.record, &send.route));
            match self.hand_over(record)? {
                Handed::Over => self.context.handed_over(),
                Handed::Refused(code) => self.context.refused(place, code),
                Handed::Broken => return Ok(false),
            }
        }
        if let Some(next) = next {
            let value = position::encode(next);
            let topic = self.setup.cluster.positions_topic.clone();
            let key = self.position_key.clone();
            let record = BaseRecord::with_opaque_to(&topic, sends.len())
                .partition(position::PARTITION)
                .key(key.as_bytes())
                .payload(value.as_bytes());
            match self.hand_over(record)? {
                Handed::Over => self.context.handed_over(),
                Handed::Refused(code) => self.context.refused(sends.len(), code),
                Handed::Broken => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Hands one message over, waiting for room in librdkafka's queue.
    fn hand_over(&self, mut record: BaseRecord<'_, [u8], [u8], usize>) -> Result<Handed, End> {
        let begun = Instant::now();
        loop {
            let Err((error, back)) = self.producer.send(record) else {
                return Ok(Handed::Over);
            };
            record = back;
            let code = error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown);
            if code == RDKafkaErrorCode::QueueFull {
                await_events(&self.producer, begun);
                if self.control.overdue() {
                    return Err(End::Stopped);
                }
                continue;
            }
            if self.producer.client().fatal_error().is_some() {
                return Err(self.finished(&error));
            }
            if refusal(code).is_some() {
                return Ok(Handed::Refused(code));
            }
            tracing::debug!(%error, "hand-over broke off");
            return Ok(Handed::Broken);
        }
    }

    /// Polls until every delivery is known; after a failure only for as long as
    /// the others need to tell what was refused.
    fn await_deliveries(&mut self) -> Result<(), End> {
        let begun = Instant::now();
        let mut failed_at = None;
        loop {
            let (pending, failed) = self.context.progress();
            if pending == 0 {
                return Ok(());
            }
            // In `idempotent` mode a later batch must not meet reports of this one.
            if failed && self.setup.cluster.mode == Mode::ExactlyOnce {
                let since = *failed_at.get_or_insert_with(Instant::now);
                if since.elapsed() > limits::EVIDENCE {
                    return Ok(());
                }
            }
            await_events(&self.producer, begun);
            if let Some((code, _)) = self.producer.client().fatal_error() {
                return Err(self.finished(&KafkaError::Global(code)));
            }
            if self.control.overdue() {
                if self.setup.cluster.mode == Mode::ExactlyOnce {
                    self.abort()?;
                }
                return Err(End::Stopped);
            }
        }
    }

    fn abort(&self) -> Result<(), End> {
        transactional::abort(&self.producer, self.control)?.map_err(|error| self.finished(&error))
    }

    fn pause_or_stop(&mut self) -> Result<(), End> {
        self.control.pause(self.retry.pause());
        if self.control.stopping() {
            return Err(End::Stopped);
        }
        Ok(())
    }

    fn count(&self, sends: &[Outgoing]) {
        let bytes: usize = sends
            .iter()
            .map(|send| send.record.record.payload.len())
            .sum();
        ForwarderMetrics::add(&self.setup.metrics.forwarded, sends.len() as u64);
        ForwarderMetrics::add(&self.setup.metrics.forwarded_bytes, bytes as u64);
        self.note_forwarded(sends);
    }

    /// Notes where each terminal's record stands now.
    fn note_forwarded(&self, sends: &[Outgoing]) {
        if !self.setup.trace.is_enabled() {
            return;
        }
        let now_ms = unix_ms();
        self.context.with_places(|places| {
            let mut notes = self.setup.trace.notes();
            for (send, (partition, offset)) in sends.iter().zip(places) {
                let Some((terminal, sequence, _)) = payment(&send.record.record) else {
                    continue;
                };
                let step = Step::Forwarded {
                    topic: send.route.route.topic.as_str(),
                    partition: *partition,
                    offset: *offset,
                };
                notes.note(now_ms, terminal, sequence, step);
            }
        });
    }

    fn note_failure(&self, deliveries: &[Delivery]) {
        let code = deliveries.iter().find_map(|delivery| match delivery {
            Delivery::Failed(code) | Delivery::Local(code) => Some(*code),
            Delivery::Pending | Delivery::Delivered => None,
        });
        if let Some(code) = code {
            self.setup
                .metrics
                .set_last_error(Some(format!("a delivery failed: {code}")));
        }
    }

    /// Asks the test whether to end here.
    fn fault(&self, point: FaultPoint) -> Result<(), End> {
        match &self.setup.options.fault {
            Some(fault) if fault(point) => Err(End::Killed),
            _ => Ok(()),
        }
    }
}
