//! Conformance to MQTT 3.1.1 and 5.0: wire cases with the whole gateway, and the list
//! of every normative statement with what shows it.
//!
//! The data stand in `tests/conformance`; the cases of the connection core, which
//! run here over TCP as far as a gateway can have them, in `gateway/mqtt/tests/cases`.
//! `RISITI_REPORT=write` writes `tests/conformance/REPORT.md` instead of comparing it;
//! `RISITI_CASE=words` runs the cases whose name holds these words.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

#[path = "../../../gateway/mqtt/tests/support/mod.rs"]
mod support;

#[allow(dead_code)] // the other tests use the rest
#[path = "../mqtt_gateway/house.rs"]
mod house;

mod core_cases;
mod dialogue;
mod over_tcp;
mod report;
mod statements;

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use dialogue::{Free, play};
use house::House;
use over_tcp::{Heard, Live, Replay, is_free};
use report::{Cases, Totals};
use statements::{STANDARDS, Statements, root};
use support::script::{Case, cases};

/// Every case of several clients, with its file's name.
fn gateway_cases() -> Vec<(String, Case)> {
    let mut files: Vec<_> = fs::read_dir(root().join("conformance/cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .flat_map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            cases(&text)
                .into_iter()
                .map(move |case| (name.clone(), case))
        })
        .collect()
}

/// The bounds that the connection core has by default: its cases hold here too.
fn usual(config: &mut risiti_config::Config) {
    config.mqtt.limits.packet_bytes_max = risiti_config::ByteSize::kib(256);
}

/// The configurations that cases may ask for, all with a clock that stands.
fn build(house: &str) -> House {
    House::with_clock(match house {
        "usual" => usual,
        "short sessions" => |config| {
            usual(config);
            config.mqtt.limits.session_expiry_s_max = 100;
        },
        "keep alive" => |config| {
            usual(config);
            config.mqtt.limits.keepalive_s_max = 30;
        },
        "two aliases" => |config| config.mqtt.limits.topic_alias_maximum = 2,
        "small packets" => |config| {
            config.mqtt.limits.packet_bytes_max = risiti_config::ByteSize::kib(1);
        },
        "window of two" => |config| {
            usual(config);
            config.mqtt.limits.receive_maximum = 2;
        },
        "three subscriptions" => |config| {
            config.mqtt.limits.subscriptions_per_session_max = 3;
        },
        other => panic!("no house «{other}»"),
    })
}

/// Starting and stopping a gateway is mostly waiting, for the disk and for Kafka.
const HOUSES_AT_ONCE: usize = 8;

/// Plays a case and returns what the gateway said, and what of it could be other. A
/// case that panics has failed, and no other.
fn run(house: &mut House, case: &Case) -> Result<(Vec<Heard>, Vec<Free>), String> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut live = Live::new(house);
        let free = play(case, &mut live)?;
        Ok((live.heard, free))
    }));
    played.unwrap_or_else(|_| Err(format!("{}: it panicked", case.name)))
}

fn wanted(case: &Case) -> bool {
    std::env::var("RISITI_CASE").map_or(true, |words| case.name.contains(&words))
}

#[test]
fn every_dialogue_with_the_gateway_goes_as_the_standard_says() {
    let begun = Instant::now();
    let all: Vec<_> = gateway_cases()
        .into_iter()
        .filter(|(_, case)| wanted(case))
        .collect();
    let core: Vec<_> = core_cases::all()
        .into_iter()
        .filter_map(|(file, case)| Some((file, core_cases::over_tcp(&case)?)))
        .filter(|(_, case)| wanted(case))
        .collect();
    let failures = Mutex::new(Vec::new());
    let unnoticed = Mutex::new(Vec::new());
    let (flips, turn) = (Mutex::new(0), Mutex::new(all.iter()));
    std::thread::scope(|scope| {
        for _ in 0..HOUSES_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((file, case)) = turn.lock().unwrap().next() else {
                        break;
                    };
                    // Each has a gateway of its own: no case can help another.
                    let mut house = build(dialogue::house(case));
                    match run(&mut house, case) {
                        Err(error) => failures.lock().unwrap().push(format!("{file}: {error}")),
                        Ok((heard, free)) => {
                            let missed = wrong_bits_that_nobody_notices(case, &heard, &free);
                            *flips.lock().unwrap() += missed.0;
                            unnoticed.lock().unwrap().extend(missed.1);
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut house = build("usual");
            for (file, case) in &core {
                if let Err(error) = run(&mut house, case) {
                    failures
                        .lock()
                        .unwrap()
                        .push(format!("{file} over TCP: {error}"));
                    house = build("usual");
                }
            }
        });
    });
    let failures = failures.into_inner().unwrap();
    let unnoticed = unnoticed.into_inner().unwrap();
    let flips = flips.into_inner().unwrap();
    let totals = joined().1;
    let sum = |count: fn(&Totals) -> usize| totals.iter().map(count).sum::<usize>();
    println!(
        r#"PROOF {{"what":"conformance","guarantees":"G9","runs":{},"failures":{},"seed":0,"seconds":{},"extra":{{"statements":{},"shown":{},"not_applicable":{},"core_cases":{},"core_cases_over_tcp":{},"gateway_cases":{},"wrong_bits_noticed":{}}}}}"#,
        core_cases::all().len() + core.len() + all.len(),
        failures.len(),
        begun.elapsed().as_secs(),
        sum(|t| t.statements),
        sum(|t| t.by_cases + t.by_tests),
        sum(|t| t.not_applicable),
        core_cases::all().len(),
        core.len(),
        all.len(),
        flips - unnoticed.len(),
    );
    assert!(
        failures.is_empty() && unnoticed.is_empty(),
        "{} cases failed:\n{}\nwrong bits that nobody notices:\n{}",
        failures.len(),
        failures.join("\n"),
        unnoticed.join("\n")
    );
}

