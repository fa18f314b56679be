//! The metrics page: one look at every counter, in OpenMetrics text.
//!
//! Promises: nothing is counted twice or kept here; the page is made from the
//! parts' own numbers when it is asked for. Names carry their unit as
//! Prometheus wants it (`_total`, `_seconds`, `_bytes`).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use risiti_bridge::trace::Counts;
use risiti_store::RecordSource;

use crate::gateway::View;
use crate::status::Status;

/// The page.
///
/// # Errors
/// Never in practice: writing text into memory.
pub fn page(view: &View) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("risiti");
    registry.register_collector(Box::new(Page(view.clone())));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

struct Page(View);

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

/// Writes metrics of one look.
struct Writer<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Writer<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let gauge = ConstGauge::new(value as i64);
        let encoder = self
            .0
            .encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(encoder)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let counter = ConstCounter::new(value);
        let encoder = self
            .0
            .encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(encoder)
    }

    /// One gauge or counter with a value for each cluster.
    fn by_cluster(
        &mut self,
        name: &str,
        help: &str,
        counter: bool,
        values: &[(String, u64)],
    ) -> std::fmt::Result {
        let kind = if counter {
            ConstCounter::new(0u64).metric_type()
        } else {
            ConstGauge::new(0i64).metric_type()
        };
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (cluster, value) in values {
            let labels = [("cluster", cluster.as_str())];
            let family = encoder.encode_family(&labels)?;
            if counter {
                ConstCounter::new(*value).encode(family)?;
            } else {
                ConstGauge::new(*value as i64).encode(family)?;
            }
        }
        Ok(())
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let view = &self.0;
        let mut out = Writer(&mut encoder);
        mqtt(view, &mut out)?;
        store(view, &mut out)?;
        kafka(view, &mut out)?;
        receipts(view, &mut out)
    }
}

fn mqtt(view: &View, out: &mut Writer<'_, '_>) -> std::fmt::Result {
    let broker = &view.broker;
    let m = &broker.metrics;
    out.gauge(
        "mqtt_connections",
        "Open MQTT connections",
        broker.connections() as u64,
    )?;
    out.gauge(
        "mqtt_sessions",
        "MQTT sessions, connected or not",
        broker.sessions() as u64,
    )?;
    out.gauge(
        "mqtt_retained_messages",
        "Retained messages",
        broker.retained() as u64,
    )?;
    out.gauge(
        "mqtt_filters",
        "Different topic filters subscribed to",
        broker.filters() as u64,
    )?;
    out.gauge(
        "mqtt_router_links",
        "Live subscribers behind rumqttd's router",
        broker.fanout().links(),
    )?;
    let count = |c: &AtomicU64| c.load(Relaxed);
    for (name, help, value) in [
        (
            "mqtt_records",
            "PUBLISH packets taken for Kafka",
            count(&m.records),
        ),
        (
            "mqtt_messages",
            "PUBLISH packets taken for subscribers only",
            count(&m.messages),
        ),
        (
            "mqtt_acknowledged",
            "PUBACK and PUBREC packets sent",
            count(&m.acknowledged),
        ),
        ("mqtt_refused", "PUBLISH packets refused", count(&m.refused)),
        (
            "mqtt_queue_full",
            "Deliveries not queued because a session's queue was full",
            count(&m.queue_full),
        ),
        (
            "mqtt_expired",
            "Deliveries dropped because they had expired",
            count(&m.expired),
        ),
        (
            "mqtt_retained_refused",
            "Retained messages not kept because of their bounds",
            count(&m.retained_refused),
        ),
        (
            "mqtt_receipts_sent",
            "Receipts written to connections, each time that they were",
            count(&m.receipts_sent),
        ),
        (
            "mqtt_receipts_sent_again",
            "Those of them with DUP",
            count(&m.receipts_sent_again),
        ),
        (
            "mqtt_receipts_acknowledged",
            "PUBACKs for receipts",
            count(&m.receipts_acknowledged),
        ),
        (
            "mqtt_receipts_refused",
            "PUBACKs with an error: the receipt is offered again",
            count(&m.receipts_refused),
        ),
        (
            "mqtt_receipts_too_large",
            "Receipts larger than the packets that their terminal takes",
            count(&m.receipts_too_large),
        ),
        (
            "mqtt_receipts_copied",
            "Copies of a last receipt that was asked for again",
            count(&m.receipts_copied),
        ),
        (
            "mqtt_receipts_foreign",
            "Subscriptions to another's receipts, refused",
            count(&m.receipts_foreign),
        ),
        ("mqtt_wills", "Wills published", count(&m.wills)),
        (
            "mqtt_connections_opened",
            "Connections opened",
            count(&m.connections_opened),
        ),
        (
            "mqtt_peer_faults",
            "Connections closed because the client broke the standard or a bound",
            count(&m.peer_faults),
        ),
        (
            "mqtt_taken_over",
            "Connections taken over by another of the same client",
            count(&m.taken_over),
        ),
        (
            "mqtt_logins_refused",
            "CONNECTs refused for who they said they were",
            count(&broker.access().metrics.logins),
        ),
        (
            "mqtt_logins_too_soon",
            "CONNECTs refused because they came too soon after failed ones",
            count(&broker.access().metrics.too_soon),
        ),
        (
            "mqtt_publishes_not_allowed",
            "PUBLISH packets and wills that no rule allows",
            count(&broker.access().metrics.publishes),
        ),
        (
            "mqtt_subscriptions_not_allowed",
            "Subscriptions that no rule allows",
            count(&broker.access().metrics.subscriptions),
        ),
        (
            "mqtt_access_withdrawn",
            "Connections closed, subscriptions ended and deliveries dropped because their rights ended",
            count(&broker.access().metrics.withdrawn),
        ),
        (
            "mqtt_connects_too_fast",
            "Connections refused because their address or identity opens them too fast",
            count(&broker.access().metrics.connects_too_fast),
        ),
        (
            "mqtt_publishes_held",
            "PUBLISH packets after which their client was left unread because it sent too fast",
            count(&broker.access().metrics.held),
        ),
        (
            "mqtt_router_skipped",
            "Messages that slow live subscribers skipped",
            broker.fanout().skipped(),
        ),
        (
            "mqtt_router_rebuilt",
            "Times that rumqttd's router died and was rebuilt",
            broker.fanout().rebuilt(),
        ),
    ] {
        out.counter(name, help, value)?;
    }
    Ok(())
}

