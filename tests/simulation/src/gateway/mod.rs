//! One gateway process, built from the product's own cores.
//!
//! Promises: the decisions are the product's: [`risiti_mqtt::Connection`] for each
//! connection, sessions and what they are owed (`session`, `receipts::queue`), which
//! PUBLISH is a record (`records`), the journal's core, the whole outbox, the
//! consumer's course. What is written here is what threads, locks and sockets do in
//! a gateway: who calls whom, and when. Never: an answer that waits for nothing
//! where the product waits for the disk.
//!
//! Left out: ordinary subscribers, retained messages and wills. Terminals use none.

mod connection;
mod consumer;
mod journal;
#[cfg(test)]
mod journal_tests;
mod session;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use risiti_bridge::receipts::ReceiptsOptions;
use risiti_bridge::{Outbox, OutboxSetup, Routes, TraceLog};
use risiti_config::{Bootstrap, Config, DEFAULT_CLUSTER};
use risiti_gateway::receipts::ReceiptsTopics;
use risiti_store::limits;

use crate::contract::{Controls, EPOCH_MS, GatewayEvent, Journalish, Ms, Onlooker, Out};
use crate::disk::{Disk, SimRows, receipt_of};
use crate::kafka::topics;

use connection::Conn;
use consumer::Consumer;
use journal::{SimJournal, Store};
use session::Sessions;

/// Receipts that may wait in all: a bound that runs reach.
const RECEIPTS_MAX: u64 = 64;

/// How often sessions are looked at for their expiry, ms: the product's sweep.
const SWEEP_MS: Ms = 5_000;

/// What every gateway is told at its start.
struct Settings {
    config: Config,
    routes: Routes,
    topics: ReceiptsTopics,
}

/// The usual configuration.
fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let config = Config::new(Bootstrap::Embedded);
        Settings {
            routes: Routes::of(&config),
            topics: ReceiptsTopics::new(&config.terminals.receipts),
            config,
        }
    })
}

/// The clocks of a gateway.
struct Clock {
    /// When it started.
    start: Ms,
    /// What its wall clock said then.
    start_unix_ms: u64,
    /// How wrong the wall clock is.
    error_ms: i64,
    /// The wall clock, for whoever asks without being told.
    unix_ms: Arc<AtomicU64>,
}

impl Clock {
    fn unix_ms(&self) -> u64 {
        self.unix_ms.load(Ordering::Relaxed)
    }

    /// As [`risiti_gateway::clock::Clock::steady_ms`].
    fn steady_ms(&self, now: Ms) -> u64 {
        self.start_unix_ms + (now - self.start)
    }

    fn set(&self, now: Ms) {
        let unix_ms = (EPOCH_MS + now).saturating_add_signed(self.error_ms);
        self.unix_ms.store(unix_ms, Ordering::Relaxed);
    }
}

/// When rows are written.
#[derive(Default)]
struct RowsBusy {
    due: Option<Ms>,
    retry_ms: u64,
}

/// See the head of the file.
pub struct Gateway {
    store: Store,
    rows: SimRows,
    rows_busy: RowsBusy,
    outbox: Arc<Outbox>,
    consumer: Consumer,
    sessions: Sessions,
    conns: BTreeMap<u64, Conn>,
    clock: Clock,
    controls: Controls,
    events: Vec<GatewayEvent>,
    sweep_ms: Ms,
    last_step: Ms,
}

impl Gateway {
    /// Starts on what a disk holds.
    ///
    /// # Panics
    /// The model's rows can always be read.
    #[must_use]
    pub fn start(mut disk: Disk, id: &str, now: Ms, controls: Controls) -> Self {
        let table = std::mem::take(&mut disk.table);
        let damaged = std::mem::take(&mut disk.damaged);
        let rows = SimRows::new(table, damaged);
        rows.set_full(disk.is_full());
        let clock = Clock {
            start: now,
            start_unix_ms: EPOCH_MS + now,
            error_ms: 0,
            unix_ms: Arc::default(),
        };
        clock.set(now);
        let journal = SimJournal::open(&mut disk, &rows, now, controls);
        let settings = settings();
        let unix_ms = Arc::clone(&clock.unix_ms);
        let outbox = Outbox::open_idle(OutboxSetup {
            state: Arc::new(rows.clone()),
            journal: Arc::new(journal.intake().clone()),
            gateway_id: id.to_owned(),
            terminals: settings.config.terminals.clone(),
            receipts_max: RECEIPTS_MAX,
            unknown_receipts_max: settings.config.receipts.unknown_receipts_max,
            receipts_per_terminal_max: settings.config.receipts.receipts_per_terminal_max,
            now: Arc::new(move || unix_ms.load(Ordering::Relaxed)),
            trace: TraceLog::disabled(),
            options: ReceiptsOptions {
                offset_before_row: controls.offset_before_row,
                fault: None,
            },
        })
        .expect("rows can be read");
        let sessions = Sessions::recover(&rows, &outbox, &settings.topics, clock.steady_ms(now));
        outbox.listen(sessions.listener());
        let consumer = Consumer::new(journal.id());
        Self {
            store: Store { journal, disk },
            rows,
            rows_busy: RowsBusy::default(),
            outbox,
            consumer,
            sessions,
            conns: BTreeMap::new(),
            clock,
            controls,
            events: Vec::new(),
            sweep_ms: now + SWEEP_MS,
            last_step: now,
        }
    }

