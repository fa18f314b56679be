//! Clients that nobody here wrote do with the gateway what they do with any
//! broker: mosquitto's command line tools, paho-mqtt and MQTT.js, each on 3.1.1
//! and 5. Publish and subscribe at every QoS, retained messages, wills, a session
//! that survives its connection; then a record to Kafka and a receipt back. Over TLS and
//! WebSocket too.
//!
//! What paho and MQTT.js do stands in `tests/clients/`; `tests/setup.sh` installs
//! both, in exact versions.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

#[allow(dead_code)] // the tests of access need more of it
#[path = "access/authority.rs"]
mod authority;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use authority::{Authority, put};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches, free_port};
use risiti_tests::real_kafka;
use risiti_tests::risiti_command::{Running, output};
use risiti_tests::samples;
use risiti_wire::{Account, Currency, Lines, Payment, Receipt, RecordBody, Status};

/// Longer than anything here takes, and than the clients themselves wait.
const LONG: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[kafka]
bootstrap = "embedded"
[[routes]]
name = "records"
filter = "t/+/records"
topic = "risiti.records"
"#;

/// A file that `tests/setup.sh test` left under `target/clients`.
fn installed(path: &str) -> PathBuf {
    let found = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/clients")).join(path);
    assert!(found.exists(), "no {}: run `make setup`", found.display());
    found
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/clients")).join(name)
}

struct House {
    gateway: GatewayProcess,
    secure: Vec<(&'static str, u16)>,
    dir: tempfile::TempDir,
}

impl House {
    /// One that listens in every way, each protocol at a port of its own.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("the house's");
        let server = authority.server();
        put(dir.path(), "ca.pem", &authority.pem());
        let certificate = put(dir.path(), "server.pem", &server.certificate);
        let key = put(dir.path(), "server.key", &server.key);
        let mut config = CONFIG.to_owned();
        let mut secure = Vec::new();
        for (protocol, transport, tls) in [
            ("mqtts", "tcp", true),
            ("ws", "websocket", false),
            ("wss", "websocket", true),
        ] {
            let port = free_port().unwrap();
            config += &format!(
                "[[listeners]]\nname = \"{protocol}\"\nlisten = \"127.0.0.1:{port}\"\ntransport = \"{transport}\"\n"
            );
            if tls {
                config += &format!(
                    "[listeners.tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n"
                );
            }
            secure.push((protocol, port));
        }
        let switches = ProcessSwitches::default();
        let gateway = GatewayProcess::start(&config, dir.path(), switches, None).unwrap();
        Self {
            gateway,
            secure,
            dir,
        }
    }

    fn mqtt(&self) -> SocketAddr {
        self.gateway.mqtt_addr()
    }

    fn port(&self, protocol: &str) -> u16 {
        let found = self.secure.iter().find(|(name, _)| *name == protocol);
        found.map_or_else(|| self.mqtt().port(), |(_, port)| *port)
    }

    fn kafka(&self) -> &str {
        self.gateway.embedded_bootstrap().unwrap()
    }

    /// Waits for a terminal's record in Kafka and gives its payload.
    fn record_of(&self, terminal: &str) -> Vec<u8> {
        self.gateway.wait_forwarded(LONG).unwrap();
        let log = real_kafka::committed(self.kafka(), "risiti.records").unwrap();
        let mut of_it = log
            .iter()
            .filter(|record| record.key == terminal.as_bytes());
        let payload = of_it.next().unwrap().value.clone();
        assert!(of_it.next().is_none(), "once");
        payload
    }

    /// Puts a receipt where settlement puts it.
    fn settle(&self, terminal: &str, receipt: &[u8]) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.kafka())
            .create()
            .unwrap();
        let record = BaseRecord::to("risiti.receipts")
            .key(terminal)
            .payload(receipt);
        producer.send(record).unwrap();
        producer.flush(LONG).unwrap();
    }
}

