//! Every bound of the gateway that is not in its configuration, with its reason.

/// Commands waiting for the fan-out thread; beyond it publishers wait, which
/// their own window bounds in turn.
pub const FANOUT_QUEUE: usize = 1_024;
/// Live subscribers with a router link. At about 41 KiB a link this is 164 MB
/// at the very worst; further ones are refused with "quota exceeded".
pub const FANOUT_LINKS_MAX: usize = 4_000;
/// Filters that live sessions subscribe to. Each costs the router some 6 KiB for its
/// topic, at most 60 KiB of what it last published there, and two segments that it
/// makes room in for 1,024 publications: 464 KiB of addresses, of which a part is
/// resident.
pub const FANOUT_FILTERS_MAX: u64 = 8_192;
/// A segment of the router's log of a topic: small, because it is a cache. So
/// many bytes are published before every reader has taken them.
pub const FANOUT_SEGMENT_BYTES: usize = 4 * 1024;
/// Segments of a topic: the one that fills and the one before, so that what is
/// not taken yet is never dropped.
pub const FANOUT_SEGMENTS: usize = 2;
/// So many publications before every reader has taken them: enough that waiting
/// for the readers' turns is not what costs most.
pub const FANOUT_UNTAKEN_MAX: usize = 32;
/// After that a reader is given up for this time. Readers wait for nothing but
/// their turn, so it is a fault of the router's.
pub const FANOUT_TAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
/// How often a reader is looked at that does not wake the fan-out.
pub const FANOUT_TAKE_POLL: std::time::Duration = std::time::Duration::from_millis(20);
/// Deliveries that wait for one live session: those of a subscriber that is
/// slower than what it subscribed to. As many as mosquitto keeps.
pub const LIVE_WAITING_MAX: usize = 1_000;
/// Bytes of them. Messages are shared between the sessions that wait for them.
pub const LIVE_WAITING_BYTES_MAX: usize = 512 * 1024;
/// Deliveries of one session that wait in memory; more stay in the store. A
/// few windows of the usual receive maximum.
pub const SESSION_WAITING_MAX: usize = 256;
/// Bytes of them: 10,000 sessions with full queues stay below 640 MB, and a
/// session only fills its queue while its client is connected and slow.
pub const SESSION_WAITING_BYTES_MAX: usize = 64 * 1024;
/// Queue slots kept allocated once the queue is empty.
pub const SESSION_WAITING_KEPT: usize = 0;
/// Receipts of one session that wait in memory; more stay in the outbox. One is
/// some 300 bytes with its place, a terminal has one or two: 2,000 that reconnect
/// at once, each with a full page, take 10 MB.
pub const RECEIPTS_WAITING_MAX: usize = 16;
/// Bytes of them, should they be long: no more are taken in beyond.
pub const RECEIPTS_WAITING_BYTES_MAX: usize = 8 * 1024;
/// Receipts read from the outbox at once: what may wait.
pub const RECEIPTS_PER_PAGE: usize = RECEIPTS_WAITING_MAX;
/// How long a session's first receipt waits for the row that says that the
/// session is connected: a sync takes milliseconds, seconds on a bad card.
pub const RECEIPTS_DURABLE_WAIT: std::time::Duration = std::time::Duration::from_secs(3);
/// Pages of receipts that are read at once, in the order in which they were
/// asked for. In a storm of reconnects the others wait for a place, not the
/// threads and the disk that everybody needs.
pub const RECEIPT_PAGES_AT_ONCE: usize = 8;
/// Rows read from the store at once.
pub const ROWS_PER_PAGE: usize = 128;
/// Bytes read from a socket at once, into a buffer of the thread.
pub const READ_BYTES: usize = 16 * 1024;
/// What a WebSocket reads at once into a buffer that it keeps.
pub const WEBSOCKET_READ_BYTES: usize = 4 * 1024;
/// A connection's write buffer larger than this is given back once empty.
pub const WRITE_BUFFER_KEPT_BYTES: usize = 0;
/// No further delivery is written behind this many waiting bytes.
pub const WRITE_WAITING_BYTES: usize = 32 * 1024;
/// How long the last bytes of a connection may take.
pub const LAST_WRITE: std::time::Duration = std::time::Duration::from_secs(2);
/// How often a connection that is not read looks whether it may be again.
pub const SATURATED_RECHECK: std::time::Duration = std::time::Duration::from_millis(200);
/// Connections that the kernel holds until they are accepted: a reconnect storm.
pub const LISTEN_BACKLOG: u32 = 4_096;
/// Pause when accepting fails (no file descriptors).
pub const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
/// Clients without a session whose lost connection is remembered, so that what they
/// send again with DUP is recognised: a storm of reconnects, and some 60 bytes each.
pub const LOST_CLIENTS_KEPT: usize = 4_096;
/// How often wills are looked at: their delay is in seconds.
pub const SWEEP: std::time::Duration = std::time::Duration::from_millis(500);
/// Sessions and retained messages are looked at every so many sweeps.
pub const SWEEPS_PER_EXPIRY: u32 = 10;
/// How often a stop looks whether all connections have ended.
pub const STOP_POLL: std::time::Duration = std::time::Duration::from_millis(20);
/// A forwarder has at least so long to finish its transaction.
pub const STOP_FORWARDER_MIN: std::time::Duration = std::time::Duration::from_secs(2);
/// How long a graceful stop may take in all. systemd kills after 90 s.
pub const STOP_DEADLINE: std::time::Duration = std::time::Duration::from_secs(20);
/// Part of it that closing the store keeps for itself: a checkpoint of the
/// dedup states takes at most 5 s.
pub const STOP_CLOSE: std::time::Duration = std::time::Duration::from_secs(6);
/// Dead letters on one page of the admin API.
pub const DEAD_LETTERS_PER_PAGE: usize = 100;

