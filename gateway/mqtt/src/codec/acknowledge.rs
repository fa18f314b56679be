//! PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT and AUTH from a client
//! (sections 3.4 to 3.7, 3.14, 3.15 of MQTT 5.0).
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | packet identifier (not in DISCONNECT and AUTH) |
//! | 1 | v5: reason code; absent means success |
//! | … | v5: properties; absent means none |

use super::properties::{Place, Property, read_block};
use super::reader::Reader;
use super::{DecodeError, PacketType, Version};
use crate::ReasonCode;

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledge {
    /// Never 0.
    pub packet_id: u16,
    /// `Success` in v3.1.1.
    pub reason: ReasonCode,
}

/// A DISCONNECT packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// `Success` in v3.1.1.
    pub reason: ReasonCode,
    /// A new session expiry interval in seconds.
    pub session_expiry_s: Option<u32>,
}

/// An AUTH packet; well-formed, and not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth {
    /// What it is for.
    pub reason: ReasonCode,
}

pub(crate) fn read(
    reader: &mut Reader<'_>,
    packet_type: PacketType,
    version: Version,
) -> Result<Acknowledge, DecodeError> {
    let packet_id = reader.packet_id()?;
    let mut reason = ReasonCode::Success;
    if version == Version::V5 {
        reason = read_reason(reader, packet_type)?;
        if !reader.is_empty() {
            read_block(reader, Place::Acknowledge, |_, _| Ok(()))?;
        }
    }
    Ok(Acknowledge { packet_id, reason })
}

pub(crate) fn read_disconnect(
    reader: &mut Reader<'_>,
    version: Version,
) -> Result<Disconnect, DecodeError> {
    let mut reason = ReasonCode::Success;
    let mut session_expiry_s = None;
    if version == Version::V5 {
        reason = read_reason(reader, PacketType::Disconnect)?;
        if !client_may_leave_with(reason) {
            return Err(DecodeError::Protocol(
                "a DISCONNECT reason that only a server may give",
            ));
        }
        if !reader.is_empty() {
            read_block(reader, Place::Disconnect, |property, _| {
                if let Property::SessionExpiryInterval(value) = property {
                    session_expiry_s = Some(value);
                }
                Ok(())
            })?;
        }
    }
    Ok(Disconnect {
        reason,
        session_expiry_s,
    })
}

/// MQTT 5.0, table 3-10, the rows of a client.
fn client_may_leave_with(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::Success
            | ReasonCode::DisconnectWithWill
            | ReasonCode::UnspecifiedError
            | ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::TopicNameInvalid
            | ReasonCode::ReceiveMaximumExceeded
            | ReasonCode::TopicAliasInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::MessageRateTooHigh
            | ReasonCode::QuotaExceeded
            | ReasonCode::AdministrativeAction
            | ReasonCode::PayloadFormatInvalid
    )
}

pub(crate) fn read_auth(reader: &mut Reader<'_>) -> Result<Auth, DecodeError> {
    let reason = read_reason(reader, PacketType::Auth)?;
    if !reader.is_empty() {
        read_block(reader, Place::Auth, |_, _| Ok(()))?;
    }
    Ok(Auth { reason })
}

fn read_reason(
    reader: &mut Reader<'_>,
    packet_type: PacketType,
) -> Result<ReasonCode, DecodeError> {
    if reader.is_empty() {
        return Ok(ReasonCode::Success);
    }
    ReasonCode::from_u8(reader.u8()?)
        .filter(|reason| reason.allowed_in(packet_type))
        .ok_or(DecodeError::Protocol(
            "a reason code that this packet may not carry",
        ))
}
