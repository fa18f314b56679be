//! `risiti terminal`, as a person uses it, beside a gateway that runs.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use risiti_sim::package::Package;
use risiti_sim::site::Keys;
use risiti_tests::risiti_command::{output, risiti};
use risiti_tests::wire_client::{Connect, Wire};
use risiti_wire::seal::code;

use crate::house::House;
use crate::site::{client, site};

/// What it says, if it succeeds; else what it complains of.
fn terminal(registry: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = risiti(["terminal"]);
    command.args(args).arg("--registry").arg(registry);
    let ended = output(&mut command, Duration::from_secs(60)).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if ended.status.success() {
        assert_eq!(text(&ended.stderr), "");
        Ok(text(&ended.stdout))
    } else {
        Err(text(&ended.stderr))
    }
}

fn token_in(said: &str) -> String {
    let line = said.lines().find_map(|line| line.strip_prefix("token"));
    line.unwrap_or_else(|| panic!("no token: {said}"))
        .trim()
        .to_owned()
}

fn code(house: &House, id: &str, token: &str) -> u8 {
    let connect = Connect::clean(5, id).login(None, token);
    Wire::connect(house.addr(), &connect).unwrap().1.code
}

#[test]
fn a_terminal_is_added_rotated_and_revoked_while_the_gateway_runs() -> io::Result<()> {
    let house = site();
    let registry = house.gateway().config().registry_path();
    let token = token_in(&terminal(&registry, &["add", "17"]).unwrap());
    assert!(token.len() == 26 && !std::fs::read_to_string(&registry)?.contains(&token));
    house.until("it gets in", || code(&house, "17", &token) == 0);
    let listed = terminal(&registry, &["list"]).unwrap();
    assert!(
        listed.contains("17 ") && listed.contains("4 terminals"),
        "{listed}"
    );
    assert!(!listed.contains(&token));

    let next = token_in(&terminal(&registry, &["rotate", "17"]).unwrap());
    let shown = terminal(&registry, &["show", "17"]).unwrap();
    assert!(shown.contains("next token"), "{shown}");
    assert_eq!(code(&house, "17", &token), 0);
    house.until("the next one gets in", || code(&house, "17", &next) == 0);
    assert_eq!(code(&house, "17", &token), 0x86);
    terminal(&registry, &["rotate", "--finish", "17"]).unwrap();

    let connect = Connect::clean(5, "17").login(None, &next);
    let mut wire = Wire::accepted(house.addr(), &connect)?;
    terminal(&registry, &["revoke", "17"]).unwrap();
    assert_eq!(wire.ended()?.map(|(code, _)| code), Some(0x98));
    let shown = terminal(&registry, &["show", "17"]).unwrap();
    assert!(shown.contains("revoked"), "{shown}");
    let again = token_in(&terminal(&registry, &["add", "--reinstate", "17"]).unwrap());
    house.until("it is back", || code(&house, "17", &again) == 0);
    client(house.addr(), 5, "7").ping()
}

/// `risiti terminal enroll` with this on its standard input.
fn enroll(args: &[&str], typed: &str) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("typed");
    std::fs::write(&path, typed).unwrap();
    let mut command = risiti(["terminal", "enroll"]);
    command.args(args).stdin(File::open(&path).unwrap());
    let ended = output(&mut command, Duration::from_secs(60)).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match ended.status.success() {
        true => Ok(text(&ended.stdout)),
        false => Err(text(&ended.stderr)),
    }
}

/// What a terminal shows of these keys.
fn shown(terminal: &str, generation: u8, byte: u8) -> String {
    let rows = code::encode(terminal, generation, &[byte; 16], &[byte + 1; 16]);
    let rows: Vec<&str> = rows.iter().map(|r| str::from_utf8(r).unwrap()).collect();
    rows.join("\n")
}

