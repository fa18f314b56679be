//! What a terminal was provisioned with: who it is, where its gateway is.
//!
//! Promises: settings that decode are whole, within bounds, and hold no character
//! that could end an AT command's string; bytes of a later version are told from
//! damage. Never: a secret in an error, or a default for who or where.
//!
//! # Format, version 1
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | magic, `RSET` |
//! | 1 | version, 1 |
//! | 2 | n, big-endian |
//! | n | one CBOR map (RFC 8949), keys ascending |
//! | 4 | CRC-32C of all before it, big-endian |
//!
//! What follows is not looked at: settings stand at the head of a flash page.
//!
//! | key | type | setting | if absent |
//! | --- | --- | --- | --- |
//! | 1 | text | terminal's id | refused |
//! | 2 | text | gateway's host, name or address | refused |
//! | 3 | uint | its port | 1883 |
//! | 4 | bytes | token, sent as MQTT password | none |
//! | 5, 6, 7 | text | access point, its user and password | empty |
//! | 8 | uint | currency, ISO 4217 numeric | 999 (none) |
//! | 9 | text | title of receipts | empty |
//! | 10, 11, 12 | text | topics of records, receipts, status, with `{id}` | `t/{id}/records` … |
//! | 13 | uint | patience with receipts, ms | 5,000 |
//! | 14 | uint | a record goes out again after, s | 14,400 |
//! | 15 | uint | least battery voltage for the modem, mV | 3,500 |
//! | 16 | uint | local time: minutes east of UTC, plus 720 | 720 |
//! | 17 | uint | generation of the keys, 1 to 255 | not sealed |
//! | 18, 19 | bytes | keys that seal records and open receipts, 16 bytes each | with 17, unless 20 is there |
//! | 20 | uint | 1: the terminal makes the keys of generation 17 itself; never with 18 or 19 | it makes none |
//!
//! Keys above 20 are passed over if their value is a uint, a text or bytes: a
//! later firmware's settings serve an earlier one.

use minicbor::decode::Decoder;
use minicbor::encode::write::Cursor;
use minicbor::encode::{Encoder, Write};
use risiti_wire::seal::{Direction, KEY_BYTES, Key};
use risiti_wire::{Currency, WireError, validate_terminal_id};

use crate::check::Check;
use crate::limits::{
    APN_BYTES_MAX, APN_LOGIN_BYTES_MAX, HOST_BYTES_MAX, SETTINGS_BYTES_MAX, TITLE_BYTES_MAX,
    TOKEN_BYTES_MAX, TOPIC_TEMPLATE_BYTES_MAX,
};
use crate::modem::Network;

const MAGIC: [u8; 4] = *b"RSET";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 7;
const CRC_BYTES: usize = 4;
const KEYS: u64 = 16;
/// And with those of sealing.
const KEYS_SEALED: u64 = 19;
/// And if the terminal makes those itself: their generation, and that it does.
const KEYS_OWN: u64 = 18;

/// Local time is up to so many minutes west of UTC: what key 16 counts from.
const WEST_MINUTES_MAX: i16 = 720;

/// And up to so many east (Kiribati).
const EAST_MINUTES_MAX: i16 = 840;

/// Stands for the terminal's id in the template of a topic.
const ID: &str = "{id}";

/// A topic name around the terminal's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic<'a> {
    /// What stands before the id.
    pub before: &'a str,
    /// What stands behind it.
    pub behind: &'a str,
}

impl<'a> Topic<'a> {
    /// From a template of the gateway's configuration (`[terminals]`), such as
    /// `t/{id}/records`. None without `{id}`, or with what no topic name may hold.
    #[must_use]
    pub fn from_template(template: &'a str) -> Option<Self> {
        // Not `split_once`, whose search for any text is a kilobyte of flash.
        let mut places = template.as_bytes().windows(ID.len());
        let at = places.position(|bytes| bytes == ID.as_bytes())?;
        let (before, rest) = template.split_at_checked(at)?;
        let behind = rest.strip_prefix(ID)?;
        let topic = Self { before, behind };
        topic.is_valid().then_some(topic)
    }

