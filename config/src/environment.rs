//! Environment variables that override the file.
//!
//! Promises: `RISITI__KAFKA__BOOTSTRAP` sets `kafka.bootstrap`: two underscores
//! go one table deeper, a number is an index into a list of tables, letters are
//! taken as small ones; a value is read as a TOML scalar or list, else as text.
//! Never: a variable that is silently ignored, once it begins with the prefix.

use crate::document::{Node, Table, Value, parse_variable};
use crate::error::{ConfigError, Origin};
use crate::limits;

/// What the name of an override begins with.
pub const PREFIX: &str = "RISITI__";

/// Puts the overrides into a document, in the order of their names.
pub fn apply(
    file: &str,
    document: &mut Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Vec<ConfigError> {
    let mut overrides: Vec<_> = environment
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    overrides.sort();
    let mut errors = Vec::new();
    for (name, text) in overrides {
        let path = name[PREFIX.len()..].to_ascii_lowercase();
        let steps: Vec<&str> = path.split("__").collect();
        let set = if steps.iter().any(|step| step.is_empty()) {
            Err(Refusal {
                expected: "the name of a key after each pair of underscores".into(),
                found: "an empty name".into(),
                remedy: "write the key as RISITI__TABLE__KEY, for example RISITI__KAFKA__BOOTSTRAP"
                    .into(),
            })
        } else {
            set(document, &steps, parse_variable(&name, &text))
        };
        if let Err(refusal) = set {
            errors.push(ConfigError {
                file: file.to_owned(),
                origin: Origin::Variable(name),
                key: steps.join("."),
                expected: refusal.expected,
                found: refusal.found,
                remedy: refusal.remedy,
            });
        }
    }
    errors
}

struct Refusal {
    expected: String,
    found: String,
    remedy: String,
}

/// Sets the value at a path of at least one step, making what is missing on
/// the way to it.
fn set(table: &mut Table, steps: &[&str], value: Node) -> Result<(), Refusal> {
    let (step, rest) = steps.split_first().expect("a path has at least one step");
    if rest.is_empty() {
        table.insert((*step).to_owned(), value);
        return Ok(());
    }
    let made = if is_index(rest[0]) {
        Value::List(Vec::new())
    } else {
        Value::Table(Table::new())
    };
    let origin = value.origin.clone();
    let entry = table.entry((*step).to_owned()).or_insert_with(|| Node {
        value: made,
        origin: origin.clone(),
        key_origin: origin,
    });
    match &mut entry.value {
        Value::Table(inner) => set(inner, rest, value),
        Value::List(items) => set_item(items, rest, value),
        _ => Err(Refusal {
            expected: format!("a table `{step}` to set a key in"),
            found: entry.shown(),
            remedy: format!("set `{step}` itself, or make it a table in the file"),
        }),
    }
}

fn set_item(items: &mut Vec<Node>, steps: &[&str], value: Node) -> Result<(), Refusal> {
    let (step, rest) = steps
        .split_first()
        .expect("a list is entered with a step left");
    let length = items.len();
    let index = step
        .parse::<usize>()
        .ok()
        .filter(|index| is_index(step) && *index <= length && *index < limits::ROUTES_MAX);
    let Some(index) = index else {
        return Err(Refusal {
            expected: format!("an index from 0 to {length}"),
            found: format!("{step:?}"),
            remedy: "count from 0; the next free index adds one at the end".into(),
        });
    };
    if rest.is_empty() {
        if index == length {
            items.push(value)
        } else {
            items[index] = value
        }
        return Ok(());
    }
    if index == length {
        let origin = value.origin.clone();
        items.push(Node {
            value: Value::Table(Table::new()),
            origin: origin.clone(),
            key_origin: origin,
        });
    }
    match &mut items[index].value {
        Value::Table(inner) => set(inner, rest, value),
        _ => Err(Refusal {
            expected: "a table at that index".into(),
            found: items[index].shown(),
            remedy: "set the whole item instead".into(),
        }),
    }
}

fn is_index(step: &str) -> bool {
    !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit())
}
