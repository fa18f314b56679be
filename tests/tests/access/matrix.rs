//! Identity × topic × verb × wildcard × version × share, against a real gateway:
//! nothing is done that the oracle does not allow, and nothing refused that it does.

use std::collections::HashMap;
use std::io;

use risiti_gateway::access::Hole;
use risiti_gateway::gateway::Switches;
use risiti_tests::samples;
use risiti_tests::wire_client::{Connect, Message, Packet, Value, Wire, property};
use risiti_wire::{Account, Currency, Payment, RecordBody};

use crate::house::{House, VERSIONS};
use crate::oracle::{IDENTITIES, Identity, TOPICS, filters, may_subscribe};
use crate::site::{client, identified, site, site_with};

/// Filters asked for in one packet: below the bound of a session's subscriptions.
const AT_ONCE: usize = 32;

/// What was found: too much, too little, and how much was looked at.
#[derive(Debug, Default)]
pub struct Findings {
    pub escapes: Vec<String>,
    pub refusals: Vec<String>,
    pub looked_at: usize,
}

impl Findings {
    pub fn note(&mut self, may: bool, done: bool, what: impl FnOnce() -> String) {
        self.looked_at += 1;
        match (may, done) {
            (false, true) => self.escapes.push(what()),
            (true, false) => self.refusals.push(what()),
            _ => {}
        }
    }

    fn clean(&self) {
        let (escapes, refusals) = (self.escapes.len(), self.refusals.len());
        println!(
            "{} cases, {escapes} escapes, {refusals} refused wrongly",
            self.looked_at
        );
        assert!(self.escapes.is_empty(), "escapes: {:#?}", self.escapes);
        assert!(self.refusals.is_empty(), "refused: {:#?}", self.refusals);
    }
}

/// Valid records, each with a number of its own; anything elsewhere.
fn payload(topic: &str, n: &mut u64) -> Vec<u8> {
    *n += 1;
    if !topic.ends_with("/records") {
        return format!("message {n}").into_bytes();
    }
    let payment = Payment {
        time_s: 1_700_000_000,
        account: Account::new("123456789012").unwrap(),
        amount_minor: 500,
        currency: Currency::NONE,
        reference: None,
    };
    samples::record(*n, RecordBody::Payment(payment))
}

/// Publishes in every way as everybody; the auditor sees what came of it.
fn publishing(house: &House, findings: &mut Findings) -> io::Result<()> {
    let mut n = 0;
    let mut watcher = Wire::accepted(
        house.addr(),
        &identified(Connect::clean(5, "watches"), "auditor"),
    )?;
    assert_eq!(watcher.subscribe(&[("#", 1)])?, [1]);
    let mut rings = Wire::accepted(
        house.addr(),
        &identified(Connect::clean(5, "rings"), "auditor"),
    )?;
    for version in VERSIONS {
        for identity in &IDENTITIES {
            let mut sent: HashMap<Vec<u8>, (bool, String)> = HashMap::new();
            let aliased: &[bool] = if version == 5 {
                &[false, true]
            } else {
                &[false]
            };
            let mut wire = client(house.addr(), version, identity.name);
            for topic in TOPICS {
                for qos in 0..=2 {
                    for &aliased in aliased {
                        let may = identity.may_publish(topic);
                        let mut message = Message::new(topic, payload(topic, &mut n), qos).id(7);
                        if aliased {
                            // Defined by a message that is allowed or not, used by
                            // one that names no topic.
                            let alias = Value::Two(1);
                            let define = message.clone().with(property::TOPIC_ALIAS, alias.clone());
                            send(&mut wire, &define)?;
                            sent.insert(define.payload, (may, format!("{topic} defining")));
                            message.payload = payload(topic, &mut n);
                            message = message.with(property::TOPIC_ALIAS, alias);
                            message.topic = String::new();
                        }
                        let what = || {
                            format!(
                                "{} v{version} publishes {topic} QoS {qos} alias {aliased}",
                                identity.name
                            )
                        };
                        let answer = send(&mut wire, &message)?;
                        if qos > 0 {
                            findings.note(may, answer, what);
                        }
                        if !answer && version == 4 && qos > 0 {
                            // 3.1.1 can say no in one way only.
                            wire = client(house.addr(), version, identity.name);
                        }
                        sent.insert(message.payload, (may, what()));
                    }
                }
            }
            wire.disconnect()?;
            // What was taken reaches the watcher before what goes through the journal
            // now.
            let bell = Message::new("records/bell", format!("{version}{}", identity.name), 1);
            rings.publish(&bell)?;
            let mut seen = Vec::new();
            loop {
                let message = watcher.take()?;
                if message.topic == bell.topic && message.payload == bell.payload {
                    break;
                }
                seen.push(message.payload);
            }
            for (payload, (may, what)) in sent {
                findings.note(may, seen.contains(&payload), || format!("seen: {what}"));
            }
        }
    }
    Ok(())
}

/// Publishes; whether the gateway took it, as far as it says.
fn send(wire: &mut Wire, message: &Message) -> io::Result<bool> {
    wire.send_publish(message)?;
    match message.qos {
        0 => wire.ping().map(|()| true),
        _ => match wire.recv_within(risiti_tests::wire_client::PATIENCE)? {
            None => Ok(false),
            Some(Packet::PubAck(7, code)) => Ok(code < 0x80),
            Some(Packet::PubRec(7, code)) if code >= 0x80 => Ok(false),
            Some(Packet::PubRec(7, _)) => {
                wire.pubrel(7)?;
                match wire.recv()? {
                    Packet::PubComp(7, 0) => Ok(true),
                    other => panic!("PUBCOMP expected, came: {other:?}"),
                }
            }
            Some(other) => panic!("an answer expected, came: {other:?}"),
        },
    }
}

