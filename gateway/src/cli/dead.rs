//! `risiti dead`: records that Kafka refused for good.

use clap::Subcommand;

use super::client::Client;
use super::{AdminPort, Failure};
use crate::admin::DeadLetterView;

#[derive(Subcommand)]
pub enum Command {
    /// Lists them, a line each.
    List {
        #[command(flatten)]
        admin: AdminPort,
    },
    /// Shows one, with its payload.
    Show {
        /// As `list` names it.
        id: String,
        #[command(flatten)]
        admin: AdminPort,
    },
    /// Gives records back to the journal, to be forwarded again.
    Requeue {
        /// As `list` names them; `all` for every one.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        admin: AdminPort,
    },
    /// Deletes records for good.
    Drop {
        /// As `list` names them.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        admin: AdminPort,
    },
}

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { admin } => {
            let letters = all(&Client::new(&admin)?)?;
            for l in &letters {
                println!(
                    "{}  {}  client {}  topic {}  {} bytes  {}",
                    l.id,
                    risiti_bridge::headers::rfc_3339(l.refused_ms),
                    l.client_id,
                    l.mqtt_topic,
                    l.payload_bytes,
                    l.reason
                );
            }
            println!("{} dead letters", letters.len());
        }
        Command::Show { id, admin } => {
            let letter: DeadLetterView = Client::new(&admin)?.get(&format!("/v1/dead/{id}"))?;
            println!("{}", serde_json::to_string_pretty(&letter)?);
        }
        Command::Requeue { ids, admin } => {
            let client = Client::new(&admin)?;
            let ids = if ids == ["all"] {
                all(&client)?.into_iter().map(|l| l.id).collect()
            } else {
                ids
            };
            for id in ids {
                client.post(&format!("/v1/dead/{id}/requeue"))?;
                println!("requeued {id}");
            }
        }
        Command::Drop { ids, admin } => {
            let client = Client::new(&admin)?;
            for id in ids {
                client.delete(&format!("/v1/dead/{id}"))?;
                println!("dropped {id}");
            }
        }
    }
    Ok(())
}

fn all(client: &Client) -> Result<Vec<DeadLetterView>, Failure> {
    let mut letters: Vec<DeadLetterView> = Vec::new();
    loop {
        let after = letters
            .last()
            .map(|l| format!("?after={}", l.id))
            .unwrap_or_default();
        let page: Vec<DeadLetterView> = client.get(&format!("/v1/dead{after}"))?;
        if page.is_empty() {
            return Ok(letters);
        }
        letters.extend(page);
    }
}
