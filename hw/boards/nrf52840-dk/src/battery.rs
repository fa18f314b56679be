//! The battery gauge: a voltage divider of two equal resistors before the
//! analogue input AIN1, against the internal reference.

use embassy_nrf::Peri;
use embassy_nrf::peripherals::{P0_03, SAADC};
use embassy_nrf::saadc::{ChannelConfig, Config, Saadc, Time};
use risiti_terminal::hardware;

use crate::bound::Interrupts;

/// Full scale at gain 1/6: six times 0.6 V, in 12 bits.
const FULL_SCALE_MV: u32 = 3600;
const STEPS: u32 = 4096;

/// Battery over input: two equal resistors.
const DIVIDER: u32 = 2;

/// The battery gauge.
pub struct Battery {
    pub(crate) converter: Peri<'static, SAADC>,
    pub(crate) input: Peri<'static, P0_03>,
}

impl hardware::Battery for Battery {
    async fn millivolts(&mut self) -> u16 {
        let mut channel = ChannelConfig::single_ended(self.input.reborrow());
        // Two resistors of 1 MΩ are slow to charge the converter.
        channel.time = Time::_40US;
        // Off again when dropped.
        let mut converter = Saadc::new(
            self.converter.reborrow(),
            Interrupts,
            Config::default(),
            [channel],
        );
        let mut sample = [0; 1];
        converter.sample(&mut sample).await;
        let [steps] = sample.map(|steps| steps.clamp(0, STEPS as i16 - 1) as u32);
        (steps * FULL_SCALE_MV * DIVIDER / STEPS) as u16
    }
}
