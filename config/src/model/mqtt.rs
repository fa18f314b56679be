//! `[mqtt]`: the MQTT listener and its bounds.
//!
//! Promises: every bound has a default here with the reason for it. Never: a
//! default that lets one client use up what the others need.

use std::net::{Ipv4Addr, SocketAddr};

use crate::ByteSize;

/// `[mqtt]`: one listener for MQTT 3.1.1 and 5 over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mqtt {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Allows plain TCP on an address that others can reach.
    pub insecure: bool,
    /// The bounds; in the file they are keys of `[mqtt]` itself.
    pub limits: MqttLimits,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            insecure: false,
            limits: MqttLimits::default(),
        }
    }
}

/// The bounds of `[mqtt]`. All can change by reload; sessions that exist keep
/// what was agreed with them at CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttLimits {
    /// Largest packet taken, whole (MQTT-3.2.2.3.6, Maximum Packet Size); at most
    /// [`PACKET_BYTES_MAX`](crate::limits::PACKET_BYTES_MAX).
    pub packet_bytes_max: ByteSize,
    /// Open TCP connections, whether or not they sent CONNECT.
    pub connections_max: u32,
    /// QoS 1 and 2 PUBLISHes a client may have unacknowledged (MQTT-3.2.2.3.3).
    pub receive_maximum: u16,
    /// Topic aliases a client may use (MQTT-3.2.2.3.8); 0 = none.
    pub topic_alias_maximum: u16,
    /// Seconds a client has, from TCP accept, until its CONNECT is whole.
    pub connect_timeout_s: u32,
    /// Seconds without progress after which a write to a client ends its
    /// connection.
    pub write_timeout_s: u32,
    /// Longest keepalive in seconds; 0 = the client's own choice, also none.
    pub keepalive_s_max: u16,
    /// Seconds a session outlives its connection at most. A 3.1.1 session
    /// without Clean Session lives this long.
    pub session_expiry_s_max: u32,
    /// Sessions kept, connected or not.
    pub sessions_max: u32,
    /// Subscriptions of one session.
    pub subscriptions_per_session_max: u32,
    /// Messages that wait for one session.
    pub queued_messages_per_session_max: u32,
    /// Bytes that wait for one session.
    pub queued_bytes_per_session_max: ByteSize,
    /// Retained messages.
    pub retained_messages_max: u32,
    /// Bytes of all retained messages.
    pub retained_bytes_max: ByteSize,
    /// Bytes in memory of all PUBLISHes that have no PUBACK or PUBREC yet;
    /// above it the gateway stops to read from sockets.
    pub ungated_bytes_max: ByteSize,
}

impl Default for MqttLimits {
    fn default() -> Self {
        Self {
            // A record is 40 bytes; other clients send JSON.
            packet_bytes_max: ByteSize::kib(64),
            // 10,000 terminals on a box, and some that reconnect before their
            // old connection is seen to be dead.
            connections_max: 12_000,
            // What one terminal pipelines in a burst; bounds memory a connection.
            receive_maximum: 64,
            topic_alias_maximum: 16,
            // A 2G round trip is 1 s, a stall up to 10 s.
            connect_timeout_s: 10,
            write_timeout_s: 30,
            keepalive_s_max: 0,
            // A terminal may be switched off over the long school holidays and
            // must still find its session.
            session_expiry_s_max: 180 * 24 * 3600,
            sessions_max: 50_000,
            subscriptions_per_session_max: 64,
            queued_messages_per_session_max: 1_000,
            queued_bytes_per_session_max: ByteSize::kib(256),
            // A status for every session, and as many for others.
            retained_messages_max: 100_000,
            retained_bytes_max: ByteSize::mib(64),
            // 1,000 clients with a full window of 512-byte messages.
            ungated_bytes_max: ByteSize::mib(32),
        }
    }
}
