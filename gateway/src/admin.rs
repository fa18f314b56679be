//! The admin port: health, metrics, and what the CLI asks for.
//!
//! Promises: on loopback unless the configuration insists; nothing secret in
//! any answer; a slow reader holds nobody up.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | a page for people: what it does now, and where a payment is |
//! | `GET /healthz` | 200 while the process serves |
//! | `GET /readyz` | 200 if records are taken, else 503 with the reasons |
//! | `GET /metrics` | Prometheus text (OpenMetrics 1.0) |
//! | `GET /v1/status` | [`Status`] as JSON |
//! | `GET /v1/latency` | how long the last payments took, [`Latency`] |
//! | `GET /v1/trace/TERMINAL/SEQUENCE` | the life of one payment, [`PaymentTrace`] |
//! | `GET /v1/dead?after=ID&limit=N` | a page of dead letters, without payloads |
//! | `GET /v1/dead/ID` | one, whole |
//! | `POST /v1/dead/ID/requeue` | back into the journal, then deleted here |
//! | `DELETE /v1/dead/ID` | deleted for good |

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use axum::{Json, Router, middleware};
use risiti_bridge::{BridgeError, DeadLetter};
use risiti_store::{AckSink, Identity, NewRecord, Outcome};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::admin_guard::{Guard, guard};
use crate::gateway::View;
use crate::status::Status;
use crate::trace::{self, Latency, PaymentTrace};
use crate::{dashboard, limits, metrics};

/// Serves the admin port until told to stop.
pub async fn serve<L>(listener: L, view: View, guarded: Guard, mut stopping: watch::Receiver<bool>)
where
    L: Listener<Addr: std::fmt::Debug>,
{
    let app = Router::new()
        .route("/", get(dashboard::page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/v1/status", get(status))
        .route("/v1/latency", get(latency))
        .route("/v1/trace/{terminal}/{sequence}", get(payment_trace))
        .route("/v1/dead", get(dead_list))
        .route("/v1/dead/{id}", get(dead_show).delete(dead_drop))
        .route("/v1/dead/{id}/requeue", post(dead_requeue))
        .with_state(Arc::new(view))
        .layer(middleware::from_fn_with_state(Arc::new(guarded), guard));
    let stopped = async move {
        let _ = stopping.changed().await;
    };
    if let Err(error) = axum::serve(listener, app)
        .with_graceful_shutdown(stopped)
        .await
    {
        tracing::error!(%error, "the admin port is closed");
    }
}

type Shared = State<Arc<View>>;

async fn readyz(State(view): Shared) -> Response {
    let withheld = view.journal.health().withheld.is_some();
    if withheld || view.state.health().stalled.is_some() {
        let status = Status::of(&view);
        let text = format!("not ready\n{}\n", status.alarms.join("\n"));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    "ready\n".into_response()
}

async fn metrics_page(State(view): Shared) -> Response {
    match metrics::page(&view) {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(view): Shared) -> Json<Status> {
    Json(Status::of(&view))
}

async fn latency(State(view): Shared) -> Result<Json<Latency>, Response> {
    from_recorder(move || Ok(Latency::of(view.trace.recent_ms()?))).await
}

async fn payment_trace(
    State(view): Shared,
    Path((terminal, sequence)): Path<(String, u64)>,
) -> Result<Json<PaymentTrace>, Response> {
    from_recorder(move || {
        let events = view.trace.find(&terminal, sequence)?;
        let now = view.now_for(&terminal)?;
        Ok(trace::tell(&terminal, sequence, &events, &now))
    })
    .await
}

/// Reads the recorder's files off the runtime's threads.
async fn from_recorder<T: Send + 'static>(
    read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<Json<T>, Response> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(told)) => Ok(Json(told)),
        Ok(Err(error)) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the recorded steps can't be read: {error}; check the disk\n"),
        )
            .into_response()),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()),
    }
}

