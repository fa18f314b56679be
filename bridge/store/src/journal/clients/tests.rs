//! Dedup states between memory and rows that the test makes durable when it likes.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::*;
use crate::Alarm;
use crate::record::Identity;
use crate::state::KeyValue;

pub(in crate::journal) const JOURNAL: JournalId = [7; 16];

/// Rows; what is submitted is applied at once and durable when told.
#[derive(Default)]
pub(in crate::journal) struct Shelf {
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    waiting: Mutex<Vec<(Arc<dyn CommitSink>, u64)>>,
    pub(in crate::journal) refuses: Mutex<bool>,
}

impl Shelf {
    /// All that was submitted becomes durable; how many batches.
    pub(in crate::journal) fn sync(&self) -> usize {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let batches = waiting.len();
        for (sink, token) in waiting {
            sink.committed(token, Ok(()));
        }
        batches
    }

    fn checkpoint(&self) -> Option<Vec<u8>> {
        self.rows.lock().get(CHECKPOINT_KEY).cloned()
    }
}

impl Rows for Shelf {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.lock().get(key).cloned())
    }

    fn scan(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<KeyValue>, StoreError> {
        Ok(Vec::new())
    }

    fn submit(
        &self,
        batch: Batch,
        sink: Option<(Arc<dyn CommitSink>, u64)>,
    ) -> Result<(), StoreError> {
        if *self.refuses.lock() {
            return Err(StoreError::Closing);
        }
        for (key, value) in batch.operations() {
            match value {
                Some(value) => self.rows.lock().insert(key.to_vec(), value.to_vec()),
                None => self.rows.lock().remove(key),
            };
        }
        self.waiting.lock().extend(sink);
        Ok(())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.submit(batch, None)
    }

    fn receipts_refused(&self) -> Option<Alarm> {
        None
    }
}

pub(in crate::journal) fn open(shelf: &Arc<Shelf>) -> Clients {
    Clients::open(Arc::clone(shelf) as Arc<dyn Rows>, JOURNAL).unwrap()
}

fn of(client_id: &str, identity: Identity) -> NewRecord {
    NewRecord {
        received_ms: 0,
        client_id: Bytes::copy_from_slice(client_id.as_bytes()),
        topic: Bytes::from_static(b"t"),
        identity,
        properties: Bytes::new(),
        payload: Bytes::from_static(b"p"),
    }
}

pub(in crate::journal) fn numbered(client_id: &str, sequence: u64) -> NewRecord {
    let (dup, resend_mark) = (false, false);
    of(
        client_id,
        Identity::Sequence {
            sequence,
            dup,
            resend_mark,
        },
    )
}

pub(in crate::journal) fn packet(client_id: &str, packet_id: u16) -> NewRecord {
    of(
        client_id,
        Identity::Packet {
            packet_id,
            dup: true,
        },
    )
}

/// A whole checkpoint at `position`, each step of it durable.
fn file(clients: &mut Clients, shelf: &Shelf, position: Position) {
    clients.begin_checkpoint(position);
    while !clients.step().unwrap() {
        assert!(shelf.sync() > 0, "a step writes something");
    }
}

#[test]
fn a_checkpoint_counts_only_for_the_journal_that_wrote_it() {
    let shelf = Arc::new(Shelf::default());
    assert_eq!(open(&shelf).checkpointed(), 0);
    file(&mut open(&shelf), &shelf, 42);
    assert_eq!(open(&shelf).checkpointed(), 42);

    let other = Clients::open(Arc::clone(&shelf) as Arc<dyn Rows>, [8; 16]).unwrap();
    assert_eq!(
        other.checkpointed(),
        0,
        "of a gateway whose journal was wiped"
    );
    let whole = shelf.checkpoint().unwrap();
    assert_eq!(whole.len(), 24);
    for length in 0..24 {
        let cut = whole[..length].to_vec();
        shelf.rows.lock().insert(CHECKPOINT_KEY.to_vec(), cut);
        assert_eq!(open(&shelf).checkpointed(), 0, "{length} bytes");
    }
}

#[test]
fn a_checkpoint_is_one_only_once_every_step_of_it_is_durable() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    clients.accept(&numbered("a", 1)).unwrap();
    assert!(!clients.is_checkpointing());
    clients.begin_checkpoint(9);
    assert!(clients.is_checkpointing());
    assert!(!clients.step().unwrap());
    assert!(!clients.step().unwrap(), "its only step is on its way");
    assert_eq!(shelf.waiting.lock().len(), 1, "and goes out once");
    assert_eq!(clients.checkpointed(), 0);
    assert!(clients.is_checkpointing());
    shelf.sync();
    assert!(clients.step().unwrap());
    assert_eq!(clients.checkpointed(), 9);
    assert!(!clients.is_checkpointing());
    assert!(!clients.step().unwrap(), "told once");
}

