//! Who may connect, and what each may do.
//!
//! Promises: a client's identity is proved by a token and bound to its client
//! identifier, so nobody takes a terminal's session; what an identity may publish
//! and subscribe to is decided by one set of rules (G9); a change of the registry
//! or of the rules is in force at once, for what is connected too; a registry that
//! can't be read changes nothing. Never: a token in clear anywhere but in the hand
//! of who was given it.
//!
//! | part | what |
//! | --- | --- |
//! | [`token`] | makes tokens, tells digests apart in constant time |
//! | [`registry`] | the terminals and their tokens: a core, and its file format |
//! | [`mod@file`] | the registry on disk |
//! | [`policy`] | who a client is: a core |
//! | [`rules`] | what each may do: a core |
//! | [`attempts`] | failed logins: a core |
//! | [`rates`] | how much each may do in a second: a core |

pub mod attempts;
pub mod file;
pub mod policy;
pub mod rates;
pub mod registry;
pub mod rules;
pub mod token;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytestring::ByteString;
use parking_lot::{Mutex, RwLock};
use risiti_config::{Config, Rates, Terminals, TokenDigest};
use risiti_mqtt::ReasonCode;

use attempts::{Attempts, network};
pub use file::{FileError, Stamp};
pub use policy::{Claim, Login, LoginRefusal, Policy, Proof, UsedTokens};
use rates::Rate;
pub use registry::{Registry, RegistryError, Terminal, Which};
pub use rules::{Hole, Rules, Verb, Who};
pub use token::Token;

/// Refusals since the start.
#[derive(Debug, Default)]
pub struct AccessMetrics {
    /// CONNECTs, for who they said they were.
    pub logins: AtomicU64,
    /// Those of them that came too soon after a failure.
    pub too_soon: AtomicU64,
    /// PUBLISHes and wills.
    pub publishes: AtomicU64,
    /// Subscriptions.
    pub subscriptions: AtomicU64,
    /// Connections closed, subscriptions ended and deliveries dropped because what
    /// had allowed them did not any more.
    pub withdrawn: AtomicU64,
    /// Connections, and CONNECTs of known identities, that came too fast.
    pub connects_too_fast: AtomicU64,
    /// PUBLISHes after which a client was left unread for a while.
    pub held: AtomicU64,
}

/// Access, as a running gateway has it.
#[derive(Debug, Default)]
pub struct Access {
    policy: RwLock<Arc<Policy>>,
    source: Mutex<Source>,
    used: Mutex<UsedTokens>,
    attempts: Mutex<Attempts>,
    connects: Mutex<Measures>,
    publishes: Mutex<Measures>,
    bytes: Mutex<Measures>,
    /// What is wrong with the registry's file.
    trouble: Mutex<Option<String>>,
    hole: Option<Hole>,
    /// Counters for the metrics page.
    pub metrics: AccessMetrics,
}

/// What of one kind each address and each identity has done.
#[derive(Debug, Default)]
struct Measures {
    addresses: Rate<IpAddr>,
    identities: Rate<Who>,
}

/// Where the policy comes from.
#[derive(Debug, Default)]
struct Source {
    access: risiti_config::Access,
    terminals: Terminals,
    path: Option<PathBuf>,
    /// The file as it was last looked at.
    seen: Option<Stamp>,
    registry: Arc<Registry>,
}

impl Source {
    fn new(config: &Config) -> Self {
        Self {
            access: config.access.clone(),
            terminals: config.terminals.clone(),
            path: Some(config.registry_path()),
            seen: None,
            registry: Arc::default(),
        }
    }

    fn policy(&self, hole: Option<Hole>) -> Arc<Policy> {
        let registry = self.registry.clone();
        Arc::new(Policy::new(&self.access, &self.terminals, registry, hole))
    }

    /// Takes over what stands in the file. An absent one has no terminals; but one
    /// that was there is not gone on purpose, for that would end them all.
    fn read(&mut self) -> Result<(), String> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        match file::load(path) {
            Ok(Some((registry, stamp))) => {
                self.seen = Some(stamp);
                self.registry = Arc::new(registry);
                Ok(())
            }
            Ok(None) if self.registry.is_empty() => {
                self.seen = None;
                Ok(())
            }
            Ok(None) => {
                self.seen = None;
                Err(format!(
                    "registry {} is gone; put it back (`risiti terminal import`)",
                    path.display()
                ))
            }
            Err(error) => {
                self.seen = Stamp::now(path).ok().flatten();
                Err(error.to_string())
            }
        }
    }
}

