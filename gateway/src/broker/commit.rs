//! Waiting for the store without holding a thread.

use parking_lot::Mutex;
use risiti_store::StoreError;
use risiti_store::state::{Batch, CommitSink};
use std::sync::Arc;
use tokio::sync::oneshot;

use super::Broker;

struct Once(Mutex<Option<oneshot::Sender<Result<(), StoreError>>>>);

impl CommitSink for Once {
    fn committed(&self, _token: u64, result: Result<(), StoreError>) {
        if let Some(sender) = self.0.lock().take() {
            // Nobody waits any more: the connection has gone.
            let _ = sender.send(result);
        }
    }
}

impl Broker {
    /// Submits a batch; the future resolves once it is durable.
    pub(super) fn commit(
        &self,
        batch: Batch,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        let once = Arc::new(Once(Mutex::new(Some(sender))));
        let submitted = self.state.submit(batch, Some((once, 0)));
        async move {
            submitted?;
            receiver.await.unwrap_or(Err(StoreError::Closing))
        }
    }

    /// Submits a batch that nobody waits for. A refusal leaves rows that the
    /// next start, or the next delivery, puts right.
    pub(super) fn submit(&self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.state.submit(batch, None) {
            tracing::warn!(%error, "a change of session state was not written");
        }
    }
}
