//! Receipts on their way to their terminals: whose topic is whose, and what a
//! session still has to send.
//!
//! Promises: a receipts topic is read by the client whose identifier it names and
//! by nobody else, and written by nobody but the gateway (guarantee G9). Cores:
//! no clock, store or socket.

pub mod queue;
pub mod topics;

pub use queue::ReceiptsQueue;
pub use topics::ReceiptsTopics;
