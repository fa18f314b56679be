//! Why the store couldn't do what it was asked.

use risiti_wire::WireError;

/// The flash, as it is, can't do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError<E> {
    /// The flash reported this. What was durable before still is; the call may be
    /// repeated.
    Flash(E),
    /// The flash has too few pages for what a terminal keeps, or pages that are
    /// too small: the board's fault.
    TooSmall,
    /// Page after page doesn't read back what was written: the chip is worn out
    /// or its wiring is bad. Replace it.
    Worn,
}

impl<E> From<E> for StoreError<E> {
    fn from(error: E) -> Self {
        Self::Flash(error)
    }
}

/// Why a record was not saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveError<E> {
    /// Every page holds a record that waits for its receipt. Take no payment
    /// until receipts have come.
    Full,
    /// What was to be saved is no record; no number was used up.
    Record(WireError),
    /// Which sequence numbers were used can't be told: what is in the flash is
    /// neither blank nor ours, or so damaged that no note and no record could be
    /// read; or all numbers are used up. Nothing there is touched. Look at what it
    /// is, then give the terminal a blank flash and a new identity.
    Unnumbered,
    /// The flash.
    Flash(StoreError<E>),
}

impl<E> From<StoreError<E>> for SaveError<E> {
    fn from(error: StoreError<E>) -> Self {
        Self::Flash(error)
    }
}
