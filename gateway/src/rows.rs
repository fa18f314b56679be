//! The gateway's rows in the state database.
//!
//! | key | value (CBOR, field numbers as in the types below) |
//! | --- | --- |
//! | `s` client identifier | [`SessionRow`] |
//! | `q` session number (u64 BE) sequence (u64 BE) | [`DeliveryRow`]: owed to a persistent session |
//! | `i` session number (u64 BE) packet identifier (u16 BE) | empty: QoS 2 taken, PUBREL still to come |
//! | `r` topic | [`RetainedRow`] |
//! | `a` terminal's id | version, 1 (1 byte), then the SHA-256 (32 bytes) of the next token that it has used here |
//! | `w` will number (u64 BE) | [`WillRow`]: of a connection that is open, or whose will is delayed |
//!
//! Every row begins with a version (field 0, now 1). A row of a newer version
//! is refused with an error that says so; the store itself guards against
//! damage.

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use risiti_bridge::receipts::ReceiptNumber;
use risiti_config::TokenDigest;
use risiti_mqtt::{Message, Qos, RetainHandling, Subscription, TopicFilter};

use crate::access::Who;
use crate::outgoing::Sequence;

/// The version written in every row.
const VERSION: u8 = 1;

/// A row that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// Written by a later release.
    #[error("row of version {0}, this release reads version {VERSION}: upgrade it")]
    Version(u8),
    /// Not what this release writes.
    #[error("row can't be read: {0}")]
    Malformed(String),
}

impl From<minicbor::decode::Error> for RowError {
    fn from(e: minicbor::decode::Error) -> Self {
        Self::Malformed(e.to_string())
    }
}

impl From<risiti_mqtt::EnvelopeError> for RowError {
    fn from(e: risiti_mqtt::EnvelopeError) -> Self {
        Self::Malformed(e.to_string())
    }
}

/// Tells one session of a client identifier from an earlier, discarded one.
pub type SessionNumber = u64;

/// A persistent session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SessionRow {
    #[n(0)]
    version: u8,
    /// Rows of `q` and `i` begin with it.
    #[n(1)]
    pub number: SessionNumber,
    /// Session expiry interval in seconds; `u32::MAX` never ends.
    #[n(2)]
    pub expiry_s: u32,
    /// When its connection closed, Unix milliseconds; none while it is open.
    #[n(3)]
    pub disconnected_ms: Option<u64>,
    /// What it subscribes to.
    #[n(4)]
    subscriptions: Vec<SubscriptionRow>,
    /// Highest delivery that was sent; true only of a session that is offline.
    #[n(5)]
    pub sent: Sequence,
    /// Highest receipt that was sent, if that is known; true only of a session
    /// that is offline.
    #[n(6)]
    pub receipts_sent: Option<ReceiptNumber>,
    /// Whose it is; see [`owner_text`].
    #[n(7)]
    owner: Option<String>,
}

/// An owner as a row has it: absent for none, `t` for the terminal that the client
/// identifier names, `u` and the name of a user.
fn owner_text(owner: &Who) -> Option<String> {
    match owner {
        Who::Anonymous => None,
        Who::Terminal(_) => Some("t".into()),
        Who::User(name) => Some(format!("u{name}")),
    }
}

