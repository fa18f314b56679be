//! A link between real sockets: what passes, and how it ends.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use risiti_sim::link::{Link, LinkProfile};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A listener on a free port, and its address.
async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A client and what the upstream has accepted for it.
async fn connect(link: &Link, upstream: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(link.addr()).await.unwrap();
    let (accepted, _) = upstream.accept().await.unwrap();
    (client, accepted)
}

/// Asserts that a byte passes each way.
async fn assert_joined(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_u8(1).await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), 1);
    server.write_u8(2).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 2);
}

async fn assert_reset(stream: &mut TcpStream) {
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bytes_pass_both_ways_and_an_end_is_passed_on() {
    let (upstream, addr) = listener().await;
    let link = Link::start(addr, LinkProfile::perfect(), 1).unwrap();
    let (mut client, mut server) = connect(&link, &upstream).await;
    assert_joined(&mut client, &mut server).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    // The other direction is still open.
    server.write_all(b"late").await.unwrap();
    drop(server);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"late");
    let counts = link.counts();
    assert_eq!(
        (
            counts.connections,
            counts.cuts,
            counts.up_bytes,
            counts.down_bytes
        ),
        (1, 0, 1, 5)
    );
}

#[tokio::test]
async fn a_cut_resets_both_sides_and_later_connections_pass() {
    let (upstream, addr) = listener().await;
    let link = Link::start(addr, LinkProfile::perfect(), 1).unwrap();
    let (mut client, mut server) = connect(&link, &upstream).await;
    assert_joined(&mut client, &mut server).await;
    link.cut_now();
    assert_reset(&mut client).await;
    assert_reset(&mut server).await;
    assert_eq!(link.counts().cuts, 1);
    let (mut client, mut server) = connect(&link, &upstream).await;
    assert_joined(&mut client, &mut server).await;
}

#[tokio::test]
async fn chance_cuts_every_connection_sooner_or_later() {
    // Never accepted from: the listener's backlog holds what arrives.
    let (_upstream, addr) = listener().await;
    let profile = LinkProfile {
        cut_after_mean: Some(Duration::from_millis(5)),
        ..LinkProfile::perfect()
    };
    let link = Link::start(addr, profile, 1).unwrap();
    for _ in 0..20 {
        let mut client = TcpStream::connect(link.addr()).await.unwrap();
        assert_reset(&mut client).await;
    }
    assert_eq!(link.counts().cuts, 20);
}

#[tokio::test]
async fn a_paused_link_stays_open_and_delivers_after_it_resumes() {
    let (upstream, addr) = listener().await;
    let link = Link::start(addr, LinkProfile::perfect(), 1).unwrap();
    let (mut client, mut server) = connect(&link, &upstream).await;
    assert_joined(&mut client, &mut server).await;
    link.pause();
    client.write_all(b"held").await.unwrap();
    let mut late = TcpStream::connect(link.addr()).await.unwrap();
    late.write_all(b"late").await.unwrap();
    assert_eq!(
        server.try_read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    assert_eq!(link.counts().up_bytes, 1);
    link.resume();
    let mut held = [0; 4];
    server.read_exact(&mut held).await.unwrap();
    assert_eq!(&held, b"held");
    let (mut accepted, _) = upstream.accept().await.unwrap();
    accepted.read_exact(&mut held).await.unwrap();
    assert_eq!(&held, b"late");
}

#[tokio::test]
async fn a_new_upstream_takes_new_connections_only() {
    let (first, addr) = listener().await;
    let (second, second_addr) = listener().await;
    let link = Link::start(addr, LinkProfile::perfect(), 1).unwrap();
    let (mut old_client, mut old_server) = connect(&link, &first).await;
    link.set_upstream(second_addr);
    let (mut client, mut server) = connect(&link, &second).await;
    assert_joined(&mut client, &mut server).await;
    assert_joined(&mut old_client, &mut old_server).await;
}

#[tokio::test]
async fn an_upstream_that_is_gone_resets_the_client() {
    let (upstream, addr) = listener().await;
    drop(upstream);
    let link = Link::start(addr, LinkProfile::perfect(), 1).unwrap();
    let mut client = TcpStream::connect(link.addr()).await.unwrap();
    assert_reset(&mut client).await;
}

#[tokio::test]
async fn a_dropped_link_ends_its_connections() {
    let (upstream, addr) = listener().await;
    let link = Link::start(addr, LinkProfile::perfect(), 1).unwrap();
    let (mut client, mut server) = connect(&link, &upstream).await;
    assert_joined(&mut client, &mut server).await;
    drop(link);
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(server.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn five_hundred_links_run_at_once() {
    let (upstream, addr) = listener().await;
    let profile = LinkProfile {
        cut_after_mean: None,
        stalls: None,
        ..LinkProfile::demo()
    };
    let links: Vec<Link> = (0..500)
        .map(|seed| Link::start(addr, profile.clone(), seed).unwrap())
        .collect();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = upstream.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let mut clients = tokio::task::JoinSet::new();
    for link in &links {
        let addr = link.addr();
        clients.spawn(async move {
            let mut client = TcpStream::connect(addr).await.unwrap();
            client.write_all(&[5; 2_000]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut echoed = Vec::new();
            client.read_to_end(&mut echoed).await.unwrap();
            echoed.len()
        });
    }
    assert!(
        clients
            .join_all()
            .await
            .iter()
            .all(|length| *length == 2_000)
    );
}
