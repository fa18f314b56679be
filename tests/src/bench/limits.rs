//! Every bound of the benchmark, with the reason for its value.

use std::time::Duration;

/// How long nothing may be acknowledged before a run is given up: longer than
/// any stall of a disk that is worth measuring.
pub const STALL: Duration = Duration::from_secs(30);

/// How long a server may take to start, or to let go of its port.
pub const START: Duration = Duration::from_secs(60);

/// How long the gateway may take to forward what a cell has left behind.
pub const DRAIN: Duration = Duration::from_secs(300);

/// How often a server that can't tell is asked whether it is ready.
pub const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Bytes read from a socket at once: a window of PUBACKs many times over.
pub const READ_BYTES: usize = 16 * 1024;

/// Events taken from epoll at once: all clients of the largest usual cell.
pub const EVENTS: usize = 1_024;

/// The bare log's file, bytes. It is written full before the run and then
/// overwritten from its beginning, as a log does that takes its segments from a
/// pool: the sync has no metadata to write.
pub const BARE_FILE_BYTES: u64 = 128 * 1024 * 1024;

/// A generator that is busier than this share of the time may be what limits
/// the figure; the report says so.
pub const GENERATOR_BUSY: f64 = 0.85;
