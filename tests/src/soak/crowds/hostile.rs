//! Those who mean harm, by malice or by a bug.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::CrowdCounts;
use super::visitors::crowd;
use crate::soak::client::{Client, Hello, open, somewhere};
use crate::soak::limits;

/// How slowly a slow-loris writes.
const LORIS_STEP: Duration = Duration::from_millis(150);

/// Hostile clients, until then. What they get does not matter; that they leave
/// nothing behind does.
pub async fn hostile(
    to: [SocketAddr; 2],
    until: Instant,
    chance: &mut Rng,
    counts: &Arc<CrowdCounts>,
) {
    crowd(until, chance, |mut chance| {
        let counts = Arc::clone(counts);
        async move {
            counts.hostile.fetch_add(1, Relaxed);
            let _ = harm(to[usize::from(chance.bool())], until, &mut chance).await;
        }
    })
    .await;
}

async fn harm(to: SocketAddr, until: Instant, chance: &mut Rng) -> io::Result<()> {
    let from = somewhere(chance);
    let hello = Hello {
        id: format!("h-{:08x}", chance.u32(..)),
        five: chance.bool(),
        persistent: chance.bool(),
        will: chance.bool().then(|| "wills/hostile".to_owned()),
    };
    match chance.u8(0..8) {
        // Rubbish in the place of a CONNECT.
        0 => {
            let mut rubbish = vec![0; chance.usize(1..limits::RUBBISH_BYTES)];
            chance.fill(&mut rubbish);
            send_and_hear(to, from, &rubbish, until).await
        }
        // Half a CONNECT, and gone.
        1 => {
            let bytes = hello.bytes();
            let half = chance.usize(0..bytes.len());
            let mut stream = open(to, from).await?;
            stream.write_all(&bytes[..half]).await?;
            stream.set_zero_linger()
        }
        // A CONNECT a byte at a time.
        2 => {
            let mut stream = open(to, from).await?;
            for byte in hello.bytes() {
                if Instant::now() >= until {
                    break;
                }
                stream.write_all(&[byte]).await?;
                sleep(LORIS_STEP).await;
            }
            Ok(())
        }
        // A connection that never says anything.
        3 => {
            let _stream = open(to, from).await?;
            sleep_until(until.min(Instant::now() + 4 * LORIS_STEP)).await;
            Ok(())
        }
        // A good CONNECT with one bit wrong.
        4 => {
            let mut bytes = hello.bytes();
            let at = chance.usize(0..bytes.len());
            bytes[at] ^= 1 << chance.u8(0..8);
            send_and_hear(to, from, &bytes, until).await
        }
        // A packet that says it is as long as can be.
        5 => {
            let mut bytes = hello.bytes();
            bytes.extend([0x32, 0xff, 0xff, 0xff, 0x7f]);
            bytes.extend([b'x'; 1_000]);
            send_and_hear(to, from, &bytes, until).await
        }
        // Rubbish after a good CONNECT.
        6 => {
            let mut bytes = hello.bytes();
            let mut rubbish = vec![0; chance.usize(1..limits::RUBBISH_BYTES)];
            chance.fill(&mut rubbish);
            bytes.extend(rubbish);
            send_and_hear(to, from, &bytes, until).await
        }
        // One that takes over its own sessions, and never reads what it asked for.
        _ => {
            let same = Hello {
                id: format!("rival-{}", chance.u8(0..4)),
                will: None,
                ..hello
            };
            let mut client = Client::connect(to, from, &same).await?;
            client.subscribe("churn/#").await?;
            sleep_until(until.min(Instant::now() + 4 * LORIS_STEP)).await;
            client.vanish();
            Ok(())
        }
    }
}

/// Sends bytes and listens until the gateway has had enough.
async fn send_and_hear(
    to: SocketAddr,
    from: std::net::Ipv4Addr,
    bytes: &[u8],
    until: Instant,
) -> io::Result<()> {
    let mut stream = open(to, from).await?;
    stream.write_all(bytes).await?;
    let mut heard = [0; 1_024];
    while timeout_at(until, stream.read(&mut heard)).await?? > 0 {}
    Ok(())
}
