//! The bound of this crate, with the reason for its value.

/// Bytes of a topic name or filter (MQTT-4.7.3-3): the length prefix of a string
/// has two bytes (MQTT 5.0, section 1.5.4).
pub const TOPIC_BYTES_MAX: usize = 65_535;
