//! What settlement does next. A core.
//!
//! Promises: a partition is settled only after the group's offsets were stable and
//! its changelog was read to its end, in that order; what a record settles to and the
//! offset behind it are in one transaction; partitions come and go only between two
//! transactions, and what was decided for one that goes is left to its new holder.
//! Never: a clock, a thread, Kafka or a file; the shell does each [`Action`] and tells
//! what became of it.
//!
//! ```text
//! Open ▶ Init ▶ Join ▶ Poll ◀────────────────────────────┐
//!   ▲                   │ AskOffsets ▶ AskEnds ▶ Read ──┤   a partition comes
//!   │                   └▶ Begin ▶ PassOffsets ▶ HandOver ▶ Await … ▶ Commit
//!   └── Pause ◀── finished clients, at any place     └────▶ Abort ▶ Pause
//! ```

mod words;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::State;
use super::clients::Change;
use super::core::{Core, Decision, Input, Verdict};
use super::memory::Partition;
use crate::limits;
use crate::remedy::{Backoff, Failure, Remedy, is_fenced};
use crate::whole_log::Ends;

pub use self::words::{Action, Decided, Event, MachineSettings, News, Polled, Taken};

/// Time since any instant before the machine was made; it never goes back.
pub type Now = Duration;

/// Where it stands: the action that is asked for until its event comes.
#[derive(Debug)]
enum Step {
    Open,
    Init,
    Join,
    Poll,
    AskOffsets(Vec<i32>),
    AskEnds(Vec<i32>, BTreeMap<i32, Option<i64>>),
    Read(Vec<i32>, BTreeMap<i32, Option<i64>>, Ends),
    Begin,
    PassOffsets,
    HandOver,
    Await,
    Commit,
    CommitOffsets,
    /// With the reason.
    Abort(String),
    Pause {
        until: Now,
        then: Box<Step>,
    },
}

/// See the head of the file.
#[derive(Debug)]
pub struct Machine {
    settings: MachineSettings,
    step: Step,
    stopping: bool,
    news: Vec<News>,
    // What outlives the clients.
    backoff: Backoff,
    // What does not.
    core: Core,
    forgets_offsets: bool,
    /// Decided, but not committed.
    pending: Vec<Decided>,
    /// For each partition, the next offset that the group had when it was taken.
    begun_at: BTreeMap<i32, i64>,
    /// What is still to be done about the last poll.
    changes: VecDeque<Change>,
    changed: bool,
    taken: Option<Taken>,
    /// Transactions that failed in a row.
    failures: u32,
    /// Since when the cluster does not answer these clients.
    unanswered_since: Option<Now>,
    pauses: Backoff,
    /// Of a takeover.
    waits: Backoff,
}

