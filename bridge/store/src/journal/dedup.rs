//! Recognises resends (G2), by client. A core: no clock, no file.
//!
//! Promises: what it calls a duplicate was accepted before (for a plain client:
//! up to a 48-bit digest). A terminal that starts its numbers over is not
//! swallowed. Learning a record twice changes nothing, so that a checkpoint may
//! be newer than the position it is filed under.
//!
//! A client's state as it is kept in the state database, big-endian:
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 1 | sequence windows w: 0, 1 (main) or 2 (main, low) |
//! | 40 w | highest sequence number (8), bitmap of it and the 255 below (32) |
//! | 2 | publications p |
//! | 8 p | packet identifier (2), digest (6), oldest first |

use std::collections::VecDeque;

use bytes::{Buf, BufMut};
use xxhash_rust::xxh3::Xxh3;

use crate::limits::{PACKETS_MAX, SEQUENCE_WINDOW};
use crate::record::{Identity, NewRecord};

const VERSION: u8 = 1;
const WORDS: usize = (SEQUENCE_WINDOW / 64) as usize;

/// What a record is, as far as its client's state tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    New,
    /// New, although its number is below the window: a terminal that was reset.
    NewBelowWindow,
    Duplicate,
    /// Not looked up: it can't be stored at all.
    TooLarge,
}

/// The sequence numbers seen: the highest and a bitmap of those below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    highest: u64,
    /// Bit i: `highest - i` was seen.
    seen: [u64; WORDS],
}

impl Window {
    fn at(sequence: u64) -> Self {
        let mut seen = [0; WORDS];
        seen[0] = 1;
        Self {
            highest: sequence,
            seen,
        }
    }

    /// `None`: below the window.
    fn contains(&self, sequence: u64) -> Option<bool> {
        if sequence > self.highest {
            return Some(false);
        }
        let back = self.highest - sequence;
        if back >= SEQUENCE_WINDOW {
            return None;
        }
        Some(self.seen[(back / 64) as usize] >> (back % 64) & 1 == 1)
    }

    fn learn(&mut self, sequence: u64) {
        if sequence > self.highest {
            let shift = sequence - self.highest;
            let old = self.seen;
            self.seen = [0; WORDS];
            if shift < SEQUENCE_WINDOW {
                let (words, bits) = ((shift / 64) as usize, shift % 64);
                for word in words..WORDS {
                    self.seen[word] = old[word - words] << bits;
                    if bits > 0 && word > words {
                        self.seen[word] |= old[word - words - 1] >> (64 - bits);
                    }
                }
            }
            self.highest = sequence;
        }
        let back = self.highest - sequence;
        if back < SEQUENCE_WINDOW {
            self.seen[(back / 64) as usize] |= 1 << (back % 64);
        }
    }
}

/// What is remembered of one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientState {
    main: Option<Window>,
    /// Numbers below the main window: those of a terminal that was reset.
    low: Option<Window>,
    /// Packet identifier and digest of accepted publications, oldest first.
    packets: VecDeque<(u16, u64)>,
}

impl ClientState {
    /// What this record is; learns nothing.
    pub(crate) fn judge(&self, record: &NewRecord) -> Verdict {
        match record.identity {
            Identity::None
            | Identity::Sequence {
                resend_mark: true, ..
            } => Verdict::New,
            Identity::Sequence { sequence, dup, .. } => self.judge_sequence(sequence, dup),
            Identity::Packet { packet_id, dup } => {
                let known = || self.packets.contains(&(packet_id, digest(record)));
                if dup && known() {
                    Verdict::Duplicate
                } else {
                    Verdict::New
                }
            }
        }
    }

    fn judge_sequence(&self, sequence: u64, dup: bool) -> Verdict {
        let Some(main) = &self.main else {
            return Verdict::New;
        };
        match main.contains(sequence) {
            Some(true) => return Verdict::Duplicate,
            Some(false) => return Verdict::New,
            None => {}
        }
        match self.low.as_ref().and_then(|low| low.contains(sequence)) {
            Some(true) => Verdict::Duplicate,
            Some(false) => Verdict::NewBelowWindow,
            None if dup => Verdict::Duplicate,
            None => Verdict::NewBelowWindow,
        }
    }

    /// Remembers an accepted record.
    pub(crate) fn learn(&mut self, record: &NewRecord) {
        match record.identity {
            Identity::None => {}
            Identity::Sequence { sequence, .. } => self.learn_sequence(sequence),
            Identity::Packet { packet_id, .. } => {
                self.packets.retain(|(id, _)| *id != packet_id);
                if self.packets.len() >= PACKETS_MAX {
                    self.packets.pop_front();
                }
                self.packets.push_back((packet_id, digest(record)));
            }
        }
    }

    fn learn_sequence(&mut self, sequence: u64) {
        let Some(main) = &mut self.main else {
            self.main = Some(Window::at(sequence));
            return;
        };
        if main.contains(sequence).is_some() {
            main.learn(sequence);
            return;
        }
        match &mut self.low {
            Some(low) if low.contains(sequence).is_some() => low.learn(sequence),
            low => *low = Some(Window::at(sequence)),
        }
    }

    /// The client's session was discarded: its packet identifiers start over.
    pub(crate) fn forget_packets(&mut self) {
        self.packets.clear();
    }

    /// Whether nothing is remembered: the same as no state at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.main.is_none() && self.packets.is_empty()
    }

    /// Publications remembered.
    pub(crate) fn packets(&self) -> usize {
        self.packets.len()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let windows: Vec<&Window> = self.main.iter().chain(&self.low).collect();
        let mut bytes = Vec::with_capacity(4 + windows.len() * 40 + self.packets.len() * 8);
        bytes.put_u8(VERSION);
        bytes.put_u8(windows.len() as u8);
        for window in windows {
            bytes.put_u64(window.highest);
            for word in window.seen {
                bytes.put_u64(word);
            }
        }
        bytes.put_u16(self.packets.len() as u16);
        for (packet_id, digest) in &self.packets {
            bytes.put_u16(*packet_id);
            bytes.put_slice(&digest.to_be_bytes()[2..]);
        }
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 4 || bytes.get_u8() != VERSION {
            return None;
        }
        let windows = usize::from(bytes.get_u8());
        if windows > 2 || bytes.len() < windows * 40 + 2 {
            return None;
        }
        let mut state = Self::default();
        for slot in [&mut state.main, &mut state.low].into_iter().take(windows) {
            let highest = bytes.get_u64();
            let mut seen = [0; WORDS];
            seen.fill_with(|| bytes.get_u64());
            *slot = Some(Window { highest, seen });
        }
        let packets = usize::from(bytes.get_u16());
        if packets > PACKETS_MAX || bytes.len() != packets * 8 {
            return None;
        }
        for _ in 0..packets {
            let word = bytes.get_u64();
            state
                .packets
                .push_back(((word >> 48) as u16, word & DIGEST_MASK));
        }
        Some(state)
    }
}

const DIGEST_MASK: u64 = (1 << 48) - 1;

fn digest(record: &NewRecord) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&(record.topic.len() as u64).to_be_bytes());
    hasher.update(&record.topic);
    hasher.update(&record.payload);
    hasher.digest() & DIGEST_MASK
}

#[cfg(test)]
mod tests;
