//! Live fan-out through `rumqttd`'s router: one copy in, one for each live subscriber out.
//!
//! Promises: nothing here is a source of truth. Only messages that are already
//! as durable as they must be are handed to the router, and only for sessions
//! whose state dies with their connection (clean sessions); what persistent
//! sessions are owed is queued in the store by the broker. The router is a
//! cache: if its thread dies, it is rebuilt and every live subscriber attached
//! again, without dropping a connection.
//!
//! What the router is used for, and how its sharp edges are kept off:
//! - Its topics are ours: a short ASCII name (`f17`) for each filter with live
//!   subscribers, never a client's topic. So no hostile topic reaches its parser,
//!   and its tables, which it never frees, are bounded: the names are used again.
//! - The payload is the [`Message`](risiti_mqtt::Message) envelope, so every
//!   MQTT 5 property, the publisher and the QoS travel through it unchanged;
//!   subscription options and identifiers are applied behind it.
//! - Everything is published at QoS 0: the router holds no acknowledgement
//!   state, so none can run full or out of order. Acknowledgements, packet
//!   identifiers and redelivery are the session's.
//! - All links are driven by one thread, in order: a link's reader is stopped
//!   *before* its disconnect is sent, so no ready event can follow it.
//! - A link costs about 41 KiB, so a session gets one with its first ordinary
//!   subscription only. A terminal never has one.
//! - It would drop what a reader has not taken when a segment is full. So no
//!   more is published than its segments hold until every reader has taken it;
//!   readers never wait for a client, so that takes no longer than their turn.
//! - A client that is slower than its subscriptions finds its own queue full:
//!   what does not fit is dropped and counted ([`Fanout::skipped`]).
//!
//! What travels through the router: the filter's number (u32, big-endian), then
//! the envelope.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::limits;

/// Number of an interned topic filter; used again once nobody subscribes to it.
pub type FilterNumber = u32;

/// Where a link delivers: a live session.
pub trait LiveSubscriber: Send + Sync + 'static {
    /// Takes one envelope for `filter`. Never blocks; false: its queue is full
    /// and this one is dropped.
    fn offer(&self, filter: FilterNumber, envelope: &Bytes) -> bool;
}

enum Command<S> {
    Attach(u64, Arc<S>),
    Detach(u64),
    Subscribe(u64, FilterNumber),
    Unsubscribe(u64, FilterNumber),
    Publish(FilterNumber, Bytes),
    /// Makes the router's thread panic. For the test that it is rebuilt.
    #[cfg(test)]
    Poison,
}

/// Handle to the fan-out; cheap to clone.
pub struct Fanout<S> {
    commands: mpsc::Sender<Command<S>>,
    counters: Arc<Counters>,
}

impl<S> Clone for Fanout<S> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            counters: self.counters.clone(),
        }
    }
}

#[derive(Default)]
struct Counters {
    skipped: AtomicU64,
    rebuilt: AtomicU64,
    links: AtomicU64,
    filters: AtomicU64,
}

impl<S: LiveSubscriber> Fanout<S> {
    /// Starts the router and the thread that drives its links; `runtime` runs
    /// the links' readers.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(runtime: Handle) -> std::io::Result<Self> {
        let (commands, queue) = mpsc::channel(limits::FANOUT_QUEUE);
        let counters = Arc::new(Counters::default());
        let driver = Driver {
            runtime,
            router: None,
            links: HashMap::new(),
            filters: HashMap::new(),
            topics: 0,
            free_topics: Vec::new(),
            untaken: Untaken::default(),
            counters: counters.clone(),
        };
        std::thread::Builder::new()
            .name("fanout".into())
            .spawn(move || driver.run(queue))?;
        Ok(Self { commands, counters })
    }

    /// Gives live session `link` a link of its own.
    pub async fn attach(&self, link: u64, subscriber: Arc<S>) {
        self.send(Command::Attach(link, subscriber)).await;
    }

    /// Takes the link away; nothing is offered to its subscriber afterwards
    /// except what is being offered right now.
    pub async fn detach(&self, link: u64) {
        self.send(Command::Detach(link)).await;
    }

    /// From now on `link` gets what is published for `filter`.
    pub async fn subscribe(&self, link: u64, filter: FilterNumber) {
        self.send(Command::Subscribe(link, filter)).await;
    }

    /// Undoes [`Self::subscribe`].
    pub async fn unsubscribe(&self, link: u64, filter: FilterNumber) {
        self.send(Command::Unsubscribe(link, filter)).await;
    }

    /// Fans one envelope out to every link subscribed to `filter`.
    pub async fn publish(&self, filter: FilterNumber, envelope: Bytes) {
        self.send(Command::Publish(filter, envelope)).await;
    }

    async fn send(&self, command: Command<S>) {
        if self.commands.send(command).await.is_err() {
            tracing::error!("the fan-out thread is gone; live subscribers get nothing more");
        }
    }

    /// Messages that slow live subscribers skipped.
    pub fn skipped(&self) -> u64 {
        self.counters.skipped.load(Ordering::Relaxed)
    }

    /// How often the router was rebuilt after its thread died.
    pub fn rebuilt(&self) -> u64 {
        self.counters.rebuilt.load(Ordering::Relaxed)
    }

    /// Filters with live subscribers now.
    pub fn filters(&self) -> u64 {
        self.counters.filters.load(Ordering::Relaxed)
    }

    /// Links open now.
    pub fn links(&self) -> u64 {
        self.counters.links.load(Ordering::Relaxed)
    }
}

