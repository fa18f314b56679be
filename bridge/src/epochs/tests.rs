//! Tables that come and go, over restarts and on disks that fail.

use super::*;
use crate::memory_source::MemorySource;
use risiti_config::Terminals;
use risiti_store::{Identity, NewRecord, State, StoreOptions};

fn table(filter: &str) -> Routes {
    let route = Route {
        filter: filter.into(),
        key: Key::Level(2),
        ..Route::records(&Terminals::default())
    };
    Routes::new(&[route], &Terminals::default())
}

fn state(dir: &std::path::Path) -> Arc<State> {
    let mut options = StoreOptions::new(dir);
    options.ballast_bytes = 0;
    options.free_bytes_min = 0;
    State::open(&options).unwrap().0
}

fn append(source: &MemorySource, count: u64) {
    for _ in 0..count {
        source.append(NewRecord {
            received_ms: 0,
            client_id: "c".into(),
            topic: "a".into(),
            identity: Identity::None,
            properties: bytes::Bytes::new(),
            payload: bytes::Bytes::new(),
        });
    }
}

fn found(shared: &SharedRoutes, position: Position, topic: &str) -> (bool, Option<Position>) {
    let (routes, until) = shared.at(position);
    (routes.find(topic).is_some(), until)
}

#[test]
fn a_reloaded_table_applies_from_its_position_on() {
    let shared = SharedRoutes::new(table("a"));
    shared.replace(table("b"), 10);
    shared.replace(table("c"), 20);
    assert_eq!(found(&shared, 9, "a"), (true, Some(10)));
    assert_eq!(found(&shared, 10, "b"), (true, Some(20)));
    assert_eq!(found(&shared, 19, "a"), (false, Some(20)));
    assert_eq!(found(&shared, 20, "c"), (true, None));
}

#[test]
fn reloads_without_end_stay_bounded() {
    let shared = SharedRoutes::new(Routes::default());
    for position in 1..1000 {
        shared.replace(Routes::default(), position);
    }
    assert_eq!(shared.epochs.read().len(), limits::ROUTE_EPOCHS_MAX);
}

#[test]
fn tables_survive_a_restart_with_another_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let source = Arc::new(MemorySource::new("0123456789abcdef"));
    let restart = |filter| {
        let store = state(dir.path());
        let shared = SharedRoutes::new(table(filter));
        shared.keep_in(store.clone(), source.clone()).unwrap();
        (shared, store)
    };
    let (first, store) = restart("a");
    append(&source, 5);
    first.replace(table("b"), 6);
    append(&source, 5);
    store.close();
    drop((first, store));
    let (second, store) = restart("c");
    assert_eq!(found(&second, 5, "a"), (true, Some(6)));
    assert_eq!(found(&second, 6, "b"), (true, Some(11)));
    assert_eq!(found(&second, 11, "c"), (true, None));
    assert_eq!(*second.newest(), table("c"));
    store.close();
    drop((second, store));
    // The same configuration again adds no table.
    let (third, store) = restart("c");
    assert_eq!(third.epochs.read().len(), 3);
    store.close();
}

#[test]
fn tables_of_records_that_are_gone_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = state(dir.path());
    let source = Arc::new(MemorySource::deleting("0123456789abcdef"));
    let shared = SharedRoutes::new(table("a"));
    shared.keep_in(store.clone(), source.clone()).unwrap();
    append(&source, 5);
    shared.replace(table("b"), 6);
    append(&source, 5);
    source.release("default", 8);
    shared.replace(table("c"), 11);
    assert_eq!(found(&shared, 8, "b"), (true, Some(11)));
    assert_eq!(rows(&*store).unwrap().len(), 2);
}

#[test]
fn a_table_reads_back_whatever_its_routes_are() {
    let mut routes = Vec::new();
    for (key, format) in [
        (Key::Terminal, Format::Risiti),
        (Key::ClientId, Format::Raw),
        (Key::Topic, Format::Raw),
        (Key::Level(7), Format::Raw),
    ] {
        routes.push(Route {
            key,
            format,
            name: key.to_string(),
            ..Route::records(&Terminals::default())
        });
    }
    let table = Routes::new(&routes, &Terminals::default());
    assert_eq!(decode(&encode(&table)).unwrap(), table);
    assert!(decode(b"\x83\x02\x00\x80").is_err());
    assert!(decode(b"").is_err());
}

