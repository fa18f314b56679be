//! Who a client is, by what it shows at CONNECT.
//!
//! Promises: the client identifier of a registered terminal is taken by that
//! terminal only, with a token that is valid; a token is compared in constant time.
//! Whoever shows something else is somebody else, or nobody, never a terminal.
//! Never: a file, a clock, or a count of attempts.

use std::collections::HashMap;
use std::sync::Arc;

use bytestring::ByteString;
use risiti_config::{Access, Anonymous, Rates, Terminals, TokenDigest};
use risiti_mqtt::ReasonCode;

use super::registry::{Registry, Which};
use super::rules::{Hole, Rules, Who};
use super::token;

/// Everything that decides, as it is in force at one time.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    registry: Arc<Registry>,
    users: HashMap<String, User>,
    anonymous: Anonymous,
    rules: Rules,
    rates: Rates,
}

/// How a user shows who it is.
#[derive(Debug, Clone)]
struct User {
    token: Option<TokenDigest>,
    certificate: bool,
}

/// By what a client was let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proof {
    /// The token of this digest.
    Token(TokenDigest),
    /// A certificate with its name.
    Certificate,
    /// It showed nothing that counts.
    #[default]
    None,
}

/// What a client shows.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// Its client identifier; may be empty.
    pub client_id: &'a str,
    /// Its user name.
    pub username: Option<&'a str>,
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// The name in its certificate, which is one that is trusted.
    pub certificate: Option<&'a str>,
}

impl<'a> Claim<'a> {
    /// As whom it comes: by its certificate, by its user name, or else by its client
    /// identifier.
    #[must_use]
    pub fn name(&self) -> &'a str {
        let shown = self.certificate.or(self.username);
        shown.unwrap_or(self.client_id)
    }
}

/// A client that is known, or need not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Who it is.
    pub who: Who,
    /// By what.
    pub proof: Proof,
    /// It uses its terminal's next token for the first time here.
    pub is_first_use: bool,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginRefusal {
    /// What it shows is of nobody.
    Wrong,
    /// Its terminal was revoked.
    Revoked,
    /// It shows nothing, and that is not enough.
    Nobody,
    /// That client identifier is another's.
    ForeignClientId,
    /// The listener is for others.
    Elsewhere,
    /// Its certificate is not taken any more.
    Certificate,
}

impl LoginRefusal {
    /// What CONNACK says. That a client identifier is a terminal's is no secret: ids
    /// stand on the terminals.
    #[must_use]
    pub fn told(self) -> (ReasonCode, &'static str) {
        match self {
            Self::Wrong => (
                ReasonCode::BadUserNameOrPassword,
                "no such identity, or not its token",
            ),
            Self::Revoked => (ReasonCode::NotAuthorized, "this terminal was revoked"),
            Self::Nobody => (
                ReasonCode::NotAuthorized,
                "nobody connects without an identity: user name and token are needed",
            ),
            Self::ForeignClientId => (
                ReasonCode::ClientIdentifierNotValid,
                "this client identifier belongs to another identity",
            ),
            Self::Elsewhere => (
                ReasonCode::NotAuthorized,
                "this identity may not connect here: use another port of the gateway",
            ),
            Self::Certificate => (
                ReasonCode::NotAuthorized,
                "this certificate was revoked, or its time is over",
            ),
        }
    }
}

/// The next tokens that were used here, by terminal.
pub type UsedTokens = HashMap<ByteString, TokenDigest>;

impl User {
    fn of(user: &risiti_config::User) -> Self {
        Self {
            token: user.token_sha256,
            certificate: user.certificate,
        }
    }

    fn has(&self, shown: &TokenDigest) -> bool {
        self.token
            .as_ref()
            .is_some_and(|token| token::same(token, shown).into())
    }
}

impl Policy {
    /// From the configuration and the registry.
    #[must_use]
    pub fn new(
        access: &Access,
        terminals: &Terminals,
        registry: Arc<Registry>,
        hole: Option<Hole>,
    ) -> Self {
        let users = access.users.iter();
        Self {
            registry,
            users: users.map(|u| (u.name.clone(), User::of(u))).collect(),
            anonymous: access.anonymous,
            rules: Rules::new(access, terminals, hole),
            rates: access.rates,
        }
    }

    /// What each may do.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How much each may do.
    #[must_use]
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// The terminals.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What becomes of clients that show no identity.
    #[must_use]
    pub fn anonymous(&self) -> Anonymous {
        self.anonymous
    }

