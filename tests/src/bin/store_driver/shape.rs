//! What a run is like, from `key=value` words: how the store is opened, how
//! large its records and values are, what is changed. A check is given the same
//! words, so that both know every byte that must be there.

use risiti_store::{StoreKey, StoreOptions, SyncPolicy};
use std::collections::HashMap;
use std::path::Path;

/// How large records, or values, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sizes {
    /// Some ten bytes: many fit one segment.
    Small,
    /// As they come: most small, some of every size.
    #[default]
    Mixed,
    /// Most so large that they are cut into pieces.
    Large,
}

/// The words, understood.
#[derive(Debug, Default)]
pub struct Shape {
    /// Of records.
    pub payloads: Sizes,
    /// Of values of the state.
    pub values: Sizes,
    words: HashMap<String, String>,
}

impl Shape {
    /// From `key=value` words; others are ignored.
    pub fn from<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let words: HashMap<String, String> = words
            .into_iter()
            .filter_map(|w| w.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let sizes = |key: &str| match words.get(key).map(String::as_str) {
            Some("small") => Sizes::Small,
            Some("large") => Sizes::Large,
            _ => Sizes::Mixed,
        };
        Self {
            payloads: sizes("payloads"),
            values: sizes("values"),
            words,
        }
    }

    /// The number under `key`.
    pub fn number(&self, key: &str, default: u64) -> u64 {
        self.word(key)
            .and_then(|v| v.parse().ok())
            .unwrap_or(default)
    }

    /// The word under `key`.
    pub fn word(&self, key: &str) -> Option<&str> {
        self.words.get(key).map(String::as_str)
    }

    /// How to open the store: small in everything, so that a short run meets
    /// every limit.
    pub fn options(&self, dir: &Path) -> StoreOptions {
        let mut options = StoreOptions::new(dir);
        options.generation_bytes = self.number("generation_bytes", 192 * 1024);
        options.free_bytes_min = self.number("free_bytes_min", 0);
        options.receipts_reserve_bytes = 0;
        options.ballast_bytes = self.number("ballast_bytes", 64 * 1024);
        options.budget_bytes = self.number("budget_bytes", options.budget_bytes);
        options.state_segment_bytes =
            self.number("segment_bytes", options.state_segment_bytes as u64) as usize;
        options.row_file_bytes_min = self.number("row_file_bytes", options.row_file_bytes_min);
        options.state_compact_bytes_min =
            self.number("compact_bytes", options.state_compact_bytes_min);
        options.keep_forwarded_bytes = self.number("keep_forwarded_bytes", 0);
        if self.word("key") == Some("yes") {
            options.key = Some(StoreKey::new([7; 32]));
        }
        if self.word("sync") == Some("flush-only") {
            options.sync = SyncPolicy::FlushOnly;
        }
        options
    }
}
