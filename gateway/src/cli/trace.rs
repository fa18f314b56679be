//! `risiti trace`: where a payment or its receipt is.

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::client::Client;
use super::{AdminPort, Failure};
use crate::trace::{PaymentTrace, Whereabouts};

/// Which payment.
#[derive(Args)]
pub struct Payment {
    /// The terminal's id.
    terminal: String,
    /// The payment's sequence number, as it stands on the terminal's slip.
    sequence: u64,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminPort,
}

/// Prints the life of a payment, in local time.
pub fn trace(payment: &Payment) -> Result<(), Failure> {
    let path = format!(
        "/v1/trace/{}/{}",
        in_path(&payment.terminal),
        payment.sequence
    );
    let told: PaymentTrace = Client::new(&payment.admin)?.get(&path)?;
    if payment.json {
        println!("{}", serde_json::to_string_pretty(&told)?);
        return Ok(());
    }
    print!("{}", page(&told, &TimeZone::system()));
    Ok(())
}

/// One step of a URL's path.
fn in_path(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    text.bytes()
        .map(|b| match plain(&b) {
            true => char::from(b).to_string(),
            false => format!("%{b:02X}"),
        })
        .collect()
}

fn page(told: &PaymentTrace, zone: &TimeZone) -> String {
    let mut out = format!(
        "terminal {}, payment {} (gateway {})\n\n",
        told.terminal, told.sequence, told.gateway
    );
    let mut day = String::new();
    let mut before_ms = None;
    for step in &told.steps {
        let (date, time) = date_and_time(step.at_ms, zone);
        if date != day {
            out.push_str(&format!("{date}\n"));
            day = date;
        }
        let after = before_ms.map_or(String::new(), |before| since(before, step.at_ms));
        out.push_str(&format!(
            "  {time}  {after:>9}  {:<15} {}\n",
            step.step.replace('_', " "),
            step.text
        ));
        before_ms = Some(step.at_ms);
    }
    if !told.steps.is_empty() {
        out.push('\n');
    }
    out.push_str(&told.answer);
    out.push('\n');
    if let Some(total_ms) = told.total_ms {
        let total = duration(total_ms);
        out.push_str(&format!("From payment to receipt: {total}.\n"));
    }
    if let (Whereabouts::Unknown, Some(reach)) = (told.whereabouts, told.reaches_back_ms) {
        let (date, time) = date_and_time(reach, zone);
        out.push_str(&format!("What is recorded here begins {date} {time}.\n"));
    }
    out
}

/// A day with its zone, and the time of it.
fn date_and_time(at_ms: u64, zone: &TimeZone) -> (String, String) {
    let stamp = i64::try_from(at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match stamp.map(|stamp| stamp.to_zoned(zone.clone())) {
        Some(local) => (
            local.strftime("%Y-%m-%d (%Z)").to_string(),
            local.strftime("%H:%M:%S%.3f").to_string(),
        ),
        None => ("a clock that was not set".into(), format!("{at_ms} ms")),
    }
}

/// What passed since the step before; clocks of several machines may disagree.
fn since(before_ms: u64, at_ms: u64) -> String {
    match at_ms.checked_sub(before_ms) {
        Some(ms) => format!("+{}", duration(ms)),
        None => format!("-{}", duration(before_ms - at_ms)),
    }
}

#[allow(clippy::cast_precision_loss)] // for people
fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..100_000 => format!("{:.1} s", ms as f64 / 1e3),
        100_000..6_000_000 => format!("{} min", ms / 60_000),
        6_000_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::PaymentStep;

    fn step(at_ms: u64, step: &str, text: &str) -> PaymentStep {
        PaymentStep {
            at_ms,
            step: step.into(),
            text: text.into(),
            ..PaymentStep::default()
        }
    }

    #[test]
    fn the_page_reads_from_top_to_bottom() {
        let told = PaymentTrace {
            terminal: "t-41".into(),
            sequence: 7,
            gateway: "gw-1".into(),
            whereabouts: Whereabouts::Delivered,
            answer: "The receipt is at the terminal.".into(),
            total_ms: Some(2_108),
            steps: vec![
                step(1_763_733_599_900, "published", "received from the terminal"),
                step(1_763_733_599_908, "on_disk", "position 12"),
                step(1_763_733_602_008, "acknowledged", "by the terminal"),
                step(1_763_733_602_000, "sent", "to the terminal, again"),
            ],
            reaches_back_ms: Some(1),
        };
        let zone = TimeZone::fixed(jiff::tz::offset(10));
        assert_eq!(
            page(&told, &zone),
            "terminal t-41, payment 7 (gateway gw-1)\n\
             \n\
             2025-11-21 (+10)\n  \
             23:59:59.900             published       received from the terminal\n  \
             23:59:59.908      +8 ms  on disk         position 12\n\
             2025-11-22 (+10)\n  \
             00:00:02.008     +2.1 s  acknowledged    by the terminal\n  \
             00:00:02.000      -8 ms  sent            to the terminal, again\n\
             \n\
             The receipt is at the terminal.\n\
             From payment to receipt: 2.1 s.\n"
        );
    }

    #[test]
    fn an_unknown_payment_says_how_far_the_record_reaches() {
        let told = PaymentTrace {
            terminal: "t".into(),
            sequence: 1,
            gateway: "g".into(),
            answer: "Never seen.".into(),
            reaches_back_ms: Some(0),
            ..PaymentTrace::default()
        };
        assert_eq!(
            page(&told, &TimeZone::UTC),
            "terminal t, payment 1 (gateway g)\n\nNever seen.\n\
             What is recorded here begins 1970-01-01 (UTC) 00:00:00.000.\n"
        );
    }

    #[test]
    fn a_strange_id_is_one_step_of_the_path() {
        assert_eq!(in_path("t-1._~Z"), "t-1._~Z");
        assert_eq!(in_path("a/b ?#é"), "a%2Fb%20%3F%23%C3%A9");
    }
}
