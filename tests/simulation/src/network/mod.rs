//! Connections that are slow, lost, half-open and late.
//!
//! Promises: TCP as a peer can rely on it (RFC 9293): bytes in their order and
//! each once, until the connection ends; and nothing beyond that. A connection may
//! be lost with what is on its way, one side or both sides or neither knowing it;
//! bytes of a dead peer may still arrive when a newer connection is open; bytes
//! may come one at a time. Never: a byte invented, or two out of order.

mod lane;

use std::collections::BTreeMap;

pub use lane::{Item, Lane};

use crate::contract::{Ms, chance};

/// Who is told that a connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knows {
    /// Both sides: a reset each way.
    Both,
    /// The client alone: the gateway's half stays open.
    Client,
    /// The gateway alone: the client's half stays open.
    Gateway,
    /// Nobody: bytes go nowhere until somebody gives up.
    Nobody,
}

/// How the way between one client and the gateways is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The shortest and the longest time that bytes take, ms.
    pub delay_ms: (Ms, Ms),
    /// Of so many segments each comes byte by byte; 0: none.
    pub crumbles_of: u8,
}

/// Something came to an end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A client wants a connection to this gateway; answer with
    /// [`Network::accept`] or [`Network::refuse`], or not at all.
    Knock {
        /// The connection.
        conn: u64,
        /// To this gateway.
        gateway: usize,
    },
    /// Bytes for a gateway.
    ToGateway {
        /// The connection.
        conn: u64,
        /// This gateway.
        gateway: usize,
        /// In their order.
        bytes: Vec<u8>,
    },
    /// The gateway's half ends.
    GatewayClosed {
        /// The connection.
        conn: u64,
        /// This gateway.
        gateway: usize,
    },
    /// The gateway took the connection.
    Accepted {
        /// The connection.
        conn: u64,
        /// Its client.
        client: usize,
    },
    /// It did not, or the connection has ended.
    ClientClosed {
        /// The connection.
        conn: u64,
        /// Its client.
        client: usize,
    },
    /// Bytes for a client.
    ToClient {
        /// The connection.
        conn: u64,
        /// Its client.
        client: usize,
        /// In their order.
        bytes: Vec<u8>,
    },
}

#[derive(Debug)]
struct Link {
    client: usize,
    gateway: usize,
    up: Lane,
    down: Lane,
    /// Each half, as its own side knows it.
    client_open: bool,
    gateway_open: bool,
}

/// What went on, for the coverage of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections asked for.
    pub opened: u64,
    /// Connections lost with what was on its way.
    pub lost: u64,
    /// Segments that came byte by byte.
    pub crumbled: u64,
    /// Bytes that came for a connection whose client had a newer one open.
    pub late: u64,
}

/// All connections of a run.
pub struct Network {
    /// By client.
    ways: Vec<Way>,
    links: BTreeMap<u64, Link>,
    chances: Vec<fastrand::Rng>,
    opened: u64,
    /// What went on.
    pub traffic: Traffic,
}

impl Network {
    /// For clients with these ways.
    #[must_use]
    pub fn new(ways: Vec<Way>, seed: u64) -> Self {
        let name = |client| format!("way {client}");
        Self {
            chances: (0..ways.len()).map(|c| chance(seed, &name(c))).collect(),
            ways,
            links: BTreeMap::new(),
            opened: 0,
            traffic: Traffic::default(),
        }
    }

    /// The way of this client becomes another; what is on its way keeps its time.
    pub fn set_way(&mut self, client: usize, way: Way) {
        self.ways[client] = way;
    }

    /// How the way of this client is.
    #[must_use]
    pub fn way(&self, client: usize) -> Way {
        self.ways[client]
    }

    /// Nothing of this client comes through before that, either way; nothing is
    /// lost by it.
    pub fn stall(&mut self, client: usize, until_ms: Ms) {
        for link in self.links.values_mut().filter(|l| l.client == client) {
            link.up.stall(until_ms);
            link.down.stall(until_ms);
        }
    }

    /// A client asks for a connection.
    pub fn open(&mut self, client: usize, gateway: usize, now_ms: Ms) -> u64 {
        self.opened += 1;
        self.traffic.opened += 1;
        let mut link = Link {
            client,
            gateway,
            up: Lane::default(),
            down: Lane::default(),
            client_open: true,
            gateway_open: false,
        };
        let delay_ms = self.delay(client);
        link.up.push(Item::Open, now_ms + delay_ms);
        self.links.insert(self.opened, link);
        self.opened
    }