/// A terminal's record and the receipt for it, as bytes.
fn record_and_receipt() -> (Vec<u8>, Vec<u8>) {
    let payment = Payment {
        time_s: 1_763_700_000,
        account: Account::new("12345678").unwrap(),
        amount_minor: 255_000,
        currency: Currency::new(404).unwrap(),
        reference: Some("term 3"),
    };
    let record = samples::record(1, RecordBody::Payment(payment));
    let mut buffer = [0; risiti_wire::limits::RECEIPT_BYTES_MAX];
    let receipt = Receipt {
        sequence: 1,
        number: 1,
        status: Status::Accepted,
        time_s: 1_763_700_001,
        amount_minor: 255_000,
        currency: Currency::new(404).unwrap(),
        bank_reference: Some("B-1"),
        lines: Lines::new(&["School fees", "Thank you"]).unwrap(),
    };
    (record, receipt.encode(&mut buffer).unwrap().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Runs a client to its end; what it prints.
fn run(command: &mut Command) -> String {
    let ended = output(command, LONG).unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ended.stdout).into_owned(),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert!(ended.status.success(), "{command:?}\n{out}{err}");
    out
}

/// A client that runs beside the test, and its lines.
struct Beside {
    _child: Running,
    lines: mpsc::Receiver<String>,
}

impl Beside {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = mpsc::channel();
        read_lines(child.stdout.take().unwrap(), tell.clone());
        read_lines(child.stderr.take().unwrap(), tell);
        Self {
            _child: Running(child),
            lines,
        }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(LONG).unwrap()
    }

    /// Waits for a line that contains this.
    fn until(&self, wanted: &str) -> String {
        let until = Instant::now() + LONG;
        loop {
            let line = self.next();
            if line.contains(wanted) {
                return line;
            }
            assert!(!line.contains("not so"), "{line}");
            assert!(Instant::now() < until, "no {wanted:?}");
        }
    }
}

fn read_lines(from: impl Read + Send + 'static, tell: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
}

/// A client that has the conversations of `tests/clients/`.
struct Talker {
    program: PathBuf,
    arguments: Vec<PathBuf>,
    version: &'static str,
    protocol: &'static str,
}

impl Talker {
    fn paho(protocol: &'static str, version: &'static str) -> Self {
        Self {
            program: installed("python/bin/python"),
            arguments: vec![script("paho_talk.py")],
            version,
            protocol,
        }
    }

    fn mqttjs(protocol: &'static str, version: &'static str) -> Self {
        Self {
            program: installed("node"),
            arguments: vec![script("mqttjs_talk.mjs"), installed("js/node_modules")],
            version,
            protocol,
        }
    }

    fn talk(&self, house: &House, talk: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env("TALK_CA", house.dir.path().join("ca.pem"))
            .arg(format!("{}://localhost", self.protocol))
            .arg(house.port(self.protocol).to_string())
            .arg(self.version)
            .args(talk);
        command
    }
}

fn does_what_it_does_with_any_broker(client: &Talker) {
    let house = House::start();
    for (talk, last) in [
        ("live", "QoS 2 came as it was sent"),
        ("retained", "what was cleared comes no more"),
        ("will", "the will of the one that was cut came"),
        (
            "session",
            "what was queued came in order, without a new subscription",
        ),
    ] {
        let facts = run(&mut client.talk(&house, &[talk]));
        assert!(facts.contains(last), "{talk}: {facts}");
    }
    let (record, receipt) = record_and_receipt();
    run(&mut client.talk(&house, &["record", "t-1", &hex(&record)]));
    assert_eq!(house.record_of("t-1"), record);

    let terminal = Beside::start(&mut client.talk(&house, &["receipt", "t-1"]));
    terminal.until("subscribed to t/t-1/receipts at QoS 1");
    house.settle("t-1", &receipt);
    assert_eq!(
        terminal.until("payload "),
        format!("payload {}", hex(&receipt))
    );
}

#[test]
fn paho_on_3_1_1_works_as_with_any_broker() {
    does_what_it_does_with_any_broker(&Talker::paho("mqtt", "3.1.1"));
}

#[test]
fn paho_on_5_works_as_with_any_broker() {
    does_what_it_does_with_any_broker(&Talker::paho("mqtt", "5"));
}

#[test]
fn mqttjs_on_3_1_1_works_as_with_any_broker() {
    does_what_it_does_with_any_broker(&Talker::mqttjs("mqtt", "3.1.1"));
}

#[test]
fn mqttjs_on_5_works_as_with_any_broker() {
    does_what_it_does_with_any_broker(&Talker::mqttjs("mqtt", "5"));
}

#[test]
fn paho_works_over_tls_and_websocket() {
    does_what_it_does_with_any_broker(&Talker::paho("mqtts", "5"));
    does_what_it_does_with_any_broker(&Talker::paho("ws", "3.1.1"));
}

#[test]
fn mqttjs_works_over_tls_and_secure_websocket() {
    does_what_it_does_with_any_broker(&Talker::mqttjs("mqtts", "3.1.1"));
    does_what_it_does_with_any_broker(&Talker::mqttjs("wss", "5"));
}

/// mosquitto's tools before one gateway.
struct Mosquitto {
    port: String,
    version: &'static str,
}

