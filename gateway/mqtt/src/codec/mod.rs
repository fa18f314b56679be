//! Packets from and to bytes, MQTT 3.1.1 and 5.0 in one model.
//!
//! Decoding is for what a client may send, encoding for what a server may. The
//! decoder is strict and total: any bytes give a packet, a wish for more bytes,
//! or a [`DecodeError`] with the standard's reason. It takes no memory but the
//! packet's own bytes: strings and payloads are slices of the input, and lists are
//! bounded by [`limits`](crate::limits).
//!
//! The fixed header, both versions:
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | type (high 4 bits), flags (low 4 bits; fixed except in PUBLISH) |
//! | 1-4 | remaining length: 7 bits a byte, low first, bit 7 says more follows |

mod acknowledge;
mod connect;
mod error;
pub(crate) mod properties;
mod publish;
mod reader;
mod subscribe;
pub(crate) mod writer;

use bytes::{Buf, BytesMut};

pub use acknowledge::{Acknowledge, Auth, Disconnect};
pub use connect::{Connect, connect_version};
pub use error::DecodeError;
pub use properties::Property;
pub use publish::Publish;
pub use subscribe::{Subscribe, Unsubscribe};

use reader::Reader;

/// Version of the protocol; a connection's is chosen by its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// The packet types (MQTT 5.0, table 2-1) under their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the standard's own names
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the standard's own names
pub enum Packet {
    Connect(Box<Connect>),
    Publish(Publish),
    PubAck(Acknowledge),
    PubRec(Acknowledge),
    PubRel(Acknowledge),
    PubComp(Acknowledge),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    PingReq,
    Disconnect(Disconnect),
    Auth(Auth),
}

/// A whole fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHeader {
    /// Type and flags.
    pub first_byte: u8,
    /// Bytes of the header itself, 2..=5.
    pub header_bytes: usize,
    /// Bytes that follow it.
    pub remaining_bytes: usize,
}

impl FixedHeader {
    /// Reads it from the beginning of `input`; `None` if more bytes are needed.
    pub fn peek(input: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some((first_byte, rest)) = input.split_first() else {
            return Ok(None);
        };
        Ok(
            reader::variable_integer(rest)?.map(|(remaining, length_bytes)| Self {
                first_byte: *first_byte,
                header_bytes: 1 + length_bytes,
                remaining_bytes: remaining as usize,
            }),
        )
    }

    /// Bytes of the whole packet.
    pub fn packet_bytes(&self) -> usize {
        self.header_bytes + self.remaining_bytes
    }
}

/// Takes the first packet off `input`.
///
/// `Ok(None)`: it is not whole yet, nothing was taken. After an error the
/// connection has to be closed: what is left can't be told apart any more.
/// `packet_bytes_max` bounds the whole packet and is checked as
/// soon as the fixed header is there. A CONNECT brings its own version; all others
/// are read as `version`.
pub fn decode(
    input: &mut BytesMut,
    version: Version,
    packet_bytes_max: u32,
) -> Result<Option<Packet>, DecodeError> {
    // The first byte alone can already be wrong: don't wait for more.
    let Some(first_byte) = input.first().copied() else {
        return Ok(None);
    };
    let packet_type = client_packet_type(first_byte, version)?;
    let Some(header) = FixedHeader::peek(input)? else {
        return Ok(None);
    };
    if header.packet_bytes() > packet_bytes_max as usize {
        return Err(DecodeError::PacketTooLarge {
            packet_bytes: header.packet_bytes(),
            packet_bytes_max,
        });
    }
    if input.len() < header.packet_bytes() {
        return Ok(None);
    }
    let mut packet = input.split_to(header.packet_bytes()).freeze();
    packet.advance(header.header_bytes);
    let flags = first_byte & 0x0f;
    let mut reader = Reader::new(&packet);
    let decoded = match packet_type {
        PacketType::Connect => Packet::Connect(Box::new(connect::read(&packet, &mut reader)?)),
        PacketType::Publish => {
            Packet::Publish(publish::read(&packet, &mut reader, flags, version)?)
        }
        PacketType::PubAck => Packet::PubAck(acknowledge::read(&mut reader, packet_type, version)?),
        PacketType::PubRec => Packet::PubRec(acknowledge::read(&mut reader, packet_type, version)?),
        PacketType::PubRel => Packet::PubRel(acknowledge::read(&mut reader, packet_type, version)?),
        PacketType::PubComp => {
            Packet::PubComp(acknowledge::read(&mut reader, packet_type, version)?)
        }
        PacketType::Subscribe => Packet::Subscribe(subscribe::read(&packet, &mut reader, version)?),
        PacketType::Unsubscribe => {
            Packet::Unsubscribe(subscribe::read_unsubscribe(&packet, &mut reader, version)?)
        }
        PacketType::PingReq => Packet::PingReq,
        PacketType::Disconnect => {
            Packet::Disconnect(acknowledge::read_disconnect(&mut reader, version)?)
        }
        PacketType::Auth => Packet::Auth(acknowledge::read_auth(&mut reader)?),
        PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp => {
            return Err(SERVER_ONLY);
        }
    };
    reader.finish()?;
    Ok(Some(decoded))
}

const SERVER_ONLY: DecodeError = DecodeError::Protocol("a packet that only a server may send");

fn client_packet_type(first_byte: u8, version: Version) -> Result<PacketType, DecodeError> {
    let (packet_type, flags) = match first_byte >> 4 {
        1 => (PacketType::Connect, 0),
        3 => return publish::check_flags(first_byte & 0x0f).map(|()| PacketType::Publish),
        4 => (PacketType::PubAck, 0),
        5 => (PacketType::PubRec, 0),
        6 => (PacketType::PubRel, 2),
        7 => (PacketType::PubComp, 0),
        8 => (PacketType::Subscribe, 2),
        10 => (PacketType::Unsubscribe, 2),
        12 => (PacketType::PingReq, 0),
        14 => (PacketType::Disconnect, 0),
        15 if version == Version::V5 => (PacketType::Auth, 0),
        2 | 9 | 11 | 13 => return Err(SERVER_ONLY),
        _ => return Err(DecodeError::Malformed("a reserved packet type")),
    };
    if first_byte & 0x0f != flags {
        return Err(DecodeError::Malformed(
            "reserved flags of the fixed header are set",
        ));
    }
    Ok(packet_type)
}
