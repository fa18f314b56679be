//! The recorder's bytes.
//!
//! Promises: what is written reads back the same; any other bytes are refused by
//! the checksum or by an entry's own bounds. Never: a panic, whatever the bytes.
//!
//! A segment file is a row of frames. Format version 1, integers little-endian:
//!
//! | frame | bytes | |
//! | --- | --- | --- |
//! | magic | 4 | `RsTr` |
//! | version | 1 | 1 |
//! | length | 4 | bytes of the entries |
//! | checksum | 4 | CRC-32C of base and entries |
//! | base | 8 | a time, Unix ms; the entries' times are differences from it |
//! | entries | length | one behind the other |
//!
//! *n* is an unsigned LEB128 number, *t* a time as zigzag LEB128 difference.
//!
//! | entry | | |
//! | --- | --- | --- |
//! | length | n | bytes that follow |
//! | terminal | 1 + up to 64 | length, then the id; length 0: the entry is a topic |
//! | sequence | n | of the record |
//! | kind | 1 | the step, below; others are skipped |
//! | at | t | when |
//! | fields | | by kind |
//!
//! A topic entry is the length, a byte 0 and the name of a Kafka topic: that of the
//! forwarded entries behind it in its frame.
//!
//! | kind | fields |
//! | --- | --- |
//! | 1 durable | received t, position n, resend 1 byte |
//! | 2 forwarded | partition n, offset n |
//! | 3 stored | partition n, offset n, settled t, number n, status n |
//! | 4 sent | number n, again 1 byte |
//! | 5 acknowledged | number n |
//! | 6 expired | number n |
//! | 7 dead | |

use super::{Event, Passed, Step};
use crate::limits;

/// Begins every frame.
pub(super) const MAGIC: [u8; 4] = *b"RsTr";
const VERSION: u8 = 1;
/// Bytes before the entries.
pub(super) const HEADER_BYTES: usize = 21;
/// Bytes of any entry with its length.
const ENTRY_BYTES_MAX: usize = 512;
/// Bytes of any frame: the entry that fills one may run over its aim.
pub(super) const FRAME_BYTES_MAX: usize =
    HEADER_BYTES + limits::TRACE_FRAME_BYTES + ENTRY_BYTES_MAX;

/// Frames that are being filled, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Where the frame that is being filled begins.
    frame: usize,
    base_ms: u64,
    topic: String,
    entry: Vec<u8>,
}

impl Frames {
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            entry: Vec::with_capacity(ENTRY_BYTES_MAX),
            ..Self::default()
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds an entry; `false` if the frames together would pass `bytes_max`, or
    /// if it has a name that is too long to be a terminal's or a topic's.
    pub fn add(
        &mut self,
        at_ms: u64,
        terminal: &str,
        sequence: u64,
        step: Step<&str>,
        bytes_max: usize,
    ) -> bool {
        let named = match step {
            Step::Forwarded { topic, .. } => topic.len() <= limits::TRACE_TOPIC_BYTES_MAX,
            _ => true,
        };
        let room = self.bytes.len() + HEADER_BYTES + ENTRY_BYTES_MAX <= bytes_max;
        let known = (1..=limits::TRACE_TERMINAL_BYTES_MAX).contains(&terminal.len());
        if !named || !room || !known {
            return false;
        }
        if self.bytes.is_empty() || self.bytes.len() - self.frame >= limits::TRACE_FRAME_BYTES {
            self.begin(at_ms);
        }
        if let Step::Forwarded { topic, .. } = step
            && topic != self.topic
        {
            put(&mut self.bytes, 1 + topic.len() as u64);
            self.bytes.push(0);
            self.bytes.extend_from_slice(topic.as_bytes());
            topic.clone_into(&mut self.topic);
        }
        self.entry.clear();
        // At most 64, so one byte.
        self.entry.push(terminal.len() as u8);
        self.entry.extend_from_slice(terminal.as_bytes());
        put(&mut self.entry, sequence);
        let base_ms = self.base_ms;
        let fields = &mut self.entry;
        match step {
            Step::Durable {
                received_ms,
                position,
                resend,
            } => {
                fields.push(1);
                put_time(fields, base_ms, at_ms);
                put_time(fields, base_ms, received_ms);
                put(fields, position);
                fields.push(u8::from(resend));
            }
            Step::Forwarded {
                partition, offset, ..
            } => {
                fields.push(2);
                put_time(fields, base_ms, at_ms);
                put(fields, u64::from(partition.cast_unsigned()));
                put(fields, offset.cast_unsigned());
            }
            Step::Stored {
                partition,
                offset,
                settled_ms,
                number,
                status,
            } => {
                fields.push(3);
                put_time(fields, base_ms, at_ms);
                put(fields, u64::from(partition.cast_unsigned()));
                put(fields, offset.cast_unsigned());
                put_time(fields, base_ms, settled_ms);
                put(fields, number);
                put(fields, u64::from(status));
            }
            Step::Sent { number, again } => {
                fields.push(4);
                put_time(fields, base_ms, at_ms);
                put(fields, number);
                fields.push(u8::from(again));
            }
            Step::Acknowledged { number } => {
                fields.push(5);
                put_time(fields, base_ms, at_ms);
                put(fields, number);
            }
            Step::Expired { number } => {
                fields.push(6);
                put_time(fields, base_ms, at_ms);
                put(fields, number);
            }
            Step::Dead => {
                fields.push(7);
                put_time(fields, base_ms, at_ms);
            }
        }
        put(&mut self.bytes, self.entry.len() as u64);
        self.bytes.extend_from_slice(&self.entry);
        true
    }

