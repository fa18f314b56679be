//! What a connection tells its shell, and what the shell answers with.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;

use crate::codec::Version;
use crate::{Message, Qos, ReasonCode, Subscription, TopicFilter};

/// What happened on a connection. Text and payloads are slices of what was read:
/// whoever keeps them copies them (`detach`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The client introduced itself. Answer with
    /// [`accept`](crate::Connection::accept) or
    /// [`refuse`](crate::Connection::refuse); nothing more is read until then.
    Connect(Box<ConnectRequest>),
    /// A message from the client, of any QoS. Each is answered once with
    /// [`publish_settled`](crate::Connection::publish_settled), in any order. Its
    /// topic is resolved if it came as an alias. A message of QoS 2 whose
    /// identifier is still unreleased is acknowledged again without this event.
    Publish {
        /// Names this event to `publish_settled`; later ones have higher tokens.
        token: u64,
        /// What was published; its QoS and retain flag as sent.
        message: Message,
        /// Its packet identifier; 0 for QoS 0.
        packet_id: u16,
        /// The client says that it may have sent it before.
        dup: bool,
    },
    /// PUBREL: the client will not send this QoS 2 message again. Forget the
    /// identifier durably, then call
    /// [`publish_completed`](crate::Connection::publish_completed).
    PublishRelease {
        /// Of the PUBLISH.
        packet_id: u16,
    },
    /// Answer with [`subscribed`](crate::Connection::subscribed), one code for
    /// each filter in this order.
    Subscribe {
        /// For the answer.
        packet_id: u16,
        /// At least one.
        filters: Vec<Subscription>,
    },
    /// Answer with [`unsubscribed`](crate::Connection::unsubscribed).
    Unsubscribe {
        /// For the answer.
        packet_id: u16,
        /// At least one.
        filters: Vec<TopicFilter>,
    },
    /// A delivery is done: PUBACK, PUBCOMP, or PUBREC with an error. The
    /// identifier is free.
    Acked {
        /// As given in the [`Delivery`].
        packet_id: u16,
        /// What the client said; `Success` from v3.1.1.
        reason: ReasonCode,
    },
    /// PUBREC: the client has the QoS 2 message. Note that durably, then call
    /// [`released`](crate::Connection::released).
    Received {
        /// As given in the [`Delivery`].
        packet_id: u16,
    },
    /// The connection is over: write what [`transmit`](crate::Connection::transmit)
    /// still holds, then close the socket. Comes once, as the last event.
    Closed(Box<Closed>),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub cause: CloseCause,
    /// Whether the will is due (after its delay): every end of an accepted
    /// connection but a DISCONNECT without 0x04.
    pub publish_will: bool,
    /// The session expiry interval that the client's DISCONNECT set anew, in
    /// seconds (MQTT 5.0, section 3.14.2.2.2).
    pub session_expiry_s: Option<u32>,
}

/// Why a connection ended, by who ended it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseCause {
    /// The client took its leave with DISCONNECT.
    #[error("client disconnected: {0}")]
    ClientDisconnected(ReasonCode),
    /// The network connection went away.
    #[error("network connection lost")]
    TransportLost,
    /// The client broke the standard or a limit.
    #[error("client's fault: {text}")]
    Peer {
        /// What it was told, if its version has a way.
        reason: ReasonCode,
        /// What it did.
        text: Cow<'static, str>,
    },
    /// No CONNECT in time.
    #[error("no CONNECT within {timeout_ms} ms")]
    ConnectTimeout {
        /// How long it had.
        timeout_ms: u32,
    },
    /// Nothing received for one and a half times the keep alive.
    #[error("nothing received for {timeout_ms} ms, one and a half times the keep alive")]
    KeepAliveTimeout {
        /// How long it had.
        timeout_ms: u64,
    },
    /// The shell refused the CONNECT.
    #[error("connection refused: {reason}: {text}")]
    Refused {
        /// Why, as told to the client.
        reason: ReasonCode,
        /// In words.
        text: Cow<'static, str>,
    },
    /// The shell refused a PUBLISH and v3.1.1 has no other way to say so than to
    /// close (MQTT-3.3.5-2 there).
    #[error("publish refused: {reason}")]
    PublishRefused {
        /// Why.
        reason: ReasonCode,
    },
    /// The shell closed it.
    #[error("closed by the gateway: {reason}: {text}")]
    Server {
        /// Why, as told to a v5 client.
        reason: ReasonCode,
        /// In words.
        text: Cow<'static, str>,
    },
}

