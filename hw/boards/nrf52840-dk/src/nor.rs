//! The NOR flash on the board: MX25R6435F, 8 MB, by QSPI.
//!
//! Promises: what is written or erased is so when it returns, and the chip has
//! said that it succeeded; a chip that nobody used for a moment sleeps deeply, and
//! the bus with it. Never: an erase that nobody asked for.

use embassy_nrf::Peri;
use embassy_nrf::peripherals::{P0_17, P0_19, P0_20, P0_21, P0_22, P0_23, QSPI};
use embassy_nrf::qspi::{self, Qspi};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::mutex::Mutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Timer, with_timeout};
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};

use crate::bound::{Interrupts, again};

/// Bytes of the chip.
const BYTES: u32 = 8 * 1024 * 1024;

/// The largest piece that is written at once: the bus takes words from RAM only,
/// so a piece is copied first.
const PIECE_BYTES: usize = 64;

/// Bringing the chip to sleep and back costs some 0.2 ms: worth it once this long
/// nobody came.
const REST_AFTER: Duration = Duration::from_millis(50);

/// Read Security Register, and its bits for a program or an erase that failed
/// (MX25R6435F, table 9).
const READ_SECURITY: u8 = 0x2B;
const FAILED: u8 = 0b0110_0000;

/// Write Status Register, and its bit for four data lines.
const WRITE_STATUS: u8 = 0x01;
const QUAD_ENABLE: u8 = 0b0100_0000;

static CHIP: Mutex<CriticalSectionRawMutex, Option<Chip>> = Mutex::new(None);
static USED: Signal<CriticalSectionRawMutex, ()> = Signal::new();

/// The pins and the bus, as soldered.
pub struct Wires {
    /// The bus.
    pub bus: Peri<'static, QSPI>,
    /// Clock.
    pub clock: Peri<'static, P0_19>,
    /// Chip select.
    pub select: Peri<'static, P0_17>,
    /// Data 0.
    pub io0: Peri<'static, P0_20>,
    /// Data 1.
    pub io1: Peri<'static, P0_21>,
    /// Data 2.
    pub io2: Peri<'static, P0_22>,
    /// Data 3.
    pub io3: Peri<'static, P0_23>,
}

struct Chip {
    wires: Wires,
    awake: Option<Qspi<'static>>,
}

impl Chip {
    fn wake(&mut self) -> &mut Qspi<'static> {
        let wires = &mut self.wires;
        self.awake.get_or_insert_with(|| {
            let mut config = qspi::Config::default();
            config.capacity = BYTES;
            // The chip starts in its ultra low power mode, made for 8 MHz.
            config.frequency = qspi::Frequency::M8;
            config.read_opcode = qspi::ReadOpcode::Read4io;
            config.write_opcode = qspi::WriteOpcode::Pp4io;
            config.write_page_size = qspi::WritePageSize::_256bytes;
            // 35 µs out of deep power-down, 10 µs into it, in units of 16 µs.
            config.deep_power_down = Some(qspi::DeepPowerDownConfig {
                enter_time: 3,
                exit_time: 3,
            });
            Qspi::new(
                again(&mut wires.bus),
                Interrupts,
                again(&mut wires.clock),
                again(&mut wires.select),
                again(&mut wires.io0),
                again(&mut wires.io1),
                again(&mut wires.io2),
                again(&mut wires.io3),
                config,
            )
        })
    }
}

/// Waits until the chip is done, and asks whether it succeeded. (The bus sends no
/// command before the chip is ready.)
async fn finish(chip: &mut Qspi<'static>) -> Result<(), NorFlashErrorKind> {
    let mut security = [0];
    let asked = chip
        .custom_instruction(READ_SECURITY, &[], &mut security)
        .await;
    match asked {
        Ok(()) if security[0] & FAILED == 0 => Ok(()),
        _ => Err(NorFlashErrorKind::Other),
    }
}

fn out_of_bounds(_: qspi::Error) -> NorFlashErrorKind {
    NorFlashErrorKind::OutOfBounds
}

/// Words, as the bus wants them.
#[repr(C, align(4))]
struct Piece([u8; PIECE_BYTES]);

fn aligned(offset: u32, len: usize, unit: usize) -> Result<(), NorFlashErrorKind> {
    match (offset as usize).is_multiple_of(unit) && len.is_multiple_of(unit) {
        true => Ok(()),
        false => Err(NorFlashErrorKind::NotAligned),
    }
}

/// The NOR flash.
pub struct Nor(());

impl Nor {
    /// Sets the chip up.
    pub(crate) async fn start(wires: Wires) -> Self {
        let mut chip = Chip { wires, awake: None };
        let set_up = chip.wake();
        // Fails with the first write if there is no chip.
        let _ = set_up
            .custom_instruction(WRITE_STATUS, &[QUAD_ENABLE], &mut [])
            .await;
        *CHIP.lock().await = Some(chip);
        USED.signal(());
        Self(())
    }
}

/// Puts the chip to sleep whenever nobody uses it. Never returns.
pub(crate) async fn rest() {
    loop {
        USED.wait().await;
        while with_timeout(REST_AFTER, USED.wait()).await.is_ok() {}
        if let Some(chip) = &mut *CHIP.lock().await {
            chip.awake = None;
        }
        // An operation may have begun between the time-out and the lock; it found
        // the chip asleep and has signalled anew.
        Timer::after_ticks(0).await;
    }
}

impl ErrorType for Nor {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        let mut chip = CHIP.lock().await;
        let chip = chip.as_mut().ok_or(NorFlashErrorKind::Other)?.wake();
        USED.signal(());
        let mut piece = Piece([0; PIECE_BYTES]);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            // The bus reads whole words from whole addresses.
            let skip = at as usize % 4;
            let count = rest.len().min(PIECE_BYTES - skip);
            let words = (skip + count).next_multiple_of(4);
            chip.read(at - skip as u32, &mut piece.0[..words])
                .await
                .map_err(out_of_bounds)?;
            let (part, after) = rest.split_at_mut(count);
            part.copy_from_slice(&piece.0[skip..skip + count]);
            (at, rest) = (at + count as u32, after);
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        BYTES as usize
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        let len = to.checked_sub(from).ok_or(NorFlashErrorKind::OutOfBounds)?;
        aligned(from, len as usize, Self::ERASE_SIZE)?;
        let mut chip = CHIP.lock().await;
        let chip = chip.as_mut().ok_or(NorFlashErrorKind::Other)?.wake();
        for page in (from..to).step_by(Self::ERASE_SIZE) {
            USED.signal(());
            chip.erase(page).await.map_err(out_of_bounds)?;
            finish(chip).await?;
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        aligned(offset, bytes.len(), Self::WRITE_SIZE)?;
        let mut chip = CHIP.lock().await;
        let chip = chip.as_mut().ok_or(NorFlashErrorKind::Other)?.wake();
        USED.signal(());
        let mut piece = Piece([0; PIECE_BYTES]);
        let mut at = offset;
        for part in bytes.chunks(PIECE_BYTES) {
            let words = &mut piece.0[..part.len()];
            words.copy_from_slice(part);
            chip.write(at, words).await.map_err(out_of_bounds)?;
            finish(chip).await?;
            at += PIECE_BYTES as u32;
        }
        Ok(())
    }
}
