//! `risiti check FILE`.

use std::path::Path;

use risiti_config::Config;

use super::{Failure, shown};

/// Validates a configuration and prints what would run.
pub fn check(file: &Path) -> Result<(), Failure> {
    let config = Config::load(file, std::env::vars())?;
    for line in config.describe().lines() {
        println!("{}", shown(line));
    }
    Ok(())
}
