//! What a change of rights ends, and what it does not.

use std::io;
use std::path::PathBuf;

use risiti_config::{Rule, Subject};
use risiti_gateway::access::{Access, Which, file, token};
use risiti_tests::wire_client::{Connect, Message, Value, Wire, property};

use crate::house::{House, VERSIONS};
use crate::site::{client, identified, identities, lasting, site, token_of};

fn registry(house: &House) -> PathBuf {
    house.gateway().config().registry_path()
}

fn alarms(house: &House) -> Option<String> {
    house.broker().access().alarm()
}

/// Reloads with other rules.
fn reload(house: &House, rules: Vec<Rule>) {
    let mut config = house.gateway().config();
    config.access.rules = rules;
    let diff = house.gateway().reload(config);
    assert!(diff.needs_restart.is_empty(), "{diff:?}");
}

fn rule(who: &str, publish: bool, subscribe: bool, filter: &str) -> Rule {
    Rule {
        who: Subject::User(who.into()),
        publish,
        subscribe,
        filter: filter.into(),
    }
}

#[test]
fn g9_a_revoked_terminal_is_out_at_once_and_stays_out() -> io::Result<()> {
    for version in VERSIONS {
        let mut house = site();
        let mut seven = client(house.addr(), version, "7");
        let mut eight = client(house.addr(), version, "8");
        seven.ping()?;
        // As the command does it: the gateway notices by itself.
        file::edit(&registry(&house), |r| r.revoke("7")).unwrap();
        let said = seven.ended()?;
        if version == 5 {
            assert_eq!(said.map(|(code, _)| code), Some(0x98));
        }
        let connect = identified(Connect::clean(version, "7"), "7");
        let refused = if version == 5 { 0x87 } else { 5 };
        assert_eq!(Wire::connect(house.addr(), &connect)?.1.code, refused);
        eight.ping()?;
        house.restart();
        assert_eq!(Wire::connect(house.addr(), &connect)?.1.code, refused);
        client(house.addr(), version, "8").ping()?;
    }
    Ok(())
}

#[test]
fn a_terminal_that_is_added_gets_in_and_whoever_had_its_id_goes() -> io::Result<()> {
    let house = site();
    let mut squats = Wire::accepted(house.addr(), &Connect::clean(5, "12"))?;
    squats.ping()?;
    let digest = token::digest(b"a-new-token");
    file::edit(&registry(&house), |r| r.add("12", digest, false)).unwrap();
    assert_eq!(squats.ended()?.map(|(code, _)| code), Some(0x98));
    let refused = Wire::connect(house.addr(), &Connect::clean(5, "12"))?.1;
    assert_eq!(refused.code, 0x86);
    let connect = Connect::persistent(5, "12").login(None, "a-new-token");
    Wire::accepted(house.addr(), &connect)?.ping()
}

#[test]
fn a_bad_registry_changes_nothing_raises_an_alarm_and_is_forgiven() -> io::Result<()> {
    let mut house = site();
    let path = registry(&house);
    let good = std::fs::read(&path)?;
    let mut seven = client(house.addr(), 5, "7");
    for bad in [
        &b"version = 1\n[[terminals]]\nid = \"7\"\n"[..],
        b"",
        b"\xff",
    ] {
        std::fs::write(&path, bad)?;
        house.until("the alarm", || alarms(&house).is_some());
        seven.ping()?;
        client(house.addr(), 5, "8").ping()?;
        std::fs::write(&path, &good)?;
        house.until("no alarm", || alarms(&house).is_none());
    }
    // One that is gone is not an empty one.
    std::fs::remove_file(&path)?;
    house.until("the alarm", || alarms(&house).is_some());
    seven.ping()?;
    std::fs::write(&path, &good)?;
    house.until("no alarm", || alarms(&house).is_none());
    // At the start nobody would know the terminals.
    std::fs::write(&path, "version = 1\n[[terminals")?;
    let config = house.gateway().config();
    let told = Access::start(&config, None).unwrap_err().to_string();
    assert!(
        told.contains("terminals.toml") && told.contains("line 2"),
        "{told}"
    );
    std::fs::write(&path, &good)?;
    house.restart();
    client(house.addr(), 5, "7").ping()
}

#[test]
fn g9_the_first_use_of_a_next_token_ends_the_old_one_over_restarts() -> io::Result<()> {
    let mut house = site();
    let path = registry(&house);
    let next = "the-next-token-of-7";
    file::edit(&path, |r| {
        r.rotate("7", token::digest(next.as_bytes()), false)
    })
    .unwrap();
    let connect = |token: &str| Connect::persistent(5, "7").login(None, token);
    let old = token_of("7");
    house.until("the next token", || {
        let registry = house.broker().access().policy();
        let which = registry
            .registry()
            .which("7", &token::digest(next.as_bytes()));
        which == Some(Which::Next)
    });
    // Both, until the new one was used.
    Wire::accepted(house.addr(), &connect(&old))?.disconnect()?;
    house.restart();
    Wire::accepted(house.addr(), &connect(&old))?.disconnect()?;
    Wire::accepted(house.addr(), &connect(next))?.disconnect()?;
    for _ in 0..2 {
        assert_eq!(Wire::connect(house.addr(), &connect(&old))?.1.code, 0x86);
        Wire::accepted(house.addr(), &connect(next))?.disconnect()?;
        house.restart();
    }
    // The file can follow at leisure.
    file::edit(&path, |r| r.finish("7")).unwrap();
    house.restart();
    assert_eq!(Wire::connect(house.addr(), &connect(&old))?.1.code, 0x86);
    Wire::accepted(house.addr(), &connect(next))?.ping()
}