    /// The process dies; the power may still be there ([`Disk::cut`]).
    #[must_use]
    pub fn kill(self) -> Disk {
        // What waits there holds whoever waits for it, who hold it.
        self.store.journal.intake().clear();
        let mut disk = self.store.disk;
        (disk.table, disk.damaged) = self.rows.die(&mut disk.rng);
        disk
    }

    /// Its disk, to do it harm while it runs.
    pub fn disk(&mut self) -> &mut Disk {
        &mut self.store.disk
    }

    /// Its journal, as its forwarder sees it.
    pub fn journal(&mut self) -> &mut dyn Journalish {
        &mut self.store
    }

    /// Whether the journal's mark is on disk and covers all.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.store.journal.is_marked()
    }

    /// Its wall clock is wrong by so much more.
    pub fn jump_wall_clock(&mut self, by_ms: i64) {
        self.clock.error_ms += by_ms;
        self.clock.set(self.last_step);
    }

    /// A client connects.
    pub fn open(&mut self, conn: u64, now: Ms) {
        self.conns.insert(conn, Conn::new(now));
    }

    /// Bytes came.
    pub fn received(&mut self, conn: u64, bytes: &[u8], _now: Ms) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.received(bytes);
        }
    }

    /// A connection is gone.
    pub fn closed(&mut self, conn: u64, _now: Ms) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.lost();
        }
    }

    /// What an onlooker saw since the last call.
    pub fn take_events(&mut self) -> Vec<GatewayEvent> {
        std::mem::take(&mut self.events)
    }

    /// When it has something to do by itself.
    #[must_use]
    pub fn due_ms(&self) -> Option<Ms> {
        let conns = self.conns.values().filter_map(Conn::due_ms).min();
        let sweep = self.sessions.is_sweep_due().then_some(self.sweep_ms);
        let expiry = self
            .sessions
            .expiry_ms(self.clock.steady_ms(self.last_step));
        let expiry = expiry.map(|in_ms| (self.last_step + in_ms).max(self.sweep_ms));
        let journal = self.store.journal.due_ms();
        let rows = self.rows_busy.due;
        [conns, sweep, expiry, journal, rows]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does all that can be done by now.
    pub fn step(&mut self, now: Ms, out: &mut Vec<(u64, Out)>) {
        self.last_step = now;
        self.clock.set(now);
        self.rows.set_full(self.store.disk.is_full());
        loop {
            let mut moved = self.store.journal.advance(&mut self.store.disk, now);
            moved |= self.advance_rows(now);
            while matches!(self.outbox.let_out(), Ok(true)) {
                moved = true;
            }
            moved |= self.advance_connections(now, out);
            if now >= self.sweep_ms {
                self.sweep_ms = now + SWEEP_MS;
                let steady_ms = self.clock.steady_ms(now);
                let forgotten = self.sessions.sweep(steady_ms, &self.rows);
                for client_id in forgotten {
                    self.store.journal.intake().forget(client_id);
                }
                moved = true;
            }
            if !moved {
                break;
            }
        }
        self.tell_news();
    }

    /// Takes what there is of receipts; when to be called again, if not for a change
    /// in the cluster.
    pub fn consume(&mut self, now: Ms, kafka: &mut crate::kafka::Kafka) -> Option<Ms> {
        self.last_step = now;
        self.clock.set(now);
        let due = self
            .consumer
            .step(now, kafka, &self.outbox, self.clock.unix_ms());
        if self.rows.has_work() && self.rows_busy.due.is_none() {
            self.begin_rows(now);
        }
        due
    }

    fn begin_rows(&mut self, now: Ms) {
        self.rows.begin();
        self.rows_busy = RowsBusy {
            due: Some(now + self.store.disk.sync_ms()),
            retry_ms: limits::RETRY_MS_MIN,
        };
    }

    fn advance_rows(&mut self, now: Ms) -> bool {
        let Some(due) = self.rows_busy.due else {
            if !self.rows.has_work() {
                return false;
            }
            self.begin_rows(now);
            return true;
        };
        if now < due {
            return false;
        }
        let disk = &mut self.store.disk;
        if disk.room().and_then(|()| disk.sync()).is_err() {
            // The contents move to a fresh database once that works.
            let retry_ms = self.rows_busy.retry_ms;
            self.rows_busy.due = Some(now + retry_ms);
            self.rows_busy.retry_ms = (retry_ms * 2).min(limits::RETRY_MS_MAX);
            return true;
        }
        self.rows_busy.due = None;
        let (put, sinks) = self.rows.end();
        for (key, value) in &put {
            if let Some((terminal, receipt)) = receipt_of(key, value) {
                self.events.push(GatewayEvent::Stored {
                    terminal,
                    sequence: receipt.sequence,
                    partition: receipt.partition,
                    offset: receipt.offset,
                });
            }
        }
        for (sink, token) in sinks {
            sink.committed(token, Ok(()));
        }
        true
    }

    fn advance_connections(&mut self, now: Ms, out: &mut Vec<(u64, Out)>) -> bool {
        let mut moved = false;
        let mut over = Vec::new();
        for (id, conn) in &mut self.conns {
            let mut around = connection::Around {
                now,
                clock: &self.clock,
                rows: &self.rows,
                rng: &mut self.store.disk.rng,
                intake: self.store.journal.intake(),
                outbox: &self.outbox,
                sessions: &self.sessions,
                settings: settings(),
                controls: self.controls,
                events: &mut self.events,
            };
            moved |= conn.work(&mut around);
            if let Some(bytes) = conn.take_bytes(&mut around) {
                out.push((*id, Out::Bytes(bytes)));
                moved = true;
            }
            if conn.end(&mut around) {
                if !conn.is_lost() {
                    out.push((*id, Out::Close));
                }
                over.push(*id);
                moved = true;
            }
        }
        for id in over {
            self.conns.remove(&id);
        }
        moved
    }

    fn tell_news(&mut self) {
        let news = self.store.journal.take_news();
        for (terminal, sequence) in news.withheld {
            self.events
                .push(GatewayEvent::Withheld { terminal, sequence });
        }
        let lost = news.damaged + self.rows.take_lost();
        if lost > 0 && !self.controls.damage_in_silence {
            self.events.push(GatewayEvent::Damaged { lost });
        }
    }
}

