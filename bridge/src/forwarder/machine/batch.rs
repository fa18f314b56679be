//! One batch: begin, hand over, await every delivery, commit.
//!
//! Promises: the position is handed over in the same transaction as its records;
//! every delivery report is in before the commit. Never: a commit of a batch of
//! which a record failed.

use rdkafka::error::RDKafkaErrorCode;
use risiti_config::Mode;
use risiti_store::Position;

use super::super::core::{Delivery, Scope, Verdict, refusal, verdict};
use super::{AfterBury, AfterTopics, Letter, Machine, News, Now, Step};
use crate::limits;
use crate::remedy::{Failure, Remedy};

/// What became of a transaction.
#[derive(Debug)]
pub(super) enum Sent {
    /// It stands in Kafka.
    Committed,
    /// It does not; send it again.
    Again,
    /// It does not; some of it was refused, send less to find out what.
    Divide,
    /// It does not; these were refused for good.
    Refused(Vec<(usize, RDKafkaErrorCode)>),
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To carry a batch.
    Batch,
    /// Only to say how far it is.
    Position,
    /// To show that a refusal was not about the position.
    Probe(RDKafkaErrorCode),
}

/// What is under way; in `idempotent` mode the same without a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transaction {
    /// Whether the batch's records are in it.
    pub(super) records: bool,
    /// The position in it.
    pub(super) position: Option<Position>,
    purpose: Purpose,
    /// Whether all was handed over.
    whole: bool,
}

/// What follows when the transaction is aborted.
#[derive(Debug)]
pub(super) enum Aborted {
    /// That.
    Sent(Transaction, Sent),
    /// The commit was refused, by this.
    Unclear(Transaction, Failure),
}

const NOTHING_GETS_THROUGH: &str = "nothing that this producer sends gets through any more";

impl Machine {
    /// Sends the plan's records with the position behind them.
    pub(super) fn send_batch(&mut self) -> Step {
        let position = Some(self.plan.next);
        let outside =
            self.settings.position_outside_transaction || self.settings.mode == Mode::Idempotent;
        self.send(Transaction {
            records: true,
            position: position.filter(|_| !outside),
            purpose: Purpose::Batch,
            whole: false,
        })
    }

    /// Says how far it is.
    pub(super) fn save_position(&mut self) -> Step {
        self.send(Transaction {
            records: false,
            position: Some(self.next),
            purpose: Purpose::Position,
            whole: false,
        })
    }

    fn send(&mut self, of: Transaction) -> Step {
        match self.settings.mode {
            Mode::ExactlyOnce => Step::Begin(of),
            Mode::Idempotent => Step::HandOver(of),
        }
    }

    pub(super) fn began(&mut self, of: Transaction, answer: Result<(), Failure>, now: Now) -> Step {
        match answer {
            Ok(()) => Step::HandOver(of),
            Err(failure) => match failure.remedy {
                Remedy::Abort => Step::Abort(Aborted::Sent(of, Sent::Again)),
                Remedy::Again => self.sent(of, Sent::Again, now),
                Remedy::Anew => self.finished(&failure, now),
            },
        }
    }

    pub(super) fn handed_over(
        &mut self,
        mut of: Transaction,
        answer: Result<bool, Failure>,
        now: Now,
    ) -> Step {
        match answer {
            Ok(whole) => {
                of.whole = whole;
                // In `idempotent` mode a later batch must not meet reports of this
                // one.
                if whole || self.settings.mode == Mode::Idempotent {
                    Step::Await {
                        of,
                        failed_at: None,
                    }
                } else {
                    Step::Collect(of)
                }
            }
            Err(failure) => self.finished(&failure, now),
        }
    }

    /// Waits until every delivery is known; after a failure only for as long as the
    /// others need to tell what was refused.
    pub(super) fn progressed(
        &mut self,
        of: Transaction,
        failed_at: Option<Now>,
        answer: Result<(usize, bool), Failure>,
        now: Now,
    ) -> Step {
        let (pending, failed) = match answer {
            Ok(progress) => progress,
            Err(failure) => return self.finished(&failure, now),
        };
        if pending == 0 {
            return Step::Collect(of);
        }
        if failed && self.settings.mode == Mode::ExactlyOnce {
            let since = failed_at.unwrap_or(now);
            if now.saturating_sub(since) > limits::EVIDENCE {
                return Step::Collect(of);
            }
            return Step::Await {
                of,
                failed_at: Some(since),
            };
        }
        Step::Await { of, failed_at }
    }

