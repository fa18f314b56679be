//! Reads the MQTT 5 properties that travel with a record.
//!
//! Promises: total; whatever the bytes are it returns, and what stands before a
//! damaged place is still given. Never: an allocation, or a property that is not
//! a PUBLISH's (MQTT-3.3.2.3).

/// One forwardable property of a PUBLISH (MQTT 5, 3.3.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property<'a> {
    /// 0x01: 0 = bytes, 1 = UTF-8.
    PayloadFormat(u8),
    /// 0x02: seconds.
    MessageExpiry(u32),
    /// 0x03: content type.
    ContentType(&'a [u8]),
    /// 0x08: topic name.
    ResponseTopic(&'a [u8]),
    /// 0x09: opaque.
    CorrelationData(&'a [u8]),
    /// 0x26: name and value.
    User(&'a [u8], &'a [u8]),
}

/// The properties in an MQTT 5 property list without its length prefix.
#[derive(Debug, Clone)]
pub struct Properties<'a> {
    rest: &'a [u8],
}

impl<'a> Properties<'a> {
    /// Reads from these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(usize::from(length))
    }

    fn one(&mut self) -> Option<Property<'a>> {
        Some(match *self.take(1)?.first()? {
            0x01 => Property::PayloadFormat(*self.take(1)?.first()?),
            0x02 => Property::MessageExpiry(u32::from_be_bytes(self.take(4)?.try_into().ok()?)),
            0x03 => Property::ContentType(self.string()?),
            0x08 => Property::ResponseTopic(self.string()?),
            0x09 => Property::CorrelationData(self.string()?),
            0x26 => Property::User(self.string()?, self.string()?),
            _ => return None,
        })
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        let property = self.one();
        if property.is_none() {
            self.rest = &[];
        }
        property
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] =
        b"\x01\x01\x02\0\0\0\x3c\x03\0\x01a\x08\0\x01r\x09\0\x02\x00\xff\x26\0\x01k\0\x01v";

    #[test]
    fn every_forwardable_property_is_read() {
        let all: Vec<_> = Properties::new(LIST).collect();
        assert_eq!(
            all,
            [
                Property::PayloadFormat(1),
                Property::MessageExpiry(60),
                Property::ContentType(b"a"),
                Property::ResponseTopic(b"r"),
                Property::CorrelationData(&[0, 0xff]),
                Property::User(b"k", b"v"),
            ]
        );
    }

    #[test]
    fn a_list_cut_anywhere_gives_what_stands_before_the_cut() {
        let whole: Vec<_> = Properties::new(LIST).collect();
        for cut in 0..LIST.len() {
            let part: Vec<_> = Properties::new(&LIST[..cut]).collect();
            assert_eq!(part, whole[..part.len()]);
        }
    }

    #[test]
    fn any_flipped_bit_is_survived() {
        for bit in 0..LIST.len() * 8 {
            let mut bytes = LIST.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Properties::new(&bytes).count() <= LIST.len());
        }
    }
}
