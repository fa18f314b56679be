//! The thread that drives every link to rumqttd's router, in order.
//!
//! Promises: a link's reader is stopped before its disconnect is sent; a router
//! that died is rebuilt and every link attached again. Nothing else of the
//! gateway talks to the router.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, BytesMut};
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Command, Counters, FilterNumber, LiveSubscriber};
use crate::limits;

/// One live session's link.
struct Link<S> {
    subscriber: Arc<S>,
    /// The number in its name.
    name: u32,
    filters: Vec<FilterNumber>,
    tx: LinkTx,
    reader: JoinHandle<()>,
    /// How many publications it is to take, and how many it has taken.
    due: u64,
    taken: Arc<AtomicU64>,
}

/// A filter with live subscribers.
struct Live {
    /// The number in its topic's name.
    topic: u32,
    links: Vec<u64>,
}

/// What was published since every reader had taken everything.
#[derive(Default)]
struct Untaken {
    messages: usize,
    bytes: usize,
    links: Vec<u64>,
}

/// Owns every link; the only one that talks to the router.
pub(super) struct Driver<S> {
    runtime: Handle,
    router: Option<Core>,
    links: HashMap<u64, Link<S>>,
    filters: HashMap<FilterNumber, Live>,
    /// Topic names ever used, and those that are free.
    topics: u32,
    free_topics: Vec<u32>,
    /// The same with the names of links: the router remembers each for ever. The one
    /// that is free longest is used first.
    names: u32,
    free_names: VecDeque<u32>,
    untaken: Untaken,
    counters: Arc<Counters>,
}

/// Opens a link of that name.
type OpenLink = dyn Fn(&str) -> Option<(LinkTx, LinkRx)> + Send;

/// A running router and the link that publishes into it.
struct Core {
    // Clones of this open further links. Its type can't be named outside
    // rumqttd, so it lives in the closure.
    open: Box<OpenLink>,
    publisher: LinkTx,
    // Kept so that the router never meets a vanished receiver.
    _publisher_rx: LinkRx,
}

impl Core {
    fn start() -> Option<Self> {
        let router = Router::new(
            0,
            RouterConfig {
                max_connections: limits::FANOUT_LINKS_MAX,
                max_outgoing_packet_count: 100,
                max_segment_size: limits::FANOUT_SEGMENT_BYTES,
                max_segment_count: limits::FANOUT_SEGMENTS,
                custom_segment: None,
                initialized_filters: None,
                shared_subscriptions_strategy: rumqttd::Strategy::RoundRobin,
            },
        );
        let sender = router.spawn();
        let open = Box::new(move |name: &str| {
            let (tx, rx, _) = LinkBuilder::new(name, sender.clone()).build().ok()?;
            Some((tx, rx))
        });
        let (publisher, rx) = open("gateway")?;
        Some(Self {
            open,
            publisher,
            _publisher_rx: rx,
        })
    }
}

fn router_topic(topic: u32) -> String {
    format!("f{topic}")
}

impl<S: LiveSubscriber> Driver<S> {
    /// A driver without a router yet; `runtime` runs the links' readers.
    pub(super) fn new(runtime: Handle, counters: Arc<Counters>) -> Self {
        Self {
            runtime,
            router: None,
            links: HashMap::new(),
            filters: HashMap::new(),
            topics: 0,
            free_topics: Vec::new(),
            names: 0,
            free_names: VecDeque::new(),
            untaken: Untaken::default(),
            counters,
        }
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Command<S>>) {
        self.rebuild();
        while let Some(command) = queue.blocking_recv() {
            if !self.apply(&command) {
                tracing::error!(
                    "rumqttd's router thread died; rebuilding it with {} live subscribers",
                    self.links.len()
                );
                self.counters.rebuilt.fetch_add(1, Ordering::Relaxed);
                self.rebuild();
                // The command that met the dead router is tried once more: a
                // publish would otherwise vanish for live subscribers.
                if !self.apply(&command) {
                    tracing::error!("the router died again on the same command; it is dropped");
                    self.rebuild();
                }
            }
            self.counters
                .links
                .store(self.links.len() as u64, Ordering::Relaxed);
            self.counters
                .names
                .store(u64::from(self.names), Ordering::Relaxed);
            self.counters
                .filters
                .store(self.filters.len() as u64, Ordering::Relaxed);
        }
    }

