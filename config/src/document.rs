//! A TOML document in which every value knows where it was given.
//!
//! Promises: line and column of each key and value, also for what the
//! environment has put in. Never: meaning; a document knows no key of ours.

use std::collections::BTreeMap;

use toml::de::{DeInteger, DeTable, DeValue};

use crate::error::{ConfigError, Origin};
use crate::limits;

/// A value and where it was given.
#[derive(Debug, Clone)]
pub struct Node {
    pub value: Value,
    /// Where the value stands (for a table, its first mention).
    pub origin: Origin,
    /// Where its key stands, for errors that are about the key.
    pub key_origin: Origin,
}

pub type Table = BTreeMap<String, Node>;

#[derive(Debug, Clone)]
pub enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// Floats and dates: read so that an error can show them, no key takes one.
    Other {
        type_name: &'static str,
        text: String,
    },
    /// From the environment, where `7` may be meant as a text: the value as
    /// TOML reads it, and as it was written.
    Written {
        value: Box<Value>,
        text: String,
    },
    List(Vec<Node>),
    Table(Table),
}

impl Node {
    /// How an error shows it: type and value, cut to a bounded length.
    pub fn shown(&self) -> String {
        self.value.shown()
    }

    /// The text it is, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Written { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The value, seen as TOML sees it.
    pub fn value(&self) -> &Value {
        match &self.value {
            Value::Written { value, .. } => value,
            value => value,
        }
    }
}

impl Value {
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("the text {:?}", cut(text)),
            Self::Integer(number) => format!("the number {number}"),
            Self::Boolean(value) => format!("{value}"),
            Self::Other { type_name, text } => format!("the {type_name} {}", cut(text)),
            Self::Written { text, .. } => format!("{:?}", cut(text)),
            Self::List(_) => "a list".into(),
            Self::Table(_) => "a table".into(),
        }
    }
}

/// What an error shows of a text: one that is not cut could fill a screen.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(limits::SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Reads a document; all its syntax errors at once.
pub fn parse(file: &str, source: &str) -> Result<Table, Vec<ConfigError>> {
    let lines = Lines::new(source);
    let (table, errors) = DeTable::parse_recoverable(source);
    if errors.is_empty() {
        return Ok(lines.table(table.get_ref()));
    }
    let errors = errors.iter().map(|error| {
        let origin = error
            .span()
            .map_or(Origin::File, |span| lines.origin(span.start));
        ConfigError {
            file: file.to_owned(),
            // The text itself is not shown: a line that is not TOML may be a password.
            found: format!("what TOML can't take ({})", error.message()),
            origin,
            key: String::new(),
            expected: "a `key = value`, a `[table]` or a comment".into(),
            remedy: "write one `key = value` a line, texts in double quotes, each key once".into(),
        }
    });
    Err(errors.collect())
}

/// Reads what an environment variable holds: a TOML scalar or list, or else
/// the text as it is.
pub fn parse_variable(name: &str, text: &str) -> Node {
    let origin = Origin::Variable(name.to_owned());
    let written = |value| Value::Written {
        value: Box::new(value),
        text: text.to_owned(),
    };
    let value = match DeValue::parse(text) {
        Ok(parsed) => match parsed.into_inner() {
            DeValue::String(inner) => Value::Text(inner.into_owned()),
            DeValue::Boolean(value) => written(Value::Boolean(value)),
            DeValue::Integer(number) => written(integer(&number)),
            DeValue::Array(items) => {
                let place = |_: usize| origin.clone();
                Value::List(
                    items
                        .iter()
                        .map(|item| node(item.get_ref(), 0, 0, &place))
                        .collect(),
                )
            }
            _ => Value::Text(text.to_owned()),
        },
        Err(_) => Value::Text(text.to_owned()),
    };
    Node {
        value,
        key_origin: origin.clone(),
        origin,
    }
}

fn integer(number: &DeInteger<'_>) -> Value {
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => Value::Integer(number),
        Err(_) => Value::Other {
            type_name: "number",
            text: number.to_string(),
        },
    }
}

fn node(value: &DeValue<'_>, key_at: usize, at: usize, place: &dyn Fn(usize) -> Origin) -> Node {
    let converted = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => integer(number),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Float(number) => Value::Other {
            type_name: "fraction",
            text: number.to_string(),
        },
        DeValue::Datetime(date) => Value::Other {
            type_name: "date",
            text: date.to_string(),
        },
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| node(item.get_ref(), item.span().start, item.span().start, place))
                .collect(),
        ),
        DeValue::Table(entries) => Value::Table(table(entries, place)),
    };
    Node {
        value: converted,
        origin: place(at),
        key_origin: place(key_at),
    }
}

fn table(entries: &DeTable<'_>, place: &dyn Fn(usize) -> Origin) -> Table {
    entries
        .iter()
        .map(|(key, value)| {
            let node = node(value.get_ref(), key.span().start, value.span().start, place);
            (key.get_ref().to_string(), node)
        })
        .collect()
}

/// Where the lines of a source begin.
struct Lines<'s> {
    source: &'s str,
    starts: Vec<usize>,
}

impl<'s> Lines<'s> {
    fn new(source: &'s str) -> Self {
        let ends = source
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0)
            .chain(ends.map(|(at, _)| at + 1))
            .collect();
        Self { source, starts }
    }

    fn origin(&self, at: usize) -> Origin {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts[line - 1];
        let column = self
            .source
            .get(start..at)
            .map_or(0, |before| before.chars().count());
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Origin::Line {
            line: number(line),
            column: number(column + 1),
        }
    }

    fn table(&self, entries: &DeTable<'_>) -> Table {
        table(entries, &|at| self.origin(at))
    }
}
