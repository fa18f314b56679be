//! The normative statements of both versions, and what shows each: the wire cases that
//! name it, tests by name, or the reason why a server can't violate it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::script::Case;

/// A version of the standard, by the tag that cases use.
pub struct Standard {
    /// `v4` or `v5`.
    pub tag: &'static str,
    pub name: &'static str,
    /// Beside this crate.
    pub file: &'static str,
    /// How many statements its Appendix B lists.
    pub count: usize,
}

pub const STANDARDS: [Standard; 2] = [
    Standard {
        tag: "v4",
        name: "MQTT 3.1.1",
        file: "conformance/mqtt-3.1.1.txt",
        count: 141,
    },
    Standard {
        tag: "v5",
        name: "MQTT 5.0",
        file: "conformance/mqtt-5.0.txt",
        count: 251,
    },
];

/// A normative statement.
#[derive(Debug, Default)]
pub struct Statement {
    /// `MQTT-x.y.z-n`.
    pub id: String,
    /// `server`, `client` or `both`.
    pub binds: String,
    /// What it asks for, in our words.
    pub asks: String,
    /// `file::name`.
    pub tests: Vec<String>,
    /// The key of the reason why it does not apply.
    pub not: Option<String>,
    /// How the gateway departs from it, and why that stays.
    pub deviates: Option<String>,
    /// `file: case`.
    pub cases: Vec<String>,
}

impl Statement {
    pub fn is_shown(&self) -> bool {
        !self.cases.is_empty() || !self.tests.is_empty()
    }
}

/// All of one version.
#[derive(Debug, Default)]
pub struct Statements {
    pub all: Vec<Statement>,
    /// What the reasons say, by key.
    pub reasons: BTreeMap<String, String>,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

impl Statements {
    pub fn read(standard: &Standard) -> Self {
        let text = fs::read_to_string(root().join(standard.file)).unwrap();
        Self::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", standard.file))
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::default();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(reason) = line.strip_prefix("reason ") {
                let (key, says) = reason.split_once(" = ").ok_or(line)?;
                found.reasons.insert(key.to_owned(), says.to_owned());
                continue;
            }
            let fields: Vec<_> = line.split(" | ").collect();
            let (&[id, binds, asks], rest) = fields.split_first_chunk().ok_or(line)?;
            let mut statement = Statement {
                id: id.to_owned(),
                binds: binds.to_owned(),
                asks: asks.to_owned(),
                ..Statement::default()
            };
            let additions = rest.iter().flat_map(|field| field.split("; "));
            for addition in additions {
                match addition.split_once(' ').ok_or(line)? {
                    ("test", name) => statement.tests.push(name.to_owned()),
                    ("not", reason) => statement.not = Some(reason.to_owned()),
                    ("deviates", how) => statement.deviates = Some(how.to_owned()),
                    _ => return Err(format!("{line}: what is «{addition}»?")),
                }
            }
            found.all.push(statement);
        }
        Ok(found)
    }

    /// Notes which statements a case shows; what is wrong with its tags is returned.
    pub fn take(&mut self, tag: &str, file: &str, case: &Case) -> Vec<String> {
        let mut wrong = Vec::new();
        for shown in &case.shows {
            let Some((version, id)) = shown.split_once(':') else {
                wrong.push(format!("{file}: {}: «{shown}» is no tag", case.name));
                continue;
            };
            if !STANDARDS.iter().any(|standard| standard.tag == version) {
                wrong.push(format!("{file}: {}: {version} is no version", case.name));
            }
            if version != tag {
                continue;
            }
            match self.all.iter_mut().find(|statement| statement.id == id) {
                Some(statement) => statement.cases.push(format!("{file}: {}", case.name)),
                None => wrong.push(format!(
                    "{file}: {}: there is no statement {shown}",
                    case.name
                )),
            }
        }
        wrong
    }

    /// What is missing or contradicts itself, a line each.
    pub fn faults(&self, standard: &Standard) -> Vec<String> {
        let mut faults = Vec::new();
        let mut say = |statement: &Statement, what: String| {
            faults.push(format!("{} {}: {what}", standard.name, statement.id));
        };
        for (index, statement) in self.all.iter().enumerate() {
            if self.all[..index].iter().any(|s| s.id == statement.id) {
                say(statement, "stands twice".to_owned());
            }
            if !["server", "client", "both"].contains(&&*statement.binds) {
                say(statement, format!("binds «{}»", statement.binds));
            }
            let words = statement.asks.split_whitespace().count();
            if words > 15 {
                say(statement, format!("is put in {words} words"));
            }
            match (&statement.not, statement.is_shown()) {
                (None, false) => say(statement, "neither case, test nor reason".to_owned()),
                (Some(reason), true) => say(statement, format!("is shown, and not {reason}")),
                (Some(reason), false) if !self.reasons.contains_key(reason) => {
                    say(statement, format!("there is no reason «{reason}»"));
                }
                (Some(reason), false) if reason == "client" && statement.binds != "client" => {
                    say(statement, "binds the server too".to_owned());
                }
                _ => {}
            }
            for test in &statement.tests {
                if !exists(test) {
                    say(statement, format!("there is no test {test}"));
                }
            }
        }
        if self.all.len() != standard.count {
            faults.push(format!(
                "{} has {} statements, not {}",
                standard.name,
                standard.count,
                self.all.len()
            ));
        }
        faults
    }
}

/// Whether `file::name` is a test of the house.
fn exists(test: &str) -> bool {
    let Some((file, name)) = test.split_once("::") else {
        return false;
    };
    let house = root();
    let path = house.parent().unwrap_or(&house).join(file);
    fs::read_to_string(path).is_ok_and(|source| source.contains(&format!("fn {name}(")))
}