    /// Returns false if the router turned out to be dead.
    fn apply(&mut self, command: &Command<S>) -> bool {
        let Some(core) = self.router.as_mut() else {
            return false;
        };
        match command {
            Command::Publish(filter, envelope) => {
                let Some(live) = self.filters.get(filter) else {
                    return true;
                };
                let mut numbered = BytesMut::with_capacity(4 + envelope.len());
                numbered.put_u32(*filter);
                numbered.put_slice(envelope);
                let published = core
                    .publisher
                    .publish(router_topic(live.topic), numbered.freeze());
                if published.is_err() {
                    return false;
                }
                for key in &live.links {
                    if let Some(link) = self.links.get_mut(key) {
                        link.due += 1;
                        self.untaken.links.push(*key);
                    }
                }
                self.untaken.messages += 1;
                self.untaken.bytes += envelope.len();
                if self.untaken.messages >= limits::FANOUT_UNTAKEN_MAX
                    || self.untaken.bytes >= limits::FANOUT_SEGMENT_BYTES
                {
                    self.wait_until_taken();
                }
                true
            }
            Command::Attach(key, subscriber) => {
                if self.links.contains_key(key) {
                    return true;
                }
                let name = self.free_names.pop_front().unwrap_or_else(|| {
                    self.names += 1;
                    self.names
                });
                match Self::open(&self.runtime, core, name, subscriber, &self.counters) {
                    Some(link) => {
                        self.links.insert(*key, link);
                        true
                    }
                    None => {
                        self.free_names.push_back(name);
                        false
                    }
                }
            }
            Command::Detach(key) => {
                let Some(mut link) = self.links.remove(key) else {
                    return true;
                };
                self.free_names.push_back(link.name);
                for filter in std::mem::take(&mut link.filters) {
                    self.leave(filter, *key);
                }
                link.reader.abort();
                // Wait: a ready event of the reader must never follow the disconnect.
                let _ = self.runtime.block_on(link.reader);
                let goodbye = Packet::Disconnect(
                    Disconnect {
                        reason_code: DisconnectReasonCode::NormalDisconnection,
                    },
                    None,
                );
                self.runtime.block_on(link.tx.send(goodbye)).is_ok()
            }
            Command::Subscribe(key, filter) => {
                let Some(link) = self.links.get_mut(key) else {
                    return true;
                };
                if link.filters.contains(filter) {
                    return true;
                }
                let live = self.filters.entry(*filter).or_insert_with(|| Live {
                    topic: self.free_topics.pop().unwrap_or_else(|| {
                        self.topics += 1;
                        self.topics
                    }),
                    links: Vec::new(),
                });
                live.links.push(*key);
                link.filters.push(*filter);
                link.tx.subscribe(router_topic(live.topic)).is_ok()
            }
            Command::Unsubscribe(key, filter) => {
                let Some(link) = self.links.get_mut(key) else {
                    return true;
                };
                let Some(topic) = self.filters.get(filter).map(|live| live.topic) else {
                    return true;
                };
                link.filters.retain(|f| f != filter);
                let told = link.tx.unsubscribe(router_topic(topic)).is_ok();
                self.leave(*filter, *key);
                told
            }
            #[cfg(test)]
            Command::Poison => {
                // A topic that starts with a non-ASCII character panics rumqttd 0.20.
                let _ = core.publisher.publish("ñ", "x");
                true
            }
        }
    }

