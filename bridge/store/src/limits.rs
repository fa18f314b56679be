//! Every bound of the store, with the reason for its value.

/// The largest record the journal takes: topic, client identifier, properties
/// and payload together, bytes. It is the largest MQTT packet the gateway lets
/// in (256 KiB), so whatever was received can be stored.
pub const RECORD_BYTES_MAX: usize = 256 * 1024;

/// The longest client identifier or topic, bytes: MQTT's own limit for a UTF-8
/// string (MQTT-1.5.4).
pub const STRING_BYTES_MAX: usize = 65_535;

/// The largest value handed to sled by the journal, bytes. sled moves a *node*
/// of more than 512 KiB / 4 - 20 = 131,052 bytes to a separate file under
/// `blobs/`. A leaf splits above 16 entries, and the journal's keys only grow,
/// so up to 17 values travel together: 17 x 7,168 leaves 540 bytes for each key
/// and its lengths.
pub const VALUE_BYTES_MAX: usize = 7 * 1024;

/// The largest value handed to sled by the state, bytes. Where entries are
/// deleted, leaves of fewer than four merge with their neighbour, and while they
/// do a leaf does not split: 20 entries and some more were seen together. At
/// this size 28 fit, each with the longest key.
pub const STATE_ENTRY_BYTES_MAX: usize = 4 * 1024;

/// The longest key of the state database, bytes: with sled's own overhead it
/// stays below the 540 bytes that [`VALUE_BYTES_MAX`] and
/// [`STATE_ENTRY_BYTES_MAX`] leave.
pub const KEY_BYTES_MAX: usize = 400;

/// The largest value of one state entry, bytes: a retained message or a queued
/// publication of the largest packet, and its bookkeeping.
pub const STATE_VALUE_BYTES_MAX: usize = RECORD_BYTES_MAX + 16 * 1024;

/// The most keys (pieces of large values included) in one atomic batch. sled's
/// memory explodes above 512 random keys.
pub const BATCH_KEYS_MAX: usize = 512;

/// The most bytes of batches that wait for the state's committer: a second of
/// traffic at the speed of a slow disk. Beyond, submitting is refused.
pub const STATE_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most bytes one commit group of the state takes, so that one sync never
/// waits for an unbounded write.
pub const STATE_GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many commits a deletion is remembered for, so that a salvage from raw
/// bytes does not bring an entry back. A busy gateway commits some thousand
/// times a second: a minute or more, and segments are reused far sooner.
pub const TOMBSTONE_COMMITS: u64 = 262_144;

/// How many deletions are remembered at most, about: each takes some 300 bytes of
/// memory and of disk, of which sled gives little back. The segments that held what
/// so many deleted are reused too.
pub const TOMBSTONES_MAX: usize = 32_768;

/// How many entries each commit looks at in search of forgotten tombstones, in
/// addition to twice what it wrote: enough to outrun any rate of deletion.
pub const SWEEP_ENTRIES_MIN: usize = 16;

/// A file of the row log ends at this part of the reserve for receipts, bytes:
/// two files more than twice what lives is what the log may take.
pub const LOG_FILE_RESERVE_PART: u64 = 16;

/// The smallest and the largest such file, bytes. It is what comes back at once
/// when a terminal has taken its receipts, and what is moved if it has not.
pub const LOG_FILE_BYTES: std::ops::RangeInclusive<u64> = 256 * 1024..=16 * 1024 * 1024;

/// So many files of the row log are kept beside what its size asks for: each
/// start begins a new one, and each takes a descriptor.
pub const LOG_FILES_SPARE: u64 = 16;

/// How much of an old file of the row log one commit moves, bytes: a sync's
/// worth, so that receipts and sessions get their turn.
pub const LOG_MOVE_BYTES: usize = 256 * 1024;

/// The state database is written anew when its file is so many times as large as what
/// lives in it, and beyond [`STATE_COMPACT_BYTES_MIN`]: sled keeps a segment as long as
/// one page in it is needed, and was seen to take 135 MB for 3.
pub const STATE_COMPACT_FACTOR: u64 = 8;

