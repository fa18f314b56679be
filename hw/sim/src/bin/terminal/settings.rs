//! `terminal settings`: what is provisioned, into a file.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Args;
use risiti_terminal::limits::SETTINGS_BYTES_MAX;
use risiti_terminal::settings::{Settings, SettingsError};

/// Who a terminal is, and where its gateway.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The terminal's id
    #[arg(long)]
    id: String,
    /// The gateway, HOST:PORT, as the terminal reaches it
    #[arg(long, default_value = "127.0.0.1:1883")]
    gateway: String,
    /// File with the token that the gateway gave for this terminal
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Access point of the mobile network
    #[arg(long, default_value = "internet")]
    apn: String,
    /// User at the access point
    #[arg(long, default_value = "")]
    apn_user: String,
    /// Password at the access point
    #[arg(long, default_value = "")]
    apn_password: String,
    /// Currency of payments, ISO 4217 numeric; 999 is none
    #[arg(long, default_value_t = 999)]
    currency: u16,
    /// What stands at the head of receipts
    #[arg(long, default_value = "")]
    title: String,
    /// No radio below this voltage of the battery, in millivolts
    #[arg(long)]
    battery_mv_min: Option<u16>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Writes the file.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    let token = match &arguments.token_file {
        Some(path) => fs::read(path).map_err(|e| named(path, e))?,
        None => Vec::new(),
    };
    let (host, port) = arguments
        .gateway
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| refused(&format!("{} is no HOST:PORT", arguments.gateway)))?;
    let mut settings = Settings {
        id: &arguments.id,
        host,
        port,
        token: token.trim_ascii_end(),
        apn: &arguments.apn,
        apn_user: &arguments.apn_user,
        apn_password: &arguments.apn_password,
        currency: arguments.currency,
        title: &arguments.title,
        ..Settings::default()
    };
    if let Some(millivolts) = arguments.battery_mv_min {
        settings.battery_mv_min = millivolts;
    }
    let mut bytes = [0; SETTINGS_BYTES_MAX];
    let len = settings.encode(&mut bytes).map_err(|error| match error {
        SettingsError::Invalid(setting) => refused(&format!(
            "{setting:?} is too long, or holds what it may not"
        )),
        error => refused(&format!("{error:?}")),
    })?;
    fs::write(&arguments.out, &bytes[..len]).map_err(|e| named(&arguments.out, e))
}

fn refused(why: &str) -> io::Error {
    io::Error::other(format!("settings refused: {why}"))
}

fn named(path: &std::path::Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