impl Mosquitto {
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-h", "127.0.0.1", "-p", &self.port, "-V", self.version])
            .args(arguments)
            // Somebody's own defaults have no say here.
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("HOME", "/nonexistent");
        command
    }

    fn publish(&self, arguments: &[&str]) {
        run(&mut self.command("mosquitto_pub", arguments));
    }

    /// `mosquitto_sub` with each message as `topic qos retained payload`; returns
    /// once it is subscribed.
    fn subscribe(&self, arguments: &[&str]) -> Beside {
        let mut all = vec!["-d", "-F", "got %t %q %r %p"];
        all.extend(arguments);
        // Its debug lines come at once only if its output is not gathered.
        let mut command = Command::new("stdbuf");
        command.arg("-oL");
        let sub = self.command("mosquitto_sub", &all);
        command
            .arg(sub.get_program())
            .args(sub.get_args())
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("HOME", "/nonexistent");
        let beside = Beside::start(&mut command);
        beside.until("Subscribed (mid");
        beside
    }
}

fn mosquitto_does_what_it_does_with_any_broker(version: &'static str) {
    let house = House::start();
    let client = Mosquitto {
        port: house.mqtt().port().to_string(),
        version: if version == "5" { "5" } else { "311" },
    };
    // Live, at every QoS.
    let live = client.subscribe(&["-t", "chat/+", "-q", "2"]);
    for qos in ["0", "1", "2"] {
        client.publish(&["-t", &format!("chat/{qos}"), "-q", qos, "-m", "hello"]);
        assert_eq!(live.until("got "), format!("got chat/{qos} {qos} 0 hello"));
    }
    // Retained, and cleared.
    client.publish(&["-t", "state/door", "-q", "1", "-r", "-m", "open"]);
    let reader = client.subscribe(&["-t", "state/#", "-q", "1"]);
    assert_eq!(reader.until("got "), "got state/door 1 1 open");
    client.publish(&["-t", "state/door", "-q", "1", "-r", "-n"]);
    let late = client.subscribe(&["-t", "state/#", "-q", "1"]);
    client.publish(&["-t", "state/window", "-q", "1", "-m", "shut"]);
    assert_eq!(late.until("got "), "got state/window 1 0 shut");
    // A will.
    let watcher = client.subscribe(&["-t", "gone/+", "-q", "1"]);
    let will = ["-t", "x", "--will-topic", "gone/mortal", "--will-payload"];
    let mortal = client.subscribe(&[&will[..], &["gone", "--will-qos", "1"]].concat());
    drop(mortal); // SIGKILL
    assert_eq!(watcher.until("got "), "got gone/mortal 1 0 gone");
    // A session over a reconnect.
    let mut session = vec!["-i", "mq-sleeper", "-c", "-q", "1", "-t", "queue/#"];
    if version == "5" {
        session.extend(["-x", "3600"]);
    }
    run(&mut client.command("mosquitto_sub", &[&session[..], &["-E"]].concat()));
    for number in 0..20 {
        client.publish(&["-t", "queue/a", "-q", "1", "-m", &number.to_string()]);
    }
    session.extend(["-C", "20", "-W", "60"]);
    let queued = run(&mut client.command("mosquitto_sub", &session));
    let in_order: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(queued.lines().collect::<Vec<_>>(), in_order);
    // A record to Kafka, and the receipt back.
    let (record, receipt) = record_and_receipt();
    let mut publisher = client
        .command(
            "mosquitto_pub",
            &["-i", "t-1", "-t", "t/t-1/records", "-q", "1", "-s"],
        )
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    write_and_wait(&mut publisher, &record);
    assert_eq!(house.record_of("t-1"), record);
    let mut take = vec!["-i", "t-1", "-c", "-q", "1", "-t", "t/t-1/receipts"];
    if version == "5" {
        take.extend(["-x", "3600"]);
    }
    run(&mut client.command("mosquitto_sub", &[&take[..], &["-E"]].concat()));
    house.settle("t-1", &receipt);
    take.extend(["-C", "1", "-W", "60", "-F", "%x"]);
    let taken = run(&mut client.command("mosquitto_sub", &take));
    assert_eq!(taken.trim(), hex(&receipt));
}

fn write_and_wait(child: &mut Child, bytes: &[u8]) {
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn mosquitto_on_3_1_1_works_as_with_any_broker() {
    mosquitto_does_what_it_does_with_any_broker("3.1.1");
}

#[test]
fn mosquitto_on_5_works_as_with_any_broker() {
    mosquitto_does_what_it_does_with_any_broker("5");
}