/// Memory a PUBLISH that waits for the disk stands for beside its own bytes:
/// places in the journal's queue, the connection and the mailbox.
pub const UNSETTLED_OVERHEAD_BYTES: usize = 256;
/// Retained messages queued at once for a session that has just subscribed: the
/// next ones follow when these are sent, so that none finds its queue full.
pub const RETAINED_PER_PAGE: usize = 64;
/// Topics looked at for them, so that a filter which matches little does not
/// hold a thread.
pub const RETAINED_LOOKED_AT_PER_PAGE: usize = 4_096;

/// Terminals in the registry. A site has thousands; a full one is read in some
/// seconds and takes some 20 MB.
pub const REGISTRY_TERMINALS_MAX: usize = 100_000;
/// Bytes of its file: an entry with two digests and the longest id takes 240.
pub const REGISTRY_BYTES_MAX: u64 = 32 << 20;
/// Failed logins that are remembered, some 60 bytes each; beyond, the oldest go.
pub const ATTEMPTS_KEPT: usize = 4_096;
/// Failures of one identity from one address that cost no wait: somebody types it
/// wrong, a terminal was flashed with an old token.
pub const ATTEMPTS_FREE: u32 = 3;
/// The first wait; each next one is twice as long.
pub const ATTEMPT_WAIT_MS: u64 = 500;
/// The longest: a person who found the mistake is not kept out for longer.
pub const ATTEMPT_WAIT_MS_MAX: u64 = 60_000;
/// When failures are forgotten.
pub const ATTEMPT_FORGOTTEN_MS: u64 = 600_000;
/// What a rate grants at once: as much as comes in so many seconds.
pub const RATE_BURST_S: u64 = 10;
/// Addresses, or identities, of which a rate keeps account, some 60 bytes each; the
/// others share one measure.
pub const RATE_KEYS_MAX: usize = 20_000;
/// How often the registry's file and the certificates are looked at: a revoked
/// terminal is out by then.
pub const FILES_POLL: std::time::Duration = std::time::Duration::from_secs(1);

/// Bytes of each of the two files of notes of what was changed: some 10,000 changes.
pub const AUDIT_BYTES_MAX: u64 = 1 << 20;

/// A time before 2023 was written by a clock that was not set.
pub const CLOCK_SET_MS_MIN: u64 = 1_672_531_200_000;

/// How often settlement looks whether other generations of keys are accepted: soon
/// enough that a stolen terminal is shut out while somebody is on the telephone.
pub const GENERATIONS_REREAD: std::time::Duration = std::time::Duration::from_secs(2);

/// Bytes of the file of generations: 100,000 terminals with a remark each.
pub const GENERATIONS_BYTES_MAX: u64 = 8 << 20;

/// Bytes of the file of enrolled keys: two generations of 100,000 terminals, and remarks.
pub const ENROLLED_BYTES_MAX: u64 = 32 << 20;

/// Bytes of a code that is typed: its 56 characters however they are parted, and a remark
/// that is no code.
pub const CODE_BYTES_MAX: u64 = 1_024;

/// Bytes of the file of a site's root: its digits and a line break; more is another
/// file.
pub const ROOT_FILE_BYTES_MAX: u64 = 256;

#[cfg(test)]
mod tests {
    use risiti_mqtt::ConnectionLimits;
    use risiti_store::limits::{RECORD_BYTES_MAX, STRING_BYTES_MAX};

    #[test]
    fn whatever_packet_may_be_let_in_can_be_stored() {
        let packet = risiti_config::limits::PACKET_BYTES_MAX.bytes() as usize;
        let topic_by_alias = STRING_BYTES_MAX;
        let client_id = ConnectionLimits::default().connect_packet_bytes_max as usize;
        assert!(packet + topic_by_alias + client_id <= RECORD_BYTES_MAX);
    }
}
