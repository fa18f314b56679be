//! Topic names, topic filters, and who subscribed to what.
//!
//! MQTT 5.0, section 4.7 (and 4.8.2 for shared subscriptions); the same rules
//! hold for v3.1.1, which has no shared ones: there a well-formed
//! `$share/group/filter` is taken as one too, since that is what its users mean.

mod filter;
mod tree;

pub use filter::{
    FilterError, RetainHandling, Subscription, TopicFilter, filter_matches, validate_filter,
    validate_topic,
};
pub use tree::{FilterTree, FilterTreeError};
