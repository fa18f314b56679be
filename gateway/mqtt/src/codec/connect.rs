//! CONNECT (section 3.1 of both standards).
//!
//! | bytes | field |
//! | --- | --- |
//! | 2+4 | protocol name, `MQTT` |
//! | 1 | protocol level: 4 or 5 |
//! | 1 | flags: 7 user name, 6 password, 5 will retain, 4-3 will QoS, 2 will, 1 clean, 0 reserved |
//! | 2 | keep alive in seconds |
//! | … | v5: properties |
//! | 2+n | client identifier |
//! | … | with a will: v5 will properties, topic, payload |
//! | 2+n | with flag 7: user name |
//! | 2+n | with flag 6: password |

use bytes::Bytes;
use bytestring::ByteString;

use super::properties::{Place, Property, read_block};
use super::publish::{MessageProperties, text};
use super::reader::Reader;
use super::{DecodeError, FixedHeader, Version};
use crate::connection::{ConnectRequest, Will};
use crate::limits::CONNECT_USER_PROPERTIES_MAX;
use crate::topics::validate_topic;
use crate::{Message, Qos};

/// A CONNECT packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// All that it asks for.
    pub request: ConnectRequest,
    /// The method of an enhanced authentication (MQTT 5.0, section 4.12), if any.
    pub authentication_method: Option<ByteString>,
}

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// The version in whose form a CONNECT at the beginning of `input` is to be
/// answered, as far as it can be told: the packet need not be whole nor valid.
/// A level that is not served gets the form of the nearest served one.
pub fn connect_version(input: &[u8]) -> Option<Version> {
    let header = FixedHeader::peek(input).ok()??;
    // What follows the packet is not its: it may be there or yet to come.
    let end = input.len().min(header.packet_bytes());
    let mut reader = Reader::new(input.get(header.header_bytes..end)?);
    let name = reader.binary().ok()?;
    let level = reader.u8().ok()?;
    match (name, level & 0x7f) {
        // MQTT 3.1: its clients fall back or give up on return code 1.
        (b"MQIsdp", _) | (b"MQTT", 0..=4) => Some(Version::V311),
        (b"MQTT", _) => Some(Version::V5),
        _ => None,
    }
}

pub(crate) fn read(packet: &Bytes, reader: &mut Reader<'_>) -> Result<Connect, DecodeError> {
    let version = read_version(reader)?;
    let flags = reader.u8()?;
    check_flags(flags, version)?;
    let keep_alive_s = reader.u16()?;

    let clean_start = flags & CLEAN != 0;
    let mut request = ConnectRequest {
        version,
        client_id: ByteString::new(),
        clean_start,
        keep_alive_s,
        session_expiry_s: if version == Version::V311 && !clean_start {
            u32::MAX
        } else {
            0
        },
        receive_maximum: u16::MAX,
        packet_bytes_max: None,
        topic_alias_maximum: 0,
        request_problem_information: true,
        request_response_information: false,
        username: None,
        password: None,
        will: None,
        user_properties: Vec::new(),
    };
    let mut authentication_method = None;
    if version == Version::V5 {
        authentication_method = read_properties(packet, reader, &mut request)?;
    }

    let client_id = reader.string()?;
    if version == Version::V311 && client_id.is_empty() && !clean_start {
        return Err(DecodeError::ClientIdentifierEmpty);
    }
    request.client_id = text(packet, client_id)?;
    if flags & WILL != 0 {
        request.will = Some(read_will(packet, reader, flags, version)?);
    }
    if flags & USER_NAME != 0 {
        request.username = Some(text(packet, reader.string()?)?);
    }
    if flags & PASSWORD != 0 {
        request.password = Some(packet.slice_ref(reader.binary()?));
    }
    Ok(Connect {
        request,
        authentication_method,
    })
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = reader.binary()?;
    let level = reader.u8()?;
    match (name, level) {
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT" | b"MQIsdp", _) => Err(DecodeError::UnsupportedVersion { level }),
        _ => Err(DecodeError::Malformed("the protocol name is not MQTT")),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    if flags & RESERVED != 0 {
        return Err(DecodeError::Malformed("the reserved CONNECT flag is set")); // MQTT-3.1.2-3
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::Malformed("will flags without a will")); // MQTT-3.1.2-11, -13
    }
    if flags & WILL_QOS == WILL_QOS {
        return Err(DecodeError::Malformed("will QoS 3")); // MQTT-3.1.2-12
    }
    if version == Version::V311 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        // MQTT-3.1.2-22 of v3.1.1; v5 allows it.
        return Err(DecodeError::Malformed("a password without a user name"));
    }
    Ok(())
}

fn read_properties(
    packet: &Bytes,
    reader: &mut Reader<'_>,
    request: &mut ConnectRequest,
) -> Result<Option<ByteString>, DecodeError> {
    let mut authentication_method = None;
    let mut authentication_data = false;
    read_block(reader, Place::Connect, |property, _| {
        match property {
            Property::SessionExpiryInterval(value) => request.session_expiry_s = value,
            Property::ReceiveMaximum(value) => request.receive_maximum = value,
            Property::MaximumPacketSize(value) => request.packet_bytes_max = Some(value),
            Property::TopicAliasMaximum(value) => request.topic_alias_maximum = value,
            Property::RequestProblemInformation(value) => {
                request.request_problem_information = value;
            }
            Property::RequestResponseInformation(value) => {
                request.request_response_information = value;
            }
            Property::UserProperty(name, value) => {
                if request.user_properties.len() == CONNECT_USER_PROPERTIES_MAX {
                    return Err(DecodeError::TooMany("user properties"));
                }
                request
                    .user_properties
                    .push((text(packet, name)?, text(packet, value)?));
            }
            Property::AuthenticationMethod(method) => {
                authentication_method = Some(text(packet, method)?);
            }
            Property::AuthenticationData(_) => authentication_data = true,
            _ => {}
        }
        Ok(())
    })?;
    if authentication_data && authentication_method.is_none() {
        return Err(DecodeError::Protocol(
            "authentication data without a method",
        ));
    }
    Ok(authentication_method)
}

fn read_will(
    packet: &Bytes,
    reader: &mut Reader<'_>,
    flags: u8,
    version: Version,
) -> Result<Will, DecodeError> {
    let mut properties = MessageProperties::default();
    if version == Version::V5 {
        properties = MessageProperties::read(packet, reader, Place::Will)?;
    }
    let topic = reader.string()?;
    validate_topic(topic).map_err(DecodeError::TopicName)?;
    let payload = reader.binary()?;
    Ok(Will {
        message: Message {
            topic: text(packet, topic)?,
            payload: packet.slice_ref(payload),
            qos: Qos::from_u8((flags & WILL_QOS) >> 3)
                .ok_or(DecodeError::Malformed("will QoS 3"))?,
            retain: flags & WILL_RETAIN != 0,
            properties: properties.forwardable,
            expiry_s: properties.expiry_s,
        },
        delay_s: properties.will_delay_s,
    })
}
