//! Which subscriptions a topic reaches: a tree with one node a topic level.
//!
//! A match visits only nodes that lie on the topic's path (the level itself, `+`,
//! `#`); a node without subscription and children is freed at once, so the
//! memory follows what is subscribed now. Nothing recurses: nodes lie in one
//! arena, and depth is bounded by [`TOPIC_LEVELS_MAX`].

use std::collections::BTreeMap;

use crate::limits::TOPIC_LEVELS_MAX;
use crate::topics::filter::{FilterError, validate_filter};

/// Why a filter was not inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterTreeError {
    /// The filter itself is not valid.
    #[error("the topic filter is not valid: {0}")]
    Filter(#[from] FilterError),
    /// More levels than [`TOPIC_LEVELS_MAX`].
    #[error("the topic filter has more than {TOPIC_LEVELS_MAX} levels")]
    TooDeep,
}

/// Values by topic filter. Several values may stand at one filter.
#[derive(Debug)]
pub struct FilterTree<T> {
    nodes: Vec<Node<T>>,
    /// Slots of `nodes` that are free, to be used again.
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    parent: u32,
    /// Next levels by their text; `+` and `#` stand here under their own.
    children: BTreeMap<Box<str>, u32>,
    values: Vec<T>,
}

const ROOT: u32 = 0;

impl<T> Default for FilterTree<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> FilterTree<T> {
    /// An empty tree.
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::new(ROOT)],
            free: Vec::new(),
            len: 0,
        }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many nodes are in use, the root included.
    pub fn node_count(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Adds a value at a filter (without `$share` prefix). It does not look for
    /// an equal one: to replace, [`FilterTree::remove`] first, or change it
    /// through [`FilterTree::values_mut`].
    pub fn insert(&mut self, filter: &str, value: T) -> Result<(), FilterTreeError> {
        validate_filter(filter)?;
        if filter.split('/').count() > TOPIC_LEVELS_MAX {
            return Err(FilterTreeError::TooDeep);
        }
        let mut at = ROOT;
        for level in filter.split('/') {
            at = match self.node(at).children.get(level) {
                Some(next) => *next,
                None => {
                    let next = self.allocate(at);
                    self.node_mut(at).children.insert(level.into(), next);
                    next
                }
            };
        }
        self.node_mut(at).values.push(value);
        self.len += 1;
        Ok(())
    }

    /// The values at exactly this filter; empty if there are none.
    pub fn values(&self, filter: &str) -> &[T] {
        self.find(filter).map_or(&[], |at| &self.node(at).values)
    }

    /// The values at exactly this filter, to change in place.
    pub fn values_mut(&mut self, filter: &str) -> &mut [T] {
        match self.find(filter) {
            Some(at) => &mut self.node_mut(at).values,
            None => &mut [],
        }
    }

    /// Takes out the first value at exactly this filter for which `wanted` holds.
    pub fn remove(&mut self, filter: &str, wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let at = self.find(filter)?;
        let values = &mut self.node_mut(at).values;
        let index = values.iter().position(wanted)?;
        let value = values.remove(index);
        if values.is_empty() {
            *values = Vec::new();
        }
        self.len -= 1;
        self.prune(at, filter);
        Some(value)
    }

    /// Calls `found` with every value whose filter matches the topic, in no
    /// promised order; a value that stands at several matching filters comes
    /// several times. A topic deeper than [`TOPIC_LEVELS_MAX`] is matched by its
    /// leading levels alone, which only `#` can reach further than.
    pub fn matches<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) {
        let mut here = vec![ROOT];
        let mut next = Vec::new();
        let no_wildcard = topic.starts_with('$'); // MQTT-4.7.2-1
        let mut rest = Some(topic);
        let mut depth = 0;
        while let Some(text) = rest {
            let (level, after) = match text.split_once('/') {
                Some((level, after)) => (level, Some(after)),
                None => (text, None),
            };
            let wildcards = !(no_wildcard && depth == 0);
            for at in here.drain(..) {
                let node = self.node(at);
                if let Some(child) = node.children.get(level) {
                    next.push(*child);
                }
                if wildcards {
                    if let Some(child) = node.children.get("+") {
                        next.push(*child);
                    }
                    self.report(node.children.get("#"), &mut found);
                }
            }
            std::mem::swap(&mut here, &mut next);
            if here.is_empty() {
                return;
            }
            depth += 1;
            rest = after;
        }
        for at in here {
            let node = self.node(at);
            node.values.iter().for_each(&mut found);
            // `a/#` also matches `a`: MQTT 5.0, 4.7.1.2
            self.report(node.children.get("#"), &mut found);
        }
    }

    /// Every value, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.nodes.iter().flat_map(|node| node.values.iter())
    }

    fn report<'a>(&'a self, at: Option<&u32>, found: &mut impl FnMut(&'a T)) {
        if let Some(at) = at {
            self.node(*at).values.iter().for_each(found);
        }
    }

    fn find(&self, filter: &str) -> Option<u32> {
        filter
            .split('/')
            .try_fold(ROOT, |at, level| self.node(at).children.get(level).copied())
    }

    fn prune(&mut self, mut at: u32, filter: &str) {
        for level in filter.rsplit('/') {
            let node = self.node(at);
            if !node.values.is_empty() || !node.children.is_empty() {
                return;
            }
            let parent = node.parent;
            self.node_mut(parent).children.remove(level);
            self.free.push(at);
            at = parent;
        }
        if self.len == 0 {
            self.nodes.truncate(1);
            self.nodes.shrink_to_fit();
            self.free = Vec::new();
        }
    }

    fn allocate(&mut self, parent: u32) -> u32 {
        if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = Node::new(parent);
            return at;
        }
        let at = u32::try_from(self.nodes.len()).expect("4 billion nodes do not fit into memory");
        self.nodes.push(Node::new(parent));
        at
    }

    fn node(&self, at: u32) -> &Node<T> {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<T> {
        &mut self.nodes[at as usize]
    }
}

impl<T> Node<T> {
    fn new(parent: u32) -> Self {
        Self {
            parent,
            children: BTreeMap::new(),
            values: Vec::new(),
        }
    }
}
