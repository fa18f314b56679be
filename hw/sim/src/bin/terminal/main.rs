//! A terminal on this machine: its settings, its size, and itself in QEMU.
//!
//! `make terminal`, `make size` and `make flash` run it.

mod run;
mod settings;
mod size;
mod wipe;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "terminal", about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs an image in QEMU: keys from here, display and papers to here
    Run(run::Arguments),
    /// Writes the settings of a terminal into a file, as its flash holds them
    Settings(settings::Arguments),
    /// Says what images take: flash, RAM, stack
    Size(size::Arguments),
    /// Writes the order to erase all that a terminal keeps, or has it done in QEMU
    Wipe(wipe::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Settings(arguments) => settings::run(&arguments),
        Command::Size(arguments) => size::run(&arguments),
        Command::Wipe(arguments) => wipe::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("terminal: {error}");
            ExitCode::FAILURE
        }
    }
}
