//! A battery that runs down, sags under load, recovers, and is charged by the sun.
//!
//! Promises: with the same seed and the same loads, the same voltages. Never: a
//! clock; time is passed in.
//!
//! A lithium cell as a source (voltage by charge) behind two
//! resistances: one that answers at once, one that builds up and goes away over
//! a minute. That is why a radio burst takes a cell down that looked well, and
//! why it looks well again soon after.

use fastrand::Rng;
use risiti_terminal::hardware::{self, Clock};
use std::sync::Arc;

/// Voltage without load, in millivolts, by tenths of the charge.
const OPEN_MV: [f64; 11] = [
    3_000.0, 3_480.0, 3_590.0, 3_650.0, 3_700.0, 3_750.0, 3_820.0, 3_900.0, 3_990.0, 4_080.0,
    4_180.0,
];

/// Over this time the slow resistance builds up.
const SLOW_MS: f64 = 60_000.0;

const DAY_MS: u64 = 86_400_000;

/// What a battery and its panel are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatteryProfile {
    /// What it holds when full.
    pub capacity_mah: f64,
    /// The resistance that answers at once, with the wires.
    pub fast_ohm: f64,
    /// The one that builds up.
    pub slow_ohm: f64,
    /// What the panel gives on a clear noon.
    pub sun_ma: f64,
    /// Under this voltage the board's regulator gives up.
    pub brown_out_mv: u16,
    /// From this voltage on it starts again.
    pub start_mv: u16,
}

impl BatteryProfile {
    /// A 18650 cell with a panel of 2 W: runs for ever where the sun shines.
    pub const SOLAR: Self = Self {
        capacity_mah: 2_600.0,
        fast_ohm: 0.12,
        slow_ohm: 0.08,
        sun_ma: 350.0,
        brown_out_mv: 3_200,
        start_mv: 3_450,
    };

    /// An old small cell with no panel: gone in days.
    pub const WORN: Self = Self {
        capacity_mah: 300.0,
        fast_ohm: 0.35,
        slow_ohm: 0.30,
        sun_ma: 0.0,
        ..Self::SOLAR
    };
}

/// A battery.
#[derive(Debug, Clone)]
pub struct Battery {
    profile: BatteryProfile,
    /// Clouds, a share of the sun for each day.
    clouds: Rng,
    sky: f64,
    sky_day: u64,

    charge_mah: f64,
    /// The voltage across the slow resistance.
    slow_mv: f64,
    load_ma: f64,
    at_ms: u64,
    /// The regulator has given up.
    down: bool,
}

impl Battery {
    /// A battery with this share of its charge, 0 to 1, at the time 0, midnight.
    #[must_use]
    pub fn new(profile: BatteryProfile, charge: f64, seed: u64) -> Self {
        let mut clouds = Rng::with_seed(seed);
        Self {
            profile,
            sky: sky(&mut clouds),
            clouds,
            sky_day: 0,
            charge_mah: profile.capacity_mah * charge.clamp(0.0, 1.0),
            slow_mv: 0.0,
            load_ma: 0.0,
            at_ms: 0,
            down: false,
        }
    }

    /// From now on it gives this current.
    pub fn set_load(&mut self, load_ma: f64, now_ms: u64) {
        self.advance(now_ms);
        self.load_ma = load_ma;
        self.judge();
    }

    /// Takes so many millijoules, spread over the time before now in a way that
    /// nobody saw: no sag.
    pub fn spend(&mut self, energy_mj: f64, now_ms: u64) {
        self.advance(now_ms);
        let mah = energy_mj / (self.open_mv() / 1_000.0) / 3_600.0;
        self.charge_mah = (self.charge_mah - mah).max(0.0);
        self.judge();
    }

    /// Its voltage now.
    pub fn millivolts(&mut self, now_ms: u64) -> u16 {
        self.advance(now_ms);
        self.voltage() as u16
    }

    /// The share of its charge that is left, 0 to 1.
    #[must_use]
    pub fn charge(&self) -> f64 {
        self.charge_mah / self.profile.capacity_mah
    }

    /// Whether the board is without power: from the moment the voltage fell under
    /// the limit until it is above the one to start at. A board that is down
    /// takes nothing; set its load to 0.
    pub fn is_down(&mut self, now_ms: u64) -> bool {
        self.advance(now_ms);
        self.down
    }

