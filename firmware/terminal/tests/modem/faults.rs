//! Every fault at every command: it ends with its reason, within its limit, and
//! the next errand goes through.

use std::time::Duration;

use risiti_sim::modem::{Family, Fault, FaultKind, ModemSetup, Moment};
use risiti_terminal::energy::State;
use risiti_terminal::modem::{Modem, ModemError, QuectelFamily, Sim800Family};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{NETWORK, Tested, World, for_polls, steady};

/// The moments of an errand, by what both families do alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    SetUp,
    HearTime,
    Pin,
    Status,
    AccessPoint,
    Activate,
    Open,
    Send,
    Prompt,
    Payload,
    Fetch,
    Close,
    Off,
}

const STEPS: [Step; 13] = [
    Step::SetUp,
    Step::HearTime,
    Step::Pin,
    Step::Status,
    Step::AccessPoint,
    Step::Activate,
    Step::Open,
    Step::Send,
    Step::Prompt,
    Step::Payload,
    Step::Fetch,
    Step::Close,
    Step::Off,
];

const KINDS: [FaultKind; 12] = [
    FaultKind::Error,
    FaultKind::Silence,
    FaultKind::Hang,
    FaultKind::Late(Duration::from_millis(200)),
    FaultKind::Late(Duration::from_secs(40)),
    FaultKind::Rubbish,
    FaultKind::Closed,
    FaultKind::Deactivated,
    FaultKind::UnderVoltage,
    FaultKind::UnderVoltageOff,
    FaultKind::Restart,
    FaultKind::PowerCut,
];

impl Step {
    fn moment(self, family: Family) -> Moment {
        let (sim800, quectel) = match self {
            Self::SetUp => ("ATE0", "ATE0"),
            Self::HearTime => ("CLTS", "QNITZ"),
            Self::Pin => ("CPIN?", "CPIN?"),
            Self::Status => ("CREG?", "CREG?"),
            Self::AccessPoint => ("CSTT", "QICSGP"),
            Self::Activate => ("CIICR", "QIACT"),
            Self::Open => ("CIPSTART", "QIOPEN"),
            Self::Send => ("CIPSEND=", "QISEND="),
            Self::Prompt => return Moment::Prompt,
            Self::Payload => return Moment::Payload,
            Self::Fetch => ("CIPRXGET=2", "QIRD="),
            Self::Close => ("CIPCLOSE", "QICLOSE"),
            Self::Off => ("CPOWD", "QPOWD"),
        };
        let text = match family {
            Family::Sim800 => sim800,
            Family::Quectel => quectel,
        };
        Moment::Command(text.to_owned())
    }

    /// How long its answer may take.
    fn limit(self, family: Family) -> Duration {
        Duration::from_secs(match (self, family) {
            (Self::Activate, Family::Sim800) => 85,
            (Self::Activate, Family::Quectel) => 150,
            (Self::Send, _) => 10,
            (Self::Prompt | Self::Payload, _) => 20,
            (Self::Close, _) => 5,
            // The command's, then the probes.
            (Self::Off, Family::Sim800) => 5 + 2 + 5,
            (Self::Off, Family::Quectel) => 12 + 2 + 12,
            _ => 3,
        })
    }

    /// What becomes of the errand.
    fn outcome(self, kind: FaultKind, family: Family) -> Result<(), ModemError> {
        use ModemError::{Closed, Detached, Power, Protocol, Timeout};
        // Nothing depends on how an errand ends that is over.
        if matches!(self, Self::Close | Self::Off) {
            return Ok(());
        }
        let in_connection = matches!(self, Self::Send | Self::Prompt | Self::Payload);
        match kind {
            FaultKind::Rubbish => Ok(()),
            FaultKind::Late(delay) if delay <= self.limit(family) => Ok(()),
            FaultKind::Silence | FaultKind::Hang | FaultKind::Late(_) | FaultKind::PowerCut => {
                Err(Timeout)
            }
            FaultKind::Error => match self {
                Self::HearTime | Self::Pin => Ok(()),
                Self::Activate | Self::Open => Err(Detached),
                Self::Send | Self::Prompt | Self::Payload | Self::Fetch => Err(Closed),
                _ => Err(Protocol),
            },
            FaultKind::Closed if in_connection => Err(Closed),
            FaultKind::Closed => Ok(()),
            FaultKind::Deactivated => Err(Detached),
            FaultKind::UnderVoltage | FaultKind::UnderVoltageOff | FaultKind::Restart => Err(Power),
        }
    }
}

