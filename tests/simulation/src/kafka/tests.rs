//! The model does what Kafka's documents say.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use super::*;

const TIMEOUT_MS: Ms = 10_000;
const SESSION_MS: Ms = 6_000;

fn cluster() -> Kafka {
    Kafka::new(fastrand::Rng::with_seed(1), 1)
}

fn message(value: &str) -> Message {
    Message {
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
    }
}

/// A producer that has begun a transaction and delivered a record in it.
fn open(kafka: &mut Kafka, id: &str, value: &str) -> Producer {
    let mut producer = Producer::new(Some(id), TIMEOUT_MS);
    while producer.init(kafka.now, kafka).is_err() {
        kafka.step(kafka.now + 100);
    }
    producer.begin().unwrap();
    deliver(kafka, &mut producer, value);
    producer
}

fn deliver(kafka: &mut Kafka, producer: &mut Producer, value: &str) {
    producer.expect(1);
    let topic: Rc<str> = topics::RECORDS.into();
    producer.send(kafka.now, kafka, 0, (&topic, Some(0)), message(value));
    while producer.work(kafka.now, kafka) {
        kafka.step(kafka.now + 10);
    }
}

fn later(kafka: &mut Kafka) {
    kafka.step(kafka.now + 1_000);
}

fn seen(kafka: &mut Kafka) -> Vec<String> {
    let fetched = kafka.fetch(kafka.now, topics::RECORDS, 0, 0, 100).unwrap();
    let values = fetched.records.iter().map(|record| &record.value);
    values
        .map(|value| String::from_utf8(value.as_ref().unwrap().to_vec()).unwrap())
        .collect()
}

#[test]
fn an_open_transaction_hides_what_is_in_it_and_what_follows() {
    let mut kafka = cluster();
    let mut first = open(&mut kafka, "a", "1");
    let mut second = open(&mut kafka, "b", "2");
    second.commit(kafka.now, &mut kafka).unwrap();
    later(&mut kafka);
    assert!(seen(&mut kafka).is_empty());
    assert_eq!(kafka.end(kafka.now, topics::RECORDS, 0, true), Ok(0));
    first.commit(kafka.now, &mut kafka).unwrap();
    later(&mut kafka);
    assert_eq!(seen(&mut kafka), ["1", "2"]);
    // Two records and two markers.
    assert_eq!(kafka.end(kafka.now, topics::RECORDS, 0, true), Ok(4));
}

#[test]
fn what_is_aborted_is_never_seen_and_its_offsets_are_not_used_again() {
    let mut kafka = cluster();
    let mut producer = open(&mut kafka, "a", "1");
    producer.abort(kafka.now, &mut kafka).unwrap();
    later(&mut kafka);
    producer.begin().unwrap();
    deliver(&mut kafka, &mut producer, "2");
    producer.commit(kafka.now, &mut kafka).unwrap();
    later(&mut kafka);
    assert_eq!(seen(&mut kafka), ["2"]);
    assert_eq!(kafka.committed(topics::RECORDS).next().unwrap().offset, 2);
}

#[test]
fn who_begins_under_the_same_name_fences_the_former_one_and_aborts_its_transaction() {
    let mut kafka = cluster();
    let mut former = open(&mut kafka, "a", "1");
    let mut next = open(&mut kafka, "a", "2");
    let refused = former.commit(kafka.now, &mut kafka).unwrap_err();
    assert_eq!(refused.remedy, risiti_bridge::remedy::Remedy::Anew);
    assert!(refused.is_fenced());
    next.commit(kafka.now, &mut kafka).unwrap();
    later(&mut kafka);
    assert_eq!(seen(&mut kafka), ["2"]);
}

#[test]
fn a_transaction_that_stands_open_too_long_is_aborted_and_its_producer_fenced() {
    let mut kafka = cluster();
    let mut producer = open(&mut kafka, "a", "1");
    kafka.step(kafka.now + TIMEOUT_MS);
    later(&mut kafka);
    assert!(
        producer
            .commit(kafka.now, &mut kafka)
            .unwrap_err()
            .is_fenced()
    );
    assert!(seen(&mut kafka).is_empty());
    assert_eq!(kafka.open_transactions(), 0);
}

