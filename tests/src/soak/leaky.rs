//! A process that leaks on purpose: the control of the whole machine.
//!
//! Promises: a step leaks exactly so many descriptors and bytes, which the kernel
//! sees. Never: used by a soak that is meant to be clean.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What a step leaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leak {
    /// File descriptors.
    pub descriptors: u32,
    /// Bytes of memory.
    pub bytes: usize,
}

/// What the process does: a step for each line that it reads, and a line back.
///
/// # Errors
/// No descriptor is left.
pub fn leak(leak: Leak) -> io::Result<()> {
    let mut lost = Vec::new();
    for line in io::stdin().lines() {
        line?;
        for _ in 0..leak.descriptors {
            lost.push(File::open("/dev/null")?);
        }
        // Written, so that it is resident.
        Vec::leak(vec![0x5a_u8; leak.bytes]);
        println!("leaked");
    }
    Ok(())
}

/// That process, to be told.
#[derive(Debug)]
pub struct Leaky {
    child: Child,
    tell: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Leaky {
    /// Starts it: `soak leak` of that binary.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(soak: &Path, leak: Leak) -> io::Result<Self> {
        let mut child = Command::new(soak)
            .arg("leak")
            .args(["--descriptors", &leak.descriptors.to_string()])
            .args(["--bytes", &leak.bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(tell), Some(hear)) = pipes else {
            return Err(io::Error::other("no pipes"));
        };
        Ok(Self {
            child,
            tell,
            hear: BufReader::new(hear),
        })
    }

    /// Has it leak a step's worth.
    ///
    /// # Errors
    /// It has ended.
    pub fn step(&mut self) -> io::Result<()> {
        writeln!(self.tell, "leak")?;
        let mut line = String::new();
        if self.hear.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Leaky {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
