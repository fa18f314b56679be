//! The simulated modems by themselves: as strict as the real ones.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use std::time::Duration;

use risiti_sim::modem::{Effect, Family, ModemCore, ModemSetup};
use risiti_sim::network::NetworkProfile;
use risiti_terminal::energy::State;

const SECOND: Duration = Duration::from_secs(1);

/// A modem on a desk, and somebody who types.
struct Desk {
    core: ModemCore,
    now: Duration,
}

impl Desk {
    /// A modem that is on and attached.
    fn on(family: Family) -> Self {
        let mut setup = ModemSetup::new(family, NetworkProfile::perfect());
        setup.baud = None;
        let mut desk = Self {
            core: ModemCore::new(setup, 1),
            now: Duration::ZERO,
        };
        desk.press(1_200);
        desk.hear_for(10 * SECOND);
        assert!(desk.say("ATE0").ends_with("OK"));
        desk
    }

    fn press(&mut self, for_ms: u64) {
        self.core.key(self.now, true);
        self.now += Duration::from_millis(for_ms);
        self.core.key(self.now, false);
    }

    /// What it says within this time, its line ends as blanks.
    fn hear_for(&mut self, time: Duration) -> String {
        self.now += time;
        self.core.advance(self.now);
        let mut said = Vec::new();
        while let Some(bytes) = self.core.take_said() {
            said.extend(bytes);
        }
        let text = String::from_utf8(said).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What it says to a command.
    fn say(&mut self, line: &str) -> String {
        self.core.hear(self.now, format!("{line}\r").as_bytes());
        self.hear_for(SECOND)
    }

    /// Brings a SIM800 to where it is connected.
    fn connect(&mut self) {
        for line in ["AT+CSTT=\"apn\",\"\",\"\"", "AT+CIICR"] {
            assert_eq!(self.say(line), "OK", "{line}");
        }
        assert_eq!(self.say("AT+CIFSR"), "10.64.3.17");
        self.open();
    }

    fn open(&mut self) {
        assert_eq!(self.say("AT+CIPSTART=\"TCP\",\"10.0.0.1\",\"1883\""), "OK");
        let dial = Effect::Dial {
            host: "10.0.0.1".into(),
            port: 1_883,
        };
        assert_eq!(self.core.take_effect(), Some(dial));
        self.core.dialled(self.now, true);
        assert_eq!(self.hear_for(SECOND), "CONNECT OK");
    }
}

#[test]
fn a_command_in_the_wrong_state_is_an_error() {
    let mut desk = Desk::on(Family::Sim800);
    for early in [
        "AT+CIICR",
        "AT+CIFSR",
        "AT+CIPSTART=\"TCP\",\"10.0.0.1\",\"1883\"",
        "AT+CIPSEND=5",
        "AT+CIPRXGET=2,10",
        "AT+CIPCLOSE",
        "AT+QIACT",
        "AT+NONSENSE",
        "AT+CSTT",
    ] {
        assert_eq!(desk.say(early), "ERROR", "{early}");
    }
    desk.connect();
    for late in [
        "AT+CSTT=\"apn\"",
        "AT+CIICR",
        "AT+CIPRXGET=1",
        "AT+CIPSEND=1461",
    ] {
        assert_eq!(desk.say(late), "ERROR", "{late}");
    }
    let again = desk.say("AT+CIPSTART=\"TCP\",\"10.0.0.1\",\"1883\"");
    assert_eq!(again, "ERROR ALREADY CONNECT");
    assert_eq!(desk.say("AT+CIPSHUT"), "SHUT OK");
    assert_eq!(desk.say("AT+CIPSEND=5"), "ERROR");
}

#[test]
fn a_quectel_wants_its_own_order() {
    let mut desk = Desk::on(Family::Quectel);
    for early in ["AT+QIACT", "AT+QIREGAPP", "AT+CIICR", "AT+QISEND=3"] {
        assert_eq!(desk.say(early), "ERROR", "{early}");
    }
    for line in ["AT+QICSGP=1,\"apn\",\"\",\"\"", "AT+QIREGAPP", "AT+QIACT"] {
        assert_eq!(desk.say(line), "OK", "{line}");
    }
    // An address while it looks up names, and the other way round.
    let address = "+QIOPEN=\"TCP\",\"10.0.0.1\",\"1883\"";
    assert_eq!(desk.say(&format!("AT+QIDNSIP=1;{address}")), "ERROR");
    assert_eq!(desk.say(&format!("AT+QIDNSIP=0;{address}")), "OK");
}

#[test]
fn commands_of_one_line_are_answered_once_and_end_at_the_first_error() {
    let mut desk = Desk::on(Family::Sim800);
    assert_eq!(desk.say("AT+CREG?;+CGATT?"), "+CREG: 0,1 +CGATT: 1 OK");
    assert_eq!(desk.say("AT+CREG?;+NONSENSE;+CGATT?"), "+CREG: 0,1 ERROR");
    // What takes its time must be the last.
    assert_eq!(desk.say("AT+CIPSHUT;+CREG?"), "ERROR");
    assert_eq!(desk.say("hello"), "");
}

#[test]
fn bytes_go_up_when_they_are_all_there_and_come_when_they_are_fetched() {
    let mut desk = Desk::on(Family::Sim800);
    assert_eq!(desk.say("AT+CIPRXGET=1;+CIPQSEND=1"), "OK");
    desk.connect();
    assert_eq!(desk.say("AT+CIPSEND=5"), ">");
    desk.core.hear(desk.now, b"reco");
    assert_eq!(desk.hear_for(SECOND), "");
    desk.core.hear(desk.now, b"r");
    assert_eq!(desk.hear_for(SECOND), "DATA ACCEPT:5");
    assert_eq!(
        desk.core.take_effect(),
        Some(Effect::ToPeer(b"recor".into()))
    );
    desk.core.hear_peer(desk.now, b"receipt".into());
    assert_eq!(desk.hear_for(SECOND), "+CIPRXGET: 1");
    assert_eq!(desk.say("AT+CIPRXGET=2,4"), "+CIPRXGET: 2,4,3 rece OK");
    // What comes before the end is still to be had after it.
    desk.core.peer_ended(desk.now);
    assert_eq!(desk.hear_for(SECOND), "CLOSED");
    assert_eq!(desk.say("AT+CIPRXGET=2,4"), "+CIPRXGET: 2,3,0 ipt OK");
    assert_eq!(desk.say("AT+CIPRXGET=2,4"), "ERROR");
}

#[test]
fn bytes_are_pushed_to_whoever_does_not_fetch() {
    let mut desk = Desk::on(Family::Sim800);
    desk.connect();
    desk.core.hear_peer(desk.now, b"receipt".into());
    assert_eq!(desk.hear_for(SECOND), "+IPD,7:receipt");
}

#[test]
fn the_key_switches_on_and_off_and_a_touch_does_nothing() {
    let mut desk = Desk::on(Family::Sim800);
    desk.press(300);
    assert_eq!(desk.hear_for(10 * SECOND), "");
    assert_eq!(desk.core.state(), State::Idle);
    desk.press(1_500);
    assert_eq!(desk.hear_for(10 * SECOND), "NORMAL POWER DOWN");
    assert_eq!(desk.core.state(), State::Off);
    assert_eq!(desk.say("AT"), "");
    desk.press(300);
    assert_eq!(desk.hear_for(10 * SECOND), "");
    desk.press(1_200);
    assert!(desk.hear_for(10 * SECOND).starts_with("RDY"));
}

#[test]
fn a_modem_that_waits_for_bytes_takes_a_probe_for_them() {
    let mut desk = Desk::on(Family::Sim800);
    assert_eq!(desk.say("AT+CIPQSEND=1"), "OK");
    desk.connect();
    assert_eq!(desk.say("AT+CIPSEND=6"), ">");
    assert_eq!(desk.say("AT"), "");
    assert_eq!(desk.say("AT"), "DATA ACCEPT:6");
    let sent = desk.core.take_effect();
    assert_eq!(sent, Some(Effect::ToPeer(b"AT\rAT\r".into())));
}
