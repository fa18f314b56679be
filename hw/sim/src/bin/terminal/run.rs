//! `terminal run`: the image in QEMU, on this terminal.
//!
//! Keys come from standard input, the display and the papers go to standard
//! output. The modem dials for real, through a simulated 2G network.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};
use risiti_sim::clock::SimClock;
use risiti_sim::emulator::{Machine, MachineSpec, World, blank_flash};
use risiti_sim::modem::{Family, ModemSetup, ModemSim, TcpDialer};
use risiti_sim::network::NetworkProfile;
use risiti_sim::printer::PrinterModel;
use risiti_terminal::hardware::{Key, Screen};
use risiti_terminal::limits::SCREEN_COLUMNS;
use tokio::io::AsyncReadExt;

use crate::settings;

/// How often the papers are looked for.
const LOOK: Duration = Duration::from_millis(200);

/// The network between the modem and the gateway.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Network {
    /// No delay at all
    Perfect,
    /// 2G that holds: 700 ms round trip, 5 s to register
    Steady,
    /// 2G that comes and goes
    Village,
}

/// What to run.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The image, an ELF file
    #[arg(long)]
    image: PathBuf,
    /// Where its flash is kept, and its sockets
    #[arg(long)]
    dir: PathBuf,
    /// The network between modem and gateway
    #[arg(long, value_enum, default_value = "steady")]
    network: Network,
    /// How many times as fast time runs for the terminal and its modem
    #[arg(long, default_value_t = 1)]
    pace: u32,
    #[command(flatten)]
    settings: settings::Settled,
}

/// Runs until the power is switched off: end of input, or control-C.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    let _raw = RawInput::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let done = runtime.block_on(serve(arguments));
    // A read of standard input may never end.
    runtime.shutdown_background();
    done
}

async fn serve(arguments: &Arguments) -> io::Result<()> {
    std::fs::create_dir_all(&arguments.dir)?;
    let spec = MachineSpec {
        image: arguments.image.clone(),
        flash: arguments.dir.join("flash"),
        settings: arguments.dir.join("settings"),
        pace: arguments.pace,
        keeps: true,
    };
    blank_flash(&spec.flash)?;
    arguments.settings.write(&spec.settings)?;
    let profile = match arguments.network {
        Network::Perfect => NetworkProfile::perfect(),
        Network::Steady => NetworkProfile::steady(Duration::from_millis(700)),
        Network::Village => NetworkProfile::village(),
    };
    let modem = ModemSim::start(
        ModemSetup::new(Family::Sim800, profile),
        fastrand::u64(..),
        SimClock::faster(arguments.pace),
        TcpDialer::new(),
    );
    let world = World::new(modem, PrinterModel::default());
    let (mut machine, lines) = Machine::start(&spec, &arguments.dir, fastrand::u64(..)).await?;
    let wiring = world.connect(lines);
    let mut view = View::start();
    let mut screens = world.screen();
    let mut input = tokio::io::stdin();
    let mut typed = [0; 64];
    loop {
        tokio::select! {
            changed = screens.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let screen = *screens.borrow_and_update();
                view.show(screen.as_ref())?;
            }
            count = input.read(&mut typed) => match count? {
                0 => {
                    machine.kill();
                    return Ok(());
                }
                count => typed[..count].iter().filter_map(key).for_each(|key| wiring.press(key)),
            },
            _ = tokio::signal::ctrl_c() => {
                machine.kill();
                return Ok(());
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        let papers = world.papers();
        for paper in papers.iter().skip(view.papers) {
            view.tear_off(&paper.lines, paper.whole)?;
        }
        if let Some(status) = machine.ended() {
            return Err(io::Error::other(format!("QEMU has ended: {status}")));
        }
    }
}

/// What a key of this terminal means to the other one.
fn key(byte: &u8) -> Option<Key> {
    match byte {
        digit @ b'0'..=b'9' => Some(Key::Digit(digit - b'0')),
        b'\r' | b'\n' => Some(Key::Enter),
        0x08 | 0x7F => Some(Key::Delete),
        b'c' => Some(Key::Cancel),
        b'p' => Some(Key::Print),
        b'f' => Some(Key::Fetch),
        _ => None,
    }
}

/// The display and the papers, as text below one another.
struct View {
    /// Papers that are shown already.
    papers: usize,
    /// Lines of the display that stand at the end of the output, to be
    /// overwritten; only on a terminal.
    drawn: usize,
    redraws: bool,
    screen: Option<Screen>,
}

impl View {
    fn start() -> Self {
        println!("keys: 0-9, Enter, Backspace, c cancel, p print again, f fetch; control-C ends\n");
        Self {
            papers: 0,
            drawn: 0,
            redraws: io::stdout().is_terminal(),
            screen: None,
        }
    }

    fn show(&mut self, screen: Option<&Screen>) -> io::Result<()> {
        self.screen = screen.copied();
        self.draw()
    }

    fn tear_off(&mut self, lines: &[String], whole: bool) -> io::Result<()> {
        self.papers += 1;
        self.rub_out()?;
        let mut out = io::stdout().lock();
        let width = lines.iter().map(|line| line.chars().count()).max();
        let edge = "~".repeat(width.unwrap_or_default().max(32) + 2);
        writeln!(out, "{edge}")?;
        for line in lines {
            writeln!(out, " {line}")?;
        }
        writeln!(out, "{edge}{}\n", if whole { "" } else { " torn" })?;
        self.draw()
    }

    fn rub_out(&mut self) -> io::Result<()> {
        if self.drawn > 0 && self.redraws {
            print!("\x1b[{}A\x1b[J", self.drawn);
        }
        self.drawn = 0;
        io::stdout().flush()
    }

    fn draw(&mut self) -> io::Result<()> {
        self.rub_out()?;
        let Some(screen) = &self.screen else {
            return Ok(());
        };
        let mut out = io::stdout().lock();
        let edge = "-".repeat(SCREEN_COLUMNS);
        writeln!(out, "+{edge}+")?;
        for row in &screen.0 {
            writeln!(out, "|{}|", String::from_utf8_lossy(row))?;
        }
        writeln!(out, "+{edge}+")?;
        self.drawn = screen.0.len() + 2;
        out.flush()
    }
}

/// Keys come one by one and unseen, until this is dropped.
struct RawInput {
    before: Option<String>,
}

impl RawInput {
    fn start() -> Self {
        let before = io::stdin().is_terminal().then(|| stty("-g")).flatten();
        if before.is_some() {
            stty("-icanon");
            stty("-echo");
        }
        Self { before }
    }
}

impl Drop for RawInput {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            stty(before);
        }
    }
}

fn stty(argument: &str) -> Option<String> {
    let mut command = Command::new("stty");
    let done = command
        .arg(argument)
        .stdin(Stdio::inherit())
        .output()
        .ok()?;
    let said = String::from_utf8(done.stdout).ok()?;
    done.status.success().then(|| said.trim().to_owned())
}
