//! One screen of what is going on; a line now and then where there is no screen.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use risiti_sim::fleet::Totals;

use super::reader::Counts;

/// How often a line is printed where there is no screen.
const LINE_EVERY: Duration = Duration::from_secs(2);
const BAR: usize = 40;

/// How things stand.
pub struct Scene {
    /// Since the start.
    pub elapsed: Duration,
    /// Terminals with a connection open or opening.
    pub connected: u64,
    /// What terminals have come to.
    pub totals: Totals,
    /// What stands in Kafka.
    pub read: Counts,
    /// Whether the gateway has power.
    pub gateway_up: bool,
    /// Whether settlement runs.
    pub settlement_up: bool,
    /// Durable records that are not in Kafka yet; none if it can't be asked.
    pub backlog: Option<u64>,
}

/// The view.
pub struct View {
    terminals: usize,
    length: Duration,
    screen: bool,
    drawn: usize,
    last_line: Option<Instant>,
    notes: Vec<String>,
    rate: Rate,
}

/// Receipts that were printed in the last moments.
#[derive(Default)]
struct Rate {
    seen: Option<(Instant, u64)>,
    per_s: f64,
}

impl Rate {
    fn update(&mut self, total: u64) -> f64 {
        let now = Instant::now();
        match self.seen {
            Some((at, before)) if now.duration_since(at) >= Duration::from_secs(1) => {
                let gained = total.saturating_sub(before) as f64;
                self.per_s = gained / now.duration_since(at).as_secs_f64();
                self.seen = Some((now, total));
            }
            None => self.seen = Some((now, total)),
            _ => {}
        }
        self.per_s
    }
}

impl View {
    /// A view of a run of that many terminals and that length.
    pub fn new(terminals: usize, length: Duration) -> Self {
        Self {
            terminals,
            length,
            screen: std::io::stdout().is_terminal(),
            drawn: 0,
            last_line: None,
            notes: Vec::new(),
            rate: Rate::default(),
        }
    }

    /// Something worth telling happened.
    pub fn note(&mut self, text: &str) {
        if self.screen {
            self.notes.push(text.to_owned());
        } else {
            println!("-- {text}");
        }
    }

    /// Shows how things stand.
    pub fn draw(&mut self, scene: &Scene) {
        let rate = self.rate.update(scene.totals.printed);
        if self.screen {
            return self.draw_screen(scene, rate);
        }
        if self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            println!("{}", self.line(scene, rate));
        }
    }

    fn line(&self, scene: &Scene, rate: f64) -> String {
        format!(
            "{:5.1} s  online {} of {}  power cuts {}  paid {}  in Kafka {}  settled {}  on paper {} ({rate:.0}/s)  backlog {}",
            scene.elapsed.as_secs_f64(),
            scene.connected,
            self.terminals,
            scene.totals.power_cuts,
            scene.totals.saved,
            scene.read.in_kafka,
            scene.read.settled,
            scene.totals.printed,
            show(scene.backlog),
        )
    }

    fn draw_screen(&mut self, scene: &Scene, rate: f64) {
        let part = (scene.elapsed.as_secs_f64() / self.length.as_secs_f64()).min(1.0);
        let full = (part * BAR as f64) as usize;
        let power = |up: bool, down: &'static str| if up { "up" } else { down };
        let totals = &scene.totals;
        let mut lines = vec![
            format!(
                "risiti demo   [{}{}] {:.0} of {} s",
                "#".repeat(full),
                ".".repeat(BAR - full),
                scene.elapsed.min(self.length).as_secs_f64(),
                self.length.as_secs()
            ),
            String::new(),
            format!(
                "  terminals   {:>8} online of {}, {} power cuts",
                scene.connected, self.terminals, totals.power_cuts
            ),
            format!("  paid        {:>8}", totals.saved),
            format!(
                "  gateway     {:>8}  {} waiting for Kafka",
                power(scene.gateway_up, "NO POWER"),
                show(scene.backlog)
            ),
            format!("  in Kafka    {:>8}", scene.read.in_kafka),
            format!(
                "  settlement  {:>8}  {} settled",
                power(scene.settlement_up, "KILLED"),
                scene.read.settled
            ),
            format!(
                "  receipts    {:>8}  on paper, {} on their way, {rate:.0} a second",
                totals.printed,
                totals.saved.saturating_sub(totals.printed)
            ),
            String::new(),
        ];
        lines.extend(self.notes.iter().map(|n| format!("  {n}")));
        let mut out = std::io::stdout().lock();
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn);
        }
        for line in &lines {
            let _ = writeln!(out, "\x1b[2K{line}");
        }
        let _ = out.flush();
        self.drawn = lines.len();
    }

    /// Leaves the screen as it is.
    pub fn finish(&mut self) {
        self.drawn = 0;
    }
}

fn show(count: Option<u64>) -> String {
    count.map_or("-".to_owned(), |count| count.to_string())
}
