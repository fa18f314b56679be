//! What each identity of the site may do, worked out without the gateway's code.
//!
//! Rights are spelled out, and a subscription is judged by every topic that it can
//! match: with each word that stands in any right, and words that stand in none, in
//! place of each of its wildcards.

/// An identity and its rights.
pub struct Identity {
    /// Its name at the site; empty for none.
    pub name: &'static str,
    publish: &'static [&'static str],
    subscribe: &'static [&'static str],
}

/// All that can connect.
pub const IDENTITIES: [Identity; 6] = [
    Identity {
        name: "7",
        publish: &["t/7/records", "t/7/status"],
        subscribe: &["t/7/receipts", "news/7/#"],
    },
    Identity {
        name: "8",
        publish: &["t/8/records", "t/8/status"],
        subscribe: &["t/8/receipts", "news/8/#"],
    },
    Identity {
        name: "ops",
        publish: &["cmd/ops/+", "t/7/#"],
        subscribe: &["cmd/ops/+", "t/+/status"],
    },
    Identity {
        name: "idle",
        publish: &[],
        subscribe: &[],
    },
    Identity {
        name: "auditor",
        publish: &["#"],
        subscribe: &["#"],
    },
    Identity {
        name: "",
        publish: &["meters/+/reading", "public/talk"],
        subscribe: &["public/#", "public/talk"],
    },
];

/// Topics to publish to.
pub const TOPICS: [&str; 24] = [
    "t/7/records",
    "t/7/status",
    "t/7/receipts",
    "t/8/records",
    "t/8/status",
    "t/8/receipts",
    "t/9/status",
    "t/7",
    "t/7/status/x",
    "T/7/status",
    "/t/7/status",
    "t//status",
    "t/{id}/status",
    "news/7",
    "news/7/a",
    "news/8/a/b",
    "cmd/ops/x",
    "cmd/7/x",
    "cmd/ops/x/y",
    "meters/1/reading",
    "meters/1/2/reading",
    "public",
    "public/talk",
    "$SYS/x",
];

/// The levels that stand in any right, and two that stand in none.
const WORDS: [&str; 18] = [
    "t", "7", "8", "records", "status", "receipts", "news", "cmd", "ops", "meters", "reading",
    "public", "talk", "9", "T", "$SYS", "", "nobody's",
];

/// The most levels of a right: deeper topics differ in nothing.
const LEVELS: usize = 3;

/// Whether the filter matches the topic (MQTT 5.0, section 4.7), said once more.
fn matches(filter: &[&str], topic: &[&str], first: bool) -> bool {
    let hidden = first && topic.first().is_some_and(|level| level.starts_with('$'));
    match (filter, topic) {
        (["#"], _) => !hidden,
        ([], []) => true,
        ([], _) | (_, []) => false,
        (["+", filter @ ..], [_, topic @ ..]) => !hidden && matches(filter, topic, false),
        ([wanted, filter @ ..], [level, topic @ ..]) => {
            wanted == level && matches(filter, topic, false)
        }
    }
}

fn levels(text: &str) -> Vec<&str> {
    text.split('/').collect()
}

fn receipts_of(topic: &str) -> Option<&str> {
    match levels(topic)[..] {
        ["t", id, "receipts"] => Some(id),
        _ => None,
    }
}

impl Identity {
    fn covers(filters: &[&str], topic: &[&str]) -> bool {
        filters.iter().any(|f| matches(&levels(f), topic, true))
    }

    /// Whether it may publish there. Its records are on its own topic, receipts are
    /// the gateway's, topics with a dollar the server's.
    pub fn may_publish(&self, topic: &str) -> bool {
        let is_foreign = match levels(topic)[..] {
            ["t", id, "records"] => id != self.name,
            _ => false,
        };
        !is_foreign
            && receipts_of(topic).is_none()
            && !topic.starts_with('$')
            && Self::covers(self.publish, &levels(topic))
    }

    /// Whether it may be given a message of that topic.
    pub fn may_receive(&self, topic: &str) -> bool {
        Self::covers(self.subscribe, &levels(topic))
    }
}

/// Whether each identity may subscribe to it: to every topic that it can match.
pub fn may_subscribe(filter: &str, shared: bool) -> Vec<bool> {
    let wanted = levels(filter);
    let mut may = vec![true; IDENTITIES.len()];
    each_topic(&wanted, &mut Vec::new(), &mut |topic| {
        for (may, identity) in may.iter_mut().zip(&IDENTITIES) {
            *may = *may && Identity::covers(identity.subscribe, topic);
        }
    });
    // Receipts are their terminal's, and not to be shared.
    if let Some(id) = receipts_of(filter)
        && !id.contains(['+', '#'])
    {
        for (may, identity) in may.iter_mut().zip(&IDENTITIES) {
            *may &= identity.name == id && !shared;
        }
    }
    may
}

/// Every topic that a filter matches, over [`WORDS`] in place of its wildcards.
fn each_topic<'a>(rest: &[&'a str], begun: &mut Vec<&'a str>, see: &mut dyn FnMut(&[&str])) {
    let is_hidden = |word: &str, begun: &[&str]| begun.is_empty() && word.starts_with('$');
    match rest {
        [] => see(begun),
        ["#"] => {
            if !begun.is_empty() {
                see(begun);
            }
            if begun.len() > LEVELS {
                return;
            }
            for word in WORDS {
                if !is_hidden(word, begun) {
                    begun.push(word);
                    each_topic(&["#"], begun, see);
                    begun.pop();
                }
            }
        }
        ["+", rest @ ..] => {
            for word in WORDS {
                if !is_hidden(word, begun) {
                    begun.push(word);
                    each_topic(rest, begun, see);
                    begun.pop();
                }
            }
        }
        [word, rest @ ..] => {
            begun.push(word);
            each_topic(rest, begun, see);
            begun.pop();
        }
    }
}

/// Every filter that a topic of [`TOPICS`] suggests: itself, each set of its levels
/// as `+`, and each of these cut off by `#`.
pub fn filters() -> Vec<String> {
    let mut all = std::collections::BTreeSet::from(["#".to_owned(), "+/#".into(), "+".into()]);
    for topic in TOPICS {
        let levels = levels(topic);
        for set in 0..1_u32 << levels.len() {
            let with: Vec<&str> = levels
                .iter()
                .enumerate()
                .map(|(n, level)| if set >> n & 1 == 1 { "+" } else { *level })
                .collect();
            all.insert(with.join("/"));
            for n in 0..=with.len() {
                let mut cut = with[..n].to_vec();
                cut.push("#");
                all.insert(cut.join("/"));
            }
        }
    }
    all.into_iter().collect()
}
