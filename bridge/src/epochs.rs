//! Which routing table a record is judged by: the one it was accepted under.
//!
//! Promises: a record that waits while the routes change, by a reload or by a
//! restart with another configuration, is forwarded by the table under which it
//! was accepted, and by the same one in every forwarder. Otherwise a route that
//! moves from one cluster to another would lose what one forwarder has passed and
//! the other has not. Never: a table kept for longer than the journal has records
//! of its time, or more than [`limits::ROUTE_EPOCHS_MAX`] of them.
//!
//! In the state database, version 1, one row a table:
//!
//! | part  | bytes                                                                     |
//! |-------|---------------------------------------------------------------------------|
//! | key   | `e/<journal id>-<first position it applies to, 20 digits>`                |
//! | value | CBOR array: version 1, index of the terminal's level, array of routes     |
//! | route | CBOR array of texts: name, filter, cluster, topic, key, `risiti` \| `raw` |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minicbor::decode::Error as DecodeError;
use minicbor::{Decoder, Encoder};
use parking_lot::{Mutex, RwLock};
use risiti_config::{Format, Key, Route};
use risiti_store::{Position, RecordSource, StoreError};

use crate::dead_letters::{DeadLetterStore, Page};
use crate::limits;
use crate::route::Routes;

const VERSION: u8 = 1;
const PREFIX: &str = "e/";
const ROUTE_FIELDS: u64 = 6;

/// A table and the position from which it applies.
type Epoch = (Position, Arc<Routes>);

/// The routing tables in force, each from a position on.
#[derive(Debug)]
pub struct SharedRoutes {
    epochs: RwLock<Arc<Vec<Epoch>>>,
    /// Clusters that have a forwarder.
    clusters: RwLock<Arc<BTreeSet<String>>>,
    /// Where the tables are kept, from the first forwarder's start on.
    kept: Mutex<Option<Kept>>,
    /// Whether memory has what the disk does not.
    unsaved: AtomicBool,
}

struct Kept {
    store: Arc<dyn DeadLetterStore>,
    source: Arc<dyn RecordSource>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl SharedRoutes {
    /// This table, for every position.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self {
            epochs: RwLock::new(Arc::new(vec![(0, Arc::new(routes))])),
            clusters: RwLock::default(),
            kept: Mutex::new(None),
            unsaved: AtomicBool::new(false),
        }
    }

    /// Takes back the tables that records in this journal were accepted under,
    /// and puts the newest one in force from the journal's end on if it is not
    /// among them. Once; later calls do nothing. From here on every change is on
    /// disk before it is in force.
    ///
    /// # Errors
    /// The disk's. A table that is damaged is reported and left out.
    pub(crate) fn keep_in(
        &self,
        store: Arc<dyn DeadLetterStore>,
        source: Arc<dyn RecordSource>,
    ) -> Result<(), StoreError> {
        let mut kept = self.kept.lock();
        if kept.is_some() {
            return Ok(());
        }
        let configured = self.newest();
        let end = source.end();
        let mut epochs = load(&*store, source.journal_id())?;
        // Only damage shortens a journal; what it gets from here on is new.
        epochs.retain(|(from, _)| *from < end);
        let former = epochs.last().map(|(_, table)| Arc::clone(table));
        match former {
            None => epochs.push((0, configured)),
            Some(former) if former == configured => {}
            Some(_) => {
                tracing::info!(
                    from = end,
                    "the routes have changed; what waits goes by the former ones"
                );
                epochs.push((end, configured));
            }
        }
        let place = Kept { store, source };
        let epochs = bounded(epochs, place.source.oldest());
        place.save(&epochs)?;
        *self.epochs.write() = Arc::new(epochs);
        *kept = Some(place);
        Ok(())
    }

    /// Notes that this cluster has a forwarder.
    pub(crate) fn serve(&self, cluster: &str) {
        let mut clusters = self.clusters.write();
        Arc::make_mut(&mut clusters).insert(cluster.into());
    }

    /// The clusters that have a forwarder.
    pub(crate) fn clusters(&self) -> Arc<BTreeSet<String>> {
        Arc::clone(&self.clusters.read())
    }

    /// Puts a table in force from a position on: the journal's end at the time.
    pub fn replace(&self, routes: Routes, from: Position) {
        let kept = self.kept.lock();
        let mut next: Vec<_> = self.epochs.read().to_vec();
        next.retain(|(at, _)| *at < from);
        next.push((from, Arc::new(routes)));
        let oldest = kept.as_ref().map_or(0, |kept| kept.source.oldest());
        let next = bounded(next, oldest);
        if let Some(kept) = &*kept
            && let Err(error) = kept.save(&next)
        {
            tracing::error!(%error, "the routes are in force but not on disk yet; tried again");
            self.unsaved.store(true, Ordering::Release);
        }
        *self.epochs.write() = Arc::new(next);
    }

    /// Saves again what could not be saved. Cheap if there is nothing to do.
    pub(crate) fn save_if_needed(&self) {
        if !self.unsaved.load(Ordering::Acquire) {
            return;
        }
        let kept = self.kept.lock();
        let epochs = Arc::clone(&self.epochs.read());
        if kept.as_ref().is_none_or(|kept| kept.save(&epochs).is_ok()) {
            self.unsaved.store(false, Ordering::Release);
        }
    }

    /// The table for a position, and the position at which the next one begins.
    #[must_use]
    pub fn at(&self, position: Position) -> (Arc<Routes>, Option<Position>) {
        let epochs = Arc::clone(&self.epochs.read());
        let index = epochs
            .partition_point(|(from, _)| *from <= position)
            .saturating_sub(1);
        (
            Arc::clone(&epochs[index].1),
            epochs.get(index + 1).map(|(from, _)| *from),
        )
    }

    /// The newest table.
    #[must_use]
    pub fn newest(&self) -> Arc<Routes> {
        self.at(Position::MAX).0
    }

    /// The Kafka topics that a cluster's routes name in any table in force.
    #[must_use]
    pub fn topics(&self, cluster: &str) -> Vec<String> {
        let epochs = Arc::clone(&self.epochs.read());
        let topics: BTreeSet<String> = epochs
            .iter()
            .flat_map(|(_, table)| table.topics(cluster))
            .collect();
        topics.into_iter().collect()
    }
}

