//! Settlement with a bank's own rules: copy this file, and change what is yours.
//!
//! `cargo run -p risiti-bridge --example own_rules -- risiti.toml`
//!
//! Two rules of its own beside those of the configuration: no payments to the
//! bank's own fee accounts, and none between midnight and five in the morning. And
//! a reference for each receipt. Rules must depend on the case alone: the same
//! record gives the same receipt on every instance and after every restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use risiti_bridge::settlement::rules::{Case, Refusal};
use risiti_bridge::settlement::{
    Options, Sealing, Settlement, SettlementMetrics, SettlementSetup, configured_policy,
};
use risiti_config::Config;
use risiti_wire::{Reason, RecordBody};

/// Codes from 100 on are free for a bank's own reasons.
const CLOSED: u16 = 100;

/// Nobody pays into the bank's own fee accounts, which begin with 99.
fn no_fee_accounts(case: &Case<'_>) -> Result<(), Refusal> {
    match case.body {
        RecordBody::Payment(payment) if payment.account.to_string().starts_with("99") => {
            Err(Refusal::new(Reason::ACCOUNT, "a fee account"))
        }
        _ => Ok(()),
    }
}

/// Closed from midnight to five, by the time at which the record came to Kafka:
/// never by a clock of this machine.
fn open_hours(case: &Case<'_>) -> Result<(), Refusal> {
    let hour = case.time_ms / 3_600_000 % 24;
    if hour >= 5 {
        return Ok(());
    }
    let reason = Reason::new(CLOSED).unwrap_or(Reason::LIMIT);
    Err(Refusal::new(reason, format!("closed at {hour}:00 UTC")))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("name a configuration file")?;
    let config = Config::load(Path::new(&file), std::env::vars())?;
    let settings = config.settlement.clone();
    let cluster = config
        .cluster(&settings.cluster)
        .ok_or("settlement.cluster names no cluster")?
        .clone();
    let bootstrap = cluster
        .bootstrap
        .servers()
        .ok_or("this example wants a real cluster")?;

    let mut policy = configured_policy(&settings, None);
    policy.rules.push(Arc::new(no_fee_accounts));
    policy.rules.push(Arc::new(open_hours));
    policy.bank_reference = Some(Arc::new(|case| {
        Some(format!("KE{:05}-{}", case.day, case.sequence))
    }));

    let handle = Settlement::start(SettlementSetup {
        cluster,
        bootstrap,
        settings,
        policy,
        sealing: Sealing::default(),
        metrics: Arc::new(SettlementMetrics::default()),
        options: Options::default(),
    })?;
    println!("settling; Enter stops");
    std::io::stdin().read_line(&mut String::new())?;
    let in_order = handle.stop(Duration::from_secs(10));
    println!(
        "stopped{}",
        if in_order {
            ""
        } else {
            " without its last transaction"
        }
    );
    Ok(())
}
