//! Records, receipts, birth messages and settings, as bytes from anybody.
//!
//! What decodes encodes to the same bytes: one message has one encoding. `peek`
//! and the decoders agree on sequence and kind; the resend mark changes nothing
//! else. What was decoded is within its bounds, so that a buffer of the stated
//! size always holds it. No input takes memory.

#![no_main]

use risiti_fuzz::control::breaks;
use risiti_fuzz::seeds::{self, Seed};
use risiti_fuzz::{memory, target};
use risiti_terminal::limits::SETTINGS_BYTES_MAX;
use risiti_terminal::settings::Settings;
use risiti_wire::limits::{BIRTH_BYTES_MAX, RECEIPT_BYTES_MAX, RECORD_BYTES_MAX};
use risiti_wire::{Birth, Kind, Receipt, Record, RecordBody, Standing, mark_resend, peek};

target!("wire", seeds, |data| {
    let account = memory::begin();
    let header = peek(data);
    record(data, header.ok());
    receipt(data, header.ok());
    birth(data);
    settings(data);
    // Where minicbor has memory, its errors have a text.
    assert!(account.peak_bytes() <= 256, "a decoder took memory");
});

fn record(data: &[u8], header: Option<risiti_wire::Header>) {
    let Ok(record) = Record::decode(data) else {
        return;
    };
    let mut buffer = [0; RECORD_BYTES_MAX];
    let encoded = record.encode(&mut buffer);
    // The control takes a record that was sent again for a canonical one.
    if breaks("wire-resend") {
        assert!(!record.resend);
    }
    assert_eq!(encoded, Ok(data), "a record has one encoding");
    let header = header.expect("peek takes what decodes");
    assert_eq!(
        (header.sequence, header.resend),
        (record.sequence, record.resend)
    );
    let kind = match record.body {
        RecordBody::Payment(_) => Kind::Payment,
        RecordBody::Reversal(_) => Kind::Reversal,
    };
    assert_eq!((header.kind, header.sealed), (kind, false));
    let mut marked = [0; RECORD_BYTES_MAX];
    let marked = &mut marked[..data.len()];
    marked.copy_from_slice(data);
    mark_resend(marked).expect("what decodes can be marked");
    let again = Record {
        resend: true,
        ..record
    };
    assert_eq!(
        Record::decode(marked),
        Ok(again),
        "the mark changes nothing else"
    );
}

fn receipt(data: &[u8], header: Option<risiti_wire::Header>) {
    let Ok(receipt) = Receipt::decode(data) else {
        return;
    };
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    assert_eq!(
        receipt.encode(&mut buffer),
        Ok(data),
        "a receipt has one encoding"
    );
    let header = header.expect("peek takes what decodes");
    assert_eq!(
        (header.sequence, header.kind),
        (receipt.sequence, Kind::Receipt)
    );
    let texts = receipt.lines.iter().chain(receipt.bank_reference);
    for text in texts {
        assert!(
            !text.contains(char::is_control),
            "a printer would obey {text:?}"
        );
    }
}

fn birth(data: &[u8]) {
    let Ok(standing) = Standing::decode(data) else {
        return;
    };
    let mut buffer = [0; BIRTH_BYTES_MAX];
    let encoded = match &standing {
        Standing::Lost => Ok(&risiti_wire::LOST[..]),
        Standing::Reported(birth) => Birth::encode(birth, &mut buffer),
    };
    assert_eq!(encoded, Ok(data), "a birth message has one encoding");
}

/// A map may hold keys of a later version and follows no canonical form in values,
/// so only what it says is compared. Any map is tried under the checksum that it
/// needs, which mutation alone would not find.
fn settings(data: &[u8]) {
    const HEAD_BYTES: usize = 7;
    let mut sealed = [0; SETTINGS_BYTES_MAX];
    let Some((_, map)) = data.split_at_checked(HEAD_BYTES) else {
        let _ = Settings::decode(data);
        return;
    };
    let map = &map[..map.len().min(SETTINGS_BYTES_MAX - HEAD_BYTES - 4)];
    let end = HEAD_BYTES + map.len();
    sealed[..5].copy_from_slice(b"RSET\x01");
    sealed[5..7].copy_from_slice(&(map.len() as u16).to_be_bytes());
    sealed[HEAD_BYTES..end].copy_from_slice(map);
    let check = crc32c::crc32c(&sealed[..end]);
    sealed[end..end + 4].copy_from_slice(&check.to_be_bytes());
    if data != sealed {
        let _ = Settings::decode(data);
    }
    let Ok(settings) = Settings::decode(&sealed[..end + 4]) else {
        return;
    };
    let mut buffer = [0; SETTINGS_BYTES_MAX];
    let bytes = settings
        .encode(&mut buffer)
        .expect("what decodes is within bounds");
    assert_eq!(Settings::decode(&buffer[..bytes]), Ok(settings));
    // One flipped bit is seen, wherever it is.
    let bit = data.len() * 13 % (bytes * 8);
    buffer[bit / 8] ^= 1 << (bit % 8);
    assert!(
        Settings::decode(&buffer[..bytes]).is_err(),
        "bit {bit} flipped unseen"
    );
    for text in [
        settings.host,
        settings.apn,
        settings.apn_user,
        settings.apn_password,
    ] {
        let spoken = text
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"');
        assert!(spoken, "{text:?} would end an AT command's string");
    }
}

fn seeds() -> Vec<Seed> {
    let mut all: Vec<Seed> = Vec::new();
    for (file, column) in [("golden", 1), ("refused", 2)] {
        let text = seeds::file(&format!("firmware/wire/tests/{file}.txt"));
        for (number, line) in text.lines().enumerate() {
            let hex = line.split('|').nth(column).map(str::trim);
            if let Some(bytes) = hex.and_then(seeds::unhex).filter(|bytes| !bytes.is_empty()) {
                all.push((format!("{file}-{number:02}"), bytes));
            }
        }
    }
    let birth = Birth {
        firmware: 0x0001_0203,
        battery_mv: 3_700,
        signal: Some(17),
        ..Birth::default()
    };
    let mut buffer = [0; BIRTH_BYTES_MAX];
    all.push((
        "birth".into(),
        birth.encode(&mut buffer).expect("fits").to_vec(),
    ));
    all.push(("lost".into(), risiti_wire::LOST.to_vec()));
    let settings = Settings {
        id: "t-000017",
        host: "gw.example",
        apn: "internet",
        apn_user: "user",
        token: b"token",
        title: "SACCO",
        ..Settings::default()
    };
    let mut buffer = [0xff; SETTINGS_BYTES_MAX];
    let bytes = settings.encode(&mut buffer).expect("fits");
    all.push(("settings".into(), buffer[..bytes - 4].to_vec()));
    all
}
