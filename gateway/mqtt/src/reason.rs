//! Reason codes (MQTT 5.0, section 2.4), and what they become for a v3.1.1 client.
//!
//! One type for all packets; [`ReasonCode::allowed_in`] says where each may stand.

use crate::codec::PacketType;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal, [$($packet:ident)*];)*) => {
        /// A reason code of MQTT 5.0 (section 2.4). 0x80 and above are refusals.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs)] // the standard's own names
        pub enum ReasonCode {
            $($(#[$doc])* $name = $value,)*
        }

        impl ReasonCode {
            /// Every code of the standard.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code of that number; `None` if the standard knows none.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The standard's name for it, in lower case, for logs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether the standard lets it stand in packets of that type
            /// (MQTT 5.0, table 2-6).
            pub const fn allowed_in(self, packet: PacketType) -> bool {
                match self {
                    $(Self::$name => matches!(packet, $(PacketType::$packet)|*),)*
                }
            }
        }
    };
}

reason_codes! {
    /// Also granted QoS 0, and normal disconnection.
    Success = 0x00, "success", [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth];
    GrantedQos1 = 0x01, "granted QoS 1", [SubAck];
    GrantedQos2 = 0x02, "granted QoS 2", [SubAck];
    DisconnectWithWill = 0x04, "disconnect with will message", [Disconnect];
    NoMatchingSubscribers = 0x10, "no matching subscribers", [PubAck PubRec];
    NoSubscriptionExisted = 0x11, "no subscription existed", [UnsubAck];
    ContinueAuthentication = 0x18, "continue authentication", [Auth];
    ReAuthenticate = 0x19, "re-authenticate", [Auth];
    UnspecifiedError = 0x80, "unspecified error", [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    MalformedPacket = 0x81, "malformed packet", [ConnAck Disconnect];
    ProtocolError = 0x82, "protocol error", [ConnAck Disconnect];
    ImplementationSpecificError = 0x83, "implementation specific error", [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version", [ConnAck];
    ClientIdentifierNotValid = 0x85, "client identifier not valid", [ConnAck];
    BadUserNameOrPassword = 0x86, "bad user name or password", [ConnAck];
    NotAuthorized = 0x87, "not authorized", [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    ServerUnavailable = 0x88, "server unavailable", [ConnAck];
    ServerBusy = 0x89, "server busy", [ConnAck Disconnect];
    Banned = 0x8a, "banned", [ConnAck];
    ServerShuttingDown = 0x8b, "server shutting down", [Disconnect];
    BadAuthenticationMethod = 0x8c, "bad authentication method", [ConnAck Disconnect];
    KeepAliveTimeout = 0x8d, "keep alive timeout", [Disconnect];
    SessionTakenOver = 0x8e, "session taken over", [Disconnect];
    TopicFilterInvalid = 0x8f, "topic filter invalid", [SubAck UnsubAck Disconnect];
    TopicNameInvalid = 0x90, "topic name invalid", [ConnAck PubAck PubRec Disconnect];
    PacketIdentifierInUse = 0x91, "packet identifier in use", [PubAck PubRec SubAck UnsubAck];
    PacketIdentifierNotFound = 0x92, "packet identifier not found", [PubRel PubComp];
    ReceiveMaximumExceeded = 0x93, "receive maximum exceeded", [Disconnect];
    TopicAliasInvalid = 0x94, "topic alias invalid", [Disconnect];
    PacketTooLarge = 0x95, "packet too large", [ConnAck Disconnect];
    MessageRateTooHigh = 0x96, "message rate too high", [Disconnect];
    QuotaExceeded = 0x97, "quota exceeded", [ConnAck PubAck PubRec SubAck Disconnect];
    AdministrativeAction = 0x98, "administrative action", [Disconnect];
    PayloadFormatInvalid = 0x99, "payload format invalid", [ConnAck PubAck PubRec Disconnect];
    RetainNotSupported = 0x9a, "retain not supported", [ConnAck Disconnect];
    QosNotSupported = 0x9b, "QoS not supported", [ConnAck Disconnect];
    UseAnotherServer = 0x9c, "use another server", [ConnAck Disconnect];
    ServerMoved = 0x9d, "server moved", [ConnAck Disconnect];
    SharedSubscriptionsNotSupported = 0x9e, "shared subscriptions not supported", [SubAck Disconnect];
    ConnectionRateExceeded = 0x9f, "connection rate exceeded", [ConnAck Disconnect];
    MaximumConnectTime = 0xa0, "maximum connect time", [Disconnect];
    SubscriptionIdentifiersNotSupported = 0xa1, "subscription identifiers not supported", [SubAck Disconnect];
    WildcardSubscriptionsNotSupported = 0xa2, "wildcard subscriptions not supported", [SubAck Disconnect];
}

impl ReasonCode {
    /// Whether it refuses or fails something (0x80 and above).
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The return code of a v3.1.1 CONNACK (table 3.1 there). `None` where
    /// v3.1.1 has no word for it: that connection is closed without a CONNACK
    /// (MQTT-3.2.2-6).
    pub const fn v3_connect_code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded
            | Self::UnspecifiedError
            | Self::ImplementationSpecificError => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => Some(5),
            _ => None,
        }
    }

    /// It, if it may stand in such a packet, else `UnspecifiedError`: nothing a
    /// caller says puts a code on the wire that the standard forbids there.
    pub(crate) const fn or_unspecified(self, packet: PacketType) -> Self {
        if self.allowed_in(packet) {
            self
        } else {
            Self::UnspecifiedError
        }
    }
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (0x{:02x})", self.name(), *self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_known_by_its_number_and_no_other_number_is() {
        let known = (0..=255)
            .filter_map(ReasonCode::from_u8)
            .collect::<Vec<_>>();
        assert_eq!(known, ReasonCode::ALL);
        assert_eq!(known.len(), 43);
        for reason in ReasonCode::ALL {
            assert_eq!(reason.is_error(), *reason as u8 >= 0x80);
        }
    }

    #[test]
    fn people_read_the_name_and_the_number_of_a_code() {
        assert_eq!(
            ReasonCode::NotAuthorized.to_string(),
            "not authorized (0x87)"
        );
    }

    /// MQTT 5.0, table 3-1.
    #[test]
    fn connack_carries_the_codes_of_its_table() {
        let allowed: Vec<u8> = ReasonCode::ALL
            .iter()
            .filter(|reason| reason.allowed_in(PacketType::ConnAck))
            .map(|reason| *reason as u8)
            .collect();
        let table = [
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90,
            0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
        ];
        assert_eq!(allowed, table);
    }

    /// MQTT 3.1.1, table 3.1: 1 to 5, or no CONNACK at all.
    #[test]
    fn every_refusal_has_a_v3_return_code_or_none() {
        for reason in ReasonCode::ALL.iter().filter(|reason| reason.is_error()) {
            assert!(
                reason
                    .v3_connect_code()
                    .is_none_or(|code| (1..=5).contains(&code))
            );
        }
        assert_eq!(ReasonCode::Success.v3_connect_code(), Some(0));
        assert_eq!(ReasonCode::MalformedPacket.v3_connect_code(), None);
    }
}
