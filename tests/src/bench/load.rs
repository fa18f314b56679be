//! The load: many MQTT clients on one thread, each with a full window.
//!
//! Promises: closed loop, so every PUBACK is answered by one PUBLISH and each
//! client has exactly its window unacknowledged; whatever came back of one read
//! is answered by one write; a PUBACK out of order is an error (MQTT-4.6.0-2).
//! Never: work that one generator does and another does not.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::packets::{CONNACK, DISCONNECT, Pubacks, Publish, connect};
use super::sample::{Sample, latency_units};
use super::{Cell, limits, machine};

/// How long a wait for events lasts at most before the clock is looked at.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// The connections of one cell.
#[derive(Debug)]
pub struct Load {
    epoll: OwnedFd,
    clients: Vec<Client>,
    window: usize,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    publish: Publish,
    pubacks: Pubacks,
    /// When each unacknowledged PUBLISH was written, oldest first.
    sent_at: VecDeque<Instant>,
    /// The identifier that the next PUBACK must have.
    expected: u16,
    next_packet_id: u16,
    /// Bytes that the socket did not take yet.
    out: Vec<u8>,
    waits_to_write: bool,
}

/// The client identifier and the topic of one client.
#[must_use]
pub fn names(client: usize) -> (String, String) {
    (
        format!("bench-{client:05}"),
        format!("bench/{client:05}/records"),
    )
}

impl Load {
    /// Connects all clients of a cell, clean session, one after the other.
    ///
    /// # Errors
    /// A client was not accepted.
    pub fn connect(address: SocketAddr, cell: Cell, payload: &[u8]) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut clients = Vec::with_capacity(cell.clients);
        for number in 0..cell.clients {
            let (client_id, topic) = names(number);
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(limits::STALL))?;
            stream.write_all(&connect(&client_id))?;
            let mut answer = [0; CONNACK.len()];
            stream.read_exact(&mut answer)?;
            if answer != CONNACK {
                return Err(io::Error::other(format!("CONNECT answered {answer:02x?}")));
            }
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            clients.push(Client {
                stream,
                publish: Publish::new(&topic, payload),
                pubacks: Pubacks::default(),
                sent_at: VecDeque::with_capacity(cell.window),
                expected: 1,
                next_packet_id: 1,
                out: Vec::new(),
                waits_to_write: false,
            });
        }
        Ok(Self {
            epoll,
            clients,
            window: cell.window,
        })
    }

    /// Fills every window, keeps them full while it warms up and measures, then
    /// waits for all PUBACKs and disconnects.
    ///
    /// `server_cpu` tells the processor time that the server has used so far.
    ///
    /// # Errors
    /// A connection ended, an acknowledgement was wrong, or none came for
    /// [`limits::STALL`].
    pub fn run(
        mut self,
        warm_up: Duration,
        measured: Duration,
        server_cpu: impl Fn() -> io::Result<Duration>,
    ) -> io::Result<Sample> {
        let mut buffer = vec![0; limits::READ_BYTES];
        let window = self.window;
        for (number, client) in self.clients.iter_mut().enumerate() {
            client.send(window, &self.epoll, number)?;
        }
        let start = Instant::now() + warm_up;
        let end = start + measured;
        let mut sample = Sample {
            elapsed: measured,
            ..Sample::default()
        };
        let mut cpu_at_start = None;
        let mut cpu_at_end = None;
        let mut last_ack = Instant::now();
        let mut events = Vec::with_capacity(limits::EVENTS);
        let mut unacknowledged = window * self.clients.len();
        while unacknowledged > 0 {
            events.clear();
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&TICK),
            )?;
            let now = Instant::now();
            if now >= start && cpu_at_start.is_none() {
                cpu_at_start = Some((machine::thread_cpu()?, server_cpu()?));
            }
            if now >= end && cpu_at_end.is_none() {
                cpu_at_end = Some((machine::thread_cpu()?, server_cpu()?));
            }
            if now - last_ack > limits::STALL {
                return Err(io::Error::other("no PUBACK came for too long"));
            }
            for event in &events {
                let number = event.data.u64() as usize;
                let Some(client) = self.clients.get_mut(number) else {
                    continue;
                };
                if client.waits_to_write {
                    client.flush(&self.epoll, number)?;
                }
                let latencies = &mut sample.latencies;
                let (now, acks) = client.receive(&mut buffer, |now, latency| {
                    if now >= start && now < end {
                        latencies.push(latency_units(latency));
                    }
                })?;
                if acks == 0 {
                    continue;
                }
                last_ack = now;
                if now < end {
                    client.send(acks, &self.epoll, number)?;
                } else {
                    unacknowledged -= acks;
                }
            }
        }
        sample.acks = sample.latencies.len() as u64;
        sample.published = (self.clients.iter())
            .map(|client| client.publish.count())
            .sum();
        if let (Some(before), Some(after)) = (cpu_at_start, cpu_at_end) {
            sample.generator_cpu = after.0.saturating_sub(before.0);
            sample.server_cpu = Some(after.1.saturating_sub(before.1));
        }
        for client in &mut self.clients {
            client.stream.write_all(&DISCONNECT)?;
        }
        Ok(sample)
    }
}

