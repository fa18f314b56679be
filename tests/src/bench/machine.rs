//! Where a figure comes from: the machine, the versions, the commit; and the
//! processor time of threads and processes.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

/// Where and with what a run was made.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Kernel and its release.
    pub kernel: String,
    /// Load averages before the run: 1, 5 and 15 minutes.
    pub load: String,
    /// The file system under the journal and the bare log.
    pub file_system: String,
    /// `mosquitto`'s version.
    pub mosquitto: String,
    /// Ours.
    pub gateway: String,
    /// The commit that is checked out; `+` if files differ from it.
    pub commit: String,
}

impl Machine {
    /// Looks around; `dir` is where the journal and the bare log will be. What
    /// can't be found out is said to be unknown.
    #[must_use]
    pub fn look(dir: &Path, mosquitto: &str) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let memory = read("/proc/meminfo");
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or("unknown".into(), |(_, value)| value.trim().to_owned())
        };
        let memory_kib: u64 = field(&memory, "MemTotal")
            .split(' ')
            .next()
            .and_then(|kib| kib.parse().ok())
            .unwrap_or(0);
        let changed = !first_line("git", &["status", "--porcelain", "-uno"]).is_empty();
        Self {
            processor: field(&cpuinfo, "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_kib * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").trim().to_owned(),
            file_system: file_system(dir),
            mosquitto: mosquitto.to_owned(),
            gateway: env!("CARGO_PKG_VERSION").to_owned(),
            commit: first_line("git", &["rev-parse", "--short=12", "HEAD"])
                + if changed { "+" } else { "" },
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or("").into()
}

/// The type of the mount that holds `dir`: a memory file system syncs nothing.
fn file_system(dir: &Path) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mounts = read("/proc/self/mounts");
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        dir.starts_with(at).then_some((at.len(), device, kind))
    });
    // Of mounts over one another the last counts.
    holding
        .max_by_key(|(length, ..)| *length)
        .map_or("unknown".into(), |(_, device, kind)| {
            format!("{kind} on {device}")
        })
}

/// Processor time that this thread has used.
///
/// # Errors
/// There is no `/proc`.
pub fn thread_cpu() -> io::Result<Duration> {
    cpu("/proc/thread-self/schedstat")
}

/// Processor time that a process has used, by its number, threads that ended
/// included.
///
/// # Errors
/// There is no such process.
pub fn process_cpu(pid: u32) -> io::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path)?;
    // The name, in parentheses, may hold anything. Of the fields after it, the
    // 12th and 13th are user and system time in ticks.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Vec<u64> = ticks.filter_map(|field| field.parse().ok()).collect();
    if ticks.len() != 2 {
        return Err(io::Error::other(format!("{path}: no times")));
    }
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * TICK_MS))
}

/// A tick of `/proc/PID/stat`, milliseconds: USER_HZ, 100 on Linux.
const TICK_MS: u64 = 10;

/// The first field of a `schedstat`: nanoseconds on a processor.
fn cpu(path: &str) -> io::Result<Duration> {
    let text = fs::read_to_string(path)?;
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    nanoseconds
        .map(Duration::from_nanos)
        .ok_or_else(|| io::Error::other(format!("{path}: no schedstat")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_as_processor_time() {
        let process = || process_cpu(std::process::id()).unwrap();
        let before = (thread_cpu().unwrap(), process());
        let mut sum = 0_u64;
        while thread_cpu().unwrap() == before.0 || process() == before.1 {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
