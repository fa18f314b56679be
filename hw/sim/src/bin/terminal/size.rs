//! `terminal size`: what images take, as a table.

use std::io;
use std::path::PathBuf;

use clap::Args;
use risiti_sim::emulator::Footprint;

/// The images.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Images, ELF files named like their boards
    #[arg(required = true)]
    images: Vec<PathBuf>,
}

/// Prints the table.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    println!("| board | flash, bytes | static RAM, bytes |");
    println!("| --- | ---: | ---: |");
    for image in &arguments.images {
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let Footprint { flash, ram } = Footprint::of(image)?;
        println!("| `{name}` | {flash} | {ram} |");
    }
    Ok(())
}
