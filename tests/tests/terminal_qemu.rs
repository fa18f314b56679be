//! G5, G6 and the whole way, with the real image: QEMU runs it before a simulated
//! modem, printer and person, a real gateway, settlement and Apache Kafka behind
//! it. Its power is cut by `kill -9`, at any moment and at the worst ones.
//!
//! `RISITI_KILLS=500` makes the run longer (`make crash`).

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use risiti_sim::emulator::{EmulatedTerminal, Entropy, Footprint, Moment, Setup};
use risiti_sim::ledger::{Account, Accounts};
use risiti_sim::modem::TcpDialer;
use risiti_sim::network::{NetworkProfile, Span};
use risiti_sim::operator::{Habits, Operator};
use risiti_sim::package::Package;
use risiti_terminal::hardware::Key;
use risiti_terminal::wipe::{NOT_WIPED, Order, WIPED};
use risiti_tests::asked::{number, seed};
use risiti_tests::gateway_process::ProcessSwitches;
use risiti_tests::qemu::{image, papers_by_payment};
use risiti_tests::risiti_command::{output, risiti};
use risiti_tests::round_trip::RoundTrip;
use risiti_tests::turn::turn;
use risiti_wire::seal::code;
use tokio::time::Instant;

/// Terminal, modem and printer live this many times as fast as the rest of the
/// world: the waits for radio and paper cost less of everybody's time.
const PACE: u32 = 10;

/// What a terminal may take of the smallest processors that it is for.
const RAM_BYTES_MAX: u32 = 12 * 1024;

/// A whole start, payment, errand and paper take some 3 s at this pace.
const LIFE_LONGEST: Duration = Duration::from_secs(5);

/// For what is still on its way when nothing is cut any more.
const REST: Duration = Duration::from_secs(90);

/// Somebody who has come to pay all day, fast.
fn habits(payments: u32) -> Habits {
    Habits {
        payments,
        pause_ms: (0, 8_000),
        key_ms: (100, 400),
        read_ms: (300, 1_500),
        slips: 0.02,
        second_thoughts: 0.02,
        fetches: 0.3,
        reprints: 0.0,
    }
}

/// 2G that holds, with the waits of a good place.
fn network() -> NetworkProfile {
    NetworkProfile {
        registration: Span::of_ms(500, 3_000),
        ..NetworkProfile::steady(Duration::from_millis(300))
    }
}

/// At which moment the power is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// So long after the start.
    After(Duration),
    /// So long after the key that saves a payment.
    Saving(Duration),
    /// So long after the printer was seen at work.
    Printing(Duration),
}

fn draw(chance: &mut fastrand::Rng) -> Cut {
    let us = |chance: &mut fastrand::Rng, most| Duration::from_micros(chance.u64(0..most));
    match chance.u8(0..10) {
        0..3 => Cut::After(us(chance, 1_000_000)),
        3..5 => Cut::After(us(chance, LIFE_LONGEST.as_micros() as u64)),
        5..8 => Cut::Saving(us(chance, 12_000)),
        _ => Cut::Printing(us(chance, 600_000)),
    }
}