    /// A link has no more to do with a filter.
    fn leave(&mut self, filter: FilterNumber, key: u64) {
        if let Some(live) = self.filters.get_mut(&filter) {
            live.links.retain(|k| *k != key);
            if live.links.is_empty() {
                self.free_topics.push(live.topic);
                self.filters.remove(&filter);
            }
        }
    }

    /// Waits until every reader has taken what was published. A reader whose
    /// router has died takes nothing more, and is not waited for.
    fn wait_until_taken(&mut self) {
        let give_up = Instant::now() + limits::FANOUT_TAKE_TIMEOUT;
        for key in std::mem::take(&mut self.untaken.links) {
            let Some(link) = self.links.get_mut(&key) else {
                continue;
            };
            loop {
                let taken = link.taken.load(Ordering::Acquire);
                if taken >= link.due || link.reader.is_finished() {
                    break;
                }
                if Instant::now() >= give_up {
                    let skipped = link.due - taken;
                    tracing::warn!(
                        link = key,
                        skipped,
                        "a live subscriber's link does not take what was published"
                    );
                    self.counters.skipped.fetch_add(skipped, Ordering::Relaxed);
                    link.due = taken;
                    break;
                }
                // The reader wakes this thread; the timeout is for a dead router.
                std::thread::park_timeout(limits::FANOUT_TAKE_POLL);
            }
        }
        self.untaken = Untaken::default();
    }

    fn open(
        runtime: &Handle,
        core: &Core,
        name: u32,
        subscriber: &Arc<S>,
        counters: &Arc<Counters>,
    ) -> Option<Link<S>> {
        let (tx, rx) = (core.open)(&format!("l{name}"))?;
        let taken = Arc::new(AtomicU64::new(0));
        let reader = runtime.spawn(read(
            rx,
            subscriber.clone(),
            counters.clone(),
            taken.clone(),
            std::thread::current(),
        ));
        Some(Link {
            subscriber: subscriber.clone(),
            name,
            filters: Vec::new(),
            tx,
            reader,
            due: 0,
            taken,
        })
    }

    /// Starts a fresh router and gives every live subscriber its link back.
    fn rebuild(&mut self) {
        let mut pause = Duration::from_millis(10);
        let core = loop {
            match Core::start() {
                Some(core) => break core,
                None => {
                    tracing::error!("rumqttd's router does not start; trying again in {pause:?}");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        };
        let old = std::mem::take(&mut self.links);
        for (key, link) in old {
            link.reader.abort();
            let _ = self.runtime.block_on(link.reader);
            let (name, subscriber) = (link.name, &link.subscriber);
            let opened = Self::open(&self.runtime, &core, name, subscriber, &self.counters);
            let Some(mut fresh) = opened else {
                self.free_names.push_back(name);
                continue;
            };
            for filter in link.filters {
                if let Some(live) = self.filters.get(&filter)
                    && fresh.tx.subscribe(router_topic(live.topic)).is_ok()
                {
                    fresh.filters.push(filter);
                }
            }
            self.links.insert(key, fresh);
        }
        self.untaken = Untaken::default();
        self.router = Some(core);
    }
}

/// Carries a link's notifications to its subscriber until aborted, or until
/// the router dies; wakes `driver` when it has taken what there was.
async fn read<S: LiveSubscriber>(
    mut rx: LinkRx,
    subscriber: Arc<S>,
    counters: Arc<Counters>,
    taken: Arc<AtomicU64>,
    driver: std::thread::Thread,
) {
    loop {
        match rx.next().await {
            Ok(Some(Notification::Forward(forward))) => {
                let mut envelope = forward.publish.payload;
                if envelope.len() >= 4 {
                    let filter = envelope.get_u32();
                    if !subscriber.offer(filter, &envelope) {
                        counters.skipped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                taken.fetch_add(1, Ordering::AcqRel);
                driver.unpark();
            }
            Ok(Some(Notification::Unschedule)) => {
                if rx.wake().await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