impl Access {
    /// Everybody may do everything, and there are no terminals.
    #[must_use]
    pub fn open() -> Self {
        let access = risiti_config::Access::default();
        let registry = Arc::default();
        let policy = Policy::new(&access, &Terminals::default(), registry, None);
        Self {
            policy: RwLock::new(Arc::new(policy)),
            ..Self::default()
        }
    }

    /// As the configuration says. Reads the registry.
    ///
    /// # Errors
    /// The registry can't be read: nobody would know its terminals.
    pub fn start(config: &Config, hole: Option<Hole>) -> Result<Self, FileError> {
        let mut source = Source::new(config);
        if let Some(path) = &source.path
            && let Some((registry, stamp)) = file::load(path)?
        {
            source.registry = Arc::new(registry);
            source.seen = Some(stamp);
        }
        Ok(Self {
            policy: RwLock::new(source.policy(hole)),
            source: Mutex::new(source),
            hole,
            ..Self::default()
        })
    }

    /// What is in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().clone()
    }

    fn rates(&self) -> Rates {
        self.policy.read().rates()
    }

    /// Whether somebody may do that.
    #[must_use]
    pub fn allows(&self, who: &Who, verb: Verb, filter: &str) -> bool {
        self.policy.read().rules().allows(who, verb, filter)
    }

    /// Who that is.
    ///
    /// # Errors
    /// What CONNACK is to say.
    pub fn login(
        &self,
        claim: Claim<'_>,
        address: IpAddr,
        now_ms: u64,
    ) -> Result<Login, (ReasonCode, &'static str)> {
        const TOO_SOON: (ReasonCode, &str) = (
            ReasonCode::ConnectionRateExceeded,
            "too many failed logins: wait a minute",
        );
        const TOO_FAST: (ReasonCode, &str) = (
            ReasonCode::ConnectionRateExceeded,
            "this identity connects too often: wait some seconds",
        );
        let login = self.policy().login(claim, &self.used.lock());
        let name = claim.name();
        let mut attempts = self.attempts.lock();
        let must_wait = attempts.must_wait(address, name, now_ms);
        match login {
            // A person's token may be weak: that it is the right one is not told to
            // who tries many. A terminal's can't be guessed, nor a certificate, and
            // another who shares the address must not keep them out.
            Ok(Login {
                who: Who::User(_),
                proof: Proof::Token(_),
                ..
            }) if must_wait => {
                self.metrics.too_soon.fetch_add(1, Ordering::Relaxed);
                Err(TOO_SOON)
            }
            Ok(login) if login.who == Who::Anonymous => Ok(login),
            Ok(login) => {
                attempts.succeeded(address, name);
                let per_s = u64::from(self.rates().connects_per_identity_per_s_max);
                let identities = &mut self.connects.lock().identities;
                if identities.take_one(&login.who, per_s, now_ms) {
                    return Ok(login);
                }
                let metrics = &self.metrics;
                metrics.connects_too_fast.fetch_add(1, Ordering::Relaxed);
                Err(TOO_FAST)
            }
            Err(refusal) => {
                self.metrics.logins.fetch_add(1, Ordering::Relaxed);
                if must_wait {
                    self.metrics.too_soon.fetch_add(1, Ordering::Relaxed);
                    return Err(TOO_SOON);
                }
                if refusal != LoginRefusal::Nobody {
                    attempts.failed(address, name, now_ms);
                    tracing::warn!(%address, name = %shown(name), "login refused: {}", refusal.told().1);
                }
                Err(refusal.told())
            }
        }
    }

    /// Whether an address may open one more connection now.
    pub fn takes_connection(&self, address: IpAddr, now_ms: u64) -> bool {
        let per_s = u64::from(self.rates().connects_per_address_per_s_max);
        let addresses = &mut self.connects.lock().addresses;
        let taken = addresses.take_one(&network(address), per_s, now_ms);
        if !taken {
            let metrics = &self.metrics;
            metrics.connects_too_fast.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// A PUBLISH was taken: for how many milliseconds no more is to be read of its
    /// client. Who shows no identity is measured by its address only.
    pub fn published(&self, who: &Who, address: IpAddr, bytes: usize, now_ms: u64) -> u64 {
        let rates = self.rates();
        let is_known = *who != Who::Anonymous;
        let mut wait_ms = 0;
        for (measures, amount, per_address, per_identity) in [
            (
                &self.publishes,
                1,
                u64::from(rates.publishes_per_address_per_s_max),
                u64::from(rates.publishes_per_identity_per_s_max),
            ),
            (
                &self.bytes,
                bytes as u64,
                rates.bytes_per_address_per_s_max.bytes(),
                rates.bytes_per_identity_per_s_max.bytes(),
            ),
        ] {
            if per_address > 0 {
                let addresses = &mut measures.lock().addresses;
                let wait = addresses.take(&network(address), amount, per_address, now_ms);
                wait_ms = wait_ms.max(wait);
            }
            if per_identity > 0 && is_known {
                let identities = &mut measures.lock().identities;
                wait_ms = wait_ms.max(identities.take(who, amount, per_identity, now_ms));
            }
        }
        if wait_ms > 0 {
            self.metrics.held.fetch_add(1, Ordering::Relaxed);
        }
        wait_ms
    }

    /// Whether a client that was let in would still be.
    #[must_use]
    pub fn admits(&self, who: &Who, client_id: &str, proof: &Proof) -> bool {
        let policy = self.policy();
        policy.admits(who, client_id, proof, &self.used.lock())
    }

    /// A terminal has used its next token, and that is on disk.
    pub fn used(&self, id: ByteString, token: TokenDigest) {
        self.used.lock().insert(id, token);
    }

    /// Forgets next tokens that are none any more; returns whose.
    pub fn forget_used(&self) -> Vec<ByteString> {
        let policy = self.policy();
        let mut gone = Vec::new();
        self.used.lock().retain(|id, token| {
            let terminal = policy.registry().get(id);
            let is_next = terminal.is_some_and(|t| t.next.as_ref() == Some(token));
            if !is_next {
                gone.push(id.clone());
            }
            is_next
        });
        gone
    }

    /// Looks at the registry's file; `always`: even if it seems unchanged. True: it
    /// has changed, and is in force. Reads files: for a blocking thread.
    pub fn refresh(&self, always: bool) -> bool {
        let mut source = self.source.lock();
        let Some(path) = &source.path else {
            return false;
        };
        let is_same = match Stamp::now(path) {
            Ok(now) => now == source.seen,
            Err(_) => false,
        };
        // What was wrong with it may be put right without a change of its content.
        if is_same && !always && self.trouble.lock().is_none() {
            return false;
        }
        let before = source.registry.clone();
        let read = source.read();
        self.told(read.err());
        let changed = *before != *source.registry;
        if changed {
            *self.policy.write() = source.policy(self.hole);
            tracing::info!(
                terminals = source.registry.len(),
                "the registry of terminals was read"
            );
        }
        changed
    }

    /// Puts another configuration in force. Reads files: for a blocking thread.
    pub fn reconfigure(&self, config: &Config) {
        let mut source = self.source.lock();
        let mut new = Source::new(config);
        if new.path == source.path {
            new.seen = source.seen;
            new.registry = source.registry.clone();
        }
        let read = new.read();
        if read.is_err() {
            // The terminals that are known stay.
            new.registry = source.registry.clone();
        }
        self.told(read.err());
        *self.policy.write() = new.policy(self.hole);
        *source = new;
    }

    fn told(&self, trouble: Option<String>) {
        let mut known = self.trouble.lock();
        if let Some(text) = &trouble
            && *known != trouble
        {
            tracing::error!("{text}; the terminals that are known stay in force");
        }
        *known = trouble;
    }

    /// What a person has to look at.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        let text = trouble.as_ref()?;
        Some(format!(
            "{text}; the terminals that are known stay in force"
        ))
    }
}

/// A name out of a CONNECT, as it may stand in a log.
fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 64;
    name.chars()
        .take(CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect()
}
