//! Where damaged bytes go: aside, never away in silence, within a bound.

use std::path::{Path, PathBuf};

use crate::options::StoreOptions;
use crate::{StoreError, files, limits};

/// The directory `quarantine/` of a store. Names are `<number>-<what>`.
pub(crate) struct Quarantine {
    dir: PathBuf,
    bytes_max: u64,
}

impl Quarantine {
    /// It counts towards the budget, so it is bounded by a part of that too:
    /// evidence must never stop the PUBACKs for good.
    pub(crate) fn open(options: &StoreOptions) -> Result<Self, StoreError> {
        let dir = options.dir.join("quarantine");
        let bytes_max =
            limits::QUARANTINE_BYTES_MAX.min(options.budget_bytes / limits::QUARANTINE_BUDGET_PART);
        files::create_dir(&dir)?;
        files::sweep_leftovers(&dir)?;
        Ok(Self { dir, bytes_max })
    }

    /// Moves a directory aside; returns its new name.
    pub(crate) fn take_dir(&self, from: &Path, what: &str) -> Result<String, StoreError> {
        let name = self.next_name(what)?;
        files::rename(from, &self.dir.join(&name))?;
        self.prune();
        Ok(name)
    }

    /// Keeps the files of a directory that stays where it is, by linking them;
    /// they must never be written again.
    pub(crate) fn link_dir(&self, from: &Path, what: &str) -> Result<String, StoreError> {
        let name = self.next_name(what)?;
        let to = self.dir.join(&name);
        files::create_dir(&to)?;
        for path in files::list(from)? {
            if let (true, Some(file_name)) = (files::is_file(&path)?, path.file_name()) {
                std::fs::hard_link(&path, to.join(file_name))
                    .map_err(|e| StoreError::io("link", &path, e))?;
            }
        }
        files::sync_dir(&to)?;
        self.prune();
        Ok(name)
    }

    /// Keeps a file that stays where it is, by linking it; it must never be
    /// written again.
    pub(crate) fn link_file(&self, from: &Path, what: &str) -> Result<String, StoreError> {
        let name = self.next_name(what)?;
        let to = self.dir.join(&name);
        std::fs::hard_link(from, &to).map_err(|e| StoreError::io("link", from, e))?;
        files::sync_dir(&self.dir)?;
        self.prune();
        Ok(name)
    }

    /// Keeps damaged bytes; returns the file's name.
    pub(crate) fn take_bytes(&self, bytes: &[u8], what: &str) -> Result<String, StoreError> {
        let name = self.next_name(what)?;
        files::write_whole(&self.dir.join(&name), bytes)?;
        self.prune();
        Ok(name)
    }

    fn next_name(&self, what: &str) -> Result<String, StoreError> {
        let last = files::list(&self.dir)?
            .iter()
            .filter_map(|path| number_of(path))
            .max()
            .unwrap_or(0);
        Ok(format!("{:08}-{what}", last + 1))
    }

    /// Deletes the oldest until the bound holds; the newest always stays.
    fn prune(&self) {
        let Ok(mut paths) = files::list(&self.dir) else {
            return;
        };
        paths.retain(|path| number_of(path).is_some());
        let mut sizes: Vec<u64> = paths.iter().map(|p| files::allocated_bytes(p)).collect();
        while paths.len() > 1 && sizes.iter().sum::<u64>() > self.bytes_max {
            let oldest = paths.remove(0);
            sizes.remove(0);
            tracing::warn!(path = %oldest.display(), "quarantine is full, its oldest item goes");
            let removed = if oldest.is_dir() {
                files::remove_dir(&oldest)
            } else {
                std::fs::remove_file(&oldest).map_err(|e| StoreError::io("remove", &oldest, e))
            };
            if removed.is_err() {
                return;
            }
        }
    }
}

fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_newest_within_its_part_of_the_budget() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            budget_bytes: 32 * 1024 * limits::QUARANTINE_BUDGET_PART,
            ..StoreOptions::new(dir.path())
        };
        let quarantine = Quarantine::open(&options).unwrap();
        let bytes = [7; 8 * 1024];
        let names: Vec<String> = (0..10)
            .map(|_| quarantine.take_bytes(&bytes, "bytes").unwrap())
            .collect();
        let kept = files::list(&dir.path().join("quarantine")).unwrap();
        assert!((2..=4).contains(&kept.len()), "{kept:?}");
        let newest = kept.last().and_then(|path| path.file_name()).unwrap();
        assert_eq!(newest.to_str(), names.last().map(String::as_str));
    }
}
