//! How a gateway starts, refuses to start, reloads and stops, as its operator
//! and a service manager see it. What it refuses it says on standard error, with
//! the remedy, ends with code 1, and leaves nothing half-started.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use risiti_tests::crash::Shim;
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::risiti_command::{Running, output, risiti};
use risiti_tests::upward::RAW;
use risiti_tests::wire_client::{Connect, Message, Wire};
use risiti_tests::{mock_kafka, real_kafka};
use rustix::process::Signal;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A configuration that starts by itself: embedded Kafka, free ports.
fn config(data_dir: &Path) -> String {
    format!(
        "[gateway]\nid = \"gw-1\"\ndata_dir = \"{}\"\n[mqtt]\nlisten = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[kafka]\nbootstrap = \"embedded\"\n\
         [store]\nbudget_bytes = \"128MiB\"\nreceipts_reserve_bytes = \"1MiB\"\n\
         ballast_bytes = \"1MiB\"\nfree_bytes_min = \"1MiB\"\ngeneration_bytes = \"4MiB\"\n\
         [[routes]]\nname = \"raw\"\nfilter = \"raw/#\"\ntopic = \"{RAW}\"\n\
         key = \"client_id\"\nformat = \"raw\"\n",
        data_dir.display()
    )
}

fn write(dir: &Path, text: &str) -> String {
    let file = dir.join("risiti.toml");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// Runs it; it must refuse, with code 1. Returns what it says.
fn refused(dir: &Path, text: &str) -> String {
    let file = write(dir, text);
    let ended = output(&mut risiti(["run", "--config", &file]), LONG).unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(ended.stdout.is_empty(), "it said that it serves");
    said
}

/// `RISITI serves MQTT on A, admin on http://B, …`.
struct Served {
    running: Running,
    mqtt: SocketAddr,
    admin: SocketAddr,
}

fn serve(dir: &Path, text: &str, notify: Option<(&Path, &str)>) -> Served {
    let file = write(dir, text);
    let mut command = risiti(["run", "--config", &file]);
    if let Some((socket, watchdog_usec)) = notify {
        command
            .env("NOTIFY_SOCKET", socket)
            .env("WATCHDOG_USEC", watchdog_usec);
    }
    let log = fs::File::create(dir.join("log")).unwrap();
    let child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut running = Running(child);
    let mut line = String::new();
    let mut out = std::io::BufReader::new(running.0.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let address = |before: &str| {
        let rest = line.split(before).nth(1).unwrap_or_else(|| {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            panic!("{line}{log}")
        });
        let end = rest.find([',', '\n']).unwrap_or(rest.len());
        rest[..end].parse().unwrap()
    };
    let (mqtt, admin) = (address("MQTT on "), address("admin on http://"));
    Served {
        running,
        mqtt,
        admin,
    }
}

#[test]
fn two_gateways_on_one_data_dir_are_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let text = config(&dir.path().join("data"));
    let first = serve(dir.path(), &text, None);
    let other = tempfile::tempdir().unwrap();
    let said = refused(other.path(), &text);
    assert!(said.contains("in use by another gateway"), "{said}");
    assert!(said.contains("gateway.data_dir"), "no remedy: {said}");
    let mut client = Wire::accepted(first.mqtt, &Connect::clean(4, "c")).unwrap();
    client.publish(&Message::new("raw/c", "c/1", 1)).unwrap();
}

#[test]
fn a_data_dir_that_cannot_be_written_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let mut wrong = vec![file.join("data"), "/proc/risiti".into()];
    if !rustix::process::getuid().is_root() {
        let sealed = dir.path().join("sealed");
        fs::create_dir(&sealed).unwrap();
        fs::set_permissions(&sealed, fs::Permissions::from_mode(0o500)).unwrap();
        wrong.push(sealed);
    }
    for path in wrong {
        let said = refused(dir.path(), &config(&path));
        assert!(said.contains(&path.display().to_string()), "{said}");
        assert!(said.contains("gateway.data_dir"), "no remedy: {said}");
    }
}

#[test]
fn a_taken_port_is_refused_before_anything_is_touched() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for (table, key) in [("[mqtt]", "mqtt.listen"), ("[admin]", "admin.listen")] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let text = config(&data).replace(
            &format!("{table}\nlisten = \"127.0.0.1:0\""),
            &format!("{table}\nlisten = \"{addr}\""),
        );
        let said = refused(dir.path(), &text);
        assert!(said.contains(&addr) && said.contains(key), "{said}");
        assert!(said.contains("another address"), "no remedy: {said}");
        assert!(!data.join("store").exists(), "the store was opened");
        assert!(!data.join("embedded-kafka").exists(), "Kafka was started");
    }
}

#[test]
fn every_wrong_configuration_names_its_place_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let right = config(&data);
    let wrong = [
        (right.replace("bootstrap =", "bootstap ="), "bootstap"),
        (right.replace("\"128MiB\"", "\"lots\""), "budget_bytes"),
        (right.replace("raw/#", "raw/#/x"), "filter"),
        (
            right.replace(
                "[admin]\nlisten = \"127.0.0.1:0\"",
                "[admin]\nlisten = \"0.0.0.0:0\"",
            ),
            "insecure = true",
        ),
        (
            right.replace(
                "[mqtt]\nlisten = \"127.0.0.1:0\"",
                "[mqtt]\nlisten = \"0.0.0.0:0\"",
            ),
            "insecure = true",
        ),
        ("[gateway".to_owned(), "risiti.toml"),
    ];
    for (text, told) in wrong {
        assert_ne!(text, right, "{told}");
        let said = refused(dir.path(), &text);
        assert!(said.contains(told), "{told}: {said}");
        assert!(said.contains("risiti.toml"), "no file: {said}");
        assert!(!data.exists(), "something was started");
    }
    let ended = output(&mut risiti(["run", "--config", "/nowhere/r.toml"]), LONG).unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1));
    assert!(said.contains("/nowhere/r.toml"), "{said}");
}

