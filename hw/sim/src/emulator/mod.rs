//! A terminal's image in QEMU: the same bytes that the emulated board runs, with
//! its serial lines in our hands.
//!
//! Promises: what the image wrote to its flash is in the file when the machine is
//! killed, and nothing else of it is. Never: a machine left running behind whoever
//! dropped it.
//!
//! | line | of the board | here |
//! | --- | --- | --- |
//! | console | keypad and display | [`console`] |
//! | modem | UART1 | a simulated modem |
//! | printer | UART2 | a simulated printer |
//! | control | battery gauge, the modem's key, word of a panic | [`control`] |

pub mod console;
pub mod control;
mod footprint;
mod machine;

pub use footprint::Footprint;
pub use machine::{Lines, Machine, MachineSpec, blank_flash};
