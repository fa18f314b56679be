//! Many connections at once.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use risiti_tests::carrier;
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::wire_client::{Connect, Message, Wire};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::restart::CONFIG;

const CONNECTIONS: usize = 10_000;

/// Most that 10,000 idle connections may cost, bytes: a box for them has 512 MiB.
const RESIDENT_BYTES_MAX: u64 = 100 << 20;

/// From another loopback address each thousand, so that ports suffice.
fn open_from(source: Ipv4Addr, addr: SocketAddr) -> io::Result<Wire> {
    Ok(Wire::over(carrier::tcp_from(source, addr)?, 4))
}

#[test]
fn ten_thousand_idle_connections_fit_into_100_mib() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = CONNECTIONS as u64 + 500;
    if limit.current.is_some_and(|now| now < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            // Root may raise the hard limit, too.
            maximum: limit.maximum.map(|max| max.max(wanted)),
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            println!("NOT RUN: the limit of open files can't be raised to {wanted}: {error}");
            return Ok(());
        }
    }
    let dir = tempfile::tempdir()?;
    let gateway = GatewayProcess::start(CONFIG, dir.path(), ProcessSwitches::default(), None)?;
    let addr = gateway.mqtt_addr();
    let before = gateway.resident_bytes()?;
    let mut wires = Vec::with_capacity(CONNECTIONS);
    for n in 0..CONNECTIONS {
        let source = Ipv4Addr::new(127, 0, 1, 1 + (n / 1_000) as u8);
        let mut wire = open_from(source, addr)?;
        // Terminals: a session that outlives the connection, a will, a keep alive.
        let terminal = Connect::persistent(4, &format!("terminal-{n:05}"))
            .keep_alive_s(600)
            .will(Message::new(
                &format!("t/terminal-{n:05}/status"),
                "lost",
                1,
            ));
        wire.send_connect(&terminal)?;
        wires.push(wire);
    }
    for wire in &mut wires {
        match wire.recv()? {
            risiti_tests::wire_client::Packet::ConnAck(ack) if ack.code == 0 => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gateway.status()?.connections, CONNECTIONS as u64);
    let resident = gateway.resident_bytes()?;
    println!(
        "{CONNECTIONS} idle connections: {} MiB resident, {} MiB before them, {} bytes each",
        resident >> 20,
        before >> 20,
        (resident - before) / CONNECTIONS as u64
    );
    // They are served: each publishes a record, and a newcomer is let in.
    for wire in wires.iter_mut().step_by(100) {
        wire.publish(&Message::new("records/x", "x", 1))?;
        wire.ping()?;
    }
    Wire::accepted(addr, &Connect::clean(5, "newcomer"))?.ping()?;
    assert!(
        resident < RESIDENT_BYTES_MAX,
        "{resident} bytes resident for {CONNECTIONS} idle connections"
    );
    Ok(())
}
