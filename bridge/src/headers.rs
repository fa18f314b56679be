//! The headers of a record in Kafka.
//!
//! Promises: every record carries an identity (`ce_id`) by which a consumer can
//! remove duplicates whatever the mode. Never: a change of the payload.
//!
//! CloudEvents 1.0, Kafka protocol binding, binary content mode (3.2):
//!
//! | header           | value                                                            |
//! |------------------|------------------------------------------------------------------|
//! | `ce_specversion` | `1.0`                                                            |
//! | `ce_id`          | `<terminal>/<sequence>`; raw: `<client>/<journal>-<position>`; of a delivery event those of the record that the receipt answers |
//! | `ce_source`      | `/risiti/<gateway>`                                              |
//! | `ce_type`        | `risiti.record`; raw: `mqtt.message`; a delivery event: `risiti.delivered` |
//! | `ce_time`        | when the gateway received it, RFC 3339, UTC, milliseconds        |
//! | `content-type`   | the MQTT one; else `application/cbor`; raw: `application/octet-stream` |
//!
//! Provenance, and what MQTT 5 says is to be forwarded unaltered (3.3.2.3):
//!
//! | header                  | value                                    |
//! |-------------------------|------------------------------------------|
//! | `risiti-gateway`        | gateway id                               |
//! | `risiti-journal`        | journal id                               |
//! | `risiti-position`       | position in that journal, decimal        |
//! | `risiti-received-ms`    | Unix milliseconds, decimal               |
//! | `mqtt-topic`            | topic name                               |
//! | `mqtt-client`           | client identifier                        |
//! | `mqtt-payload-format`   | `1` if the client says it is UTF-8       |
//! | `mqtt-response-topic`   | response topic                           |
//! | `mqtt-correlation-data` | correlation data, as it is               |
//! | `mqtt-user-<name>`      | one each user property, in their order   |

use std::time::{Duration, UNIX_EPOCH};

use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use risiti_store::{Identity, Record};

use crate::limits;
use crate::properties::{Properties, Property};
use crate::receipts::Delivered;
use crate::route::Compiled;

/// The value of a message's header of this name; the first one's if there are several.
#[must_use]
pub fn value<'a, M: Message>(message: &'a M, name: &str) -> Option<&'a [u8]> {
    let headers = message.headers()?;
    headers.iter().find(|header| header.key == name)?.value
}

/// The same as text; none if it is not UTF-8.
#[must_use]
pub fn text<'a, M: Message>(message: &'a M, name: &str) -> Option<&'a str> {
    std::str::from_utf8(value(message, name)?).ok()
}

/// 9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can name.
const RFC_3339_MS_MAX: u64 = 253_402_300_799_999;

/// Digits of the journal id in the identity of a raw record.
const JOURNAL_SHORT: usize = 8;

/// Who forwards, as its records tell it.
#[derive(Debug, Clone)]
pub struct Provenance {
    gateway_id: String,
    journal_id: String,
    source: String,
}

impl Provenance {
    /// Of this gateway and journal.
    #[must_use]
    pub fn new(gateway_id: &str, journal_id: &str) -> Self {
        Self {
            gateway_id: gateway_id.into(),
            journal_id: journal_id.into(),
            source: format!("/risiti/{gateway_id}"),
        }
    }

