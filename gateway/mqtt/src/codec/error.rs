//! Why bytes are not a packet. All of these are the peer's doing.

use crate::ReasonCode;
use crate::topics::FilterError;

/// Bytes that break the standard, or this gateway's limits. The connection is to
/// be closed with [`DecodeError::reason`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It can't be read as the standard lays it out.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// It can be read, but may not be said.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// Told from the fixed header, before the body.
    #[error("packet of {packet_bytes} bytes, at most {packet_bytes_max} are accepted")]
    PacketTooLarge {
        /// The whole packet, fixed header included.
        packet_bytes: usize,
        /// What was allowed.
        packet_bytes_max: u32,
    },
    /// A CONNECT of another protocol or version.
    #[error("unsupported protocol version: level {level}, only 4 (3.1.1) and 5 (5.0) are served")]
    UnsupportedVersion {
        /// The level in the CONNECT.
        level: u8,
    },
    /// An empty client identifier where none may be (v3.1.1, MQTT-3.1.3-8).
    #[error("an empty client identifier needs a clean session")]
    ClientIdentifierEmpty,
    /// MQTT 5.0, section 4.7
    #[error("invalid topic name: {0}")]
    TopicName(FilterError),
    /// MQTT 5.0, section 4.7
    #[error("invalid topic filter: {0}")]
    TopicFilter(FilterError),
    /// More of something in one packet than [`limits`](crate::limits) allow.
    #[error("too many in one packet: {0}")]
    TooMany(&'static str),
    /// Alias 0, above the maximum, or never defined.
    #[error("invalid topic alias")]
    TopicAliasInvalid,
}

impl DecodeError {
    /// What to say in the DISCONNECT or CONNACK.
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::Malformed(_) => ReasonCode::MalformedPacket,
            Self::Protocol(_) => ReasonCode::ProtocolError,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::UnsupportedVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::ClientIdentifierEmpty => ReasonCode::ClientIdentifierNotValid,
            Self::TopicName(_) => ReasonCode::TopicNameInvalid,
            Self::TopicFilter(_) => ReasonCode::TopicFilterInvalid,
            Self::TooMany(_) => ReasonCode::QuotaExceeded,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
        }
    }
}
