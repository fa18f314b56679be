//! Visitors who mean well.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::CrowdCounts;
use crate::soak::client::{Client, Hello, somewhere};
use crate::soak::limits;

/// `count` clients with persistent sessions connect, vanish all at once, and come
/// again at once, `times` times; then they leave.
pub async fn storm(
    to: SocketAddr,
    count: usize,
    times: usize,
    chance: &mut Rng,
    counts: &Arc<CrowdCounts>,
) {
    for _ in 0..=times {
        let mut coming = JoinSet::new();
        for n in 0..count {
            let from = somewhere(chance);
            let hello = Hello {
                id: format!("storm-{n}"),
                five: n % 2 == 0,
                persistent: true,
                will: None,
            };
            let filter = format!("storm/{}", n % limits::FILTERS);
            coming.spawn(async move {
                let mut client = Client::connect(to, from, &hello).await?;
                client.subscribe(&filter).await?;
                Ok::<_, io::Error>(client)
            });
        }
        // Nobody goes before all are there.
        let mut there = Vec::with_capacity(count);
        while let Some(came) = coming.join_next().await {
            match came.map_err(io::Error::other).and_then(|client| client) {
                Ok(client) => {
                    counts.visited("storm", Ok(()));
                    there.push(client);
                }
                Err(error) => counts.visited("storm", Err(error)),
            }
        }
        for client in there {
            client.vanish();
        }
    }
}

/// Visitors with names and addresses that never come again, until then: sessions of
/// all kinds, subscriptions, wills, and messages for Kafka.
pub async fn roam(
    to: [SocketAddr; 2],
    until: Instant,
    chance: &mut Rng,
    counts: &Arc<CrowdCounts>,
) {
    crowd(until, chance, |mut chance| {
        let counts = Arc::clone(counts);
        async move {
            let done = visit_once(to, &mut chance, &counts).await;
            counts.visited("roaming", done);
        }
    })
    .await;
}

async fn visit_once(to: [SocketAddr; 2], chance: &mut Rng, counts: &CrowdCounts) -> io::Result<()> {
    let id = format!("r-{:016x}", chance.u64(..));
    let hello = Hello {
        five: chance.bool(),
        persistent: chance.bool(),
        will: chance.bool().then(|| format!("wills/{id}")),
        id,
    };
    let to = to[usize::from(chance.bool())];
    let mut client = Client::connect(to, somewhere(chance), &hello).await?;
    if chance.bool() {
        client.subscribe(&format!("roam/{}/#", hello.id)).await?;
    }
    let topic = format!("raw/{}", hello.id);
    for _ in 0..chance.u8(1..4) {
        let payload = vec![b'r'; chance.usize(1..200)];
        client.publish(&topic, &payload, false).await?;
        counts.acknowledged.fetch_add(1, Relaxed);
    }
    if chance.bool() {
        client.leave().await?;
    } else {
        client.vanish();
    }
    Ok(())
}

/// Subscriptions and retained messages come and go, until then.
pub async fn churn(
    to: [SocketAddr; 2],
    until: Instant,
    chance: &mut Rng,
    counts: &Arc<CrowdCounts>,
) {
    crowd(until, chance, |mut chance| {
        let counts = Arc::clone(counts);
        async move {
            let done = churn_once(to, &mut chance).await;
            counts.visited("subscriptions", done);
        }
    })
    .await;
}

async fn churn_once(to: [SocketAddr; 2], chance: &mut Rng) -> io::Result<()> {
    let hello = Hello {
        id: format!("churn-{:08x}", chance.u32(..)),
        five: chance.bool(),
        persistent: chance.bool(),
        will: None,
    };
    let to = to[usize::from(chance.bool())];
    let mut client = Client::connect(to, somewhere(chance), &hello).await?;
    let filters: Vec<String> = (0..4)
        .map(|_| match chance.usize(0..limits::FILTERS) {
            0 => "churn/#".to_owned(),
            n if n % 3 == 0 => format!("churn/{n}/+"),
            n => format!("churn/{n}/x"),
        })
        .collect();
    for filter in &filters {
        client.subscribe(filter).await?;
    }
    for _ in 0..4 {
        let topic = format!("churn/{}/x", chance.usize(0..limits::FILTERS));
        let payload = vec![b'c'; chance.usize(1..300)];
        client.publish(&topic, &payload, false).await?;
        let topic = retained_topic(chance.usize(0..limits::RETAINED));
        // An empty one takes the retained one away (MQTT-3.3.1-10 of 3.1.1).
        let payload = vec![b'k'; chance.usize(0..2) * chance.usize(1..300)];
        client.publish(&topic, &payload, true).await?;
    }
    for filter in filters.iter().skip(chance.usize(0..2)) {
        client.unsubscribe(filter).await?;
    }
    client.leave().await
}

fn retained_topic(n: usize) -> String {
    format!("keep/{n}")
}

/// Takes every retained message away.
pub async fn clear_retained(to: SocketAddr, counts: &Arc<CrowdCounts>) {
    let hello = Hello {
        id: "clear".into(),
        five: true,
        persistent: false,
        will: None,
    };
    let clear = async {
        let mut client = Client::connect(to, [127, 0, 0, 1].into(), &hello).await?;
        for n in 0..limits::RETAINED {
            client.publish(&retained_topic(n), &[], true).await?;
        }
        client.leave().await
    };
    let done = clear.await;
    counts.visited("retained messages", done);
}

/// `clients` publish `each` messages for Kafka, as fast as they are acknowledged.
pub async fn flood(
    to: [SocketAddr; 2],
    clients: usize,
    each: u64,
    chance: &mut Rng,
    counts: &Arc<CrowdCounts>,
) {
    let mut all = JoinSet::new();
    for n in 0..clients {
        let hello = Hello {
            id: format!("flood-{n}"),
            five: n % 2 == 0,
            persistent: true,
            will: None,
        };
        let (from, counts) = (somewhere(chance), Arc::clone(counts));
        all.spawn(async move {
            let flood = async {
                let mut client = Client::connect(to[n % 2], from, &hello).await?;
                let topic = format!("raw/{}", hello.id);
                let acknowledged = client.flood(&topic, &[b'f'; 200], each).await?;
                counts.acknowledged.fetch_add(acknowledged, Relaxed);
                client.leave().await
            };
            let done = flood.await;
            counts.visited("flood", done);
        });
    }
    while all.join_next().await.is_some() {}
}

/// Visits, a bounded number at a time, until then; all have ended when this returns.
pub(super) async fn crowd<F>(until: Instant, chance: &mut Rng, visit: impl Fn(Rng) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut visits = JoinSet::new();
    while Instant::now() < until {
        while visits.len() < limits::VISITORS_AT_ONCE {
            visits.spawn(visit(chance.fork()));
        }
        visits.join_next().await;
    }
    while visits.join_next().await.is_some() {}
}
