//! The commands of both families, read, and the words that differ.
//!
//! Promises: a command that the real one does not know is none. Never: state.

/// A family of modems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// SIMCom SIM800.
    Sim800,
    /// Quectel M95 and its like.
    Quectel,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Echo(bool),
    /// A setting without an effect here.
    Accepted,
    Pin,
    Registration,
    RegistrationCodes(bool),
    Attached,
    Attach,
    Signal,
    HearTime,
    Time,
    Shut,
    ManualReceive(bool),
    QuickSend(bool),
    LookUpNames(bool),
    AccessPoint,
    Prepare,
    Activate,
    Address,
    Open {
        host: String,
        port: u16,
    },
    Send(usize),
    Fetch(usize),
    Close {
        quick: bool,
    },
    Off,
}

impl Request {
    /// Whether its answer takes time, or is not `OK`: it must end its line.
    pub fn ends_line(&self) -> bool {
        matches!(
            self,
            Self::Attach
                | Self::Shut
                | Self::Activate
                | Self::Address
                | Self::Open { .. }
                | Self::Send(_)
                | Self::Close { .. }
                | Self::Off
        )
    }
}

impl Family {
    pub(super) fn closed(self) -> &'static str {
        "CLOSED"
    }

    pub(super) fn deactivated(self) -> &'static str {
        match self {
            Self::Sim800 => "+PDP: DEACT",
            Self::Quectel => "+PDP DEACT",
        }
    }

    pub(super) fn data_waits(self) -> &'static str {
        match self {
            Self::Sim800 => "+CIPRXGET: 1",
            Self::Quectel => "+QIRDI: 0,1,0",
        }
    }

    pub(super) fn shut(self) -> &'static str {
        match self {
            Self::Sim800 => "SHUT OK",
            Self::Quectel => "DEACT OK",
        }
    }

    pub(super) fn under_voltage(self, off: bool) -> &'static str {
        match (self, off) {
            // So spelled by the modem.
            (Self::Sim800, false) => "UNDER-VOLTAGE WARNNING",
            (Self::Sim800, true) => "UNDER-VOLTAGE POWER DOWN",
            (Self::Quectel, false) => "UNDER_VOLTAGE WARNING",
            (Self::Quectel, true) => "UNDER_VOLTAGE POWER DOWN",
        }
    }

    /// The request of one command, without `AT`; none = `ERROR`.
    pub(super) fn read(self, command: &str) -> Option<Request> {
        let (name, argument) = match command.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (command, None),
        };
        let is_one = argument == Some("1");
        let name = name.to_ascii_uppercase();
        let both = match (name.as_str(), argument) {
            ("E0", None) => Some(Request::Echo(false)),
            ("E1" | "E", None) => Some(Request::Echo(true)),
            ("+CMEE" | "+CGREG", Some(_)) => Some(Request::Accepted),
            ("+CPIN?", None) => Some(Request::Pin),
            ("+CREG?", None) => Some(Request::Registration),
            ("+CREG", Some("0" | "1")) => Some(Request::RegistrationCodes(is_one)),
            ("+CGATT?", None) => Some(Request::Attached),
            ("+CGATT", Some("1")) => Some(Request::Attach),
            ("+CSQ", None) => Some(Request::Signal),
            ("+CCLK?", None) => Some(Request::Time),
            _ => None,
        };
        both.or_else(|| match self {
            Self::Sim800 => sim800(&name, argument),
            Self::Quectel => quectel(&name, argument),
        })
    }
}

fn sim800(name: &str, argument: Option<&str>) -> Option<Request> {
    let is_one = argument == Some("1");
    Some(match (name, argument) {
        ("+CLTS", Some("0" | "1")) => Request::HearTime,
        ("+CIPSHUT", None) => Request::Shut,
        ("+CIPHEAD", Some(_)) => Request::Accepted,
        ("+CIPQSEND", Some("0" | "1")) => Request::QuickSend(is_one),
        ("+CIPRXGET", Some("0" | "1")) => Request::ManualReceive(is_one),
        ("+CIPRXGET", Some(argument)) => Request::Fetch(argument.strip_prefix("2,")?.parse().ok()?),
        ("+CSTT", Some(argument)) => access_point(argument)?,
        ("+CIICR", None) => Request::Activate,
        ("+CIFSR", None) => Request::Address,
        ("+CIPSTART", Some(argument)) => open(argument)?,
        ("+CIPSEND", Some(bytes)) => Request::Send(bytes.parse().ok()?),
        ("+CIPCLOSE", None | Some("1")) => Request::Close { quick: true },
        ("+CIPCLOSE", Some("0")) => Request::Close { quick: false },
        ("+CPOWD", Some("1")) => Request::Off,
        _ => return None,
    })
}

fn quectel(name: &str, argument: Option<&str>) -> Option<Request> {
    let is_one = argument == Some("1");
    Some(match (name, argument) {
        ("+CTZU", Some(_)) => Request::Accepted,
        ("+QNITZ", Some("1")) => Request::HearTime,
        ("+QIFGCNT", Some("0" | "1")) => Request::Accepted,
        ("+QIMUX", Some("0")) => Request::Accepted,
        ("+QIDNSIP", Some("0" | "1")) => Request::LookUpNames(is_one),
        ("+QINDI", Some("0" | "1")) => Request::ManualReceive(is_one),
        ("+QICSGP", Some(argument)) => access_point(argument.strip_prefix("1,")?)?,
        ("+QIREGAPP", None) => Request::Prepare,
        ("+QIACT", None) => Request::Activate,
        ("+QILOCIP", None) => Request::Address,
        ("+QIDEACT", None) => Request::Shut,
        ("+QIOPEN", Some(argument)) => open(argument)?,
        ("+QISEND", Some(bytes)) => Request::Send(bytes.parse().ok()?),
        ("+QIRD", Some(argument)) => Request::Fetch(argument.strip_prefix("0,1,0,")?.parse().ok()?),
        ("+QICLOSE", None) => Request::Close { quick: false },
        ("+QPOWD", Some("1")) => Request::Off,
        _ => return None,
    })
}

/// `"name","user","password"`; with an empty name the network chooses.
fn access_point(argument: &str) -> Option<Request> {
    let name = argument.split(',').next()?;
    let quoted = name.len() >= 2 && name.starts_with('"') && name.ends_with('"');
    quoted.then_some(Request::AccessPoint)
}

/// `"TCP","host","port"`
fn open(argument: &str) -> Option<Request> {
    let mut parts = argument.split(',').map(|part| part.trim_matches('"'));
    let ("TCP", host, port, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    let port = port.parse().ok()?;
    let host = host.to_owned();
    Some(Request::Open { host, port })
}

/// The commands of one line, cut at the semicolons outside of quotes.
pub(super) fn commands(line: &str) -> Vec<&str> {
    let mut quoted = false;
    line.split(|character| {
        quoted ^= character == '"';
        character == ';' && !quoted
    })
    .collect()
}
