//! One connection, as the core that decides: what may leave, what is awaited and
//! until when.
#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_terminal::limits::{ANSWER_MS, PIPELINE_MAX, TRANSMIT_BYTES_MAX};
use risiti_terminal::mqtt::client::{Record, TimedOut, packet_id};
use risiti_terminal::mqtt::transmit::Connect;
use risiti_terminal::mqtt::{Client, Event, Fault, Reason, Refusal, Transmit};
use risiti_terminal::settings::Settings;

const KEEP_ALIVE_S: u16 = 120;
/// Three quarters of it.
const QUIET_MS: u64 = 90_000;

const BIRTH: [u8; 2] = 65_534_u16.to_be_bytes();
const SUBSCRIBE: [u8; 2] = 65_535_u16.to_be_bytes();

fn settings() -> Settings<'static> {
    Settings {
        id: "abc",
        ..Settings::default()
    }
}

const fn record(sequence: u32) -> Record<'static> {
    Record {
        sequence,
        dup: false,
        more: false,
        payload: b"record",
    }
}

/// A client, the buffer that it writes to, and what it knows.
struct Peer {
    client: Client,
    to: Transmit,
}

impl Peer {
    /// One whose CONNECT left at this time.
    fn connecting(now_ms: u64, keep_alive_s: u16) -> Self {
        let mut peer = Self {
            client: Client::new(u16::MAX),
            to: Transmit::new(),
        };
        let connect = Connect {
            id: "abc",
            token: &[],
            session_expiry_s: 1,
            keep_alive_s,
            packet_bytes_max: 384,
            topic_alias_maximum: 0,
            will: None,
        };
        peer.client.connect(now_ms, &connect, &mut peer.to).unwrap();
        peer.leaves(now_ms);
        peer
    }

    /// One whose CONNACK, with these properties, came at time 0.
    fn accepted(keep_alive_s: u16, properties: &[u8]) -> Self {
        let mut peer = Self::connecting(0, keep_alive_s);
        let accepted = Event::Accepted {
            session_present: false,
        };
        assert_eq!(peer.hears(0, connack(properties)), Ok(accepted));
        peer
    }

    fn hears(&mut self, now_ms: u64, packet: &'static [u8]) -> Result<Event<'static>, Fault> {
        self.client.handle(now_ms, &settings(), packet)
    }

    fn publishes(&mut self, now_ms: u64, record: &Record<'_>) -> Result<(), Refusal> {
        self.client
            .record(now_ms, &settings(), record, &mut self.to)
    }

    fn reports(&mut self, now_ms: u64) -> Result<(), Refusal> {
        self.client.report(now_ms, &settings(), b"on", &mut self.to)
    }

    /// The buffer is sent; what was in it.
    fn leaves(&mut self, now_ms: u64) -> Vec<u8> {
        let bytes = self.to.bytes().to_vec();
        assert_eq!(self.to.is_empty(), bytes.is_empty());
        self.to.clear();
        assert!(self.to.is_empty() && self.to.room() == TRANSMIT_BYTES_MAX);
        self.client.sent(now_ms);
        bytes
    }

    fn is_due(&mut self, now_ms: u64) -> Result<(), TimedOut> {
        self.client.handle_timeout(now_ms, &mut self.to)
    }

    /// Nothing happens before this time, and then the connection is given up.
    #[track_caller]
    fn gives_up_at(&mut self, due_ms: u64) {
        assert_eq!(self.client.poll_timeout(), Some(due_ms));
        assert_eq!(self.is_due(due_ms - 1), Ok(()));
        assert!(self.to.is_empty());
        assert_eq!(self.is_due(due_ms), Err(TimedOut));
    }
}

fn connack(properties: &[u8]) -> &'static [u8] {
    let len = properties.len() as u8;
    let mut packet = vec![0x20, 3 + len, 0, 0, len];
    packet.extend_from_slice(properties);
    packet.leak()
}

/// PUBACK of what has this identifier.
fn puback(id: impl Into<u16>) -> &'static [u8] {
    let [high, low] = id.into().to_be_bytes();
    vec![0x40, 2, high, low].leak()
}

fn suback([high, low]: [u8; 2]) -> &'static [u8] {
    vec![0x90, 4, high, low, 0, 1].leak()
}

const PONG: &[u8] = &[0xd0, 0];

#[test]
fn an_identifier_follows_from_the_number_and_is_never_one_of_the_others() {
    for (sequence, id) in [
        (0, 1),
        (1, 2),
        (64_999, 65_000),
        (65_000, 1),
        (65_001, 2),
        (130_000, 1),
        (u32::MAX, 27_296),
    ] {
        assert_eq!(packet_id(sequence), id, "{sequence}");
    }
}

