//! Runs the machines that try to lose something, for hours, and publishes what
//! they came to.
//!
//! Promises: every finished run is a line of `tests/proof/results.jsonl` before the
//! next one begins, so a session that is cut loses one run at most; it goes on where
//! it stopped. `RELIABILITY.md` is written from those lines alone. Ends with an
//! error if anything failed.

mod plan;
mod report;
mod results;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

use plan::{Machine, Plan};
use results::{Said, Seen, Version};

/// Runs every machine of tests/proof/plan.toml until its aim is reached, each with
/// seeds that it never had, and writes RELIABILITY.md.
#[derive(Parser)]
struct Arguments {
    /// Starts nothing more after so many hours; without it, all of it is run.
    #[arg(long)]
    hours: Option<f64>,
    /// Only machines whose name begins so; may be given again.
    #[arg(long)]
    only: Vec<String>,
    /// This part of each aim is enough.
    #[arg(long, default_value_t = 1.0)]
    share: f64,
    /// Counts only what was run on the product as it is checked out.
    #[arg(long)]
    anew: bool,
    /// Runs nothing: writes RELIABILITY.md from the results that are there.
    #[arg(long)]
    write: bool,
}

fn main() -> ExitCode {
    match work(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing failed.
fn work(arguments: &Arguments) -> Result<bool, String> {
    let root = root();
    let plan = Plan::read(&root.join("tests/proof/plan.toml"))?;
    let path = root.join("tests/proof/results.jsonl");
    let mut clean = true;
    if !arguments.write {
        let until = arguments
            .hours
            .map(|hours| Instant::now() + Duration::from_secs_f64(hours * 3_600.0));
        let wanted = |machine: &&Machine| {
            let only = &arguments.only;
            only.is_empty() || only.iter().any(|only| machine.what.starts_with(only))
        };
        let chosen: Vec<&Machine> = plan.machine.iter().filter(wanted).collect();
        // In turns, so that a proof that ends early has something of each.
        let mut open = chosen.clone();
        while !open.is_empty() {
            let mut still = Vec::new();
            for machine in open {
                if until.is_some_and(|until| Instant::now() >= until) {
                    continue;
                }
                let version = results::version(&root)?;
                let counted = arguments.anew.then_some(&version);
                let missing = missing(machine, counted, &path, arguments.share)?;
                if missing == 0 {
                    continue;
                }
                let passed = run(machine, missing, &version, &root, &path)?;
                clean &= passed;
                // What has failed fails again: it is for a person now.
                if passed {
                    still.push(machine);
                }
            }
            open = still;
        }
    }
    write(&root, &plan, &path)?;
    Ok(clean)
}

/// How many runs are to go; `now`: those on other versions of the product don't count.
fn missing(
    machine: &Machine,
    now: Option<&Version>,
    path: &Path,
    share: f64,
) -> Result<u64, String> {
    let done: u64 = results::read(path)?
        .iter()
        .filter(|seen| machine.owns(&seen.said.what))
        .filter(|seen| now.is_none_or(|now| seen.product == now.product))
        .map(|seen| seen.said.runs)
        .sum();
    let aim = (machine.runs as f64 * share).ceil() as u64;
    Ok(aim.saturating_sub(done))
}

/// Runs a machine once; whether it broke nothing.
fn run(
    machine: &Machine,
    missing: u64,
    version: &Version,
    root: &Path,
    path: &Path,
) -> Result<bool, String> {
    let seed = machine.next_seed(&results::read(path)?);
    let environment = machine.environment(machine.asked(missing), seed);
    let typed = machine.typed(&environment);
    println!("\n== {}\n{typed}", machine.title);
    let log = root.join("target/proof");
    std::fs::create_dir_all(&log).map_err(|e| e.to_string())?;
    let log = log.join(format!("{}.log", machine.what.trim_end_matches(['*', '-'])));
    let began = Instant::now();
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("exec {} 2>&1", machine.command))
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{typed}: {e}"))?;
    let output = child.stdout.take().expect("it was asked for");
    let mut file = std::fs::File::create(&log).map_err(|e| e.to_string())?;
    let mut found: Vec<Said> = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(|e| e.to_string())?;
        let line = String::from_utf8_lossy(&line);
        let _ = writeln!(file, "{line}");
        found.extend(results::said(&line).filter(|said| machine.owns(&said.what)));
    }
    let ended_well = child.wait().map_err(|e| e.to_string())?.success();
    if !ended_well && found.iter().all(|said| said.failures == 0) {
        println!("failed: see {}", log.display());
        // How many runs it had behind it nobody knows.
        found = vec![Said {
            what: machine.what.trim_end_matches(['*', '-']).to_owned(),
            guarantees: machine.guarantees.clone(),
            runs: 0,
            failures: 1,
            seed: machine.seed.is_some().then(|| seed.into()),
            extra: Default::default(),
        }];
    } else if found.is_empty() {
        return Err(format!(
            "{typed} ended well but said nothing of what it did: it must print a line PROOF {{\"what\":\"{}\",…}}; see {}",
            machine.what,
            log.display()
        ));
    }
    let seconds = began.elapsed().as_secs() / found.len() as u64;
    for said in found {
        println!(
            "{}: {} runs, {} failures, {seconds} s",
            said.what, said.runs, said.failures
        );
        results::add(
            path,
            &Seen {
                said,
                seconds,
                ended: results::time_of_day()?,
                commit: version.commit.clone(),
                product: version.product.clone(),
                command: typed.clone(),
            },
        )?;
    }
    Ok(ended_well)
}

