//! Real clients that nobody here wrote.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rumqttc::v5;

use crate::house::{House, VERSIONS};

fn mosquitto(program: &str, addr: SocketAddr, version: u8, args: &[&str]) -> Command {
    // By lines, also into a pipe.
    let mut command = Command::new("stdbuf");
    command
        .args(["-oL", program])
        .args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()])
        .args(["-V", if version == 5 { "mqttv5" } else { "mqttv311" }])
        .args(args)
        .stdin(Stdio::null());
    command
}

/// A `mosquitto_sub` that has subscribed, and its lines.
fn mosquitto_sub(
    addr: SocketAddr,
    version: u8,
    args: &[&str],
) -> io::Result<(Child, impl Iterator<Item = io::Result<String>>)> {
    // -d tells when SUBACK came.
    let mut child = mosquitto("mosquitto_sub", addr, version, args)
        .arg("-d")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.by_ref() {
        let line = line?;
        if line.contains("SUBACK") || line.starts_with("Subscribed") {
            break;
        }
    }
    let lines = lines.filter(|line| {
        line.as_ref()
            .is_ok_and(|line| !line.starts_with("Client ") && !line.starts_with("Subscribed"))
    });
    Ok((child, lines))
}

#[test]
fn mosquitto_publishes_and_subscribes_at_every_qos_in_both_versions() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let args = ["-t", "m/#", "-q", qos, "-C", "3", "-v"];
            let (mut sub, mut lines) = mosquitto_sub(house.addr(), version, &args)?;
            for n in ["1", "2", "3"] {
                let args = ["-t", &format!("m/{n}"), "-m", n, "-q", qos];
                let status =
                    mosquitto("mosquitto_pub", house.addr(), 9 - version, &args).status()?;
                assert!(status.success());
                assert_eq!(lines.next().unwrap()?, format!("m/{n} {n}"));
            }
            assert!(sub.wait()?.success());
        }
    }
    Ok(())
}

#[test]
fn mosquitto_resumes_its_session_and_gets_what_was_queued() -> io::Result<()> {
    let mut house = House::new();
    for version in VERSIONS {
        let id = format!("mosquitto-{version}");
        let mut args = vec!["-t", "q", "-q", "1", "-i", &id, "-c"];
        if version == 5 {
            args.extend(["-x", "3600"]);
        }
        let subscribed = mosquitto("mosquitto_sub", house.addr(), version, &args)
            .arg("-E")
            .status()?;
        assert!(subscribed.success());
        let args_pub = ["-t", "q", "-m", "kept", "-q", "1"];
        for _ in 0..3 {
            assert!(
                mosquitto("mosquitto_pub", house.addr(), version, &args_pub)
                    .status()?
                    .success()
            );
        }
        house.restart();
        let got = mosquitto("mosquitto_sub", house.addr(), version, &args)
            .args(["-C", "3", "-W", "30"])
            .output()?;
        assert_eq!(String::from_utf8_lossy(&got.stdout), "kept\nkept\nkept\n");
    }
    Ok(())
}

#[test]
fn mosquitto_leaves_its_will_and_takes_retained_messages() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let topic = format!("will/{version}");
        let will = [
            "-t",
            "x",
            "--will-topic",
            &topic,
            "--will-payload",
            "lost",
            "--will-retain",
        ];
        let (mut sub, _) = mosquitto_sub(house.addr(), version, &will)?;
        sub.kill()?;
        sub.wait()?;
        house.until("the will is retained", || {
            house.broker().retained() == usize::from(version - 3).min(2)
        });
        let got = mosquitto(
            "mosquitto_sub",
            house.addr(),
            version,
            &["-t", &topic, "-C", "1", "-W", "30", "-F", "%r %p"],
        )
        .output()?;
        assert_eq!(String::from_utf8_lossy(&got.stdout), "1 lost\n");
    }
    Ok(())
}

