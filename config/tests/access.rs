//! `[access]`: what is read, what is shown, what a reload changes.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use std::path::Path;

use risiti_config::{Anonymous, Bootstrap, Config, Rule, Subject, TokenDigest};

const TOKEN: &str = "0123456789abcdef";

fn load(access: &str) -> Result<Config, String> {
    let source = format!("[kafka]\nbootstrap = \"127.0.0.1:9092\"\n{access}");
    Config::from_toml_str("f", &source, std::iter::empty()).map_err(|errors| errors.to_string())
}

fn with_token_file(path: &Path) -> String {
    format!(
        "[access]\nanonymous = \"none\"\n[[access.users]]\nname = \"dashboard\"\ntoken_file = {:?}\n[[access.rules]]\nwho = \"user:dashboard\"\nmay = [\"subscribe\"]\nfilter = \"t/+/status\"\n",
        path.display().to_string()
    )
}

#[test]
fn without_the_table_everybody_may_do_everything() {
    let config = load("").unwrap();
    assert_eq!(config.access.anonymous, Anonymous::All);
    assert!(config.access.users.is_empty() && config.access.rules.is_empty());
    assert_eq!(
        config.registry_path(),
        Path::new("/var/lib/risiti/terminals.toml")
    );
}

#[test]
fn a_token_in_a_file_becomes_the_digest_that_may_stand_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let config = load(&with_token_file(&path)).unwrap();
    // printf %s 0123456789abcdef | sha256sum
    let digest = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
    let read = config.access.users[0].token_sha256;
    assert_eq!(read.unwrap().to_hex(), digest);
    assert_eq!(TokenDigest::from_hex(digest), read);
    assert_eq!(
        config.access.rules,
        [Rule {
            who: Subject::User("dashboard".into()),
            publish: false,
            subscribe: true,
            filter: "t/+/status".into(),
        }]
    );
    // Neither the token nor its digest shows anywhere.
    for shown in [
        format!("{config:?}"),
        config.describe(),
        config.warnings().join("\n"),
        config
            .reloadable_diff(&load("").unwrap())
            .applied
            .join("\n"),
    ] {
        assert!(
            !shown.contains(TOKEN) && !shown.contains(&digest[..8]),
            "{shown}"
        );
    }
    std::fs::write(&path, "short").unwrap();
    let refused = load(&with_token_file(&path)).unwrap_err();
    assert!(
        refused.contains("openssl rand -hex 16") && !refused.contains("short\""),
        "{refused}"
    );
}

#[test]
fn whoever_lets_everybody_in_from_outside_is_told_loudly() {
    let open = load("[mqtt]\nlisten = \"0.0.0.0:1883\"\ninsecure = true\n").unwrap();
    let told = |config: &Config| {
        config
            .warnings()
            .iter()
            .any(|w| w.starts_with("INSECURE") && w.contains("risiti terminal add"))
    };
    assert!(told(&open));
    let mut closed = open;
    closed.access.anonymous = Anonymous::None;
    assert!(!told(&closed));
    assert!(!told(&Config::new(Bootstrap::Embedded)));
}

#[test]
fn a_reload_takes_all_of_it_over() {
    let old = load("").unwrap();
    let new = load("[access]\nregistry = \"/x\"\nanonymous = \"rules\"\nconnects_per_identity_per_s_max = 3\n[[access.rules]]\nwho = \"terminal\"\nmay = [\"subscribe\"]\nfilter = \"news/{id}\"\n").unwrap();
    let diff = old.reloadable_diff(&new);
    assert_eq!(diff.needs_restart, Vec::<String>::new());
    let keys: Vec<_> = diff
        .applied
        .iter()
        .map(|l| l.split(':').next().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "access.registry",
            "access.anonymous",
            "access.rules",
            "access.connects_per_identity_per_s_max"
        ]
    );
}
