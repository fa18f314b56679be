//! The shipped files: they load, and the commented one tells the truth.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use std::path::{Path, PathBuf};

use risiti_config::{Bootstrap, Config, Format, Key};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
}

fn load(name: &str) -> Config {
    Config::load(&example(name), std::iter::empty()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The commented file with every key set: `#key = value` loses its `#`.
fn every_key_set() -> toml::Table {
    let source = std::fs::read_to_string(example("risiti.toml")).unwrap();
    let set: Vec<&str> = source
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect();
    set.join("\n").parse().unwrap()
}

fn value_at(table: &toml::Table, path: &str) -> Option<toml::Value> {
    let mut steps = path.split('.');
    let start = toml::Value::try_from(table).ok()?;
    let found = steps.try_fold(&start, |value, step| match step.strip_suffix("[]") {
        Some(list) => value.get(list)?.get(0),
        None => value.get(step),
    });
    found.cloned()
}

#[test]
fn the_minimal_file_is_all_defaults() {
    assert_eq!(
        load("minimal.toml"),
        Config::new(Bootstrap::Servers(vec!["127.0.0.1:9092".into()]))
    );
}

#[test]
fn the_commented_file_is_all_defaults_but_the_address() {
    let config = load("risiti.toml");
    assert_eq!(config, Config::new(config.kafka.bootstrap.clone()));
    assert_eq!(
        config
            .kafka
            .bootstrap
            .servers()
            .map(|servers| servers.split(',').count()),
        Some(3)
    );
}

#[test]
fn the_demo_file_takes_terminals_and_others() {
    let config = load("demo.toml");
    assert!(config.kafka.bootstrap.is_embedded());
    assert_eq!(config.store.keep_forwarded_bytes.bytes(), 64 << 20);
    let routes: Vec<_> = config
        .routes
        .iter()
        .map(|route| (route.key, route.format))
        .collect();
    assert_eq!(
        routes,
        [
            (Key::Terminal, Format::Risiti),
            (Key::Level(2), Format::Raw)
        ]
    );
}

#[test]
fn the_commented_file_names_every_key_with_its_default() {
    let stated = every_key_set();
    let keys = Config::known_keys();
    assert!(keys.len() > 50, "only {} keys", keys.len());
    for key in &keys {
        let value = value_at(&stated, &key.path)
            .unwrap_or_else(|| panic!("risiti.toml does not mention {}", key.path));
        let Some(default) = &key.default else {
            continue;
        };
        let default: toml::Table = format!("value = {default}").parse().unwrap();
        assert_eq!(
            value, default["value"],
            "the default of {} that risiti.toml states",
            key.path
        );
    }
}

#[test]
fn the_commented_file_names_no_key_that_does_not_exist() {
    // With every example set, all that may be wrong is that the files of the
    // example are not there and that plaintext takes no credentials.
    let mut stated = every_key_set();
    let security = stated["kafka"]["security"].as_table_mut().unwrap();
    for key in [
        "ca_file",
        "certificate_file",
        "key_file",
        "key_password_file",
        "username",
        "password_file",
    ] {
        assert!(security.remove(key).is_some(), "{key}");
    }
    // Nor is the user's, which has its digest beside it.
    let user = &mut stated["access"]["users"][0];
    assert!(user.as_table_mut().unwrap().remove("token_file").is_some());
    stated["access"]["anonymous"] = "none".into();
    let listener = stated["listeners"][0].as_table_mut().unwrap();
    let tls = listener.remove("tls").unwrap();
    assert!(tls.as_table().unwrap().len() >= 5);
    listener["listen"] = "127.0.0.1:8883".into();
    let store = stated["store"].as_table_mut().unwrap();
    assert!(store.remove("key_file").is_some());
    let admin = stated["admin"].as_table_mut().unwrap();
    for key in ["read_token_file", "operate_token_file"] {
        assert!(admin.remove(key).is_some(), "{key}");
    }
    let source = toml::to_string(&stated).unwrap();
    let config = Config::from_toml_str("risiti.toml", &source, std::iter::empty())
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.clusters.len(), 1);
    assert_eq!(config.kafka.properties.len(), 1);
}