fn store(view: &View, out: &mut Writer<'_, '_>) -> std::fmt::Result {
    let health = view.journal.health();
    let state = view.state.health();
    let trace = |pick: fn(&Counts) -> &AtomicU64| {
        let counts = view.trace.counts();
        counts.map_or(0, |counts| pick(counts).load(Relaxed))
    };
    for (name, help, value) in [
        (
            "journal_end_position",
            "One past the last durable position",
            view.journal.end(),
        ),
        (
            "journal_oldest_position",
            "The first position still held",
            view.journal.oldest(),
        ),
        (
            "store_used_bytes",
            "Disk taken by the store",
            health.used_bytes,
        ),
        (
            "store_budget_bytes",
            "Disk that the store may take",
            health.budget_bytes,
        ),
        (
            "journal_withheld_records",
            "Records whose PUBACK is withheld",
            health.withheld.as_ref().map_or(0, |w| w.records),
        ),
        (
            "store_alarms",
            "Alarms in force; see the log and `risiti status`",
            Status::of(view).alarms.len() as u64,
        ),
        (
            "state_queued_batches",
            "State batches that wait for their sync",
            state.queued_batches,
        ),
        (
            "state_stalled",
            "1 while session state can't be written",
            u64::from(state.stalled.is_some()),
        ),
        (
            "dead_letters",
            "Records that Kafka refused, kept for a person",
            view.dead_letters.count(),
        ),
    ] {
        out.gauge(name, help, value)?;
    }
    for (name, help, value) in [
        (
            "journal_duplicates",
            "Resends recognised",
            health.duplicates,
        ),
        (
            "journal_damaged_positions",
            "Acknowledged records known to be lost to damage",
            health.damaged_positions,
        ),
        (
            "state_damaged_values",
            "Damaged entries of the state database set aside",
            state.damaged_values,
        ),
        (
            "state_compactions",
            "Times that the state database was written anew because its file had grown",
            state.compactions,
        ),
        (
            "store_write_failures",
            "Writes and syncs of the journal that failed and were tried again",
            health.write_failures,
        ),
        (
            "trace_notes",
            "Steps of payments recorded",
            trace(|counts| &counts.notes),
        ),
        (
            "trace_dropped",
            "Steps not recorded because they came faster than the disk takes them",
            trace(|counts| &counts.dropped),
        ),
        (
            "trace_write_failures",
            "Writes of recorded steps that failed",
            trace(|counts| &counts.write_failures),
        ),
        ("journal_syncs", "Group commits", health.syncs),
        ("state_syncs", "Syncs of the state database", state.syncs),
    ] {
        out.counter(name, help, value)?;
    }
    Ok(())
}

