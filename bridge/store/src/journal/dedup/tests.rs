//! What a client's state knows, and how it is kept.

use super::*;
use bytes::Bytes;

fn numbered(sequence: u64, dup: bool) -> NewRecord {
    record(Identity::Sequence {
        sequence,
        dup,
        resend_mark: false,
    })
}

fn packet(packet_id: u16, dup: bool, payload: &'static str) -> NewRecord {
    NewRecord {
        payload: Bytes::from_static(payload.as_bytes()),
        ..record(Identity::Packet { packet_id, dup })
    }
}

fn record(identity: Identity) -> NewRecord {
    NewRecord {
        received_ms: 0,
        client_id: Bytes::from_static(b"t1"),
        topic: Bytes::from_static(b"t/t1/records"),
        identity,
        properties: Bytes::new(),
        payload: Bytes::from_static(b"p"),
    }
}

#[test]
fn in_the_window_a_number_is_known_exactly() {
    let mut client = ClientState::default();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut oracle = std::collections::HashSet::new();
    let mut highest = 0;
    for _ in 0..20_000 {
        let sequence = (highest + 3_u64).saturating_sub(rng.u64(0..200)).max(1);
        let expected = if oracle.contains(&sequence) {
            Verdict::Duplicate
        } else {
            Verdict::New
        };
        assert_eq!(client.judge(&numbered(sequence, rng.bool())), expected);
        client.learn(&numbered(sequence, false));
        oracle.insert(sequence);
        highest = highest.max(sequence);
    }
}

#[test]
fn a_reset_terminal_is_not_swallowed_and_still_deduplicated() {
    let mut client = ClientState::default();
    client.learn(&numbered(10_000, false));
    assert_eq!(client.judge(&numbered(1, true)), Verdict::Duplicate);
    assert_eq!(client.judge(&numbered(1, false)), Verdict::NewBelowWindow);
    client.learn(&numbered(1, false));
    assert_eq!(client.judge(&numbered(1, false)), Verdict::Duplicate);
    assert_eq!(client.judge(&numbered(2, true)), Verdict::NewBelowWindow);
    assert_eq!(client.judge(&numbered(10_000, false)), Verdict::Duplicate);
    assert_eq!(client.judge(&numbered(10_001, true)), Verdict::New);
}

#[test]
fn an_end_to_end_resend_always_passes() {
    let mut client = ClientState::default();
    client.learn(&numbered(5, false));
    let resend = record(Identity::Sequence {
        sequence: 5,
        dup: true,
        resend_mark: true,
    });
    assert_eq!(client.judge(&resend), Verdict::New);
}

#[test]
fn a_plain_resend_needs_dup_identifier_and_content() {
    let mut client = ClientState::default();
    client.learn(&packet(1, false, "a"));
    assert_eq!(client.judge(&packet(1, true, "a")), Verdict::Duplicate);
    assert_eq!(client.judge(&packet(1, false, "a")), Verdict::New);
    assert_eq!(client.judge(&packet(1, true, "b")), Verdict::New);
    assert_eq!(client.judge(&packet(2, true, "a")), Verdict::New);
    client.learn(&packet(1, false, "b"));
    assert_eq!(client.judge(&packet(1, true, "a")), Verdict::New);
    client.forget_packets();
    assert_eq!(client.judge(&packet(1, true, "b")), Verdict::New);
}

#[test]
fn a_state_comes_back_as_it_was_and_learning_twice_changes_nothing() {
    let mut client = ClientState::default();
    client.learn(&numbered(10_000, false));
    client.learn(&numbered(9_990, false));
    client.learn(&numbered(3, false));
    for id in 1..=2_000 {
        client.learn(&packet(id, false, "x"));
    }
    assert_eq!(client.packets(), PACKETS_MAX);
    let back = ClientState::decode(&client.encode()).unwrap();
    assert_eq!(back, client);
    client.learn(&numbered(9_990, false));
    client.learn(&packet(2_000, false, "x"));
    assert_eq!(back, client);
}

#[test]
fn a_state_is_kept_in_the_bytes_of_its_format() {
    let mut client = ClientState::default();
    assert_eq!(client.encode(), [1, 0, 0, 0]);
    client.learn(&numbered(600, false));
    client.learn(&numbered(599, false));
    client.learn(&numbered(600 - 255, false));
    client.learn(&numbered(7, false));
    client.learn(&packet(0x1234, false, "x"));
    let mut expected = vec![1, 2];
    let mut put = |words: &[u64]| {
        words
            .iter()
            .for_each(|word| expected.extend(word.to_be_bytes()));
    };
    put(&[600, 0b11, 0, 0, 1 << 63]);
    put(&[7, 1, 0, 0, 0]);
    expected.extend([0, 1, 0x12, 0x34]);
    let digest = digest(&packet(0x1234, false, "x"));
    assert!(digest < 1 << 48);
    expected.extend(&digest.to_be_bytes()[2..]);
    assert_eq!(client.encode(), expected);
    assert_eq!(ClientState::decode(&expected), Some(client));
}

