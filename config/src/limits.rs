//! Every bound of this crate, with the reason for its value.
//!
//! Ranges of the keys themselves stand beside the keys, in `read`.

use crate::ByteSize;

/// Bytes of a configuration file. A thousand routes are 200 KiB; more is a
/// wrong file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a file that holds a secret. The longest seen are tokens of 2 KiB; a
/// key file put in its place by mistake is seen by this bound.
pub const SECRET_BYTES_MAX: u64 = 4096;

/// Bytes of the largest packet that may be allowed. The store keeps records of
/// 256 KiB, in which a topic of 64 KiB (by an alias it costs the packet nothing)
/// and a client identifier out of a CONNECT of 16 KiB stand beside the packet's
/// content: whatever is let in can be stored. Kafka's own default, 1 MB a
/// message, is far above.
pub const PACKET_BYTES_MAX: ByteSize = ByteSize::kib(176);

/// Routes. Each message is matched against them in order.
pub const ROUTES_MAX: usize = 1_000;

/// Further clusters. Each costs a producer with threads and buffers of its own.
pub const CLUSTERS_MAX: usize = 16;

/// Addresses of one cluster; more than a bootstrap ever needs.
pub const BOOTSTRAP_SERVERS_MAX: usize = 64;

/// Raw librdkafka options of one cluster; it has about 150.
pub const PROPERTIES_MAX: usize = 200;

/// Levels of an MQTT topic filter. A deeper one is a mistake, and matching
/// costs a step a level.
pub const FILTER_LEVELS_MAX: usize = 128;

/// Bytes of a Kafka topic's name, Kafka's own bound.
pub const KAFKA_TOPIC_BYTES_MAX: usize = 249;

/// Users of `[access]`. They are services and people; terminals have a registry.
pub const ACCESS_USERS_MAX: usize = 1_000;

/// Rules of `[access]`. A message is held against those of its identity, one by one.
pub const ACCESS_RULES_MAX: usize = 1_000;

/// Characters of a user's token: 16 of hexadecimal digits are 64 bits, which is
/// beyond guessing over a network; its digest is a fast one, so less would not do.
pub const USER_TOKEN_BYTES_MIN: usize = 16;

/// Listeners beside `mqtt.listen`: one for each kind of client is enough.
pub const LISTENERS_MAX: usize = 16;

/// Pages whose scripts a listener takes.
pub const ORIGINS_MAX: usize = 16;

/// Names of the admin port; a gateway has one or two.
pub const HOST_NAMES_MAX: usize = 16;

/// Characters of a value that an error shows.
pub const SHOWN_CHARS_MAX: usize = 60;
