//! The image of the emulated board, built, and its papers, counted.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use risiti_sim::printer::Paper;

/// Builds the image of the emulated board, and returns its path.
///
/// # Errors
/// It can't be built; the error holds what the compiler said.
pub fn image() -> io::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/build.sh");
    let built = Command::new(&script)
        .arg("mps2-an386")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&built.stdout);
    match (built.status.success(), said.lines().last()) {
        (true, Some(path)) => Ok(PathBuf::from(path)),
        _ => Err(io::Error::other(format!(
            "{}: {}\n{}",
            script.display(),
            built.status,
            String::from_utf8_lossy(&built.stderr)
        ))),
    }
}

/// Of each payment: how many papers came out whole, and how many of all of them,
/// torn ones too, do not say that they were printed again.
#[must_use]
pub fn papers_by_payment(papers: &[Paper]) -> BTreeMap<u64, (u32, u32)> {
    let mut by_payment: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    for paper in papers {
        if let Some(number) = paper.payment() {
            let (whole, originals) = by_payment.entry(number).or_default();
            *whole += u32::from(paper.whole);
            *originals += u32::from(!paper.again());
        }
    }
    by_payment
}
