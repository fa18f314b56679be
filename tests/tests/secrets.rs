//! What must stand nowhere: the numbers of payment cards, and secrets (G10).
//!
//! A gateway, settlement and an Apache Kafka take payments in which somebody has typed
//! a card's number where none belongs. Then everything that they leave is searched:
//! each file, log, topic, metric and page. The control shows that the search finds
//! what is there.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use risiti_gateway::access::{file, token};
use risiti_tests::gateway_process::ProcessSwitches;
use risiti_tests::round_trip::RoundTrip;
use risiti_tests::samples;
use risiti_tests::turn::turn;
use risiti_tests::wire_client::{Connect, Message, Wire};
use risiti_wire::card::is_card_number;
use risiti_wire::limits::SEALED_RECORD_BYTES_MAX;
use risiti_wire::seal::{Direction, ROOT_BYTES, Root, seal};
use risiti_wire::{Account, Currency, Payment, RecordBody};

const LONG: Duration = Duration::from_secs(120);
const TERMINAL: &str = "t-1";
const TOKEN: &str = "token-that-nobody-else-knows";
const TOPICS: [&str; 7] = [
    "risiti.records",
    "risiti.receipts",
    "risiti.transactions",
    "risiti.rejected",
    "risiti.settled",
    "risiti.deliveries",
    "risiti.positions",
];

/// A number of a card, as everything that could hold it might write it.
fn forms_of(card: &str) -> Vec<Vec<u8>> {
    let number: u64 = card.parse().unwrap();
    // As the wire has an account: a 1 before its digits.
    let marked = number + 10_u64.pow(card.len() as u32);
    let packed = card.as_bytes().chunks(2).map(|pair| {
        let nibble = |digit: Option<&u8>| digit.map_or(0xF, |digit| digit - b'0');
        nibble(pair.first()) << 4 | nibble(pair.get(1))
    });
    let mut forms = vec![card.as_bytes().to_vec(), packed.collect()];
    for number in [number, marked] {
        forms.push(number.to_be_bytes().to_vec());
        forms.push(number.to_le_bytes().to_vec());
    }
    forms
}

/// Whether a line of text has any card's number in it.
fn has_a_card(line: &str) -> bool {
    line.split(|c: char| !c.is_ascii_digit())
        .any(|digits| is_card_number(digits.as_bytes()))
}

fn holds(bytes: &[u8], form: &[u8]) -> bool {
    bytes.windows(form.len()).any(|window| window == form)
}

/// Everything that can be read of the house, each with its name.
fn everything(house: &RoundTrip) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    files(house.dir.path(), &mut all);
    files(house.kafka.dir(), &mut all);
    for path in [
        "/metrics",
        "/v1/status",
        "/v1/latency",
        "/v1/trace/t-1/2",
        "/readyz",
        "/v1/dead",
    ] {
        let (_, page) = house.gateway.get(path).unwrap();
        all.push((path.to_owned(), page.into_bytes()));
    }
    for topic in TOPICS {
        for message in house.kafka.committed(topic).unwrap_or_default() {
            let headers = format!("{:?}", message.headers);
            let mut bytes = [message.key, headers.into_bytes(), message.value.clone()].concat();
            let json: Option<serde_json::Value> = serde_json::from_slice(&message.value).ok();
            let kept = json
                .as_ref()
                .and_then(|json| json["record_base64"].as_str());
            bytes.extend(
                kept.map(|text| STANDARD.decode(text).unwrap())
                    .unwrap_or_default(),
            );
            all.push((topic.to_owned(), bytes));
        }
    }
    all
}

fn files(dir: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, into);
        } else if let Ok(bytes) = fs::read(&path) {
            into.push((path.display().to_string(), bytes));
        }
    }
}

/// Where some of these stand.
fn found<'a>(all: &'a [(String, Vec<u8>)], forms: &[Vec<u8>]) -> Vec<&'a str> {
    let has = |bytes: &Vec<u8>| forms.iter().any(|form| holds(bytes, form));
    let places = all.iter().filter(|(_, bytes)| has(bytes));
    places.map(|(name, _)| name.as_str()).collect()
}

fn payment(sequence: u64, account: &str) -> Vec<u8> {
    let payment = Payment {
        time_s: 1_763_700_000,
        account: Account::new(account).unwrap(),
        amount_minor: 1_500,
        currency: Currency::new(404).unwrap(),
        reference: Some("term 3"),
    };
    samples::record(sequence, RecordBody::Payment(payment))
}