#[test]
fn a_table_that_was_in_force_for_no_record_is_not_kept() {
    let shared = SharedRoutes::new(table("a"));
    shared.replace(table("b"), 10);
    shared.replace(table("c"), 10);
    assert_eq!(shared.epochs.read().len(), 2);
    assert_eq!(found(&shared, 10, "c"), (true, None));
}

#[test]
fn a_restart_without_a_change_goes_on_with_the_same_table() {
    let dir = tempfile::tempdir().unwrap();
    let source = Arc::new(MemorySource::new("0123456789abcdef"));
    for _ in 0..3 {
        let store = state(dir.path());
        let shared = SharedRoutes::new(table("a"));
        shared.keep_in(store.clone(), source.clone()).unwrap();
        append(&source, 5);
        assert_eq!(shared.epochs.read().len(), 1);
        store.close();
    }
}

#[test]
fn a_table_of_positions_that_a_damaged_journal_gives_again_is_forgotten() {
    for from in [6, 9] {
        let dir = tempfile::tempdir().unwrap();
        let store = state(dir.path());
        let source = Arc::new(MemorySource::new("0123456789abcdef"));
        let shared = SharedRoutes::new(table("a"));
        shared.keep_in(store.clone(), source).unwrap();
        shared.replace(table("b"), from);
        // The same journal without its tail.
        let source = Arc::new(MemorySource::new("0123456789abcdef"));
        append(&source, 5);
        let again = SharedRoutes::new(table("a"));
        again.keep_in(store.clone(), source).unwrap();
        assert_eq!(again.epochs.read().len(), 1, "{from}");
        assert_eq!(found(&again, from, "a"), (true, None));
    }
}

#[test]
fn who_has_a_forwarder_is_known() {
    let shared = SharedRoutes::new(Routes::default());
    assert!(shared.clusters().is_empty());
    shared.serve("a");
    shared.serve("b");
    let expected = ["a".to_owned(), "b".to_owned()].into();
    assert_eq!(*shared.clusters(), expected);
}

#[test]
fn the_topics_of_every_table_in_force_are_known() {
    let to = |topic: &str, cluster: &str| {
        let route = Route {
            topic: topic.into(),
            cluster: cluster.into(),
            ..Route::records(&Terminals::default())
        };
        Routes::new(&[route], &Terminals::default())
    };
    let shared = SharedRoutes::new(to("z", "default"));
    shared.replace(to("y", "default"), 10);
    shared.replace(to("x", "other"), 20);
    assert_eq!(shared.topics("default"), ["y", "z"]);
    assert_eq!(shared.topics("other"), ["x"]);
}

/// A disk that fails when it is told to.
struct Failing {
    state: Arc<State>,
    fails: AtomicBool,
}

impl Failing {
    fn fails(&self) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Closing);
        }
        Ok(())
    }
}

impl DeadLetterStore for Failing {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        DeadLetterStore::get(&*self.state, key)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Page, StoreError> {
        DeadLetterStore::scan(&*self.state, prefix, after, limit)
    }

    fn put(&self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
        self.fails()?;
        DeadLetterStore::put(&*self.state, entries)
    }

    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        self.fails()?;
        DeadLetterStore::delete(&*self.state, key)
    }
}

#[test]
fn a_table_that_could_not_be_saved_is_saved_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Failing {
        state: state(dir.path()),
        fails: AtomicBool::new(false),
    });
    let shared = SharedRoutes::new(table("a"));
    let source = Arc::new(MemorySource::new("0123456789abcdef"));
    shared.keep_in(store.clone(), source).unwrap();
    store.fails.store(true, Ordering::SeqCst);
    shared.replace(table("b"), 6);
    assert_eq!(
        found(&shared, 6, "b"),
        (true, None),
        "in force all the same"
    );
    shared.save_if_needed();
    assert_eq!(rows(&*store).unwrap().len(), 1);
    store.fails.store(false, Ordering::SeqCst);
    shared.save_if_needed();
    assert_eq!(rows(&*store).unwrap().len(), 2);
}
