//! Further listeners: TLS, client certificates, WebSocket, and whose connections each
//! takes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use risiti_config::{ClientCertificates, Config, Listener, Subject, Tls, Transport};
use risiti_gateway::access::{Which, file, token};
use risiti_gateway::clock::ManualClock;
use risiti_gateway::status::Status;
use risiti_tests::carrier::{self, Carrier};
use risiti_tests::wire_client::{ConnAck, Connect, Message, Packet, Property, Wire};
use rustls::ClientConfig;

use crate::authority::{Authority, Holder, Until, put};
use crate::house::{House, VERSIONS, until};
use crate::site::{client, identified, identities, token_of};

const NOT_AUTHORIZED: u8 = 0x87;
const BAD_LOGIN: u8 = 0x86;
const CLIENT_ID_NOT_VALID: u8 = 0x85;
const ADMINISTRATIVE: u8 = 0x98;
const TOO_SOON: u8 = 0x9F;

/// A gateway with a listener of every kind, and the authority of all of them.
struct Site {
    house: House,
    authority: Authority,
    dir: tempfile::TempDir,
}

fn listener(name: &str, transport: Transport, tls: Option<Tls>) -> Listener {
    Listener {
        name: name.into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        transport,
        insecure: false,
        tls,
        who: Vec::new(),
        origins: Vec::new(),
    }
}

fn server_files(dir: &Path, authority: &Authority) -> Tls {
    let server = authority.server();
    Tls {
        certificate_file: put(dir, "server.pem", &server.certificate),
        key_file: put(dir, "server.key", &server.key),
        client_ca_file: None,
        crl_file: None,
        client_certificates: ClientCertificates::Required,
    }
}

impl Site {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// One whose clock stands.
    fn of_clock(clock: Arc<ManualClock>) -> Self {
        Self::build(|_| {}, Some(clock))
    }

    fn with(change: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        Self::build(change, None)
    }

    fn build(
        change: impl Fn(&mut Config) + Send + Sync + 'static,
        clock: Option<Arc<ManualClock>>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("terminals of the site");
        let tls = server_files(dir.path(), &authority);
        let client_ca = put(dir.path(), "ca.pem", &authority.pem());
        let crl = put(dir.path(), "crl.pem", &authority.revocation_list(&[]));
        let with = |client_certificates| Tls {
            client_ca_file: Some(client_ca.clone()),
            crl_file: Some(crl.clone()),
            client_certificates,
            ..tls.clone()
        };
        let mut listeners = vec![
            listener("tls", Transport::Tcp, Some(tls.clone())),
            listener("ws", Transport::Websocket, None),
            listener("wss", Transport::Websocket, Some(tls.clone())),
            listener(
                "asks",
                Transport::Tcp,
                Some(with(ClientCertificates::Optional)),
            ),
            listener(
                "demands",
                Transport::Tcp,
                Some(with(ClientCertificates::Required)),
            ),
            listener("terminals", Transport::Tcp, None),
        ];
        listeners[1].origins = vec!["https://page.example".into()];
        listeners[5].who = vec![Subject::Terminal];
        let house = House::of(
            move |config| {
                identities(config);
                config.access.users[0].certificate = true;
                config.listeners = listeners.clone();
                change(config);
            },
            |_| {},
            clock,
        );
        Self {
            house,
            authority,
            dir,
        }
    }

    fn addr(&self, listener: &str) -> SocketAddr {
        self.house.gateway().listener_addr(listener).unwrap()
    }

    /// A stream through every layer of a listener.
    fn open(&self, listener: &str) -> io::Result<Box<dyn Carrier>> {
        let (addr, trusting) = (self.addr(listener), self.authority.trusting(None));
        Ok(match listener {
            "tls" | "asks" => Box::new(carrier::tls(addr, &trusting)?),
            "ws" => Box::new(carrier::websocket(carrier::tcp(addr)?, "mqtt", None)?),
            "wss" => {
                let tls = carrier::tls(addr, &trusting)?;
                Box::new(carrier::websocket(tls, "mqtt", None)?)
            }
            _ => Box::new(carrier::tcp(addr)?),
        })
    }

