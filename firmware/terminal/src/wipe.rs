//! Erasing all that a terminal ever kept: before it is sold, thrown away, or given
//! to another school.
//!
//! Promises: nothing is erased without an order that is whole; nothing that
//! somebody still waits for, unless the order says so; [`WIPED`] stands on the
//! display only if every byte was read back as blank. A power cut changes nothing:
//! the order is still there, and the next start begins anew. Never: a wipe of what
//! can't be read, without an order for just that.
//!
//! # Format, version 1
//!
//! The order stands where the settings stood. So the token, and keys that were given,
//! are gone with it, before the flash is looked at. Keys that the terminal made itself
//! are the first that is erased.
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | magic, `RWIP` |
//! | 1 | version, 1 |
//! | 1 | 1: also what somebody still waits for; else 0 |
//! | 4 | CRC-32C of all before it, big-endian |

use embedded_storage_async::nor_flash::{NorFlash, ReadNorFlash as _};

use crate::check::Check;
use crate::hardware::{Board, Display as _, Hardware, Screen, Watchdog as _};
use crate::limits::{SCREEN_COLUMNS, SCREEN_ROWS};
use crate::printing::line::Line;
use crate::store::Store;
use crate::vault::BeforeVault;

const MAGIC: [u8; 4] = *b"RWIP";
const VERSION: u8 = 1;

/// Bytes of an [`Order`].
pub const ORDER_BYTES: usize = 10;

/// What stands in the first row once all is erased.
pub const WIPED: &str = "WIPED";

/// What stands there if nothing was erased; the next row says why.
pub const NOT_WIPED: &str = "NOT WIPED";

/// What stands there if the flash failed on the way.
pub const WIPE_FAILED: &str = "WIPE FAILED";

/// Pages between two looks of the display: a screen takes its time, too.
const SHOW_EVERY_PAGES: u32 = 32;

/// How much is read back at once.
const LOOK_BYTES: usize = 64;

/// The order to erase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Also payments that have no receipt yet, receipts that are not on paper, and
    /// what can't be read.
    pub even_unfinished: bool,
}

impl Order {
    /// Reads an order from the head of `bytes`; none if it is anything else, or
    /// damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let given = bytes.get(..ORDER_BYTES)?;
        let orders = [false, true].map(|even_unfinished| Self { even_unfinished });
        orders.into_iter().find(|order| order.encode() == *given)
    }

    /// Writes it.
    #[must_use]
    pub fn encode(self) -> [u8; ORDER_BYTES] {
        let [m0, m1, m2, m3] = MAGIC;
        let head = [m0, m1, m2, m3, VERSION, u8::from(self.even_unfinished)];
        let mut check = Check::new();
        check.update(&head);
        let [h0, h1, h2, h3, version, even] = head;
        let [c0, c1, c2, c3] = check.finish().to_be_bytes();
        [h0, h1, h2, h3, version, even, c0, c1, c2, c3]
    }
}

/// Why a wipe came to no good end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// So many payments are without receipt, or receipts without paper.
    Unfinished(u32),
    /// What the flash holds can't be read, or not all of it.
    Unreadable,
    /// This page could not be erased.
    Page(u32),
}

/// Does what the order says; returns what is to stand on the display from then on.
pub async fn wipe<B: Board>(hardware: &mut Hardware<B>, order: Order) -> Screen {
    let Hardware {
        flash,
        display,
        watchdog,
        ..
    } = hardware;
    if !order.even_unfinished
        && let Err(refused) = finished(&mut *flash).await
    {
        return told(Err(refused));
    }
    let page_bytes = B::Flash::ERASE_SIZE as u32;
    let pages = flash.capacity() as u32 / page_bytes;
    for page in in_turn(pages) {
        watchdog.feed();
        if page % SHOW_EVERY_PAGES == 0 {
            let left = Some(pages - page);
            display.show(&rows("WIPING", "PAGES LEFT ", left)).await;
        }
        if let Err(refused) = erase(&mut *flash, page).await {
            return told(Err(refused));
        }
    }
    told(Ok(()))
}

/// The pages of a flash of so many, the vault's first.
pub fn in_turn(pages: u32) -> impl Iterator<Item = u32> {
    let vault = pages.saturating_sub(1);
    (vault..pages).chain(0..vault)
}

/// Whether nobody waits for anything in there.
///
/// # Errors
/// Somebody does, or that can't be told.
pub async fn finished<F: NorFlash>(flash: F) -> Result<(), Refused> {
    let opened = Store::open(BeforeVault(flash)).await;
    let (store, opening) = opened.map_err(|_| Refused::Unreadable)?;
    let levels = store.levels();
    match levels.waiting.saturating_add(levels.to_print) {
        0 if levels.damaged > 0 || !opening.is_numbered => Err(Refused::Unreadable),
        0 => Ok(()),
        unfinished => Err(Refused::Unfinished(unfinished)),
    }
}

/// Erases a page and reads it back.
///
/// # Errors
/// The chip says that it failed, or something is still there.
pub async fn erase<F: NorFlash>(flash: &mut F, page: u32) -> Result<(), Refused> {
    let failed = Refused::Page(page);
    let page_bytes = F::ERASE_SIZE as u32;
    let from = page * page_bytes;
    let erased = flash.erase(from, from + page_bytes).await;
    erased.map_err(|_| failed)?;
    let mut look = [0; LOOK_BYTES];
    for at in (from..from + page_bytes).step_by(LOOK_BYTES) {
        let read = flash.read(at, &mut look).await;
        read.map_err(|_| failed)?;
        if look.iter().any(|byte| *byte != 0xFF) {
            return Err(failed);
        }
    }
    Ok(())
}

fn told(done: Result<(), Refused>) -> Screen {
    match done {
        Ok(()) => rows(WIPED, "SET UP ANEW", None),
        Err(Refused::Unfinished(unfinished)) => rows(NOT_WIPED, "UNFINISHED ", Some(unfinished)),
        Err(Refused::Unreadable) => rows(NOT_WIPED, "UNREADABLE", None),
        Err(Refused::Page(page)) => rows(WIPE_FAILED, "PAGE ", Some(page)),
    }
}

/// Two rows, and a number at the end of the second.
fn rows(first: &str, second: &str, number: Option<u32>) -> Screen {
    let mut screen = Screen([[b' '; SCREEN_COLUMNS]; SCREEN_ROWS]);
    let [row, below, ..] = &mut screen.0;
    Line::new(row).text(first);
    let mut below = Line::new(below);
    below.text(second);
    if let Some(number) = number {
        below.number(number.into());
    }
    screen
}
