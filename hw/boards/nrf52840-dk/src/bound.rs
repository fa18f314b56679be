//! What this board has that the compiler can't see: interrupt handlers by their
//! names, the page with the settings, and peripherals that are taken again after
//! each rest. The only file with `unsafe` in it.
#![allow(unsafe_code)]

use embassy_nrf::{Peri, PeripheralType, bind_interrupts, peripherals};
use embassy_nrf::{buffered_uarte, qspi, saadc, twim};
use risiti_terminal::limits::SETTINGS_BYTES_MAX;

bind_interrupts!(
    /// The interrupts that the drivers use.
    pub struct Interrupts {
        UARTE0 => buffered_uarte::InterruptHandler<peripherals::UARTE0>;
        UARTE1 => buffered_uarte::InterruptHandler<peripherals::UARTE1>;
        QSPI => qspi::InterruptHandler<peripherals::QSPI>;
        TWISPI0 => twim::InterruptHandler<peripherals::TWISPI0>;
        SAADC => saadc::InterruptHandler;
    }
);

/// The last page of the processor's flash; `memory.x` leaves it out.
const SETTINGS: usize = 0x000F_F000;

/// The settings, as `make flash` wrote them.
pub fn settings() -> &'static [u8; SETTINGS_BYTES_MAX] {
    // SAFETY: this page is flash, outside of what the linker knows, and nothing in
    // this image writes to it.
    unsafe { &*core::ptr::with_exposed_provenance(SETTINGS) }
}

/// The same peripheral once more, for a driver that is made anew after each rest.
pub fn again<T: PeripheralType>(peripheral: &mut Peri<'static, T>) -> Peri<'static, T> {
    // SAFETY: the caller holds it, and drops the driver that it made of this before
    // it asks again.
    unsafe { peripheral.clone_unchecked() }
}
