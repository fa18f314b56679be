//! The kinds of value that a key may have.
//!
//! Promises: a kind says what it expects before it sees a value, and gives a
//! remedy with an example. Never: two keys of one kind with different rules.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::ByteSize;
use crate::choice::Choice;
use crate::document::{Node, Value};

/// Why a value is refused, without where.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub expected: String,
    pub found: String,
    pub remedy: String,
}

impl Refusal {
    pub fn new(expected: &str, found: &str, remedy: &str) -> Self {
        Self {
            expected: expected.to_owned(),
            found: found.to_owned(),
            remedy: remedy.to_owned(),
        }
    }
}

/// A kind of value.
pub trait Kind {
    /// What it is in the configuration.
    type Value;

    /// What is expected, to stand after "expected".
    fn expected(&self) -> String;

    /// What to write, with an example.
    fn remedy(&self) -> String;

    /// Reads a value, or says why not.
    fn read(&self, node: &Node) -> Result<Self::Value, Refusal>;

    /// Writes a value as TOML.
    fn write(&self, value: &Self::Value) -> String;

    /// The refusal of a value that needs no closer reason.
    fn refuse(&self, node: &Node) -> Refusal {
        Refusal {
            expected: self.expected(),
            found: node.shown(),
            remedy: self.remedy(),
        }
    }

    /// The refusal of a text that breaks a rule.
    fn refuse_because(&self, node: &Node, reason: &str) -> Refusal {
        Refusal {
            expected: self.expected(),
            found: format!("{}: {reason}", node.shown()),
            remedy: self.remedy(),
        }
    }
}

/// A list, each item of one kind.
pub struct List<I> {
    pub item: I,
    /// How many items it may have, both ends included.
    pub count: RangeInclusive<usize>,
    pub remedy: &'static str,
}

impl<I: Kind> Kind for List<I> {
    type Value = Vec<I::Value>;

    fn expected(&self) -> String {
        format!("a list of {}", self.item.expected())
    }

    fn remedy(&self) -> String {
        self.remedy.into()
    }

    fn read(&self, node: &Node) -> Result<Self::Value, Refusal> {
        let Value::List(items) = node.value() else {
            return Err(self.refuse(node));
        };
        let read: Result<Vec<_>, _> = items.iter().map(|item| self.item.read(item)).collect();
        match read {
            Ok(values) if self.count.contains(&values.len()) => Ok(values),
            _ => Err(self.refuse(node)),
        }
    }

    fn write(&self, value: &Self::Value) -> String {
        let items: Vec<_> = value.iter().map(|item| self.item.write(item)).collect();
        format!("[{}]", items.join(", "))
    }
}

/// `true` or `false`.
pub struct Boolean;

impl Kind for Boolean {
    type Value = bool;

    fn expected(&self) -> String {
        "true or false".into()
    }

    fn remedy(&self) -> String {
        "write true or false, without quotes".into()
    }

