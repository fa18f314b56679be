//! README's "Quick start by hand", as it stands there: its commands are taken
//! from the file and run, with the real mosquitto_pub, mosquitto_sub and kcat.
//! Only ports and the directory come from the environment.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use risiti_tests::risiti_command::{Running, output, risiti};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// The fenced commands of a section, a block each; lines that end in `|` or `\`
/// go on.
fn commands(readme: &str, section: &str) -> Vec<Vec<String>> {
    let text = readme.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let text = text.split("\n## ").next().unwrap();
    let mut blocks = Vec::new();
    for fence in text.split("```sh\n").skip(1) {
        let mut block = vec![String::new()];
        for line in fence.split("```").next().unwrap().lines() {
            let last = block.last_mut().unwrap();
            if !line.is_empty() && !line.starts_with('#') {
                *last += line;
                *last += "\n";
                if !line.ends_with('|') && !line.ends_with('\\') {
                    block.push(String::new());
                }
            }
        }
        block.retain(|command| !command.is_empty());
        blocks.push(block);
    }
    blocks
}

/// A newcomer's directory, with what `make setup build` leaves in it.
struct Newcomer {
    home: tempfile::TempDir,
    mqtt: String,
    admin: String,
}

impl Newcomer {
    fn new(house: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        let there = |path: &str| home.path().join(path);
        fs::create_dir_all(there("target/release")).unwrap();
        fs::create_dir_all(there("config/examples")).unwrap();
        fs::create_dir_all(there("xdg")).unwrap();
        let demo = "config/examples/demo.toml";
        fs::copy(house.join(demo), there(demo)).unwrap();
        let program = risiti([""; 0]).get_program().to_owned();
        std::os::unix::fs::symlink(program, there("target/release/risiti")).unwrap();
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let (mqtt, admin) = (free(), free());
        // Their own way to have another default port.
        for client in ["mosquitto_pub", "mosquitto_sub"] {
            fs::write(there("xdg").join(client), format!("-p {mqtt}\n")).unwrap();
        }
        Self {
            mqtt: format!("127.0.0.1:{mqtt}"),
            admin: format!("127.0.0.1:{admin}"),
            home,
        }
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", command])
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .env("XDG_CONFIG_HOME", self.home.path().join("xdg"))
            .env("RISITI__MQTT__LISTEN", &self.mqtt)
            .env("RISITI__ADMIN__LISTEN", &self.admin)
            .env("RISITI_ADMIN", &self.admin);
        shell
    }

    /// Runs a command; what it prints.
    fn run(&self, command: &str) -> String {
        let ended = output(&mut self.shell(command), LONG).unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{command}{said}");
        String::from_utf8_lossy(&ended.stdout).into_owned()
    }

    /// Starts what goes on running and waits for its line.
    fn serve(&self, command: &str) -> (Running, String) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("log"))
            .unwrap();
        let child = self
            .shell(&format!("exec {command}"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let mut line = String::new();
        let mut out = BufReader::new(running.0.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        (running, line)
    }

    /// Repeats a command until what it prints is as wanted. A person types more
    /// slowly than a topic comes into being, and kcat fails before that.
    fn run_until(&self, command: &str, wanted: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + LONG;
        loop {
            let ended = output(&mut self.shell(command), LONG).unwrap();
            let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
            if ended.status.success() && wanted(&printed) {
                return printed;
            }
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(Instant::now() < until, "{command}{printed}{said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn the_quick_start_does_what_it_says() {
    let house = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let readme = fs::read_to_string(house.join("README.md")).unwrap();
    let blocks = commands(&readme, "Quick start by hand");
    let (setup, by_hand, way_back) = (&blocks[0], &blocks[1], &blocks[2]);
    let run = &setup[1];
    assert!(setup[0].starts_with("make setup build"), "{setup:?}");
    assert!(run.starts_with("target/release/risiti run"), "{setup:?}");
    let [reading, payment, meters, records, status] = &by_hand[..] else {
        panic!("{by_hand:#?}");
    };
    let [settle, receipt, trace] = &way_back[..] else {
        panic!("{way_back:#?}");
    };

    let newcomer = Newcomer::new(&house);
    let (mut gateway, line) = newcomer.serve(run);
    assert!(
        line.contains(&newcomer.mqtt) && line.contains("embedded Kafka"),
        "{line}"
    );
    newcomer.run(reading);
    newcomer.run(payment);
    let found = newcomer.run_until(meters, |printed| !printed.is_empty());
    assert!(
        found.starts_with("7: 12.5  ") && found.contains("ce_id="),
        "{found}"
    );
    let found = newcomer.run_until(records, |printed| !printed.is_empty());
    assert!(
        found.starts_with("t1: ") && found.contains("ce_id=t1/1"),
        "{found}"
    );
    let told = newcomer.run_until(status, |told| told.contains(" 0 waiting"));
    assert!(
        told.contains("records      2 taken, 2 acknowledged"),
        "{told}"
    );

    // The receipt, to whoever has the terminal's id.
    newcomer.run_until(trace, |told| told.contains("not settled yet"));
    let (settlement, _) = newcomer.serve(settle.trim_end().strip_suffix('&').unwrap());
    let taken = newcomer.run(receipt);
    assert!(taken.starts_with("t/t1/receipts: "), "{taken}");
    assert!(taken.ends_with("retained 0\n"), "{taken}");
    newcomer.run_until(trace, |told| told.contains("acknowledged"));
    drop(settlement);

    // The same sequence number: acknowledged (mosquitto_pub waits for it), and
    // once in Kafka.
    newcomer.run(payment);
    let told = newcomer.run(status);
    assert!(told.contains("1 resends recognised"), "{told}");
    assert_eq!(newcomer.run(records).lines().count(), 1);

    // The plug.
    gateway.0.kill().unwrap();
    gateway.0.wait().unwrap();
    let (_gateway, _) = newcomer.serve(run);
    newcomer.run(payment);
    for (command, expected) in [(meters, "7: 12.5"), (records, "t1: ")] {
        let found = newcomer.run_until(command, |printed| !printed.is_empty());
        assert!(found.starts_with(expected), "{found}");
        newcomer.run_until(status, |told| told.contains(" 0 waiting"));
        assert_eq!(newcomer.run(command).lines().count(), 1, "once");
    }
}
