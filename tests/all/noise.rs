//! Random requests from a fixed seed: any method on any path with any headers and body.
//!
//! Whatever is sent, the answer is one of Vault's forms, nobody gains anything by it, and the server goes on. That it has
//! not panicked and that its log holds no secret is looked at when it goes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::support::{Answer, Client, Server};

/// Sent as a token and in bodies; may come back nowhere.
const CANARY: &str = "canary-5Tg8wLq1";

/// Words of real routes. Not `seal` and nothing that ends the calling token: then all that follows would be one answer.
const WORDS: [&str; 40] = [
    "sys",
    "auth",
    "token",
    "database",
    "cubbyhole",
    "mounts",
    "tune",
    "policies",
    "policy",
    "acl",
    "egp",
    "modules",
    "default",
    "root",
    "leases",
    "lookup",
    "lookup-self",
    "renew-self",
    "renew",
    "revoke-prefix",
    "revoke-force",
    "count",
    "capabilities-self",
    "create",
    "accessors",
    "config",
    "auditing",
    "request-headers",
    "roles",
    "creds",
    "reset",
    "audit",
    "audit-hash",
    "health",
    "seal-status",
    "leader",
    "init",
    "unseal",
    "internal",
    "ui",
];

/// What somebody sends who looks for a way env.
const ODDITIES: [&str; 40] = [
    "..",
    ".",
    "",
    "...",
    "%2e%2e",
    ".%2e",
    "%2f",
    "%2F..%2f",
    "%5c..%5c",
    "%00",
    "%0a",
    "%0d%0aX-Evil:%201",
    "%7f",
    "%c2%a0",
    "%e2%80%ae",
    "%ed%a0%80",
    "%c3%28",
    "%ff",
    "%",
    "%zz",
    "%u002e",
    "%252e%252e",
    "é",
    "名前",
    "e\u{301}",
    "\u{1}",
    "\0",
    " ",
    "\t",
    "\\",
    "\"'<>`{}|^",
    "{{name}}",
    "*",
    "+",
    ";jsessionid=1",
    "#fragment",
    "?list=true",
    "@evil.example",
    "https:",
    "//evil.example",
];

const METHODS: [&str; 14] = [
    "GET", "GET", "LIST", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "SCAN", "BREW", "get",
    "M-SEARCH",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Stranger,
    /// A token with the policy `default` alone.
    Member,
    Root,
}

#[derive(Clone, Debug)]
struct Noise {
    who: Who,
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => select(&WORDS[..]).prop_map(str::to_owned),
        5 => select(&ODDITIES[..]).prop_map(str::to_owned),
        2 => "[a-zA-Z0-9._~%-]{1,12}",
        1 => any::<String>(),
        1 => select(&[255_usize, 1_000, 5_000][..]).prop_map(|length| "a".repeat(length)),
    ]
}

fn target() -> impl Strategy<Value = String> {
    let front = prop_oneof![8 => Just("/v1/sys"), 4 => Just("/v1/auth/token"), 8 => Just("/v1"), 1 => Just("/V1"), 1 => Just(""), 1 => Just("//v1")];
    let query = prop_oneof![
        6 => Just(String::new()),
        1 => select(&["?list=true", "?list=maybe", "?scan=true", "?help=1", "?a=%zz", "?", "?limit=-1", "?after=%00"][..])
            .prop_map(str::to_owned),
        1 => any::<String>().prop_map(|text| format!("?{text}")),
        1 => Just(format!("?{}", "x=1&".repeat(300))),
    ];
    (front, vec(segment(), 0..6), query)
        .prop_map(|(front, segments, query)| format!("{front}/{}{query}", segments.join("/")))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        select(&["1h", "-5", "1w", CANARY, "root", "default", "path \"*\" {", "{{name}}", "../../x"][..])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any::<String>(), inner), 0..4).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    })
}

/// An object with fields that routes know, of any type.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    const NAMES: [&str; 16] = [
        "policy",
        "policies",
        "token",
        "accessor",
        "lease_id",
        "increment",
        "ttl",
        "type",
        "path",
        "paths",
        "key",
        "password",
        "connection_url",
        "db_name",
        "config",
        "options",
    ];
    vec((select(&NAMES[..]), value()), 0..5).prop_map(|pairs| {
        let object: serde_json::Map<String, Value> =
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Value::Object(object).to_string().into_bytes()
    })
}

/// Nothing that can be read as an object: no route takes it.
fn broken() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 1..200).prop_map(|bytes| [b"[".as_slice(), &bytes].concat()),
        fields().prop_map(|text| [&text[..text.len() - 1], b","].concat()),
        Just("{\"a\":".repeat(10_000).into_bytes()),
        Just(vec![b'['; 100_000]),
        Just(format!("{{\"password\":\"{CANARY}\\u12\"}}").into_bytes()),
        Just(json!({ "many": vec!["x"; 2_000] }).to_string().into_bytes()),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let text = || prop_oneof!["[ -~]{0,40}", "[ -~é名]{0,40}", Just("x".repeat(4_000))];
    let one = prop_oneof![
        (
            Just("Content-Type"),
            prop_oneof![
                select(
                    &[
                        "application/json",
                        "application/x-www-form-urlencoded",
                        "application/wasm",
                        "application/merge-patch+json",
                        "multipart/form-data; boundary=x",
                        "text/plain; charset=utf-16",
                    ][..]
                )
                .prop_map(str::to_owned),
                text()
            ]
        ),
        (Just("X-Vault-Wrap-TTL"), prop_oneof![Just("60".to_owned()), Just("-1".to_owned()), text()]),
        (Just("X-Vault-Namespace"), prop_oneof![Just("root".to_owned()), Just("../".to_owned()), text()]),
        (Just("Authorization"), text().prop_map(|text| format!("Bearer {text}"))),
        (Just("X-Vault-Request"), text()),
        (Just("X-Forwarded-For"), text()),
        (Just("Accept"), text()),
        (Just("Cookie"), text()),
    ];
    vec(one, 0..4)
}