#[test]
fn keys_that_a_terminal_made_are_enrolled_once_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (registry, root) = (dir.path().join("terminals.toml"), path("site.root"));
    assert!(
        risiti(["site", "new-root", &root])
            .status()
            .unwrap()
            .success()
    );
    let file = path("17.terminal");
    let said = terminal(&registry, &["add", "17", "--own-keys", "--out", &file]).unwrap();
    assert!(
        said.contains("generation 1, made by the terminal"),
        "{said}"
    );
    let package = Package::read(file.as_ref()).unwrap();
    assert_eq!(package.own_keys(), Some(1));
    assert!(package.keys().unwrap().is_none());

    // A wrong character, another terminal's, half of it: refused, and nothing shown.
    let right = shown("17", 1, 0x61);
    let beside = dir.path().join("site.root.enrolled");
    let last = if right.ends_with('7') { "8" } else { "7" };
    let mut wrong = right.clone();
    wrong.replace_range(right.len() - 1.., last);
    for (typed, says) in [
        (wrong.as_str(), "row 4, character 14"),
        (&shown("18", 1, 0x61), "does not fit"),
        (&shown("17", 2, 0x61), "does not fit"),
        (&right[..30], "has 28 characters"),
        ("", "has 0 characters"),
    ] {
        let refused = enroll(&["17", "--root", &root], typed).unwrap_err();
        assert!(refused.contains(says), "{refused}");
        assert!(
            !refused.contains(&right[..14]) && !beside.exists(),
            "{refused}"
        );
    }
    let said = enroll(&["17", "--root", &root], &right).unwrap();
    assert!(said.contains("generation 1, enrolled"), "{said}");
    let mode = std::fs::metadata(&beside).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let held = std::fs::read_to_string(&beside).unwrap();
    assert_eq!(
        held,
        format!("17 1 {} {}\n", "61".repeat(16), "62".repeat(16))
    );
    // Once: neither the same ones nor others.
    for typed in [&right, &shown("17", 1, 0x70)] {
        let refused = enroll(&["17", "--root", &root], typed).unwrap_err();
        assert!(refused.contains("rotate 17 --own-keys"), "{refused}");
    }
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), held);

    // The next generation: without the root somebody has to say which.
    let next = path("17-next.terminal");
    let rotate = ["rotate", "17", "--own-keys", "--out", &next];
    let refused = terminal(&registry, &rotate).unwrap_err();
    assert!(refused.contains("--generation"), "{refused}");
    let said = terminal(&registry, &[&rotate[..], &["--generation", "2"]].concat()).unwrap();
    assert!(said.contains("generation 2"), "{said}");
    assert_eq!(Package::read(next.as_ref()).unwrap().own_keys(), Some(2));
    let args = ["17", "--root", &root, "--generation", "2"];
    enroll(&args, &shown("17", 2, 0x70)).unwrap();
    let generations = std::fs::read_to_string(path("site.root.generations")).unwrap();
    assert_eq!(generations, "17 2 1\n");
    // Beside the root it is found, and accepted.
    let third = path("17-third.terminal");
    let rotate = ["rotate", "17", "--again", "--own-keys", "--root", &root];
    terminal(&registry, &[&rotate[..], &["--out", &third]].concat()).unwrap();
    assert_eq!(Package::read(third.as_ref()).unwrap().own_keys(), Some(3));
    enroll(&["17", "--root", &root], &shown("17", 3, 0x7a)).unwrap();
    let held = std::fs::read_to_string(&beside).unwrap();
    assert_eq!(held.lines().count(), 3);

    // What is not accepted any more is not enrolled, nor is what a revoked one had.
    let beside_generations = path("site.root.generations");
    std::fs::write(&beside_generations, "17 3 3\n20 revoked 4\n").unwrap();
    let args = ["17", "--root", &root, "--generation", "2"];
    let refused = enroll(&args, &shown("17", 2, 1)).unwrap_err();
    assert!(refused.contains("rotate 17 --own-keys"), "{refused}");
    let refused = enroll(&["20", "--root", &root], &shown("20", 4, 1)).unwrap_err();
    assert!(
        refused.contains("add 20 --reinstate --own-keys"),
        "{refused}"
    );
    let args = ["20", "--root", &root, "--generation", "5"];
    enroll(&args, &shown("20", 5, 1)).unwrap();
    let generations = std::fs::read_to_string(&beside_generations).unwrap();
    assert_eq!(generations, "17 3 3\n20 5 5\n");

    // What others can read is refused.
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = enroll(&["18", "--root", &root], &shown("18", 1, 1)).unwrap_err();
    assert!(refused.contains("chmod 600"), "{refused}");
    // A code is no argument, and keys are not made without a file for the token.
    assert!(enroll(&["17", "--root", &root, &right], "").is_err());
    assert!(terminal(&registry, &["add", "19", "--own-keys"]).is_err());
}

#[test]
fn what_can_not_be_done_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("terminals.toml");
    terminal(&registry, &["add", "7"]).unwrap();
    terminal(&registry, &["add", "8"]).unwrap();
    terminal(&registry, &["revoke", "8"]).unwrap();
    for (args, says) in [
        (&["add", "7"][..], "rotate 7"),
        (&["add", "8"], "--reinstate 8"),
        (&["add", "a/b"], "1 to 23"),
        (&["show", "9"], "terminal list"),
        (&["rotate", "9"], "terminal list"),
        (&["rotate", "8"], "--reinstate 8"),
        (&["rotate", "--finish", "7"], "terminal rotate 7"),
        (&["revoke", "9"], "terminal list"),
        (&["import", "/nowhere"], "/nowhere"),
    ] {
        let said = terminal(&registry, args).unwrap_err();
        assert!(said.contains(says), "{args:?}: {said}");
    }
    let nowhere = terminal(Path::new("/nowhere/terminals.toml"), &["add", "7"]).unwrap_err();
    assert!(nowhere.contains("/nowhere"), "{nowhere}");
}

