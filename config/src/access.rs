//! Reads and checks `[access]`.
//!
//! Promises: a user's token stands in a file of its own or as its digest, a rule
//! names somebody who exists, and a configuration that gives rights to some says
//! what it gives to those who show no identity. Never: a token that is kept.

use sha2::{Digest, Sha256};

use crate::ByteSize;
use crate::choice::Choice;
use crate::document::{Node, Value};
use crate::kind::{Boolean, FilePath, Kind, Refusal, SizeOrOff, Text, Whole, Word};
use crate::limits::{ACCESS_RULES_MAX, ACCESS_USERS_MAX, USER_TOKEN_BYTES_MIN};
use crate::model::{Access, Anonymous, Config, Rates, Rule, Subject, TokenDigest, User};
use crate::names::{FILTER, NAME};
use crate::secret_file::read_secret;
use crate::section::{Section, nearest};

/// What a template may hold besides wildcards.
const ID: &str = "{id}";

/// The token of a user as its digest.
struct Digested;

impl Kind for Digested {
    type Value = TokenDigest;

    fn expected(&self) -> String {
        "the SHA-256 of a token, 64 hexadecimal digits".into()
    }

    fn remedy(&self) -> String {
        "write what `printf %s TOKEN | sha256sum` prints".into()
    }

    fn read(&self, node: &Node) -> Result<TokenDigest, Refusal> {
        node.text()
            .and_then(TokenDigest::from_hex)
            .ok_or_else(|| Refusal::new(&self.expected(), "another text", &self.remedy()))
    }

    fn write(&self, value: &TokenDigest) -> String {
        format!("\"{}\"", value.to_hex())
    }
}

/// `who` of a rule.
pub struct SubjectKind;

impl Kind for SubjectKind {
    type Value = Subject;

    fn expected(&self) -> String {
        "\"terminal\", \"user:NAME\" or \"anonymous\"".into()
    }

    fn remedy(&self) -> String {
        "write to whom the rule gives a right; NAME is that of one of [[access.users]]".into()
    }

    fn read(&self, node: &Node) -> Result<Subject, Refusal> {
        match node.text() {
            Some("terminal") => Ok(Subject::Terminal),
            Some("anonymous") => Ok(Subject::Anonymous),
            Some(text) => match text.strip_prefix("user:") {
                Some(name) if (NAME.rule)(name).is_ok() => Ok(Subject::User(name.to_owned())),
                _ => Err(self.refuse(node)),
            },
            None => Err(self.refuse(node)),
        }
    }

    fn write(&self, value: &Subject) -> String {
        format!("\"{value}\"")
    }
}

/// `may` of a rule.
struct Verbs;

impl Kind for Verbs {
    type Value = (bool, bool);

    fn expected(&self) -> String {
        "a list of \"publish\" and \"subscribe\"".into()
    }

    fn remedy(&self) -> String {
        "write may = [\"publish\"], [\"subscribe\"] or [\"publish\", \"subscribe\"]".into()
    }

    fn read(&self, node: &Node) -> Result<(bool, bool), Refusal> {
        let Value::List(items) = node.value() else {
            return Err(self.refuse(node));
        };
        let (mut publish, mut subscribe) = (false, false);
        for item in items {
            match item.text() {
                Some("publish") => publish = true,
                Some("subscribe") => subscribe = true,
                _ => return Err(self.refuse(node)),
            }
        }
        if publish || subscribe {
            Ok((publish, subscribe))
        } else {
            Err(self.refuse(node))
        }
    }

    fn write(&self, (publish, subscribe): &(bool, bool)) -> String {
        let mut words = Vec::new();
        if *publish {
            words.push("\"publish\"");
        }
        if *subscribe {
            words.push("\"subscribe\"");
        }
        format!("[{}]", words.join(", "))
    }
}

