//! Audit under devices that fail and block, and what its records say.

use std::collections::BTreeMap;
use std::time::Duration;

use leasehold_core::audit::DeviceEntry;
use leasehold_core::seams::error::RequestError;
use leasehold_model::Operation;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::support::pass;
use super::support::server::{ROOT, Server, refusal, request};

/// `first` and `second` are enabled, `second` through the API.
async fn two_devices() -> Server {
    let server = Server::start().await;
    server.audited().await;
    server.root("sys/audit/second", json!({ "type": "second" })).await.unwrap();
    for device in [&server.audit.first, &server.audit.second] {
        device.clear();
    }
    server
}

fn declared(kind: &str) -> DeviceEntry {
    DeviceEntry {
        path: format!("{kind}/"),
        kind: kind.to_owned(),
        description: String::new(),
        options: BTreeMap::new(),
        local: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_blocks_is_left_alone_until_it_is_back() {
    let server = two_devices().await;
    server.audit.second.block();
    // All that come before it is known wait once, and for a moment.
    let begun = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let core = server.core.clone();
        calls.spawn(async move { core.handle(request(Some(ROOT), Operation::Read, "db/static", Value::Null)).await });
    }
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert!(begun.elapsed() <= Duration::from_secs(3), "{:?}", begun.elapsed());
    // Then nobody waits for it.
    let begun = Instant::now();
    for _ in 0..100 {
        server.read(ROOT, "db/static").await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
    // It alone does not count as long as it does not answer.
    *server.audit.first.refuses.lock().unwrap() = Some("type");
    assert!(matches!(server.read(ROOT, "db/static").await, Err(RequestError::Audit)));
    *server.audit.first.refuses.lock().unwrap() = None;

    // What it was given meanwhile it writes, in order, and from then on it counts.
    server.audit.second.unblock();
    let ids = |lines: Vec<Value>| lines.into_iter().map(|line| line["type"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(server.audit.second.lines()).len(), ids(server.audit.first.lines()).len() + 1);
    *server.audit.first.refuses.lock().unwrap() = Some("type");
    assert!(server.read(ROOT, "db/static").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_blocked_device_that_is_alone_stops_requests_at_once_and_nothing_is_done() {
    let server = Server::start().await;
    server.audited().await;
    server.audit.first.block();
    let begun = Instant::now();
    assert!(matches!(server.root("db/things/a", json!({})).await, Err(RequestError::Audit)));
    assert!(begun.elapsed() <= Duration::from_secs(11), "{:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..50 {
        assert!(matches!(server.root("db/things/a", json!({})).await, Err(RequestError::Audit)));
        assert!(matches!(server.read(ROOT, "db/creds/app").await, Err(RequestError::Audit)));
    }
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
    assert_eq!(server.audit.first.waiting(), 1, "what is refused is not recorded later as if it had been done");
    assert_eq!(server.target.count("effect"), 0);
    server.audit.first.unblock();
    assert!(matches!(server.read(ROOT, "db/things/a").await, Err(RequestError::NotFound)));
    assert!(server.read(ROOT, "db/creds/app").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_blocked_device_is_bounded() {
    let measured = super::support::meter::Measured::begin();
    let server = two_devices().await;
    server.audit.second.block();
    for _ in 0..700 {
        server.read(ROOT, "db/static").await.unwrap();
    }
    assert_eq!(server.audit.second.waiting(), 1_024);
    assert_eq!(measured.counter("leasehold_audit_lines_lost_total"), 2 * 700 - 1_024);
    server.audit.second.unblock();
    let before = server.audit.second.lines().len();
    server.read(ROOT, "db/static").await.unwrap();
    assert_eq!(server.audit.second.lines().len(), before + 2);
}

#[tokio::test(start_paused = true)]
async fn expiry_and_sealing_do_not_wait_for_a_blocked_device() {
    let server = Server::start().await;
    server.audited().await;
    *server.engine.ttls.lock().unwrap() = (leasehold_model::Ttl::from_secs(30), leasehold_model::Ttl::from_secs(30));
    server.read(ROOT, "db/creds/app").await.unwrap();
    server.audit.first.block();
    pass(40).await;
    assert!(server.target.roles().is_empty(), "it has expired");
    server.core.reopen_audit().await;
    tokio::time::timeout(Duration::from_secs(1), server.core.seal()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_a_device_is_declared_no_other_counts() {
    let server = Server::declaring(vec![declared("first")]).await;
    server.root("sys/audit/second", json!({ "type": "second" })).await.unwrap();
    server.audit.second.clear();
    *server.audit.first.refuses.lock().unwrap() = Some("type");
    assert!(matches!(server.read(ROOT, "db/creds/app").await, Err(RequestError::Audit)));
    *server.audit.first.refuses.lock().unwrap() = None;
    // Nor does it stop anybody.
    *server.audit.second.refuses.lock().unwrap() = Some("type");
    assert!(server.read(ROOT, "db/creds/app").await.is_ok());
    server.audit.first.block();
    assert!(matches!(server.read(ROOT, "db/creds/app").await, Err(RequestError::Audit)));
    *server.audit.second.refuses.lock().unwrap() = None;
    server.audit.second.clear();
    assert!(matches!(server.read(ROOT, "db/creds/app").await, Err(RequestError::Audit)));
    assert!(server.audit.second.lines().is_empty());
    server.audit.first.unblock();
    let why = refusal(server.call(Some(ROOT), Operation::Delete, "sys/audit/first", Value::Null).await);
    assert!(why.contains("declared in the server's configuration"), "{why}");
    assert_eq!(server.target.count("effect"), 1);

    // After a restart as well, and a stored device that has a declared one's name stays out.
    let next = server.again();
    next.unseal().await;
    *next.audit.first.refuses.lock().unwrap() = Some("type");
    assert!(matches!(next.read(ROOT, "db/creds/app").await, Err(RequestError::Audit)));
}

#[tokio::test(start_paused = true)]
async fn secrets_in_clear_are_for_the_configuration_to_ask_for() {
    let server = Server::start().await;
    for text in ["true", "1", "T"] {
        let asked = json!({ "type": "first", "options": { "log_raw": text } });
        let why = refusal(server.root("sys/audit/raw", asked).await);
        assert!(why.contains("log_raw cannot be set through the API"), "{why}");
    }
    assert!(server.read(ROOT, "sys/audit").await.unwrap().data.unwrap().is_empty());
    let mut entry = declared("first");
    entry.options.insert("log_raw".to_owned(), "true".to_owned());
    let server = Server::declaring(vec![entry]).await;
    server.read(ROOT, "db/static").await.unwrap();
    assert!(server.audit.first.text().contains(super::support::engine::PASSWORD));
}

#[tokio::test(start_paused = true)]
async fn devices_and_audited_headers_are_bounded() {
    let server = Server::start().await;
    for n in 0..32 {
        server.root(&format!("sys/audit/d{n}"), json!({ "type": "first" })).await.unwrap();
    }
    let why = refusal(server.root("sys/audit/more", json!({ "type": "first" })).await);
    assert!(why.contains("as many as there may be"), "{why}");
    server.call(Some(ROOT), Operation::Delete, "sys/audit/d3", Value::Null).await.unwrap();
    server.root("sys/audit/more", json!({ "type": "first" })).await.unwrap();

    let header = |name: &str| format!("sys/config/auditing/request-headers/{name}");
    for n in 0..128 {
        server.root(&header(&format!("x-{n}")), json!({})).await.unwrap();
    }
    assert!(refusal(server.root(&header("x-more"), json!({})).await).contains("as many as there may be"));
    server.root(&header("X-7"), json!({ "hmac": true })).await.unwrap();
    assert!(refusal(server.root(&header(&"x".repeat(257)), json!({})).await).contains("at most 256 bytes"));
    server.call(Some(ROOT), Operation::Delete, &header("x-8"), Value::Null).await.unwrap();
    server.root(&header(&"x".repeat(256)), json!({})).await.unwrap();

    let next = server.again();
    next.unseal().await;
    assert_eq!(next.read(ROOT, "sys/audit").await.unwrap().data.unwrap().len(), 32);
    let headers = next.read(ROOT, "sys/config/auditing/request-headers").await.unwrap().data.unwrap();
    assert_eq!(headers["headers"].as_object().unwrap().len(), 128);
}

#[tokio::test(start_paused = true)]
async fn the_body_of_somebody_unknown_is_not_recorded() {
    let server = Server::start().await;
    server.audited().await;
    let nobody = server.token_with("x: read").await;
    let long = "canary-key".repeat(100);
    let body = json!({ long.as_str(): "x", "color": "red" });
    for token in [None, Some("s.unknown"), Some("")] {
        assert!(server.call(token, Operation::Update, "db/things/a", body.clone()).await.is_err());
        for kind in ["request", "response"] {
            assert_eq!(server.audit.first.last(kind)["request"].get("data"), None, "{token:?}");
        }
    }
    // Somebody known is refused with what was asked, hashed, and long keys as well.
    assert!(matches!(server.update(&nobody, "db/things/a", body).await, Err(RequestError::Denied)));
    let data = server.audit.first.last("request")["request"]["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 2);
    assert!(!data.to_string().contains("canary-key"), "{data}");
}

#[tokio::test(start_paused = true)]
async fn a_record_is_bounded_whatever_is_asked() {
    let server = Server::start().await;
    server.audited().await;
    let many: Vec<&str> = vec!["x"; 100_000];
    server.root("db/things/a", json!({ "color": "red", "list": many })).await.unwrap();
    let record = server.audit.first.last("request");
    assert!(record.to_string().len() < 512 << 10);
    let whole = json!({ "color": "red", "list": many }).to_string();
    let hash = server.root("sys/audit-hash/first", json!({ "input": whole })).await.unwrap().data.unwrap();
    assert_eq!(record["request"]["data_truncated"], hash["hash"], "whoever has the body can prove it");
    server.root("db/things/a", json!({ "color": "red" })).await.unwrap();
    assert_eq!(server.audit.first.last("request")["request"].get("data_truncated"), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_no_error() {
    let server = Server::start().await;
    server.audited().await;
    assert!(matches!(server.read(ROOT, "db/things/none").await, Err(RequestError::NotFound)));
    for kind in ["request", "response"] {
        let line = server.audit.first.last(kind);
        assert_eq!(line.get("error"), None, "{line}");
    }
    assert_eq!(server.audit.first.last("response")["response"].get("data"), None);
    assert!(server.read(ROOT, "db/boom").await.is_err());
    assert!(server.audit.first.last("response")["error"].as_str().unwrap().contains("boom"));
}

#[tokio::test(start_paused = true)]
async fn what_is_recorded_is_what_the_client_gets_also_at_a_tokens_last_use() {
    let server = Server::start().await;
    server.audited().await;
    server.policy("app", "db/*: read\nauth/token/lookup-self: read").await;
    let one = || server.token(json!({ "policies": ["app"], "num_uses": 1 }));
    let said = refusal(server.read(&one().await, "db/creds/app").await);
    let line = server.audit.first.last("response");
    assert!(said.contains(line["error"].as_str().unwrap()), "{line}");
    assert_eq!(line["response"].get("secret"), None, "{line}");

    server.read(&one().await, "auth/token/lookup-self").await.unwrap();
    let line = server.audit.first.last("response");
    assert_eq!(line.get("error"), None);
    assert_eq!(line["auth"]["remaining_uses"], 1);
}

#[tokio::test(start_paused = true)]
async fn sealing_answers_when_it_has_sealed_and_is_recorded() {
    let server = Server::start().await;
    server.audited().await;
    // A revocation is under way: sealing waits for it, and so does the answer.
    *server.engine.takes.lock().unwrap() = Duration::from_secs(3);
    let lease = server.read(ROOT, "db/creds/app").await.unwrap();
    let lease = super::support::server::lease_of(&lease);
    server.root("sys/leases/revoke", json!({ "lease_id": lease.as_str(), "sync": false })).await.unwrap();
    pass(1).await;
    server.root("sys/seal", json!({})).await.unwrap();
    assert!(server.core.unsealed().is_err() && server.core.seal_status().await.unwrap().sealed);
    assert!(server.target.roles().is_empty(), "what was under way has ended");
    assert_eq!(server.audit.first.last("response")["request"]["path"], "sys/seal");
    assert!(matches!(server.read(ROOT, "db/static").await, Err(RequestError::Sealed)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_dropped_on_its_way_takes_back_what_it_hands_out() {
    let server = Server::start().await;
    let before = server.rows().await.len();
    let asked = [
        request(Some(ROOT), Operation::Read, "db/creds/app", Value::Null),
        request(Some(ROOT), Operation::Update, "auth/token/create", json!({ "ttl": "1h" })),
    ];
    for request in asked {
        let path = request.path.clone();
        let mut call = Box::pin(server.core.handle(request));
        // The client is there when the work begins, and gone when the answer could be fetched.
        assert!(tokio::time::timeout(Duration::ZERO, &mut call).await.is_err());
        pass(1).await;
        assert_eq!(server.rows().await.len(), before + 1, "{path} is done, and waits to be fetched");
        drop(call);
        pass(5).await;
        assert_eq!(server.rows().await.len(), before, "{path}");
        assert!(server.target.roles().is_empty());
    }
    // A renewal's answer hands out nothing, and takes nothing away.
    let token = server.token(json!({ "ttl": "1h", "policies": ["default"] })).await;
    let renew = request(Some(ROOT), Operation::Update, "auth/token/renew", json!({ "token": token }));
    let mut call = Box::pin(server.core.handle(renew));
    assert!(tokio::time::timeout(Duration::ZERO, &mut call).await.is_err());
    pass(1).await;
    drop(call);
    pass(5).await;
    assert!(server.lives(&token).await);
}

#[tokio::test(start_paused = true)]
async fn after_a_rotation_every_device_opens_its_file_anew() {
    let server = two_devices().await;
    server.core.reopen_audit().await;
    pass(1).await;
    assert_eq!((server.audit.first.reopened(), server.audit.second.reopened()), (1, 1));
    // One that cannot keeps no other from it.
    *server.audit.first.cannot_reopen.lock().unwrap() = true;
    server.core.reopen_audit().await;
    pass(1).await;
    assert_eq!((server.audit.first.reopened(), server.audit.second.reopened()), (1, 2));
    server.core.seal().await;
    server.core.reopen_audit().await;
}

#[tokio::test(start_paused = true)]
async fn no_two_devices_lie_in_each_other() {
    let server = Server::start().await;
    server.root("sys/audit/a/b", json!({ "type": "first" })).await.unwrap();
    for path in ["a", "a/b", "a/b/c"] {
        let why = refusal(server.root(&format!("sys/audit/{path}"), json!({ "type": "second" })).await);
        assert_eq!(why, "Invalid: path already in use", "{path}");
    }
    for path in ["b", "a/bc", "a/c"] {
        server.root(&format!("sys/audit/{path}"), json!({ "type": "second" })).await.unwrap();
    }
}

/// What an auditor can search for: a secret is written as its hash everywhere, by the same salt, and only where nobody exempted it.
#[tokio::test(start_paused = true)]
async fn a_record_shows_times_and_exempted_keys_in_clear_and_all_else_by_its_hash() {
    let server = Server::start().await;
    server.audited().await;
    let hashed = async |text: &str| {
        let answer = server.root("sys/audit-hash/first", json!({ "input": text })).await.unwrap();
        answer.data.unwrap()["hash"].clone()
    };
    let token = server.token(json!({ "policies": ["root"], "ttl": "1h" })).await;
    server.read(&token, "db/static").await.unwrap();
    let line = server.audit.first.last("response");
    let by_hash = hashed(&token).await;
    assert_eq!((&line["auth"]["client_token"], &line["request"]["client_token"]), (&by_hash, &by_hash));
    assert_eq!(line["response"]["data"]["value"], hashed(super::support::engine::PASSWORD).await);

    server.root("sys/mounts/db/tune", json!({ "audit_non_hmac_response_keys": "value" })).await.unwrap();
    server.read(&token, "db/static").await.unwrap();
    let line = server.audit.first.last("response");
    assert_eq!(line["response"]["data"]["value"], super::support::engine::PASSWORD, "the operator exempted it");
    // A secret of the same name in another mount is none of that.
    server.root("sys/mounts/other", json!({ "type": "scripted" })).await.unwrap();
    server.read(&token, "other/static").await.unwrap();
    let line = server.audit.first.last("response");
    assert_eq!(line["response"]["data"]["value"], hashed(super::support::engine::PASSWORD).await);

    // Times of our own answers are no secrets; what a client puts under such a name is none of ours.
    server.read(&token, "auth/token/lookup-self").await.unwrap();
    let data = server.audit.first.last("response")["response"]["data"].clone();
    assert_eq!(
        (&data["expire_time"], &data["issue_time"]),
        (&json!("2026-11-23T01:00:00Z"), &json!("2026-11-23T00:00:00Z"))
    );
    assert_eq!(data["id"], by_hash);
    assert_eq!(data["display_name"], hashed("token").await);
    server.root("db/things/a", json!({ "color": "red", "issue_time": "2026-11-23T00:00:00Z" })).await.unwrap();
    let data = server.audit.first.last("request")["request"]["data"].clone();
    assert_eq!(data["issue_time"], hashed("2026-11-23T00:00:00Z").await);
}

/// Every part of a request that a record names, each where Vault has it.
#[tokio::test(start_paused = true)]
async fn a_record_names_who_asked_from_where_for_what_and_what_came_of_it() {
    let server = Server::start().await;
    server.audited().await;
    for (name, hmac) in [("X-Plain", false), ("X-Hashed", true)] {
        server.root(&format!("sys/config/auditing/request-headers/{name}"), json!({ "hmac": hmac })).await.unwrap();
    }
    server.policy("app", "db/*: read").await;
    let fields =
        json!({ "policies": ["app"], "ttl": "1h", "num_uses": 5, "display_name": "ci", "meta": { "team": "blue" } });
    let token = server.token(fields).await;
    let accessor = server.lookup(&token).await.unwrap()["accessor"].clone();
    let mut asked = request(Some(&token), Operation::Read, "db/creds/app", Value::Null);
    let peer: std::net::SocketAddr = "[::ffff:10.1.2.3]:4711".parse().unwrap();
    asked.client = Some(leasehold_core::connection::ConnectionInfo::of_peer(peer));
    asked.raw_body = Some(vec![0; 7]);
    asked.headers.insert("x-plain".to_owned(), vec!["seen".to_owned(); 20]);
    asked.headers.insert("x-hashed".to_owned(), vec!["canary".to_owned()]);
    asked.headers.insert("x-other".to_owned(), vec!["canary".to_owned()]);
    let answer = server.core.handle(asked).await.unwrap();
    let lease = super::support::server::lease_of(&answer);
    let hash = async |text: &str| {
        let answer = server.root("sys/audit-hash/first", json!({ "input": text })).await.unwrap();
        answer.data.unwrap()["hash"].clone()
    };
    let (by_token, by_header) = (hash(&token).await, hash("canary").await);
    let accessor = hash(accessor.as_str().unwrap()).await;
    let line = |kind| {
        server
            .audit
            .first
            .lines()
            .into_iter()
            .rfind(|line| line["type"] == kind && line["request"]["path"] == "db/creds/app")
            .unwrap()
    };
    let mount = server.read(ROOT, "sys/mounts").await.unwrap().data.unwrap()["db/"]["accessor"].clone();
    for kind in ["request", "response"] {
        let line = line(kind);
        for (at, value) in [
            ("/time", json!("2026-11-23T00:00:00Z")),
            ("/auth/client_token", by_token.clone()),
            ("/auth/accessor", accessor.clone()),
            ("/auth/display_name", json!("token-ci")),
            ("/auth/policies", json!(["app", "default"])),
            ("/auth/token_policies", json!(["app", "default"])),
            ("/auth/metadata", json!({ "team": "blue" })),
            ("/auth/remaining_uses", json!(5)),
            ("/auth/token_type", json!("service")),
            ("/auth/token_ttl", json!(3_600)),
            ("/auth/token_issue_time", json!("2026-11-23T00:00:00Z")),
            ("/auth/policy_results/allowed", json!(true)),
            ("/auth/policy_results/acl_module", json!("ac1")),
            ("/request/id", json!("11111111-2222-4333-8444-555555555555")),
            ("/request/operation", json!("read")),
            ("/request/path", json!("db/creds/app")),
            ("/request/client_token", by_token.clone()),
            ("/request/client_token_accessor", accessor.clone()),
            ("/request/mount_point", json!("db/")),
            ("/request/mount_type", json!("scripted")),
            ("/request/mount_accessor", mount.clone()),
            ("/request/mount_class", json!("secret")),
            ("/request/namespace/id", json!("root")),
            ("/request/remote_address", json!("10.1.2.3")),
            ("/request/remote_port", json!(4711)),
            ("/request/body_bytes", json!(7)),
            ("/request/headers", json!({ "x-plain": vec!["seen"; 16], "x-hashed": [by_header.clone()] })),
        ] {
            assert_eq!(line.pointer(at), Some(&value), "{kind} {at}: {line}");
        }
        assert_eq!(line["request"].get("data"), None, "nothing was sent in a body");
        assert!(line["request"]["client_id"].as_str().unwrap().len() == 44);
    }
    let answered = line("response")["response"].clone();
    assert_eq!(answered["secret"]["lease_id"], lease.as_str());
    assert_eq!((&answered["mount_point"], &answered["mount_class"]), (&json!("db/"), &json!("secret")));
    assert_eq!(answered["data"]["password"], hash(super::support::engine::PASSWORD).await);
    assert_eq!(line("request").get("response"), None);

    // A token that is made, and a batch token that has no accessor.
    server.token(json!({ "policies": ["app"], "ttl": "30m", "num_uses": 2, "meta": { "team": "red" } })).await;
    let auth = server.audit.first.last("response")["response"]["auth"].clone();
    for (key, value) in [
        ("display_name", json!("token")),
        ("policies", json!(["app", "default"])),
        ("token_policies", json!(["app", "default"])),
        ("metadata", json!({ "team": "red" })),
        ("num_uses", json!(2)),
        ("token_type", json!("service")),
        ("token_ttl", json!(1_800)),
    ] {
        assert_eq!(auth[key], value, "{key}: {auth}");
    }
    assert!(auth["accessor"].is_string() && auth.get("token_issue_time").is_none());
    let class = server.audit.first.last("response")["request"]["mount_class"].clone();
    assert_eq!(class, "auth");
    let batch = server.token(json!({ "policies": ["app"], "type": "batch" })).await;
    assert_eq!(server.audit.first.last("response")["response"]["auth"].get("accessor"), None);
    server.read(&batch, "db/static").await.unwrap();
    let line = server.audit.first.last("request");
    assert_eq!((line["auth"].get("accessor"), line["request"].get("client_token_accessor")), (None, None));
    // Nobody, and root, whom no component judges.
    assert!(server.call(None, Operation::Read, "db/static", Value::Null).await.is_err());
    assert_eq!(server.audit.first.last("request")["auth"], json!({ "token_type": "default" }));
    server.read(ROOT, "db/static").await.unwrap();
    let results = server.audit.first.last("request")["auth"]["policy_results"].clone();
    assert_eq!((results.get("acl_module"), &results["allowed"]), (None, &json!(true)));
    assert_eq!(results["granting_policies"], json!([{ "name": "root", "namespace_id": "root", "type": "acl" }]));
}

/// What somebody puts into names, paths and headers cannot make a record long.
#[tokio::test(start_paused = true)]
async fn long_texts_are_cut_in_a_record_and_short_ones_are_not() {
    let server = Server::start().await;
    server.audited().await;
    server.root("sys/config/auditing/request-headers/X-Plain", json!({})).await.unwrap();
    for (len, is_cut) in [(8 << 10, false), ((8 << 10) + 1, true), (100_000, true)] {
        let mut asked = request(Some(ROOT), Operation::Read, "db/static", Value::Null);
        asked.headers.insert("x-plain".to_owned(), vec!["h".repeat(len)]);
        server.core.handle(asked).await.unwrap();
        let shown = server.audit.first.last("request")["request"]["headers"]["x-plain"][0].as_str().unwrap().to_owned();
        let expected = if is_cut { format!("{}…", "h".repeat(8 << 10)) } else { "h".repeat(len) };
        assert!(shown == expected, "{len}: {} bytes", shown.len());
    }
    let names: Vec<String> = (0..100).map(|n| format!("{n:03}{}", "p".repeat(997))).collect();
    let meta: serde_json::Map<String, Value> = (0..100).map(|n| (format!("{n:03}"), json!("m".repeat(997)))).collect();
    server.token(json!({ "policies": names, "meta": meta, "no_default_policy": true })).await;
    let auth = server.audit.first.last("response")["response"]["auth"].clone();
    assert_eq!(auth["policies"].as_array().unwrap().len(), 32, "as many as fit into 32 KiB");
    assert_eq!(auth["metadata"].as_object().unwrap().len(), 32);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_wants_no_lists_gets_their_lengths_and_no_other_does() {
    let server = Server::start().await;
    server.audited().await;
    let short = json!({ "type": "second", "options": { "elide_list_responses": "true" } });
    server.root("sys/audit/second", short).await.unwrap();
    for name in ["a", "b", "c"] {
        server.root(&format!("db/things/{name}"), json!({})).await.unwrap();
    }
    server.call(Some(ROOT), Operation::List, "db/things/", Value::Null).await.unwrap();
    let keys = |device: &super::support::audit::Recorder| device.last("response")["response"]["data"]["keys"].clone();
    assert_eq!(keys(&server.audit.second), 3);
    assert_eq!(keys(&server.audit.first).as_array().unwrap().len(), 3);
    // What is no list is shown to both.
    server.read(ROOT, "db/static").await.unwrap();
    for device in [&server.audit.first, &server.audit.second] {
        assert!(device.last("response")["response"]["data"]["value"].is_string());
    }
}
