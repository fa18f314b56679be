//! Every bound of the bridge, with the reason for its value.

use std::time::Duration;

/// Records read at once whatever the configuration says: librdkafka's own queue
/// holds [`QUEUE_MESSAGES_MAX`], and the position record needs a place too.
pub const BATCH_RECORDS_MAX: usize = 10_000;

/// Messages in librdkafka's queue. Bounds its memory together with
/// [`QUEUE_KBYTES_MAX`]; measured to be enough for full speed.
pub const QUEUE_MESSAGES_MAX: usize = 20_000;

/// KiB of messages in librdkafka's queue.
pub const QUEUE_KBYTES_MAX: usize = 16_384;

/// Bytes of one batch whatever the configuration says: half of librdkafka's
/// queue, so that a batch always fits with its keys and headers.
pub const BATCH_BYTES_MAX: usize = QUEUE_KBYTES_MAX * 1024 / 2;

/// Bytes of the first batch: a link of half a megabit a second carries it within
/// the default transaction timeout, and the eighth one of a fast link is whole.
pub const PACE_BYTES_FIRST: usize = 1 << 20;

/// Bytes that a batch may always have: what 2G carries within that time.
pub const PACE_BYTES_MIN: usize = 32 * 1024;

/// A batch is made so large that it takes one part in so many of the transaction
/// timeout: a link may become that much slower before one is lost.
pub const PACE_TIMEOUT_PART: u32 = 4;

/// Longest pause between attempts while Kafka is away. A person who mends the
/// link sees records flow within about a second; a SYN a second costs nothing.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// First pause after a failed attempt.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// How long one blocking call to Kafka may hold the thread before it looks
/// again whether it shall stop.
pub const CALL: Duration = Duration::from_millis(500);

/// How long a cluster may leave a client without an answer before it gets a new
/// client. Brokers that only went away are back to the old one as soon as to a new
/// one; but one that hung can be lost to librdkafka (2.12.1) for good, without an
/// error, and a cluster may have moved to other addresses.
pub const UNANSWERED: Duration = Duration::from_secs(20);

/// How long a cluster may have nothing new before a consumer that is given no errors
/// asks whether it is there.
pub const SILENCE: Duration = Duration::from_secs(10);

/// How much longer than the time it was given a stop may take: the last call to
/// Kafka may just have begun, and the clients are closed after it.
pub const LAST_CALL: Duration = Duration::from_secs(3);

/// From the beginning of one transaction to the next while fewer records wait
/// than a batch holds: bounds what steady traffic costs the brokers to 50
/// transactions a second. Far below what anybody at a terminal notices.
pub const TRANSACTION_SPACING: Duration = Duration::from_millis(20);

/// Shortest pause between two looks for an answer of Kafka: far below a round
/// trip, and long enough to cost nothing.
pub const LOOK_MIN: Duration = Duration::from_micros(100);

/// Longest pause between two looks for an answer of Kafka.
pub const LOOK_MAX: Duration = Duration::from_millis(5);

/// How long the thread waits for new records before it serves librdkafka's
/// events (lost connections) and looks whether it shall stop.
pub const IDLE_WAIT: Duration = Duration::from_millis(250);

/// After the first failed delivery of a batch, how long the others may take to
/// tell which records Kafka refused.
pub const EVIDENCE: Duration = Duration::from_secs(2);

/// How long an unknown topic may be on its way through the cluster's metadata
/// before its records are refused. librdkafka's default of 30 s would hold
/// readers of committed records up for as long.
pub const TOPIC_PROPAGATION: Duration = Duration::from_secs(10);

/// Skipped positions (another cluster's records) after which the position is
/// written although nothing was sent: bounds what a restart reads again.
pub const UNSAVED_POSITIONS_MAX: u64 = 100_000;

/// The same by time, when there is nothing else to do.
pub const UNSAVED_POSITION_AGE: Duration = Duration::from_secs(5);

/// Times that another producer may take over this one's transactional id within
/// [`FENCED_WINDOW`] before an alarm says so. One is normal: a transaction timed
/// out.
pub const FENCED_ALARM: usize = 3;

/// Two gateways that share an id take over from each other at every batch, with
/// pauses of at most [`BACKOFF_MAX`]; a timed-out transaction takes longer.
pub const FENCED_WINDOW: Duration = Duration::from_secs(60);

