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

const STORE_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The store's key out of a file with this content and mode, by the path `given` for
/// the directory that it lies in, which systemd tells if it `credits` it.
fn load_key(
    content: &str,
    mode: u32,
    given: impl Fn(&std::path::Path) -> String,
    credits: bool,
) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store-key");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    let source = format!(
        "[kafka]\nbootstrap = \"k:1\"\n[store]\nkey_file = \"{}\"\n",
        given(dir.path())
    );
    let told = dir.path().display().to_string();
    let env = credits.then(|| ("CREDENTIALS_DIRECTORY".to_owned(), told));
    Config::from_toml_str("f", &source, env.into_iter()).map_err(|errors| errors.to_string())
}

fn whole(dir: &std::path::Path) -> String {
    dir.join("store-key").display().to_string()
}

fn credential(_: &std::path::Path) -> String {
    "$CREDENTIALS_DIRECTORY/store-key".to_owned()
}

#[test]
fn the_stores_key_is_64_digits_in_a_file_of_its_owners() {
    for content in [
        STORE_KEY.to_owned(),
        format!("{}\n", STORE_KEY.to_uppercase()),
    ] {
        for mode in [0o600, 0o400] {
            let config = load_key(&content, mode, whole, false).unwrap();
            let key = config.store.key.clone().unwrap();
            assert_eq!(key.expose()[..3], [0x00, 0x11, 0x22]);
            let diff = config.reloadable_diff(&load_key(&content, mode, whole, false).unwrap());
            assert!(diff.is_empty(), "{diff:?}");
            for shown in [format!("{config:?}"), config.describe()] {
                assert!(!shown.to_lowercase().contains("001122"), "{shown}");
                assert!(!shown.contains("17, 34"), "{shown}");
            }
            assert!(config.describe().contains("values are encrypted"));
        }
    }
    assert_eq!(
        Config::new(risiti_config::Bootstrap::Embedded).store.key,
        None
    );
}

#[test]
fn a_key_that_others_can_read_is_refused_with_what_to_do() {
    for mode in [0o640, 0o604, 0o644, 0o660, 0o602] {
        let error = load_key(STORE_KEY, mode, whole, false).unwrap_err();
        assert!(error.contains("f:4:12: store.key_file"), "{error}");
        assert!(error.contains("chmod 600"), "{error}");
        assert!(!error.contains("001122"), "{error}");
    }
}

#[test]
fn what_is_no_key_is_refused_without_showing_it() {
    for content in [
        "",
        &STORE_KEY[1..],
        &format!("{STORE_KEY}0"),
        &format!("{STORE_KEY}\n{STORE_KEY}\n"),
        &STORE_KEY.replace('f', "g"),
    ] {
        let error = load_key(content, 0o600, whole, false).unwrap_err();
        assert!(error.contains("store.key_file"), "{error}");
        assert!(!error.contains("112233"), "{error}");
    }
    let error = load_key(STORE_KEY, 0o600, |_| "/nowhere/store-key".to_owned(), false);
    assert!(error.unwrap_err().contains("openssl rand -hex 32"));
}

/// Its mode is 0440 there: the group's bits are the mask of the service's own right.
#[test]
fn a_credential_of_systemd_is_taken_though_its_mask_shows_as_the_groups() {
    let config = load_key(STORE_KEY, 0o440, credential, true).unwrap();
    assert!(config.store.key.is_some());
    let error = load_key(STORE_KEY, 0o444, credential, true).unwrap_err();
    assert!(error.contains("others than its owner"), "{error}");
    let error = load_key(STORE_KEY, 0o440, whole, true).unwrap_err();
    assert!(
        error.contains("others than its owner"),
        "no credential: {error}"
    );
    let error = load_key(STORE_KEY, 0o440, credential, false).unwrap_err();
    assert!(error.contains("LoadCredential="), "{error}");
}
