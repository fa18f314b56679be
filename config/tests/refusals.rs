//! What is wrong with a file is said with its place, its key and a remedy.
//!
//! The cases are data, in `refusals.txt`: a file, the environment, and for each
//! error expected the parts that its text must hold.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use risiti_config::Config;

/// One case of `refusals.txt`.
struct Case {
    name: String,
    source: String,
    variables: Vec<(String, String)>,
    errors: Vec<Vec<String>>,
}

/// Reads the cases. `=== name` begins one, then the file; `$ NAME=value` is a
/// variable; `! part | part` is one error, whose text holds these parts.
fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in include_str!("refusals.txt").lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case {
                name: name.into(),
                source: String::new(),
                variables: Vec::new(),
                errors: Vec::new(),
            });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        if let Some(variable) = line.strip_prefix("$ ") {
            let (name, value) = variable.split_once('=').unwrap();
            case.variables.push((name.into(), value.into()));
        } else if let Some(parts) = line.strip_prefix("! ") {
            case.errors.push(
                parts
                    .split(" | ")
                    .map(|part| part.trim().to_owned())
                    .collect(),
            );
        } else {
            case.source.push_str(line);
            case.source.push('\n');
        }
    }
    cases
}

#[test]
fn every_error_names_its_place_key_and_remedy() {
    let cases = cases();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut failures = String::new();
    for case in &cases {
        let result =
            Config::from_toml_str("risiti.toml", &case.source, case.variables.iter().cloned());
        let Err(errors) = result else {
            failures.push_str(&format!("{}: loads\n", case.name));
            continue;
        };
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let fits = texts.len() == case.errors.len()
            && texts
                .iter()
                .zip(&case.errors)
                .all(|(text, parts)| parts.iter().all(|part| text.contains(part)));
        let whole = errors.iter().all(|error| {
            !error.expected.is_empty() && !error.found.is_empty() && !error.remedy.is_empty()
        });
        if !fits || !whole {
            failures.push_str(&format!("{}:\n{errors}\n\n", case.name));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn every_value_survives_being_replaced_by_any_kind() {
    // Whatever stands where, loading answers; it never panics.
    for key in Config::known_keys() {
        let path = key.path.replace("[]", "");
        let (table, name) = path.rsplit_once('.').unwrap_or(("", &path));
        for value in [
            "1",
            "-9223372036854775808",
            "1.5",
            "true",
            "\"\"",
            "\"\\u0000\"",
            "[]",
            "[[1]]",
            "{}",
            "1979-05-27",
        ] {
            let (open, close) = if table == "routes" {
                ("[[", "]]")
            } else {
                ("[", "]")
            };
            let source = format!("{open}{table}{close}\n{name} = {value}\n");
            let _ = Config::from_toml_str("f", &source, std::iter::empty());
        }
    }
}
