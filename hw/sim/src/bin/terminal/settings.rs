//! `terminal settings`: what is provisioned, into a file.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use risiti_sim::package::Package;
use risiti_sim::site::Keys;
use risiti_terminal::limits::SETTINGS_BYTES_MAX;
use risiti_terminal::settings::{Settings, SettingsError};
use risiti_wire::seal::{FIRST_GENERATION, Root};

/// Who a terminal is, and where its gateway.
#[derive(Debug, Args)]
pub struct Settled {
    /// What `risiti terminal add --out` wrote: id, gateway, token and keys
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "token_file", "root_file"])]
    package: Option<PathBuf>,
    /// The terminal's id
    #[arg(long, required_unless_present = "package")]
    id: Option<String>,
    /// The gateway, HOST:PORT, as the terminal reaches it
    #[arg(long)]
    gateway: Option<String>,
    /// File with the token that the gateway gave for this terminal
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File of the site's root: the terminal gets its keys of it, and seals
    #[arg(long, value_name = "FILE")]
    root_file: Option<PathBuf>,
    /// Which keys: the next ones, if its flash was erased or replaced
    #[arg(long, default_value_t = FIRST_GENERATION, requires = "root_file")]
    generation: u8,
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
        let package = self.package()?;
        let gateway = self.gateway.as_deref().or(package.gateway.as_deref());
        let gateway = gateway.unwrap_or("127.0.0.1:1883");
        let (host, port) = gateway
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .ok_or_else(|| refused(&format!("{gateway} is no HOST:PORT")))?;
        let keys = package.keys()?;
        let mut settings = Settings {
            seal: keys.as_ref().map(Keys::settings),
            own_keys: package.own_keys(),
            id: &package.id,
            host,
            port,
            token: package.token.as_bytes(),
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
        write_secret(out, &bytes[..len]).map_err(|e| named(out, e))
    }

    /// The package, or what the options say in its place.
    fn package(&self) -> io::Result<Package> {
        if let Some(path) = &self.package {
            return Package::read(path).map_err(|e| named(path, e));
        }
        let token = match &self.token_file {
            Some(path) => fs::read_to_string(path).map_err(|e| named(path, e))?,
            None => String::new(),
        };
        let id = self.id.as_deref().unwrap_or_default();
        let package = Package::new(id, token.trim_ascii_end(), self.gateway.as_deref());
        match &self.root_file {
            Some(path) => package.sealed(&read_root(path)?, self.generation),
            None => Ok(package),
        }
    }
}

/// A site's root, as `risiti site new-root` writes it.
fn read_root(path: &Path) -> io::Result<Root> {
    let digits = fs::read_to_string(path).map_err(|e| named(path, e))?;
    Root::from_hex(digits.trim_end()).ok_or_else(|| {
        refused(&format!(
            "{} holds no root; make one with: risiti site new-root FILE",
            path.display()
        ))
    })
}

/// A file that nobody else can read: it holds keys.
fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

fn refused(why: &str) -> io::Error {
    io::Error::other(format!("settings refused: {why}"))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
