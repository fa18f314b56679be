//! One direction of a connection, as a shell: reads, waits, writes.
//!
//! Promises: the end of the stream arrives after all its bytes; nothing is
//! written while the link is paused. Never: a read when the lane is full.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Control;
use super::lane::Lane;
use crate::limits::SEGMENT_BYTES_MAX;

/// Carries bytes through a lane until the sender has ended and all has arrived.
/// Cancelling it loses what is on the way: that is what a cut is.
pub async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut lane: Lane,
    mut control: watch::Receiver<Control>,
    delivered_bytes: &AtomicU64,
) -> io::Result<()> {
    let began = Instant::now();
    let mut segment = [0; SEGMENT_BYTES_MAX];
    let mut ended = false;
    loop {
        let paused = control.borrow_and_update().paused;
        if ended && lane.is_empty() && !paused {
            return to.shutdown().await;
        }
        let due = lane.next_at().filter(|_| !paused).map(|at| began + at);
        tokio::select! {
            read = from.read(&mut segment), if !ended && lane.has_room() => match read? {
                0 => ended = true,
                bytes => lane.admit(began.elapsed(), segment[..bytes].to_vec()),
            },
            () = sleep_until(due.unwrap_or(began)), if due.is_some() => {
                while let Some(segment) = lane.take(began.elapsed()) {
                    to.write_all(&segment).await?;
                    delivered_bytes.fetch_add(segment.len() as u64, Ordering::Relaxed);
                }
            }
            changed = control.changed() => if changed.is_err() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use fastrand::Rng;
    use tokio::io::duplex;
    use tokio::time::timeout;

    use super::*;
    use crate::link::LinkProfile;

    const ENDLESS: Duration = Duration::from_secs(1_000_000);

    fn controls() -> watch::Sender<Control> {
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        watch::Sender::new(Control {
            upstream,
            paused: false,
            cuts_ordered: 0,
        })
    }

    /// A sender and a receiver with a lane between them.
    fn joined(
        profile: &LinkProfile,
        control: &watch::Sender<Control>,
    ) -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
        let (sender, from) = duplex(1 << 20);
        let (to, receiver) = duplex(1 << 20);
        let lane = Lane::up(profile, Rng::with_seed(3));
        let control = control.subscribe();
        tokio::spawn(async move { carry(from, to, lane, control, &AtomicU64::new(0)).await });
        (sender, receiver)
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_whole_and_in_order_over_the_worst_link() {
        let control = controls();
        let (mut sender, mut receiver) = joined(&LinkProfile::gprs(), &control);
        let sent: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        sender.write_all(&sent).await.unwrap();
        drop(sender);
        let mut arrived = Vec::new();
        receiver.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn the_link_takes_the_time_that_its_rate_says() {
        let control = controls();
        let profile = LinkProfile {
            up_bits_per_s: Some(8_000),
            ..LinkProfile::perfect()
        };
        let (mut sender, mut receiver) = joined(&profile, &control);
        let began = Instant::now();
        sender.write_all(&[0; 60_000]).await.unwrap();
        drop(sender);
        receiver.read_to_end(&mut Vec::new()).await.unwrap();
        // The clock is virtual: 60,000 bytes at 1,000 bytes a second.
        assert_eq!(began.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_link_takes_a_bounded_number_of_bytes_and_delivers_none() {
        let control = controls();
        let (mut sender, from) = duplex(1);
        let (to, mut receiver) = duplex(1 << 20);
        let lane = Lane::up(&LinkProfile::perfect(), Rng::with_seed(3));
        let seen = control.subscribe();
        control.send_modify(|control| control.paused = true);
        tokio::spawn(async move { carry(from, to, lane, seen, &AtomicU64::new(0)).await });
        let mut taken = 0_usize;
        while timeout(ENDLESS, sender.write_all(&[7])).await.is_ok() {
            taken += 1;
        }
        assert!(taken <= crate::limits::IN_FLIGHT_BYTES_MAX + 1, "{taken}");
        assert!(timeout(ENDLESS, receiver.read_u8()).await.is_err());
        control.send_modify(|control| control.paused = false);
        assert_eq!(receiver.read_u8().await.unwrap(), 7);
    }
}
