//! PUBLISH (section 3.3 of both standards).
//!
//! | bytes | field |
//! | --- | --- |
//! | (flags) | bit 3 DUP, bits 2-1 QoS, bit 0 retain |
//! | 2+n | topic name; v5: may be empty with a topic alias |
//! | 2 | packet identifier, only for QoS 1 and 2 |
//! | … | v5: properties |
//! | rest | payload |

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::properties::{Place, Property, read_block};
use super::reader::Reader;
use super::{DecodeError, Version};
use crate::topics::validate_topic;
use crate::{Message, Qos};

/// A PUBLISH from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The message; its topic is empty if an alias stands for it.
    pub message: Message,
    /// 0 for QoS 0.
    pub packet_id: u16,
    /// It may have been sent before.
    pub dup: bool,
    /// Never 0.
    pub topic_alias: Option<u16>,
}

pub(crate) fn check_flags(flags: u8) -> Result<(), DecodeError> {
    match (flags >> 1) & 3 {
        3 => Err(DecodeError::Malformed("QoS 3")), // MQTT-3.3.1-4
        0 if flags & 8 != 0 => Err(DecodeError::Malformed("DUP with QoS 0")), // MQTT-3.3.1-2
        _ => Ok(()),
    }
}

pub(crate) fn read(
    packet: &Bytes,
    reader: &mut Reader<'_>,
    flags: u8,
    version: Version,
) -> Result<Publish, DecodeError> {
    let qos = Qos::from_u8((flags >> 1) & 3).ok_or(DecodeError::Malformed("QoS 3"))?;
    let topic = reader.string()?;
    let packet_id = if qos == Qos::AtMostOnce {
        0
    } else {
        reader.packet_id()?
    };
    let mut properties = MessageProperties::default();
    if version == Version::V5 {
        properties = MessageProperties::read(packet, reader, Place::Publish)?;
    }
    if !(topic.is_empty() && properties.topic_alias.is_some()) {
        if topic.is_empty() && version == Version::V5 {
            return Err(DecodeError::Protocol(
                "an empty topic name without a topic alias",
            ));
        }
        validate_topic(topic).map_err(DecodeError::TopicName)?;
    }
    let payload = reader.take(reader.rest().len())?;
    Ok(Publish {
        message: Message {
            topic: text(packet, topic)?,
            payload: packet.slice_ref(payload),
            qos,
            retain: flags & 1 != 0,
            properties: properties.forwardable,
            expiry_s: properties.expiry_s,
        },
        packet_id,
        dup: flags & 8 != 0,
        topic_alias: properties.topic_alias,
    })
}

/// What a PUBLISH's or a will's property block says.
#[derive(Debug, Default)]
pub(crate) struct MessageProperties {
    /// As in [`Message::properties`].
    pub(crate) forwardable: Bytes,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) will_delay_s: u32,
}

impl MessageProperties {
    pub(crate) fn read(
        packet: &Bytes,
        reader: &mut Reader<'_>,
        place: Place,
    ) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        let mut kept = Kept::Slice(&[]);
        read_block(reader, place, |property, encoded| {
            match property {
                Property::MessageExpiryInterval(value) => found.expiry_s = Some(value),
                Property::TopicAlias(value) => found.topic_alias = Some(value),
                Property::WillDelayInterval(value) => found.will_delay_s = value,
                Property::SubscriptionIdentifier(_) => {
                    return Err(DecodeError::Protocol(
                        "a subscription identifier in a client's PUBLISH",
                    ));
                }
                _ => {}
            }
            if property.is_forwardable() {
                kept.append(packet, encoded);
            }
            Ok(())
        })?;
        found.forwardable = match kept {
            Kept::Slice([]) => Bytes::new(),
            Kept::Slice(slice) => packet.slice_ref(slice),
            Kept::Copy(copy) => copy.freeze(),
        };
        Ok(found)
    }
}

/// The forwardable properties: a slice of the packet while they lie side by
/// side, a copy once something else stood between them.
enum Kept<'a> {
    Slice(&'a [u8]),
    Copy(BytesMut),
}

impl<'a> Kept<'a> {
    fn append(&mut self, packet: &'a Bytes, encoded: &'a [u8]) {
        match self {
            Self::Slice([]) => *self = Self::Slice(encoded),
            Self::Slice(slice) => {
                let start = slice.as_ptr() as usize - packet.as_ptr() as usize;
                let end = start + slice.len();
                if encoded.as_ptr() as usize - packet.as_ptr() as usize == end {
                    *self = Self::Slice(&packet[start..end + encoded.len()]);
                } else {
                    let mut copy = BytesMut::with_capacity(slice.len() + encoded.len());
                    copy.put_slice(slice);
                    copy.put_slice(encoded);
                    *self = Self::Copy(copy);
                }
            }
            Self::Copy(copy) => copy.put_slice(encoded),
        }
    }
}

/// A string of the packet that shares its bytes.
pub(crate) fn text(packet: &Bytes, part: &str) -> Result<ByteString, DecodeError> {
    if part.is_empty() {
        return Ok(ByteString::new()); // holds on to nothing
    }
    ByteString::try_from(packet.slice_ref(part.as_bytes()))
        .map_err(|_| DecodeError::Malformed("a string is not well-formed UTF-8"))
}