#[test]
fn g5_g6_the_real_image_pays_and_prints_once_whatever_its_power_does() {
    let _turn = turn();
    let kills = number("RISITI_KILLS", 36) as u32;
    let image = image().unwrap();
    let seed = seed();
    let mut chance = fastrand::Rng::with_seed(seed);
    let trip = RoundTrip::start(ProcessSwitches::default()).unwrap();
    let setup = Setup {
        image: image.clone(),
        id: "t0".to_owned(),
        package: None,
        gateway: trip.gateway.mqtt_addr(),
        network: network(),
        pace: PACE,
        keeps: true,
        seed: chance.u64(..),
    };
    let dir = tempfile::tempdir().unwrap();
    let footprint = Footprint::of(&image).unwrap();
    let mut stack_most = 0;

    let (operator, terminal) = trip.runtime.block_on(async {
        let mut terminal = EmulatedTerminal::new(&setup, dir.path(), TcpDialer::new()).unwrap();
        let mut operator = Operator::new(habits(kills), chance.u64(..), 0);
        while terminal.cuts() < kills {
            terminal.boot().await.unwrap();
            let cut = draw(&mut chance);
            let longest = Instant::now() + LIFE_LONGEST;
            let (after, worst): (_, fn(&Moment<'_>) -> bool) = match cut {
                Cut::After(after) => (after, |_| true),
                Cut::Saving(after) => (after, |now| {
                    now.shown.starts_with("PAY?") && now.pressed == Some(Key::Enter)
                }),
                Cut::Printing(after) => (after, |now| now.prints),
            };
            terminal
                .attend(&mut operator, longest, worst)
                .await
                .unwrap();
            let at = Instant::now() + after;
            terminal.attend(&mut operator, at, |_| false).await.unwrap();
            terminal.cut_power().await;
        }
        terminal.boot().await.unwrap();
        let end = Instant::now() + REST + Duration::from_secs(1) * kills / 2;
        terminal
            .attend(&mut operator, end, |now| {
                let papers = papers_by_payment(now.papers);
                let printed = |number| papers.get(&number).is_some_and(|(whole, _)| *whole > 0);
                // If all was on paper before the last cut: let it start at least.
                now.shown.contains("ACCOUNT?")
                    && now.operator.is_done()
                    && now.operator.saved().iter().all(|s| printed(s.sequence))
            })
            .await
            .unwrap();
        let ram = terminal.ram().await.unwrap();
        stack_most = footprint.stack(&ram).expect("it has started");
        (operator, terminal)
    });

    println!(
        "{} payments, {} power cuts; {footprint:?}, stack {stack_most}",
        operator.saved().len(),
        terminal.cuts()
    );
    assert!(operator.is_done(), "it shows:\n{}", terminal.shown());
    assert_eq!(operator.saved().len(), kills as usize);
    assert_eq!(terminal.world().panics(), [0; 0]);
    assert!(footprint.ram + stack_most <= RAM_BYTES_MAX);

    // What the paper says, and what Kafka says, against what the display said.
    let papers = papers_by_payment(&terminal.world().papers());
    let saved: BTreeSet<u64> = operator.saved().iter().map(|s| s.sequence).collect();
    for (number, (_, originals)) in &papers {
        assert!(*originals <= 1, "{originals} originals of {number}");
    }
    let published = saved.last().copied().unwrap_or_default();
    let account = Account {
        published,
        skipped: (1..=published).filter(|n| !saved.contains(n)).collect(),
        printed: papers.iter().map(|(&n, &(whole, _))| (n, whole)).collect(),
        power_cuts: u64::from(terminal.cuts()),
        ..Account::default()
    };
    trip.wait_delivered().unwrap();
    let accounts = Accounts::from([(setup.id.clone(), account)]);
    let verdict = trip.receipts_verdict(&accounts, true).unwrap();
    println!("{verdict}");
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.settled, u64::from(kills));
    assert_eq!(verdict.printed, u64::from(kills));

    let settled = trip.kafka.committed("risiti.transactions").unwrap();
    for paid in operator.saved() {
        let found = settled.iter().any(|one| {
            let value: serde_json::Value = serde_json::from_slice(&one.value).unwrap();
            value["sequence"] == paid.sequence
                && value["account"] == paid.account.as_str()
                && value["amount_minor"] == paid.amount_minor
        });
        assert!(found, "{paid:?} is settled otherwise than it was typed");
    }
    println!(
        r#"PROOF {{"what":"image-kills","guarantees":"G5 G6","runs":{kills},"failures":0,"seed":{seed},"extra":{{"payments":{},"stack_bytes_max":{stack_most}}}}}"#,
        operator.saved().len()
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A terminal that has made one payment, which is in its flash and nowhere else; its
/// power was cut as soon as it showed it as saved.
async fn paid_in_vain(keeps: bool, dir: &Path, until: Instant) -> EmulatedTerminal {
    let setup = Setup {
        image: image().unwrap(),
        id: "t0".to_owned(),
        package: None,
        // Nobody there.
        gateway: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        network: network(),
        pace: PACE,
        keeps,
        seed: seed(),
    };
    let mut terminal = EmulatedTerminal::new(&setup, dir, TcpDialer::new()).unwrap();
    let mut operator = Operator::new(habits(1), setup.seed, 0);
    terminal.boot().await.unwrap();
    terminal
        .attend(&mut operator, until, |now| !now.operator.saved().is_empty())
        .await
        .unwrap();
    assert_eq!(operator.saved().len(), 1, "{}", terminal.shown());
    terminal.cut_power().await;
    assert_eq!(terminal.shown(), "");
    terminal
}

/// What the display shows after a payment, a power cut and a start.
fn shown_after_a_cut(keeps: bool) -> String {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let until = Instant::now() + Duration::from_secs(60);
        let mut terminal = paid_in_vain(keeps, dir.path(), until).await;
        terminal.boot().await.unwrap();
        let is_idle = |shown: &str| shown.contains("ACCOUNT?");
        terminal.wait_shown(until, is_idle).await.unwrap()
    })
}

