//! What a gateway tells about itself, as the admin API serves it and the CLI
//! and the demo show it.

use std::sync::atomic::Ordering::Relaxed;

use risiti_config::Config;
use risiti_store::RecordSource;
use serde::{Deserialize, Serialize};

use crate::gateway::View;

/// One look at a running gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `gateway.id`.
    pub gateway: String,
    /// Version of the software.
    pub version: String,
    /// Where the embedded Kafka is reached, if it runs.
    pub embedded_bootstrap: Option<String>,
    /// Open MQTT connections.
    pub connections: u64,
    /// MQTT sessions, connected or not.
    pub sessions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Records taken since the start.
    pub records: u64,
    /// PUBACKs and PUBRECs sent since the start.
    pub acknowledged: u64,
    /// The journal.
    pub journal: JournalStatus,
    /// Every Kafka cluster.
    pub clusters: Vec<ClusterStatus>,
    /// The way back.
    #[serde(default)]
    pub receipts: ReceiptsStatus,
    /// Dead letters kept.
    pub dead_letters: u64,
    /// What a person has to look at; empty if nothing.
    pub alarms: Vec<String>,
    /// What a person should know; nothing is wrong yet.
    pub notes: Vec<String>,
}

/// The journal, in positions and bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Names it for ever.
    pub id: String,
    /// The first position still held.
    pub oldest: u64,
    /// One past the last durable position.
    pub end: u64,
    /// Disk taken by the store, bytes.
    pub used_bytes: u64,
    /// Disk it may take, bytes.
    pub budget_bytes: u64,
    /// Records whose PUBACK is withheld.
    pub withheld: u64,
    /// Resends recognised since the start.
    pub duplicates: u64,
    /// Acknowledged records known to be lost to damage.
    pub damaged: u64,
}

/// Receipts on their way to their terminals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsStatus {
    /// What the consumer is doing; `Off` if it is switched off.
    pub state: String,
    /// Whether every partition was read to its end since the consumer connected.
    pub caught_up: bool,
    /// Receipts that wait for their terminals.
    pub waiting: u64,
    /// Those of them whose terminals never were here.
    pub waiting_unknown: u64,
    /// Terminals known.
    pub terminals: u64,
    /// Receipts stored since the start.
    pub stored: u64,
    /// Receipts whose delivery is in the journal, since the start.
    pub delivered: u64,
    /// The last error, until things go well again.
    pub last_error: Option<String>,
}

/// The way to one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its name in the configuration.
    pub name: String,
    /// What its forwarder is doing.
    pub state: String,
    /// The next position to forward.
    pub next: u64,
    /// Durable records that are not in this cluster yet.
    pub backlog: u64,
    /// Records forwarded since the start.
    pub forwarded: u64,
    /// The last error, until the next commit.
    pub last_error: Option<String>,
}

/// How a line begins that tells of a way for others to read or change payments.
pub const INSECURE: &str = "INSECURE";

/// What a configuration has of such lines. Compares each route with each: for a start
/// and a reload.
#[must_use]
pub fn insecure(config: &Config) -> Vec<String> {
    let mut lines = config.warnings();
    lines.retain(|warning| warning.starts_with(INSECURE));
    lines
}

impl Status {
    /// Looks.
    pub fn of(view: &View) -> Self {
        let health = view.journal.health();
        let state = view.state.health();
        let metrics = &view.broker.metrics;
        let end = view.journal.end();
        let mut alarms: Vec<String> = Vec::new();
        let found_at_open = view.open_reports.iter().flat_map(|r| &r.alarms);
        for alarm in found_at_open.chain(&health.alarms).chain(&state.damage) {
            // What the journal met at open is in both.
            let text = alarm.to_string();
            if !alarms.contains(&text) {
                alarms.push(text);
            }
        }
        if let Some(why) = &state.stalled {
            alarms.push(format!("session state can't be written: {why}"));
        }
        alarms.extend(view.broker.access().alarm());
        let with_tls = view.listeners.iter().filter_map(|listener| listener.tls());
        alarms.extend(with_tls.filter_map(|tls| tls.alarm()));
        let mut notes = view.insecure.lock().clone();
        let clusters = view
            .forwarders
            .lock()
            .iter()
            .map(|(name, f)| {
                let status = f.status();
                alarms.extend(status.alarm.clone());
                notes.extend(status.note.clone());
                ClusterStatus {
                    name: name.clone(),
                    state: format!("{:?}", status.state),
                    next: status.next,
                    backlog: end.saturating_sub(status.next.max(view.journal.oldest())),
                    forwarded: f.metrics().forwarded.load(Relaxed),
                    last_error: status.last_error,
                }
            })
            .collect();
        let receipts = receipts(view, &mut alarms, &mut notes);
        Self {
            gateway: view.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            embedded_bootstrap: view.embedded_bootstrap.clone(),
            connections: view.broker.connections() as u64,
            sessions: view.broker.sessions() as u64,
            retained: view.broker.retained() as u64,
            records: metrics.records.load(Relaxed),
            acknowledged: metrics.acknowledged.load(Relaxed),
            journal: JournalStatus {
                id: view.journal.journal_id().to_owned(),
                oldest: view.journal.oldest(),
                end,
                used_bytes: health.used_bytes,
                budget_bytes: health.budget_bytes,
                withheld: health.withheld.as_ref().map_or(0, |w| w.records),
                duplicates: health.duplicates,
                damaged: health.damaged_positions,
            },
            clusters,
            receipts,
            dead_letters: view.dead_letters.count(),
            alarms,
            notes,
        }
    }
}

fn receipts(view: &View, alarms: &mut Vec<String>, notes: &mut Vec<String>) -> ReceiptsStatus {
    let metrics = view.outbox.metrics();
    let mut shown = ReceiptsStatus {
        state: "Off".into(),
        waiting: view.outbox.waiting(),
        waiting_unknown: view.outbox.waiting_unknown(),
        terminals: view.outbox.terminals() as u64,
        stored: metrics.stored.load(Relaxed),
        delivered: metrics.delivered.load(Relaxed),
        ..ReceiptsStatus::default()
    };
    if let Some(handle) = &view.receipts {
        let status = handle.status();
        alarms.extend(status.alarms);
        notes.extend(status.notes);
        shown.state = format!("{:?}", status.state);
        shown.caught_up = status.caught_up;
        shown.last_error = status.last_error;
    }
    shown
}
