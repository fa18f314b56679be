//! What a terminal says of itself, retained on its status topic.
//!
//! Promises: one report has exactly one encoding, what decodes is within every
//! bound of [`limits`](crate::limits), and no input panics. Never: a word about a
//! payment, or anything that only the terminal could put right at once: it is read
//! hours later.
//!
//! # Format, version 1
//!
//! The payload is one CBOR array of unsigned integers (RFC 8949, in its shortest
//! form), with nothing after it:
//!
//! | element | bits | meaning |
//! | --- | --- | --- |
//! | version | | 1 |
//! | firmware | 32 | major × 65536 + minor × 256 + patch |
//! | time | 32 | when it was sent, seconds since 1970-01-01 UTC; 0 = not known |
//! | battery | 16 | millivolts |
//! | signal | | 0 to 31 (3GPP TS 27.007, 8.5), or null: not known |
//! | starts | 32 | how often the terminal has started |
//! | saved | 32 | records saved |
//! | waiting | 32 | records without receipt now |
//! | unprinted | 32 | receipts not on paper now |
//! | damaged | 32 | slots of its flash that hold neither a message nor nothing |
//! | torn | 32 | writes found cut at the last start |
//! | sessions | 32 | connections to a gateway |
//! | up, down | 32 each | bytes of MQTT sent and received |
//! | radio | 32 | seconds with the modem powered |
//! | energy | 32 | joules that the modem took |
//!
//! Counters that are full stay full. [`LOST`], a single null, is the will: the
//! connection on which the terminal reported ended without its leave. A terminal
//! reports again then, so it stands only as long as the terminal is away.

use crate::cbor::{Reader, Writer};
use crate::error::{Field, WireError};
use crate::limits::SIGNAL_MAX;

/// The version of birth messages that this crate writes and reads.
pub const BIRTH_VERSION: u8 = 1;

/// The will's payload: CBOR null.
pub const LOST: [u8; 1] = [0xf6];

const ELEMENTS: u64 = 16;

/// A terminal's report; see the table of its format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of the format's table
pub struct Birth {
    /// Major × 65536 + minor × 256 + patch.
    pub firmware: u32,
    /// Seconds since 1970 UTC; 0 = not known.
    pub time_s: u32,
    pub battery_mv: u16,
    /// At most [`SIGNAL_MAX`].
    pub signal: Option<u8>,
    pub starts: u32,
    pub saved: u32,
    pub waiting: u32,
    pub unprinted: u32,
    pub damaged: u32,
    pub torn: u32,
    pub sessions: u32,
    pub up_bytes: u32,
    pub down_bytes: u32,
    pub radio_s: u32,
    pub energy_j: u32,
}

/// What stands on a status topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The terminal's own words.
    Reported(Birth),
    /// It went away while it reported.
    Lost,
}

impl Standing {
    /// Reads the payload of a status topic.
    ///
    /// # Errors
    /// Those of [`Birth::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes == LOST {
            return Ok(Self::Lost);
        }
        Birth::decode(bytes).map(Self::Reported)
    }
}

impl Birth {
    /// Reads a report.
    ///
    /// # Errors
    /// [`WireError::UnknownVersion`] for a version that is not known; else the
    /// first field that is wrong, and why.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let elements = reader.array(Field::Message, 0..=u64::MAX)?;
        // The version rules the rest, its number of elements too.
        let version = reader.uint(Field::Version, 0..=u64::MAX)?;
        if version != u64::from(BIRTH_VERSION) {
            return Err(WireError::UnknownVersion { version });
        }
        if elements != ELEMENTS {
            return Err(WireError::WrongType(Field::Message));
        }
        let mut birth = Self {
            firmware: word(&mut reader, Field::Firmware)?,
            time_s: word(&mut reader, Field::Time)?,
            battery_mv: reader
                .uint(Field::Battery, 0..=u16::MAX.into())?
                .try_into()
                .map_err(|_| WireError::OutOfRange(Field::Battery))?,
            ..Self::default()
        };
        if !reader.take_null(Field::Signal)? {
            let signal = reader.uint(Field::Signal, 0..=SIGNAL_MAX.into())?;
            birth.signal = u8::try_from(signal).ok();
        }
        for counter in birth.counters_mut() {
            *counter = word(&mut reader, Field::Counter)?;
        }
        reader.finish()?;
        Ok(birth)
    }

    /// Writes a report into a buffer and returns what was written;
    /// [`BIRTH_BYTES_MAX`](crate::limits::BIRTH_BYTES_MAX) bytes suffice.
    ///
    /// # Errors
    /// `OutOfRange` for the signal, or `BufferTooSmall`.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], WireError> {
        let mut writer = Writer::new(buffer);
        writer
            .array(ELEMENTS)?
            .uint(BIRTH_VERSION.into())?
            .uint(self.firmware.into())?
            .uint(self.time_s.into())?
            .uint(self.battery_mv.into())?;
        match self.signal {
            None => writer.null()?,
            Some(signal) if signal <= SIGNAL_MAX => writer.uint(signal.into())?,
            Some(_) => return Err(WireError::OutOfRange(Field::Signal)),
        };
        let mut copy = *self;
        for counter in copy.counters_mut() {
            writer.uint((*counter).into())?;
        }
        Ok(writer.finish())
    }

    /// The counters in the order of the format.
    fn counters_mut(&mut self) -> [&mut u32; 11] {
        [
            &mut self.starts,
            &mut self.saved,
            &mut self.waiting,
            &mut self.unprinted,
            &mut self.damaged,
            &mut self.torn,
            &mut self.sessions,
            &mut self.up_bytes,
            &mut self.down_bytes,
            &mut self.radio_s,
            &mut self.energy_j,
        ]
    }
}

fn word(reader: &mut Reader<'_>, field: Field) -> Result<u32, WireError> {
    let value = reader.uint(field, 0..=u32::MAX.into())?;
    u32::try_from(value).map_err(|_| WireError::OutOfRange(field))
}