#[test]
fn g6_a_payment_that_was_shown_as_saved_is_there_after_a_power_cut() {
    let _turn = turn();
    let shown = shown_after_a_cut(true);
    assert!(shown.contains("#1"), "{shown}");
}

#[test]
fn a_terminal_is_wiped_on_order_and_no_payment_that_somebody_waits_for_without_a_word() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let until = Instant::now() + Duration::from_secs(180);
    runtime().block_on(async {
        let mut terminal = paid_in_vain(true, dir.path(), until).await;
        let settings = std::fs::read(dir.path().join("settings")).unwrap();
        let careful = Order {
            even_unfinished: false,
        };
        terminal.order_wipe(careful).unwrap();
        terminal.boot().await.unwrap();
        let refused = |shown: &str| shown.starts_with(NOT_WIPED);
        let shown = terminal.wait_shown(until, refused).await.unwrap();
        assert!(shown.contains("UNFINISHED 1 "), "{shown}");
        terminal.cut_power().await;
        // Set up again, it still has it.
        std::fs::write(dir.path().join("settings"), settings).unwrap();
        terminal.boot().await.unwrap();
        let is_idle = |shown: &str| shown.contains("ACCOUNT?");
        let shown = terminal.wait_shown(until, is_idle).await.unwrap();
        assert!(shown.contains("#1"), "{shown}");
        terminal.cut_power().await;

        let order = Order {
            even_unfinished: true,
        };
        terminal.order_wipe(order).unwrap();
        terminal.boot().await.unwrap();
        // The payment is gone, most of the rest is not looked at yet.
        let under_way = |shown: &str| shown.starts_with("WIPING") && !shown.contains(" 2048 ");
        terminal.wait_shown(until, under_way).await.unwrap();
        terminal.cut_power().await;
        terminal.boot().await.unwrap();
        let done = |shown: &str| shown.starts_with(WIPED);
        terminal.wait_shown(until, done).await.unwrap();
        let flash = terminal.flash().unwrap();
        assert!(flash.iter().all(|byte| *byte == 0xFF));
    });
}

/// What an operator types, and no more: `risiti …`, which must succeed.
fn typed(words: &[&str]) {
    let mut command = risiti(words.iter().copied());
    let ended = output(&mut command, Duration::from_secs(60)).unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "risiti {words:?}: {said}");
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

/// A new site with a gateway that lets nobody in but who was added; and its root.
fn site(dir: &Path) -> (RoundTrip, String) {
    let (root, registry) = (path(dir, "site.root"), path(dir, REGISTRY));
    typed(&["site", "new-root", &root]);
    let closed = format!(
        "[access]\nanonymous = \"none\"\nregistry = {registry:?}\n[settlement]\nroot_file = {root:?}\n"
    );
    let trip = RoundTrip::start_with(ProcessSwitches::default(), &closed).unwrap();
    (trip, root)
}

const REGISTRY: &str = "terminals.toml";

/// The package of terminal t0, which is added with keys from there.
fn added(dir: &Path, gateway: SocketAddr, keys: &[&str]) -> Package {
    let (registry, file) = (path(dir, REGISTRY), path(dir, "t0.terminal"));
    let add = ["terminal", "add", "t0", "--registry", &registry];
    let to = ["--gateway", &gateway.to_string(), "--out", &file];
    typed(&[&add, keys, &to].concat());
    Package::read(file.as_ref()).unwrap()
}

