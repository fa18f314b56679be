//! What an errand costs on the air, counted byte by byte.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

mod connection_peer;

use connection_peer::{Terminal, as_task, packets};
use risiti_terminal::connection::Orders;
use risiti_terminal::hardware::Clock;

struct Cost {
    up: usize,
    down: usize,
    up_segments: usize,
    down_segments: usize,
    round_trips: u64,
}

impl Cost {
    fn all(&self) -> usize {
        self.up + self.down
    }
}

async fn measure(payments: u32, orders: &Orders) -> Cost {
    let mut terminal = Terminal::known().await;
    for _ in 0..payments {
        terminal.pay().await;
    }
    let outcome = terminal.run(orders).await;
    assert_eq!(u32::from(outcome.receipts), payments);
    let modem = &terminal.modem;
    let settled_ms = if payments > 0 { 300 } else { 0 };
    // The last segment's way is not waited for, and counts.
    let took_ms = terminal.clock.now_ms() - modem.open_at_ms - settled_ms;
    for (way, segments) in [("up", &modem.sent), ("down", &modem.received)] {
        for segment in segments {
            let parts = packets(&segment.bytes);
            let parts: Vec<_> = parts.iter().map(|p| (p[0] >> 4, p.len())).collect();
            println!("    {way:4} {parts:?}");
        }
    }
    Cost {
        up: modem.up_bytes(),
        down: modem.down_bytes(),
        up_segments: modem.sent.len(),
        down_segments: modem.received.len(),
        round_trips: took_ms.div_ceil(modem.round_trip_ms) + 1,
    }
}

#[tokio::test(start_paused = true)]
async fn airtime_of_an_errand() {
    as_task(async {
        let asks = Orders {
            expects: true,
            ..Orders::default()
        };
        let reports = Orders {
            report: true,
            ..Orders::default()
        };
        println!("packet types and bytes, segment by segment:");
        let mut rows = Vec::new();
        for (name, payments, orders) in [
            ("nothing due", 0, Orders::default()),
            ("report", 0, reports),
            ("1 payment, 1 receipt", 1, Orders::default()),
            ("3 payments, 3 receipts", 3, Orders::default()),
            ("10 payments, 10 receipts", 10, asks),
        ] {
            println!("  {name}");
            rows.push((name, measure(payments, &orders).await));
        }
        println!("| errand | up | down | in all | segments up, down | round trips |");
        println!("| --- | --- | --- | --- | --- | --- |");
        for (name, cost) in &rows {
            println!(
                "| {name} | {} | {} | {} | {}, {} | {} |",
                cost.up,
                cost.down,
                cost.all(),
                cost.up_segments,
                cost.down_segments,
                cost.round_trips
            );
        }
        let one = &rows[2].1;
        assert!(one.round_trips <= 4, "{}", one.round_trips);
        // With the gateway's own topics, and a CONNACK that tells three limits.
        assert!(one.all() <= 184, "{}", one.all());
        // What three cost together is less than what they cost one by one.
        assert!(rows[3].1.all() < 2 * one.all() + one.all() / 2);
    })
    .await;
}
