//! What looks like the number of a payment card (a PAN, ISO/IEC 7812-1).
//!
//! Promises: every number that a card in use can have is seen; of other numbers as
//! long, one in ten or less. Never: a number that is kept.
//!
//! A payment can hold one in its account only: a reference is shorter.

/// Digits of a card's number.
const DIGITS: core::ops::RangeInclusive<usize> = 13..=19;

/// Whether ASCII digits are those of a payment card: as many as one has, begun as the
/// issuers of cards begin them, and with the check digit that fits (ISO/IEC 7812-1,
/// annex B).
#[must_use]
pub fn is_card_number(digits: &[u8]) -> bool {
    DIGITS.contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit)
        && is_issued(digits)
        && is_checked(digits)
}

/// Visa, Mastercard, Maestro, American Express, Diners Club, Discover, JCB, UnionPay,
/// Verve: all begin with 3, 4, 5 or 6, or with 2 and a place among Mastercard's.
fn is_issued(digits: &[u8]) -> bool {
    match digits {
        [b'3', b'0' | b'4' | b'5' | b'6' | b'7' | b'8' | b'9', ..] | [b'4' | b'5' | b'6', ..] => {
            true
        }
        [b'2', b'2'..=b'7', ..] => digits.len() == 16,
        _ => false,
    }
}

/// Luhn's formula: of every second digit from the right but the last, twice its value
/// and the sum of the digits of that; ten more or less is the same.
fn is_checked(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(
            |(place, digit)| match (place % 2, u32::from(digit - b'0')) {
                (0, value) => value,
                (_, value) => value * 2 + value / 5,
            },
        )
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that the card brands publish for tests.
    const CARDS: [&str; 10] = [
        "4111111111111111",
        "4222222222222",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "30569309025904",
        "6011111111111117",
        "3530111333300000",
        "6200000000000005",
        "6759649826438453",
    ];

    #[test]
    fn cards_are_seen_and_a_wrong_digit_anywhere_is_not() {
        for card in CARDS {
            assert!(is_card_number(card.as_bytes()), "{card}");
            for place in 0..card.len() {
                let mut digits = card.as_bytes().to_vec();
                digits[place] = b'0' + (digits[place] - b'0' + 1) % 10;
                assert!(!is_card_number(&digits), "{card} at {place}");
            }
        }
    }

    #[test]
    fn accounts_telephones_and_times_are_none() {
        for other in [
            "12345678",
            "01109876543210",
            "254712345678",
            "1763700000000",
            "1111111111111117",
            "411111111111",
            "41111111111111111111",
            "",
        ] {
            assert!(!is_card_number(other.as_bytes()), "{other}");
        }
    }
}