/// From a new site and a gateway that lets nobody in to a receipt on paper: what the
/// commands wrote is all that the terminal was given.
#[test]
fn g9_g10_a_terminal_that_was_added_pays_and_prints_its_first_receipt() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let (trip, root) = site(dir.path());
    let gateway = trip.gateway.mqtt_addr();
    let package = added(dir.path(), gateway, &["--root", &root]);
    assert_eq!(package.gateway, Some(gateway.to_string()));
    let pays = |package| {
        let setup = Setup {
            image: image().unwrap(),
            id: "t0".to_owned(),
            package,
            gateway,
            network: network(),
            pace: PACE,
            keeps: true,
            seed: seed(),
        };
        let dir = tempfile::tempdir().unwrap();
        trip.runtime.block_on(async {
            let mut terminal = EmulatedTerminal::new(&setup, dir.path(), TcpDialer::new()).unwrap();
            let mut operator = Operator::new(habits(1), setup.seed, 0);
            terminal.boot().await.unwrap();
            let is_printed = |now: &Moment<'_>| now.papers.iter().any(|paper| paper.whole);
            let until = Instant::now() + REST;
            terminal
                .attend(&mut operator, until, is_printed)
                .await
                .unwrap();
            papers_by_payment(&terminal.world().papers())
        })
    };
    assert_eq!(pays(Some(package)).get(&1), Some(&(1, 1)));
    let settled = trip.kafka.committed("risiti.transactions").unwrap();
    assert_eq!(settled.len(), 1);
}

/// How long a key takes to change the screen.
const AFTER_KEY: Duration = Duration::from_secs(2);

fn is_ready(shown: &str) -> bool {
    shown.starts_with("WRITE DOWN KEYS")
}

fn is_asked(shown: &str) -> bool {
    shown.starts_with("WRITTEN DOWN?")
}

fn is_idle(shown: &str) -> bool {
    shown.contains("ACCOUNT?")
}

fn is_code(shown: &str) -> bool {
    let characters = |row: &str| row.bytes().filter(u8::is_ascii_alphanumeric).count();
    shown.lines().count() == 4 && shown.lines().all(|row| characters(row) == 14)
}

/// Presses this key for as long as `now` holds of the display; what it shows then.
async fn press(
    terminal: &EmulatedTerminal,
    key: Key,
    now: fn(&str) -> bool,
    then: fn(&str) -> bool,
) -> String {
    for _ in 0..20 {
        if now(&terminal.shown()) {
            terminal.press(key);
        }
        let until = Instant::now() + AFTER_KEY;
        if let Ok(shown) = terminal.wait_shown(until, then).await {
            return shown;
        }
    }
    panic!("{key:?} leads nowhere; it shows:\n{}", terminal.shown());
}

/// `risiti terminal enroll` with this on its standard input: what it complains of.
fn enrolled(root: &str, dir: &Path, typed: &str) -> Result<(), String> {
    let path = dir.join("typed");
    std::fs::write(&path, typed).unwrap();
    let mut command = risiti(["terminal", "enroll", "t0", "--root", root]);
    command.stdin(File::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let ended = output(&mut command, Duration::from_secs(60)).unwrap();
    match ended.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
    }
}

