//! Subscriptions, and who subscribed to what.
//!
//! Names and filters are judged and matched by [`risiti_topics`]; shared
//! subscriptions are MQTT 5.0's, section 4.8.2. v3.1.1 has none: there a
//! well-formed `$share/group/filter` is taken as one too, since that is what its
//! users mean.

mod filter;
mod tree;

pub use filter::{
    FilterError, RetainHandling, Subscription, TopicFilter, validate_filter, validate_topic,
};
pub use risiti_topics::filter_matches;
pub use tree::{FilterTree, FilterTreeError};
