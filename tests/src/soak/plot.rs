//! The picture of a soak, as SVG: one panel for each thing that was measured, over
//! the same time, with the phases shaded.
//!
//! Promises: every axis has its unit, every line its name; it stands alone, on a
//! light ground, in any browser. Never: a line of a process that is not judged.

use std::fmt::Write;
use std::time::Duration;

use super::Phase;
use super::sampler::{Point, Row, Seen, Watched};

const WIDTH: f64 = 1_240.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 92.0;
const PANEL: f64 = 150.0;
const GAP: f64 = 46.0;
const BOTTOM: f64 = 56.0;
const MIB: f64 = 1_048_576.0;

/// Colours that are told apart by most eyes (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00",
];

/// Grounds of the phases.
fn ground(phase: Phase) -> &'static str {
    match phase {
        Phase::Steady => "#ffffff",
        Phase::Storm => "#dbe9f6",
        Phase::Roam => "#e3f1e1",
        Phase::Churn => "#f3ecd8",
        Phase::Hostile => "#f8dddd",
        Phase::Absent => "#e9e1f2",
        Phase::Outage => "#d9d9d9",
        Phase::Drain => "#f4f4f4",
        Phase::Mark => "#fff3a6",
    }
}

/// A line of a panel.
struct Line<'a> {
    name: &'a str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// The whole picture.
pub(super) fn svg(title: &str, seen: &Seen, watched: &[Watched]) -> String {
    let ends_s = seen.rows.last().map_or(1.0, |row| seconds(row.at)).max(1.0);
    let judged = || {
        let all = watched.iter().enumerate().filter(|(_, one)| one.judged);
        all.zip(COLOURS.iter().cycle())
            .map(|((index, one), colour)| (index, one, *colour))
    };
    let of_all = |pick: fn(&Point) -> f64, only: fn(&Watched) -> bool| -> Vec<Line<'_>> {
        judged()
            .filter(|(_, one, _)| only(one))
            .map(|(index, one, colour)| Line {
                name: &one.name,
                colour,
                points: points(&seen.rows, index, pick),
            })
            .collect()
    };
    let any = |_: &Watched| true;
    let gateway = |one: &Watched| one.asker.is_some();
    let rates = |pick: fn(&Point) -> f64| rate(&seen.rows, gateways(watched), pick);
    let sums = |pick: fn(&Point) -> f64| sum(&seen.rows, gateways(watched), pick);
    let named = |name, colour, points| Line {
        name,
        colour,
        points,
    };
    let panels = [
        (
            "Memory of its own (RssAnon), MiB",
            of_all(|p| p.usage.anonymous_bytes as f64 / MIB, any),
        ),
        (
            "Open file descriptors",
            of_all(|p| p.usage.descriptors as f64, any),
        ),
        ("Threads", of_all(|p| p.usage.threads as f64, any)),
        (
            "Disk of the data directory (allocated), MiB",
            of_all(|p| p.usage.disk_bytes as f64 / MIB, gateway),
        ),
        (
            "Throughput of both gateways, a second",
            vec![
                named("records taken", COLOURS[0], rates(|p| p.records as f64)),
                named(
                    "receipts delivered",
                    COLOURS[2],
                    rates(|p| p.delivered as f64),
                ),
            ],
        ),
        (
            "What waits at both gateways",
            vec![
                named("records for Kafka", COLOURS[1], sums(|p| p.backlog as f64)),
                named("receipts", COLOURS[3], sums(|p| p.waiting as f64)),
            ],
        ),
    ];
    let height = TOP + panels.len() as f64 * (PANEL + GAP) + BOTTOM - GAP;
    let mut out = String::new();
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13" fill="#222">
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="{LEFT}" y="30" font-size="20">{}</text>
"##,
        escaped(title)
    );
    legend_of_phases(&mut out);
    for (index, (name, lines)) in panels.iter().enumerate() {
        let top = TOP + index as f64 * (PANEL + GAP);
        panel(&mut out, name, lines, top, ends_s, seen);
    }
    let _ = writeln!(
        out,
        r#"<text x="{}" y="{}" text-anchor="middle">time, {}</text>"#,
        LEFT + plot_width() / 2.0,
        height - 12.0,
        unit(ends_s).1
    );
    out.push_str("</svg>\n");
    out
}

fn plot_width() -> f64 {
    WIDTH - LEFT - RIGHT
}

fn legend_of_phases(out: &mut String) {
    let mut x = LEFT;
    for phase in Phase::ALL {
        let _ = writeln!(
            out,
            r##"<rect x="{x}" y="44" width="14" height="14" fill="{}" stroke="#888"/><text x="{}" y="56">{}</text>"##,
            ground(phase),
            x + 19.0,
            phase.name()
        );
        x += 34.0 + 8.0 * phase.name().len() as f64;
    }
}