    pub(super) fn collected(&mut self, of: Transaction, deliveries: &[Delivery], now: Now) -> Step {
        let records = if of.records { self.plan.sends.len() } else { 0 };
        let judged = verdict(&deliveries[..records.min(deliveries.len())]);
        // The last place is the position's.
        let position_failed =
            of.position.is_some() && deliveries.last() != Some(&Delivery::Delivered);
        if self.settings.mode == Mode::Idempotent {
            return self.collected_without(of, deliveries, judged, position_failed, now);
        }
        if judged == Verdict::Clean && !position_failed && of.whole {
            return Step::Commit(of);
        }
        let sent = self.outcome(judged, deliveries);
        Step::Abort(Aborted::Sent(of, sent))
    }

    /// What a batch that was not clean asks for.
    fn outcome(&mut self, judged: Verdict, deliveries: &[Delivery]) -> Sent {
        match judged {
            Verdict::Refused(refused) => Sent::Refused(refused),
            // Two at least: one alone is refused for certain.
            Verdict::Divide(_) => Sent::Divide,
            Verdict::Clean | Verdict::Again(_) => {
                self.note_failure(deliveries);
                Sent::Again
            }
        }
    }

    /// Without transactions: the records, and when all are acknowledged the
    /// position. A crash in between repeats the batch.
    fn collected_without(
        &mut self,
        of: Transaction,
        deliveries: &[Delivery],
        judged: Verdict,
        position_failed: bool,
        now: Now,
    ) -> Step {
        if !of.records {
            if !position_failed {
                return self.sent(of, Sent::Committed, now);
            }
            self.note_failure(deliveries);
            self.alarm(format!(
                "the position can't be saved in {}; see the last error",
                self.settings.positions_topic
            ));
            let pause = self.retry.pause();
            return Self::pause(pause, Step::HandOver(of), now);
        }
        if judged == Verdict::Clean && of.whole {
            self.tell(News::Forwarded);
            return Step::HandOver(Transaction {
                records: false,
                position: Some(self.plan.next),
                ..of
            });
        }
        // Nothing can be taken back here: what is delivered is settled.
        let mut count = 0;
        for (send, delivery) in self.plan.sends.iter().zip(deliveries) {
            if *delivery == Delivery::Delivered {
                self.settled.insert(send.record.position);
                count += 1;
            }
        }
        self.tell(News::ForwardedSome(count));
        let sent = self.outcome(judged, deliveries);
        self.sent(of, sent, now)
    }

    /// What became of a commit.
    pub(super) fn answered(
        &mut self,
        of: Transaction,
        answer: Result<(), Failure>,
        now: Now,
    ) -> Step {
        match answer {
            Ok(()) => {
                if of.records {
                    self.tell(News::Forwarded);
                }
                if of.records && of.position.is_none() {
                    // The control: a crash from here on repeats the batch.
                    return Step::Begin(Transaction {
                        records: false,
                        position: Some(self.plan.next),
                        ..of
                    });
                }
                self.sent(of, Sent::Committed, now)
            }
            Err(failure) => match failure.remedy {
                Remedy::Again => self.once_more(Step::Commit(of), &failure, now),
                Remedy::Anew => self.finished(&failure, now),
                Remedy::Abort => Step::Abort(Aborted::Unclear(of, failure)),
            },
        }
    }

    /// What became of an abort.
    pub(super) fn aborted(
        &mut self,
        after: Aborted,
        answer: Result<(), Failure>,
        now: Now,
    ) -> Step {
        match answer {
            Ok(()) => match after {
                Aborted::Sent(of, sent) => self.sent(of, sent, now),
                Aborted::Unclear(of, failure) => self.unclear(of, &failure, now),
            },
            Err(failure) if failure.remedy == Remedy::Again => {
                self.once_more(Step::Abort(after), &failure, now)
            }
            Err(failure) => self.finished(&failure, now),
        }
    }

