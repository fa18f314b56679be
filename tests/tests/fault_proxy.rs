//! Each fault of the proxy, shown between two plain TCP ends.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use risiti_tests::fault_proxy::{Connecting, CutAfter, Direction, End, Fault, FaultProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// In which what is held back would have come.
const A_WHILE: Duration = Duration::from_millis(200);

/// A server that hands over its connections, and a proxy before it.
struct Wire {
    listener: TcpListener,
    proxy: FaultProxy,
}

impl Wire {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap(), 1).unwrap();
        Self { listener, proxy }
    }

    /// A connection: the client's end and the server's.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.addr()).await.unwrap();
        let (server, _) = timeout(LONG, self.listener.accept())
            .await
            .unwrap()
            .unwrap();
        (client, server)
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

async fn read(from: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut came = vec![0; bytes];
    timeout(LONG, from.read_exact(&mut came))
        .await
        .unwrap()
        .unwrap();
    came
}

/// Nothing comes, and no end either.
async fn stays_silent(stream: &mut TcpStream) {
    assert!(timeout(A_WHILE, stream.read_u8()).await.is_err());
}

/// How it ended: by an end of file, or by this error.
async fn ended(stream: &mut TcpStream) -> Option<ErrorKind> {
    let mut left = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut left)).await.unwrap();
    read.err().map(|error| error.kind())
}

#[tokio::test]
async fn bytes_arrive_whole_and_in_order_both_ways_under_every_fault_that_delivers() {
    let wire = Wire::new().await;
    let faults = [
        Fault::NONE,
        Fault::slow(Duration::from_millis(3)),
        Fault::narrow(1_000_000),
        Fault::in_pieces(1),
        Fault::in_pieces(7),
    ];
    for fault in faults {
        let (mut client, mut server) = wire.connect().await;
        wire.proxy.set(Direction::Up, fault);
        wire.proxy.set(Direction::Down, fault);
        let sent = pattern(100_000);
        let (mut from_server, mut to_server) = client.split();
        let (mut from_client, mut to_client) = server.split();
        let send = async {
            to_server.write_all(&sent).await.unwrap();
            to_server.shutdown().await.unwrap();
        };
        let answer = async {
            to_client.write_all(&sent).await.unwrap();
            to_client.shutdown().await.unwrap();
        };
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let ends = async {
            tokio::join!(
                send,
                answer,
                from_client.read_to_end(&mut up),
                from_server.read_to_end(&mut down)
            )
        };
        let (_, _, up_read, down_read) = timeout(LONG, ends).await.unwrap();
        up_read.unwrap();
        down_read.unwrap();
        assert!(up == sent && down == sent, "{fault:?}");
        wire.proxy.heal();
    }
}

#[tokio::test]
async fn a_delay_and_a_rate_take_their_time() {
    let wire = Wire::new().await;
    let delay = Duration::from_millis(100);
    for fault in [Fault::slow(delay), Fault::narrow(10_000)] {
        wire.proxy.set(Direction::Up, fault);
        let (mut client, mut server) = wire.connect().await;
        let began = Instant::now();
        client.write_all(&pattern(1_000)).await.unwrap();
        read(&mut server, 1_000).await;
        assert!(began.elapsed() >= delay, "{fault:?}");
    }
}

#[tokio::test]
async fn a_cut_is_an_end_of_file_or_a_reset_on_both_sides() {
    for (end, seen) in [
        (End::Fin, None),
        (End::Reset, Some(ErrorKind::ConnectionReset)),
    ] {
        let wire = Wire::new().await;
        let (mut client, mut server) = wire.connect().await;
        client.write_all(b"a").await.unwrap();
        read(&mut server, 1).await;
        wire.proxy.cut(end);
        assert_eq!(ended(&mut client).await, seen);
        assert_eq!(ended(&mut server).await, seen);
        assert_eq!(wire.proxy.counts().cuts, 1);
        // The next one lives.
        let (mut client, mut server) = wire.connect().await;
        client.write_all(b"b").await.unwrap();
        assert_eq!(read(&mut server, 1).await, b"b");
    }
}

