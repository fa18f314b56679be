//! The QEMU process.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// QEMU opens its lines within a moment, also where many run; more means that it
/// has not started.
const START: Duration = Duration::from_secs(30);

/// The emulated board's memory at 0x2100_0000, which is the file.
const FLASH_BYTES: usize = 16 * 1024 * 1024;

/// Where the board looks for its settings, its seed and its pace.
const SETTINGS_AT: &str = "0x380000";
const SEED_AT: &str = "0x380400";
const PACE_AT: &str = "0x380408";

/// Where the board's RAM begins, and how much of it a terminal may use
/// (`hw/boards/mps2-an386/memory.x`).
pub(super) const RAM_AT: u32 = 0x2000_0000;
pub(super) const RAM_BYTES: u32 = 16 * 1024;

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// The image, an ELF file.
    pub image: PathBuf,
    /// The NOR flash, [`blank_flash`] at first.
    pub flash: PathBuf,
    /// The encoded settings.
    pub settings: PathBuf,
    /// How many times as fast time runs for the terminal; the modem's and the
    /// printer's clock must run as fast.
    pub pace: u32,
    /// Whether the flash keeps what was written to it. If not, it is a chip that
    /// forgets all with its power: the negative control.
    pub keeps: bool,
}

/// The lines to a machine.
#[derive(Debug)]
pub struct Lines {
    /// Keypad and display.
    pub console: UnixStream,
    /// To the modem.
    pub modem: UnixStream,
    /// To the printer.
    pub printer: UnixStream,
    /// The rest.
    pub control: UnixStream,
}

/// A machine that runs; killed when dropped, or when the thread ends that started
/// it.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    monitor: UnixStream,
    dir: PathBuf,
}

impl Machine {
    /// Starts a machine. Its sockets and its log are in `dir`; one machine at a
    /// time for a directory and for a flash.
    ///
    /// # Errors
    /// QEMU is not there or did not start; the error holds what it said.
    pub async fn start(spec: &MachineSpec, dir: &Path, seed: u64) -> io::Result<(Self, Lines)> {
        let listen = |name: &str| {
            let path = dir.join(name);
            let _ = fs::remove_file(&path);
            UnixListener::bind(path)
        };
        let console = listen("console")?;
        let modem = listen("modem")?;
        let printer = listen("printer")?;
        let control = listen("control")?;
        let monitor = listen("monitor")?;
        let child = spawn(spec, dir, seed)?;
        let all = async {
            Ok::<_, io::Error>((
                console.accept().await?.0,
                modem.accept().await?.0,
                printer.accept().await?.0,
                control.accept().await?.0,
                monitor.accept().await?.0,
            ))
        };
        let (opened, mut child) = match timeout(START, all).await {
            Ok(opened) => (opened?, child),
            Err(_) => return Err(no_start(child, dir)),
        };
        if child.try_wait()?.is_some() {
            return Err(no_start(child, dir));
        }
        let (console, modem, printer, control, monitor) = opened;
        let lines = Lines {
            console,
            modem,
            printer,
            control,
        };
        let dir = dir.to_owned();
        Ok((
            Self {
                child,
                monitor,
                dir,
            },
            lines,
        ))
    }

    /// SIGKILL, and waits until it is gone: the power cut.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The board's RAM as it is now.
    ///
    /// # Errors
    /// QEMU did not answer.
    pub async fn ram(&mut self) -> io::Result<Vec<u8>> {
        let path = self.dir.join("ram");
        let _ = fs::remove_file(&path);
        let command = format!("pmemsave {RAM_AT:#x} {RAM_BYTES} \"{}\"\n", path.display());
        self.monitor.write_all(command.as_bytes()).await?;
        // The prompt comes once at the start and once after each command.
        let mut said = Vec::new();
        timeout(START, async {
            while fs::metadata(&path).map_or(0, |file| file.len()) < u64::from(RAM_BYTES) {
                if self.monitor.read_buf(&mut said).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
            Ok(())
        })
        .await
        .map_err(|_| io::Error::other(String::from_utf8_lossy(&said).into_owned()))??;
        fs::read(path)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(spec: &MachineSpec, dir: &Path, seed: u64) -> io::Result<Child> {
    let log = File::create(dir.join("qemu.log"))?;
    // Killed with whoever started it, also if that is killed: two machines on one
    // flash would spoil it.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "qemu-system-arm"])
        .args(["-M", "mps2-an386,memory-backend=nor"])
        .args(["-display", "none", "-nodefaults"])
        .arg("-object")
        .arg(format!(
            "memory-backend-file,id=nor,size=16M,mem-path={},share={}",
            spec.flash.display(),
            if spec.keeps { "on" } else { "off" }
        ))
        .arg("-kernel")
        .arg(&spec.image)
        .arg("-device")
        .arg(format!(
            "loader,addr={SETTINGS_AT},force-raw=on,file={}",
            spec.settings.display()
        ))
        .arg("-device")
        .arg(format!("loader,addr={SEED_AT},data={seed:#x},data-len=8"))
        .arg("-device")
        .arg(format!(
            "loader,addr={PACE_AT},data={:#x},data-len=4",
            spec.pace
        ));
    for name in ["console", "modem", "printer", "control"] {
        let path = dir.join(name);
        command
            .arg("-chardev")
            .arg(format!("socket,id={name},path={}", path.display()))
            .arg("-serial")
            .arg(format!("chardev:{name}"));
    }
    command
        .arg("-chardev")
        .arg(format!(
            "socket,id=monitor,path={}",
            dir.join("monitor").display()
        ))
        .args(["-mon", "chardev=monitor,mode=readline"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other("setpriv is missing: install util-linux"),
        _ => error,
    })
}

fn no_start(mut child: Child, dir: &Path) -> io::Error {
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
    io::Error::other(format!(
        "QEMU did not start (tests/setup.sh firmware installs it): {said}"
    ))
}

/// Makes a NOR flash as it comes from the factory, if there is no file yet.
///
/// # Errors
/// The file can't be written, or is no such flash.
pub fn blank_flash(path: &Path) -> io::Result<()> {
    match File::create_new(path) {
        Ok(mut file) => {
            let page = [0xFF; 4096];
            for _ in 0..FLASH_BYTES / page.len() {
                file.write_all(&page)?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::metadata(path)?.len() == FLASH_BYTES as u64 {
                true => Ok(()),
                false => Err(io::Error::other(format!(
                    "{} is not a flash of {FLASH_BYTES} bytes; move it away",
                    path.display()
                ))),
            }
        }
        Err(error) => Err(error),
    }
}
