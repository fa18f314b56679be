//! The terminals: a connection each, payments when they are due, receipts
//! acknowledged as they come.
//!
//! Promises: all of them on one thread, so that the generator takes little from
//! what it measures; a payment waits for no answer. Never: a payment sent twice.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use risiti_wire::{Account, Currency, Payment, Receipt, Record, RecordBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Notebook, note, terminal_id};
use crate::bench::{limits, packets};

/// Runs all terminals until each has its receipts, or `patience` after its last
/// payment. Each is connected and subscribed before the first payment of any.
///
/// # Errors
/// The gateway refused or closed a connection.
pub async fn run(
    gateway: SocketAddr,
    terminals: usize,
    begin: impl FnOnce() -> Arc<Notebook>,
    patience: Duration,
) -> io::Result<Arc<Notebook>> {
    let mut streams = Vec::new();
    for terminal in 0..terminals {
        streams.push(subscribed(gateway, &terminal_id(terminal)).await?);
    }
    let notebook = begin();
    let tasks: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(terminal, stream)| {
            let notebook = Arc::clone(&notebook);
            tokio::spawn(async move {
                Terminal::new(terminal, stream, &notebook)
                    .live(patience)
                    .await
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(io::Error::other)??;
    }
    Ok(notebook)
}

/// A connection with a session whose receipts are subscribed to.
async fn subscribed(gateway: SocketAddr, id: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&packets::connect(id)).await?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await?;
    if connack != packets::CONNACK {
        return Err(io::Error::other(format!("{id}: CONNACK {connack:02x?}")));
    }
    let filter = format!("t/{id}/receipts");
    stream.write_all(&packets::subscribe(&filter)).await?;
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).await?;
    if suback[0] != 0x90 || suback[4] != 1 {
        return Err(io::Error::other(format!("{id}: SUBACK {suback:02x?}")));
    }
    Ok(stream)
}

struct Terminal<'a> {
    topic: String,
    stream: TcpStream,
    notebook: &'a Notebook,
    payments: &'a [super::Times],
    /// Payments sent.
    sent: usize,
    /// Receipts taken.
    received: usize,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl<'a> Terminal<'a> {
    fn new(terminal: usize, stream: TcpStream, notebook: &'a Notebook) -> Self {
        Self {
            topic: format!("t/{}/records", terminal_id(terminal)),
            stream,
            notebook,
            payments: notebook.of(terminal),
            sent: 0,
            received: 0,
            incoming: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    async fn live(mut self, patience: Duration) -> io::Result<()> {
        while self.sent < self.payments.len() {
            let due = self.payments[self.sent].due.load(Ordering::Relaxed);
            let at = Instant::from_std(self.notebook.began() + Duration::from_nanos(due));
            tokio::select! {
                () = sleep_until(at) => self.pay()?,
                read = self.stream.read_buf(&mut self.incoming) => self.take(read?)?,
            }
            self.flush().await?;
        }
        let rest = async {
            while self.received < self.payments.len() {
                let read = self.stream.read_buf(&mut self.incoming).await?;
                self.take(read)?;
                self.flush().await?;
            }
            Ok(())
        };
        // What has not come by then is told by the report.
        timeout(patience, rest).await.unwrap_or(Ok(()))
    }

    fn pay(&mut self) -> io::Result<()> {
        self.sent += 1;
        let mut buffer = [0; risiti_wire::limits::RECORD_BYTES_MAX];
        let record = Record {
            sequence: self.sent as u64,
            resend: false,
            body: RecordBody::Payment(Payment {
                time_s: 1_763_700_000,
                account: Account::new("1234567890").map_err(wire)?,
                amount_minor: 1_000 + self.sent as u64,
                currency: Currency::new(404).map_err(wire)?,
                reference: Some("pupil 12"),
            }),
        };
        let payload = record.encode(&mut buffer).map_err(wire)?;
        // No more than 65,535 are sent, so an identifier is never used twice.
        let packet_id = u16::try_from(self.sent).map_err(io::Error::other)?;
        packets::publish(&self.topic, packet_id, payload, &mut self.outgoing);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.outgoing.is_empty() {
            self.stream.write_all(&self.outgoing).await?;
            self.outgoing.clear();
        }
        Ok(())
    }

    fn take(&mut self, read: usize) -> io::Result<()> {
        if read == 0 {
            return Err(io::Error::other("the gateway closed the connection"));
        }
        let now = self.notebook.now();
        let mut rest = &self.incoming[..];
        while let Some(packet) = packets::split(rest)? {
            match packet.first & 0xF0 {
                0x40 if packet.body.len() >= 2 => {
                    let sequence =
                        usize::from(u16::from_be_bytes([packet.body[0], packet.body[1]]));
                    if let Some(times) = self.payments.get(sequence.wrapping_sub(1)) {
                        note(&times.acknowledged, now);
                    }
                }
                0x30 => {
                    let (packet_id, payload) = packets::delivery(packet.body)?;
                    let receipt = Receipt::decode(payload).map_err(wire)?;
                    let index = usize::try_from(receipt.sequence).map_err(io::Error::other)?;
                    if let Some(times) = self.payments.get(index.wrapping_sub(1)) {
                        note(&times.received, now);
                        if times.receipts.fetch_add(1, Ordering::Relaxed) == 0 {
                            self.received += 1;
                        }
                    }
                    self.outgoing.extend([0x40, 2]);
                    self.outgoing.extend(packet_id);
                }
                other => return Err(io::Error::other(format!("a packet {other:02x}"))),
            }
            rest = packet.behind;
        }
        let taken = self.incoming.len() - rest.len();
        self.incoming.drain(..taken);
        self.incoming.reserve(limits::READ_BYTES);
        Ok(())
    }
}

fn wire(error: risiti_wire::WireError) -> io::Error {
    io::Error::other(format!("{error:?}"))
}
