//! The firmware on a simulated board, with people before it.
//!
//! Promises: the terminal is the firmware's own future, polled by hand; what
//! survives a power cut is flash, paper and people's memory. Never: a cut that the
//! firmware is told of, or a decision of the firmware made here.

pub mod board;
pub mod person;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use risiti_sim::nor::{Nor, Tear};
use risiti_sim::printer::Paper;
use risiti_sim::site::{Keys, Site};
use risiti_terminal::hardware::Hardware;
use risiti_terminal::settings::Settings;
use risiti_terminal::terminal;

use crate::contract::{Controls, Ms, chance};
pub use board::{Ask, Line};
use board::{
    Asleep, BoardClock, BoardFlash, Cells, Console, Drawn, Full, Parts, Pipe, PrinterLine,
};
use person::People;
pub use person::{Meant, Saved, Seen};

/// Bytes of a terminal's flash: some 130 records and 8 receipts; small enough that
/// pages are erased in a run. The last page is the vault's.
const FLASH_BYTES: usize = 9 * 4096;

/// Polls at one instant after which the firmware is taken to spin.
const POLLS_MAX: u32 = 10_000;

/// Where in its work a terminal is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Between two operations.
    Now,
    /// After so many polls more.
    Polls(u32),
    /// After so many steps of its flash, in the middle of the operation.
    Flash {
        /// Steps of [`Nor`].
        steps: u64,
        /// What the cut leaves is drawn from this.
        seed: u64,
    },
}

/// How terminals of a scenario are provisioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provision {
    /// How long one stays connected for a receipt, ms.
    pub patience_ms: u16,
    /// When a record without receipt goes out again, s.
    pub resend_after_s: u32,
}

/// Notes that somebody was woken, so that the firmware is polled again at once.
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Running = Pin<Box<dyn Future<Output = Infallible>>>;

/// One terminal with all that stays when its power is cut.
pub struct Terminal {
    id: String,
    provision: Provision,
    controls: Controls,
    nor: Nor,
    cells: Rc<Cells>,
    firmware: Option<Running>,
    people: People,
    bell: Arc<Bell>,
    waker: Waker,
    /// What flash held at the start, for the control.
    image: Option<Vec<u8>>,
    cut: Option<Place>,
    /// The firmware has not seen yet what came for it.
    stirred: bool,
    papers: Vec<Paper>,
    /// Times that its power was cut.
    pub cuts: u64,
    /// Of them, those in the middle of a write or an erase of its flash.
    pub torn: u64,
    /// Times that the firmware was polled.
    pub polls: u64,
}