    fn is_valid(&self) -> bool {
        // No wildcard and no control; the rest of ASCII may stand in a topic name.
        let fits = |byte: u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'+' | b'#');
        self.len(ID) <= TOPIC_TEMPLATE_BYTES_MAX
            && self.before.bytes().chain(self.behind.bytes()).all(fits)
    }

    /// Bytes of the name for this id.
    #[must_use]
    pub fn len(&self, id: &str) -> usize {
        self.before.len() + id.len() + self.behind.len()
    }

    /// Whether this is the name for this id.
    #[must_use]
    pub fn is(&self, id: &str, name: &[u8]) -> bool {
        name.strip_prefix(self.before.as_bytes())
            .and_then(|name| name.strip_suffix(self.behind.as_bytes()))
            == Some(id.as_bytes())
    }
}

/// What a terminal seals its records and opens its receipts with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealKeys<'a> {
    /// Which keys of this terminal they are, from 1.
    pub generation: u8,
    /// For records.
    pub record: &'a [u8; KEY_BYTES],
    /// For receipts.
    pub receipt: &'a [u8; KEY_BYTES],
}

impl SealKeys<'_> {
    /// The key for one direction.
    ///
    /// # Errors
    /// The generation is 0, which settings that were decoded never have.
    pub fn key(&self, direction: Direction) -> Result<Key, WireError> {
        let bytes = match direction {
            Direction::Up => self.record,
            Direction::Down => self.receipt,
        };
        Key::new(direction, self.generation, *bytes)
    }
}

impl core::fmt::Debug for SealKeys<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "generation {}", self.generation)
    }
}

/// What a terminal was provisioned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings<'a> {
    /// The terminal's id: its MQTT client identifier, and part of its topics.
    pub id: &'a str,
    /// The gateway's host, name or address.
    pub host: &'a str,
    /// The gateway's port.
    pub port: u16,
    /// Sent as MQTT password; empty: none is sent.
    pub token: &'a [u8],
    /// Access point of the network.
    pub apn: &'a str,
    /// Its user; empty: it asks for none.
    pub apn_user: &'a str,
    /// The user's password.
    pub apn_password: &'a str,
    /// What payments are made in, ISO 4217 numeric; 999: none.
    pub currency: u16,
    /// Stands at the head of receipts.
    pub title: &'a str,
    /// Where records are published.
    pub records: Topic<'a>,
    /// Where receipts come.
    pub receipts: Topic<'a>,
    /// Where the terminal's report of itself stands.
    pub status: Topic<'a>,
    /// How long a terminal stays connected for a receipt after the last packet
    /// that mattered, in milliseconds. A second costs about a joule, another
    /// connection ten.
    pub patience_ms: u16,
    /// How long a record may be without receipt before it is sent again although
    /// a gateway has it, in seconds; doubled each time up to a day.
    pub resend_after_s: u32,
    /// No radio below this voltage, in millivolts: a burst of 2 A would pull the
    /// processor down with it.
    pub battery_mv_min: u16,
    /// Local time on display and paper: minutes east of UTC, -720 to 840.
    pub utc_offset_minutes: i16,
    /// None: records go as they are, and receipts are taken as they come; unless the
    /// terminal makes its own keys.
    pub seal: Option<SealKeys<'a>>,
    /// The terminal makes its keys itself, of this generation, and keeps them in its
    /// [`vault`](crate::vault); until it has them it seals nothing and sends nothing.
    pub own_keys: Option<u8>,
}

/// A setting, by its name in [`Settings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Setting {
    Id,
    Host,
    Port,
    Token,
    Apn,
    ApnUser,
    ApnPassword,
    Currency,
    Title,
    Topic,
    Pace,
    UtcOffset,
    Seal,
}

