//! Who may use the admin port, and what is noted of it.
//!
//! Promises: with tokens in the configuration nobody reads or changes anything
//! without one, and who may only read changes nothing; no web page elsewhere can use
//! a browser on this machine to get here (names that point here are not taken, nor
//! requests from another origin); each change is noted before it is made. Never: a
//! token in an answer, a log or the notes.
//!
//! | request | without tokens | `read_token_file` | `operate_token_file` |
//! | --- | --- | --- | --- |
//! | `/healthz`, `/readyz` | yes | yes | yes |
//! | `GET` of the rest | yes | with either token | yes, if there is no read token |
//! | all else | yes | with the operate token, if there is one, else no | with it |
//!
//! A token comes as `Authorization: Bearer TOKEN`, or, because browsers ask for it
//! so, as the password of `Authorization: Basic`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use risiti_config::{Admin, TokenDigest};

use crate::access::token;
use crate::audit::Audit;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Nobody,
    Read,
    Operate,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// Stands before the admin port.
#[derive(Debug)]
pub struct Guard {
    read: Option<TokenDigest>,
    operate: Option<TokenDigest>,
    hosts: Vec<String>,
    /// Takes whatever name it is called by.
    any_host: bool,
    audit: Arc<Audit>,
}

impl Guard {
    /// As the configuration says.
    pub fn new(admin: &Admin, audit: Arc<Audit>) -> Self {
        Self {
            read: admin.read_token_sha256,
            operate: admin.operate_token_sha256,
            hosts: admin.hosts.clone(),
            any_host: false,
            audit,
        }
    }

    /// Everybody may do everything by any name, and nothing is noted.
    pub fn open() -> Self {
        Self {
            any_host: true,
            ..Self::new(&Admin::default(), Arc::new(Audit::disabled()))
        }
    }

    /// Which role a request shows.
    fn role(&self, headers: &HeaderMap) -> Role {
        if self.read.is_none() && self.operate.is_none() {
            return Role::Operate;
        }
        let shown = shown_token(headers);
        let digest = token::digest(shown.as_deref().unwrap_or_default().as_bytes());
        let is = |kept: &Option<TokenDigest>| -> bool {
            kept.is_some_and(|kept| token::same(&kept, &digest).into())
        };
        let (may_operate, may_read) = (is(&self.operate), is(&self.read));
        match shown {
            Some(_) if may_operate => Role::Operate,
            Some(_) if may_read => Role::Read,
            // Reading is open to all unless it has a token of its own.
            _ if self.read.is_none() => Role::Read,
            _ => Role::Nobody,
        }
    }

    /// Why a request is refused, if it is.
    fn refusal(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        if !self.any_host && !self.is_our_host(headers) {
            return Some(
                (
                    StatusCode::MISDIRECTED_REQUEST,
                    "this name is not the gateway's: use its address, or add the name to admin.hosts\n",
                )
                    .into_response(),
            );
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if !reads && !is_same_origin(headers) {
            return Some(
                (
                    StatusCode::FORBIDDEN,
                    "a page of another origin changes nothing here\n",
                )
                    .into_response(),
            );
        }
        let needed = match request.uri().path() {
            "/healthz" | "/readyz" => return None,
            _ if reads => Role::Read,
            _ => Role::Operate,
        };
        let role = self.role(headers);
        if role >= needed {
            return None;
        }
        let is_known = role == Role::Read && self.read.is_some();
        if is_known {
            let text = "this token may only read; use that of admin.operate_token_file\n";
            return Some((StatusCode::FORBIDDEN, text).into_response());
        }
        let text = format!(
            "a token is needed: Authorization: Bearer, with that of admin.{}_token_file\n",
            needed.name()
        );
        let asks = [(header::WWW_AUTHENTICATE, "Basic realm=\"risiti\"")];
        Some((StatusCode::UNAUTHORIZED, asks, text).into_response())
    }

    /// A name that somebody else gives this address (DNS rebinding) would make a
    /// page of theirs one of ours; an address says who it means.
    fn is_our_host(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) else {
            return false;
        };
        let name = without_port(host);
        let is_known = |known: &String| known.eq_ignore_ascii_case(name);
        is_certain_host(host) || self.hosts.iter().any(is_known)
    }
}

/// Whether a host, with its port or without, says itself who it means: an address, or
/// this machine.
pub(crate) fn is_certain_host(host: &str) -> bool {
    let name = without_port(host);
    let address = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    address.unwrap_or(name).parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

/// Whether a browser says that the request comes from a page of this port, or no
/// browser says anything.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let origin = origin.to_str().ok();
    let of = |scheme: &str| origin.and_then(|o| o.strip_prefix(scheme)) == host;
    host.is_some() && (of("http://") || of("https://"))
}

fn shown_token(headers: &HeaderMap) -> Option<String> {
    let shown = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = shown.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(rest)
        .ok()?;
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(password.to_owned())
}

