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
use risiti_bridge::receipts::{ReceiptsFault, ReceiptsFaultHook, ReceiptsOptions};
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
    /// Has offsets of receipts on disk before the receipts.
    #[arg(long)]
    offset_before_row: bool,
    /// Kills itself (SIGKILL) when it comes to this place.
    #[arg(long, value_parser = place)]
    kill_at: Option<Place>,
    /// At which time that it comes there.
    #[arg(long, default_value_t = 1)]
    kill_at_nth: u64,
    /// Only stops there (SIGSTOP), until it is told to go on.
    #[arg(long)]
    stop_there: bool,
}

/// Where to die: in a forwarder, or on the way of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Forwarder(FaultPoint),
    Receipts(ReceiptsFault),
}

impl Place {
    const ALL: [(&'static str, Self); 9] = [
        ("inside-batch", Self::Forwarder(FaultPoint::InsideBatch)),
        ("after-send", Self::Forwarder(FaultPoint::AfterSend)),
        ("after-commit", Self::Forwarder(FaultPoint::AfterCommit)),
        (
            "receipts-before-commit",
            Self::Receipts(ReceiptsFault::BeforeCommit),
        ),
        (
            "receipts-between-offset-and-row",
            Self::Receipts(ReceiptsFault::BetweenOffsetAndRow),
        ),
        (
            "receipts-after-commit",
            Self::Receipts(ReceiptsFault::AfterCommit),
        ),
        (
            "receipts-before-event",
            Self::Receipts(ReceiptsFault::BeforeEvent),
        ),
        (
            "receipts-before-deletion",
            Self::Receipts(ReceiptsFault::BeforeDeletion),
        ),
        (
            "receipts-after-deletion",
            Self::Receipts(ReceiptsFault::AfterDeletion),
        ),
    ];
}

fn place(name: &str) -> Result<Place, String> {
    let found = Place::ALL.iter().find(|(known, _)| *known == name);
    found.map(|(_, place)| *place).ok_or_else(|| {
        let names: Vec<_> = Place::ALL.iter().map(|(known, _)| *known).collect();
        names.join(", ")
    })
}

/// Nothing is closed or flushed: the process is gone at that instruction, or all of
/// it stands still there.
fn die_at<P: PartialEq + Send + Sync>(place: P, cli: &Cli) -> impl Fn(P) + Send + Sync + use<P> {
    let times = AtomicU64::new(0);
    let nth = cli.kill_at_nth;
    let signal = if cli.stop_there {
        Signal::STOP
    } else {
        Signal::KILL
    };
    move |at| {
        if at == place && times.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            let _ = kill_process(getpid(), signal);
        }
    }
}

fn forwarder_fault(cli: &Cli) -> Option<FaultHook> {
    let Some(Place::Forwarder(point)) = cli.kill_at else {
        return None;
    };
    let die = die_at(point, cli);
    Some(Arc::new(move |at| {
        die(at);
        false
    }))
}

fn receipts_fault(cli: &Cli) -> Option<ReceiptsFaultHook> {
    let Some(Place::Receipts(place)) = cli.kill_at else {
        return None;
    };
    Some(Arc::new(die_at(place, cli)))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let switches = Switches {
        without_dedup: cli.without_dedup,
        delete_before_puback: cli.delete_before_puback,
        forwarder: Options {
            position_outside_transaction: cli.position_outside_transaction,
            fault: forwarder_fault(&cli),
        },
        receipts: ReceiptsOptions {
            offset_before_row: cli.offset_before_row,
            fault: receipts_fault(&cli),
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
