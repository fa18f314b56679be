//! What the store says of what it holds.

/// What was found at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opening {
    /// Nothing was ever saved here.
    pub is_new: bool,
    /// Records can be numbered; see [`SaveError::Unnumbered`](super::SaveError::Unnumbered).
    pub is_numbered: bool,
    /// Slots and pages that somebody relied on and that can't be read.
    pub damaged: u16,
    /// Slots that power was cut in; nothing is lost by them.
    pub torn: u16,
    /// Slots with a flipped bit, read all the same.
    pub repaired: u16,
}

/// How much of what there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Levels {
    /// Records without a receipt.
    pub waiting: u32,
    /// Those of them that no gateway has acknowledged.
    pub unsent: u32,
    /// Receipts that are not known to be on paper.
    pub to_print: u32,
    /// Records that fit in all.
    pub capacity: u32,
    /// Slots and pages that can't be read, since the start.
    pub damaged: u16,
    /// Slots that power was cut in, found at the start.
    pub torn: u16,
    /// The number of the newest record that was saved, as far as the flash still
    /// tells; else 0. People go by it after a power cut: never one that was voided.
    pub last_sequence: u32,
}

impl Levels {
    pub(super) fn count_damaged(&mut self) {
        self.damaged = self.damaged.saturating_add(1);
    }
}

/// A record without a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its sequence number.
    pub sequence: u32,
    /// Its bytes.
    pub len: usize,
    /// Whether a gateway has acknowledged it.
    pub sent: bool,
}

/// What became of a receipt. All but [`Full`](Self::Full) are to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is stored, and its record settled.
    New,
    /// Its record had one already.
    Repeated,
    /// No record has this number, or it is larger than a receipt can be.
    Unknown,
    /// There is no room before some have been printed. Leave it to the gateway.
    Full,
}

/// A receipt that is to be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToPrint {
    /// Its number among the receipts of this terminal.
    pub ordinal: u32,
    /// The sequence number of its record.
    pub sequence: u32,
    /// Its bytes.
    pub len: usize,
    /// Its printing began, and nobody knows whether it ended: ask.
    pub interrupted: bool,
}
