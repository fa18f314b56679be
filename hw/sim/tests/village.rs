//! The village before terminals that were not made for it: whatever it is put
//! through, each payment is settled once; and what a village without a journal
//! would lose is seen.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::time::Duration;

use risiti_sim::ledger::{ReceiptsVerdict, receipts_verdict, verdict as verdict_up};
use risiti_sim::mqtt::MqttVersion;
use risiti_sim::terminal::{PowerProfile, Resend, TerminalSpec, Terminals};
use risiti_sim::village::{SettlementProfile, Village, VillageProfile};
use tokio::net::TcpListener;

const TERMINALS: usize = 10;
const PAYMENTS: u64 = 50;
const LONG: Duration = Duration::from_secs(60);

fn quick() -> VillageProfile {
    VillageProfile {
        durable_after_ms: (0, 2),
        forward_after_ms: (0, 20),
        settlement: SettlementProfile {
            answers_after_ms: (0, 10),
            slow_of_1000: 50,
            slow_after_ms: (50, 200),
            rejects_of_1000: 0,
            wordy: false,
            // These terminals are stand-ins, without keys.
            sealed: false,
        },
    }
}

/// A village on a port, and terminals that know nothing of it but that.
async fn start(resend: Option<Resend>) -> (Village, Terminals) {
    let village = Village::new(quick(), 1);
    let carried = village.clone();
    tokio::spawn(async move { carried.run().await });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = listener.local_addr().unwrap();
    let accepting = village.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(serving) = accepting.accept(stream) {
                tokio::spawn(serving);
            }
        }
    });
    let spec = |n| TerminalSpec {
        id: format!("t{n}"),
        gateway,
        version: [MqttVersion::V5, MqttVersion::V3_1_1][n % 2],
        window: 1 + n % 8,
        payments: Some(PAYMENTS),
        per_second: 100.0,
        resend,
        power: Some(PowerProfile {
            cut_after_mean: Duration::from_millis(80),
            dark_longest: Duration::from_millis(5),
        }),
        away: None,
        prints_before_saving: false,
    };
    (
        village,
        Terminals::start((0..TERMINALS).map(spec).collect(), 1),
    )
}

async fn judge(village: &Village, terminals: &mut Terminals) -> ReceiptsVerdict {
    let all = |totals: &risiti_sim::terminal::Totals| {
        totals.printed == TERMINALS as u64 * PAYMENTS && village.is_at_rest()
    };
    terminals.wait("all printed", LONG, all).await.unwrap();
    terminals.vanish().await;
    assert_eq!(village.counts().faults, 0, "{:?}", village.fault());
    receipts_verdict(&terminals.accounts(), &village.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_payment_is_settled_once_through_restarts_and_lost_sessions() {
    let (village, mut terminals) = start(None).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        village.restart(Duration::from_millis(10)).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        village.forget_sessions();
    }
    let verdict = judge(&village, &mut terminals).await;
    println!("{verdict}; {:?}", village.counts());
    assert!(verdict.is_clean(), "{verdict}");
    let up = verdict_up(&terminals.accounts(), &village.records());
    assert!(up.is_clean(), "{up}");
    let counts = village.counts();
    assert!(counts.resumed > 0 && counts.wills > 0, "{counts:?}");
    assert!(counts.subscribes > TERMINALS as u64, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_disk_takes_with_it_is_missing_until_it_is_sent_again() {
    let (village, terminals) = start(None).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        village.lose_disk();
    }
    let lost = |totals: &risiti_sim::terminal::Totals| totals.acknowledged == totals.saved;
    terminals
        .wait("all acknowledged", LONG, lost)
        .await
        .unwrap();
    let verdict = receipts_verdict(&terminals.accounts(), &village.log());
    assert!(verdict.unsettled > 0, "{verdict}");
    drop(terminals);

    let resend = Resend {
        after: Duration::from_millis(200),
        longest: Duration::from_millis(400),
    };
    let (village, mut terminals) = start(Some(resend)).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        village.lose_disk();
    }
    let verdict = judge(&village, &mut terminals).await;
    println!("{verdict}; {:?}", village.counts());
    assert!(verdict.is_clean(), "{verdict}");
}