/// Below this, bytes, nobody misses the room.
pub const STATE_COMPACT_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// sled's page cache for the state, bytes. The hot part of 10,000 sessions.
pub const STATE_CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// sled's page cache for a journal generation, bytes. A generation is written
/// once and read once in order, so nothing is gained by keeping more.
pub const GENERATION_CACHE_BYTES: u64 = 2 * 1024 * 1024;

/// The newest packs kept in memory, bytes of records, so that a forwarder that
/// keeps up never reads the database.
pub const TAIL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most bytes of records that one commit group of the journal takes, so that
/// the first of them does not wait for an unbounded write, and so that a group
/// fits one sled batch even if its packs are only half full.
pub const GROUP_BYTES_MAX: usize = 1536 * 1024;

/// The most records of one commit group; at 200 bytes a record some 7,000 reach
/// [`GROUP_BYTES_MAX`] first.
pub const GROUP_RECORDS_MAX: usize = 16_384;

/// How many sealed generations are kept open for reading: each consumer reads
/// one at a time, and a gateway rarely has more than two clusters.
pub const READERS_MAX: usize = 2;

/// The most bytes of dedup states that one step of a checkpoint submits, so
/// that receipts and sessions get their turn between two steps.
pub const CHECKPOINT_STEP_BYTES: usize = 512 * 1024;

/// The dedup window of a terminal, sequence numbers below its highest. A
/// terminal pipelines at most 64 records and may skip some after a power cut.
pub const SEQUENCE_WINDOW: u64 = 256;

/// How many QoS > 0 publications of a plain client are remembered. MQTT lets
/// 65,535 be in flight; the gateway's receive maximum is far below 1,024.
pub const PACKETS_MAX: usize = 1_024;

/// How many clients' dedup states stay in memory. A terminal takes some 150
/// bytes, a plain client up to 12 KiB; evicted ones are in the state database.
pub const CLIENTS_MAX: usize = 20_000;

/// How many remembered publications of plain clients stay in memory over all
/// clients (16 bytes each): 16 MiB.
pub const PACKETS_TOTAL_MAX: usize = 1_000_000;

/// The first wait before a failed write is tried again, milliseconds.
pub const RETRY_MS_MIN: u64 = 100;

/// The longest wait between two tries of a failed write, milliseconds: what an
/// operator who has just freed space is willing to wait.
pub const RETRY_MS_MAX: u64 = 2_000;

/// How often space is looked at while appends are withheld, milliseconds.
pub const SPACE_CHECK_MS: u64 = 250;

/// How often the high-water mark is written, milliseconds. What it does not yet
/// cover, a truncation could take without being noticed.
pub const MARK_MS: u64 = 1_000;

/// How long opening a database waits for a predecessor's lock, milliseconds.
/// sled's worker threads let go of the file a moment after it is dropped.
pub const LOCK_WAIT_MS: u64 = 5_000;

/// The most quarantined bytes that are kept, newest first. They are evidence
/// for an operator, not data.
pub const QUARANTINE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One part in so many of the budget is the most that the quarantine takes: on a
/// small budget the rest must still hold two generations and the state.
pub const QUARANTINE_BUDGET_PART: u64 = 8;

/// How long one call of sled may take before a second one wakes it, milliseconds:
/// longer than an ordinary sync of a slow disk, so that a healthy call is left
/// alone.
pub const CALL_STUCK_MS: u64 = 1_000;

/// A segment of sled's files, bytes: its own default, which we keep. A file
/// grows by whole segments in the end.
pub const SEGMENT_BYTES: u64 = 512 * 1024;

/// How much more than they need must be free before refused appends or receipts
/// go on, bytes: some hundred records, so that nobody is let in for just one.
pub const RESUME_MARGIN_BYTES: u64 = 1024 * 1024;
