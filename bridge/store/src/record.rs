//! A record as the journal keeps it, and what the journal answers.
//!
//! These are the words between the MQTT side (which appends), the journal
//! (which makes durable) and the forwarder (which reads). They hold no logic.

use bytes::Bytes;

/// A number in the journal. The first record of a journal is 1; positions are
/// contiguous and never reused.
pub type Position = u64;

/// How a resend of this record can be recognised (guarantee G2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// A `risiti` record: the terminal's own sequence number. `resend_mark` is
    /// the terminal's end-to-end resend (no receipt came): it passes the
    /// journal's own dedup on purpose, settlement counts it once.
    Sequence {
        /// The terminal's sequence number.
        sequence: u64,
        /// MQTT DUP flag as received.
        dup: bool,
        /// End-to-end resend: never treated as a duplicate here.
        resend_mark: bool,
    },
    /// A plain MQTT client, QoS 1 or 2: DUP + packet identifier + digest.
    Packet {
        /// MQTT packet identifier as received (never 0).
        packet_id: u16,
        /// MQTT DUP flag as received.
        dup: bool,
    },
    /// Nothing to recognise a resend by (QoS 0, requeued dead letters, wills).
    None,
}

/// A record offered to the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// When the gateway received it, Unix milliseconds.
    pub received_ms: u64,
    /// The MQTT client identifier that published it: the terminal.
    pub client_id: Bytes,
    /// MQTT topic name, UTF-8.
    pub topic: Bytes,
    /// What a resend is recognised by.
    pub identity: Identity,
    /// MQTT 5 properties that travel on with the record, already encoded by
    /// the MQTT side (opaque here); empty for none.
    pub properties: Bytes,
    /// The application message.
    pub payload: Bytes,
}

/// A record read back from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the journal.
    pub position: Position,
    /// What was appended.
    pub record: NewRecord,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// On stable storage. Only now may PUBACK leave (G1).
    Durable {
        /// Where.
        position: Position,
    },
    /// A resend of a record that is on stable storage already (G2). PUBACK may
    /// leave, nothing was added.
    Duplicate,
    /// Can never be stored (larger than [`crate::limits::RECORD_BYTES_MAX`]).
    TooLarge,
    /// The journal is closing; not stored, no PUBACK.
    Closing,
}

/// Receives outcomes on the committer's thread; must not block.
///
/// Outcomes of one sink come in the order of its appends. A withheld append
/// (disk budget spent, disk full, disk error) simply has no outcome yet.
pub trait AckSink: Send + Sync {
    /// The append that was given `token` has this outcome.
    fn settled(&self, token: u64, outcome: Outcome);
}

/// A run of records read from the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadBatch {
    /// In the order of their positions.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: Position,
    /// Positions inside `from..next` that are damaged and quarantined (G11).
    pub damaged: u64,
}

/// What the forwarder reads from: the journal, or a double in its tests.
pub trait RecordSource: Send + Sync {
    /// Identifies this journal for ever; a wiped disk makes a new one. Part of
    /// the key under which Kafka keeps the forwarded position.
    fn journal_id(&self) -> &str;
    /// The first position still held.
    fn oldest(&self) -> Position;
    /// One past the last durable position.
    fn end(&self) -> Position;
    /// Reads from `from` until either bound (at least one record if there is one).
    ///
    /// # Errors
    /// The journal can't be read right now (disk error): try again later.
    fn read(
        &self,
        from: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<ReadBatch, crate::StoreError>;
    /// Blocks until `end() > after` or the timeout; returns `end()`.
    fn wait(&self, after: Position, timeout: std::time::Duration) -> Position;
    /// `consumer` needs nothing below `upto` any more. What every consumer has
    /// released may be deleted.
    fn release(&self, consumer: &str, upto: Position);
}
