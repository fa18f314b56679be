//! What the forwarder does next. A core.
//!
//! Promises: a position is read back after the producer has begun and before
//! anything is sent; nothing is released that is not committed or kept; an error
//! means the worst that it may mean (see [`crate::remedy`]). Never: a clock, a
//! thread, Kafka or a file; the shell does each [`Action`] and tells what became of
//! it, so that any order of failures, and a kill between any two calls, can be tried
//! without Kafka.
//!
//! ```text
//! Open ▶ Connect ▶ Topics ▶ Init ▶ AskEnds ▶ ReadPosition ▶ Release ▶ Look ◀──────────┐
//!   ▲                                                          │                       │
//!   │                                  Idle ◀── nothing ── Read ▶ (Bury) ▶ batch ▶ Release
//!   └── Pause ◀── a finished producer, at any place
//!
//! batch: Begin ▶ HandOver ▶ Await … ▶ Collect ▶ Commit
//!                                        └────▶ Abort ▶ Pause, less at once, or Bury
//! ```

mod batch;
mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use risiti_config::{DEFAULT_CLUSTER, Mode};
use risiti_store::{Position, ReadBatch};

use super::State;
use super::core::{Outgoing, Plan};
use super::pace::Pace;
use crate::limits;
use crate::remedy::{Backoff, Failure, Remedy};

pub use self::words::{Action, Event, Found, Letter, Looked, News, NotFound, Reading, Settings};

use self::batch::{Aborted, Transaction};

/// Time since any instant before the machine was made; it never goes back.
pub type Now = Duration;

/// Where it stands: the action that is asked for until its event comes.
#[derive(Debug)]
enum Step {
    Open,
    Connect {
        recover: bool,
    },
    Topics(AfterTopics),
    Init,
    AskEnds,
    ReadPosition {
        from: i64,
        to: i64,
    },
    Look,
    Read,
    Bury(AfterBury),
    Begin(Transaction),
    HandOver(Transaction),
    Await {
        of: Transaction,
        failed_at: Option<Now>,
    },
    Collect(Transaction),
    Commit(Transaction),
    Abort(Aborted),
    Release,
    Idle,
    Pause {
        until: Now,
        then: Box<Step>,
    },
}

#[derive(Debug)]
enum AfterTopics {
    Init,
    Look,
    /// These were refused because their topic is not there.
    Refused(Vec<Letter>),
}

#[derive(Debug)]
enum AfterBury {
    /// What can be sent of the plan.
    Send,
    Look,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    step: Step,
    stopping: bool,
    news: Vec<News>,
    // What outlives a producer.
    backoff: Backoff,
    /// When another producer had taken over, within the last while.
    fenced: Vec<Now>,
    /// How much the link carries.
    pace: Pace,
    // What does not.
    begun: Now,
    /// When the last batch was begun.
    sent_at: Now,
    /// The next position to send.
    next: Position,
    /// The next position as Kafka has it.
    saved: Position,
    saved_at: Now,
    /// Positions from `next` on that need no sending: dead letters, and in
    /// `idempotent` mode what was delivered of a batch that was refused in part.
    settled: BTreeSet<Position>,
    /// Records of the next batch at most; halved to find what was refused.
    records_max: usize,
    distrusted: bool,
    /// Since when the cluster does not answer this producer, or nothing that it sends
    /// gets through.
    unanswered_since: Option<Now>,
    retry: Backoff,
    /// Whether the plan is being sent.
    sending: bool,
    plan: Plan,
    letters: Vec<Letter>,
}

