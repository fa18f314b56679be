//! The packets that a server sends, written straight into the transmit buffer.

use bytes::{BufMut, BytesMut};

/// Appends a UTF-8 string with its length; beyond 65,535 bytes it is cut.
pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    let text = crate::message::truncate_at_char(text, usize::from(u16::MAX));
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}
