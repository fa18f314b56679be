//! What each packet from the client does.

use std::borrow::Cow;

use bytes::BytesMut;

use super::inbound::{Arrival, Release};
use super::outbound::WaitsFor;
use super::{CloseCause, Connection, Event, Stage};
use crate::codec::writer::{self, ConnAckProperties};
use crate::codec::{
    Acknowledge, Connect, DecodeError, Disconnect, FixedHeader, Packet, PacketType, Publish,
    Version, connect_version, decode,
};
use crate::limits::{EVENTS_WAITING_MAX, UNANSWERED_REQUESTS_MAX};
use crate::{Qos, ReasonCode};

/// A fault of the peer: the reason to tell it, and what it did.
#[derive(Debug)]
pub(super) struct PeerFault {
    pub(super) reason: ReasonCode,
    pub(super) text: Cow<'static, str>,
}

fn fault(reason: ReasonCode, text: &'static str) -> PeerFault {
    PeerFault {
        reason,
        text: Cow::Borrowed(text),
    }
}

impl From<DecodeError> for PeerFault {
    fn from(error: DecodeError) -> Self {
        Self {
            reason: error.reason(),
            text: Cow::Owned(error.to_string()),
        }
    }
}

impl Connection {
    /// Handles the first packet of `input`, if it is whole and its turn. `true`:
    /// go on with the next.
    pub(super) fn handle_next(
        &mut self,
        now_ms: u64,
        input: &mut BytesMut,
    ) -> Result<bool, PeerFault> {
        self.blocked = false;
        let Some(first_byte) = input.first().copied() else {
            return Ok(false);
        };
        if self.must_wait(first_byte) {
            self.blocked = true;
            return Ok(false);
        }
        let packet = match self.stage {
            Stage::AwaitConnect => {
                if first_byte >> 4 != PacketType::Connect as u8 {
                    return Err(fault(
                        ReasonCode::ProtocolError,
                        "the first packet is not a CONNECT", // MQTT-3.1.0-1
                    ));
                }
                self.version = connect_version(input);
                if self.version.is_none() && !protocol_is_told(input)? {
                    return Ok(false);
                }
                decode(input, Version::V5, self.limits.connect_packet_bytes_max)?
            }
            _ => decode(input, self.form().version, self.limits.packet_bytes_max)?,
        };
        let Some(packet) = packet else {
            return Ok(false);
        };
        self.heard_ms = now_ms;
        self.handle_packet(packet)?;
        Ok(true)
    }

    /// Whether the next packet has to stay unread for now, told by its first byte.
    fn must_wait(&self, first_byte: u8) -> bool {
        let transmit_full = self.transmit.len() >= self.limits.transmit_bytes_max as usize;
        let answer_due = match first_byte >> 4 {
            3 => self.holds_publishes || self.publish_must_wait(first_byte),
            8 | 10 => usize::from(self.unanswered_requests) >= UNANSWERED_REQUESTS_MAX,
            _ => false,
        };
        let events_full = self.events.len() >= EVENTS_WAITING_MAX;
        self.stage == Stage::Deciding || transmit_full || events_full || answer_due
    }

    fn publish_must_wait(&self, first_byte: u8) -> bool {
        let window = usize::from(self.limits.receive_maximum);
        if self.inbound.pending() < window {
            return false;
        }
        // A v5 client that sends beyond its Receive Maximum is not waited for.
        let acknowledgeable = first_byte & 0b110 != 0;
        !(self.version == Some(Version::V5)
            && acknowledgeable
            && self.inbound.in_flight() >= window)
    }

    fn handle_packet(&mut self, packet: Packet) -> Result<(), PeerFault> {
        match packet {
            Packet::Connect(connect) => self.handle_connect(*connect)?,
            Packet::Publish(publish) => self.handle_publish(publish)?,
            Packet::PubAck(acknowledge) => self.handle_puback(acknowledge)?,
            Packet::PubRec(acknowledge) => self.handle_pubrec(acknowledge)?,
            Packet::PubRel(acknowledge) => self.handle_pubrel(acknowledge),
            Packet::PubComp(acknowledge) => self.handle_pubcomp(acknowledge)?,
            Packet::Subscribe(subscribe) => {
                self.unanswered_requests += 1;
                let (packet_id, filters) = (subscribe.packet_id, subscribe.filters);
                self.events
                    .push_back(Event::Subscribe { packet_id, filters });
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.unanswered_requests += 1;
                let (packet_id, filters) = (unsubscribe.packet_id, unsubscribe.filters);
                self.events
                    .push_back(Event::Unsubscribe { packet_id, filters });
            }
            Packet::PingReq => writer::pingresp(&mut self.transmit),
            Packet::Disconnect(disconnect) => self.handle_disconnect(disconnect)?,
            Packet::Auth(_) => {
                // No CONNECT with a method is accepted: MQTT-4.12.0-6
                return Err(fault(
                    ReasonCode::ProtocolError,
                    "AUTH, but no enhanced authentication was agreed",
                ));
            }
        }
        Ok(())
    }

