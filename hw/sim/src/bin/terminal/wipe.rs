//! `terminal wipe`: the order to erase, for a board; or carried out, in QEMU.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use risiti_sim::emulator::{EmulatedTerminal, Setup};
use risiti_sim::modem::TcpDialer;
use risiti_sim::network::NetworkProfile;
use risiti_terminal::wipe::{NOT_WIPED, Order, WIPE_FAILED, WIPED};
use tokio::time::Instant;

/// How many times as fast time runs in QEMU: a chip of 8 MB takes 82 s to erase.
const PACE: u32 = 10;

/// An image that has not ended by then is stuck.
const LONGEST: Duration = Duration::from_secs(300);

/// What to erase.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Also payments without receipt, receipts that are not printed, and what can't be
    /// read: they are lost
    #[arg(long)]
    even_unfinished: bool,
    /// Where to write the order, in the place of a terminal's settings
    #[arg(long, value_name = "FILE", required_unless_present = "image")]
    out: Option<PathBuf>,
    /// The image that is to carry it out here, an ELF file
    #[arg(long, requires = "dir", conflicts_with = "out")]
    image: Option<PathBuf>,
    /// Where `terminal run` keeps that terminal's flash
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Writes the order, or carries it out.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    let order = Order {
        even_unfinished: arguments.even_unfinished,
    };
    if let Some(out) = &arguments.out {
        return fs::write(out, order.encode());
    }
    let (Some(image), Some(dir)) = (&arguments.image, &arguments.dir) else {
        return Err(io::Error::other("--image and --dir, or --out"));
    };
    if !dir.join("flash").is_file() {
        let dir = dir.display();
        return Err(io::Error::other(format!("no terminal has run in {dir}")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shown = runtime.block_on(async {
        let setup = Setup {
            image: image.clone(),
            id: "wiped".to_owned(),
            package: None,
            gateway: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            network: NetworkProfile::perfect(),
            pace: PACE,
            keeps: true,
            seed: 0,
        };
        let mut terminal = EmulatedTerminal::new(&setup, dir, TcpDialer::new())?;
        terminal.order_wipe(order)?;
        terminal.boot().await?;
        let ends = [WIPED, NOT_WIPED, WIPE_FAILED];
        let has_ended = |shown: &str| ends.iter().any(|end| shown.starts_with(end));
        terminal
            .wait_shown(Instant::now() + LONGEST, has_ended)
            .await
    })?;
    println!("{}", shown.trim_end());
    if shown.starts_with(WIPED) {
        Ok(())
    } else {
        Err(io::Error::other("it was not wiped"))
    }
}
