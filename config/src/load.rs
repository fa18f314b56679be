//! From a file and an environment to a [`Config`].
//!
//! Promises: all errors of a file at once (those of the syntax first, since
//! nothing else can be trusted then). Never: a configuration with an error in
//! it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::document::{self, Table};
use crate::error::{ConfigError, ConfigErrors, Origin};
use crate::limits::FILE_BYTES_MAX;
use crate::section::{KnownKey, Report};
use crate::{Config, check, environment, read};

/// The variable by which systemd tells a service where its credentials are.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

impl Config {
    /// Loads a file; `env` is the environment (`std::env::vars()`), of which
    /// variables that begin with `RISITI__` override keys, and `CREDENTIALS_DIRECTORY`
    /// says where credentials are. Paths in the file
    /// are relative to the working directory.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place and a remedy.
    pub fn load(
        path: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        match contents(path) {
            Ok(source) => Self::from_toml_str(&name, &source, env),
            Err(error) => Err(ConfigErrors::new(vec![ConfigError {
                file: name,
                origin: Origin::File,
                key: String::new(),
                expected: "a TOML file that can be read".into(),
                found: error.to_string(),
                remedy: "check the path and its permissions; config/examples/risiti.toml is one to start from".into(),
            }])),
        }
    }

    /// Loads a text; `name` stands for the file in errors.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place and a remedy.
    pub fn from_toml_str(
        name: &str,
        source: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let mut table = document::parse(name, source).map_err(ConfigErrors::new)?;
        let mut credentials = None;
        let env = env.inspect(|(name, value)| {
            if name == CREDENTIALS_DIRECTORY {
                credentials = Some(PathBuf::from(value));
            }
        });
        let mut errors = environment::apply(name, &mut table, env);
        let report = Report::new(name, credentials);
        let mut config = read::read(&report, &table);
        check::check(&report, &table, &config);
        let (found, warnings, _) = report.into_parts();
        errors.extend(found);
        if !errors.is_empty() {
            return Err(ConfigErrors::new(errors));
        }
        config.load_warnings = warnings;
        Ok(config)
    }

    /// Every key that a file may hold, in the order of its tables, with its
    /// default. The keys of `[clusters.NAME]` are those of `[kafka]`.
    #[must_use]
    pub fn known_keys() -> Vec<KnownKey> {
        let lists = document::parse(
            "",
            "[[routes]]\n[[listeners]]\n[[access.users]]\n[[access.rules]]",
        )
        .unwrap_or_else(|_| Table::new());
        let report = Report::new("", None);
        read::read(&report, &lists);
        report.into_parts().2
    }
}

fn contents(path: &Path) -> std::io::Result<String> {
    let mut source = String::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut source)?;
    if source.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "longer than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(source)
}
