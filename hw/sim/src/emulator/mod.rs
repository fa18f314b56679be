//! A terminal's image in QEMU: the same bytes that the emulated board runs, with
//! its serial lines in our hands.
//!
//! Promises: what the image wrote to its flash is in the file when the machine is
//! killed, and nothing else of it is. Never: a machine left running behind whoever
//! dropped it.
//!
//! | line | of the board | here |
//! | --- | --- | --- |
//! | console | keypad and display | [`World`] |
//! | modem | UART1 | [`modem`](crate::modem) |
//! | printer | UART2 | [`printer`](crate::printer) |
//! | control | battery gauge, the modem's key, random bytes, word of a panic | [`World`] |

mod console;
mod control;
mod footprint;
mod machine;
mod terminal;
mod world;

pub use footprint::Footprint;
pub use machine::{Lines, Machine, MachineSpec, blank_flash};
pub use terminal::{EmulatedTerminal, Moment, Setup};
pub use world::{Entropy, Wiring, World};
