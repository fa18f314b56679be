//! The bounds of this crate, each with the reason for its value.
//!
//! What a gateway may want to change is a field of [`ConnectionLimits`]; what
//! follows from a protocol or protects this crate's own structures is a constant.

/// Most levels (`a/b/c` has three) of a filter in a [`FilterTree`](crate::FilterTree)
/// and of a topic matched against one. Real hierarchies have fewer than ten;
/// mosquitto stops at 200. The work of one match grows with it.
pub const TOPIC_LEVELS_MAX: usize = 64;

/// SUBSCRIBE and UNSUBSCRIBE packets of one connection that may wait for their
/// answer. Clients send one or two; more are left unread until answers come.
pub const UNANSWERED_REQUESTS_MAX: usize = 16;

/// Events that may wait in one connection. Input stays unread beyond it: the
/// shell takes events out and calls again.
pub const EVENTS_WAITING_MAX: usize = 128;

/// Filters in one SUBSCRIBE or UNSUBSCRIBE. A filter of one byte becomes about
/// 100 bytes of memory here, so the packet's size alone would be no bound.
pub const FILTERS_PER_PACKET_MAX: usize = 256;

/// User properties in one CONNECT, for the same reason, from a client that nobody
/// knows yet.
pub const CONNECT_USER_PROPERTIES_MAX: usize = 64;

/// Longest reason string sent, in bytes. They are read by people, over airtime.
pub const REASON_STRING_BYTES_MAX: usize = 200;

/// What one client may make the gateway hold, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Largest packet accepted once connected, fixed header included, in bytes.
    /// Sent to v5 clients as Maximum Packet Size, but for those that take no more
    /// themselves. A record is below 1 KiB; ordinary clients send some more.
    pub packet_bytes_max: u32,
    /// Largest CONNECT accepted, in bytes. Smaller, for nobody is authenticated
    /// yet; room for a will, a token and a client id.
    pub connect_packet_bytes_max: u32,
    /// PUBLISH packets that may wait for their settlement. Sent to v5 clients as
    /// Receive Maximum; 64 keeps a group commit full and bounds the memory.
    pub receive_maximum: u16,
    /// QoS 2 packet identifiers of one session that may wait for PUBREL. A v3.1.1
    /// client has no Receive Maximum; this is where a runaway one is closed.
    pub unreleased_max: u16,
    /// QoS 1 and 2 deliveries that may wait for their acknowledgement, whatever
    /// more the client would take.
    pub inflight_max: u16,
    /// Topic aliases that a client may define.
    pub topic_alias_maximum: u16,
    /// Topic aliases that we define for a client that allows more.
    pub outbound_topic_alias_maximum: u16,
    /// Longest topic name, in bytes. An alias table may hold
    /// `topic_alias_maximum` of them.
    pub topic_bytes_max: u16,
    /// Longest client identifier, in bytes.
    pub client_id_bytes_max: u16,
    /// From the opened connection to a whole CONNECT, in milliseconds. 2G round
    /// trips take a second and links stall for ten.
    pub connect_timeout_ms: u32,
    /// Bytes to write that may wait; beyond, deliveries are refused and input is
    /// left unread until the client takes some.
    pub transmit_bytes_max: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 256 * 1024,
            connect_packet_bytes_max: 16 * 1024,
            receive_maximum: 64,
            unreleased_max: 1024,
            inflight_max: 64,
            topic_alias_maximum: 16,
            outbound_topic_alias_maximum: 8,
            topic_bytes_max: 1024,
            client_id_bytes_max: 256,
            connect_timeout_ms: 30_000,
            transmit_bytes_max: 64 * 1024,
        }
    }
}
