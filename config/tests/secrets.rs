//! Secrets come from files and show nowhere.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use risiti_config::Config;

const SECRET: &str = "hunter2-correct-horse";

fn file_with(secret_file: &std::path::Path) -> String {
    format!(
        "[kafka]\nbootstrap = \"k.example:9092\"\n[kafka.security]\nprotocol = \"sasl_ssl\"\nusername = \"gw\"\npassword_file = \"{}\"\n",
        secret_file.display()
    )
}

fn load(content: &[u8], mode: u32) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    Config::from_toml_str("f", &file_with(&path), std::iter::empty())
        .map_err(|errors| errors.to_string())
}

#[test]
fn a_secret_is_its_files_only_line() {
    for content in [
        SECRET.to_owned(),
        format!("{SECRET}\n"),
        format!("{SECRET}\r\n"),
    ] {
        let config = load(content.as_bytes(), 0o600).unwrap();
        assert_eq!(config.kafka.security.password.unwrap().expose(), SECRET);
    }
}

#[test]
fn a_secret_shows_neither_in_debug_nor_in_the_description() {
    let config = load(SECRET.as_bytes(), 0o644).unwrap();
    for shown in [
        format!("{config:?}"),
        format!("{config:#?}"),
        config.describe(),
        config.warnings().join("\n"),
    ] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    assert!(format!("{config:?}").contains("***"));
}

#[test]
fn a_secret_shows_in_no_difference() {
    let old = load(SECRET.as_bytes(), 0o600).unwrap();
    let new = load(b"another", 0o600).unwrap();
    let diff = old.reloadable_diff(&new);
    assert_eq!(diff.needs_restart, ["cluster default: changed"]);
}

#[test]
fn a_secret_that_every_user_can_read_gives_a_warning() {
    assert_eq!(
        load(SECRET.as_bytes(), 0o600).unwrap().load_warnings,
        Vec::<String>::new()
    );
    let warnings = load(SECRET.as_bytes(), 0o644).unwrap().load_warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("chmod 600"),
        "{warnings:?}"
    );
}

#[test]
fn a_file_that_is_no_secret_is_refused_without_showing_it() {
    let long = "x".repeat(5000);
    for content in [
        &b""[..],
        b"\n",
        b"hunter2\nhunter3\n",
        b"\xff\xfe",
        long.as_bytes(),
    ] {
        let error = load(content, 0o600).unwrap_err();
        assert!(
            error.contains("f:6:17: kafka.security.password_file"),
            "{error}"
        );
        assert!(
            !error.contains("hunter") && !error.contains("xxxx"),
            "{error}"
        );
    }
}

#[test]
fn a_password_that_stands_in_the_file_itself_is_never_shown() {
    for source in [
        "[kafka]\nbootstrap = \"k:1\"\n[kafka.security]\npassword = \"hunter2\"\n",
        "[kafka]\nbootstrap = \"k:1\"\n[kafka.security]\npasword = \"hunter2\"\n",
        "[kafka]\nbootstrap = \"k:1\"\n[kafka.security]\npassword = hunter2\n",
        "[kafka]\nbootstrap = \"k:1\"\n[kafka.properties]\n\"sasl.password\" = \"hunter2\"\n",
        "[kafka]\nbootstrap = \"k:1\"\n[kafka.properties]\n\"ssl.key.password\" = [\"hunter2\"]\n",
    ] {
        let errors = Config::from_toml_str("f", source, std::iter::empty()).unwrap_err();
        let shown = format!("{errors} {errors:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
