//! What a terminal says of itself in its birth message.
//!
//! Promises: what does not fit the message's fields is cut to their bounds. Never:
//! a number that the store and the modem have not told.

use risiti_wire::Birth;
use risiti_wire::limits::{BIRTH_BYTES_MAX, SIGNAL_MAX};

use super::FIRMWARE;
use super::visit::{Orders, Outcome};
use crate::mqtt::{Client, Refusal, Transmit};
use crate::settings::Settings;
use crate::store::{Counters, Levels};

pub(super) fn birth(
    orders: &Orders,
    outcome: &Outcome,
    levels: &Levels,
    counters: &Counters,
) -> Birth {
    Birth {
        firmware: FIRMWARE,
        time_s: outcome.network_time_s.unwrap_or(0),
        battery_mv: orders.battery_mv,
        signal: outcome.signal.map(|signal| signal.min(SIGNAL_MAX)),
        starts: counters.starts,
        saved: counters.saved,
        waiting: levels.waiting,
        unprinted: levels.to_print,
        damaged: levels.damaged.into(),
        torn: levels.torn.into(),
        sessions: counters.sessions,
        up_bytes: full(counters.up_bytes),
        down_bytes: full(counters.down_bytes),
        radio_s: thousandth(counters.radio_ms),
        energy_j: thousandth(counters.energy_mj),
    }
}

/// Not a part of an errand's future, whose memory would hold the bytes as long as it waits.
#[inline(never)]
pub(super) fn report(
    client: &mut Client,
    now_ms: u64,
    settings: &Settings<'_>,
    birth: &Birth,
    to: &mut Transmit,
) -> Result<(), Refusal> {
    let mut buffer = [0; BIRTH_BYTES_MAX];
    // What is out of bounds was cut; the buffer is as large as the largest.
    let bytes = birth.encode(&mut buffer).map_err(|_| Refusal::TooLarge)?;
    client.report(now_ms, settings, bytes, to)
}

fn full(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Without a division of 64 bits, which costs more flash than it is worth: after
/// 49 days of radio in all the low word is full, so 1,024ths come first.
fn thousandth(count: u64) -> u32 {
    match u32::try_from(count) {
        Ok(count) => count / 1_000,
        Err(_) => {
            let halves = full(count >> 10);
            halves.saturating_add(halves / 1_000 * 24)
        }
    }
}
