//! What a line of a modem means: the answers and codes that both families share.
//!
//! Promises: a line that nobody knows is nothing, not an error. Never: state.

use super::ModemError;
use super::at::{field, number};

/// The meaning of one line, or of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// `OK`
    Ok,
    /// `ERROR` in any form.
    Error,
    /// `>`
    Prompt,
    /// `CONNECT OK`
    Connected,
    /// `CONNECT FAIL`
    ConnectFailed,
    /// `ALREADY CONNECT`
    ConnectedAlready,
    /// `SEND OK`: all that was given.
    Sent,
    /// `DATA ACCEPT:n`: so many bytes of what was given.
    Accepted(u16),
    /// `SEND FAIL`
    SendFailed,
    /// `CLOSE OK`
    ClosedByUs,
    /// `SHUT OK`, `DEACT OK`
    Shut,
    /// The modem's address, which comes without `OK`.
    Address,
    /// So many bytes from the peer follow.
    Data(u16),
    /// The bytes from the peer did not end where they should.
    Torn,
    /// Unsolicited: the peer, or the network, has closed the connection.
    Closed,
    /// Unsolicited: packet data are gone.
    Deactivated,
    /// Unsolicited: bytes from the peer wait to be fetched.
    DataWaits,
    /// Unsolicited: the modem has just started.
    Started,
    /// The modem has gone off as it was asked to.
    PoweredDown,
    /// Unsolicited: its supply is too low; it may go off.
    UnderVoltage,
    /// Unsolicited: it has gone off because its supply is too low.
    UnderVoltageOff,
    /// `+CREG`: state of registration (3GPP TS 27.007, 7.2).
    Registration(u8),
    /// `+CGATT`: whether packet data are attached.
    Attached(bool),
    /// `+CPIN`: whether the SIM card is ready; false also while it starts.
    Sim(bool),
    /// The SIM card asks for a code, or there is none.
    SimLocked,
    /// `+CSQ`: 0 to 31; 99 is unknown (3GPP TS 27.007, 8.5).
    Signal(u8),
    /// `+CCLK`: seconds since 1970-01-01 UTC.
    Time(u32),
    /// Anything else.
    Other,
}

impl Said {
    /// What it means to whatever is under way, if it ends that.
    pub fn alarm(self) -> Option<ModemError> {
        match self {
            Self::Started | Self::PoweredDown | Self::UnderVoltage | Self::UnderVoltageOff => {
                Some(ModemError::Power)
            }
            Self::Deactivated => Some(ModemError::Detached),
            _ => None,
        }
    }
}

const LINES: [(&[u8], Said); 18] = [
    (b"OK", Said::Ok),
    (b"ERROR", Said::Error),
    (b"CONNECT OK", Said::Connected),
    (b"CONNECT FAIL", Said::ConnectFailed),
    (b"ALREADY CONNECT", Said::ConnectedAlready),
    (b"SEND OK", Said::Sent),
    (b"SEND FAIL", Said::SendFailed),
    (b"CLOSE OK", Said::ClosedByUs),
    (b"SHUT OK", Said::Shut),
    (b"DEACT OK", Said::Shut),
    (b"CLOSED", Said::Closed),
    (b"+PDP: DEACT", Said::Deactivated),
    (b"+PDP DEACT", Said::Deactivated),
    (b"RDY", Said::Started),
    (b"NORMAL POWER DOWN", Said::PoweredDown),
    (b"+CPIN: READY", Said::Sim(true)),
    (b"+CPIN: NOT READY", Said::Sim(false)),
    (b"+CPIN: NOT INSERTED", Said::SimLocked),
];

/// The meaning of a line. `data_waits` and `data` are the beginnings of the lines
/// with which this family announces data, `data_field` where their number stands.
pub fn said(line: &[u8], data_waits: &[u8], data: &[u8], data_field: usize) -> Said {
    let known = LINES.iter().find(|(known, _)| *known == line);
    if let Some((_, said)) = known {
        return *said;
    }
    let at = |index| field(line, index).and_then(number);
    let small = |number: Option<u32>| number.and_then(|number| u8::try_from(number).ok());
    let starts = |beginning: &[u8]| line.starts_with(beginning);
    if starts(b"+CME ERROR") || starts(b"+CMS ERROR") {
        Said::Error
    } else if starts(data) {
        match at(data_field).and_then(|bytes| u16::try_from(bytes).ok()) {
            Some(bytes) => Said::Data(bytes),
            None => Said::Other,
        }
    } else if starts(data_waits) {
        Said::DataWaits
    } else if starts(b"DATA ACCEPT") {
        match at(0).and_then(|bytes| u16::try_from(bytes).ok()) {
            Some(bytes) => Said::Accepted(bytes),
            None => Said::Other,
        }
    } else if starts(b"+CREG") {
        // Asked for, the mode comes first; unsolicited, the state.
        small(at(1).or_else(|| at(0))).map_or(Said::Other, Said::Registration)
    } else if starts(b"+CGATT") {
        at(0).map_or(Said::Other, |attached| Said::Attached(attached == 1))
    } else if starts(b"+CPIN") {
        Said::SimLocked
    } else if starts(b"+CSQ") {
        small(at(0)).map_or(Said::Other, Said::Signal)
    } else if starts(b"+CCLK") {
        time(line).map_or(Said::Other, Said::Time)
    } else if starts(b"UNDER") {
        // `UNDER-VOLTAGE WARNNING` (so) and `UNDER_VOLTAGE POWER DOWN`, spelled
        // differently from family to family.
        if line.ends_with(b"DOWN") {
            Said::UnderVoltageOff
        } else {
            Said::UnderVoltage
        }
    } else if is_address(line) {
        Said::Address
    } else {
        Said::Other
    }
}