#[test]
fn a_batch_whose_answer_was_lost_stands_once() {
    let mut kafka = cluster();
    let mut producer = open(&mut kafka, "a", "1");
    // The partition is known: the next request is the batch.
    kafka.lose_answer_of_next(1);
    deliver(&mut kafka, &mut producer, "2");
    producer.commit(kafka.now, &mut kafka).unwrap();
    later(&mut kafka);
    assert_eq!(seen(&mut kafka), ["1", "2"]);
    assert_eq!(kafka.counts().batches_again, 1);
}

#[test]
fn a_commit_whose_answer_was_lost_is_a_commit() {
    let mut kafka = cluster();
    let mut producer = open(&mut kafka, "a", "1");
    kafka.lose_answer_of_next(1);
    let lost = producer.commit(kafka.now, &mut kafka).unwrap_err();
    assert_eq!(lost.remedy, risiti_bridge::remedy::Remedy::Again);
    later(&mut kafka);
    producer.commit(kafka.now, &mut kafka).unwrap();
    assert_eq!(seen(&mut kafka), ["1"]);
}

#[test]
fn a_request_that_arrives_after_its_sender_was_fenced_is_refused() {
    let mut kafka = cluster();
    let mut former = open(&mut kafka, "a", "1");
    former.expect(1);
    let topic: Rc<str> = topics::RECORDS.into();
    former.send(kafka.now, &kafka, 0, (&topic, Some(0)), message("late"));
    kafka.delay_next(1, 5_000);
    assert!(former.work(kafka.now, &mut kafka));
    let mut next = open(&mut kafka, "a", "2");
    next.commit(kafka.now, &mut kafka).unwrap();
    kafka.step(kafka.now + 6_000);
    assert_eq!(kafka.counts().late, 1);
    assert!(kafka.counts().fenced > 0);
    assert_eq!(seen(&mut kafka), ["2"]);
}

#[test]
fn a_producer_in_doubt_raises_its_epoch_and_goes_on() {
    let mut kafka = cluster();
    let mut producer = open(&mut kafka, "a", "1");
    producer.expect(1);
    let topic: Rc<str> = topics::RECORDS.into();
    producer.send(kafka.now, &kafka, 0, (&topic, Some(0)), message("doubt"));
    kafka.lose_answer_of_next(1);
    assert!(producer.work(kafka.now, &mut kafka));
    // Its memory of sequence numbers is of no use any more (KIP-360).
    while producer.abort(kafka.now, &mut kafka).is_err() {
        later(&mut kafka);
    }
    producer.begin().unwrap();
    deliver(&mut kafka, &mut producer, "2");
    producer.commit(kafka.now, &mut kafka).unwrap();
    later(&mut kafka);
    assert_eq!(seen(&mut kafka), ["2"]);
}

#[test]
fn compaction_keeps_the_newest_of_each_key_and_what_is_open() {
    let mut kafka = cluster();
    for value in ["1", "2", "3"] {
        let mut producer = open(&mut kafka, "a", value);
        producer.commit(kafka.now, &mut kafka).unwrap();
        later(&mut kafka);
    }
    let mut opened = open(&mut kafka, "b", "4");
    for partition in kafka.topics.get_mut(topics::RECORDS).unwrap() {
        partition.compact(i64::MAX);
    }
    assert_eq!(seen(&mut kafka), ["3"]);
    opened.commit(kafka.now, &mut kafka).unwrap();
    later(&mut kafka);
    assert_eq!(seen(&mut kafka), ["3", "4"]);
}

fn names() -> (Rc<str>, Rc<str>, Rc<str>) {
    ("g".into(), "one".into(), topics::RECORDS.into())
}

fn joined(kafka: &mut Kafka, instance: &Rc<str>, heart: &Heart) -> (Member, Assignment) {
    let (group, _, topic) = names();
    let name = (&group, instance);
    let mut member = kafka
        .join(kafka.now, name, heart, &topic, SESSION_MS)
        .unwrap();
    let assignment = kafka.poll_group(kafka.now, &member).unwrap();
    member.generation = assignment.generation;
    (member, assignment)
}

