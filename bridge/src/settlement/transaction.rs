//! One transaction over rdkafka: each of the machine's calls.
//!
//! Promises: every delivery report is in before the commit (librdkafka's own commit
//! would poll in steps of 100 ms). Never: a decision about a failure.

use std::time::Instant;

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::machine::{Action, Decided, Event, Machine};
use super::messages::{Message, Topic};
use super::session::{End, Receiver, Sender};
use super::{Control, FaultPoint, SettlementSetup};
use crate::remedy::{Failure, Remedy};
use crate::transactional::{self, Reports as _, await_events};

impl Sender {
    /// Does one of the calls that make a transaction.
    pub(super) fn transact(
        &mut self,
        action: &Action,
        receiver: &Receiver,
        machine: &Machine,
        setup: &SettlementSetup,
        control: &Control,
    ) -> Result<Event, End> {
        let done = |sender: &Self, answer: Result<(), KafkaError>| {
            Event::Done(answer.map_err(|error| sender.failure(&error)))
        };
        Ok(match action {
            Action::PassOffsets => {
                let Some(group) = receiver.consumer.group_metadata() else {
                    let text = "the consumer is no member of its group";
                    return Ok(Event::Done(Err(Failure::new(Remedy::Anew, None, text))));
                };
                let offsets = offsets(machine, setup);
                let passed =
                    transactional::pass_offsets(&self.producer, control, &offsets, &group)?;
                done(self, passed)
            }
            Action::HandOver => {
                Event::HandedOver(self.hand_over_all(machine.pending(), setup, control)?)
            }
            Action::Await => Event::Progress(self.wait(setup, control)?),
            Action::Commit => {
                let answer = transactional::commit(&self.producer, control)?;
                if answer.is_ok() {
                    fault(setup, FaultPoint::AfterCommit)?;
                }
                done(self, answer)
            }
            Action::CommitOffsets => {
                let offsets = offsets(machine, setup);
                done(self, receiver.consumer.commit(&offsets, CommitMode::Sync))
            }
            Action::Abort => done(self, transactional::abort(&self.producer, control)?),
            // The only one left.
            _ => {
                self.deliveries.begin();
                self.awaited = None;
                done(self, self.producer.begin_transaction())
            }
        })
    }

    fn hand_over_all(
        &self,
        pending: &[Decided],
        setup: &SettlementSetup,
        control: &Control,
    ) -> Result<Result<Result<(), String>, Failure>, End> {
        let half = pending.len() / 2;
        for (place, decided) in pending.iter().enumerate() {
            if place == half {
                fault(setup, FaultPoint::InsideTransaction)?;
            }
            for message in &decided.messages {
                match self.hand_over(message, decided.partition, setup, control)? {
                    Ok(Ok(())) => {}
                    stopped => return Ok(stopped),
                }
            }
        }
        Ok(Ok(Ok(())))
    }

    /// Hands one message over, waiting for room in librdkafka's queue.
    fn hand_over(
        &self,
        message: &Message,
        partition: i32,
        setup: &SettlementSetup,
        control: &Control,
    ) -> Result<Result<Result<(), String>, Failure>, End> {
        let settings = &setup.settings;
        let topic = match message.topic {
            Topic::Receipts => &settings.receipts_topic,
            Topic::Transactions => &settings.transactions_topic,
            Topic::Rejected => &settings.rejected_topic,
            Topic::Changelog => &settings.changelog_topic,
        };
        let begun = Instant::now();
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        record.key = message.key.as_deref();
        record.payload = message.value.as_deref();
        record.partition = (message.topic == Topic::Changelog).then_some(partition);
        if !message.headers.is_empty() {
            record.headers = Some(message.kafka_headers());
        }
        loop {
            let Err((error, back)) = self.producer.send(record) else {
                self.deliveries.handed_over();
                return Ok(Ok(Ok(())));
            };
            record = back;
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                await_events(&self.producer, begun);
                if control.overdue() {
                    return Err(End::Stopped);
                }
                continue;
            }
            if self.producer.client().fatal_error().is_some() {
                return Ok(Err(self.failure(&error)));
            }
            return Ok(Ok(Err(format!("{topic}: {error}"))));
        }
    }

    /// Waits a little for delivery reports, if there are any to come.
    fn wait(
        &mut self,
        setup: &SettlementSetup,
        control: &Control,
    ) -> Result<Result<(usize, Option<String>), Failure>, End> {
        let begun = *self.awaited.get_or_insert_with(Instant::now);
        if self.deliveries.pending() > 0 && self.deliveries.failed().is_none() {
            await_events(&self.producer, begun);
            if let Some((code, _)) = self.producer.client().fatal_error() {
                return Ok(Err(self.failure(&KafkaError::Global(code))));
            }
            if control.overdue() {
                return Err(End::Stopped);
            }
        }
        let (pending, failed) = (self.deliveries.pending(), self.deliveries.failed());
        if pending == 0 || failed.is_some() {
            fault(setup, FaultPoint::AfterSend)?;
        }
        Ok(Ok((pending, failed.map(|code| code.to_string()))))
    }
}

/// The offset behind the last record of each partition.
fn offsets(machine: &Machine, setup: &SettlementSetup) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in machine.offsets() {
        let topic = &setup.settings.records_topic;
        // Refused only for a partition that is there already.
        let _ = list.add_partition_offset(topic, partition, Offset::Offset(offset));
    }
    list
}

/// Asks the test whether to end here.
fn fault(setup: &SettlementSetup, point: FaultPoint) -> Result<(), End> {
    match &setup.options.fault {
        Some(fault) if fault(point) => Err(End::Killed),
        _ => Ok(()),
    }
}
