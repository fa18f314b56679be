//! What settlement shows over HTTP: `/healthz` and `/metrics`.
//!
//! Promises: made from settlement's own counters when it is asked for. Never: a
//! listener that the configuration did not ask for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use risiti_bridge::settlement::SettlementMetrics;
use tokio::net::TcpListener;

use super::Failure;

/// Listens and serves in the background; returns the address.
pub async fn listen(
    listen: SocketAddr,
    metrics: Arc<SettlementMetrics>,
) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        format!("settlement.listen {listen}: {error}; choose another port, or remove it")
    })?;
    let address = listener.local_addr()?;
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(move || async move { page(metrics) }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the metrics port is closed");
        }
    });
    Ok(address)
}

fn text_of(metrics: Arc<SettlementMetrics>) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("risiti_settlement");
    registry.register_collector(Box::new(Page(metrics)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

fn page(metrics: Arc<SettlementMetrics>) -> Response {
    match text_of(metrics) {
        Ok(out) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            out,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[derive(Debug)]
struct Page(Arc<SettlementMetrics>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let m = &self.0;
        let counters: [(&str, &str, &AtomicU64); 12] = [
            ("accepted", "Records settled as accepted", &m.accepted),
            ("refused", "Records settled as refused", &m.refused),
            ("repeated", "Resends answered again", &m.repeated),
            (
                "conflicts",
                "Records whose number is settled with other content",
                &m.conflicts,
            ),
            ("too_old", "Records below the window", &m.too_old),
            (
                "seals_refused",
                "Records whose seal was refused, or that had none",
                &m.seals_refused,
            ),
            ("foreign", "Messages that are no records", &m.foreign),
            ("transactions", "Transactions committed", &m.transactions),
            ("aborts", "Transactions aborted and sent again", &m.aborts),
            ("restarts", "Times the clients were made anew", &m.restarts),
            (
                "rebuilds",
                "Partitions read back from the changelog",
                &m.rebuilds,
            ),
            (
                "missed",
                "Records that Kafka deleted before they were settled",
                &m.missed,
            ),
        ];
        for (name, help, counter) in counters {
            let counter = ConstCounter::new(counter.load(Ordering::Relaxed));
            let encoder = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(encoder)?;
        }
        let gauges: [(&str, &str, &AtomicU64); 3] = [
            ("partitions", "Partitions held", &m.partitions),
            ("terminals", "Terminals remembered", &m.terminals),
            ("numbers", "Numbers remembered", &m.numbers),
        ];
        for (name, help, gauge) in gauges {
            let value = i64::try_from(gauge.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            let gauge = ConstGauge::new(value);
            let encoder = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(encoder)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_on_the_page_with_its_value() {
        let metrics = Arc::new(SettlementMetrics::default());
        metrics.accepted.store(7, Ordering::Relaxed);
        metrics.numbers.store(9, Ordering::Relaxed);
        let page = text_of(metrics).unwrap();
        for line in [
            "risiti_settlement_accepted_total 7",
            "risiti_settlement_conflicts_total 0",
            "risiti_settlement_numbers 9",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }
}