impl Onlooker for Gateway {
    fn holds_record(&self, terminal: &str, sequence: u64) -> bool {
        self.store.disk.holds_record(terminal, sequence)
    }

    fn holds_receipt(&self, terminal: &str, sequence: u64) -> bool {
        let prefix = [b"or", terminal.as_bytes(), &[0]].concat();
        self.rows.with_durable(|table| {
            table
                .range(prefix.clone()..)
                .take_while(|(key, _)| key.starts_with(&prefix))
                .filter_map(|(key, value)| receipt_of(key, value))
                .any(|(_, receipt)| receipt.sequence == sequence)
        })
    }

    fn receipts_next(&self, partition: i32) -> Option<i64> {
        let key = [
            b"ok",
            DEFAULT_CLUSTER.as_bytes(),
            &[0],
            topics::RECEIPTS.as_bytes(),
            &[0],
            &partition.to_be_bytes()[..],
        ]
        .concat();
        self.rows.with_durable(|table| {
            let value = table.get(&key)?;
            Some(i64::from_be_bytes(value.get(1..9)?.try_into().ok()?))
        })
    }

    fn bounds(&self) -> Result<(), String> {
        let within = |what: &str, is: u64, most: u64| match is <= most {
            true => Ok(()),
            false => Err(format!("{what}: {is}, more than {most}")),
        };
        let settings = &settings().config.receipts;
        // One commit may be taken when there was room for one receipt only.
        let polls = (consumer::FETCH_MAX * (consumer::COMMITS_UNDER_WAY + 1)) as u64;
        within("receipts", self.outbox.waiting(), RECEIPTS_MAX + polls)?;
        within(
            "receipts of strangers",
            self.outbox.waiting_unknown(),
            settings.unknown_receipts_max,
        )?;
        within(
            "bytes of rows that wait",
            self.rows.waiting_bytes() as u64,
            limits::STATE_QUEUE_BYTES_MAX as u64,
        )?;
        for conn in self.conns.values() {
            conn.bounds()?;
        }
        Ok(())
    }
}
