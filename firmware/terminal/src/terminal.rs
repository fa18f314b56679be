//! A terminal: everything together, on one core.
//!
//! Promises: whatever the radio and the printer do, keys are served; nothing that
//! was shown as saved is lost when the power is; the processor sleeps when nothing
//! is due. Never: an executor of its own; [`run`] is one future, for whatever a
//! board polls it with.
//!
//! | task | waits for | works with |
//! | --- | --- | --- |
//! | `people` | keys, facts from the others, screens that go away | display |
//! | `paper` | orders of the people's task | printer |
//! | `radio` | the schedule, payments, the key that fetches | modem |
//! | `care` | time | battery gauge, watchdog |
//!
//! Before them come the terminal's own keys, if it makes them itself: made, kept and
//! shown once by `enrol`.
//!
//! They share the store, one operation at a time, and a `desk` over which facts
//! and orders pass. A power cut is a dropped future.

mod care;
mod desk;
mod enrol;
mod paper;
mod people;
mod pulse;
mod radio;

use core::convert::Infallible;
use core::future::pending;
use core::pin::{Pin, pin};

use embassy_futures::join::join4;
use embassy_sync::mutex::Mutex;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash};
use risiti_wire::Currency;

use crate::application::{Application, Fact, Levels};
use crate::connection::{Link, Pace, Schedule, Scratch};
use crate::hardware::{Board, Clock, Display, Hardware, Screen};
use crate::limits::{SCREEN_COLUMNS, SCREEN_ROWS};
use crate::printing::Printer;
use crate::settings::Settings;
use crate::store::{Counters, Opening, Store, StoreError};
use crate::vault::{BeforeVault, Holder, OwnKeys};
use care::Care;
use desk::{Desk, SharedStore};
use enrol::Enrolment;
use paper::Paper;
use people::People;
use radio::{Radio, Told};

/// Runs a terminal from its start on, until it is dropped: a power cut.
///
/// If the flash can't be read, or the terminal has to make its own keys and has none, the
/// display says so and the watchdog is not fed: what a reset puts right goes on after it.
#[expect(
    clippy::manual_async_fn,
    reason = "what an async function takes by value stands in its future twice"
)]
pub fn run<B: Board>(
    mut hardware: Hardware<B>,
    settings: &Settings<'_>,
) -> impl Future<Output = Infallible> {
    async move { work(&mut hardware, settings).await }
}

async fn work<B: Board>(hardware: &mut Hardware<B>, settings: &Settings<'_>) -> Infallible {
    let Hardware {
        clock,
        flash,
        keypad,
        display,
        printer,
        modem,
        battery,
        watchdog,
        entropy,
        seed,
    } = hardware;
    let own = match settings.own_keys {
        None => Ok(None),
        Some(generation) => {
            let mut enrolment: Enrolment<'_, B> = Enrolment {
                clock,
                flash,
                keypad,
                display,
                watchdog,
                entropy,
            };
            let id = settings.id;
            let keys: Task<'_, Result<OwnKeys, &Screen>> =
                pin!(enrolment.keys(Holder { id, generation }));
            keys.await.map(Some)
        }
    };
    let mut settings = *settings;
    if let Ok(Some(own)) = &own {
        settings.seal = Some(own.seal());
    }
    let settings = &settings;
    let mut scratch = Scratch::new();
    let store: Option<SharedStore<_>> = match own {
        Err(_) => None,
        Ok(_) => {
            let opening: Task<'_, Opened<BeforeVault<&mut B::Flash>>> =
                pin!(Store::open(BeforeVault(flash)));
            opening.await.ok().map(|(store, _)| Mutex::new(store))
        }
    };
    // Borrowed: what is moved once more stands in the future once more.
    let Some(store) = &store else {
        display.show(own.err().unwrap_or(&NO_STORAGE)).await;
        return pending().await;
    };
    let before = {
        let counting: Task<'_, Counters> = pin!(count_start(store));
        counting.await
    };

    let now_ms = clock.now_ms();
    let levels = store.lock().await.levels();
    let gauge = Mutex::new(battery);
    let desk = Desk::new();
    let currency = Currency::new(settings.currency).unwrap_or(Currency::NONE);
    let mut people = People {
        desk: &desk,
        store,
        clock: clock.clone(),
        keypad,
        display,
        application: Application::new(currency, settings.utc_offset_minutes, now_ms),
        shown: None,
    };
    let mut paper = Paper {
        desk: &desk,
        store,
        settings,
        clock: clock.clone(),
        printer: Printer::new(printer, clock.clone()),
    };
    let mut radio = Radio {
        desk: &desk,
        store,
        gauge: &gauge,
        settings,
        clock: clock.clone(),
        modem: Told { modem, desk: &desk },
        schedule: Schedule::new(*seed, Pace::new(settings), settings, now_ms, &levels),
        link: Link::new(),
        scratch: &mut scratch,
        before,
        count_at_ms: now_ms,
    };
    let mut care = Care {
        desk: &desk,
        clock: clock.clone(),
        gauge: &gauge,
        watchdog,
    };
    let people: Task<'_, Infallible> = pin!(people.run());
    let paper: Task<'_, Infallible> = pin!(paper.run());
    let radio: Task<'_, Infallible> = pin!(radio.run());
    let care: Task<'_, Infallible> = pin!(care.run());
    let (never, ..) = join4(people, paper, radio, care).await;
    never
}

/// A future that is called through a pointer: it has a stack of its own depth, not
/// one as deep as all of them together.
type Task<'a, T> = Pin<&'a mut dyn Future<Output = T>>;

type Opened<F> = Result<(Store<F>, Opening), StoreError<<F as ErrorType>::Error>>;

/// Counts this start; returns what was counted up to it.
async fn count_start<F: NorFlash>(store: &SharedStore<F>) -> Counters {
    let mut store = store.lock().await;
    let before = Counters {
        starts: store.counters().starts.saturating_add(1),
        ..*store.counters()
    };
    // A start that is not counted is no reason not to start.
    let _failed = store.put_counters(before).await;
    before
}

/// What the store holds, for the application.
async fn levels<F: NorFlash>(store: &SharedStore<F>) -> Fact {
    let levels = store.lock().await.levels();
    Fact::Levels(Levels {
        waiting: levels.waiting,
        capacity: levels.capacity,
        to_print: levels.to_print,
        damaged: levels.damaged > 0,
        last_sequence: levels.last_sequence,
    })
}

/// Without the store nothing can be promised.
const NO_STORAGE: Screen = {
    let mut rows = [[b' '; SCREEN_COLUMNS]; SCREEN_ROWS];
    rows[0] = *b"NO STORAGE      ";
    rows[1] = *b"CALL SERVICE    ";
    Screen(rows)
};
