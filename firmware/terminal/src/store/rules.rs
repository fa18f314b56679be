//! What holds the store together, one rule at a time.
//!
//! Tests break one each and must then fail; a terminal keeps them all.

/// The rules.
pub trait Rules {
    /// A slot counts only if its check agrees.
    const CHECKS: bool = true;
    /// Numbers are reserved in blocks before they are used.
    const RESERVES: bool = true;
    /// A receipt is stored before its record is settled.
    const RECEIPT_FIRST: bool = true;
    /// A page is erased only after a note says that nothing in it waits.
    const NOTES_FLOORS: bool = true;
    /// A mark that may have been cut is set with a second word.
    const MARKS_TWICE: bool = true;
}

/// All of them.
pub struct Sound;

impl Rules for Sound {}