/// A topic filter in which `{id}` may stand as a level.
const RULE_FILTER: Text = Text {
    expected: "an MQTT topic filter, in which {id} may stand as a whole level",
    remedy: "write it like \"t/{id}/records\" or \"meters/#\"; {id} is the terminal's id or the user's name",
    rule: |text| {
        (FILTER.rule)(text)?;
        let braces = text
            .split('/')
            .any(|level| level != ID && level.contains(['{', '}']));
        if braces {
            return Err("{id} does not stand alone in its level".into());
        }
        if text.starts_with('$') {
            return Err("it begins with $, which MQTT keeps for brokers".into());
        }
        Ok(())
    },
};

/// Reads `[access]`.
pub fn read_access(section: &Section<'_>) -> Access {
    let default = Access::default();
    let access = Access {
        registry: section.read_optional(
            "registry",
            &FilePath {
                what: "the file of terminals and their tokens",
            },
        ),
        anonymous: section.read("anonymous", default.anonymous, &Word::new()),
        users: bounded(section, "users", ACCESS_USERS_MAX, read_user),
        rules: bounded(section, "rules", ACCESS_RULES_MAX, read_rule),
        rates: read_rates(section, default.rates),
    };
    section.finish();
    access
}

fn read_rates(section: &Section<'_>, default: Rates) -> Rates {
    let count =
        |key, default| section.read(key, default, &Whole::new(0_u32, 1_000_000, "a second"));
    let bytes = |key, default| {
        let size = SizeOrOff::new(ByteSize::kib(1), ByteSize::gib(16));
        section.read(key, default, &size)
    };
    Rates {
        connects_per_address_per_s_max: count(
            "connects_per_address_per_s_max",
            default.connects_per_address_per_s_max,
        ),
        connects_per_identity_per_s_max: count(
            "connects_per_identity_per_s_max",
            default.connects_per_identity_per_s_max,
        ),
        publishes_per_address_per_s_max: count(
            "publishes_per_address_per_s_max",
            default.publishes_per_address_per_s_max,
        ),
        publishes_per_identity_per_s_max: count(
            "publishes_per_identity_per_s_max",
            default.publishes_per_identity_per_s_max,
        ),
        bytes_per_address_per_s_max: bytes(
            "bytes_per_address_per_s_max",
            default.bytes_per_address_per_s_max,
        ),
        bytes_per_identity_per_s_max: bytes(
            "bytes_per_identity_per_s_max",
            default.bytes_per_identity_per_s_max,
        ),
    }
}

