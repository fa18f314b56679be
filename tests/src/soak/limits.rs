//! Every bound of the soak, with the reason for its value.

use std::time::Duration;

use super::judge::{Allowed, Strictness};

/// What may grow in a soak that runs for as long as one likes. The growth that is
/// allowed is what the trend cannot tell from noise: each bound is far below what
/// one leaked thing for each of a cycle's visitors would take.
pub const STRICT: Strictness = Strictness {
    // 2,000 clients come back three times in a cycle: 64 bytes each are 375 KiB.
    memory: Allowed {
        part_of_level: 0.0025,
        at_least: 160.0 * 1024.0,
    },
    // One in five cycles, of thousands of connections in each.
    descriptors: Allowed {
        part_of_level: 0.0,
        at_least: 0.2,
    },
    // None is ever left behind.
    threads: Allowed {
        part_of_level: 0.0,
        at_least: 0.1,
    },
    // A cycle writes some ten MiB; sled's files grow by segments of 512 KiB and come
    // back by whole ones.
    disk: Allowed {
        part_of_level: 0.005,
        at_least: 64.0 * 1024.0,
    },
    // A session, a retained message or a filter of each visitor would be hundreds.
    held: Allowed {
        part_of_level: 0.0,
        at_least: 0.5,
    },
};

/// The same for a minute in `make test`, whose few cycles are still part of the
/// warm-up of caches, files and allocators: it finds only what leaks in plain sight.
pub const LOOSE: Strictness = Strictness {
    // sled's cache fills to 16 MiB and its tombstones to 10 MiB, and the router's logs
    // with them: in six cycles, some 4 MiB each. The 3,300 visitors of a cycle would
    // pass it with 2 KiB each.
    memory: Allowed {
        part_of_level: 0.08,
        at_least: 6.0 * 1024.0 * 1024.0,
    },
    descriptors: Allowed {
        part_of_level: 0.0,
        at_least: 2.0,
    },
    // Threads for blocking work stay for ten seconds: a whole cycle.
    threads: Allowed {
        part_of_level: 0.0,
        at_least: 12.0,
    },
    // sled's file grows until half of it is dead, the recorder's two files and a
    // generation fill for the first time: some 4 MiB in a cycle of 3,300 visitors.
    disk: Allowed {
        part_of_level: 0.0,
        at_least: 8.0 * 1024.0 * 1024.0,
    },
    held: Allowed {
        part_of_level: 0.0,
        at_least: 8.0,
    },
};

/// Resident memory that a gateway never goes beyond, whatever happens to it: what a
/// box of 512 MiB can spare. (A storm of 2,000 alone takes less than 200 MiB, by
/// `tests/tests/receipts_load.rs`.)
pub const GATEWAY_RESIDENT_BYTES_MAX: u64 = 300 << 20;

/// The same of settlement.
pub const SETTLEMENT_RESIDENT_BYTES_MAX: u64 = 200 << 20;

/// Marks below which nothing can be said at 95 %: four in a row that all rise have
/// one chance in 24, three have one in six.
pub const MARKS_MIN: usize = 4;

/// The first cycles, as one part in so many of all, in which caches fill, windows of
/// numbers fill, and the allocator learns the peaks.
pub const WARM_UP_PART: usize = 3;

/// At least so many cycles of warm-up: every kind of outage once, nearly.
pub const WARM_UP_MIN: usize = 2;

/// Cycles that a soak is divided into if it is short, so that there are enough marks
/// after the warm-up.
pub const CYCLES_WANTED: u32 = 12;

/// The longest cycle that is asked for: beyond, marks become too few.
pub const CYCLE_MAX: Duration = Duration::from_secs(180);

/// The shortest that is asked for.
pub const CYCLE_MIN: Duration = Duration::from_secs(8);

/// The one of `make test`: phases of half a second.
pub const CYCLE_SHORT: Duration = Duration::from_secs(4);

/// Samples of a mark; their median counts.
pub const MARK_SAMPLES: usize = 5;

/// How long what is on its way may take to come home at the end of a cycle: a broker
/// that was killed starts again, its clients find it, and terminals that gave up
/// waiting send again.
pub const DRAIN: Duration = Duration::from_secs(150);

/// So long nothing may change before a cycle counts as drained: longer than a
/// commit, a poll and a transaction one after the other.
pub const QUIET: Duration = Duration::from_millis(1_500);

/// How long a visitor's session outlives its connection, seconds: it is gone before
/// the cycle is.
pub const SESSION_S: u32 = 4;

/// Sessions at a gateway beyond those of its terminals that a mark does not wait
/// for: hostile CONNECTs ask for any length, and get a minute.
pub const SESSIONS_SPARE: u64 = 10;

/// How long expired sessions may take to leave: the gateway looks every five
/// seconds.
pub const LEAVE: Duration = Duration::from_secs(30);

/// How long one visitor may take for what it came for, on a machine that has other
/// things to do: beyond, the gateway has stalled somebody.
pub const VISIT: Duration = Duration::from_secs(60);

/// How long a process may take to start or to answer.
pub const START: Duration = Duration::from_secs(120);

/// How often something is looked at that has to come.
pub const LOOK: Duration = Duration::from_millis(50);

/// Bytes of a process's log that are kept; then it turns over, and one old file
/// stays. Days of a soak must not fill a disk.
pub const LOG_BYTES: u64 = 2 << 20;

/// Points of each curve that are drawn; when there are more, every second one goes.
/// Four a pixel.
pub const POINTS_MAX: usize = 4_000;

/// Visitors under way at the same time, beside the storms: descriptors and source
/// ports of one machine.
pub const VISITORS_AT_ONCE: usize = 64;

/// What a hostile client sends at once at most.
pub const RUBBISH_BYTES: usize = 4_096;

/// Different filters that are subscribed to. The router of the gateway keeps the last
/// 1,024 to 2,048 messages of each that ever lived at the same time, 464 KiB and what
/// they hold: with so few of them all are full before the warm-up is over.
pub const FILTERS: usize = 40;

/// Different topics with a retained message.
pub const RETAINED: usize = 200;

/// Messages without PUBACK of one client that floods.
pub const FLOOD_WINDOW: u16 = 32;
