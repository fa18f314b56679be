//! `make soak`: the whole house for hours, and whether it is the same after each
//! round. Exit status 1: it is not, or something was lost.
//!
//! Promises: everything that it starts ends with it; results are in the directory
//! that it names. Never: a verdict over fewer cycles than bear one.

use std::io;
use std::path::PathBuf;
use std::process::{self, ExitCode};

use clap::{Parser, Subcommand};
use risiti_tests::bench::frame;
use risiti_tests::soak::leaky::{Leak, leak};
use risiti_tests::soak::{Plan, run};

/// Terminals, storms, roaming and hostile clients, outages, over and over.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// How long, in hours; fractions, too.
    #[arg(long, default_value_t = 0.25)]
    hours: f64,
    /// `real` or `embedded`.
    #[arg(long, default_value = "real")]
    kafka: String,
    /// Where results go, in a directory of their own.
    #[arg(long, default_value = "target/soak")]
    dir: PathBuf,
    /// The gateway's binary; else `risiti` beside this one.
    #[arg(long)]
    risiti: Option<PathBuf>,
    /// Terminals.
    #[arg(long)]
    terminals: Option<usize>,
    /// Clients of a storm.
    #[arg(long)]
    storm: Option<usize>,
    /// Of all choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A process that leaks so many descriptors in each cycle takes part: must fail.
    #[arg(long)]
    leak_descriptors: Option<u32>,
    /// The same with bytes.
    #[arg(long)]
    leak_bytes: Option<usize>,
    /// Keeps data and logs.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The process that leaks: a step for each line on standard input.
    Leak {
        /// Descriptors a step.
        #[arg(long)]
        descriptors: u32,
        /// Bytes a step.
        #[arg(long)]
        bytes: usize,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(Command::Leak { descriptors, bytes }) = options.command {
        return match leak(Leak { descriptors, bytes }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    match soak(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options) -> io::Result<bool> {
    let embedded = match options.kafka.as_str() {
        "real" => false,
        "embedded" => true,
        other => {
            let told = format!("--kafka {other}: it is real or embedded");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
        }
    };
    if !(options.hours >= 0.0 && options.hours.is_finite()) {
        let told = format!("--hours {}: no time", options.hours);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
    }
    let dir = std::path::absolute(options.dir.join(now()?))?;
    let risiti = match &options.risiti {
        Some(risiti) => risiti.clone(),
        None => frame::risiti()?,
    };
    let mut plan = Plan::hours(options.hours, risiti, dir);
    plan.embedded = embedded;
    plan.seed = options.seed;
    plan.terminals = options.terminals.unwrap_or(plan.terminals);
    plan.storm = options.storm.unwrap_or(plan.storm);
    if options.leak_descriptors.is_some() || options.leak_bytes.is_some() {
        let leak = Leak {
            descriptors: options.leak_descriptors.unwrap_or(0),
            bytes: options.leak_bytes.unwrap_or(0),
        };
        plan.leak = Some((std::env::current_exe()?, leak));
    }
    println!("{}", plan.dir.display());
    let report = run(&plan)?;
    if report.is_good() && !options.keep {
        plan.remove_data()?;
    }
    println!("{}", report.text());
    println!("{}", report.proof());
    println!("{}", plan.dir.join("soak.svg").display());
    Ok(report.is_good())
}

/// The time in UTC, as the name of a directory.
fn now() -> io::Result<String> {
    let date = process::Command::new("date")
        .args(["-u", "+%Y-%m-%d-%H%M%S"])
        .output()?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}
