//! `risiti status`.

use super::client::Client;
use super::{AdminPort, Failure, shown};
use crate::status::Status;

/// Prints what a running gateway is doing.
pub fn status(admin: &AdminPort) -> Result<(), Failure> {
    let s: Status = Client::new(admin)?.get("/v1/status")?;
    println!("gateway      {} (version {})", s.gateway, s.version);
    println!(
        "mqtt         {} connections, {} sessions, {} retained messages",
        s.connections, s.sessions, s.retained
    );
    println!(
        "records      {} taken, {} acknowledged, {} resends recognised since the start",
        s.records, s.acknowledged, s.journal.duplicates
    );
    println!(
        "journal      positions {}..{}, {} of {} MiB of disk, {} withheld, {} damaged",
        s.journal.oldest,
        s.journal.end,
        s.journal.used_bytes >> 20,
        s.journal.budget_bytes >> 20,
        s.journal.withheld,
        s.journal.damaged
    );
    for c in &s.clusters {
        println!(
            "kafka        {}: {}, {} forwarded, {} waiting{}",
            c.name,
            c.state,
            c.forwarded,
            c.backlog,
            c.last_error
                .as_ref()
                .map(|e| format!(", last error: {e}"))
                .unwrap_or_default()
        );
    }
    if let Some(bootstrap) = &s.embedded_bootstrap {
        println!("embedded     {bootstrap}");
    }
    println!("dead letters {}", s.dead_letters);
    for note in &s.notes {
        println!("{}", shown(&format!("note         {note}")));
    }
    for alarm in &s.alarms {
        println!("ALARM        {alarm}");
    }
    Ok(())
}
