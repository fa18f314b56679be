//! What a failed call to Kafka asks for, and how long to pause before.
//!
//! Promises: the worst that an error may mean decides. Never: a clock or a sleep.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::limits;

/// What an error of a transaction call asks for, in the order in which
/// librdkafka wants them looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// This producer is finished: make a new one.
    Anew,
    /// Abort the transaction and send again.
    Abort,
    /// Call the same function again.
    Again,
}

impl Remedy {
    /// What the three marks that librdkafka puts on an error ask for.
    #[must_use]
    pub fn of(is_fatal: bool, requires_abort: bool, is_retriable: bool) -> Self {
        if is_fatal {
            Self::Anew
        } else if requires_abort {
            // Before retriable: both can be true.
            Self::Abort
        } else if is_retriable {
            Self::Again
        } else {
            Self::Anew
        }
    }
}

/// A call that failed, in the words that decide what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it asks for.
    pub remedy: Remedy,
    /// The code, if it has one; of a finished producer the one that finished it.
    pub code: Option<RDKafkaErrorCode>,
    /// For people.
    pub text: String,
}

impl Failure {
    /// From its parts.
    #[must_use]
    pub fn new(remedy: Remedy, code: Option<RDKafkaErrorCode>, text: &str) -> Self {
        Self {
            remedy,
            code,
            text: text.into(),
        }
    }

    /// An error, with what the client says of itself if it is finished.
    #[must_use]
    pub fn of(error: &KafkaError, fatal: Option<(RDKafkaErrorCode, String)>) -> Self {
        let remedy = remedy(error);
        match fatal {
            Some((code, reason)) => Self {
                remedy,
                code: Some(code),
                text: format!("{error}: {reason}"),
            },
            None => Self::new(remedy, error.rdkafka_error_code(), &error.to_string()),
        }
    }

    /// Whether it says that another producer has taken over.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.code.is_some_and(is_fenced)
    }
}

/// Maps an error to its remedy.
#[must_use]
pub fn remedy(error: &KafkaError) -> Remedy {
    match error {
        KafkaError::Transaction(error) => Remedy::of(
            error.is_fatal(),
            error.txn_requires_abort(),
            error.is_retriable(),
        ),
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => Remedy::Again,
        _ => Remedy::Anew,
    }
}

/// Whether an error says that another producer has taken over.
#[must_use]
pub fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

/// Pauses that grow up to [`limits::BACKOFF_MAX`].
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Begins with [`limits::BACKOFF_MIN`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            next: limits::BACKOFF_MIN,
        }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(limits::BACKOFF_MAX);
        pause
    }

    /// Something went well.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_begin_anew() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.pause(), limits::BACKOFF_MIN);
        for _ in 0..100 {
            assert!(backoff.pause() <= limits::BACKOFF_MAX);
        }
        assert_eq!(backoff.pause(), limits::BACKOFF_MAX);
        backoff.reset();
        assert_eq!(backoff.pause(), limits::BACKOFF_MIN);
    }
}
