//! What is to be shown, how often, and by which command: `tests/proof/plan.toml`.
//!
//! Promises: a machine that the plan does not name is not run, and one that it
//! names is run by the very command that stands in the report.

use std::path::Path;

use serde::Deserialize;

use crate::results::Seen;

/// All machines.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// In the order in which they are run and reported.
    pub machine: Vec<Machine>,
}

/// A machine that tries to lose something.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name, as in its `PROOF` lines; a name that ends in `*` stands for all
    /// that begin so, whose runs count together.
    pub what: String,
    /// What it does, for people.
    pub title: String,
    /// Which guarantees it tries to break.
    pub guarantees: String,
    /// What one run is.
    pub unit: String,
    /// Runs that the whole proof takes.
    pub runs: u64,
    /// Runs that are asked for at once: what a session that ends early may lose.
    pub runs_at_once: u64,
    /// The environment variable that sets the number of runs.
    pub count: String,
    /// The environment variable that sets the first seed; without one the machine
    /// draws its own.
    #[serde(default)]
    pub seed: Option<String>,
    /// How many of `runs` one of that number is; fuzzing is asked for by seconds.
    #[serde(default = "one")]
    pub runs_each: u64,
    /// The command, words divided by blanks.
    pub command: String,
}

const fn one() -> u64 {
    1
}

impl Plan {
    /// Reads it.
    ///
    /// # Errors
    /// In words: the file, and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

impl Machine {
    /// Whether results of this name are its own.
    #[must_use]
    pub fn owns(&self, what: &str) -> bool {
        match self.what.strip_suffix('*') {
            Some(beginning) => what.starts_with(beginning),
            None => what == self.what,
        }
    }

    /// The number to ask for so that about `runs` are done.
    #[must_use]
    pub fn asked(&self, runs: u64) -> u64 {
        (runs.min(self.runs_at_once) / self.runs_each).max(1)
    }

    /// The first seed that none of its results has used: each begins where the one
    /// before it ended, so that no run is counted twice.
    #[must_use]
    pub fn next_seed(&self, seen: &[Seen]) -> u64 {
        let own = seen.iter().filter(|seen| self.owns(&seen.said.what));
        own.filter_map(|seen| Some(seen.said.seed.as_ref()?.as_u64()? + seen.said.runs))
            .max()
            .unwrap_or(0)
    }

    /// What its environment has to say.
    #[must_use]
    pub fn environment(&self, count: u64, seed: u64) -> Vec<(&str, String)> {
        let seed = self.seed.as_deref().map(|name| (name, seed.to_string()));
        let count = (self.count.as_str(), count.to_string());
        seed.into_iter().chain([count]).collect()
    }

    /// The command with its environment, to be typed in a shell.
    #[must_use]
    pub fn typed(&self, environment: &[(&str, String)]) -> String {
        let mut text = String::new();
        for (name, value) in environment {
            text += &format!("{name}={value} ");
        }
        text + &self.command
    }
}
