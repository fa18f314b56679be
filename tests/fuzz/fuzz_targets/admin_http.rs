//! The admin port, as it is served: any bytes on a connection to it.
//!
//! The port's own service runs over connections in memory, with a store on tmpfs
//! behind it that holds two dead letters. An input is what one client sends before it
//! closes its side. The answer ends; it begins as HTTP; its size follows the number of
//! requests; none says 500, which would be a bug of ours. Only DELETE and POST change
//! anything, and only the one letter that was asked for shows its payload. Behind it
//! the next client is served.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::serve::Listener;
use bytes::Bytes;
use risiti_bridge::dead_letters::Reason;
use risiti_bridge::receipts::ReceiptsOptions;
use risiti_bridge::{DeadLetter, DeadLetters, Outbox, OutboxSetup, Routes, SharedRoutes, TraceLog};
use risiti_config::{Bootstrap, Config};
use risiti_fuzz::control::breaks;
use risiti_fuzz::seeds::Seed;
use risiti_fuzz::target;
use risiti_gateway::admin;
use risiti_gateway::admin_guard::Guard;
use risiti_gateway::broker::{Broker, Parts, ReceiptsParts};
use risiti_gateway::clock::{Clock, ManualClock};
use risiti_gateway::gateway::View;
use risiti_gateway::receipts::ReceiptsTopics;
use risiti_store::{Identity, Journal, NewRecord, Record, State, StoreOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// The payload of a dead letter, and how the port shows it.
const PAYLOAD: &[u8] = b"account 0012345";
const PAYLOAD_HEX: &str = "6163636f756e742030303132333435";

/// The most that one request is answered with: the page for people and the metrics.
const ANSWER_BYTES_MAX: usize = 128 << 10;

struct Port {
    runtime: Runtime,
    connections: mpsc::UnboundedSender<DuplexStream>,
    letters: Arc<DeadLetters>,
    _stopping: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

static PORT: LazyLock<Port> = LazyLock::new(|| {
    let folder = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder");
    // Its time passes when nothing else is left to do, so a wait costs none. One
    // thread does what blocks, in its order: what comes behind knows it is done.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let (connections, incoming) = mpsc::unbounded_channel();
    let (stopping, stopped) = watch::channel(false);
    let entered = runtime.enter();
    let view = view(folder.path());
    let letters = view.dead_letters.clone();
    keep(&letters);
    drop(entered);
    runtime.spawn(admin::serve(Memory(incoming), view, Guard::open(), stopped));
    Port {
        runtime,
        connections,
        letters,
        _stopping: stopping,
        _folder: folder,
    }
});

fn view(folder: &std::path::Path) -> View {
    let config = Config::new(Bootstrap::Servers(vec!["k:9092".into()]));
    let options = StoreOptions {
        free_bytes_min: 0,
        ballast_bytes: 0,
        ..StoreOptions::new(folder)
    };
    let (state, report) = State::open(&options).expect("a new store");
    let (journal, _) = Journal::open(&options, state.clone()).expect("a new store");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_795_000_000_000));
    let trace = TraceLog::disabled();
    let dead_letters = Arc::new(DeadLetters::open(state.clone()).expect("a new store"));
    let now = clock.clone();
    let outbox = Outbox::open(OutboxSetup {
        state: state.clone(),
        journal: journal.clone(),
        gateway_id: "gw-1".into(),
        terminals: config.terminals.clone(),
        receipts_max: 1_000,
        unknown_receipts_max: 100,
        receipts_per_terminal_max: 10,
        now: Arc::new(move || now.unix_ms()),
        trace: trace.clone(),
        options: ReceiptsOptions::default(),
    })
    .expect("a new store");
    let broker = Broker::open(Parts {
        journal: journal.clone(),
        state: state.clone(),
        dead_letters: dead_letters.clone(),
        routes: Arc::new(SharedRoutes::new(Routes::of(&config))),
        receipts: ReceiptsParts {
            outbox: outbox.clone(),
            topics: ReceiptsTopics::new(&config.terminals.receipts),
            trace: trace.clone(),
            delete_before_puback: false,
        },
        access: Arc::new(risiti_gateway::access::Access::open()),
        limits: config.mqtt.limits.clone(),
        clock,
    })
    .expect("a new store");
    View {
        id: "gw-1".into(),
        journal,
        state,
        broker,
        dead_letters,
        forwarders: Arc::default(),
        outbox,
        receipts: None,
        embedded_bootstrap: None,
        open_reports: vec![report],
        trace,
        terminals: config.terminals,
        listeners: Vec::new(),
        insecure: Arc::default(),
    }
}

