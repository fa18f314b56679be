//! What a reload can change, and what needs a restart.
//!
//! Promises: every key is on one of the two sides; a new one that is on neither
//! does not compile. Never: a secret.

use std::fmt::Debug;

use crate::model::{
    Access, Admin, Cluster, Config, DEFAULT_CLUSTER, Gateway, Listener, Log, Mqtt, MqttLimits,
    Rates, Receipts, Route, Settlement, Store, Terminals, Trace,
};

/// What differs between two configurations: each line is a key and, where it is
/// short, its old and new value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReloadDiff {
    /// What a reload takes over at once.
    pub applied: Vec<String>,
    /// What stays as it is until a restart.
    pub needs_restart: Vec<String>,
}

impl ReloadDiff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.needs_restart.is_empty()
    }
}

/// Compares fields by name. The pattern has no `..`: a new field must be
/// put on one side.
macro_rules! compare {
    ($into:expr, $table:literal, $type:ident, $old:expr, $new:expr, { $($field:ident),+ $(,)? }) => {{
        let $type { $($field: _),+ } = $old;
        $(changed($into, concat!($table, ".", stringify!($field)), &$old.$field, &$new.$field);)+
    }};
}

fn changed<T: PartialEq + Debug>(into: &mut Vec<String>, key: &str, old: &T, new: &T) {
    if old != new {
        into.push(format!("{key}: {old:?} -> {new:?}"));
    }
}

impl Config {
    /// What differs in `new`, seen from the configuration that runs.
    #[must_use]
    pub fn reloadable_diff(&self, new: &Self) -> ReloadDiff {
        let mut diff = ReloadDiff::default();
        let Self {
            gateway,
            mqtt,
            listeners,
            access,
            terminals,
            store,
            kafka,
            clusters,
            routes,
            receipts,
            settlement,
            trace,
            admin,
            log,
            load_warnings: _,
        } = self;
        let restart = &mut diff.needs_restart;
        compare!(restart, "gateway", Gateway, gateway, new.gateway, { id, data_dir });
        let Mqtt {
            listen,
            insecure,
            limits,
        } = mqtt;
        changed(restart, "mqtt.listen", listen, &new.mqtt.listen);
        changed(restart, "mqtt.insecure", insecure, &new.mqtt.insecure);
        compare!(&mut diff.applied, "mqtt", MqttLimits, limits, new.mqtt.limits, {
            packet_bytes_max, connections_max, receive_maximum, topic_alias_maximum, connect_timeout_s, write_timeout_s,
            keepalive_s_max, session_expiry_s_max, sessions_max, subscriptions_per_session_max,
            queued_messages_per_session_max, queued_bytes_per_session_max, retained_messages_max, retained_bytes_max,
            ungated_bytes_max,
        });
        // Long, and rarely one word: which ones differ is told by their names.
        if *listeners != new.listeners {
            let names = |listeners: &[Listener]| {
                let names: Vec<_> = listeners.iter().map(|one| one.name.as_str()).collect();
                names.join(", ")
            };
            let (old, new) = (names(listeners), names(&new.listeners));
            restart.push(format!("listeners: {old} -> {new}"));
        }
        let Access {
            registry,
            anonymous,
            users,
            rules,
            rates,
        } = access;
        let applied = &mut diff.applied;
        changed(applied, "access.registry", registry, &new.access.registry);
        changed(
            applied,
            "access.anonymous",
            anonymous,
            &new.access.anonymous,
        );
        // Their digests are not shown.
        if *users != new.access.users {
            applied.push("access.users: changed".into());
        }
        if *rules != new.access.rules {
            applied.push("access.rules: changed".into());
        }
        compare!(applied, "access", Rates, rates, new.access.rates, {
            connects_per_address_per_s_max, connects_per_identity_per_s_max, publishes_per_address_per_s_max,
            publishes_per_identity_per_s_max, bytes_per_address_per_s_max, bytes_per_identity_per_s_max,
        });
        compare!(restart, "terminals", Terminals, terminals, new.terminals, { records, receipts, status });
        compare!(restart, "store", Store, store, new.store, {
            budget_bytes, receipts_reserve_bytes, generation_bytes, ballast_bytes, free_bytes_min, keep_forwarded_bytes, key,
        });
        compare_clusters(restart, DEFAULT_CLUSTER, Some(kafka), Some(&new.kafka));
        let mut names: Vec<_> = clusters.keys().chain(new.clusters.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            compare_clusters(restart, name, clusters.get(name), new.clusters.get(name));
        }
        compare!(restart, "settlement", Settlement, settlement, new.settlement, {
            instance, group, cluster, records_topic, receipts_topic, transactions_topic, rejected_topic,
            changelog_topic, batch_records_max, window, transaction_timeout_ms, session_timeout_ms,
            payment_max_minor, day_max_minor, utc_offset_minutes, accounts_file, root_file, sealing,
            receipt_expiry_s, listen,
        });
        compare!(restart, "trace", Trace, trace, new.trace, { bytes_max });
        compare!(restart, "receipts", Receipts, receipts, new.receipts, {
            enabled, cluster, topic, deliveries_topic, unknown_receipts_max, receipts_per_terminal_max,
        });
        compare!(restart, "admin", Admin, admin, new.admin, {
            listen, insecure, read_token_sha256, operate_token_sha256, hosts,
        });
        let Log { level, format } = log;
        changed(restart, "log.format", format, &new.log.format);
        changed(&mut diff.applied, "log.level", level, &new.log.level);
        self.compare_routes(routes, new, &mut diff);
        diff
    }

    /// Routes are taken over whole, unless one goes to a cluster that does not
    /// run yet: then none is.
    fn compare_routes(&self, old: &[Route], new: &Self, diff: &mut ReloadDiff) {
        if old == new.routes {
            return;
        }
        let unknown: Vec<_> = new
            .routes
            .iter()
            .filter(|route| self.cluster(&route.cluster).is_none())
            .collect();
        if let Some(route) = unknown.first() {
            diff.needs_restart.push(format!(
                "routes: {} goes to the new cluster {}",
                route.name, route.cluster
            ));
            return;
        }
        let names = |routes: &[Route]| {
            routes
                .iter()
                .map(|route| route.name.clone())
                .collect::<Vec<_>>()
                .join(", ")
        };
        diff.applied
            .push(format!("routes: {} -> {}", names(old), names(&new.routes)));
    }
}

/// A cluster's options are not shown: `properties` is free text.
fn compare_clusters(
    into: &mut Vec<String>,
    name: &str,
    old: Option<&Cluster>,
    new: Option<&Cluster>,
) {
    match (old, new) {
        (Some(old), Some(new)) if old != new => into.push(format!("cluster {name}: changed")),
        (None, Some(_)) => into.push(format!("cluster {name}: added")),
        (Some(_), None) => into.push(format!("cluster {name}: removed")),
        _ => {}
    }
}
