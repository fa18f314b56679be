//! A consumer group with static members, modelled coarsely.
//!
//! Promises: a partition has one holder at most by the group's count, and goes to
//! another one only when the holder has given it up, is known to be dead, or was
//! silent for the session timeout; in each generation every partition has a holder;
//! whoever lost its membership can't commit offsets any more, in a transaction or out
//! of it; offsets of a transaction that is not ended are not given out. Never: an
//! offset of an aborted transaction.
//!
//! After KIP-345 (static members: who comes back under its name takes its
//! partitions back, and its former self is fenced), the eager protocol (for a new
//! generation all give up all, and come together), KIP-447 (the group's generation
//! fences a transaction; stable offsets). Brokers that start again know the last
//! generation, and nothing of those who were coming together for the next.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

use super::log::{ProducerId, sooner};
use super::{Code, Ms};

/// Held by a running client: its heartbeats. Dropping it is its death.
#[derive(Debug, Clone, Default)]
pub struct Heart(Rc<()>);

/// Who a client is in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The group.
    pub group: Rc<str>,
    /// Its name (KIP-345).
    pub instance: Rc<str>,
    /// Given at joining; another one under the same name is another process.
    pub id: u64,
    /// The generation of the group that it knows.
    pub generation: u64,
}

/// What a member is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The group's generation.
    pub generation: u64,
    /// To be given up now.
    pub revoked: Vec<i32>,
    /// Its own from now on.
    pub assigned: Vec<i32>,
}

#[derive(Debug)]
struct Known {
    id: u64,
    heart: Weak<()>,
    /// When its heart was found to have stopped.
    stopped: Option<Ms>,
    /// Until when nothing is heard of it although it lives.
    silent_until: Ms,
    silent_since: Ms,
    /// What this process holds by its own count.
    holds: BTreeSet<i32>,
    /// It has given up all, for the generation that comes.
    has_joined: bool,
    /// It is in this generation.
    is_counted: bool,
}

impl Known {
    /// Since when nothing is heard of it.
    fn quiet_since(&self, now: Ms) -> Option<Ms> {
        match self.stopped {
            Some(stopped) => Some(stopped),
            None if self.silent_until > now => Some(self.silent_since),
            None => None,
        }
    }
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Group {
    generation: u64,
    next_id: u64,
    partitions: i32,
    session_timeout_ms: Ms,
    members: BTreeMap<Rc<str>, Known>,
    /// The holder of each partition in this generation.
    owners: BTreeMap<i32, Rc<str>>,
    /// Members come together for the next.
    is_rebalancing: bool,
    offsets: BTreeMap<(Rc<str>, i32), i64>,
    /// Offsets in transactions that are not ended.
    pending: BTreeMap<ProducerId, BTreeMap<(Rc<str>, i32), i64>>,
}

impl Group {
    /// A process joins under its name; gives its id.
    pub fn join(
        &mut self,
        instance: &Rc<str>,
        heart: &Heart,
        partitions: i32,
        session_timeout_ms: Ms,
    ) -> u64 {
        self.partitions = partitions;
        self.session_timeout_ms = session_timeout_ms;
        self.next_id += 1;
        let known = Known {
            id: self.next_id,
            heart: Rc::downgrade(&heart.0),
            stopped: None,
            silent_until: 0,
            silent_since: 0,
            holds: BTreeSet::new(),
            has_joined: true,
            is_counted: false,
        };
        match self.members.insert(Rc::clone(instance), known) {
            None => self.rebalance(),
            Some(former) => {
                if let Some(known) = self.members.get_mut(instance) {
                    known.is_counted = former.is_counted;
                }
                self.complete();
            }
        }
        self.next_id
    }

    /// Calls all members together, unless they are called already.
    fn rebalance(&mut self) {
        if !std::mem::replace(&mut self.is_rebalancing, true) {
            for known in self.members.values_mut() {
                known.has_joined = known.holds.is_empty() && !known.is_counted;
            }
        }
        self.complete();
    }

    /// Begins the next generation once all have come.
    fn complete(&mut self) {
        if !self.is_rebalancing || self.members.values().any(|known| !known.has_joined) {
            return;
        }
        self.is_rebalancing = false;
        self.generation += 1;
        self.owners = self.shares();
        for known in self.members.values_mut() {
            known.is_counted = true;
        }
    }

    /// A whole assignment: each has its share.
    fn shares(&self) -> BTreeMap<i32, Rc<str>> {
        let mut shares = BTreeMap::new();
        let mut partitions = 0..self.partitions;
        for (place, instance) in self.members.keys().enumerate() {
            for partition in partitions.by_ref().take(self.share(place)) {
                shares.insert(partition, Rc::clone(instance));
            }
        }
        shares
    }

    /// Whether this is a member, as a heartbeat or a commit asks.
    fn check(&self, member: &Member) -> Result<(), Code> {
        match self.members.get(&member.instance) {
            None => Err(Code::UnknownMemberId),
            Some(known) if known.id != member.id => Err(Code::FencedInstanceId),
            Some(_) => Ok(()),
        }
    }

