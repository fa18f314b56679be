//! What a terminal remembers from errand to errand.
//!
//! Promises: nothing that would have to survive a power cut; forgotten, it only
//! costs bytes. Never: time.

use crate::limits::{IN_VAIN_MAX, PIPELINE_MAX};
use crate::mqtt::Reason;

/// What is remembered of the gateway while the power is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// PUBLISHes leave with CONNECT.
    pub(super) eager: bool,
    /// What the last CONNACK said.
    pub(super) window: u16,
    /// The session that the gateway has holds the subscription.
    pub(super) subscribed: bool,
    /// Errands in a row that brought no receipt, though one is waited for.
    pub(super) in_vain: u8,
    /// Retained messages, and with them the will, are taken.
    pub(super) takes_retain: bool,
    /// The will is or may be out: the last connection that had one ended without
    /// our leave.
    pub(super) lost: bool,
    /// Records up to this number were sent before, so that those without PUBACK
    /// leave with DUP.
    pub(super) attempted: u32,
    /// The same of records that are sent again with the resend mark.
    pub(super) resend_attempted: u32,
}

impl Link {
    /// As after a start.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            eager: true,
            window: PIPELINE_MAX as u16,
            subscribed: false,
            in_vain: 0,
            takes_retain: true,
            lost: false,
            attempted: 0,
            resend_attempted: 0,
        }
    }

    /// PUBLISHes that may leave before CONNACK.
    pub(super) fn early_window(&self) -> u16 {
        if self.eager { self.window } else { 0 }
    }

    /// An errand is over that the gateway took; whether receipts came with it, and
    /// whether one is waited for.
    pub(super) fn note_receipts(&mut self, came: bool, waits: bool) {
        self.in_vain = if waits && !came { self.in_vain + 1 } else { 0 };
        if self.in_vain >= IN_VAIN_MAX {
            (self.subscribed, self.in_vain) = (false, 0);
        }
    }

    /// The gateway refused or closed with this reason.
    pub(super) fn refused(&mut self, reason: Reason) {
        match reason {
            Reason::RECEIVE_MAXIMUM_EXCEEDED | Reason::PROTOCOL_ERROR => self.eager = false,
            Reason::RETAIN_NOT_SUPPORTED => self.takes_retain = false,
            _ => {}
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}
