//! Generations out of packs that the test writes, loses and repeats.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use super::*;
use crate::journal::clients::tests::{JOURNAL, numbered};
use crate::journal::pack::Packer;
use crate::record::NewRecord;

const NUMBER: u64 = 3;

/// The packs of a group at `first` of so many records.
fn group(number: u64, first: Position, records: u64) -> Vec<u8> {
    let mut packer = Packer::new(JOURNAL, number, first);
    for n in 0..records {
        packer.add(&numbered("t", first + n));
    }
    let packs = packer.finish();
    packs.into_iter().flat_map(|pack| pack.value).collect()
}

/// One record in several fragments.
fn large(first: Position) -> Vec<Vec<u8>> {
    let mut packer = Packer::new(JOURNAL, NUMBER, first);
    packer.add(&NewRecord {
        payload: vec![7; 3 * pack::PACK_BYTES_MAX].into(),
        ..numbered("t", first)
    });
    packer.finish().into_iter().map(|pack| pack.value).collect()
}

fn index(parts: &[Vec<u8>]) -> Index {
    Index::of_bytes(JOURNAL, NUMBER, 10, 30, &parts.concat())
}

fn firsts(index: &Index, from: Position) -> Vec<Position> {
    index
        .packs_from(from)
        .iter()
        .map(|pack| pack.first)
        .collect()
}

#[test]
fn only_packs_of_this_journal_generation_and_positions_count() {
    let foreign = {
        let mut packer = Packer::new([9; 16], NUMBER, 12);
        packer.add(&numbered("t", 1));
        packer.finish().remove(0).value
    };
    let found = index(&[
        b"what sled writes".to_vec(),
        group(NUMBER, 10, 2),
        group(NUMBER + 1, 13, 1),
        b"RsJ1 that is no pack".to_vec(),
        foreign,
        group(NUMBER, 9, 1),
        group(NUMBER, 29, 1),
        group(NUMBER, 30, 1),
        group(NUMBER, 12, 3),
    ]);
    assert_eq!(firsts(&found, 0), [10, 12, 29]);
    assert_eq!(found.end(), 30);
    assert_eq!(found.missing(), 29 - 15);
}

#[test]
fn a_pack_with_a_flipped_bit_is_missing_and_the_next_one_found() {
    let whole = [group(NUMBER, 10, 2), group(NUMBER, 12, 18)].concat();
    let first_bytes = group(NUMBER, 10, 2).len();
    for at in 0..first_bytes {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let found = Index::of_bytes(JOURNAL, NUMBER, 10, 30, &bytes);
        let missing = if at == 5 { continue } else { 2 };
        assert_eq!(
            (firsts(&found, 0), found.missing()),
            (vec![12], missing),
            "{at}"
        );
    }
}

#[test]
fn reading_begins_at_the_pack_that_holds_the_position() {
    let found = index(&[
        group(NUMBER, 10, 5),
        group(NUMBER, 15, 5),
        group(NUMBER, 20, 10),
    ]);
    assert_eq!(firsts(&found, 14), [10, 15, 20]);
    assert_eq!(firsts(&found, 15), [15, 20]);
    assert_eq!(firsts(&found, 19), [15, 20]);
    assert_eq!(firsts(&found, 29), [20]);
    assert!(firsts(&found, 30).is_empty());
    assert_eq!(found.missing(), 0);
    let holes = index(&[group(NUMBER, 10, 2), group(NUMBER, 15, 5)]);
    assert_eq!(holes.missing(), 3 + 10, "between and behind");
}

#[test]
fn a_pack_that_sled_wrote_again_counts_once() {
    let found = index(&[
        group(NUMBER, 12, 2),
        group(NUMBER, 10, 2),
        group(NUMBER, 12, 2),
    ]);
    assert_eq!(firsts(&found, 0), [10, 12]);
    assert_eq!(found.packs[1].offset, 0, "where it lies first");
}

#[test]
fn a_record_in_fragments_is_whole_or_missing() {
    let parts = large(10);
    assert!(parts.len() >= 3);
    let whole = index(&[parts.concat(), group(NUMBER, 11, 19)]);
    assert_eq!(whole.missing(), 0);
    for lost in 0..parts.len() {
        let mut rest = parts.clone();
        rest.remove(lost);
        let found = index(&[rest.concat(), group(NUMBER, 11, 19)]);
        assert_eq!(found.missing(), 1);
    }
}

#[test]
fn an_entry_gives_its_pack_and_nothing_else_that_lies_there_now() {
    let bytes = group(NUMBER, 10, 2);
    let found = index(std::slice::from_ref(&bytes));
    let (header, body) = found.packs[0].decode(bytes.clone().into()).unwrap();
    assert_eq!((header.first, header.records), (10, 2));
    assert_eq!(body, bytes[pack::HEADER_BYTES..]);
    assert_eq!(found.packs[0].bytes as usize, bytes.len());
    assert!(found.packs[0].decode(group(NUMBER, 12, 2).into()).is_none());
    let parts = large(10);
    let fragments = index(&parts);
    assert!(fragments.packs[0].decode(parts[0].clone().into()).is_some());
    assert!(fragments.packs[0].decode(parts[1].clone().into()).is_none());
}

#[test]
fn the_end_is_that_of_the_run_unless_what_lies_behind_a_hole_was_durable() {
    let end = |parts: &[Vec<u8>], mark| index(parts).find_end(mark);
    assert_eq!(
        end(&[], 0),
        10,
        "a generation without a pack ends where it begins"
    );
    assert_eq!(end(&[], 12), 12, "the mark says more");
    let a = group(NUMBER, 10, 2);
    let torn = {
        // Two packs of one group; the first of them is lost.
        let mut packer = Packer::new(JOURNAL, NUMBER, 12);
        let payload = vec![0; pack::PACK_BYTES_MAX / 2];
        for n in 12..16 {
            packer.add(&NewRecord {
                payload: payload.clone().into(),
                ..numbered("t", n)
            });
        }
        let packs = packer.finish();
        assert!(packs.len() > 1);
        packs[1..]
            .iter()
            .flat_map(|pack| pack.value.clone())
            .collect::<Vec<u8>>()
    };
    assert_eq!(end(std::slice::from_ref(&a), 0), 12);
    assert_eq!(
        end(&[a.clone(), torn.clone()], 0),
        12,
        "the cut tore that group"
    );
    assert!(
        end(&[a.clone(), torn.clone()], 16) == 16,
        "the mark says it was durable"
    );
    let later = group(NUMBER, 20, 2);
    assert_eq!(index(&[a.clone(), later.clone()]).proven(0), 20);
    assert_eq!(
        end(&[a.clone(), later], 0),
        22,
        "a later group begins at 20"
    );
    assert_eq!(index(&[a]).proven(11), 11);
}
