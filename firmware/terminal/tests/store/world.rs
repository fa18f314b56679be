//! A terminal around a store, a gateway, a printer with paper and a truthful
//! human; and what each of them must never see.
//!
//! Promises: a judgement that rests on what the store has said only, not on how
//! it works. Never: time, or a thread.

use std::collections::{BTreeMap, BTreeSet};

use embassy_futures::block_on;
use risiti_sim::nor::{Nor, NorError};
use risiti_terminal::store::rules::Rules;
use risiti_terminal::store::{
    Counters, Opening, SaveError, Store, StoreError, Taken, ToPrint, Waiting,
};
use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX};

/// Why a step came to no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Power was cut.
    Cut,
    /// A promise was broken.
    Broken(String),
}

impl From<StoreError<NorError>> for Stop {
    fn from(error: StoreError<NorError>) -> Self {
        match error {
            StoreError::Flash(NorError::PowerCut) => Self::Cut,
            other => Self::Broken(format!("the store fails: {other:?}")),
        }
    }
}

/// The promise holds, or this is what was broken.
macro_rules! promise {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(Stop::Broken(format!($($what)+)));
        }
    };
}

/// What happens at a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A payment is taken.
    Save,
    /// Up to so many records that were not acknowledged are published.
    Send(u8),
    /// All that wait are published again.
    SendAll,
    /// The gateway delivers a receipt, the oldest or some other one.
    Take(u8),
    /// As `Take`, but the PUBACK is lost.
    TakeUnheard(u8),
    /// The gateway delivers a receipt that was acknowledged.
    Repeat(u8),
    /// A receipt is printed; if one was interrupted, the human is asked.
    Print,
    /// Power is cut in the middle of a receipt.
    PrintHalf,
    /// Power is cut after a receipt, before the printer says so.
    PrintWhole,
    /// Counters are kept.
    Count,
    /// The subscription is made or lost.
    Subscribe,
    /// Power is cut between two operations.
    Restart,
}

/// What is on paper for one record.
#[derive(Debug, Default, Clone, Copy)]
struct Paper {
    /// How often an original was begun.
    originals: u32,
    /// How many whole receipts there are, reprints too.
    whole: u32,
}

/// A record as the terminal made it.
#[derive(Clone)]
struct Made {
    bytes: Vec<u8>,
    /// Whether `save` returned.
    saved: bool,
}

/// Misuses of the store that must be found out, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Habits {
    /// The terminal marks a receipt as begun only after it is on paper.
    pub begins_late: bool,
}

/// All of it.
pub struct World<const PAGE: usize, R> {
    pub chip: Nor<PAGE>,
    store: Option<Store<Nor<PAGE>, R>>,
    pub opening: Opening,
    habits: Habits,
    made: BTreeMap<u32, Made>,
    /// Highest number that was ever built.
    last_built: u32,
    /// What the gateway has taken, by number.
    published: BTreeMap<u32, Vec<u8>>,
    /// Receipts that the gateway still delivers.
    deliverable: Vec<u32>,
    /// Receipts whose PUBACK has come.
    acknowledged: Vec<u32>,
    /// What `take_receipt` called new.
    taken: BTreeSet<u32>,
    paper: BTreeMap<u32, Paper>,
    counters: Counters,
    subscribed: bool,
    /// What was being noted when power was cut: it may be read at any start until
    /// something is noted again.
    counters_tried: Option<Counters>,
    subscribed_tried: Option<bool>,
    pub restarts: u32,
    salt: u8,
}

type Held<'a, const PAGE: usize, R> = &'a mut Store<Nor<PAGE>, R>;

impl<const PAGE: usize, R: Rules> World<PAGE, R> {
    pub fn new(chip: Nor<PAGE>, habits: Habits) -> Self {
        Self {
            chip,
            store: None,
            opening: Opening::default(),
            habits,
            made: BTreeMap::new(),
            last_built: 0,
            published: BTreeMap::new(),
            deliverable: Vec::new(),
            acknowledged: Vec::new(),
            taken: BTreeSet::new(),
            paper: BTreeMap::new(),
            counters: Counters::default(),
            subscribed: false,
            counters_tried: None,
            subscribed_tried: None,
            restarts: 0,
            salt: 0,
        }
    }