/// What [`owner_text`] wrote. Of another text nobody is the owner: a user without a
/// name, which there is none of.
fn owner_of(text: Option<&str>, client_id: &str) -> Who {
    match text {
        None => Who::Anonymous,
        Some("t") => Who::Terminal(client_id.into()),
        Some(text) => Who::User(text.strip_prefix('u').unwrap_or_default().into()),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct SubscriptionRow {
    #[n(0)]
    filter: String,
    /// Bits 0-1 QoS, bit 2 no local, bit 3 retain as published, bits 4-5 retain handling.
    #[n(1)]
    options: u8,
    #[n(2)]
    id: Option<u32>,
    #[n(3)]
    share: Option<String>,
}

impl SessionRow {
    /// The row of a session with these subscriptions.
    pub fn new<'a>(
        number: SessionNumber,
        expiry_s: u32,
        disconnected_ms: Option<u64>,
        sent: Sequence,
        receipts_sent: Option<ReceiptNumber>,
        subscriptions: impl Iterator<Item = &'a Subscription>,
    ) -> Self {
        Self {
            version: VERSION,
            number,
            expiry_s,
            disconnected_ms,
            sent,
            receipts_sent,
            subscriptions: subscriptions
                .map(|s| SubscriptionRow {
                    filter: s.filter.filter.to_string(),
                    options: s.qos as u8
                        | u8::from(s.no_local) << 2
                        | u8::from(s.retain_as_published) << 3
                        | (s.retain_handling as u8) << 4,
                    id: s.id,
                    share: s.filter.share.as_ref().map(ToString::to_string),
                })
                .collect(),
            owner: None,
        }
    }

    /// The same, of that owner.
    #[must_use]
    pub fn owned_by(mut self, owner: &Who) -> Self {
        self.owner = owner_text(owner);
        self
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self, client_id: &str) -> Who {
        owner_of(self.owner.as_deref(), client_id)
    }

    /// Its subscriptions; one that can't be read is left out.
    pub fn subscriptions(&self) -> impl Iterator<Item = Subscription> {
        self.subscriptions.iter().filter_map(|row| {
            Some(Subscription {
                filter: TopicFilter {
                    share: row.share.as_deref().map(Into::into),
                    filter: row.filter.as_str().into(),
                },
                qos: Qos::from_u8(row.options & 3)?,
                no_local: row.options & 4 != 0,
                retain_as_published: row.options & 8 != 0,
                retain_handling: retain_handling(row.options >> 4)?,
                id: row.id,
            })
        })
    }
}

fn retain_handling(value: u8) -> Option<RetainHandling> {
    match value & 3 {
        0 => Some(RetainHandling::Send),
        1 => Some(RetainHandling::SendIfNew),
        2 => Some(RetainHandling::DoNotSend),
        _ => None,
    }
}

/// A delivery owed to a persistent session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeliveryRow {
    #[n(0)]
    version: u8,
    /// When the gateway took the message, Unix milliseconds.
    #[n(1)]
    pub received_ms: u64,
    /// Bits 0-1 QoS of the delivery, bit 2 its RETAIN flag.
    #[n(2)]
    flags: u8,
    /// Subscription identifiers that go with it.
    #[n(3)]
    pub subscription_ids: Vec<u32>,
    /// The message's envelope; empty once PUBREC came and only PUBREL is owed.
    #[n(4)]
    envelope: ByteVec,
}

impl DeliveryRow {
    /// The row of a delivery of `message`.
    pub fn new(
        received_ms: u64,
        qos: Qos,
        retain: bool,
        subscription_ids: Vec<u32>,
        message: &Message,
    ) -> Self {
        Self {
            version: VERSION,
            received_ms,
            flags: qos as u8 | u8::from(retain) << 2,
            subscription_ids,
            envelope: message.encode().to_vec().into(),
        }
    }

    /// The row that remains after PUBREC.
    pub fn released() -> Self {
        Self {
            version: VERSION,
            received_ms: 0,
            flags: Qos::ExactlyOnce as u8,
            subscription_ids: Vec::new(),
            envelope: Vec::new().into(),
        }
    }

    /// The delivery's QoS.
    pub fn qos(&self) -> Qos {
        Qos::from_u8(self.flags & 3).unwrap_or(Qos::AtLeastOnce)
    }

    /// The delivery's RETAIN flag.
    pub fn retain(&self) -> bool {
        self.flags & 4 != 0
    }

    /// Its message; none once PUBREC came.
    ///
    /// # Errors
    /// The envelope can't be read.
    pub fn message(&self) -> Result<Option<Message>, RowError> {
        if self.envelope.is_empty() {
            return Ok(None);
        }
        let envelope = Bytes::from(self.envelope.to_vec());
        Ok(Some(Message::decode(&envelope)?))
    }
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RetainedRow {
    #[n(0)]
    version: u8,
    /// When the gateway took it, Unix milliseconds.
    #[n(1)]
    pub received_ms: u64,
    #[n(2)]
    envelope: ByteVec,
}

impl RetainedRow {
    /// The row of a retained `message`.
    pub fn new(received_ms: u64, message: &Message) -> Self {
        Self {
            version: VERSION,
            received_ms,
            envelope: message.encode().to_vec().into(),
        }
    }

    /// The message.
    ///
    /// # Errors
    /// The envelope can't be read.
    pub fn message(&self) -> Result<Message, RowError> {
        Ok(Message::decode(&Bytes::from(self.envelope.to_vec()))?)
    }
}

/// A will that is still to be published unless its client says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WillRow {
    #[n(0)]
    version: u8,
    /// Will delay interval in seconds.
    #[n(1)]
    pub delay_s: u32,
    #[n(2)]
    envelope: ByteVec,
    /// Whose will it is.
    #[n(3)]
    pub client_id: String,
    /// As whom it came; see [`owner_text`].
    #[n(4)]
    owner: Option<String>,
}

impl WillRow {
    /// The row of a client's will.
    pub fn new(client_id: &str, delay_s: u32, message: &Message) -> Self {
        Self {
            version: VERSION,
            delay_s,
            client_id: client_id.to_owned(),
            envelope: message.encode().to_vec().into(),
            owner: None,
        }
    }

