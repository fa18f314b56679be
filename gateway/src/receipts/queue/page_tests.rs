//! What a page of the outbox says, and what it leaves unsaid.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use risiti_bridge::TraceLog;
use risiti_bridge::receipts::{NextOffset, OutboxSetup, Poll, ReceiptsOptions, Received};
use risiti_store::{
    AckSink, Alarm, Batch, CommitSink, KeyValue, NewRecord, Outcome, RecordSink, Rows,
};

use super::*;

type Act = Box<dyn FnOnce() + Send>;

/// Rows in memory; what was submitted is durable once [`Shelf::sync`] says so.
#[derive(Default)]
struct Shelf {
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    unsynced: Mutex<Vec<(Arc<dyn CommitSink>, u64)>>,
    /// Happens once, behind the next scan.
    behind_a_scan: Mutex<Option<Act>>,
}

impl Shelf {
    fn sync(&self) -> bool {
        let sinks = std::mem::take(&mut *self.unsynced.lock());
        for (sink, token) in &sinks {
            sink.committed(*token, Ok(()));
        }
        !sinks.is_empty()
    }
}

impl Rows for Shelf {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.lock().get(key).cloned())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let found = self
            .rows
            .lock()
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|a| &key[..] > a))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let act = self.behind_a_scan.lock().take();
        if let Some(act) = act {
            act();
        }
        Ok(found)
    }

    fn submit(
        &self,
        batch: Batch,
        sink: Option<(Arc<dyn CommitSink>, u64)>,
    ) -> Result<(), StoreError> {
        self.commit(batch)?;
        self.unsynced.lock().extend(sink);
        Ok(())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = self.rows.lock();
        for (key, value) in batch.operations() {
            match value {
                Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                None => rows.remove(key),
            };
        }
        Ok(())
    }

    fn receipts_refused(&self) -> Option<Alarm> {
        None
    }
}

/// Has every delivery event already.
struct Journal;

impl RecordSink for Journal {
    fn append(&self, _record: NewRecord, sink: &Arc<dyn AckSink>, token: u64) {
        sink.settled(token, Outcome::Duplicate);
    }
}

struct House {
    shelf: Arc<Shelf>,
    outbox: Arc<Outbox>,
}

const NOW_MS: u64 = 1_700_000_000_000;
const EXPIRES_MS: u64 = NOW_MS + 1_000;

impl House {
    /// With so many receipts for terminal 17.
    fn new(receipts: u64) -> Self {
        let shelf = Arc::<Shelf>::default();
        let outbox = Outbox::open_idle(OutboxSetup {
            state: Arc::clone(&shelf) as _,
            journal: Arc::new(Journal),
            gateway_id: "gw-1".into(),
            terminals: risiti_config::Terminals::default(),
            receipts_max: u64::MAX,
            unknown_receipts_max: u64::MAX,
            receipts_per_terminal_max: u32::MAX,
            now: Arc::new(|| NOW_MS),
            trace: TraceLog::disabled(),
            options: ReceiptsOptions::default(),
        })
        .unwrap();
        for sequence in 1..=receipts {
            store(&shelf, &outbox, sequence);
        }
        Self { shelf, outbox }
    }

    fn acknowledge(&self, number: ReceiptNumber) {
        self.outbox.acknowledged("17", number, false);
        while self.outbox.let_out().unwrap() || self.shelf.sync() {}
    }

    fn read(&self, page: Page) -> PageRead {
        page.read(&self.outbox, "17", NOW_MS).unwrap()
    }
}

fn store(shelf: &Shelf, outbox: &Outbox, sequence: u64) {
    let receipt = Received {
        terminal: "17".into(),
        sequence,
        status: 0,
        settled_ms: NOW_MS,
        expires_ms: Some(EXPIRES_MS),
        partition: 0,
        offset: sequence as i64,
        payload: Bytes::from_static(b"receipt"),
    };
    let poll = Poll {
        receipts: vec![receipt],
        offsets: vec![NextOffset {
            topic: "receipts".into(),
            partition: 0,
            next: sequence as i64 + 1,
        }],
        ..Poll::default()
    };
    outbox.submit("default", &poll).unwrap();
    shelf.sync();
}

fn page(after: ReceiptNumber) -> Page {
    Page {
        after,
        wants_end: false,
        wants_last: false,
    }
}

fn numbers(read: &PageRead) -> Vec<ReceiptNumber> {
    read.receipts.iter().map(|r| r.number).collect()
}

#[test]
fn a_page_is_complete_if_it_is_not_full() {
    let full = limits::RECEIPTS_PER_PAGE as u64;
    let house = House::new(full);
    let read = house.read(page(0));
    assert_eq!(numbers(&read), (1..=full).collect::<Vec<_>>());
    assert!(!read.complete, "there may be more");
    let read = house.read(page(1));
    assert_eq!(numbers(&read), (2..=full).collect::<Vec<_>>());
    assert!(read.complete);
    assert!(house.read(page(full)).complete);
}

#[test]
fn the_end_is_told_to_who_wants_it() {
    let house = House::new(2);
    for wants_last in [false, true] {
        let wanted = Page {
            wants_end: true,
            wants_last,
            ..page(0)
        };
        assert_eq!(house.read(wanted).end, Some(3));
        let unwanted = Page {
            wants_end: false,
            ..wanted
        };
        assert_eq!(house.read(unwanted).end, None);
    }
}

#[test]
fn the_last_receipt_is_told_to_who_wants_it_if_none_waits_and_it_has_not_expired() {
    let house = House::new(2);
    let wanted = Page {
        wants_last: true,
        ..page(0)
    };
    let last = |page: Page, now_ms| {
        let read = page.read(&house.outbox, "17", now_ms).unwrap();
        read.last.map(|last| last.number)
    };
    house.acknowledge(1);
    assert_eq!(numbers(&house.read(wanted)), [2]);
    assert_eq!(last(wanted, NOW_MS), None, "one waits");
    house.acknowledge(2);
    assert_eq!(numbers(&house.read(wanted)), [0; 0]);
    assert_eq!(last(wanted, NOW_MS), Some(2));
    assert_eq!(last(page(0), NOW_MS), None, "unwanted");
    assert_eq!(last(wanted, EXPIRES_MS - 1), Some(2));
    assert_eq!(last(wanted, EXPIRES_MS), None);
}

/// It is on its way as any other, not a copy.
#[test]
fn what_comes_while_a_page_is_read_is_not_its_last_receipt() {
    let house = House::new(1);
    house.acknowledge(1);
    let (shelf, outbox) = (Arc::clone(&house.shelf), Arc::clone(&house.outbox));
    let comes: Act = Box::new(move || store(&shelf, &outbox, 2));
    *house.shelf.behind_a_scan.lock() = Some(comes);
    let wanted = Page {
        wants_last: true,
        ..page(0)
    };
    let read = house.read(wanted);
    assert!(house.shelf.behind_a_scan.lock().is_none(), "it came");
    assert_eq!(numbers(&read), [0; 0]);
    assert_eq!(read.last, None);
    assert_eq!(numbers(&house.read(wanted)), [2]);
}
