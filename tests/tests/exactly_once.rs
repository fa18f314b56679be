//! Exactly once, end to end.
#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::time::Duration;

use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};

#[test]
fn a_killed_gateway_comes_back_on_its_port() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[kafka]\nbootstrap = \"embedded\"\n";
    let mut gateway =
        GatewayProcess::start(config, dir.path(), ProcessSwitches::default(), None).unwrap();
    let port = gateway.mqtt_addr();
    let journal = gateway.status().unwrap().journal.id;
    gateway.kill();
    gateway.restart().unwrap();
    assert_eq!(gateway.mqtt_addr(), port);
    let status = gateway.wait_forwarded(Duration::from_secs(60)).unwrap();
    assert_eq!(status.journal.id, journal);
    assert!(gateway.terminate().unwrap().success());
}
