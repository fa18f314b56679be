//! Messages to the client: which wait for which acknowledgement, and the topic
//! aliases that we defined.

use std::collections::VecDeque;

use bytestring::ByteString;

use crate::Qos;

#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// How many may wait at once: the smaller of the client's and our maximum.
    pub(super) window: u16,
    /// How many aliases we may define.
    pub(super) alias_maximum: u16,
    in_flight: VecDeque<InFlight>,
    /// Alias 1 is at index 0. The first topics that come get them, for good.
    aliases: Vec<ByteString>,
}

#[derive(Debug)]
struct InFlight {
    packet_id: u16,
    waits_for: WaitsFor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitsFor {
    PubAck,
    PubRec,
    /// PUBREC came; the shell notes that, then PUBREL goes out.
    Shell,
    PubComp,
}

/// An alias to put on a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alias {
    /// Stands for the topic, which need not be sent.
    Known(u16),
    /// To be defined by sending it with the topic.
    New(u16),
}

impl Outbound {
    pub(super) fn send_window(&self) -> usize {
        usize::from(self.window).saturating_sub(self.in_flight.len())
    }

    pub(super) fn sent(&mut self, packet_id: u16, qos: Qos) {
        let waits_for = match qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => WaitsFor::PubAck,
            Qos::ExactlyOnce => WaitsFor::PubRec,
        };
        self.in_flight.push_back(InFlight {
            packet_id,
            waits_for,
        });
    }

    pub(super) fn sent_release(&mut self, packet_id: u16) {
        match self.get_mut(packet_id) {
            Some(waits_for) => *waits_for = WaitsFor::PubComp,
            None => {
                self.in_flight.push_back(InFlight {
                    packet_id,
                    waits_for: WaitsFor::PubComp,
                });
            }
        }
    }

    /// What a delivery waits for. Clients acknowledge in order, so that the search
    /// mostly ends at the first.
    pub(super) fn get(&self, packet_id: u16) -> Option<WaitsFor> {
        self.in_flight
            .iter()
            .find(|one| one.packet_id == packet_id)
            .map(|one| one.waits_for)
    }

    pub(super) fn get_mut(&mut self, packet_id: u16) -> Option<&mut WaitsFor> {
        self.in_flight
            .iter_mut()
            .find(|one| one.packet_id == packet_id)
            .map(|one| &mut one.waits_for)
    }

    pub(super) fn done(&mut self, packet_id: u16) {
        if let Some(at) = self
            .in_flight
            .iter()
            .position(|one| one.packet_id == packet_id)
        {
            self.in_flight.remove(at);
        }
    }

    /// The alias to use for a topic, if any. It saves nothing on a topic that is
    /// no longer than the property itself (3 bytes).
    pub(super) fn alias(&self, topic: &str) -> Option<Alias> {
        if self.alias_maximum == 0 || topic.len() <= 3 {
            return None;
        }
        let alias = |index: usize| u16::try_from(index + 1).ok();
        match self.aliases.iter().position(|known| &**known == topic) {
            Some(index) => alias(index).map(Alias::Known),
            None => alias(self.aliases.len())
                .filter(|alias| *alias <= self.alias_maximum)
                .map(Alias::New),
        }
    }

    /// The PUBLISH that defines the next alias was written.
    pub(super) fn define_alias(&mut self, topic: &str) {
        self.aliases.push(ByteString::from(topic));
    }

    pub(super) fn release_spare_memory(&mut self) {
        self.in_flight.shrink_to_fit();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let aliases: usize = self.aliases.iter().map(|topic| topic.len()).sum();
        self.in_flight.capacity() * size_of::<InFlight>()
            + self.aliases.capacity() * size_of::<ByteString>()
            + aliases
    }
}
