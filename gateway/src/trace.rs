//! "Where is my receipt?": the life of one payment in words.
//!
//! Promises: what is said rests on what was recorded or on what is so now, and
//! what is not known is called not known. A later step stands for the ones before
//! it: a kill may cost the recorder the last moments. Never: a clock, a file; what
//! is so now is passed in.

use risiti_bridge::forwarder::State;
use risiti_bridge::trace::{Event, Passed};
use serde::{Deserialize, Serialize};

/// The life of one payment, as the admin API tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentTrace {
    /// The terminal's id.
    pub terminal: String,
    /// The payment's sequence number.
    pub sequence: u64,
    /// The gateway that tells it.
    pub gateway: String,
    /// Where it is.
    pub whereabouts: Whereabouts,
    /// The same in words, with what to do.
    pub answer: String,
    /// From the payment's arrival to the terminal's acknowledgement of the
    /// receipt, milliseconds.
    pub total_ms: Option<u64>,
    /// What happened, in the order in which it was noted.
    pub steps: Vec<PaymentStep>,
    /// The oldest step that this gateway remembers, Unix milliseconds.
    pub reaches_back_ms: Option<u64>,
}

/// Where a payment, or its receipt, is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whereabouts {
    /// Nothing is known of it here.
    #[default]
    Unknown,
    /// On this gateway's disk.
    WaitsForKafka,
    /// Kafka refused it; kept as a dead letter.
    DeadLetter,
    /// In Kafka, without a receipt yet.
    NotSettled,
    /// The receipt is on this gateway's disk.
    WaitsForTerminal,
    /// The receipt expired on this gateway's disk.
    Expired,
    /// The receipt is at its terminal.
    Delivered,
}

/// One thing that happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentStep {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// `published`, `on_disk`, `in_kafka`, `dead_letter`, `settled`,
    /// `receipt_stored`, `sent`, `acknowledged` or `expired`.
    pub step: String,
    /// More of it, for people.
    pub text: String,
    /// Place in this gateway's journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Kafka topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Partition of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// Offset in that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Number of the receipt, as this gateway counts the terminal's receipts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<u64>,
    /// 0: accepted, else the reason why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// How long the last payments took, from the gateway's reception to the terminal's
/// acknowledgement of the receipt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Of so many payments; 0: nothing is known.
    pub payments: usize,
    /// Half took at most this, milliseconds.
    pub p50_ms: u64,
    /// 99 % took at most this, milliseconds.
    pub p99_ms: u64,
}

impl Latency {
    /// Sums durations up, milliseconds in any order.
    #[must_use]
    pub fn of(mut took_ms: Vec<u64>) -> Self {
        took_ms.sort_unstable();
        let last = took_ms.len().saturating_sub(1);
        let at = |percent: usize| took_ms.get(last * percent / 100).copied().unwrap_or(0);
        Self {
            payments: took_ms.len(),
            p50_ms: at(50),
            p99_ms: at(99),
        }
    }
}

/// What is so now, and matters for the answer.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// `gateway.id`.
    pub gateway: String,
    /// Whether steps are recorded at all.
    pub recording: bool,
    /// The oldest step recorded, Unix milliseconds.
    pub reaches_back_ms: Option<u64>,
    /// Every cluster's name, [what its forwarder does](in_words), and the next
    /// position it forwards.
    pub clusters: Vec<(String, &'static str, u64)>,
    /// Whether the terminal is connected to this gateway; `None`: never seen.
    pub connected: Option<bool>,
    /// Why PUBACKs are withheld, if they are.
    pub withheld: Option<String>,
    /// The MQTT topic of the terminal's receipts.
    pub receipts_topic: String,
}

/// What a forwarder does, after the name of its cluster.
#[must_use]
pub fn in_words(state: State) -> &'static str {
    match state {
        State::Connecting => "is not reached",
        State::Recovering => "is being asked how far it has come",
        State::CaughtUp | State::Sending => "takes records",
        State::DeadLettersFull => "waits until somebody looks at the dead letters",
        State::StoreFailing => "waits for the disk",
        State::Stopped => "is stopped",
    }
}

