//! A simulated person before the real application, whose store, printer and
//! power are a few lines here.

use std::collections::BTreeMap;

use fastrand::Rng;
use risiti_sim::operator::{Act, Habits, Operator, text};
use risiti_sim::printer::Paper;
use risiti_terminal::application::{Answered, Application, Effect, Fact, Levels};
use risiti_terminal::printing::PrinterError;
use risiti_wire::Currency;

/// What lasts of a terminal, and what stands around it.
#[derive(Default)]
struct Village {
    /// The records: account and amount by number.
    records: BTreeMap<u32, (String, u64)>,
    /// The receipts that wait for paper, and whether printing the first began.
    receipts: Vec<u32>,
    began: bool,
    last: Option<u32>,
    papers: Vec<Paper>,
    roll: u32,
    fetches: u32,
}

impl Village {
    fn levels(&self) -> Fact {
        Fact::Levels(Levels {
            waiting: 0,
            capacity: 1_000_000,
            to_print: self.receipts.len() as u32,
            last_sequence: self.records.keys().next_back().copied().unwrap_or(0),
            damaged: false,
        })
    }

    fn paper(&mut self, number: u32, again: bool, whole: bool) {
        let mut lines = vec![format!("PAYMENT {number}")];
        if again {
            lines.push("PRINTED AGAIN".to_owned());
        }
        self.papers.push(Paper { lines, whole });
    }

    /// What the shell would do; none if power went in the middle of it.
    fn carry_out(&mut self, effect: Effect, cut: Option<u32>) -> Option<Fact> {
        let answered = |sequence| Answered {
            sequence,
            accepted: true,
        };
        match effect {
            Effect::Save(draft) => {
                if cut == Some(0) {
                    return None;
                }
                // Numbers may be skipped.
                let next = self.records.keys().next_back().map_or(1, |last| last + 1);
                let sequence = next + cut.unwrap_or(0) / 2;
                let paid = (draft.account.to_string(), draft.amount_minor.into());
                self.records.insert(sequence, paid);
                self.receipts.push(sequence);
                (cut.is_none()).then_some(Fact::Saved { sequence })
            }
            Effect::Print | Effect::Answer { again: true, .. } => {
                let again = effect != Effect::Print;
                let Some(first) = self.receipts.first().copied() else {
                    return Some(Fact::NothingToPrint);
                };
                if !again && self.began {
                    return Some(Fact::Interrupted {
                        ordinal: 0,
                        sequence: first,
                    });
                }
                if self.roll == 0 {
                    return Some(Fact::PrinterStopped(PrinterError::NoPaper));
                }
                self.roll -= 1;
                self.began = true;
                match cut {
                    Some(0) => return None,
                    Some(1) => {
                        self.paper(first, again, false);
                        return None;
                    }
                    _ => self.paper(first, again, true),
                }
                if cut.is_some() {
                    return None;
                }
                self.receipts.remove(0);
                self.began = false;
                self.last = Some(first);
                Some(Fact::Printed(answered(first)))
            }
            Effect::Answer { .. } => {
                self.last = Some(self.receipts.remove(0));
                self.began = false;
                Some(Fact::Settled)
            }
            Effect::PrintLast => {
                let Some(last) = self.last else {
                    return Some(Fact::NothingToPrint);
                };
                self.paper(last, true, true);
                Some(Fact::Printed(answered(last)))
            }
            Effect::Fetch => {
                self.fetches += 1;
                None
            }
        }
    }
}

fn start(village: &Village, now_ms: u64) -> (Application, Option<Effect>) {
    let currency = Currency::new(404).expect("KES");
    let mut app = Application::new(currency, 0, now_ms);
    let effect = app.fact(village.levels(), now_ms);
    (app, effect)
}

