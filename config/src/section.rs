//! A table of the document, read key by key.
//!
//! Promises: the keys that were asked for are the keys that exist; any other is
//! refused with the nearest one as a suggestion, and no error hides another.
//! Never: a value taken over in silence that its kind does not allow.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::document::{Node, Table, Value};
use crate::error::{ConfigError, Origin};
use crate::kind::{Kind, Refusal};

/// A key that a configuration may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The key with its tables; `[]` marks a list of tables.
    pub path: String,
    /// Its default as TOML text; none if it has none.
    pub default: Option<String>,
}

/// What reading has found out: errors, warnings, and the keys asked for.
#[derive(Debug)]
pub struct Report {
    file: String,
    errors: RefCell<Vec<ConfigError>>,
    /// Keys that have an error: a second one about the same key would only
    /// follow from the first.
    refused: RefCell<HashSet<String>>,
    warnings: RefCell<Vec<String>>,
    keys: RefCell<Vec<KnownKey>>,
    credentials: Option<PathBuf>,
}

impl Report {
    /// About `file`; `credentials` is the directory that systemd gave for them.
    pub fn new(file: &str, credentials: Option<PathBuf>) -> Self {
        Self {
            credentials,
            file: file.to_owned(),
            errors: RefCell::default(),
            refused: RefCell::default(),
            warnings: RefCell::default(),
            keys: RefCell::default(),
        }
    }

    /// Where systemd has put credentials, if it has.
    pub fn credentials(&self) -> Option<&Path> {
        self.credentials.as_deref()
    }

    /// Refuses what a key was given; only the first refusal of a key counts.
    pub fn refuse(&self, origin: &Origin, key: &str, refusal: Refusal) {
        if !self.refused.borrow_mut().insert(key.to_owned()) {
            return;
        }
        self.errors.borrow_mut().push(ConfigError {
            file: self.file.clone(),
            origin: origin.clone(),
            key: key.to_owned(),
            expected: refusal.expected,
            found: refusal.found,
            remedy: refusal.remedy,
        });
    }

    pub fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Errors, warnings and keys.
    pub fn into_parts(self) -> (Vec<ConfigError>, Vec<String>, Vec<KnownKey>) {
        (
            self.errors.into_inner(),
            self.warnings.into_inner(),
            self.keys.into_inner(),
        )
    }
}