    /// The transaction itself was refused, and no delivery says which record was
    /// the reason: find out by sending less, and clear the position's name first.
    fn unclear(&mut self, of: Transaction, failure: &Failure, now: Now) -> Step {
        self.tell(News::Error(Some(failure.text.clone())));
        let Some(code) = failure.code.filter(|code| refusal(*code).is_some()) else {
            return self.sent(of, Sent::Again, now);
        };
        match self.plan.sends.len() {
            _ if !of.records => {
                self.alarm(format!(
                    "Kafka refuses the position: {}; grant writing to {}",
                    failure.text, self.settings.positions_topic
                ));
                self.sent(of, Sent::Again, now)
            }
            // Writing the position again as Kafka has it changes nothing.
            0 | 1 => Step::Begin(Transaction {
                records: false,
                position: Some(self.saved),
                purpose: Purpose::Probe(code),
                whole: false,
            }),
            _ => self.sent(of, Sent::Divide, now),
        }
    }

    /// What follows.
    fn sent(&mut self, of: Transaction, sent: Sent, now: Now) -> Step {
        let sent = match (of.purpose, sent) {
            (Purpose::Position, Sent::Committed) => return self.committed(now),
            (Purpose::Position, _) => {
                if self.is_unanswered(now) {
                    return self.anew(NOTHING_GETS_THROUGH.into(), false, now);
                }
                let pause = self.retry.pause();
                return Self::pause(pause, Step::Look, now);
            }
            (Purpose::Probe(code), Sent::Committed) => Sent::Refused(vec![(0, code)]),
            (Purpose::Probe(_), _) => Sent::Again,
            (Purpose::Batch, sent) => sent,
        };
        self.sending = false;
        match sent {
            Sent::Committed => {
                let sends = self.plan.sends.iter();
                let bytes = sends.map(|send| send.record.record.payload.len()).sum();
                let took = now.saturating_sub(self.sent_at);
                self.pace.committed(bytes, took);
                self.tell(News::Skipped(self.plan.skipped));
                self.next = self.plan.next;
                self.committed(now)
            }
            Sent::Again => {
                self.pace.failed();
                self.tell(News::Aborted);
                if self.is_unanswered(now) {
                    return self.anew(NOTHING_GETS_THROUGH.into(), false, now);
                }
                let pause = self.retry.pause();
                Self::pause(pause, Step::Look, now)
            }
            Sent::Divide => {
                self.tell(News::Aborted);
                self.records_max = (self.plan.sends.len() / 2).max(1);
                Step::Look
            }
            Sent::Refused(refused) => {
                self.tell(News::Aborted);
                let is_unknown =
                    |(_, code): &(usize, RDKafkaErrorCode)| refusal(*code) == Some(Scope::Topic);
                let unknown = refused.iter().any(is_unknown);
                let letters = self.refused(&refused);
                if unknown {
                    Step::Topics(AfterTopics::Refused(letters))
                } else {
                    self.bury(letters, AfterBury::Look)
                }
            }
        }
    }

    fn refused(&self, refused: &[(usize, RDKafkaErrorCode)]) -> Vec<Letter> {
        let letters = refused.iter().filter_map(|(index, code)| {
            let send = self.plan.sends.get(*index)?;
            let route = &send.route.route;
            Some(Letter {
                record: send.record.clone(),
                route: route.name.clone(),
                topic: route.topic.clone(),
                text: format!("Kafka refuses it: {code} ({code:?})"),
            })
        });
        letters.collect()
    }

    fn note_failure(&mut self, deliveries: &[Delivery]) {
        let code = deliveries.iter().find_map(|delivery| match delivery {
            Delivery::Failed(code) | Delivery::Local(code) => Some(*code),
            Delivery::Pending | Delivery::Delivered => None,
        });
        if let Some(code) = code {
            self.tell(News::Error(Some(format!("a delivery failed: {code}"))));
        }
    }
}
