//! What the radio has cost.
//!
//! Promises: counted from what was sent and how long the radio was in which
//! state, in whole units and without a rounding error that grows. Never: a
//! measurement; joules are computed by the modem's datasheet, and what the rest
//! of the board takes is not in them.

/// What the radio has done since the board started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Radio {
    /// Bytes handed to the modem for its peer.
    pub up_bytes: u64,
    /// Bytes from the peer.
    pub down_bytes: u64,
    /// Milliseconds for which the modem was powered.
    pub on_ms: u64,
    /// Milliseconds of them in which packet data were being brought up, or a TCP
    /// connection was open or opening.
    pub connected_ms: u64,
    /// Millijoules, by the currents of the modem's datasheet.
    pub energy_mj: u64,
    /// TCP connections opened.
    pub connections: u32,
}

/// What a modem is doing, as far as its supply current goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Powered down: its own clock runs.
    Off,
    /// Up: starts, looks for a network, is registered, or waits. Datasheets give
    /// one current for it; the bursts of a registration are not in it.
    Idle,
    /// Packet data under way: a context is activated, a TCP connection is open or
    /// opening. Counted as if its one uplink slot were busy all the time, which
    /// is the worst that it can be.
    Data,
}

/// The supply currents of a modem in its states, as power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Microwatts when [`State::Off`].
    pub off_uw: u32,
    /// Microwatts when [`State::Idle`].
    pub idle_uw: u32,
    /// Microwatts when [`State::Data`].
    pub data_uw: u32,
}

impl Draw {
    /// SIM800H and SIM800L at 3.8 V (Hardware Design V2.02, table 49): powered
    /// down 150 uA, idle 17.38 mA, GPRS with 4 slots down and 1 up on EGSM 900 at
    /// full power 249.85 mA.
    pub const SIM800: Self = Self::at_3800_mv(150, 17_380, 249_850);

    /// The draw of these currents at 3.8 V.
    #[must_use]
    pub const fn at_3800_mv(off_ua: u32, idle_ua: u32, data_ua: u32) -> Self {
        Self {
            off_uw: off_ua * 38 / 10,
            idle_uw: idle_ua * 38 / 10,
            data_uw: data_ua * 38 / 10,
        }
    }

    /// Microwatts in a state.
    #[must_use]
    pub const fn uw(&self, state: State) -> u32 {
        match state {
            State::Off => self.off_uw,
            State::Idle => self.idle_uw,
            State::Data => self.data_uw,
        }
    }
}

/// Adds up what a modem does. Moved by its driver, which passes the time in.
#[derive(Debug, Clone)]
pub struct Meter {
    draw: Draw,
    radio: Radio,
    state: State,
    since_ms: u64,
    /// Below a millijoule.
    rest_nj: u32,
}

impl Meter {
    /// A meter of a modem that is off.
    #[must_use]
    pub const fn new(draw: Draw, now_ms: u64) -> Self {
        Self {
            draw,
            radio: Radio {
                up_bytes: 0,
                down_bytes: 0,
                on_ms: 0,
                connected_ms: 0,
                energy_mj: 0,
                connections: 0,
            },
            state: State::Off,
            since_ms: now_ms,
            rest_nj: 0,
        }
    }

    /// From now on the modem is in this state.
    pub fn enter(&mut self, state: State, now_ms: u64) {
        self.settle(now_ms);
        self.state = state;
    }

    /// A TCP connection was opened.
    pub fn connected(&mut self) {
        self.radio.connections = self.radio.connections.saturating_add(1);
    }

    /// Bytes were handed over for the peer.
    pub fn sent(&mut self, bytes: usize) {
        self.radio.up_bytes += bytes as u64;
    }

    /// Bytes came from the peer.
    pub fn received(&mut self, bytes: usize) {
        self.radio.down_bytes += bytes as u64;
    }

