//! A text as a QR code (ISO/IEC 18004) in a PNG file, for a technician's camera.
//!
//! Promises: for the eyes of whoever made it only, and never in place of another file.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use qrcode::{Color, EcLevel, QrCode};

/// Pixels of a module's side: read from a screen at arm's length.
const MODULE: usize = 8;

/// Modules that stay white around it (ISO/IEC 18004, section 6.3.8).
const QUIET: usize = 4;

/// Writes a text of up to 2,331 bytes into a new file.
///
/// # Errors
/// There is a file already, it can't be written, or the text is too long.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).map_err(io::Error::other)?;
    let modules = code.width();
    let side = (modules + 2 * QUIET) * MODULE;
    let colors = code.to_colors();
    let is_dark = |x: usize, y: usize| {
        let at = |pixel: usize| (pixel / MODULE).checked_sub(QUIET).filter(|n| *n < modules);
        matches!((at(x), at(y)), (Some(x), Some(y)) if colors[y * modules + x] == Color::Dark)
    };
    let pixels: Vec<u8> = (0..side * side)
        .map(|n| {
            if is_dark(n % side, n / side) {
                0
            } else {
                u8::MAX
            }
        })
        .collect();
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    let size = u32::try_from(side).map_err(io::Error::other)?;
    let mut encoder = png::Encoder::new(io::BufWriter::new(&file), size, size);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't go on has failed

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_camera_reads_what_was_written_and_no_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["x", &"id = \"village-17\"\n".repeat(25)] {
            let path = dir.path().join(format!("{}.png", text.len()));
            write(&path, text).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let file = io::BufReader::new(std::fs::File::open(&path).unwrap());
            let mut reader = png::Decoder::new(file).read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            let side = reader.next_frame(&mut pixels).unwrap().width as usize;
            let mut seen = rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| {
                pixels[y * side + x]
            });
            let grids = seen.detect_grids();
            assert_eq!(grids[0].decode().unwrap().1, text);
            assert!(write(&path, text).is_err());
        }
        assert!(write(&dir.path().join("long.png"), &"x".repeat(3_000)).is_err());
    }
}