fn wait(house: &RoundTrip, topic: &str, count: usize) {
    let until = Instant::now() + LONG;
    while house.kafka.committed(topic).unwrap_or_default().len() < count {
        assert!(Instant::now() < until, "no {count} in {topic}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn g10_no_card_number_and_no_secret_stands_anywhere() {
    let _turn = turn();
    let (sealed, in_clear) = ("4111111111111111", "6011111111111117");
    let secrets = tempfile::tempdir().unwrap();
    let root = Root::new(std::array::from_fn::<u8, ROOT_BYTES, _>(|n| {
        n as u8 * 7 + 3
    }));
    let root_file = secrets.path().join("site.root");
    let root_digits: String = root.expose().iter().map(|b| format!("{b:02x}")).collect();
    fs::write(&root_file, &root_digits).unwrap();
    fs::set_permissions(&root_file, fs::Permissions::from_mode(0o600)).unwrap();
    let registry = secrets.path().join("terminals.toml");
    let digest = token::digest(TOKEN.as_bytes());
    file::edit(&registry, |registry| registry.add(TERMINAL, digest, false)).unwrap();
    let tables = format!(
        "[settlement]\nroot_file = {root_file:?}\nsealing = \"accepted\"\n[access]\nanonymous = \"none\"\nregistry = {registry:?}\n[log]\nlevel = \"debug\"\n"
    );
    let house = RoundTrip::start_with(ProcessSwitches::default(), &tables).unwrap();

    let connect = Connect::persistent(5, TERMINAL).login(None, TOKEN);
    let mut wire = Wire::accepted(house.gateway.mqtt_addr(), &connect).unwrap();
    let mut publish = |record: &[u8]| {
        let message = Message::new("t/t-1/records", record, 1);
        wire.publish(&message).unwrap();
    };
    let keys = [Direction::Up, Direction::Down].map(|way| root.key(TERMINAL, 1, way).unwrap());
    for (sequence, account) in [(1, "12345678"), (2, sealed)] {
        let mut buffer = [0; SEALED_RECORD_BYTES_MAX];
        let record = payment(sequence, account);
        publish(seal(&keys[0], TERMINAL, &record, &mut buffer).unwrap());
    }
    wait(&house, "risiti.receipts", 2);
    wait(&house, "risiti.rejected", 1);
    assert_eq!(
        house.kafka.committed("risiti.transactions").unwrap().len(),
        1
    );

    let all = everything(&house);
    assert!(all.len() > 40, "{}", all.len());
    assert_eq!(found(&all, &forms_of(sealed)), [""; 0]);
    // No other either, in whatever is text.
    for (name, bytes) in &all {
        let is_text = name.ends_with(".log") || name.starts_with('/') && !name.contains("/data/");
        if let (true, Ok(text)) = (is_text, std::str::from_utf8(bytes)) {
            let line = text.lines().find(|line| has_a_card(line));
            assert_eq!(line, None, "{name}");
        }
    }
    let [up, down] = keys.map(|key| key.expose().to_vec());
    let secrets = [
        TOKEN.into(),
        root_digits.into(),
        root.expose().to_vec(),
        up,
        down,
    ];
    assert_eq!(found(&all, &secrets), [""; 0]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", house.gateway.pid().unwrap()));
    let limits = limits.unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    assert_eq!(
        core.unwrap().split_whitespace().nth(4),
        Some("0"),
        "{limits}"
    );

    // The control: what nobody has sealed is found, on the disk and in the topics.
    publish(&payment(3, in_clear));
    wait(&house, "risiti.rejected", 2);
    let all = everything(&house);
    let places = found(&all, &forms_of(in_clear));
    for place in ["risiti.records", "risiti.rejected"] {
        assert!(places.contains(&place), "{place}: {places:?}");
    }
    let data = house.gateway.data_dir().display().to_string();
    assert!(
        places.iter().any(|place| place.starts_with(&data)),
        "{places:?}"
    );
    // Who is told why is not told the number.
    let told = house.kafka.committed("risiti.rejected").unwrap();
    let told = String::from_utf8_lossy(&told[1].value);
    assert!(told.contains("1117") && !told.contains(in_clear), "{told}");
}