/// What a service manager hears, in order; without its heartbeats.
fn heard(socket: &UnixDatagram, until: &str) -> Vec<String> {
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut all = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let done = text.contains(until);
        if done || !text.contains("WATCHDOG=1") {
            all.push(text);
        }
        if done {
            return all;
        }
    }
}

#[test]
fn systemd_hears_ready_heartbeats_reloads_and_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let text = config(&dir.path().join("data"));
    // Heartbeats at half of this.
    let mut served = serve(dir.path(), &text, Some((&path, "200000")));
    assert_eq!(
        heard(&socket, "READY=1").len(),
        1,
        "the first word is ready"
    );
    heard(&socket, "WATCHDOG=1");
    served.running.signal(Signal::HUP).unwrap();
    let reload = heard(&socket, "READY=1");
    assert!(reload[0].contains("RELOADING=1"), "{reload:?}");
    let usec = reload[0]
        .lines()
        .find_map(|l| l.strip_prefix("MONOTONIC_USEC="));
    assert!(
        usec.is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n > 0)),
        "{reload:?}"
    );
    served.running.signal(Signal::TERM).unwrap();
    heard(&socket, "STOPPING=1");
    assert!(served.running.wait(LONG).unwrap().success());
}

#[test]
fn a_port_is_free_again_at_once_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let text = config(&dir.path().join("data"));
    let mut served = serve(dir.path(), &text, None);
    // A connection that the gateway closes stays in TIME_WAIT.
    let _client = Wire::accepted(served.mqtt, &Connect::clean(4, "c")).unwrap();
    served.running.signal(Signal::TERM).unwrap();
    assert!(served.running.wait(LONG).unwrap().success());
    let again = text.replace(
        "[mqtt]\nlisten = \"127.0.0.1:0\"",
        &format!("[mqtt]\nlisten = \"{}\"", served.mqtt),
    );
    assert_eq!(serve(dir.path(), &again, None).mqtt, served.mqtt);
}

#[test]
fn rubbish_on_the_admin_port_harms_nothing() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let text = config(&dir.path().join("data"));
    let mut served = serve(dir.path(), &text, None);
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    let rubbish: Vec<&[u8]> = vec![
        b"\0\xff\xfe\x10\x00\x04MQTT",
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/dead/x/requeue HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET /v1/dead?limit=-1&after=%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/dead/..%2f..%2fetc HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /v1/dead/%ff%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ];
    // Some stay open, with half a request in them.
    let mut open = Vec::new();
    for bytes in rubbish {
        let mut stream = TcpStream::connect(served.admin).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).unwrap_or(0);
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(!answer.contains(" 500 "), "{answer}");
        open.push(stream);
    }
    let mut client = Wire::accepted(served.mqtt, &Connect::clean(4, "c")).unwrap();
    client.publish(&Message::new("raw/c", "c/1", 1)).unwrap();
    let admin = served.admin.to_string();
    let shown = output(&mut risiti(["status", "--admin", &admin]), LONG).unwrap();
    assert!(shown.status.success());
    served.running.signal(Signal::TERM).unwrap();
    assert!(served.running.wait(LONG).unwrap().success());
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_command_to_a_gateway_that_is_not_there_says_what_to_do() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ended = output(
        &mut risiti(["status", "--admin", &nobody.to_string()]),
        LONG,
    )
    .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        said.contains("--admin") && said.contains("admin.listen"),
        "{said}"
    );
}

/// A disk that does not answer: syncs take this long until the stall ends.
const STALL_MS: u64 = 600_000;

#[test]
fn a_stop_ends_at_its_deadline_although_the_disk_does_not_answer() {
    let kafka = mock_kafka::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    let shim = Shim::over(&dir.path().join("data")).unwrap();
    let text = mock_kafka::config(&kafka);
    let mut gateway =
        GatewayProcess::start(&text, dir.path(), ProcessSwitches::default(), Some(shim)).unwrap();
    let connect = Connect::persistent(5, "c");
    let mut client = Wire::accepted(gateway.mqtt_addr(), &connect).unwrap();
    client.publish(&Message::new("raw/c", "c/1", 1)).unwrap();
    gateway.wait_forwarded(LONG).unwrap();
    gateway.shim().unwrap().delay_syncs_ms(STALL_MS);
    client
        .send_publish(&Message::new("raw/c", "c/2", 1).id(77))
        .unwrap();
    // Its answer to the ping says that it has read the PUBLISH.
    client.ping().unwrap();
    let began = Instant::now();
    // `terminate` has a patience of its own, beyond the gateway's deadline.
    assert!(gateway.terminate().unwrap().success());
    println!("stopped after {:?}", began.elapsed());
    assert!(gateway.log().contains("the disk does not answer"));
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    gateway.shim().unwrap().delay_syncs_ms(0);

    // What was not acknowledged is sent again, and stands there once.
    gateway.restart().unwrap();
    let mut client = Wire::accepted(gateway.mqtt_addr(), &connect).unwrap();
    client
        .publish(&Message::new("raw/c", "c/2", 1).id(77).again())
        .unwrap();
    gateway.wait_forwarded(LONG).unwrap();
    let log = real_kafka::committed(kafka.bootstrap(), RAW).unwrap();
    let values: Vec<_> = log
        .iter()
        .map(|r| String::from_utf8_lossy(&r.value))
        .collect();
    assert_eq!(values, ["c/1", "c/2"]);
}
