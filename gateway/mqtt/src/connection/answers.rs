//! What the shell answers and asks for.

use std::borrow::Cow;

use super::outbound::{Alias, WaitsFor};
use super::{Accept, CloseCause, Connection, Deliver, Delivery, Stage};
use crate::codec::writer::{self, ConnAckProperties, OutboundPublish, TooLarge};
use crate::codec::{PacketType, Version};
use crate::{Qos, ReasonCode};

impl Connection {
    /// Yes to [`Event::Connect`](crate::Event::Connect): sends CONNACK and starts
    /// the keep alive.
    pub fn accept(&mut self, now_ms: u64, accept: &Accept<'_>) {
        if self.stage != Stage::Deciding {
            return;
        }
        let limits = &self.limits;
        // A client that takes only smaller packets has no room to make a larger
        // one; on 2G the five bytes that tell it so are paid with every connection.
        let is_small = self.client_packet_bytes_max <= limits.packet_bytes_max;
        let properties = ConnAckProperties {
            session_expiry_s: accept.session_expiry_s,
            receive_maximum: Some(limits.receive_maximum).filter(|value| *value != u16::MAX),
            packet_bytes_max: Some(limits.packet_bytes_max).filter(|_| !is_small),
            assigned_client_id: accept.assigned_client_id,
            topic_alias_maximum: Some(limits.topic_alias_maximum).filter(|value| *value != 0),
            server_keep_alive_s: accept.server_keep_alive_s,
            reason_string: None,
        };
        // MQTT-3.2.2-2: a clean start has no session to be present.
        let session_present = accept.session_present && !self.clean_start;
        let form = self.form();
        let written = writer::connack(
            &mut self.transmit,
            form,
            session_present,
            ReasonCode::Success,
            &properties,
        );
        if written.is_err() {
            return self.refuse(
                ReasonCode::PacketTooLarge,
                "the client's maximum packet size has no room for CONNACK",
            );
        }
        if self.version == Some(Version::V5)
            && let Some(keep_alive_s) = accept.server_keep_alive_s
        {
            self.keep_alive_s = keep_alive_s; // MQTT-3.2.2-21
        }
        self.inbound.resume(accept.unreleased);
        self.stage = Stage::Open;
        self.blocked = false;
        self.heard_ms = now_ms;
    }

    /// No to [`Event::Connect`](crate::Event::Connect): sends CONNACK with the
    /// reason (v3.1.1: its nearest return code, if there is one) and closes.
    pub fn refuse(&mut self, reason: ReasonCode, text: impl Into<Cow<'static, str>>) {
        if self.stage != Stage::Deciding {
            return;
        }
        let reason = if reason.is_error() {
            reason
        } else {
            ReasonCode::UnspecifiedError
        };
        let text = text.into();
        self.say_goodbye(reason, &text);
        self.end_by_stage(CloseCause::Refused { reason, text });
    }

    /// Closes from our side; a v5 client is told the reason. A client that still
    /// waits for its CONNACK is refused instead.
    pub fn close(&mut self, reason: ReasonCode, text: impl Into<Cow<'static, str>>) {
        if self.stage == Stage::Closed {
            return;
        }
        let text = text.into();
        let said = match (self.stage, reason) {
            (Stage::Deciding, ReasonCode::ServerShuttingDown) => ReasonCode::ServerUnavailable,
            _ => reason,
        };
        self.say_goodbye(said, &text);
        self.end_by_stage(CloseCause::Server { reason, text });
    }

    /// Answers [`Event::Publish`](crate::Event::Publish). PUBACK and PUBREC leave
    /// in the order of the PUBLISHes, so this one waits for those before it. A
    /// reason of 0x80 and above closes a v3.1.1 connection instead, except for
    /// QoS 0, where no reason has an effect.
    pub fn publish_settled(&mut self, token: u64, reason: ReasonCode, text: Option<&str>) {
        if self.stage != Stage::Open {
            return;
        }
        let text = text.filter(|_| self.may_explain());
        self.inbound.settle(token, reason, text);
        self.send_due();
    }

    /// Acknowledges what is settled, up to the first that is not.
    pub(super) fn send_due(&mut self) {
        while let Some(due) = self.inbound.next_due() {
            let packet_type = match due.qos {
                Qos::AtMostOnce => continue,
                Qos::AtLeastOnce => PacketType::PubAck,
                Qos::ExactlyOnce => PacketType::PubRec,
            };
            if due.reason.is_error() && self.version == Some(Version::V311) {
                // An acknowledgement would say that we have it.
                return self.end_by_stage(CloseCause::PublishRefused { reason: due.reason });
            }
            let text = due.reason_string.as_deref();
            self.send_acknowledge(packet_type, due.packet_id, due.reason, text);
        }
    }

    /// Answers [`Event::PublishRelease`](crate::Event::PublishRelease): sends PUBCOMP.
    pub fn publish_completed(&mut self, packet_id: u16) {
        if self.stage == Stage::Open && self.inbound.complete(packet_id) {
            self.send_acknowledge(PacketType::PubComp, packet_id, ReasonCode::Success, None);
        }
    }

