//! Every bound of this crate, with the reason for its value.

use std::time::Duration;

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

/// Bytes of a packet that a client takes. A receipt has some 300; no packet of a
/// test comes near.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// Examples of each fault that the judge tells of one client.
pub const EXAMPLES_PER_CLIENT: usize = 5;

/// Examples that the judge tells in all: a screen.
pub const EXAMPLES_MAX: usize = 40;

/// A terminal looks for its gateway again after the first, doubled up to the
/// second. Real ones are slower, but a restart should meet them all.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long a CONNACK may take: over a bad link, a gateway in its start.
pub const CONNACK_MAX: Duration = Duration::from_secs(20);

/// Without anything from its gateway for so long a terminal hangs up. It pings
/// before, so silence is no idleness.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How often a terminal pings; three times within its keep alive of 60 s.
pub const PING_EVERY: Duration = Duration::from_secs(15);

/// A power cut falls within so many steps of the moment that was drawn for it:
/// the longest errand from key press to print has about as many.
pub const CUT_STEPS_MAX: u32 = 8;

/// If the terminal does nothing, its power is cut so long after that moment.
pub const CUT_IDLE: Duration = Duration::from_millis(200);

/// Columns of 58 mm paper.
pub const PAPER_COLUMNS: usize = 32;

/// A line of 3.75 mm at 50 mm/s, what a printer on a battery does.
pub const PAPER_LINE_MS: u64 = 75;

/// A cut.
pub const PAPER_CUT_MS: u64 = 300;

/// A power cut of a terminal falls within so many of its wakes: the longest errand
/// from key press to paper has about as many.
pub const CUT_POLLS_MAX: u32 = 400;

/// A power cut in the middle of flash falls within so many steps of it: a payment
/// with its receipt on paper takes some 450 bytes.
pub const CUT_FLASH_STEPS_MAX: u64 = 900;

/// Bytes of a command line that a modem keeps (SIM800 AT Command Manual V1.09,
/// 1.4.1).
pub const COMMAND_BYTES_MAX: usize = 556;

/// Received bytes that a modem keeps until they are fetched: four segments, the
/// window of its TCP.
pub const MODEM_WINDOW_BYTES: usize = 5_840;

/// Bytes on a serial line that nobody has read yet. A driver of a port has less;
/// under a paused clock a whole answer comes at once.
pub const SERIAL_BUFFER_BYTES: usize = 4_096;

/// Connections that a modem has lost without a word and whose peers still believe
/// in them: enough to meet the one before in the next.
pub const LOST_CONNECTIONS_KEPT: usize = 2;

/// A file of a terminal's secrets: some 400 bytes.
pub const PACKAGE_BYTES_MAX: u64 = 16 * 1_024;
