//! `risiti dead` and `risiti status` against a real case, and the metrics page
//! held to the OpenMetrics text format.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::real_kafka::{self, RealKafka};
use risiti_tests::risiti_command::{output, risiti};
use risiti_tests::upward::{self, RAW};
use risiti_tests::wire_client::{Connect, Message, Wire};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Runs `risiti …` against this gateway; what it prints, or what it says.
fn ask(gateway: &GatewayProcess, args: &[&str]) -> Result<String, String> {
    let admin = gateway.admin_addr().unwrap().to_string();
    let mut command = risiti(args);
    command.args(["--admin", &admin]);
    let ended = output(&mut command, LONG).unwrap();
    if ended.status.success() {
        Ok(String::from_utf8(ended.stdout).unwrap())
    } else {
        assert_eq!(ended.status.code(), Some(1));
        Err(String::from_utf8(ended.stderr).unwrap())
    }
}

/// Ids and lines of `risiti dead list`.
fn letters(gateway: &GatewayProcess) -> BTreeMap<String, String> {
    let text = ask(gateway, &["dead", "list"]).unwrap();
    let (lines, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", &text));
    let letters: BTreeMap<_, _> = lines
        .lines()
        .map(|l| (l.split_whitespace().next().unwrap().into(), l.into()))
        .collect();
    assert_eq!(last.trim(), format!("{} dead letters", letters.len()));
    letters
}

#[test]
fn what_kafka_refuses_is_listed_shown_requeued_and_dropped() {
    const BIG: &str = "plant.big";
    let kafka = RealKafka::start().unwrap();
    kafka
        .create_topic(RAW, 1, &["max.message.bytes=3000"])
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", &kafka.bootstrap);
    let gateway =
        GatewayProcess::start(&config, dir.path(), ProcessSwitches::default(), None).unwrap();
    assert!(letters(&gateway).is_empty());
    let mut client = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "c")).unwrap();
    // Random: compression must not save it.
    let large: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(5_000)
        .collect();
    client.publish(&Message::new("raw/c", "before", 1)).unwrap();
    client.publish(&Message::new("raw/c", &large, 1)).unwrap();
    client.publish(&Message::new("raw/c", "after", 1)).unwrap();
    let mut terminal = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(4, "t1")).unwrap();
    terminal
        .publish(&Message::new("t/t1/records", "no record", 1))
        .unwrap();
    gateway
        .wait_until("two dead letters", LONG, |s| s.dead_letters == 2)
        .unwrap();
    gateway.wait_forwarded(LONG).unwrap();

    let list = letters(&gateway);
    let id_of = |list: &BTreeMap<String, String>, what: &str| -> String {
        let found = list.iter().find(|(_, line)| line.contains(what));
        found.unwrap_or_else(|| panic!("{list:#?}")).0.clone()
    };
    let (too_large, no_record) = (id_of(&list, "topic raw/c"), id_of(&list, "t/t1/records"));
    assert!(list[&too_large].contains("5000 bytes"), "{list:#?}");
    let shown = ask(&gateway, &["dead", "show", &too_large]).unwrap();
    let hex: String = large.iter().map(|b| format!("{b:02x}")).collect();
    assert!(shown.contains(&hex) && shown.contains(RAW), "{shown}");
    let shown = ask(&gateway, &["dead", "show", &no_record]).unwrap();
    assert!(shown.contains("\"client_id\": \"t1\""), "{shown}");
    let unknown = ask(&gateway, &["dead", "show", "nothing-1"]).unwrap_err();
    assert!(
        unknown.contains("nothing-1") && unknown.contains("404"),
        "{unknown}"
    );
    let status = ask(&gateway, &["status"]).unwrap();
    assert!(status.contains("dead letters 2"), "{status}");

    // Requeued without a cure it comes back; nothing is lost by trying.
    ask(&gateway, &["dead", "requeue", &too_large]).unwrap();
    gateway.wait_forwarded(LONG).unwrap();
    gateway
        .wait_until("it is back", LONG, |s| s.dead_letters == 2)
        .unwrap();
    // The cure: a topic that takes it.
    gateway
        .reload(&config.replace(&format!("\"{RAW}\""), &format!("\"{BIG}\"")))
        .unwrap();
    while !gateway.log().contains("reloaded") {
        std::thread::sleep(Duration::from_millis(20));
    }
    ask(&gateway, &["dead", "drop", &no_record]).unwrap();
    assert_eq!(letters(&gateway).len(), 1);
    let said = ask(&gateway, &["dead", "requeue", "all"]).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    gateway.wait_forwarded(LONG).unwrap();
    assert!(letters(&gateway).is_empty());
    let values = |topic: &str| -> Vec<Vec<u8>> {
        let log = real_kafka::committed(&kafka.bootstrap, topic).unwrap();
        log.into_iter().map(|r| r.value).collect()
    };
    assert_eq!(values(RAW), [b"before".to_vec(), b"after".to_vec()]);
    assert_eq!(values(BIG), [large]);
}

