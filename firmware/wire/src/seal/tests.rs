//! The parts that sealing is made of, by the vectors of their standards.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use hkdf::Hkdf;
use sha2::Sha256;

use super::*;

extern crate std;
use std::vec::Vec;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn cipher(key: &str) -> Cipher {
    let key: [u8; KEY_BYTES] = bytes(key).try_into().unwrap();
    Cipher::new(&key.into())
}

fn iv(hex: &str) -> Nonce<U13> {
    let iv: [u8; 13] = bytes(hex).try_into().unwrap();
    iv.into()
}

fn encrypted(key: &str, nonce: &str, aad: &str, plain: &[u8]) -> Vec<u8> {
    let mut text = plain.to_vec();
    let tag = cipher(key)
        .encrypt_inout_detached(&iv(nonce), &bytes(aad), InOutBuf::from(&mut text[..]))
        .unwrap();
    text.extend_from_slice(&tag);
    text
}

/// RFC 3610, section 8, packet vectors 1 to 3: this length of nonce, this tag.
#[test]
fn aes_ccm_gives_what_rfc_3610_gives() {
    let key = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf";
    for (nonce, plain, expected) in [
        (
            "00000003020100a0a1a2a3a4a5",
            "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e",
            "588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0",
        ),
        (
            "00000004030201a0a1a2a3a4a5",
            "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "72c91a36e135f8cf291ca894085c87e3cc15c439c9e43a3ba091d56e10400916",
        ),
        (
            "00000005040302a0a1a2a3a4a5",
            "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
            "51b1e5f44a197d1da46b0f8e2d282ae871e838bb64da8596574adaa76fbd9fb0c5",
        ),
    ] {
        let made = encrypted(key, nonce, "0001020304050607", &bytes(plain));
        assert_eq!(made, bytes(expected));
    }
}

/// RFC 9052, appendix C.4.1: a `COSE_Encrypt0` by this algorithm, with the key
/// `our-secret2`. Its authenticated data is put together as ours is.
#[test]
fn the_example_of_rfc_9052_opens() {
    let message = bytes(
        "d08343a1010aa1054d89f52f65a1c580933b5261a78c581c5974e1b99a3a4cc09a659aa2e9e7fff161d38ce71cb45ce460ffb569",
    );
    let (ciphertext, tag) = message[24..].split_last_chunk::<SEAL_TAG_BYTES>().unwrap();
    let mut text = ciphertext.to_vec();
    cipher("849b5786457c1491be3a76dcea6c4271")
        .decrypt_inout_detached(
            &iv("89f52f65a1c580933b5261a78c"),
            &bytes("8368456e63727970743043a1010a40"),
            InOutBuf::from(&mut text[..]),
            &Tag::from(*tag),
        )
        .unwrap();
    assert_eq!(text, b"This is the content.");
}

/// RFC 5869, appendix A, test cases 1 and 3.
#[test]
fn hkdf_gives_what_rfc_5869_gives() {
    let mut made = [0; 42];
    let input = [0x0b; 22];
    Hkdf::<Sha256>::new(Some(&bytes("000102030405060708090a0b0c")), &input)
        .expand(&bytes("f0f1f2f3f4f5f6f7f8f9"), &mut made)
        .unwrap();
    let expected =
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
    assert_eq!(made.to_vec(), bytes(expected));
    Hkdf::<Sha256>::new(None, &input)
        .expand(&[], &mut made)
        .unwrap();
    let expected =
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
    assert_eq!(made.to_vec(), bytes(expected));
}

#[test]
fn what_is_authenticated_names_all_that_must_not_be_exchanged() {
    let mut into = [0; AUTHENTICATED_BYTES_MAX];
    let header = Header {
        version: 1,
        kind: Kind::Payment,
        sealed: true,
        resend: true,
        sequence: 1_042,
    };
    let key = Key::new(Direction::Up, 2, [0; KEY_BYTES]).unwrap();
    let made = authenticate(&header, &key, "t-1", &mut into).unwrap();
    // ["Encrypt0", h'', [1, 6, 1042, "t-1", 0, 2, 10]]: resend is cleared.
    let expected = "8368456e637279707430404d 870106190412 63742d31 00020a";
    assert_eq!(made, bytes(expected));
    assert_eq!(
        nonce(&header, &key, None).to_vec(),
        bytes("00 00000412 0000000000000000")
    );
    let key = Key::new(Direction::Down, 2, [0; KEY_BYTES]).unwrap();
    let number = Some(0x0102_0304_0506_0708);
    assert_eq!(
        nonce(&header, &key, number).to_vec(),
        bytes("01 00000412 0102030405060708")
    );
}

#[test]
fn the_longest_authenticated_data_fits() {
    let header = Header {
        version: 1,
        kind: Kind::Reserved(63),
        sealed: true,
        resend: false,
        sequence: crate::limits::SEQUENCE_MAX,
    };
    let key = Key::new(Direction::Down, 255, [0; KEY_BYTES]).unwrap();
    let id = core::str::from_utf8(&[b'x'; TERMINAL_ID_BYTES_MAX]).unwrap();
    assert!(authenticate(&header, &key, id, &mut [0; AUTHENTICATED_BYTES_MAX]).is_ok());
}