/// The rights of everybody before, in between, and afterwards.
fn narrow() -> Vec<Rule> {
    vec![
        rule("ops", false, true, "b/#"),
        rule("auditor", true, true, "#"),
    ]
}

#[test]
fn g9_subscriptions_end_with_their_right_and_what_they_queued_with_them() -> io::Result<()> {
    let mut house = House::with(|config| {
        identities(config);
        config.access.rules = narrow();
    });
    // By a reload, or by a start that finds other rules.
    for (version, restarts) in [(4, false), (5, false), (4, true), (5, true)] {
        let mut wide = narrow();
        wide.push(rule("ops", false, true, "a/#"));
        reload(&house, wide);
        let mut connect = lasting(version, "ops");
        connect.client_id = format!("stays-{version}-{restarts}");
        let mut live = client(house.addr(), version, "ops");
        let mut stays = Wire::accepted(house.addr(), &connect)?;
        for wire in [&mut live, &mut stays] {
            let filters = [("a/#", 1), ("b/#", 1), ("$share/g/a/+", 1)];
            assert_eq!(wire.subscribe(&filters)?, [1, 1, 1]);
        }
        stays.disconnect()?;
        let publish = |house: &House, n: u8| {
            let mut publishes = client(house.addr(), 5, "auditor");
            for topic in ["a", "b"] {
                publishes.publish(&Message::new(&format!("{topic}/{n}"), "x", 1))?;
            }
            publishes.disconnect()
        };
        publish(&house, 1)?;
        if restarts {
            house.restart();
        } else {
            reload(&house, narrow());
        }
        publish(&house, 2)?;
        if !restarts {
            let mut topics = Vec::new();
            while topics.last().map(String::as_str) != Some("b/2") {
                topics.push(live.take()?.topic);
            }
            // What was delivered before is no escape.
            assert!(!topics.contains(&"a/2".to_owned()), "{topics:?}");
            live.nothing_came()?;
            let refused = if version == 5 { 0x87 } else { 0x80 };
            assert_eq!(live.subscribe(&[("a/1", 1)])?, [refused]);
        }
        drop(live);
        let mut stays = Wire::accepted(house.addr(), &connect)?;
        assert_eq!(stays.take()?.topic, "b/1");
        assert_eq!(stays.take()?.topic, "b/2");
        stays.nothing_came()?;
        // The right comes back; what it had does not.
        let mut all = narrow();
        all.push(rule("ops", false, true, "#"));
        reload(&house, all);
        publish(&house, 3)?;
        assert_eq!(stays.take()?.topic, "b/3");
        stays.nothing_came()?;
        stays.disconnect()?;
    }
    Ok(())
}

#[test]
fn g9_a_will_is_not_published_once_its_right_has_ended() -> io::Result<()> {
    let house = site();
    let mut watches = client(house.addr(), 5, "auditor");
    watches.subscribe(&[("#", 1)])?;
    let with_will = |topic: &str, id: &str| {
        let will = Message::new(topic, "will", 1).with(property::WILL_DELAY, Value::Four(0));
        let connect = identified(Connect::clean(5, id).will(will), "ops");
        Wire::accepted(house.addr(), &connect).unwrap()
    };
    let first = with_will("cmd/ops/first", "first");
    let second = with_will("t/7/second", "second");
    reload(
        &house,
        vec![
            rule("ops", true, false, "t/7/#"),
            rule("auditor", true, true, "#"),
        ],
    );
    drop(first);
    house.until("it was told", || house.broker().connections() == 2);
    drop(second);
    assert_eq!(watches.take()?.topic, "t/7/second");
    watches.nothing_came()
}

#[test]
fn a_reload_can_close_the_door_and_open_it_again() -> io::Result<()> {
    let house = site();
    let mut nobody = client(house.addr(), 5, "");
    let mut ops = client(house.addr(), 5, "ops");
    let before = house.gateway().config();
    let mut closed = before.clone();
    closed.access.anonymous = risiti_config::Anonymous::None;
    closed.access.users.retain(|user| user.name != "ops");
    closed.access.rules.clear();
    house.gateway().reload(closed);
    for wire in [&mut nobody, &mut ops] {
        assert_eq!(wire.ended()?.map(|(code, _)| code), Some(0x98));
    }
    let addr = house.addr();
    let refused = |connect: &Connect| Wire::connect(addr, connect).map(|(_, ack)| ack.code);
    assert_eq!(refused(&Connect::clean(5, "x"))?, 0x87);
    assert_eq!(refused(&Connect::clean(4, "x"))?, 5);
    assert_eq!(refused(&identified(Connect::clean(5, "x"), "ops"))?, 0x86);
    assert_eq!(refused(&identified(Connect::clean(4, "x"), "ops"))?, 4);
    client(addr, 5, "7").ping()?;
    house.gateway().reload(before);
    client(addr, 5, "ops").ping()?;
    client(addr, 4, "").ping()
}

#[test]
fn without_the_table_all_is_as_ever_and_a_registered_id_is_safe() -> io::Result<()> {
    let house = House::with(|config| {
        crate::site::identities(config);
        config.access = risiti_config::Access::default();
    });
    for version in VERSIONS {
        let mut wire = house.clean(version, "anybody")?;
        assert_eq!(wire.subscribe(&[("#", 1)])?, [1]);
        wire.publish(&Message::new("x", "y", 1))?;
        assert_eq!(wire.take()?.topic, "x");
        // Whatever it shows.
        let shows = Connect::clean(version, "shows").login(Some("x"), "y");
        Wire::accepted(house.addr(), &shows)?.ping()?;
        let (_, ack) = Wire::connect(house.addr(), &Connect::clean(version, "7"))?;
        assert_eq!(ack.code, if version == 5 { 0x86 } else { 4 });
        client(house.addr(), version, "7").ping()?;
    }
    Ok(())
}
