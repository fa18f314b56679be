//! Receipts on paper.
//!
//! Promises: [`Printer::print`] returns well only once the printer has said that
//! the whole receipt is on paper; every wait ends. Never: a receipt held in
//! memory as an image, a retry of its own; whether to print again is asked of
//! whoever holds the paper.
//!
//! - [`Slip`], what a paper says and how it is laid out
//! - [`Printer`], the serial line to an ESC/POS printer
//! - [`Date`] and [`decimals`], dates and amounts as people read them

mod code_page;
mod date;
pub(crate) mod line;
mod money;
mod printer;
mod slip;

pub use date::Date;
pub use money::decimals;
pub use printer::{Printer, PrinterError};
pub use slip::{PaperLine, Slip};