/// A person makes payments until all are; power goes by chance.
fn run(seed: u64, payments: u32, cuts: f64) -> (Operator, Village, u32) {
    let mut rng = Rng::with_seed(seed);
    let habits = Habits {
        payments,
        slips: 0.1,
        second_thoughts: 0.1,
        ..Habits::default()
    };
    let mut operator = Operator::new(habits, seed, 0);
    let mut village = Village {
        roll: rng.u32(0..20),
        ..Village::default()
    };
    let mut now_ms = 0;
    let (mut app, mut effect) = start(&village, 0);
    let mut power_cuts = 0;
    for _ in 0..1_000_000 {
        if let Some(wanted) = effect.take() {
            let cut = (rng.f64() < cuts).then(|| rng.u32(0..4));
            let fact = village.carry_out(wanted, cut);
            if cut.is_some() {
                power_cuts += 1;
                now_ms += rng.u64(1_000..100_000);
                (app, effect) = start(&village, now_ms);
            } else if let Some(fact) = fact {
                effect = app.fact(fact, now_ms);
                if effect.is_none() {
                    effect = app.fact(village.levels(), now_ms);
                }
            }
            continue;
        }
        let screen = text(&app.screen(now_ms));
        let look_ms = match operator.act(&screen, &village.papers, now_ms) {
            Act::Press(key) => {
                effect = app.key(key, now_ms);
                continue;
            }
            Act::PutRoll => {
                village.roll = 20;
                continue;
            }
            Act::ClosePrinter => panic!("seed {seed}: it was never open"),
            Act::LookAt { at_ms } => at_ms,
            Act::Done if village.receipts.is_empty() => return (operator, village, power_cuts),
            Act::Done => u64::MAX,
        };
        let due_ms = app.due().unwrap_or(u64::MAX);
        now_ms = now_ms.max(look_ms.min(due_ms));
        if due_ms <= now_ms {
            effect = app.tick(now_ms);
        }
    }
    panic!(
        "seed {seed}: not done: {} of {payments} saved, at\n{}",
        operator.saved().len(),
        text(&app.screen(now_ms))
    );
}

fn whole(village: &Village, number: u64, again: bool) -> usize {
    let is =
        |paper: &&Paper| paper.whole && paper.again() == again && paper.payment() == Some(number);
    village.papers.iter().filter(is).count()
}

#[test]
fn every_payment_is_made_as_meant_and_its_receipt_held_in_hands() {
    for seed in 0..100 {
        let (operator, village, _) = run(seed, 20, 0.0);
        assert_eq!(operator.saved().len(), 20);
        assert_eq!(village.records.len(), 20);
        for saved in operator.saved() {
            let record = village.records.get(&(saved.sequence as u32));
            let meant = (saved.account.clone(), saved.amount_minor);
            assert_eq!(record, Some(&meant), "seed {seed}");
            assert_eq!(whole(&village, saved.sequence, false), 1, "seed {seed}");
        }
    }
}

#[test]
fn power_cuts_make_no_second_payment_and_no_second_original() {
    let (mut cuts, mut again) = (0, 0);
    for seed in 0..300 {
        let (operator, village, power_cuts) = run(seed, 20, 0.2);
        cuts += power_cuts;
        // The idle screen tells after a cut whether the payment was saved: nobody
        // pays twice, nobody leaves unpaid.
        let book: BTreeMap<u32, (String, u64)> = operator
            .saved()
            .iter()
            .map(|saved| {
                let meant = (saved.account.clone(), saved.amount_minor);
                (saved.sequence as u32, meant)
            })
            .collect();
        assert_eq!(book.len(), 20, "seed {seed}");
        assert_eq!(book, village.records, "seed {seed}");
        for number in village.records.keys().copied().map(u64::from) {
            let originals = whole(&village, number, false);
            let repeated = whole(&village, number, true);
            assert!(originals <= 1, "seed {seed}: {originals} of {number}");
            assert!(originals + repeated >= 1, "seed {seed}: none of {number}");
            again += repeated;
        }
    }
    println!("{cuts} cuts, {again} receipts printed again");
    // The control: cuts did tear papers.
    assert!(cuts > 1_000 && again > 100);
}
