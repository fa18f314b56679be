//! librdkafka's mock cluster in the test's own process, which a gateway reaches
//! as it would any cluster: there at once, where a real broker takes seconds.
//!
//! It has no transactions, so nothing here shows that a record stands once
//! whatever is killed; it holds some 5 MiB a partition. It is never taken down:
//! should its port be taken meanwhile, librdkafka aborts the process.

use std::io;

use risiti_bridge::EmbeddedCluster;

use crate::upward::{RAW, RECORDS};

/// A cluster with the topics of [`config`].
///
/// # Errors
/// It could not start.
pub fn start() -> io::Result<EmbeddedCluster> {
    let cluster = EmbeddedCluster::start().map_err(io::Error::other)?;
    for (topic, partitions) in [
        ("risiti.positions", 1),
        (RECORDS, 3),
        (RAW, 3),
        ("risiti.receipts", 3),
        ("risiti.deliveries", 3),
    ] {
        cluster
            .create_topic(topic, partitions)
            .map_err(io::Error::other)?;
    }
    Ok(cluster)
}

/// [`crate::upward::config`] for it: it can't create topics on request.
#[must_use]
pub fn config(cluster: &EmbeddedCluster) -> String {
    crate::upward::config("gw-1", cluster.bootstrap())
        .replace("partitions = 3", "partitions = 3\ncreate_topics = false")
}
