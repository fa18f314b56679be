//! The few packets of MQTT 3.1.1 that a load needs, encoded once.
//!
//! Promises: a PUBLISH costs one copy of its bytes. Never: a packet that the
//! standard does not allow, or leniency towards one that comes back.
//!
//! | packet | bytes |
//! | --- | --- |
//! | PUBLISH, QoS 1 | `32`, remaining length, topic length, topic, packet identifier, payload |
//! | payload | counter (8, big-endian), noise |
//! | PUBACK | `40 02`, packet identifier |
//! | SUBSCRIBE | `82`, remaining length, packet identifier, filter length, filter, QoS |

use std::io;

/// CONNECT with Clean Session and without keep alive.
#[must_use]
pub fn connect(client_id: &str) -> Vec<u8> {
    let mut rest = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
    string(&mut rest, client_id);
    let mut packet = vec![0x10];
    length(&mut packet, rest.len());
    packet.extend(rest);
    packet
}

/// CONNACK that accepts, without a session.
pub const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// DISCONNECT.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// SUBSCRIBE to one filter at QoS 1, with packet identifier 1.
#[must_use]
pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut rest = vec![0, 1];
    string(&mut rest, filter);
    rest.push(1);
    let mut packet = vec![0x82];
    length(&mut packet, rest.len());
    packet.extend(rest);
    packet
}

/// Appends a PUBLISH at QoS 1 to `out`.
pub fn publish(topic: &str, packet_id: u16, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x32);
    length(out, 2 + topic.len() + 2 + payload.len());
    string(out, topic);
    out.extend(packet_id.to_be_bytes());
    out.extend(payload);
}

/// A packet that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Its first byte: kind and flags.
    pub first: u8,
    /// What follows its length.
    pub body: &'a [u8],
    /// What came behind it.
    pub behind: &'a [u8],
}

/// The first packet; none while it is not whole.
///
/// # Errors
/// A length that the standard does not allow.
pub fn split(bytes: &[u8]) -> io::Result<Option<Incoming<'_>>> {
    let mut length = 0;
    for (index, shift) in (1..5).zip((0..28).step_by(7)) {
        let Some(byte) = bytes.get(index) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            let parts = bytes[index + 1..].split_at_checked(length);
            return Ok(parts.map(|(body, behind)| Incoming {
                first: bytes[0],
                body,
                behind,
            }));
        }
    }
    Err(io::Error::other("a length of more than four bytes"))
}

/// Packet identifier and payload of a PUBLISH at QoS 1.
///
/// # Errors
/// It is cut off.
pub fn delivery(body: &[u8]) -> io::Result<([u8; 2], &[u8])> {
    let cut = || io::Error::other("a PUBLISH that is cut off");
    let (length, rest) = body.split_first_chunk::<2>().ok_or_else(cut)?;
    let topic = usize::from(u16::from_be_bytes(*length));
    let rest = rest.get(topic..).ok_or_else(cut)?;
    let (packet_id, payload) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    Ok((*packet_id, payload))
}

/// A PUBLISH at QoS 1 whose identifier and counter change.
#[derive(Debug)]
pub struct Publish {
    bytes: Vec<u8>,
    packet_id_at: usize,
    counter: u64,
}

impl Publish {
    /// `payload` has at least the 8 bytes of the counter.
    #[must_use]
    pub fn new(topic: &str, payload: &[u8]) -> Self {
        let mut bytes = vec![0x32];
        length(&mut bytes, 2 + topic.len() + 2 + payload.len());
        string(&mut bytes, topic);
        let packet_id_at = bytes.len();
        bytes.extend([0, 0]);
        bytes.extend(payload);
        Self {
            bytes,
            packet_id_at,
            counter: 0,
        }
    }

    /// How many there were so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counter
    }

    /// Appends the next one to `out`.
    pub fn append(&mut self, packet_id: u16, out: &mut Vec<u8>) {
        self.counter += 1;
        let at = self.packet_id_at;
        self.bytes[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        self.bytes[at + 2..at + 10].copy_from_slice(&self.counter.to_be_bytes());
        out.extend(&self.bytes);
    }
}

/// What came back, cut into PUBACKs.
#[derive(Debug, Default)]
pub struct Pubacks {
    /// The beginning of one that is not whole yet.
    rest: Vec<u8>,
}

impl Pubacks {
    /// Calls `each` with the identifier of every PUBACK that is whole.
    ///
    /// # Errors
    /// Something else than a PUBACK.
    pub fn take(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(u16) -> io::Result<()>,
    ) -> io::Result<()> {
        let joined;
        let bytes = if self.rest.is_empty() {
            bytes
        } else {
            self.rest.extend(bytes);
            joined = std::mem::take(&mut self.rest);
            &joined
        };
        let (packets, rest) = bytes.as_chunks::<4>();
        for packet in packets {
            let [0x40, 2, high, low] = *packet else {
                return Err(io::Error::other(format!("no PUBACK: {packet:02x?}")));
            };
            each(u16::from_be_bytes([high, low]))?;
        }
        self.rest.extend(rest);
        Ok(())
    }
}

fn string(into: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("the benchmark's names are short");
    into.extend(length.to_be_bytes());
    into.extend(text.as_bytes());
}

/// A remaining length (MQTT-3.1.1, section 2.2.3).
fn length(into: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            into.push(low);
            return;
        }
        into.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_differ_by_identifier_and_counter_only() {
        let mut publish = Publish::new("a/b", &[9; 200]);
        let mut out = Vec::new();
        publish.append(7, &mut out);
        let mut expected =
            b"\x32\xcf\x01\x00\x03a/b\x00\x07\x00\x00\x00\x00\x00\x00\x00\x01".to_vec();
        expected.extend([9; 192]);
        assert_eq!(out, expected);
        publish.append(0x0108, &mut out);
        let second = &out[expected.len()..];
        assert_eq!(&second[8..18], b"\x01\x08\x00\x00\x00\x00\x00\x00\x00\x02");
        assert_eq!(second.len(), expected.len());
    }

    #[test]
    fn packets_are_cut_where_they_end() {
        let mut bytes = Vec::new();
        publish("t/x/records", 7, &[5; 200], &mut bytes);
        bytes.extend([0x40, 2, 0, 9]);
        for whole in 0..bytes.len() - 4 {
            assert_eq!(split(&bytes[..whole]).unwrap(), None);
        }
        let first = split(&bytes).unwrap().unwrap();
        let (packet_id, payload) = delivery(first.body).unwrap();
        assert_eq!((first.first, packet_id, payload.len()), (0x32, [0, 7], 200));
        let second = split(first.behind).unwrap().unwrap();
        assert_eq!((second.first, second.body), (0x40, &[0, 9][..]));
        assert!(second.behind.is_empty());
        assert!(split(&[0x30, 0xff, 0xff, 0xff, 0xff, 0]).is_err());
        assert!(delivery(&[0, 9, b't']).is_err());
    }

    #[test]
    fn pubacks_come_in_any_pieces() {
        let mut pubacks = Pubacks::default();
        let mut seen = Vec::new();
        for piece in [
            &b"\x40\x02\x00\x01\x40"[..],
            b"\x02",
            b"\x01\x02\x40\x02\x00",
            b"\x03",
        ] {
            pubacks
                .take(piece, |id| {
                    seen.push(id);
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(seen, [1, 0x0102, 3]);
        assert!(pubacks.take(b"\x50\x02\x00\x01", |_| Ok(())).is_err());
    }
}