    /// Whether there is such an identity: its session is kept for it.
    #[must_use]
    pub fn knows(&self, who: &Who) -> bool {
        match who {
            Who::Terminal(id) => self.registry.get(id).is_some(),
            Who::User(name) => self.users.contains_key(&**name),
            Who::Anonymous => true,
        }
    }

    /// Who that is.
    ///
    /// # Errors
    /// Nobody who may connect.
    pub fn login(&self, claim: Claim<'_>, used: &UsedTokens) -> Result<Login, LoginRefusal> {
        let name = claim.name();
        // A certificate says whose it is: its holder comes as nobody else.
        if let Some(shown) = claim.certificate
            && claim.username.is_some_and(|username| username != shown)
        {
            return Err(LoginRefusal::Wrong);
        }
        if claim.certificate.is_some()
            && claim.password.is_none()
            && let Some(login) = self.login_by_certificate(claim.client_id, name)
        {
            return login;
        }
        let shown = token::digest(claim.password.unwrap_or_default());
        let as_terminal = self.terminal(name, &shown, used);
        let as_user = self.users.get(name).map(|user| user.has(&shown));
        if claim.password.is_some() {
            if let Some(Ok(is_first_use)) = as_terminal {
                self.own(claim.client_id, name)?;
                return Ok(Login {
                    who: Who::Terminal(name.into()),
                    proof: Proof::Token(shown),
                    is_first_use,
                });
            }
            // A user name only: a client identifier names no user.
            let is_named = claim.username.is_some() || claim.certificate.is_some();
            if is_named && as_user == Some(true) {
                self.foreign(claim.client_id)?;
                return Ok(Login {
                    who: Who::User(name.into()),
                    proof: Proof::Token(shown),
                    is_first_use: false,
                });
            }
        }
        if let Some(Err(refusal)) = as_terminal {
            return Err(refusal);
        }
        let is_named = claim.username.is_some() || claim.certificate.is_some();
        let shows_something = is_named || claim.password.is_some();
        match self.anonymous {
            _ if is_named && as_user.is_some() => Err(LoginRefusal::Wrong),
            // As ever without authentication, whatever it shows is not looked at.
            Anonymous::All => self.nobody(claim.client_id),
            Anonymous::Rules | Anonymous::None if shows_something => Err(LoginRefusal::Wrong),
            Anonymous::Rules => self.nobody(claim.client_id),
            Anonymous::None => Err(LoginRefusal::Nobody),
        }
    }

    /// Of a client with a certificate and no password; none: its name is nobody's who
    /// comes by certificate.
    fn login_by_certificate(
        &self,
        client_id: &str,
        name: &str,
    ) -> Option<Result<Login, LoginRefusal>> {
        let (who, bound) = if let Some(terminal) = self.registry.get(name) {
            let bound = match terminal.revoked {
                true => Err(LoginRefusal::Revoked),
                false => self.own(client_id, name),
            };
            (Who::Terminal(name.into()), bound)
        } else if self.users.get(name)?.certificate {
            (Who::User(name.into()), self.foreign(client_id))
        } else {
            return None;
        };
        Some(bound.map(|()| Login {
            who,
            proof: Proof::Certificate,
            is_first_use: false,
        }))
    }

    /// A terminal's client identifier is its name.
    fn own(&self, client_id: &str, name: &str) -> Result<(), LoginRefusal> {
        if client_id != name && self.rules.hole() != Some(Hole::ClientId) {
            return Err(LoginRefusal::ForeignClientId);
        }
        Ok(())
    }

    /// Whether that is a terminal's valid token, and used for the first time; none
    /// if there is no such terminal.
    fn terminal(
        &self,
        id: &str,
        shown: &TokenDigest,
        used: &UsedTokens,
    ) -> Option<Result<bool, LoginRefusal>> {
        let terminal = self.registry.get(id)?;
        let which = self.registry.which(id, shown);
        let next_was_used = terminal.next.is_some() && used.get(id) == terminal.next.as_ref();
        let is_open = self.rules.hole() == Some(Hole::Login);
        Some(match which {
            _ if is_open => Ok(false),
            None => Err(LoginRefusal::Wrong),
            Some(Which::Current) if next_was_used => Err(LoginRefusal::Wrong),
            Some(_) if terminal.revoked => Err(LoginRefusal::Revoked),
            Some(Which::Current) => Ok(false),
            Some(Which::Next) => Ok(!next_was_used),
        })
    }

    fn foreign(&self, client_id: &str) -> Result<(), LoginRefusal> {
        match self.registry.get(client_id) {
            Some(_) if self.rules.hole() != Some(Hole::ClientId) => {
                Err(LoginRefusal::ForeignClientId)
            }
            _ => Ok(()),
        }
    }

