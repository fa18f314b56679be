//! MQTT 5.0 properties (section 2.2.2): reading with every rule of the standard
//! enforced, writing, and which of them a PUBLISH hands on.
//!
//! A property block on the wire is its length (variable byte integer), then
//! properties: one byte identifier, then a value of the type that table 2-4
//! gives to it.

use bytes::{BufMut, BytesMut};

use super::DecodeError;
use super::reader::Reader;

/// Where a property block stands; each place admits its own properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Connect,
    Will,
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP
    Acknowledge,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
    /// What [`Message::properties`](crate::Message) may hold.
    Forwardable,
}

/// One property that a client may send. Borrowed from the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the standard's own names
pub enum Property<'a> {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    RequestResponseInformation(bool),
    WillDelayInterval(u32),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
}

/// Identifiers of table 2-4, those that we read or write.
pub(crate) mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

impl Place {
    fn admits(self, property: u8) -> bool {
        use id::*;
        match self {
            Self::Connect => matches!(
                property,
                SESSION_EXPIRY_INTERVAL
                    | AUTHENTICATION_METHOD
                    | AUTHENTICATION_DATA
                    | REQUEST_PROBLEM_INFORMATION
                    | REQUEST_RESPONSE_INFORMATION
                    | RECEIVE_MAXIMUM
                    | TOPIC_ALIAS_MAXIMUM
                    | USER_PROPERTY
                    | MAXIMUM_PACKET_SIZE
            ),
            Self::Will => {
                Self::Forwardable.admits(property)
                    || matches!(property, MESSAGE_EXPIRY_INTERVAL | WILL_DELAY_INTERVAL)
            }
            // A subscription identifier is decoded so that its presence can be
            // told as the protocol error it is: MQTT-3.3.4-6.
            Self::Publish => {
                Self::Forwardable.admits(property)
                    || matches!(
                        property,
                        MESSAGE_EXPIRY_INTERVAL | TOPIC_ALIAS | SUBSCRIPTION_IDENTIFIER
                    )
            }
            Self::Acknowledge => matches!(property, REASON_STRING | USER_PROPERTY),
            Self::Subscribe => matches!(property, SUBSCRIPTION_IDENTIFIER | USER_PROPERTY),
            Self::Unsubscribe => property == USER_PROPERTY,
            // Server reference may stand in DISCONNECT, but from a server only.
            Self::Disconnect => {
                matches!(
                    property,
                    SESSION_EXPIRY_INTERVAL | REASON_STRING | USER_PROPERTY
                )
            }
            Self::Auth => matches!(
                property,
                AUTHENTICATION_METHOD | AUTHENTICATION_DATA | REASON_STRING | USER_PROPERTY
            ),
            Self::Forwardable => matches!(
                property,
                PAYLOAD_FORMAT_INDICATOR
                    | CONTENT_TYPE
                    | RESPONSE_TOPIC
                    | CORRELATION_DATA
                    | USER_PROPERTY
            ),
        }
    }
}

impl Property<'_> {
    /// Whether it travels with the message to its subscribers unchanged.
    pub(crate) fn is_forwardable(&self) -> bool {
        matches!(
            self,
            Self::PayloadFormatIndicator(_)
                | Self::ContentType(_)
                | Self::ResponseTopic(_)
                | Self::CorrelationData(_)
                | Self::UserProperty(..)
        )
    }
}

