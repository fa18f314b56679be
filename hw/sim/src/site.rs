//! The seals of a simulated site: what its terminals are provisioned with, and what
//! settlement and the judges open.
//!
//! Promises: keys follow from the root as the format says; two sites of one root are
//! one. Never: a secret; the root of a simulation is in its source.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use risiti_terminal::settings::SealKeys;
use risiti_wire::WireError;
use risiti_wire::limits::{
    RECEIPT_BYTES_MAX, RECORD_BYTES_MAX, SEALED_RECEIPT_BYTES_MAX, SEALED_RECORD_BYTES_MAX,
};
use risiti_wire::seal::{self, Direction, FIRST_GENERATION, Key, ROOT_BYTES, Root, SealError};

/// A site and its root.
#[derive(Clone)]
pub struct Site {
    root: Root,
}

impl Default for Site {
    /// The site of every simulation.
    fn default() -> Self {
        Self {
            root: Root::new([0x52; ROOT_BYTES]),
        }
    }
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Site")
    }
}

/// The keys of one terminal, of one generation.
#[derive(Clone)]
pub struct Keys {
    /// For its records.
    pub record: Key,
    /// For its receipts.
    pub receipt: Key,
}

impl Keys {
    /// Of a site with this root.
    ///
    /// # Errors
    /// It is no terminal's id, or the generation is 0.
    pub fn of(root: &Root, terminal: &str, generation: u8) -> Result<Self, WireError> {
        Ok(Self {
            record: root.key(terminal, generation, Direction::Up)?,
            receipt: root.key(terminal, generation, Direction::Down)?,
        })
    }

    /// For [`Settings::seal`](risiti_terminal::settings::Settings::seal).
    #[must_use]
    pub fn settings(&self) -> SealKeys<'_> {
        SealKeys {
            generation: self.record.generation(),
            record: self.record.expose(),
            receipt: self.receipt.expose(),
        }
    }
}

impl Site {
    /// Of this root.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root }
    }

    /// For settlement.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Writes the file of the root, for `settlement.root_file`: readable by its owner
    /// alone, as settlement demands.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_root(&self, path: &Path) -> io::Result<()> {
        let mut digits = String::with_capacity(2 * ROOT_BYTES);
        let _ = self.root.write_hex(&mut digits);
        let mut file = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        writeln!(file, "{digits}")
    }

    /// A terminal's first keys.
    ///
    /// # Errors
    /// It is no terminal's id.
    pub fn keys(&self, terminal: &str) -> Result<Keys, WireError> {
        Keys::of(&self.root, terminal, FIRST_GENERATION)
    }

    /// A record as its terminal sends it.
    ///
    /// # Errors
    /// It is none, or no terminal's.
    pub fn sealed_record(&self, terminal: &str, record: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut buffer = [0; SEALED_RECORD_BYTES_MAX];
        let key = self.root.key(terminal, FIRST_GENERATION, Direction::Up)?;
        seal::seal(&key, terminal, record, &mut buffer).map(<[u8]>::to_vec)
    }

    /// A record as its terminal made it.
    ///
    /// # Errors
    /// This terminal has not sealed it.
    pub fn opened_record(&self, terminal: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut buffer = [0; RECORD_BYTES_MAX];
        let key = self.root.key(terminal, FIRST_GENERATION, Direction::Up)?;
        seal::open(&key, terminal, sealed, &mut buffer).map(<[u8]>::to_vec)
    }

    /// A receipt as settlement sends it.
    ///
    /// # Errors
    /// It is none, or for no terminal.
    pub fn sealed_receipt(&self, terminal: &str, receipt: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut buffer = [0; SEALED_RECEIPT_BYTES_MAX];
        let key = self.root.key(terminal, FIRST_GENERATION, Direction::Down)?;
        seal::seal(&key, terminal, receipt, &mut buffer).map(<[u8]>::to_vec)
    }

    /// A receipt as its terminal reads it.
    ///
    /// # Errors
    /// It was not sealed for this terminal.
    pub fn opened_receipt(&self, terminal: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut buffer = [0; RECEIPT_BYTES_MAX];
        let key = self.root.key(terminal, FIRST_GENERATION, Direction::Down)?;
        seal::open(&key, terminal, sealed, &mut buffer).map(<[u8]>::to_vec)
    }
}
