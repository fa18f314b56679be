//! What is wrong with a configuration.
//!
//! Promises: an error says where (file, line and column, or the environment
//! variable), which key, what was expected, what was found, and what to do.
//! Never: the value of a key that holds or may hold a secret.

use std::fmt;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file as a whole: it could not be read, or a key is missing.
    File,
    /// At this line and column of the file, both counted from 1; the column in
    /// characters.
    Line {
        /// Line, from 1.
        line: u32,
        /// Column, from 1.
        column: u32,
    },
    /// By this environment variable.
    Variable(String),
}

/// One thing that is wrong with a configuration. The blame is always the
/// configuration's; `remedy` says what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named to [`Config::load`](crate::Config::load).
    pub file: String,
    /// Where in it.
    pub origin: Origin,
    /// The key with its tables: `mqtt.listen`, `routes[1].filter`; empty when
    /// the file as a whole is meant.
    pub key: String,
    /// What should have stood there.
    pub expected: String,
    /// What stood there.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File => write!(f, "{}: ", self.file)?,
            Origin::Line { line, column } => write!(f, "{}:{line}:{column}: ", self.file)?,
            Origin::Variable(name) => {
                write!(f, "environment variable {name} (over {}): ", self.file)?
            }
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(
            f,
            "expected {}, found {}\n  remedy: {}",
            self.expected, self.found, self.remedy
        )
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Puts errors in the order of the file, those of the environment last.
    pub(crate) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| match error.origin {
            Origin::File => (0, 0, 0),
            Origin::Line { line, column } => (1, line, column),
            Origin::Variable(_) => (2, 0, 0),
        });
        Self { errors }
    }

    /// The errors; never empty.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
