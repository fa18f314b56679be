//! One batch over rdkafka: each of the machine's calls.
//!
//! Promises: one delivery report for each message, before the commit (librdkafka's
//! own commit would poll in steps of 100 ms). Never: a decision about a failure.

use std::time::Instant;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};
use risiti_config::Mode;
use risiti_store::Position;

use super::core::{Delivery, Outgoing, refusal};
use super::machine::{Action, Event, Machine};
use super::session::{End, Link, unix_ms};
use super::{Control, FaultPoint, ForwarderSetup};
use crate::metrics::ForwarderMetrics;
use crate::position;
use crate::remedy::Failure;
use crate::trace::{Step, payment};
use crate::transactional::{self, await_events};

/// How a message was taken.
enum Handed {
    Over,
    Refused(RDKafkaErrorCode),
    /// The transaction can't go on.
    Broken,
    /// The producer is finished.
    Finished(Failure),
}

impl Link {
    /// Does one of the calls that make a batch.
    pub(super) fn transact(
        &mut self,
        action: &Action,
        machine: &Machine,
        setup: &ForwarderSetup,
        control: &Control,
    ) -> Result<Event, End> {
        let done = |link: &Self, answer: Result<(), KafkaError>| {
            Event::Done(answer.map_err(|error| link.failure(&error)))
        };
        Ok(match action {
            Action::HandOver { records, position } => {
                self.awaited = None;
                let sends = if *records { machine.sends() } else { &[] };
                Event::HandedOver(self.hand_over_all(sends, *position, setup, control)?)
            }
            Action::Await => Event::Progress(self.wait(setup, control)?),
            Action::Collect => {
                let deliveries = self.context.deliveries();
                self.fault_after_reports(&deliveries, setup)?;
                Event::Deliveries(deliveries)
            }
            Action::Commit => {
                let answer = transactional::commit(&self.producer, control)?;
                if answer.is_ok() {
                    fault(setup, FaultPoint::AfterCommit)?;
                }
                done(self, answer)
            }
            Action::Abort => done(self, transactional::abort(&self.producer, control)?),
            // The only one left.
            _ => done(self, self.producer.begin_transaction()),
        })
    }

    /// Hands over the records and the position. `false` if the transaction broke
    /// on the way.
    fn hand_over_all(
        &mut self,
        sends: &[Outgoing],
        next: Option<Position>,
        setup: &ForwarderSetup,
        control: &Control,
    ) -> Result<Result<bool, Failure>, End> {
        self.position_only = sends.is_empty() && next.is_some();
        self.context
            .begin(sends.len() + usize::from(next.is_some()));
        for (place, send) in sends.iter().enumerate() {
            if place == sends.len() / 2 {
                fault(setup, FaultPoint::InsideBatch)?;
            }
            let new = &send.record.record;
            let record = BaseRecord::with_opaque_to(&send.route.route.topic, place)
                .key(send.key.as_slice())
                .payload(&new.payload[..])
                .timestamp(i64::try_from(new.received_ms).unwrap_or(i64::MAX))
                .headers(self.provenance.headers(&send.record, &send.route));
            match self.hand_over(record, control)? {
                Handed::Over => self.context.handed_over(),
                Handed::Refused(code) => self.context.refused(place, code),
                Handed::Broken => return Ok(Ok(false)),
                Handed::Finished(failure) => return Ok(Err(failure)),
            }
        }
        if let Some(next) = next {
            let value = position::encode(next);
            let record = BaseRecord::with_opaque_to(&setup.cluster.positions_topic, sends.len())
                .partition(position::PARTITION)
                .key(self.position_key.as_bytes())
                .payload(value.as_bytes());
            match self.hand_over(record, control)? {
                Handed::Over => self.context.handed_over(),
                Handed::Refused(code) => self.context.refused(sends.len(), code),
                Handed::Broken => return Ok(Ok(false)),
                Handed::Finished(failure) => return Ok(Err(failure)),
            }
        }
        Ok(Ok(true))
    }

