//! The `risiti` command.

mod check;
mod client;
mod dead;
mod enroll;
mod picture;
mod record;
pub mod run;
pub mod settle;
mod settle_page;
mod site;
mod status;
mod terminal;
mod trace;

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::status::INSECURE;

/// Payments from battery terminals to Kafka, exactly once.
#[derive(Parser)]
#[command(name = "risiti", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway until SIGTERM or SIGINT; SIGHUP reloads.
    Run(ConfigFile),
    /// Settles records into receipts until SIGTERM or SIGINT.
    Settle(ConfigFile),
    /// Validates a configuration and prints what would run.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
    /// Shows what a running gateway is doing.
    Status(AdminPort),
    /// Tells where a payment or its receipt is.
    Trace(trace::Payment),
    /// Looks after records that Kafka refused.
    #[command(subcommand)]
    Dead(dead::Command),
    /// Makes what all keys of a site are derived of.
    #[command(subcommand)]
    Site(site::Command),
    /// Says which terminals may connect, and gives them their tokens.
    #[command(subcommand)]
    Terminal(terminal::Command),
    /// Makes a payment record in the wire format, for trying things out.
    Record(record::Payment),
    /// Runs gateway, Kafka and simulated terminals, cuts the power, and counts.
    Demo(crate::demo::Settings),
}

/// Where the configuration is.
#[derive(Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/risiti/risiti.toml")]
    config: PathBuf,
}

/// Where the running gateway answers.
#[derive(Args)]
struct AdminPort {
    /// Its admin address.
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9180",
        env = "RISITI_ADMIN"
    )]
    admin: String,
    /// A file that holds the token which it asks for (admin.operate_token_file, or
    /// admin.read_token_file).
    #[arg(long, value_name = "FILE", env = "RISITI_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(file) => run::run(&file.config),
        Command::Settle(file) => settle::settle(&file.config),
        Command::Check { file } => check::check(&file),
        Command::Status(admin) => status::status(&admin),
        Command::Trace(payment) => trace::trace(&payment),
        Command::Dead(command) => dead::run(command),
        Command::Site(command) => site::run(&command),
        Command::Terminal(command) => terminal::run(command),
        Command::Record(payment) => record::write(&payment),
        Command::Demo(settings) => return crate::demo::run(settings),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("risiti: {message}");
            ExitCode::FAILURE
        }
    }
}

/// A line on standard output of what goes on running, whoever reads it: a service
/// must not end because nobody does any more.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line as a person at a terminal sees it: what is insecure in red.
fn shown(line: &str) -> std::borrow::Cow<'_, str> {
    if line.contains(INSECURE) && std::io::stdout().is_terminal() {
        format!("\x1b[31m{line}\x1b[0m").into()
    } else {
        line.into()
    }
}

/// What a command says when it fails.
pub type Failure = Box<dyn std::error::Error>;
