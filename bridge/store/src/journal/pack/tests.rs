//! Packs and records as they lie on disk, and their borders.

use super::*;
use crate::encryption::StoreKey;

#[test]
fn a_record_of_any_size_at_the_borders_of_a_pack_is_read_as_it_was_written() {
    let record = |payload_bytes| NewRecord {
        received_ms: 1,
        client_id: Bytes::from_static(b"t1"),
        topic: Bytes::from_static(b"t/t1/records"),
        identity: Identity::None,
        properties: Bytes::new(),
        payload: Bytes::from(vec![7; payload_bytes]),
    };
    let overhead = 4 + RECORD_HEADER_BYTES + record_bytes(&record(0));
    let key = StoreKey::new([7; 32]);
    let encrypted = Some(PackCipher::of(&key, &[3; 16]));
    for (border, cipher) in [
        (BODY_BYTES_MAX, None),
        (2 * BODY_BYTES_MAX, None),
        (BODY_BYTES_MAX - TAG_BYTES, encrypted.clone()),
        (2 * (BODY_BYTES_MAX - TAG_BYTES), encrypted),
    ] {
        for payload_bytes in border - overhead - 8..border - overhead + 64 {
            let written = record(payload_bytes);
            let mut packer = Packer::new([3; 16], 1, 5).encrypting(cipher.clone());
            packer.add(&written);
            let packs = packer.finish();
            let mut body = Vec::new();
            let mut first = None;
            for pack in &packs {
                let (header, part, bytes) = Header::decode(&pack.value).expect("a whole pack");
                assert_eq!(bytes, pack.value.len());
                assert_eq!(usize::from(header.fragments), packs.len());
                first = first.or(Some(header));
                assert!(bytes <= PACK_BYTES_MAX);
                let part = Bytes::copy_from_slice(part);
                let part = header.open(&pack.value, part, cipher.as_ref());
                body.extend_from_slice(&part.expect("it fits its tag"));
            }
            let read = records_of(&first.expect("one pack at least"), body.into());
            assert_eq!(read, Some(vec![written]), "{payload_bytes} bytes");
        }
    }
}

#[test]
fn a_record_of_each_kind_is_its_bytes_on_disk_and_comes_back() {
    let sequence = |dup, resend_mark| Identity::Sequence {
        sequence: 7,
        dup,
        resend_mark,
    };
    let packet = |dup| Identity::Packet { packet_id: 9, dup };
    for (kind, number, identity) in [
        (0, 0, Identity::None),
        (1, 7, sequence(false, false)),
        (1 | 16, 7, sequence(true, false)),
        (1 | 32, 7, sequence(false, true)),
        (1 | 16 | 32, 7, sequence(true, true)),
        (2, 9, packet(false)),
        (2 | 16, 9, packet(true)),
    ] {
        let record = NewRecord {
            received_ms: 0x0102,
            client_id: Bytes::from_static(b"t1"),
            topic: Bytes::from_static(b"abc"),
            identity,
            properties: Bytes::from_static(b"PPPP"),
            payload: Bytes::from_static(b"hello"),
        };
        assert_eq!(record_bytes(&record), 2 + 3 + 4 + 5);
        let mut bytes = Vec::new();
        encode_record(&record, &mut bytes);
        let mut expected = vec![0, 0, 0, 0, 0, 0, 1, 2, kind];
        expected.extend([0, 0, 0, 0, 0, 0, 0, number]);
        expected.extend(b"\x00\x02\x00\x03\x00\x00\x00\x04t1abcPPPPhello");
        assert_eq!(bytes, expected);
        assert_eq!(decode_record(bytes.into()), Some(record));
    }
}

#[test]
fn the_smallest_record_comes_back_and_less_is_none() {
    let empty = vec![0; RECORD_HEADER_BYTES];
    assert!(decode_record(empty.clone().into()).is_some());
    for length in 0..RECORD_HEADER_BYTES {
        let cut = Bytes::copy_from_slice(&empty[..length]);
        assert_eq!(decode_record(cut), None, "{length}");
    }
    let mut other_kind = empty;
    other_kind[8] = 3;
    assert_eq!(decode_record(other_kind.into()), None);
}

#[test]
fn a_key_is_the_position_and_the_fragment() {
    let expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    assert_eq!(key(0x0102_0304_0506_0708, 0x090a), expected);
    let mut packer = Packer::new([3; 16], 1, 0x0102_0304_0506_0708);
    packer.add(&decode_record(vec![0; RECORD_HEADER_BYTES].into()).expect("a record"));
    assert_eq!(packer.finish()[0].key, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0]);
}

#[test]
fn a_record_fits_up_to_each_of_its_bounds() {
    let record = |client_id, topic, payload| NewRecord {
        received_ms: 0,
        client_id: vec![b'c'; client_id].into(),
        topic: vec![b't'; topic].into(),
        identity: Identity::None,
        properties: Bytes::new(),
        payload: vec![0; payload].into(),
    };
    let (string, whole) = (limits::STRING_BYTES_MAX, limits::RECORD_BYTES_MAX);
    assert!(fits(&record(string, string, whole - 2 * string)));
    assert!(!fits(&record(string + 1, 1, 1)));
    assert!(!fits(&record(1, string + 1, 1)));
    assert!(fits(&record(1, 1, whole - 2)));
    assert!(!fits(&record(1, 1, whole - 1)));
}

