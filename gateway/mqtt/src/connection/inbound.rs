//! Messages from the client: which wait for their settlement, which QoS 2
//! identifiers wait for PUBREL, and what the client's topic aliases stand for.
//!
//! Acknowledgements leave in the order of the PUBLISHes (MQTT-4.6.0-2, -3): one
//! that is settled early waits here for those before it.
//!
//! A QoS 2 identifier is in use from its PUBLISH to our PUBCOMP. A PUBLISH that comes
//! with it before PUBREL is the same message (MQTT-4.3.3-10). Behind PUBREL it is
//! another one, which the client should have given another identifier
//! (MQTT-2.2.1-3): acknowledged as the former it would be lost, so it is refused.

use std::collections::VecDeque;

use bytestring::ByteString;

use crate::{Qos, ReasonCode};

#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// PUBLISHes without their acknowledgement, in the order in which they came.
    /// One of QoS 0 leaves as soon as it is settled: nothing waits for it.
    pending: VecDeque<Pending>,
    /// The token of the next.
    next_token: u64,
    /// How many of them have QoS 1 or 2.
    acknowledgeable: u16,
    /// QoS 2 identifiers that were acknowledged with PUBREC, by identifier.
    unreleased: Vec<Unreleased>,
    /// Alias 1 is at index 0; empty: not defined.
    aliases: Vec<ByteString>,
}

#[derive(Debug)]
struct Pending {
    token: u64,
    packet_id: u16,
    qos: Qos,
    /// Handed on before: what is due is another PUBREC, as long as the identifier
    /// waits for PUBREL.
    repeated: bool,
    settled: Option<Settled>,
}

#[derive(Debug)]
struct Settled {
    reason: ReasonCode,
    reason_string: Option<Box<str>>,
}

#[derive(Debug)]
struct Unreleased {
    packet_id: u16,
    /// PUBLISHed on this connection, so it counts against its Receive Maximum.
    counts: bool,
    /// PUBREL came, the shell is forgetting it.
    releasing: bool,
}

/// One that may be acknowledged now.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) packet_id: u16,
    pub(super) qos: Qos,
    pub(super) reason: ReasonCode,
    pub(super) reason_string: Option<Box<str>>,
}

/// What a new PUBLISH is to the session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A message to hand on, under this token.
    New(u64),
    /// A QoS 2 message that is known already, or whose identifier is in use: no
    /// event.
    Answered,
}

/// What a PUBREL is to the session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// To be forgotten by the shell, then completed.
    Begun,
    /// Said before; the answer is under way.
    Again,
    /// No such identifier.
    Unknown,
}

impl Inbound {
    pub(super) fn resume(&mut self, unreleased: &[u16]) {
        self.unreleased = unreleased
            .iter()
            .map(|packet_id| Unreleased {
                packet_id: *packet_id,
                counts: false,
                releasing: false,
            })
            .collect();
        self.unreleased.sort_unstable_by_key(|one| one.packet_id);
        self.unreleased.dedup_by_key(|one| one.packet_id);
    }

    /// PUBLISHes of any QoS that are not acknowledged or settled yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What the client has in flight by the measure of Receive Maximum (MQTT 5.0,
    /// section 4.9): QoS 1 until PUBACK, QoS 2 until PUBCOMP.
    pub(super) fn in_flight(&self) -> usize {
        let unreleased = self.unreleased.iter().filter(|one| one.counts).count();
        usize::from(self.acknowledgeable) + unreleased
    }

    /// Whether a QoS 2 PUBLISH with that identifier would add to the unreleased
    /// ones beyond `maximum`.
    pub(super) fn has_no_room_for(&self, packet_id: u16, maximum: u16) -> bool {
        self.unreleased.len() >= usize::from(maximum) && self.find_unreleased(packet_id).is_none()
    }

    pub(super) fn arrive(&mut self, packet_id: u16, qos: Qos) -> Arrival {
        let mut settled = None;
        let mut repeated = false;
        if qos == Qos::ExactlyOnce {
            if self.waits_for_pubrec(packet_id) {
                return Arrival::Answered; // one PUBREC answers both
            }
            if let Some(known) = self.find_unreleased(packet_id) {
                let known = &mut self.unreleased[known];
                repeated = !known.releasing;
                known.counts |= repeated;
                settled = Some(Settled {
                    reason: if repeated {
                        ReasonCode::Success
                    } else {
                        ReasonCode::PacketIdentifierInUse
                    },
                    reason_string: None,
                });
            }
        }
        let token = self.next_token;
        self.next_token += 1;
        let answered = settled.is_some();
        self.acknowledgeable += u16::from(qos != Qos::AtMostOnce);
        self.pending.push_back(Pending {
            token,
            packet_id,
            qos,
            repeated,
            settled,
        });
        if answered {
            Arrival::Answered
        } else {
            Arrival::New(token)
        }
    }