/// One table, with its place in the document.
#[derive(Debug)]
pub struct Section<'d> {
    report: &'d Report,
    path: String,
    origin: Origin,
    table: Option<&'d Table>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'d> Section<'d> {
    /// The document itself.
    pub fn root(report: &'d Report, table: &'d Table) -> Self {
        Self {
            report,
            path: String::new(),
            origin: Origin::File,
            table: Some(table),
            asked: RefCell::default(),
        }
    }

    /// The whole key of one of its keys.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Where a key was given, or else the table that lacks it.
    pub fn origin_of(&self, key: &str) -> Origin {
        self.table
            .and_then(|table| table.get(key))
            .map_or_else(|| self.origin.clone(), |node| node.origin.clone())
    }

    /// Whether a key was given.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Refuses what was given for a key.
    pub fn refuse(&self, key: &str, refusal: Refusal) {
        self.report
            .refuse(&self.origin_of(key), &self.path_of(key), refusal);
    }

    /// Its own key.
    pub fn path(&self) -> String {
        self.path.clone()
    }

    /// Where it was given.
    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }

    /// Where its warnings and errors go.
    pub fn report(&self) -> &'d Report {
        self.report
    }

    fn ask(&self, key: &'static str, default: Option<String>) -> Option<&'d Node> {
        self.asked.borrow_mut().push(key);
        let path = self.path_of(key).replace("[0]", "[]");
        self.report
            .keys
            .borrow_mut()
            .push(KnownKey { path, default });
        self.table.and_then(|table| table.get(key))
    }

    fn parse<K: Kind>(&self, key: &'static str, node: &Node, kind: &K) -> Option<K::Value> {
        match kind.read(node) {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.report
                    .refuse(&node.origin, &self.path_of(key), refusal);
                None
            }
        }
    }

    /// A key with a default, which also stands in for a value that is refused,
    /// so that reading goes on and finds the other errors.
    pub fn read<K: Kind>(&self, key: &'static str, default: K::Value, kind: &K) -> K::Value {
        let node = self.ask(key, Some(kind.write(&default)));
        node.and_then(|node| self.parse(key, node, kind))
            .unwrap_or(default)
    }

    /// A key without a default.
    pub fn read_optional<K: Kind>(&self, key: &'static str, kind: &K) -> Option<K::Value> {
        let node = self.ask(key, None);
        node.and_then(|node| self.parse(key, node, kind))
    }

    /// A key that must be given.
    pub fn read_required<K: Kind>(&self, key: &'static str, kind: &K) -> Option<K::Value> {
        let node = self.ask(key, None);
        if node.is_none() {
            self.refuse(
                key,
                Refusal::new(&kind.expected(), "nothing", &kind.remedy()),
            );
        }
        node.and_then(|node| self.parse(key, node, kind))
    }

    /// A key that exists only to be refused: what people write although it
    /// must not stand there. Its value is never shown.
    pub fn read_refused(&self, key: &'static str, expected: &str, remedy: &str) {
        self.asked.borrow_mut().push(key);
        if self.has(key) {
            self.refuse(
                key,
                Refusal::new(expected, "a value in its place (not shown)", remedy),
            );
        }
    }

    /// A table inside; one that is not given is empty.
    pub fn section(&self, key: &'static str) -> Section<'d> {
        self.asked.borrow_mut().push(key);
        let node = self.table.and_then(|table| table.get(key));
        let path = self.path_of(key);
        match node {
            Some(node) => self.within(path, node),
            None => Section {
                report: self.report,
                path,
                origin: self.origin.clone(),
                table: None,
                asked: RefCell::default(),
            },
        }
    }

    /// The tables in a table, by name.
    pub fn sections(&self, key: &'static str) -> Vec<(&'d str, Section<'d>)> {
        let outer = self.section(key);
        let tables = outer.table.into_iter().flatten();
        tables
            .map(|(name, node)| (name.as_str(), outer.within(outer.path_of(name), node)))
            .collect()
    }

    /// The tables in a list.
    pub fn list(&self, key: &'static str) -> Vec<Section<'d>> {
        self.asked.borrow_mut().push(key);
        let path = self.path_of(key);
        match self.table.and_then(|table| table.get(key)) {
            None => Vec::new(),
            Some(Node {
                value: Value::List(items),
                ..
            }) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.within(format!("{path}[{index}]"), item))
                .collect(),
            Some(node) => {
                let remedy = format!("write [[{path}]] above its keys, with two brackets");
                self.refuse(
                    key,
                    Refusal::new("a list of tables", &node.shown(), &remedy),
                );
                Vec::new()
            }
        }
    }

    /// The entries of a table whose keys are free.
    pub fn entries(&self, key: &'static str) -> Vec<(&'d str, &'d Node)> {
        let inner = self.section(key);
        self.report.keys.borrow_mut().push(KnownKey {
            path: inner.path.clone(),
            default: None,
        });
        inner
            .table
            .into_iter()
            .flatten()
            .map(|(name, node)| (name.as_str(), node))
            .collect()
    }

    fn within(&self, path: String, node: &'d Node) -> Section<'d> {
        let table = match &node.value {
            Value::Table(table) => Some(table),
            _ => {
                let remedy = format!("write [{path}] on a line of its own and its keys below it");
                self.report.refuse(
                    &node.origin,
                    &path,
                    Refusal::new("a table", &node.shown(), &remedy),
                );
                None
            }
        };
        Section {
            report: self.report,
            path,
            origin: node.key_origin.clone(),
            table,
            asked: RefCell::default(),
        }
    }

    /// Refuses every key that was not asked for.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, node) in self.table.into_iter().flatten() {
            if asked.contains(&key.as_str()) {
                continue;
            }
            let place = if self.path.is_empty() {
                "the file".into()
            } else {
                format!("[{}]", self.path)
            };
            let remedy = match nearest(key, asked.iter().copied()) {
                Some(near) => format!("did you mean `{near}`? else remove it"),
                None => format!("remove it; {place} takes {}", asked.join(", ")),
            };
            let expected = format!("a key that {place} has");
            let refusal = Refusal::new(
                &expected,
                &format!("the unknown key `{}`", crate::document::cut(key)),
                &remedy,
            );
            self.report
                .refuse(&node.key_origin, &self.path_of(key), refusal);
        }
    }
}

/// The known word nearest to what was written, if it is near enough to be meant.
pub fn nearest<'w>(written: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    known
        .map(|word| (strsim::jaro_winkler(written, word), word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}
