//! The packets that a server sends, written straight into the transmit buffer.
//!
//! Each writes a whole packet or, if it would be larger than the client accepts,
//! nothing. A reason string that does not fit is left out (MQTT-3.4.2-2 and its
//! like). v3.1.1 forms carry no reason and no properties.

use bytes::{BufMut, BytesMut};

use super::properties::{id, put_string_property, string_property_len};
use super::{PacketType, Version};
use crate::limits::REASON_STRING_BYTES_MAX;
use crate::message::truncate_at_char;
use crate::{Qos, ReasonCode};

/// How a packet is to be put for this client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) version: Version,
    /// The largest packet that the client accepts, fixed header included.
    pub(crate) packet_bytes_max: u32,
}

/// The packet is larger than the client accepts; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// The most that a remaining length can say.
const REMAINING_BYTES_MAX: usize = 268_435_455;

/// What a v5 CONNACK may say beside its reason; each only if present.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConnAckProperties<'a> {
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) packet_bytes_max: Option<u32>,
    pub(crate) assigned_client_id: Option<&'a str>,
    pub(crate) topic_alias_maximum: Option<u16>,
    pub(crate) server_keep_alive_s: Option<u16>,
    pub(crate) reason_string: Option<&'a str>,
}

/// A PUBLISH to a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboundPublish<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) packet_id: u16,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// Already encoded, without length.
    pub(crate) forwardable: &'a [u8],
    pub(crate) expiry_s: Option<u32>,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) subscription_ids: &'a [u32],
}

/// CONNACK (3.2). In v3.1.1 a reason without a return code there writes nothing.
pub(crate) fn connack(
    out: &mut BytesMut,
    form: Form,
    session_present: bool,
    reason: ReasonCode,
    properties: &ConnAckProperties<'_>,
) -> Result<(), TooLarge> {
    match form.version {
        Version::V311 => {
            let Some(code) = reason.v3_connect_code() else {
                return Ok(());
            };
            out.put_slice(&[0x20, 2, u8::from(session_present && code == 0), code]);
            Ok(())
        }
        Version::V5 => {
            let mut properties = *properties;
            properties.reason_string = properties.reason_string.map(shorten);
            let mut length = properties.len();
            if fits(form, 2 + variable_integer_len(length) + length).is_err() {
                properties.reason_string = None;
                length = properties.len();
            }
            let remaining = 2 + variable_integer_len(length) + length;
            fits(form, remaining)?;
            put_fixed_header(out, 0x20, remaining);
            out.put_u8(u8::from(session_present && !reason.is_error()));
            out.put_u8(reason.or_unspecified(PacketType::ConnAck) as u8);
            put_variable_integer(out, length);
            properties.put(out);
            Ok(())
        }
    }
}

impl ConnAckProperties<'_> {
    fn len(&self) -> usize {
        let present = |present: bool, bytes: usize| if present { bytes } else { 0 };
        present(self.session_expiry_s.is_some(), 5)
            + present(self.receive_maximum.is_some(), 3)
            + present(self.packet_bytes_max.is_some(), 5)
            + self.assigned_client_id.map_or(0, string_property_len)
            + present(self.topic_alias_maximum.is_some(), 3)
            + present(self.server_keep_alive_s.is_some(), 3)
            + self.reason_string.map_or(0, string_property_len)
    }

    fn put(&self, out: &mut BytesMut) {
        let u16s = [
            (id::RECEIVE_MAXIMUM, self.receive_maximum),
            (id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum),
            (id::SERVER_KEEP_ALIVE, self.server_keep_alive_s),
        ];
        let u32s = [
            (id::SESSION_EXPIRY_INTERVAL, self.session_expiry_s),
            (id::MAXIMUM_PACKET_SIZE, self.packet_bytes_max),
        ];
        let strings = [
            (id::ASSIGNED_CLIENT_IDENTIFIER, self.assigned_client_id),
            (id::REASON_STRING, self.reason_string),
        ];
        for (property_id, value) in u32s {
            if let Some(value) = value {
                out.put_u8(property_id);
                out.put_u32(value);
            }
        }
        for (property_id, value) in u16s {
            if let Some(value) = value {
                out.put_u8(property_id);
                out.put_u16(value);
            }
        }
        for (property_id, value) in strings {
            if let Some(value) = value {
                put_string_property(out, property_id, value);
            }
        }
    }
}

