//! What a configuration would run, for `risiti check`.
//!
//! Promises: whoever reads it knows where records come in, where they go and
//! what is risky. Never: a secret.

use std::fmt::Write;

use crate::filter::covers;
use crate::model::{Anonymous, Bootstrap, Cluster, Config, Format, Listener, Mode};

impl Config {
    /// What is allowed but doubtful, each as one line; what is insecure begins
    /// with `INSECURE`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.mqtt.listen.ip().is_loopback() {
            warnings.push(format!(
                "INSECURE: MQTT on {} is plain TCP: anyone on the way can read and change it",
                self.mqtt.listen
            ));
        }
        for listener in self.listeners.iter().filter(|one| one.is_in_clear()) {
            warnings.push(format!(
                "INSECURE: listener {} on {} has no TLS: anyone on the way can read and change what is sent",
                listener.name, listener.listen
            ));
        }
        if self.is_exposed() && self.access.anonymous == Anonymous::All {
            warnings.push(
                "INSECURE: whoever reaches the MQTT port may connect without an identity and do everything: register the terminals (risiti terminal add) and set access.anonymous = \"none\""
                    .into(),
            );
        }
        for user in &self.access.users {
            let has_rule = |rule: &crate::Rule| rule.who == crate::Subject::User(user.name.clone());
            if !self.access.rules.iter().any(has_rule) {
                warnings.push(format!(
                    "user {} may connect and do nothing: no rule of [[access.rules]] is for it",
                    user.name
                ));
            }
        }
        if !self.admin.listen.ip().is_loopback() {
            let admin = &self.admin;
            let what = match (admin.read_token_sha256, admin.operate_token_sha256) {
                (Some(_), Some(_)) => "is plain HTTP: anyone on the way can read its tokens",
                (None, Some(_)) => "is plain HTTP, and lets anyone read",
                _ => "lets anyone who reaches it change things: set admin.operate_token_file",
            };
            warnings.push(format!("INSECURE: the admin port {} {what}", admin.listen));
        }
        for (name, cluster) in self.all_clusters() {
            cluster_warnings(&mut warnings, name, cluster);
        }
        for (index, route) in self.routes.iter().enumerate() {
            if let Some(first) = self.routes[..index]
                .iter()
                .find(|first| covers(&first.filter, &route.filter))
            {
                warnings.push(format!(
                    "route {} never matches: {} ({}) takes it all",
                    route.name, first.name, first.filter
                ));
            }
            if route.format == Format::Raw
                && covers(&self.terminals.records.replace("{id}", "+"), &route.filter)
            {
                warnings.push(format!("route {} takes terminals' records as raw: resends in a new session are not recognised", route.name));
            }
        }
        let (receipts, settlement) = (&self.receipts, &self.settlement);
        if settlement.root_file.is_some() && !settlement.seals_are_required() {
            warnings.push(
                "settlement.sealing is \"accepted\": what nobody has sealed is settled too; set \"required\" once every terminal has its keys"
                    .into(),
            );
        }
        if receipts.enabled
            && receipts.cluster == settlement.cluster
            && receipts.topic != settlement.receipts_topic
        {
            warnings.push(format!(
                "risiti settle would write receipts to {} (settlement.receipts_topic), and this gateway reads {} (receipts.topic)",
                settlement.receipts_topic, receipts.topic
            ));
        }
        warnings.extend(self.load_warnings.iter().cloned());
        warnings
    }

    /// What would run: listeners, routes, clusters, budget, and warnings.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = String::new();
        self.write_description(&mut out)
            .expect("writing to a String can't fail");
        out
    }

    fn write_description(&self, out: &mut String) -> std::fmt::Result {
        let limits = &self.mqtt.limits;
        writeln!(
            out,
            "gateway   {}, data in {}",
            self.gateway.id,
            self.gateway.data_dir.display()
        )?;
        writeln!(
            out,
            "mqtt      {} (plain TCP), {} connections, packets up to {}",
            self.mqtt.listen, limits.connections_max, limits.packet_bytes_max
        )?;
        for listener in &self.listeners {
            describe_listener(out, listener)?;
        }
        let access = &self.access;
        writeln!(
            out,
            "access    terminals of {}, {} users, {} rules; without an identity: {}",
            self.registry_path().display(),
            access.users.len(),
            access.rules.len(),
            match access.anonymous {
                Anonymous::All => "everything",
                Anonymous::Rules => "what rules say",
                Anonymous::None => "nothing",
            }
        )?;
        writeln!(
            out,
            "admin     {} (/healthz /readyz /metrics)",
            self.admin.listen
        )?;
        writeln!(
            out,
            "terminals {} up, {} down, {} retained",
            self.terminals.records, self.terminals.receipts, self.terminals.status
        )?;
        let store = &self.store;
        write!(
            out,
            "store     {} of disk, {} of it for receipts; PUBACK is withheld when it is spent or less than {} is free",
            store.budget_bytes, store.receipts_reserve_bytes, store.free_bytes_min
        )?;
        if store.key.is_some() {
            write!(out, "; values are encrypted")?;
        }
        match store.keep_forwarded_bytes.bytes() {
            0 => writeln!(out)?,
            _ => writeln!(
                out,
                "; {} of forwarded records are kept",
                store.keep_forwarded_bytes
            )?,
        }
        writeln!(out, "clusters")?;
        for (name, cluster) in self.all_clusters() {
            describe_cluster(out, name, cluster)?;
        }
        writeln!(out, "routes (the first that matches wins)")?;
        for route in &self.routes {
            writeln!(
                out,
                "  {}: {} -> {} on {}, key {}, format {}",
                route.name, route.filter, route.topic, route.cluster, route.key, route.format
            )?;
        }
        let receipts = &self.receipts;
        if receipts.enabled {
            writeln!(
                out,
                "receipts  {} -> {} -> {}, all on {}",
                receipts.topic,
                self.terminals.receipts,
                receipts.deliveries_topic,
                receipts.cluster
            )?;
        } else {
            writeln!(out, "receipts  off")?;
        }
        let settlement = &self.settlement;
        writeln!(
            out,
            "settle    {} -> {} on {}, with risiti settle, as {} in group {}",
            settlement.records_topic,
            settlement.receipts_topic,
            settlement.cluster,
            settlement.instance,
            settlement.group
        )?;
        match (&settlement.root_file, settlement.seals_are_required()) {
            (None, _) => writeln!(out, "seals     none: no settlement.root_file")?,
            (Some(root), true) => writeln!(out, "seals     required, by {}", root.display())?,
            (Some(root), false) => writeln!(out, "seals     accepted, by {}", root.display())?,
        }
        writeln!(out, "log       {} as {}", self.log.level, self.log.format)?;
        for warning in self.warnings() {
            writeln!(out, "WARNING   {warning}")?;
        }
        Ok(())
    }
}