fn panel(out: &mut String, name: &str, lines: &[Line<'_>], top: f64, ends_s: f64, seen: &Seen) {
    let width = plot_width();
    let x = |s: f64| LEFT + width * (s / ends_s).clamp(0.0, 1.0);
    let _ = writeln!(
        out,
        r#"<text x="{LEFT}" y="{}" font-weight="bold">{}</text>"#,
        top - 7.0,
        escaped(name)
    );
    for (index, (begins, phase)) in seen.phases.iter().enumerate() {
        let ends = seen.phases.get(index + 1).map_or(ends_s, |n| seconds(n.0));
        let (from, to) = (x(seconds(*begins)), x(ends));
        if *phase != Phase::Steady && to > from {
            let _ = writeln!(
                out,
                r#"<rect x="{from:.1}" y="{top}" width="{:.1}" height="{PANEL}" fill="{}"/>"#,
                to - from,
                ground(*phase)
            );
        }
    }
    let values = lines.iter().flat_map(|line| &line.points);
    let most = values.map(|(_, value)| *value).fold(0.0, f64::max);
    let step = step(most.max(1.0), 5.0);
    let highest = (most.max(1.0) / step).ceil() * step;
    let y = |value: f64| top + PANEL - PANEL * value / highest;
    let mut tick = 0.0;
    while tick <= highest + step / 2.0 {
        let _ = writeln!(
            out,
            r##"<line x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#bbb" stroke-width="0.6"/><text x="{}" y="{:.1}" text-anchor="end">{}</text>"##,
            LEFT + width,
            LEFT - 8.0,
            y(tick) + 4.5,
            number(tick),
            y = y(tick),
        );
        tick += step;
    }
    let (second, _) = unit(ends_s);
    let step = self::step(ends_s / second, 10.0) * second;
    let mut tick = 0.0;
    while tick <= ends_s {
        let _ = writeln!(
            out,
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{}" stroke="#555"/><text x="{x:.1}" y="{}" text-anchor="middle">{}</text>"##,
            top + PANEL,
            top + PANEL + 5.0,
            top + PANEL + 19.0,
            number(tick / second),
            x = x(tick),
        );
        tick += step;
    }
    let _ = writeln!(
        out,
        r##"<rect x="{LEFT}" y="{top}" width="{width}" height="{PANEL}" fill="none" stroke="#555"/>"##
    );
    for (index, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (at, value) in &line.points {
            let _ = write!(path, "{:.1},{:.1} ", x(*at), y(*value));
        }
        let (colour, at) = (line.colour, top + 14.0 + 20.0 * index as f64);
        let from = LEFT + width + 14.0;
        let _ = writeln!(
            out,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.4" stroke-linejoin="round"/>
<line x1="{from}" x2="{}" y1="{}" y2="{}" stroke="{colour}" stroke-width="3"/><text x="{}" y="{at}">{}</text>"#,
            path.trim_end(),
            from + 22.0,
            at - 4.5,
            at - 4.5,
            from + 29.0,
            escaped(line.name)
        );
    }
}

fn points(rows: &[Row], index: usize, pick: fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let point = |row: &Row| {
        let point = row.points.get(index)?.as_ref()?;
        Some((seconds(row.at), pick(point)))
    };
    rows.iter().filter_map(point).collect()
}

fn gateways(watched: &[Watched]) -> Vec<usize> {
    let all = watched.iter().enumerate();
    all.filter(|(_, one)| one.asker.is_some())
        .map(|(index, _)| index)
        .collect()
}

fn sum(rows: &[Row], of: Vec<usize>, pick: fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let total = |row: &Row| {
        let each = of.iter().map(|index| row.points.get(*index)?.as_ref());
        let total = each.map(|point| point.map_or(0.0, pick)).sum();
        (seconds(row.at), total)
    };
    rows.iter().map(total).collect()
}

fn rate(rows: &[Row], of: Vec<usize>, pick: fn(&Point) -> f64) -> Vec<(f64, f64)> {
    sum(rows, of, pick)
        .windows(2)
        .filter(|pair| pair[1].0 > pair[0].0)
        .map(|pair| {
            let rate = (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0);
            // A gateway that was too busy to answer has no count: not below zero.
            (pair[1].0, rate.max(0.0))
        })
        .collect()
}

/// Seconds of the time axis's unit, and its name.
fn unit(ends_s: f64) -> (f64, &'static str) {
    if ends_s > 3.0 * 3_600.0 {
        (3_600.0, "hours")
    } else if ends_s > 180.0 {
        (60.0, "minutes")
    } else {
        (1.0, "seconds")
    }
}

/// A round distance between ticks, for about so many of them: 1, 2 or 5 times a
/// power of ten.
fn step(most: f64, ticks: f64) -> f64 {
    let rough = most / ticks;
    let power = 10_f64.powf(rough.log10().floor());
    let times = rough / power;
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|n| times <= *n);
    power * round.unwrap_or(10.0)
}

fn number(value: f64) -> String {
    let rounded = (value * 1_000.0).round() / 1_000.0;
    format!("{rounded}")
}

fn seconds(at: Duration) -> f64 {
    at.as_secs_f64()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    fn watched(name: &str, judged: bool) -> Watched {
        Watched {
            name: name.into(),
            pid: Arc::new(AtomicU32::new(1)),
            dir: None,
            asker: None,
            judged,
        }
    }

    #[test]
    fn every_panel_has_its_title_and_every_judged_process_its_line() {
        let mut seen = Seen::default();
        for second in 0..100_u64 {
            let mut point = Point::default();
            point.usage.anonymous_bytes = second << 20;
            seen.rows.push(Row {
                at: Duration::from_secs(second),
                points: vec![Some(point), None],
            });
        }
        seen.phases.push((Duration::ZERO, Phase::Steady));
        seen.phases.push((Duration::from_secs(50), Phase::Storm));
        let svg = svg(
            "a < b",
            &seen,
            &[watched("gw", true), watched("kafka", false)],
        );
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b"));
        for words in [
            "MiB",
            "descriptors",
            "Threads",
            "Throughput",
            "time, seconds",
        ] {
            assert!(svg.contains(words), "{words}");
        }
        assert!(svg.contains(">gw</text>") && !svg.contains(">kafka</text>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(step(100.0, 5.0), 20.0);
        assert_eq!(step(7.0, 5.0), 2.0);
        assert_eq!(step(0.9, 5.0), 0.2);
        assert_eq!(number(0.1 + 0.2), "0.3");
    }
}
