//! The person before a simulated terminal, as a task.
//!
//! Promises: what is seen and what comes out of the printer stands in the book
//! when the next key is pressed. Never: a key for a terminal without power.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use embassy_futures::select::select3;
use risiti_terminal::hardware::{Clock, Key};
use tokio::sync::watch;

use super::book::Book;
use super::console::Console;
use super::{Order, lock};
use crate::clock::SimClock;
use crate::operator::{Act, Operator, text};
use crate::printer::{Paper, Printer};

/// A person with all that is in reach.
pub struct Person {
    pub world: SimClock,
    pub console: Console,
    pub printer: Rc<Printer<SimClock>>,
    pub operator: Operator,
    pub book: Arc<Mutex<Book>>,
    orders: watch::Receiver<Order>,
    papers: Vec<Paper>,
    noted: usize,
    /// When receipts are asked for next, once there are no more payments.
    fetch_at_ms: Option<u64>,
}

impl Person {
    pub fn new(
        world: SimClock,
        console: Console,
        printer: Rc<Printer<SimClock>>,
        operator: Operator,
        book: Arc<Mutex<Book>>,
        orders: watch::Receiver<Order>,
    ) -> Self {
        Self {
            world,
            console,
            printer,
            operator,
            book,
            orders,
            papers: Vec::new(),
            noted: 0,
            fetch_at_ms: None,
        }
    }

    /// Stands there for ever.
    pub async fn run(mut self) {
        loop {
            self.look_at_papers();
            if *self.orders.borrow_and_update() != Order::Work {
                self.operator.rest();
                self.fetch_at_ms
                    .get_or_insert(self.world.now_ms() + FETCH_MS);
            }
            if !self.console.is_powered() {
                self.console.changed().await;
                continue;
            }
            let now_ms = self.world.now_ms();
            let screen = text(&self.console.screen());
            let act = self.operator.act(&screen, &self.papers, now_ms);
            self.note();
            match act {
                Act::Press(key) => self.console.press(key),
                Act::PutRoll => self.printer.with(|it, now_ms| it.put_roll(ROLL, now_ms)),
                Act::ClosePrinter => self.printer.with(|it, now_ms| it.set_open(false, now_ms)),
                Act::LookAt { at_ms } => self.wait(Some(at_ms)).await,
                Act::Done if self.fetch_at_ms.is_some_and(|at_ms| at_ms <= now_ms) => {
                    self.fetch_at_ms = Some(now_ms + FETCH_MS);
                    self.console.press(Key::Fetch);
                }
                Act::Done => self.wait(self.fetch_at_ms).await,
            }
        }
    }

    /// For another screen, another order, or this time.
    async fn wait(&mut self, at_ms: Option<u64>) {
        let at = async {
            match at_ms {
                Some(at_ms) => self.world.sleep_until(at_ms).await,
                None => std::future::pending().await,
            }
        };
        select3(self.console.changed(), self.orders.changed(), at).await;
    }

    fn note(&mut self) {
        let saved = self.operator.saved();
        if saved.len() > self.noted {
            let mut book = lock(&self.book);
            for one in saved.iter().skip(self.noted) {
                book.saved(one);
            }
            self.noted = saved.len();
        }
    }

    fn look_at_papers(&mut self) {
        let papers = self.printer.take_papers();
        if papers.is_empty() {
            return;
        }
        let now_ms = self.world.now_ms();
        let mut book = lock(&self.book);
        for paper in papers {
            book.paper(&paper, now_ms);
            self.papers.push(paper);
        }
    }
}

/// A terminal whose last PUBACK was lost on the way knows nothing of it, and comes
/// again with its next payment, or a day later. Who waits for the gateway to know
/// that all is home asks for it so often.
const FETCH_MS: u64 = 5 * 60_000;

/// Lines on a roll: 30 m.
const ROLL: u64 = 8_000;