#[tokio::test]
async fn a_cut_in_the_middle_lets_so_many_bytes_through_and_no_more() {
    let wire = Wire::new().await;
    let (mut client, mut server) = wire.connect().await;
    wire.proxy.cut_after(CutAfter {
        direction: Direction::Up,
        bytes: 1_234,
        end: End::Fin,
    });
    client.write_all(&pattern(5_000)).await.unwrap();
    let mut came = Vec::new();
    timeout(LONG, server.read_to_end(&mut came))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(came, pattern(1_234));
}

#[tokio::test]
async fn half_open_bytes_vanish_and_the_connection_stays() {
    let wire = Wire::new().await;
    let (mut client, mut server) = wire.connect().await;
    client.write_all(b"before").await.unwrap();
    read(&mut server, 6).await;
    wire.proxy.set(Direction::Up, Fault::VANISHING);
    // Far more than any buffer holds: it is really taken.
    timeout(LONG, client.write_all(&pattern(10_000_000)))
        .await
        .unwrap()
        .unwrap();
    stays_silent(&mut server).await;
    // The other way it lives.
    server.write_all(b"alive").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"alive");
    // What comes behind a gap never arrives, nor does the end.
    wire.proxy.heal();
    client.write_all(b"behind").await.unwrap();
    client.shutdown().await.unwrap();
    stays_silent(&mut server).await;
    wire.proxy.cut(End::Reset);
    assert_eq!(ended(&mut server).await, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_slow_readers_window_closes_and_nothing_is_lost_when_it_opens() {
    let wire = Wire::new().await;
    let (mut client, mut server) = wire.connect().await;
    wire.proxy.set(Direction::Up, Fault::UNREAD);
    let sent = pattern(50_000_000);
    let mut given = 0;
    while let Ok(written) = timeout(A_WHILE, client.write(&sent[given..])).await {
        given += written.unwrap();
    }
    assert!(given < sent.len(), "the window never closed");
    stays_silent(&mut server).await;
    wire.proxy.heal();
    assert_eq!(read(&mut server, given).await, sent[..given]);
}

#[tokio::test]
async fn a_silent_network_stands_and_reaches_the_server_in_the_end() {
    let wire = Wire::new().await;
    wire.proxy.set_connecting(Connecting::Silent);
    let mut client = TcpStream::connect(wire.proxy.addr()).await.unwrap();
    client.write_all(b"early").await.unwrap();
    assert!(timeout(A_WHILE, wire.listener.accept()).await.is_err());
    wire.proxy.heal();
    let (mut server, _) = timeout(LONG, wire.listener.accept())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read(&mut server, 5).await, b"early");
}

#[tokio::test]
async fn a_refused_connection_is_reset() {
    let wire = Wire::new().await;
    wire.proxy.set_connecting(Connecting::Refused);
    let mut client = TcpStream::connect(wire.proxy.addr()).await.unwrap();
    assert_eq!(ended(&mut client).await, Some(ErrorKind::ConnectionReset));
    assert!(timeout(A_WHILE, wire.listener.accept()).await.is_err());
}

#[tokio::test]
async fn a_server_that_is_away_is_a_reset_and_a_new_place_is_found() {
    let wire = Wire::new().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = nowhere.local_addr().unwrap();
    drop(nowhere);
    wire.proxy.set_upstream(gone);
    let mut client = TcpStream::connect(wire.proxy.addr()).await.unwrap();
    assert_eq!(ended(&mut client).await, Some(ErrorKind::ConnectionReset));
    wire.proxy.set_upstream(other.local_addr().unwrap());
    let _client = TcpStream::connect(wire.proxy.addr()).await.unwrap();
    timeout(LONG, other.accept()).await.unwrap().unwrap();
}