    fn nobody(&self, client_id: &str) -> Result<Login, LoginRefusal> {
        self.foreign(client_id)?;
        Ok(Login {
            who: Who::Anonymous,
            proof: Proof::None,
            is_first_use: false,
        })
    }

    /// Whether a client that was let in would be let in again.
    #[must_use]
    pub fn admits(&self, who: &Who, client_id: &str, proof: &Proof, used: &UsedTokens) -> bool {
        match (who, proof) {
            (Who::Terminal(id), Proof::Token(token)) => {
                matches!(self.terminal(id, token, used), Some(Ok(_)))
            }
            (Who::User(name), Proof::Token(token)) => {
                let has_token = self.users.get(&**name).is_some_and(|user| user.has(token));
                has_token && self.foreign(client_id).is_ok()
            }
            (Who::Terminal(name) | Who::User(name), Proof::Certificate) => self
                .login_by_certificate(client_id, name)
                .is_some_and(|login| login.is_ok_and(|login| login.who == *who)),
            (Who::Anonymous, _) => {
                self.anonymous != Anonymous::None && self.foreign(client_id).is_ok()
            }
            (_, Proof::None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use risiti_config::User;

    use super::*;

    fn digest(token: &str) -> TokenDigest {
        token::digest(token.as_bytes())
    }

    /// Terminal `t1` with token `one`, `t2` rotating from `two` to `deux`, `t3`
    /// revoked with token `three`; user `ops` with token `secret`.
    fn policy(anonymous: Anonymous) -> Policy {
        let mut registry = Registry::default();
        for (id, token) in [("t1", "one"), ("t2", "two"), ("t3", "three")] {
            registry.add(id, digest(token), false).unwrap();
        }
        registry.rotate("t2", digest("deux"), false).unwrap();
        registry.revoke("t3").unwrap();
        let access = Access {
            anonymous,
            users: vec![User {
                name: "ops".into(),
                token_sha256: Some(digest("secret")),
                certificate: false,
            }],
            ..Access::default()
        };
        Policy::new(&access, &Terminals::default(), Arc::new(registry), None)
    }

    fn login(
        policy: &Policy,
        client_id: &str,
        username: Option<&str>,
        password: Option<&str>,
    ) -> Result<Who, LoginRefusal> {
        let claim = Claim {
            client_id,
            username,
            password: password.map(str::as_bytes),
            certificate: None,
        };
        let login = policy.login(claim, &UsedTokens::default())?;
        assert!(
            policy.admits(&login.who, client_id, &login.proof, &UsedTokens::default()),
            "who is let in stays"
        );
        Ok(login.who)
    }

    const MODES: [Anonymous; 3] = [Anonymous::All, Anonymous::Rules, Anonymous::None];

    #[test]
    fn a_terminal_comes_by_its_token_and_under_its_id_only() {
        for mode in MODES {
            let p = policy(mode);
            let t1 = || Ok(Who::Terminal("t1".into()));
            assert_eq!(login(&p, "t1", None, Some("one")), t1());
            assert_eq!(login(&p, "t1", Some("t1"), Some("one")), t1());
            let foreign = Err(LoginRefusal::ForeignClientId);
            assert_eq!(login(&p, "x", Some("t1"), Some("one")), foreign);
            assert_eq!(login(&p, "", Some("t1"), Some("one")), foreign);
            assert_eq!(login(&p, "t2", Some("t1"), Some("one")), foreign);
            assert_eq!(login(&p, "t1", None, Some("two")), Err(LoginRefusal::Wrong));
            assert_eq!(login(&p, "t1", None, Some("")), Err(LoginRefusal::Wrong));
            assert_eq!(
                login(&p, "t3", None, Some("three")),
                Err(LoginRefusal::Revoked)
            );
            assert_eq!(login(&p, "t3", None, Some("x")), Err(LoginRefusal::Wrong));
        }
    }

    #[test]
    fn nobody_else_takes_a_terminals_client_identifier() {
        for mode in MODES {
            let p = policy(mode);
            for id in ["t1", "t2", "t3"] {
                for (username, password) in [
                    (None, None),
                    (None, Some("x")),
                    (Some("x"), None),
                    (Some("x"), Some("x")),
                    (Some("ops"), Some("secret")),
                    (Some("ops"), Some("x")),
                    (Some(id), None),
                    (Some(""), Some("")),
                ] {
                    let let_in = login(&p, id, username, password);
                    assert!(let_in.is_err(), "{mode} {id} {username:?} {let_in:?}");
                }
            }
        }
    }

    #[test]
    fn a_user_comes_by_name_and_token_under_any_other_client_identifier() {
        for mode in MODES {
            let p = policy(mode);
            let ops = Ok(Who::User("ops".into()));
            assert_eq!(login(&p, "x", Some("ops"), Some("secret")), ops);
            assert_eq!(login(&p, "", Some("ops"), Some("secret")), ops);
            for password in [None, Some("x"), Some("")] {
                let wrong = Err(LoginRefusal::Wrong);
                assert_eq!(login(&p, "x", Some("ops"), password), wrong);
            }
        }
        // A client identifier names no user.
        let refused = login(&policy(Anonymous::None), "ops", None, Some("secret"));
        assert_eq!(refused, Err(LoginRefusal::Wrong));
    }

    #[test]
    fn who_shows_nothing_is_nobody_and_let_in_where_that_is_said() {
        for (mode, plain, with_login) in [
            (Anonymous::All, Ok(Who::Anonymous), Ok(Who::Anonymous)),
            (
                Anonymous::Rules,
                Ok(Who::Anonymous),
                Err(LoginRefusal::Wrong),
            ),
            (
                Anonymous::None,
                Err(LoginRefusal::Nobody),
                Err(LoginRefusal::Wrong),
            ),
        ] {
            let p = policy(mode);
            assert_eq!(login(&p, "x", None, None), plain, "{mode}");
            assert_eq!(login(&p, "x", Some("x"), Some("x")), with_login, "{mode}");
            assert_eq!(login(&p, "x", None, Some("x")), with_login, "{mode}");
        }
    }

    #[test]
    fn the_first_use_of_the_next_token_ends_the_old_one() {
        let p = policy(Anonymous::None);
        let mut used = UsedTokens::default();
        let claim = |password: &'static str| Claim {
            client_id: "t2",
            username: None,
            password: Some(password.as_bytes()),
            certificate: None,
        };
        let old = p.login(claim("two"), &used).unwrap();
        assert!(!old.is_first_use);
        let new = p.login(claim("deux"), &used).unwrap();
        assert!(new.is_first_use);
        used.insert("t2".into(), digest("deux"));
        assert!(!p.login(claim("deux"), &used).unwrap().is_first_use);
        assert_eq!(p.login(claim("two"), &used), Err(LoginRefusal::Wrong));
        assert!(!p.admits(&old.who, "t2", &old.proof, &used));
        assert!(p.admits(&new.who, "t2", &new.proof, &used));
        // What was used of an earlier change ends nothing of this one.
        used.insert("t2".into(), digest("earlier"));
        assert!(p.login(claim("two"), &used).is_ok());
    }

    #[test]
    fn who_was_let_in_goes_when_what_let_it_in_does() {
        let none = UsedTokens::default();
        let before = policy(Anonymous::All);
        let mut registry = before.registry().clone();
        registry.revoke("t1").unwrap();
        registry.add("x", digest("x"), false).unwrap();
        let access = Access::default();
        let after = Policy::new(&access, &Terminals::default(), Arc::new(registry), None);
        let t1 = Who::Terminal("t1".into());
        let ops = Who::User("ops".into());
        for (who, client_id, token, stays) in [
            (&t1, "t1", Some("one"), false),
            (&ops, "y", Some("secret"), false),
            (&Who::Anonymous, "x", None, false),
            (&Who::Anonymous, "y", None, true),
        ] {
            let proof = token.map_or(Proof::None, |token| Proof::Token(digest(token)));
            assert!(before.admits(who, client_id, &proof, &none), "{who}");
            assert_eq!(after.admits(who, client_id, &proof, &none), stays, "{who}");
        }
        assert!(!policy(Anonymous::None).admits(&Who::Anonymous, "y", &Proof::None, &none));
        assert!(
            after.knows(&t1) && !after.knows(&ops) && !after.knows(&Who::Terminal("t9".into()))
        );
    }

    #[test]
    fn control_with_a_check_left_out_a_session_is_taken() {
        for hole in [Hole::Login, Hole::ClientId] {
            let whole = policy(Anonymous::None);
            let access = Access {
                anonymous: Anonymous::None,
                ..Access::default()
            };
            let registry = Arc::new(whole.registry().clone());
            let p = Policy::new(&access, &Terminals::default(), registry, Some(hole));
            let taken = [
                login(&p, "t1", None, Some("guessed")),
                login(&p, "t2", Some("t1"), Some("one")),
            ];
            assert!(taken.iter().any(Result::is_ok), "{hole:?} {taken:?}");
        }
    }
}
