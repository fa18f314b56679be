//! One application message: what a PUBLISH or a will carries, without the
//! packet's own matters (packet identifier, DUP, topic alias, subscription
//! identifiers).
//!
//! # The envelope, version 1
//!
//! How a message stands in a store or travels between our own parts. Integers
//! are big-endian. It has no checksum: the store's entries have theirs.
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 1 | flags: bits 0-1 QoS, bit 2 retain, bit 3 expiry present; the rest 0 |
//! | 4 | message expiry interval in seconds, only if bit 3 |
//! | 2 | length of the topic |
//! | n | topic, UTF-8 |
//! | 4 | length of the properties |
//! | n | forwardable properties in their MQTT 5.0 encoding, without length |
//! | rest | payload |

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::Qos;
use crate::codec::{Property, properties};
use crate::topics::validate_topic;

/// One application message. Clones share their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The topic name: valid, without wildcards.
    pub topic: ByteString,
    /// What the publisher sent; any bytes.
    pub payload: Bytes,
    /// The quality of service it was published with.
    pub qos: Qos,
    /// Whether the publisher asked to retain it.
    pub retain: bool,
    /// The MQTT 5.0 properties that travel with it to subscribers, in their wire
    /// encoding without the length: payload format indicator, content type,
    /// response topic, correlation data, user properties. Empty from v3.1.1.
    pub properties: Bytes,
    /// Message expiry interval as published, in seconds.
    pub expiry_s: Option<u32>,
}

/// Why stored bytes are not a message: damage, or a newer version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Written by a version that this one does not know.
    #[error("message envelope of version {0}, this release reads version 1: upgrade it")]
    Version(u8),
    /// Not a whole, valid envelope.
    #[error("damaged message envelope: {0}")]
    Damaged(&'static str),
}

const VERSION: u8 = 1;
const RETAIN: u8 = 0b0100;
const EXPIRY: u8 = 0b1000;

impl Message {
    /// A message without properties, QoS 0, not retained.
    pub fn new(topic: impl Into<ByteString>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// Its envelope, version 1.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out.freeze()
    }

    /// Length of its envelope in bytes.
    pub fn encoded_len(&self) -> usize {
        let expiry = if self.expiry_s.is_some() { 4 } else { 0 };
        2 + expiry + 2 + self.topic.len() + 4 + self.properties.len() + self.payload.len()
    }

    /// Appends its envelope. A topic beyond 65,535 bytes (no valid topic is) or
    /// properties beyond 4 GiB are cut.
    pub fn encode_into(&self, out: &mut BytesMut) {
        let topic = truncate_at_char(&self.topic, usize::from(u16::MAX));
        let retain = if self.retain { RETAIN } else { 0 };
        let expiry = if self.expiry_s.is_some() { EXPIRY } else { 0 };
        out.put_u8(VERSION);
        out.put_u8(self.qos as u8 | retain | expiry);
        if let Some(expiry_s) = self.expiry_s {
            out.put_u32(expiry_s);
        }
        out.put_u16(topic.len() as u16);
        out.put_slice(topic.as_bytes());
        let properties_bytes = u32::try_from(self.properties.len()).unwrap_or(u32::MAX);
        out.put_u32(properties_bytes);
        out.put_slice(&self.properties[..properties_bytes as usize]);
        out.put_slice(&self.payload);
    }