#[test]
fn a_checkpoint_that_was_refused_is_taken_again_with_every_state() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    clients.accept(&numbered("a", 1)).unwrap();
    clients.accept(&packet("b", 1)).unwrap();
    *shelf.refuses.lock() = true;
    clients.begin_checkpoint(9);
    assert!(clients.step().is_err());
    assert!(clients.is_checkpointing());
    *shelf.refuses.lock() = false;
    while !clients.step().unwrap() {
        shelf.sync();
    }
    let mut again = open(&shelf);
    assert_eq!(again.checkpointed(), 9);
    assert_eq!(again.accept(&numbered("a", 1)).unwrap(), Verdict::Duplicate);
    assert_eq!(again.accept(&packet("b", 1)).unwrap(), Verdict::Duplicate);
}

#[test]
fn only_what_has_changed_is_written_again() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    clients.accept(&numbered("a", 1)).unwrap();
    clients.accept(&numbered("b", 1)).unwrap();
    file(&mut clients, &shelf, 3);
    let key = key_of(b"a");
    shelf.rows.lock().insert(key.clone(), b"as it was".to_vec());
    clients.accept(&numbered("b", 2)).unwrap();
    file(&mut clients, &shelf, 4);
    assert_eq!(shelf.rows.lock()[&key], b"as it was");
    let b = shelf.rows.lock()[&key_of(b"b")].clone();
    let mut expected = ClientState::default();
    expected.learn(&numbered("b", 1));
    expected.learn(&numbered("b", 2));
    assert_eq!(ClientState::decode(&b), Some(expected));
}

#[test]
fn a_client_that_is_forgotten_and_had_no_numbers_leaves_no_row() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    clients.accept(&packet("once", 1)).unwrap();
    clients.accept(&packet("terminal", 1)).unwrap();
    clients.accept(&numbered("terminal", 1)).unwrap();
    file(&mut clients, &shelf, 4);
    for client in ["once", "terminal", "never seen"] {
        clients
            .forget(&Bytes::from_static(client.as_bytes()))
            .unwrap();
    }
    assert_eq!(clients.packets, 0);
    assert!(!clients.entries.contains_key(&b"never seen"[..]));
    file(&mut clients, &shelf, 4);
    assert!(!shelf.rows.lock().contains_key(&key_of(b"once")));
    assert!(!clients.entries.contains_key(&b"once"[..]));
    let mut again = open(&shelf);
    assert_eq!(again.accept(&packet("terminal", 1)).unwrap(), Verdict::New);
    let known = again.accept(&numbered("terminal", 1)).unwrap();
    assert_eq!(known, Verdict::Duplicate);
}

#[test]
fn names_of_any_length_are_told_apart() {
    let shelf = Arc::new(Shelf::default());
    let names: Vec<String> = [1, 254, 255, 256, 300].map(|n| "x".repeat(n)).into();
    let mut clients = open(&shelf);
    for name in &names {
        assert_eq!(clients.accept(&numbered(name, 1)).unwrap(), Verdict::New);
    }
    file(&mut clients, &shelf, 6);
    assert!(shelf.rows.lock().keys().all(|key| key.len() <= 4 + 255));
    assert_eq!(shelf.rows.lock().len(), names.len() + 1);
    assert_eq!(key_of(&[b'x'; 255]), [&b"j/c/"[..], &[b'x'; 255]].concat());
    assert_eq!(key_of(&[b'x'; 256]).len(), 4 + 16);
    let mut again = open(&shelf);
    for name in &names {
        let verdict = again.accept(&numbered(name, 1)).unwrap();
        assert_eq!(verdict, Verdict::Duplicate);
    }
}

#[test]
fn a_record_without_identity_is_always_new_and_leaves_nothing() {
    let mut clients = open(&Arc::default());
    let record = of("a", Identity::None);
    for _ in 0..2 {
        assert_eq!(clients.accept(&record).unwrap(), Verdict::New);
        clients.learn(&record).unwrap();
    }
    assert!(clients.entries.is_empty());
}

#[test]
fn publications_in_memory_are_counted_and_make_it_crowded() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    for packet_id in 1..=5 {
        clients.accept(&packet("a", packet_id)).unwrap();
        clients.accept(&packet("b", packet_id)).unwrap();
    }
    assert_eq!(clients.packets, 10);
    file(&mut clients, &shelf, 11);
    let mut again = open(&shelf);
    again.accept(&packet("a", 1)).unwrap();
    assert_eq!(again.packets, 5, "those that were filed count too");

    assert!(!clients.is_crowded());
    clients.packets = limits::PACKETS_TOTAL_MAX;
    assert!(clients.is_crowded());
    clients.packets = 10;
}