/// Of anybody who has no rights, with any body.
fn without_rights() -> impl Strategy<Value = Noise> {
    let who = select(&[Who::Nobody, Who::Stranger, Who::Member, Who::Member][..]);
    let body = prop_oneof![
        4 => Just(None),
        4 => fields().prop_map(Some),
        2 => value().prop_map(|value| Some(value.to_string().into_bytes())),
        2 => broken().prop_map(Some),
        1 => vec(any::<u8>(), 0..500).prop_map(Some),
    ];
    (who, select(&METHODS[..]), target(), headers(), body).prop_map(|(who, method, target, headers, body)| Noise {
        who,
        method,
        target,
        headers,
        body,
    })
}

/// Of root: what it writes cannot be read as an object, so that nothing it may do happens.
fn of_root() -> impl Strategy<Value = Noise> {
    (select(&METHODS[..]), target(), broken()).prop_map(|(method, target, body)| {
        let writes = ["PUT", "POST", "PATCH"].contains(&method);
        Noise { who: Who::Root, method, target, headers: Vec::new(), body: writes.then_some(body) }
    })
}

/// The request on the wire. What would end the request line or a header too early is left out: that is other requests.
fn bytes(noise: &Noise, member: &str, root: &str) -> Vec<u8> {
    let target: String = noise.target.chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
    let mut head = format!("{} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", noise.method);
    match noise.who {
        Who::Nobody => {}
        Who::Stranger => head.push_str(&format!("X-Vault-Token: {CANARY}\r\n")),
        Who::Member => head.push_str(&format!("X-Vault-Token: {member}\r\n")),
        Who::Root => head.push_str(&format!("X-Vault-Token: {root}\r\n")),
    }
    for (name, value) in &noise.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = &noise.body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    [head.as_bytes(), b"\r\n", noise.body.as_deref().unwrap_or_default()].concat()
}

/// contract.md §1: every answer has one of Vault's forms.
fn has_the_fields_form(noise: &Noise, answer: &Answer) -> Result<(), TestCaseError> {
    prop_assert!(matches!(answer.status, 200..=499), "{answer}");
    prop_assert!(!answer.body.contains(CANARY) || noise.target.contains(CANARY), "{answer}");
    let is_empty = answer.body.is_empty();
    match answer.status {
        307 => {
            let to = answer.header("location").unwrap_or_default();
            prop_assert!(to.starts_with('/') && !to.starts_with("//") && !to.contains(['\r', '\n']), "{to}: {answer}");
        }
        // What has no body, and what is no path or no HTTP at all.
        204 | 400 if is_empty => {}
        _ if noise.method == "HEAD" => prop_assert!(is_empty, "{answer}"),
        400.. => {
            let body = answer.json();
            let errors = body.get("errors").and_then(Value::as_array);
            let are_texts = errors.is_some_and(|errors| errors.iter().all(Value::is_string));
            prop_assert!(are_texts && body.as_object().is_some_and(|body| body.len() == 1), "{answer}");
            prop_assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer);
        }
        _ => {}
    }
    Ok(())
}

/// What an intruder would have left behind.
fn listed(root: &Client) -> Vec<Value> {
    [
        "sys/policies/acl",
        "sys/leases/lookup/",
        "sys/leases/lookup/auth/token/create",
        "auth/token/accessors",
        "sys/modules",
        "sys/policies/egp",
    ]
    .into_iter()
    .map(|path| root.list(path).at("/data/keys"))
    .collect()
}

fn send_all(cases: u32, requests: impl Strategy<Value = Noise>) {
    let server = Server::dev();
    server.secrets().tell(CANARY);
    let (root, nobody) = (server.root(), server.nobody());
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    let member = root.child(json!({ "policies": ["default"] }));
    let before = listed(&root);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&requests, |noise| {
        let answer = nobody.raw(&bytes(&noise, &member, &server.root_token()));
        has_the_fields_form(&noise, &answer)?;
        prop_assert_eq!(nobody.get("sys/health").status, 200);
        Ok(())
    });
    outcome.unwrap_or_else(|failed| panic!("{failed}"));
    root.with_token(&member).get("auth/token/lookup-self").assert_status(200);
    assert_eq!(listed(&root), before);
}

#[test]
fn noise_without_rights_is_answered_in_the_fields_forms_and_leaves_nothing_behind() {
    send_all(350, without_rights());
}

#[test]
fn noise_of_root_is_answered_in_the_fields_forms_and_leaves_nothing_behind() {
    send_all(150, of_root());
}
