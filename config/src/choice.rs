//! The words of the file for a choice among a few.
//!
//! Promises: one table maps each choice to its word, for reading and for
//! showing. Never: two words for one choice.

use std::fmt;

use crate::model::{
    Anonymous, ClientCertificates, Compression, Format, LogFormat, Mechanism, Mode, Protocol,
    Sealing, Transport,
};

/// A choice among a few, each with one word in the file.
pub trait Choice: Copy + PartialEq + Sized + 'static {
    /// Every choice and its word, in the order in which errors name them.
    const WORDS: &'static [(&'static str, Self)];

    /// The choice that a word stands for.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, choice)| *choice)
    }
}

macro_rules! choices {
    ($($type:ident { $($word:literal => $variant:ident),+ $(,)? })+) => {$(
        impl Choice for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }
        impl $type {
            /// The word in the file; for a Kafka option also librdkafka's.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

choices! {
    Transport { "tcp" => Tcp, "websocket" => Websocket }
    ClientCertificates { "required" => Required, "optional" => Optional }
    Anonymous { "all" => All, "rules" => Rules, "none" => None }
    Mode { "exactly_once" => ExactlyOnce, "idempotent" => Idempotent }
    Compression { "none" => None, "gzip" => Gzip, "snappy" => Snappy, "lz4" => Lz4, "zstd" => Zstd }
    Protocol { "plaintext" => Plaintext, "ssl" => Ssl, "sasl_plaintext" => SaslPlaintext, "sasl_ssl" => SaslSsl }
    Mechanism { "SCRAM-SHA-512" => ScramSha512, "SCRAM-SHA-256" => ScramSha256, "PLAIN" => Plain }
    Format { "risiti" => Risiti, "raw" => Raw }
    Sealing { "required" => Required, "accepted" => Accepted }
    LogFormat { "text" => Text, "json" => Json }
}