#[test]
fn offsets_in_a_transaction_are_given_out_once_it_is_ended() {
    let mut kafka = cluster();
    let (group, one, topic) = names();
    let heart = Heart::default();
    let (member, _) = joined(&mut kafka, &one, &heart);
    let mut producer = open(&mut kafka, "a", "1");
    let offsets = BTreeMap::from([(0, 7)]);
    producer
        .pass_offsets(kafka.now, &mut kafka, &member, &topic, &offsets)
        .unwrap();
    let asked = kafka.stable_offsets(kafka.now, &group, &topic, &[0]);
    assert_eq!(asked, Err(Code::UnstableOffsetCommit));
    producer.commit(kafka.now, &mut kafka).unwrap();
    later(&mut kafka);
    let asked = kafka.stable_offsets(kafka.now, &group, &topic, &[0]);
    assert_eq!(asked, Ok(BTreeMap::from([(0, Some(7))])));
}

#[test]
fn a_dead_member_is_put_out_and_one_that_was_can_not_commit() {
    let mut kafka = cluster();
    let (_, one, topic) = names();
    let two: Rc<str> = "two".into();
    let (heart, other) = (Heart::default(), Heart::default());
    let (member, assignment) = joined(&mut kafka, &one, &heart);
    assert_eq!(assignment.assigned, [0]);
    let (waiting, assignment) = joined(&mut kafka, &two, &other);
    assert!(assignment.assigned.is_empty());
    drop(heart);
    // Noticed now, put out a session later.
    kafka.step(kafka.due_ms().unwrap());
    kafka.step(kafka.due_ms().unwrap());
    let assignment = kafka.poll_group(kafka.now, &waiting).unwrap();
    assert_eq!(assignment.assigned, [0]);
    let mut producer = open(&mut kafka, "a", "1");
    let offsets = BTreeMap::from([(0, 7)]);
    let refused = producer.pass_offsets(kafka.now, &mut kafka, &member, &topic, &offsets);
    assert_eq!(
        refused.unwrap_err().remedy,
        risiti_bridge::remedy::Remedy::Abort
    );
}

#[test]
fn who_comes_back_under_its_name_takes_its_partitions_back_and_fences_itself() {
    let mut kafka = cluster();
    let (_, one, _) = names();
    let heart = Heart::default();
    let (former, first) = joined(&mut kafka, &one, &heart);
    let (_, again) = joined(&mut kafka, &one, &heart);
    assert_eq!(first.assigned, again.assigned);
    let asked = kafka.poll_group(kafka.now, &former);
    assert_eq!(asked, Err(Code::FencedInstanceId));
}

/// Eager: in no generation has a partition nobody, whatever was under way when the
/// brokers went.
#[test]
fn brokers_that_start_again_in_a_rebalance_leave_no_partition_without_a_holder() {
    let mut kafka = cluster();
    let (group, one, topic) = names();
    let (two, three): (Rc<str>, Rc<str>) = ("two".into(), "three".into());
    let hearts: [Heart; 3] = Default::default();
    let (member, first) = joined(&mut kafka, &one, &hearts[0]);
    assert_eq!(first.assigned, [0]);
    joined(&mut kafka, &two, &hearts[1]);
    kafka.poll_group(kafka.now, &member).unwrap();
    // A third is to come in: the first gives up all and waits for the second.
    let newcomer = kafka
        .join(kafka.now, (&group, &three), &hearts[2], &topic, SESSION_MS)
        .unwrap();
    let asked = kafka.poll_group(kafka.now, &member).unwrap();
    assert_eq!((asked.revoked, asked.assigned), (vec![0], vec![]));
    kafka.down_until(kafka.now + 100);
    kafka.step(kafka.now);
    kafka.step(kafka.now + 100);
    let asked = kafka.poll_group(kafka.now, &newcomer);
    assert_eq!(asked, Err(Code::UnknownMemberId));
    let (_, again) = joined(&mut kafka, &one, &hearts[0]);
    assert_eq!(again.assigned, [0]);
}
