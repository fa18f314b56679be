//! The keys and the display of a simulated terminal, between the terminal and
//! whoever stands before it.
//!
//! Promises: keys arrive in their order; whoever looks sees the last screen.
//! Never: a key pressed before a power cut after it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use risiti_terminal::hardware::{Display, Key, Keypad, Screen};
use risiti_terminal::limits::{SCREEN_COLUMNS, SCREEN_ROWS};
use tokio::sync::Notify;

#[derive(Debug)]
struct Shared {
    keys: RefCell<VecDeque<Key>>,
    pressed: Notify,
    screen: Cell<Screen>,
    powered: Cell<bool>,
    shown: Notify,
}

/// The side of whoever stands before the terminal. Clones are the same console.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Rc<Shared>,
}

/// The keys, for the terminal.
#[derive(Debug)]
pub struct ConsoleKeypad {
    shared: Rc<Shared>,
}

/// The display, for the terminal.
#[derive(Debug)]
pub struct ConsoleDisplay {
    shared: Rc<Shared>,
}

impl Default for Console {
    /// With a dark display.
    fn default() -> Self {
        let shared = Shared {
            keys: RefCell::default(),
            pressed: Notify::new(),
            screen: Cell::new(DARK),
            powered: Cell::new(false),
            shown: Notify::new(),
        };
        Self {
            shared: Rc::new(shared),
        }
    }
}

impl Console {
    /// The terminal's side, at its start.
    #[must_use]
    pub fn switch_on(&self) -> (ConsoleKeypad, ConsoleDisplay) {
        self.switch_off();
        self.shared.powered.set(true);
        let keypad = ConsoleKeypad {
            shared: Rc::clone(&self.shared),
        };
        let display = ConsoleDisplay {
            shared: Rc::clone(&self.shared),
        };
        (keypad, display)
    }

    /// No power: the display is dark, keys do nothing.
    pub fn switch_off(&self) {
        self.shared.keys.borrow_mut().clear();
        self.shared.screen.set(DARK);
        self.shared.powered.set(false);
        self.shared.shown.notify_one();
    }

    /// Presses a key.
    pub fn press(&self, key: Key) {
        self.shared.keys.borrow_mut().push_back(key);
        self.shared.pressed.notify_one();
    }

    /// What the display shows.
    #[must_use]
    pub fn screen(&self) -> Screen {
        self.shared.screen.get()
    }

    /// Whether it has power; a person sees that by its lamp.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        self.shared.powered.get()
    }

    /// Returns once something else is shown than when it was called last, or may
    /// be.
    pub async fn changed(&self) {
        self.shared.shown.notified().await;
    }
}

impl Keypad for ConsoleKeypad {
    async fn key(&mut self) -> Key {
        loop {
            if let Some(key) = self.shared.keys.borrow_mut().pop_front() {
                return key;
            }
            self.shared.pressed.notified().await;
        }
    }
}

impl Display for ConsoleDisplay {
    async fn show(&mut self, screen: &Screen) {
        self.shared.screen.set(*screen);
        self.shared.shown.notify_one();
    }
}

/// A display without power.
const DARK: Screen = Screen([[b' '; SCREEN_COLUMNS]; SCREEN_ROWS]);
