//! Who is to get a message: every subscription of every session, by filter.
//!
//! Promises: one answer for a topic, by the standard's matching rules
//! (MQTT 5.0, section 4.7): persistent sessions, each once with the highest
//! QoS of its matching filters and all their identifiers (MQTT-3.3.4-2, -3);
//! the filters that live sessions subscribe to, for the router; and one member
//! of each matching share group (section 4.8.2).
//! It holds no messages and knows no clock or store.

use std::collections::HashMap;
use std::sync::Arc;

use bytestring::ByteString;
use risiti_mqtt::{FilterTree, Message, Qos, Subscription, TopicFilter};

use crate::fanout::FilterNumber;
use crate::rows::SessionNumber;
use crate::session::Session;

/// A session's subscription under one filter.
struct Member {
    session: Arc<Session>,
    subscription: Subscription,
}

/// Everything under one filter.
#[derive(Default)]
struct Filter {
    persistent: Vec<Member>,
    live: u32,
    shares: HashMap<ByteString, Share>,
}

#[derive(Default)]
struct Share {
    members: Vec<Member>,
    turn: usize,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.persistent.is_empty() && self.live == 0 && self.shares.is_empty()
    }
}

/// One session that is to get a message directly (not through the router).
pub struct Target {
    /// Which.
    pub session: Arc<Session>,
    /// The delivery's QoS.
    pub qos: Qos,
    /// The RETAIN flag of the delivery.
    pub retain: bool,
    /// Subscription identifiers that matched.
    pub subscription_ids: Vec<u32>,
}

/// Who is to get one message.
#[derive(Default)]
pub struct Matches {
    /// Sessions that get it directly.
    pub targets: Vec<Target>,
    /// Filters with live subscribers: the router fans out.
    pub live: Vec<FilterNumber>,
}

impl Matches {
    /// Nobody.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.live.is_empty()
    }
}

/// Every subscription.
#[derive(Default)]
pub struct Subscriptions {
    tree: FilterTree<FilterNumber>,
    numbers: HashMap<ByteString, FilterNumber>,
    filters: Vec<Filter>,
    free: Vec<FilterNumber>,
}

impl Subscriptions {
    /// Adds a session's subscription, or replaces it (a live one's options are
    /// the session's to replace: adding it again must be preceded by `remove`).
    /// Returns its filter's number.
    ///
    /// # Errors
    /// The filter has more levels than the tree takes.
    pub fn insert(
        &mut self,
        session: &Arc<Session>,
        subscription: &Subscription,
    ) -> Result<FilterNumber, risiti_mqtt::topics::FilterTreeError> {
        let text = &subscription.filter.filter;
        let number = match self.numbers.get(text) {
            Some(number) => *number,
            None => {
                let number = match self.free.last() {
                    Some(number) => *number,
                    None => self.filters.len() as FilterNumber,
                };
                self.tree.insert(text, number)?;
                if self.free.pop().is_none() {
                    self.filters.push(Filter::default());
                }
                self.numbers.insert(text.clone(), number);
                number
            }
        };
        let filter = &mut self.filters[number as usize];
        let member = Member {
            session: session.clone(),
            subscription: subscription.clone(),
        };
        let members = match &subscription.filter.share {
            Some(group) => &mut filter.shares.entry(group.clone()).or_default().members,
            None if session.persistent => &mut filter.persistent,
            None => {
                filter.live += 1;
                return Ok(number);
            }
        };
        match members
            .iter_mut()
            .find(|m| m.session.number == session.number)
        {
            Some(old) => *old = member,
            None => members.push(member),
        }
        Ok(number)
    }

    /// Removes a session's subscription, which must have been inserted.
    pub fn remove(&mut self, session: &Session, wanted: &TopicFilter) {
        let text = &wanted.filter;
        let Some(number) = self.numbers.get(text).copied() else {
            return;
        };
        let filter = &mut self.filters[number as usize];
        match &wanted.share {
            Some(group) => {
                if let Some(share) = filter.shares.get_mut(group) {
                    share.members.retain(|m| m.session.number != session.number);
                    if share.members.is_empty() {
                        filter.shares.remove(group);
                    }
                }
            }
            None if session.persistent => {
                filter
                    .persistent
                    .retain(|m| m.session.number != session.number);
            }
            None => filter.live = filter.live.saturating_sub(1),
        }
        if filter.is_empty() {
            self.tree.remove(text, |n| *n == number);
            self.numbers.remove(text);
            self.free.push(number);
        }
    }

    /// Whether nobody subscribes to anything: the common case of a box that
    /// only takes records.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Different filters held.
    pub fn filters(&self) -> usize {
        self.numbers.len()
    }

    /// Who is to get `message`, published by session `publisher`.
    pub fn matches(&mut self, message: &Message, publisher: SessionNumber) -> Matches {
        let mut matches = Matches::default();
        let mut numbers = Vec::new();
        self.tree.matches(&message.topic, |n| numbers.push(*n));
        for number in numbers {
            let filter = &mut self.filters[number as usize];
            if filter.live > 0 {
                matches.live.push(number);
            }
            for member in &filter.persistent {
                if member.subscription.no_local && member.session.number == publisher {
                    continue;
                }
                matches.add(member, message);
            }
            for share in filter.shares.values_mut() {
                if let Some(member) = share.choose() {
                    matches.targets.push(Target::new(member, message));
                }
            }
        }
        matches
    }
}

impl Share {
    /// The next member in turn: a connected one that keeps up, else one for
    /// which the store keeps it, else one that is connected.
    fn choose(&mut self) -> Option<&Member> {
        let count = self.members.len();
        let start = self.turn;
        let in_turn = |wanted: fn(&Session) -> bool| {
            (0..count)
                .map(|i| start.wrapping_add(i) % count)
                .find(|i| wanted(&self.members[*i].session))
        };
        let is_connected = |s: &Session| s.lock().mailbox.is_some();
        let keeps_up = |s: &Session| {
            let state = s.lock();
            state.mailbox.is_some() && state.outgoing.has_room()
        };
        let chosen = in_turn(keeps_up)
            .or_else(|| in_turn(|s| s.persistent))
            .or_else(|| in_turn(is_connected))?;
        self.turn = chosen + 1;
        self.members.get(chosen)
    }
}

impl Target {
    fn new(member: &Member, message: &Message) -> Self {
        Self {
            session: member.session.clone(),
            qos: message.qos.min(member.subscription.qos),
            retain: message.retain && member.subscription.retain_as_published,
            subscription_ids: member.subscription.id.into_iter().collect(),
        }
    }
}

impl Matches {
    /// Adds a persistent session, or raises what it already gets.
    fn add(&mut self, member: &Member, message: &Message) {
        let new = Target::new(member, message);
        match self
            .targets
            .iter_mut()
            .find(|t| t.session.number == member.session.number)
        {
            Some(target) => {
                target.qos = target.qos.max(new.qos);
                target.retain |= new.retain;
                target.subscription_ids.extend(new.subscription_ids);
            }
            None => self.targets.push(new),
        }
    }
}

#[cfg(test)]
mod tests;
