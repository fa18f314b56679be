//! A terminal, and its way to a gateway.
//!
//! Promises: what its modem asks for, the network is asked for. Never: news of an
//! older connection taken for news of the one that is open.

use crate::contract::Ms;
use crate::network::{Network, Way};
use crate::scenario::Scenario;
use crate::terminal::{Ask, Line, Meant, Terminal};

/// A terminal, and its way to a gateway.
pub(super) struct Seat {
    pub terminal: Terminal,
    client: usize,
    /// Where a load balancer sends it now.
    pub gateway: usize,
    conn: Option<u64>,
    /// It gets power then; none: it has.
    dark_until_ms: Option<Ms>,
    /// How long a cut that is asked for will last.
    pub dark_ms: Ms,
    /// The way as it is when nothing is wrong with it, if something is.
    pub way: Option<Way>,
    meant: Vec<(String, u64)>,
}

impl Seat {
    pub(super) fn new(scenario: &Scenario, client: usize) -> Self {
        let meant: Vec<Meant> = scenario
            .payments
            .iter()
            .enumerate()
            .filter_map(|(index, payment)| {
                let payment = payment.filter(|payment| payment.terminal == client)?;
                Some(Meant {
                    index,
                    at_ms: payment.at_ms,
                    account: format!("{:04}", 1_000 + index),
                    amount_minor: 100 + 7 * index as u64,
                })
            })
            .collect();
        let contents = meant.iter();
        let contents = contents.map(|one| (one.account.clone(), one.amount_minor));
        let contents = contents.collect();
        let provision = scenario.terminals[client];
        let (seed, id) = (scenario.seed, format!("t{client}"));
        Self {
            terminal: Terminal::new(&id, provision, meant, scenario.controls, seed),
            client,
            gateway: client % scenario.gateways,
            conn: None,
            dark_until_ms: Some(0),
            dark_ms: 0,
            way: None,
            meant: contents,
        }
    }

    /// Its id and what will be paid there, for the reference.
    pub(super) fn book(&self) -> (String, Vec<(String, u64)>) {
        (self.terminal.id().to_owned(), self.meant.clone())
    }

    /// Nothing is wrong with it.
    pub(super) fn is_well(&self) -> bool {
        self.dark_until_ms.is_none() && !self.terminal.awaits_cut()
    }

    pub(super) fn due_ms(&self) -> Ms {
        self.dark_until_ms
            .unwrap_or(Ms::MAX)
            .min(self.terminal.due_ms())
    }

    pub(super) fn accepted(&mut self, conn: u64) {
        if self.conn == Some(conn) {
            self.terminal.line(Line::Open);
        }
    }

    pub(super) fn closed(&mut self, conn: u64) {
        if self.conn == Some(conn) {
            self.conn = None;
            let was = self.terminal.line_now();
            self.terminal.line(match was {
                Line::Opening => Line::Refused,
                _ => Line::Gone,
            });
        }
    }

    pub(super) fn received(&mut self, conn: u64, bytes: &[u8]) {
        if self.conn == Some(conn) {
            self.terminal.received(bytes);
        }
    }

    /// Lets it go on, if it is due.
    pub(super) fn step(&mut self, now_ms: Ms, network: &mut Network) -> Result<(), String> {
        if self.dark_until_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.dark_until_ms = None;
            self.terminal.power_up(now_ms);
        }
        if self.terminal.due_ms() > now_ms {
            return Ok(());
        }
        let goes_on = self.terminal.poll(now_ms)?;
        for ask in self.terminal.take_asks() {
            match (ask, self.conn) {
                (Ask::Open, _) => {
                    self.conn = Some(network.open(self.client, self.gateway, now_ms));
                }
                (Ask::Send(bytes), Some(conn)) => network.from_client(conn, bytes, now_ms),
                (Ask::Close, Some(conn)) => {
                    network.client_closes(conn, now_ms);
                    self.conn = None;
                }
                _ => {}
            }
        }
        if !goes_on {
            self.conn = None;
            network.client_vanishes(self.client);
            self.dark_until_ms = Some(now_ms + self.dark_ms);
        }
        Ok(())
    }
}
