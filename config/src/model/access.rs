//! `[access]`: who may connect, and what each may publish and subscribe to.
//!
//! Promises: without the table everybody may connect and do everything, as on a
//! broker without authentication; what a terminal may do needs no rule. Never: a
//! token in clear.

use std::path::{Path, PathBuf};

use super::Config;
use crate::ByteSize;
use crate::secret::from_hex;

/// `[access]`: identities of MQTT clients and their rights. All of it can change
/// by reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// The file of the terminals and their tokens; none:
    /// [`Access::registry_path`] says where.
    pub registry: Option<PathBuf>,
    /// What becomes of clients that show no identity.
    pub anonymous: Anonymous,
    /// `[[access.users]]`: services and operators, by name.
    pub users: Vec<User>,
    /// `[[access.rules]]`: what is allowed beyond what every terminal may.
    pub rules: Vec<Rule>,
    /// How much each may do; in the file they are keys of `[access]` itself.
    pub rates: Rates,
}

/// The rates of `[access]`: on an average of ten seconds; 0 = no bound. Whoever does
/// more waits, and nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Connections that an address opens in a second.
    pub connects_per_address_per_s_max: u32,
    /// Times that a terminal or user connects in a second.
    pub connects_per_identity_per_s_max: u32,
    /// PUBLISHes from an address in a second.
    pub publishes_per_address_per_s_max: u32,
    /// PUBLISHes of a terminal or user in a second, over all its connections.
    pub publishes_per_identity_per_s_max: u32,
    /// Bytes of PUBLISHes from an address in a second.
    pub bytes_per_address_per_s_max: ByteSize,
    /// Bytes of PUBLISHes of a terminal or user in a second.
    pub bytes_per_identity_per_s_max: ByteSize,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            // A load balancer, or an operator's NAT, is one address for 10,000
            // terminals, which all come again at once after an outage.
            connects_per_address_per_s_max: 2_000,
            // A terminal connects some times an hour.
            connects_per_identity_per_s_max: 10,
            publishes_per_address_per_s_max: 0,
            // A terminal brings home a week's records in one go.
            publishes_per_identity_per_s_max: 1_000,
            bytes_per_address_per_s_max: ByteSize::ZERO,
            bytes_per_identity_per_s_max: ByteSize::mib(4),
        }
    }
}

/// The registry's name in the data directory.
const REGISTRY_NAME: &str = "terminals.toml";

impl Access {
    /// Where the registry is, in a gateway with this data directory.
    #[must_use]
    pub fn registry_path(&self, data_dir: &Path) -> PathBuf {
        self.registry
            .clone()
            .unwrap_or_else(|| data_dir.join(REGISTRY_NAME))
    }
}

impl Config {
    /// Where the registry of terminals is.
    #[must_use]
    pub fn registry_path(&self) -> PathBuf {
        self.access.registry_path(&self.gateway.data_dir)
    }
}

/// `access.anonymous`: what becomes of clients that show no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anonymous {
    /// `all`: they may connect and do everything; only the client identifiers of
    /// registered terminals are not theirs.
    #[default]
    All,
    /// `rules`: they may connect, and do what rules for `anonymous` say.
    Rules,
    /// `none`: they may not connect.
    None,
}

/// One of `[[access.users]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its user name at CONNECT: `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// SHA-256 of its token, which is what its password has to be; none: it comes by
    /// certificate only.
    pub token_sha256: Option<TokenDigest>,
    /// Whether a client certificate with its name is enough.
    pub certificate: bool,
}

/// SHA-256 of a token. Not shown: it would let a weak token be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenDigest(pub [u8; 32]);

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl TokenDigest {
    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(|digest| Self(*digest))
    }

    /// As 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// One of `[[access.rules]]`: it allows; nothing forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// To whom.
    pub who: Subject,
    /// Whether it allows to publish.
    pub publish: bool,
    /// Whether it allows to subscribe.
    pub subscribe: bool,
    /// The topics: an MQTT topic filter, in which the level `{id}` stands for the
    /// terminal's id or the user's name.
    pub filter: String,
}

/// `who` of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `terminal`: each terminal of the registry.
    Terminal,
    /// `user:NAME`.
    User(String),
    /// `anonymous`: clients without an identity.
    Anonymous,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Terminal => f.write_str("terminal"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}
