//! The civil date of a moment.
//!
//! Promises: right for every second that a `u32` holds (1970 to 2106), in 32-bit
//! arithmetic. Never: a leap second or a time zone's rules; an offset is given.
//!
//! The algorithm is Howard Hinnant's `civil_from_days`
//! (<https://howardhinnant.github.io/date_algorithms.html>), for days that are
//! not negative.

use super::line::Line;

const DAY_S: u32 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u32 = 719_468;
/// Days in 400 years.
const ERA_DAYS: u32 = 146_097;

/// A moment by the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// The year.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
}

impl Date {
    /// The date of a moment in seconds since 1970-01-01 UTC, where clocks are so
    /// many minutes ahead of UTC. Before 1970 it is 1970.
    #[must_use]
    pub fn new(time_s: u32, offset_minutes: i16) -> Self {
        let local_s = time_s.saturating_add_signed(i32::from(offset_minutes) * 60);
        let of_day_s = local_s % DAY_S;
        let days = local_s / DAY_S + EPOCH_DAYS;
        let era = days / ERA_DAYS;
        let of_era = days % ERA_DAYS;
        let year_of_era =
            (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (ERA_DAYS - 1)) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: (year_of_era + era * 400 + u32::from(month <= 2)) as u16,
            month: month as u8,
            day: day as u8,
            hour: (of_day_s / 3_600) as u8,
            minute: (of_day_s / 60 % 60) as u8,
        }
    }
}

impl Line<'_> {
    /// `17:32`.
    pub(crate) fn time_of_day(&mut self, date: &Date) -> &mut Self {
        self.digits(date.hour.into(), 2)
            .byte(b':')
            .digits(date.minute.into(), 2)
    }

    /// `2026-11-21`.
    pub(crate) fn day(&mut self, date: &Date) -> &mut Self {
        self.digits(date.year.into(), 4)
            .byte(b'-')
            .digits(date.month.into(), 2)
            .byte(b'-')
            .digits(date.day.into(), 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(time_s: u32, offset_minutes: i16) -> (u16, u8, u8, u8, u8) {
        let date = Date::new(time_s, offset_minutes);
        (date.year, date.month, date.day, date.hour, date.minute)
    }

    #[test]
    fn known_moments() {
        assert_eq!(date(0, 0), (1970, 1, 1, 0, 0));
        assert_eq!(date(951_782_400, 0), (2000, 2, 29, 0, 0));
        assert_eq!(date(951_868_799, 0), (2000, 2, 29, 23, 59));
        assert_eq!(date(951_868_800, 0), (2000, 3, 1, 0, 0));
        assert_eq!(date(1_795_282_329, 0), (2026, 11, 21, 17, 32));
        assert_eq!(date(u32::MAX, 0), (2106, 2, 7, 6, 28));
    }

    #[test]
    fn an_offset_moves_the_day() {
        assert_eq!(date(1_795_282_329, 180), (2026, 11, 21, 20, 32));
        assert_eq!(date(951_868_800, -1), (2000, 2, 29, 23, 59));
        assert_eq!(date(951_868_799, 330), (2000, 3, 1, 5, 29));
        assert_eq!(date(0, -60), (1970, 1, 1, 0, 0));
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970_u16, 1_u8, 1_u8);
        for days in 0..=u32::MAX / DAY_S {
            let date = Date::new(days * DAY_S, 0);
            assert_eq!((date.year, date.month, date.day), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let of_month = match month {
                2 => 28 + u8::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > of_month {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
