//! What a terminal's store shows after one start, it shows after the next one.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_sim::nor::{Nor, Tear};
use risiti_terminal::store::Store;

async fn open(nor: &Nor) -> Store<Nor> {
    nor.power_up();
    Store::open(nor.handle()).await.unwrap().0
}

/// After a cut in the middle of saving, the idle screen tells the last number that
/// was saved, and people believe it.
#[tokio::test]
async fn a_record_that_a_start_has_found_is_found_by_the_next() {
    let mut lost = Vec::new();
    for cut in 90..200 {
        for seed in 0..200 {
            let nor: Nor = Nor::new(64 * 1024);
            let mut store = open(&nor).await;
            nor.cut_after(cut, Tear::Ragged, seed);
            let saved = store.save(|_, into| {
                into.fill(0x2A);
                Ok(40)
            });
            if saved.await.is_ok() {
                continue;
            }
            let first = open(&nor).await.levels();
            for _ in 0..8 {
                let then = open(&nor).await.levels();
                if (then.waiting, then.last_sequence) != (first.waiting, first.last_sequence) {
                    lost.push((cut, seed, first.waiting, then.waiting));
                    break;
                }
            }
        }
    }
    assert!(
        lost.is_empty(),
        "{} of them: {:?}",
        lost.len(),
        &lost[..lost.len().min(8)]
    );
}