    fn read(&self, node: &Node) -> Result<bool, Refusal> {
        match node.value() {
            Value::Boolean(value) => Ok(*value),
            _ => Err(self.refuse(node)),
        }
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A whole number in a range, both ends included.
pub struct Whole<N> {
    min: N,
    max: N,
    unit: &'static str,
}

impl<N> Whole<N> {
    /// `unit` stands after the range in errors: `seconds`.
    pub fn new(min: N, max: N, unit: &'static str) -> Self {
        Self { min, max, unit }
    }
}

impl<N: Copy + PartialOrd + std::fmt::Display + TryFrom<i64>> Kind for Whole<N> {
    type Value = N;

    fn expected(&self) -> String {
        format!(
            "a whole number of {} from {} to {}",
            self.unit, self.min, self.max
        )
    }

    fn remedy(&self) -> String {
        format!(
            "write a number from {} to {}, without quotes",
            self.min, self.max
        )
    }

    fn read(&self, node: &Node) -> Result<N, Refusal> {
        let Value::Integer(number) = node.value() else {
            return Err(self.refuse(node));
        };
        match N::try_from(*number) {
            Ok(number) if number >= self.min && number <= self.max => Ok(number),
            _ => Err(self.refuse(node)),
        }
    }

    fn write(&self, value: &N) -> String {
        value.to_string()
    }
}

/// A number of bytes in a range, both ends included.
pub struct Size {
    min: ByteSize,
    max: ByteSize,
}

impl Size {
    pub fn new(min: ByteSize, max: ByteSize) -> Self {
        Self { min, max }
    }
}

impl Kind for Size {
    type Value = ByteSize;

    fn expected(&self) -> String {
        format!("a size from {} to {}", self.min, self.max)
    }

    fn remedy(&self) -> String {
        "write a whole number and a unit (KiB, MiB, GiB) in quotes, for example \"64MiB\"".into()
    }

    fn read(&self, node: &Node) -> Result<ByteSize, Refusal> {
        let size = match node.value() {
            Value::Integer(number) => u64::try_from(*number).ok().map(ByteSize::new),
            _ => node.text().and_then(|text| text.parse().ok()),
        };
        size.filter(|size| *size >= self.min && *size <= self.max)
            .ok_or_else(|| self.refuse(node))
    }

    fn write(&self, value: &ByteSize) -> String {
        format!("\"{value}\"")
    }
}

/// A number of bytes within bounds, or 0 for none at all.
pub struct SizeOrOff(Size);

impl SizeOrOff {
    pub fn new(min: ByteSize, max: ByteSize) -> Self {
        Self(Size::new(min, max))
    }
}

impl Kind for SizeOrOff {
    type Value = ByteSize;

    fn expected(&self) -> String {
        format!("{}, or \"0B\" to switch it off", self.0.expected())
    }

    fn remedy(&self) -> String {
        self.0.remedy()
    }

    fn read(&self, node: &Node) -> Result<ByteSize, Refusal> {
        match Size::new(ByteSize::ZERO, ByteSize::ZERO).read(node) {
            Ok(off) => Ok(off),
            Err(_) => self.0.read(node).map_err(|_| self.refuse(node)),
        }
    }

    fn write(&self, value: &ByteSize) -> String {
        self.0.write(value)
    }
}

/// One of a few words.
pub struct Word<C>(PhantomData<C>);

impl<C> Word<C> {
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<C: Choice> Kind for Word<C> {
    type Value = C;

    fn expected(&self) -> String {
        let words: Vec<_> = C::WORDS
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        format!("one of {}", words.join(", "))
    }

    fn remedy(&self) -> String {
        "write one of these words in quotes".into()
    }

    fn read(&self, node: &Node) -> Result<C, Refusal> {
        let text = node.text().ok_or_else(|| self.refuse(node))?;
        C::from_word(text).ok_or_else(|| {
            let near = crate::section::nearest(text, C::WORDS.iter().map(|(word, _)| *word));
            let mut refusal = self.refuse(node);
            if let Some(near) = near {
                refusal.remedy = format!("did you mean \"{near}\"?");
            }
            refusal
        })
    }

    fn write(&self, value: &C) -> String {
        let word = C::WORDS
            .iter()
            .find(|(_, choice)| choice == value)
            .map_or("", |(word, _)| word);
        format!("\"{word}\"")
    }
}

/// An IP address and port to listen on.
pub struct Address {
    /// The port shown in the remedy.
    pub example: &'static str,
}

impl Kind for Address {
    type Value = SocketAddr;

    fn expected(&self) -> String {
        "an IP address and a port".into()
    }

    fn remedy(&self) -> String {
        format!(
            "write an address, not a name, and a port, for example \"{}\"",
            self.example
        )
    }

    fn read(&self, node: &Node) -> Result<SocketAddr, Refusal> {
        node.text()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.refuse(node))
    }

    fn write(&self, value: &SocketAddr) -> String {
        format!("\"{value}\"")
    }
}

/// A path.
pub struct FilePath {
    /// What stands there, to stand after "the path of".
    pub what: &'static str,
}

impl Kind for FilePath {
    type Value = PathBuf;

    fn expected(&self) -> String {
        format!("the path of {}", self.what)
    }

    fn remedy(&self) -> String {
        format!("write the path of {} in quotes", self.what)
    }

    fn read(&self, node: &Node) -> Result<PathBuf, Refusal> {
        let text = node
            .text()
            .filter(|text| !text.is_empty() && !text.contains('\0'));
        text.map(PathBuf::from).ok_or_else(|| self.refuse(node))
    }

    fn write(&self, value: &PathBuf) -> String {
        format!("{:?}", value.display().to_string())
    }
}

/// A text with a rule of its own.
pub struct Text {
    pub expected: &'static str,
    pub remedy: &'static str,
    /// The rule; the error is the reason, or empty if `expected` says it all.
    pub rule: fn(&str) -> Result<(), String>,
}

impl Kind for Text {
    type Value = String;

    fn expected(&self) -> String {
        self.expected.into()
    }

    fn remedy(&self) -> String {
        self.remedy.into()
    }

    fn read(&self, node: &Node) -> Result<String, Refusal> {
        let text = node.text().ok_or_else(|| self.refuse(node))?;
        match (self.rule)(text) {
            Ok(()) => Ok(text.to_owned()),
            Err(reason) if reason.is_empty() => Err(self.refuse(node)),
            Err(reason) => Err(self.refuse_because(node, &reason)),
        }
    }

    fn write(&self, value: &String) -> String {
        format!("\"{value}\"")
    }
}
