//! A seal over a database that was closed in order: as long as it fits, the
//! files are what was synced at the close, byte for byte, so the next opening
//! needs no copy of them.
//!
//! Promises: a seal that fits was written after everything under it was on disk;
//! whatever changed since (a bit, a length, a file) breaks it. Never trusted
//! twice: it is removed before sled touches the files, and one that stays all
//! the same does not fit any more.
//!
//! | offset | bytes | in the file `sealed` |
//! | --- | --- | --- |
//! | 0 | 4 | magic `RsS1` |
//! | 4 | 4 | version, 1, big-endian |
//! | 8 | 8 | bytes of all files, big-endian |
//! | 16 | 4 | CRC32C over each file in the order of names: name, 0, length (8 bytes, big-endian), content |
//! | 20 | 4 | CRC32C of bytes 0..20, big-endian |

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::{StoreError, files};

const MAGIC: &[u8; 4] = b"RsS1";
const VERSION: u32 = 1;
const CHUNK_BYTES: usize = 256 * 1024;

/// Syncs the files of the closed database `db` and seals them in `dir`.
pub(super) fn put_on(dir: &Path, db: &Path) -> Result<(), StoreError> {
    for path in files::list(db)? {
        if files::is_file(&path)? {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|e| StoreError::io("sync", &path, e))?;
        }
    }
    files::sync_dir(db)?;
    if let Some(seal) = seal_of(db)? {
        files::write_whole(&dir.join("sealed"), &seal)?;
    }
    Ok(())
}

/// Takes the seal off; whether there was one that fits.
pub(super) fn take_off(dir: &Path, db: &Path) -> Result<bool, StoreError> {
    let path = dir.join("sealed");
    let Ok(seal) = fs::read(&path) else {
        return Ok(false);
    };
    let fits = files::is_dir(db)? && seal_of(db)?.is_some_and(|now| now[..] == seal[..]);
    fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
    files::sync_dir(dir)?;
    Ok(fits)
}

/// The seal that fits these files; `None` if one is where none should be.
fn seal_of(db: &Path) -> Result<Option<[u8; 24]>, StoreError> {
    let (mut bytes, mut crc) = (0_u64, 0_u32);
    let mut chunk = vec![0; CHUNK_BYTES];
    for path in files::list(db)? {
        if files::is_dir(&path)? {
            if !files::list(&path)?.is_empty() {
                return Ok(None);
            }
            continue;
        }
        let failed = |e| StoreError::io("read", &path, e);
        let mut file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        crc = crc32c::crc32c_append(crc, name);
        crc = crc32c::crc32c_append(crc, &[0]);
        crc = crc32c::crc32c_append(crc, &length.to_be_bytes());
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    crc = crc32c::crc32c_append(crc, &chunk[..read]);
                    bytes += read as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
    let mut seal = [0; 24];
    seal[..4].copy_from_slice(MAGIC);
    seal[4..8].copy_from_slice(&VERSION.to_be_bytes());
    seal[8..16].copy_from_slice(&bytes.to_be_bytes());
    seal[16..20].copy_from_slice(&crc.to_be_bytes());
    let own = crc32c::crc32c(&seal[..20]);
    seal[20..].copy_from_slice(&own.to_be_bytes());
    Ok(Some(seal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_seal_fits_once_and_only_what_it_was_put_on() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        fs::create_dir_all(db.join("blobs")).unwrap();
        let content = vec![7; CHUNK_BYTES + 100];
        fs::write(db.join("db"), &content).unwrap();
        assert!(!take_off(dir.path(), &db).unwrap(), "there is none yet");
        put_on(dir.path(), &db).unwrap();
        assert!(take_off(dir.path(), &db).unwrap());
        assert!(!take_off(dir.path(), &db).unwrap(), "it was taken off");

        let breaks: [&dyn Fn(&Path); 5] = [
            &|db| {
                let file = File::options().write(true).open(db.join("db")).unwrap();
                file.write_all_at(&[6], CHUNK_BYTES as u64 + 50).unwrap();
            },
            &|db| {
                let file = File::options().write(true).open(db.join("db")).unwrap();
                file.set_len(100).unwrap();
            },
            &|db| fs::write(db.join("snap.1"), b"").unwrap(),
            &|db| fs::rename(db.join("db"), db.join("dc")).unwrap(),
            &|db| fs::remove_dir_all(db).unwrap(),
        ];
        for (n, change) in breaks.iter().enumerate() {
            let _ = fs::remove_dir_all(&db);
            fs::create_dir_all(db.join("blobs")).unwrap();
            fs::write(db.join("db"), &content).unwrap();
            put_on(dir.path(), &db).unwrap();
            change(&db);
            assert!(!take_off(dir.path(), &db).unwrap(), "change {n}");
        }
    }
}