/// PUBLISH (3.3).
pub(crate) fn publish(
    out: &mut BytesMut,
    form: Form,
    publish: &OutboundPublish<'_>,
) -> Result<(), TooLarge> {
    let packet_id_bytes = if publish.qos == Qos::AtMostOnce { 0 } else { 2 };
    let mut remaining = 2 + publish.topic.len() + packet_id_bytes + publish.payload.len();
    let properties = publish.properties_len();
    if form.version == Version::V5 {
        remaining += variable_integer_len(properties) + properties;
    }
    fits(form, remaining)?;
    let flags = u8::from(publish.dup && publish.qos != Qos::AtMostOnce) << 3
        | (publish.qos as u8) << 1
        | u8::from(publish.retain);
    put_fixed_header(out, 0x30 | flags, remaining);
    put_string(out, publish.topic);
    if publish.qos != Qos::AtMostOnce {
        out.put_u16(publish.packet_id);
    }
    if form.version == Version::V5 {
        put_variable_integer(out, properties);
        if let Some(expiry_s) = publish.expiry_s {
            out.put_u8(id::MESSAGE_EXPIRY_INTERVAL);
            out.put_u32(expiry_s);
        }
        if let Some(topic_alias) = publish.topic_alias {
            out.put_u8(id::TOPIC_ALIAS);
            out.put_u16(topic_alias);
        }
        for subscription_id in publish.subscription_ids {
            out.put_u8(id::SUBSCRIPTION_IDENTIFIER);
            put_variable_integer(out, *subscription_id as usize);
        }
        out.put_slice(publish.forwardable);
    }
    out.put_slice(publish.payload);
    Ok(())
}

impl OutboundPublish<'_> {
    fn properties_len(&self) -> usize {
        let subscription_ids: usize = self
            .subscription_ids
            .iter()
            .map(|subscription_id| 1 + variable_integer_len(*subscription_id as usize))
            .sum();
        let expiry = if self.expiry_s.is_some() { 5 } else { 0 };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        subscription_ids + expiry + alias + self.forwardable.len()
    }
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7).
pub(crate) fn acknowledge(
    out: &mut BytesMut,
    form: Form,
    packet_type: PacketType,
    packet_id: u16,
    reason: ReasonCode,
    reason_string: Option<&str>,
) -> Result<(), TooLarge> {
    let flags = if packet_type == PacketType::PubRel {
        2
    } else {
        0
    };
    let first_byte = (packet_type as u8) << 4 | flags;
    let reason = reason.or_unspecified(packet_type);
    let reason_string = reason_string.map(shorten).filter(|text| {
        let properties = string_property_len(text);
        form.version == Version::V5
            && fits(form, 3 + variable_integer_len(properties) + properties).is_ok()
    });
    if form.version == Version::V311 || (reason == ReasonCode::Success && reason_string.is_none()) {
        fits(form, 2)?;
        put_fixed_header(out, first_byte, 2);
        out.put_u16(packet_id);
        return Ok(());
    }
    let properties = reason_string.map_or(0, string_property_len);
    let remaining = if properties == 0 {
        3
    } else {
        3 + variable_integer_len(properties) + properties
    };
    fits(form, remaining)?;
    put_fixed_header(out, first_byte, remaining);
    out.put_u16(packet_id);
    out.put_u8(reason as u8);
    if let Some(text) = reason_string {
        put_variable_integer(out, properties);
        put_string_property(out, id::REASON_STRING, text);
    }
    Ok(())
}