#[test]
fn rumqttc_speaks_3_1_1_with_it() {
    let house = House::new();
    let mut options = rumqttc::MqttOptions::new(
        "rumqttc-4",
        house.addr().ip().to_string(),
        house.addr().port(),
    );
    options.set_keep_alive(Duration::from_secs(5));
    options.set_clean_session(false);
    let (client, mut connection) = rumqttc::Client::new(options, 50);
    client.subscribe("r/+", rumqttc::QoS::ExactlyOnce).unwrap();
    let mut got = Vec::new();
    for event in connection.iter() {
        match event.unwrap() {
            rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_)) => {
                for (n, qos) in [
                    rumqttc::QoS::AtMostOnce,
                    rumqttc::QoS::AtLeastOnce,
                    rumqttc::QoS::ExactlyOnce,
                ]
                .into_iter()
                .cycle()
                .take(30)
                .enumerate()
                {
                    client
                        .publish(format!("r/{n}"), qos, false, n.to_string())
                        .unwrap();
                }
            }
            rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) => {
                got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                if got.len() == 30 {
                    client.disconnect().unwrap();
                }
            }
            rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect) => break,
            _ => {}
        }
    }
    assert_eq!(got.len(), 30);
}

#[test]
fn rumqttc_speaks_5_with_it() {
    let house = House::new();
    let mut options = v5::MqttOptions::new(
        "rumqttc-5",
        house.addr().ip().to_string(),
        house.addr().port(),
    );
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = v5::Client::new(options, 50);
    client
        .subscribe("r/+", v5::mqttbytes::QoS::ExactlyOnce)
        .unwrap();
    let mut got = 0;
    for event in connection.iter() {
        match event.unwrap() {
            v5::Event::Incoming(v5::Incoming::SubAck(_)) => {
                for n in 0..30 {
                    let properties = v5::mqttbytes::v5::PublishProperties {
                        user_properties: vec![("n".into(), n.to_string())],
                        ..Default::default()
                    };
                    client
                        .publish_with_properties(
                            format!("r/{n}"),
                            v5::mqttbytes::QoS::AtLeastOnce,
                            false,
                            n.to_string(),
                            properties,
                        )
                        .unwrap();
                }
            }
            v5::Event::Incoming(v5::Incoming::Publish(publish)) => {
                let properties = publish.properties.unwrap();
                assert_eq!(
                    properties.user_properties,
                    [("n".to_owned(), got.to_string())]
                );
                got += 1;
                if got == 30 {
                    client.disconnect().unwrap();
                }
            }
            v5::Event::Outgoing(rumqttc::Outgoing::Disconnect) => break,
            _ => {}
        }
    }
    assert_eq!(got, 30);
}

/// The Eclipse Paho client for Python, from PyPI, in an environment of its own.
#[test]
fn paho_for_python_speaks_both_versions_with_it() -> io::Result<()> {
    let venv = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("paho");
    let python = venv.join("bin/python");
    let installed = || {
        Command::new(&python)
            .args(["-c", "import paho.mqtt.client"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !installed() {
        let made = Command::new("python3")
            .args(["-m", "venv"])
            .arg(&venv)
            .status()
            .and_then(|_| {
                Command::new(&python)
                    .args(["-m", "pip", "install", "--quiet", "paho-mqtt==2.1.0"])
                    .status()
            });
        if !installed() {
            println!("NOT RUN: paho-mqtt can't be installed: {made:?}");
            return Ok(());
        }
    }
    let house = House::new();
    let port = house.addr().port().to_string();
    let status = Command::new(&python).args(["-c", PAHO, &port]).status()?;
    assert!(status.success());
    Ok(())
}

/// Publishes at every QoS to itself, with properties in version 5, and takes all.
const PAHO: &str = r#"
import sys, queue
import paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.packettypes import PacketTypes

port = int(sys.argv[1])
for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    got, ready = queue.Queue(), queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"paho-{version}", protocol=version)
    client.on_connect = lambda c, *a: c.subscribe("paho/#", qos=2)
    client.on_subscribe = lambda *a: ready.put(a)
    client.on_message = lambda c, u, m: got.put(m)
    client.will_set("paho-will", "lost", qos=1)
    client.connect("127.0.0.1", port, keepalive=5)
    client.loop_start()
    ready.get(timeout=30)
    for n in range(60):
        properties = None
        if version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)
            properties.UserProperty = [("n", str(n))]
            properties.CorrelationData = bytes([n])
        client.publish(f"paho/{n}", str(n), qos=n % 3, properties=properties).wait_for_publish(30)
    seen = {}
    for _ in range(60):
        m = got.get(timeout=30)
        n = int(m.payload)
        assert m.topic == f"paho/{n}" and m.qos == n % 3 and n not in seen, (m.topic, m.qos)
        if version == mqtt.MQTTv5:
            assert m.properties.UserProperty == [("n", str(n))]
            assert m.properties.CorrelationData == bytes([n])
        seen[n] = True
    client.disconnect()
    client.loop_stop()
"#;
