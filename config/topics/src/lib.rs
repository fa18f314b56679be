//! MQTT topic names and topic filters: MQTT 5.0, section 4.7. The rules of 3.1.1
//! are the same.
//!
//! Promises: routes of the configuration, records in the bridge and subscriptions
//! in the gateway are judged and matched by the same few functions, whatever text
//! they are given. Never: memory, shared subscriptions (section 4.8.2), a bound on
//! the number of levels; the last two are its callers'.
//!
//! | module | clauses |
//! | --- | --- |
//! | [`syntax`] | MQTT-4.7.0-1, 4.7.1-1, 4.7.1-2, 4.7.3-1 to 4.7.3-3, 3.3.2-2 |
//! | [`matching`] | sections 4.7.1.2 and 4.7.1.3, MQTT-4.7.2-1, 4.7.3-4 |

pub mod limits;
pub mod matching;
pub mod syntax;

pub use matching::{ID, covers, covers_for, filter_matches, levels_certain};
pub use syntax::{TopicError, validate_filter, validate_text, validate_topic};