/// Why bytes are no settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsError {
    /// Blank flash: provision the terminal.
    Blank,
    /// Something else stands there: provision the terminal.
    NotSettings,
    /// Written by a later version: update the firmware.
    UnknownVersion(u8),
    /// Cut short, or a bit has flipped: provision the terminal again.
    Damaged,
    /// This setting is absent, out of bounds or of a wrong type.
    Invalid(Setting),
    /// The buffer is too small; [`SETTINGS_BYTES_MAX`] bytes suffice.
    BufferTooSmall,
}

impl Default for Settings<'_> {
    /// All that has a default; who and where are still empty.
    fn default() -> Self {
        let topic = |behind| Topic {
            before: "t/",
            behind,
        };
        Self {
            id: "",
            host: "",
            port: 1883,
            token: &[],
            apn: "",
            apn_user: "",
            apn_password: "",
            currency: 999,
            title: "",
            records: topic("/records"),
            receipts: topic("/receipts"),
            status: topic("/status"),
            patience_ms: 5_000,
            resend_after_s: 4 * 3_600,
            battery_mv_min: 3_500,
            utc_offset_minutes: 0,
            seal: None,
            own_keys: None,
        }
    }
}

impl<'a> Settings<'a> {
    /// Reads settings from the head of `bytes`.
    ///
    /// # Errors
    /// By what is to be done; see [`SettingsError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SettingsError> {
        let (head, rest) = bytes
            .split_at_checked(HEAD_BYTES)
            .ok_or(SettingsError::Damaged)?;
        let [m0, m1, m2, m3, version, high, low] = *head else {
            return Err(SettingsError::Damaged);
        };
        let magic = [m0, m1, m2, m3];
        if magic == [0xff; 4] {
            return Err(SettingsError::Blank);
        } else if magic != MAGIC {
            return Err(SettingsError::NotSettings);
        } else if version != VERSION {
            // Where a later version has its checksum is not known here.
            return Err(SettingsError::UnknownVersion(version));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > SETTINGS_BYTES_MAX - HEAD_BYTES - CRC_BYTES {
            return Err(SettingsError::Damaged);
        }
        let (map, rest) = rest
            .split_at_checked(length)
            .ok_or(SettingsError::Damaged)?;
        let sum = rest
            .first_chunk::<CRC_BYTES>()
            .ok_or(SettingsError::Damaged)?;
        if u32::from_be_bytes(*sum) != checksum(head, map) {
            return Err(SettingsError::Damaged);
        }
        let settings = Self::read(map)?;
        settings.check()?;
        Ok(settings)
    }

