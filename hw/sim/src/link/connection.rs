//! One connection through a link: both directions and its end.
//!
//! Promises: a cut is a reset on both sides, so that neither learns more than
//! that the other is gone. Never: a connection that outlives its link.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::carry::carry;
use super::lane::Lane;
use super::{Control, Counters, LinkProfile};

/// Runs a connection to its end. One task carries both directions: it owns both
/// sockets, so it can reset both.
pub async fn run(
    mut client: TcpStream,
    profile: LinkProfile,
    mut chance: Rng,
    control: watch::Receiver<Control>,
    counters: Arc<Counters>,
) {
    let mut upstream = None;
    let life = life(&profile, &mut chance);
    let cut = cut(life, control.clone());
    let ended = tokio::select! {
        ended = join(&mut client, &mut upstream, &profile, chance, control, &counters) => ended,
        () = cut => {
            counters.cuts.fetch_add(1, Ordering::Relaxed);
            Err(io::ErrorKind::ConnectionReset.into())
        }
    };
    if ended.is_err() {
        // Closing with unsent bytes discarded is a reset. A socket that is
        // gone already refuses the option, and needs it no more.
        let _ = client.set_zero_linger();
        if let Some(upstream) = &upstream {
            let _ = upstream.set_zero_linger();
        }
    }
}

/// How long this connection lasts until it is cut by chance.
fn life(profile: &LinkProfile, chance: &mut Rng) -> Option<Duration> {
    // Drawn in any case, so that a profile without cuts meets the same delays.
    let fortune = -(1.0 - chance.f64()).ln();
    profile.cut_after_mean.map(|mean| mean.mul_f64(fortune))
}

async fn cut(life: Option<Duration>, mut control: watch::Receiver<Control>) {
    let ordered_before = control.borrow_and_update().cuts_ordered;
    let by_chance = async {
        match life {
            Some(life) => sleep(life).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = by_chance => {}
        // An error means that the link itself has ended.
        _ = control.wait_for(|control| control.cuts_ordered != ordered_before) => {}
    }
}

async fn join(
    client: &mut TcpStream,
    upstream: &mut Option<TcpStream>,
    profile: &LinkProfile,
    mut chance: Rng,
    mut control: watch::Receiver<Control>,
    counters: &Counters,
) -> io::Result<()> {
    sleep(profile.round_trip).await;
    let aborted = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
    let address = control
        .wait_for(|control| !control.paused)
        .await
        .map_err(aborted)?
        .upstream;
    let upstream = upstream.insert(TcpStream::connect(address).await?);
    // The lanes alone decide about delays.
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let lanes = (
        Lane::up(profile, chance.fork()),
        Lane::down(profile, chance.fork()),
    );
    let (from_client, to_client) = client.split();
    let (from_upstream, to_upstream) = upstream.split();
    let up = carry(
        from_client,
        to_upstream,
        lanes.0,
        control.clone(),
        &counters.up_bytes,
    );
    let down = carry(
        from_upstream,
        to_client,
        lanes.1,
        control.clone(),
        &counters.down_bytes,
    );
    tokio::try_join!(up, down).map(drop)
}