    fn handle_connect(&mut self, connect: Connect) -> Result<(), PeerFault> {
        if self.stage != Stage::AwaitConnect {
            return Err(fault(ReasonCode::ProtocolError, "a second CONNECT")); // MQTT-3.1.0-2
        }
        let request = connect.request;
        if connect.authentication_method.is_some() {
            return Err(fault(
                ReasonCode::BadAuthenticationMethod,
                "enhanced authentication is not offered",
            ));
        }
        if request.client_id.len() > usize::from(self.limits.client_id_bytes_max) {
            return Err(fault(
                ReasonCode::ClientIdentifierNotValid,
                "the client identifier is too long",
            ));
        }
        if let Some(will) = &request.will
            && will.message.topic.len() > usize::from(self.limits.topic_bytes_max)
        {
            return Err(fault(
                ReasonCode::TopicNameInvalid,
                "the will's topic is too long",
            ));
        }
        self.stage = Stage::Deciding;
        self.request_problem_information = request.request_problem_information;
        self.clean_start = request.clean_start;
        self.session_expires_at_once = request.session_expiry_s == 0;
        self.keep_alive_s = request.keep_alive_s;
        self.client_packet_bytes_max = request.packet_bytes_max.unwrap_or(u32::MAX);
        self.outbound.window = request.receive_maximum.min(self.limits.inflight_max);
        self.outbound.alias_maximum = request
            .topic_alias_maximum
            .min(self.limits.outbound_topic_alias_maximum);
        self.events.push_back(Event::Connect(Box::new(request)));
        Ok(())
    }

    fn handle_publish(&mut self, publish: Publish) -> Result<(), PeerFault> {
        let Publish {
            mut message,
            packet_id,
            dup,
            topic_alias,
        } = publish;
        let qos = message.qos;
        if message.topic.len() > usize::from(self.limits.topic_bytes_max) {
            return Err(fault(
                ReasonCode::TopicNameInvalid,
                "the topic name is too long",
            ));
        }
        if qos != Qos::AtMostOnce
            && self.version == Some(Version::V5)
            && self.inbound.in_flight() >= usize::from(self.limits.receive_maximum)
        {
            return Err(fault(
                ReasonCode::ReceiveMaximumExceeded,
                "more unacknowledged PUBLISHes than the receive maximum",
            ));
        }
        if qos == Qos::ExactlyOnce
            && self
                .inbound
                .has_no_room_for(packet_id, self.limits.unreleased_max)
        {
            return Err(fault(
                ReasonCode::ReceiveMaximumExceeded,
                "too many QoS 2 messages without PUBREL",
            ));
        }
        if let Some(alias) = topic_alias {
            if alias > self.limits.topic_alias_maximum {
                return Err(fault(
                    ReasonCode::TopicAliasInvalid,
                    "a topic alias above the maximum",
                ));
            }
            if message.topic.is_empty() {
                message.topic = self.inbound.alias(alias).ok_or_else(|| {
                    fault(
                        ReasonCode::ProtocolError,
                        "a topic alias that was never defined",
                    )
                })?;
            } else {
                self.inbound.define_alias(alias, &message.topic);
            }
        }
        match self.inbound.arrive(packet_id, qos) {
            Arrival::New(token) => {
                self.events.push_back(Event::Publish {
                    token,
                    message,
                    packet_id,
                    dup,
                });
            }
            Arrival::Answered => self.send_due(),
        }
        Ok(())
    }

    fn handle_puback(&mut self, acknowledge: Acknowledge) -> Result<(), PeerFault> {
        let Acknowledge { packet_id, reason } = acknowledge;
        match self.outbound.get(packet_id) {
            Some(WaitsFor::PubAck) => self.acked(packet_id, reason),
            Some(_) => {
                return Err(fault(
                    ReasonCode::ProtocolError,
                    "PUBACK for a QoS 2 message",
                ));
            }
            None => {} // of an earlier connection, or twice
        }
        Ok(())
    }