    /// The same terminal once more, switched off.
    pub fn copy(&self) -> Self {
        Self {
            chip: self.chip.copy(),
            store: None,
            made: self.made.clone(),
            published: self.published.clone(),
            deliverable: self.deliverable.clone(),
            acknowledged: self.acknowledged.clone(),
            taken: self.taken.clone(),
            paper: self.paper.clone(),
            ..*self
        }
    }

    /// Power comes back, if it was gone, and the store is opened.
    pub fn start(&mut self) -> Result<(), Stop> {
        self.store = None;
        self.restarts += 1;
        let (store, opening) = block_on(Store::open_by(self.chip.handle()))?;
        self.opening = opening;
        promise!(opening.is_numbered, "the store can't number records");
        let counters = *store.counters();
        let may_be = [Some(self.counters), self.counters_tried];
        promise!(
            may_be.contains(&Some(counters)),
            "counters were {:?}, not {counters:?}",
            self.counters
        );
        let may_be = [Some(self.subscribed), self.subscribed_tried];
        promise!(
            may_be.contains(&Some(store.is_subscribed())),
            "the subscription is forgotten"
        );
        self.store = Some(store);
        Ok(())
    }

    pub fn store(&mut self) -> Held<'_, PAGE, R> {
        self.store
            .as_mut()
            .expect("the store is opened before it is used")
    }

    /// Does a step.
    pub fn step(&mut self, step: Step) -> Result<(), Stop> {
        match step {
            Step::Save => self.save().map(|_| ()),
            Step::Send(most) => self.send(most.into(), false),
            Step::SendAll => self.send(usize::MAX, true),
            Step::Take(which) => self.take(which, true),
            Step::TakeUnheard(which) => self.take(which, false),
            Step::Repeat(which) => self.repeat(which),
            Step::Print => self.print(usize::MAX).map(|_| ()),
            Step::PrintHalf => {
                if self.print(0)? {
                    self.chip.cut_now();
                }
                Ok(())
            }
            Step::PrintWhole => {
                if self.print(1)? {
                    self.chip.cut_now();
                }
                Ok(())
            }
            Step::Count => self.count(),
            Step::Subscribe => self.subscribe(),
            Step::Restart => {
                self.chip.cut_now();
                Err(Stop::Cut)
            }
        }
    }

    /// Takes a payment; its number, or none if the store is full.
    pub fn save(&mut self) -> Result<Option<u32>, Stop> {
        self.salt = self.salt.wrapping_add(1);
        let salt = self.salt;
        let mut built = None;
        let result = block_on(self.store().save(|number, into| {
            let bytes = record(number, salt);
            into[..bytes.len()].copy_from_slice(&bytes);
            built = Some((number, bytes.clone()));
            Ok(bytes.len())
        }));
        if let Some((number, bytes)) = built {
            promise!(
                number > self.last_built,
                "number {number} is used twice, after {}",
                self.last_built
            );
            self.last_built = number;
            let saved = result.is_ok();
            self.made.insert(number, Made { bytes, saved });
            promise!(
                result.is_err() || result == Ok(number),
                "number {number} is saved as {result:?}"
            );
        }
        match result {
            Ok(number) => Ok(Some(number)),
            Err(SaveError::Full) => Ok(None),
            Err(SaveError::Flash(error)) => Err(error.into()),
            Err(other) => Err(Stop::Broken(format!("a record is refused: {other:?}"))),
        }
    }

    fn send(&mut self, most: usize, again: bool) -> Result<(), Stop> {
        let mut after = 0;
        let mut sent = 0;
        while sent < most
            && let Some((waiting, bytes)) = self.waiting(after)?
        {
            after = waiting.sequence;
            if waiting.sent && !again {
                continue;
            }
            sent += 1;
            match self.published.get(&waiting.sequence) {
                Some(known) => promise!(
                    *known == bytes,
                    "number {} is used for two records",
                    waiting.sequence
                ),
                None => {
                    self.published.insert(waiting.sequence, bytes);
                    self.deliverable.push(waiting.sequence);
                }
            }
            // Settlement answers a record again with the first receipt.
            if !self.deliverable.contains(&waiting.sequence) {
                self.deliverable.push(waiting.sequence);
            }
            block_on(self.store().mark_sent(waiting.sequence))?;
        }
        Ok(())
    }

    /// The next record that waits; it must be one that was made, as it was made.
    fn waiting(&mut self, after: u32) -> Result<Option<(Waiting, Vec<u8>)>, Stop> {
        let mut into = [0; RECORD_BYTES_MAX];
        let Some(waiting) = block_on(self.store().next_waiting(after, &mut into))? else {
            return Ok(None);
        };
        let bytes = into[..waiting.len].to_vec();
        promise!(
            waiting.sequence > after,
            "{} comes after {after}",
            waiting.sequence
        );
        promise!(
            self.made
                .get(&waiting.sequence)
                .is_some_and(|made| made.bytes == bytes),
            "record {} was never made so",
            waiting.sequence
        );
        Ok(Some((waiting, bytes)))
    }

    fn take(&mut self, which: u8, heard: bool) -> Result<(), Stop> {
        if self.deliverable.is_empty() {
            return Ok(());
        }
        let index = usize::from(which) % self.deliverable.len();
        let number = self.deliverable[index];
        let taken = block_on(self.store().take_receipt(number, &receipt(number)))?;
        match taken {
            Taken::Full => return Ok(()),
            Taken::Unknown => {
                return Err(Stop::Broken(format!("number {number} is unknown")));
            }
            Taken::New => {
                self.taken.insert(number);
            }
            Taken::Repeated => {}
        }
        if heard {
            self.deliverable.remove(index);
            self.acknowledged.push(number);
        }
        Ok(())
    }

    fn repeat(&mut self, which: u8) -> Result<(), Stop> {
        if self.acknowledged.is_empty() {
            return Ok(());
        }
        let number = self.acknowledged[usize::from(which) % self.acknowledged.len()];
        let taken = block_on(self.store().take_receipt(number, &receipt(number)))?;
        promise!(
            taken == Taken::Repeated,
            "receipt {number}, acknowledged, is {taken:?}"
        );
        Ok(())
    }

    /// Prints a receipt. With 0 it ends in the middle of the paper, with 1 before
    /// the printer's word; whether there was one.
    fn print(&mut self, until: usize) -> Result<bool, Stop> {
        let mut into = [0; RECEIPT_BYTES_MAX];
        let Some(job) = block_on(self.store().next_to_print(&mut into))? else {
            return Ok(false);
        };
        let ToPrint {
            ordinal,
            sequence,
            len,
            interrupted,
        } = job;
        promise!(
            into[..len] == receipt(sequence),
            "receipt {sequence} is not what was delivered"
        );
        let whole = self.paper.entry(sequence).or_default().whole;
        if interrupted && whole > 0 {
            block_on(self.store().print_ended(ordinal))?;
            return Ok(true);
        }
        let begins_late = self.habits.begins_late;
        if !begins_late {
            block_on(self.store().print_began(ordinal))?;
        }
        let paper = self.paper.entry(sequence).or_default();
        if !interrupted {
            paper.originals += 1;
            promise!(paper.originals == 1, "receipt {sequence} is printed twice");
        }
        if until == 0 {
            return Ok(true);
        }
        paper.whole += 1;
        if begins_late {
            block_on(self.store().print_began(ordinal))?;
        }
        if until == 1 {
            return Ok(true);
        }
        block_on(self.store().print_ended(ordinal))?;
        let len = block_on(self.store().last_receipt(&mut into))?;
        promise!(
            len.is_some_and(|len| into[..len] == receipt(sequence)),
            "the last receipt is not {sequence}"
        );
        Ok(true)
    }

    fn count(&mut self) -> Result<(), Stop> {
        let counters = Counters {
            sessions: self.counters.sessions + 1,
            up_bytes: self.counters.up_bytes + (1 << 33),
            ..self.counters
        };
        self.counters_tried = Some(counters);
        block_on(self.store().put_counters(counters))?;
        self.counters = counters;
        self.counters_tried = None;
        Ok(())
    }

    fn subscribe(&mut self) -> Result<(), Stop> {
        let subscribed = !self.subscribed;
        self.subscribed_tried = Some(subscribed);
        block_on(self.store().set_subscribed(subscribed))?;
        self.subscribed = subscribed;
        self.subscribed_tried = None;
        Ok(())
    }

    /// What must hold at any moment: every record that was saved waits, or its
    /// receipt is here.
    pub fn check(&mut self) -> Result<(), Stop> {
        let mut numbers = BTreeSet::new();
        let mut unsent = 0;
        let mut after = 0;
        while let Some((waiting, _)) = self.waiting(after)? {
            after = waiting.sequence;
            numbers.insert(waiting.sequence);
            unsent += u32::from(!waiting.sent);
            let number = waiting.sequence;
            promise!(
                !self.taken.contains(&number),
                "record {number} is settled, and waits"
            );
        }
        for (number, made) in &self.made {
            // A receipt whose taking was cut may be here or not; if its record
            // does not wait, the end of the run looks for it.
            promise!(
                !made.saved
                    || self.taken.contains(number)
                    || numbers.contains(number)
                    || self.published.contains_key(number),
                "record {number} was saved, and is lost"
            );
        }
        let levels = self.store().levels();
        promise!(
            (levels.waiting, levels.unsent) == (numbers.len() as u32, unsent),
            "{levels:?}, but {} wait and {unsent} of them unsent",
            numbers.len()
        );
        Ok(())
    }

    /// Power stays; all that waits is sent, answered and printed, and then every
    /// record that was saved must have one whole receipt.
    pub fn settle(&mut self) -> Result<(), Stop> {
        self.chip.power_up();
        self.start()?;
        self.check()?;
        for _ in 0..1_000 {
            self.send(usize::MAX, true)?;
            for _ in 0..self.deliverable.len() {
                self.take(0, true)?;
            }
            while self.print(usize::MAX)? {}
            if self.deliverable.is_empty() && self.store().levels().waiting == 0 {
                break;
            }
        }
        let levels = self.store().levels();
        promise!(
            levels.waiting == 0 && levels.to_print == 0 && self.deliverable.is_empty(),
            "there is no end: {levels:?}"
        );
        for (number, made) in &self.made {
            let paper = self.paper.get(number).copied().unwrap_or_default();
            promise!(
                paper.whole > 0 || !made.saved,
                "record {number} was saved, and has no receipt"
            );
            promise!(
                paper.whole > 0 || !self.taken.contains(number),
                "receipt {number} was taken, and is not on paper"
            );
        }
        // Whatever was done, the store goes on.
        promise!(self.save()?.is_some(), "nothing more can be saved");
        self.check()
    }

    /// Numbers that were saved.
    pub fn saved(&self) -> u32 {
        self.made.values().filter(|made| made.saved).count() as u32
    }

    /// Runs these steps; wherever power is cut, the terminal starts again and goes
    /// on. `at_start` may cut that start, too.
    pub fn run(
        &mut self,
        steps: impl IntoIterator<Item = Step>,
        mut at_start: impl FnMut(&Nor<PAGE>),
    ) -> Result<(), Stop> {
        self.restart(&mut at_start)?;
        for step in steps {
            match self.step(step) {
                Err(Stop::Cut) => self.restart(&mut at_start)?,
                Ok(()) if self.chip.is_cut() => self.restart(&mut at_start)?,
                other => other?,
            }
        }
        Ok(())
    }

    fn restart(&mut self, at_start: &mut impl FnMut(&Nor<PAGE>)) -> Result<(), Stop> {
        loop {
            if self.chip.is_cut() {
                self.chip.power_up();
                at_start(&self.chip);
            }
            match self.start().and_then(|()| self.check()) {
                Err(Stop::Cut) => {}
                other => return other,
            }
        }
    }
}

/// Bytes of a record; no two are alike.
fn record(number: u32, salt: u8) -> Vec<u8> {
    let len = 12 + (number as usize * 7 + usize::from(salt)) % (RECORD_BYTES_MAX - 11);
    bytes(u64::from(number) << 8 | u64::from(salt), len)
}

/// Bytes of the receipt that answers a record.
pub fn receipt(number: u32) -> Vec<u8> {
    let len = 20 + (number as usize * 53) % (RECEIPT_BYTES_MAX - 19);
    bytes(u64::from(number) << 32, len)
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut draw = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| draw.u8(..)).take(len).collect()
}