/// Dead letters kept. A person has to look at each kind; more of them is a
/// wrong configuration, and waiting (with an alarm) loses nothing.
pub const DEAD_LETTERS_MAX: u64 = 100_000;

/// Bytes of all dead letters: as much as two generations of the journal.
pub const DEAD_LETTERS_BYTES_MAX: u64 = 64 << 20;

/// Dead letters written in one commit: a record may be 256 KiB.
pub const DEAD_LETTERS_BATCH: usize = 16;

/// Dead letters read at once; bounds the memory of a listing.
pub const DEAD_LETTERS_PAGE: usize = 256;

/// Routing tables remembered between reloads while a forwarder is still behind
/// an older one. When there are more, the two oldest become one.
pub const ROUTE_EPOCHS_MAX: usize = 32;

/// How long the forwarders of one process may take to start, one after the
/// other: until then no cluster is called missing.
pub const CLUSTERS_START: Duration = Duration::from_secs(2);

/// Longest header value taken over from an MQTT property; what is longer is cut
/// off the record's headers (its payload is never touched).
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// MQTT user properties that become headers; a client could send thousands.
pub const USER_PROPERTIES_MAX: usize = 64;

/// Partitions of a topic of the embedded cluster at most: each may hold 5 MiB
/// in memory.
pub const EMBEDDED_PARTITIONS_MAX: u16 = 12;

/// Least size of the trace's files: below, a busy minute would push itself out.
pub const TRACE_BYTES_MIN: u64 = 1 << 20;

/// Size at which a frame of the trace is ended: what one flipped bit may cost,
/// some 500 steps.
pub const TRACE_FRAME_BYTES: usize = 16 * 1024;

/// Steps that wait for the trace's writer, bytes; twice as much memory. A batch
/// of [`BATCH_RECORDS_MAX`] takes 300 KiB at once.
pub const TRACE_GATHERED_BYTES_MAX: usize = 1 << 20;

/// How long steps are gathered before they are written: what a kill may cost,
/// and at most 50 writes a second.
pub const TRACE_GATHER: Duration = Duration::from_millis(20);

/// How long a search waits for what was noted just before it.
pub const TRACE_WRITTEN_WAIT: Duration = Duration::from_secs(1);

/// Steps of one record that a search tells: a payment has some six, and a few
/// for each resend.
pub const TRACE_EVENTS_MAX: usize = 500;

/// Of the trace's end, what tells how long payments take now: some 6,000 of them,
/// read in a few milliseconds.
pub const TRACE_RECENT_BYTES: u64 = 1 << 20;

/// Bytes of a terminal's id in the trace; the wire format allows 23.
pub const TRACE_TERMINAL_BYTES_MAX: usize = 64;

/// Bytes of a Kafka topic's name, Kafka's own bound.
pub const TRACE_TOPIC_BYTES_MAX: usize = 249;

/// Terminals that the outbox knows: 100 bytes of memory each, and four times the
/// sessions that a gateway holds.
pub const TERMINALS_MAX: usize = 200_000;

/// Rows of terminals read at once when the outbox opens.
pub const TERMINAL_ROWS_PAGE: usize = 4_096;

/// Rows of receipts read at once when a terminal's numbers have to be found
/// again.
pub const RECEIPT_ROWS_PAGE: usize = 256;

/// Numbers left out when a terminal's own row was lost to damage: more than may
/// have been given and delivered above the highest one found.
pub const NUMBERS_SKIPPED: u64 = 1_024;

/// Receipts acknowledged or expired whose rows are not gone yet. Some 200 bytes
/// each; beyond, a PUBACK is not taken and its receipt is sent again.
pub const EXITS_MAX: usize = 50_000;

/// Delivery events that wait for the journal's sync.
pub const EVENTS_MAX: usize = 1_024;

/// Rows that one delivery event of another gateway ends at most: a record whose
/// receipt was asked for again may have some.
pub const ROWS_PER_DELIVERY: usize = 3;

/// Deliveries by other gateways that are remembered because their receipts are not on
/// disk here yet: what a second of a busy site brings, some 100 bytes each.
pub const EARLY_DELIVERIES_MAX: usize = 4_096;

/// How long, milliseconds: a receipt lags behind its delivery by the time that one
/// partition is read later than another, and a commit. A terminal that asks again
/// much later is answered.
pub const EARLY_DELIVERY_MS: u64 = 10 * 60 * 1_000;

