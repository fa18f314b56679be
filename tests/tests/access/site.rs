//! A site with identities: three terminals, one of them revoked, and four users.

use std::net::SocketAddr;
use std::sync::Arc;

use risiti_config::{Access, Anonymous, Config, Rates, Rule, Subject, TokenDigest, User};
use risiti_gateway::access::{file, token};
use risiti_gateway::clock::ManualClock;
use risiti_gateway::gateway::Switches;
use risiti_tests::wire_client::{Connect, Wire};

use crate::house::House;

/// Terminals; the last is revoked.
pub const TERMINALS: [&str; 3] = ["7", "8", "9"];

/// Users: with rights on topics of their own, without any, and with all.
pub const USERS: [&str; 3] = ["ops", "idle", "auditor"];

/// The token of a terminal or user.
pub fn token_of(name: &str) -> String {
    format!("token-of-{name}-0123456789")
}

fn digest_of(name: &str) -> TokenDigest {
    token::digest(token_of(name).as_bytes())
}

/// The rules beyond what every terminal may: to whom, publish, subscribe, filter.
const RULES: [(&str, bool, bool, &str); 8] = [
    ("terminal", false, true, "news/{id}/#"),
    ("ops", true, true, "cmd/{id}/+"),
    ("ops", false, true, "t/+/status"),
    ("ops", true, false, "t/7/#"),
    ("auditor", true, true, "#"),
    ("", true, false, "meters/+/reading"),
    ("", false, true, "public/#"),
    ("", true, true, "public/talk"),
];

/// Sets the site up: identities, rules, and the registry's file unless it is there.
pub fn identities(config: &mut Config) {
    config.access = Access {
        anonymous: Anonymous::Rules,
        users: USERS
            .iter()
            .map(|name| User {
                name: (*name).into(),
                token_sha256: Some(digest_of(name)),
                certificate: false,
            })
            .collect(),
        rules: RULES
            .iter()
            .map(|(who, publish, subscribe, filter)| Rule {
                who: match *who {
                    "terminal" => Subject::Terminal,
                    "" => Subject::Anonymous,
                    name => Subject::User(name.into()),
                },
                publish: *publish,
                subscribe: *subscribe,
                filter: (*filter).into(),
            })
            .collect(),
        // Whoever is refused comes again at once, to be refused in the next way.
        rates: Rates {
            connects_per_identity_per_s_max: 0,
            ..Rates::default()
        },
        ..Access::default()
    };
    let path = config.registry_path();
    std::fs::create_dir_all(&config.gateway.data_dir).unwrap();
    if path.exists() {
        return;
    }
    file::edit(&path, |registry| {
        for id in TERMINALS {
            registry.add(id, digest_of(id), false)?;
        }
        registry.revoke("9").map(|_| ())
    })
    .unwrap();
}

/// A gateway of that site.
pub fn site() -> House {
    House::with(identities)
}

/// One with a check left out, or none, whose clock stands.
pub fn site_with(switch: fn(&mut Switches)) -> House {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    House::of(identities, switch, Some(clock))
}

/// As that terminal, user, or (empty) nobody.
pub fn identified(mut connect: Connect, name: &str) -> Connect {
    if name.is_empty() {
        return connect;
    }
    if TERMINALS.contains(&name) {
        connect.client_id = name.into();
    }
    connect.login(Some(name), token_of(name))
}

/// A clean session of that identity.
pub fn client(addr: SocketAddr, version: u8, name: &str) -> Wire {
    let id = format!("client-of-{name}-{version}");
    let connect = identified(Connect::clean(version, &id), name);
    Wire::accepted(addr, &connect).unwrap()
}

/// One that outlives its connection.
pub fn lasting(version: u8, name: &str) -> Connect {
    let id = format!("client-of-{name}-{version}");
    identified(Connect::persistent(version, &id), name)
}
