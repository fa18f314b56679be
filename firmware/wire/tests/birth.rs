//! Birth messages: fixed bytes, bounds, and what holds for every input.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use proptest::prelude::*;
use risiti_wire::limits::{BIRTH_BYTES_MAX, SIGNAL_MAX};
use risiti_wire::{Birth, Field, LOST, Standing, WireError};

fn births() -> impl Strategy<Value = Birth> {
    // Small and large numbers, for each has a form of its own.
    let number = || prop_oneof![0..30_u32, 0..70_000_u32, any::<u32>()];
    (
        proptest::array::uniform13(number()),
        any::<u16>(),
        proptest::option::of(0..=SIGNAL_MAX),
    )
        .prop_map(|(n, battery_mv, signal)| Birth {
            firmware: n[0],
            time_s: n[1],
            battery_mv,
            signal,
            starts: n[2],
            saved: n[3],
            waiting: n[4],
            unprinted: n[5],
            damaged: n[6],
            torn: n[7],
            sessions: n[8],
            up_bytes: n[9],
            down_bytes: n[10],
            radio_s: n[11],
            energy_j: n[12],
        })
}

const GOLDEN: Birth = Birth {
    firmware: 0x0001_0203,
    time_s: 1_700_000_000,
    battery_mv: 3_912,
    signal: Some(17),
    starts: 3,
    saved: 300,
    waiting: 2,
    unprinted: 0,
    damaged: 0,
    torn: 1,
    sessions: 120,
    up_bytes: 14_000,
    down_bytes: 9_000,
    radio_s: 2_400,
    energy_j: 1_900,
};

#[test]
fn a_birth_stands_on_the_air_byte_for_byte() {
    let mut buffer = [0; BIRTH_BYTES_MAX];
    let expected = [
        0x90, 1, 0x1a, 0, 1, 2, 3, 0x1a, 0x65, 0x53, 0xf1, 0, 0x19, 0x0f, 0x48, 17, 3, 0x19, 1,
        0x2c, 2, 0, 0, 1, 0x18, 120, 0x19, 0x36, 0xb0, 0x19, 0x23, 0x28, 0x19, 0x09, 0x60, 0x19,
        0x07, 0x6c,
    ];
    assert_eq!(GOLDEN.encode(&mut buffer).unwrap(), expected);
    assert_eq!(Standing::decode(&expected), Ok(Standing::Reported(GOLDEN)));
}

#[test]
fn the_largest_birth_fits_and_one_byte_less_does_not() {
    let mut birth = GOLDEN;
    for number in [&mut birth.firmware, &mut birth.time_s, &mut birth.starts] {
        *number = u32::MAX;
    }
    for number in [
        &mut birth.saved,
        &mut birth.waiting,
        &mut birth.unprinted,
        &mut birth.damaged,
        &mut birth.torn,
        &mut birth.sessions,
        &mut birth.up_bytes,
        &mut birth.down_bytes,
        &mut birth.radio_s,
        &mut birth.energy_j,
    ] {
        *number = u32::MAX;
    }
    (birth.battery_mv, birth.signal) = (u16::MAX, Some(SIGNAL_MAX));
    let mut buffer = [0; BIRTH_BYTES_MAX];
    assert_eq!(birth.encode(&mut buffer).unwrap().len(), BIRTH_BYTES_MAX);
    assert_eq!(
        birth.encode(&mut buffer[1..]),
        Err(WireError::BufferTooSmall)
    );
}

#[test]
fn a_will_is_no_birth_and_a_later_version_is_no_damage() {
    assert_eq!(Standing::decode(&LOST), Ok(Standing::Lost));
    assert!(Birth::decode(&LOST).is_err());
    let unknown = WireError::UnknownVersion { version: 2 };
    assert_eq!(Birth::decode(&[0x82, 2, 0]), Err(unknown));
}

#[test]
fn a_signal_beyond_its_range_is_refused_both_ways() {
    let wrong = Birth {
        signal: Some(SIGNAL_MAX + 1),
        ..GOLDEN
    };
    let mut buffer = [0; BIRTH_BYTES_MAX];
    let refused = Err(WireError::OutOfRange(Field::Signal));
    assert_eq!(wrong.encode(&mut buffer).map(drop), refused);
    let mut bytes = GOLDEN.encode(&mut buffer).unwrap().to_vec();
    bytes.splice(15..16, [0x18, SIGNAL_MAX + 1]);
    assert_eq!(Birth::decode(&bytes).map(drop), refused);
}

proptest! {
    #[test]
    fn every_birth_comes_back_as_it_went(birth in births()) {
        let mut buffer = [0; BIRTH_BYTES_MAX];
        let bytes = birth.encode(&mut buffer).unwrap();
        prop_assert_eq!(Birth::decode(bytes), Ok(birth));
    }

    #[test]
    fn what_decodes_has_that_one_encoding(
        birth in births(), at in 0..BIRTH_BYTES_MAX, to in any::<u8>(), cut in 0..BIRTH_BYTES_MAX,
    ) {
        let mut buffer = [0; BIRTH_BYTES_MAX];
        let mut bytes = birth.encode(&mut buffer).unwrap().to_vec();
        prop_assert!(Birth::decode(&bytes[..cut.min(bytes.len() - 1)]).is_err());
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(changed) = Birth::decode(&bytes) {
            let mut again = [0; BIRTH_BYTES_MAX];
            prop_assert_eq!(changed.encode(&mut again).unwrap(), &bytes[..]);
        }
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
        let _ = Standing::decode(&bytes);
    }
}
