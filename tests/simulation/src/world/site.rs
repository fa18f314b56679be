//! A gateway, with its forwarder and its receipts' consumer: one process.
//!
//! Promises: they die together, and what is left is the disk. Never: a connection
//! that outlives its process.

use risiti_config::DEFAULT_CLUSTER;

use crate::contract::{Controls, GatewayEvent, Ms, Onlooker, Out, chance};
use crate::disk::Disk;
use crate::forwarder::ForwarderNode;
use crate::gateway::Gateway;
use crate::kafka::Kafka;
use crate::network::Network;

/// How a gateway dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Death {
    /// Whether its peers get a reset.
    pub tells: bool,
    /// For so long.
    pub down_ms: Ms,
    /// What happens to its disk besides.
    pub disk: Damage,
}

/// What happens to a disk when its gateway dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// What was not synced may be lost.
    None,
    /// All of it is gone.
    Wiped,
    /// A bit flips in what lies there. The process dies, the machine does not, and
    /// the journal's mark is on disk and covers all: a bit that flips in the newest
    /// pack before that can't be told from a write that was torn (`risiti_store`,
    /// `mark.rs`: a mark that lags costs detection).
    Flipped,
}

/// Nothing was appended for so long: the journal's mark is written once a second.
const SETTLED_MS: Ms = 2_500;

/// A gateway with all that goes with it.
pub(super) struct Site {
    name: String,
    controls: Controls,
    gateway: Option<Gateway>,
    /// While it is down.
    disk: Option<Disk>,
    down_until_ms: Option<Ms>,
    forwarder: Option<ForwarderNode>,
    /// As the gateway said after it last did something; it may be wanted before.
    gateway_due_ms: Ms,
    /// Its journal's mark covers all and is on disk.
    is_marked: bool,
    forwarder_due_ms: Ms,
    forwarder_down_until_ms: Option<Ms>,
    consumer_due_ms: Ms,
    /// The journal's end as the forwarder saw it, and since when it is there.
    end_seen: u64,
    end_since_ms: Ms,
    events: Vec<GatewayEvent>,
    out: Vec<(u64, Out)>,
    chance: fastrand::Rng,
    /// All jumps of its wall clock.
    clock_off_ms: i64,
    full: bool,
    stirred: bool,
    /// It has begun and taken no step yet. What a recovery finds it tells before
    /// anything else, so it does not die before that.
    opening: bool,
    different: bool,
    /// After so many steps it dies.
    pub dies: Option<(u32, Death)>,
    /// After so many steps its forwarder dies, for so long.
    pub forwarder_dies: Option<(u32, Ms)>,
    /// After so many steps its forwarder stands still, for so long.
    pub forwarder_hangs: Option<(u32, Ms)>,
    /// Deaths and hangs of the forwarder so far.
    pub struck: (u64, u64),
}

impl Site {
    pub(super) fn new(n: usize, seed: u64, controls: Controls) -> Self {
        let name = format!("gw-{n}");
        Self {
            disk: Some(Disk::new(chance(seed, &format!("disk {n}")))),
            chance: chance(seed, &name),
            name,
            controls,
            gateway: None,
            down_until_ms: Some(0),
            forwarder: None,
            gateway_due_ms: Ms::MAX,
            is_marked: false,
            forwarder_due_ms: Ms::MAX,
            forwarder_down_until_ms: None,
            consumer_due_ms: Ms::MAX,
            end_seen: 0,
            end_since_ms: 0,
            events: Vec::new(),
            out: Vec::new(),
            clock_off_ms: 0,
            full: false,
            stirred: false,
            opening: false,
            different: false,
            dies: None,
            forwarder_dies: None,
            forwarder_hangs: None,
            struck: (0, 0),
        }
    }

    /// Nothing is wrong with it.
    pub(super) fn is_well(&self) -> bool {
        self.gateway.is_some()
            && self.forwarder.is_some()
            && self.dies.is_none()
            && self.forwarder_dies.is_none()
            && self.forwarder_hangs.is_none()
            && !self.full
    }

    /// When it begins, if it is down.
    pub(super) fn begins_ms(&self) -> Option<Ms> {
        self.down_until_ms
    }

    /// What an auditor sees, if it runs.
    pub(super) fn onlooker(&self) -> Option<&dyn Onlooker> {
        self.gateway.as_ref().map(|gateway| gateway as _)
    }

    /// Under which name its forwarder writes, if it runs.
    pub(super) fn transactional_id(&self) -> Option<String> {
        let forwarder = self.forwarder.as_ref()?;
        Some(forwarder.transactional_id().to_owned())
    }