    fn handle_pubrec(&mut self, acknowledge: Acknowledge) -> Result<(), PeerFault> {
        let Acknowledge { packet_id, reason } = acknowledge;
        match self.outbound.get_mut(packet_id) {
            Some(WaitsFor::PubAck) => {
                return Err(fault(
                    ReasonCode::ProtocolError,
                    "PUBREC for a QoS 1 message",
                ));
            }
            Some(WaitsFor::PubRec) if reason.is_error() => self.acked(packet_id, reason),
            Some(waits_for @ WaitsFor::PubRec) => {
                *waits_for = WaitsFor::Shell;
                self.events.push_back(Event::Received { packet_id });
            }
            Some(WaitsFor::Shell) => {}
            Some(WaitsFor::PubComp) => {
                self.send_acknowledge(PacketType::PubRel, packet_id, ReasonCode::Success, None);
            }
            None if reason.is_error() => {}
            None => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.send_acknowledge(PacketType::PubRel, packet_id, reason, None);
            }
        }
        Ok(())
    }

    fn handle_pubrel(&mut self, acknowledge: Acknowledge) {
        let packet_id = acknowledge.packet_id;
        match self.inbound.release(packet_id) {
            Release::Begun => self.events.push_back(Event::PublishRelease { packet_id }),
            Release::Again => {}
            Release::Unknown => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.send_acknowledge(PacketType::PubComp, packet_id, reason, None);
            }
        }
    }

    fn handle_pubcomp(&mut self, acknowledge: Acknowledge) -> Result<(), PeerFault> {
        let Acknowledge { packet_id, reason } = acknowledge;
        match self.outbound.get(packet_id) {
            Some(WaitsFor::PubComp) => self.acked(packet_id, reason),
            Some(_) => return Err(fault(ReasonCode::ProtocolError, "PUBCOMP before PUBREL")),
            None => {}
        }
        Ok(())
    }

    fn handle_disconnect(&mut self, disconnect: Disconnect) -> Result<(), PeerFault> {
        if self.session_expires_at_once && disconnect.session_expiry_s.is_some_and(|s| s > 0) {
            return Err(fault(
                ReasonCode::ProtocolError,
                "a session expiry interval in DISCONNECT after none in CONNECT",
            ));
        }
        let publish_will = disconnect.reason != ReasonCode::Success;
        self.end(
            CloseCause::ClientDisconnected(disconnect.reason),
            publish_will,
            disconnect.session_expiry_s,
        );
        Ok(())
    }

    fn acked(&mut self, packet_id: u16, reason: ReasonCode) {
        self.outbound.done(packet_id);
        self.events.push_back(Event::Acked { packet_id, reason });
    }

    /// The peer is told and the connection ends.
    pub(super) fn fail(&mut self, PeerFault { reason, text }: PeerFault) {
        self.say_goodbye(reason, &text);
        self.end_by_stage(CloseCause::Peer { reason, text });
    }

    /// CONNACK or DISCONNECT, whichever the stage and the version have.
    pub(super) fn say_goodbye(&mut self, reason: ReasonCode, text: &str) {
        let Some(_) = self.version else { return };
        let form = self.form();
        // A client that accepts not even that gets none.
        let _too_large = match self.stage {
            Stage::AwaitConnect | Stage::Deciding => {
                let properties = ConnAckProperties {
                    reason_string: (!text.is_empty()).then_some(text),
                    ..ConnAckProperties::default()
                };
                writer::connack(&mut self.transmit, form, false, reason, &properties)
            }
            Stage::Open => writer::disconnect(&mut self.transmit, form, reason, Some(text)),
            Stage::Closed => Ok(()),
        };
    }
}

/// Whether so much of a CONNECT is there that [`connect_version`] can't tell more
/// from a longer piece. Refusals before that would depend on how the network cut
/// the bytes.
fn protocol_is_told(input: &[u8]) -> Result<bool, DecodeError> {
    const NAME_AND_LEVEL_BYTES: usize = 2 + "MQIsdp".len() + 1;
    Ok(FixedHeader::peek(input)?.is_some_and(|header| {
        let body_bytes = header.remaining_bytes.min(NAME_AND_LEVEL_BYTES);
        input.len() >= header.header_bytes + body_bytes
    }))
}
