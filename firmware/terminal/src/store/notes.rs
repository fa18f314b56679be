//! What the store notes besides records and receipts.
//!
//! Promises: each note says all, so that the newest one that can be read is
//! enough. Never: a note that is changed in place.
//!
//! # Format
//!
//! The body of a note's slot, little endian:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | highest sequence number that is reserved |
//! | 4 | 4 | records: pages with a serial below this hold nothing that waits |
//! | 8 | 4 | receipts: the same |
//! | 12 | 4 | bit 0: subscribed |
//! | 16 | 4 each | starts, saved, printed, sessions |
//! | 32 | 8 each | bytes up, bytes down, radio milliseconds, millijoules |

/// Bytes of a note.
pub(super) const NOTE_BYTES: usize = 64;

const SUBSCRIBED: u32 = 1;

/// What a terminal counts over its whole life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Starts of the firmware.
    pub starts: u32,
    /// Records saved.
    pub saved: u32,
    /// Receipts printed.
    pub printed: u32,
    /// Connections to a gateway.
    pub sessions: u32,
    /// Bytes handed to the modem.
    pub up_bytes: u64,
    /// Bytes from the modem.
    pub down_bytes: u64,
    /// Milliseconds with the modem powered.
    pub radio_ms: u64,
    /// Millijoules of the modem, by its datasheet.
    pub energy_mj: u64,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Note {
    pub(super) reserved: u32,
    /// By ring: records, receipts.
    pub(super) floors: [u32; 2],
    pub(super) subscribed: bool,
    pub(super) counters: Counters,
}

impl Note {
    pub(super) fn encode(&self) -> [u8; NOTE_BYTES] {
        let mut bytes = [0; NOTE_BYTES];
        let (words, longs) = bytes.split_at_mut(32);
        let counters = &self.counters;
        let [records, receipts] = self.floors;
        let short = [
            self.reserved,
            records,
            receipts,
            if self.subscribed { SUBSCRIBED } else { 0 },
            counters.starts,
            counters.saved,
            counters.printed,
            counters.sessions,
        ];
        for (at, value) in words.chunks_exact_mut(4).zip(short) {
            at.copy_from_slice(&value.to_le_bytes());
        }
        let long = [
            counters.up_bytes,
            counters.down_bytes,
            counters.radio_ms,
            counters.energy_mj,
        ];
        for (at, value) in longs.chunks_exact_mut(8).zip(long) {
            at.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8; NOTE_BYTES]) -> Self {
        let (words, longs) = bytes.split_at(32);
        let mut words = words.chunks_exact(4).map(|word| {
            word.iter()
                .rev()
                .fold(0, |all, &byte| all << 8 | u32::from(byte))
        });
        let mut longs = longs.chunks_exact(8).map(|long| {
            long.iter()
                .rev()
                .fold(0, |all, &byte| all << 8 | u64::from(byte))
        });
        let mut word = || words.next().unwrap_or_default();
        let mut long = || longs.next().unwrap_or_default();
        Self {
            reserved: word(),
            floors: [word(), word()],
            subscribed: word() & SUBSCRIBED != 0,
            counters: Counters {
                starts: word(),
                saved: word(),
                printed: word(),
                sessions: word(),
                up_bytes: long(),
                down_bytes: long(),
                radio_ms: long(),
                energy_mj: long(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_as_it_was_written() {
        let note = Note {
            reserved: 0x0102_0304,
            floors: [5, 0xFFFF_FFFE],
            subscribed: true,
            counters: Counters {
                starts: 7,
                saved: 8,
                printed: 9,
                sessions: 10,
                up_bytes: 11,
                down_bytes: 12,
                radio_ms: u64::MAX,
                energy_mj: 13,
            },
        };
        let read = Note::decode(&note.encode());
        assert_eq!(read.reserved, note.reserved);
        assert_eq!(read.floors, note.floors);
        assert!(read.subscribed);
        assert_eq!(read.counters, note.counters);
    }
}
