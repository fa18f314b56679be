//! A consumer group with static members, modelled coarsely.
//!
//! Promises: a partition has one holder at most by the group's count, and goes to
//! another one only when the holder has given it up, is known to be dead, or was
//! silent for the session timeout; whoever lost its membership can't commit
//! offsets any more, in a transaction or out of it; offsets of a transaction that is
//! not ended are not given out. Never: an offset of an aborted transaction.
//!
//! After KIP-345 (static members: who comes back under its name takes its
//! partitions back, and its former self is fenced), KIP-429 (cooperative: what is
//! to go is revoked first, and nothing else stops), KIP-447 (the group's generation
//! fences a transaction; stable offsets).

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
    /// The holder of each partition.
    owners: BTreeMap<i32, Rc<str>>,
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
        };
        if self.members.insert(Rc::clone(instance), known).is_none() {
            self.generation += 1;
        }
        self.next_id
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
        let targets = self.targets();
        let owners = &self.owners;
        let Some(known) = self.members.get_mut(&member.instance) else {
            return Err(Code::UnknownMemberId);
        };
        let mine = |partition: i32| targets.get(&partition) == Some(&member.instance);
        let revoked: Vec<i32> = known.holds.iter().copied().filter(|p| !mine(*p)).collect();
        let assigned: Vec<i32> = (0..self.partitions)
            .filter(|p| mine(*p) && !known.holds.contains(p))
            .filter(|p| owners.get(p).is_none_or(|owner| *owner == member.instance))
            .collect();
        for partition in &revoked {
            known.holds.remove(partition);
        }
        known.holds.extend(&assigned);
        // What it held before it started again, and shall not have back, is free too.
        let freed = self.owners.len();
        self.owners
            .retain(|partition, owner| *owner != member.instance || mine(*partition));
        let freed = freed != self.owners.len();
        for partition in &assigned {
            self.owners.insert(*partition, Rc::clone(&member.instance));
        }
        if freed || !assigned.is_empty() {
            self.generation += 1;
        }
        Ok(Assignment {
            generation: self.generation,
            revoked,
            assigned,
        })
    }

    /// Who shall hold what: each keeps what it has, as far as that is fair.
    fn targets(&self) -> BTreeMap<i32, Rc<str>> {
        let mut targets = BTreeMap::new();
        let count = self.members.len();
        if count == 0 {
            return targets;
        }
        let mut room: BTreeMap<&Rc<str>, usize> = BTreeMap::new();
        for (place, instance) in self.members.keys().enumerate() {
            room.insert(instance, self.share(place));
        }
        for partition in 0..self.partitions {
            if let Some(owner) = self.owners.get(&partition)
                && let Some(left) = room.get_mut(owner)
                && *left > 0
            {
                *left -= 1;
                targets.insert(partition, Rc::clone(owner));
            }
        }
        for partition in 0..self.partitions {
            if targets.contains_key(&partition) {
                continue;
            }
            if let Some((instance, left)) = room.iter_mut().find(|(_, left)| **left > 0) {
                *left -= 1;
                targets.insert(partition, Rc::clone(instance));
            }
        }
        targets
    }

    /// How many partitions are for the member at this place.
    fn share(&self, place: usize) -> usize {
        let total = usize::try_from(self.partitions).unwrap_or(0);
        let count = self.members.len();
        total / count + usize::from(place < total % count)
    }

    /// Each member owns its share and knows it, as it is nearly always.
    fn is_settled(&self) -> bool {
        let knows = |(place, (instance, known)): (usize, (&Rc<str>, &Known))| {
            let owns = |partition| self.owners.get(partition) == Some(instance);
            known.holds.len() == self.share(place) && known.holds.iter().all(owns)
        };
        !self.members.is_empty() && self.members.iter().enumerate().all(knows)
    }

    /// Whether a poll of this member would tell it something.
    fn has_news(&self) -> bool {
        if self.is_settled() {
            return false;
        }
        let targets = self.targets();
        (0..self.partitions).any(|partition| {
            let target = targets.get(&partition);
            let owner = self.owners.get(&partition);
            target != owner
                || target.is_some_and(|target| {
                    let known = self.members.get(target);
                    known.is_some_and(|known| !known.holds.contains(&partition))
                })
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
            self.owners.retain(|_, owner| owner != instance);
            self.generation += 1;
        }
        !gone.is_empty()
    }

    /// The brokers were away: all have their whole time again.
    pub fn excuse(&mut self, now: Ms) {
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
        self.generation * 2 + u64::from(self.has_news())
    }
}
