//! Who gets in: every client identifier with every user name and every token.

use std::io;
use std::sync::atomic::Ordering;

use risiti_gateway::access::Hole;
use risiti_gateway::gateway::Switches;
use risiti_tests::wire_client::{ConnAck, Connect, Packet, Wire};

use crate::house::{House, VERSIONS};
use crate::matrix::Findings;
use crate::site::{TERMINALS, USERS, client, identified, lasting, site, site_with, token_of};

const CLIENT_IDS: [&str; 7] = ["7", "8", "9", "ops", "free", "t/7", ""];
const USERNAMES: [Option<&str>; 7] = [
    None,
    Some("7"),
    Some("8"),
    Some("9"),
    Some("ops"),
    Some("nobody"),
    Some(""),
];

/// Whether they let in, and as whom.
fn lets_in(client_id: &str, username: Option<&str>, password: Option<&str>) -> bool {
    let name = username.unwrap_or(client_id);
    let is_token = password.is_some_and(|shown| shown == token_of(name));
    let of_terminal = TERMINALS.contains(&client_id);
    match (username, password) {
        // Nobody, where that is enough, but never as a terminal.
        (None, None) => !of_terminal,
        _ if TERMINALS.contains(&name) => is_token && name != "9" && client_id == name,
        _ if USERS.contains(&name) => is_token && username.is_some() && !of_terminal,
        _ => false,
    }
}

