//! Every bound of a terminal, with the reason for its value.

/// Columns of the display: an OLED of 128 pixels with a font of 8.
pub const SCREEN_COLUMNS: usize = 16;

/// Rows of the display: what a terminal has to say at once.
pub const SCREEN_ROWS: usize = 4;
