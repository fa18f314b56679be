//! Settlement exactly as `risiti settle` starts it, with switches that no
//! configuration has: for negative controls, and to die at a chosen place.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use risiti_bridge::settlement::{FaultHook, FaultPoint, Options};
use risiti_gateway::cli::settle::settle_with;
use rustix::process::{Signal, getpid, kill_process};

/// Settlement, as a test wants it.
#[derive(Parser)]
struct Cli {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Remembers nothing.
    #[arg(long)]
    forgetful: bool,
    /// Commits the offsets after the transaction.
    #[arg(long)]
    offsets_outside_transaction: bool,
    /// Kills itself (SIGKILL) when it comes to this place.
    #[arg(long, value_parser = fault_point)]
    kill_at: Option<FaultPoint>,
    /// At which time that it comes there.
    #[arg(long, default_value_t = 1)]
    kill_at_nth: u64,
    /// Only stops there (SIGSTOP), until it is told to go on.
    #[arg(long)]
    stop_there: bool,
}

fn fault_point(name: &str) -> Result<FaultPoint, String> {
    match name {
        "inside-transaction" => Ok(FaultPoint::InsideTransaction),
        "after-send" => Ok(FaultPoint::AfterSend),
        "after-commit" => Ok(FaultPoint::AfterCommit),
        _ => Err("inside-transaction, after-send or after-commit".into()),
    }
}

/// Nothing is closed or flushed: the process is gone at that instruction, or all of
/// it stands still there.
fn kill_at(point: FaultPoint, nth: u64, signal: Signal) -> FaultHook {
    let times = AtomicU64::new(0);
    Arc::new(move |at| {
        if at == point && times.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            let _ = kill_process(getpid(), signal);
        }
        false
    })
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let signal = if cli.stop_there {
        Signal::STOP
    } else {
        Signal::KILL
    };
    let options = Options {
        forgetful: cli.forgetful,
        offsets_outside_transaction: cli.offsets_outside_transaction,
        fault: cli
            .kill_at
            .map(|point| kill_at(point, cli.kill_at_nth, signal)),
    };
    match settle_with(&cli.config, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("settlement_under_test: {message}");
            ExitCode::FAILURE
        }
    }
}
