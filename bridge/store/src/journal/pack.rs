//! How records lie on disk: records in packs, packs in sled entries.
//!
//! A pack names its journal, its generation and its positions, so that it can
//! be found in raw bytes and put in its place without sled. Big-endian.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `RsJ1` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | 0; 1: the body is encrypted |
//! | 6 | 16 | journal id |
//! | 22 | 8 | generation number |
//! | 30 | 8 | position of its first record |
//! | 38 | 8 | position of the first record of its commit group: every position below was durable when this was written |
//! | 46 | 4 | records |
//! | 50 | 2 | fragment i |
//! | 52 | 2 | of n |
//! | 54 | 4 | body length |
//! | 58 | 4 | CRC32C of bytes 0..58 and the body |
//! | 62 | | body |
//!
//! The CRC is over what lies on disk, so damage is seen without a key. An encrypted
//! body is ciphertext and tag (16), as in `encryption.rs`; the associated data is
//! bytes 0..58, the nonce the first position (8), the fragment (2) and the last two
//! bytes of the generation number.
//!
//! sled's key is the first position (8) and the fragment (2). The body of a pack
//! with n = 1 is its records, each behind its length (4). A record too large for
//! one pack stands alone, cut into n bodies. A record:
//!
//! | bytes | field |
//! | --- | --- |
//! | 8 | received, Unix milliseconds |
//! | 1 | identity: 0 none, 1 sequence, 2 packet; +16 DUP; +32 resend mark |
//! | 8 | sequence number or packet identifier, 0 for none |
//! | 2, 2, 4 | lengths of client identifier, topic, properties |
//! | | client identifier, topic, properties, payload (the rest) |

use bytes::{Buf, BufMut, Bytes};

use crate::encryption::{PackCipher, TAG_BYTES};
use crate::limits;
use crate::record::{Identity, NewRecord, Position};

pub(crate) const MAGIC: [u8; 4] = *b"RsJ1";
const VERSION: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 62;
/// The header without its CRC.
const HEAD_BYTES: usize = 58;
const RECORD_HEADER_BYTES: usize = 25;

/// The largest pack, bytes.
pub(crate) const PACK_BYTES_MAX: usize = limits::VALUE_BYTES_MAX;
const BODY_BYTES_MAX: usize = PACK_BYTES_MAX - HEADER_BYTES;

/// Identifies a journal for ever.
pub type JournalId = [u8; 16];

/// A pack as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// First position and fragment.
    pub key: [u8; 10],
    /// Header and body.
    pub value: Vec<u8>,
}

/// A pack's header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The journal it belongs to.
    pub journal: JournalId,
    /// The generation it was written to.
    pub generation: u64,
    /// Position of its first record.
    pub first: Position,
    /// Position of the first record of its commit group.
    pub group_first: Position,
    /// Records in it.
    pub records: u32,
    /// Which part of a record that fits no single pack.
    pub fragment: u16,
    /// Of how many.
    pub fragments: u16,
    /// Whether the body is encrypted.
    pub encrypted: bool,
}

impl Header {
    fn encode(&self, body: &[u8], cipher: Option<&PackCipher>) -> Vec<u8> {
        let body_bytes = body.len() + cipher.map_or(0, |_| TAG_BYTES);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body_bytes);
        bytes.put_slice(&MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_u8(u8::from(self.encrypted));
        bytes.put_slice(&self.journal);
        bytes.put_u64(self.generation);
        bytes.put_u64(self.first);
        bytes.put_u64(self.group_first);
        bytes.put_u32(self.records);
        bytes.put_u16(self.fragment);
        bytes.put_u16(self.fragments);
        bytes.put_u32(body_bytes as u32);
        bytes.put_u32(0);
        bytes.put_slice(body);
        let (header, body) = bytes.split_at_mut(HEADER_BYTES);
        let tag = cipher.map(|cipher| cipher.encrypt(self.nonce(), &header[..HEAD_BYTES], body));
        bytes.put_slice(tag.as_ref().map_or(&[], |tag| &tag[..]));
        let crc = crc32c::crc32c(&bytes[..HEAD_BYTES]);
        let crc = crc32c::crc32c_append(crc, &bytes[HEADER_BYTES..]);
        bytes[HEAD_BYTES..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..10].copy_from_slice(&self.key());
        nonce[10..].copy_from_slice(&self.generation.to_be_bytes()[6..]);
        nonce
    }

