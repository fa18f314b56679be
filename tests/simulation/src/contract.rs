//! The words between the parts of the simulation.
//!
//! Promises: nothing decides here. Never: a type of one part that the others do
//! not see.
//!
//! # When a part is stepped
//!
//! The world goes from event to event. A part's `step` returns (or its `due_ms`
//! tells) when *time alone* makes it act again; none: never. Besides, the world
//! steps a gateway when bytes came for it, a forwarder when its journal's `end` or
//! the cluster changed, settlement and the receipts' consumers when the cluster
//! changed (`Kafka::changes`, a number that grows with whatever a client could
//! notice: a record that became visible, an outage that began or ended, a fence).
//! So nobody polls an idle cluster; an idle hour costs nothing.
//!
//! A step at a time at which nothing is due does nothing.
//!
//! # What the world calls on a gateway, besides `start`, `kill`, `open`, `received`,
//! `closed`, `step`, `due_ms` and `journal`
//!
//! | call | when |
//! | --- | --- |
//! | `disk(&mut self) -> &mut Disk` | the disk of a running gateway: `set_full`, `fail_syncs` |
//! | `jump_wall_clock(&mut self, by_ms: i64)` | its wall clock is [`EPOCH_MS`] + virtual time + all jumps |
//! | `consume(&mut self, now, kafka: &mut Kafka) -> Option<Ms>` | the receipts' consumer: one call to Kafka at most; when it wants the next |
//! | `take_events(&mut self) -> Vec<GatewayEvent>` | after each of the others |
//!
//! and [`Onlooker`] on it. A `Disk` begins with `Disk::new(rng)`.

use risiti_store::{Position, ReadBatch, StoreError};

/// Virtual milliseconds since the run began. Nothing else tells time.
pub type Ms = u64;

/// Unix time, in milliseconds, when a run begins: 2026-01-01T00:00:00Z. A wall
/// clock of a part is this, the virtual time and its own error.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// The chance of one part of a run: what one part draws shifts no other's.
#[must_use]
pub fn chance(seed: u64, part: &str) -> fastrand::Rng {
    fastrand::Rng::with_seed(xxhash_rust::xxh3::xxh3_64_with_seed(part.as_bytes(), seed))
}

/// What a forwarder reads from: [`risiti_store::RecordSource`] for one thread.
pub trait Journalish {
    /// Identifies this journal for ever; a wiped disk makes a new one.
    fn journal_id(&self) -> &str;
    /// The first position still held.
    fn oldest(&self) -> Position;
    /// One past the last durable position.
    fn end(&self) -> Position;
    /// Reads from `from` until either bound (at least one record if there is one).
    ///
    /// # Errors
    /// The journal can't be read right now.
    fn read(
        &mut self,
        from: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<ReadBatch, StoreError>;
    /// `consumer` needs nothing below `upto` any more.
    fn release(&mut self, consumer: &str, upto: Position);
}

/// What a gateway does with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// These bytes go to the client.
    Bytes(Vec<u8>),
    /// The gateway closes it.
    Close,
}

/// What an onlooker at a gateway can see, in the order in which it happens; for
/// the [reference](crate::reference) alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayEvent {
    /// A PUBACK with success for this record has left ([`Out::Bytes`] holds it).
    Acked {
        /// The terminal.
        terminal: String,
        /// Its record.
        sequence: u64,
    },
    /// A record was taken in, and has no outcome because there is no room.
    Withheld {
        /// The terminal.
        terminal: String,
        /// Its record.
        sequence: u64,
    },
    /// A record that needed no second place in the journal.
    Duplicate {
        /// The terminal.
        terminal: String,
        /// Its record.
        sequence: u64,
    },
    /// A receipt and its offset are on the synced disk.
    Stored {
        /// The terminal.
        terminal: String,
        /// The record that it answers.
        sequence: u64,
        /// Its partition.
        partition: i32,
        /// Its offset there.
        offset: i64,
    },
    /// A PUBLISH with this receipt has left.
    Delivered {
        /// To this terminal.
        terminal: String,
        /// The record that it answers.
        sequence: u64,
    },
    /// The terminal's PUBACK for a receipt came in.
    Taken {
        /// The terminal.
        terminal: String,
        /// The record that the receipt answers.
        sequence: u64,
    },
    /// Damage was found: counted, set aside (G11).
    Damaged {
        /// Records and rows that are lost by it.
        lost: u64,
    },
    /// An onlooker's note, for traces.
    Note(String),
}

/// What an auditor with a key to the machine room can see of a running gateway;
/// for the [reference](crate::reference) alone. Nothing here changes anything.
pub trait Onlooker {
    /// Whether this record would be found if the power were cut now: it is on the
    /// synced disk, in the journal's own bytes. Released records need not be.
    fn holds_record(&self, terminal: &str, sequence: u64) -> bool;
    /// Whether a receipt for this record waits on the synced disk.
    fn holds_receipt(&self, terminal: &str, sequence: u64) -> bool;
    /// One past the last offset of the receipts' topic that is on the synced disk
    /// for this partition; none: nothing yet.
    fn receipts_next(&self, partition: i32) -> Option<i64>;
    /// Whether every bound of the gateway holds now (G8).
    ///
    /// # Errors
    /// Which one does not, in words.
    fn bounds(&self) -> Result<(), String>;
}

/// What a part of the product may be made to do wrong: the negative controls. Each
/// is a way in which a plausible product would break a guarantee; all are off in
/// an ordinary run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controls {
    /// Gateway: PUBACK leaves before the sync that covers it (G1).
    pub puback_before_sync: bool,
    /// Gateway: the journal recognises no resend (G2).
    pub no_dedup: bool,
    /// Forwarder: the position is committed outside the transaction (G2).
    pub position_outside: bool,
    /// Gateway: what a client sent in one go is journalled in another order (G3).
    pub shuffles: bool,
    /// Gateway: the offset of a receipt is stored before its row (G4).
    pub offset_before_row: bool,
    /// Gateway: a receipt is deleted before its terminal's PUBACK (G4).
    pub deleted_before_puback: bool,
    /// Terminal: its flash forgets what was written since the start (G6).
    pub flash_forgets: bool,
    /// Terminal: its flash forgets that printing began (G5).
    pub prints_again: bool,
    /// Terminal: no resend end to end (G7).
    pub no_resend: bool,
    /// Settlement: no memory of what was settled (G2, G7).
    pub no_memory: bool,
    /// Settlement: offsets are committed outside the transaction (G2).
    pub offsets_outside: bool,
    /// Gateway: when its disk is full it drops instead of withholding (G8).
    pub drops_when_full: bool,
    /// Gateway: any client may publish and subscribe anywhere (G9).
    pub open_topics: bool,
    /// Gateway: damage is not told (G11).
    pub damage_in_silence: bool,
    /// Settlement: what is not sealed is taken too (G10).
    pub takes_unsealed: bool,
    /// Settlement: a record counts in whatever partition it stands (G2).
    pub takes_copies: bool,
}
