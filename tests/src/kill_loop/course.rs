//! What happens to a house, round by round.
//!
//! Promises: with one seed, the same rounds; a deck is dealt to its end before it is
//! shuffled again, so that a run of its length has met every kind. Never: a clock or
//! a random source; chances come from the seed.

use std::time::Duration;

use fastrand::Rng;
use risiti_bridge::receipts::ReceiptsFault;

use crate::fault_proxy::{Connecting, CutAfter, Direction, End, Fault, FaultProxy};
use crate::gateway_process::KillAt;
use crate::settlement_process::SettlementKillAt;

use super::{GATEWAYS, SETTLEMENTS};

/// A process of the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The n-th gateway.
    Gateway(usize),
    /// The n-th settlement.
    Settlement(usize),
    /// The broker.
    Kafka,
}

/// A card of the deck: what is done to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// A gateway is killed at any moment.
    Gateway,
    /// A gateway is killed, and kills itself at one of its places.
    GatewayAt(&'static [Place]),
    /// A gateway is killed, and again while it starts.
    GatewayStarting,
    /// Both gateways are killed.
    Gateways,
    /// A settlement is killed at any moment.
    Settlement,
    /// A settlement is killed, and kills itself at one of its places.
    SettlementAt(&'static [SettlementPlace]),
    /// Both settlements are killed.
    Settlements,
    /// A gateway and a settlement are killed.
    GatewayAndSettlement,
    /// The broker is killed.
    Kafka,
    /// The broker and a gateway are killed.
    KafkaAndGateway,
    /// The broker is stopped in order.
    KafkaStopped,
    /// A gateway hangs for longer than its transaction may take.
    GatewayFrozen,
    /// The same inside a transaction: the broker aborts it meanwhile.
    GatewayFrozenAt,
    /// A settlement hangs for longer than its session and its transaction.
    SettlementFrozen,
    /// The same inside a transaction: the broker aborts it, and the other settlement
    /// takes its partitions.
    SettlementFrozenAt,
    /// The broker hangs for longer than its session with the controller.
    KafkaFrozen,
}

/// A place at which a gateway kills itself.
pub type Place = fn(u64) -> KillAt;

/// All that a sound gateway comes to.
pub const PLACES: &[Place] = &[
    KillAt::InsideBatch,
    KillAt::AfterSend,
    KillAt::AfterCommit,
    |nth| KillAt::Receipts(ReceiptsFault::BeforeCommit, nth),
    |nth| KillAt::Receipts(ReceiptsFault::AfterCommit, nth),
    |nth| KillAt::Receipts(ReceiptsFault::BeforeEvent, nth),
    |nth| KillAt::Receipts(ReceiptsFault::BeforeDeletion, nth),
    |nth| KillAt::Receipts(ReceiptsFault::AfterDeletion, nth),
];

/// A place at which a settlement kills itself.
pub type SettlementPlace = fn(u64) -> SettlementKillAt;

/// All of them.
pub const SETTLEMENT_PLACES: &[SettlementPlace] = &[
    SettlementKillAt::InsideTransaction,
    SettlementKillAt::AfterSend,
    SettlementKillAt::AfterCommit,
];

/// The deck: some 50 kills.
pub const DECK: &[(u32, Card)] = &[
    (8, Card::Gateway),
    (6, Card::GatewayAt(PLACES)),
    (2, Card::GatewayStarting),
    (1, Card::Gateways),
    (5, Card::Settlement),
    (4, Card::SettlementAt(SETTLEMENT_PLACES)),
    (1, Card::Settlements),
    (2, Card::GatewayAndSettlement),
    (2, Card::Kafka),
    (1, Card::KafkaAndGateway),
    (1, Card::KafkaStopped),
    (1, Card::GatewayFrozen),
    (1, Card::GatewayFrozenAt),
    (1, Card::SettlementFrozen),
    (1, Card::SettlementFrozenAt),
    (1, Card::KafkaFrozen),
];

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL to each at once, and a start after the dark.
    Kill(Part, Option<Part>),
    /// A gateway is killed, and kills itself there.
    GatewayAt(usize, KillAt),
    /// A gateway is killed, and again so long after its start.
    GatewayStarting(usize, Duration),
    /// A settlement is killed, and kills itself there.
    SettlementAt(usize, SettlementKillAt),
    /// SIGTERM to the broker.
    StopKafka,
    /// SIGSTOP, and SIGCONT so much later. Other rounds go on meanwhile.
    Freeze(Part, Duration),
    /// A gateway is killed, and stops itself there for so long.
    FreezeGatewayAt(usize, KillAt, Duration),
    /// A settlement is killed, and stops itself there for so long.
    FreezeSettlementAt(usize, SettlementKillAt, Duration),
}

/// A wire of the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// From the terminals of the n-th gateway to it.
    Terminals(usize),
    /// From the n-th gateway to the broker.
    Gateway(usize),
    /// From the n-th settlement to the broker.
    Settlement(usize),
}

