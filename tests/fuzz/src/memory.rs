//! How much memory an input makes the code under test take.
//!
//! Promises: what is taken between two calls is counted, freed or not, with the
//! largest piece; so a length that was believed before its bytes were there is
//! seen even if nothing was written to it. Never: a bound of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The allocator of a target: the system's, with an account of each thread.
pub struct Account;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn changed(by: isize) {
    // At a thread's end its account is gone before its last memory.
    let _ = LIVE.try_with(|live| {
        let now = live.get() + by;
        live.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Account {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        changed(layout.size() as isize);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        changed(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        changed(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        changed(bytes as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

/// The account of this thread, from now on.
#[derive(Debug)]
pub struct Since(isize);

/// Begins an account.
#[must_use]
pub fn begin() -> Since {
    let live = LIVE.with(Cell::get);
    PEAK.with(|peak| peak.set(live));
    Since(live)
}

impl Since {
    /// The most that was held at once, beyond what was held at the beginning.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        PEAK.with(|peak| peak.get() - self.0).max(0) as usize
    }
}
