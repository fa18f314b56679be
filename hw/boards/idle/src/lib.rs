//! Runs one future on a Cortex-M and lets the processor sleep in between.
//!
//! Promises: an interrupt that calls [`wake`], or the waker of the future, has
//! the future polled again, however close to falling asleep it comes. Never: a
//! second task, an allocation.
#![no_std]

use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

/// Whether something has happened since the future was last polled.
static WOKEN: AtomicBool = AtomicBool::new(false);

/// Has the future polled again. Called by interrupt handlers, which so need not
/// know who waits.
pub fn wake() {
    WOKEN.store(true, Ordering::Release);
}

/// Runs this future to its end. There can be one at a time only: its waker and
/// [`wake`] mean whichever runs. It is taken pinned, since a future that is handed
/// over by value stands on the stack twice.
pub fn block_on<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let waker = waker();
    let mut context = Context::from_waker(&waker);
    loop {
        WOKEN.store(false, Ordering::Release);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // With interrupts masked none can come between the question and the
        // sleep; WFI ends by a pending one all the same. (WFE would do without
        // the mask, but an emulator does not sleep on it.)
        cortex_m::interrupt::free(|_| {
            if !WOKEN.load(Ordering::Acquire) {
                cortex_m::asm::dsb();
                cortex_m::asm::wfi();
            }
        });
    }
}

fn waker() -> Waker {
    const WAKER: RawWaker = RawWaker::new(core::ptr::null(), &ACTIONS);
    const ACTIONS: RawWakerVTable = RawWakerVTable::new(|_| WAKER, |_| wake(), |_| wake(), |_| ());
    #[expect(unsafe_code, reason = "a waker without an allocator")]
    // SAFETY: the actions use no data and may be called from anywhere, any number
    // of times.
    unsafe {
        Waker::from_raw(WAKER)
    }
}
