//! The house is the same after each round of whatever a year brings: a minute of
//! the soak that `make soak HOURS=n` runs for hours, and the controls that show that
//! its judge would see a leak.
//!
//! `RISITI_SOAK_HOURS=8` runs it for so long, with the bounds of a long run.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::path::{Path, PathBuf};

use risiti_tests::asked::seed;
use risiti_tests::soak::judge::{Finding, Quantity, Series, judge};
use risiti_tests::soak::leaky::{Leak, Leaky};
use risiti_tests::soak::sample::usage;
use risiti_tests::soak::{Plan, limits, run};

fn soak() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_soak"))
}

fn risiti() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_risiti_under_test"))
}

#[test]
fn g8_the_house_is_the_same_after_each_round_of_a_year() {
    let dir = tempfile::tempdir().unwrap();
    let hours: Option<f64> = std::env::var("RISITI_SOAK_HOURS")
        .ok()
        .map(|hours| hours.parse().unwrap());
    let plan = Plan {
        seed: seed(),
        ..match hours {
            Some(hours) => Plan::hours(hours, risiti(), dir.path().to_owned()),
            None => Plan::short(risiti(), dir.path().to_owned()),
        }
    };
    let report = run(&plan).unwrap();
    println!("{}", report.text());
    println!("{}", report.proof());
    assert!(report.is_good(), "{}", report.wrong.join("\n"));
    assert!(report.payments > 0 && report.payments == report.printed);
    assert!(report.peaks.backlog > 0 && report.peaks.waiting > 0);
    let picture = std::fs::read_to_string(dir.path().join("soak.svg")).unwrap();
    assert!(picture.contains("gateway-1") && picture.contains("settlement"));
    let table = std::fs::read_to_string(dir.path().join("samples.csv")).unwrap();
    assert!(table.lines().count() > 20 * report.cycles, "{table}");
}

/// So many steps of a process that leaks, as a soak sees them.
fn leaking(leak: Leak) -> Vec<Finding> {
    const CYCLES: usize = 16;
    let mut leaky = Leaky::start(soak(), leak).unwrap();
    let quantities = [
        Quantity::MemoryBytes,
        Quantity::Descriptors,
        Quantity::Threads,
    ];
    let mut series = quantities.map(|quantity| Series {
        process: "leaky".into(),
        quantity,
        values: Vec::new(),
    });
    for _ in 0..CYCLES {
        leaky.step().unwrap();
        let usage = usage(leaky.pid(), None).unwrap();
        let values = [usage.anonymous_bytes, usage.descriptors, usage.threads];
        for (series, value) in series.iter_mut().zip(values) {
            series.values.push(value as f64);
        }
    }
    judge(&series, limits::WARM_UP_MIN, &limits::STRICT).unwrap()
}

fn growing(findings: &[Finding]) -> Vec<Quantity> {
    let growing = findings.iter().filter(|finding| finding.grows);
    growing.map(|finding| finding.quantity).collect()
}

#[test]
fn control_a_process_that_leaks_a_descriptor_a_cycle_is_convicted() {
    let findings = leaking(Leak {
        descriptors: 1,
        bytes: 0,
    });
    assert_eq!(growing(&findings), [Quantity::Descriptors], "{findings:?}");
}

#[test]
fn control_a_process_that_leaks_half_a_mebibyte_a_cycle_is_convicted() {
    let findings = leaking(Leak {
        descriptors: 0,
        bytes: 512 * 1024,
    });
    assert_eq!(growing(&findings), [Quantity::MemoryBytes], "{findings:?}");
}

#[test]
fn control_the_same_process_without_a_leak_is_not() {
    let findings = leaking(Leak {
        descriptors: 0,
        bytes: 0,
    });
    assert_eq!(growing(&findings), [], "{findings:?}");
}
