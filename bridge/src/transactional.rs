//! What both transactional producers do alike: take reports, commit, abort.
//!
//! Promises: a call that librdkafka wants again is made again for a second, unless the
//! time given for a stop is over. Never: an end of the producer decided here; its
//! session knows what an error means to it.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext, PurgeConfig};

use crate::limits;
use crate::remedy::{Remedy, remedy};
use crate::worker::Control;

/// The time given for a stop is over, and the transaction in doubt; the next start
/// finds out what became of it.
#[derive(Debug)]
pub(crate) struct Overdue;

/// The answer to a call.
pub(crate) type Answer = Result<KafkaResult<()>, Overdue>;

/// What takes a producer's delivery reports.
pub(crate) trait Reports: ProducerContext {
    /// Messages handed over without a report.
    fn pending(&self) -> usize;
}

/// Commits.
pub(crate) fn commit<C: Reports, S>(producer: &BaseProducer<C>, control: &Control<S>) -> Answer {
    let call = || producer.commit_transaction(limits::CALL);
    repeat(control, call, || producer.poll(Duration::ZERO))
}

/// Passes offsets on behalf of a group (KIP-447).
pub(crate) fn pass_offsets<C: Reports, S>(
    producer: &BaseProducer<C>,
    control: &Control<S>,
    offsets: &TopicPartitionList,
    group: &ConsumerGroupMetadata,
) -> Answer {
    let call = || producer.send_offsets_to_transaction(offsets, group, limits::CALL);
    repeat(control, call, || producer.poll(Duration::ZERO))
}

/// Aborts.
pub(crate) fn abort<C: Reports, S>(producer: &BaseProducer<C>, control: &Control<S>) -> Answer {
    // librdkafka waits for the reports of purged messages to be taken, so they are
    // taken before it is asked and between its attempts.
    producer.purge(PurgeConfig::default().queue());
    let begun = Instant::now();
    while producer.in_flight_count() > 0 && begun.elapsed() < limits::CALL / 5 {
        await_events(producer, begun);
    }
    let call = || producer.abort_transaction(limits::CALL / 5);
    repeat(control, call, || await_events(producer, begun))
}

/// Makes a call until its answer is final, or for long enough that its session has to
/// look how long the cluster has not answered.
fn repeat<S>(
    control: &Control<S>,
    call: impl Fn() -> KafkaResult<()>,
    between: impl Fn(),
) -> Answer {
    let begun = Instant::now();
    loop {
        match call() {
            Err(error) if remedy(&error) == Remedy::Again && begun.elapsed() < limits::CALL * 2 => {
            }
            answer => return Ok(answer),
        }
        if control.overdue() {
            return Err(Overdue);
        }
        between();
    }
}

/// Takes what librdkafka reports; if that is nothing, sleeps for a part of the time
/// that was waited already, so that the answer is noticed soon and few looks are
/// made. A poll with a timeout is no use here: it never returns before its time is
/// over, and spins through the last millisecond.
pub(crate) fn await_events<C: Reports>(producer: &BaseProducer<C>, begun: Instant) {
    let before = producer.context().pending();
    producer.poll(Duration::ZERO);
    if producer.context().pending() == before {
        let part = begun.elapsed() / 8;
        std::thread::sleep(part.clamp(limits::LOOK_MIN, limits::LOOK_MAX));
    }
}