impl Machine {
    /// One that has done nothing yet.
    #[must_use]
    pub fn new(settings: MachineSettings) -> Self {
        Self {
            core: Core::new(settings.core.clone(), settings.policy.clone()),
            settings,
            step: Step::Open,
            stopping: false,
            news: vec![News::State(State::Connecting)],
            backoff: Backoff::new(),
            forgets_offsets: false,
            pending: Vec::new(),
            begun_at: BTreeMap::new(),
            changes: VecDeque::new(),
            changed: false,
            taken: None,
            failures: 0,
            unanswered_since: None,
            pauses: Backoff::new(),
            waits: Backoff::new(),
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

    /// What is decided and not committed.
    #[must_use]
    pub fn pending(&self) -> &[Decided] {
        &self.pending
    }

    /// The offset behind the last of them in each partition.
    #[must_use]
    pub fn offsets(&self) -> BTreeMap<i32, i64> {
        let mut next = BTreeMap::new();
        for decided in &self.pending {
            let next = next.entry(decided.partition).or_insert(0);
            *next = decided.offset.saturating_add(1).max(*next);
        }
        next
    }

    /// Partitions, terminals and numbers that it remembers.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        self.core.sizes()
    }

    /// What it remembers.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// What is to be done now. Asked twice without an event between, it says the
    /// same.
    pub fn poll(&mut self, now: Now) -> Action {
        if let Step::Pause { until, then } = &mut self.step
            && *until <= now
        {
            self.step = std::mem::replace(&mut **then, Step::Open);
        }
        if self.stopping && self.may_end() {
            return Action::Ended;
        }
        match &self.step {
            Step::Open => Action::Open,
            Step::Init => Action::Init,
            Step::Join => Action::Join,
            Step::Poll => Action::Poll {
                wait: self.pending.is_empty(),
            },
            Step::AskOffsets(partitions) => Action::AskOffsets(partitions.clone()),
            Step::AskEnds(partitions, _) => Action::AskEnds(partitions.clone()),
            Step::Read(partitions, _, ends) => Action::Read(partitions.clone(), ends.clone()),
            Step::Begin => Action::Begin,
            Step::PassOffsets => Action::PassOffsets,
            Step::HandOver => Action::HandOver,
            Step::Await => Action::Await,
            Step::Commit => Action::Commit,
            Step::CommitOffsets => Action::CommitOffsets,
            Step::Abort(_) => Action::Abort,
            Step::Pause { until, .. } => Action::Pause(*until - now),
        }
    }

    /// Whether it may end here: no transaction is open.
    fn may_end(&self) -> bool {
        match self.step {
            Step::Poll => self.pending.is_empty(),
            Step::Open
            | Step::Init
            | Step::Join
            | Step::AskOffsets(_)
            | Step::AskEnds(..)
            | Step::Read(..)
            | Step::Pause { .. } => true,
            _ => false,
        }
    }

    /// What became of the action that was asked for.
    pub fn done(&mut self, event: Event, now: Now) {
        let step = std::mem::replace(&mut self.step, Step::Open);
        self.step = match (step, event) {
            (Step::Open, Event::Opened(Ok(forgets_offsets))) => {
                self.opened(forgets_offsets);
                Step::Init
            }
            (Step::Init, Event::Done(answer)) => self.began_as_the_only_one(answer, now),
            (Step::Join, Event::Joined(Ok(()))) => {
                self.tell(News::State(State::Joining));
                Step::Poll
            }
            (Step::Poll, Event::Polled(polled)) => self.polled(polled, now),
            (Step::AskOffsets(partitions), Event::Offsets(asked)) => match asked {
                Ok(offsets) => {
                    self.unanswered_since = None;
                    Step::AskEnds(partitions, offsets)
                }
                Err(reason) if self.is_unanswered(now) => self.anew(reason, now),
                Err(reason) => {
                    self.tell(News::Error(reason));
                    let pause = self.waits.pause();
                    Self::pause(pause, Step::AskOffsets(partitions), now)
                }
            },
            (Step::AskEnds(partitions, offsets), Event::Ends(Ok(ends))) => {
                Step::Read(partitions, offsets, ends)
            }
            (Step::Read(_, offsets, _), Event::Memories(Ok(memories))) => {
                self.took_over(offsets, memories);
                self.next_change()
            }
            (Step::Begin, Event::Done(answer)) => match answer {
                // First the offsets: the brokers are often still closing the
                // transaction before this one, and librdkafka asks again sooner for
                // offsets than for messages (20 ms). A group that has given the
                // partitions to somebody else refuses before anything is written.
                Ok(()) if !self.settings.offsets_outside_transaction => Step::PassOffsets,
                Ok(()) => Step::HandOver,
                Err(failure) => self.broken(&failure, now),
            },
            (Step::PassOffsets, Event::Done(answer)) => match answer {
                Ok(()) => Step::HandOver,
                Err(failure) if failure.remedy == Remedy::Again => {
                    self.once_more(Step::PassOffsets, &failure, now)
                }
                Err(failure) => self.broken(&failure, now),
            },
            (Step::HandOver, Event::HandedOver(answer)) => match answer {
                Ok(Ok(())) => Step::Await,
                Ok(Err(reason)) => Step::Abort(reason),
                Err(failure) => self.finished(&failure, now),
            },
            (Step::Await, Event::Progress(answer)) => match answer {
                Ok((_, Some(failed))) => Step::Abort(format!("a delivery failed: {failed}")),
                Ok((0, None)) => Step::Commit,
                Ok(_) => Step::Await,
                Err(failure) => self.finished(&failure, now),
            },
            (Step::Commit, Event::Done(answer)) => match answer {
                Ok(()) if self.settings.offsets_outside_transaction || self.forgets_offsets => {
                    Step::CommitOffsets
                }
                Ok(()) => self.committed(),
                Err(failure) if failure.remedy == Remedy::Again => {
                    self.once_more(Step::Commit, &failure, now)
                }
                Err(failure) => self.broken(&failure, now),
            },
            (Step::CommitOffsets, Event::Done(answer)) => match answer {
                Ok(()) => self.committed(),
                Err(failure) => self.anew(failure.text, now),
            },
            (Step::Abort(reason), Event::Done(answer)) => match answer {
                Ok(()) => self.again(reason, now),
                Err(failure) if failure.remedy == Remedy::Again => {
                    self.once_more(Step::Abort(reason), &failure, now)
                }
                Err(failure) => self.finished(&failure, now),
            },
            (
                _,
                Event::Opened(Err(reason))
                | Event::Joined(Err(reason))
                | Event::Ends(Err(reason))
                | Event::Memories(Err(reason)),
            ) => self.anew(reason, now),
            (pause @ Step::Pause { .. }, Event::Passed) => pause,
            (step, event) => {
                debug_assert!(false, "{step:?} was answered by {event:?}");
                let reason = "a bug: an answer to nothing; please report it";
                self.anew(reason.into(), now)
            }
        };
    }

    /// The shell panicked: a bug, but payments must be settled all the same.
    pub fn panicked(&mut self, now: Now) {
        let reason = "a bug: settlement panicked; please report it";
        self.step = self.anew(reason.into(), now);
    }

    fn opened(&mut self, forgets_offsets: bool) {
        let settings = &self.settings;
        self.core = Core::new(settings.core.clone(), settings.policy.clone());
        self.forgets_offsets = forgets_offsets;
        self.pending.clear();
        self.begun_at.clear();
        self.changes.clear();
        self.changed = false;
        self.taken = None;
        self.failures = 0;
        self.unanswered_since = None;
        self.pauses.reset();
        self.waits.reset();
    }

    fn began_as_the_only_one(&mut self, answer: Result<(), Failure>, now: Now) -> Step {
        match answer {
            Ok(()) => {
                self.unanswered_since = None;
                Step::Join
            }
            Err(failure) if failure.remedy == Remedy::Again => {
                self.once_more(Step::Init, &failure, now)
            }
            Err(failure) => self.anew(
                format!(
                    "Kafka refuses transactions: {}; grant the transactional id {}-{}",
                    failure.text, self.settings.group, self.settings.instance
                ),
                now,
            ),
        }
    }

    /// Takes what is there. What is decided is not taken back: a transaction that
    /// fails is sent again as it is.
    fn polled(&mut self, polled: Polled, now: Now) -> Step {
        if let Some(fatal) = polled.fatal {
            return self.finished(&fatal, now);
        }
        self.changed = !polled.changes.is_empty();
        self.changes.extend(polled.changes);
        self.taken = polled.record;
        self.next_change()
    }

    /// Does what the group decided, then looks at the record that came with it.
    fn next_change(&mut self) -> Step {
        while let Some(change) = self.changes.pop_front() {
            match change {
                Change::Revoked(partitions) => {
                    for partition in &partitions {
                        self.core.revoke(*partition);
                        self.begun_at.remove(partition);
                    }
                    // Their new holder settles these.
                    self.pending
                        .retain(|decided| !partitions.contains(&decided.partition));
                    self.tell(News::GivenUp(partitions));
                }
                Change::Assigned(partitions) if partitions.is_empty() => {}
                Change::Assigned(partitions) => {
                    self.tell(News::State(State::Rebuilding));
                    self.waits.reset();
                    return Step::AskOffsets(partitions);
                }
            }
        }
        if self.changed {
            self.tell(News::State(State::Settling));
        }
        let taken = self.taken.take();
        match &taken {
            Some(record) => self.decide(record),
            None if self.changed => {}
            None => return self.gathered(),
        }
        if self.pending.len() >= self.settings.batch_records_max {
            return self.gathered();
        }
        Step::Poll
    }

    fn gathered(&self) -> Step {
        if self.pending.is_empty() {
            Step::Poll
        } else {
            Step::Begin
        }
    }

    fn took_over(
        &mut self,
        offsets: BTreeMap<i32, Option<i64>>,
        memories: BTreeMap<i32, Partition>,
    ) {
        let numbers = memories.values().map(Partition::numbers).sum();
        for (partition, memory) in memories {
            self.core.assign(partition, memory);
        }
        for (partition, offset) in &offsets {
            if let Some(offset) = offset {
                self.begun_at.insert(*partition, *offset);
            }
        }
        self.tell(News::TakenOver { offsets, numbers });
    }

    fn decide(&mut self, record: &Taken) {
        let input = record.input();
        // None: it was fetched before its partition went to another instance.
        let Some(decision) = self.core.settle(&input) else {
            return;
        };
        if let Some(began) = self.begun_at.remove(&input.partition)
            && input.offset < began
        {
            self.tell(News::PassedBefore {
                partition: input.partition,
                offset: input.offset,
            });
        }
        if matches!(
            decision.verdict,
            Verdict::Conflict | Verdict::TooOld | Verdict::Seal(_) | Verdict::Foreign(_)
        ) {
            self.tell_not_settled(&input, &decision);
        }
        self.pending.push(Decided {
            partition: input.partition,
            offset: input.offset,
            messages: self.settings.envelope.messages(&input, &decision),
            verdict: decision.verdict,
        });
    }

    fn tell_not_settled(&mut self, input: &Input<'_>, decision: &Decision) {
        self.tell(News::NotSettled {
            terminal: decision.terminal.clone(),
            sequence: decision.sequence,
            partition: input.partition,
            offset: input.offset,
            verdict: decision.verdict.clone(),
        });
    }

    /// The transaction can't go on.
    fn broken(&mut self, failure: &Failure, now: Now) -> Step {
        match failure.remedy {
            Remedy::Abort => Step::Abort(failure.text.clone()),
            Remedy::Again => self.again(failure.text.clone(), now),
            Remedy::Anew => self.finished(failure, now),
        }
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

    fn again(&mut self, reason: String, now: Now) -> Step {
        self.failures += 1;
        if self.failures > limits::SETTLEMENT_ATTEMPTS_MAX {
            return self.anew(reason, now);
        }
        self.tell(News::Aborted(reason));
        let pause = self.pauses.pause();
        Self::pause(pause, Step::Poll, now)
    }

    fn committed(&mut self) -> Step {
        let verdicts = self.pending.drain(..).map(|decided| decided.verdict);
        let verdicts = verdicts.collect();
        self.tell(News::Committed(verdicts));
        self.failures = 0;
        self.unanswered_since = None;
        self.pauses.reset();
        self.backoff.reset();
        Step::Poll
    }

    /// A client is finished.
    fn finished(&mut self, failure: &Failure, now: Now) -> Step {
        use rdkafka::error::RDKafkaErrorCode as Code;
        let taken_over = |code| is_fenced(code) || code == Code::FencedInstanceId;
        let hint = if failure.code.is_some_and(taken_over) {
            format!(
                "; another instance named {} took over: give each a name of its own (settlement.instance)",
                self.settings.instance
            )
        } else {
            String::new()
        };
        self.anew(format!("{}{hint}", failure.text), now)
    }

    fn anew(&mut self, reason: String, now: Now) -> Step {
        self.tell(News::Anew(reason));
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

    fn tell(&mut self, news: News) {
        self.news.push(news);
    }
}

#[cfg(test)]
mod tests;
