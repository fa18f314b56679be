//! Every bound of this crate, with the reason for its value.

/// Bytes read and forwarded as one. About what one GPRS packet carries, so that
/// stalls and jitter fall between packets.
pub const SEGMENT_BYTES_MAX: usize = 1_400;

/// Bytes on the way in one direction of one connection; then the sender waits.
/// Ten times what 40 kbit/s holds in a round trip of 1 s would be a network that
/// does not exist; 500 links take 16 MB at most.
pub const IN_FLIGHT_BYTES_MAX: usize = 16 * 1024;

/// Connections through one link. A terminal has one, and a second one while its
/// first is not yet seen to be dead; tests put many clients on one link.
pub const CONNECTIONS_MAX: usize = 4_096;