impl Kept {
    /// Makes the rows be these tables.
    fn save(&self, epochs: &[Epoch]) -> Result<(), StoreError> {
        let journal = self.source.journal_id();
        let wanted: Page = epochs
            .iter()
            .map(|(from, table)| (key(journal, *from), encode(table)))
            .collect();
        let present = rows(&*self.store)?;
        let missing: Vec<_> = wanted
            .iter()
            .filter(|row| !present.contains(row))
            .cloned()
            .collect();
        // Written before anything is deleted: a cut in between leaves too many.
        if !missing.is_empty() {
            self.store.put(missing)?;
        }
        for (old, _) in &present {
            if !wanted.iter().any(|(key, _)| key == old) {
                self.store.delete(old)?;
            }
        }
        Ok(())
    }
}

/// Leaves out the tables of which no record is left, and keeps within the bound.
fn bounded(mut epochs: Vec<Epoch>, oldest: Position) -> Vec<Epoch> {
    let needed = epochs
        .partition_point(|(from, _)| *from <= oldest)
        .saturating_sub(1);
    epochs.drain(..needed);
    while epochs.len() > limits::ROUTE_EPOCHS_MAX {
        epochs.remove(1);
    }
    epochs
}

fn rows(store: &dyn DeadLetterStore) -> Result<Page, StoreError> {
    let mut all = Page::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone());
        let page = store.scan(
            PREFIX.as_bytes(),
            after.as_deref(),
            limits::ROUTE_EPOCHS_MAX,
        )?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// The tables of this journal, oldest first.
fn load(store: &dyn DeadLetterStore, journal: &str) -> Result<Vec<Epoch>, StoreError> {
    let mut epochs = Vec::new();
    for (key, value) in rows(store)? {
        let Some(from) = position_of(&key, journal) else {
            continue;
        };
        match decode(&value) {
            Ok(table) => epochs.push((from, Arc::new(table))),
            Err(error) => {
                tracing::error!(from, %error, "a routing table can't be read; what waits of its time goes by the one before");
            }
        }
    }
    // Nothing stands before the first table.
    if let Some((from, _)) = epochs.first_mut() {
        *from = 0;
    }
    Ok(epochs)
}

fn key(journal: &str, from: Position) -> Vec<u8> {
    format!("{PREFIX}{journal}-{from:020}").into_bytes()
}

fn position_of(key: &[u8], journal: &str) -> Option<Position> {
    let text = std::str::from_utf8(key).ok()?;
    let (of, from) = text.strip_prefix(PREFIX)?.rsplit_once('-')?;
    (of == journal).then(|| from.parse().ok()).flatten()
}

fn encode(table: &Routes) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes);
    let written = (|| {
        encoder
            .array(3)?
            .u8(VERSION)?
            .u64(table.terminal_level() as u64)?
            .array(table.iter().count() as u64)?;
        for route in table.iter() {
            let format = match route.format {
                Format::Risiti => "risiti",
                Format::Raw => "raw",
            };
            encoder.array(ROUTE_FIELDS)?;
            for text in [&route.name, &route.filter, &route.cluster, &route.topic] {
                encoder.str(text)?;
            }
            encoder.str(&route.key.to_string())?.str(format)?;
        }
        encoder.ok()
    })();
    written.expect("a Vec takes any number of bytes");
    bytes
}

fn decode(bytes: &[u8]) -> Result<Routes, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    if decoder.array()? != Some(3) || decoder.u8()? != VERSION {
        return Err(DecodeError::message("written by another version"));
    }
    let terminal_level = usize::try_from(decoder.u64()?).unwrap_or(usize::MAX);
    let count = decoder.array()?.unwrap_or(0);
    let mut routes = Vec::new();
    for _ in 0..count {
        if decoder.array()? != Some(ROUTE_FIELDS) {
            return Err(DecodeError::message("a route has another form"));
        }
        routes.push(Route {
            name: decoder.str()?.into(),
            filter: decoder.str()?.into(),
            cluster: decoder.str()?.into(),
            topic: decoder.str()?.into(),
            key: read_key(decoder.str()?)?,
            format: match decoder.str()? {
                "risiti" => Format::Risiti,
                "raw" => Format::Raw,
                _ => return Err(DecodeError::message("unknown format")),
            },
        });
    }
    Ok(Routes::at_level(&routes, terminal_level))
}

/// The inverse of [`Key`]'s `Display`.
fn read_key(text: &str) -> Result<Key, DecodeError> {
    Ok(match text {
        "terminal" => Key::Terminal,
        "client_id" => Key::ClientId,
        "topic" => Key::Topic,
        _ => text
            .strip_prefix("level:")
            .and_then(|level| level.parse().ok())
            .map(Key::Level)
            .ok_or_else(|| DecodeError::message("unknown key"))?,
    })
}

#[cfg(test)]
mod tests;