impl Client {
    /// Reads once and tells the latency of every PUBACK; how many, and when.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        mut each: impl FnMut(Instant, Duration),
    ) -> io::Result<(Instant, usize)> {
        let read = match self.stream.read(buffer) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok((Instant::now(), 0));
            }
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        let mut acks = 0;
        let (expected, sent_at) = (&mut self.expected, &mut self.sent_at);
        self.pubacks.take(&buffer[..read], |packet_id| {
            let sent = sent_at.pop_front();
            let (Some(sent), true) = (sent, packet_id == *expected) else {
                return Err(io::Error::other(format!(
                    "PUBACK of {packet_id} where {expected} was to come"
                )));
            };
            *expected = following(*expected);
            acks += 1;
            each(now, now - sent);
            Ok(())
        })?;
        Ok((now, acks))
    }

    fn send(&mut self, count: usize, epoll: &OwnedFd, number: usize) -> io::Result<()> {
        let now = Instant::now();
        for _ in 0..count {
            self.publish.append(self.next_packet_id, &mut self.out);
            self.next_packet_id = following(self.next_packet_id);
            self.sent_at.push_back(now);
        }
        self.flush(epoll, number)
    }

    fn flush(&mut self, epoll: &OwnedFd, number: usize) -> io::Result<()> {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.write(&self.out[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..written);
        let waits = !self.out.is_empty();
        if waits != self.waits_to_write {
            self.waits_to_write = waits;
            let mut interest = epoll::EventFlags::IN;
            interest.set(epoll::EventFlags::OUT, waits);
            let data = epoll::EventData::new_u64(number as u64);
            epoll::modify(epoll, &self.stream, data, interest)?;
        }
        Ok(())
    }
}

/// The identifier after this one; 0 is none (MQTT-2.3.1-1).
fn following(packet_id: u16) -> u16 {
    packet_id.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Takes one client and acknowledges as `answer` says, until it disconnects.
    fn broker(answer: fn(u16) -> u16) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut connect = [0; 25];
            stream.read_exact(&mut connect).unwrap();
            stream.write_all(&CONNACK).unwrap();
            let mut publish = Vec::new();
            Publish::new(&names(0).1, &[0; 16]).append(1, &mut publish);
            let packet_id_at = publish.len() - 18;
            while stream.read_exact(&mut publish).is_ok() {
                let id = u16::from_be_bytes([publish[packet_id_at], publish[packet_id_at + 1]]);
                let [high, low] = answer(id).to_be_bytes();
                if stream.write_all(&[0x40, 2, high, low]).is_err() {
                    return;
                }
            }
        });
        address
    }

    fn run(address: SocketAddr) -> io::Result<Sample> {
        let cell = Cell {
            clients: 1,
            window: 3,
        };
        let short = Duration::from_millis(50);
        Load::connect(address, cell, &[0; 16])?.run(short, short, || Ok(Duration::ZERO))
    }

    #[test]
    fn every_puback_is_counted_once() {
        let sample = run(broker(|id| id)).unwrap();
        assert!(sample.acks > 0);
        assert_eq!(sample.acks, sample.latencies.len() as u64);
        assert!(
            sample.published >= sample.acks + 3,
            "the warm-up's first window"
        );
    }

    #[test]
    fn a_puback_out_of_order_is_an_error() {
        let error = run(broker(|id| if id == 2 { 3 } else { id })).unwrap_err();
        assert!(error.to_string().contains("PUBACK of 3 where 2"), "{error}");
    }
}
