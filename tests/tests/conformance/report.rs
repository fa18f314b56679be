//! `tests/conformance/REPORT.md`, written from the data files and the cases' tags.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::statements::{STANDARDS, Statement, Statements};

/// How many cases of a statement are named; the others are counted.
const NAMED_MAX: usize = 3;

/// What was counted of one version, or of both.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Totals {
    pub statements: usize,
    pub by_cases: usize,
    /// By named tests, without any case.
    pub by_tests: usize,
    pub not_applicable: usize,
    pub deviations: usize,
}

impl Totals {
    pub fn of(statements: &Statements) -> Self {
        let count = |wanted: fn(&Statement) -> bool| {
            statements.all.iter().filter(|one| wanted(one)).count()
        };
        Self {
            statements: statements.all.len(),
            by_cases: count(|one| !one.cases.is_empty()),
            by_tests: count(|one| one.cases.is_empty() && !one.tests.is_empty()),
            not_applicable: count(|one| one.not.is_some()),
            deviations: count(|one| one.deviates.is_some()),
        }
    }
}

/// One of the totals.
type Count = fn(&Totals) -> usize;

/// How many cases there are: of the core, of those over TCP too, of several clients.
#[derive(Debug, Clone, Copy)]
pub struct Cases {
    pub core: usize,
    pub core_over_tcp: usize,
    pub gateway: usize,
}

/// The whole report.
pub fn write(all: &[Statements; 2], cases: Cases) -> String {
    let mut out = String::from(HEAD);
    let Cases {
        core,
        core_over_tcp,
        gateway,
    } = cases;
    let _ = writeln!(
        out,
        "{} wire cases, bytes in and bytes expected: {core} dialogues with the connection core\n\
         (`gateway/mqtt/tests/cases`), {core_over_tcp} of them also over TCP with the whole gateway, and\n\
         {gateway} of one or more clients with the whole gateway (`tests/conformance/cases`).\n",
        core + gateway
    );
    let _ = writeln!(
        out,
        "| | {} | {} |\n| --- | --- | --- |",
        STANDARDS[0].name, STANDARDS[1].name
    );
    let totals = [Totals::of(&all[0]), Totals::of(&all[1])];
    let rows: [(&str, Count); 5] = [
        ("normative statements", |t| t.statements),
        ("shown by wire cases", |t| t.by_cases),
        ("shown by named tests only", |t| t.by_tests),
        ("not applicable, with its reason", |t| t.not_applicable),
        ("of those shown, with a deviation that stays", |t| {
            t.deviations
        }),
    ];
    for (what, count) in rows {
        let _ = writeln!(
            out,
            "| {what} | {} | {} |",
            count(&totals[0]),
            count(&totals[1])
        );
    }
    out += "\n## Not applicable, by reason\n\n| | | |\n| --- | --- | --- |\n";
    let mut reasons: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (version, statements) in all.iter().enumerate() {
        for statement in &statements.all {
            if let Some(key) = &statement.not {
                let says = statements.reasons.get(key).map_or("?", |says| says);
                reasons.entry(says).or_default()[version] += 1;
            }
        }
    }
    for (says, [v4, v5]) in reasons {
        let _ = writeln!(out, "| {says} | {v4} | {v5} |");
    }
    out += "\n## Deviations that stay\n\n";
    for (standard, statements) in STANDARDS.iter().zip(all) {
        for statement in &statements.all {
            if let Some(how) = &statement.deviates {
                let _ = writeln!(out, "- {}, {}: {how}.", standard.name, statement.id);
            }
        }
    }
    for (standard, statements) in STANDARDS.iter().zip(all) {
        let _ = writeln!(
            out,
            "\n## {}\n\n| statement | binds | asks | shown by |\n| --- | --- | --- | --- |",
            standard.name
        );
        for statement in &statements.all {
            let Statement {
                id, binds, asks, ..
            } = statement;
            let _ = writeln!(
                out,
                "| {id} | {binds} | {} | {} |",
                escape(asks),
                shown_by(statement, statements)
            );
        }
    }
    out
}

fn shown_by(statement: &Statement, statements: &Statements) -> String {
    if let Some(key) = &statement.not {
        let says = statements.reasons.get(key).map_or("?", |says| says);
        return format!("not applicable: {}", escape(says));
    }
    let tests = statement.tests.iter().map(|test| format!("`{test}`"));
    let cases = statement
        .cases
        .iter()
        .take(NAMED_MAX)
        .map(|case| escape(case));
    let mut parts: Vec<_> = cases.chain(tests).collect();
    if statement.cases.len() > NAMED_MAX {
        parts.push(format!(
            "and {} cases more",
            statement.cases.len() - NAMED_MAX
        ));
    }
    parts.join("<br>")
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('*', "\\*")
}

const HEAD: &str = "\
# Conformance to MQTT

Written by `make conformance` from `mqtt-3.1.1.txt`, `mqtt-5.0.txt` and the tags of the
wire cases; a test fails if it is not what they say. Every normative statement of both
versions stands here by its identifier in Appendix B of the OASIS standards, in our own
words. Each that a server can violate has a case or a test.

";
