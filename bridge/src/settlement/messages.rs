//! What is written to Kafka because of a decision.
//!
//! Promises: every message names its record's place, so that it can be traced back;
//! what can't be settled is kept whole, up to a bound, with the reason. Never: a
//! decision.
//!
//! | topic        | key         | value                                                  |
//! |--------------|-------------|--------------------------------------------------------|
//! | receipts     | terminal    | the receipt, in the wire format, sealed as its record was |
//! | transactions | terminal    | JSON: `id terminal sequence kind account amount_minor currency reference reverses terminal_time_s settled_ms day receipt_number bank_reference record` |
//! | rejected     | as it came  | JSON: `terminal sequence reason code detail record record_bytes record_base64` |
//! | changelog    | `<terminal>/<sequence>` | [`super::changelog`]                       |
//!
//! `record` is `{"topic", "partition", "offset", "time_ms"}`. Headers, on all but the
//! changelog, follow the CloudEvents Kafka binding:
//!
//! | header           | value                                                        |
//! |------------------|--------------------------------------------------------------|
//! | `ce_specversion` | `1.0`                                                        |
//! | `ce_id`          | `<terminal>/<sequence>`; rejected: `<partition>-<offset>` of the record |
//! | `ce_source`      | `/risiti/settlement`                                         |
//! | `ce_type`        | `risiti.receipt`, `risiti.transaction`, `risiti.rejected`    |
//! | `ce_time`        | when it was settled, by the record's time in Kafka, RFC 3339 |
//! | `content-type`   | `application/cbor` or `application/json`                     |
//! | `risiti-record`  | `<partition>/<offset>` of the record                         |
//! | `risiti-repeat`  | on a receipt that was sent before: `1`                       |
//! | `expiry_s`       | on a receipt, if it expires: seconds from its timestamp      |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::message::{Header, OwnedHeaders};
use risiti_wire::Reason;
use serde_json::json;

use super::core::{Decision, Input, Transaction, Verdict};
use super::memory::Kind;
use crate::headers::rfc_3339;
use crate::limits;

/// Which topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Receipts.
    Receipts,
    /// What was settled.
    Transactions,
    /// What was not.
    Rejected,
    /// What is remembered; in the record's own partition.
    Changelog,
}

/// A message to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: Topic,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Message {
    /// The headers as librdkafka wants them.
    #[must_use]
    pub fn kafka_headers(&self) -> OwnedHeaders {
        self.headers.iter().fold(
            OwnedHeaders::new_with_capacity(self.headers.len()),
            |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value.as_bytes()),
                })
            },
        )
    }
}

/// What all messages of an instance have in common.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    /// Name of the records topic.
    pub records_topic: String,
    /// Seconds after which a receipt expires; 0 = never.
    pub receipt_expiry_s: u32,
}

impl Envelope {
    /// The messages that a decision asks for, in the order in which they are to be
    /// written.
    #[must_use]
    pub fn messages(&self, input: &Input<'_>, decision: &Decision) -> Vec<Message> {
        let mut messages = Vec::with_capacity(4);
        for (key, value) in &decision.changelog {
            messages.push(Message {
                topic: Topic::Changelog,
                key: Some(key.clone()),
                value: value.clone(),
                headers: Vec::new(),
            });
        }
        if let Verdict::Accepted(transaction) = &decision.verdict {
            messages.push(self.transaction(input, decision, transaction));
        }
        if let Some((code, detail)) = rejection(&decision.verdict) {
            messages.push(self.rejected(input, decision, code, &detail));
        }
        if let (Some(receipt), Some(terminal)) = (&decision.receipt, &decision.terminal) {
            messages.push(self.receipt(input, decision, terminal, receipt));
        }
        messages
    }

    fn receipt(
        &self,
        input: &Input<'_>,
        decision: &Decision,
        terminal: &str,
        receipt: &[u8],
    ) -> Message {
        let mut headers = headers(input, decision, &id(decision), "risiti.receipt");
        headers.push(("content-type", "application/cbor".into()));
        if decision.verdict == Verdict::Again {
            headers.push(("risiti-repeat", "1".into()));
        }
        if self.receipt_expiry_s > 0 {
            headers.push(("expiry_s", self.receipt_expiry_s.to_string()));
        }
        Message {
            topic: Topic::Receipts,
            key: Some(terminal.as_bytes().to_vec()),
            value: Some(receipt.to_vec()),
            headers,
        }
    }

