//! Which dialogues of the connection core a whole gateway can have over TCP, and how
//! they read there.
//!
//! The core's cases speak for the shell (`accept`, `settle 0 00`, `suback 1 00`). Where
//! what they say is what a gateway without subscribers and records does by itself,
//! the same bytes must come over TCP. Those with other limits, a clock, deliveries,
//! refusals of the shell or what only a core knows are left to the core.

use crate::support::script::{Case, cases};

const FILES: &[(&str, &str)] = &[
    (
        "connect_v311",
        include_str!("../../../gateway/mqtt/tests/cases/connect_v311.txt"),
    ),
    (
        "connect_v5",
        include_str!("../../../gateway/mqtt/tests/cases/connect_v5.txt"),
    ),
    (
        "publish_in",
        include_str!("../../../gateway/mqtt/tests/cases/publish_in.txt"),
    ),
    (
        "publish_out",
        include_str!("../../../gateway/mqtt/tests/cases/publish_out.txt"),
    ),
    (
        "subscribe",
        include_str!("../../../gateway/mqtt/tests/cases/subscribe.txt"),
    ),
    (
        "ending",
        include_str!("../../../gateway/mqtt/tests/cases/ending.txt"),
    ),
    (
        "malformed",
        include_str!("../../../gateway/mqtt/tests/cases/malformed.txt"),
    ),
    (
        "strings",
        include_str!("../../../gateway/mqtt/tests/cases/strings.txt"),
    ),
    (
        "headers",
        include_str!("../../../gateway/mqtt/tests/cases/headers.txt"),
    ),
    (
        "flow",
        include_str!("../../../gateway/mqtt/tests/cases/flow.txt"),
    ),
];

/// Every case of the core with its file's name.
pub fn all() -> Vec<(&'static str, Case)> {
    FILES
        .iter()
        .flat_map(|(file, text)| cases(text).into_iter().map(|case| (*file, case)))
        .collect()
}

/// Events whose answer depends on more than the packet: the gateway's own topics and
/// records, shares, what is retained, what was subscribed before.
const LEFT_TO_THE_CORE: [&str; 5] = ["$", "/records", ",shared", " retain", "unsubscribe"];

/// The case as one client's dialogue over TCP, if it is one.
pub fn over_tcp(case: &Case) -> Option<Case> {
    let v5 = case
        .lines
        .iter()
        .any(|l| l.starts_with("open v5") || l.contains("connect v5"));
    let speaks = |verb: &str| case.lines.iter().any(|line| line.starts_with(verb));
    if speaks("settle") && speaks("suback") {
        return None; // which of them is first is the shell's affair
    }
    let mut lines = vec!["c dials".to_owned()];
    let mut closed = false;
    for line in &case.lines {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let settled_by_itself = match verb {
            "settle" => !v5 && rest.ends_with(" 00"),
            "completed" | "released" | "reads" => true,
            "suback" => rest.split(' ').skip(1).all(|code| code < "03"),
            "=" => LEFT_TO_THE_CORE.iter().all(|event| !rest.contains(event)),
            "accept" => rest.is_empty(),
            "open" => true,
            ">" | "<" => true,
            _ => false,
        };
        if !settled_by_itself {
            return None;
        }
        match verb {
            "open" => {
                lines.pop();
                lines.push(format!("c open {}", rest));
            }
            ">" => lines.push(format!("c > {rest}")),
            "<" if !rest.is_empty() => lines.push(format!("c < {rest}")),
            // A gateway takes such a message on, so what follows is its own affair.
            "=" if v5 && rest.starts_with("publish") && !rest.contains("qos=0") => return None,
            "=" if rest.starts_with("closed") => closed = true,
            _ => {}
        }
    }
    if closed {
        lines.push("c ends".to_owned());
    } else {
        lines.push("c quiet".to_owned());
    }
    Some(Case {
        name: case.name.clone(),
        lines,
        shows: Vec::new(),
    })
}
