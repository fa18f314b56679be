//! A configuration file and the environment over it.
//!
//! An input is a file, then after a null character variables, one a line. Loading
//! answers, in bounded memory. Each error names the file, a place that is there,
//! what was expected, what was found and a remedy. A file that is moved down by a
//! line says the same of every place, a line further down. What is accepted holds
//! what the types promise: routes with filters and clusters that exist, topics that
//! Kafka takes, templates with an id; a reload of the same changes nothing, and no
//! secret is in any text about it.

#![no_main]

use risiti_config::{Config, ConfigError, ConfigErrors, Origin};
use risiti_fuzz::control::breaks;
use risiti_fuzz::seeds::{self, Seed};
use risiti_fuzz::{memory, target};
use risiti_topics::validate_filter;

/// A file that the fuzz runs in; a secret may stand in it.
const NAME: &str = "risiti.toml";

target!("config", seeds, |data| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (source, environment) = text.split_once('\0').unwrap_or((text, ""));
    // A key may name a file; this machine's are no part of an input.
    if text.contains("_file") || text.to_ascii_uppercase().contains("_FILE") {
        return;
    }
    let variables: Vec<(String, String)> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let account = memory::begin();
    let loaded = Config::from_toml_str(NAME, source, variables.iter().cloned());
    let bound = (1 << 20) + 2_000 * data.len();
    assert!(
        account.peak_bytes() <= bound,
        "{} bytes held",
        account.peak_bytes()
    );
    if source.starts_with('\u{feff}') {
        return; // a byte order mark is one only at the beginning
    }
    let moved = format!("\n{source}");
    let moved = Config::from_toml_str(NAME, &moved, variables.iter().cloned());
    match (loaded, moved) {
        (Ok(config), Ok(moved)) => {
            assert_eq!(config, moved);
            accepted(&config);
        }
        (Err(errors), Err(moved)) => refused(&errors, &moved, source),
        _ => panic!("an empty line decides"),
    }
});

fn refused(errors: &ConfigErrors, moved: &ConfigErrors, source: &str) {
    let lines: Vec<&str> = source.split('\n').collect();
    let (errors, moved): (Vec<_>, Vec<_>) = (errors.iter().collect(), moved.iter().collect());
    assert!(!errors.is_empty());
    assert_eq!(
        errors.len(),
        moved.len(),
        "an empty line changes the number of errors"
    );
    for (error, moved) in errors.iter().zip(moved) {
        let ConfigError {
            file,
            origin,
            expected,
            found,
            remedy,
            ..
        } = error;
        assert_eq!(file, NAME);
        assert!(
            !expected.is_empty() && !found.is_empty() && !remedy.is_empty(),
            "{error}"
        );
        match origin {
            Origin::Line { line, column } => {
                let (line, column) = (*line as usize, *column as usize);
                let at = lines
                    .get(line - 1)
                    .unwrap_or_else(|| panic!("no line {line}: {error}"));
                assert!(
                    (1..=at.chars().count() + 1).contains(&column),
                    "no column: {error}"
                );
                let down = if breaks("config-line") { 0 } else { 1 };
                let wanted = Origin::Line {
                    line: (line + down) as u32,
                    column: column as u32,
                };
                assert_eq!(moved.origin, wanted, "{error}");
            }
            Origin::File => assert_eq!(moved.origin, Origin::File),
            Origin::Variable(name) => {
                assert!(name.starts_with("RISITI__"));
                assert!(!error.key.is_empty() || name == "RISITI__");
            }
        }
        assert!(error.to_string().lines().count() >= 2);
    }
}

fn accepted(config: &Config) {
    assert!(config.reloadable_diff(config).is_empty());
    assert!(!config.routes.is_empty());
    for route in &config.routes {
        assert_eq!(validate_filter(&route.filter), Ok(()), "{}", route.name);
        assert!(
            config.cluster(&route.cluster).is_some(),
            "{} leads nowhere",
            route.name
        );
        kafka_topic(&route.topic);
    }
    for (_, cluster) in config.all_clusters() {
        kafka_topic(&cluster.positions_topic);
        assert!(cluster.partitions > 0 && cluster.replication_factor > 0);
    }
    kafka_topic(&config.receipts.topic);
    let terminals = &config.terminals;
    for template in [&terminals.records, &terminals.receipts, &terminals.status] {
        assert_eq!(
            template.split('/').filter(|level| *level == "{id}").count(),
            1,
            "{template}"
        );
        assert!(!template.contains(['+', '#']));
    }
    let store = &config.store;
    assert!(store.receipts_reserve_bytes < store.budget_bytes);
    let mut told = config.describe();
    told.extend(config.warnings());
    told.push_str(&format!("{config:?}"));
    for secret in config
        .all_clusters()
        .filter_map(|(_, cluster)| cluster.security.password.as_ref())
    {
        // A short one may be part of any word.
        assert!(
            secret.expose().len() < 12 || !told.contains(secret.expose()),
            "a secret is told"
        );
    }
}

/// Kafka's own rule for names of topics.
fn kafka_topic(topic: &str) {
    let letters = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    assert!(
        (1..=249).contains(&topic.len()) && topic.chars().all(letters),
        "{topic:?}"
    );
    assert!(topic != "." && topic != "..");
}

fn seeds() -> Vec<Seed> {
    let mut all: Vec<Seed> = Vec::new();
    for name in ["minimal", "demo"] {
        let text = seeds::file(&format!("config/examples/{name}.toml"));
        all.push((format!("example-{name}"), text.into_bytes()));
    }
    // The commented file with every key set, table by table: comments are no seed.
    let whole = seeds::file("config/examples/risiti.toml");
    let set: Vec<&str> = whole
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .filter(|line| !line.starts_with('#') && !line.is_empty() && !line.contains("_file"))
        .map(|line| line.split(" #").next().unwrap_or(line))
        .collect();
    for (table, part) in set.join("\n").split("\n[").enumerate() {
        let part = if table == 0 {
            part.to_owned()
        } else {
            format!("[{part}\n")
        };
        let address = if part.starts_with("[kafka]") {
            ""
        } else {
            "[kafka]\nbootstrap = \"k:9092\"\n"
        };
        all.push((
            format!("table-{table:02}"),
            format!("{address}{part}").into_bytes(),
        ));
    }
    let cases = seeds::file("config/tests/refusals.txt");
    for (number, case) in cases.split("=== ").skip(1).enumerate() {
        let (mut source, mut variables) = (String::new(), String::new());
        for line in case.lines().skip(1) {
            if let Some(variable) = line.strip_prefix("$ ") {
                variables.push_str(variable);
                variables.push('\n');
            } else if !line.starts_with("! ") {
                source.push_str(line);
                source.push('\n');
            }
        }
        if !variables.is_empty() {
            source.push('\0');
            source.push_str(&variables);
        }
        if !source.contains("_file") && !source.contains("_FILE") && source.len() < 1_000 {
            all.push((format!("refusal-{number:02}"), source.into_bytes()));
        }
    }
    all
}