/// Plays the case against what was said with one bit of each byte changed: how many
/// there were, and those with which the case still holds.
fn wrong_bits_that_nobody_notices(
    case: &Case,
    heard: &[Heard],
    free: &[Free],
) -> (usize, Vec<String>) {
    let mut flips = 0;
    let mut missed = Vec::new();
    if let Err(error) = play(case, &mut Replay::new(heard)) {
        missed.push(format!("its own record fails: {error}"));
    }
    for (connection, said) in heard.iter().enumerate() {
        for at in 0..said.bytes.len() {
            if is_free(free, &said.connection, at) {
                continue;
            }
            flips += 1;
            let mut wrong = Replay::with_wrong_bit(heard, connection, at, at % 8);
            if play(case, &mut wrong).is_ok() {
                missed.push(format!("{}: {}, byte {at}", case.name, said.connection));
            }
        }
    }
    (flips, missed)
}

/// A gateway that closes when it should not, or goes on when it should close, or says
/// a byte more, is seen.
#[test]
fn control_a_dialogue_that_ends_otherwise_fails() {
    let mut house = build("usual");
    for wrong in [
        "== a\na open v4\na > 30{ '' }\na quiet",
        "== b\na open v4\na > c000\na quiet\na quiet",
        "== c\na open v5\na > 30{ '' {} }\na < disconnect 81\na ends",
        "== d\na open v4 present",
        "== e\na open v4\na > 82{ 0001 'a' 00 }\na < 90 03 0001 01",
        "== f\na open v4\na > 82{ 0001 'a' 01 }\na < 90 03 0001 01\na > 32{ 'a' 0001 } 32{ 'a' 0002 }\na <~ 40020001 ;; 40020002 ;; 32{ 'a' @x } ;; 32{ 'a' @x }",
    ] {
        let case = cases(wrong).remove(0);
        assert!(run(&mut house, &case).is_err(), "{}", case.name);
        house = build("usual");
    }
}

/// Both lists with what shows each statement, their totals, and what is wrong.
fn joined() -> ([Statements; 2], [Totals; 2], Vec<String>) {
    let mut faults = Vec::new();
    let all = STANDARDS.each_ref().map(|standard| {
        let mut statements = Statements::read(standard);
        for (file, case) in core_cases::all() {
            faults.extend(statements.take(standard.tag, file, &case));
        }
        for (file, case) in gateway_cases() {
            faults.extend(statements.take(standard.tag, &file, &case));
        }
        faults.extend(statements.faults(standard));
        statements
    });
    let totals = all.each_ref().map(Totals::of);
    (all, totals, faults)
}

#[test]
fn every_statement_that_a_server_can_violate_has_a_case_or_a_test() {
    let faults = joined().2;
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn there_are_enough_cases_and_no_two_of_a_name() {
    let core = core_cases::all().into_iter();
    let names: Vec<_> = core
        .map(|(file, case)| (file.to_owned(), case.name))
        .chain(gateway_cases().into_iter().map(|(f, c)| (f, c.name)))
        .collect();
    assert!(names.len() >= 450, "{}", names.len());
    let different: HashSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len());
}

/// What the checks above would find: each of these lists is wrong in one way.
#[test]
fn control_a_list_with_a_hole_is_found() {
    let standard = &STANDARDS[0];
    let case =
        cases("== a case\nshows v4:MQTT-1.0.0-1 v4:MQTT-9.9.9-9 v6:MQTT-1.0.0-1 x").remove(0);
    let faults_of = |text: &str| Statements::parse(text).unwrap().faults(standard).join("\n");
    for (text, fault) in [
        ("MQTT-1.0.0-1 | both | a", "neither case, test nor reason"),
        ("MQTT-1.0.0-1 | both | a | not here", "no reason «here»"),
        ("MQTT-1.0.0-1 | nobody | a", "binds «nobody»"),
        (
            "MQTT-1.0.0-1 | both | a\nMQTT-1.0.0-1 | both | a",
            "stands twice",
        ),
        (
            "MQTT-1.0.0-1 | both | a | test tests/tests/house.rs::there_is_no_such_test",
            "no test",
        ),
        (
            "reason client = c\nMQTT-1.0.0-1 | both | a | not client",
            "the server too",
        ),
        ("MQTT-1.0.0-1 | both | a", "has 141 statements, not 1"),
    ] {
        assert!(
            faults_of(text).contains(fault),
            "{text}: {}",
            faults_of(text)
        );
    }
    let mut statements = Statements::parse("MQTT-1.0.0-1 | both | a | not here").unwrap();
    let wrong = statements.take("v4", "file", &case);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(statements.faults(standard)[0].contains("is shown, and not here"));
}

#[test]
fn the_report_says_what_the_lists_and_the_cases_say() {
    let core = core_cases::all();
    let core_over_tcp = core
        .iter()
        .filter(|(_, case)| core_cases::over_tcp(case).is_some())
        .count();
    let counted = Cases {
        core: core.len(),
        core_over_tcp,
        gateway: gateway_cases().len(),
    };
    let report = report::write(&joined().0, counted);
    let path = root().join("conformance/REPORT.md");
    if std::env::var("RISITI_REPORT").is_ok_and(|what| what == "write") {
        fs::write(&path, &report).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == report,
        "tests/conformance/REPORT.md is stale: run `make conformance`"
    );
}