#[test]
fn memory_gives_up_the_longest_unused_state_and_never_one_that_is_not_durable() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    for name in ["old", "older", "newest"] {
        clients.accept(&packet(name, 1)).unwrap();
    }
    clients.accept(&packet("old", 2)).unwrap();
    clients.accept(&packet("newest", 2)).unwrap();
    let crowd = |clients: &mut Clients| {
        let packets = std::mem::replace(&mut clients.packets, limits::PACKETS_TOTAL_MAX);
        clients.evict();
        clients.packets = packets - (limits::PACKETS_TOTAL_MAX - clients.packets);
    };
    clients.evict();
    assert_eq!(clients.entries.len(), 3, "there is room");
    crowd(&mut clients);
    assert_eq!(clients.entries.len(), 3, "none was ever written");
    clients.begin_checkpoint(6);
    assert!(!clients.step().unwrap());
    crowd(&mut clients);
    assert_eq!(clients.entries.len(), 3, "what was written is not durable");
    shelf.sync();
    assert!(clients.step().unwrap());
    clients.evict();
    assert_eq!(clients.entries.len(), 3, "there is room");
    crowd(&mut clients);
    assert!(!clients.entries.contains_key(&b"older"[..]));
    assert_eq!((clients.entries.len(), clients.packets), (2, 4));
    let known = clients.accept(&packet("older", 1)).unwrap();
    assert_eq!(known, Verdict::Duplicate, "it is read again");
}

#[test]
fn a_step_that_is_durable_or_failed_asks_for_attention() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    let woken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&woken);
    clients.on_step_done(Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    clients.begin_checkpoint(9);
    assert!(!clients.step().unwrap());
    assert_eq!(woken.load(Ordering::SeqCst), 0);
    shelf.sync();
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert!(clients.step().unwrap());

    clients.begin_checkpoint(10);
    assert!(!clients.step().unwrap());
    for (sink, token) in std::mem::take(&mut *shelf.waiting.lock()) {
        sink.committed(token, Err(StoreError::Closing));
    }
    assert_eq!(woken.load(Ordering::SeqCst), 2);
    assert!(!clients.step().unwrap(), "that was not durable");
}

#[test]
fn a_large_checkpoint_goes_out_step_by_step_each_once_the_one_before_is_durable() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    let names = 140;
    let mut bytes = 0;
    for name in 0..names {
        let name = format!("{name:0200}");
        for packet_id in 1..=limits::PACKETS_MAX as u16 {
            clients.accept(&packet(&name, packet_id)).unwrap();
        }
        let entry = &clients.entries[name.as_bytes()];
        bytes += entry.client.encode().len();
    }
    assert!(bytes > 2 * limits::CHECKPOINT_STEP_BYTES, "three steps");
    clients.begin_checkpoint(9);
    for step in 1..=2 {
        assert!(!clients.step().unwrap());
        assert!(!clients.step().unwrap());
        assert_eq!(shelf.sync(), 1, "step {step} alone");
        assert_eq!(shelf.checkpoint(), None);
    }
    while !clients.step().unwrap() {
        assert_eq!(shelf.sync(), 1);
    }
    assert_eq!(clients.checkpointed(), 9);
    assert_eq!(shelf.rows.lock().len(), names + 1);
}

#[test]
fn a_client_that_is_forgotten_during_a_checkpoint_leaves_no_row_after_the_next() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    clients.accept(&packet("once", 1)).unwrap();
    clients.begin_checkpoint(2);
    assert!(!clients.step().unwrap());
    clients.forget(&Bytes::from_static(b"once")).unwrap();
    shelf.sync();
    assert!(clients.step().unwrap());
    assert!(
        shelf.rows.lock().contains_key(&key_of(b"once")),
        "as it was"
    );
    file(&mut clients, &shelf, 2);
    assert!(!shelf.rows.lock().contains_key(&key_of(b"once")));
    assert!(clients.entries.is_empty());
}

#[test]
fn a_terminal_whose_session_ends_is_not_written_again_for_that() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    clients.accept(&numbered("a", 1)).unwrap();
    file(&mut clients, &shelf, 2);
    let key = key_of(b"a");
    shelf.rows.lock().insert(key.clone(), b"as it was".to_vec());
    clients.forget(&Bytes::from_static(b"a")).unwrap();
    file(&mut clients, &shelf, 2);
    assert_eq!(shelf.rows.lock()[&key], b"as it was");
}

#[test]
fn g8_a_tenth_of_the_clients_leaves_memory_when_there_are_as_many_as_may_be() {
    let shelf = Arc::new(Shelf::default());
    let mut clients = open(&shelf);
    for name in 1..limits::CLIENTS_MAX {
        clients.accept(&numbered(&name.to_string(), 1)).unwrap();
    }
    file(&mut clients, &shelf, 2);
    clients.evict();
    assert_eq!(clients.entries.len(), limits::CLIENTS_MAX - 1);
    assert!(!clients.is_crowded());
    clients.accept(&numbered("one more", 1)).unwrap();
    assert_eq!(clients.entries.len(), limits::CLIENTS_MAX);
    assert!(clients.is_crowded());
    clients.evict();
    let tenth = limits::CLIENTS_MAX / 10 + 1;
    assert_eq!(clients.entries.len(), limits::CLIENTS_MAX - tenth);
    assert!(!clients.entries.contains_key(&b"1"[..]));
    assert!(clients.entries.contains_key(&b"one more"[..]), "not filed");
    let known = clients.accept(&numbered("1", 1)).unwrap();
    assert_eq!(known, Verdict::Duplicate);
}