    /// Writes settings, and returns how many bytes they take: at most
    /// [`SETTINGS_BYTES_MAX`].
    ///
    /// # Errors
    /// [`SettingsError::Invalid`], or `BufferTooSmall`.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, SettingsError> {
        self.check()?;
        let (head, rest) = buffer
            .split_at_mut_checked(HEAD_BYTES)
            .ok_or(SettingsError::BufferTooSmall)?;
        let mut encoder = Encoder::new(Cursor::new(&mut *rest));
        self.write(&mut encoder)
            .map_err(|_| SettingsError::BufferTooSmall)?;
        let length = encoder.into_writer().position();
        let (map, rest) = rest
            .split_at_mut_checked(length)
            .ok_or(SettingsError::BufferTooSmall)?;
        let short = u16::try_from(length).map_err(|_| SettingsError::BufferTooSmall)?;
        let [high, low] = short.to_be_bytes();
        let [m0, m1, m2, m3] = MAGIC;
        head.copy_from_slice(&[m0, m1, m2, m3, VERSION, high, low]);
        *rest
            .first_chunk_mut()
            .ok_or(SettingsError::BufferTooSmall)? = checksum(head, map).to_be_bytes();
        Ok(HEAD_BYTES + length + CRC_BYTES)
    }

    /// What the modem needs to know.
    #[must_use]
    pub fn network(&self) -> Network<'a> {
        Network {
            apn: self.apn,
            user: self.apn_user,
            password: self.apn_password,
        }
    }

    fn check(&self) -> Result<(), SettingsError> {
        use Setting as S;
        let speakable = |text: &str, bytes_max: usize| {
            // An AT command's string ends at a quote, the command at a control.
            text.len() <= bytes_max && text.bytes().all(|b| matches!(b, 0x20..=0x7e) && b != b'"')
        };
        for (holds, setting) in [
            (validate_terminal_id(self.id).is_ok(), S::Id),
            (
                !self.host.is_empty() && speakable(self.host, HOST_BYTES_MAX),
                S::Host,
            ),
            (self.port > 0, S::Port),
            (self.token.len() <= TOKEN_BYTES_MAX, S::Token),
            (speakable(self.apn, APN_BYTES_MAX), S::Apn),
            (speakable(self.apn_user, APN_LOGIN_BYTES_MAX), S::ApnUser),
            (
                speakable(self.apn_password, APN_LOGIN_BYTES_MAX),
                S::ApnPassword,
            ),
            (Currency::new(self.currency).is_ok(), S::Currency),
            (
                self.title.len() <= TITLE_BYTES_MAX && !self.title.chars().any(char::is_control),
                S::Title,
            ),
            (
                self.records.is_valid() && self.records != self.receipts,
                S::Topic,
            ),
            (
                self.receipts.is_valid() && self.receipts != self.status,
                S::Topic,
            ),
            (
                self.status.is_valid() && self.status != self.records,
                S::Topic,
            ),
            (self.resend_after_s > 0, S::Pace),
            (
                (-WEST_MINUTES_MAX..=EAST_MINUTES_MAX).contains(&self.utc_offset_minutes),
                S::UtcOffset,
            ),
            (self.seal.is_none_or(|seal| seal.generation > 0), S::Seal),
            (
                self.own_keys.is_none_or(|generation| generation > 0),
                S::Seal,
            ),
            (self.seal.is_none() || self.own_keys.is_none(), S::Seal),
        ] {
            if !holds {
                return Err(SettingsError::Invalid(setting));
            }
        }
        Ok(())
    }

    fn read(map: &'a [u8]) -> Result<Self, SettingsError> {
        let mut decoder = Decoder::new(map);
        let mut settings = Self::default();
        let mut seal = ReadSeal::default();
        let entries = decoder.map().ok().flatten().ok_or(SettingsError::Damaged)?;
        let mut last = 0;
        for _ in 0..entries {
            let key = decoder.u8().map_err(|_| SettingsError::Damaged)?;
            if key <= last {
                return Err(SettingsError::Damaged);
            }
            last = key;
            match key {
                17 => seal.generation = Some(byte(&mut decoder)?),
                18 => seal.record = Some(secret(&mut decoder)?),
                19 => seal.receipt = Some(secret(&mut decoder)?),
                20 => seal.own = Some(byte(&mut decoder)?),
                _ => settings.read_entry(key, &mut decoder)?,
            }
        }
        (settings.seal, settings.own_keys) = seal.whole()?;
        if decoder.position() == map.len() {
            Ok(settings)
        } else {
            Err(SettingsError::Damaged)
        }
    }

    fn read_entry(&mut self, key: u8, from: &mut Decoder<'a>) -> Result<(), SettingsError> {
        use Setting as S;
        let topic = |from: &mut Decoder<'a>| {
            Topic::from_template(text(from, S::Topic)?).ok_or(SettingsError::Invalid(S::Topic))
        };
        match key {
            1 => self.id = text(from, S::Id)?,
            2 => self.host = text(from, S::Host)?,
            3 => self.port = short(from, S::Port)?,
            4 => {
                self.token = from.bytes().map_err(|_| SettingsError::Invalid(S::Token))?;
            }
            5 => self.apn = text(from, S::Apn)?,
            6 => self.apn_user = text(from, S::ApnUser)?,
            7 => self.apn_password = text(from, S::ApnPassword)?,
            8 => self.currency = short(from, S::Currency)?,
            9 => self.title = text(from, S::Title)?,
            10 => self.records = topic(from)?,
            11 => self.receipts = topic(from)?,
            12 => self.status = topic(from)?,
            13 => self.patience_ms = short(from, S::Pace)?,
            14 => self.resend_after_s = from.u32().map_err(|_| SettingsError::Invalid(S::Pace))?,
            15 => self.battery_mv_min = short(from, S::Pace)?,
            16 => {
                self.utc_offset_minutes = i16::try_from(short(from, S::UtcOffset)?)
                    .map_err(|_| SettingsError::Invalid(S::UtcOffset))?
                    - WEST_MINUTES_MAX;
            }
            _ => pass_over(from)?,
        }
        Ok(())
    }

    fn write<W: Write>(
        &self,
        to: &mut Encoder<W>,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        to.map(match (self.seal, self.own_keys) {
            (Some(_), _) => KEYS_SEALED,
            (None, Some(_)) => KEYS_OWN,
            (None, None) => KEYS,
        })?;
        to.u8(1)?.str(self.id)?;
        to.u8(2)?.str(self.host)?;
        to.u8(3)?.u16(self.port)?;
        to.u8(4)?.bytes(self.token)?;
        to.u8(5)?.str(self.apn)?;
        to.u8(6)?.str(self.apn_user)?;
        to.u8(7)?.str(self.apn_password)?;
        to.u8(8)?.u16(self.currency)?;
        to.u8(9)?.str(self.title)?;
        for (key, topic) in [(10, self.records), (11, self.receipts), (12, self.status)] {
            // A text in three parts, of one length.
            to.u8(key)?;
            write_head(to, topic.len(ID))?;
            for part in [topic.before, ID, topic.behind] {
                to.writer_mut()
                    .write_all(part.as_bytes())
                    .map_err(minicbor::encode::Error::write)?;
            }
        }
        to.u8(13)?.u16(self.patience_ms)?;
        to.u8(14)?.u32(self.resend_after_s)?;
        to.u8(15)?.u16(self.battery_mv_min)?;
        let from_west = self.utc_offset_minutes + WEST_MINUTES_MAX;
        to.u8(16)?.u16(from_west.unsigned_abs())?;
        if let Some(seal) = &self.seal {
            to.u8(17)?.u8(seal.generation)?;
            to.u8(18)?.bytes(seal.record)?;
            to.u8(19)?.bytes(seal.receipt)?;
        } else if let Some(generation) = self.own_keys {
            to.u8(17)?.u8(generation)?;
            to.u8(20)?.u8(OWN)?;
        }
        Ok(())
    }
}

