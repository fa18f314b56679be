//! Partitions come and go.
//!
//! Promises: a partition is settled only with all that was settled in it before,
//! and what was decided for one that goes is left to its new holder. Never: a part
//! of the changelog taken for the whole.

use rdkafka::consumer::Consumer as _;

use super::State;
use super::clients::Change;
use super::metrics::SettlementMetrics;
use super::rebuild;
use super::session::{End, Session};
use crate::limits;
use crate::remedy::Backoff;

impl Session<'_> {
    /// Does what the group decided.
    pub(super) fn change(&mut self, change: Change) -> Result<(), End> {
        match change {
            Change::Revoked(partitions) => {
                tracing::info!(?partitions, "partitions given up");
                for partition in &partitions {
                    self.core.revoke(*partition);
                    self.begun_at.remove(partition);
                }
                // Their new holder settles these.
                self.pending
                    .retain(|decided| !partitions.contains(&decided.partition));
            }
            Change::Assigned(partitions) if partitions.is_empty() => {}
            Change::Assigned(partitions) => {
                self.control.set_state(State::Rebuilding);
                self.take_over(&partitions)?;
            }
        }
        self.publish_sizes();
        self.control.set_state(State::Settling);
        Ok(())
    }

    /// Reads back what was settled in these partitions.
    fn take_over(&mut self, partitions: &[i32]) -> Result<(), End> {
        let settings = &self.setup.settings;
        let mut pauses = Backoff::new();
        // First the offsets: they are given out only when no transaction of the
        // former holder can change them any more.
        let offsets = loop {
            let asked =
                rebuild::settled_offsets(&self.consumer, &settings.records_topic, partitions);
            match asked {
                Ok(offsets) => break offsets,
                Err(error) => {
                    self.setup.metrics.set_last_error(Some(error.to_string()));
                    self.control.pause(pauses.pause());
                    if self.control.stopping() {
                        return Err(End::Stopped);
                    }
                }
            }
        };
        let lookup = rebuild::Lookup {
            cluster: &self.setup.cluster,
            bootstrap: &self.setup.bootstrap,
            topic: &settings.changelog_topic,
            client_id: &settings.instance,
        };
        let control = self.control;
        let memories = rebuild::read(lookup, partitions, || !control.stopping())
            .map_err(End::anew)?
            .ok_or(End::Stopped)?;
        let numbers: usize = memories.values().map(|memory| memory.numbers()).sum();
        tracing::info!(?partitions, numbers, "partitions taken");
        SettlementMetrics::add(&self.setup.metrics.rebuilds, memories.len() as u64);
        for (partition, memory) in memories {
            self.core.assign(partition, memory);
        }
        for (partition, offset) in offsets {
            if let Some(offset) = offset {
                self.begun_at.insert(partition, offset);
                self.tell_missed(partition, offset);
            }
        }
        Ok(())
    }

    /// Records that retention deleted before they were settled are lost to
    /// settlement; their terminals keep them and send them again.
    fn tell_missed(&self, partition: i32, offset: i64) {
        let topic = &self.setup.settings.records_topic;
        if let Ok((low, _)) = self
            .consumer
            .fetch_watermarks(topic, partition, limits::CALL)
            && low > offset
        {
            let missed = low.abs_diff(offset);
            SettlementMetrics::add(&self.setup.metrics.missed, missed);
            tracing::error!(
                topic,
                partition,
                from = offset,
                to = low,
                "Kafka deleted records before they were settled; raise the topic's retention.ms"
            );
        }
    }
}
