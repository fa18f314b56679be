//! Reason codes (MQTT 5.0, section 2.4): those on which a terminal acts.
//!
//! Promises: a code that is not named here is carried as it is. Never: a text.

/// A reason code. From 0x80 on it is a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u8);

#[allow(missing_docs)] // the standard's own names
impl Reason {
    pub const SUCCESS: Self = Self(0x00);
    pub const MALFORMED_PACKET: Self = Self(0x81);
    pub const PROTOCOL_ERROR: Self = Self(0x82);
    pub const UNSUPPORTED_PROTOCOL_VERSION: Self = Self(0x84);
    pub const CLIENT_IDENTIFIER_NOT_VALID: Self = Self(0x85);
    pub const BAD_USER_NAME_OR_PASSWORD: Self = Self(0x86);
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    pub const SERVER_BUSY: Self = Self(0x89);
    pub const BANNED: Self = Self(0x8a);
    pub const SESSION_TAKEN_OVER: Self = Self(0x8e);
    pub const TOPIC_NAME_INVALID: Self = Self(0x90);
    pub const RECEIVE_MAXIMUM_EXCEEDED: Self = Self(0x93);
    pub const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    pub const PACKET_TOO_LARGE: Self = Self(0x95);
    pub const PAYLOAD_FORMAT_INVALID: Self = Self(0x99);
    pub const RETAIN_NOT_SUPPORTED: Self = Self(0x9a);
    pub const QOS_NOT_SUPPORTED: Self = Self(0x9b);

    /// Whether it says no.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// Whether asking again soon is in vain: who or where has to be put right by
    /// somebody first.
    #[must_use]
    pub const fn is_about_identity(self) -> bool {
        matches!(
            self,
            Self::UNSUPPORTED_PROTOCOL_VERSION
                | Self::CLIENT_IDENTIFIER_NOT_VALID
                | Self::BAD_USER_NAME_OR_PASSWORD
                | Self::NOT_AUTHORIZED
                | Self::BANNED
        )
    }
}
