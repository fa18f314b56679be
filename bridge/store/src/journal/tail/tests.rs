//! What is in memory, and up to which bounds.

use super::*;
use crate::journal::clients::tests::numbered;

/// One of so many bytes in all.
fn record(position: Position, bytes: usize) -> Record {
    let record = numbered("t", position);
    let payload = vec![0; bytes - 2].into();
    let record = crate::NewRecord { payload, ..record };
    assert_eq!(record_bytes(&record), bytes);
    Record { position, record }
}

fn tail(positions: std::ops::Range<Position>, bytes: usize) -> Tail {
    let mut tail = Tail::default();
    positions.for_each(|position| tail.push(record(position, bytes)));
    tail
}

/// What is read from `from` on, and where to read on; none if it isn't here.
fn read(
    tail: &Tail,
    from: Position,
    records_max: usize,
    bytes_max: usize,
) -> Option<(Vec<Position>, Position)> {
    let mut batch = crate::journal::batch_from(from);
    let is_here = tail.read(&mut batch, records_max, bytes_max);
    assert!(is_here || (batch.records.is_empty() && batch.next == from));
    let positions = batch.records.iter().map(|r| r.position).collect();
    is_here.then_some((positions, batch.next))
}

#[test]
fn it_gives_what_it_holds_and_nothing_before_or_behind() {
    assert_eq!(read(&Tail::default(), 1, 10, 1_000), None);
    let tail = tail(5..9, 10);
    assert_eq!(read(&tail, 4, 10, 1_000), None);
    assert_eq!(read(&tail, 5, 10, 1_000), Some((vec![5, 6, 7, 8], 9)));
    assert_eq!(read(&tail, 8, 10, 1_000), Some((vec![8], 9)));
    assert_eq!(read(&tail, 9, 10, 1_000), None);
    assert_eq!(read(&tail, u64::MAX, 10, 1_000), None);
}

#[test]
fn a_batch_ends_at_either_bound_but_has_one_record_at_least() {
    let tail = tail(5..9, 10);
    assert_eq!(read(&tail, 5, 2, 1_000), Some((vec![5, 6], 7)));
    assert_eq!(read(&tail, 5, 10, 30), Some((vec![5, 6, 7], 8)));
    assert_eq!(read(&tail, 5, 10, 29), Some((vec![5, 6], 7)));
    assert_eq!(read(&tail, 6, 10, 1), Some((vec![6], 7)));
    assert_eq!(read(&tail, 6, 0, 1_000), Some((vec![6], 7)));
}

/// As many records of that size as its bound holds, and two more.
fn overfilled(bytes: usize) -> (Tail, Position) {
    let fit = (limits::TAIL_BYTES_MAX / (bytes + OVERHEAD_BYTES)) as Position;
    (tail(1..fit + 3, bytes), fit)
}

#[test]
fn g8_the_oldest_leave_when_it_is_full_and_not_before() {
    // With and without a rest.
    let exact = limits::TAIL_BYTES_MAX / 4_096;
    assert_eq!(exact * 4_096, limits::TAIL_BYTES_MAX);
    for bytes in [4_096 - OVERHEAD_BYTES, 5_000, 100, 10] {
        let (tail, fit) = overfilled(bytes);
        assert_eq!(tail.records.len() as Position, fit, "{bytes} bytes");
        assert_eq!(read(&tail, 2, 1, 1), None);
        assert_eq!(read(&tail, 3, 1, 1), Some((vec![3], 4)));
    }
}

#[test]
fn g8_what_is_released_makes_room() {
    let (mut tail, fit) = overfilled(4_096 - OVERHEAD_BYTES);
    tail.release(2);
    assert_eq!(tail.records.len() as Position, fit, "that is not here");
    tail.release(13);
    assert_eq!(read(&tail, 12, 1, 1), None);
    assert_eq!(read(&tail, 13, 1, 1), Some((vec![13], 14)));
    for position in fit + 3..fit + 13 {
        tail.push(record(position, 4_096 - OVERHEAD_BYTES));
    }
    assert_eq!(read(&tail, 13, 1, 1), Some((vec![13], 14)), "there is room");
    tail.push(record(fit + 13, 4_096 - OVERHEAD_BYTES));
    assert_eq!(read(&tail, 13, 1, 1), None, "no more");
    tail.release(Position::MAX);
    assert_eq!((tail.records.len(), tail.bytes), (0, 0));
}

#[test]
fn what_leaves_is_subtracted_by_its_own_size() {
    let mut tail = tail(1..2, 1_000_000);
    for position in 2..8 {
        tail.push(record(position, 600_000));
    }
    assert_eq!(
        read(&tail, 1, 1, 1),
        None,
        "1,000,000 and 6 x 600,000 are too much"
    );
    assert_eq!(tail.bytes, 6 * (600_000 + OVERHEAD_BYTES));
    tail.release(8);
    assert_eq!(tail.bytes, 0);
}
