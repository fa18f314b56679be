//! Where each numbered row lies: 24 bytes of memory a row. A core: no file.
//!
//! Promises: rows come in the order of their keys. A numbered key is `or`, a
//! name without a 0, a 0, and 8 bytes; so no name begins another's keys, and the
//! order by name and number is the order of the keys.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3DefaultBuilder;

/// The beginning of every numbered key.
pub(super) const FAMILY: &[u8] = b"or";
const NUMBER_BYTES: usize = 8;

/// Where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    number: u64,
    place: Place,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Keys without their numbers, in order.
    names: BTreeSet<Arc<[u8]>>,
    /// What each has, in the order of the numbers. Apart from their order: a
    /// start looks up a million in no order.
    slots: HashMap<Arc<[u8]>, Vec<Slot>, Xxh3DefaultBuilder>,
    rows: u64,
}

/// Name and number of a numbered key.
pub(super) fn split(key: &[u8]) -> Option<(&[u8], u64)> {
    let at = key.len().checked_sub(NUMBER_BYTES)?;
    let (name, number) = (&key[..at], &key[at..]);
    let within = name.strip_prefix(FAMILY)?;
    let first_zero = within.iter().position(|b| *b == 0)?;
    (first_zero + 1 == within.len())
        .then(|| Some((name, u64::from_be_bytes(number.try_into().ok()?))))
        .flatten()
}

impl Index {
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Place> {
        let (name, number) = split(key)?;
        let slots = self.slots.get(name)?;
        let at = slots.binary_search_by_key(&number, |s| s.number).ok()?;
        Some(slots[at].place)
    }

    /// Notes where a row lies; where it lay before, if anywhere.
    pub(super) fn put(&mut self, key: &[u8], place: Place) -> Option<Place> {
        let (name, number) = split(key)?;
        let slot = Slot { number, place };
        let Some(slots) = self.slots.get_mut(name) else {
            let name: Arc<[u8]> = name.into();
            self.names.insert(Arc::clone(&name));
            self.slots.insert(name, vec![slot]);
            self.rows += 1;
            return None;
        };
        let at = match slots.last() {
            // Numbers grow: nearly always.
            Some(last) if last.number < number => slots.len(),
            _ => match slots.binary_search_by_key(&number, |s| s.number) {
                Ok(at) => return Some(std::mem::replace(&mut slots[at], slot).place),
                Err(at) => at,
            },
        };
        if slots.len() == slots.capacity() {
            // Less waste than doubling; a million rows wait at times.
            slots.reserve_exact(slots.len() / 4 + 4);
        }
        slots.insert(at, slot);
        self.rows += 1;
        None
    }

    /// Forgets a row; where it lay.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Place> {
        let (name, number) = split(key)?;
        let slots = self.slots.get_mut(name)?;
        let at = slots.binary_search_by_key(&number, |s| s.number).ok()?;
        let place = slots.remove(at).place;
        self.rows -= 1;
        if slots.is_empty() {
            self.slots.remove(name);
            self.names.remove(name);
        } else if slots.capacity() > 4 * slots.len() + 16 {
            slots.shrink_to(slots.len() + 4);
        }
        Some(place)
    }

    /// The rows that lie in a file, the last of them first.
    pub(super) fn in_file(&self, file: u32) -> Vec<(Vec<u8>, Place)> {
        let mut found = Vec::new();
        for (name, slots) in &self.slots {
            for slot in slots.iter().filter(|slot| slot.place.file == file) {
                let key = [name, &slot.number.to_be_bytes()[..]].concat();
                found.push((key, slot.place));
            }
        }
        found.sort_unstable_by_key(|(_, place)| std::cmp::Reverse(place.offset));
        found
    }

    /// Up to `limit` rows whose keys begin with `prefix`, in order, behind
    /// `after` or from the first.
    pub(super) fn page(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Vec<(Vec<u8>, Place)> {
        let mut found = Vec::new();
        let from = after.map_or(prefix, |after| after.max(prefix));
        let names = (Bound::Included(name_in(from)), Bound::Unbounded);
        for name in self.names.range::<[u8], _>(names) {
            let Some(slots) = self.slots.get(name) else {
                continue;
            };
            if !name.starts_with(prefix) && !prefix.starts_with(name) {
                // It may stand before the prefix; behind it nothing follows.
                if **name > *prefix {
                    break;
                }
                continue;
            }
            let first = match split(from) {
                Some((of, number)) if *of == **name => {
                    slots.partition_point(|slot| slot.number < number)
                }
                _ => 0,
            };
            for slot in &slots[first..] {
                if found.len() >= limit {
                    return found;
                }
                let key = [name, &slot.number.to_be_bytes()[..]].concat();
                if key.starts_with(prefix) && after.is_none_or(|after| key[..] > *after) {
                    found.push((key, slot.place));
                }
            }
        }
        found
    }
}

/// The name that `key`, or the beginning of one, belongs to; else all of it.
fn name_in(key: &[u8]) -> &[u8] {
    let within = key.get(FAMILY.len()..).unwrap_or_default();
    match within.iter().position(|b| *b == 0) {
        Some(zero) => &key[..FAMILY.len() + zero + 1],
        None => key,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn key(name: &str, number: u64) -> Vec<u8> {
        [b"or", name.as_bytes(), &[0], &number.to_be_bytes()[..]].concat()
    }

    fn place(file: u32) -> Place {
        Place {
            file,
            offset: 1,
            bytes: 2,
        }
    }

    #[test]
    fn only_a_family_a_name_and_a_number_are_a_numbered_key() {
        assert_eq!(split(&key("t1", 5)), Some((&b"ort1\0"[..], 5)));
        assert_eq!(split(&key("", 0)), Some((&b"or\0"[..], 0)));
        for other in [
            &b"or"[..],
            b"ort1",
            b"ott1\x0012345678",
            b"or\0a\x0012345678",
            b"ort112345678",
        ] {
            assert_eq!(split(other), None, "{other:?}");
        }
        assert_eq!(split(&key("t1", 5)[..12]), None);
    }

    #[test]
    fn it_answers_as_a_map_of_the_keys_does() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut index = Index::default();
        let mut model: BTreeMap<Vec<u8>, Place> = BTreeMap::new();
        let names = ["", "a", "a1", "b", "t1", "t10", "t2"];
        for step in 0..20_000_u32 {
            let key = key(names[rng.usize(..names.len())], rng.u64(0..40) * 37);
            if rng.u8(..) < 140 {
                assert_eq!(index.put(&key, place(step)), model.insert(key, place(step)));
            } else {
                assert_eq!(index.remove(&key), model.remove(&key));
            }
            assert_eq!(index.rows(), model.len() as u64);
            if step % 20 > 0 {
                continue;
            }
            let mut prefix = self::key(names[rng.usize(..names.len())], rng.u64(0..40) * 37);
            prefix.truncate(rng.usize(..=prefix.len()));
            let after = self::key(names[rng.usize(..names.len())], rng.u64(0..40) * 37);
            let after = rng.bool().then_some(&after[..rng.usize(..=after.len())]);
            let limit = rng.usize(1..60);
            let expected: Vec<_> = model
                .iter()
                .filter(|(k, _)| k.starts_with(&prefix) && after.is_none_or(|a| k[..] > *a))
                .take(limit)
                .map(|(k, p)| (k.clone(), *p))
                .collect();
            assert_eq!(
                index.page(&prefix, after, limit),
                expected,
                "{prefix:?} {after:?}"
            );
        }
    }
}
