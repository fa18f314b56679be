//! The inputs with which a corpus begins.
//!
//! Promises: the same on every machine. A target makes its own, from the test data
//! of the crate that it attacks; `../fuzz.sh seeds` has them written to `corpus/`.

use std::path::Path;

/// An input and the name of its file.
pub type Seed = (String, Vec<u8>);

/// With `RISITI_FUZZ_SEEDS=folder`, writes the seeds into that folder and ends the
/// process.
pub fn write_if_asked(target: &str, seeds: fn() -> Vec<Seed>) {
    let Ok(folder) = std::env::var("RISITI_FUZZ_SEEDS") else {
        return;
    };
    let mut seeds = seeds();
    seeds.sort();
    seeds.dedup_by(|a, b| a.1 == b.1);
    for (name, bytes) in &seeds {
        let path = Path::new(&folder).join(name);
        if let Err(error) = std::fs::write(&path, bytes) {
            eprintln!("{}: {error}", path.display());
            std::process::exit(1);
        }
    }
    let bytes: usize = seeds.iter().map(|(_, seed)| seed.len()).sum();
    println!("{target}: {} seeds, {bytes} bytes", seeds.len());
    std::process::exit(0);
}

/// A file of the tree, named from its root.
///
/// # Panics
/// It can't be read: seeds are made in a whole tree.
#[must_use]
pub fn file(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    std::fs::read_to_string(Path::new(root).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The bytes that hexadecimal digits stand for; none if they are not.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|byte| (byte as char).to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}