/// Commits of receipts between two syncs: enough to be busy while one is under
/// way, and bounds what is in memory to some 2,000 receipts.
pub const COMMITS_UNDER_WAY: usize = 8;

/// How long the consumer waits for a receipt before it looks at the disk, the
/// partitions and whether it shall stop.
pub const RECEIPTS_WAIT: Duration = Duration::from_millis(100);

/// How often the consumer asks whether there are new partitions: nobody adds any
/// in a hurry, and the answer names all topics.
pub const PARTITIONS_LOOK: Duration = Duration::from_secs(30);

/// How often Kafka is shown how far the consumer is.
pub const OFFSETS_SHOWN: Duration = Duration::from_secs(5);

/// Bytes of a message that is no receipt that are kept: a receipt has at most 265.
pub const DEAD_RECEIPT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of its key that are kept.
pub const DEAD_RECEIPT_KEY_BYTES_MAX: usize = 256;

/// librdkafka's buffers for receipts: a box has little memory, and a receipt is
/// 300 bytes. What is fetched is bounded by the answer (4 MiB) and what is queued
/// (2 MiB); a full queue is looked at again soon.
pub const RECEIPTS_FETCH: [(&str, &str); 6] = [
    ("queued.max.messages.kbytes", "2048"),
    ("queued.min.messages", "2000"),
    ("fetch.message.max.bytes", "262144"),
    ("fetch.max.bytes", "4194304"),
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.error.backoff.ms", "200"),
];

/// Terminals and generations whose own keys are enrolled: each of a full site, which has
/// two generations while it changes them; some 20 MiB of memory.
pub const ENROLLED_MAX: usize = 2 * SETTLEMENT_TERMINALS_MAX;

/// Bytes of a line of enrolled keys: an id, a generation, two keys in hexadecimal digits,
/// what stands between, and room for a line break before it.
pub const ENROLLED_LINE_BYTES_MAX: usize = 23 + 3 + 2 * 32 + 5;

/// Terminals remembered of one partition by settlement; a site has thousands. A
/// record of one more is refused, so that made-up ids can't use up the memory.
pub const SETTLEMENT_TERMINALS_MAX: usize = 100_000;

/// Currencies in which a terminal is paid on one day; each stands in every row of
/// the changelog.
pub const SETTLEMENT_CURRENCIES_MAX: usize = 8;

/// Partitions of a records topic: a receipt's number is its record's offset times
/// this, plus the partition, plus one.
pub const SETTLEMENT_PARTITIONS_MAX: i32 = 1_000;

/// Bytes of a message that are kept in the rejected topic. A record has 40; in
/// base64 this stays far below the megabyte that brokers take.
pub const SETTLEMENT_REJECTED_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a rejected message's key; a terminal's id has 23.
pub const SETTLEMENT_KEY_BYTES_MAX: usize = 1_024;

/// Transactions that fail in a row before settlement makes its clients anew.
pub const SETTLEMENT_ATTEMPTS_MAX: u32 = 10;

/// How long settlement waits for records before it looks whether it shall stop.
pub const SETTLEMENT_IDLE_WAIT: Duration = Duration::from_millis(100);

/// How long a stop waits for acknowledged receipts to be given to the journal:
/// longer than a slow disk takes to read [`EXITS_MAX`] rows of a hot database.
pub const EXITS_CLOSE: Duration = Duration::from_secs(2);

/// How long a broker holds a fetch that finds nothing, milliseconds. What comes
/// is answered at once; but partitions that are assigned meanwhile wait for it.
pub const FETCH_WAIT_MS: &str = "100";

/// The same of the embedded cluster, which answers only then.
pub const FETCH_WAIT_EMBEDDED_MS: &str = "5";

/// Shortest time between two lines about records that were not settled, and
/// between two counts of what settlement remembers.
pub const SETTLEMENT_TELL: Duration = Duration::from_secs(1);

/// Disk that a waiting receipt takes at most, bytes: the largest row with its
/// frame, twice, for its file may be half dead.
pub const RECEIPT_DISK_BYTES: u64 = 800;

/// Receipts that may wait in all. They take at most half of what the budget
/// leaves to the journal: a delivery event is an append too, so a disk full of
/// receipts would keep them from leaving.
#[must_use]
pub fn receipts_max(budget_bytes: u64, receipts_reserve_bytes: u64) -> u64 {
    budget_bytes.saturating_sub(receipts_reserve_bytes) / 2 / RECEIPT_DISK_BYTES
}
