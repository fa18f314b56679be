//! A dialogue's world: a real gateway in this process, over TCP; and the record of
//! what it said, to be played again with a byte changed.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use risiti_tests::wire_client::PATIENCE;

use crate::dialogue::{Free, World};
use crate::house::House;
use crate::support::notation::show;

/// A gateway, and who is connected to it.
pub struct Live<'a> {
    house: &'a mut House,
    clients: HashMap<String, Line>,
    /// What came, by connection (client and running number), in the order of dialling.
    pub heard: Vec<Heard>,
}

struct Line {
    stream: TcpStream,
    heard: usize,
}

/// What one connection heard.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub client: String,
    /// The same name as the player's.
    pub connection: String,
    pub bytes: Vec<u8>,
    /// The gateway closed it.
    pub ended: bool,
}

impl<'a> Live<'a> {
    pub fn new(house: &'a mut House) -> Self {
        Self {
            house,
            clients: HashMap::new(),
            heard: Vec::new(),
        }
    }

    fn line(&mut self, client: &str) -> Result<&mut Line, String> {
        self.clients
            .get_mut(client)
            .ok_or_else(|| format!("{client} is not connected"))
    }

    /// Waits until the gateway has noticed who is gone.
    fn settle(&self) {
        let open = self.clients.len();
        self.house.until("a connection is gone", || {
            self.house.broker().connections() == open
        });
    }
}

impl World for Live<'_> {
    fn dial(&mut self, client: &str) -> Result<(), String> {
        let stream = TcpStream::connect(self.house.addr()).map_err(told)?;
        stream.set_nodelay(true).map_err(told)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(told)?;
        let before = self.heard.iter().filter(|h| h.client == client).count();
        self.heard.push(Heard {
            client: client.to_owned(),
            connection: format!("{client} {before}"),
            ..Heard::default()
        });
        let heard = self.heard.len() - 1;
        self.clients
            .insert(client.to_owned(), Line { stream, heard });
        Ok(())
    }

    fn send(&mut self, client: &str, bytes: &[u8]) -> Result<(), String> {
        self.line(client)?.stream.write_all(bytes).map_err(told)
    }

    fn receive(&mut self, client: &str, count: usize) -> Result<Vec<u8>, String> {
        let line = self.line(client)?;
        let mut got = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match line.stream.read(&mut got[filled..]) {
                Ok(0) => return Err(format!("closed; only < {} came", show(&got[..filled]))),
                Ok(n) => filled += n,
                Err(error) => {
                    return Err(format!("{error}; only < {} came", show(&got[..filled])));
                }
            }
        }
        let heard = line.heard;
        self.heard[heard].bytes.extend(&got);
        Ok(got)
    }

    fn ends(&mut self, client: &str) -> Result<(), String> {
        let Line { mut stream, heard } = self
            .clients
            .remove(client)
            .ok_or_else(|| format!("{client} is not connected"))?;
        let mut more = [0; 64];
        match stream.read(&mut more) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Ok(n) => return Err(format!("more came: < {}", show(&more[..n]))),
            Err(error) => return Err(format!("it does not end: {error}")),
        }
        drop(stream);
        self.heard[heard].ended = true;
        self.settle();
        Ok(())
    }

    fn drops(&mut self, client: &str) -> Result<(), String> {
        if let Some(line) = self.clients.remove(client) {
            let _gone_already = line.stream.shutdown(Shutdown::Both);
        }
        self.settle();
        Ok(())
    }

    fn clock(&mut self, ms: u64) -> Result<(), String> {
        let clock = self.house.clock.clone().ok_or("this house has no clock")?;
        clock.advance_ms(ms);
        let _context = self.house.runtime().enter();
        let broker = self.house.broker();
        broker.publish_due_wills();
        broker.expire_sessions();
        broker.expire_retained();
        Ok(())
    }

    fn restart(&mut self) -> Result<(), String> {
        for (_, line) in self.clients.drain() {
            let _gone_already = line.stream.shutdown(Shutdown::Both);
        }
        self.settle();
        self.house.restart();
        Ok(())
    }
}

fn told(error: io::Error) -> String {
    error.to_string()
}

/// What a gateway said, said again.
pub struct Replay {
    heard: Vec<Heard>,
    /// How much of each was taken; none before it is dialled.
    taken: Vec<Option<usize>>,
}

impl Replay {
    pub fn new(heard: &[Heard]) -> Self {
        Self {
            heard: heard.to_vec(),
            taken: vec![None; heard.len()],
        }
    }

    /// The same with one bit changed.
    pub fn with_wrong_bit(heard: &[Heard], connection: usize, at: usize, bit: usize) -> Self {
        let mut replay = Self::new(heard);
        replay.heard[connection].bytes[at] ^= 1 << bit;
        replay
    }

    fn connection(&self, client: &str) -> Result<usize, String> {
        (0..self.heard.len())
            .rev()
            .find(|at| self.heard[*at].client == client && self.taken[*at].is_some())
            .ok_or_else(|| format!("{client} is not connected"))
    }
}

impl World for Replay {
    fn dial(&mut self, client: &str) -> Result<(), String> {
        let next = (0..self.heard.len())
            .find(|at| self.heard[*at].client == client && self.taken[*at].is_none())
            .ok_or("it never dialled")?;
        self.taken[next] = Some(0);
        Ok(())
    }

    fn send(&mut self, client: &str, _bytes: &[u8]) -> Result<(), String> {
        self.connection(client).map(|_| ())
    }

    fn receive(&mut self, client: &str, count: usize) -> Result<Vec<u8>, String> {
        let connection = self.connection(client)?;
        let at = self.taken[connection].unwrap_or(0);
        let got = self.heard[connection]
            .bytes
            .get(at..at + count)
            .ok_or("no more came")?
            .to_vec();
        self.taken[connection] = Some(at + count);
        Ok(got)
    }

    fn ends(&mut self, client: &str) -> Result<(), String> {
        let connection = self.connection(client)?;
        let heard = &self.heard[connection];
        if heard.ended && self.taken[connection] == Some(heard.bytes.len()) {
            Ok(())
        } else {
            Err("it does not end here".to_owned())
        }
    }

    fn drops(&mut self, client: &str) -> Result<(), String> {
        let connection = self.connection(client)?;
        if self.taken[connection] == Some(self.heard[connection].bytes.len()) {
            Ok(())
        } else {
            Err("more came".to_owned())
        }
    }

    fn clock(&mut self, _ms: u64) -> Result<(), String> {
        Ok(())
    }

    fn restart(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Whether that byte may be any.
pub fn is_free(free: &[Free], connection: &str, at: usize) -> bool {
    free.iter()
        .any(|(name, from, to)| name == connection && (*from..*to).contains(&at))
}
