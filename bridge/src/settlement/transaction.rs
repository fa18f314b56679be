//! One transaction: begin, pass the offsets, hand over, await every delivery,
//! commit.
//!
//! Promises: what a record settles to and the offset behind it are committed
//! together or not at all; every delivery report is in before the commit
//! (librdkafka's own commit would poll in steps of 100 ms). Never: a commit of what
//! was delivered in part.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::FaultPoint;
use super::messages::{Message, Topic};
use super::session::{End, Session};
use crate::remedy::{Remedy, remedy};
use crate::transactional::{self, Reports as _, await_events};

/// What became of a transaction.
#[derive(Debug)]
pub(super) enum Sent {
    /// All of it stands in Kafka.
    Committed,
    /// None of it does; the reason in words.
    Again(String),
}

impl Session<'_> {
    /// Sends all that is decided, with the offsets behind it.
    pub(super) fn transaction(&mut self) -> Result<Sent, End> {
        self.deliveries.begin();
        if let Err(error) = self.producer.begin_transaction() {
            return self.broken(&error);
        }
        // First the offsets: the brokers are often still closing the transaction
        // before this one, and librdkafka asks again sooner for offsets than for
        // messages (20 ms). A group that has given the partitions to somebody else
        // refuses before anything is written.
        let outside = self.setup.options.offsets_outside_transaction;
        if !outside && let Err(error) = self.pass_offsets()? {
            return self.broken(&error);
        }
        if let Err(reason) = self.hand_over_all()? {
            self.abort()?;
            return Ok(Sent::Again(reason));
        }
        self.await_deliveries()?;
        self.fault(FaultPoint::AfterSend)?;
        if let Some(code) = self.deliveries.failed() {
            self.abort()?;
            return Ok(Sent::Again(format!("a delivery failed: {code}")));
        }
        if let Err(error) = transactional::commit(&self.producer, self.control)? {
            return self.broken(&error);
        }
        self.fault(FaultPoint::AfterCommit)?;
        if outside || self.forgets_offsets {
            let offsets = self.offsets();
            if let Err(error) = self.consumer.commit(&offsets, CommitMode::Sync) {
                return Err(End::anew(error));
            }
        }
        Ok(Sent::Committed)
    }

    /// The transaction can't go on.
    fn broken(&mut self, error: &KafkaError) -> Result<Sent, End> {
        match remedy(error) {
            Remedy::Abort => self.abort()?,
            Remedy::Again => {}
            Remedy::Anew => return Err(self.finished(error)),
        }
        Ok(Sent::Again(error.to_string()))
    }

    fn hand_over_all(&self) -> Result<Result<(), String>, End> {
        let half = self.pending.len() / 2;
        for (place, decided) in self.pending.iter().enumerate() {
            if place == half {
                self.fault(FaultPoint::InsideTransaction)?;
            }
            for message in &decided.messages {
                if let Err(reason) = self.hand_over(message, decided.partition)? {
                    return Ok(Err(reason));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Hands one message over, waiting for room in librdkafka's queue.
    fn hand_over(&self, message: &Message, partition: i32) -> Result<Result<(), String>, End> {
        let settings = &self.setup.settings;
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
                return Ok(Ok(()));
            };
            record = back;
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                await_events(&self.producer, begun);
                if self.control.overdue() {
                    return Err(End::Stopped);
                }
                continue;
            }
            if self.producer.client().fatal_error().is_some() {
                return Err(self.finished(&error));
            }
            return Ok(Err(format!("{topic}: {error}")));
        }
    }

    /// The offset behind the last record of each partition.
    fn offsets(&self) -> TopicPartitionList {
        let mut next = BTreeMap::new();
        for decided in &self.pending {
            let next = next.entry(decided.partition).or_insert(0);
            *next = decided.offset.saturating_add(1).max(*next);
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in next {
            let topic = &self.setup.settings.records_topic;
            // Refused only for a partition that is there already.
            let _ = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        }
        list
    }

    /// Passes the offsets: refused if the group has given these partitions to
    /// somebody else.
    fn pass_offsets(&self) -> Result<KafkaResult<()>, End> {
        let Some(group) = self.consumer.group_metadata() else {
            return Err(End::anew("the consumer is no member of its group"));
        };
        let offsets = self.offsets();
        let passed = transactional::pass_offsets(&self.producer, self.control, &offsets, &group)?;
        Ok(passed)
    }

    /// Polls until every delivery is known, or one has failed.
    fn await_deliveries(&self) -> Result<(), End> {
        let begun = Instant::now();
        while self.deliveries.pending() > 0 && self.deliveries.failed().is_none() {
            await_events(&self.producer, begun);
            if let Some((code, _)) = self.producer.client().fatal_error() {
                return Err(self.finished(&KafkaError::Global(code)));
            }
            if self.control.overdue() {
                return Err(End::Stopped);
            }
        }
        Ok(())
    }

    fn abort(&self) -> Result<(), End> {
        transactional::abort(&self.producer, self.control)?.map_err(|error| self.finished(&error))
    }

    /// Asks the test whether to end here.
    fn fault(&self, point: FaultPoint) -> Result<(), End> {
        match &self.setup.options.fault {
            Some(fault) if fault(point) => Err(End::Killed),
            _ => Ok(()),
        }
    }
}
