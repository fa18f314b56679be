//! The names of one run among others on the same cluster, and its configuration.

use std::path::Path;

/// A run's own topics.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Records, as terminals sent them.
    pub records: String,
    /// Receipts.
    pub receipts: String,
    /// Finalised transactions.
    pub transactions: String,
    /// What was not settled, with the reason.
    pub rejected: String,
    /// Receipts that reached their terminals.
    pub deliveries: String,
    /// What settlement remembers.
    pub changelog: String,
    /// How far journals are forwarded.
    pub positions: String,
}

impl Topics {
    /// Of this run.
    pub fn of(run: &str) -> Self {
        let name = |topic: &str| format!("risiti.{topic}.demo-{run}");
        Self {
            records: name("records"),
            receipts: name("receipts"),
            transactions: name("transactions"),
            rejected: name("rejected"),
            deliveries: name("deliveries"),
            changelog: name("settled"),
            positions: "risiti.positions".into(),
        }
    }

    /// All with `partitions`; positions have one.
    pub fn partitioned(&self) -> [&str; 6] {
        [
            &self.records,
            &self.receipts,
            &self.transactions,
            &self.rejected,
            &self.deliveries,
            &self.changelog,
        ]
    }

    /// One file for the gateway and settlement. `embedded`: for a Kafka that
    /// does not know a member of a group that comes back: it waits until the
    /// one before it has timed out.
    pub fn configuration(
        &self,
        run: &str,
        dir: &Path,
        bootstrap: &str,
        partitions: u16,
        embedded: bool,
    ) -> String {
        let session_timeout = if embedded {
            "session_timeout_ms = 4000\n"
        } else {
            ""
        };
        format!(
            "[gateway]\nid = \"demo-{run}\"\ndata_dir = {data:?}\n\n\
             [mqtt]\nlisten = \"127.0.0.1:0\"\n\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\n\
             [store]\nbudget_bytes = \"1GiB\"\n\n\
             [kafka]\nbootstrap = \"{bootstrap}\"\npartitions = {partitions}\n\n\
             [receipts]\ntopic = \"{receipts}\"\ndeliveries_topic = \"{deliveries}\"\n\n\
             [settlement]\ninstance = \"demo-{run}\"\ngroup = \"risiti.settlement.demo-{run}\"\n\
             records_topic = \"{records}\"\nreceipts_topic = \"{receipts}\"\n\
             transactions_topic = \"{transactions}\"\nrejected_topic = \"{rejected}\"\n\
             changelog_topic = \"{changelog}\"\n{session_timeout}root_file = {root:?}\n\n\
             [[routes]]\nname = \"records\"\nfilter = \"t/+/records\"\ntopic = \"{records}\"\n",
            data = dir.join("data"),
            root = dir.join("site.root"),
            records = self.records,
            receipts = self.receipts,
            transactions = self.transactions,
            rejected = self.rejected,
            deliveries = self.deliveries,
            changelog = self.changelog,
        )
    }
}