fn every_login(house: &House, findings: &mut Findings) -> io::Result<()> {
    let mut passwords: Vec<Option<String>> = vec![None, Some(String::new()), Some("wrong".into())];
    for name in TERMINALS.iter().chain(&USERS) {
        passwords.push(Some(token_of(name)));
    }
    for version in VERSIONS {
        for client_id in CLIENT_IDS {
            for username in USERNAMES {
                for password in &passwords {
                    if version == 4 && username.is_none() && password.is_some() {
                        continue; // MQTT-3.1.2-22
                    }
                    // Nobody has to wait for what another guess cost.
                    house.clock.as_ref().unwrap().advance_ms(600_000);
                    let mut connect = Connect::clean(version, client_id);
                    connect.username = username.map(Into::into);
                    connect.password = password.as_ref().map(|p| p.clone().into());
                    let (wire, ack) = Wire::connect(house.addr(), &connect)?;
                    let may = lets_in(client_id, username, password.as_deref());
                    findings.note(may, ack.code == 0, || {
                        format!("v{version} {client_id:?} {username:?} {password:?}: {ack:?}")
                    });
                    if ack.code == 0 {
                        wire.disconnect()?;
                    } else {
                        let codes: &[u8] = if version == 5 {
                            &[0x85, 0x86, 0x87]
                        } else {
                            &[2, 4, 5]
                        };
                        assert!(codes.contains(&ack.code), "{ack:?}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn g9_nobody_gets_in_but_by_a_token_of_its_own() {
    let mut findings = Findings::default();
    every_login(&site_with(|_| {}), &mut findings).unwrap();
    assert!(findings.looked_at > 500, "only {}", findings.looked_at);
    assert!(findings.escapes.is_empty(), "{:#?}", findings.escapes);
    assert!(findings.refusals.is_empty(), "{:#?}", findings.refusals);
}

#[test]
fn control_g9_a_gateway_that_checks_no_token_or_no_client_identifier_is_convicted() {
    let switches: [fn(&mut Switches); 2] = [
        |s| s.access_hole = Some(Hole::Login),
        |s| s.access_hole = Some(Hole::ClientId),
    ];
    for switch in switches {
        let mut findings = Findings::default();
        every_login(&site_with(switch), &mut findings).unwrap();
        assert!(!findings.escapes.is_empty());
    }
}

fn refused(house: &House, connect: &Connect) -> ConnAck {
    let (_, ack) = Wire::connect(house.addr(), connect).unwrap();
    assert_ne!(ack.code, 0, "{connect:?}");
    ack
}

/// A terminal connects as its firmware does: a password and no user name (5.0).
#[test]
fn a_terminal_is_known_by_its_client_identifier_and_its_password() -> io::Result<()> {
    let house = site();
    let connect = Connect::clean(5, "7").login(None, token_of("7"));
    let mut wire = Wire::accepted(house.addr(), &connect)?;
    assert_eq!(wire.subscribe(&[("t/7/receipts", 1)])?, [1]);
    assert_eq!(wire.subscribe(&[("t/8/receipts", 1)])?, [0x87]);
    Ok(())
}

#[test]
fn g9_a_session_is_its_owners_over_restarts_and_nobody_else_takes_it_over() -> io::Result<()> {
    let mut house = site();
    for version in VERSIONS {
        let id = format!("shared-{version}");
        let of = |name: &str| {
            let mut connect = identified(Connect::persistent(version, &id), name);
            connect.client_id = id.clone();
            connect
        };
        // What nobody left is taken by who shows who it is.
        Wire::accepted(house.addr(), &of(""))?.disconnect()?;
        let (wire, ack) = Wire::connect(house.addr(), &of("ops"))?;
        assert_eq!((ack.code, ack.session_present), (0, false));
        let mut wire = wire;
        let foreign = if version == 5 { 0x85 } else { 2 };
        for other in ["", "idle", "auditor"] {
            assert_eq!(refused(&house, &of(other)).code, foreign);
        }
        wire.ping()?;
        wire.disconnect()?;
        for restarts in [false, true] {
            if restarts {
                house.restart();
            }
            for other in ["", "idle", "auditor"] {
                assert_eq!(refused(&house, &of(other)).code, foreign);
            }
            let (wire, ack) = Wire::connect(house.addr(), &of("ops"))?;
            assert_eq!((ack.code, ack.session_present), (0, true));
            wire.disconnect()?;
        }
    }
    Ok(())
}

#[test]
fn who_guesses_waits_and_a_terminal_that_shares_the_address_does_not() -> io::Result<()> {
    let house = site_with(|_| {});
    let addr = house.addr();
    let guess = |name: &str| {
        let mut connect = identified(Connect::clean(5, name), name);
        connect.password = Some(b"guessed".to_vec());
        refused(&house, &connect).code
    };
    for name in ["ops", "7"] {
        let codes: Vec<u8> = (0..6).map(|_| guess(name)).collect();
        assert_eq!(codes, [0x86, 0x86, 0x86, 0x86, 0x9f, 0x9f], "{name}");
    }
    // The right token does not tell that it is the right one.
    let right = identified(Connect::clean(5, "right"), "ops");
    assert_eq!(refused(&house, &right).code, 0x9f);
    client(addr, 5, "7").ping()?;
    client(addr, 5, "idle").ping()?;
    let metrics = &house.broker().access().metrics;
    assert_eq!(metrics.too_soon.load(Ordering::Relaxed), 5);
    house.clock.as_ref().unwrap().advance_ms(60_000);
    Wire::accepted(addr, &right)?.ping()
}

#[test]
fn a_terminal_that_comes_again_takes_its_own_session_over() -> io::Result<()> {
    let house = site();
    for version in VERSIONS {
        let mut first = Wire::accepted(house.addr(), &lasting(version, "7"))?;
        first.ping()?;
        let (mut second, ack) = Wire::connect(house.addr(), &lasting(version, "7"))?;
        assert_eq!((ack.code, ack.session_present), (0, true));
        let said = first.ended()?;
        if version == 5 {
            assert_eq!(said.map(|(code, _)| code), Some(0x8e));
        }
        second.send_raw(&[0xC0, 0])?;
        assert_eq!(second.recv()?, Packet::PingResp);
        second.disconnect()?;
        // A clean start for the next version.
        Wire::accepted(house.addr(), &identified(Connect::clean(version, "7"), "7"))?
            .disconnect()?;
    }
    Ok(())
}