fn bounded<T>(
    section: &Section<'_>,
    key: &'static str,
    most: usize,
    read: impl Fn(&Section<'_>) -> T,
) -> Vec<T> {
    let sections = section.list(key);
    if sections.len() > most {
        section.refuse(
            key,
            Refusal::new(
                &format!("at most {most} of them"),
                &sections.len().to_string(),
                "use wildcards, so that one rule serves many topics",
            ),
        );
        return Vec::new();
    }
    sections.iter().map(read).collect()
}

/// The digest of the token in the file that a key names.
pub fn read_token(section: &Section<'_>, key: &'static str) -> Option<TokenDigest> {
    let token = read_secret(section, key, "the file that holds the token")?;
    if token.expose().len() < USER_TOKEN_BYTES_MIN {
        section.refuse(
            key,
            Refusal::new(
                &format!("a file with a token of {USER_TOKEN_BYTES_MIN} characters or more"),
                "a shorter one, which could be guessed",
                "make one with `openssl rand -hex 16`",
            ),
        );
    }
    let digest = Sha256::digest(token.expose().as_bytes());
    Some(TokenDigest(digest.into()))
}

fn read_user(section: &Section<'_>) -> User {
    section.read_refused(
        "token",
        "no token in this file",
        "put it alone into a file and write token_file = its path",
    );
    section.read_refused(
        "password",
        "no password in this file",
        "put it alone into a file and write token_file = its path",
    );
    let name = section.read_required("name", &NAME).unwrap_or_default();
    let digest = section.read_optional("token_sha256", &Digested);
    let of_token = read_token(section, "token_file");
    let certificate = section.read("certificate", false, &Boolean);
    let given = (section.has("token_sha256"), section.has("token_file"));
    let in_clear = section.has("token") || section.has("password");
    if given == (true, true) || given == (false, false) && !in_clear && !certificate {
        let (key, found) = if given.0 {
            ("token_sha256", "both")
        } else {
            ("token_file", "neither")
        };
        section.refuse(
            key,
            Refusal::new(
                "either token_file or token_sha256, or certificate = true",
                found,
                "write token_file = the path of a file that holds the token alone",
            ),
        );
    }
    section.finish();
    User {
        name,
        token_sha256: digest.or(of_token),
        certificate,
    }
}

fn read_rule(section: &Section<'_>) -> Rule {
    let (publish, subscribe) = section.read_required("may", &Verbs).unwrap_or_default();
    let rule = Rule {
        who: section
            .read_required("who", &SubjectKind)
            .unwrap_or(Subject::Anonymous),
        publish,
        subscribe,
        filter: section
            .read_required("filter", &RULE_FILTER)
            .unwrap_or_default(),
    };
    section.finish();
    rule
}

/// Checks what no key shows alone.
pub fn check_access(section: &Section<'_>, config: &Config) {
    let access = &config.access;
    let gives_rights = !access.users.is_empty() || !access.rules.is_empty();
    if gives_rights && !section.has("anonymous") {
        let words: Vec<_> = Anonymous::WORDS.iter().map(|(word, _)| *word).collect();
        section.refuse(
            "anonymous",
            Refusal::new(
                &format!(
                    "one of {}, since there are users or rules",
                    words.join(", ")
                ),
                "nothing",
                "add anonymous = \"none\", so that nobody connects without an identity",
            ),
        );
    }
    for (index, user) in section.list("users").iter().enumerate() {
        let Some(name) = access.users.get(index).map(|user| &user.name) else {
            continue;
        };
        if access.users[..index]
            .iter()
            .any(|other| other.name == *name)
        {
            user.refuse(
                "name",
                Refusal::new(
                    "a name that no other user has",
                    &format!("{name:?} again"),
                    "give each user a name of its own",
                ),
            );
        }
    }
    for (index, section) in section.list("rules").iter().enumerate() {
        if let Some(rule) = access.rules.get(index) {
            check_rule(section, rule, access);
        }
    }
}

/// Checks that whoever `who` names is known.
pub fn check_subject(section: &Section<'_>, who: &Subject, access: &Access) {
    let Subject::User(name) = who else { return };
    if access.users.iter().any(|user| user.name == *name) {
        return;
    }
    let known = access.users.iter().map(|user| user.name.as_str());
    let remedy = match nearest(name, known) {
        Some(near) => format!("did you mean \"user:{near}\"?"),
        None => format!("add [[access.users]] with name = \"{name}\""),
    };
    section.refuse(
        "who",
        Refusal::new(
            "the name of a user",
            &format!("{name:?}, which is none"),
            &remedy,
        ),
    );
}

fn check_rule(section: &Section<'_>, rule: &Rule, access: &Access) {
    check_subject(section, &rule.who, access);
    match &rule.who {
        Subject::Anonymous if section.has("who") && access.anonymous != Anonymous::Rules => {
            let found = format!(
                "\"anonymous\", with access.anonymous = \"{}\"",
                access.anonymous
            );
            section.refuse(
                "who",
                Refusal::new(
                    "somebody to whom rules apply",
                    &found,
                    "set access.anonymous = \"rules\", or remove the rule",
                ),
            );
        }
        Subject::Anonymous if rule.filter.split('/').any(|level| level == ID) => {
            section.refuse(
                "filter",
                Refusal::new(
                    "a filter without {id}",
                    "one with {id}, and whoever shows no identity has none",
                    "name the topics themselves, or use +",
                ),
            );
        }
        _ => {}
    }
}
