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
//! - A link's name is used again once it is gone: the router keeps some 400 bytes
//!   about each name it ever heard, for ever.
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

mod driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::limits;
use driver::Driver;

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
    /// Of links, ever used.
    names: AtomicU64,
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
        let driver = Driver::new(runtime, counters.clone());
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
        // The router forgets no name.
        assert_eq!(fanout.counters.names.load(Ordering::Relaxed), 2);
    }
}
