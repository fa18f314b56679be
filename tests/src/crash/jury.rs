//! Several judges at work on many cases.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What `judge` found wrong with `cases`, in no order. Each of the `judges` has
/// a thread and what `sworn` makes of its number.
pub fn convictions<Case: Sync, Judge, Wrong: Send>(
    judges: usize,
    cases: &[Case],
    sworn: impl Fn(usize) -> Judge + Sync,
    judge: impl Fn(&mut Judge, &Case) -> Option<Wrong> + Sync,
) -> Vec<Wrong> {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..judges {
            let (next, wrong, sworn, judge) = (&next, &wrong, &sworn, &judge);
            scope.spawn(move || {
                let mut own = sworn(number);
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(found) = judge(&mut own, case) {
                        let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
                        wrong.push(found);
                    }
                }
            });
        }
    });
    wrong.into_inner().unwrap_or_else(PoisonError::into_inner)
}
