//! A command in a mount namespace of its own: what it mounts goes with it.

use std::process::Command;

/// `unshare`, as far as its own options. Root needs no user namespace (and in a
/// chroot gets none); anybody else does.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--mount");
    command
}