/// Four numbers with dots between.
pub fn is_address(line: &[u8]) -> bool {
    let mut parts = 0;
    line.split(|byte| *byte == b'.').all(|part| {
        parts += 1;
        number(part).is_some_and(|number| number < 256)
    }) && parts == 4
}

/// `+CCLK: "yy/MM/dd,hh:mm:ss±zz"`, local time with quarters of an hour from UTC
/// (3GPP TS 27.007, 8.15). None if the modem has not heard the time: its own
/// clock begins decades ago.
fn time(line: &[u8]) -> Option<u32> {
    const FIRST_YEAR: u32 = 24;
    const SECONDS_TO_2000: u32 = 946_684_800;
    const DAYS_BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let quote = line.iter().position(|byte| *byte == b'"')?;
    let text = line.get(quote + 1..)?;
    let two = |at: usize| text.get(at..at + 2).and_then(number);
    let (year, month, day) = (two(0)?, two(3)?, two(6)?);
    let (hour, minute, second) = (two(9)?, two(12)?, two(15)?);
    if year < FIRST_YEAR || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let before = DAYS_BEFORE.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    // Every fourth year from 2000 to 2099 is a leap year.
    let leap = u32::from(year % 4 == 0 && month > 2);
    let days = year * 365 + year.div_ceil(4) + u32::from(*before) + leap + day - 1;
    let local = SECONDS_TO_2000 + ((days * 24 + hour) * 60 + minute) * 60 + second;
    let offset_s = two(18).unwrap_or(0) * 15 * 60;
    match text.get(17) {
        Some(b'+') => local.checked_sub(offset_s),
        Some(b'-') => local.checked_add(offset_s),
        _ => Some(local),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sim800(line: &[u8]) -> Said {
        said(line, b"+CIPRXGET: 1", b"+CIPRXGET: 2,", 1)
    }

    #[test]
    fn the_lines_of_a_session_are_known() {
        let session: [(&[u8], Said); 17] = [
            (b"OK", Said::Ok),
            (b"+CME ERROR: 3", Said::Error),
            (b"+CREG: 1", Said::Registration(1)),
            (b"+CREG: 0,5", Said::Registration(5)),
            (br#"+CREG: 1,1,"00C3","A0""#, Said::Registration(1)),
            (b"+CGATT: 0", Said::Attached(false)),
            (b"+CPIN: SIM PIN", Said::SimLocked),
            (b"+CSQ: 99,0", Said::Signal(99)),
            (b"DATA ACCEPT:110", Said::Accepted(110)),
            (b"+CIPRXGET: 1", Said::DataWaits),
            (b"+CIPRXGET: 2,63,0", Said::Data(63)),
            (b"10.128.0.7", Said::Address),
            (b"UNDER-VOLTAGE WARNNING", Said::UnderVoltage),
            (b"UNDER_VOLTAGE POWER DOWN", Said::UnderVoltageOff),
            (b"+CIPRXGET: 2,70000,0", Said::Other),
            (b"1.2.3.4.5", Said::Other),
            (b"Call Ready", Said::Other),
        ];
        for (line, meaning) in session {
            assert_eq!(sim800(line), meaning, "{}", line.escape_ascii());
        }
        let quectel = |line| said(line, b"+QIRDI:", b"+QIRD:", 2);
        assert_eq!(quectel(b"+QIRD: 10.0.0.1:80,TCP,36"), Said::Data(36));
        assert_eq!(quectel(b"+QIRDI: 0,1,0"), Said::DataWaits);
    }

    #[test]
    fn the_networks_time_is_read_as_utc() {
        let at = |text| sim800(text);
        // date -d '2026-11-21T14:30:10Z' +%s
        let utc = 1_795_271_410;
        assert_eq!(at(br#"+CCLK: "26/11/21,17:30:10+12""#), Said::Time(utc));
        assert_eq!(at(br#"+CCLK: "26/11/21,11:30:10-12""#), Said::Time(utc));
        // date -d '2028-02-29T23:59:59Z' and a second later
        assert_eq!(
            at(br#"+CCLK: "28/02/29,23:59:59+00""#),
            Said::Time(1_835_481_599)
        );
        assert_eq!(
            at(br#"+CCLK: "28/03/01,00:00:00+00""#),
            Said::Time(1_835_481_600)
        );
        for never_heard in [
            &br#"+CCLK: "04/01/01,00:00:13+00""#[..],
            br#"+CCLK: "26/13/01,00:00:00+00""#,
            br#"+CCLK: "26/0"#,
            b"+CCLK: ",
        ] {
            assert_eq!(at(never_heard), Said::Other);
        }
    }
}
