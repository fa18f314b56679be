//! Amounts as people write them: letters and decimals of ISO 4217.
//!
//! Promises: the decimals of every currency of ISO 4217 (amendment 177) are
//! right, also of one whose letters are not known here. Never: a float.

use risiti_wire::Currency;

use super::line::Line;

/// Decimals of every currency that has not two.
const DECIMALS: [(u16, u8); 26] = [
    (48, 3),
    (108, 0),
    (152, 0),
    (174, 0),
    (262, 0),
    (324, 0),
    (352, 0),
    (368, 3),
    (392, 0),
    (400, 3),
    (410, 0),
    (414, 3),
    (434, 3),
    (512, 3),
    (548, 0),
    (600, 0),
    (646, 0),
    (704, 0),
    (788, 3),
    (800, 0),
    (927, 4),
    (940, 0),
    (950, 0),
    (952, 0),
    (953, 0),
    (990, 4),
];

/// Letters of the currencies of Africa and of those that travel. Others are
/// written by their number: a table of all costs 500 bytes more.
const LETTERS: [(u16, [u8; 3]); 56] = [
    (12, *b"DZD"),
    (50, *b"BDT"),
    (72, *b"BWP"),
    (108, *b"BIF"),
    (132, *b"CVE"),
    (156, *b"CNY"),
    (174, *b"KMF"),
    (230, *b"ETB"),
    (232, *b"ERN"),
    (262, *b"DJF"),
    (270, *b"GMD"),
    (324, *b"GNF"),
    (356, *b"INR"),
    (360, *b"IDR"),
    (392, *b"JPY"),
    (404, *b"KES"),
    (414, *b"KWD"),
    (426, *b"LSL"),
    (430, *b"LRD"),
    (434, *b"LYD"),
    (454, *b"MWK"),
    (480, *b"MUR"),
    (504, *b"MAD"),
    (516, *b"NAD"),
    (524, *b"NPR"),
    (566, *b"NGN"),
    (586, *b"PKR"),
    (608, *b"PHP"),
    (646, *b"RWF"),
    (654, *b"SHP"),
    (690, *b"SCR"),
    (706, *b"SOS"),
    (710, *b"ZAR"),
    (728, *b"SSP"),
    (748, *b"SZL"),
    (756, *b"CHF"),
    (788, *b"TND"),
    (800, *b"UGX"),
    (818, *b"EGP"),
    (826, *b"GBP"),
    (834, *b"TZS"),
    (840, *b"USD"),
    (924, *b"ZWG"),
    (925, *b"SLE"),
    (929, *b"MRU"),
    (930, *b"STN"),
    (936, *b"GHS"),
    (938, *b"SDG"),
    (943, *b"MZN"),
    (950, *b"XAF"),
    (952, *b"XOF"),
    (967, *b"ZMW"),
    (969, *b"MGA"),
    (973, *b"AOA"),
    (976, *b"CDF"),
    (978, *b"EUR"),
];

/// How many decimals an amount has; 2 if the standard says nothing else.
#[must_use]
pub fn decimals(currency: Currency) -> u8 {
    DECIMALS
        .iter()
        .find(|(code, _)| *code == currency.code())
        .map_or(2, |(_, decimals)| *decimals)
}

impl Line<'_> {
    /// The currency's letters, or its three digits.
    pub(crate) fn currency(&mut self, currency: Currency) -> &mut Self {
        match LETTERS.iter().find(|(code, _)| *code == currency.code()) {
            Some((_, letters)) => self.bytes(letters),
            None => self.digits(currency.code().into(), 3),
        }
    }

    /// An amount with its currency before it.
    pub(crate) fn amount(&mut self, amount_minor: u32, currency: Currency) -> &mut Self {
        let decimals = decimals(currency);
        // Matched, not computed: the compiler sees that none of them is 0.
        let one = match decimals {
            0 => 1,
            3 => 1_000,
            4 => 10_000,
            _ => 100,
        };
        self.currency(currency)
            .byte(b' ')
            .number((amount_minor / one).into());
        if decimals > 0 {
            self.byte(b'.')
                .digits((amount_minor % one).into(), decimals.into());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: u16, amount_minor: u32, expected: &str) {
        let mut room = [0; 16];
        let mut line = Line::new(&mut room);
        line.amount(amount_minor, Currency::new(code).expect("in range"));
        let len = line.len();
        assert_eq!(room.get(..len), Some(expected.as_bytes()));
    }

    #[test]
    fn the_largest_amount_of_every_kind_fits_a_screen() {
        check(404, u32::MAX, "KES 42949672.95");
        check(800, u32::MAX, "UGX 4294967295");
        check(788, u32::MAX, "TND 4294967.295");
        check(990, u32::MAX, "990 429496.7295");
    }

    #[test]
    fn decimals_are_filled_up() {
        check(404, 1, "KES 0.01");
        check(414, 1_050, "KWD 1.050");
        check(404, 150_000, "KES 1500.00");
        check(985, 5, "985 0.05");
    }

    #[test]
    fn both_tables_are_sorted_and_without_doubles() {
        assert!(DECIMALS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(LETTERS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
