//! The producer's side of librdkafka: delivery reports and lost connections.
//!
//! Promises: every record that was handed over gets one delivery. Never: a
//! future or an allocation a record.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, ProducerContext};

use super::core::Delivery;
use crate::transactional::Reports;

/// A producer that counts its deliveries.
pub type Producer = BaseProducer<Context>;

/// The deliveries of the batch under way.
#[derive(Debug, Default)]
struct Tally {
    deliveries: Vec<Delivery>,
    /// Partition and offset of what was delivered.
    places: Vec<(i32, i64)>,
    pending: usize,
    failed: bool,
}

/// What librdkafka calls back.
#[derive(Debug, Default)]
pub struct Context {
    tally: Mutex<Tally>,
    down: AtomicBool,
    last_error: Mutex<Option<String>>,
    distrust: Mutex<Option<String>>,
}

impl Context {
    /// Begins a batch of that many places. The one before must have no message
    /// in flight any more.
    pub fn begin(&self, places: usize) {
        let mut tally = self.tally.lock();
        tally.deliveries.clear();
        tally.deliveries.resize(places, Delivery::Pending);
        tally.places.clear();
        tally.places.resize(places, (-1, -1));
        tally.pending = 0;
        tally.failed = false;
    }

    /// The record of this place was handed over.
    pub fn handed_over(&self) {
        self.tally.lock().pending += 1;
    }

    /// The record of this place was refused before it was sent.
    pub fn refused(&self, place: usize, code: RDKafkaErrorCode) {
        let mut tally = self.tally.lock();
        tally.deliveries[place] = Delivery::Local(code);
        tally.failed = true;
    }

    /// Messages without delivery report, and whether any has failed.
    pub fn progress(&self) -> (usize, bool) {
        let tally = self.tally.lock();
        (tally.pending, tally.failed)
    }

    /// The deliveries so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.tally.lock().deliveries.clone()
    }

    /// Shows partition and offset of each delivered record, by its place.
    pub fn with_places(&self, look: impl FnOnce(&[(i32, i64)])) {
        look(&self.tally.lock().places);
    }

    /// Whether all connections were lost since [`Self::set_up`].
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// The cluster is asked anew.
    pub fn set_up(&self) {
        self.down.store(false, Ordering::Relaxed);
    }

    /// Takes what was said since the last call about credentials or certificates
    /// that one side does not accept, in words.
    pub fn take_distrust(&self) -> Option<String> {
        self.distrust.lock().take()
    }

    /// The last error of the connection, in words.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes as an error or a delivery; this is for a developer.
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.down.store(true, Ordering::Relaxed);
        } else {
            *self.last_error.lock() = Some(reason.to_owned());
        }
        // With TLS 1.3 a broker refuses a client's certificate only after the
        // handshake; librdkafka then calls that a lost connection.
        let distrust = match code {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => true,
            Some(RDKafkaErrorCode::BrokerTransportFailure) => reason.contains("SSL routines"),
            _ => false,
        };
        if distrust {
            *self.distrust.lock() = Some(reason.to_owned());
        }
        tracing::debug!(%error, reason, "librdkafka reports");
    }
}

impl Reports for Context {
    fn pending(&self) -> usize {
        self.tally.lock().pending
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let mut tally = self.tally.lock();
        let delivery = match result {
            Ok(message) => {
                if let Some(known) = tally.places.get_mut(place) {
                    *known = (message.partition(), message.offset());
                }
                Delivery::Delivered
            }
            Err((error, _)) => {
                tally.failed = true;
                let code = error.rdkafka_error_code();
                Delivery::Failed(code.unwrap_or(RDKafkaErrorCode::Unknown))
            }
        };
        tally.pending = tally.pending.saturating_sub(1);
        if let Some(known) = tally.deliveries.get_mut(place) {
            *known = delivery;
        }
    }
}