fn receipts(view: &View, out: &mut Writer<'_, '_>) -> std::fmt::Result {
    let outbox = &view.outbox;
    let m = outbox.metrics();
    for (name, help, value) in [
        (
            "receipts_waiting",
            "Receipts that wait for their terminals",
            outbox.waiting(),
        ),
        (
            "receipts_waiting_unknown",
            "Receipts that wait for terminals that never were here",
            outbox.waiting_unknown(),
        ),
        (
            "receipts_terminals",
            "Terminals that the outbox knows",
            outbox.terminals() as u64,
        ),
        (
            "receipts_connected",
            "1 while the cluster of the receipts answers",
            u64::from(m.connected.load(Relaxed)),
        ),
    ] {
        out.gauge(name, help, value)?;
    }
    for (name, help, counter) in [
        ("receipts_stored", "Receipts stored", &m.stored),
        (
            "receipts_delivered",
            "Receipts whose delivery is in the journal",
            &m.delivered,
        ),
        (
            "receipts_delivered_elsewhere",
            "Receipts dropped because another gateway delivered them",
            &m.delivered_elsewhere,
        ),
        (
            "receipts_expired",
            "Receipts that expired before they were delivered",
            &m.expired,
        ),
        (
            "receipts_unknown",
            "Receipts not kept: too many wait for terminals that never were here",
            &m.unknown,
        ),
        (
            "receipts_terminal_full",
            "Receipts not kept: too many wait for their terminal",
            &m.terminal_full,
        ),
        (
            "receipts_dead",
            "Messages of the receipts' topic that are no receipts",
            &m.dead,
        ),
        (
            "receipts_gone",
            "Offsets that Kafka deleted before they were read",
            &m.gone,
        ),
        (
            "receipts_acknowledgements_refused",
            "PUBACKs for receipts not taken because too many waited for the disk",
            &m.acknowledgements_refused,
        ),
    ] {
        out.counter(name, help, counter.load(Relaxed))?;
    }
    Ok(())
}

fn kafka(view: &View, out: &mut Writer<'_, '_>) -> std::fmt::Result {
    let end = view.journal.end();
    let forwarders = view.forwarders.lock();
    let each = |f: &dyn Fn(&risiti_bridge::ForwarderHandle) -> u64| -> Vec<(String, u64)> {
        forwarders
            .iter()
            .map(|(name, handle)| (name.clone(), f(handle)))
            .collect()
    };
    out.by_cluster(
        "kafka_connected",
        "1 while the cluster answers",
        false,
        &each(&|f| u64::from(f.metrics().connected.load(Relaxed))),
    )?;
    out.by_cluster(
        "kafka_backlog_records",
        "Durable records that are not in this cluster yet",
        false,
        &each(&|f| end.saturating_sub(f.status().next.max(view.journal.oldest()))),
    )?;
    type Pick = fn(&risiti_bridge::ForwarderMetrics) -> &AtomicU64;
    let counters: [(&str, &str, Pick); 6] = [
        ("kafka_forwarded", "Records committed", |m| &m.forwarded),
        ("kafka_forwarded_bytes", "Their payload bytes", |m| {
            &m.forwarded_bytes
        }),
        ("kafka_batches", "Batches committed", |m| &m.batches),
        (
            "kafka_aborts",
            "Transactions aborted and tried again",
            |m| &m.aborts,
        ),
        ("kafka_fenced", "Times fenced by another producer", |m| {
            &m.fenced
        }),
        ("kafka_dead", "Records that became dead letters", |m| {
            &m.dead
        }),
    ];
    for (name, help, pick) in counters {
        out.by_cluster(
            name,
            help,
            true,
            &each(&|f| pick(f.metrics()).load(Relaxed)),
        )?;
    }
    Ok(())
}
