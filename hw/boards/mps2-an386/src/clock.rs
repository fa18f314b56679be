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

/// What the counter showed when it was last read, and the ticks up to then.
static COUNTED: Mutex<Cell<(u32, u64)>> = Mutex::new(Cell::new((0, 0)));

/// How many times as fast as the counter time runs.
static PACE: Mutex<Cell<u32>> = Mutex::new(Cell::new(1));

/// When the alarm rings, in ticks; `u64::MAX` if it is off.
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

/// Ticks since the start, at the terminal's pace.
fn ticks() -> u64 {
    critical_section::with(|token| {
        let counted = COUNTED.borrow(token);
        let (last, before) = counted.get();
        let now = timer::ticks();
        let passed = u64::from(now.wrapping_sub(last)) * u64::from(PACE.borrow(token).get());
        let ticks = before + passed;
        counted.set((now, ticks));
        ticks
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
    let at = ticks() + u64::from(after);
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
        // 97,656.25 ticks a second are 12,500 in 128 ms.
        ticks() * 128 / 12_500
    }

    async fn sleep_until(&self, at_ms: u64) {
        poll_fn(|_| {
            let left = at_ms.saturating_sub(self.now_ms());
            if left == 0 {
                return Poll::Ready(());
            }
            ring_in(u32::try_from(left).map_or(ALARM_MS_MAX, |left| left.min(ALARM_MS_MAX)));
            Poll::Pending
        })
        .await;
    }
}