fn write(root: &Path, plan: &Plan, results: &Path) -> Result<(), String> {
    let path = root.join("RELIABILITY.md");
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let document = std::fs::read_to_string(&path).map_err(told)?;
    let figures = report::figures(plan, &results::read(results)?);
    let now = report::with_figures(&document, &figures)?;
    if now != document {
        std::fs::write(&path, now).map_err(told)?;
        println!("RELIABILITY.md has new figures");
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reliability_says_what_the_results_say() {
        let root = root();
        let plan = Plan::read(&root.join("tests/proof/plan.toml")).expect("the plan can be read");
        let seen = results::read(&root.join("tests/proof/results.jsonl")).expect("so can these");
        let document =
            std::fs::read_to_string(root.join("RELIABILITY.md")).expect("the document is there");
        let now = report::with_figures(&document, &report::figures(&plan, &seen));
        assert!(
            now.as_ref() == Ok(&document),
            "RELIABILITY.md is older than its results: make proof PROOF=--write"
        );
    }

    #[test]
    fn every_result_belongs_to_a_machine_of_the_plan() {
        let root = root();
        let plan = Plan::read(&root.join("tests/proof/plan.toml")).expect("the plan can be read");
        let seen = results::read(&root.join("tests/proof/results.jsonl")).expect("so can these");
        for seen in seen {
            let owners = plan.machine.iter().filter(|m| m.owns(&seen.said.what));
            assert_eq!(owners.count(), 1, "{}", seen.said.what);
        }
    }

    #[test]
    fn no_machine_is_asked_for_more_than_is_missing_or_than_it_does_at_once() {
        let plan = "[[machine]]\nwhat='a-*'\ntitle=''\nguarantees=''\nunit=''\nruns=10\n\
                    runs_at_once=4\ncount='N'\ncommand='true'";
        let plan: Plan = toml::from_str(plan).expect("this is a plan");
        let asked = [10, 3, 0].map(|missing| plan.machine[0].asked(missing));
        assert_eq!(asked, [4, 3, 1]);
        assert!(plan.machine[0].owns("a-b") && !plan.machine[0].owns("b"));
    }

    #[test]
    fn no_seed_is_counted_twice() {
        let root = root();
        let plan = Plan::read(&root.join("tests/proof/plan.toml")).expect("the plan can be read");
        let seen = results::read(&root.join("tests/proof/results.jsonl")).expect("so can these");
        for machine in &plan.machine {
            let own = seen.iter().filter(|seen| machine.owns(&seen.said.what));
            let mut ranges: Vec<(u64, u64)> = own
                .filter_map(|seen| Some((seen.said.seed.as_ref()?.as_u64()?, seen.said.runs)))
                .collect();
            ranges.sort_unstable();
            let apart = ranges.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0);
            assert!(apart, "{}: {ranges:?}", machine.what);
            let last = ranges.last().map_or(0, |(seed, runs)| seed + runs);
            assert_eq!(machine.next_seed(&seen), last, "{}", machine.what);
        }
    }
}