/// Has wills on every topic.
fn wills(house: &House, findings: &mut Findings) -> io::Result<()> {
    for version in VERSIONS {
        for identity in &IDENTITIES {
            for topic in TOPICS {
                if topic.starts_with('$') && version == 4 {
                    continue; // 3.1.1 has no word for that refusal
                }
                let connect = Connect::clean(version, &format!("dies-{version}"))
                    .will(Message::new(topic, "will", 1));
                let connect = identified(connect, identity.name);
                let (wire, ack) = Wire::connect(house.addr(), &connect)?;
                let may = identity.may_publish(topic);
                findings.note(may, ack.code == 0, || {
                    format!("{} v{version} has a will on {topic}", identity.name)
                });
                if ack.code == 0 {
                    wire.disconnect()?;
                }
            }
        }
    }
    Ok(())
}

/// Subscribes to every filter in every way; on each topic a message is retained.
fn subscribing(house: &House, findings: &mut Findings) -> io::Result<()> {
    let auditor = IDENTITIES.iter().find(|i| i.name == "auditor").unwrap();
    let mut retains = Wire::accepted(
        house.addr(),
        &identified(Connect::clean(5, "retains"), "auditor"),
    )?;
    for topic in TOPICS {
        if auditor.may_publish(topic) {
            retains.publish(&Message::new(topic, "retained", 1).retained())?;
        }
    }
    let filters = filters();
    assert!(filters.len() > 120);
    for (shared, prefix) in [(false, ""), (true, "$share/g/")] {
        for chunk in filters.chunks(AT_ONCE) {
            let asked: Vec<_> = chunk.iter().map(|f| format!("{prefix}{f}")).collect();
            let may: Vec<_> = chunk.iter().map(|f| may_subscribe(f, shared)).collect();
            for version in VERSIONS {
                for (index, identity) in IDENTITIES.iter().enumerate() {
                    let mut wire = client(house.addr(), version, identity.name);
                    let options: Vec<_> = asked.iter().map(|f| (f.as_str(), 1)).collect();
                    let codes = wire.subscribe(&options)?;
                    for ((filter, may), code) in asked.iter().zip(&may).zip(codes) {
                        assert!(
                            code <= 1 || code == if version == 5 { 0x87 } else { 0x80 },
                            "{filter} {code}"
                        );
                        findings.note(may[index], code <= 1, || {
                            format!("{} v{version} subscribes to {filter}", identity.name)
                        });
                    }
                    delivered(&mut wire, &mut retains, identity, findings)?;
                    wire.disconnect()?;
                }
            }
        }
    }
    Ok(())
}

/// Takes what is retained and what is published now: none of it may be another's.
fn delivered(
    wire: &mut Wire,
    publishes: &mut Wire,
    identity: &Identity,
    findings: &mut Findings,
) -> io::Result<()> {
    for topic in ["t/8/status", "news/7/a", "cmd/ops/x", "public/talk"] {
        publishes.publish(&Message::new(topic, "live", 1))?;
    }
    wire.send_raw(&[0xC0, 0])?;
    let mut last = false;
    loop {
        match wire.recv()? {
            Packet::Publish(message) => {
                findings.note(identity.may_receive(&message.topic), true, || {
                    format!("{} is given {}", identity.name, message.topic)
                });
                wire.acknowledge(&message)?;
            }
            // What was on its way when the first was answered.
            Packet::PingResp if !last => {
                last = true;
                wire.send_raw(&[0xC0, 0])?;
            }
            Packet::PingResp => return Ok(()),
            other => panic!("a message expected, came: {other:?}"),
        }
    }
}

fn all(house: &House) -> Findings {
    let mut findings = Findings::default();
    publishing(house, &mut findings).unwrap();
    wills(house, &mut findings).unwrap();
    subscribing(house, &mut findings).unwrap();
    findings
}

#[test]
fn g9_no_identity_reaches_a_topic_beyond_its_rights() {
    let findings = all(&site());
    assert!(
        findings.looked_at > 5_000,
        "only {} cases",
        findings.looked_at
    );
    findings.clean();
}

/// Each check that is left out is found by what then escapes.
#[test]
fn control_g9_a_gateway_with_any_check_left_out_is_convicted() {
    type Part = fn(&House, &mut Findings) -> io::Result<()>;
    type Switch = fn(&mut Switches);
    let cases: [(Hole, Switch, Part); 5] = [
        (
            Hole::Publish,
            |s| s.access_hole = Some(Hole::Publish),
            publishing,
        ),
        (Hole::Will, |s| s.access_hole = Some(Hole::Will), wills),
        (
            Hole::Wildcard,
            |s| s.access_hole = Some(Hole::Wildcard),
            subscribing,
        ),
        (
            Hole::Share,
            |s| s.access_hole = Some(Hole::Share),
            subscribing,
        ),
        (Hole::Id, |s| s.access_hole = Some(Hole::Id), subscribing),
    ];
    for (hole, switch, part) in cases {
        let mut findings = Findings::default();
        part(&site_with(switch), &mut findings).unwrap();
        assert!(!findings.escapes.is_empty(), "{hole:?} was not found");
    }
}