#[derive(Deserialize)]
struct PageQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// A dead letter as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// What `requeue` and `drop` take.
    pub id: String,
    /// When it was refused, Unix milliseconds.
    pub refused_ms: u64,
    /// Why, in words.
    pub reason: String,
    /// The cluster that refused it.
    pub cluster: String,
    /// Its route; empty if none matched.
    pub route: String,
    /// The Kafka topic.
    pub kafka_topic: String,
    /// Who published it.
    pub client_id: String,
    /// On which MQTT topic.
    pub mqtt_topic: String,
    /// When it was received, Unix milliseconds.
    pub received_ms: u64,
    /// The terminal's sequence number, if it is a terminal's record.
    pub sequence: Option<u64>,
    /// Size of the payload.
    pub payload_bytes: usize,
    /// The payload in hex; only when asked for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_hex: Option<String>,
}

impl DeadLetterView {
    fn new(letter: &DeadLetter, whole: bool) -> Self {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let record = &letter.record.record;
        Self {
            id: letter.id(),
            refused_ms: letter.refused_ms,
            reason: letter.reason.text.clone(),
            cluster: letter.reason.cluster.clone(),
            route: letter.reason.route.clone(),
            kafka_topic: letter.reason.topic.clone(),
            client_id: text(&record.client_id),
            mqtt_topic: text(&record.topic),
            received_ms: record.received_ms,
            sequence: match record.identity {
                Identity::Sequence { sequence, .. } => Some(sequence),
                _ => None,
            },
            payload_bytes: record.payload.len(),
            payload_hex: whole.then(|| record.payload.iter().map(|b| format!("{b:02x}")).collect()),
        }
    }
}

fn refused(error: &BridgeError) -> Response {
    let code = match error {
        BridgeError::NoDeadLetter { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{error}\n")).into_response()
}

/// Runs what may wait for the disk off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BridgeError> + Send + 'static,
) -> Result<T, Response> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(refused(&error)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()),
    }
}

async fn dead_list(
    State(view): Shared,
    Query(page): Query<PageQuery>,
) -> Result<Json<Vec<DeadLetterView>>, Response> {
    let limit = page
        .limit
        .unwrap_or(limits::DEAD_LETTERS_PER_PAGE)
        .min(limits::DEAD_LETTERS_PER_PAGE);
    let letters = blocking(move || view.dead_letters.list(page.after.as_deref(), limit)).await?;
    Ok(Json(
        letters
            .iter()
            .map(|l| DeadLetterView::new(l, false))
            .collect(),
    ))
}

async fn dead_show(
    State(view): Shared,
    Path(id): Path<String>,
) -> Result<Json<DeadLetterView>, Response> {
    let letter = blocking(move || view.dead_letters.show(&id)).await?;
    Ok(Json(DeadLetterView::new(&letter, true)))
}

async fn dead_requeue(
    State(view): Shared,
    Path(id): Path<String>,
) -> Result<Json<DeadLetterView>, Response> {
    let letter = blocking(move || {
        view.dead_letters.requeue_by(&id, |letter| {
            if letter.is_receipt() {
                view.outbox.requeue(letter)
            } else {
                append(&view.journal, letter.to_requeue())
            }
        })
    })
    .await?;
    tracing::info!(id = letter.id(), "dead letter requeued");
    Ok(Json(DeadLetterView::new(&letter, false)))
}

async fn dead_drop(State(view): Shared, Path(id): Path<String>) -> Result<String, Response> {
    let name = id.clone();
    blocking(move || view.dead_letters.delete(&id)).await?;
    tracing::warn!(id = name, "dead letter dropped for good");
    Ok(format!("dropped {name}\n"))
}

struct Once(parking_lot::Mutex<Option<oneshot::Sender<Outcome>>>);

impl AckSink for Once {
    fn settled(&self, _token: u64, outcome: Outcome) {
        if let Some(sender) = self.0.lock().take() {
            let _ = sender.send(outcome);
        }
    }
}

/// Appends to the journal and waits until it is durable.
fn append(journal: &risiti_store::Journal, record: NewRecord) -> Result<(), BridgeError> {
    let (sender, receiver) = oneshot::channel();
    let sink: Arc<dyn AckSink> = Arc::new(Once(parking_lot::Mutex::new(Some(sender))));
    journal.append(record, &sink, 0);
    match receiver.blocking_recv() {
        Ok(Outcome::Durable { .. } | Outcome::Duplicate) => Ok(()),
        _ => Err(BridgeError::Store(risiti_store::StoreError::Closing)),
    }
}
