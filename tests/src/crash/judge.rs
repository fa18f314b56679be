//! A process of its own that judges images, one line each.
//!
//! The real program may panic, abort or hang on an image; that is a verdict
//! too, and the next image gets a fresh process.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// What the judge said, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every promise was kept; with the judge's own summary.
    Kept(String),
    /// One was not, and which.
    Broken(String),
    /// The judging process ended (panic, abort, signal); with its last words.
    Died(String),
    /// It did not answer in time.
    Hung,
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }

    /// A short name of what went wrong, to count by.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Kept(_) => "kept",
            Self::Broken(reason) => reason.split([':', ' ']).next().unwrap_or("broken"),
            Self::Died(_) => "died",
            Self::Hung => "hung",
        }
    }
}

/// Asks one process after another.
#[derive(Debug)]
pub struct Judge {
    program: std::path::PathBuf,
    args: Vec<String>,
    timeout: Duration,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    answers: Receiver<String>,
}

impl Judge {
    /// `program args…` must answer each line it reads with one line that
    /// begins with `ok` or `broken`, within `timeout`.
    #[must_use]
    pub fn new(program: &str, args: &[&str], timeout: Duration) -> Self {
        Self {
            program: program.into(),
            args: args.iter().map(ToString::to_string).collect(),
            timeout,
            running: None,
        }
    }

    /// The verdict on what `line` names.
    ///
    /// # Errors
    /// The process can't be started.
    pub fn ask(&mut self, line: &str) -> io::Result<Verdict> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start()?,
        };
        let asked = running
            .child
            .stdin
            .as_mut()
            .map(|stdin| stdin.write_all(format!("{line}\n").as_bytes()));
        let answer = match asked {
            Some(Ok(())) => running.answers.recv_timeout(self.timeout),
            _ => Err(mpsc::RecvTimeoutError::Disconnected),
        };
        match answer {
            Ok(answer) => {
                self.running = Some(running);
                Ok(match answer.split_once(' ') {
                    Some(("ok", summary)) => Verdict::Kept(summary.to_owned()),
                    Some(("broken", reason)) => Verdict::Broken(reason.to_owned()),
                    _ => Verdict::Died(format!("answered {answer:?}")),
                })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = running.child.wait()?;
                Ok(Verdict::Died(status.to_string()))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                running.child.kill()?;
                running.child.wait()?;
                Ok(Verdict::Hung)
            }
        }
    }

    fn start(&self) -> io::Result<Running> {
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no stdout"))?;
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Running { child, answers })
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Ended by the end of its input, or by force.
            drop(running.child.stdin.take());
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}
