//! What can go wrong with a modem, ordered by a test.
//!
//! Promises: each order is carried out once. Never: chance; that is the
//! network's.

use std::time::Duration;

/// Something that goes wrong, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Moment,
    /// How often that moment passes before.
    pub after: usize,
    /// What.
    pub kind: FaultKind,
}

/// A moment in the course of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// A command line that contains this text has come.
    Command(String),
    /// The modem has asked for the bytes to send.
    Prompt,
    /// All bytes to send have come.
    Payload,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It is refused with `ERROR`.
    Error,
    /// It is neither done nor answered.
    Silence,
    /// Nothing is answered any more until the modem is started anew.
    Hang,
    /// It is done so much later.
    Late(Duration),
    /// Rubbish comes first.
    Rubbish,
    /// The peer closes the connection, then it is done.
    Closed,
    /// The network takes packet data away, then it is done.
    Deactivated,
    /// The modem complains of its supply, then it is done.
    UnderVoltage,
    /// The modem goes off for lack of supply.
    UnderVoltageOff,
    /// The modem starts anew by itself.
    Restart,
    /// The modem is off without a word.
    PowerCut,
}
