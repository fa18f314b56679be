//! Who holds which position, told from the outside: what is begun, sealed, released
//! and given up, and what may be read then.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use super::*;
use crate::journal::clients::tests::numbered;
use crate::journal::read::{Bounds, batch_from, read_on};

fn generation(number: u64, first: Position) -> Generation {
    Generation {
        number,
        first,
        dir: format!("g-{number}").into(),
    }
}

fn generations(of: &[(u64, Position)]) -> BTreeMap<u64, Generation> {
    of.iter()
        .map(|(number, first)| (*number, generation(*number, *first)))
        .collect()
}

/// Sealed generations 3, 5 and 6 at 10, 20 and 30, the end at 40, all of it in the
/// dedup states filed.
fn positions(consumers: &[&str]) -> Positions {
    let consumers: Vec<String> = consumers.iter().map(|c| (*c).to_owned()).collect();
    Positions::new(
        generations(&[(3, 10), (5, 20), (6, 30)]),
        &consumers,
        40,
        40,
    )
}

fn records(positions: std::ops::Range<Position>) -> impl Iterator<Item = Record> {
    positions.map(|position| Record {
        position,
        record: numbered("t", position),
    })
}

fn numbers<'a>(of: impl IntoIterator<Item = &'a Generation>) -> Vec<u64> {
    of.into_iter().map(|g| g.number).collect()
}

fn sealed(number: u64, first: Position, end: Position) -> Source {
    let generation = generation(number, first);
    Source::Sealed { generation, end }
}

/// What can be read without a disk, from `from` on.
fn in_memory(positions: &Positions, from: Position) -> Vec<Position> {
    let bounds = Bounds {
        records_max: 100,
        bytes_max: 1 << 20,
    };
    let mut batch = batch_from(from);
    read_on(positions, bounds, &mut batch);
    batch.records.iter().map(|r| r.position).collect()
}

#[test]
fn a_generation_that_the_next_one_takes_the_place_of_was_never_written() {
    let of = |of: &[(u64, Position)]| never_written(&generations(of));
    assert_eq!(of(&[(3, 10), (5, 20), (6, 30)]), [0; 0]);
    assert_eq!(of(&[(3, 10), (5, 10), (6, 10), (7, 11)]), [3, 5]);
    assert_eq!(
        of(&[(3, 20), (4, 10)]),
        [3],
        "damage in a name counts so too"
    );
    assert_eq!(of(&[(3, 10)]), [0; 0], "the newest may be empty");
    assert_eq!(of(&[(0, 10), (1, 11)]), [0; 0]);
}

#[test]
fn a_generation_answers_from_its_first_position_until_the_next_ones() {
    let positions = positions(&["a"]);
    assert_eq!((positions.oldest(), positions.end()), (10, 40));
    assert_eq!(positions.source_of(9), Source::Gone { next: 10 });
    assert_eq!(positions.source_of(10), sealed(3, 10, 20));
    assert_eq!(positions.source_of(19), sealed(3, 10, 20));
    assert_eq!(positions.source_of(20), sealed(5, 20, 30));
    assert_eq!(positions.source_of(39), sealed(6, 30, 40));
    assert_eq!(positions.source_of(40), Source::Gone { next: 40 });
    assert_eq!(numbers(positions.generations().values()), [3, 5, 6]);
}

#[test]
fn an_empty_journal_holds_nothing_from_its_end_on() {
    let mut positions = Positions::new(BTreeMap::new(), &["a".into()], 7, 7);
    assert_eq!((positions.oldest(), positions.end()), (7, 7));
    assert_eq!(positions.source_of(1), Source::Gone { next: 7 });
    assert!(positions.take_released(|_| {}).is_empty());
}

#[test]
fn what_is_begun_is_live_until_it_is_sealed() {
    let mut positions = positions(&["a"]);
    assert!(positions.begin(generation(7, 40)).is_empty());
    positions.durable(records(40..42));
    let live = Source::Live {
        generation: generation(7, 40),
        end: 42,
    };
    assert_eq!(positions.source_of(41), live);
    assert_eq!(positions.source_of(39), sealed(6, 30, 40), "the others not");
    positions.seal();
    assert_eq!(positions.source_of(41), sealed(7, 40, 42));
}

