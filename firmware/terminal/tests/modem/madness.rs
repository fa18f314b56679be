//! A modem that says anything at any time.

use std::time::Duration;

use fastrand::Rng;
use risiti_sim::clock::SimClock;
use risiti_sim::modem::{NoKey, Serial};
use risiti_terminal::modem::{Driver, Modem, QuectelFamily, Sim800Family};
use tokio::time::{Instant, timeout};

use crate::world::{NETWORK, Tested};

/// What it says now and then, fit or not.
const WORDS: [&str; 38] = [
    "\r\nOK\r\n",
    "\r\nOK\r\n",
    "\r\nOK\r\n",
    "\r\nOK\r\n",
    "\r\nOK\r\n",
    "\r\nOK\r\n",
    "\r\nERROR\r\n",
    "\r\n+CME ERROR: 10\r\n",
    "\r\n> ",
    "\r\nCONNECT OK\r\n",
    "\r\nCONNECT OK\r\n",
    "\r\nCONNECT FAIL\r\n",
    "\r\nALREADY CONNECT\r\n",
    "\r\nSEND OK\r\n",
    "\r\nSEND FAIL\r\n",
    "\r\nDATA ACCEPT:60\r\n",
    "\r\nDATA ACCEPT:99999\r\n",
    "\r\nCLOSED\r\n",
    "\r\nCLOSE OK\r\n",
    "\r\nSHUT OK\r\n",
    "\r\nDEACT OK\r\n",
    "\r\n10.1.2.3\r\n",
    "\r\n10.1.2.3\r\n",
    "\r\n+PDP: DEACT\r\n",
    "\r\nRDY\r\n",
    "\r\nNORMAL POWER DOWN\r\n",
    "\r\nUNDER-VOLTAGE WARNNING\r\n",
    "\r\n+CPIN: READY\r\n",
    "\r\n+CPIN: READY\r\n",
    "\r\n+CREG: 1,1\r\n",
    "\r\n+CREG: 1\r\n",
    "\r\n+CREG: 3\r\n",
    "\r\n+CGATT: 1\r\n",
    "\r\n+CSQ: 17,0\r\n",
    "\r\n+CCLK: \"26/11/21,17:30:10+12\"\r\n",
    "\r\n+CIPRXGET: 1\r\n",
    "\r\n+CIPRXGET: 2,7,0\r\nreceipt\r\nOK\r\n",
    "\r\n+CIPRXGET: 2,1460,60000\r\n",
];

/// What brings a driver on, whatever it has asked.
const SANE: [&str; 4] = [
    "\r\n+CPIN: READY\r\n\r\n+CREG: 1,1\r\n\r\n+CGATT: 1\r\n\r\nOK\r\n",
    "\r\nOK\r\n\r\nCONNECT OK\r\n\r\n10.1.2.3\r\n",
    "\r\n> \r\nDATA ACCEPT:60\r\n",
    "\r\n+CIPRXGET: 2,7,0\r\nreceipt\r\nOK\r\n",
];

/// Says words and rubbish, upon what is said to it and by itself.
async fn rave(serial: Serial, mut chance: Rng) {
    let mut heard = [0; 64];
    loop {
        let wait = Duration::from_millis(chance.u64(1..20_000));
        let spoken_to = timeout(wait, serial.take(&mut heard)).await.is_ok();
        if spoken_to {
            for words in SANE {
                if chance.u8(..8) > 0 {
                    serial.push(words.as_bytes());
                }
            }
        }
        if chance.u8(..4) > 0 {
            continue;
        }
        if chance.u8(..10) == 0 {
            let rubbish: Vec<u8> = (0..chance.usize(..100)).map(|_| chance.u8(..)).collect();
            serial.push(&rubbish);
        } else {
            serial.push(WORDS[chance.usize(..WORDS.len())].as_bytes());
        }
    }
}

/// Asserts that this ends within so many seconds; an hour is no end.
async fn ends<T>(what: &str, seed: u64, seconds: u64, action: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let ended = timeout(Duration::from_secs(3_600), action).await;
    let took = began.elapsed().as_secs();
    assert!(took <= seconds, "{what} took {took} s, seed {seed}");
    ended.unwrap()
}

/// How many errands of how many came to where bytes are received.
async fn madness_ends<F: Tested>(seeds: u64) -> u32 {
    let mut received = 0;
    for seed in 0..seeds {
        let (terminal, modem) = Serial::pair();
        let raving = tokio::spawn(rave(modem, Rng::with_seed(seed)));
        let mut driver = Driver::<F, _, _, _>::new(terminal, NoKey, SimClock::start());
        for _ in 0..3 {
            // Two starts, the card, registering with its attach, activation.
            let on = driver.power_on(&NETWORK);
            let _ = ends("power_on", seed, 20 + 15 + 80 + 250, on).await;
            let open = driver.open("gate.example", 1_883);
            let _ = ends("open", seed, 90, open).await;
            for _ in 0..3 {
                let _ = ends("send", seed, 40, driver.send(&[7; 60])).await;
                let mut into = [0; 100];
                let receiving = driver.receive(&mut into);
                if let Ok(Ok(count)) = timeout(Duration::from_secs(60), receiving).await {
                    assert!(count > 0);
                    received += 1;
                }
            }
            ends("close", seed, 20, driver.close()).await;
            ends("power_off", seed, 60, driver.power_off()).await;
        }
        raving.abort();
    }
    received
}

#[tokio::test(start_paused = true)]
async fn whatever_a_sim800_says_every_wait_ends() {
    assert!(madness_ends::<Sim800Family>(1_000).await > 100);
}

#[tokio::test(start_paused = true)]
async fn whatever_a_quectel_says_every_wait_ends() {
    madness_ends::<QuectelFamily>(1_000).await;
}
