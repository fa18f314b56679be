//! The figures of `RELIABILITY.md`, made from the plan and the results.
//!
//! Promises: no figure that is not the sum of committed lines of results; where a
//! run failed, it is told, not left out, and nothing before it counts for the bound.
//! The bound is the rule of three: after N independent runs without a failure, the
//! chance of one in a run is at most 3/N, with 95 % confidence (Hanley and Lippman-Hand, "If nothing goes wrong, is
//! everything all right?", JAMA 249, 1983).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::plan::{Machine, Plan};
use crate::results::Seen;

/// Before the figures.
pub const BEGIN: &str = "<!-- figures: written by `make proof` -->";

/// Behind the figures.
pub const END: &str = "<!-- end of figures -->";

/// The document with these figures in it.
///
/// # Errors
/// It has no place for them.
pub fn with_figures(document: &str, figures: &str) -> Result<String, String> {
    let (before, rest) = document
        .split_once(BEGIN)
        .ok_or_else(|| format!("RELIABILITY.md has no line {BEGIN}"))?;
    let (_, behind) = rest
        .split_once(END)
        .ok_or_else(|| format!("RELIABILITY.md has no line {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{figures}\n{END}{behind}"))
}

/// The figures.
#[must_use]
pub fn figures(plan: &Plan, seen: &[Seen]) -> String {
    let mut text = String::from(
        "| what | tries to break | runs | aim | failed | runs since | at most, of a run (95 %) | hours | commits |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    for machine in &plan.machine {
        let own = of(machine, seen);
        let runs: u64 = own.iter().map(|seen| seen.said.runs).sum();
        let failures: u64 = own.iter().map(|seen| seen.said.failures).sum();
        let since = since_last_failure(&own);
        let seconds: u64 = own.iter().map(|seen| seen.seconds).sum();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {:.1} | {} |",
            machine.title,
            machine.guarantees,
            grouped(runs),
            grouped(machine.runs),
            failures,
            grouped(since),
            bound(since),
            seconds as f64 / 3_600.0,
            commits(&own),
        );
    }
    text += "\nA run is:\n\n";
    for machine in &plan.machine {
        let _ = writeln!(text, "- *{}*: {}", machine.title, machine.unit);
    }
    text += "\n### Commands\n\nEach begins with the first seed that is not in `tests/proof/results.jsonl` \
             yet (0 here); a line there says how to repeat it.\n\n```sh\n";
    for machine in &plan.machine {
        let environment = machine.environment(machine.asked(machine.runs_at_once), 0);
        let _ = writeln!(text, "{}", machine.typed(&environment));
    }
    text += "```\n\n### What happened in these runs\n\n| what | counted |\n| --- | --- |\n";
    for machine in &plan.machine {
        let counts = counts(machine, &of(machine, seen));
        if !counts.is_empty() {
            let _ = writeln!(text, "| {} | {counts} |", machine.title);
        }
    }
    text
}

fn of<'a>(machine: &Machine, seen: &'a [Seen]) -> Vec<&'a Seen> {
    seen.iter()
        .filter(|seen| machine.owns(&seen.said.what))
        .collect()
}

/// Numbers that add up, summed; a machine with several parts tells its runs.
fn counts(machine: &Machine, own: &[&Seen]) -> String {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for seen in own {
        if machine.what.ends_with('*') {
            let part = seen
                .said
                .what
                .trim_start_matches(machine.what.trim_end_matches('*'));
            *sums.entry(part).or_default() += seen.said.runs;
            continue;
        }
        for (name, value) in &seen.said.extra {
            // What is no count (a highest value, a fraction) can't be summed.
            let counted = !name.ends_with("_max") && !name.ends_with("_per_second");
            if let (true, Some(value)) = (counted, value.as_u64()) {
                *sums.entry(name).or_default() += value;
            }
        }
    }
    let told: Vec<String> = sums
        .iter()
        .map(|(name, sum)| format!("{} {}", grouped(*sum), name.replace('_', " ")))
        .collect();
    told.join(", ")
}

/// Runs behind the last line that tells of a failure of the same part: what they ran
/// on is mended.
fn since_last_failure(own: &[&Seen]) -> u64 {
    let mut since: BTreeMap<&str, u64> = BTreeMap::new();
    for seen in own {
        let part = since.entry(&seen.said.what).or_default();
        *part = match seen.said.failures {
            0 => *part + seen.said.runs,
            _ => 0,
        };
    }
    since.values().sum()
}

fn bound(runs: u64) -> String {
    match runs {
        0 => "not run yet".into(),
        _ => format!("{:.1e}", 3.0 / runs as f64),
    }
}

fn commits(own: &[&Seen]) -> String {
    let all: BTreeSet<&str> = own.iter().map(|seen| seen.commit.as_str()).collect();
    let named: Vec<String> = all
        .iter()
        .map(|commit| format!("`{}`", commit.get(..8).unwrap_or(commit)))
        .collect();
    named.join(" ")
}

/// With a comma after every third digit.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        let shown = [0, 999, 1_000, 12_345_678].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "12,345,678"]);
    }

    fn seen(what: &str, runs: u64, failures: u64) -> Seen {
        let said = format!(r#"PROOF {{"what":"{what}","runs":{runs},"failures":{failures}}}"#);
        Seen {
            said: crate::results::said(&said).expect("it is said so"),
            seconds: 0,
            ended: String::new(),
            commit: String::new(),
            product: String::new(),
            command: String::new(),
        }
    }

    #[test]
    fn only_runs_since_the_last_failure_of_a_part_bound_it() {
        let all = [
            seen("a", 500, 0),
            seen("b", 1_000, 0),
            seen("a", 300, 1),
            seen("a", 2_000, 0),
        ];
        let all: Vec<&Seen> = all.iter().collect();
        assert_eq!(since_last_failure(&all), 3_000);
        assert_eq!(since_last_failure(&all[..3]), 1_000);
        assert_eq!(bound(3_000), "1.0e-3");
        assert_eq!(bound(0), "not run yet");
    }

    #[test]
    fn figures_replace_figures_and_nothing_else() {
        let document = format!("before\n{BEGIN}\nold\n{END}\nbehind\n");
        let now = with_figures(&document, "new").expect("the place is there");
        assert_eq!(now, format!("before\n{BEGIN}\n\nnew\n{END}\nbehind\n"));
        assert_eq!(with_figures(&now, "new"), Ok(now));
        assert!(with_figures("no place", "new").is_err());
    }
}