/// Key 20 says this or nothing.
const OWN: u8 = 1;

/// What was read of the keys: all of it, or nothing.
#[derive(Default)]
struct ReadSeal<'a> {
    generation: Option<u8>,
    record: Option<&'a [u8; KEY_BYTES]>,
    receipt: Option<&'a [u8; KEY_BYTES]>,
    own: Option<u8>,
}

impl<'a> ReadSeal<'a> {
    /// Keys that were given, or the generation of those that the terminal makes.
    fn whole(self) -> Result<(Option<SealKeys<'a>>, Option<u8>), SettingsError> {
        match (self.generation, self.record, self.receipt, self.own) {
            (None, None, None, None) => Ok((None, None)),
            (Some(generation), Some(record), Some(receipt), None) => {
                let keys = SealKeys {
                    generation,
                    record,
                    receipt,
                };
                Ok((Some(keys), None))
            }
            (Some(generation), None, None, Some(OWN)) => Ok((None, Some(generation))),
            // A terminal that is to seal must not go without.
            _ => Err(SettingsError::Invalid(Setting::Seal)),
        }
    }
}

fn byte(from: &mut Decoder<'_>) -> Result<u8, SettingsError> {
    from.u8().map_err(|_| SettingsError::Invalid(Setting::Seal))
}

