//! What differs between the families of modems: words and times.
//!
//! Promises: constants only, so that an image with one family carries nothing of
//! the other. Never: a decision.

use super::said::Said;
use crate::energy::Draw;

/// A command of a row, its answer, and how long that may take.
pub struct Step {
    /// The line, with its end.
    pub command: &'static [u8],
    /// What ends it well.
    pub answer: Said,
    /// Then the modem is given up.
    pub limit_ms: u32,
}

/// The words and times of one family.
pub trait Family {
    /// Supply currents.
    const DRAW: Draw;

    /// How long the power key is pressed to switch on.
    const KEY_ON_MS: u32;
    /// How long the power key is pressed to switch off.
    const KEY_OFF_MS: u32;
    /// From the key to the first answer.
    const BOOT_MS: u32;
    /// From the wish to be off to being off: it tells the network first.
    const OFF_MS: u32;

    /// Takes the time from the network; may be refused.
    const HEAR_TIME: &'static [u8];
    /// Gives up packet data, from any state.
    const SHUT: Step;
    /// Names the access point: followed by name, user and password in quotes.
    const ACCESS_POINT: &'static [u8];
    /// Brings packet data up.
    const ACTIVATE: &'static [Step];

    /// Opens a TCP connection to a name: followed by name and port in quotes.
    const OPEN_NAME: &'static [u8];
    /// The same, to an address.
    const OPEN_ADDRESS: &'static [u8];
    /// `CONNECT OK` or `CONNECT FAIL` within this.
    const OPEN_MS: u32;
    /// Sends: followed by the number of bytes.
    const SEND: &'static [u8];
    /// Ends the connection once what was given has arrived.
    const CLOSE: &'static [u8];
    /// Fetches received bytes, at most [`limits::MODEM_INBOX_BYTES`].
    ///
    /// [`limits::MODEM_INBOX_BYTES`]: crate::limits::MODEM_INBOX_BYTES
    const FETCH: &'static [u8];
    /// The beginning of the code that announces received bytes.
    const DATA_WAITS: &'static [u8];
    /// The beginning of the line in front of fetched bytes.
    const DATA: &'static [u8];
    /// Which field of that line holds their number.
    const DATA_FIELD: usize;
    /// Whether that line comes even if there are no bytes.
    const DATA_ALWAYS: bool;
    /// Switches off.
    const OFF: &'static [u8];
}

/// SIMCom SIM800H, L, C, F (SIM800 Series AT Command Manual V1.09; SIM800H and
/// SIM800L Hardware Design V2.02).
pub enum Sim800Family {}

impl Family for Sim800Family {
    const DRAW: Draw = Draw::SIM800;

    // Hardware Design, 4.2: at least 1 s to switch on, 1 to 3 s to switch off.
    const KEY_ON_MS: u32 = 1_200;
    const KEY_OFF_MS: u32 = 1_500;
    // It answers 3 s after the key; more than twice that is no start.
    const BOOT_MS: u32 = 8_000;
    // Hardware Design, 4.2.2.2: logs off from the network first.
    const OFF_MS: u32 = 5_000;