/// What every answer says to browsers: nothing of it is run, framed, guessed at or
/// kept. A page that needs more has said so itself.
const HEADERS: [(header::HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Lets a request through, or not.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.refusal(&request) {
        Some(refusal) => refusal,
        None => guard.pass(request, next).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

impl Guard {
    async fn pass(&self, request: Request, next: Next) -> Response {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return next.run(request).await;
        }
        let what = format!("{} {}", request.method(), request.uri().path());
        let who = if self.operate.is_some() {
            "operate token"
        } else {
            "anybody (there is no admin.operate_token_file)"
        };
        if let Err(error) = self.note(who, &what, "asked").await {
            tracing::error!(%error, "a change was refused: it can't be noted");
            let text = format!("not done, for it can't be noted: {error}; check the disk\n");
            return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
        }
        let response = next.run(request).await;
        let outcome = response.status().as_u16().to_string();
        if let Err(error) = self.note(who, &what, &outcome).await {
            tracing::error!(%error, what, outcome, "the outcome of a change is not noted");
        }
        response
    }

    async fn note(&self, who: &str, what: &str, outcome: &str) -> std::io::Result<()> {
        if !self.audit.is_enabled() {
            return Ok(());
        }
        let audit = self.audit.clone();
        let (who, what, outcome) = (who.to_owned(), what.to_owned(), outcome.to_owned());
        tokio::task::spawn_blocking(move || audit.note(&who, &what, &outcome))
            .await
            .map_err(std::io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const READ: &str = "the-token-that-reads";
    const OPERATE: &str = "the-token-that-operates";

    fn guard(read: bool, operate: bool) -> Guard {
        let digest = |text: &str| token::digest(text.as_bytes());
        let admin = Admin {
            read_token_sha256: read.then(|| digest(READ)),
            operate_token_sha256: operate.then(|| digest(OPERATE)),
            hosts: vec!["gw.example.org".into()],
            ..Admin::default()
        };
        Guard::new(&admin, Arc::new(Audit::disabled()))
    }

    fn code(guard: &Guard, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        if headers.iter().all(|(name, _)| *name != "host") {
            request = request.header("host", "127.0.0.1:9180");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let refusal = guard.refusal(&request);
        refusal.map_or(200, |response| response.status().as_u16())
    }

    #[test]
    fn without_tokens_everybody_here_may_do_everything() {
        let open = guard(false, false);
        for (method, path) in [
            ("GET", "/metrics"),
            ("DELETE", "/v1/dead/1"),
            ("GET", "/healthz"),
        ] {
            assert_eq!(code(&open, method, path, &[]), 200);
        }
    }

    #[test]
    fn each_token_opens_what_its_role_may_and_nothing_else() {
        let bearer = |token: &str| format!("Bearer {token}");
        let basic = |token: &str| {
            let pair = format!("me:{token}");
            format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(pair)
            )
        };
        for make in [&bearer as &dyn Fn(&str) -> String, &basic] {
            for (read, operate, token, reads, changes) in [
                (true, true, "", 401, 401),
                (true, true, "wrong", 401, 401),
                (true, true, READ, 200, 403),
                (true, true, OPERATE, 200, 200),
                (false, true, "", 200, 401),
                (false, true, "wrong", 200, 401),
                (false, true, READ, 200, 401),
                (false, true, OPERATE, 200, 200),
                (true, false, "", 401, 401),
                (true, false, READ, 200, 403),
                (true, false, OPERATE, 401, 401),
            ] {
                let guard = guard(read, operate);
                let shown = make(token);
                let with = [("authorization", shown.as_str())];
                let headers: &[_] = if token.is_empty() { &[] } else { &with };
                for path in ["/metrics", "/v1/status", "/"] {
                    let told = code(&guard, "GET", path, headers);
                    assert_eq!(told, reads, "{read} {operate} {token} {path}");
                }
                for method in ["POST", "DELETE", "PUT", "PATCH", "OPTIONS"] {
                    let told = code(&guard, method, "/v1/dead/1", headers);
                    assert_eq!(told, changes, "{read} {operate} {token} {method}");
                }
                assert_eq!(code(&guard, "GET", "/healthz", &[]), 200);
                assert_eq!(code(&guard, "GET", "/readyz", &[]), 200);
            }
        }
        // What is no token at all.
        for shown in [
            "",
            "Bearer",
            "Basic x",
            "Basic Og==",
            "Digest y",
            "Bearer  ",
        ] {
            let told = code(&guard(true, true), "GET", "/", &[("authorization", shown)]);
            assert_eq!(told, 401, "{shown:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_ours_is_not_served_whoever_asks() {
        let open = guard(false, false);
        for (host, told) in [
            ("127.0.0.1:9180", 200),
            ("127.0.0.1", 200),
            ("10.1.2.3:80", 200),
            ("[::1]:9180", 200),
            ("localhost:9180", 200),
            ("LOCALHOST", 200),
            ("gw.example.org:9180", 200),
            ("GW.example.org", 200),
            ("evil.example.org:9180", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost.evil.example:9180", 421),
            ("gw.example.org.evil.example", 421),
            ("", 421),
        ] {
            assert_eq!(
                code(&open, "GET", "/metrics", &[("host", host)]),
                told,
                "{host}"
            );
        }
        let request = Request::builder().uri("/").body(Body::empty()).unwrap();
        assert!(open.refusal(&request).is_some(), "no host at all");
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let open = guard(false, false);
        for (origin, told) in [
            ("http://127.0.0.1:9180", 200),
            ("https://127.0.0.1:9180", 200),
            ("http://127.0.0.1:9181", 403),
            ("http://evil.example", 403),
            ("null", 403),
            ("", 403),
        ] {
            let headers = [("origin", origin)];
            assert_eq!(
                code(&open, "POST", "/v1/dead/1/requeue", &headers),
                told,
                "{origin}"
            );
        }
    }
}