/// A CONNECT, valid in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The protocol that it speaks.
    pub version: Version,
    /// Empty: one is to be assigned (in v3.1.1 only with a clean session).
    pub client_id: ByteString,
    /// Clean start (v5), clean session (v3.1.1).
    pub clean_start: bool,
    /// Keep alive in seconds; 0: none.
    pub keep_alive_s: u16,
    /// Session expiry interval in seconds; 0: ends with the connection,
    /// `u32::MAX`: never. From v3.1.1: 0 with a clean session, else `u32::MAX`.
    pub session_expiry_s: u32,
    /// How many unacknowledged deliveries it takes; 65,535 if it did not say.
    pub receive_maximum: u16,
    /// The largest packet that it takes, in bytes, if it said so.
    pub packet_bytes_max: Option<u32>,
    /// How many topic aliases it takes.
    pub topic_alias_maximum: u16,
    /// Whether it wants reason strings in acknowledgements.
    pub request_problem_information: bool,
    /// Whether it asks for response information.
    pub request_response_information: bool,
    /// User name.
    pub username: Option<ByteString>,
    /// Password or token.
    pub password: Option<Bytes>,
    /// To publish if it goes without a proper leave.
    pub will: Option<Will>,
    /// User properties in their order.
    pub user_properties: Vec<(ByteString, ByteString)>,
}

/// A will: published when its client goes without DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// What to publish.
    pub message: Message,
    /// How long after the connection's end, in seconds.
    pub delay_s: u32,
}

/// The shell's yes to a CONNECT.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accept<'a> {
    /// A session was resumed (MQTT-3.2.2-2, -3).
    pub session_present: bool,
    /// The client identifier that was made up for a client without.
    pub assigned_client_id: Option<&'a str>,
    /// The session expiry interval in force, in seconds, if not what was asked.
    pub session_expiry_s: Option<u32>,
    /// A keep alive in seconds to use instead of the client's; told to v5
    /// clients, silently in force for v3.1.1.
    pub server_keep_alive_s: Option<u16>,
    /// Packet identifiers of QoS 2 messages that the session acknowledged with
    /// PUBREC and for which no PUBREL came yet.
    pub unreleased: &'a [u16],
}

/// One message for the client.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Chosen by the session, not 0, not in use; ignored for QoS 0.
    pub packet_id: u16,
    /// What to deliver. Its own QoS, retain flag and expiry are not looked at.
    pub message: &'a Message,
    /// The QoS to deliver with.
    pub qos: Qos,
    /// The retain flag to deliver with.
    pub retain: bool,
    /// It may have been sent before, on an earlier connection.
    pub dup: bool,
    /// Subscription identifiers of the matching subscriptions.
    pub subscription_ids: &'a [u32],
    /// What is left of the message expiry interval, in seconds.
    pub expiry_s: Option<u32>,
}

/// What became of a [`Delivery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliver {
    /// On its way; QoS 1 and 2 end with [`Event::Acked`].
    Delivered,
    /// Larger than the client accepts: to be counted as done (MQTT-3.1.2-25).
    TooLarge,
    /// The client has as many unacknowledged as it takes: wait for `Acked`.
    WindowFull,
    /// Too much waits to be written: wait until some is.
    TransmitFull,
    /// The connection is not open.
    NotOpen,
}
