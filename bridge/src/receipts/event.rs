//! The delivery event: says in Kafka that a receipt reached its terminal.
//!
//! Promises: its place in the journal is named by terminal and receipt number, so
//! that the journal recognises it if it comes twice. Never: anything of the
//! receipt's content but its status.
//!
//! In the journal:
//!
//! | field     | value                                          |
//! |-----------|------------------------------------------------|
//! | client id | `receipts/<terminal>`                          |
//! | topic     | the terminal's receipts topic                  |
//! | identity  | sequence = number of the receipt               |
//! | properties| content type `application/json`                |
//! | payload   | [`Delivered`] as JSON                          |
//!
//! In Kafka: key = terminal, `ce_id` = `<terminal>/<sequence>`, `ce_type` =
//! `risiti.delivered`.

use bytes::{BufMut, Bytes, BytesMut};
use risiti_config::{Format, Key, Route, Terminals};
use risiti_store::{Identity, NewRecord};
use serde::{Deserialize, Serialize};

use super::ReceiptNumber;

/// The name of the route that carries delivery events. No configured route can
/// have it.
pub const DELIVERIES_ROUTE: &str = "$deliveries";

/// The header that names the journal a record came from.
pub const JOURNAL_HEADER: &str = "risiti-journal";

/// A receipt reached its terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// Which terminal.
    pub terminal: String,
    /// The sequence number of the record that the receipt answers.
    pub sequence: u64,
    /// The receipt's number at the gateway that delivered it.
    pub number: ReceiptNumber,
    /// 0 accepted, else the reason for the rejection, or
    /// [`STATUS_SEALED`](super::STATUS_SEALED).
    pub status: u16,
    /// Which gateway delivered it.
    pub gateway: String,
    /// When that gateway had it on disk, Unix milliseconds.
    pub stored_ms: u64,
    /// When its terminal acknowledged it, Unix milliseconds.
    pub acknowledged_ms: u64,
}

impl Delivered {
    /// Reads an event; none if it is not one.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// What goes into the journal. `topic` is the terminal's receipts topic.
    pub(super) fn to_record(&self, topic: &str, again: bool) -> NewRecord {
        let payload = serde_json::to_vec(self).expect("numbers and texts are JSON");
        NewRecord {
            received_ms: self.acknowledged_ms,
            client_id: Bytes::from(format!("receipts/{}", self.terminal)),
            topic: Bytes::copy_from_slice(topic.as_bytes()),
            identity: Identity::Sequence {
                sequence: self.number,
                dup: again,
                resend_mark: false,
            },
            properties: content_type(b"application/json"),
            payload: Bytes::from(payload),
        }
    }
}

/// An MQTT 5 property list that holds a content type (MQTT-3.3.2.3.9).
fn content_type(name: &[u8]) -> Bytes {
    let mut list = BytesMut::with_capacity(3 + name.len());
    list.put_u8(0x03);
    list.put_u16(u16::try_from(name.len()).expect("a short name"));
    list.put_slice(name);
    list.freeze()
}

/// A terminal's topic out of its template.
pub(super) fn topic_of(template: &str, terminal: &str) -> String {
    template.replace("{id}", terminal)
}

/// The route that delivery events take; it stands before all others.
#[must_use]
pub fn deliveries_route(terminals: &Terminals, cluster: &str, topic: &str) -> Route {
    let level = terminals
        .receipts
        .split('/')
        .position(|level| level == "{id}")
        .unwrap_or(0);
    Route {
        name: DELIVERIES_ROUTE.into(),
        filter: topic_of(&terminals.receipts, "+"),
        cluster: cluster.into(),
        topic: topic.into(),
        key: Key::Level(u16::try_from(level + 1).unwrap_or(u16::MAX)),
        format: Format::Raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_json_and_says_so_in_its_properties() {
        let delivered = Delivered {
            terminal: "t1".into(),
            sequence: 3,
            number: 9,
            status: 0,
            gateway: "gw".into(),
            stored_ms: 1,
            acknowledged_ms: 2,
        };
        let record = delivered.to_record("t/t1/receipts", true);
        assert_eq!(record.properties, &b"\x03\0\x10application/json"[..]);
        assert_eq!(Delivered::decode(&record.payload), Some(delivered));
        assert_eq!(record.client_id, "receipts/t1");
        assert_eq!(record.topic, "t/t1/receipts");
        let again = Identity::Sequence {
            sequence: 9,
            dup: true,
            resend_mark: false,
        };
        assert_eq!((record.identity, record.received_ms), (again, 2));
    }
}
