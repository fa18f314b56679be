//! Keypad and display, by the console's UART.
//!
//! | to the board | key |
//! | --- | --- |
//! | `0` to `9` | a digit |
//! | return, line feed | Enter |
//! | backspace, delete | Delete |
//! | `c`, escape | Cancel |
//! | `p` | Print |
//! | `f` | Fetch |
//!
//! Other bytes are no keys. From the board: a form feed, and the rows of the
//! display, each ended by carriage return and line feed.

use embedded_io_async::{Read, Write};
use risiti_terminal::hardware::{self, Key, Screen};

use crate::serial::{Receiver, Sender};

/// The keys.
pub struct Keypad(pub(crate) Receiver);

impl hardware::Keypad for Keypad {
    async fn key(&mut self) -> Key {
        loop {
            let mut byte = [0];
            let Ok(_) = self.0.read(&mut byte).await;
            match byte[0] {
                digit @ b'0'..=b'9' => return Key::Digit(digit - b'0'),
                b'\r' | b'\n' => return Key::Enter,
                0x08 | 0x7F => return Key::Delete,
                b'c' | 0x1B => return Key::Cancel,
                b'p' => return Key::Print,
                b'f' => return Key::Fetch,
                _ => {}
            }
        }
    }
}

/// The display.
pub struct Display(pub(crate) Sender);

impl hardware::Display for Display {
    async fn show(&mut self, screen: &Screen) {
        let Ok(()) = self.0.write_all(b"\x0C").await;
        for row in &screen.0 {
            let Ok(()) = self.0.write_all(row).await;
            let Ok(()) = self.0.write_all(b"\r\n").await;
        }
    }
}