#[test]
fn records_and_the_birth_message_share_the_window() {
    // A receive maximum of 2.
    let mut peer = Peer::accepted(0, &[0x21, 0, 2]);
    assert_eq!(peer.client.window(), 2);
    assert_eq!(peer.publishes(1, &record(1)), Ok(()));
    assert_eq!(peer.client.in_flight(), 1);
    assert_eq!(peer.publishes(1, &record(2)), Ok(()));
    assert_eq!(peer.client.in_flight(), 2);
    assert_eq!(peer.reports(1), Err(Refusal::Window));
    assert_eq!(peer.publishes(1, &record(3)), Err(Refusal::Window));
    let acknowledged = Event::Acknowledged {
        sequence: 1,
        reason: Reason::SUCCESS,
    };
    assert_eq!(peer.hears(2, puback(packet_id(1))), Ok(acknowledged));
    assert_eq!(peer.client.in_flight(), 1);
    assert_eq!(peer.reports(3), Ok(()));
    assert_eq!(peer.publishes(3, &record(3)), Err(Refusal::Window));
    // Without one the window is ours.
    assert_eq!(
        usize::from(Peer::accepted(0, &[]).client.window()),
        PIPELINE_MAX
    );
}

#[test]
fn two_records_with_one_identifier_are_never_in_flight() {
    let mut peer = Peer::accepted(0, &[]);
    assert_eq!(peer.publishes(1, &record(7)), Ok(()));
    assert_eq!(peer.publishes(1, &record(65_007)), Err(Refusal::Window));
    assert_eq!(peer.publishes(1, &record(8)), Ok(()));
}

#[test]
fn an_alias_is_defined_once_by_the_first_record_that_others_follow() {
    let mut peer = Peer::accepted(0, &[0x22, 0, 1]);
    peer.leaves(0);
    let more = |sequence| Record {
        more: true,
        ..record(sequence)
    };
    // The length of the topic, and behind topic and identifier the properties.
    let topic_and_properties = |bytes: &[u8]| {
        let topic = usize::from(bytes[3]);
        (topic, bytes[6 + topic] as usize)
    };
    let name = "t/abc/records".len();
    for (one, expected) in [
        (record(1), (name, 0)),
        (more(2), (name, 3)),
        (more(3), (0, 3)),
        (record(4), (0, 3)),
    ] {
        peer.publishes(1, &one).unwrap();
        let bytes = peer.leaves(1);
        assert_eq!(topic_and_properties(&bytes), expected, "{}", one.sequence);
    }
}

#[test]
fn what_is_larger_than_the_server_takes_does_not_leave() {
    // 10 bytes around topic and payload, at most.
    let bytes = 10 + "t/abc/records".len() + record(1).payload.len();
    for (bytes_max, leaves) in [(bytes + 1, true), (bytes, true), (bytes - 1, false)] {
        let mut peer = Peer::accepted(0, &[0x27, 0, 0, 0, bytes_max as u8]);
        let expected = if leaves {
            Ok(())
        } else {
            Err(Refusal::TooLarge)
        };
        assert_eq!(peer.publishes(1, &record(1)), expected, "{bytes_max}");
        assert_eq!(peer.to.is_empty(), !leaves);
    }
}

#[test]
fn a_full_buffer_is_to_be_sent_and_one_that_is_too_small_never_will_do() {
    let payload = [0; TRANSMIT_BYTES_MAX];
    let large = Record {
        payload: &payload,
        ..record(2)
    };
    let mut peer = Peer::accepted(0, &[]);
    assert_eq!(peer.publishes(1, &large), Err(Refusal::TooLarge));
    assert_eq!(peer.publishes(1, &record(1)), Ok(()));
    assert_eq!(peer.publishes(1, &large), Err(Refusal::Room));
    assert_eq!(peer.client.in_flight(), 1);
}

#[test]
fn an_answer_to_nothing_means_nothing() {
    let mut peer = Peer::accepted(0, &[]);
    assert_eq!(peer.hears(1, suback(SUBSCRIBE)), Ok(Event::None));
    assert_eq!(
        peer.hears(1, puback(u16::from_be_bytes(BIRTH))),
        Ok(Event::None)
    );
    assert_eq!(peer.hears(1, puback(packet_id(5))), Ok(Event::None));
    let (client, to) = (&mut peer.client, &mut peer.to);
    client.subscribe(2, &settings(), to).unwrap();
    peer.reports(2).unwrap();
    peer.publishes(2, &record(5)).unwrap();
    // An answer to one is none to another.
    assert_eq!(peer.hears(3, suback(BIRTH)), Ok(Event::None));
    assert_eq!(peer.hears(3, puback(packet_id(6))), Ok(Event::None));
    assert!(peer.client.awaits_answer());
    let acknowledged = Event::Acknowledged {
        sequence: 5,
        reason: Reason::SUCCESS,
    };
    assert_eq!(peer.hears(3, puback(packet_id(5))), Ok(acknowledged));
    assert!(peer.client.awaits_answer());
    let reported = Event::Reported(Reason::SUCCESS);
    assert_eq!(
        peer.hears(3, puback(u16::from_be_bytes(BIRTH))),
        Ok(reported)
    );
    assert!(peer.client.awaits_answer());
    assert_eq!(
        peer.hears(3, suback(SUBSCRIBE)),
        Ok(Event::Subscribed(Reason(1)))
    );
    assert!(!peer.client.awaits_answer());
}

