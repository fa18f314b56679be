//! What a configuration would run, and what a reload of it can change.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use risiti_config::{Bootstrap, Config};

fn load(source: &str) -> Config {
    Config::from_toml_str("f", source, std::iter::empty())
        .unwrap_or_else(|errors| panic!("{errors}"))
}

const ADDRESS: &str = "[kafka]\nbootstrap = \"127.0.0.1:9092\"\n";

#[test]
fn a_description_names_what_runs() {
    let described = Config::new(Bootstrap::Servers(vec!["k.example:9092".into()])).describe();
    for part in [
        "gw-1",
        "127.0.0.1:1883",
        "127.0.0.1:9180",
        "8GiB",
        "k.example:9092",
        "exactly_once",
        "t/+/records -> risiti.records on default",
    ] {
        assert!(described.contains(part), "{part} in\n{described}");
    }
}

#[test]
fn whatever_is_insecure_is_described_in_capitals() {
    for (source, parts) in [
        (
            "[mqtt]\nlisten = \"0.0.0.0:1883\"\ninsecure = true\n",
            "INSECURE: MQTT on 0.0.0.0:1883 is plain TCP",
        ),
        (
            "[[listeners]]\nname = \"out\"\nlisten = \"0.0.0.0:9001\"\ntransport = \"websocket\"\ninsecure = true\n",
            "INSECURE: listener out on 0.0.0.0:9001 has no TLS",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:1\"\ninsecure = true\n",
            "INSECURE: the admin port",
        ),
        (
            "[clusters.far]\nbootstrap = \"k.example:9092\"\n",
            "INSECURE: cluster far is reached without TLS",
        ),
        (
            "[kafka.properties]\n\"enable.ssl.certificate.verification\" = false\n",
            "INSECURE: cluster default does not check",
        ),
    ] {
        let described = load(&format!("{ADDRESS}{source}")).describe();
        assert!(
            described.contains(&format!("WARNING   {parts}")),
            "{described}"
        );
    }
    assert_eq!(load(ADDRESS).warnings(), Vec::<String>::new());
}

#[test]
fn what_is_doubtful_is_described() {
    let route = |name: &str, filter: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\nfilter = \"{filter}\"\ntopic = \"x\"\nkey = \"topic\"\nformat = \"raw\"\n"
        )
    };
    let config = load(&format!(
        "{ADDRESS}{}{}",
        route("all", "#"),
        route("rest", "a/b")
    ));
    assert!(
        config
            .warnings()
            .iter()
            .any(|warning| warning.contains("route rest never matches"))
    );
    let config = load(&format!("{ADDRESS}{}", route("records", "t/+/records")));
    assert!(
        config
            .warnings()
            .iter()
            .any(|warning| warning.contains("as raw"))
    );
    let config = load(&format!("{ADDRESS}[receipts]\ntopic = \"x\"\n"));
    assert!(
        config
            .warnings()
            .iter()
            .any(|warning| warning.contains("settlement.receipts_topic"))
    );
    assert!(
        Config::new(Bootstrap::Embedded)
            .warnings()
            .iter()
            .any(|warning| warning.contains("forgets everything"))
    );
}

#[test]
fn a_reload_changes_level_routes_and_limits_only() {
    let old = load(ADDRESS);
    assert!(old.reloadable_diff(&old.clone()).is_empty());
    let new = load(
        r#"
        [gateway]
        id = "gw-2"
        data_dir = "/tmp/x"
        [mqtt]
        listen = "127.0.0.1:1884"
        connections_max = 7
        [[listeners]]
        name = "browsers"
        listen = "127.0.0.1:9001"
        transport = "websocket"
        [terminals]
        status = "s/{id}"
        [store]
        budget_bytes = "1GiB"
        [kafka]
        bootstrap = "127.0.0.1:9093"
        [clusters.west]
        bootstrap = "west:9092"
        [[routes]]
        name = "other"
        filter = "t/+/records"
        topic = "other"
        [admin]
        listen = "127.0.0.1:9181"
        [log]
        level = "debug"
        format = "json"
        "#,
    );
    let diff = old.reloadable_diff(&new);
    assert_eq!(
        diff.applied,
        [
            "mqtt.connections_max: 12000 -> 7",
            "log.level: \"info\" -> \"debug\"",
            "routes: records -> other"
        ]
    );
    let keys: Vec<_> = diff
        .needs_restart
        .iter()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "gateway.id",
            "gateway.data_dir",
            "mqtt.listen",
            "listeners",
            "terminals.status",
            "store.budget_bytes",
            "cluster default",
            "cluster west",
            "admin.listen",
            "log.format"
        ]
    );
}

#[test]
fn a_route_to_a_new_cluster_waits_for_the_restart() {
    let old = load(ADDRESS);
    let new = load(&format!(
        "{ADDRESS}[clusters.west]\nbootstrap = \"w:1\"\n[[routes]]\nname = \"a\"\nfilter = \"t/+/records\"\ntopic = \"a\"\ncluster = \"west\"\n"
    ));
    let diff = old.reloadable_diff(&new);
    assert!(diff.applied.is_empty());
    assert_eq!(
        diff.needs_restart,
        [
            "cluster west: added",
            "routes: a goes to the new cluster west"
        ]
    );
}

#[test]
fn a_file_that_is_not_there_or_not_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Config::load(&dir.path().join("none.toml"), std::iter::empty())
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("none.toml: expected a TOML file that can be read")
            && missing.contains("remedy:"),
        "{missing}"
    );
    let large = dir.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; 2 << 20]).unwrap();
    let large = Config::load(&large, std::iter::empty())
        .unwrap_err()
        .to_string();
    assert!(large.contains("longer than"), "{large}");
}