#[test]
fn another_magic_or_version_is_no_pack() {
    let mut packer = Packer::new([3; 16], 1, 5);
    packer.add(&decode_record(vec![0; RECORD_HEADER_BYTES].into()).expect("a record"));
    let whole = packer.finish().remove(0).value;
    assert!(Header::decode(&whole).is_some());
    for at in [0, 3, 4] {
        let mut bytes = whole.clone();
        bytes[at] += 1;
        // Even with a checksum that is right for it.
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..58]), &bytes[HEADER_BYTES..]);
        bytes[58..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
        assert!(Header::decode(&bytes).is_none(), "{at}");
    }
}

#[test]
fn packs_are_filled_up_to_their_bound() {
    let record = |payload: usize| NewRecord {
        payload: vec![1; payload].into(),
        ..decode_record(vec![0; RECORD_HEADER_BYTES].into()).expect("a record")
    };
    let half = BODY_BYTES_MAX / 2 - 4 - RECORD_HEADER_BYTES;
    let packs = |payloads: &[usize]| {
        let mut packer = Packer::new([3; 16], 1, 5);
        payloads
            .iter()
            .for_each(|bytes| packer.add(&record(*bytes)));
        let packs = packer.finish();
        let headers = packs.iter().map(|pack| Header::decode(&pack.value));
        let headers: Vec<Header> = headers.map(|found| found.expect("whole").0).collect();
        headers
            .iter()
            .map(|h| (h.first, h.records))
            .collect::<Vec<_>>()
    };
    let odd = BODY_BYTES_MAX % 2;
    assert_eq!(packs(&[half, half + odd]), [(5, 2)], "just full");
    assert_eq!(packs(&[half, half + odd + 1]), [(5, 1), (6, 1)]);
    let whole = BODY_BYTES_MAX - 4 - RECORD_HEADER_BYTES;
    assert_eq!(packs(&[whole]), [(5, 1)], "one that just fills it");
    let mut packer = Packer::new([3; 16], 1, 5);
    packer.add(&record(whole));
    assert_eq!(packer.finish()[0].value.len(), PACK_BYTES_MAX);
    let large = BODY_BYTES_MAX + 1;
    assert_eq!(packs(&[1, large, 1]), [(5, 1), (6, 1), (6, 1), (7, 1)]);
}

#[test]
fn g11_a_body_that_is_shorter_than_its_header_says_is_no_records() {
    let mut packer = Packer::new([3; 16], 1, 5);
    let record = decode_record(vec![0; RECORD_HEADER_BYTES].into()).expect("a record");
    packer.add(&record);
    packer.add(&record);
    let whole = packer.finish().remove(0).value;
    let (header, body, _) = Header::decode(&whole).expect("whole");
    let body = Bytes::copy_from_slice(body);
    assert_eq!(
        records_of(&header, body.clone()),
        Some(vec![record.clone(), record])
    );
    for length in 0..body.len() {
        assert_eq!(records_of(&header, body.slice(..length)), None, "{length}");
    }
    let longer = [&body[..], &[0]].concat();
    assert_eq!(records_of(&header, longer.into()), None);
}

/// A pack with one record, encrypted.
fn encrypted_pack(cipher: &PackCipher) -> Vec<u8> {
    let mut packer = Packer::new([3; 16], 0x0102, 5).encrypting(Some(cipher.clone()));
    packer.add(&NewRecord {
        payload: Bytes::from_static(b"a payment"),
        ..decode_record(vec![0; RECORD_HEADER_BYTES].into()).expect("a record")
    });
    packer.finish().remove(0).value
}

/// Made by another implementation (OpenSSL's).
#[test]
fn an_encrypted_pack_is_its_bytes_on_disk() {
    let cipher = PackCipher::of(&StoreKey::new([7; 32]), &[3; 16]);
    let whole = encrypted_pack(&cipher);
    let hex: String = whole.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "52734a31010103030303030303030303030303030303000000000000010200000000000000050000000000000005000000010000000100000036ae98304cf97ccd3994a16a8b8ae0b2c1caed940c0ec464fa8c554414de722b5efcaf7bc43828bbd2f21d647c6ce1adf0a14265393db1451082eb"
    );
    assert!(!whole.windows(9).any(|w| w == b"a payment"));
    let mut plain = Packer::new([3; 16], 0x0102, 5);
    plain.add(&decode_record(vec![0; RECORD_HEADER_BYTES].into()).expect("a record"));
    assert_eq!(plain.finish()[0].value[5], 0, "as it ever was");
}

/// The checksum is no proof of who wrote a pack: the tag is.
#[test]
fn a_bit_that_is_flipped_under_a_checksum_made_to_fit_does_not_fit_the_tag() {
    let cipher = PackCipher::of(&StoreKey::new([7; 32]), &[3; 16]);
    let whole = encrypted_pack(&cipher);
    let open = |whole: &[u8], cipher| {
        let (header, body, _) = Header::decode(whole)?;
        assert!(header.encrypted);
        header.open(whole, Bytes::copy_from_slice(body), cipher)
    };
    assert!(open(&whole, Some(&cipher)).is_some());
    assert!(open(&whole, None).is_none());
    let other = PackCipher::of(&StoreKey::new([7; 32]), &[4; 16]);
    assert!(open(&whole, Some(&other)).is_none(), "another journal's");
    for bit in 6 * 8..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..58]), &bytes[HEADER_BYTES..]);
        bytes[58..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
        // The checksum itself is what was made to fit.
        if !(58 * 8..HEADER_BYTES * 8).contains(&bit) {
            assert!(open(&bytes, Some(&cipher)).is_none(), "bit {bit}");
        }
    }
}