/// Tells the life of a payment.
#[must_use]
pub fn tell(terminal: &str, sequence: u64, events: &[Event], now: &Now) -> PaymentTrace {
    let facts = Facts::of(events);
    let (whereabouts, answer) = facts.answer(now);
    PaymentTrace {
        terminal: terminal.to_owned(),
        sequence,
        gateway: now.gateway.clone(),
        whereabouts,
        answer,
        total_ms: facts
            .acknowledged_ms
            .zip(facts.received_ms)
            .and_then(|(end, begin)| end.checked_sub(begin)),
        steps: events.iter().flat_map(steps_of).collect(),
        reaches_back_ms: now.reaches_back_ms,
    }
}

/// What the events say, taken together.
#[derive(Debug, Default)]
struct Facts {
    received_ms: Option<u64>,
    position: Option<u64>,
    forwarded: bool,
    dead: bool,
    stored: bool,
    sent: u64,
    acknowledged_ms: Option<u64>,
    expired: bool,
    published: u64,
}

impl Facts {
    fn of(events: &[Event]) -> Self {
        let mut facts = Self::default();
        for event in events {
            match event.step {
                Passed::Durable {
                    received_ms,
                    position,
                    ..
                } => {
                    facts.received_ms.get_or_insert(received_ms);
                    facts.position = Some(position);
                    facts.published += 1;
                }
                Passed::Forwarded { .. } => facts.forwarded = true,
                Passed::Dead => facts.dead = true,
                Passed::Stored { .. } => {
                    facts.stored = true;
                    // A receipt that came anew has not expired.
                    facts.expired = false;
                }
                Passed::Sent { .. } => facts.sent += 1,
                Passed::Acknowledged { .. } => {
                    facts.acknowledged_ms.get_or_insert(event.at_ms);
                }
                Passed::Expired { .. } => facts.expired = true,
            }
        }
        facts
    }

    fn answer(&self, now: &Now) -> (Whereabouts, String) {
        if self.acknowledged_ms.is_some() {
            let answer = "The receipt is at the terminal, which has acknowledged it.";
            return (Whereabouts::Delivered, answer.into());
        }
        if self.expired {
            let answer = "The receipt expired before the terminal came for it. The payment itself is settled; the terminal can ask for a receipt by sending the payment again.";
            return (Whereabouts::Expired, answer.into());
        }
        if self.stored || self.sent > 0 {
            return (Whereabouts::WaitsForTerminal, self.waits_for_terminal(now));
        }
        if self.forwarded {
            let answer = "The payment is in Kafka; it is not settled yet, or its receipt has not come to this gateway. Look whether settlement runs, and at the receipts consumer in `risiti status`.";
            return (Whereabouts::NotSettled, answer.into());
        }
        if self.dead {
            let answer = "Kafka refused the payment; it is kept as a dead letter with the reason. `risiti dead list` shows it, `risiti dead requeue` sends it again.";
            return (Whereabouts::DeadLetter, answer.into());
        }
        match self.position {
            Some(position) => waits_for_kafka(position, now),
            None => (Whereabouts::Unknown, unknown(now)),
        }
    }

    fn waits_for_terminal(&self, now: &Now) -> String {
        let tried = match self.sent {
            0 => "It was not sent yet.".to_owned(),
            1 => "It was sent once, but the terminal has not acknowledged it.".to_owned(),
            times => {
                format!("It was sent {times} times, but the terminal has not acknowledged it.")
            }
        };
        let next = match now.connected {
            Some(true) if self.sent > 0 => {
                "The terminal is connected: its acknowledgement is on its way, or the link is slow; it is sent again at the next connect.".to_owned()
            }
            Some(true) => format!(
                "The terminal is connected; receipts are sent to {} once it subscribes to it and has acknowledged those before.",
                now.receipts_topic
            ),
            Some(false) => {
                "The terminal is not connected; the receipt is sent when it is.".to_owned()
            }
            None => "The terminal has not been at this gateway; whichever gateway it comes to delivers the receipt.".to_owned(),
        };
        format!("The receipt is here and waits for the terminal. {tried} {next}")
    }
}

