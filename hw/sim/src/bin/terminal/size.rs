//! `terminal size`: what images take, as a table.
//!
//! Flash and variables are in the image. How deep its stack goes is seen by
//! running it in QEMU: a person pays, receipts are printed, the power is cut, and
//! what is left of the paint on the stack is measured each time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use risiti_sim::emulator::{EmulatedTerminal, Footprint, Setup};
use risiti_sim::network::NetworkProfile;
use risiti_sim::operator::{Habits, Operator};
use risiti_sim::village::{Village, VillageProfile};
use tokio::time::Instant;

/// The board that can be run here.
const EMULATED: &str = "mps2-an386";

/// Power is cut this often, so that starts and resends are among what is measured.
const LIVES: u32 = 3;
const LIFE_LONGEST: Duration = Duration::from_secs(30);
const PAYMENTS: u32 = 3;
const PACE: u32 = 10;
const SEED: u64 = 1;

/// The images.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Images, ELF files named like their boards
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// For the emulated board's files; it begins with a virgin flash
    #[arg(long, default_value = "target/terminal-size")]
    dir: PathBuf,
}

/// Prints the table.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    println!("| board | flash, bytes | variables, bytes | stack, bytes | RAM in all, bytes |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for image in &arguments.images {
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let footprint = Footprint::of(image)?;
        let Footprint { flash, ram } = footprint;
        let stack = match name == EMULATED {
            true => Some(deepest(image, footprint, &arguments.dir)?),
            false => None,
        };
        let or_dash = |bytes: Option<u32>| bytes.map_or("—".to_owned(), |b| b.to_string());
        let (all, stack) = (or_dash(stack.map(|stack| ram + stack)), or_dash(stack));
        println!("| `{name}` | {flash} | {ram} | {stack} | {all} |");
    }
    Ok(())
}

/// How deep the stack goes, at the most.
fn deepest(image: &Path, footprint: Footprint, dir: &Path) -> io::Result<u32> {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let village = Village::new(VillageProfile::default(), SEED);
        let carrier = village.clone();
        tokio::spawn(async move { carrier.run().await });
        let setup = Setup {
            image: image.to_owned(),
            id: "size".to_owned(),
            package: None,
            gateway: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            network: NetworkProfile::steady(Duration::from_millis(300)),
            pace: PACE,
            keeps: true,
            seed: SEED,
        };
        let mut terminal = EmulatedTerminal::new(&setup, dir, village)?;
        let mut stack = 0;
        for life in 0..LIVES {
            let habits = Habits {
                payments: PAYMENTS,
                pause_ms: (0, 1_000),
                slips: 0.0,
                second_thoughts: 0.0,
                fetches: 1.0,
                reprints: 1.0,
                ..Habits::default()
            };
            let mut person = Operator::new(habits, u64::from(life), terminal.world().now_ms());
            terminal.boot().await?;
            let until = Instant::now() + LIFE_LONGEST;
            let all = (life + 1) * PAYMENTS;
            terminal
                .attend(&mut person, until, |now| {
                    now.operator.is_done() && now.papers.len() >= all as usize
                })
                .await?;
            let (paid, papers) = (person.saved().len(), terminal.world().papers().len());
            if paid < PAYMENTS as usize || papers < all as usize {
                return Err(io::Error::other(format!(
                    "{paid} payments and {papers} papers only; it shows:\n{}",
                    terminal.shown()
                )));
            }
            stack = stack.max(footprint.stack(&terminal.ram().await?).unwrap_or_default());
            terminal.cut_power().await;
        }
        Ok(stack)
    })
}
