//! A failing scenario made small: delta debugging over payments and faults.
//!
//! Promises: what is left still breaks the same guarantee, and nothing of it can be
//! left out alone. Never: more runs than a bound.
//!
//! After A. Zeller, R. Hildebrandt: Simplifying and Isolating Failure-Inducing
//! Input, IEEE Transactions on Software Engineering 28 (2), 2002: `ddmin`.

use crate::reference::Violation;
use crate::runs::attempt;
use crate::scenario::Scenario;

/// Runs that a shrinking may take: some seconds.
const RUNS_MAX: usize = 600;

/// A scenario that can't be made smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// What is left.
    pub scenario: Scenario,
    /// What was left out, by its number.
    pub without: Vec<usize>,
    /// What it still breaks.
    pub violation: Violation,
    /// Runs that it took.
    pub runs: usize,
}

/// Makes a scenario small that breaks this guarantee.
#[must_use]
pub fn shrink(scenario: &Scenario, violation: &Violation) -> Shrunk {
    let all = scenario.parts();
    let mut shrinking = Shrinking {
        scenario,
        all: &all,
        violation: violation.clone(),
        runs: 0,
    };
    let kept = shrinking.ddmin(all.clone());
    let without = shrinking.others(&kept);
    Shrunk {
        scenario: scenario.clone().without(&without),
        without,
        violation: shrinking.violation,
        runs: shrinking.runs,
    }
}

struct Shrinking<'a> {
    scenario: &'a Scenario,
    all: &'a [usize],
    violation: Violation,
    runs: usize,
}

impl Shrinking<'_> {
    fn others(&self, kept: &[usize]) -> Vec<usize> {
        let others = self.all.iter().filter(|part| !kept.contains(part));
        others.copied().collect()
    }

    /// Whether these parts alone still break the guarantee.
    fn fails(&mut self, kept: &[usize]) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let without = self.others(kept);
        match attempt(&self.scenario.clone().without(&without)) {
            Err(failure) if failure.violation.guarantee == self.violation.guarantee => {
                self.violation = failure.violation;
                true
            }
            _ => false,
        }
    }

    fn ddmin(&mut self, mut parts: Vec<usize>) -> Vec<usize> {
        let mut pieces = 2;
        while !parts.is_empty() {
            pieces = pieces.min(parts.len());
            let size = parts.len().div_ceil(pieces);
            let chunks: Vec<Vec<usize>> = parts.chunks(size).map(<[usize]>::to_vec).collect();
            let without = |chunk: &Vec<usize>| -> Vec<usize> {
                let rest = parts.iter().filter(|part| !chunk.contains(part));
                rest.copied().collect()
            };
            let smaller: Vec<Vec<usize>> = chunks.iter().map(without).collect();
            if let Some(chunk) = chunks
                .iter()
                .find(|chunk| chunk.len() < parts.len() && self.fails(chunk))
            {
                parts.clone_from(chunk);
                pieces = 2;
            } else if let Some(rest) = smaller.into_iter().find(|rest| self.fails(rest)) {
                parts = rest;
                pieces = (pieces - 1).max(2);
            } else if pieces < parts.len() {
                pieces *= 2;
            } else {
                break;
            }
        }
        parts
    }
}