    /// What CONNACK says to who shows a certificate.
    fn shows(&self, listener: &str, holder: &Holder, connect: &Connect) -> io::Result<ConnAck> {
        let tls = carrier::tls(self.addr(listener), &self.authority.trusting(Some(holder)))?;
        Wire::connect_over(tls, connect).map(|(_, ack)| ack)
    }

    fn holder(&self, name: &str, serial: u64) -> Holder {
        self.authority.client(name, serial, Until::Later)
    }

    fn status(&self) -> Status {
        let url = format!("http://{}/v1/status", self.house.gateway().admin_addr());
        let mut response = ureq::get(&url).call().unwrap();
        response.body_mut().read_json().unwrap()
    }

    fn alarms(&self) -> String {
        self.status().alarms.join("\n")
    }
}

/// A session in which everything that MQTT has goes both ways.
fn talk(wire: &mut Wire, large: &[u8]) -> io::Result<()> {
    assert_eq!(wire.subscribe(&[("cmd/ops/+", 2)])?, [2]);
    for qos in 0..3 {
        for payload in [b"short".as_slice(), large] {
            let message = Message::new("cmd/ops/x", payload, qos);
            // Its own acknowledgements and its message come in any order.
            wire.send_publish(&message.clone().id(7))?;
            let (mut came, mut settled) = (false, qos == 0);
            while !came || !settled {
                match wire.recv()? {
                    Packet::Publish(back) => {
                        assert!(back.payload == payload, "QoS {qos}");
                        came = true;
                        match back.qos {
                            0 => {}
                            1 => wire.puback(back.packet_id)?,
                            _ => wire.pubrec(back.packet_id)?,
                        }
                    }
                    Packet::PubAck(7, code) => settled = code < 0x80,
                    Packet::PubRec(7, _) => wire.pubrel(7)?,
                    Packet::PubComp(7, _) => settled = true,
                    Packet::PubRel(id, _) => wire.pubcomp(id)?,
                    other => panic!("QoS {qos}: {other:?}"),
                }
            }
        }
    }
    // PUBREL may still be under way.
    wire.send_raw(&[0xC0, 0])?;
    loop {
        match wire.recv()? {
            Packet::PingResp => return Ok(()),
            Packet::PubRel(id, _) => wire.pubcomp(id)?,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_transport_carries_everything() -> io::Result<()> {
    let site = Site::new();
    let large: Vec<u8> = (0..60_000_u32).map(|n| n as u8).collect();
    for name in ["mqtt", "tls", "ws", "wss", "asks"] {
        for version in VERSIONS {
            let connect = identified(Connect::clean(version, &format!("x-{name}")), "ops");
            let (mut wire, ack) = Wire::connect_over(site.open(name)?, &connect)?;
            assert_eq!(ack.code, 0, "{name}");
            talk(&mut wire, &large)?;
            wire.disconnect()?;
        }
    }
    Ok(())
}

/// Bytes one by one, and everything at once: the borders of records and of messages
/// mean nothing (MQTT-6.0.0-2).
#[test]
fn borders_of_layers_mean_nothing() -> io::Result<()> {
    let site = Site::new();
    let connect = identified(Connect::clean(5, "x"), "ops");
    let mut probe = Wire::over(site.open("tls")?, 5);
    let publishes: Vec<u8> = (1..=20)
        .flat_map(|id| probe.publish_bytes(&Message::new("cmd/ops/x", "payload", 1).id(id)))
        .collect();
    probe.send_connect(&connect)?;
    drop(probe);
    for name in ["tls", "ws", "wss"] {
        for size in [1, 7, publishes.len()] {
            let (mut wire, _) = Wire::connect_over(site.open(name)?, &connect)?;
            for part in publishes.chunks(size) {
                wire.send_raw(part)?;
            }
            for id in 1..=20 {
                assert!(matches!(wire.recv()?, Packet::PubAck(got, 0 | 0x10) if got == id));
            }
        }
    }
    Ok(())
}

#[test]
fn older_tls_is_refused() {
    let site = Site::new();
    let handshake = |version: &str| {
        Command::new("openssl")
            .args(["s_client", version, "-connect"])
            .arg(site.addr("tls").to_string())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let new = handshake("-tls1_3");
    let said = String::from_utf8_lossy(&new.stdout);
    assert!(said.contains("TLSv1.3"), "{said}");
    let old = handshake("-tls1_2");
    assert!(!old.status.success(), "{old:?}");
}

#[test]
fn g9_a_certificate_lets_in_as_its_holder_and_as_nobody_else() -> io::Result<()> {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let site = Site::of_clock(clock.clone());
    let seven = site.holder("7", 7);
    let ops = site.holder("ops", 20);
    let clean = |id: &str| Connect::clean(5, id);
    let with_token = |id: &str, name: &str| clean(id).login(Some(name), token_of(name));
    let cases: [(&str, &Holder, Connect, u8); 14] = [
        ("its own id", &seven, clean("7"), 0),
        ("its token too", &seven, with_token("7", "7"), 0),
        ("another's id", &seven, clean("8"), CLIENT_ID_NOT_VALID),
        ("no id", &seven, clean(""), CLIENT_ID_NOT_VALID),
        (
            "another's name and token",
            &seven,
            with_token("8", "8"),
            BAD_LOGIN,
        ),
        (
            "a user's name and token",
            &seven,
            with_token("x", "ops"),
            BAD_LOGIN,
        ),
        (
            "a wrong token",
            &seven,
            clean("7").login(Some("7"), "x"),
            BAD_LOGIN,
        ),
        ("a user by certificate", &ops, clean("x"), 0),
        ("a user with token", &ops, with_token("x", "ops"), 0),
        ("a user as terminal", &ops, clean("7"), CLIENT_ID_NOT_VALID),
        (
            "a revoked terminal",
            &site.holder("9", 9),
            clean("9"),
            NOT_AUTHORIZED,
        ),
        (
            "a user who needs a token",
            &site.holder("idle", 21),
            clean("x"),
            BAD_LOGIN,
        ),
        (
            "the same with its token",
            &site.holder("idle", 21),
            with_token("x", "idle"),
            0,
        ),
        ("nobody", &site.holder("nobody", 22), clean("x"), BAD_LOGIN),
    ];
    for listener in ["asks", "demands"] {
        for (what, holder, connect, code) in &cases {
            // Nobody has to wait for what the case before did.
            clock.advance_ms(600_000);
            let ack = site.shows(listener, holder, connect)?;
            assert_eq!(ack.code, *code, "{listener}, {what}: {ack:?}");
        }
    }
    // Whoever guesses a user's token keeps that user's certificate out of nothing.
    for _ in 0..10 {
        let guess = Connect::clean(5, "x").login(Some("ops"), "guess");
        Wire::connect(site.house.addr(), &guess)?;
    }
    let (_, ack) = Wire::connect(site.house.addr(), &with_token("x", "ops"))?;
    assert_eq!(ack.code, TOO_SOON);
    assert_eq!(site.shows("asks", &ops, &clean("x"))?.code, 0);
    // Its rights are those of its identity.
    let tls = carrier::tls(site.addr("asks"), &site.authority.trusting(Some(&seven)))?;
    let (mut wire, _) = Wire::connect_over(tls, &clean("7"))?;
    wire.publish(&Message::new("t/7/status", "on", 1))?;
    wire.send_publish(&Message::new("t/8/status", "on", 1).id(9))?;
    assert!(matches!(wire.recv()?, Packet::PubAck(9, NOT_AUTHORIZED)));
    Ok(())
}

/// Whether a handshake and a CONNECT with its token lead anywhere.
fn comes_in(site: &Site, listener: &str, trusting: &Arc<ClientConfig>) -> bool {
    let Ok(tls) = carrier::tls(site.addr(listener), trusting) else {
        return false;
    };
    let connect = identified(Connect::clean(5, "7"), "7");
    Wire::connect_over(tls, &connect).is_ok_and(|(_, ack)| ack.code == 0)
}

#[test]
fn g9_a_certificate_of_others_or_out_of_its_time_gets_no_further_than_the_handshake() {
    let site = Site::new();
    let stranger = Authority::new("terminals of the site");
    let good = site.holder("7", 7);
    let foreign = stranger.client("7", 7, Until::Later);
    let expired = site.authority.client("7", 8, Until::Past);
    for (listener, holder, may) in [
        ("demands", Some(&good), true),
        ("demands", None, false),
        ("demands", Some(&foreign), false),
        ("demands", Some(&expired), false),
        ("asks", None, true),
        ("asks", Some(&foreign), false),
        ("asks", Some(&expired), false),
        // Not asked for, so not shown.
        ("tls", Some(&foreign), true),
    ] {
        let trusting = site.authority.trusting(holder);
        assert_eq!(comes_in(&site, listener, &trusting), may, "{listener}");
    }
    // Who is not the gateway is seen to be another.
    assert!(!comes_in(&site, "tls", &stranger.trusting(None)));
}

fn revoke(site: &Site, serials: &[u64]) -> PathBuf {
    put(
        site.dir.path(),
        "crl.pem",
        &site.authority.revocation_list(serials),
    )
}

fn ended_with(wire: &mut Wire) -> Option<u8> {
    let said: Option<(u8, Vec<Property>)> = wire.ended().unwrap();
    said.map(|(code, _)| code)
}

#[test]
fn g9_a_revoked_certificate_is_out_at_once_and_stays_out() -> io::Result<()> {
    let site = Site::new();
    let (seven, eight) = (site.holder("7", 7), site.holder("8", 8));
    let trusting_seven = site.authority.trusting(Some(&seven));
    let open = |trusting: &Arc<ClientConfig>, id: &str| {
        let tls = carrier::tls(site.addr("demands"), trusting)?;
        Wire::connect_over(tls, &Connect::clean(5, id))
    };
    let (mut of_seven, _) = open(&trusting_seven, "7")?;
    let (mut of_eight, _) = open(&site.authority.trusting(Some(&eight)), "8")?;
    of_seven.ping()?;
    revoke(&site, &[7]);
    assert_eq!(ended_with(&mut of_seven), Some(ADMINISTRATIVE));
    of_eight.ping()?;
    // Neither with a new handshake nor with what the last one left for a short one.
    assert!(open(&trusting_seven, "7").is_err());
    assert!(open(&site.authority.trusting(Some(&seven)), "7").is_err());
    // A terminal's new certificate is its own.
    let renewed = site.holder("7", 70);
    let (mut of_seven, ack) = open(&site.authority.trusting(Some(&renewed)), "7")?;
    assert_eq!(ack.code, 0);
    of_seven.ping()?;
    of_eight.ping()
}

/// Without the list nothing ends.
#[test]
fn control_g9_without_the_list_a_revoked_certificate_goes_on() -> io::Result<()> {
    let site = Site::with(|config| {
        for listener in &mut config.listeners {
            if let Some(tls) = &mut listener.tls {
                tls.crl_file = None;
            }
        }
    });
    let trusting = site.authority.trusting(Some(&site.holder("7", 7)));
    let tls = carrier::tls(site.addr("demands"), &trusting)?;
    let (mut wire, _) = Wire::connect_over(tls, &Connect::clean(5, "7"))?;
    revoke(&site, &[7]);
    let config = site.house.gateway().config();
    site.reload(config);
    wire.ping()?;
    assert!(comes_in(&site, "demands", &trusting));
    Ok(())
}

impl Site {
    fn reload(&self, config: Config) {
        self.house.gateway().reload(config);
    }
}

#[test]
fn renewed_certificates_are_taken_over_and_no_connection_is_lost() -> io::Result<()> {
    let site = Site::new();
    let connect = identified(Connect::clean(5, "x"), "ops");
    let (mut before, _) = Wire::connect_over(site.open("tls")?, &connect)?;
    before.ping()?;
    // A key that is not the certificate's: what was in force stays, and it is told.
    let other = Authority::new("another");
    let (old, new) = (site.authority.trusting(None), other.trusting(None));
    let renewed = other.server();
    put(site.dir.path(), "server.key", &renewed.key);
    until("the alarm", || site.alarms().contains("server.key"));
    assert!(comes_in(&site, "tls", &old));
    // Now both.
    put(site.dir.path(), "server.pem", &renewed.certificate);
    until("the new certificate", || comes_in(&site, "tls", &new));
    assert!(!comes_in(&site, "tls", &old));
    until("the end of the alarm", || site.alarms().is_empty());
    before.ping()?;
    before.publish(&Message::new("cmd/ops/x", "still here", 1))
}

/// What two threads know of a load.
#[derive(Default)]
struct Load {
    /// The token that its publisher is to use next.
    next: Mutex<Option<String>>,
    published: AtomicU32,
    heard: AtomicU32,
    stop: AtomicBool,
}

/// Publishes by TLS until told to stop, never far ahead of who hears it; in its own time
/// it takes the token that it is given next.
fn publishes(site: &Site, load: &Load) {
    const AHEAD: u32 = 200;
    let trusting = site.authority.trusting(None);
    let mut token = token_of("7");
    let connected = |token: &str| {
        let tls = carrier::tls(site.addr("tls"), &trusting).unwrap();
        let connect = Connect::persistent(5, "7").login(None, token);
        let (wire, ack) = Wire::connect_over(tls, &connect).unwrap();
        assert_eq!(ack.code, 0);
        wire
    };
    let mut wire = connected(&token);
    while !load.stop.load(Ordering::Relaxed) {
        let n = load.published.load(Ordering::Relaxed);
        if n > load.heard.load(Ordering::Relaxed) + AHEAD {
            std::thread::yield_now();
            continue;
        }
        let message = Message::new("t/7/status", n.to_string(), 1);
        // Nobody but itself ends its connection.
        wire.publish(&message).unwrap();
        load.published.store(n + 1, Ordering::Relaxed);
        if let Some(given) = load.next.lock().unwrap().take() {
            token = given;
            wire.disconnect().unwrap();
            wire = connected(&token);
        }
    }
}

/// A subscriber that counts.
struct Hears<'a> {
    wire: Wire,
    next: u32,
    load: &'a Load,
}

impl Hears<'_> {
    /// Takes so many more, each in its turn.
    fn take(&mut self, messages: u32) -> io::Result<()> {
        let until = self.next + messages;
        while self.next < until {
            let message = self.wire.take()?;
            let n: u32 = message.text().parse().unwrap();
            if n < self.next && message.dup {
                continue; // its PUBACK met the end of a connection
            }
            assert_eq!(n, self.next);
            self.next += 1;
            self.load.heard.store(self.next, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[test]
fn secrets_rotate_under_load_and_no_message_is_lost() -> io::Result<()> {
    let site = Site::new();
    let house = &site.house;
    let auditor = |token: &str| {
        let connect = Connect::persistent(5, "audit").login(Some("auditor"), token);
        Wire::accepted(house.addr(), &connect)
    };
    let wire = auditor(&token_of("auditor"))?;
    let load = Load::default();
    let mut hears = Hears {
        wire,
        next: 0,
        load: &load,
    };
    hears.wire.subscribe(&[("t/7/status", 1)])?;
    std::thread::scope(|scope| -> io::Result<()> {
        let publisher = scope.spawn(|| publishes(&site, &load));
        hears.take(20)?;
        // The gateway's own certificate and key, and the revocation list.
        let renewed = site.authority.server();
        put(site.dir.path(), "server.key", &renewed.key);
        put(site.dir.path(), "server.pem", &renewed.certificate);
        revoke(&site, &[99]);
        until("the renewed ones", || {
            let tls = carrier::tls(site.addr("tls"), &site.authority.trusting(None)).unwrap();
            tls.conn.peer_certificates().unwrap()[0] == renewed.der
        });
        hears.take(20)?;
        // The terminal's token: both are valid until it has used the next one.
        let token = "the-next-token-of-7";
        let digest = token::digest(token.as_bytes());
        let registry = house.gateway().config().registry_path();
        file::edit(&registry, |r| r.rotate("7", digest, false)).unwrap();
        until("the next token", || {
            let policy = house.broker().access().policy();
            policy.registry().which("7", &digest) == Some(Which::Next)
        });
        hears.take(20)?;
        *load.next.lock().unwrap() = Some(token.to_owned());
        until("its use", || load.next.lock().unwrap().is_none());
        hears.take(20)?;
        // A user's token, by a reload: what is sent meanwhile waits for the user.
        let mut config = house.gateway().config();
        let token = "the-next-token-of-the-auditor";
        config.access.users[2].token_sha256 = Some(token::digest(token.as_bytes()));
        site.reload(config);
        assert_eq!(ended_with(&mut hears.wire), Some(ADMINISTRATIVE));
        assert!(auditor(&token_of("auditor")).is_err());
        hears.wire = auditor(token)?;
        hears.take(20)?;
        load.stop.store(true, Ordering::Relaxed);
        publisher.join().unwrap();
        hears.take(load.published.load(Ordering::Relaxed) - hears.next)?;
        hears.wire.nothing_came()
    })
}

#[test]
fn a_listener_takes_only_whom_it_is_for() -> io::Result<()> {
    let site = Site::new();
    let addr = site.addr("terminals");
    let (_, ack) = Wire::connect(addr, &identified(Connect::clean(5, "7"), "7"))?;
    assert_eq!(ack.code, 0);
    for name in ["ops", ""] {
        let connect = identified(Connect::clean(5, "x"), name);
        let (_, ack) = Wire::connect(addr, &connect)?;
        assert_eq!(ack.code, NOT_AUTHORIZED, "{name:?}");
        let (_, ack) = Wire::connect(site.house.addr(), &connect)?;
        assert_eq!(ack.code, 0, "{name:?}");
    }
    Ok(())
}

#[test]
fn who_never_finishes_a_handshake_is_closed_in_time_and_keeps_nobody_out() -> io::Result<()> {
    let site = Site::with(|config| config.mqtt.limits.connect_timeout_s = 2);
    let hello = [0x16, 3, 1, 2, 0];
    let beginnings: [&[u8]; 3] = [b"", &hello, b"GET /mqtt HTTP/1.1\r\nHost: x\r\n"];
    let mut slow = Vec::new();
    for name in ["tls", "ws", "wss"] {
        for beginning in beginnings {
            for _ in 0..20 {
                let mut stream = carrier::tcp(site.addr(name))?;
                stream.write_all(beginning)?;
                slow.push(stream);
            }
        }
    }
    let mut honest = client(site.house.addr(), 5, "7");
    for n in 0..20 {
        honest.publish(&Message::new("t/7/status", format!("{n}"), 1))?;
    }
    for mut stream in slow {
        is_over(&mut stream)?;
    }
    honest.ping()
}

/// Reads whatever is said until the end.
fn is_over(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(e) if e.kind() != io::ErrorKind::ConnectionReset => Err(e),
        _ => Ok(said),
    }
}

#[test]
fn what_is_neither_tls_nor_websocket_is_closed_and_others_go_on() -> io::Result<()> {
    let site = Site::new();
    let mut honest = Wire::connect_over(
        site.open("wss")?,
        &identified(Connect::clean(5, "x"), "ops"),
    )?
    .0;
    let rubbish: [&[u8]; 5] = [
        b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x03abc",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /mqtt HTTP/1.1\r\n\r\n",
        &[0xFF; 4_096],
        &[0x16, 3, 3, 0xFF, 0xFF, 1, 2, 3],
    ];
    for name in ["tls", "ws", "wss"] {
        for bytes in rubbish {
            let mut stream = carrier::tcp(site.addr(name))?;
            stream.write_all(bytes)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            is_over(&mut stream)?;
        }
    }
    honest.publish(&Message::new("cmd/ops/x", "still here", 1))
}

#[test]
fn only_mqtt_and_only_from_allowed_pages() -> io::Result<()> {
    let site = Site::new();
    let open = |subprotocols: &str, origin: Option<&str>| {
        let stream = carrier::tcp(site.addr("ws")).unwrap();
        carrier::websocket(stream, subprotocols, origin)
    };
    for (subprotocols, origin, refused) in [
        ("mqtt", None, None),
        ("chat, mqtt", None, None),
        ("mqtt", Some("https://page.example"), None),
        ("", None, Some("400")),
        ("chat", None, Some("400")),
        // The gateway's own (the request is for localhost), as paho says it.
        ("mqtt", Some("http://localhost"), None),
        ("mqtt", Some("https://evil.example"), Some("403")),
        ("mqtt", Some("http://localhost.evil.example"), Some("403")),
        ("mqtt", Some("null"), Some("403")),
    ] {
        match (open(subprotocols, origin), refused) {
            (Ok(_), None) => {}
            (Err(error), Some(code)) => assert!(error.to_string().contains(code), "{error}"),
            (other, wanted) => panic!("{subprotocols:?} {origin:?}: {wanted:?}, {other:?}"),
        }
    }
    Ok(())
}

#[test]
fn text_and_messages_beyond_a_packet_end_a_websocket_and_pings_are_answered() -> io::Result<()> {
    use tungstenite::Message as Frame;
    let site = Site::new();
    let open = || {
        let stream = carrier::tcp(site.addr("ws")).unwrap();
        carrier::websocket(stream, "mqtt", None).unwrap().socket
    };
    let mut pings = open();
    pings
        .send(Frame::Ping(b"are you there"[..].into()))
        .unwrap();
    assert_eq!(
        pings.read().unwrap(),
        Frame::Pong(b"are you there"[..].into())
    );
    for too_much in [Frame::text("hello"), Frame::binary(vec![0; 1 << 20])] {
        let mut socket = open();
        let _ = socket.send(too_much);
        let answer = socket.read();
        assert!(matches!(answer, Ok(Frame::Close(_)) | Err(_)), "{answer:?}");
        assert!(is_over(socket.get_mut())?.is_empty());
    }
    pings.close(None).unwrap();
    while pings.read().is_ok() {}
    Ok(())
}

#[test]
fn a_gateway_does_not_start_with_certificates_that_it_cannot_use() {
    use risiti_gateway::gateway::{Gateway, Switches};
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let good = server_files(dir.path(), &authority);
    let key_of_another = put(dir.path(), "other.key", &authority.server().key);
    let empty = put(dir.path(), "empty.pem", "nothing\n");
    let ca = put(dir.path(), "ca.pem", &authority.pem());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (change, said) in [
        (
            Tls {
                key_file: key_of_another,
                ..good.clone()
            },
            "key_file",
        ),
        (
            Tls {
                key_file: empty.clone(),
                ..good.clone()
            },
            "key_file",
        ),
        (
            Tls {
                certificate_file: empty.clone(),
                ..good.clone()
            },
            "certificate_file",
        ),
        (
            Tls {
                client_ca_file: Some(empty.clone()),
                ..good.clone()
            },
            "client_ca_file",
        ),
        (
            Tls {
                client_ca_file: Some(ca),
                crl_file: Some(empty),
                ..good.clone()
            },
            "crl_file",
        ),
    ] {
        let servers = vec!["127.0.0.1:1".into()];
        let mut config = Config::new(risiti_config::Bootstrap::Servers(servers));
        config.gateway.data_dir = dir.path().join("data");
        config.mqtt.listen = "127.0.0.1:0".parse().unwrap();
        config.admin.listen = "127.0.0.1:0".parse().unwrap();
        config.listeners = vec![listener("tls", Transport::Tcp, Some(change))];
        let started = runtime.block_on(Gateway::start(config, Switches::default()));
        let error = started.err().unwrap().to_string();
        assert!(
            error.contains(said) && error.contains("listener tls"),
            "{error}"
        );
    }
}
