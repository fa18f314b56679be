//! The bare loop: what the disk gives when nothing else is done.
//!
//! Promises: the same records and the same windows as the load has, made durable
//! in groups: writers hand records to one thread, which writes whatever arrived
//! while it last synced, calls `fdatasync`, and lets their writers go on. Never:
//! a network, a protocol, or a file that grows.
//!
//! | field of a record | bytes |
//! | --- | --- |
//! | length of what follows the checksum | 4, little-endian |
//! | CRC-32C of it | 4, little-endian |
//! | position | 8, little-endian |
//! | client identifier, topic, payload | as they are |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::load::names;
use super::sample::{Sample, latency_units};
use super::{Cell, limits, machine};

/// The log's file, written full.
#[derive(Debug)]
pub struct BareLog {
    file: Arc<File>,
}

/// What writers and the log's thread tell each other.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    done: Mutex<Vec<Handed>>,
    synced: Condvar,
}

#[derive(Default)]
struct Queue {
    records: Vec<Handed>,
    closing: bool,
}

/// A record, and when its writer handed it over.
struct Handed {
    at: Instant,
    record: Arc<[u8]>,
}

impl BareLog {
    /// Makes the file.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let file = File::create(dir.join("bare.log"))?;
        let zeros = vec![0; 1 << 20];
        for at in (0..limits::BARE_FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Self {
            file: Arc::new(file),
        })
    }

    /// Measures one cell.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn run(
        &self,
        cell: Cell,
        payload: &[u8],
        warm_up: Duration,
        measured: Duration,
    ) -> io::Result<Sample> {
        let shared = Arc::new(Shared::default());
        let log = {
            let shared = Arc::clone(&shared);
            let file = Arc::clone(&self.file);
            std::thread::Builder::new()
                .name("bare-log".into())
                .spawn(move || append(&shared, &file))?
        };
        let sample = write(&shared, cell, payload, warm_up, measured);
        shared.queue.lock().closing = true;
        shared.arrived.notify_one();
        log.join()
            .map_err(|_| io::Error::other("the bare log panicked"))??;
        sample
    }
}

/// All writers, on one thread as the load's clients are.
fn write(
    shared: &Shared,
    cell: Cell,
    payload: &[u8],
    warm_up: Duration,
    measured: Duration,
) -> io::Result<Sample> {
    let mut sample = Sample {
        elapsed: measured,
        ..Sample::default()
    };
    let records: Vec<Arc<[u8]>> = (0..cell.clients)
        .map(|number| {
            let (client_id, topic) = names(number);
            let parts = [client_id.as_bytes(), topic.as_bytes(), payload];
            parts.concat().into()
        })
        .collect();
    let now = Instant::now();
    let mut next: Vec<Handed> = (0..cell.clients * cell.window)
        .map(|slot| Handed {
            at: now,
            record: Arc::clone(&records[slot % cell.clients]),
        })
        .collect();
    let start = now + warm_up;
    let end = start + measured;
    let mut busy_at_start = None;
    loop {
        shared.queue.lock().records.append(&mut next);
        shared.arrived.notify_one();
        {
            let mut done = shared.done.lock();
            while done.is_empty() {
                if shared.synced.wait_for(&mut done, limits::STALL).timed_out() {
                    return Err(io::Error::other("the bare log does not sync"));
                }
            }
            std::mem::swap(&mut *done, &mut next);
        }
        let now = Instant::now();
        if now >= end {
            break;
        }
        if now >= start {
            busy_at_start.get_or_insert(machine::thread_cpu()?);
            let latencies = next.iter().map(|handed| latency_units(now - handed.at));
            sample.latencies.extend(latencies);
        }
        for handed in &mut next {
            handed.at = now;
        }
    }
    sample.acks = sample.latencies.len() as u64;
    if let Some(before) = busy_at_start {
        sample.generator_cpu = machine::thread_cpu()?.saturating_sub(before);
    }
    Ok(sample)
}

/// The thread that makes records durable.
fn append(shared: &Shared, file: &File) -> io::Result<()> {
    let mut group = Vec::new();
    let mut bytes = Vec::new();
    let mut at = 0;
    let mut position = 0_u64;
    loop {
        {
            let mut queue = shared.queue.lock();
            while queue.records.is_empty() {
                if queue.closing {
                    return Ok(());
                }
                shared.arrived.wait(&mut queue);
            }
            std::mem::swap(&mut queue.records, &mut group);
        }
        bytes.clear();
        for handed in &group {
            encode(position, &handed.record, &mut bytes);
            position += 1;
        }
        if at + bytes.len() as u64 > limits::BARE_FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&bytes, at)?;
        rustix::fs::fdatasync(file)?;
        at += bytes.len() as u64;
        shared.done.lock().append(&mut group);
        shared.synced.notify_one();
    }
}

fn encode(position: u64, record: &[u8], into: &mut Vec<u8>) {
    let start = into.len();
    into.extend((8 + record.len() as u32).to_le_bytes());
    into.extend([0; 4]);
    into.extend(position.to_le_bytes());
    into.extend(record);
    let checksum = crc32c::crc32c(&into[start + 8..]);
    into[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_length_checksum_position_and_content() {
        let mut bytes = Vec::new();
        encode(5, b"abc", &mut bytes);
        assert_eq!(bytes[..4], 11_u32.to_le_bytes());
        assert_eq!(bytes[4..8], crc32c::crc32c(&bytes[8..]).to_le_bytes());
        assert_eq!(&bytes[8..], b"\x05\0\0\0\0\0\0\0abc");
    }

    #[test]
    fn what_is_counted_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let log = BareLog::create(dir.path()).unwrap();
        let cell = Cell {
            clients: 2,
            window: 3,
        };
        // However busy the machine is.
        let mut time = Duration::from_millis(30);
        while log.run(cell, &[7; 20], time, time).unwrap().acks == 0 {
            time *= 2;
        }
        let written = std::fs::read(dir.path().join("bare.log")).unwrap();
        assert_eq!(written.len() as u64, limits::BARE_FILE_BYTES);
        let length = u32::from_le_bytes(written[..4].try_into().unwrap()) as usize;
        assert_eq!(length, 8 + "bench-00000bench/00000/records".len() + 20);
        let checksum = crc32c::crc32c(&written[8..8 + length]).to_le_bytes();
        assert_eq!(written[4..8], checksum);
    }
}