#[test]
fn what_a_server_keeps_is_known_once_it_has_told() {
    assert!(Peer::connecting(0, 0).client.takes_retain());
    assert!(Peer::accepted(0, &[]).client.takes_retain());
    assert!(Peer::accepted(0, &[0x25, 1]).client.takes_retain());
    assert!(!Peer::accepted(0, &[0x25, 0]).client.takes_retain());
}

#[test]
fn connack_is_awaited_so_long_whatever_leaves_behind_connect() {
    let mut peer = Peer::connecting(1_000, KEEP_ALIVE_S);
    peer.publishes(5_000, &record(1)).unwrap();
    peer.leaves(5_000);
    peer.gives_up_at(1_000 + ANSWER_MS);
}

#[test]
fn an_answers_time_begins_with_the_first_that_is_owed_and_with_each_that_came() {
    let mut peer = Peer::accepted(0, &[]);
    assert_eq!(peer.client.poll_timeout(), None, "nothing is owed");
    for (sequence, now_ms) in [(1, 50_000), (2, 55_000)] {
        peer.publishes(now_ms, &record(sequence)).unwrap();
        peer.leaves(now_ms);
    }
    assert_eq!(peer.client.poll_timeout(), Some(50_000 + ANSWER_MS));
    peer.hears(60_000, puback(packet_id(1))).unwrap();
    peer.gives_up_at(60_000 + ANSWER_MS);
    // So with the others.
    for owe in [Peer::reports, |peer: &mut Peer, now_ms| {
        let subscribed = peer.client.subscribe(now_ms, &settings(), &mut peer.to);
        subscribed.map_err(|_| Refusal::Room)
    }] {
        let mut peer = Peer::accepted(0, &[]);
        owe(&mut peer, 70_000).unwrap();
        peer.leaves(70_000);
        peer.gives_up_at(70_000 + ANSWER_MS);
    }
}

#[test]
fn a_quiet_connection_is_pinged_and_given_up_without_an_answer() {
    let mut peer = Peer::accepted(KEEP_ALIVE_S, &[]);
    for now_ms in [QUIET_MS, 2 * QUIET_MS] {
        assert_eq!(peer.client.poll_timeout(), Some(now_ms));
        assert_eq!(peer.is_due(now_ms - 1), Ok(()));
        assert!(peer.to.is_empty());
        assert_eq!(peer.is_due(now_ms), Ok(()));
        assert_eq!(peer.leaves(now_ms), [0xc0, 0]);
        // Not again before the answer.
        assert_eq!(peer.client.poll_timeout(), Some(now_ms + ANSWER_MS));
        peer.hears(now_ms, PONG).unwrap();
    }
    let now_ms = 3 * QUIET_MS;
    assert_eq!(peer.is_due(now_ms), Ok(()));
    peer.leaves(now_ms);
    // What leaves meanwhile gives it no more time.
    peer.publishes(now_ms + 5_000, &record(1)).unwrap();
    peer.leaves(now_ms + 5_000);
    peer.gives_up_at(now_ms + ANSWER_MS);
}

#[test]
fn a_ping_gives_what_is_owed_no_more_time() {
    // The server asks for a sign of life each 4 s.
    let mut peer = Peer::accepted(KEEP_ALIVE_S, &[0x13, 0, 4]);
    peer.publishes(100, &record(1)).unwrap();
    peer.leaves(100);
    let mut now_ms = 100;
    while now_ms + 3_000 < 100 + ANSWER_MS {
        now_ms += 3_000;
        assert_eq!(peer.client.poll_timeout(), Some(now_ms));
        assert_eq!(peer.is_due(now_ms), Ok(()));
        assert_eq!(peer.leaves(now_ms), [0xc0, 0]);
        peer.hears(now_ms, PONG).unwrap();
    }
    assert_eq!(peer.is_due(100 + ANSWER_MS), Err(TimedOut));
}

#[test]
fn without_keep_alive_nothing_is_pinged() {
    for mut peer in [
        Peer::accepted(0, &[]),
        Peer::accepted(KEEP_ALIVE_S, &[0x13, 0, 0]),
    ] {
        assert_eq!(peer.client.poll_timeout(), None);
        assert_eq!(peer.is_due(u64::MAX), Ok(()));
        assert!(peer.to.is_empty());
    }
}
