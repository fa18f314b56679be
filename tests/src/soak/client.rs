//! A visitor's connection: a few packets of MQTT 3.1.1 and 5, from any address.
//!
//! Promises: it comes from the loopback address that it is given, as clients of many
//! networks do; every wait ends. Never: a packet that the standard does not allow
//! (hostile clients write their own bytes), or code of the gateway.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::limits;
use crate::bench::packets::{self, Incoming};

/// What CONNECT says.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Its client identifier.
    pub id: String,
    /// MQTT 5 if true, else 3.1.1.
    pub five: bool,
    /// Whether its session outlives the connection, for [`limits::SESSION_S`]; it is
    /// MQTT 5 then, for one of 3.1.1 stays for a minute at least.
    pub persistent: bool,
    /// A will on this topic.
    pub will: Option<String>,
}

impl Hello {
    fn is_five(&self) -> bool {
        self.five || self.persistent
    }

    /// CONNECT (3.1.1 and 5.0, section 3.1).
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = b"\x00\x04MQTT".to_vec();
        let five = self.is_five();
        body.push(if five { 5 } else { 4 });
        let will = if self.will.is_some() { 0b0000_1100 } else { 0 };
        let clean = u8::from(!self.persistent) << 1;
        body.push(clean | will);
        body.extend(60_u16.to_be_bytes());
        if self.persistent {
            // Session expiry interval (5.0, 3.1.2.11.2).
            body.extend([5, 0x11]);
            body.extend(limits::SESSION_S.to_be_bytes());
        } else if five {
            body.push(0);
        }
        text(&mut body, &self.id);
        if let Some(topic) = &self.will {
            if five {
                body.push(0);
            }
            text(&mut body, topic);
            text(&mut body, "gone");
        }
        frame(0x10, &body)
    }
}

/// A connection after its CONNACK.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    five: bool,
    incoming: Vec<u8>,
    next_id: u16,
    /// PUBLISHes that have come.
    pub taken: u64,
}

/// Opens a connection from an address.
///
/// # Errors
/// The operating system's.
pub async fn open(to: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = timeout(limits::VISIT, socket.connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An address of this machine like that of a client of some network.
#[must_use]
pub fn somewhere(chance: &mut fastrand::Rng) -> Ipv4Addr {
    Ipv4Addr::new(127, chance.u8(1..250), chance.u8(..), chance.u8(1..250))
}

impl Client {
    /// Connects; CONNACK must accept.
    ///
    /// # Errors
    /// It did not, or not in time.
    pub async fn connect(to: SocketAddr, from: Ipv4Addr, hello: &Hello) -> io::Result<Self> {
        let mut client = Self {
            stream: open(to, from).await?,
            five: hello.is_five(),
            incoming: Vec::new(),
            next_id: 0,
            taken: 0,
        };
        client.write(&hello.bytes()).await?;
        client
            .until(|packet| packet.first == 0x20 && packet.body.get(1) == Some(&0))
            .await?;
        Ok(client)
    }

    /// Subscribes at QoS 1; SUBACK must grant it.
    ///
    /// # Errors
    /// It did not, or not in time.
    pub async fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let mut body = self.packet_id().to_vec();
        if self.five {
            body.push(0);
        }
        text(&mut body, filter);
        body.push(1);
        self.write(&frame(0x82, &body)).await?;
        self.until(|packet| packet.first == 0x90 && packet.body.last() == Some(&1))
            .await
    }

    /// Unsubscribes.
    ///
    /// # Errors
    /// No UNSUBACK in time.
    pub async fn unsubscribe(&mut self, filter: &str) -> io::Result<()> {
        let mut body = self.packet_id().to_vec();
        if self.five {
            body.push(0);
        }
        text(&mut body, filter);
        self.write(&frame(0xa2, &body)).await?;
        self.until(|packet| packet.first == 0xb0).await
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    ///
    /// # Errors
    /// None in time.
    pub async fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) -> io::Result<()> {
        let id = self.send(topic, payload, retain).await?;
        self.until(|packet| packet.first == 0x40 && packet.body.get(..2) == Some(&id))
            .await
    }

    /// Publishes at QoS 1 as fast as PUBACKs come, `count` times; tells how many of
    /// them were acknowledged.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn flood(&mut self, topic: &str, payload: &[u8], count: u64) -> io::Result<u64> {
        let (mut sent, mut acknowledged) = (0, 0);
        while acknowledged < count {
            let window = u64::from(limits::FLOOD_WINDOW);
            while sent < count && sent < acknowledged + window {
                self.send(topic, payload, false).await?;
                sent += 1;
            }
            self.until(|packet| packet.first == 0x40).await?;
            acknowledged += 1;
        }
        Ok(acknowledged)
    }

    /// Takes its leave.
    ///
    /// # Errors
    /// The connection broke before.
    pub async fn leave(mut self) -> io::Result<()> {
        self.write(&packets::DISCONNECT).await?;
        self.stream.shutdown().await
    }

    /// Gone at once, by a reset if it sent anything, as a phone without a network.
    pub fn vanish(self) {
        let _ = self.stream.set_zero_linger();
    }

    async fn send(&mut self, topic: &str, payload: &[u8], retain: bool) -> io::Result<[u8; 2]> {
        let id = self.packet_id();
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 8);
        text(&mut body, topic);
        body.extend(id);
        if self.five {
            body.push(0);
        }
        body.extend(payload);
        self.write(&frame(0x32 | u8::from(retain), &body)).await?;
        Ok(id)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(limits::VISIT, self.stream.write_all(bytes)).await?
    }

    /// Takes packets until one is wanted. PUBLISHes are acknowledged; anything else
    /// is passed over, but for an end.
    async fn until(&mut self, wanted: impl Fn(&Incoming<'_>) -> bool) -> io::Result<()> {
        loop {
            let mut answer = Vec::new();
            let mut found = false;
            let mut rest = &self.incoming[..];
            while !found && let Some(packet) = packets::split(rest)? {
                if packet.first >> 4 == 3 {
                    self.taken += 1;
                    if packet.first & 0b110 != 0 {
                        let (id, _) = packets::delivery(packet.body)?;
                        answer.extend([0x40, 2, id[0], id[1]]);
                    }
                } else {
                    found = wanted(&packet);
                    let refused = matches!(packet.first, 0x20 | 0x90 | 0xe0);
                    if !found && refused {
                        let told = format!("refused: {:02x} {:02x?}", packet.first, packet.body);
                        return Err(io::Error::other(told));
                    }
                }
                rest = packet.behind;
            }
            let taken = self.incoming.len() - rest.len();
            self.incoming.drain(..taken);
            if !answer.is_empty() {
                self.write(&answer).await?;
            }
            if found {
                return Ok(());
            }
            let read = self.stream.read_buf(&mut self.incoming);
            if timeout(limits::VISIT, read).await?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn packet_id(&mut self) -> [u8; 2] {
        self.next_id = self.next_id % u16::MAX + 1;
        self.next_id.to_be_bytes()
    }
}

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    crate::wire_client::frame(first, body)
}

fn text(into: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a visitor's names are short");
    into.extend(length.to_be_bytes());
    into.extend(text.as_bytes());
}
