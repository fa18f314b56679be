//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10 of both standards).
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | packet identifier |
//! | … | v5: properties |
//! | 2+n | topic filter, followed in SUBSCRIBE by |
//! | 1 | options: bits 1-0 QoS; v5: 2 no local, 3 retain as published, 5-4 retain handling |
//!
//! The last two repeat, at least once.

use bytes::Bytes;

use super::properties::{Place, Property, read_block};
use super::publish::text;
use super::reader::Reader;
use super::{DecodeError, Version};
use crate::Qos;
use crate::limits::FILTERS_PER_PACKET_MAX;
use crate::topics::{RetainHandling, Subscription, TopicFilter};

/// A SUBSCRIBE packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Never 0.
    pub packet_id: u16,
    /// At least one.
    pub filters: Vec<Subscription>,
}

/// An UNSUBSCRIBE packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Never 0.
    pub packet_id: u16,
    /// At least one.
    pub filters: Vec<TopicFilter>,
}

pub(crate) fn read(
    packet: &Bytes,
    reader: &mut Reader<'_>,
    version: Version,
) -> Result<Subscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    let mut id = None;
    if version == Version::V5 {
        read_block(reader, Place::Subscribe, |property, _| {
            if let Property::SubscriptionIdentifier(value) = property {
                id = Some(value);
            }
            Ok(())
        })?;
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        check_count(filters.len())?;
        let filter = read_filter(packet, reader, version)?;
        filters.push(read_options(filter, reader.u8()?, id, version)?);
    }
    if filters.is_empty() {
        return Err(DecodeError::Protocol("SUBSCRIBE without a filter")); // MQTT-3.8.3-2
    }
    Ok(Subscribe { packet_id, filters })
}

pub(crate) fn read_unsubscribe(
    packet: &Bytes,
    reader: &mut Reader<'_>,
    version: Version,
) -> Result<Unsubscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    if version == Version::V5 {
        read_block(reader, Place::Unsubscribe, |_, _| Ok(()))?;
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        check_count(filters.len())?;
        filters.push(read_filter(packet, reader, version)?);
    }
    if filters.is_empty() {
        return Err(DecodeError::Protocol("UNSUBSCRIBE without a filter")); // MQTT-3.10.3-2
    }
    Ok(Unsubscribe { packet_id, filters })
}

fn check_count(filters: usize) -> Result<(), DecodeError> {
    if filters == FILTERS_PER_PACKET_MAX {
        return Err(DecodeError::TooMany("topic filters"));
    }
    Ok(())
}

fn read_filter(
    packet: &Bytes,
    reader: &mut Reader<'_>,
    version: Version,
) -> Result<TopicFilter, DecodeError> {
    let filter = text(packet, reader.string()?)?;
    TopicFilter::parse(filter, version == Version::V5).map_err(DecodeError::TopicFilter)
}

fn read_options(
    filter: TopicFilter,
    options: u8,
    id: Option<u32>,
    version: Version,
) -> Result<Subscription, DecodeError> {
    let reserved = if version == Version::V5 { 0xc0 } else { 0xfc };
    if options & reserved != 0 {
        // MQTT-3.8.3-5; MQTT-3-8.3-4 of v3.1.1
        return Err(DecodeError::Malformed(
            "reserved bits of the subscription options are set",
        ));
    }
    let qos = Qos::from_u8(options & 3).ok_or(DecodeError::Malformed("subscription to QoS 3"))?;
    let retain_handling = match (options >> 4) & 3 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(DecodeError::Protocol("retain handling 3")),
    };
    let no_local = options & 4 != 0;
    if no_local && filter.share.is_some() {
        return Err(DecodeError::Protocol("no local on a shared subscription")); // MQTT-3.8.3-4
    }
    Ok(Subscription {
        filter,
        qos,
        no_local,
        retain_as_published: options & 8 != 0,
        retain_handling,
        id,
    })
}
