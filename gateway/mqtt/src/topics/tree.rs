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
    /// an equal one: to replace, [`FilterTree::remove`] first.
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
        // At the first level: MQTT-4.7.2-1
        let mut wildcards = !topic.starts_with('$');
        let mut rest = Some(topic);
        while let Some(text) = rest {
            let (level, after) = match text.split_once('/') {
                Some((level, after)) => (level, Some(after)),
                None => (text, None),
            };
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
            wildcards = true;
            rest = after;
        }
        for at in here {
            let node = self.node(at);
            node.values.iter().for_each(&mut found);
            // `a/#` also matches `a`: MQTT 5.0, 4.7.1.2
            self.report(node.children.get("#"), &mut found);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(filters: &[&'static str]) -> FilterTree<&'static str> {
        let mut tree = FilterTree::new();
        for filter in filters {
            tree.insert(filter, *filter).unwrap();
        }
        tree
    }

    fn found(tree: &FilterTree<&'static str>, topic: &str) -> Vec<&'static str> {
        let mut found = Vec::new();
        tree.matches(topic, |filter| found.push(*filter));
        found.sort_unstable();
        found
    }

    /// MQTT-4.7.1-2 and -3, with the examples of sections 4.7.1.2 and 4.7.1.3.
    #[test]
    fn a_topic_reaches_the_filters_that_match_it_and_no_other() {
        let tree = tree(&[
            "#",
            "+",
            "+/+",
            "/+",
            "sport",
            "sport/#",
            "sport/+",
            "sport/+/player1",
            "sport/tennis/#",
            "sport/tennis/player1",
        ]);
        for (topic, filters) in [
            ("sport", &["#", "+", "sport", "sport/#"][..]),
            ("sport/", &["#", "+/+", "sport/#", "sport/+"]),
            (
                "sport/tennis",
                &["#", "+/+", "sport/#", "sport/+", "sport/tennis/#"],
            ),
            (
                "sport/tennis/player1",
                &[
                    "#",
                    "sport/#",
                    "sport/+/player1",
                    "sport/tennis/#",
                    "sport/tennis/player1",
                ],
            ),
            (
                "sport/tennis/player1/ranking",
                &["#", "sport/#", "sport/tennis/#"],
            ),
            ("sport/golf/player1", &["#", "sport/#", "sport/+/player1"]),
            ("sport/golf/player2", &["#", "sport/#"]),
            ("/finance", &["#", "+/+", "/+"]),
            ("finance", &["#", "+"]),
        ] {
            assert_eq!(found(&tree, topic), filters, "{topic}");
        }
    }

    /// MQTT-4.7.2-1: only at the first level, and only before a topic's `$`.
    #[test]
    fn no_leading_wildcard_reaches_a_topic_of_the_server() {
        let tree = tree(&[
            "#", "+/a/b", "$SYS/#", "$SYS/a/+", "$SYS/+/b", "x/+", "+/$y",
        ]);
        assert_eq!(found(&tree, "$SYS/a/b"), ["$SYS/#", "$SYS/+/b", "$SYS/a/+"]);
        assert_eq!(found(&tree, "x/$y"), ["#", "+/$y", "x/+"]);
        assert_eq!(found(&tree, "$x"), [""; 0]);
    }

    #[test]
    fn a_value_that_is_taken_out_is_the_first_one_wanted_and_reached_no_more() {
        let mut tree = FilterTree::new();
        assert!(tree.is_empty());
        for value in [1, 2, 3] {
            tree.insert("a/+", value).unwrap();
        }
        assert_eq!((tree.len(), tree.is_empty()), (3, false));
        assert_eq!(tree.remove("a/+", |value| *value >= 2), Some(2));
        assert_eq!(tree.remove("a/+", |value| *value == 2), None);
        assert_eq!(tree.remove("a", |_| true), None, "a way is no filter");
        assert_eq!(tree.remove("a/+/b", |_| true), None);
        assert_eq!(tree.len(), 2);
        let mut found = Vec::new();
        tree.matches("a/b", |value| found.push(*value));
        assert_eq!(found, [1, 3]);
        assert_eq!(tree.remove("a/+", |_| true), Some(1));
        assert_eq!(tree.remove("a/+", |_| true), Some(3));
        assert!(tree.is_empty());
    }

    /// The memory follows what is subscribed now, not what ever was.
    #[test]
    fn a_node_lives_as_long_as_a_value_at_it_or_below() {
        let mut tree = tree(&["a/b/c", "a/b", "a/x", "d"]);
        let root_and = |nodes: usize| 1 + nodes;
        assert_eq!(tree.node_count(), root_and(5));
        tree.remove("a/b", |_| true);
        assert_eq!(tree.node_count(), root_and(5), "a/b/c needs it");
        tree.remove("a/b/c", |_| true);
        assert_eq!(tree.node_count(), root_and(3));
        assert_eq!(found(&tree, "a/x"), ["a/x"]);
        tree.insert("e/f", "e/f").unwrap();
        assert_eq!(tree.node_count(), root_and(5));
        assert_eq!(tree.nodes.len(), root_and(5), "free slots are used again");
        for filter in ["a/x", "d", "e/f"] {
            assert_eq!(found(&tree, filter), [filter]);
            assert_eq!(tree.remove(filter, |_| true), Some(filter));
            assert_eq!(found(&tree, filter), [""; 0]);
        }
        assert_eq!(tree.node_count(), root_and(0));
        assert_eq!(tree.nodes.len(), root_and(0), "an empty tree holds nothing");
    }

    #[test]
    fn a_filter_has_as_many_levels_as_the_bound_and_no_more() {
        let levels = |count: usize| vec!["a"; count].join("/");
        let mut tree = FilterTree::new();
        tree.insert(&levels(TOPIC_LEVELS_MAX), ()).unwrap();
        assert_eq!(
            tree.insert(&levels(TOPIC_LEVELS_MAX + 1), ()),
            Err(FilterTreeError::TooDeep)
        );
        assert_eq!(
            tree.insert("a#", ()),
            Err(FilterTreeError::Filter(FilterError::Wildcard))
        );
        assert_eq!(tree.len(), 1);
        assert_eq!(tree.node_count(), 1 + TOPIC_LEVELS_MAX);
    }
}