#[test]
fn what_is_not_a_whole_state_is_refused() {
    let mut client = ClientState::default();
    client.learn(&numbered(600, false));
    client.learn(&numbered(7, false));
    client.learn(&packet(1, false, "x"));
    client.learn(&packet(2, false, "x"));
    let bytes = client.encode();
    for length in 0..bytes.len() {
        assert_eq!(ClientState::decode(&bytes[..length]), None, "{length}");
    }
    let longer = [&bytes[..], &[0; 8]].concat();
    assert_eq!(ClientState::decode(&longer), None);
    let with = |at: usize, byte: u8| {
        let mut bytes = [&bytes[..], &[0; 80]].concat();
        bytes[at] = byte;
        ClientState::decode(&bytes)
    };
    assert_eq!(with(0, 2), None, "another version");
    assert_eq!(with(1, 3), None, "three windows");
    let mut crowded = vec![1, 0];
    crowded.extend((PACKETS_MAX as u16 + 1).to_be_bytes());
    crowded.resize(4 + 8 * (PACKETS_MAX + 1), 0);
    assert_eq!(ClientState::decode(&crowded), None, "too many");
}

#[test]
fn the_window_ends_at_256_numbers() {
    for jump in [1, 63, 64, 65, 128, 191, 255, 256, 257, 1_000] {
        let mut client = ClientState::default();
        client.learn(&numbered(10, false));
        client.learn(&numbered(10 + jump, false));
        let expected = if jump < SEQUENCE_WINDOW {
            Verdict::Duplicate
        } else {
            Verdict::NewBelowWindow
        };
        assert_eq!(client.judge(&numbered(10, false)), expected, "{jump}");
        assert_eq!(
            client.judge(&numbered(10 + jump, false)),
            Verdict::Duplicate
        );
        if jump > 1 {
            let between = numbered(10 + jump - 1, true);
            assert_eq!(client.judge(&between), Verdict::New, "{jump}");
        }
    }
}

#[test]
fn two_records_share_a_digest_only_if_topic_and_payload_are_the_same() {
    let of = |topic: &'static str, payload: &'static str| {
        digest(&NewRecord {
            topic: Bytes::from_static(topic.as_bytes()),
            ..packet(1, true, payload)
        })
    };
    assert_eq!(of("ab", "c"), of("ab", "c"));
    assert_ne!(of("ab", "c"), of("a", "bc"), "where the topic ends counts");
    assert_ne!(of("ab", "c"), of("ab", "d"));
    assert_ne!(of("ab", "c"), of("ad", "c"));
}

#[test]
fn a_state_is_empty_only_while_nothing_was_learnt() {
    let mut client = ClientState::default();
    assert!(client.is_empty());
    client.learn(&packet(1, false, "x"));
    assert!(!client.is_empty());
    client.forget_packets();
    assert!(client.is_empty());
    client.learn(&numbered(1, false));
    assert!(!client.is_empty());
}

#[test]
fn a_reset_terminal_is_followed_as_long_as_it_counts_on_and_when_it_is_reset_again() {
    let mut client = ClientState::default();
    client.learn(&numbered(10_000, false));
    for sequence in [1_000, 1_001, 900] {
        client.learn(&numbered(sequence, false));
    }
    for sequence in [1_000, 1_001, 900] {
        let again = client.judge(&numbered(sequence, false));
        assert_eq!(again, Verdict::Duplicate, "{sequence}");
    }
    client.learn(&numbered(5, false));
    assert_eq!(client.judge(&numbered(5, false)), Verdict::Duplicate);
    assert_eq!(client.judge(&numbered(10_000, false)), Verdict::Duplicate);
}

#[test]
fn the_smallest_states_come_back_too() {
    let mut client = ClientState::default();
    let comes_back = |client: &ClientState| {
        assert_eq!(ClientState::decode(&client.encode()).as_ref(), Some(client));
    };
    comes_back(&client);
    client.learn(&numbered(1, false));
    comes_back(&client);
    client.learn(&packet(1, false, "x"));
    comes_back(&client);
}