/// One live session's link.
struct Link<S> {
    subscriber: Arc<S>,
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
struct Driver<S> {
    runtime: Handle,
    router: Option<Core>,
    links: HashMap<u64, Link<S>>,
    filters: HashMap<FilterNumber, Live>,
    /// Topic names ever used, and those that are free.
    topics: u32,
    free_topics: Vec<u32>,
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
    fn run(mut self, mut queue: mpsc::Receiver<Command<S>>) {
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
                match Self::open(&self.runtime, core, *key, subscriber, &self.counters) {
                    Some(link) => {
                        self.links.insert(*key, link);
                        true
                    }
                    None => false,
                }
            }
            Command::Detach(key) => {
                let Some(mut link) = self.links.remove(key) else {
                    return true;
                };
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
        key: u64,
        subscriber: &Arc<S>,
        counters: &Arc<Counters>,
    ) -> Option<Link<S>> {
        let (tx, rx) = (core.open)(&format!("l{key}"))?;
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
            let Some(mut fresh) =
                Self::open(&self.runtime, &core, key, &link.subscriber, &self.counters)
            else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use tokio::sync::Notify;

    #[derive(Default)]
    struct Inbox {
        got: Mutex<Vec<(FilterNumber, Bytes)>>,
        arrived: Notify,
    }

    impl LiveSubscriber for Inbox {
        fn offer(&self, filter: FilterNumber, envelope: &Bytes) -> bool {
            self.got.lock().push((filter, envelope.clone()));
            self.arrived.notify_one();
            true
        }
    }

    impl Inbox {
        async fn wait_for(&self, n: usize) -> Vec<(FilterNumber, Bytes)> {
            loop {
                let arrived = self.arrived.notified();
                let got = self.got.lock().clone();
                if got.len() >= n {
                    return got;
                }
                arrived.await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_copy_in_one_for_each_subscriber_out_in_order() {
        let fanout = Fanout::start(Handle::current()).unwrap();
        let inboxes: Vec<_> = (0..3).map(|_| Arc::new(Inbox::default())).collect();
        for (i, inbox) in inboxes.iter().enumerate() {
            fanout.attach(i as u64, inbox.clone()).await;
            fanout.subscribe(i as u64, 1).await;
        }
        for i in 0..1000u32 {
            fanout
                .publish(1, Bytes::from(i.to_be_bytes().to_vec()))
                .await;
        }
        for inbox in &inboxes {
            let got = inbox.wait_for(1000).await;
            for (i, (filter, envelope)) in got.iter().enumerate() {
                assert_eq!(*filter, 1);
                assert_eq!(envelope[..], (i as u32).to_be_bytes());
            }
        }
        assert_eq!(fanout.skipped(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dead_router_is_rebuilt_and_its_subscribers_attached_again() {
        let fanout = Fanout::start(Handle::current()).unwrap();
        let inbox = Arc::new(Inbox::default());
        fanout.attach(7, inbox.clone()).await;
        fanout.subscribe(7, 3).await;
        fanout.publish(3, Bytes::from_static(b"before")).await;
        inbox.wait_for(1).await;
        fanout.send(Command::Poison).await;
        // The thread dies a moment later; until then a publish may still find
        // its queue. Publish until one comes through the rebuilt router.
        let mut n = 0;
        while fanout.rebuilt() == 0 {
            fanout.publish(3, Bytes::from_static(b"meanwhile")).await;
            tokio::task::yield_now().await;
            n += 1;
            assert!(n < 1_000_000, "the router never died");
        }
        fanout.publish(3, Bytes::from_static(b"after")).await;
        let mut n = 2;
        while inbox.wait_for(n).await[n - 1] != (3, Bytes::from_static(b"after")) {
            n += 1;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connect_publish_disconnect_cycles_never_cut_off_an_innocent() {
        let fanout = Fanout::start(Handle::current()).unwrap();
        let innocent = Arc::new(Inbox::default());
        fanout.attach(0, innocent.clone()).await;
        fanout.subscribe(0, 1).await;
        for i in 1..500u64 {
            let other = Arc::new(Inbox::default());
            fanout.attach(i, other).await;
            fanout.subscribe(i, 1).await;
            fanout
                .publish(1, Bytes::from(i.to_be_bytes().to_vec()))
                .await;
            fanout.detach(i).await;
        }
        let got = innocent.wait_for(499).await;
        assert_eq!(got.len(), 499);
        assert_eq!(fanout.rebuilt(), 0);
    }
}
