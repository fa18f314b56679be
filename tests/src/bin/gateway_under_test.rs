//! The gateway exactly as `risiti run` starts it, with switches that no
//! configuration has: for negative controls, and to die at a chosen place.
//!
//! One line of JSON on standard output once it serves:
//! `{"mqtt":"127.0.0.1:1883","admin":"127.0.0.1:9180","embedded":null}`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use risiti_bridge::forwarder::{FaultHook, FaultPoint, Options};
use risiti_gateway::cli::run::run_with;
use risiti_gateway::gateway::Switches;
use rustix::process::{Signal, getpid, kill_process};

/// The gateway, as a test wants it.
#[derive(Parser)]
struct Cli {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Recognises no resend.
    #[arg(long)]
    without_dedup: bool,
    /// Commits the position in a transaction of its own.
    #[arg(long)]
    position_outside_transaction: bool,
    /// Takes a receipt for acknowledged as soon as it is sent.
    #[arg(long)]
    delete_before_puback: bool,
    /// Kills itself (SIGKILL) when a forwarder comes to this place.
    #[arg(long, value_parser = fault_point)]
    kill_at: Option<FaultPoint>,
    /// At which time that it comes there.
    #[arg(long, default_value_t = 1)]
    kill_at_nth: u64,
}

fn fault_point(name: &str) -> Result<FaultPoint, String> {
    match name {
        "inside-batch" => Ok(FaultPoint::InsideBatch),
        "after-send" => Ok(FaultPoint::AfterSend),
        "after-commit" => Ok(FaultPoint::AfterCommit),
        _ => Err("inside-batch, after-send or after-commit".into()),
    }
}

/// Nothing is closed or flushed: the process is gone at that instruction.
fn kill_at(point: FaultPoint, nth: u64) -> FaultHook {
    let times = AtomicU64::new(0);
    Arc::new(move |at| {
        if at == point && times.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            let _ = kill_process(getpid(), Signal::KILL);
        }
        false
    })
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let switches = Switches {
        without_dedup: cli.without_dedup,
        delete_before_puback: cli.delete_before_puback,
        forwarder: Options {
            position_outside_transaction: cli.position_outside_transaction,
            fault: cli.kill_at.map(|point| kill_at(point, cli.kill_at_nth)),
        },
        ..Switches::default()
    };
    let done = run_with(&cli.config, switches, |gateway| {
        println!(
            "{}",
            serde_json::json!({
                "mqtt": gateway.mqtt_addr(),
                "admin": gateway.admin_addr(),
                "embedded": gateway.embedded_bootstrap(),
            })
        );
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("gateway_under_test: {message}");
            ExitCode::FAILURE
        }
    }
}