/// A terminal that makes its keys itself: they leave it on its display, once, and open
/// what it pays.
#[test]
fn g10_a_terminal_makes_its_own_keys_and_what_they_seal_is_settled_once_they_are_enrolled() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let (trip, root) = site(dir.path());
    let gateway = trip.gateway.mqtt_addr();
    let package = added(dir.path(), gateway, &["--own-keys"]);
    assert!(package.keys().unwrap().is_none());
    let setup = Setup {
        image: image().unwrap(),
        id: "t0".to_owned(),
        package: Some(package),
        gateway,
        network: network(),
        pace: PACE,
        keeps: true,
        seed: seed(),
    };
    trip.runtime.block_on(async {
        let mut terminal = EmulatedTerminal::new(&setup, dir.path(), TcpDialer::new()).unwrap();
        let until = || Instant::now() + REST;
        terminal.boot().await.unwrap();
        let shown = terminal.wait_shown(until(), is_ready).await.unwrap();
        assert!(shown.contains("GENERATION 1 "), "{shown}");
        let first = press(&terminal, Key::Enter, is_ready, is_code).await;
        // Cut before anybody confirmed: the same keys.
        terminal.cut_power().await;
        terminal.boot().await.unwrap();
        terminal.wait_shown(until(), is_ready).await.unwrap();
        let second = press(&terminal, Key::Enter, is_ready, is_code).await;
        assert_eq!(first, second);

        let mut wrong = first.clone().into_bytes();
        wrong[17] = if wrong[17] == b'7' { b'8' } else { b'7' };
        let wrong = String::from_utf8(wrong).unwrap();
        let refused = enrolled(&root, dir.path(), &wrong).unwrap_err();
        assert!(refused.contains("row 2, character 1"), "{refused}");
        enrolled(&root, dir.path(), &first).unwrap();
        let refused = enrolled(&root, dir.path(), &first).unwrap_err();
        assert!(refused.contains("enrolled already"), "{refused}");

        // Confirmed, after a second look.
        press(&terminal, Key::Enter, is_code, is_asked).await;
        let third = press(&terminal, Key::Cancel, is_asked, is_code).await;
        assert_eq!(first, third);
        press(&terminal, Key::Enter, is_code, is_asked).await;
        press(&terminal, Key::Enter, is_asked, is_idle).await;
        // And never shown again.
        terminal.cut_power().await;
        terminal.boot().await.unwrap();
        let either = |shown: &str| is_idle(shown) || is_ready(shown) || is_code(shown);
        let shown = terminal.wait_shown(until(), either).await.unwrap();
        assert!(is_idle(&shown), "{shown}");

        let mut operator = Operator::new(habits(1), setup.seed, 0);
        let is_printed = |now: &Moment<'_>| now.papers.iter().any(|paper| paper.whole);
        terminal
            .attend(&mut operator, until(), is_printed)
            .await
            .unwrap();
        let papers = papers_by_payment(&terminal.world().papers());
        assert_eq!(papers.get(&1), Some(&(1, 1)), "{}", terminal.shown());
        assert_eq!(terminal.world().panics(), [0; 0]);

        // The keys are in the flash, and a wipe takes them.
        let (record, _) = code::decode("t0", 1, &first).unwrap();
        let stands = |flash: &[u8]| flash.windows(16).any(|bytes| bytes == record.expose());
        assert!(stands(&terminal.flash().unwrap()));
        terminal.cut_power().await;
        let order = Order {
            even_unfinished: true,
        };
        terminal.order_wipe(order).unwrap();
        terminal.boot().await.unwrap();
        let done = |shown: &str| shown.starts_with(WIPED);
        terminal.wait_shown(until(), done).await.unwrap();
        let flash = terminal.flash().unwrap();
        assert!(flash.iter().all(|byte| *byte == 0xFF));
    });
    let settled = trip.kafka.committed("risiti.transactions").unwrap();
    assert_eq!(settled.len(), 1);
}

#[test]
fn a_terminal_without_random_bytes_or_with_damaged_keys_says_so_and_takes_no_payment() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup {
        image: image().unwrap(),
        id: "t0".to_owned(),
        package: Some(Package::new("t0", "", None).with_own_keys(1)),
        gateway: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        network: network(),
        pace: PACE,
        keeps: true,
        seed: seed(),
    };
    runtime().block_on(async {
        let until = || Instant::now() + REST;
        let mut terminal = EmulatedTerminal::new(&setup, dir.path(), TcpDialer::new()).unwrap();
        terminal.world().set_entropy(Entropy::Stuck(0));
        terminal.boot().await.unwrap();
        let none = |shown: &str| shown.starts_with("NO RANDOM BYTES");
        terminal.wait_shown(until(), none).await.unwrap();
        terminal.cut_power().await;
        assert!(terminal.flash().unwrap().iter().all(|byte| *byte == 0xFF));
        terminal.world().set_entropy(Entropy::Machine);
        terminal.boot().await.unwrap();
        terminal.wait_shown(until(), is_ready).await.unwrap();
        let code = press(&terminal, Key::Enter, is_ready, is_code).await;
        terminal.cut_power().await;

        let (record, _) = code::decode("t0", 1, &code).unwrap();
        let path = dir.path().join("flash");
        let mut flash = std::fs::read(&path).unwrap();
        let keys = flash.windows(16).position(|bytes| bytes == record.expose());
        flash[keys.unwrap()..][..16].fill(0);
        std::fs::write(&path, flash).unwrap();
        terminal.boot().await.unwrap();
        let damaged = |shown: &str| shown.starts_with("KEYS DAMAGED");
        terminal.wait_shown(until(), damaged).await.unwrap();
    });
}

#[test]
fn control_a_flash_that_forgets_would_be_seen() {
    let _turn = turn();
    let shown = shown_after_a_cut(false);
    assert!(!shown.contains('#'), "{shown}");
}