#[test]
fn a_package_holds_the_token_for_whoever_flashes_and_shows_it_to_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("terminals.toml");
    let file = dir.path().join("17.toml");
    let shown = file.display().to_string();
    let args = [
        "add",
        "17",
        "--out",
        &shown,
        "--gateway",
        "pay.example.org:1883",
    ];
    let said = terminal(&registry, &args).unwrap();
    let package = std::fs::read_to_string(&file).unwrap();
    let token = package.split("token = \"").nth(1).unwrap();
    let token = token.split('"').next().unwrap();
    assert!(token.len() == 26 && !said.contains(token), "{said}");
    assert!(package.contains("id = \"17\"") && package.contains("pay.example.org:1883"));
    // As a picture, too, or not at all.
    let (second, picture) = (dir.path().join("18.terminal"), dir.path().join("18.png"));
    let [second_shown, picture_shown] = [&second, &picture].map(|p| p.display().to_string());
    let args = ["add", "18", "--out", &second_shown, "--qr", &picture_shown];
    terminal(&registry, &args).unwrap();
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    std::fs::remove_file(&second).unwrap();
    assert!(
        terminal(
            &registry,
            &[
                "rotate",
                "18",
                "--out",
                &second_shown,
                "--qr",
                &picture_shown
            ]
        )
        .is_err()
    );
    assert!(!second.exists());
    // A second one neither replaces the first nor costs the terminal its token.
    let before = std::fs::read(&registry).unwrap();
    assert!(terminal(&registry, &["rotate", "17", "--out", &shown]).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), package);
    assert_eq!(std::fs::read(&registry).unwrap(), before);
    // What is refused leaves no file.
    let other = dir.path().join("other.toml");
    let refused = ["add", "17", "--out", &other.display().to_string()];
    assert!(terminal(&registry, &refused).is_err() && !other.exists());
}

#[test]
fn keys_are_given_out_once_and_settlement_accepts_what_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("terminals.toml");
    let root = dir.path().join("site.root").display().to_string();
    let mut command = risiti(["site", "new-root", &root]);
    assert!(
        output(&mut command, Duration::from_secs(60))
            .unwrap()
            .status
            .success()
    );
    let accepted = || {
        let text = std::fs::read_to_string(format!("{root}.generations")).unwrap();
        text.trim_end().to_owned()
    };
    let mut files = 0;
    let mut given = |args: &[&str]| {
        files += 1;
        let file = dir.path().join(format!("{files}.terminal"));
        let out = file.display().to_string();
        let args = [args, &["--root", &root, "--out", &out]].concat();
        let said = terminal(&registry, &args)?;
        let keys = Package::read(&file).unwrap().keys().unwrap();
        let Keys { record, receipt } = keys.unwrap();
        assert_ne!(record.expose(), receipt.expose());
        let generation = record.generation();
        assert!(said.contains(&format!("generation {generation}")), "{said}");
        Ok::<u8, String>(generation)
    };
    assert_eq!(given(&["add", "t1"]), Ok(1));
    assert_eq!(accepted(), "t1 1 1");
    // One that is there keeps its keys, whatever is asked by mistake.
    assert!(given(&["add", "t1"]).is_err());
    assert_eq!(accepted(), "t1 1 1");
    // What waits in its flash may be sealed with either while it changes them.
    assert_eq!(given(&["rotate", "t1"]), Ok(2));
    assert_eq!(accepted(), "t1 2 1");
    terminal(&registry, &["rotate", "t1", "--finish", "--root", &root]).unwrap();
    assert_eq!(accepted(), "t1 2 2");
    terminal(&registry, &["revoke", "t1", "--root", &root]).unwrap();
    assert_eq!(accepted(), "t1 revoked 2");
    // Its numbers may begin anew: never with keys that it had.
    assert_eq!(given(&["add", "t1", "--reinstate"]), Ok(3));
    assert_eq!(accepted(), "t1 3 3");
    let said = terminal(&registry, &["add", "t2", "--root", &root]).unwrap_err();
    assert!(said.contains("--out"), "{said}");
}

#[test]
fn every_gateway_of_a_site_can_have_the_same_registry() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.toml"), dir.path().join("two.toml"));
    terminal(&one, &["add", "7"]).unwrap();
    terminal(&one, &["add", "8"]).unwrap();
    let exported = dir.path().join("exported.toml");
    let path = exported.display().to_string();
    terminal(&one, &["export", &path]).unwrap();
    terminal(&two, &["import", &path]).unwrap();
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let written = terminal(&two, &["export"]).unwrap();
    assert_eq!(written.as_bytes(), std::fs::read(&one).unwrap());
    // Nobody is let go by mistake.
    terminal(&two, &["add", "9"]).unwrap();
    let said = terminal(&two, &["import", &path]).unwrap_err();
    assert!(
        said.contains("terminal 9") && said.contains("--replace"),
        "{said}"
    );
    let said = terminal(&two, &["import", "--replace", &path]).unwrap();
    assert!(said.contains("2 terminals, 1 gone"), "{said}");
    std::fs::write(&exported, "version = 1\nterminals = 3\n").unwrap();
    assert!(terminal(&two, &["import", &path]).is_err());
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
}
