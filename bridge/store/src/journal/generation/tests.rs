//! Names of generations, and generations whose file is there, gone or no file.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use super::*;
use crate::journal::clients::tests::{JOURNAL, numbered};
use crate::journal::pack::Packer;

#[test]
fn a_generation_is_named_by_what_it_holds_and_known_by_its_name() {
    let named = Generation::new(Path::new("journal"), 7, 42);
    let dir = Path::new("journal/g-0000000007-00000000000000000042");
    assert_eq!(named.dir, dir);
    assert_eq!(Generation::from_dir(dir), Some(named));
    for other in ["g-7", "g-7-42-1", "h-7-42", "g-x-42", "g-7-", "id", "mark"] {
        assert_eq!(Generation::from_dir(Path::new(other)), None, "{other}");
    }
    assert_eq!(Generation::from_dir(Path::new("..")), None);
}

/// Two records at 5 and 6, in their file.
fn written(dir: &Path) -> Generation {
    let generation = Generation::new(dir, 3, 5);
    std::fs::create_dir(&generation.dir).unwrap();
    let mut packer = Packer::new(JOURNAL, 3, 5);
    packer.add(&numbered("t", 1));
    packer.add(&numbered("t", 2));
    let packs: Vec<u8> = packer.finish().remove(0).value;
    std::fs::write(generation.dir.join("db"), packs).unwrap();
    generation
}

#[test]
fn a_sealed_generation_gives_the_packs_that_lie_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let sealed = SealedGeneration::open(JOURNAL, &written(dir.path()), 7, None).unwrap();
    assert_eq!(sealed.index.missing(), 0);
    let packs: Vec<_> = sealed.packs_from(6).map(Result::unwrap).collect();
    assert_eq!(packs.len(), 1);
    let (header, body) = packs[0].clone();
    let records = pack::records_of(&header, body).unwrap();
    assert_eq!(records, [numbered("t", 1), numbered("t", 2)]);
    assert!(sealed.packs_from(7).next().is_none());
}

#[test]
fn g11_a_generation_whose_file_is_gone_answers_with_all_of_it_missing() {
    let dir = tempfile::tempdir().unwrap();
    let generation = written(dir.path());
    std::fs::remove_file(generation.dir.join("db")).unwrap();
    let sealed = SealedGeneration::open(JOURNAL, &generation, 7, None).unwrap();
    assert_eq!(sealed.index.missing(), 2);
    assert!(sealed.packs_from(5).next().is_none());
}

#[test]
fn g11_a_file_that_can_not_be_opened_is_not_taken_for_one_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let generation = Generation::new(dir.path(), 3, 5);
    std::fs::write(&generation.dir, b"no directory").unwrap();
    assert!(SealedGeneration::open(JOURNAL, &generation, 7, None).is_err());
}

#[test]
fn g11_a_pack_that_does_not_fit_its_tag_is_missing_though_its_checksum_fits() {
    let dir = tempfile::tempdir().unwrap();
    let generation = Generation::new(dir.path(), 3, 5);
    std::fs::create_dir(&generation.dir).unwrap();
    let cipher = PackCipher::of(&crate::StoreKey::new([7; 32]), &JOURNAL);
    let mut packer = Packer::new(JOURNAL, 3, 5).encrypting(Some(cipher.clone()));
    packer.add(&numbered("t", 1));
    packer.add(&numbered("t", 2));
    let mut bytes = packer.finish().remove(0).value;
    let open = |bytes: &[u8], cipher| {
        std::fs::write(generation.dir.join("db"), bytes).unwrap();
        SealedGeneration::open(JOURNAL, &generation, 7, cipher).unwrap()
    };
    let sealed = open(&bytes, Some(cipher.clone()));
    assert_eq!(sealed.index.missing(), 0);
    let (header, body) = sealed.packs_from(5).next().unwrap().unwrap();
    let records = pack::records_of(&header, body).unwrap();
    assert_eq!(records, [numbered("t", 1), numbered("t", 2)]);
    // Without a key nothing is missing, and nothing can be read.
    let locked = open(&bytes, None);
    assert_eq!(locked.index.missing(), 0);
    let first = locked.packs_from(5).next().unwrap();
    assert!(matches!(first, Err(StoreError::Key { .. })), "{first:?}");

    bytes[70] ^= 1;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..58]), &bytes[pack::HEADER_BYTES..]);
    bytes[58..62].copy_from_slice(&crc.to_be_bytes());
    let sealed = open(&bytes, Some(cipher));
    assert_eq!(sealed.index.missing(), 2);
    assert!(sealed.packs_from(5).next().is_none());
}