    /// The gateway takes it.
    pub fn accept(&mut self, conn: u64, now_ms: Ms) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.gateway_open = true;
        }
        self.down(conn, Item::Open, now_ms);
    }

    /// Nobody listens there, or nobody knows this connection.
    pub fn refuse(&mut self, conn: u64, now_ms: Ms) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.gateway_open = false;
        }
        self.down(conn, Item::End, now_ms);
    }

    /// A client sends.
    pub fn from_client(&mut self, conn: u64, bytes: Vec<u8>, now_ms: Ms) {
        self.up(conn, Item::Bytes(bytes), now_ms);
    }

    /// A client closes.
    pub fn client_closes(&mut self, conn: u64, now_ms: Ms) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.client_open = false;
        }
        self.up(conn, Item::End, now_ms);
    }

    /// A gateway sends.
    pub fn from_gateway(&mut self, conn: u64, bytes: Vec<u8>, now_ms: Ms) {
        self.down(conn, Item::Bytes(bytes), now_ms);
    }

    /// A gateway closes.
    pub fn gateway_closes(&mut self, conn: u64, now_ms: Ms) {
        self.refuse(conn, now_ms);
    }

    /// A client is gone without a word: of what it had sent, what had left the
    /// modem still arrives; then nothing.
    pub fn client_vanishes(&mut self, client: usize) {
        let chance = &mut self.chances[client];
        for link in self.links.values_mut().filter(|l| l.client == client) {
            link.client_open = false;
            link.up.keep_some(chance);
            link.up.ends_silently();
            link.down.close();
        }
        self.sweep();
    }

    /// A gateway's process is gone: its peers hear so (`tells`: the machine lives
    /// and resets), or don't.
    pub fn gateway_vanishes(&mut self, gateway: usize, tells: bool, now_ms: Ms) {
        let conns: Vec<u64> = self.of(|link| link.gateway == gateway);
        for conn in conns {
            let Some(link) = self.links.get_mut(&conn) else {
                continue;
            };
            let chance = &mut self.chances[link.client];
            link.gateway_open = false;
            link.down.keep_some(chance);
            link.up.close();
            if tells {
                self.down(conn, Item::End, now_ms);
            }
        }
        self.sweep();
    }

    /// The connections of a client are lost with what is on its way.
    pub fn lose(&mut self, client: usize, knows: Knows, now_ms: Ms) {
        for conn in self.of(|link| link.client == client) {
            let Some(link) = self.links.get_mut(&conn) else {
                continue;
            };
            self.traffic.lost += 1;
            let chance = &mut self.chances[client];
            link.up.keep_some(chance);
            link.down.keep_some(chance);
            if matches!(knows, Knows::Both | Knows::Gateway) {
                self.up(conn, Item::End, now_ms);
            }
            if matches!(knows, Knows::Both | Knows::Client) {
                self.down(conn, Item::End, now_ms);
            }
            if let Some(link) = self.links.get_mut(&conn) {
                link.up.ends_silently();
                link.down.ends_silently();
            }
        }
    }

    /// What is on the way up of a client comes so much later: it may find a newer
    /// connection there.
    pub fn delay_up(&mut self, client: usize, by_ms: Ms) {
        for link in self.links.values_mut().filter(|l| l.client == client) {
            link.up.delay(by_ms);
        }
    }

    /// When something arrives next.
    #[must_use]
    pub fn due_ms(&self) -> Ms {
        let dues = self.links.values();
        let dues = dues.flat_map(|link| [link.up.due_ms(), link.down.due_ms()]);
        dues.min().unwrap_or(Ms::MAX)
    }

    /// What arrives by now, by connection.
    pub fn arrivals(&mut self, now_ms: Ms, into: &mut Vec<Arrival>) {
        if self.due_ms() > now_ms {
            return;
        }
        let newest: BTreeMap<usize, u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.client_open)
            .map(|(conn, link)| (link.client, *conn))
            .collect();
        for (&conn, link) in &mut self.links {
            let (client, gateway) = (link.client, link.gateway);
            while let Some(item) = link.up.pop(now_ms) {
                match item {
                    Item::Open => into.push(Arrival::Knock { conn, gateway }),
                    Item::Bytes(bytes) => {
                        if newest.get(&client).is_some_and(|newest| *newest > conn) {
                            self.traffic.late += 1;
                        }
                        into.push(Arrival::ToGateway {
                            conn,
                            gateway,
                            bytes,
                        });
                    }
                    Item::End => {
                        link.up.close();
                        if std::mem::take(&mut link.gateway_open) {
                            into.push(Arrival::GatewayClosed { conn, gateway });
                        }
                    }
                }
            }
            while let Some(item) = link.down.pop(now_ms) {
                if !link.client_open {
                    continue;
                }
                match item {
                    Item::Open => into.push(Arrival::Accepted { conn, client }),
                    Item::Bytes(bytes) => into.push(Arrival::ToClient {
                        conn,
                        client,
                        bytes,
                    }),
                    Item::End => {
                        link.client_open = false;
                        link.down.close();
                        into.push(Arrival::ClientClosed { conn, client });
                    }
                }
            }
        }
        self.sweep();
    }

    /// Whose connection this is, if anybody remembers.
    #[must_use]
    pub fn client_of(&self, conn: u64) -> Option<usize> {
        self.links.get(&conn).map(|link| link.client)
    }

    fn of(&self, which: impl Fn(&Link) -> bool) -> Vec<u64> {
        let those = self.links.iter().filter(|(_, link)| which(link));
        those.map(|(conn, _)| *conn).collect()
    }

    /// Forgets what neither side has, and nothing is on its way for.
    fn sweep(&mut self) {
        self.links.retain(|_, link| {
            link.client_open || link.gateway_open || !link.up.is_idle() || !link.down.is_idle()
        });
    }

    fn delay(&mut self, client: usize) -> Ms {
        let (least, most) = self.ways[client].delay_ms;
        self.chances[client].u64(least..=most.max(least))
    }

    fn up(&mut self, conn: u64, item: Item, now_ms: Ms) {
        self.put(conn, item, now_ms, |link| &mut link.up);
    }

    fn down(&mut self, conn: u64, item: Item, now_ms: Ms) {
        self.put(conn, item, now_ms, |link| &mut link.down);
    }

    fn put(&mut self, conn: u64, item: Item, now_ms: Ms, lane: impl Fn(&mut Link) -> &mut Lane) {
        let Some(client) = self.client_of(conn) else {
            return;
        };
        let at_ms = now_ms + self.delay(client);
        let of = self.ways[client].crumbles_of;
        let crumbles = of > 0 && self.chances[client].u8(0..of) == 0;
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        match item {
            Item::Bytes(bytes) if crumbles => {
                self.traffic.crumbled += 1;
                for (place, byte) in bytes.into_iter().enumerate() {
                    lane(link).push(Item::Bytes(vec![byte]), at_ms + place as Ms);
                }
            }
            item => lane(link).push(item, at_ms),
        }
    }
}
