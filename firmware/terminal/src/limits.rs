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
pub const SETTINGS_BYTES_MAX: usize = 512;

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
