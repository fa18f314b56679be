//! The dialogues of `tests/cases`, fed whole and byte by byte, and each of their
//! inputs with every bit flipped.

mod support;

use support::notation::{bytes, show};
use support::script::{Case, Feeding, Script, cases};

const FILES: &[(&str, &str)] = &[
    ("connect_v311", include_str!("cases/connect_v311.txt")),
    ("connect_v5", include_str!("cases/connect_v5.txt")),
    ("publish_in", include_str!("cases/publish_in.txt")),
    ("publish_out", include_str!("cases/publish_out.txt")),
    ("subscribe", include_str!("cases/subscribe.txt")),
    ("ending", include_str!("cases/ending.txt")),
    ("malformed", include_str!("cases/malformed.txt")),
    ("strings", include_str!("cases/strings.txt")),
    ("headers", include_str!("cases/headers.txt")),
    ("flow", include_str!("cases/flow.txt")),
];

fn all() -> impl Iterator<Item = (&'static str, Case)> {
    FILES
        .iter()
        .flat_map(|(file, text)| cases(text).into_iter().map(|case| (*file, case)))
}

fn run_all(feeding: Feeding) {
    let mut failures = Vec::new();
    for (file, case) in all() {
        if let Err(error) = Script::new(feeding).run(&case) {
            failures.push(format!("{file}: {error}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} cases failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn every_dialogue_goes_as_the_standard_says() {
    run_all(Feeding::AllAtOnce);
}

#[test]
fn it_makes_no_difference_how_the_bytes_are_cut() {
    run_all(Feeding::ByteByByte);
}

#[test]
fn there_are_enough_cases_and_no_two_of_a_name() {
    let mut names: Vec<_> = all().map(|(file, case)| (file, case.name)).collect();
    assert!(names.len() >= 380, "{}", names.len());
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// A negative control of the runner: a case that expects the wrong bytes, event or
/// end fails.
#[test]
fn a_wrong_expectation_fails() {
    for wrong in [
        "== a\n> 10{ 'MQTT' 04 02 0000 'c' }\n= connect v4 'd' clean\naccept\n< 20020000",
        "== b\nopen v4\n> c000\n< d001",
        "== c\nopen v4\n> c000",
        "== d\nopen v4\n> e000",
        "== e\nopen v4\n> e000\n= closed peer 81 will",
    ] {
        let case = cases(wrong).remove(0);
        assert!(
            Script::new(Feeding::AllAtOnce).run(&case).is_err(),
            "{}",
            case.name
        );
    }
}

#[test]
fn no_flipped_bit_of_any_case_makes_a_panic() {
    for (_, case) in all() {
        for flipped_line in 0..case.lines.len() {
            let Some(text) = case.lines[flipped_line].strip_prefix("> ") else {
                continue;
            };
            let packet = bytes(text);
            for bit in 0..(packet.len() * 8).min(2000) {
                let mut script = Script::new(Feeding::AllAtOnce);
                for line in &case.lines[..flipped_line] {
                    // What is answered no longer matters, only that all goes on.
                    let before = Case {
                        name: String::new(),
                        lines: vec![line.clone()],
                        shows: Vec::new(),
                    };
                    let _mismatch = script.run(&before);
                }
                let mut damaged = packet.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                script.send(&damaged);
                while script.connection.poll_event().is_some() {}
                script.take_output();
            }
        }
    }
}

/// A negative control of the cases themselves: no expected byte can be another one
/// without its case failing, and no expected event or state either.
#[test]
fn control_no_expected_byte_may_be_another() {
    let mut flipped = 0;
    for (file, case) in all() {
        for at in 0..case.lines.len() {
            for wrong in wrong_lines(&case.lines[at]) {
                let mut lines = case.lines.clone();
                lines[at].clone_from(&wrong);
                let other = Case {
                    name: case.name.clone(),
                    lines,
                    shows: Vec::new(),
                };
                assert!(
                    Script::new(Feeding::AllAtOnce).run(&other).is_err(),
                    "{file}: {}: nobody notices «{wrong}» for «{}»",
                    case.name,
                    case.lines[at]
                );
                flipped += 1;
            }
        }
    }
    assert!(flipped > 2_500, "{flipped}");
}

/// Every line that says something else than this one in one place.
fn wrong_lines(line: &str) -> Vec<String> {
    if let Some(code) = line
        .strip_prefix("< disconnect ")
        .or_else(|| line.strip_prefix("< connack "))
    {
        let other = if code == "81" { "82" } else { "81" };
        return vec![line.replace(code, other), "<".to_owned()];
    }
    if let Some(text) = line.strip_prefix('<') {
        let wanted = bytes(text);
        let mut wrong: Vec<_> = (0..wanted.len())
            .map(|at| {
                let mut wanted = wanted.clone();
                wanted[at] ^= 1 << (at % 8);
                format!("< {}", show(&wanted))
            })
            .collect();
        wrong.push(format!("< {} 00", show(&wanted)));
        return wrong;
    }
    match line {
        "reads" => vec!["waits".to_owned()],
        "waits" => vec!["reads".to_owned()],
        _ if line.starts_with("= ") => vec![format!("{line}?")],
        _ => Vec::new(),
    }
}
