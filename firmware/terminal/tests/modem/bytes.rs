//! What comes through, whatever else happens on the line.

use std::time::Duration;

use fastrand::Rng;
use risiti_sim::modem::{Call, ModemSetup};
use risiti_sim::network::NetworkProfile;
use risiti_terminal::modem::{Modem, ModemError, QuectelFamily, Sim800Family};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::world::{Tested, World, for_polls};

/// What a peer has sent and heard when the connection is over.
#[derive(Debug, Default)]
struct Traffic {
    sent: Vec<u8>,
    heard: Vec<u8>,
}

/// A peer that sends so many bytes, bit by bit, and hears until the end.
fn talk(call: Call, bytes: usize, mut chance: Rng) -> JoinHandle<Traffic> {
    tokio::spawn(async move {
        let sent: Vec<u8> = (0..bytes).map(|_| chance.u8(..)).collect();
        let (mut reading, mut writing) = tokio::io::split(call.stream);
        let mut heard = Vec::new();
        let speak = async {
            let mut rest = sent.as_slice();
            while !rest.is_empty() {
                let (some, more) = rest.split_at(chance.usize(1..=rest.len().min(400)));
                if writing.write_all(some).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(chance.u64(..900))).await;
                rest = more;
            }
        };
        // An error is a connection that has ended otherwise.
        let (_, _) = tokio::join!(speak, reading.read_to_end(&mut heard));
        Traffic { sent, heard }
    })
}

/// A 2G network that takes nothing away.
fn patient() -> NetworkProfile {
    let mut network = NetworkProfile::village();
    network.link.cut_after_mean = None;
    network.context_life_mean = None;
    network.no_service = 0.0;
    network.activation_refused = 0.0;
    network
}

async fn bytes_come_through<F: Tested>(seed: u64) {
    let mut chance = Rng::with_seed(seed);
    let mut setup = ModemSetup::new(F::FAMILY, patient());
    setup.chatter = 0.3;
    let mut world = World::<F>::wired(setup, seed, |wire| wire.stutters = true);
    world.up().await.unwrap();
    let bytes = chance.usize(1..1_500);
    let peer = talk(world.call(), bytes, chance.fork());
    let (mut sent, mut heard) = (Vec::new(), Vec::new());
    while heard.len() < bytes {
        if chance.u8(..8) == 0 {
            let some: Vec<u8> = (0..chance.usize(1..1_200)).map(|_| chance.u8(..)).collect();
            world.driver.send(&some).await.unwrap();
            sent.extend(some);
        }
        let mut into = [0; 300];
        let room = chance.usize(1..into.len());
        let polls = chance.u32(1..12);
        let receiving = for_polls(world.driver.receive(&mut into[..room]), polls);
        let within = Duration::from_millis(chance.u64(1..3_000));
        if let Ok(Some(count)) = tokio::time::timeout(within, receiving).await {
            heard.extend_from_slice(&into[..count.unwrap()]);
        }
    }
    world.driver.close().await;
    let traffic = peer.await.unwrap();
    assert_eq!(heard, traffic.sent, "seed {seed}");
    assert_eq!(traffic.heard, sent, "seed {seed}");
    let radio = world.driver.radio();
    assert_eq!(radio.up_bytes, sent.len() as u64, "seed {seed}");
    assert_eq!(radio.down_bytes, bytes as u64, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn bytes_come_through_a_sim800_whole_and_in_order() {
    for seed in 0..2_000 {
        bytes_come_through::<Sim800Family>(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_come_through_a_quectel_whole_and_in_order() {
    for seed in 0..2_000 {
        bytes_come_through::<QuectelFamily>(seed).await;
    }
}

/// Over a serial line that loses bytes a session may fail, but never lies.
async fn no_byte_is_invented(seed: u64) -> bool {
    let mut chance = Rng::with_seed(seed);
    let mut setup = ModemSetup::new(Sim800Family::FAMILY, patient());
    setup.chatter = 0.1;
    let mut world = World::<Sim800Family>::wired(setup, seed, |wire| {
        wire.stutters = true;
        wire.loses_down = 2_000;
        wire.loses_up = 4_000;
    });
    let bytes = 1_000;
    let (mut sent, mut heard) = (Vec::new(), Vec::new());
    let session = async {
        world.up().await?;
        let peer = talk(world.calls.recv().await.unwrap(), bytes, chance.fork());
        let talked = async {
            while heard.len() < bytes {
                let mut some = [0; 60];
                chance.fill(&mut some);
                sent.extend_from_slice(&some);
                world.driver.send(&some).await?;
                let mut into = [0; 300];
                let count = world.driver.receive(&mut into).await?;
                heard.extend_from_slice(&into[..count]);
            }
            world.driver.close().await;
            Ok::<(), ModemError>(())
        };
        let talked = talked.await;
        world.driver.power_off().await;
        // The simulator keeps a lost connection; it is over when the modem is.
        Ok::<_, ModemError>((talked, peer))
    };
    let outcome = session.await;
    drop(world);
    let Ok((talked, peer)) = outcome else {
        return false;
    };
    let traffic = peer.await.unwrap();
    assert!(traffic.sent.starts_with(&heard), "down, seed {seed}");
    assert!(sent.starts_with(&traffic.heard), "up, seed {seed}");
    talked.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_bad_serial_line_invents_no_byte() {
    let mut whole = 0;
    for seed in 0..2_000 {
        whole += u32::from(no_byte_is_invented(seed).await);
    }
    // Some fail, or the line was not bad; some do not, or all was lost.
    assert!((50..1_950).contains(&whole), "{whole}");
}

#[tokio::test(start_paused = true)]
async fn bytes_taken_in_part_end_the_connection() {
    let mut setup = ModemSetup::new(Sim800Family::FAMILY, NetworkProfile::perfect());
    setup.partial_accepts = 1.0;
    let mut world = World::<Sim800Family>::with(setup, 1);
    world.up().await.unwrap();
    let sent = world.driver.send(b"records").await;
    assert_eq!(sent, Err(ModemError::Protocol));
    assert_eq!(world.driver.send(b"more").await, Err(ModemError::Closed));
}

#[tokio::test(start_paused = true)]
async fn what_came_before_the_peer_closed_is_read_and_then_the_end() {
    let mut world = World::<Sim800Family>::new(NetworkProfile::perfect(), 1);
    world.up().await.unwrap();
    let mut call = world.call();
    let sent: Vec<u8> = (0..700_u32).map(|n| (n % 251) as u8).collect();
    call.stream.write_all(&sent).await.unwrap();
    drop(call);
    // Handing over fails, which must not cost what has come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.driver.send(b"late").await, Err(ModemError::Closed));
    let mut heard = Vec::new();
    let mut into = [0; 100];
    let end = loop {
        match world.driver.receive(&mut into).await {
            Ok(count) => heard.extend_from_slice(&into[..count]),
            Err(error) => break error,
        }
    };
    assert_eq!(end, ModemError::Closed);
    assert_eq!(heard, sent);
}
