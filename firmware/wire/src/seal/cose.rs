//! `COSE_Encrypt0` as bytes.
//!
//! Promises: one encoding for each; nothing but the two headers that a message may
//! have. Never: a key, or a look into the ciphertext.

use crate::cbor::{Reader, Writer};
use crate::error::{Field, WireError};

use super::key::FIRST_GENERATION;

const ELEMENTS: u64 = 3;
/// Labels of the headers (RFC 9052, table 3).
const KID: u64 = 4;
const PARTIAL_IV: u64 = 6;

/// The body of a sealed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encrypt0<'a> {
    /// Of the key: kid.
    pub(crate) generation: u8,
    /// Of a receipt: Partial IV.
    pub(crate) number: Option<u64>,
    /// With its tag.
    pub(crate) ciphertext: &'a [u8],
}

impl<'a> Encrypt0<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let field = Field::Seal;
        reader.array(field, ELEMENTS..=ELEMENTS)?;
        reader.bytes(field, 0..=0)?;
        let headers = reader.map(field, 0..=2)?;
        let mut generation = FIRST_GENERATION;
        let mut number = None;
        let mut least = 0;
        for _ in 0..headers {
            let label = reader.uint(field, least..=PARTIAL_IV)?;
            least = label + 1;
            match label {
                KID => generation = read_generation(reader)?,
                PARTIAL_IV => number = Some(read_number(reader)?),
                _ => return Err(WireError::OutOfRange(field)),
            }
        }
        Ok(Self {
            generation,
            number,
            ciphertext: reader.bytes(field, 0..=usize::MAX)?,
        })
    }

    /// Writes all but the ciphertext, which is to have so many bytes.
    pub(crate) fn write_head(
        &self,
        ciphertext_bytes: usize,
        writer: &mut Writer<'_>,
    ) -> Result<(), WireError> {
        let has_kid = self.generation != FIRST_GENERATION;
        let headers = u64::from(has_kid) + u64::from(self.number.is_some());
        writer.array(ELEMENTS)?.bytes(&[])?.map(headers)?;
        if has_kid {
            writer.uint(KID)?.bytes(&[self.generation])?;
        }
        if let Some(number) = self.number {
            let bytes = number.to_be_bytes();
            let zeros = (number.leading_zeros() / 8).min(7) as usize;
            let bytes = bytes.get(zeros..).unwrap_or(&bytes);
            writer.uint(PARTIAL_IV)?.bytes(bytes)?;
        }
        writer.bytes_head(ciphertext_bytes)
    }
}

fn read_generation(reader: &mut Reader<'_>) -> Result<u8, WireError> {
    match reader.bytes(Field::Generation, 1..=1)? {
        // 1 is what it is without.
        [generation] if *generation > FIRST_GENERATION => Ok(*generation),
        _ => Err(WireError::NotCanonical(Field::Generation)),
    }
}

fn read_number(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    match reader.bytes(Field::Number, 1..=8)? {
        [0, _, ..] => Err(WireError::NotCanonical(Field::Number)),
        bytes => Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))),
    }
}
