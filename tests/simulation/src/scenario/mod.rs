//! From a seed to what happens in a run: who is there, what is paid, what fails.
//!
//! Promises: every fault heals by itself before the horizon; after it a long quiet
//! end follows, in which everything must arrive. What is drawn for one fault or
//! payment depends on its number alone, so that without it the others are what
//! they were. Never: a fault after the horizon.

mod draw;
pub mod fault;

pub use fault::{Fault, KINDS};

use crate::contract::{Controls, Ms};
use crate::network::Way;
use crate::terminal::Provision;

/// A payment that somebody comes to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// When.
    pub at_ms: Ms,
    /// At this terminal.
    pub terminal: usize,
}

/// What happens in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// What all chance in the run is drawn from.
    pub seed: u64,
    /// How terminals are provisioned; as many as there are.
    pub terminals: Vec<Provision>,
    /// How the way of each terminal, and last of hostile clients, is.
    pub ways: Vec<Way>,
    /// How many gateways are there.
    pub gateways: usize,
    /// How many instances of settlement are there.
    pub settlements: usize,
    /// Payments, by their number; none: taken out.
    pub payments: Vec<Option<Payment>>,
    /// Faults with their time, by their number; none: taken out.
    pub faults: Vec<Option<(Ms, Fault)>>,
    /// Everything is healed by then.
    pub horizon_ms: Ms,
    /// What is broken on purpose.
    pub controls: Controls,
}

/// Payments and faults come before this.
pub(crate) const BUSY_MS: Ms = 240_000;

/// All is healed by then.
pub(crate) const HORIZON_MS: Ms = 480_000;

/// The quiet end is given up after so long: a terminal that failed often looks for
/// its network once in an hour, and asks for a receipt once in an hour.
pub const QUIET_MS: Ms = 12 * 3_600_000;

impl Scenario {
    /// The scenario of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        draw::scenario(seed)
    }

    /// The same with something broken on purpose.
    #[must_use]
    pub fn with(mut self, controls: Controls) -> Self {
        self.controls = controls;
        self
    }

    /// What can be taken out: payments first, then faults, each by its number.
    #[must_use]
    pub fn parts(&self) -> Vec<usize> {
        let payments = self.payments.iter().map(Option::is_some);
        let faults = self.faults.iter().map(Option::is_some);
        let parts = payments.chain(faults).enumerate();
        parts.filter(|(_, there)| *there).map(|(n, _)| n).collect()
    }

    /// The same without these parts.
    #[must_use]
    pub fn without(mut self, parts: &[usize]) -> Self {
        for &part in parts {
            let fault = part.wrapping_sub(self.payments.len());
            if let Some(payment) = self.payments.get_mut(part) {
                *payment = None;
            } else if let Some(fault) = self.faults.get_mut(fault) {
                *fault = None;
            }
        }
        self
    }

    /// The number of the first fault as a part.
    #[must_use]
    pub fn first_fault(&self) -> usize {
        self.payments.len()
    }

    /// In words, a line each part.
    #[must_use]
    pub fn story(&self) -> String {
        let (terminals, gateways) = (self.terminals.len(), self.gateways);
        let mut story = format!(
            "{terminals} terminals, {gateways} gateways, {} instances of settlement\n",
            self.settlements
        );
        let mut lines: Vec<(Ms, String)> = Vec::new();
        for (part, payment) in self.payments.iter().enumerate() {
            if let Some(payment) = payment {
                let line = format!("part {part}: terminal {} pays", payment.terminal);
                lines.push((payment.at_ms, line));
            }
        }
        for (n, fault) in self.faults.iter().enumerate() {
            if let Some((at_ms, fault)) = fault {
                let part = n + self.first_fault();
                lines.push((*at_ms, format!("part {part}: {fault:?}")));
            }
        }
        lines.sort();
        for (at_ms, line) in lines {
            story.push_str(&format!("{at_ms:>8} ms  {line}\n"));
        }
        story
    }
}
