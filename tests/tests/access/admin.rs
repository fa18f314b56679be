//! Who may use the admin port, and what is noted of it.

use std::io;
use std::path::Path;
use std::time::Duration;

use risiti_config::Config;
use risiti_gateway::access::token;
use risiti_tests::risiti_command::{output, risiti};

use crate::house::House;

const READ: &str = "the-token-that-reads";
const OPERATE: &str = "the-token-that-operates";

fn with_tokens(config: &mut Config) {
    let digest = |text: &str| Some(token::digest(text.as_bytes()));
    config.admin.read_token_sha256 = digest(READ);
    config.admin.operate_token_sha256 = digest(OPERATE);
}

fn get(house: &House, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = agent.get(format!("http://{}{path}", house.gateway().admin_addr()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.call().unwrap();
    let headers = format!("{:?}", response.headers()).to_lowercase();
    (response.status().as_u16(), headers)
}

fn command(house: &House, args: &[&str], token_file: Option<&Path>) -> Result<String, String> {
    let mut command = risiti(args);
    command.arg("--admin");
    command.arg(house.gateway().admin_addr().to_string());
    if let Some(file) = token_file {
        command.arg("--admin-token-file").arg(file);
    }
    let ended = output(&mut command, Duration::from_secs(60)).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if ended.status.success() {
        Ok(text(&ended.stdout))
    } else {
        Err(text(&ended.stderr))
    }
}

#[test]
fn with_tokens_nothing_is_read_or_changed_without_one() -> io::Result<()> {
    let house = House::with(with_tokens);
    for path in ["/", "/metrics", "/v1/status", "/v1/dead", "/nowhere"] {
        let (code, headers) = get(&house, path, &[]);
        assert_eq!(code, 401, "{path}");
        assert!(headers.contains("www-authenticate"), "{headers}");
    }
    assert_eq!(get(&house, "/healthz", &[]).0, 200);
    let read = format!("Bearer {READ}");
    assert_eq!(get(&house, "/metrics", &[("authorization", &read)]).0, 200);

    let dir = tempfile::tempdir()?;
    let file = |name: &str, token: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("{token}\n")).unwrap();
        path
    };
    let (reads, operates) = (file("read", READ), file("operate", OPERATE));
    let told = command(&house, &["status"], None).unwrap_err();
    assert!(
        told.contains("401") && told.contains("read_token_file"),
        "{told}"
    );
    command(&house, &["status"], Some(&reads)).unwrap();
    command(&house, &["status"], Some(&operates)).unwrap();
    let drop = ["dead", "drop", "nothing"];
    let told = command(&house, &drop, Some(&reads)).unwrap_err();
    assert!(
        told.contains("403") && told.contains("operate_token_file"),
        "{told}"
    );
    let audit = house.gateway().config().gateway.data_dir.join("audit.log");
    assert!(!audit.exists(), "what was refused changed nothing");
    // There is no such letter; that somebody tried is noted.
    let told = command(&house, &drop, Some(&operates)).unwrap_err();
    assert!(told.contains("404"), "{told}");
    let noted = std::fs::read_to_string(&audit)?;
    let lines: Vec<serde_json::Value> = noted
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{noted}");
    for (line, outcome) in lines.iter().zip(["asked", "404"]) {
        assert_eq!(line["who"], "operate token");
        assert_eq!(line["what"], "DELETE /v1/dead/nothing");
        assert_eq!(line["outcome"], outcome);
    }
    assert!(!noted.contains(OPERATE));
    Ok(())
}

#[test]
fn every_answer_tells_browsers_to_keep_and_run_nothing() {
    let house = House::new();
    for (path, cache) in [
        ("/metrics", "no-store"),
        ("/v1/status", "no-store"),
        ("/nowhere", "no-store"),
        ("/", "no-cache"),
    ] {
        let (_, headers) = get(&house, path, &[]);
        for part in ["nosniff", "frame-ancestors 'none'", "no-referrer", cache] {
            assert!(headers.contains(part), "{path} {part}: {headers}");
        }
    }
}

#[test]
fn a_name_that_somebody_else_made_for_this_address_is_not_served() {
    let house = House::with(|config| config.admin.hosts = vec!["gw.example.org".into()]);
    for (host, code) in [
        ("evil.example:9180", 421),
        ("gw.example.org:9180", 200),
        ("localhost:9180", 200),
    ] {
        assert_eq!(
            get(&house, "/v1/status", &[("host", host)]).0,
            code,
            "{host}"
        );
    }
}