fn keep(letters: &DeadLetters) {
    let letter = |position| DeadLetter {
        refused_ms: 1_795_000_000_000,
        reason: Reason {
            cluster: "default".into(),
            route: "records".into(),
            topic: "risiti.records".into(),
            text: "too large".into(),
        },
        journal_id: "0123456789abcdef".into(),
        record: Record {
            position,
            record: NewRecord {
                received_ms: 1,
                client_id: Bytes::from_static(b"t-1"),
                topic: Bytes::from_static(b"t/t-1/records"),
                identity: Identity::None,
                properties: Bytes::new(),
                payload: Bytes::from_static(PAYLOAD),
            },
        },
    };
    assert!(
        letters.keep(&[letter(7), letter(8)]).expect("kept"),
        "no room for two letters"
    );
}

/// Connections out of this process.
struct Memory(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Memory {
    type Io = DuplexStream;
    type Addr = &'static str;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.0.recv().await {
            Some(stream) => (stream, "memory"),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok("memory")
    }
}

/// What ends a connection on which all before it was whole.
const LAST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// What a client gets that sends these bytes, then asks for health and the end. One
/// whose last request swallows that hangs up after a moment: hyper takes a closed
/// side for a client that is gone, and answers nothing any more.
fn ask(port: &Port, data: &[u8]) -> Vec<u8> {
    port.runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        port.connections.send(theirs).expect("the port is served");
        let (mut reading, mut writing) = tokio::io::split(ours);
        let mut answer = Vec::new();
        // It may hang up while we speak.
        let _ = writing.write_all(data).await;
        let _ = writing.write_all(LAST).await;
        let patience = Duration::from_millis(20);
        if timeout(patience, reading.read_to_end(&mut answer))
            .await
            .is_err()
        {
            let _ = writing.shutdown().await;
            let rest = timeout(Duration::from_secs(10), reading.read_to_end(&mut answer));
            let _bytes = rest.await.expect("an answer without end");
        }
        // A change goes on though the client that asked for it has hung up.
        if may_change(data) {
            let behind = tokio::task::spawn_blocking(|| ());
            behind.await.expect("it does nothing");
        }
        answer
    })
}

fn may_change(data: &[u8]) -> bool {
    holds(data, b"DELETE") || holds(data, b"POST")
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

target!("admin_http", seeds, |data| {
    let port = &*PORT;
    let answer = ask(port, data);
    if !answer.is_empty() {
        assert!(answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    }
    assert!(
        !answer.starts_with(b"HTTP/1.1 500"),
        "{}",
        answer.escape_ascii()
    );
    // The shortest request is `GET / HTTP/1.0`.
    let requests_max = data.len() / 14 + 2;
    assert!(
        answer.len() <= requests_max * ANSWER_BYTES_MAX,
        "{} bytes",
        answer.len()
    );
    let control = breaks("admin-payload");
    if holds(&answer, PAYLOAD_HEX.as_bytes()) {
        let asked = holds(data, b"dead/") && !control;
        assert!(asked, "a payload was shown to whom did not ask for it");
    }
    if port.letters.count() != 2 {
        assert!(
            may_change(data),
            "a letter went by a request that changes nothing"
        );
        keep(&port.letters);
    }
    let health = ask(port, b"");
    assert!(
        health.starts_with(b"HTTP/1.1 200") && health.ends_with(b"ok\n"),
        "{}",
        health.escape_ascii()
    );
});

fn seeds() -> Vec<Seed> {
    let paths = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/status",
        "/v1/latency",
        "/v1/trace/t-1/5",
        "/v1/trace/%74-1/18446744073709551615",
        "/v1/dead",
        "/v1/dead?after=01234567-7&limit=1",
        "/v1/dead/01234567-7",
        "/v1/dead/%2e%2e",
        "/none",
    ];
    let mut all: Vec<Seed> = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        all.push((format!("get-{number:02}"), request.into_bytes()));
    }
    for (name, request) in [
        (
            "delete",
            "DELETE /v1/dead/01234567-7 HTTP/1.1\r\nhost: x\r\n\r\n",
        ),
        (
            "requeue",
            "POST /v1/dead/01234567-8/requeue HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        ),
        ("head", "HEAD / HTTP/1.1\r\nhost: x\r\n\r\n"),
        ("old", "GET /healthz HTTP/1.0\r\n\r\n"),
        (
            "pipelined",
            "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /readyz HTTP/1.1\r\nhost: x\r\n\r\n",
        ),
        (
            "chunked",
            "POST /v1/dead/x/requeue HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "expect",
            "POST /v1/dead/x/requeue HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            "upgrade",
            "GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        ),
        ("broken", "GET\r\n\r\n"),
    ] {
        all.push((name.into(), request.as_bytes().to_vec()));
    }
    all
}
