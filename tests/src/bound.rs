//! Children that die with whoever started them, however that ends.
//!
//! Promises: if the starting thread ends, by SIGKILL too, the kernel kills the child
//! (`PR_SET_PDEATHSIG`, set by `setpriv` of util-linux before it becomes the program).
//! Never: for a child that a short-lived thread starts and another one keeps.

use std::ffi::OsStr;
use std::process::Command;

/// A command that runs `program` so.
#[must_use]
pub fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let started = std::thread::spawn(|| {
            let child = bound("sleep").arg("1000").spawn().unwrap();
            // Until it is bound: a kill before that moment misses it.
            let name = format!("/proc/{}/comm", child.id());
            while std::fs::read_to_string(&name).unwrap() != "sleep\n" {
                std::thread::yield_now();
            }
            child
        });
        let ended = started.join().unwrap().wait().unwrap();
        assert_eq!(ended.signal(), Some(9));
    }
}