    /// The records' bytes out of the body of this header's pack; none if they do not
    /// fit their tag, or the body is encrypted and there is no key.
    pub(crate) fn open(
        &self,
        pack: &[u8],
        body: Bytes,
        cipher: Option<&PackCipher>,
    ) -> Option<Bytes> {
        if !self.encrypted {
            return Some(body);
        }
        let plain = cipher?.decrypt(self.nonce(), pack.get(..HEAD_BYTES)?, &body)?;
        Some(plain.into())
    }

    /// Decodes the pack at the head of `bytes`: header, body, whole length.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8], usize)> {
        let head = bytes.get(..HEADER_BYTES)?;
        if head[..4] != MAGIC || head[4] != VERSION || head[5] > 1 {
            return None;
        }
        let mut rest = &head[6..];
        let mut journal = JournalId::default();
        rest.copy_to_slice(&mut journal);
        let header = Self {
            journal,
            generation: rest.get_u64(),
            first: rest.get_u64(),
            group_first: rest.get_u64(),
            records: rest.get_u32(),
            fragment: rest.get_u16(),
            fragments: rest.get_u16(),
            encrypted: head[5] == 1,
        };
        let body_bytes = rest.get_u32() as usize;
        let crc = rest.get_u32();
        if body_bytes > BODY_BYTES_MAX {
            return None;
        }
        let body = bytes.get(HEADER_BYTES..HEADER_BYTES + body_bytes)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[..HEAD_BYTES]), body) != crc {
            return None;
        }
        Some((header, body, HEADER_BYTES + body_bytes))
    }

    pub(crate) fn key(&self) -> [u8; 10] {
        key(self.first, self.fragment)
    }
}

/// sled's key of a pack.
pub(crate) fn key(first: Position, fragment: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&fragment.to_be_bytes());
    key
}

/// Whether a record can be stored at all.
pub(crate) fn fits(record: &NewRecord) -> bool {
    record.client_id.len() <= limits::STRING_BYTES_MAX
        && record.topic.len() <= limits::STRING_BYTES_MAX
        && record_bytes(record) <= limits::RECORD_BYTES_MAX
}

/// What the bounds count of a record, bytes.
pub(crate) fn record_bytes(record: &NewRecord) -> usize {
    record.client_id.len() + record.topic.len() + record.properties.len() + record.payload.len()
}

fn encode_record(record: &NewRecord, into: &mut Vec<u8>) {
    let (kind, number) = match record.identity {
        Identity::None => (0, 0),
        Identity::Sequence {
            sequence,
            dup,
            resend_mark,
        } => (
            1 | u8::from(dup) << 4 | u8::from(resend_mark) << 5,
            sequence,
        ),
        Identity::Packet { packet_id, dup } => (2 | u8::from(dup) << 4, u64::from(packet_id)),
    };
    into.put_u64(record.received_ms);
    into.put_u8(kind);
    into.put_u64(number);
    into.put_u16(record.client_id.len() as u16);
    into.put_u16(record.topic.len() as u16);
    into.put_u32(record.properties.len() as u32);
    into.put_slice(&record.client_id);
    into.put_slice(&record.topic);
    into.put_slice(&record.properties);
    into.put_slice(&record.payload);
}

fn decode_record(mut bytes: Bytes) -> Option<NewRecord> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return None;
    }
    let received_ms = bytes.get_u64();
    let kind = bytes.get_u8();
    let number = bytes.get_u64();
    let lengths = [
        usize::from(bytes.get_u16()),
        usize::from(bytes.get_u16()),
        bytes.get_u32() as usize,
    ];
    let dup = kind & 16 != 0;
    let identity = match kind & 15 {
        0 => Identity::None,
        1 => Identity::Sequence {
            sequence: number,
            dup,
            resend_mark: kind & 32 != 0,
        },
        2 => Identity::Packet {
            packet_id: u16::try_from(number).ok()?,
            dup,
        },
        _ => return None,
    };
    let mut fields = lengths.map(|length| (bytes.len() >= length).then(|| bytes.split_to(length)));
    Some(NewRecord {
        received_ms,
        client_id: fields[0].take()?,
        topic: fields[1].take()?,
        identity,
        properties: fields[2].take()?,
        payload: bytes,
    })
}