fn describe_listener(out: &mut String, listener: &Listener) -> std::fmt::Result {
    write!(
        out,
        "listener  {} on {}, {}",
        listener.name, listener.listen, listener.transport
    )?;
    match &listener.tls {
        None => write!(out, " in clear")?,
        Some(tls) => {
            write!(out, " over TLS 1.3")?;
            if tls.client_ca_file.is_some() {
                write!(out, ", client certificates {}", tls.client_certificates)?;
            }
        }
    }
    if !listener.who.is_empty() {
        let who: Vec<_> = listener.who.iter().map(ToString::to_string).collect();
        write!(out, ", for {}", who.join(", "))?;
    }
    writeln!(out)
}

fn describe_cluster(out: &mut String, name: &str, cluster: &Cluster) -> std::fmt::Result {
    let address = cluster
        .bootstrap
        .servers()
        .unwrap_or_else(|| "embedded (in this process, in memory)".into());
    write!(
        out,
        "  {name}: {address}, {}, {}, {}",
        cluster.mode, cluster.security.protocol, cluster.compression
    )?;
    if let Some(username) = &cluster.security.username {
        write!(out, ", {} as {username:?}", cluster.security.mechanism)?;
    }
    if cluster.create_topics {
        write!(
            out,
            ", missing topics are created ({} partitions, {} replicas)",
            cluster.partitions, cluster.replication_factor
        )?;
    }
    writeln!(out)
}

fn cluster_warnings(warnings: &mut Vec<String>, name: &str, cluster: &Cluster) {
    let security = &cluster.security;
    match &cluster.bootstrap {
        Bootstrap::Embedded => {
            warnings.push(format!("cluster {name} is embedded: it forgets everything at a stop and has no real transactions; for trying out only"));
        }
        Bootstrap::Servers(servers) => {
            let far = servers.iter().any(|server| !is_loopback(server));
            if far && !security.protocol.has_tls() {
                warnings.push(format!(
                    "INSECURE: cluster {name} is reached without TLS (security.protocol = \"{}\")",
                    security.protocol
                ));
            }
            if cluster.create_topics && cluster.replication_factor == 1 && far {
                warnings.push(format!("cluster {name}: topics are created with one replica: the loss of one broker loses records"));
            }
        }
    }
    if cluster.mode == Mode::Idempotent {
        warnings.push(format!(
            "cluster {name} is idempotent only: a restart may repeat records; remove them by ce_id"
        ));
    }
    for (option, secure) in [
        ("enable.ssl.certificate.verification", "true"),
        ("ssl.endpoint.identification.algorithm", "https"),
    ] {
        if cluster
            .properties
            .get(option)
            .is_some_and(|value| value != secure)
        {
            warnings.push(format!(
                "INSECURE: cluster {name} does not check whom it talks to ({option})"
            ));
        }
    }
}

fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
