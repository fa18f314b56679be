//! The way to the gateway: one errand, and when the next one is due.
//!
//! Promises: a record stays until its receipt, whatever becomes of a connection;
//! a receipt is in flash before its PUBACK; every wait ends. Never: a connection
//! that is kept for the case that something comes: a terminal leaves as soon as
//! nothing is due.
//!
//! # One errand
//!
//! | round trip | terminal | gateway |
//! | --- | --- | --- |
//! | 1 | TCP SYN | SYN ACK |
//! | 2 | CONNECT, what waits as PUBLISHes | CONNACK, PUBACKs |
//! | | | receipts, as settlement speaks |
//! | 3 | PUBACKs, DISCONNECT | |
//!
//! The second line leaves as one segment: section 3.1.4 of MQTT 5.0 lets a client
//! send before CONNACK. If CONNACK refuses, nothing behind CONNECT was looked at,
//! and nothing here was marked as sent: all of it leaves with a later errand. A
//! server that takes fewer PUBLISHes than were sent that way (its Receive Maximum
//! is not known yet) closes the connection once; from then on this terminal waits
//! for CONNACK.
//!
//! # What is sent again
//!
//! | after | what | how |
//! | --- | --- | --- |
//! | a cut link | record without PUBACK | same packet identifier, DUP (MQTT-3.3.1-1, -4.4.0-1) |
//! | a power cut | record without PUBACK | same packet identifier; whether it was sent before nobody knows, so no DUP: a gateway takes DUP below what it remembers for a repetition, and this may be none. It knows the number |
//! | a refusal by PUBACK | record | as new |
//! | hours without receipt | record with PUBACK | with the resend mark, as a new PUBLISH |
//!
//! # Session and subscription
//!
//! The session outlives every connection. SUBSCRIBE leaves when CONNACK says that
//! there is no session; with the first errand after a start; and after an errand
//! that ended between CONNECT and CONNACK: the next CONNACK would find the session
//! that the lost one made, without a subscription in it. That next one may be
//! another gateway's, and the one after it the first one's again, with such a
//! session: so SUBSCRIBE leaves, too, after some errands in a row that brought no
//! receipt though one is waited for.
//!
//! # Seals
//!
//! With keys in the settings ([`seal`](risiti_wire::seal)), records stand open in flash
//! and are sealed as they leave: each time to the same bytes, but for the resend mark.
//! So new keys serve what was saved before them. Receipts are opened as they come. One
//! that does not open is counted, shown, acknowledged and dropped: its record still has
//! no receipt, goes out again, and settlement answers it again.
//!
//! | module | holds |
//! | --- | --- |
//! | [`errand`] | the shell: modem, store and clock |
//! | [`visit`] | the core of one errand: what is due, when to leave |
//! | [`link`] | what is remembered from errand to errand |
//! | [`schedule`] | when the next errand is due |

pub mod errand;
pub mod link;
mod report;
pub mod schedule;
mod sealed;
pub mod visit;

pub use errand::{Errand, Scratch};
pub use link::Link;
pub use schedule::{Pace, Schedule};
pub use visit::{End, Orders, Outcome};

/// This firmware's version: major × 65536 + minor × 256 + patch.
pub const FIRMWARE: u32 = decimal(env!("CARGO_PKG_VERSION_MAJOR")) << 16
    | decimal(env!("CARGO_PKG_VERSION_MINOR")) << 8
    | decimal(env!("CARGO_PKG_VERSION_PATCH"));

const fn decimal(text: &str) -> u32 {
    let (digits, mut number, mut index) = (text.as_bytes(), 0, 0);
    while index < digits.len() {
        number = number * 10 + (digits[index] - b'0') as u32;
        index += 1;
    }
    number
}
