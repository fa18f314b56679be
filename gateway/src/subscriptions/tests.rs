//! Who gets a message, by what they subscribed to.

use super::*;
use risiti_mqtt::RetainHandling;

use crate::limits;

fn subscription(filter: &str, qos: Qos) -> Subscription {
    Subscription {
        filter: TopicFilter::parse(filter.into(), true).unwrap(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
        id: None,
    }
}

fn session(number: u64) -> Arc<Session> {
    Arc::new(Session::new(format!("c{number}").into(), number, 60))
}

fn message(topic: &str) -> Message {
    Message {
        qos: Qos::ExactlyOnce,
        ..Message::new(topic, "x")
    }
}

#[test]
fn a_persistent_session_gets_one_copy_at_its_highest_qos_with_all_identifiers() {
    let mut s = Subscriptions::default();
    let one = session(1);
    let mut a = subscription("a/+", Qos::AtMostOnce);
    a.id = Some(5);
    let mut b = subscription("a/#", Qos::AtLeastOnce);
    b.id = Some(6);
    s.insert(&one, &a).unwrap();
    s.insert(&one, &b).unwrap();
    let m = s.matches(&message("a/b"), 0);
    assert_eq!(m.targets.len(), 1);
    assert_eq!(m.targets[0].qos, Qos::AtLeastOnce);
    let mut ids = m.targets[0].subscription_ids.clone();
    ids.sort_unstable();
    assert_eq!(ids, [5, 6]);
}

#[test]
fn no_local_keeps_a_publisher_from_hearing_itself() {
    let mut s = Subscriptions::default();
    let one = session(1);
    let mut a = subscription("a", Qos::AtLeastOnce);
    a.no_local = true;
    s.insert(&one, &a).unwrap();
    assert!(s.matches(&message("a"), 1).is_empty());
    assert!(!s.matches(&message("a"), 2).is_empty());
}

#[test]
fn a_share_group_gives_each_message_to_one_member_in_turn() {
    let mut s = Subscriptions::default();
    let share = subscription("$share/g/a", Qos::AtLeastOnce);
    for n in 1..=3 {
        s.insert(&session(n), &share).unwrap();
    }
    let mut got = Vec::new();
    for _ in 0..6 {
        let m = s.matches(&message("a"), 0);
        assert_eq!(m.targets.len(), 1);
        got.push(m.targets[0].session.number);
    }
    got.sort_unstable();
    assert_eq!(got, [1, 1, 2, 2, 3, 3]);
}

#[test]
fn a_filter_that_nobody_wants_any_more_leaves_nothing_behind() {
    let mut s = Subscriptions::default();
    let persistent = session(1);
    let clean = Arc::new(Session::new("clean".into(), 2, 0));
    for filter in ["a/b", "$share/g/a/b", "x/#"] {
        for who in [&persistent, &clean] {
            let sub = subscription(filter, Qos::AtMostOnce);
            let first = s.insert(who, &sub).unwrap();
            s.remove(who, &sub.filter);
            assert!(s.is_empty());
            // The number is used again: the router's tables stay bounded.
            assert_eq!(s.insert(who, &sub).unwrap(), first);
            s.remove(who, &sub.filter);
        }
    }
    assert_eq!(s.filters(), 0);
}

/// One whose client is connected.
fn connected(session: Arc<Session>) -> Arc<Session> {
    session.lock().mailbox = Some(Arc::default());
    session
}

fn clean(number: u64) -> Arc<Session> {
    Arc::new(Session::new(format!("clean{number}").into(), number, 0))
}

fn reached(s: &mut Subscriptions, topic: &str) -> Vec<u64> {
    let m = s.matches(&message(topic), 0);
    assert_eq!(m.live, [0; 0]);
    m.targets.iter().map(|t| t.session.number).collect()
}

/// MQTT-3.8.4-3: the new one stands in the old one's place.
#[test]
fn a_subscription_made_again_replaces_its_own_and_no_other() {
    let mut s = Subscriptions::default();
    for filter in ["a", "$share/g/a"] {
        for number in [1, 2] {
            s.insert(&session(number), &subscription(filter, Qos::AtMostOnce))
                .unwrap();
        }
        s.insert(&session(1), &subscription(filter, Qos::ExactlyOnce))
            .unwrap();
    }
    let m = s.matches(&message("a"), 0);
    let mut got: Vec<_> = m
        .targets
        .iter()
        .map(|t| (t.session.number, t.qos))
        .collect();
    let shared = got.remove(2);
    assert_eq!(got, [(1, Qos::ExactlyOnce), (2, Qos::AtMostOnce)]);
    assert_eq!(shared, (1, Qos::ExactlyOnce));
}

/// MQTT-3.10.4-2: who unsubscribes gets nothing more, and nobody else less.
#[test]
fn who_unsubscribes_takes_nothing_but_their_own_with_them() {
    let mut s = Subscriptions::default();
    let own = |s: &mut Subscriptions, number, filter| {
        s.remove(
            &session(number),
            &subscription(filter, Qos::AtMostOnce).filter,
        );
    };
    for number in [1, 2] {
        for filter in ["a", "$share/g/b"] {
            s.insert(&session(number), &subscription(filter, Qos::AtLeastOnce))
                .unwrap();
        }
    }
    own(&mut s, 1, "a");
    own(&mut s, 1, "never/subscribed");
    assert_eq!(reached(&mut s, "a"), [2]);
    own(&mut s, 1, "$share/g/b");
    own(&mut s, 1, "$share/other/b");
    for _ in 0..3 {
        assert_eq!(reached(&mut s, "b"), [2]);
    }
    assert_eq!(s.filters(), 2);
    own(&mut s, 2, "$share/g/b");
    assert_eq!(reached(&mut s, "b"), [0; 0]);
    assert_eq!((s.filters(), s.is_empty()), (1, false));
}

/// One filter, held in three ways: it lives as long as one of them.
#[test]
fn a_filter_lives_as_long_as_anybody_subscribes_to_it() {
    let plain = subscription("a", Qos::AtLeastOnce);
    let shared = subscription("$share/g/a", Qos::AtLeastOnce);
    let holders = [
        (session(1), plain.clone()),
        (clean(2), plain),
        (session(3), shared),
    ];
    for last in 0..holders.len() {
        let mut s = Subscriptions::default();
        for (session, subscription) in &holders {
            s.insert(session, subscription).unwrap();
        }
        for (at, (session, subscription)) in holders.iter().enumerate() {
            if at != last {
                s.remove(session, &subscription.filter);
            }
        }
        let m = s.matches(&message("a"), 0);
        assert!(!m.is_empty() && !s.is_empty());
        assert_eq!(
            (m.targets.len(), m.live.len()),
            match last {
                1 => (0, 1),
                _ => (1, 0),
            }
        );
    }
}

#[test]
fn a_live_filter_is_named_once_however_many_subscribe_to_it() {
    let mut s = Subscriptions::default();
    let sub = subscription("a/+", Qos::AtMostOnce);
    let number = s.insert(&clean(1), &sub).unwrap();
    assert_eq!(s.insert(&clean(2), &sub).unwrap(), number);
    let other = s.insert(&clean(2), &subscription("a/#", Qos::AtMostOnce));
    let other = other.unwrap();
    assert_ne!(number, other);
    let mut live = s.matches(&message("a/b"), 1).live;
    live.sort_unstable();
    assert_eq!(live, [number.min(other), number.max(other)]);
    s.remove(&clean(1), &sub.filter);
    assert_eq!(s.matches(&message("a/b"), 0).live.len(), 2);
    s.remove(&clean(2), &sub.filter);
    assert_eq!(s.matches(&message("a/b"), 0).live, [other]);
}

/// Its number is used again; its old topics are nobody's.
#[test]
fn a_filters_number_given_again_brings_nothing_of_the_old_filter() {
    let mut s = Subscriptions::default();
    let (old, new) = (
        subscription("old", Qos::AtLeastOnce),
        subscription("new", Qos::AtLeastOnce),
    );
    let number = s.insert(&session(1), &old).unwrap();
    s.remove(&session(1), &old.filter);
    assert_eq!(s.insert(&session(2), &new).unwrap(), number);
    assert_eq!(reached(&mut s, "old"), [0; 0]);
    assert_eq!(reached(&mut s, "new"), [2]);
}

#[test]
fn a_filter_too_deep_for_the_tree_is_refused_and_costs_no_number() {
    let mut s = Subscriptions::default();
    let deep = "a/".repeat(risiti_mqtt::limits::TOPIC_LEVELS_MAX);
    assert!(
        s.insert(&session(1), &subscription(&deep, Qos::AtMostOnce))
            .is_err()
    );
    assert!(s.is_empty());
    let number = s.insert(&session(1), &subscription("a", Qos::AtMostOnce));
    assert_eq!(number.unwrap(), 0);
}

/// MQTT-3.3.1-12 and -13: one of a session's filters may keep the flag for all.
#[test]
fn retain_goes_out_as_published_if_one_filter_asks_for_it() {
    let mut s = Subscriptions::default();
    let keeps = Subscription {
        retain_as_published: true,
        ..subscription("a", Qos::AtMostOnce)
    };
    let one = session(1);
    s.insert(&one, &subscription("#", Qos::AtMostOnce)).unwrap();
    s.insert(&one, &subscription("+", Qos::AtMostOnce)).unwrap();
    let published = |retain| Message {
        retain,
        ..message("a")
    };
    assert!(!s.matches(&published(true), 0).targets[0].retain);
    s.insert(&one, &keeps).unwrap();
    assert!(s.matches(&published(true), 0).targets[0].retain);
    assert!(!s.matches(&published(false), 0).targets[0].retain);
}

/// MQTT-3.8.3-3 binds those who ask for it, and only against themselves.
#[test]
fn a_publisher_hears_itself_unless_it_asked_not_to() {
    let mut s = Subscriptions::default();
    s.insert(&session(1), &subscription("a", Qos::AtMostOnce))
        .unwrap();
    assert_eq!(s.matches(&message("a"), 1).targets.len(), 1);
}

/// Section 4.8.2: who is there and keeps up is served before who is not.
#[test]
fn a_share_goes_to_a_member_that_keeps_up_then_to_one_the_store_keeps_it_for() {
    let share = subscription("$share/g/a", Qos::AtLeastOnce);
    let slow = |session: Arc<Session>| {
        let session = connected(session);
        for _ in 0..limits::SESSION_WAITING_MAX {
            let sequence = session.lock().outgoing.assign();
            session.lock().outgoing.stored(crate::outgoing::Queued {
                sequence,
                message: Arc::new(message("a")),
                qos: Qos::AtLeastOnce,
                retain: false,
                subscription_ids: Vec::new(),
                received_ms: 0,
                dup: false,
            });
        }
        session
    };
    let turns = |members: &[Arc<Session>]| -> Vec<u64> {
        let mut s = Subscriptions::default();
        for member in members {
            s.insert(member, &share).unwrap();
        }
        (0..3).flat_map(|_| reached(&mut s, "a")).collect()
    };
    let offline = session(1);
    let there = || connected(session(2));
    assert_eq!(turns(&[offline.clone(), there()]), [2, 2, 2]);
    assert_eq!(
        turns(&[offline.clone(), there(), connected(clean(3))]),
        [2, 3, 2],
        "in turn"
    );
    assert_eq!(turns(&[slow(session(4)), there()]), [2, 2, 2]);
    // Nobody keeps up.
    assert_eq!(turns(&[slow(clean(5)), offline.clone()]), [1, 1, 1]);
    assert_eq!(turns(&[clean(6), slow(clean(5))]), [5, 5, 5]);
    // Nobody is there, and nobody will be.
    assert_eq!(turns(&[clean(6)]), [0; 0]);
}
