//! An instance of settlement, which may be killed between two calls.

use crate::contract::{Controls, Ms};
use crate::kafka::Kafka;
use crate::settlement::SettlementNode;

/// An instance of settlement.
pub(super) struct Instance {
    name: String,
    controls: Controls,
    node: Option<SettlementNode>,
    due_ms: Ms,
    /// It begins then; none: it runs.
    down_until_ms: Option<Ms>,
    /// After so many steps: dead or frozen for so long.
    pub dies: Option<(u32, Ms)>,
    /// As [`Self::dies`]: it stands still.
    pub hangs: Option<(u32, Ms)>,
    /// Deaths and hangs so far.
    pub struck: (u64, u64),
}

impl Instance {
    pub(super) fn new(n: usize, controls: Controls) -> Self {
        Self {
            name: format!("settlement-{n}"),
            controls,
            node: None,
            due_ms: Ms::MAX,
            down_until_ms: Some(0),
            dies: None,
            hangs: None,
            struck: (0, 0),
        }
    }

    /// Nothing is wrong with it.
    pub(super) fn is_well(&self) -> bool {
        self.node.is_some() && self.dies.is_none() && self.hangs.is_none()
    }

    pub(super) fn due_ms(&self) -> Ms {
        self.down_until_ms.unwrap_or(self.due_ms)
    }

    /// What was to come later comes now.
    pub(super) fn heal(&mut self) {
        if let Some((steps, _)) = &mut self.dies {
            *steps = 0;
        }
        self.hangs = None;
    }

    /// One step, if it is due. Whether it died.
    pub(super) fn step(&mut self, now_ms: Ms, changed: bool, kafka: &mut Kafka) -> bool {
        if self.down_until_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.down_until_ms = None;
            self.node = Some(SettlementNode::start(&self.name, now_ms, self.controls));
            self.due_ms = now_ms;
        }
        let dies_now = self.dies.is_some_and(|(steps, _)| steps == 0);
        let Some(node) = &mut self.node else {
            return false;
        };
        if let (true, Some((_, down_ms))) = (dies_now, self.dies.take_if(|_| dies_now)) {
            self.node = None;
            self.due_ms = Ms::MAX;
            self.down_until_ms = Some(now_ms + down_ms);
            self.struck.0 += 1;
            return true;
        }
        if self.due_ms > now_ms && !changed {
            return false;
        }
        self.due_ms = node.step(now_ms, kafka).unwrap_or(Ms::MAX);
        if let Some((steps, _)) = &mut self.dies {
            *steps -= 1;
        }
        if let Some((steps, for_ms)) = &mut self.hangs {
            if *steps > 0 {
                *steps -= 1;
            } else {
                node.freeze_until(now_ms + *for_ms, kafka);
                self.due_ms = now_ms + *for_ms;
                self.hangs = None;
                self.struck.1 += 1;
            }
        }
        false
    }
}
