//! MQTT 3.1.1 and 5.0, as pure functions and state machines: the wire codec, one
//! connection's protocol, and the tree of topic filters.
//!
//! It promises: whatever bytes arrive, nothing here panics, allocates more than
//! the packet in hand warrants, or loops; a packet that breaks the standard is
//! told by the standard's reason; acknowledgements leave in the order of what
//! they acknowledge, and only when the caller says so.
//!
//! It never opens a socket, reads a clock, draws a random number or stores
//! anything: bytes and time come in, bytes and [`Event`]s go out. What survives a
//! connection (sessions, packet identifiers, queued messages) is the caller's;
//! what dies with it is a [`Connection`].
//!
//! | module | holds |
//! | --- | --- |
//! | [`codec`] | packets from and to bytes, both versions |
//! | [`connection`] | one network connection's state machine |
//! | [`topics`] | subscriptions, the filter tree |
//! | [`message`] | an application message and its stored form |
//! | [`limits`] | every bound, with its reason |

pub mod codec;
pub mod connection;
pub mod limits;
pub mod message;
pub mod reason;
pub mod topics;

pub use bytestring::ByteString;
pub use codec::{DecodeError, Version};
pub use connection::{
    Accept, CloseCause, ConnectRequest, Connection, Deliver, Delivery, Event, Will,
};
pub use limits::ConnectionLimits;
pub use message::{EnvelopeError, Message};
pub use reason::ReasonCode;
pub use topics::{FilterTree, RetainHandling, Subscription, TopicFilter};

/// Quality of service (MQTT 5.0, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Qos {
    /// At most once: never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// At least once: PUBACK.
    AtLeastOnce = 1,
    /// Exactly once: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl Qos {
    /// From its two bits; `None` for 3.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}