    fn begin(&mut self, base_ms: u64) {
        self.end_frame();
        self.frame = self.bytes.len();
        self.base_ms = base_ms;
        self.topic.clear();
        self.bytes.extend_from_slice(&MAGIC);
        self.bytes.push(VERSION);
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&base_ms.to_le_bytes());
    }

    /// Notes the length; the checksum is left to [`Self::take_frames`].
    fn end_frame(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let length = (self.bytes.len() - self.frame - HEADER_BYTES) as u32;
        self.bytes[self.frame + 5..self.frame + 9].copy_from_slice(&length.to_le_bytes());
    }

    /// Makes the frames whole and shows each to `write`, then begins anew with
    /// the memory it has.
    pub fn take_frames(&mut self, mut write: impl FnMut(&[u8])) {
        self.end_frame();
        let mut rest = &mut self.bytes[..];
        while rest.len() >= HEADER_BYTES {
            let length = u32_at(rest, 5) as usize;
            let (frame, behind) = rest.split_at_mut(HEADER_BYTES + length);
            let checksum = crc32c::crc32c(&frame[13..]);
            frame[9..13].copy_from_slice(&checksum.to_le_bytes());
            write(frame);
            rest = behind;
        }
        self.bytes.clear();
        self.frame = 0;
    }
}

/// Bytes of the frame that begins here; `None` if there is no whole one.
pub(super) fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC || bytes[4] != VERSION {
        return None;
    }
    let length = HEADER_BYTES.checked_add(u32_at(bytes, 5) as usize)?;
    let frame = bytes.get(..length)?;
    (length <= FRAME_BYTES_MAX && crc32c::crc32c(&frame[13..]) == u32_at(bytes, 9))
        .then_some(length)
}

/// The time in the header of a whole frame.
pub(super) fn base_ms(frame: &[u8]) -> u64 {
    frame
        .get(13..21)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Shows the events in a whole frame to `event`: of each record for which `wanted`
/// says so, with its terminal and sequence number.
pub(super) fn events_in<'a>(
    frame: &'a [u8],
    wanted: impl Fn(&[u8], u64) -> bool,
    mut event: impl FnMut(&'a str, u64, Event),
) {
    let base_ms = base_ms(frame);
    let mut topic = "";
    let mut rest = Reader(frame.get(HEADER_BYTES..).unwrap_or_default());
    while !rest.0.is_empty() {
        let Some(mut entry) = rest
            .number()
            .and_then(|length| rest.take(length))
            .map(Reader)
        else {
            return;
        };
        let name = entry.name().unwrap_or_default();
        if name.is_empty() {
            topic = std::str::from_utf8(entry.0).unwrap_or_default();
            continue;
        }
        let Some(sequence) = entry.number().filter(|number| wanted(name, *number)) else {
            continue;
        };
        let terminal = std::str::from_utf8(name);
        if let (Ok(terminal), Some(found)) = (terminal, entry.event(base_ms, topic)) {
            event(terminal, sequence, found);
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(u64::from(length))
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn time(&mut self, base_ms: u64) -> Option<u64> {
        let zigzag = self.number()?;
        let difference = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
        Some(base_ms.wrapping_add_signed(difference))
    }

    fn event(&mut self, base_ms: u64, topic: &str) -> Option<Event> {
        let kind = self.byte()?;
        let at_ms = self.time(base_ms)?;
        let step = match kind {
            1 => Passed::Durable {
                received_ms: self.time(base_ms)?,
                position: self.number()?,
                resend: self.byte()? != 0,
            },
            2 => Passed::Forwarded {
                topic: topic.to_owned(),
                partition: u32::try_from(self.number()?).ok()?.cast_signed(),
                offset: self.number()?.cast_signed(),
            },
            3 => Passed::Stored {
                partition: u32::try_from(self.number()?).ok()?.cast_signed(),
                offset: self.number()?.cast_signed(),
                settled_ms: self.time(base_ms)?,
                number: self.number()?,
                status: u16::try_from(self.number()?).ok()?,
            },
            4 => Passed::Sent {
                number: self.number()?,
                again: self.byte()? != 0,
            },
            5 => Passed::Acknowledged {
                number: self.number()?,
            },
            6 => Passed::Expired {
                number: self.number()?,
            },
            7 => Passed::Dead,
            _ => return None,
        };
        Some(Event { at_ms, step })
    }
}

fn put(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn put_time(into: &mut Vec<u8>, base_ms: u64, at_ms: u64) {
    let difference = at_ms.wrapping_sub(base_ms).cast_signed();
    put(
        into,
        ((difference << 1) ^ (difference >> 63)).cast_unsigned(),
    );
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word: [u8; 4] = bytes[at..at + 4]
        .try_into()
        .expect("the caller looked at the length");
    u32::from_le_bytes(word)
}
