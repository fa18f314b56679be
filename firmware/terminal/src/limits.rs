//! Every bound of a terminal, with the reason for its value.

/// Columns of the display: an OLED of 128 pixels with a font of 8.
pub const SCREEN_COLUMNS: usize = 16;

/// Rows of the display: what a terminal has to say at once.
pub const SCREEN_ROWS: usize = 4;

/// Columns of the paper: 58 mm with the printer's 12-dot font.
pub const PAPER_COLUMNS: usize = 32;

/// Bytes of a printed line: its columns, a style, a justification, a line feed.
pub const PAPER_LINE_BYTES_MAX: usize = PAPER_COLUMNS + 7;

/// How long a printer may take to say its state. It answers before all else,
/// within some milliseconds; half a second covers a slow serial adapter.
pub const PRINTER_ANSWER_MS: u64 = 500;

/// How long the mechanism takes for the longest receipt: 22 lines of 3.75 mm
/// with the feed at 50 mm/s are 1.7 s; a weak battery halves its speed.
pub const PRINTER_MECHANISM_MS: u64 = 4_000;

/// How long a printer may take to confirm a job before it is given up: the
/// mechanism, and pauses for a hot head.
pub const PRINTER_JOB_MS: u64 = 15_000;

/// How long a printer may refuse bytes. A line takes 41 ms at 9600 baud; a
/// printer whose buffer is full takes more once a line is printed.
pub const PRINTER_WRITE_MS: u64 = 5_000;

/// Bytes of the settings with all that guards them: a board keeps them at the
/// head of a flash page, and reads them into static memory once.
pub const SETTINGS_BYTES_MAX: usize = 576;

/// Bytes of the gateway's host name. DNS allows 253; providers' names are shorter,
/// and it is handed to the modem in one command line.
pub const HOST_BYTES_MAX: usize = 64;

/// Bytes of an access point's name (3GPP TS 23.003, 9.1: a network identifier has
/// at most 63).
pub const APN_BYTES_MAX: usize = 63;

/// Bytes of an access point's user, and of the password: what SIM800 takes.
pub const APN_LOGIN_BYTES_MAX: usize = 32;

/// Bytes of a token. It is airtime with every connection; 32 random bytes are more
/// than enough, 64 leave room for text.
pub const TOKEN_BYTES_MAX: usize = 64;

/// Bytes of the title of receipts: one line of the paper.
pub const TITLE_BYTES_MAX: usize = PAPER_COLUMNS;

/// Bytes of a topic's template with its `{id}`: it is airtime with each message.
pub const TOPIC_TEMPLATE_BYTES_MAX: usize = 40;

/// How long a person may think over a payment that is not confirmed. Then it is
/// given up: the next person must not find half a payment.
pub const ENTRY_MS: u64 = 60_000;

/// How long a notice, or `SAVED`, stands: time to read it to somebody else.
pub const NOTICE_MS: u64 = 15_000;

/// How long a screen that asks has to be there before a key answers it: longer
/// than a bouncing or doubled key, shorter than anybody reads.
pub const READ_MS: u64 = 400;

/// The display goes dark so long after the last key or receipt. An OLED takes
/// some 10 mA: lit all day it would cost more than the radio.
pub const DARK_MS: u64 = 120_000;

/// Keys that are to be written down leave the display so long after the last key, and
/// come back on a key: 56 characters take some three minutes to write and compare.
pub const KEYS_SHOWN_MS: u64 = 600_000;

/// How long a question that was put off stays away: a few customers.
pub const POSTPONE_MS: u64 = 300_000;

/// Printing that did not work is tried again after the first, doubled up to the
/// second: soon after somebody has put in paper, and without wearing a battery
/// down where there is no printer.
pub const PRINT_RETRY_MS: u64 = 30_000;
/// See [`PRINT_RETRY_MS`].
pub const PRINT_RETRY_MS_MAX: u64 = 16 * 60_000;

/// Below this voltage at rest nothing is printed: a thermal head draws 2 A, and
/// a lithium cell that is nearly empty would take the board down with it.
pub const BATTERY_LOW_MV: u16 = 3_450;
/// From this voltage on printing goes on: above what a cell recovers to once the
/// load is off.
pub const BATTERY_RECOVERED_MV: u16 = 3_550;