/// SUBACK and UNSUBACK (3.9, 3.11): one code for each filter.
pub(crate) fn subscription_answer(
    out: &mut BytesMut,
    form: Form,
    packet_type: PacketType,
    packet_id: u16,
    codes: &[ReasonCode],
    reason_string: Option<&str>,
) -> Result<(), TooLarge> {
    let first_byte = (packet_type as u8) << 4;
    if form.version == Version::V311 {
        let codes = if packet_type == PacketType::SubAck {
            codes
        } else {
            &[]
        };
        put_fixed_header(out, first_byte, 2 + codes.len());
        out.put_u16(packet_id);
        for code in codes {
            // 0, 1, 2 are the granted QoS; there is one way to fail.
            out.put_u8(if code.is_error() { 0x80 } else { *code as u8 });
        }
        return Ok(());
    }
    let length =
        |properties: usize| 2 + variable_integer_len(properties) + properties + codes.len();
    let reason_string = reason_string
        .map(shorten)
        .filter(|text| fits(form, length(string_property_len(text))).is_ok());
    let properties = reason_string.map_or(0, string_property_len);
    fits(form, length(properties))?;
    put_fixed_header(out, first_byte, length(properties));
    out.put_u16(packet_id);
    put_variable_integer(out, properties);
    if let Some(text) = reason_string {
        put_string_property(out, id::REASON_STRING, text);
    }
    for code in codes {
        out.put_u8(code.or_unspecified(packet_type) as u8);
    }
    Ok(())
}

/// PINGRESP (3.13).
pub(crate) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// DISCONNECT (3.14); v3.1.1 servers send none.
pub(crate) fn disconnect(
    out: &mut BytesMut,
    form: Form,
    reason: ReasonCode,
    reason_string: Option<&str>,
) -> Result<(), TooLarge> {
    if form.version == Version::V311 {
        return Ok(());
    }
    let reason = reason.or_unspecified(PacketType::Disconnect);
    let length = |properties: usize| 1 + variable_integer_len(properties) + properties;
    let reason_string = reason_string
        .filter(|text| !text.is_empty())
        .map(shorten)
        .filter(|text| fits(form, length(string_property_len(text))).is_ok());
    let Some(text) = reason_string else {
        fits(form, 1)?;
        out.put_slice(&[0xe0, 1, reason as u8]);
        return Ok(());
    };
    let properties = string_property_len(text);
    put_fixed_header(out, 0xe0, length(properties));
    out.put_u8(reason as u8);
    put_variable_integer(out, properties);
    put_string_property(out, id::REASON_STRING, text);
    Ok(())
}

fn shorten(reason_string: &str) -> &str {
    truncate_at_char(reason_string, REASON_STRING_BYTES_MAX)
}

fn fits(form: Form, remaining: usize) -> Result<(), TooLarge> {
    let packet = 1 + variable_integer_len(remaining) + remaining;
    if remaining > REMAINING_BYTES_MAX || packet > form.packet_bytes_max as usize {
        return Err(TooLarge);
    }
    Ok(())
}

fn put_fixed_header(out: &mut BytesMut, first_byte: u8, remaining: usize) {
    out.reserve(1 + variable_integer_len(remaining) + remaining);
    out.put_u8(first_byte);
    put_variable_integer(out, remaining);
}

/// Appends a variable byte integer (1.5.5), at most 268,435,455.
pub(crate) fn put_variable_integer(out: &mut BytesMut, mut value: usize) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

/// Bytes that [`put_variable_integer`] writes.
pub(crate) fn variable_integer_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends a UTF-8 string with its length; beyond 65,535 bytes it is cut.
pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    let text = truncate_at_char(text, usize::from(u16::MAX));
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MQTT 5.0, table 1-1: each length's first and last value.
    #[test]
    fn a_variable_integer_is_as_long_as_it_is_said_to_be() {
        for (value, length) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (2_097_151, 3),
            (2_097_152, 4),
            (REMAINING_BYTES_MAX, 4),
        ] {
            let mut out = BytesMut::new();
            put_variable_integer(&mut out, value);
            assert_eq!((out.len(), variable_integer_len(value)), (length, length));
        }
    }

    /// MQTT-3.1.2-24, and what a remaining length can say (2.1.4).
    #[test]
    fn a_packet_may_be_as_large_as_the_client_takes_and_its_length_can_say() {
        let fits_in = |packet_bytes_max, remaining| {
            let form = Form {
                version: Version::V5,
                packet_bytes_max,
            };
            fits(form, remaining).is_ok()
        };
        assert!(fits_in(2 + 127, 127) && !fits_in(2 + 126, 127));
        assert!(fits_in(3 + 128, 128) && !fits_in(2 + 128, 128));
        assert!(fits_in(u32::MAX, REMAINING_BYTES_MAX));
        assert!(!fits_in(u32::MAX, REMAINING_BYTES_MAX + 1));
    }
}