    /// Hands one message over, waiting for room in librdkafka's queue.
    fn hand_over(
        &self,
        mut record: BaseRecord<'_, [u8], [u8], usize>,
        control: &Control,
    ) -> Result<Handed, End> {
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
                if control.overdue() {
                    return Err(End::Stopped);
                }
                continue;
            }
            if self.producer.client().fatal_error().is_some() {
                return Ok(Handed::Finished(self.failure(&error)));
            }
            if refusal(code).is_some() {
                return Ok(Handed::Refused(code));
            }
            tracing::debug!(%error, "hand-over broke off");
            return Ok(Handed::Broken);
        }
    }

    /// Waits a little for delivery reports, if there are any to come.
    fn wait(
        &mut self,
        setup: &ForwarderSetup,
        control: &Control,
    ) -> Result<Result<(usize, bool), Failure>, End> {
        if self.context.progress().0 == 0 {
            return Ok(Ok(self.context.progress()));
        }
        let begun = *self.awaited.get_or_insert_with(Instant::now);
        await_events(&self.producer, begun);
        if let Some((code, _)) = self.producer.client().fatal_error() {
            return Ok(Err(self.failure(&KafkaError::Global(code))));
        }
        if control.overdue() && self.context.progress().0 > 0 {
            if setup.cluster.mode == Mode::ExactlyOnce {
                let _ = transactional::abort(&self.producer, control)?;
            }
            return Err(End::Stopped);
        }
        Ok(Ok(self.context.progress()))
    }

    /// Counts the records of a batch that stand in Kafka.
    pub(super) fn count(&self, sends: &[Outgoing], setup: &ForwarderSetup) {
        let bytes: usize = sends
            .iter()
            .map(|send| send.record.record.payload.len())
            .sum();
        ForwarderMetrics::add(&setup.metrics.forwarded, sends.len() as u64);
        ForwarderMetrics::add(&setup.metrics.forwarded_bytes, bytes as u64);
        self.note_forwarded(sends, setup);
    }

    /// Notes where each terminal's record stands now.
    fn note_forwarded(&self, sends: &[Outgoing], setup: &ForwarderSetup) {
        if !setup.trace.is_enabled() {
            return;
        }
        let now_ms = unix_ms();
        self.context.with_places(|places| {
            let mut notes = setup.trace.notes();
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

    /// Says so, once for each producer, when a record goes to a topic that takes it
    /// for too old.
    pub(super) fn warn_of_aged(&mut self, sends: &[Outgoing], cluster: &str) {
        if self.aging.is_empty() {
            return;
        }
        let now_ms = unix_ms();
        let aged = sends.iter().find_map(|send| {
            let topic = &send.route.route.topic;
            let aging = self.aging.iter().find(|aging| aging.topic == *topic)?;
            let age_ms = now_ms.saturating_sub(send.record.record.received_ms);
            (age_ms > aging.age_ms).then(|| (send.record.position, aging.clone()))
        });
        if let Some((position, aging)) = aged {
            tracing::error!(
                cluster,
                position,
                "the record at this position has waited too long: {aging}"
            );
            self.aging.retain(|known| known.topic != aging.topic);
        }
    }

    /// Without transactions the position's own message is the commit.
    fn fault_after_reports(
        &self,
        deliveries: &[Delivery],
        setup: &ForwarderSetup,
    ) -> Result<(), End> {
        if setup.cluster.mode == Mode::ExactlyOnce || !self.position_only {
            return fault(setup, FaultPoint::AfterSend);
        }
        if deliveries.last() == Some(&Delivery::Delivered) {
            return fault(setup, FaultPoint::AfterCommit);
        }
        Ok(())
    }
}

/// Asks the test whether to end here.
fn fault(setup: &ForwarderSetup, point: FaultPoint) -> Result<(), End> {
    match &setup.options.fault {
        Some(fault) if fault(point) => Err(End::Killed),
        _ => Ok(()),
    }
}