/// A lithium cell at rest that is as good as empty, for the gauge.
pub const BATTERY_EMPTY_MV: u16 = 3_400;
/// A full one.
pub const BATTERY_FULL_MV: u16 = 4_150;

/// Bytes of a line from a modem that are kept. The longest that is looked into
/// is `+QIRD: 255.255.255.255:65535,TCP,1460`.
pub const AT_LINE_BYTES_MAX: usize = 48;

/// Bytes taken from a serial line at once: at 115,200 baud they take 3 ms, and
/// the driver of the port buffers more.
pub const SERIAL_CHUNK_BYTES: usize = 32;

/// A serial line that takes nothing for so long is stuck: the longest write, a
/// segment of 1 KiB, takes 1.1 s at 9,600 baud.
pub const SERIAL_WRITE_MS: u32 = 2_000;

/// A pause after an error of the serial line, so that a broken wire does not
/// keep the processor awake.
pub const SERIAL_PAUSE_MS: u32 = 20;

/// Received bytes kept by the modem's driver: what one fetch brings. A receipt
/// of the usual size comes in one; longer ones stay in the modem meanwhile.
pub const MODEM_INBOX_BYTES: usize = 256;

/// Bytes handed to the modem with one command. Modems take 1,460; less keeps the
/// time short in which the serial line is not listened to.
pub const MODEM_SEGMENT_BYTES_MAX: usize = 1_024;

/// A command that needs no network is answered within this: the manuals say
/// less than 1 s, and a modem that registers meanwhile is slow.
pub const MODEM_COMMAND_MS: u32 = 3_000;

/// A modem that is up answers `AT` within this; it takes some 10 ms.
pub const MODEM_PROBE_MS: u32 = 500;

/// How often `AT` is tried: the first may fall into the rest of a broken line.
pub const MODEM_PROBES: usize = 3;

/// Silence after which no answer to an earlier command is on its way.
pub const MODEM_QUIET_MS: u32 = 100;

/// How often the power key is tried: if the modem hung, the first press has
/// switched it off.
pub const MODEM_STARTS: usize = 2;

/// A SIM card is ready some 3 s after the start (`+CPIN: READY`).
pub const MODEM_SIM_MS: u32 = 10_000;

/// Registration takes 3 to 30 s. Who has no network after twice that will not
/// have one soon, and an idle modem costs 66 mW.
pub const MODEM_REGISTER_MS: u32 = 60_000;

/// Without news the network's state is asked for so often; codes come sooner.
pub const MODEM_NEWS_MS: u32 = 2_000;

/// Denied so often in a row, the SIM card is denied: the first may be one network
/// of several.
pub const MODEM_DENIALS_MAX: u8 = 3;

/// Attaching to packet data: 10 s by SIM800's manual.
pub const MODEM_ATTACH_MS: u32 = 10_000;

/// The prompt to send comes at once unless the modem's buffer is full; that is
/// less than a stall of the network.
pub const MODEM_PROMPT_MS: u32 = 10_000;

/// Taking a segment waits for room in the modem: a stall of 10 s, and its bytes
/// at 20 kbit/s.
pub const MODEM_SEND_MS: u32 = 20_000;

/// Closing waits for the peer's acknowledgement: the longest round trip twice,
/// and a short stall. Then the modem is switched off, which ends it too.
pub const MODEM_CLOSE_MS: u32 = 5_000;

/// Without an announcement the modem is looked into for received bytes so often:
/// a line spoiled on the serial line costs this, not the session.
pub const MODEM_LOOK_MS: u32 = 5_000;

/// Bytes gathered for one segment: CONNECT with token and will, a birth message
/// and some records; below every network's segment size.
pub const TRANSMIT_BYTES_MAX: usize = 640;

/// Largest packet taken from the gateway, told to it in CONNECT: the largest
/// receipt with the longest topic, an alias, an expiry and some room.
pub const RECEIVE_BYTES_MAX: usize = 384;

/// Records that may wait for their PUBACK at once. With 34 bytes each they fill
/// half a round trip of 2G; each costs 4 bytes of memory.
pub const PIPELINE_MAX: usize = 16;