    const HEAR_TIME: &'static [u8] = b"AT+CLTS=1\r";
    // Maximal response time: 65 s.
    const SHUT: Step = Step {
        command: b"AT+CIPSHUT\r",
        answer: Said::Shut,
        limit_ms: 65_000,
    };
    // CIPRXGET: received bytes stay in the modem, whose TCP window stops the
    // peer, until they are fetched: nothing overflows while the terminal writes
    // to flash. CIPQSEND: bytes are taken at once instead of after the peer's
    // acknowledgement, which would cost a round trip and tell nothing that
    // PUBACK does not.
    const ACCESS_POINT: &'static [u8] = b"AT+CIPRXGET=1;+CIPQSEND=1;+CSTT=";
    // Maximal response time of CIICR: 85 s.
    const ACTIVATE: &'static [Step] = &[
        Step {
            command: b"AT+CIICR\r",
            answer: Said::Ok,
            limit_ms: 85_000,
        },
        Step {
            command: b"AT+CIFSR\r",
            answer: Said::Address,
            limit_ms: 5_000,
        },
    ];

    const OPEN_NAME: &'static [u8] = b"AT+CIPSTART=\"TCP\",";
    const OPEN_ADDRESS: &'static [u8] = Self::OPEN_NAME;
    // AT Command Manual, 8.2.2: 75 s once packet data are up.
    const OPEN_MS: u32 = 75_000;
    const SEND: &'static [u8] = b"AT+CIPSEND=";
    const CLOSE: &'static [u8] = b"AT+CIPCLOSE=0\r";
    const FETCH: &'static [u8] = b"AT+CIPRXGET=2,256\r";
    const DATA_WAITS: &'static [u8] = b"+CIPRXGET: 1";
    const DATA: &'static [u8] = b"+CIPRXGET: 2,";
    const DATA_FIELD: usize = 1;
    const DATA_ALWAYS: bool = true;
    const OFF: &'static [u8] = b"AT+CPOWD=1\r";
}

/// Quectel M95, M66, MC60 and their like (GSM TCPIP Application Note V1.2; M95 AT
/// Commands Manual V3.1; M95 Hardware Design V1.3). Unlike a SIM800's, its answer
/// to bytes handed over tells no number, and one to a fetch may be a bare `OK`: a
/// character of those lines that is lost on the serial line is not noticed here,
/// but by whoever reads the bytes.
pub enum QuectelFamily {}

impl Family for QuectelFamily {
    // Taken as a SIM800's: both have the same class of radio, and what costs is
    // the transmitter.
    const DRAW: Draw = Draw::SIM800;

    // Hardware Design, 3.4: 1 s and more for on, 0.6 to 1 s for off.
    const KEY_ON_MS: u32 = 1_200;
    const KEY_OFF_MS: u32 = 800;
    const BOOT_MS: u32 = 8_000;
    // Hardware Design, 3.4.2: logging off takes 2 to 12 s.
    const OFF_MS: u32 = 12_000;

    const HEAR_TIME: &'static [u8] = b"AT+CTZU=1;+QNITZ=1\r";
    // Maximal response time: 40 s.
    const SHUT: Step = Step {
        command: b"AT+QIDEACT\r",
        answer: Said::Shut,
        limit_ms: 40_000,
    };
    // QINDI: received bytes stay in the modem, as with CIPRXGET.
    const ACCESS_POINT: &'static [u8] = b"AT+QIFGCNT=0;+QIMUX=0;+QINDI=1;+QICSGP=1,";
    // QIREGAPP starts the stack's task. Maximal response time of QIACT: 150 s.
    const ACTIVATE: &'static [Step] = &[
        Step {
            command: b"AT+QIREGAPP\r",
            answer: Said::Ok,
            limit_ms: 5_000,
        },
        Step {
            command: b"AT+QIACT\r",
            answer: Said::Ok,
            limit_ms: 150_000,
        },
    ];

    const OPEN_NAME: &'static [u8] = b"AT+QIDNSIP=1;+QIOPEN=\"TCP\",";
    const OPEN_ADDRESS: &'static [u8] = b"AT+QIDNSIP=0;+QIOPEN=\"TCP\",";
    const OPEN_MS: u32 = 75_000;
    const SEND: &'static [u8] = b"AT+QISEND=";
    const CLOSE: &'static [u8] = b"AT+QICLOSE\r";
    const FETCH: &'static [u8] = b"AT+QIRD=0,1,0,256\r";
    const DATA_WAITS: &'static [u8] = b"+QIRDI:";
    const DATA: &'static [u8] = b"+QIRD:";
    const DATA_FIELD: usize = 2;
    const DATA_ALWAYS: bool = false;
    const OFF: &'static [u8] = b"AT+QPOWD=1\r";
}
