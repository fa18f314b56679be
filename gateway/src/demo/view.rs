//! One screen of what is going on; a line now and then where there is no screen.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use risiti_sim::link::Link;

use super::child::Child;
use super::ledger::Ledger;

/// How often a line is printed where there is no screen.
const LINE_EVERY: Duration = Duration::from_secs(2);
const BAR: usize = 40;

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

/// Records that reached Kafka in the last moments.
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
    pub async fn draw(
        &mut self,
        ledger: &Ledger,
        gateway: &Child,
        links: &[Link],
        elapsed: Duration,
    ) {
        if !self.screen {
            let due = self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY);
            if !due {
                return;
            }
            self.last_line = Some(Instant::now());
        }
        let counts = ledger.counts();
        let status = gateway.status().await;
        let cuts: u64 = links.iter().map(|l| l.counts().cuts).sum();
        let rate = self.rate.update(counts.found);
        let backlog = status
            .as_ref()
            .map(|s| s.clusters.iter().map(|c| c.backlog).sum::<u64>());
        let durable = status.as_ref().map(|s| s.journal.end.saturating_sub(1));
        let show = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        if !self.screen {
            println!(
                "{:5.1} s  terminals {}/{}  link cuts {cuts}  published {}  acknowledged {}  durable {}  in Kafka {}  backlog {}  {rate:.0}/s",
                elapsed.as_secs_f64(),
                counts.connected,
                self.terminals,
                counts.published,
                counts.acknowledged,
                show(durable),
                counts.found,
                show(backlog),
            );
            return;
        }
        let part = (elapsed.as_secs_f64() / self.length.as_secs_f64()).min(1.0);
        let full = (part * BAR as f64) as usize;
        let mut lines = vec![
            format!(
                "risiti demo   [{}{}] {:.0} of {} s",
                "#".repeat(full),
                ".".repeat(BAR - full),
                elapsed.min(self.length).as_secs_f64(),
                self.length.as_secs()
            ),
            String::new(),
            format!(
                "  terminals   {:>8} connected of {}, {cuts} link cuts",
                counts.connected, self.terminals
            ),
            format!("  published   {:>8}", counts.published),
            format!("  acknowledged{:>8}", counts.acknowledged),
            format!(
                "  gateway     {:>8}  {} durable, {} waiting for Kafka",
                if gateway.is_up() { "up" } else { "NO POWER" },
                show(durable),
                show(backlog)
            ),
            format!("  in Kafka    {:>8}  {rate:.0} a second", counts.found),
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
