//! The cipher by its vectors, and what a key tells of another.

use super::*;

fn key(byte: u8) -> StoreKey {
    StoreKey::new([byte; KEY_BYTES])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 8452, appendix C.2: the cipher is the one that the heads of the files name.
#[test]
fn the_cipher_is_that_of_the_rfc() {
    let mut secret = [0; KEY_BYTES];
    secret[0] = 1;
    let cipher = PackCipher(Arc::new(Aes256GcmSiv::new(&secret.into())));
    let mut nonce = [0; NONCE_BYTES];
    nonce[0] = 3;
    let mut body = [1, 0, 0, 0, 0, 0, 0, 0];
    let tag = cipher.encrypt(nonce, &[], &mut body);
    assert_eq!(hex(&body), "c2ef328e5c71c83b");
    assert_eq!(hex(&tag), "843122130f7364b761e0b97427e3df28");
}

#[test]
fn any_flipped_bit_of_a_value_or_its_key_is_seen() {
    let cipher = ValueCipher::new(&key(7)).unwrap();
    let stored = cipher.encrypt(b"row", b"a payment").unwrap();
    assert_eq!(stored.len(), 9 + VALUE_GROWS_BYTES);
    assert_eq!(cipher.decrypt(b"row", &stored).unwrap(), b"a payment");
    assert_eq!(cipher.decrypt(b"rox", &stored), None, "another row's");
    for bit in 0..stored.len() * 8 {
        let mut flipped = stored.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(cipher.decrypt(b"row", &flipped), None, "bit {bit}");
    }
    for length in 0..stored.len() {
        assert_eq!(cipher.decrypt(b"row", &stored[..length]), None, "{length}");
    }
}

#[test]
fn no_two_values_have_the_same_nonce_and_no_two_openings() {
    let cipher = ValueCipher::new(&key(7)).unwrap();
    let again = ValueCipher::new(&key(7)).unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        assert!(seen.insert(cipher.encrypt(b"row", b"same").unwrap()));
        assert!(seen.insert(again.encrypt(b"row", b"same").unwrap()));
    }
    // It counts on beyond the end of its range.
    let last = ValueCipher::with_nonces(&key(7), u128::MAX);
    assert!(last.encrypt(b"row", b"same").unwrap() != last.encrypt(b"row", b"same").unwrap());
}

#[test]
fn what_one_key_wrote_no_other_reads() {
    let stored = ValueCipher::new(&key(7))
        .unwrap()
        .encrypt(b"row", b"a payment");
    let other = ValueCipher::new(&key(8)).unwrap();
    assert_eq!(other.decrypt(b"row", &stored.unwrap()), None);
    let mut body = *b"a payment";
    let tag = PackCipher::of(&key(7), &[1; 16]).encrypt([0; 12], b"head", &mut body);
    let body = [&body[..], &tag].concat();
    let opens = |byte, journal, head: &[u8]| {
        PackCipher::of(&key(byte), &[journal; 16]).decrypt([0; 12], head, &body)
    };
    assert_eq!(opens(7, 1, b"head").unwrap(), b"a payment");
    assert_eq!(opens(8, 1, b"head"), None, "another key");
    assert_eq!(opens(7, 2, b"head"), None, "another journal");
    assert_eq!(opens(7, 1, b"heat"), None, "another header");
}

/// Whoever changes a derivation can't read what was written before. The bytes were made
/// by another implementation (OpenSSL's).
#[test]
fn golden_bytes() {
    let key = key(7);
    let cipher = ValueCipher::with_nonces(&key, 1);
    assert_eq!(
        hex(&cipher.encrypt(b"row", b"a payment").unwrap()),
        "0000000000000000000000017d4422cd9c446eddcd5afb6f36ab5b3dd791fccdf2a5f19522"
    );
    let mut body = *b"a payment";
    let tag = PackCipher::of(&key, &[1; 16]).encrypt([2; 12], b"head", &mut body);
    assert_eq!(
        hex(&[&body[..], &tag].concat()),
        "3029e451656430ac538b68fa5f3b0a518cbcb72658947d253e"
    );
    assert_eq!(
        hex(&key.derive(&[b"risiti store check 1"])[..]),
        "510c4303208f02d409161f1a63b5ef416c7ac5747dd19bd0b19ad0b9d186bc6d"
    );
}