    /// What it was up to now.
    #[must_use]
    pub fn radio(&self, now_ms: u64) -> Radio {
        let mut until_now = self.clone();
        until_now.settle(now_ms);
        until_now.radio
    }

    fn settle(&mut self, now_ms: u64) {
        let mut passed_ms = now_ms.saturating_sub(self.since_ms);
        self.since_ms = now_ms;
        match self.state {
            State::Off => {}
            State::Idle => self.radio.on_ms += passed_ms,
            State::Data => {
                self.radio.on_ms += passed_ms;
                self.radio.connected_ms += passed_ms;
            }
        }
        while passed_ms > 0 {
            let step_ms = u32::try_from(passed_ms).unwrap_or(u32::MAX);
            self.add(step_ms);
            passed_ms -= u64::from(step_ms);
        }
    }

    /// Adds the energy of so many milliseconds, in 32 bits: a division of 64 bits
    /// would be a kilobyte of flash.
    fn add(&mut self, ms: u32) {
        let uw = self.draw.uw(self.state);
        let (seconds, ms) = (ms / 1_000, ms % 1_000);
        // uW times s is uJ: whole milliwatts, then what is below.
        self.radio.energy_mj += u64::from(uw / 1_000) * u64::from(seconds);
        let rest_uj = (uw % 1_000) * seconds;
        self.radio.energy_mj += u64::from(rest_uj / 1_000);
        // uW times ms is nJ. A modem draws below 4 W, so this fits.
        let rest_nj = self.rest_nj + (rest_uj % 1_000) * 1_000 + uw * ms;
        self.radio.energy_mj += u64::from(rest_nj / 1_000_000);
        self.rest_nj = rest_nj % 1_000_000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it is, in 128 bits.
    fn exact_mj(steps: &[(State, u64)]) -> u64 {
        let nj: u128 = steps
            .iter()
            .map(|(state, ms)| u128::from(Draw::SIM800.uw(*state)) * u128::from(*ms))
            .sum();
        u64::try_from(nj / 1_000_000).unwrap()
    }

    #[test]
    fn energy_is_power_times_time_without_a_rounding_error_that_grows() {
        let mut steps = std::vec::Vec::new();
        let mut meter = Meter::new(Draw::SIM800, 0);
        let mut now_ms = 0;
        for round in 0..1_000_u64 {
            for (state, ms) in [
                (State::Off, 3_599_871 + round),
                (State::Idle, 12_345 - round),
                (State::Data, 4_703 + round * 7),
            ] {
                meter.enter(state, now_ms);
                now_ms += ms;
                steps.push((state, ms));
            }
        }
        let radio = meter.radio(now_ms);
        assert_eq!(radio.energy_mj, exact_mj(&steps));
        let total = |wanted| -> u64 {
            let of = steps.iter().filter(|(state, _)| *state == wanted);
            of.map(|(_, ms)| ms).sum()
        };
        assert_eq!(radio.connected_ms, total(State::Data));
        assert_eq!(radio.on_ms, total(State::Data) + total(State::Idle));
    }

    #[test]
    fn a_session_of_five_seconds_and_a_day_off_cost_what_the_datasheet_says() {
        let mut meter = Meter::new(Draw::SIM800, 0);
        meter.enter(State::Data, 0);
        meter.enter(State::Off, 4_700);
        assert_eq!(meter.radio(4_700).energy_mj, 4_462);
        // 150 uA at 3.8 V for a day.
        let day_ms = 86_400_000;
        assert_eq!(meter.radio(4_700 + day_ms).energy_mj - 4_462, 49_248);
    }

    #[test]
    fn months_in_one_state_are_counted_whole() {
        let year_ms = 365 * 86_400_000;
        let meter = Meter::new(Draw::SIM800, 0);
        let radio = meter.radio(year_ms);
        assert_eq!(radio.energy_mj, exact_mj(&[(State::Off, year_ms)]));
        assert_eq!(radio.on_ms, 0);
    }

    extern crate std;
}
