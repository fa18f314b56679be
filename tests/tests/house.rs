//! The house keeps its own rules: what its documents name exists, and what its
//! rules forbid does not.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every file of the house with that ending, without what was built.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_test_that_a_document_names_exists() {
    for (document, least) in [("ARCHITECTURE.md", 20), ("SECURITY.md", 12)] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let mut checked = 0;
        for quoted in text.split('`').skip(1).step_by(2) {
            let Some((file, test)) = quoted.split_once("::") else {
                continue;
            };
            if !file.ends_with(".rs") {
                continue;
            }
            let source = fs::read_to_string(root().join(file))
                .unwrap_or_else(|e| panic!("{document} names {file}: {e}"));
            assert!(
                source.contains(&format!("fn {test}(")),
                "{document} names {quoted}, which is not there"
            );
            checked += 1;
        }
        assert!(checked >= least, "{document} names only {checked} tests");
    }
}

#[test]
fn every_guarantee_has_a_row() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for n in 1..=11 {
        assert!(text.contains(&format!("| G{n} |")), "G{n} has no row");
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    for manifest in files("Cargo.toml") {
        let text = fs::read_to_string(&manifest).unwrap();
        if text.contains("[package]") {
            assert!(
                text.contains("[lints]\nworkspace = true"),
                "{} does not",
                manifest.display()
            );
        }
    }
}

#[test]
fn no_module_is_named_for_nothing() {
    for file in files(".rs") {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        for empty in ["utils", "util", "helpers", "common", "manager", "misc"] {
            assert_ne!(name, empty, "{}", file.display());
        }
    }
}

#[test]
fn every_file_begins_with_what_it_is() {
    for file in files(".rs") {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} does not begin with //!",
            file.display()
        );
    }
}

#[test]
fn only_the_store_opens_sled() {
    for manifest in files("Cargo.toml") {
        let text = fs::read_to_string(&manifest).unwrap();
        let store = manifest.ends_with("bridge/store/Cargo.toml");
        let workspace = manifest == root().join("Cargo.toml");
        assert_eq!(
            text.lines().any(|l| l.starts_with("sled")),
            store || workspace,
            "{}",
            manifest.display()
        );
    }
}

#[test]
fn commands_in_the_readme_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for line in readme.lines().filter(|l| l.starts_with("make ")) {
        for word in line.split_whitespace().skip(1) {
            if word.starts_with('#') {
                break;
            }
            if !word.contains('=') {
                assert!(makefile.contains(&format!("\n{word}:")), "make {word}");
            }
        }
    }
}