    /// Whether its disk may look otherwise than before the last step.
    pub(super) fn looked_different(&mut self) -> bool {
        std::mem::take(&mut self.different)
    }

    pub(super) fn take_events(&mut self) -> Vec<GatewayEvent> {
        std::mem::take(&mut self.events)
    }

    /// Begins on what the disk holds.
    pub(super) fn start(&mut self, now_ms: Ms) {
        self.down_until_ms = None;
        let Some(mut disk) = self.disk.take() else {
            return;
        };
        disk.set_full(self.full);
        let mut gateway = Gateway::start(disk, &self.name, now_ms, self.controls);
        gateway.jump_wall_clock(self.clock_off_ms);
        self.gateway = Some(gateway);
        self.look_when_due();
        self.stirred = true;
        self.opening = true;
        self.different = true;
        self.consumer_due_ms = now_ms;
        self.end_seen = 0;
        self.end_since_ms = now_ms;
        self.forwarder_down_until_ms = Some(now_ms);
    }

    pub(super) fn due_ms(&self) -> Ms {
        if let Some(at_ms) = self.down_until_ms {
            return at_ms;
        }
        if self.stirred {
            return 0;
        }
        let forwarder = self
            .forwarder_down_until_ms
            .unwrap_or(self.forwarder_due_ms);
        let dies = match self.dies {
            Some((0, death)) if death.disk == Damage::Flipped => self.flips_ms(),
            Some((0, _)) => 0,
            _ => Ms::MAX,
        };
        self.gateway_due_ms
            .min(forwarder)
            .min(dies)
            .min(self.consumer_due_ms)
    }

    /// Who of it is due, in words.
    pub(super) fn who_is_due(&self, now_ms: Ms) -> String {
        format!(
            "(stirred {}, itself {}, forwarder {}, consumer {})",
            self.stirred,
            self.gateway_due_ms <= now_ms,
            self.forwarder_due_ms <= now_ms,
            self.consumer_due_ms <= now_ms
        )
    }

    /// A client knocks; whether it is let in.
    pub(super) fn open(&mut self, conn: u64, now_ms: Ms) -> bool {
        let Some(gateway) = &mut self.gateway else {
            return false;
        };
        gateway.open(conn, now_ms);
        self.stirred = true;
        true
    }

    /// Bytes for a connection; false: nobody is there.
    pub(super) fn received(&mut self, conn: u64, bytes: &[u8], now_ms: Ms) -> bool {
        let Some(gateway) = &mut self.gateway else {
            return false;
        };
        gateway.received(conn, bytes, now_ms);
        self.stirred = true;
        true
    }

    /// A client's end of a connection is gone.
    pub(super) fn closed(&mut self, conn: u64, now_ms: Ms) {
        if let Some(gateway) = &mut self.gateway {
            gateway.closed(conn, now_ms);
            self.stirred = true;
        }
    }

    /// One step of each of its parts that is due. How it died, if it did.
    pub(super) fn step(
        &mut self,
        now_ms: Ms,
        changed: bool,
        kafka: &mut Kafka,
        network: &mut Network,
    ) -> Option<Death> {
        self.gateway.as_ref()?;
        let (flips_ms, opening) = (self.flips_ms(), std::mem::take(&mut self.opening));
        let dies = |(steps, death): &mut (u32, Death)| {
            *steps == 0 && !opening && (death.disk != Damage::Flipped || flips_ms <= now_ms)
        };
        if let Some((_, death)) = self.dies.take_if(dies) {
            return Some(death);
        }
        let mut did = self.step_gateway(now_ms, network);
        did |= self.step_consumer(now_ms, changed, kafka);
        did |= self.step_forwarder(now_ms, changed, kafka);
        if did {
            self.look_when_due();
            self.different = true;
            if let Some((steps, _)) = &mut self.dies {
                *steps = steps.saturating_sub(1);
            }
        }
        if let Some(gateway) = &mut self.gateway {
            self.events.extend(gateway.take_events());
        }
        None
    }

    /// Asks the gateway, which looks at all that it has.
    fn look_when_due(&mut self) {
        let due_ms = self.gateway.as_ref().and_then(Gateway::due_ms);
        self.gateway_due_ms = due_ms.unwrap_or(Ms::MAX);
        self.is_marked = self.gateway.as_ref().is_some_and(Gateway::is_marked);
    }

    /// When a bit may flip.
    fn flips_ms(&self) -> Ms {
        if self.is_marked {
            self.end_since_ms + SETTLED_MS
        } else {
            Ms::MAX
        }
    }