/// What goes wrong on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Delay and jitter both ways.
    Slow(Duration),
    /// So many bytes a second both ways.
    Narrow(u64),
    /// So many bytes at a time both ways.
    Pieces(usize),
    /// One side does not read.
    Unread(Direction),
    /// Half-open: bytes of one direction, or of both, vanish.
    Vanishing(Option<Direction>),
    /// All connections are cut.
    Cut(End),
    /// Every connection is cut in the middle of what it carries.
    CutInside(CutAfter),
    /// New connections stay silent, those that there are are cut.
    Silent,
    /// New connections are refused, those that there are are cut.
    Refused,
}

impl Trouble {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Slow(_) => "slow",
            Self::Narrow(_) => "narrow",
            Self::Pieces(1) => "byte_at_a_time",
            Self::Pieces(_) => "pieces",
            Self::Unread(_) => "unread",
            Self::Vanishing(_) => "half_open",
            Self::Cut(End::Fin) => "cut_fin",
            Self::Cut(End::Reset) => "cut_reset",
            Self::CutInside(_) => "cut_inside",
            Self::Silent => "silent",
            Self::Refused => "refused",
        }
    }

    /// Lets it happen.
    pub fn befall(&self, proxy: &FaultProxy) {
        let both = |fault| {
            proxy.set(Direction::Up, fault);
            proxy.set(Direction::Down, fault);
        };
        match self {
            Self::Slow(delay) => both(Fault::slow(*delay)),
            Self::Narrow(rate) => both(Fault::narrow(*rate)),
            Self::Pieces(bytes) => both(Fault::in_pieces(*bytes)),
            Self::Unread(direction) => proxy.set(*direction, Fault::UNREAD),
            Self::Vanishing(Some(direction)) => proxy.set(*direction, Fault::VANISHING),
            Self::Vanishing(None) => both(Fault::VANISHING),
            Self::Cut(end) => proxy.cut(*end),
            Self::CutInside(cut) => proxy.cut_after(*cut),
            Self::Silent => {
                proxy.set_connecting(Connecting::Silent);
                proxy.cut(End::Reset);
            }
            Self::Refused => {
                proxy.set_connecting(Connecting::Refused);
                proxy.cut(End::Reset);
            }
        }
    }

    fn draw(kind: usize, chance: &mut Rng) -> Self {
        let direction = |chance: &mut Rng| match chance.bool() {
            true => Direction::Up,
            false => Direction::Down,
        };
        match kind {
            0 => Self::Slow(Duration::from_millis(chance.u64(20..400))),
            1 => Self::Narrow(chance.u64(1_000..50_000)),
            2 => Self::Pieces(1),
            3 => Self::Pieces(chance.usize(2..200)),
            4 | 5 => Self::Unread(direction(chance)),
            6 | 7 => Self::Vanishing(Some(direction(chance))),
            8 => Self::Vanishing(None),
            9 => Self::Cut(End::Fin),
            10 => Self::Cut(End::Reset),
            11 | 12 => Self::CutInside(CutAfter {
                direction: direction(chance),
                bytes: chance.u64(1..20_000),
                end: match chance.bool() {
                    true => End::Fin,
                    false => End::Reset,
                },
            }),
            13 => Self::Silent,
            _ => Self::Refused,
        }
    }

    /// Kinds that [`Self::draw`] knows.
    const KINDS: usize = 15;
}

/// What happens within a few seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// What goes wrong on which wire, from the beginning of the round to its end.
    pub trouble: Option<(Wire, Trouble)>,
    /// From the beginning to the blow.
    pub before: Duration,
    /// What is done to whom.
    pub blow: Blow,
    /// From the blow to the start of who was killed.
    pub dark: Duration,
    /// From there to the end.
    pub after: Duration,
}

/// Rounds without end.
#[derive(Debug)]
pub struct Course {
    chance: Rng,
    deck: &'static [(u32, Card)],
    cards: Vec<Card>,
    kinds: Vec<usize>,
    wires: Vec<Wire>,
    /// Places take turns.
    place: usize,
}

impl Course {
    /// A course of its own for each seed.
    #[must_use]
    pub fn new(seed: u64, deck: &'static [(u32, Card)]) -> Self {
        let mut chance = Rng::with_seed(seed);
        Self {
            place: chance.usize(..PLACES.len()),
            chance,
            deck,
            cards: Vec::new(),
            kinds: Vec::new(),
            wires: Vec::new(),
        }
    }

    fn deal(&mut self) -> Card {
        if self.cards.is_empty() {
            for (count, card) in self.deck {
                self.cards.extend((0..*count).map(|_| *card));
            }
            self.chance.shuffle(&mut self.cards);
        }
        self.cards.pop().expect("a deck has cards")
    }