/// The packs of one commit group: sled's key and value each.
pub(crate) struct Packer {
    journal: JournalId,
    generation: u64,
    group_first: Position,
    next: Position,
    body: Vec<u8>,
    body_first: Position,
    packs: Vec<Pack>,
    cipher: Option<PackCipher>,
}

impl Packer {
    pub(crate) fn new(journal: JournalId, generation: u64, group_first: Position) -> Self {
        Self {
            journal,
            generation,
            group_first,
            next: group_first,
            body: Vec::with_capacity(BODY_BYTES_MAX),
            body_first: group_first,
            packs: Vec::new(),
            cipher: None,
        }
    }

    /// With bodies encrypted, if there is a key.
    pub(crate) fn encrypting(mut self, cipher: Option<PackCipher>) -> Self {
        self.cipher = cipher;
        self
    }

    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX - self.cipher.as_ref().map_or(0, |_| TAG_BYTES)
    }

    pub(crate) fn add(&mut self, record: &NewRecord) {
        let bytes = 4 + RECORD_HEADER_BYTES + record_bytes(record);
        if self.body.len() + bytes > self.body_bytes_max() {
            self.end_pack();
        }
        if bytes > self.body_bytes_max() {
            self.add_fragmented(record);
            return;
        }
        self.body.put_u32((bytes - 4) as u32);
        encode_record(record, &mut self.body);
        self.next += 1;
    }

    fn add_fragmented(&mut self, record: &NewRecord) {
        let mut whole = Vec::with_capacity(RECORD_HEADER_BYTES + record_bytes(record));
        encode_record(record, &mut whole);
        // Two at least: one alone would be read as records behind their lengths,
        // for which a record that just fills a body has no room.
        let fragments = whole.len().div_ceil(self.body_bytes_max()).max(2);
        let body_bytes = whole.len().div_ceil(fragments);
        for (fragment, body) in (0_u16..).zip(whole.chunks(body_bytes)) {
            self.push(self.next, 1, fragment, fragments as u16, body);
        }
        self.next += 1;
        self.body_first = self.next;
    }

    fn end_pack(&mut self) {
        if self.body.is_empty() {
            self.body_first = self.next;
            return;
        }
        let body = std::mem::take(&mut self.body);
        let records = (self.next - self.body_first) as u32;
        self.push(self.body_first, records, 0, 1, &body);
        self.body = body;
        self.body.clear();
        self.body_first = self.next;
    }

    fn push(&mut self, first: Position, records: u32, fragment: u16, fragments: u16, body: &[u8]) {
        let header = Header {
            journal: self.journal,
            generation: self.generation,
            first,
            group_first: self.group_first,
            records,
            fragment,
            fragments,
            encrypted: self.cipher.is_some(),
        };
        self.packs.push(Pack {
            key: header.key(),
            value: header.encode(body, self.cipher.as_ref()),
        });
    }

    /// All packs, in order.
    pub(crate) fn finish(mut self) -> Vec<Pack> {
        self.end_pack();
        self.packs
    }
}

/// The records of an unfragmented pack's body, or of all fragments' bodies in a
/// row; `None` if they are not what the header says.
pub(crate) fn records_of(header: &Header, body: Bytes) -> Option<Vec<NewRecord>> {
    if header.fragments != 1 {
        return Some(vec![decode_record(body)?]);
    }
    let mut body = body;
    let mut records = Vec::with_capacity((header.records as usize).min(PACK_BYTES_MAX));
    for _ in 0..header.records {
        if body.len() < 4 {
            return None;
        }
        let length = body.get_u32() as usize;
        if body.len() < length {
            return None;
        }
        records.push(decode_record(body.split_to(length))?);
    }
    body.is_empty().then_some(records)
}

#[cfg(test)]
mod tests;