    /// What the group wants of a member now.
    pub fn poll(&mut self, member: &Member) -> Result<Assignment, Code> {
        self.check(member)?;
        let mut revoked = Vec::new();
        if self.is_rebalancing
            && let Some(known) = self.members.get_mut(&member.instance)
        {
            revoked = std::mem::take(&mut known.holds).into_iter().collect();
            known.has_joined = true;
            self.complete();
        }
        let mut assigned = Vec::new();
        if !self.is_rebalancing
            && let Some(known) = self.members.get_mut(&member.instance)
        {
            let owns = self.owners.iter().filter(|(_, o)| **o == member.instance);
            assigned.extend(owns.map(|(p, _)| *p).filter(|p| !known.holds.contains(p)));
            known.holds.extend(&assigned);
        }
        Ok(Assignment {
            generation: self.generation,
            revoked,
            assigned,
        })
    }

    /// How many partitions are for the member at this place.
    fn share(&self, place: usize) -> usize {
        let total = usize::try_from(self.partitions).unwrap_or(0);
        let count = self.members.len();
        total / count + usize::from(place < total % count)
    }

    /// Whether a poll of some member would tell it something.
    fn has_news(&self) -> bool {
        if self.is_rebalancing {
            return self.members.values().any(|known| !known.has_joined);
        }
        self.owners.iter().any(|(partition, owner)| {
            let known = self.members.get(owner);
            known.is_some_and(|known| !known.holds.contains(partition))
        })
    }

    /// Commits offsets outside a transaction.
    pub fn commit(
        &mut self,
        member: &Member,
        topic: &Rc<str>,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<(), Code> {
        self.check(member)?;
        if member.generation != self.generation {
            return Err(Code::IllegalGeneration);
        }
        for (partition, offset) in offsets {
            self.offsets.insert((Rc::clone(topic), *partition), *offset);
        }
        Ok(())
    }

    /// Takes offsets into a transaction (KIP-447).
    pub fn pend(
        &mut self,
        member: &Member,
        producer: ProducerId,
        topic: &Rc<str>,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<(), Code> {
        self.check(member)?;
        if member.generation != self.generation {
            return Err(Code::IllegalGeneration);
        }
        let pending = self.pending.entry(producer).or_default();
        for (partition, offset) in offsets {
            pending.insert((Rc::clone(topic), *partition), *offset);
        }
        Ok(())
    }

    /// A transaction ends.
    pub fn mark(&mut self, producer: ProducerId, commit: bool) {
        if let Some(pending) = self.pending.remove(&producer)
            && commit
        {
            self.offsets.extend(pending);
        }
    }

    /// The next offset of a partition; none if there is none yet.
    pub fn offset(&self, topic: &Rc<str>, partition: i32) -> Result<Option<i64>, Code> {
        let place = (Rc::clone(topic), partition);
        let unstable = |pending: &BTreeMap<_, _>| pending.contains_key(&place);
        if self.pending.values().any(unstable) {
            return Err(Code::UnstableOffsetCommit);
        }
        Ok(self.offsets.get(&place).copied())
    }

    /// Nothing is heard of a member that lives, for a time.
    pub fn silence(&mut self, instance: &str, now: Ms, until: Ms) {
        if let Some(known) = self.members.get_mut(instance) {
            known.silent_since = now;
            known.silent_until = until;
        }
    }

    /// Counts hearts; `true` if somebody was put out of the group, or has to be told
    /// something.
    pub fn advance(&mut self, now: Ms) -> bool {
        for known in self.members.values_mut() {
            if known.stopped.is_none() && known.heart.strong_count() == 0 {
                known.stopped = Some(now);
            }
        }
        let gone: Vec<Rc<str>> = self
            .members
            .iter()
            .filter(|(_, known)| {
                let quiet = known.quiet_since(now);
                quiet.is_some_and(|since| since + self.session_timeout_ms <= now)
            })
            .map(|(instance, _)| Rc::clone(instance))
            .collect();
        for instance in &gone {
            self.members.remove(instance);
            self.rebalance();
        }
        !gone.is_empty()
    }

    /// The brokers were away: all have their whole time again, and who was coming
    /// together is not any more.
    pub fn restarted(&mut self, now: Ms) {
        self.is_rebalancing = false;
        self.members.retain(|_, known| known.is_counted);
        for known in self.members.values_mut() {
            if known.stopped.is_some() {
                known.stopped = Some(now);
            }
            known.silent_since = known.silent_since.max(now);
        }
    }

    /// When something is due next. A heart that stopped unnoticed is due at once.
    pub fn due(&self, now: Ms) -> Option<Ms> {
        self.members.values().fold(None, |due, known| {
            let own = if known.stopped.is_none() && known.heart.strong_count() == 0 {
                Some(now)
            } else {
                let quiet = known.quiet_since(now);
                quiet.map(|since| since + self.session_timeout_ms)
            };
            sooner(due, own)
        })
    }

    /// A number that grows with what a member could notice.
    pub fn news(&self) -> u64 {
        self.generation * 4 + u64::from(self.is_rebalancing) * 2 + u64::from(self.has_news())
    }
}