    /// The headers of a record that takes this route.
    #[must_use]
    pub fn headers(&self, record: &Record, route: &Compiled) -> OwnedHeaders {
        let new = &record.record;
        let mut headers = OwnedHeaders::new_with_capacity(16);
        let mut insert = |key: &str, value: &[u8]| {
            if value.len() > limits::HEADER_BYTES_MAX {
                return;
            }
            let taken = std::mem::replace(&mut headers, OwnedHeaders::new_with_capacity(0));
            headers = taken.insert(Header {
                key,
                value: Some(value),
            });
        };
        insert("ce_specversion", b"1.0");
        insert(
            "ce_id",
            identity(record, route, &self.journal_id).as_bytes(),
        );
        insert("ce_source", self.source.as_bytes());
        let (kind, mut content_type): (&[u8], &[u8]) = if route.is_deliveries() {
            (b"risiti.delivered", b"application/json")
        } else if route.is_risiti() {
            (b"risiti.record", b"application/cbor")
        } else {
            (b"mqtt.message", b"application/octet-stream")
        };
        insert("ce_type", kind);
        insert("ce_time", rfc_3339(new.received_ms).as_bytes());
        for property in Properties::new(&new.properties) {
            if let Property::ContentType(named) = property {
                content_type = named;
            }
        }
        insert("content-type", content_type);
        insert("risiti-gateway", self.gateway_id.as_bytes());
        insert("risiti-journal", self.journal_id.as_bytes());
        insert("risiti-position", record.position.to_string().as_bytes());
        insert("risiti-received-ms", new.received_ms.to_string().as_bytes());
        insert("mqtt-topic", &new.topic);
        insert("mqtt-client", &new.client_id);
        let mut user = 0;
        for property in Properties::new(&new.properties) {
            match property {
                Property::PayloadFormat(1) => insert("mqtt-payload-format", b"1"),
                Property::ResponseTopic(topic) => insert("mqtt-response-topic", topic),
                Property::CorrelationData(data) => insert("mqtt-correlation-data", data),
                // A header's name is a C string in librdkafka: NUL would panic.
                Property::User(name, value)
                    if user < limits::USER_PROPERTIES_MAX
                        && name.len() <= limits::HEADER_BYTES_MAX
                        && !name.contains(&0) =>
                {
                    user += 1;
                    let name = String::from_utf8_lossy(name);
                    insert(&format!("mqtt-user-{name}"), value);
                }
                _ => {}
            }
        }
        headers
    }
}

/// `ce_id`: what a consumer recognises a duplicate by.
#[must_use]
pub fn identity(record: &Record, route: &Compiled, journal_id: &str) -> String {
    let new = &record.record;
    let topic = String::from_utf8_lossy(&new.topic);
    if route.is_deliveries()
        && let Some(delivered) = Delivered::decode(&new.payload)
    {
        return format!("{}/{}", delivered.terminal, delivered.sequence);
    }
    if route.is_risiti()
        && let Identity::Sequence { sequence, .. } = new.identity
        && let Some(terminal) = route.terminal(&topic)
    {
        return format!("{terminal}/{sequence}");
    }
    let client = String::from_utf8_lossy(&new.client_id);
    let journal = journal_id.get(..JOURNAL_SHORT).unwrap_or(journal_id);
    format!("{client}/{journal}-{}", record.position)
}