/// Samples of an OpenMetrics page, by name with labels. Strict where the format
/// says MUST: families once and whole, TYPE before samples, `_total` for counters
/// and for nothing else, one `# EOF` at the end.
fn open_metrics(page: &str) -> BTreeMap<String, f64> {
    let body = page.strip_suffix("# EOF\n").expect("ends with # EOF");
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let (mut family, mut kind) = (String::new(), String::new());
    let is_name = |name: &str| {
        let rest = name.strip_prefix(|c: char| c.is_ascii_alphabetic() || c == '_');
        rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(is_name(name), "{line}");
            match what {
                "HELP" => assert!(!words.next().unwrap().is_empty(), "{line}"),
                "TYPE" => {
                    kind = words.next().unwrap().into();
                    assert!(
                        ["counter", "gauge", "histogram"].contains(&kind.as_str()),
                        "{line}"
                    );
                }
                "UNIT" => assert!(name.ends_with(words.next().unwrap()), "{line}"),
                _ => panic!("{line}"),
            }
            if name != family {
                assert!(families.insert(name.to_owned()), "a family twice: {line}");
                family = name.to_owned();
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        assert!(is_name(name), "{line}");
        assert!(
            labels.ends_with('}') && !labels[..labels.len() - 1].contains('}'),
            "{line}"
        );
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        match kind.as_str() {
            "counter" => {
                assert_eq!(name, format!("{family}_total"));
                assert!(value >= 0.0, "{line}");
            }
            "gauge" => {
                assert_eq!(name, family);
                assert!(!name.ends_with("_total"), "{line}");
            }
            _ => assert!(name.starts_with(&family), "{line}"),
        }
        assert!(
            samples.insert(sample.to_owned(), value).is_none(),
            "twice: {line}"
        );
    }
    samples
}

#[test]
fn the_metrics_page_is_open_metrics_and_its_counters_grow() {
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", "embedded");
    let gateway =
        GatewayProcess::start(&config, dir.path(), ProcessSwitches::default(), None).unwrap();
    let (code, page) = gateway.get("/metrics").unwrap();
    assert_eq!(code, 200);
    let before = open_metrics(&page);
    let mut client = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "c")).unwrap();
    for n in 0..7 {
        client
            .publish(&Message::new("raw/c", format!("c/{n}"), 1))
            .unwrap();
    }
    gateway.wait_forwarded(LONG).unwrap();
    let after = open_metrics(&gateway.get("/metrics").unwrap().1);
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>(),
        "the same metrics from the first moment on"
    );
    for (name, grown_by) in [
        ("risiti_mqtt_records_total", 7.0),
        ("risiti_mqtt_acknowledged_total", 7.0),
        ("risiti_mqtt_connections_opened_total", 1.0),
        ("risiti_kafka_forwarded_total{cluster=\"default\"}", 7.0),
        ("risiti_journal_end_position", 7.0),
    ] {
        assert_eq!(after[name] - before[name], grown_by, "{name}");
    }
    for (name, value) in &after {
        let counts = name.contains("_total");
        assert!(!counts || *value >= before[name], "{name} went back");
    }
    assert_eq!(
        after["risiti_kafka_backlog_records{cluster=\"default\"}"],
        0.0
    );
}
