//! Random bytes: the processor's RNG, thermal noise (nRF52840 Product Specification,
//! 6.19).
//!
//! Promises: the digital correction of the bias is on, some 120 µs a byte; it rests
//! while nobody asks. Never: a byte from anywhere else.

use embassy_nrf::Peri;
use embassy_nrf::mode::Blocking;
use embassy_nrf::peripherals::RNG;
use embassy_nrf::rng::Rng;
use risiti_terminal::hardware::{self, NoEntropy};

/// The RNG.
pub struct Entropy(Rng<'static, Blocking>);

impl Entropy {
    pub(crate) fn start(peripheral: Peri<'static, RNG>) -> Self {
        let rng = Rng::new_blocking(peripheral);
        rng.set_bias_correction(true);
        Self(rng)
    }

    /// For what only has to differ from start to start.
    pub(crate) fn seed(&mut self) -> u64 {
        let mut seed = [0; 8];
        self.0.blocking_fill_bytes(&mut seed);
        u64::from_le_bytes(seed)
    }
}

impl hardware::Entropy for Entropy {
    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        // 32 bytes are 4 ms; there is nothing in its registers by which it could fail.
        self.0.blocking_fill_bytes(bytes);
        Ok(())
    }
}