/// Milliseconds since 1970 as RFC 3339.
#[must_use]
pub fn rfc_3339(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms.min(RFC_3339_MS_MAX));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rdkafka::message::Headers;
    use risiti_config::{Format, Key, Route, Terminals};
    use risiti_store::NewRecord;

    use crate::route::Routes;

    fn record(identity: Identity, properties: &[u8]) -> Record {
        Record {
            position: 42,
            record: NewRecord {
                received_ms: 1_700_000_000_123,
                client_id: Bytes::from_static(b"client-7"),
                topic: Bytes::from_static(b"t/17/records"),
                identity,
                properties: Bytes::copy_from_slice(properties),
                payload: Bytes::from_static(b"x"),
            },
        }
    }

    fn headers(record: &Record, format: Format) -> Vec<(String, String)> {
        let terminals = Terminals::default();
        let route = Route {
            format,
            key: Key::Terminal,
            ..Route::records(&terminals)
        };
        let routes = Routes::new(&[route], &terminals);
        let route = routes.find("t/17/records").unwrap();
        let headers = Provenance::new("gw-1", "3f9a0c11deadbeef").headers(record, route);
        headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value.unwrap()).into_owned();
                (header.key.to_owned(), value)
            })
            .collect()
    }

    fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
        headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    const SEQUENCE: Identity = Identity::Sequence {
        sequence: 9,
        dup: false,
        resend_mark: false,
    };

    #[test]
    fn a_record_is_identified_by_terminal_and_sequence() {
        let all = headers(&record(SEQUENCE, b""), Format::Risiti);
        for (name, expected) in [
            ("ce_specversion", "1.0"),
            ("ce_id", "17/9"),
            ("ce_source", "/risiti/gw-1"),
            ("ce_type", "risiti.record"),
            ("ce_time", "2023-11-14T22:13:20.123Z"),
            ("content-type", "application/cbor"),
            ("risiti-gateway", "gw-1"),
            ("risiti-journal", "3f9a0c11deadbeef"),
            ("risiti-position", "42"),
            ("risiti-received-ms", "1700000000123"),
            ("mqtt-topic", "t/17/records"),
            ("mqtt-client", "client-7"),
        ] {
            assert_eq!(value(&all, name), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_raw_message_is_identified_by_its_place_in_the_journal() {
        let all = headers(&record(Identity::None, b""), Format::Raw);
        assert_eq!(value(&all, "ce_id"), Some("client-7/3f9a0c11-42"));
        assert_eq!(value(&all, "ce_type"), Some("mqtt.message"));
        assert_eq!(
            value(&all, "content-type"),
            Some("application/octet-stream")
        );
    }

    #[test]
    fn mqtt_5_properties_become_headers() {
        let list = b"\x01\x01\x03\0\x04text\x08\0\x01r\x09\0\x01c\x26\0\x01a\0\x011\x26\0\x01a\0\x012\x26\0\x02b\0\0\x013";
        let all = headers(&record(SEQUENCE, list), Format::Raw);
        assert_eq!(value(&all, "content-type"), Some("text"));
        assert_eq!(value(&all, "mqtt-payload-format"), Some("1"));
        assert_eq!(value(&all, "mqtt-response-topic"), Some("r"));
        assert_eq!(value(&all, "mqtt-correlation-data"), Some("c"));
        let user: Vec<_> = all
            .iter()
            .filter(|(name, _)| name.starts_with("mqtt-user-"))
            .collect();
        // In their order; a name with NUL can't be a header and is left out.
        assert_eq!(user.len(), 2);
        assert_eq!((user[0].1.as_str(), user[1].1.as_str()), ("1", "2"));
    }

    #[test]
    fn any_time_can_be_written() {
        assert_eq!(rfc_3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc_3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_header_is_found_by_its_name_and_is_text_if_it_says_so() {
        let headers = [("a", &b"1"[..]), ("b", b"\xff"), ("a", b"2")];
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header {
                    key,
                    value: Some(*value),
                })
            });
        let message = rdkafka::message::OwnedMessage::new(
            None,
            None,
            "topic".into(),
            rdkafka::Timestamp::NotAvailable,
            0,
            0,
            Some(headers),
        );
        assert_eq!(super::value(&message, "a"), Some(&b"1"[..]), "the first");
        assert_eq!(super::value(&message, "b"), Some(&b"\xff"[..]));
        assert_eq!(super::value(&message, "c"), None);
        assert_eq!(text(&message, "a"), Some("1"));
        assert_eq!(text(&message, "b"), None);
    }

    #[test]
    fn g8_a_header_that_is_too_long_is_left_out_and_one_that_just_fits_is_not() {
        for (bytes, kept) in [
            (limits::HEADER_BYTES_MAX - 1, true),
            (limits::HEADER_BYTES_MAX, true),
            (limits::HEADER_BYTES_MAX + 1, false),
        ] {
            let mut list = vec![0x03];
            list.extend((bytes as u16).to_be_bytes());
            list.extend(vec![b'x'; bytes]);
            let all = headers(&record(SEQUENCE, &list), Format::Raw);
            assert_eq!(value(&all, "content-type").is_some(), kept, "{bytes}");
        }
    }

    #[test]
    fn g8_so_many_user_properties_become_headers_and_no_more() {
        let list = b"\x26\0\x01a\0\x011".repeat(limits::USER_PROPERTIES_MAX + 2);
        let all = headers(&record(SEQUENCE, &list), Format::Raw);
        let user = all.iter().filter(|(name, _)| name == "mqtt-user-a");
        assert_eq!(user.count(), limits::USER_PROPERTIES_MAX);
    }
}
