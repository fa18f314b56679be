//! `terminal settings`: what is provisioned, into a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use risiti_terminal::limits::SETTINGS_BYTES_MAX;
use risiti_terminal::settings::{Settings, SettingsError};

/// Who a terminal is, and where its gateway.
#[derive(Debug, Args)]
pub struct Settled {
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
    /// Local time on display and papers, minutes east of UTC; 180 in Nairobi
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    utc_offset_minutes: i16,
    /// No radio below this voltage of the battery, in millivolts
    #[arg(long)]
    battery_mv_min: Option<u16>,
}

/// Settings, and where to.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    settled: Settled,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the file.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    arguments.settled.write(&arguments.out)
}

impl Settled {
    /// Writes them into this file.
    pub fn write(&self, out: &Path) -> io::Result<()> {
        let token = match &self.token_file {
            Some(path) => fs::read(path).map_err(|e| named(path, e))?,
            None => Vec::new(),
        };
        let (host, port) = self
            .gateway
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .ok_or_else(|| refused(&format!("{} is no HOST:PORT", self.gateway)))?;
        let mut settings = Settings {
            id: &self.id,
            host,
            port,
            token: token.trim_ascii_end(),
            apn: &self.apn,
            apn_user: &self.apn_user,
            apn_password: &self.apn_password,
            currency: self.currency,
            title: &self.title,
            utc_offset_minutes: self.utc_offset_minutes,
            ..Settings::default()
        };
        if let Some(millivolts) = self.battery_mv_min {
            settings.battery_mv_min = millivolts;
        }
        let mut bytes = [0; SETTINGS_BYTES_MAX];
        let len = settings.encode(&mut bytes).map_err(|error| match error {
            SettingsError::Invalid(setting) => refused(&format!(
                "{setting:?} is too long, or holds what it may not"
            )),
            error => refused(&format!("{error:?}")),
        })?;
        fs::write(out, &bytes[..len]).map_err(|e| named(out, e))
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::other(format!("settings refused: {why}"))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