/// Reads the block at the reader, length included. Each property is handed to
/// `take` together with its encoded bytes.
pub(crate) fn read_block<'a>(
    reader: &mut Reader<'a>,
    place: Place,
    take: impl FnMut(Property<'a>, &'a [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let block_bytes = reader.variable_integer()? as usize;
    let block = reader.take(block_bytes)?;
    read_all(block, place, take)
}

fn read_all<'a>(
    block: &'a [u8],
    place: Place,
    mut take: impl FnMut(Property<'a>, &'a [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(block);
    let mut seen = 0u64;
    while !reader.is_empty() {
        let before = reader.rest();
        let property_id = reader.u8()?;
        if !place.admits(property_id) {
            return Err(DecodeError::Malformed(
                "a property that this packet may not carry",
            ));
        }
        // Admitted identifiers are below 64; user properties may repeat.
        let bit = 1u64 << property_id;
        if seen & bit != 0 && property_id != id::USER_PROPERTY {
            return Err(DecodeError::Protocol(
                "a property that stands more than once",
            ));
        }
        seen |= bit;
        let property = read_value(&mut reader, property_id)?;
        let encoded = &before[..before.len() - reader.rest().len()];
        take(property, encoded)?;
    }
    Ok(())
}

fn read_value<'a>(reader: &mut Reader<'a>, property_id: u8) -> Result<Property<'a>, DecodeError> {
    use id::*;
    Ok(match property_id {
        PAYLOAD_FORMAT_INDICATOR => match reader.u8()? {
            value @ (0 | 1) => Property::PayloadFormatIndicator(value),
            _ => {
                return Err(DecodeError::Protocol(
                    "payload format indicator is neither 0 nor 1",
                ));
            }
        },
        MESSAGE_EXPIRY_INTERVAL => Property::MessageExpiryInterval(reader.u32()?),
        CONTENT_TYPE => Property::ContentType(reader.string()?),
        RESPONSE_TOPIC => {
            let topic = reader.string()?;
            crate::topics::validate_topic(topic)
                .map_err(|_| DecodeError::Protocol("response topic is not a valid topic name"))?;
            Property::ResponseTopic(topic)
        }
        CORRELATION_DATA => Property::CorrelationData(reader.binary()?),
        SUBSCRIPTION_IDENTIFIER => match reader.variable_integer()? {
            0 => return Err(DecodeError::Protocol("subscription identifier 0")),
            value => Property::SubscriptionIdentifier(value),
        },
        SESSION_EXPIRY_INTERVAL => Property::SessionExpiryInterval(reader.u32()?),
        AUTHENTICATION_METHOD => Property::AuthenticationMethod(reader.string()?),
        AUTHENTICATION_DATA => Property::AuthenticationData(reader.binary()?),
        REQUEST_PROBLEM_INFORMATION => Property::RequestProblemInformation(reader.boolean()?),
        REQUEST_RESPONSE_INFORMATION => Property::RequestResponseInformation(reader.boolean()?),
        WILL_DELAY_INTERVAL => Property::WillDelayInterval(reader.u32()?),
        REASON_STRING => Property::ReasonString(reader.string()?),
        RECEIVE_MAXIMUM => match reader.u16()? {
            0 => return Err(DecodeError::Protocol("receive maximum 0")),
            value => Property::ReceiveMaximum(value),
        },
        TOPIC_ALIAS_MAXIMUM => Property::TopicAliasMaximum(reader.u16()?),
        TOPIC_ALIAS => match reader.u16()? {
            0 => return Err(DecodeError::TopicAliasInvalid),
            value => Property::TopicAlias(value),
        },
        USER_PROPERTY => Property::UserProperty(reader.string()?, reader.string()?),
        MAXIMUM_PACKET_SIZE => match reader.u32()? {
            0 => return Err(DecodeError::Protocol("maximum packet size 0")),
            value => Property::MaximumPacketSize(value),
        },
        _ => return Err(DecodeError::Malformed("an unknown property")),
    })
}

/// Walks a block that was validated when it was read.
pub(crate) fn iterate(block: &[u8]) -> impl Iterator<Item = Property<'_>> {
    let mut reader = Reader::new(block);
    std::iter::from_fn(move || {
        let property_id = reader.u8().ok()?;
        read_value(&mut reader, property_id).ok()
    })
}

/// Whether the bytes are a valid row of properties that a message may carry on.
pub(crate) fn are_forwardable(block: &[u8]) -> bool {
    read_all(block, Place::Forwardable, |_, _| Ok(())).is_ok()
}

/// Writes one string property.
pub(crate) fn put_string_property(out: &mut BytesMut, property_id: u8, value: &str) {
    out.put_u8(property_id);
    super::writer::put_string(out, value);
}

/// Bytes that [`put_string_property`] writes.
pub(crate) fn string_property_len(value: &str) -> usize {
    3 + value.len()
}
