//! Power cuts and failing disks, as a machine that any test can use.
//!
//! [`Shim`] puts a recorder between a real process and its disk: every file
//! operation below one directory is logged in an order that really happened,
//! and can be failed or delayed. [`Recording`] is such a log; [`Cut::build`]
//! makes from it a directory as a power cut could have left it. A test then
//! runs the real program on that directory and checks what it promised.
//!
//! ```no_run
//! # use risiti_tests::crash::*;
//! # fn main() -> std::io::Result<()> {
//! let shim = Shim::over("/tmp/run".as_ref())?;
//! let mut gateway = std::process::Command::new("risiti");
//! shim.command(gateway.args(["run", "--config", "/tmp/run/risiti.toml"]));
//! let mut child = gateway.spawn()?;
//! shim.delay_syncs_ms(500); // from now on, while it runs
//! # child.wait()?; Ok(())
//! # }
//! ```

mod image;
mod judge;
mod jury;
mod recording;
mod scene;
mod shim;
mod snapshot;

pub use image::{Cut, Image, Names, Unsynced};
pub use judge::{Judge, Verdict};
pub use jury::convictions;
pub use recording::{Entry, NodeId, Op, Recording};
pub use scene::{End, Ended, Scene, Shape, Stage};
pub use shim::{Errno, Fault, Moment, Operations, Shim};
pub use snapshot::{Snapshot, tree};

use std::path::PathBuf;

/// Where runs and images are kept: in memory if the machine has room for it
/// (thousands of images, each with its own syncs), else in the temporary
/// directory. `RISITI_CRASH_DIR` overrides it.
#[must_use]
pub fn scratch() -> PathBuf {
    if let Some(dir) = std::env::var_os("RISITI_CRASH_DIR") {
        return dir.into();
    }
    let memory = PathBuf::from("/dev/shm");
    if tempfile::tempdir_in(&memory).is_ok() {
        memory
    } else {
        std::env::temp_dir()
    }
}
