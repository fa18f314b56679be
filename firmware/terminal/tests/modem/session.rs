//! A session as it should be.

use std::time::Duration;

use risiti_terminal::energy::State;
use risiti_terminal::modem::{Modem, ModemError, QuectelFamily, Sim800Family};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{NETWORK, Tested, Wire, World, steady};

async fn a_session_goes_through<F: Tested>() {
    let mut world = World::<F>::new(steady(), 1);
    world.up().await.unwrap();
    let mut peer = world.call();
    assert_eq!((peer.host.as_str(), peer.port), ("gate.example", 1_883));
    world.driver.send(b"records").await.unwrap();
    let mut heard = [0; 7];
    peer.stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"records");
    peer.stream.write_all(b"receipts").await.unwrap();
    let mut into = [0; 64];
    let count = world.driver.receive(&mut into).await.unwrap();
    assert_eq!(&into[..count], b"receipts");
    world.driver.close().await;
    assert_eq!(peer.stream.read(&mut heard).await.unwrap(), 0);
    assert_eq!(
        world.driver.receive(&mut into).await,
        Err(ModemError::Closed)
    );
    world.driver.power_off().await;
    assert_eq!(world.sim.state(), State::Off);
    let radio = world.driver.radio();
    assert_eq!(
        (radio.up_bytes, radio.down_bytes, radio.connections),
        (7, 8, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_sim800_session_goes_through() {
    a_session_goes_through::<Sim800Family>().await;
}

#[tokio::test(start_paused = true)]
async fn a_quectel_session_goes_through() {
    a_session_goes_through::<QuectelFamily>().await;
}

async fn the_drivers_account_is_the_radios<F: Tested>() {
    let mut world = World::<F>::new(steady(), 2);
    for _ in 0..5 {
        world.up().await.unwrap();
        let _peer = world.call();
        world.driver.send(&[7; 300]).await.unwrap();
        world.driver.close().await;
        world.driver.power_off().await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    }
    let (counted, real) = (world.driver.radio(), world.sim.radio());
    let apart = |a: u64, b: u64| a.abs_diff(b) as f64 / b as f64;
    assert!(
        apart(counted.energy_mj, real.energy_mj) < 0.05,
        "{counted:?} {real:?}"
    );
    assert!(
        apart(counted.on_ms, real.on_ms) < 0.2,
        "{counted:?} {real:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_account_of_a_sim800_is_its_radios() {
    the_drivers_account_is_the_radios::<Sim800Family>().await;
}

#[tokio::test(start_paused = true)]
async fn the_account_of_a_quectel_is_its_radios() {
    the_drivers_account_is_the_radios::<QuectelFamily>().await;
}

#[tokio::test(start_paused = true)]
async fn the_network_tells_time_and_signal() {
    let mut world = World::<Sim800Family>::new(steady(), 3);
    assert_eq!(world.driver.network_time_s(), None);
    world.driver.power_on(&NETWORK).await.unwrap();
    let seconds = u32::try_from(world.now().as_secs()).unwrap();
    let told = world.driver.network_time_s().unwrap();
    assert!(told.abs_diff(1_795_219_200 + seconds) <= 1, "{told}");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(world.driver.network_time_s(), Some(told + 100));
    assert!(world.driver.signal().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_modem_that_is_up_is_not_started_again() {
    let mut world = World::<Sim800Family>::new(steady(), 4);
    world.driver.power_on(&NETWORK).await.unwrap();
    let (began, commands) = (world.now(), world.sim.commands());
    world.driver.power_on(&NETWORK).await.unwrap();
    assert!(world.now() - began < Duration::from_secs(1));
    assert_eq!(world.sim.commands() - commands, 2);
}

#[tokio::test(start_paused = true)]
async fn a_terminal_that_starts_anew_finds_its_modem_up() {
    let mut world = World::<Sim800Family>::new(steady(), 5);
    world.up().await.unwrap();
    let sim = world.sim.clone();
    world.driver = risiti_terminal::modem::Driver::new(
        Wire::new(sim.serial(), 5),
        sim.power_key(),
        sim.clock(),
    );
    let began = world.now();
    world.up().await.unwrap();
    assert!(world.now() - began < Duration::from_secs(5));
}