#[test]
fn a_generation_begun_where_others_begin_takes_their_place() {
    let mut positions = positions(&["a"]);
    positions.begin(generation(7, 40));
    positions.seal();
    let superseded = positions.begin(generation(8, 40));
    assert_eq!(numbers(&superseded), [7], "its first write failed");
    assert_eq!(numbers(positions.generations().values()), [3, 5, 6, 8]);
}

#[test]
fn the_end_is_one_past_what_is_durable_and_that_is_in_memory() {
    let mut positions = positions(&["a"]);
    positions.begin(generation(7, 40));
    positions.durable(records(40..43));
    assert_eq!(positions.end(), 43);
    assert_eq!(in_memory(&positions, 40), [40, 41, 42]);
    assert_eq!(in_memory(&positions, 42), [42]);
    positions.durable(records(43..44));
    assert_eq!(positions.end(), 44);
    assert_eq!(in_memory(&positions, 42), [42, 43]);
}

#[test]
fn memory_gives_up_what_every_consumer_has_released_and_no_more() {
    let mut positions = positions(&["a", "b"]);
    positions.begin(generation(7, 40));
    positions.durable(records(40..44));
    assert!(positions.release("a", 43));
    assert_eq!(in_memory(&positions, 40), [40, 41, 42, 43], "b needs it");
    assert!(positions.release("b", 42));
    assert_eq!(in_memory(&positions, 40), [0; 0]);
    assert_eq!(in_memory(&positions, 42), [42, 43]);
}

#[test]
fn a_release_by_nobody_known_is_refused_and_none_goes_back() {
    let mut positions = positions(&["a", "b"]);
    assert!(!positions.release("c", 40));
    assert!(positions.release("a", 40));
    assert!(positions.release("a", 20), "late, and not an error");
    let released: Vec<(&str, Position)> = positions
        .released()
        .iter()
        .map(|(name, position)| (name.as_str(), *position))
        .collect();
    assert_eq!(released, [("a", 40), ("b", 1)]);
}

#[test]
fn a_generation_is_given_up_once_all_have_released_it_whole_and_never_the_newest() {
    let mut positions = positions(&["a", "b"]);
    positions.release("a", 40);
    assert!(positions.take_released(|_| {}).is_empty(), "b needs it");
    positions.release("b", 19);
    assert!(positions.take_released(|_| {}).is_empty(), "position 19");
    positions.release("b", 20);
    assert_eq!(numbers(&positions.take_released(|_| {})), [3]);
    assert_eq!(positions.oldest(), 20);
    assert_eq!(positions.source_of(15), Source::Gone { next: 20 });
    positions.release("b", 40);
    assert_eq!(numbers(&positions.take_released(|_| {})), [5]);
    assert_eq!(numbers(positions.generations().values()), [6]);
    assert!(positions.take_released(|_| {}).is_empty());
}

#[test]
fn what_no_consumer_is_configured_for_is_given_up_at_once() {
    let mut positions = positions(&[]);
    assert_eq!(numbers(&positions.take_released(|_| {})), [3, 5]);
}

#[test]
fn g2_a_generation_stays_until_its_records_are_in_the_dedup_states_filed() {
    let consumers = ["a".to_owned()];
    let of = generations(&[(3, 10), (5, 20), (6, 30)]);
    let mut positions = Positions::new(of, &consumers, 40, 19);
    positions.release("a", 40);
    assert!(positions.take_released(|_| {}).is_empty());
    positions.checkpointed(20);
    assert_eq!(numbers(&positions.take_released(|_| {})), [3]);
    positions.checkpointed(40);
    assert_eq!(numbers(&positions.take_released(|_| {})), [5]);
}

#[test]
fn what_is_to_be_kept_all_the_same_stays_from_the_newest_on() {
    let mut positions = positions(&["a"]);
    positions.release("a", 40);
    let taken = positions.take_released(|released| {
        assert_eq!(numbers(&*released), [3, 5], "oldest first");
        released.pop();
    });
    assert_eq!(numbers(&taken), [3]);
    assert_eq!(numbers(positions.generations().values()), [5, 6]);
}

#[test]
fn what_could_not_be_deleted_answers_for_its_positions_again() {
    let mut positions = positions(&["a"]);
    positions.release("a", 40);
    let taken = positions.take_released(|_| {});
    positions.put_back(taken);
    assert_eq!(positions.oldest(), 10);
    assert_eq!(positions.source_of(10), sealed(3, 10, 20));
    assert_eq!(numbers(&positions.take_released(|_| {})), [3, 5], "anew");
}
