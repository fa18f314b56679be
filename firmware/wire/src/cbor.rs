//! The strict subset of CBOR that messages use.
//!
//! Promises: only definite lengths and shortest forms pass (RFC 8949 section
//! 4.2.1), and a field that is refused is named. Never: recursion, or a length
//! believed before the bytes are there.

use core::ops::RangeInclusive;

use minicbor::decode::{Decoder, Error};
use minicbor::encode::write::{Cursor, EndOfSlice};
use minicbor::encode::{Encoder, Error as EncodeError};

use crate::error::{Field, WireError};

const UINT: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const NULL: u8 = 0xf6;
/// Additional information of an indefinite length.
const INDEFINITE: u8 = 31;

/// Reads fields one after the other.
pub struct Reader<'b> {
    decoder: Decoder<'b>,
}

impl<'b> Reader<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self {
            decoder: Decoder::new(bytes),
        }
    }

    fn first_byte(&self, field: Field) -> Result<u8, WireError> {
        let at = self.decoder.position();
        self.decoder
            .input()
            .get(at)
            .copied()
            .ok_or(WireError::Truncated(field))
    }

    /// Requires a major type (RFC 8949 section 3.1) with a definite length.
    fn expect(&self, major: u8, field: Field) -> Result<(), WireError> {
        let first = self.first_byte(field)?;
        if first >> 5 != major {
            Err(WireError::WrongType(field))
        } else if first & 0x1f == INDEFINITE && major != UINT {
            Err(WireError::NotCanonical(field))
        } else {
            Ok(())
        }
    }

    /// Requires that the head which was read from `start` took the bytes that
    /// its argument needs, and no more.
    fn require_shortest(
        &self,
        start: usize,
        argument: u64,
        content_bytes: usize,
        field: Field,
    ) -> Result<(), WireError> {
        let head = self.decoder.position() - start - content_bytes;
        if head == head_bytes(argument) {
            Ok(())
        } else {
            Err(WireError::NotCanonical(field))
        }
    }

    /// An unsigned integer within bounds.
    pub fn uint(&mut self, field: Field, range: RangeInclusive<u64>) -> Result<u64, WireError> {
        self.expect(UINT, field)?;
        let start = self.decoder.position();
        let value = self.decoder.u64().map_err(|error| refusal(&error, field))?;
        self.require_shortest(start, value, 0, field)?;
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(WireError::OutOfRange(field))
        }
    }

    /// The head of an array: its number of elements, which follow.
    pub fn array(&mut self, field: Field, lengths: RangeInclusive<u64>) -> Result<u64, WireError> {
        self.expect(ARRAY, field)?;
        self.length(field, lengths, |decoder| decoder.array())
    }

    /// The number in the head that is next.
    fn length(
        &mut self,
        field: Field,
        lengths: RangeInclusive<u64>,
        head: impl FnOnce(&mut Decoder<'b>) -> Result<Option<u64>, Error>,
    ) -> Result<u64, WireError> {
        let start = self.decoder.position();
        let length = head(&mut self.decoder)
            .map_err(|error| refusal(&error, field))?
            .ok_or(WireError::NotCanonical(field))?;
        self.require_shortest(start, length, 0, field)?;
        if lengths.contains(&length) {
            Ok(length)
        } else {
            Err(WireError::WrongType(field))
        }
    }

    /// A text of that many bytes, without control characters.
    pub fn text(
        &mut self,
        field: Field,
        bytes: RangeInclusive<usize>,
    ) -> Result<&'b str, WireError> {
        self.expect(TEXT, field)?;
        let start = self.decoder.position();
        let text = self
            .decoder
            .str()
            .map_err(|error| match refusal(&error, field) {
                WireError::WrongType(field) => WireError::BadText(field),
                other => other,
            })?;
        self.require_shortest(start, text.len() as u64, text.len(), field)?;
        check_text(text, field, bytes)?;
        Ok(text)
    }

    /// Passes over null, if it is next.
    pub fn take_null(&mut self, field: Field) -> Result<bool, WireError> {
        if self.first_byte(field)? != NULL {
            return Ok(false);
        }
        self.decoder
            .null()
            .map_err(|error| refusal(&error, field))?;
        Ok(true)
    }

    /// The head of a map: its number of pairs, which follow.
    pub fn map(&mut self, field: Field, lengths: RangeInclusive<u64>) -> Result<u64, WireError> {
        self.expect(MAP, field)?;
        self.length(field, lengths, |decoder| decoder.map())
    }

    /// A byte string of that many bytes.
    pub fn bytes(
        &mut self,
        field: Field,
        lengths: RangeInclusive<usize>,
    ) -> Result<&'b [u8], WireError> {
        self.expect(BYTES, field)?;
        let start = self.decoder.position();
        let bytes = self
            .decoder
            .bytes()
            .map_err(|error| refusal(&error, field))?;
        self.require_shortest(start, bytes.len() as u64, bytes.len(), field)?;
        if lengths.contains(&bytes.len()) {
            Ok(bytes)
        } else {
            Err(WireError::OutOfRange(field))
        }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'b [u8] {
        let at = self.decoder.position();
        self.decoder.input().get(at..).unwrap_or(&[])
    }

    /// Passes over an open body: an array of what bodies are made of. Stricter
    /// than minicbor's own `skip`, which takes stray breaks and differs with its
    /// `alloc` feature.
    pub fn skip_body(&mut self, field: Field) -> Result<(), WireError> {
        self.expect(ARRAY, field)?;
        let mut items = 1_u64;
        while items > 0 {
            items -= 1;
            let first = self.first_byte(field)?;
            match first >> 5 {
                UINT => {
                    self.uint(field, 0..=u64::MAX)?;
                }
                BYTES => {
                    self.bytes(field, 0..=usize::MAX)?;
                }
                TEXT => {
                    self.text(field, 0..=usize::MAX)?;
                }
                ARRAY => {
                    // An element is at least a byte, so a length that the rest
                    // can't hold is refused here, and the sum can't overflow.
                    let length = self.array(field, 0..=u64::MAX)?;
                    items = items.saturating_add(length);
                    if items > self.left() as u64 {
                        return Err(WireError::Truncated(field));
                    }
                }
                _ if first == NULL => {
                    self.take_null(field)?;
                }
                _ => return Err(WireError::WrongType(field)),
            }
        }
        Ok(())
    }

    fn left(&self) -> usize {
        self.decoder.input().len() - self.decoder.position()
    }

    /// Requires that nothing follows.
    pub fn finish(&self) -> Result<(), WireError> {
        if self.left() == 0 {
            Ok(())
        } else {
            Err(WireError::TrailingBytes)
        }
    }
}

