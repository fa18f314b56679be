//! Time, by the dual timer.
//!
//! Promises: right for years, as long as somebody asks at least every 12 hours
//! (the counter wraps); a sleeper wakes within a tick of 10.24 µs. Never: a tick
//! interrupt; the processor sleeps until the next deadline.

use core::cell::Cell;
use core::future::poll_fn;
use core::task::Poll;

use critical_section::Mutex;
use risiti_terminal::hardware;

use crate::registers::{pace, timer};

/// The alarm is set no further ahead, so that its ticks fit 32 bits.
const ALARM_MS_MAX: u32 = 300_000;

/// A millisecond is 97.65625 ticks: 3,125 parts, of which a tick has 32.
const PARTS_TICK: u32 = 32;
const PARTS_MS: u32 = 3_125;

/// Ticks that are counted at once, so that their parts fit 32 bits at any pace:
/// dividing 64 bits takes a kilobyte of flash.
const TICKS_MAX: u32 = 1 << 20;

/// Time up to when the counter was last read.
static COUNTED: Mutex<Cell<Counted>> = Mutex::new(Cell::new(Counted {
    ticks: 0,
    ms: 0,
    parts: 0,
}));

#[derive(Clone, Copy)]
struct Counted {
    ticks: u32,
    ms: u64,
    /// Of the next millisecond.
    parts: u32,
}

/// How many times as fast as the counter time runs.
static PACE: Mutex<Cell<u32>> = Mutex::new(Cell::new(1));

/// When the alarm rings, in milliseconds; `u64::MAX` if it is off.
static ALARM: Mutex<Cell<u64>> = Mutex::new(Cell::new(u64::MAX));

/// Time since the board started.
#[derive(Debug, Clone, Copy)]
pub struct Clock(());

impl Clock {
    pub(crate) fn start() -> Self {
        critical_section::with(|token| PACE.borrow(token).set(pace()));
        timer::start();
        Self(())
    }
}

/// Milliseconds since the start, at the terminal's pace.
fn now_ms() -> u64 {
    critical_section::with(|token| {
        let pace = PACE.borrow(token).get();
        let mut counted = COUNTED.borrow(token).get();
        let now = timer::ticks();
        while counted.ticks != now {
            let passed = now.wrapping_sub(counted.ticks).min(TICKS_MAX);
            counted.ticks = counted.ticks.wrapping_add(passed);
            let parts = counted.parts + passed * pace * PARTS_TICK;
            counted.ms += u64::from(parts / PARTS_MS);
            counted.parts = parts % PARTS_MS;
        }
        COUNTED.borrow(token).set(counted);
        counted.ms
    })
}

/// The alarm's interrupt has come.
pub fn alarm_rang() {
    critical_section::with(|token| {
        timer::alarm_over();
        ALARM.borrow(token).set(u64::MAX);
    });
    risiti_idle::wake();
}

/// Has the sleepers asked again in so many milliseconds at the latest. Each who
/// still sleeps then asks again; so one alarm does for all.
fn ring_in(after_ms: u32) {
    let after = after_ms * (timer::TICKS_HZ_TIMES_64 / 500) / 128;
    let at = now_ms() + u64::from(after_ms);
    critical_section::with(|token| {
        let alarm = ALARM.borrow(token);
        if at < alarm.get() {
            alarm.set(at);
            timer::alarm(after / PACE.borrow(token).get() + 1);
        }
    });
}

impl hardware::Clock for Clock {
    fn now_ms(&self) -> u64 {
        now_ms()
    }

    async fn sleep_until(&self, at_ms: u64) {
        poll_fn(|_| {
            let left = at_ms.saturating_sub(now_ms());
            if left == 0 {
                return Poll::Ready(());
            }
            ring_in(u32::try_from(left).map_or(ALARM_MS_MAX, |left| left.min(ALARM_MS_MAX)));
            Poll::Pending
        })
        .await;
    }
}