    fn trouble(&mut self) -> (Wire, Trouble) {
        if self.kinds.is_empty() {
            self.kinds.extend(0..Trouble::KINDS);
            self.chance.shuffle(&mut self.kinds);
        }
        if self.wires.is_empty() {
            self.wires.extend((0..GATEWAYS).map(Wire::Terminals));
            self.wires.extend((0..GATEWAYS).map(Wire::Gateway));
            self.wires.extend((0..SETTLEMENTS).map(Wire::Settlement));
            self.chance.shuffle(&mut self.wires);
        }
        let kind = self.kinds.pop().expect("filled above");
        let wire = self.wires.pop().expect("filled above");
        (wire, Trouble::draw(kind, &mut self.chance))
    }

    fn blow(&mut self) -> Blow {
        let card = self.deal();
        let chance = &mut self.chance;
        let gateway = chance.usize(..GATEWAYS);
        let settlement = chance.usize(..SETTLEMENTS);
        match card {
            Card::Gateway => Blow::Kill(Part::Gateway(gateway), None),
            Card::GatewayAt(places) => {
                self.place += 1;
                let place = places[self.place % places.len()];
                Blow::GatewayAt(gateway, place(chance.u64(1..=3)))
            }
            Card::GatewayStarting => {
                Blow::GatewayStarting(gateway, Duration::from_millis(chance.u64(0..300)))
            }
            Card::Gateways => Blow::Kill(Part::Gateway(0), Some(Part::Gateway(1))),
            Card::Settlement => Blow::Kill(Part::Settlement(settlement), None),
            Card::SettlementAt(places) => {
                let place = places[chance.usize(..places.len())];
                Blow::SettlementAt(settlement, place(chance.u64(1..=3)))
            }
            Card::Settlements => Blow::Kill(Part::Settlement(0), Some(Part::Settlement(1))),
            Card::GatewayAndSettlement => {
                Blow::Kill(Part::Gateway(gateway), Some(Part::Settlement(settlement)))
            }
            Card::Kafka => Blow::Kill(Part::Kafka, None),
            Card::KafkaAndGateway => Blow::Kill(Part::Kafka, Some(Part::Gateway(gateway))),
            Card::KafkaStopped => Blow::StopKafka,
            Card::GatewayFrozen => Blow::Freeze(Part::Gateway(gateway), FREEZE_GATEWAY),
            Card::GatewayFrozenAt => {
                let place = match chance.bool() {
                    true => KillAt::InsideBatch(chance.u64(1..=3)),
                    false => KillAt::AfterSend(chance.u64(1..=3)),
                };
                Blow::FreezeGatewayAt(gateway, place, FREEZE_GATEWAY)
            }
            Card::SettlementFrozen => Blow::Freeze(Part::Settlement(settlement), FREEZE_SETTLEMENT),
            Card::SettlementFrozenAt => {
                let place = match chance.bool() {
                    true => SettlementKillAt::InsideTransaction(chance.u64(1..=3)),
                    false => SettlementKillAt::AfterSend(chance.u64(1..=3)),
                };
                Blow::FreezeSettlementAt(settlement, place, FREEZE_SETTLEMENT)
            }
            Card::KafkaFrozen => Blow::Freeze(Part::Kafka, FREEZE_KAFKA),
        }
    }
}

impl Iterator for Course {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let ms = |chance: &mut Rng, most| Duration::from_millis(chance.u64(0..most));
        // One round in two.
        let troubled = self.chance.bool();
        Some(Round {
            trouble: troubled.then(|| self.trouble()),
            blow: self.blow(),
            before: ms(&mut self.chance, 1_500),
            dark: ms(&mut self.chance, 1_200),
            after: ms(&mut self.chance, 1_500),
        })
    }
}

/// Longer than [`super::house::GATEWAY_TRANSACTION_MS`] and the broker's look for
/// transactions that have timed out.
const FREEZE_GATEWAY: Duration = Duration::from_secs(13);

/// Longer than [`super::house::SETTLEMENT_SESSION_MS`] with the rebalance.
const FREEZE_SETTLEMENT: Duration = Duration::from_secs(10);

/// Longer than `broker.session.timeout.ms` of the tests' broker.
const FREEZE_KAFKA: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_seed_gives_one_course_and_another_seed_another() {
        let rounds = |seed| Course::new(seed, DECK).take(200).collect::<Vec<_>>();
        // Places are compared by what they make.
        assert_eq!(rounds(1), rounds(1));
        assert_ne!(rounds(1), rounds(2));
    }

    #[test]
    fn two_decks_meet_every_card_and_every_trouble() {
        let cards: u32 = DECK.iter().map(|(count, _)| count).sum();
        for seed in 0..100 {
            let mut course = Course::new(seed, DECK);
            let rounds: Vec<_> = course.by_ref().take(2 * cards as usize).collect();
            assert!(course.cards.is_empty());
            let troubles = rounds.iter().filter_map(|round| round.trouble);
            let names: BTreeSet<_> = troubles.map(|(_, trouble)| trouble.name()).collect();
            assert_eq!(names.len(), 11, "seed {seed}: {names:?}");
        }
    }
}