    /// Answers [`Event::Subscribe`](crate::Event::Subscribe) with one code for
    /// each filter: `Success` (QoS 0), `GrantedQos1`, `GrantedQos2` or an error.
    pub fn subscribed(&mut self, packet_id: u16, codes: &[ReasonCode], text: Option<&str>) {
        self.answer_request(PacketType::SubAck, packet_id, codes, text);
    }

    /// Answers [`Event::Unsubscribe`](crate::Event::Unsubscribe) with one code for
    /// each filter.
    pub fn unsubscribed(&mut self, packet_id: u16, codes: &[ReasonCode], text: Option<&str>) {
        self.answer_request(PacketType::UnsubAck, packet_id, codes, text);
    }

    fn answer_request(
        &mut self,
        packet_type: PacketType,
        packet_id: u16,
        codes: &[ReasonCode],
        text: Option<&str>,
    ) {
        if self.stage != Stage::Open {
            return;
        }
        self.unanswered_requests = self.unanswered_requests.saturating_sub(1);
        let text = text.filter(|_| self.may_explain());
        let form = self.form();
        let written = writer::subscription_answer(
            &mut self.transmit,
            form,
            packet_type,
            packet_id,
            codes,
            text,
        );
        self.close_if_too_large(written);
    }

    /// Sends a message to the client, if window, buffer and size allow.
    pub fn deliver(&mut self, delivery: &Delivery<'_>) -> Deliver {
        if self.stage != Stage::Open {
            return Deliver::NotOpen;
        }
        if self.transmit.len() >= self.limits.transmit_bytes_max as usize {
            return Deliver::TransmitFull;
        }
        if delivery.qos != Qos::AtMostOnce && self.send_window() == 0 {
            return Deliver::WindowFull;
        }
        let topic = &*delivery.message.topic;
        let alias = self.outbound.alias(topic);
        let (sent_topic, topic_alias) = match alias {
            None => (topic, None),
            Some(Alias::Known(alias)) => ("", Some(alias)),
            Some(Alias::New(alias)) => (topic, Some(alias)),
        };
        let publish = OutboundPublish {
            topic: sent_topic,
            payload: &delivery.message.payload,
            packet_id: delivery.packet_id,
            qos: delivery.qos,
            retain: delivery.retain,
            dup: delivery.dup,
            forwardable: &delivery.message.properties,
            expiry_s: delivery.expiry_s,
            topic_alias,
            subscription_ids: delivery.subscription_ids,
        };
        let form = self.form();
        if writer::publish(&mut self.transmit, form, &publish).is_err() {
            return Deliver::TooLarge;
        }
        if let Some(Alias::New(_)) = alias {
            self.outbound.define_alias(topic);
        }
        self.outbound.sent(delivery.packet_id, delivery.qos);
        Deliver::Delivered
    }

    /// Answers [`Event::Received`](crate::Event::Received): sends PUBREL.
    pub fn released(&mut self, packet_id: u16) {
        if self.stage == Stage::Open && self.outbound.get(packet_id) == Some(WaitsFor::Shell) {
            self.outbound.sent_release(packet_id);
            self.send_acknowledge(PacketType::PubRel, packet_id, ReasonCode::Success, None);
        }
    }

    /// After a resumed session: sends PUBREL for a QoS 2 delivery that had its
    /// PUBREC on an earlier connection. It takes a place in the window, but is
    /// sent even if there is none. False if the connection is not open.
    pub fn resume_release(&mut self, packet_id: u16) -> bool {
        if self.stage != Stage::Open {
            return false;
        }
        self.outbound.sent_release(packet_id);
        self.send_acknowledge(PacketType::PubRel, packet_id, ReasonCode::Success, None);
        true
    }

    /// How many more QoS 1 and 2 deliveries may go out now.
    pub fn send_window(&self) -> usize {
        if self.stage == Stage::Open {
            self.outbound.send_window()
        } else {
            0
        }
    }

    pub(super) fn send_acknowledge(
        &mut self,
        packet_type: PacketType,
        packet_id: u16,
        reason: ReasonCode,
        text: Option<&str>,
    ) {
        let form = self.form();
        let written = writer::acknowledge(
            &mut self.transmit,
            form,
            packet_type,
            packet_id,
            reason,
            text,
        );
        self.close_if_too_large(written);
    }

    /// A client whose maximum packet size forbids an answer that the protocol
    /// demands can't be served.
    fn close_if_too_large(&mut self, written: Result<(), TooLarge>) {
        if written.is_err() {
            self.fail(super::packets::PeerFault {
                reason: ReasonCode::PacketTooLarge,
                text: Cow::Borrowed("its maximum packet size has no room for our answer"),
            });
        }
    }

    /// Request problem information 0 forbids reason strings in all but CONNACK and
    /// DISCONNECT (MQTT-3.1.2-29).
    fn may_explain(&self) -> bool {
        self.request_problem_information
    }
}