/// An errand to a peer that answers.
async fn errand<F: Tested>(world: &mut World<F>) -> Result<(), ModemError> {
    world.driver.power_on(&NETWORK).await?;
    world.driver.open("10.0.0.1", 1_883).await?;
    let mut peer = world.call();
    let answering = tokio::spawn(async move {
        let mut heard = [0; 7];
        if peer.stream.read_exact(&mut heard).await.is_ok() {
            let _ = peer.stream.write_all(b"receipts").await;
            let _ = peer.stream.read(&mut heard).await;
        }
    });
    let carried = async {
        world.driver.send(b"records").await?;
        let mut receipts = Vec::new();
        while receipts.len() < 8 {
            let mut into = [0; 64];
            let count = world.driver.receive(&mut into).await?;
            receipts.extend_from_slice(&into[..count]);
        }
        assert_eq!(receipts, b"receipts");
        world.driver.close().await;
        Ok(())
    };
    let carried = carried.await;
    answering.abort();
    carried
}

async fn every_fault_ends_with_its_reason_and_in_time<F: Tested>() {
    let family = F::FAMILY;
    let mut world = World::<F>::new(steady(), 7);
    errand(&mut world).await.unwrap();
    world.driver.power_off().await;
    let usual = world.now();
    for step in STEPS {
        for kind in KINDS {
            let unanswered = matches!(kind, FaultKind::Silence | FaultKind::Late(_));
            if step == Step::Prompt && unanswered {
                // The prompt is the answer.
                continue;
            }
            let what = format!("{family:?}: {kind:?} at {step:?}");
            let mut world = World::<F>::new(steady(), 7);
            world.sim.order(Fault {
                at: step.moment(family),
                after: 0,
                kind,
            });
            let outcome = errand(&mut world).await;
            assert_eq!(outcome, step.outcome(kind, family), "{what}");
            world.driver.power_off().await;
            assert_eq!(world.sim.state(), State::Off, "{what}");
            // A modem that hangs is tried thrice, then its key is pressed.
            let off = Step::Off.limit(family) * 2 + Duration::from_secs(5);
            let limit = usual + step.limit(family) + off;
            assert!(world.now() <= limit, "{what}: {:?}", world.now());
            // Nothing of it is left.
            let again = errand(&mut world).await;
            assert_eq!(again, Ok(()), "{what}, the errand after");
            world.driver.power_off().await;
            assert_eq!(world.sim.state(), State::Off, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_a_sim800_ends_with_its_reason_and_in_time() {
    every_fault_ends_with_its_reason_and_in_time::<Sim800Family>().await;
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_a_quectel_ends_with_its_reason_and_in_time() {
    every_fault_ends_with_its_reason_and_in_time::<QuectelFamily>().await;
}

/// Drops an errand after so many polls; whether it was over by then.
async fn dropped_after<F: Tested>(polls: u32) -> bool {
    let setup = ModemSetup::new(F::FAMILY, steady());
    let mut world = World::<F>::wired(setup, 7, |wire| wire.stutters = true);
    let over = for_polls(errand(&mut world), polls).await.is_some();
    let what = format!("{:?} dropped after {polls} polls", F::FAMILY);
    if polls.is_multiple_of(2) {
        world.driver.power_off().await;
        assert_eq!(world.sim.state(), State::Off, "{what}");
    }
    // A call that it made is nobody's.
    while world.calls.try_recv().is_ok() {}
    assert_eq!(errand(&mut world).await, Ok(()), "{what}");
    over
}

async fn an_errand_dropped_anywhere_leaves_nothing_behind<F: Tested>() {
    let mut polls = 1;
    while !dropped_after::<F>(polls).await {
        polls += 1;
    }
    assert!(polls > 200, "{polls}");
}

#[tokio::test(start_paused = true)]
async fn a_sim800s_errand_dropped_anywhere_leaves_nothing_behind() {
    an_errand_dropped_anywhere_leaves_nothing_behind::<Sim800Family>().await;
}

#[tokio::test(start_paused = true)]
async fn a_quectels_errand_dropped_anywhere_leaves_nothing_behind() {
    an_errand_dropped_anywhere_leaves_nothing_behind::<QuectelFamily>().await;
}

/// How long an errand takes with this fault.
async fn takes<F: Tested>(step: Step, kind: FaultKind) -> Duration {
    let mut world = World::<F>::new(steady(), 7);
    world.sim.order(Fault {
        at: step.moment(F::FAMILY),
        after: 0,
        kind,
    });
    assert!(errand(&mut world).await.is_err());
    world.now()
}

#[tokio::test(start_paused = true)]
async fn a_close_while_sending_ends_at_once_where_silence_takes_its_limit() {
    let closed = takes::<Sim800Family>(Step::Payload, FaultKind::Closed).await;
    let silent = takes::<Sim800Family>(Step::Payload, FaultKind::Silence).await;
    assert!(
        silent - closed > Duration::from_secs(19),
        "{closed:?} {silent:?}"
    );
}

/// What `power_on` and `open` say with this SIM card or network.
async fn up_with(change: impl FnOnce(&mut ModemSetup)) -> (Result<(), ModemError>, Duration) {
    let mut setup = ModemSetup::new(Family::Sim800, steady());
    change(&mut setup);
    let mut world = World::<Sim800Family>::with(setup, 1);
    let up = world.up().await;
    let took = world.now();
    world.driver.power_off().await;
    assert_eq!(world.sim.state(), State::Off);
    (up, took)
}

#[tokio::test(start_paused = true)]
async fn no_card_no_network_and_no_right_are_told_apart() {
    use risiti_sim::modem::SimCard;
    let seconds = Duration::from_secs;
    let (up, took) = up_with(|setup| setup.sim = SimCard::Absent).await;
    assert_eq!(up, Err(ModemError::Sim));
    assert!(took < seconds(20), "{took:?}");
    let (up, took) = up_with(|setup| setup.sim = SimCard::Locked).await;
    assert_eq!(up, Err(ModemError::Sim));
    assert!(took < seconds(8), "{took:?}");
    let (up, took) = up_with(|setup| setup.sim = SimCard::Denied).await;
    assert_eq!(up, Err(ModemError::Denied));
    assert!(took < seconds(15), "{took:?}");
    let (up, took) = up_with(|setup| setup.network.no_service = 1.0).await;
    assert_eq!(up, Err(ModemError::Unregistered));
    assert!(took < seconds(75), "{took:?}");
    let (up, took) = up_with(|setup| setup.network.activation_refused = 1.0).await;
    assert_eq!(up, Err(ModemError::Detached));
    assert!(took < seconds(20), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_refuses_is_told() {
    let mut world = World::<Sim800Family>::new(steady(), 1);
    world.calls.close();
    assert_eq!(world.up().await, Err(ModemError::Refused));
    // The way is still there: only the peer was not.
    let began = world.now();
    assert_eq!(world.up().await, Err(ModemError::Refused));
    assert!(world.now() - began < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_modem_without_supply_is_silent() {
    let mut world = World::<Sim800Family>::new(steady(), 1);
    world.sim.set_supply(false);
    assert_eq!(world.up().await, Err(ModemError::Silent));
    assert!(world.now() < Duration::from_secs(25), "{:?}", world.now());
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_quoted_is_refused_before_it_is_written() {
    let mut world = World::<Sim800Family>::new(steady(), 1);
    world.driver.power_on(&NETWORK).await.unwrap();
    let commands = world.sim.commands();
    for host in ["a\"b", "a\rAT+CPOWD=1", "", "\u{e9}"] {
        let opened = world.driver.open(host, 1).await;
        assert_eq!(opened, Err(ModemError::Refused), "{host:?}");
    }
    assert_eq!(world.sim.commands(), commands);
}
