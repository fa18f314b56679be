//! One network connection's protocol: bytes and time in, bytes and events out.
//!
//! # The contract with the shell
//!
//! The shell owns the socket and the clock and loops over:
//!
//! 1. bytes read → [`Connection::handle_input`]; what it leaves in the buffer is
//!    kept and given again, with or without more bytes, after the next answer or
//!    write. While [`Connection::wants_input`] is false the shell does not read.
//! 2. [`Connection::poll_event`] until `None`; each event answered, now or later.
//! 3. [`Connection::transmit`]: bytes to write; the shell takes what it wrote off
//!    the front.
//! 4. [`Connection::poll_timeout`] → [`Connection::handle_timeout`].
//!
//! Times are milliseconds of any clock that never goes back.

mod event;

use std::borrow::Cow;

use bytes::BytesMut;

pub use event::{Accept, CloseCause, Closed, ConnectRequest, Deliver, Delivery, Event, Will};

use crate::codec::Version;
use crate::limits::ConnectionLimits;
use crate::reason::ReasonCode;

/// What dies with the network connection.
#[derive(Debug)]
pub struct Connection {}

impl Connection {
    /// A connection that was just opened and has to say CONNECT first.
    pub fn new(_limits: &ConnectionLimits, _now_ms: u64) -> Self {
        todo!()
    }

    /// Takes whole packets off `input` as far as it may. What is left is an
    /// unfinished packet, or waits for an answer from the shell.
    pub fn handle_input(&mut self, _now_ms: u64, _input: &mut BytesMut) {
        todo!()
    }

    /// Whether more bytes from the network are of use. False while packets
    /// already read wait for an answer, and once closed.
    pub fn wants_input(&self) -> bool {
        todo!()
    }

    /// When [`Connection::handle_timeout`] is due, if at all.
    pub fn poll_timeout(&self) -> Option<u64> {
        todo!()
    }

    /// Acts on what is due by now.
    pub fn handle_timeout(&mut self, _now_ms: u64) {
        todo!()
    }

    /// The network connection ended (end of stream or an error).
    pub fn handle_transport_lost(&mut self) {
        todo!()
    }

    /// Bytes to write.
    pub fn transmit(&mut self) -> &mut BytesMut {
        todo!()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// Gives back memory that an idle connection does not need; to be called
    /// before waiting long.
    pub fn release_spare_memory(&mut self) {
        todo!()
    }

    /// Heap memory held, in bytes, without what events and messages share.
    pub fn heap_bytes(&self) -> usize {
        todo!()
    }

    /// The version, once CONNECT came.
    pub fn version(&self) -> Option<Version> {
        todo!()
    }

    /// Whether it is accepted and not closed.
    pub fn is_open(&self) -> bool {
        todo!()
    }

    /// Yes to [`Event::Connect`]: sends CONNACK and starts the keep alive.
    pub fn accept(&mut self, _now_ms: u64, _accept: &Accept<'_>) {
        todo!()
    }

    /// No to [`Event::Connect`]: sends CONNACK with the reason (v3.1.1: its
    /// nearest code) and closes.
    pub fn refuse(&mut self, _reason: ReasonCode, _text: impl Into<Cow<'static, str>>) {
        todo!()
    }

    /// Answers [`Event::Publish`]. PUBACK and PUBREC leave in the order of the
    /// PUBLISHes, so this one waits for those before it. An error reason closes
    /// a v3.1.1 connection; for QoS 0 it has no effect.
    pub fn publish_settled(
        &mut self,
        _token: u64,
        _reason: ReasonCode,
        _reason_string: Option<&str>,
    ) {
        todo!()
    }

    /// Answers [`Event::PublishRelease`]: sends PUBCOMP.
    pub fn publish_completed(&mut self, _packet_id: u16) {
        todo!()
    }

    /// Answers [`Event::Subscribe`] with one code for each filter.
    pub fn subscribed(
        &mut self,
        _packet_id: u16,
        _codes: &[ReasonCode],
        _reason_string: Option<&str>,
    ) {
        todo!()
    }

    /// Answers [`Event::Unsubscribe`] with one code for each filter.
    pub fn unsubscribed(
        &mut self,
        _packet_id: u16,
        _codes: &[ReasonCode],
        _reason_string: Option<&str>,
    ) {
        todo!()
    }

    /// Sends a message to the client, if window, buffer and size allow.
    pub fn deliver(&mut self, _now_ms: u64, _delivery: &Delivery<'_>) -> Deliver {
        todo!()
    }

    /// Answers [`Event::Received`]: sends PUBREL.
    pub fn released(&mut self, _packet_id: u16) {
        todo!()
    }

    /// After a resumed session: sends PUBREL for a QoS 2 delivery that had its
    /// PUBREC on an earlier connection. `WindowFull` as for a delivery.
    pub fn resume_release(&mut self, _packet_id: u16) -> Deliver {
        todo!()
    }

    /// How many more QoS 1 and 2 deliveries may go out now.
    pub fn send_window(&self) -> usize {
        todo!()
    }

    /// Closes from our side; a v5 client is told the reason.
    pub fn close(&mut self, _reason: ReasonCode, _text: impl Into<Cow<'static, str>>) {
        todo!()
    }
}
