//! ESC/POS, as much of it as a receipt takes.
//!
//! Promises: what is not known is told as such, so that a test can ask for none.

/// A command, or a byte to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// A character, in the code page.
    Print(u8),
    LineFeed,
    /// `ESC @`
    Initialise,
    /// `ESC ! n`
    Style(u8),
    /// `ESC a n`
    Justify(u8),
    /// `ESC t n`
    CodePage(u8),
    /// `ESC d n`
    Feed(u8),
    /// `GS V`
    Cut,
    /// `GS a n`
    AutomaticStatus(u8),
    /// `GS ( H` fn 48
    ProcessId([u8; 4]),
    /// `GS r n`
    Sensor,
    /// `DLE EOT n`
    Status(u8),
    /// `DLE DC4` fn 8
    Forget,
    /// Neither of these, from this byte on.
    Unknown(u8),
}

/// Takes the first command off the bytes; none until all of it is here.
pub(super) fn next(bytes: &mut Vec<u8>) -> Option<Command> {
    let length = match *bytes.as_slice() {
        [0x1B | 0x1D | 0x10] | [0x1B, b'@', ..] => 2,
        [0x1D, b'V', 65 | 66, ..] => 4,
        [0x1D, b'(', ..] => 11,
        [0x10, 0x14, ..] => 10,
        [0x1B | 0x1D | 0x10, ..] => 3,
        _ => 1,
    };
    let command = match *bytes.get(..length)? {
        [b'\n'] => Command::LineFeed,
        [byte @ (0x20..=0x7E | 0x80..)] => Command::Print(byte),
        [0x1B, b'@'] => Command::Initialise,
        [0x1B, b'!', n] => Command::Style(n),
        [0x1B, b'a', n] => Command::Justify(n),
        [0x1B, b't', n] => Command::CodePage(n),
        [0x1B, b'd', n] => Command::Feed(n),
        [0x1D, b'V', 0 | 1 | 48 | 49] | [0x1D, b'V', 65 | 66, _] => Command::Cut,
        [0x1D, b'a', n] => Command::AutomaticStatus(n),
        [0x1D, b'r', _] => Command::Sensor,
        [0x1D, b'(', b'H', 6, 0, 48, 48, a, b, c, d] => Command::ProcessId([a, b, c, d]),
        [0x10, 0x04, n] => Command::Status(n),
        [0x10, 0x14, 8, 1, 3, 20, 1, 6, 2, 8] => Command::Forget,
        [byte, ..] => {
            bytes.remove(0);
            return Some(Command::Unknown(byte));
        }
        [] => return None,
    };
    bytes.drain(..length);
    Some(command)
}

/// The characters of code page 858 from 0x80 on.
const CODE_PAGE_858: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈ€ÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{AD}±‗¾¶§÷¸°¨·¹³²■\u{A0}";

/// The character that a byte prints.
pub(super) fn character(byte: u8) -> char {
    if byte < 0x80 {
        return byte.into();
    }
    CODE_PAGE_858
        .chars()
        .nth(usize::from(byte) - 0x80)
        .unwrap_or('\u{FFFD}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_whole_or_waits() {
        let job = b"\x1B@\x1Ba\x01A\n\x1Bd\x04\x1DVB\x00\x1D(H\x06\x0000RS01\x1Dr\x01\x10\x04\x02";
        let mut at_once = job.to_vec();
        let mut commands = Vec::new();
        while let Some(command) = next(&mut at_once) {
            commands.push(command);
        }
        assert_eq!(
            commands,
            [
                Command::Initialise,
                Command::Justify(1),
                Command::Print(b'A'),
                Command::LineFeed,
                Command::Feed(4),
                Command::Cut,
                Command::ProcessId(*b"RS01"),
                Command::Sensor,
                Command::Status(2),
            ]
        );
        let mut by_byte = Vec::new();
        let mut told = Vec::new();
        for byte in job {
            by_byte.push(*byte);
            told.extend(next(&mut by_byte));
        }
        assert_eq!(told, commands);
        assert!(by_byte.is_empty());
    }

    #[test]
    fn the_code_page_has_every_byte() {
        assert_eq!(CODE_PAGE_858.chars().count(), 128);
        assert_eq!(character(0xD5), '€');
        assert_eq!(character(0x82), 'é');
    }
}
