//! What the application is told, and what it asks for.

use risiti_wire::{Account, Currency, Payment, Record, RecordBody, WireError};

use crate::printing::PrinterError;

/// What the application asks the shell for. Each is answered by one of the
/// [`Fact`]s that stand with it; until then none of its kind is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Save this payment: [`Fact::Saved`] once it is durable, or
    /// [`Fact::NotSaved`].
    Save(Draft),
    /// Print the next receipt that waits. If its printing was interrupted before:
    /// [`Fact::Interrupted`], and don't print. Else make sure that the printer is
    /// ready, mark the receipt as begun, tell [`Fact::Printing`], print, mark it
    /// as ended: [`Fact::Printed`]. Or [`Fact::PrinterStopped`],
    /// [`Fact::NothingToPrint`], [`Fact::StorageFailed`].
    Print,
    /// Print the last receipt again, with the mark that says so. Facts as for
    /// [`Print`](Self::Print).
    PrintLast,
    /// A person has looked for the paper of a receipt that was interrupted. It is
    /// there: mark the receipt as ended and tell [`Fact::Settled`]. It is not:
    /// print the receipt `again`, with the mark that says so; facts as for
    /// [`Print`](Self::Print).
    Answer {
        /// The receipt, by its ordinal in the store.
        ordinal: u32,
        /// Whether to print it again.
        again: bool,
    },
    /// Send what waits and fetch receipts as soon as possible. What comes of it is
    /// told by [`Fact::Radio`].
    Fetch,
}

/// A payment that was confirmed at the keypad, before it has a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draft {
    /// To which account.
    pub account: Account,
    /// How much, in minor units of the currency; above 0.
    pub amount_minor: u32,
    /// In which currency.
    pub currency: Currency,
}

impl Draft {
    /// Writes the payment as a record with this number into a buffer and returns
    /// its length. `time_s` is [`Application::time_s`](super::Application::time_s).
    ///
    /// # Errors
    /// Those of [`Record::encode`]; with a buffer of
    /// [`RECORD_BYTES_MAX`](risiti_wire::limits::RECORD_BYTES_MAX) bytes none.
    pub fn encode(
        &self,
        sequence: u32,
        time_s: u32,
        buffer: &mut [u8],
    ) -> Result<usize, WireError> {
        let record = Record {
            sequence: sequence.into(),
            resend: false,
            body: RecordBody::Payment(Payment {
                time_s,
                account: self.account,
                amount_minor: self.amount_minor.into(),
                currency: self.currency,
                reference: None,
            }),
        };
        record.encode(buffer).map(<[u8]>::len)
    }
}

/// What the application is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The time now, in seconds since 1970 UTC, as the network tells it.
    Clock {
        /// Seconds since 1970 UTC.
        time_s: u32,
    },
    /// The battery's voltage.
    Battery {
        /// In millivolts.
        millivolts: u16,
    },
    /// The signal, 0 to 31 as the modem says it; none if not known.
    Signal(Option<u8>),
    /// What the store holds. Told at the start and after each change.
    Levels(Levels),
    /// What the radio does.
    Radio(Radio),
    /// The payment is durable under this number.
    Saved {
        /// The record's number.
        sequence: u32,
    },
    /// The payment was not saved.
    NotSaved(NotSaved),
    /// This receipt is being printed.
    Printing(Answered),
    /// The printer has confirmed this receipt.
    Printed(Answered),
    /// An interrupted receipt is marked as printed, on a person's word.
    Settled,
    /// There is none to print.
    NothingToPrint,
    /// The printer could not print, or not to the end.
    PrinterStopped(PrinterError),
    /// The printing of the next receipt was interrupted; nobody but the one who
    /// has the paper knows how far it came.
    Interrupted {
        /// The receipt, by its ordinal in the store.
        ordinal: u32,
        /// The record that it answers.
        sequence: u32,
    },
    /// The flash failed under [`Effect::Print`], [`Effect::PrintLast`] or
    /// [`Effect::Answer`].
    StorageFailed,
}

/// A receipt, as far as a screen tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// The record that it answers.
    pub sequence: u32,
    /// Whether that was accepted.
    pub accepted: bool,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Levels {
    /// Records that wait for their receipts.
    pub waiting: u32,
    /// How many of them the store can hold; 0 if not known yet.
    pub capacity: u32,
    /// Receipts that wait for paper.
    pub to_print: u32,
    /// The number of the last payment that was saved; 0 if there was none. After
    /// a power cut it tells whether the one that was under way was saved.
    pub last_sequence: u32,
    /// Whether damage was found in the flash.
    pub damaged: bool,
}

/// Why a payment was not saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSaved {
    /// There is no room until receipts come.
    Full,
    /// The flash failed.
    Failed,
}

/// What the radio does, or why it does nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Radio {
    /// It is off, and the last errand went well.
    #[default]
    Off,
    /// It looks for its network.
    Searching,
    /// It opens a connection to the gateway.
    Connecting,
    /// It is connected.
    Online,
    /// It is off, and the last errand did not go well.
    Failed(RadioTrouble),
}

/// Why an errand did not go well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RadioTrouble {
    /// The modem does not answer.
    Modem,
    /// There is no SIM card, or it is locked.
    Sim,
    /// There is no network here.
    NoNetwork,
    /// The network refuses the SIM card or its data.
    Denied,
    /// The gateway can't be reached, or the connection was lost.
    NoGateway,
    /// The gateway refuses this terminal.
    Refused,
    /// The battery is too low for the radio.
    Battery,
    /// A receipt came that settlement has not sealed.
    Forged,
}