    /// Reads an envelope; topic, properties and payload share its bytes.
    pub fn decode(envelope: &Bytes) -> Result<Self, EnvelopeError> {
        let (version, rest) = envelope
            .split_first()
            .ok_or(EnvelopeError::Damaged("empty"))?;
        if *version != VERSION {
            return Err(EnvelopeError::Version(*version));
        }
        let short = EnvelopeError::Damaged("shorter than its lengths say");
        let (flags, rest) = rest.split_first().ok_or(short)?;
        if flags >> 4 != 0 {
            return Err(EnvelopeError::Damaged("unknown flags"));
        }
        let qos = Qos::from_u8(flags & 3).ok_or(EnvelopeError::Damaged("QoS 3"))?;
        let (expiry_s, rest) = if flags & EXPIRY == 0 {
            (None, rest)
        } else {
            let (value, rest) = rest.split_first_chunk().ok_or(short)?;
            (Some(u32::from_be_bytes(*value)), rest)
        };
        let (topic_bytes, rest) = rest.split_first_chunk().ok_or(short)?;
        let topic_bytes = usize::from(u16::from_be_bytes(*topic_bytes));
        let (topic, rest) = rest.split_at_checked(topic_bytes).ok_or(short)?;
        let (properties_bytes, rest) = rest.split_first_chunk().ok_or(short)?;
        let properties_bytes = u32::from_be_bytes(*properties_bytes) as usize;
        let (properties, payload) = rest.split_at_checked(properties_bytes).ok_or(short)?;

        let topic = ByteString::try_from(envelope.slice_ref(topic))
            .map_err(|_| EnvelopeError::Damaged("topic is not UTF-8"))?;
        validate_topic(&topic).map_err(|_| EnvelopeError::Damaged("topic is not valid"))?;
        if !properties::are_forwardable(properties) {
            return Err(EnvelopeError::Damaged("properties are not valid"));
        }
        Ok(Self {
            topic,
            payload: envelope.slice_ref(payload),
            qos,
            retain: flags & RETAIN != 0,
            properties: envelope.slice_ref(properties),
            expiry_s,
        })
    }

    /// A copy in one allocation of its own. What a decoder returns holds on to
    /// the whole block it was read into; whoever keeps a message keeps this.
    #[must_use]
    pub fn detach(&self) -> Self {
        let topic_bytes = self.topic.len();
        let head_bytes = topic_bytes + self.properties.len();
        let mut all = BytesMut::with_capacity(head_bytes + self.payload.len());
        all.put_slice(self.topic.as_bytes());
        all.put_slice(&self.properties);
        all.put_slice(&self.payload);
        let all = all.freeze();
        Self {
            topic: ByteString::try_from(all.slice(..topic_bytes))
                .expect("a copy of UTF-8 is UTF-8"),
            properties: all.slice(topic_bytes..head_bytes),
            payload: all.slice(head_bytes..),
            ..*self
        }
    }

    /// Its properties, one by one. Ends early at bytes that are none, which only
    /// a message built by hand can have.
    pub fn properties(&self) -> impl Iterator<Item = Property<'_>> {
        properties::iterate(&self.properties)
    }

    /// User properties in their order.
    pub fn user_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Content type, if given.
    pub fn content_type(&self) -> Option<&str> {
        self.properties().find_map(|property| match property {
            Property::ContentType(value) => Some(value),
            _ => None,
        })
    }

    /// Response topic, if given.
    pub fn response_topic(&self) -> Option<&str> {
        self.properties().find_map(|property| match property {
            Property::ResponseTopic(value) => Some(value),
            _ => None,
        })
    }

    /// Correlation data, if given.
    pub fn correlation_data(&self) -> Option<&[u8]> {
        self.properties().find_map(|property| match property {
            Property::CorrelationData(value) => Some(value),
            _ => None,
        })
    }

    /// Payload format indicator: 1 says that the payload is UTF-8.
    pub fn payload_format_indicator(&self) -> Option<u8> {
        self.properties().find_map(|property| match property {
            Property::PayloadFormatIndicator(value) => Some(value),
            _ => None,
        })
    }

    /// Whether the payload is what its format indicator says (MQTT 5.0,
    /// 3.3.2.3.2); true without one.
    pub fn payload_format_is_valid(&self) -> bool {
        self.payload_format_indicator() != Some(1) || std::str::from_utf8(&self.payload).is_ok()
    }
}

/// The longest beginning of `text` that is no longer than `bytes_max` bytes.
pub(crate) fn truncate_at_char(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