    /// Notes the answer to one; it is ignored for a token that waits for none.
    pub(super) fn settle(&mut self, token: u64, reason: ReasonCode, reason_string: Option<&str>) {
        let Ok(index) = self.pending.binary_search_by_key(&token, |one| one.token) else {
            return;
        };
        if self.pending[index].qos == Qos::AtMostOnce {
            self.pending.remove(index);
            return;
        }
        let pending = &mut self.pending[index];
        if pending.settled.is_none() {
            pending.settled = Some(Settled {
                reason,
                reason_string: reason_string.map(Box::from),
            });
        }
    }

    /// Takes the first PUBLISH that is to be acknowledged, if it is settled.
    pub(super) fn next_due(&mut self) -> Option<Due> {
        loop {
            self.pending.front()?.settled.as_ref()?;
            let Pending {
                packet_id,
                qos,
                repeated,
                settled,
                ..
            } = self.pending.pop_front()?;
            let Settled {
                reason,
                reason_string,
            } = settled?;
            self.acknowledgeable -= u16::from(qos != Qos::AtMostOnce);
            if qos == Qos::ExactlyOnce && !reason.is_error() {
                match self.search_unreleased(packet_id) {
                    Ok(_) => {}
                    // Released and completed meanwhile: the client has its answer.
                    Err(_) if repeated => continue,
                    Err(at) => self.unreleased.insert(
                        at,
                        Unreleased {
                            packet_id,
                            counts: true,
                            releasing: false,
                        },
                    ),
                }
            }
            return Some(Due {
                packet_id,
                qos,
                reason,
                reason_string,
            });
        }
    }

    pub(super) fn release(&mut self, packet_id: u16) -> Release {
        match self.find_unreleased(packet_id) {
            None => Release::Unknown,
            Some(at) if self.unreleased[at].releasing => Release::Again,
            Some(at) => {
                self.unreleased[at].releasing = true;
                Release::Begun
            }
        }
    }

    /// Forgets an identifier whose PUBREL came; false if there is none.
    pub(super) fn complete(&mut self, packet_id: u16) -> bool {
        match self.find_unreleased(packet_id) {
            Some(at) if self.unreleased[at].releasing => {
                self.unreleased.remove(at);
                true
            }
            _ => false,
        }
    }

    /// Defines an alias, `alias` >= 1. The topic is copied, for it outlives its
    /// packet.
    pub(super) fn define_alias(&mut self, alias: u16, topic: &str) {
        let index = usize::from(alias) - 1;
        if self.aliases.len() <= index {
            self.aliases.resize(index + 1, ByteString::new());
        }
        self.aliases[index] = ByteString::from(topic);
    }

    pub(super) fn alias(&self, alias: u16) -> Option<ByteString> {
        let topic = self.aliases.get(usize::from(alias).checked_sub(1)?)?;
        (!topic.is_empty()).then(|| topic.clone())
    }

    pub(super) fn release_spare_memory(&mut self) {
        self.pending.shrink_to_fit();
        self.unreleased.shrink_to_fit();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let aliases: usize = self.aliases.iter().map(|topic| topic.len()).sum();
        self.pending.capacity() * size_of::<Pending>()
            + self.unreleased.capacity() * size_of::<Unreleased>()
            + self.aliases.capacity() * size_of::<ByteString>()
            + aliases
    }

    fn waits_for_pubrec(&self, packet_id: u16) -> bool {
        self.pending
            .iter()
            .any(|one| one.packet_id == packet_id && one.qos == Qos::ExactlyOnce)
    }

    fn find_unreleased(&self, packet_id: u16) -> Option<usize> {
        self.search_unreleased(packet_id).ok()
    }

    fn search_unreleased(&self, packet_id: u16) -> Result<usize, usize> {
        self.unreleased
            .binary_search_by_key(&packet_id, |one| one.packet_id)
    }
}
