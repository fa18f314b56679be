//! Runs the simulation by hand: many seeds, or one again.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use risiti_simulation::contract::Controls;
use risiti_simulation::runs::{attempt, control, explain, many};
use risiti_simulation::scenario::Scenario;
use risiti_simulation::world::trace;

/// The whole of Risiti on a virtual clock.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds, until one fails.
    Run {
        /// How many.
        #[arg(long, default_value_t = 20_000)]
        runs: u64,
        /// From this one on.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// What is broken on purpose.
        #[arg(long, value_parser = named)]
        control: Option<Controls>,
    },
    /// Runs one seed, and tells what happens.
    Replay {
        /// The seed.
        seed: u64,
        /// Parts to leave out, by their numbers.
        #[arg(long, value_delimiter = ',')]
        without: Vec<usize>,
        /// What is broken on purpose.
        #[arg(long, value_parser = named)]
        control: Option<Controls>,
    },
    /// Makes a seed that fails small.
    Shrink {
        /// The seed.
        seed: u64,
        /// What is broken on purpose.
        #[arg(long, value_parser = named)]
        control: Option<Controls>,
    },
}

fn named(name: &str) -> Result<Controls, String> {
    control(name).ok_or_else(|| format!("no control is named {name}"))
}

fn main() -> ExitCode {
    match Options::parse().command {
        Command::Run {
            runs,
            from,
            control,
        } => {
            let began = Instant::now();
            let controls = control.unwrap_or_default();
            match many(from, runs, controls) {
                Ok(sum) => {
                    print!("{sum}");
                    println!("in {:.1} s", began.elapsed().as_secs_f64());
                    ExitCode::SUCCESS
                }
                Err((seed, failure)) => {
                    println!("{}", explain(&Scenario::of(seed).with(controls), &failure));
                    ExitCode::FAILURE
                }
            }
        }
        Command::Replay {
            seed,
            without,
            control,
        } => {
            let scenario = Scenario::of(seed).with(control.unwrap_or_default());
            let scenario = scenario.without(&without);
            print!("{}", scenario.story());
            let (result, lines) = trace(&scenario);
            for line in lines {
                println!("{line}");
            }
            match result {
                Ok(report) => {
                    println!("{report:#?}");
                    ExitCode::SUCCESS
                }
                Err(failure) => {
                    println!("{}", failure.violation);
                    ExitCode::FAILURE
                }
            }
        }
        Command::Shrink { seed, control } => {
            let scenario = Scenario::of(seed).with(control.unwrap_or_default());
            match attempt(&scenario) {
                Ok(_) => {
                    println!("seed {seed} breaks nothing");
                    ExitCode::SUCCESS
                }
                Err(failure) => {
                    println!("{}", explain(&scenario, &failure));
                    ExitCode::FAILURE
                }
            }
        }
    }
}