    /// When to look at it next at the latest: loads last, and the sun moves.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.at_ms + if self.load_ma > 100.0 { 1_000 } else { 600_000 }
    }

    /// Lets it run until now.
    pub fn advance(&mut self, now_ms: u64) {
        while self.at_ms < now_ms {
            let step_ms = (now_ms - self.at_ms).min(600_000);
            self.step(step_ms);
            self.at_ms += step_ms;
            self.judge();
        }
    }

    fn step(&mut self, step_ms: u64) {
        let day = self.at_ms / DAY_MS;
        while self.sky_day < day {
            self.sky = sky(&mut self.clouds);
            self.sky_day += 1;
        }
        let ma = self.load_ma - self.sun_ma();
        let hours = step_ms as f64 / 3_600_000.0;
        self.charge_mah = (self.charge_mah - ma * hours).clamp(0.0, self.profile.capacity_mah);
        let goal_mv = self.load_ma * self.profile.slow_ohm;
        let stays = (-(step_ms as f64) / SLOW_MS).exp();
        self.slow_mv = goal_mv + (self.slow_mv - goal_mv) * stays;
    }

    /// The sun rises at 6 and sets at 18.
    fn sun_ma(&self) -> f64 {
        let hour = (self.at_ms % DAY_MS) as f64 / 3_600_000.0;
        let height = ((hour - 6.0) / 12.0 * std::f64::consts::PI).sin();
        if (6.0..18.0).contains(&hour) {
            self.profile.sun_ma * self.sky * height
        } else {
            0.0
        }
    }

    fn open_mv(&self) -> f64 {
        let tenths = self.charge().clamp(0.0, 1.0) * 10.0;
        let below = (tenths as usize).min(9);
        let [low, high] = [below, below + 1].map(|at| OPEN_MV.get(at).copied().unwrap_or(4_180.0));
        low + (high - low) * (tenths - below as f64)
    }

    fn voltage(&self) -> f64 {
        (self.open_mv() - self.slow_mv - self.load_ma * self.profile.fast_ohm).max(0.0)
    }

    fn judge(&mut self) {
        let millivolts = self.voltage();
        if millivolts < f64::from(self.profile.brown_out_mv) {
            self.down = true;
        } else if self.load_ma <= 0.0 && millivolts >= f64::from(self.profile.start_mv) {
            self.down = false;
        }
    }
}

/// What clouds leave of the sun on a day.
fn sky(clouds: &mut Rng) -> f64 {
    0.2 + 0.8 * clouds.f64()
}

/// A battery and the gauge at it. Clones are the same battery.
#[derive(Debug, Clone)]
pub struct Gauge<C> {
    battery: Arc<parking_lot::Mutex<Battery>>,
    clock: C,
}

impl<C: Clock> Gauge<C> {
    /// A gauge at this battery.
    #[must_use]
    pub fn new(battery: Battery, clock: C) -> Self {
        Self {
            battery: Arc::new(parking_lot::Mutex::new(battery)),
            clock,
        }
    }

    /// Does something to the battery, or asks it. The time goes with it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Battery, u64) -> T) -> T {
        act(&mut self.battery.lock(), self.clock.now_ms())
    }
}

impl<C: Clock> hardware::Battery for Gauge<C> {
    async fn millivolts(&mut self) -> u16 {
        self.with(Battery::millivolts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn it_sags_under_load_and_recovers() {
        let mut battery = Battery::new(BatteryProfile::WORN, 0.5, 1);
        let rest_mv = battery.millivolts(0);
        battery.set_load(450.0, 0);
        let at_once_mv = battery.millivolts(0);
        let later_mv = battery.millivolts(MINUTE_MS);
        assert!(rest_mv > at_once_mv + 100 && at_once_mv > later_mv + 50);
        battery.set_load(0.0, MINUTE_MS);
        let soon_mv = battery.millivolts(MINUTE_MS + 1_000);
        let recovered_mv = battery.millivolts(10 * MINUTE_MS);
        assert!(soon_mv > later_mv && recovered_mv > soon_mv && recovered_mv < rest_mv);
    }

    #[test]
    fn a_burst_takes_down_what_looked_well_and_rest_brings_it_back() {
        let mut battery = Battery::new(BatteryProfile::WORN, 0.17, 1);
        assert!(battery.millivolts(0) > 3_450);
        battery.set_load(650.0, 0);
        let down_s = (0..180)
            .find(|second| battery.is_down(second * 1_000))
            .expect("it goes down within three minutes");
        assert!(down_s > 5);
        battery.set_load(0.0, down_s * 1_000);
        assert!(battery.is_down(down_s * 1_000 + 1));
        assert!(!battery.is_down(down_s * 1_000 + 15 * MINUTE_MS));
    }

    #[test]
    fn the_sun_fills_it_and_a_load_empties_it() {
        let mut battery = Battery::new(BatteryProfile::SOLAR, 0.3, 7);
        battery.set_load(1.0, 0);
        let night = battery.charge();
        battery.advance(6 * 60 * MINUTE_MS);
        assert!(battery.charge() < night);
        battery.advance(18 * 60 * MINUTE_MS);
        assert!(battery.charge() > night);

        let mut worn = Battery::new(BatteryProfile::WORN, 1.0, 7);
        worn.set_load(20.0, 0);
        worn.advance(16 * 60 * MINUTE_MS);
        assert!(worn.is_down(16 * 60 * MINUTE_MS));
    }

    #[test]
    fn joules_are_taken_from_the_charge() {
        let mut battery = Battery::new(BatteryProfile::SOLAR, 0.5, 1);
        let before = battery.charge();
        // 0.37 Wh at some 3.75 V: about 100 mAh.
        battery.spend(3_750.0 * 0.1 * 3_600.0, 0);
        let spent_mah = (before - battery.charge()) * BatteryProfile::SOLAR.capacity_mah;
        assert!((95.0..105.0).contains(&spent_mah), "{spent_mah}");
    }
}