impl Terminal {
    /// A new terminal with a blank flash, without power.
    #[must_use]
    pub fn new(
        id: &str,
        provision: Provision,
        payments: Vec<Meant>,
        controls: Controls,
        seed: u64,
    ) -> Self {
        let bell = Arc::new(Bell(AtomicBool::new(false)));
        Self {
            id: id.to_owned(),
            provision,
            controls,
            nor: Nor::new(FLASH_BYTES),
            cells: Rc::new(Cells::new(chance(seed, id))),
            firmware: None,
            people: People::new(payments),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            image: None,
            cut: None,
            stirred: false,
            papers: Vec::new(),
            cuts: 0,
            torn: 0,
            polls: 0,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.firmware.is_some()
    }

    /// Power comes.
    pub fn power_up(&mut self, now_ms: Ms) {
        if self.is_on() {
            return;
        }
        self.nor.power_up();
        self.cells.power_up(now_ms);
        self.cut = None;
        self.image = self.controls.flash_forgets.then(|| self.nor.image());
        let hardware = Hardware::<Parts> {
            clock: BoardClock(Rc::clone(&self.cells)),
            flash: BoardFlash {
                nor: self.nor.handle(),
                cells: Rc::clone(&self.cells),
                forgets_printing: self.controls.prints_again,
            },
            keypad: Console(Rc::clone(&self.cells)),
            display: Console(Rc::clone(&self.cells)),
            printer: PrinterLine(Rc::clone(&self.cells)),
            modem: Pipe(Rc::clone(&self.cells)),
            battery: Full,
            watchdog: Asleep,
            entropy: Drawn(Rc::clone(&self.cells)),
            seed: self.cells.draw_seed(),
        };
        let (id, provision, no_resend) = (self.id.clone(), self.provision, self.controls.no_resend);
        let keys = Site::default().keys(&id).ok();
        self.firmware = Some(Box::pin(async move {
            let settings = Settings {
                id: &id,
                host: "gateway",
                apn: "internet",
                currency: 404,
                title: "KIJIJI SACCO",
                patience_ms: provision.patience_ms,
                resend_after_s: match no_resend {
                    true => u32::MAX,
                    false => provision.resend_after_s,
                },
                seal: keys.as_ref().map(Keys::settings),
                ..Settings::default()
            };
            terminal::run(hardware, &settings).await
        }));
        self.stirred = true;
    }

    /// Power is to be cut there; see [`Self::poll`].
    pub fn cut_at(&mut self, place: Place) {
        if !self.is_on() {
            return;
        }
        if let Place::Flash { steps, seed } = place {
            self.nor.cut_after(steps, Tear::Ragged, seed);
        }
        self.cut = Some(place);
        self.stirred = true;
    }

    /// A cut that was asked for and did not come yet.
    #[must_use]
    pub fn awaits_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Power is cut now.
    fn power_off(&mut self, now_ms: Ms) {
        self.firmware = None;
        self.torn += u64::from(self.nor.is_cut());
        self.nor.cut_now();
        if let Some(image) = self.image.take() {
            self.nor.overwrite(0, &image);
        }
        self.cut = None;
        self.cells.cut(now_ms);
        self.people.dark();
        self.cuts += 1;
        self.collect(now_ms);
    }

    /// When time alone makes something happen here.
    #[must_use]
    pub fn due_ms(&self) -> Ms {
        match (self.is_on(), self.stirred) {
            (false, _) => Ms::MAX,
            (true, true) => 0,
            (true, false) => self.cells.wake_ms().min(self.people.due_ms()),
        }
    }

    /// Lets the firmware and the people go on at this time. False: the power was
    /// cut meanwhile, as [`Self::cut_at`] had asked for.
    ///
    /// # Errors
    /// The firmware spins: it asks to be polled again and again at one instant.
    pub fn poll(&mut self, now_ms: Ms) -> Result<bool, String> {
        self.stirred = false;
        for _ in 0..POLLS_MAX {
            let Some(firmware) = &mut self.firmware else {
                return Ok(true);
            };
            match &mut self.cut {
                Some(Place::Now | Place::Polls(0)) => {
                    self.power_off(now_ms);
                    return Ok(false);
                }
                Some(Place::Polls(polls)) => *polls -= 1,
                _ => {}
            }
            self.bell.0.store(false, Ordering::Relaxed);
            self.cells.begin_poll(now_ms);
            self.polls += 1;
            let mut context = Context::from_waker(&self.waker);
            let _never = firmware.as_mut().poll(&mut context);
            if self.nor.is_cut() {
                self.power_off(now_ms);
                return Ok(false);
            }
            let pressed = self.people.look(&self.cells.screen(), now_ms);
            if let Some(key) = pressed {
                self.cells.press(key);
            } else if !self.bell.0.load(Ordering::Relaxed) {
                self.collect(now_ms);
                return Ok(true);
            }
        }
        Err(format!("{} spins", self.id))
    }

    fn collect(&mut self, now_ms: Ms) {
        let papers = self.cells.printer.borrow_mut().take_papers(now_ms);
        for paper in papers {
            self.people.paper(&paper);
            self.papers.push(paper);
        }
    }

    /// What the modem asks for, each once.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        self.cells.asks.take()
    }

    /// The papers that came out, each once.
    pub fn take_papers(&mut self) -> Vec<Paper> {
        std::mem::take(&mut self.papers)
    }

    /// What people saw on the display, each once.
    pub fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.people.told)
    }

    /// News of the modem's connection.
    pub fn line(&mut self, line: Line) {
        if self.is_on() {
            self.cells.line.set(line);
            self.stirred = true;
        }
    }

    /// Where its connection is.
    #[must_use]
    pub fn line_now(&self) -> Line {
        self.cells.line.get()
    }

    /// Bytes from the gateway.
    pub fn received(&mut self, bytes: &[u8]) {
        if self.is_on() {
            self.cells.inbox.borrow_mut().extend(bytes);
            self.stirred = true;
        }
    }

    /// No network is found until then.
    pub fn no_network_until(&mut self, at_ms: Ms) {
        self.cells.no_network_until_ms.set(at_ms);
    }

    /// What the network tells as time is off by so much.
    pub fn network_clock_off(&mut self, by_s: i64) {
        self.cells.network_clock_off_s.set(by_s);
    }

    /// It is quiet: who misses a receipt asks for it.
    pub fn ask_for_receipts(&mut self, now_ms: Ms) {
        self.people.ask_for_receipts(now_ms);
    }

    /// People ask for receipts once more, though they have them all.
    pub fn encore(&mut self) {
        self.people.encore = true;
        self.stirred = true;
    }

    /// Every payment was made and every receipt is in hand.
    #[must_use]
    pub fn is_content(&self) -> bool {
        self.people.is_content()
    }

    /// Payments that were shown as saved and have no paper yet.
    #[must_use]
    pub fn missing(&self) -> &[u64] {
        self.people.missing()
    }
}