fn secret<'a>(from: &mut Decoder<'a>) -> Result<&'a [u8; KEY_BYTES], SettingsError> {
    let bytes = from.bytes().ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(SettingsError::Invalid(Setting::Seal))
}

/// The head of a text of at most 255 bytes (RFC 8949 section 3).
fn write_head<W: Write>(
    to: &mut Encoder<W>,
    length: usize,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    let length = u8::try_from(length).unwrap_or(u8::MAX);
    let head = [0x78, length];
    let head = match length {
        0..24 => &[0x60 | length][..],
        _ => &head,
    };
    to.writer_mut()
        .write_all(head)
        .map_err(minicbor::encode::Error::write)
}

fn text<'a>(from: &mut Decoder<'a>, setting: Setting) -> Result<&'a str, SettingsError> {
    from.str().map_err(|_| SettingsError::Invalid(setting))
}

fn short(from: &mut Decoder<'_>, setting: Setting) -> Result<u16, SettingsError> {
    from.u16().map_err(|_| SettingsError::Invalid(setting))
}

fn pass_over(from: &mut Decoder<'_>) -> Result<(), SettingsError> {
    // The major type (RFC 8949 section 3.1).
    let first = from.input().get(from.position());
    let passed = match first.map(|first| first >> 5) {
        Some(0) => from.u64().map(drop),
        Some(2) => from.bytes().map(drop),
        Some(3) => from.str().map(drop),
        _ => return Err(SettingsError::Damaged),
    };
    passed.map_err(|_| SettingsError::Damaged)
}

