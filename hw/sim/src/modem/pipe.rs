//! A serial line between a terminal and its simulated modem.
//!
//! Promises: a read or write that is dropped takes nothing with it. Never: an
//! endless buffer; what nobody reads is lost, as on a real line.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use embedded_io_async::{ErrorType, Read, Write};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::SERIAL_BUFFER_BYTES;

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    bytes: Mutex<VecDeque<u8>>,
    came: Notify,
}

impl Lane {
    fn push(&self, bytes: &[u8]) {
        let mut queue = self.bytes.lock();
        let room = SERIAL_BUFFER_BYTES.saturating_sub(queue.len());
        queue.extend(bytes.iter().take(room));
        drop(queue);
        self.came.notify_one();
    }

    async fn take(&self, into: &mut [u8]) -> usize {
        loop {
            let count = self.take_now(into);
            if count > 0 || into.is_empty() {
                return count;
            }
            self.came.notified().await;
        }
    }

    fn take_now(&self, into: &mut [u8]) -> usize {
        let mut queue = self.bytes.lock();
        let count = into.len().min(queue.len());
        for (place, byte) in into.iter_mut().zip(queue.drain(..count)) {
            *place = byte;
        }
        count
    }
}

/// One end of a serial line. Clones are the same end.
#[derive(Debug, Clone)]
pub struct Serial {
    inward: Arc<Lane>,
    outward: Arc<Lane>,
}

impl Serial {
    /// Both ends of a line.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (up, down) = (Arc::new(Lane::default()), Arc::new(Lane::default()));
        let terminal = Self {
            inward: Arc::clone(&down),
            outward: Arc::clone(&up),
        };
        let modem = Self {
            inward: up,
            outward: down,
        };
        (terminal, modem)
    }

    /// Forgets what has come and was not read: what a processor that starts anew
    /// has missed.
    pub fn discard(&self) {
        self.inward.bytes.lock().clear();
    }

    /// Sends bytes to the other end.
    pub fn push(&self, bytes: &[u8]) {
        self.outward.push(bytes);
    }

    /// Waits for bytes from the other end; how many have come.
    pub async fn take(&self, into: &mut [u8]) -> usize {
        self.inward.take(into).await
    }
}

impl ErrorType for Serial {
    type Error = Infallible;
}

impl Read for Serial {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        Ok(self.take(into).await)
    }
}

impl Write for Serial {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.push(bytes);
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