fn waits_for_kafka(position: u64, now: &Now) -> (Whereabouts, String) {
    let behind: Vec<_> = now
        .clusters
        .iter()
        .filter(|(_, _, next)| *next <= position)
        .collect();
    if behind.is_empty() {
        let answer = "The payment is past every forwarder, so it is in Kafka (when is not recorded), or among the dead letters (`risiti dead list`); it is not settled yet.";
        return (Whereabouts::NotSettled, answer.into());
    }
    let clusters: Vec<String> = behind
        .iter()
        .map(|(name, state, next)| {
            format!(
                "cluster {name} {state}, {} records before it",
                position - next
            )
        })
        .collect();
    let answer = format!(
        "The payment is safe on this gateway's disk and waits for Kafka ({}). It goes by itself when Kafka is reached.",
        clusters.join("; ")
    );
    (Whereabouts::WaitsForKafka, answer)
}

fn unknown(now: &Now) -> String {
    if !now.recording {
        return "Nothing is recorded: the recorder is off (trace.bytes_max), or it could not be opened, which the log says.".into();
    }
    let reach = match now.reaches_back_ms {
        None => "nothing is recorded yet".to_owned(),
        Some(_) => "it is older than what is recorded".to_owned(),
    };
    let mut answer = format!(
        "This payment was never seen by gateway {}, or {reach}. It may still be in the terminal, or have come through another gateway: ask there too.",
        now.gateway
    );
    if let Some(why) = &now.withheld {
        answer.push_str(" Payments are not taken at the moment: ");
        answer.push_str(why);
    }
    answer
}

/// One event is one or two steps: that something is on disk or here says also
/// when it was published or settled.
fn steps_of(event: &Event) -> Vec<PaymentStep> {
    let step = |at_ms, step: &str, text: String| PaymentStep {
        at_ms,
        step: step.into(),
        text,
        ..PaymentStep::default()
    };
    let at_ms = event.at_ms;
    match &event.step {
        Passed::Durable {
            received_ms,
            position,
            resend,
        } => {
            let text = if *resend {
                "received again from the terminal, which had no receipt yet"
            } else {
                "received from the terminal"
            };
            vec![
                step(*received_ms, "published", text.into()),
                PaymentStep {
                    position: Some(*position),
                    ..step(at_ms, "on_disk", format!("position {position}"))
                },
            ]
        }
        Passed::Forwarded {
            topic,
            partition,
            offset,
        } => vec![PaymentStep {
            topic: Some(topic.clone()),
            partition: Some(*partition),
            offset: Some(*offset),
            ..step(
                at_ms,
                "in_kafka",
                format!("{topic}, partition {partition}, offset {offset}"),
            )
        }],
        Passed::Dead => vec![step(at_ms, "dead_letter", "refused by Kafka".into())],
        Passed::Stored {
            partition,
            offset,
            settled_ms,
            number,
            status,
        } => vec![
            PaymentStep {
                status: Some(*status),
                ..step(*settled_ms, "settled", status_text(*status))
            },
            PaymentStep {
                partition: Some(*partition),
                offset: Some(*offset),
                receipt: Some(*number),
                ..step(
                    at_ms,
                    "receipt_stored",
                    format!("receipt {number}, from partition {partition}, offset {offset}"),
                )
            },
        ],
        Passed::Sent { number, again } => vec![PaymentStep {
            receipt: Some(*number),
            ..step(
                at_ms,
                "sent",
                if *again {
                    "to the terminal, again"
                } else {
                    "to the terminal"
                }
                .into(),
            )
        }],
        Passed::Acknowledged { number } => vec![PaymentStep {
            receipt: Some(*number),
            ..step(at_ms, "acknowledged", "by the terminal".into())
        }],
        Passed::Expired { number } => vec![PaymentStep {
            receipt: Some(*number),
            ..step(at_ms, "expired", "nobody came for it in time".into())
        }],
    }
}

fn status_text(status: u16) -> String {
    let why = match status {
        0 => return "accepted".into(),
        risiti_bridge::receipts::STATUS_SEALED => {
            return "sealed: only its terminal can read it".into();
        }
        1 => "the record could not be read",
        2 => "the seal did not verify",
        3 => "the terminal is not known, or revoked",
        4 => "there is no such account",
        5 => "the account does not take this currency",
        6 => "the amount is above the limit",
        7 => "the payment to take back does not exist, or was taken back before",
        _ => "for another reason",
    };
    format!("rejected: {why} (code {status})")
}

#[cfg(test)]
mod tests;