fn refusal(error: &Error, field: Field) -> WireError {
    if error.is_end_of_input() {
        WireError::Truncated(field)
    } else {
        WireError::WrongType(field)
    }
}

/// Bytes of a head whose argument is in its shortest form.
fn head_bytes(argument: u64) -> usize {
    match argument {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The rules of every text.
pub fn check_text(text: &str, field: Field, bytes: RangeInclusive<usize>) -> Result<(), WireError> {
    if !bytes.contains(&text.len()) {
        Err(WireError::OutOfRange(field))
    } else if text.chars().any(char::is_control) {
        Err(WireError::BadText(field))
    } else {
        Ok(())
    }
}

/// Writes fields one after the other, in their shortest form, into a buffer.
pub struct Writer<'b> {
    encoder: Encoder<Cursor<&'b mut [u8]>>,
}

impl<'b> Writer<'b> {
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            encoder: Encoder::new(Cursor::new(buffer)),
        }
    }

    pub fn uint(&mut self, value: u64) -> Result<&mut Self, WireError> {
        full(self.encoder.u64(value).map(drop))?;
        Ok(self)
    }

    pub fn array(&mut self, length: u64) -> Result<&mut Self, WireError> {
        full(self.encoder.array(length).map(drop))?;
        Ok(self)
    }

    pub fn text(&mut self, text: &str) -> Result<&mut Self, WireError> {
        full(self.encoder.str(text).map(drop))?;
        Ok(self)
    }

    pub fn map(&mut self, length: u64) -> Result<&mut Self, WireError> {
        full(self.encoder.map(length).map(drop))?;
        Ok(self)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<&mut Self, WireError> {
        full(self.encoder.bytes(bytes).map(drop))?;
        Ok(self)
    }

    /// The head of a byte string of so many bytes, which the caller puts behind it.
    pub fn bytes_head(&mut self, length: usize) -> Result<(), WireError> {
        full(self.encoder.bytes_len(length as u64).map(drop))
    }

    pub fn null(&mut self) -> Result<&mut Self, WireError> {
        full(self.encoder.null().map(drop))?;
        Ok(self)
    }

    /// What was written.
    pub fn finish(self) -> &'b [u8] {
        let cursor = self.encoder.into_writer();
        let written = cursor.position();
        let buffer: &'b [u8] = cursor.into_inner();
        // The cursor refuses to pass the end.
        buffer.get(..written).unwrap_or(buffer)
    }
}

fn full(written: Result<(), EncodeError<EndOfSlice>>) -> Result<(), WireError> {
    written.map_err(|_| WireError::BufferTooSmall)
}