    /// The same, of that owner.
    #[must_use]
    pub fn owned_by(mut self, owner: &Who) -> Self {
        self.owner = owner_text(owner);
        self
    }

    /// As whom its client came.
    #[must_use]
    pub fn owner(&self) -> Who {
        owner_of(self.owner.as_deref(), &self.client_id)
    }

    /// The will message.
    ///
    /// # Errors
    /// The envelope can't be read.
    pub fn message(&self) -> Result<Message, RowError> {
        Ok(Message::decode(&Bytes::from(self.envelope.to_vec()))?)
    }
}

/// A row's bytes.
pub fn encode<T: Encode<()>>(row: &T) -> Vec<u8> {
    minicbor::to_vec(row).expect("writing CBOR into memory never fails")
}

/// A row from its bytes.
///
/// # Errors
/// Not a row of this version.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, RowError> {
    let mut peek = minicbor::Decoder::new(bytes);
    peek.array()?;
    match peek.u8()? {
        VERSION => Ok(minicbor::decode(bytes)?),
        other => Err(RowError::Version(other)),
    }
}

/// Prefix of session rows.
pub const SESSIONS: &[u8] = b"s";
/// Prefix of retained messages.
pub const RETAINED: &[u8] = b"r";
/// Prefix of wills.
pub const WILLS: &[u8] = b"w";

/// Prefix of next tokens that were used.
pub const USED_TOKENS: &[u8] = b"a";

/// Key of a next token that was used.
pub fn used_token_key(terminal: &str) -> Vec<u8> {
    [USED_TOKENS, terminal.as_bytes()].concat()
}

/// Its row.
pub fn used_token_row(token: &TokenDigest) -> Vec<u8> {
    [&[VERSION][..], &token.0].concat()
}

/// What such a row says; none if it is none.
pub fn used_token(row: &[u8]) -> Option<TokenDigest> {
    match row {
        [VERSION, digest @ ..] => Some(TokenDigest(digest.try_into().ok()?)),
        _ => None,
    }
}

/// Key of a session.
pub fn session_key(client_id: &str) -> Vec<u8> {
    [SESSIONS, client_id.as_bytes()].concat()
}

/// Key of a retained message. A topic too long for a key of the store stands
/// by its beginning and a digest of the whole; the row itself holds the topic.
pub fn retained_key(topic: &str) -> Vec<u8> {
    const WHOLE_BYTES_MAX: usize = 380;
    const BEGINNING_BYTES: usize = 300;
    let topic = topic.as_bytes();
    if topic.len() <= WHOLE_BYTES_MAX {
        return [RETAINED, topic].concat();
    }
    let digest = xxhash_rust::xxh3::xxh3_128(topic).to_be_bytes();
    [RETAINED, &topic[..BEGINNING_BYTES], &digest].concat()
}

/// Tells one will from another: a client's next one is not this one.
pub type WillNumber = u64;

/// Key of a will.
pub fn will_key(number: WillNumber) -> Vec<u8> {
    [WILLS, &number.to_be_bytes()].concat()
}

/// The number in a will's key.
pub fn will_number(key: &[u8]) -> Option<WillNumber> {
    Some(WillNumber::from_be_bytes(key.get(1..9)?.try_into().ok()?))
}

/// Prefix of a session's deliveries.
pub fn deliveries_prefix(session: SessionNumber) -> Vec<u8> {
    [b"q".as_slice(), &session.to_be_bytes()].concat()
}

/// Key of a delivery.
pub fn delivery_key(session: SessionNumber, sequence: Sequence) -> Vec<u8> {
    [
        b"q".as_slice(),
        &session.to_be_bytes(),
        &sequence.to_be_bytes(),
    ]
    .concat()
}

/// The sequence number in a delivery's key.
pub fn delivery_sequence(key: &[u8]) -> Option<Sequence> {
    Some(Sequence::from_be_bytes(key.get(9..17)?.try_into().ok()?))
}

/// Prefix of a session's QoS 2 identifiers that wait for PUBREL.
pub fn unreleased_prefix(session: SessionNumber) -> Vec<u8> {
    [b"i".as_slice(), &session.to_be_bytes()].concat()
}

/// Key of a QoS 2 identifier that waits for PUBREL.
pub fn unreleased_key(session: SessionNumber, packet_id: u16) -> Vec<u8> {
    [
        b"i".as_slice(),
        &session.to_be_bytes(),
        &packet_id.to_be_bytes(),
    ]
    .concat()
}

/// The packet identifier in such a key.
pub fn unreleased_packet_id(key: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(key.get(9..11)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