    fn transaction(
        &self,
        input: &Input<'_>,
        decision: &Decision,
        transaction: &Transaction,
    ) -> Message {
        let (kind, reverses) = match transaction.kind {
            Kind::Reversal { reverses } => ("reversal", Some(reverses)),
            Kind::Payment | Kind::Unreadable => ("payment", None),
        };
        let value = json!({
            "id": id(decision),
            "terminal": decision.terminal,
            "sequence": decision.sequence,
            "kind": kind,
            "account": transaction.account,
            "amount_minor": transaction.amount_minor,
            "currency": transaction.currency,
            "reference": transaction.reference,
            "reverses": reverses,
            "terminal_time_s": transaction.terminal_time_s,
            "settled_ms": decision.time_ms,
            "day": date(transaction.day),
            "receipt_number": decision.number,
            "bank_reference": transaction.bank_reference,
            "record": self.record(input),
        });
        let mut headers = headers(input, decision, &id(decision), "risiti.transaction");
        headers.push(("content-type", "application/json".into()));
        Message {
            topic: Topic::Transactions,
            key: decision.terminal.clone().map(String::into_bytes),
            value: Some(value.to_string().into_bytes()),
            headers,
        }
    }

    fn rejected(&self, input: &Input<'_>, decision: &Decision, code: u16, detail: &str) -> Message {
        let kept = input.value.len().min(limits::SETTLEMENT_REJECTED_BYTES_MAX);
        let value = json!({
            "terminal": decision.terminal,
            "sequence": decision.sequence,
            "reason": label(code),
            "code": code,
            "detail": detail,
            "record": self.record(input),
            "record_bytes": input.value.len(),
            "record_base64": STANDARD.encode(&input.value[..kept]),
        });
        let id = format!("{}-{}", input.partition, input.offset);
        let mut headers = headers(input, decision, &id, "risiti.rejected");
        headers.push(("content-type", "application/json".into()));
        let key = input
            .key
            .map(|key| key[..key.len().min(limits::SETTLEMENT_KEY_BYTES_MAX)].to_vec());
        Message {
            topic: Topic::Rejected,
            key,
            value: Some(value.to_string().into_bytes()),
            headers,
        }
    }

    fn record(&self, input: &Input<'_>) -> serde_json::Value {
        json!({
            "topic": self.records_topic,
            "partition": input.partition,
            "offset": input.offset,
            "time_ms": input.time_ms,
        })
    }
}

fn headers(
    input: &Input<'_>,
    decision: &Decision,
    id: &str,
    kind: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("ce_specversion", "1.0".into()),
        ("ce_id", id.to_owned()),
        ("ce_source", "/risiti/settlement".into()),
        ("ce_type", kind.to_owned()),
        ("ce_time", rfc_3339(decision.time_ms)),
        (
            "risiti-record",
            format!("{}/{}", input.partition, input.offset),
        ),
    ]
}

fn id(decision: &Decision) -> String {
    format!(
        "{}/{}",
        decision.terminal.as_deref().unwrap_or_default(),
        decision.sequence.unwrap_or_default()
    )
}

/// Code and words, if the record is rejected.
fn rejection(verdict: &Verdict) -> Option<(u16, String)> {
    match verdict {
        Verdict::Accepted(_) | Verdict::Again => None,
        Verdict::Refused(refusal) => Some((refusal.reason.code(), refusal.detail.clone())),
        Verdict::Conflict => Some((
            Reason::CONFLICT.code(),
            "its number is settled with other content; was the terminal's counter set back?".into(),
        )),
        Verdict::TooOld => Some((
            Reason::TOO_OLD.code(),
            "its number is below the window: settled long ago, or the terminal's counter was set back".into(),
        )),
        Verdict::Seal(detail) => Some((Reason::SEAL.code(), detail.clone())),
        Verdict::Foreign(detail) => Some((0, detail.clone())),
    }
}

/// The word for a code in the rejected topic; the numbers are those of receipts.
fn label(code: u16) -> &'static str {
    match code {
        0 => "foreign",
        1 => "unreadable",
        2 => "seal",
        3 => "terminal",
        4 => "account",
        5 => "currency",
        6 => "limit",
        7 => "reversal",
        8 => "conflict",
        9 => "too_old",
        _ => "other",
    }
}

/// A day as `2026-11-21`.
fn date(day: u32) -> String {
    let mut date = rfc_3339(u64::from(day) * 86_400_000);
    date.truncate(10);
    date
}
