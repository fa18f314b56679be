//! The page that the admin port shows a person: what the gateway does now, and
//! "where is my receipt?".
//!
//! Promises: one page that fetches nothing but `/v1/…` of the port that it came
//! from; what comes from outside (ids, errors) is shown as text, and its policy
//! lets the browser run nothing else. Never: something that can be changed.

use axum::http::{HeaderName, header};
use axum::response::IntoResponse;

const PAGE: &str = include_str!("page.html");

/// Only this page's own script and style, by their digests; no frame around it.
const POLICY: &str = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
frame-ancestors 'none'; script-src 'sha256-FWhuIRFq3AZc7oQsKO0B/iDd25ztIk6z45dHk0d/ljk='; style-src 'sha256-5FvmSe/vx/SJGszvYymEdqgpvo6HTtLZGdIA0s/U1Ec='";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // A new version is seen at once.
    (header::CACHE_CONTROL, "no-cache"),
];

/// `GET /`.
pub async fn page() -> impl IntoResponse {
    (HEADERS, PAGE)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use sha2::{Digest, Sha256};

    use super::*;

    fn within<'a>(page: &'a str, begin: &str, end: &str) -> &'a str {
        let (_, rest) = page.split_once(begin).unwrap();
        rest.split_once(end).unwrap().0
    }

    #[test]
    fn the_policy_allows_the_pages_own_script_and_style() {
        let digest = |text: &str| {
            let digest = Sha256::digest(text.as_bytes());
            format!(
                "'sha256-{}'",
                base64::engine::general_purpose::STANDARD.encode(digest)
            )
        };
        let script = digest(within(PAGE, "<script>", "</script>"));
        let style = digest(within(PAGE, "<style>", "</style>"));
        assert!(
            POLICY.contains(&format!("script-src {script}"))
                && POLICY.contains(&format!("style-src {style}")),
            "the page was changed: script-src {script}; style-src {style}"
        );
    }

    #[test]
    fn the_page_asks_nobody_else_and_writes_no_markup() {
        for other in [
            "http://",
            "https://",
            "innerHTML",
            "insertAdjacent",
            "eval(",
        ] {
            assert!(!PAGE.contains(other), "{other}");
        }
        // Its policy would stop them.
        for inline in [" style=", " onclick=", " onload=", "javascript:"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
    }

    #[test]
    fn every_place_that_the_script_fills_is_there() {
        let script = within(PAGE, "<script>", "</script>");
        let mut places = 0;
        for name in ["say(\"", "byId(\"", "list(\""] {
            for rest in script.split(name).skip(1) {
                let id = rest.split('"').next().unwrap();
                // `Rate` makes its own from a name.
                if !id.starts_with('-') {
                    assert!(PAGE.contains(&format!("id=\"{id}\"")), "{id}");
                    places += 1;
                }
            }
        }
        assert!(places > 30, "{places}");
        for name in ["records", "receipts"] {
            for part in ["-line", "-rate"] {
                assert!(PAGE.contains(&format!("id=\"{name}{part}\"")));
            }
        }
    }
}
