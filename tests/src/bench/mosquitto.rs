//! Debian's mosquitto, to compare with: in memory, nothing made durable.
//!
//! Promises: nothing in its configuration holds it back. Never: persistence; so
//! it acknowledges what a power cut would lose, and the gateway does not.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{limits, machine};

/// Debian keeps it out of an ordinary user's path.
const BINARIES: [&str; 2] = ["mosquitto", "/usr/sbin/mosquitto"];

/// A running broker; it is killed when this is dropped.
#[derive(Debug)]
pub struct Mosquitto {
    child: Child,
    address: SocketAddr,
    version: String,
}

impl Mosquitto {
    /// Starts it on a free port with its configuration in `dir`.
    ///
    /// # Errors
    /// It is not installed, or did not start.
    pub fn start(dir: &Path) -> io::Result<Self> {
        let (binary, version) = BINARIES
            .iter()
            .find_map(|binary| Some((binary, version(binary)?)))
            .ok_or_else(|| {
                io::Error::other("no mosquitto; install it: apt-get install mosquitto")
            })?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = dir.join("mosquitto.conf");
        fs::write(&config, configuration(port))?;
        let child = Command::new(binary)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("mosquitto.log"))?)
            .spawn()?;
        let mut mosquitto = Self {
            child,
            address,
            version,
        };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = mosquitto.child.try_wait()? {
                return Err(io::Error::other(format!("mosquitto ended: {status}")));
            }
            if began.elapsed() > limits::START {
                return Err(io::Error::other("mosquitto does not listen"));
            }
            std::thread::sleep(limits::ASK_AGAIN);
        }
        Ok(mosquitto)
    }

    /// Where it serves MQTT.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it calls itself.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Processor time that it has used.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> io::Result<Duration> {
        machine::process_cpu(self.child.id())
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line of its help, if it is there; it exits with an error.
fn version(binary: &str) -> Option<String> {
    let output = Command::new(binary).arg("-h").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.to_owned())
}

/// `set_tcp_nodelay`: without it a PUBACK waits for the delayed acknowledgement
/// of the one before. 0 is "no limit".
fn configuration(port: u16) -> String {
    format!(
        "listener {port} 127.0.0.1\n\
         allow_anonymous true\n\
         persistence false\n\
         max_inflight_messages 0\n\
         max_queued_messages 0\n\
         set_tcp_nodelay true\n\
         log_dest none\n"
    )
}