    fn step_gateway(&mut self, now_ms: Ms, network: &mut Network) -> bool {
        let Some(gateway) = &mut self.gateway else {
            return false;
        };
        let stirred = std::mem::take(&mut self.stirred);
        if !stirred && self.gateway_due_ms > now_ms {
            return false;
        }
        gateway.step(now_ms, &mut self.out);
        for (conn, out) in self.out.drain(..) {
            match out {
                Out::Bytes(bytes) => network.from_gateway(conn, bytes, now_ms),
                Out::Close => network.gateway_closes(conn, now_ms),
            }
        }
        true
    }

    fn step_consumer(&mut self, now_ms: Ms, changed: bool, kafka: &mut Kafka) -> bool {
        let Some(gateway) = &mut self.gateway else {
            return false;
        };
        if self.consumer_due_ms > now_ms && !changed {
            return false;
        }
        self.consumer_due_ms = gateway.consume(now_ms, kafka).unwrap_or(Ms::MAX);
        true
    }

    fn step_forwarder(&mut self, now_ms: Ms, changed: bool, kafka: &mut Kafka) -> bool {
        let Some(gateway) = &mut self.gateway else {
            return false;
        };
        if self
            .forwarder_down_until_ms
            .is_some_and(|at_ms| at_ms <= now_ms)
        {
            self.forwarder_down_until_ms = None;
            let node = ForwarderNode::start(&self.name, DEFAULT_CLUSTER, now_ms, self.controls);
            self.forwarder = Some(node);
            self.forwarder_due_ms = now_ms;
        }
        let Some(forwarder) = &mut self.forwarder else {
            return false;
        };
        if let Some((_, down_ms)) = self.forwarder_dies.take_if(|(steps, _)| *steps == 0) {
            self.forwarder = None;
            self.forwarder_due_ms = Ms::MAX;
            self.forwarder_down_until_ms = Some(now_ms + down_ms);
            self.struck.0 += 1;
            return true;
        }
        let end = gateway.journal().end();
        if self.forwarder_due_ms > now_ms && !changed && end == self.end_seen {
            return false;
        }
        if self.end_seen != end {
            (self.end_seen, self.end_since_ms) = (end, now_ms);
        }
        let due_ms = forwarder.step(now_ms, kafka, gateway.journal());
        self.forwarder_due_ms = due_ms.unwrap_or(Ms::MAX);
        if let Some((steps, _)) = &mut self.forwarder_dies {
            *steps -= 1;
        }
        if let Some((steps, for_ms)) = &mut self.forwarder_hangs {
            if *steps > 0 {
                *steps -= 1;
            } else {
                let until_ms = now_ms + *for_ms;
                forwarder.freeze_until(until_ms);
                self.forwarder_due_ms = until_ms;
                self.forwarder_hangs = None;
                self.struck.1 += 1;
            }
        }
        true
    }

    /// It dies now; it begins again after so long.
    pub(super) fn die(&mut self, death: Death, now_ms: Ms) {
        let Some(gateway) = self.gateway.take() else {
            return;
        };
        let mut disk = gateway.kill();
        match death.disk {
            Damage::None => disk.cut(&mut self.chance),
            Damage::Wiped => disk.wipe(),
            Damage::Flipped => disk.flip_a_bit(&mut self.chance),
        }
        self.disk = Some(disk);
        self.forwarder = None;
        self.forwarder_down_until_ms = None;
        self.gateway_due_ms = Ms::MAX;
        self.forwarder_due_ms = Ms::MAX;
        self.consumer_due_ms = Ms::MAX;
        self.events.clear();
        self.out.clear();
        self.dies = None;
        self.down_until_ms = Some(now_ms + death.down_ms);
    }

    /// Its wall clock jumps.
    pub(super) fn jump_wall_clock(&mut self, by_ms: i64) {
        self.clock_off_ms += by_ms;
        if let Some(gateway) = &mut self.gateway {
            gateway.jump_wall_clock(by_ms);
        }
        self.look_when_due();
    }

    /// Its disk is full, or is not any more.
    pub(super) fn set_full(&mut self, full: bool) {
        self.full = full;
        if let Some(gateway) = &mut self.gateway {
            gateway.disk().set_full(full);
            self.stirred = true;
        }
    }

    /// Its next syncs fail.
    pub(super) fn fail_syncs(&mut self, syncs: u32) {
        if let Some(gateway) = &mut self.gateway {
            gateway.disk().fail_syncs(syncs);
        }
        self.look_when_due();
    }

    /// What was to come later comes now.
    pub(super) fn heal(&mut self) {
        if let Some((steps, _)) = &mut self.dies {
            *steps = 0;
        }
        if let Some((steps, _)) = &mut self.forwarder_dies {
            *steps = 0;
        }
        self.forwarder_hangs = None;
    }
}