impl Machine {
    /// One that has done nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let pace = Pace::new(
            settings.batch_bytes_max.min(limits::BATCH_BYTES_MAX),
            settings.transaction_timeout,
        );
        Self {
            records_max: records_max(&settings),
            settings,
            step: Step::Open,
            stopping: false,
            news: vec![News::State(State::Connecting)],
            backoff: Backoff::new(),
            fenced: Vec::new(),
            pace,
            begun: Now::ZERO,
            sent_at: Now::ZERO,
            next: 0,
            saved: 0,
            saved_at: Now::ZERO,
            settled: BTreeSet::new(),
            distrusted: false,
            unanswered_since: None,
            retry: Backoff::new(),
            sending: false,
            plan: Plan::default(),
            letters: Vec::new(),
        }
    }

    /// Nothing new is to be begun; what is under way is ended.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// What people are to hear since the last call.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// The next position to send.
    #[must_use]
    pub fn next(&self) -> Position {
        self.next
    }

    /// The next position as Kafka has it.
    #[must_use]
    pub fn saved(&self) -> Position {
        self.saved
    }

    /// The records of the batch under way.
    #[must_use]
    pub fn sends(&self) -> &[Outgoing] {
        &self.plan.sends
    }

    /// What is to be kept as dead letters.
    #[must_use]
    pub fn letters(&self) -> &[Letter] {
        &self.letters
    }

    /// What is to be done now. Asked twice without an event between, it says the
    /// same.
    pub fn poll(&mut self, now: Now) -> Action {
        if let Step::Pause { until, then } = &mut self.step
            && *until <= now
        {
            self.step = std::mem::replace(&mut **then, Step::Look);
        }
        if self.stopping && self.may_end() {
            return Action::Ended;
        }
        match &self.step {
            Step::Open => Action::Open,
            Step::Connect { .. } => Action::Connect,
            Step::Topics(_) => Action::Topics,
            Step::Init => Action::Init,
            Step::AskEnds => Action::AskEnds,
            Step::ReadPosition { from, to } => Action::ReadPosition {
                from: *from,
                to: *to,
            },
            Step::Look => Action::Look,
            Step::Read => Action::Read {
                from: self.next,
                records_max: self.records_max,
                bytes_max: self.pace.bytes_max(),
            },
            Step::Bury(_) => Action::Bury,
            Step::Begin(_) => Action::Begin,
            Step::HandOver(of) => Action::HandOver {
                records: of.records,
                position: of.position,
            },
            Step::Await { .. } => Action::Await,
            Step::Collect(_) => Action::Collect,
            Step::Commit(_) => Action::Commit,
            Step::Abort(_) => Action::Abort,
            Step::Release => Action::Release { upto: self.next },
            Step::Idle => Action::Idle {
                after: self.next,
                at_most: (self.next != self.saved).then(|| {
                    let due = self.saved_at + limits::UNSAVED_POSITION_AGE;
                    due.saturating_sub(now)
                }),
            },
            Step::Pause { until, .. } => Action::Pause(*until - now),
        }
    }

    /// Whether it may end here: no transaction is open, and nothing is known that
    /// somebody else has to know.
    fn may_end(&self) -> bool {
        matches!(
            self.step,
            Step::Open
                | Step::Connect { .. }
                | Step::Topics(_)
                | Step::Init
                | Step::AskEnds
                | Step::ReadPosition { .. }
                | Step::Look
                | Step::Read
                | Step::Idle
                | Step::Pause { .. }
        )
    }

    /// What became of the action that was asked for.
    pub fn done(&mut self, event: Event, now: Now) {
        let step = std::mem::replace(&mut self.step, Step::Look);
        self.step = match (step, event) {
            (Step::Open, Event::Opened(Ok(()))) => self.opened(now),
            (Step::Open, Event::Opened(Err(reason))) => self.anew(reason, false, now),
            (Step::Connect { recover }, Event::Connected { answer, distrust }) => {
                self.connected(recover, answer, distrust, now)
            }
            (Step::Topics(then), Event::Topics(Ok(created))) => match then {
                AfterTopics::Init if self.settings.mode == Mode::ExactlyOnce => Step::Init,
                AfterTopics::Init => Step::AskEnds,
                AfterTopics::Look => Step::Look,
                // A topic deleted under way is made again rather than refused.
                AfterTopics::Refused(_) if created => Step::Look,
                AfterTopics::Refused(letters) => self.bury(letters, AfterBury::Look),
            },
            (Step::Topics(_), Event::Topics(Err(reason))) => self.anew(reason, false, now),
            (Step::Init, Event::Done(Ok(()))) => Step::AskEnds,
            (Step::Init, Event::Done(Err(failure))) => {
                if failure.remedy == Remedy::Again {
                    self.once_more(Step::Init, &failure, now)
                } else {
                    self.alarm(format!("Kafka refuses transactions: {}; grant the transactional id, or set mode = \"idempotent\"", failure.text));
                    self.finished(&failure, now)
                }
            }
            (Step::AskEnds, Event::Ends(Ok((from, to)))) => Step::ReadPosition { from, to },
            (Step::AskEnds, Event::Ends(Err(reason))) => self.anew(reason, false, now),
            (Step::ReadPosition { .. }, Event::Position(Ok(found))) => self.begin_at(found, now),
            (Step::ReadPosition { .. }, Event::Position(Err(not))) => {
                if not.is_foreign {
                    self.alarm(not.text.clone());
                }
                self.anew(not.text, false, now)
            }
            (Step::Look, Event::Looked(looked)) => self.looked(looked, now),
            (Step::Read, Event::Read(Ok(reading))) => self.read(reading, now),
            (Step::Read, Event::Read(Err(reason))) => {
                self.tell(News::State(State::StoreFailing));
                self.tell(News::Error(Some(reason)));
                Self::pause(limits::BACKOFF_MAX, Step::Look, now)
            }
            (Step::Bury(then), Event::Buried(kept)) => self.buried(kept, then, now),
            (Step::Begin(of), Event::Done(answer)) => self.began(of, answer, now),
            (Step::HandOver(of), Event::HandedOver(answer)) => self.handed_over(of, answer, now),
            (Step::Await { of, failed_at }, Event::Progress(answer)) => {
                self.progressed(of, failed_at, answer, now)
            }
            (Step::Collect(of), Event::Deliveries(deliveries)) => {
                self.collected(of, &deliveries, now)
            }
            (Step::Commit(of), Event::Done(answer)) => self.answered(of, answer, now),
            (Step::Abort(after), Event::Done(answer)) => self.aborted(after, answer, now),
            (Step::Release, Event::Passed) => Step::Look,
            (Step::Idle, Event::Passed) => Step::Look,
            (pause @ Step::Pause { .. }, Event::Passed) => pause,
            (step, event) => {
                debug_assert!(false, "{step:?} was answered by {event:?}");
                let reason = "a bug: an answer to nothing; please report it";
                self.anew(reason.into(), false, now)
            }
        };
    }

    /// The shell panicked: a bug, but records must flow on all the same.
    pub fn panicked(&mut self, now: Now) {
        let reason = "a bug: the forwarder panicked; please report it";
        self.step = self.anew(reason.into(), false, now);
    }

    fn opened(&mut self, now: Now) -> Step {
        self.begun = now;
        self.sent_at = now;
        self.next = 0;
        self.saved = 0;
        self.saved_at = now;
        self.settled.clear();
        self.records_max = records_max(&self.settings);
        self.unanswered_since = None;
        self.retry.reset();
        self.plan = Plan::default();
        self.letters = Vec::new();
        self.connect(true)
    }

    fn connect(&mut self, recover: bool) -> Step {
        self.distrusted = false;
        self.tell(News::State(State::Connecting));
        Step::Connect { recover }
    }

    fn connected(
        &mut self,
        recover: bool,
        answer: Result<(), String>,
        distrust: Option<String>,
        now: Now,
    ) -> Step {
        // A link mends by itself, credentials don't: a person has to know.
        if let Some(reason) = distrust {
            self.distrusted = true;
            self.alarm(format!("the cluster and this gateway don't accept each other's credentials or certificates: {reason}; correct the security section of cluster {} or the user in Kafka; tried again until then", self.settings.cluster));
        }
        if let Err(reason) = answer {
            if self.is_unanswered(now) {
                return self.anew(reason, false, now);
            }
            self.tell(News::Error(Some(reason)));
            self.tell(News::Position);
            return Self::pause(limits::BACKOFF_MIN, Step::Connect { recover }, now);
        }
        self.unanswered_since = None;
        if self.distrusted {
            self.tell(News::Alarm(None));
        }
        if recover {
            self.tell(News::State(State::Recovering));
            Step::Topics(AfterTopics::Init)
        } else {
            Step::Look
        }
    }

    /// Chooses where to begin.
    fn begin_at(&mut self, found: Found, now: Now) -> Step {
        let Found { at, oldest, end } = found;
        self.next = match at {
            // Only damage shortens a journal. What it gets now is new.
            Some(at) if at > end => {
                self.alarm(format!("Kafka has this journal up to position {at}, but it ends at {end}: its tail was lost to damage after it was forwarded"));
                end
            }
            Some(at) if at < oldest => {
                self.alarm(format!("Kafka has this journal up to position {at}, but it begins at {oldest}: what lies between was deleted or damaged"));
                oldest
            }
            Some(at) => at,
            None => oldest,
        };
        self.saved = self.next;
        self.saved_at = now;
        self.tell(News::Found(at));
        self.tell(News::Error(None));
        self.tell(News::Position);
        // What a former self committed without living to say so.
        Step::Release
    }

    fn looked(&mut self, looked: Looked, now: Now) -> Step {
        // Memory is for what is under way.
        self.plan = Plan::default();
        self.letters = Vec::new();
        if let Some(fatal) = looked.fatal {
            return self.finished(&fatal, now);
        }
        if looked.down {
            return self.connect(false);
        }
        if looked.routes_changed {
            return Step::Topics(AfterTopics::Look);
        }
        // Under steady traffic a few records may come together: a transaction costs
        // the brokers the same for one record as for a hundred. What comes after a
        // pause, and a batch that is full, goes at once.
        let waiting = looked.end.saturating_sub(self.next);
        let since = now.saturating_sub(self.sent_at);
        if waiting > 0 && waiting < self.records_max as u64 && since < limits::TRANSACTION_SPACING {
            return Self::pause(limits::TRANSACTION_SPACING - since, Step::Read, now);
        }
        Step::Read
    }

    fn read(&mut self, reading: Reading, now: Now) -> Step {
        let Reading {
            batch,
            routes,
            until,
            clusters,
        } = reading;
        if batch.next <= self.next {
            return self.nothing_to_send(now);
        }
        let keeps = self.settings.cluster == DEFAULT_CLUSTER;
        // Before a former table is asked which cluster is no more: lets the others
        // of this process start.
        if keeps && until.is_some() && now.saturating_sub(self.begun) < limits::CLUSTERS_START {
            return Self::pause(limits::BACKOFF_MIN, Step::Look, now);
        }
        self.tell(News::Damaged(batch.damaged));
        self.plan_for(batch, &routes, until, keeps.then_some(&*clusters));
        let letters: Vec<Letter> = std::mem::take(&mut self.plan.unroutable)
            .into_iter()
            .map(|none| {
                let route = none.route.as_deref().map(|compiled| &compiled.route);
                Letter {
                    route: route.map_or(String::new(), |route| route.name.clone()),
                    topic: route.map_or(String::new(), |route| route.topic.clone()),
                    text: none.text,
                    record: none.record,
                }
            })
            .collect();
        if letters.is_empty() {
            self.carry_out(now)
        } else {
            self.bury(letters, AfterBury::Send)
        }
    }

    fn plan_for(
        &mut self,
        batch: ReadBatch,
        routes: &crate::route::Routes,
        until: Option<Position>,
        clusters: Option<&BTreeSet<String>>,
    ) {
        let name = &self.settings.cluster;
        self.plan = Plan::new(batch, routes, until, name, clusters, &self.settled);
    }

    /// Nothing to send: saves the position if it moved, then waits for records.
    fn nothing_to_send(&mut self, now: Now) -> Step {
        let unsaved = now.saturating_sub(self.saved_at) >= limits::UNSAVED_POSITION_AGE;
        if self.next != self.saved && unsaved {
            return self.save_position();
        }
        self.tell(News::State(State::CaughtUp));
        self.tell(News::Position);
        Step::Idle
    }

    /// Sends what the plan says.
    fn carry_out(&mut self, now: Now) -> Step {
        if self.plan.sends.is_empty() {
            self.tell(News::Skipped(self.plan.skipped));
            self.next = self.plan.next;
            // Dead letters are worth saving the position at once, others' records
            // only now and then.
            let settled = self.settled.first().is_some_and(|first| *first < self.next);
            if settled || self.next.saturating_sub(self.saved) >= limits::UNSAVED_POSITIONS_MAX {
                return self.save_position();
            }
            return Step::Look;
        }
        self.tell(News::State(State::Sending));
        self.tell(News::Sending);
        self.sent_at = now;
        self.sending = true;
        self.send_batch()
    }

    fn bury(&mut self, letters: Vec<Letter>, then: AfterBury) -> Step {
        self.letters = letters;
        Step::Bury(then)
    }

    fn buried(&mut self, kept: Result<bool, String>, then: AfterBury, now: Now) -> Step {
        let alarm = match kept {
            Ok(true) => {
                self.tell(News::Buried);
                let positions = self.letters.iter().map(|letter| letter.record.position);
                self.settled.extend(positions);
                return match then {
                    AfterBury::Send => self.carry_out(now),
                    AfterBury::Look => Step::Look,
                };
            }
            Ok(false) => {
                self.tell(News::State(State::DeadLettersFull));
                "the dead letters are full, forwarding waits; look at them with `risiti dead list`, then requeue or drop them".to_owned()
            }
            Err(reason) => {
                self.tell(News::State(State::StoreFailing));
                reason
            }
        };
        self.tell(News::Error(Some(alarm.clone())));
        self.alarm(alarm);
        Self::pause(limits::BACKOFF_MAX, Step::Bury(then), now)
    }

    /// Everything below `next` is in Kafka, or kept.
    fn committed(&mut self, now: Now) -> Step {
        self.backoff.reset();
        self.retry.reset();
        self.unanswered_since = None;
        self.saved = self.next;
        self.saved_at = now;
        self.settled = self.settled.split_off(&self.next);
        self.records_max = (self.records_max * 2).min(records_max(&self.settings));
        self.tell(News::Committed);
        self.tell(News::Error(None));
        if !self.contested(now) {
            self.tell(News::Alarm(None));
        }
        self.tell(News::Position);
        Step::Release
    }

    /// Whether another producer takes over again and again: two that share an id
    /// commit in turns, so a commit says nothing.
    fn contested(&mut self, now: Now) -> bool {
        self.fenced
            .retain(|at| now.saturating_sub(*at) < limits::FENCED_WINDOW);
        self.fenced.len() >= limits::FENCED_ALARM
    }

    /// The same call again, unless the cluster has not answered for too long.
    fn once_more(&mut self, step: Step, failure: &Failure, now: Now) -> Step {
        if self.is_unanswered(now) {
            return self.finished(failure, now);
        }
        step
    }

    /// Something came to nothing; whether everything has, for too long.
    fn is_unanswered(&mut self, now: Now) -> bool {
        let since = *self.unanswered_since.get_or_insert(now);
        now.saturating_sub(since) > limits::UNANSWERED
    }

    /// The producer is finished.
    fn finished(&mut self, failure: &Failure, now: Now) -> Step {
        self.anew(failure.text.clone(), failure.is_fenced(), now)
    }

    fn anew(&mut self, reason: String, fenced: bool, now: Now) -> Step {
        if std::mem::take(&mut self.sending) {
            self.pace.failed();
        }
        self.tell(News::Anew {
            reason: reason.clone(),
            fenced,
        });
        if fenced {
            self.fenced.push(now);
            if self.contested(now) {
                self.alarm(format!(
                    "taken over {} times within {} s by another producer with the transactional id of gateway {}; give each gateway an id of its own (gateway.id)",
                    self.fenced.len(), limits::FENCED_WINDOW.as_secs(), self.settings.gateway_id
                ));
            }
        }
        self.tell(News::Error(Some(reason)));
        self.tell(News::State(State::Connecting));
        let pause = self.backoff.pause();
        Self::pause(pause, Step::Open, now)
    }

    fn pause(duration: Duration, then: Step, now: Now) -> Step {
        Step::Pause {
            until: now + duration,
            then: Box::new(then),
        }
    }

    fn alarm(&mut self, alarm: String) {
        self.tell(News::Alarm(Some(alarm)));
    }

    fn tell(&mut self, news: News) {
        self.news.push(news);
    }
}

fn records_max(settings: &Settings) -> usize {
    settings
        .batch_records_max
        .clamp(1, limits::BATCH_RECORDS_MAX)
}

#[cfg(test)]
mod tests;