fn checksum(head: &[u8], map: &[u8]) -> u32 {
    let mut check = Check::new();
    check.update(head);
    check.update(map);
    check.finish()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;
    use std::{format, vec};

    use super::*;

    fn largest() -> Settings<'static> {
        // 63 letters; slices of it are texts of any length up to that.
        const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk";
        const HOST: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl";
        let topic = |behind: &'static str| Topic {
            before: &LETTERS[..35],
            behind,
        };
        Settings {
            id: &LETTERS[..23],
            host: HOST,
            port: u16::MAX,
            token: &[0xff; TOKEN_BYTES_MAX],
            apn: LETTERS,
            apn_user: &LETTERS[..32],
            apn_password: &LETTERS[..32],
            currency: 999,
            title: &LETTERS[..32],
            records: topic("a"),
            receipts: topic("b"),
            status: topic("c"),
            patience_ms: u16::MAX,
            resend_after_s: u32::MAX,
            battery_mv_min: u16::MAX,
            utc_offset_minutes: 840,
            seal: Some(SealKeys {
                generation: 255,
                record: &[0xa1; KEY_BYTES],
                receipt: &[0xb2; KEY_BYTES],
            }),
            own_keys: None,
        }
    }

    fn usual() -> Settings<'static> {
        Settings {
            id: "t-000017",
            host: "gw.example",
            apn: "internet",
            currency: 404,
            title: "SACCO",
            ..Settings::default()
        }
    }

    #[test]
    fn settings_come_back_as_they_went_whatever_follows() {
        let own = Settings {
            own_keys: Some(7),
            ..usual()
        };
        for settings in [usual(), largest(), own] {
            let mut page = [0xff; 4096];
            let bytes = settings.encode(&mut page).unwrap();
            assert!(bytes <= SETTINGS_BYTES_MAX, "{bytes}");
            assert_eq!(Settings::decode(&page), Ok(settings));
            assert_eq!(Settings::decode(&page[..bytes]), Ok(settings));
        }
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let mut page = [0xff; SETTINGS_BYTES_MAX];
        let bytes = usual().encode(&mut page).unwrap();
        for cut in 0..bytes {
            assert!(Settings::decode(&page[..cut]).is_err(), "{cut}");
        }
        for bit in 0..bytes * 8 {
            let mut page = page;
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(Settings::decode(&page).is_err(), "{bit}");
        }
    }

    #[test]
    fn what_is_no_settings_is_told_apart() {
        let mut page = [0xff; SETTINGS_BYTES_MAX];
        assert_eq!(Settings::decode(&page), Err(SettingsError::Blank));
        usual().encode(&mut page).unwrap();
        page[4] = 2;
        assert_eq!(
            Settings::decode(&page),
            Err(SettingsError::UnknownVersion(2))
        );
        page[0] = 0;
        assert_eq!(Settings::decode(&page), Err(SettingsError::NotSettings));
    }

    #[test]
    fn what_an_at_command_or_a_topic_could_not_hold_is_refused() {
        use Setting as S;
        let topic = |behind| Topic {
            before: "t/",
            behind,
        };
        let with = |change: fn(&mut Settings<'static>)| {
            let mut settings = usual();
            change(&mut settings);
            settings
        };
        for (settings, setting) in [
            (with(|s| s.id = "a/b"), S::Id),
            (with(|s| s.host = ""), S::Host),
            (with(|s| s.host = "x\";+CFUN=0"), S::Host),
            (with(|s| s.apn = "a\r\nATH"), S::Apn),
            (with(|s| s.apn_user = "\""), S::ApnUser),
            (with(|s| s.apn_password = "\n"), S::ApnPassword),
            (with(|s| s.currency = 0), S::Currency),
            (with(|s| s.title = "\u{1b}@"), S::Title),
            (with(|s| s.port = 0), S::Port),
            (with(|s| s.resend_after_s = 0), S::Pace),
            (with(|s| s.utc_offset_minutes = 841), S::UtcOffset),
            (with(|s| s.utc_offset_minutes = -721), S::UtcOffset),
            (
                with(|s| {
                    s.seal = Some(SealKeys {
                        generation: 0,
                        record: &[0; KEY_BYTES],
                        receipt: &[0; KEY_BYTES],
                    });
                }),
                S::Seal,
            ),
            (with(|s| s.records = s.receipts), S::Topic),
            (
                Settings {
                    status: topic("/#"),
                    ..usual()
                },
                S::Topic,
            ),
        ] {
            let refused = Err(SettingsError::Invalid(setting));
            assert_eq!(settings.encode(&mut [0; 512]), refused, "{setting:?}");
        }
    }

    #[test]
    fn a_later_key_is_passed_over_and_a_key_out_of_order_is_not() {
        let sealed = |map: &[u8]| {
            let mut bytes = [&MAGIC[..], &[VERSION, 0, map.len() as u8]].concat();
            let sum = checksum(&bytes, map);
            bytes.extend_from_slice(map);
            bytes.extend_from_slice(&sum.to_be_bytes());
            bytes
        };
        let later = sealed(b"\xa4\x01\x61a\x02\x61h\x18\x20\x19\x01\x00\x18\x21\x41x");
        let settings = Settings::decode(&later).unwrap();
        assert_eq!(
            (settings.id, settings.host, settings.port),
            ("a", "h", 1883)
        );
        let twice = sealed(b"\xa3\x01\x61a\x02\x61h\x02\x61h");
        assert_eq!(Settings::decode(&twice), Err(SettingsError::Damaged));
    }

    #[test]
    fn keys_of_sealing_are_all_there_or_none_and_are_not_shown() {
        let block = |map: &[u8]| {
            let mut bytes = [&MAGIC[..], &[VERSION, 0, map.len() as u8]].concat();
            let sum = checksum(&bytes, map);
            bytes.extend_from_slice(map);
            bytes.extend_from_slice(&sum.to_be_bytes());
            bytes
        };
        let who = b"\x01\x61a\x02\x61h";
        let key = [&[0x50][..], &[0x5a; 16]].concat();
        let parts = [
            vec![0x11, 2],
            [&[0x12][..], &key].concat(),
            [&[0x13][..], &key].concat(),
        ];
        for present in 0..8_u8 {
            let some: Vec<&Vec<u8>> = (0..3)
                .filter(|part| present & 1 << part != 0)
                .map(|part| &parts[part])
                .collect();
            let mut map = vec![0xa2 + some.len() as u8];
            map.extend_from_slice(who);
            some.iter().for_each(|part| map.extend_from_slice(part));
            let bytes = block(&map);
            let seal = Settings::decode(&bytes).map(|settings| settings.seal.is_some());
            match present {
                0 => assert_eq!(seal, Ok(false)),
                7 => assert_eq!(seal, Ok(true)),
                _ => assert_eq!(seal, Err(SettingsError::Invalid(Setting::Seal))),
            }
        }
        // A key that is too short.
        let short = [&b"\xa5\x01\x61a\x02\x61h\x11\x02\x12\x41x"[..], &parts[2]].concat();
        let refused = Err(SettingsError::Invalid(Setting::Seal));
        assert_eq!(Settings::decode(&block(&short)), refused);
        let shown = format!("{:?}", largest().seal.unwrap());
        assert_eq!(shown, "generation 255");
    }

    #[test]
    fn keys_are_given_or_made_by_the_terminal_and_never_both() {
        let key = [&[0x50][..], &[0x5a; 16]].concat();
        let parts = [
            vec![0x11, 2],
            [&[0x12][..], &key].concat(),
            [&[0x13][..], &key].concat(),
            vec![0x14, 1],
        ];
        let decoded = |parts: &[&Vec<u8>]| {
            let mut map = vec![0xa2 + parts.len() as u8];
            map.extend_from_slice(b"\x01\x61a\x02\x61h");
            parts.iter().for_each(|part| map.extend_from_slice(part));
            let mut bytes = [&MAGIC[..], &[VERSION, 0, map.len() as u8]].concat();
            let sum = checksum(&bytes, &map);
            bytes.extend_from_slice(&map);
            bytes.extend_from_slice(&sum.to_be_bytes());
            Settings::decode(&bytes).map(|settings| (settings.seal.is_some(), settings.own_keys))
        };
        let refused = Err(SettingsError::Invalid(Setting::Seal));
        for present in 0..16_u8 {
            let some: Vec<&Vec<u8>> = (0..4)
                .filter(|part| present & 1 << part != 0)
                .map(|part| &parts[part])
                .collect();
            let expected = match present {
                0b0000 => Ok((false, None)),
                0b0111 => Ok((true, None)),
                0b1001 => Ok((false, Some(2))),
                _ => refused,
            };
            assert_eq!(decoded(&some), expected, "{present:04b}");
        }
        // Neither no nor anything else that a later version may mean; no generation 0.
        for other in [vec![0x14, 0], vec![0x14, 2], vec![0x14, 0x41, 1]] {
            assert_eq!(decoded(&[&parts[0], &other]), refused);
        }
        assert_eq!(decoded(&[&vec![0x11, 0], &parts[3]]), refused);
        let both = Settings {
            own_keys: Some(255),
            ..largest()
        };
        assert_eq!(both.encode(&mut [0; 1024]).map(drop), refused.map(drop));
    }

    #[test]
    fn a_template_is_the_gateways() {
        let topic = Topic::from_template("t/{id}/records").unwrap();
        assert_eq!(topic, Settings::default().records);
        assert!(topic.is("a-1", b"t/a-1/records"));
        assert!(!topic.is("a-1", b"t/a-2/records"));
        assert!(!topic.is("a", b"t/records"));
        assert_eq!(topic.len("a-1"), "t/a-1/records".len());
        assert_eq!(Topic::from_template("t/records"), None);
        assert_eq!(Topic::from_template("t/+/{id}"), None);
    }
}