/// After so many errands in a row that brought no receipt, though one is waited for,
/// SUBSCRIBE leaves again. It costs some 44 bytes both ways; receipts that take their
/// time should not cost that with each errand.
pub const IN_VAIN_MAX: u8 = 4;

/// How long the gateway may take for an answer while it gives no other, in
/// milliseconds: 2G stalls for 2 to 10 s, and a gateway waits for its disk.
pub const ANSWER_MS: u64 = 30_000;

/// Sequence numbers reserved with one note of 84 bytes. A start with a payment
/// skips the rest of a block, so small blocks keep numbers short on the air.
pub const RESERVED_NUMBERS: u32 = 16;

/// Slots or pages tried in a row for one write. One bad page of records has as
/// many bad slots as that; more is no wear but a broken chip.
pub const WRITE_ATTEMPTS_MAX: usize = 64;

/// Pages behind the newest one that are searched for slots at a start though
/// nothing stands at their heads. On a new flash all are such; a page that is worn
/// out, or one of which nothing is left, hides one behind it, and so many in a row
/// hide none.
pub const BLANK_HEADS_MAX: u32 = 16;

/// How long an errand may take from CONNECT on, in milliseconds: 1,000 receipts at
/// 40 kbit/s take half a minute, so what lasts longer is a gateway that keeps us.
pub const ERRAND_MS_MAX: u64 = 300_000;

/// How long a gateway keeps a terminal's session, in seconds: what it is asked
/// for. 180 days are what a gateway grants by default; asking for more would cost
/// five bytes in each CONNACK.
pub const SESSION_EXPIRY_S: u32 = 180 * 86_400;

/// Keep alive of the connection, in seconds: longer than any answer may take, so
/// that a PINGREQ is the exception, and short enough that a gateway soon forgets a
/// dead connection.
pub const KEEP_ALIVE_S: u16 = 120;

/// Facts that wait for the task at the display: each of the three others tells
/// two in a row at most; then it waits.
pub const FACTS_WAITING_MAX: usize = 6;

/// How long a receipt may be at the printer, all waits of its driver together:
/// 17 lines at [`PRINTER_WRITE_MS`], the job, questions about its state, and
/// flash. Who takes longer hangs.
pub const PAPER_MS_MAX: u64 = 150_000;

/// How long the flash may take for a payment. A page is erased in 0.5 s at worst,
/// and three tasks take turns.
pub const STORAGE_MS_MAX: u64 = 30_000;

/// How often the battery is measured besides for an errand. It runs down over
/// days; the display shows quarters of it.
pub const GAUGE_MS: u64 = 600_000;

/// How long until the battery is looked at again that was too low for the modem,
/// in milliseconds: a cell recovers within a minute of rest, if at all.
pub const BATTERY_RECHECK_MS: u64 = 60_000;

/// So much above the modem's limit the battery is reported as low, in millivolts:
/// about a tenth of a cell's charge, time to fetch a charger.
pub const BATTERY_WARNING_MV: u16 = 150;

/// How long an errand may take with all waits of the modem's driver: twice its
/// start, a minute of searching, minutes for packet data and the connection, the
/// errand itself. Who takes longer hangs.
pub const RADIO_MS_MAX: u64 = 1_200_000;

/// A modem stays on for an errand that is due so soon: starting it anew costs some
/// 10 s of an idle modem, and half a minute of a person's time where it searches.
pub const MODEM_LINGER_MS: u64 = 10_000;

/// Counters are written so often at most: each time is a note of 84 bytes, and
/// what a power cut takes is an hour of statistics.
pub const COUNTERS_MS: u64 = 3_600_000;

/// Bytes of PUBACKs that wait for company: 16 of them. A gateway has 64 receipts
/// under way at most, so it never waits for these.
pub const HELD_BYTES_MAX: usize = 64;

/// How long a PUBACK waits for company, in milliseconds: receipts of payments that
/// left together come within a round trip.
pub const HELD_MS_MAX: u64 = 1_000;

/// How long to wait for receipts that no record waits for, when the key asks, in
/// milliseconds: they stand ready at the gateway and leave right behind CONNACK.
pub const ASKS_MS_MAX: u64 = 2_000;
