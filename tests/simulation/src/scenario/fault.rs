//! What may fail.
//!
//! Promises: each fault is one that the world has seen, and heals by itself. Never:
//! a fault that breaks a promise of what the product stands on (a sync that lies, a
//! committed transaction that is lost): those are the controls.

use crate::contract::Ms;
use crate::network::Knows;
use crate::terminal::Place;

/// A fault. Times are how long it lasts, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A terminal's power is cut, in the middle of its work.
    TerminalCut {
        /// Which.
        terminal: usize,
        /// Where.
        place: Place,
        /// For so long.
        dark_ms: Ms,
    },
    /// A terminal's modem finds no network.
    NoNetwork {
        /// Which.
        terminal: usize,
        /// For so long.
        for_ms: Ms,
    },
    /// What the network tells a terminal as time jumps.
    NetworkClock {
        /// Which.
        terminal: usize,
        /// By so much, s.
        by_s: i64,
    },
    /// A terminal's connections are lost with what is on its way.
    Loss {
        /// Which.
        terminal: usize,
        /// Who is told.
        knows: Knows,
    },
    /// Nothing comes through, either way; nothing is lost by it.
    Stall {
        /// Which.
        terminal: usize,
        /// For so long.
        for_ms: Ms,
    },
    /// A terminal loses its connection, and what it had sent arrives much later,
    /// beside a newer connection.
    Late {
        /// Which.
        terminal: usize,
        /// So much later.
        by_ms: Ms,
    },
    /// Bytes come one at a time.
    Crumbs {
        /// Which.
        terminal: usize,
        /// For so long.
        for_ms: Ms,
    },
    /// The load balancer sends a terminal to another gateway.
    Roam {
        /// Which.
        terminal: usize,
        /// There.
        gateway: usize,
    },
    /// A gateway is killed, or its power is cut: what was not synced may be lost,
    /// torn, or there.
    GatewayKill {
        /// Which.
        gateway: usize,
        /// After so many steps of its work.
        steps: u32,
        /// Whether its peers get a reset.
        tells: bool,
        /// For so long.
        down_ms: Ms,
    },
    /// A gateway is lost with its disk; another comes in its place.
    GatewayWipe {
        /// Which.
        gateway: usize,
        /// After so long.
        down_ms: Ms,
    },
    /// A gateway's wall clock jumps.
    GatewayClock {
        /// Which.
        gateway: usize,
        /// By so much.
        by_ms: i64,
    },
    /// A gateway's disk is full.
    DiskFull {
        /// Which.
        gateway: usize,
        /// For so long.
        for_ms: Ms,
    },
    /// Syncs of a gateway's disk fail.
    FailedSyncs {
        /// Which.
        gateway: usize,
        /// So many.
        syncs: u32,
    },
    /// A bit of what is on a gateway's disk flips, and it is started anew.
    FlippedBit {
        /// Which.
        gateway: usize,
        /// For so long.
        down_ms: Ms,
    },
    /// The forwarder of a gateway stands still: the coordinator aborts its
    /// transaction, and fences it.
    ForwarderHangs {
        /// Of which gateway.
        gateway: usize,
        /// After so many steps.
        steps: u32,
        /// For so long.
        for_ms: Ms,
    },
    /// The forwarder of a gateway is killed between two calls.
    ForwarderKill {
        /// Of which gateway.
        gateway: usize,
        /// After so many steps.
        steps: u32,
        /// For so long.
        down_ms: Ms,
    },
    /// An operator's tool takes the transactional identifier of a forwarder.
    Fence {
        /// Of which gateway.
        gateway: usize,
    },
    /// An instance of settlement is killed between two calls.
    SettlementKill {
        /// Which.
        instance: usize,
        /// After so many steps.
        steps: u32,
        /// For so long.
        down_ms: Ms,
    },
    /// An instance of settlement stands still: its partitions go to another.
    SettlementHangs {
        /// Which.
        instance: usize,
        /// After so many steps.
        steps: u32,
        /// For so long.
        for_ms: Ms,
    },
    /// No broker answers.
    KafkaDown {
        /// For so long.
        for_ms: Ms,
    },
    /// Brokers are slow.
    KafkaSlow {
        /// For so long.
        for_ms: Ms,
    },
    /// The next calls are done, and their answers lost.
    LostAnswers {
        /// So many.
        calls: u32,
    },
    /// The next calls fail, with nothing done.
    FailedCalls {
        /// So many.
        calls: u32,
    },
    /// A client that is none: rubbish, others' topics, half packets. And somebody
    /// behind a gateway who forges a record and a receipt for each of its connections.
    Hostile {
        /// At this gateway.
        gateway: usize,
        /// So many connections.
        connections: u32,
    },
}

/// The kinds of faults, by name.
pub const KINDS: [&str; 24] = [
    "terminal cut",
    "no network",
    "network clock",
    "loss",
    "stall",
    "late bytes",
    "crumbs",
    "roam",
    "gateway kill",
    "gateway wipe",
    "gateway clock",
    "disk full",
    "failed syncs",
    "flipped bit",
    "forwarder hangs",
    "forwarder kill",
    "fence",
    "settlement kill",
    "settlement hangs",
    "kafka down",
    "kafka slow",
    "lost answers",
    "failed calls",
    "hostile client",
];

impl Fault {
    /// Which of [`KINDS`] it is.
    #[must_use]
    pub fn kind(&self) -> usize {
        match self {
            Self::TerminalCut { .. } => 0,
            Self::NoNetwork { .. } => 1,
            Self::NetworkClock { .. } => 2,
            Self::Loss { .. } => 3,
            Self::Stall { .. } => 4,
            Self::Late { .. } => 5,
            Self::Crumbs { .. } => 6,
            Self::Roam { .. } => 7,
            Self::GatewayKill { .. } => 8,
            Self::GatewayWipe { .. } => 9,
            Self::GatewayClock { .. } => 10,
            Self::DiskFull { .. } => 11,
            Self::FailedSyncs { .. } => 12,
            Self::FlippedBit { .. } => 13,
            Self::ForwarderHangs { .. } => 14,
            Self::ForwarderKill { .. } => 15,
            Self::Fence { .. } => 16,
            Self::SettlementKill { .. } => 17,
            Self::SettlementHangs { .. } => 18,
            Self::KafkaDown { .. } => 19,
            Self::KafkaSlow { .. } => 20,
            Self::LostAnswers { .. } => 21,
            Self::FailedCalls { .. } => 22,
            Self::Hostile { .. } => 23,
        }
    }
}
