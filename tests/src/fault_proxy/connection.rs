//! One connection through a proxy: both directions and its end.
//!
//! Promises: bytes are delivered whole and in order up to the end, a cut or the
//! place from which they vanish. Never: a gap that bytes follow, or a connection
//! that outlives its proxy.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::fault::{Connecting, Direction, End, Taking};
use super::lane::Lane;
use super::{Control, Counters, RECEIVE_BUFFER_BYTES};

/// Read at once.
const SEGMENT_BYTES: usize = 16 * 1024;

/// How long the sides of a connection that was cut in order may take to close
/// theirs.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// Why a connection is over.
enum Over {
    /// Both sides have ended it.
    Ended,
    /// It was cut, or one side broke it.
    Cut(End),
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Cut(End::Reset)
    }
}

/// Runs a connection to its end.
pub async fn run(
    mut client: TcpStream,
    chance: Rng,
    control: watch::Receiver<Control>,
    counters: &Counters,
) {
    let mut server = None;
    let cut = cut(control.clone(), counters);
    let over = tokio::select! {
        over = join(&mut client, &mut server, chance, control, counters) => over,
        end = cut => Over::Cut(end),
    };
    let sides = [Some(client), server].into_iter().flatten();
    match over {
        Over::Ended => {}
        Over::Cut(End::Reset) => {
            for side in sides {
                // A socket that is gone already refuses it, and needs it no more.
                let _ = side.set_zero_linger();
            }
        }
        Over::Cut(End::Fin) => {
            for side in sides {
                tokio::spawn(close(side));
            }
        }
    }
}

/// Closes one side in order: with bytes unread, closing would be a reset.
async fn close(mut side: TcpStream) {
    let drain = async {
        side.shutdown().await?;
        let mut unread = vec![0; SEGMENT_BYTES];
        while side.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(CLOSING_MAX, drain).await;
}

async fn cut(mut control: watch::Receiver<Control>, counters: &Counters) -> End {
    let ordered_before = control.borrow_and_update().cuts_ordered;
    let ordered = control.wait_for(|control| control.cuts_ordered != ordered_before);
    match ordered.await {
        Ok(control) => {
            counters.cuts.fetch_add(1, Relaxed);
            control.cut_end
        }
        // The proxy itself has ended.
        Err(_) => End::Reset,
    }
}

async fn join(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    mut chance: Rng,
    mut control: watch::Receiver<Control>,
    counters: &Counters,
) -> Over {
    let joined = async {
        let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
        let met = control.wait_for(|control| control.connecting != Connecting::Silent);
        let met = *met.await.map_err(gone)?;
        if met.connecting == Connecting::Refused {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let server = server.insert(connect(met.upstream).await?);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        io::Result::Ok(server)
    };
    let server = match joined.await {
        Ok(server) => server,
        Err(error) => return error.into(),
    };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let lane = |direction, chance: &mut Rng| {
        let fault = *control.borrow().fault(direction);
        Lane::new(fault, chance.fork())
    };
    let lanes = (
        lane(Direction::Up, &mut chance),
        lane(Direction::Down, &mut chance),
    );
    let mut up = Carry::new(Direction::Up, from_client, to_server, lanes.0, counters);
    let mut down = Carry::new(Direction::Down, from_server, to_client, lanes.1, counters);
    match tokio::try_join!(up.run(control.clone()), down.run(control.clone())) {
        Ok(_) => Over::Ended,
        Err(over) => over,
    }
}

async fn connect(upstream: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.connect(upstream).await
}

/// One direction.
struct Carry<'a, R, W> {
    direction: Direction,
    from: R,
    to: W,
    lane: Lane,
    counters: &'a Counters,
    /// Something has vanished: nothing may follow it.
    vanished: bool,
    ended: bool,
    /// The last order to cut after so many bytes that this direction has seen, and
    /// bytes delivered since.
    cut_ordered: u64,
    delivered: u64,
}

impl<'a, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Carry<'a, R, W> {
    fn new(direction: Direction, from: R, to: W, lane: Lane, counters: &'a Counters) -> Self {
        Self {
            direction,
            from,
            to,
            lane,
            counters,
            vanished: false,
            ended: false,
            cut_ordered: 0,
            delivered: 0,
        }
    }

    async fn run(&mut self, mut control: watch::Receiver<Control>) -> Result<(), Over> {
        let began = Instant::now();
        let mut segment = vec![0; SEGMENT_BYTES];
        loop {
            let now = *control.borrow_and_update();
            self.lane
                .set_fault(began.elapsed(), *now.fault(self.direction));
            if now.cut_after_ordered != self.cut_ordered {
                (self.cut_ordered, self.delivered) = (now.cut_after_ordered, 0);
            }
            let taking = self.lane.fault().taking;
            if taking == Taking::Vanishing && !self.vanished {
                self.vanished = true;
                self.lane.lose();
                self.counters.vanished.fetch_add(1, Relaxed);
            }
            if self.ended && self.lane.is_empty() && !self.vanished {
                self.to.shutdown().await?;
                return Ok(());
            }
            let reads =
                !self.ended && (self.vanished || taking != Taking::Nothing && self.lane.has_room());
            let due = self.lane.next_at().map(|at| began + at);
            tokio::select! {
                read = self.from.read(&mut segment), if reads => match read? {
                    0 => self.ended = true,
                    _ if self.vanished => {}
                    bytes => self.lane.admit(began.elapsed(), segment[..bytes].to_vec()),
                },
                () = sleep_until(due.unwrap_or(began)), if due.is_some() => {
                    while let Some(segment) = self.lane.take(began.elapsed()) {
                        self.deliver(&segment, &now).await?;
                    }
                }
                // Without its proxy a connection is ended from outside.
                changed = control.changed() => if changed.is_err() {
                    pending::<()>().await;
                },
            }
        }
    }

    async fn deliver(&mut self, segment: &[u8], now: &Control) -> Result<(), Over> {
        let cut = now.cut_after.filter(|cut| cut.direction == self.direction);
        let left = cut.map_or(u64::MAX, |cut| cut.bytes.saturating_sub(self.delivered));
        let whole = usize::try_from(left).unwrap_or(usize::MAX);
        let delivered = &segment[..segment.len().min(whole)];
        for piece in delivered.chunks(self.lane.fault().piece_bytes_max.max(1)) {
            self.to.write_all(piece).await?;
        }
        self.delivered += delivered.len() as u64;
        let counter = match self.direction {
            Direction::Up => &self.counters.up_bytes,
            Direction::Down => &self.counters.down_bytes,
        };
        counter.fetch_add(delivered.len() as u64, Relaxed);
        match cut {
            Some(cut) if segment.len() >= whole => {
                self.counters.cuts.fetch_add(1, Relaxed);
                Err(Over::Cut(cut.end))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::fault_proxy::Fault;

    /// Notes how many bytes each write brings.
    #[derive(Default)]
    struct Writes(Vec<usize>);

    impl AsyncWrite for Writes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_byte_at_a_time_is_one_write_a_byte() {
        let counters = Counters::default();
        let control = watch::Sender::new(Control {
            up: Fault::in_pieces(1),
            ..Control::through(([127, 0, 0, 1], 1).into())
        });
        let lane = Lane::new(Fault::NONE, Rng::with_seed(1));
        let sent: &[u8] = &[7; 1_000];
        let mut carry = Carry::new(Direction::Up, sent, Writes::default(), lane, &counters);
        assert!(carry.run(control.subscribe()).await.is_ok());
        assert_eq!(carry.to.0, [1; 1_000]);
    }
}
