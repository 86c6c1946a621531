//! The rules of `sys/mounts` and `sys/auth`.

use leasehold_core::seams::error::RequestError;
use leasehold_model::{Operation, Ttl};
use serde_json::{Value, json};

use super::support::pass;
use super::support::server::{Answer, ROOT, Server, refusal};

async fn delete(server: &Server, path: &str) -> Answer {
    server.call(Some(ROOT), Operation::Delete, path, Value::Null).await
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_mounted_says_why() {
    let server = Server::start().await;
    server.root("sys/mounts/a/b", json!({ "type": "scripted" })).await.unwrap();
    for (path, fields, why) in [
        ("db", json!({ "type": "scripted" }), "path is already in use at db/"),
        ("db/below", json!({ "type": "scripted" }), "path is already in use at db/"),
        ("a", json!({ "type": "scripted" }), "path is already in use at a/b/"),
        ("x", json!({ "type": "nosuch" }), "plugin not found in the catalog: nosuch"),
        ("x", json!({}), "backend type must be specified as a string"),
        ("sys/x", json!({ "type": "scripted" }), "cannot mount \"sys/x/\""),
        ("auth/x", json!({ "type": "scripted" }), "cannot mount \"auth/x/\""),
        ("cubbyhole", json!({ "type": "scripted" }), "cannot mount \"cubbyhole/\""),
        ("x", json!({ "type": "cubbyhole" }), "mount type of \"cubbyhole\" is not mountable"),
        (
            "x",
            json!({ "type": "scripted", "config": { "default_lease_ttl": "9999h" } }),
            "given default lease TTL greater than system max lease TTL of 2764800",
        ),
        (
            "x",
            json!({ "type": "scripted", "config": 5 }),
            "Field validation failed: error converting input for field \"config\": '' expected type \
             'map[string]interface {}', got unconvertible type 'json.Number'",
        ),
    ] {
        assert_eq!(
            refusal(server.root(&format!("sys/mounts/{path}"), fields).await),
            format!("Invalid: {why}"),
            "{path}"
        );
    }
    server.root("sys/mounts/x", json!({ "type": "scripted", "config": null, "options": null })).await.unwrap();
    server.root("sys/mounts/ab", json!({ "type": "scripted" })).await.unwrap();
    let all = server.read(ROOT, "sys/mounts").await.unwrap().data.unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["a/b/", "ab/", "cubbyhole/", "db/", "identity/", "sys/", "x/"]);
    assert!(all["x/"]["accessor"].as_str().unwrap().starts_with("scripted_"));
    assert_eq!(refusal(server.read(ROOT, "sys/mounts/nope").await), "Invalid: No secret engine mount at nope/");
}

#[tokio::test(start_paused = true)]
async fn the_longest_prefix_answers() {
    let server = Server::start().await;
    server.root("sys/mounts/a/b", json!({ "type": "scripted" })).await.unwrap();
    server.root("sys/mounts/ab", json!({ "type": "scripted" })).await.unwrap();
    server.root("a/b/things/x", json!({})).await.unwrap();
    assert!(server.read(ROOT, "a/b/things/x").await.is_ok());
    assert!(matches!(server.read(ROOT, "ab/things/x").await, Err(RequestError::NotFound)), "each has its own corner");
    assert!(matches!(server.read(ROOT, "a/things/x").await, Err(RequestError::NoRoute(_))));
}

#[tokio::test(start_paused = true)]
async fn tuning_shows_what_holds_and_changes_what_is_named() {
    let server = Server::start().await;
    let tune = |fields: Value| server.root("sys/mounts/db/tune", fields);
    let shown = async || {
        let data = server.read(ROOT, "sys/mounts/db/tune").await.unwrap().data.unwrap();
        (data["default_lease_ttl"].as_u64().unwrap(), data["max_lease_ttl"].as_u64().unwrap())
    };
    assert_eq!(shown().await, (2_764_800, 2_764_800));
    for (fields, holds) in [
        (json!({ "default_lease_ttl": "1h", "max_lease_ttl": "2h" }), (3_600, 7_200)),
        (json!({ "default_lease_ttl": "", "description": "d" }), (3_600, 7_200)),
        (json!({ "default_lease_ttl": "system" }), (2_764_800, 7_200)),
        (json!({ "max_lease_ttl": "0" }), (2_764_800, 2_764_800)),
        (json!({ "max_lease_ttl": 9_999_999 }), (2_764_800, 9_999_999)),
    ] {
        tune(fields.clone()).await.unwrap();
        assert_eq!(shown().await, holds, "{fields}");
    }
    assert_eq!(
        refusal(tune(json!({ "default_lease_ttl": "3h", "max_lease_ttl": "2h" })).await),
        "Invalid: backend max lease TTL of 7200 would be less than backend default lease TTL of 10800"
    );
    assert_eq!(shown().await, (2_764_800, 9_999_999), "a refused tuning changes nothing");
    assert_eq!(
        refusal(server.read(ROOT, "sys/mounts/nope/tune").await),
        "Invalid: cannot fetch sysview for path \"nope/\""
    );
    assert_eq!(
        refusal(server.root("sys/mounts/nope/tune", json!({})).await),
        "Invalid: tune of path \"nope/\" failed: no mount entry found"
    );
    // The CLI's `auth tune` takes this way.
    server.root("sys/mounts/auth/token/tune", json!({ "default_lease_ttl": "1h" })).await.unwrap();
    let made = server.root("auth/token/create", json!({ "policies": ["a"] })).await.unwrap();
    assert_eq!(made.auth.unwrap().ttl, Ttl::from_secs(3_600));
}

#[tokio::test(start_paused = true)]
async fn an_unmount_ends_every_lease_and_forgets_what_was_stored() {
    let server = Server::start().await;
    server.root("db/things/x", json!({})).await.unwrap();
    for _ in 0..5 {
        server.read(ROOT, "db/creds/app").await.unwrap();
    }
    delete(&server, "sys/mounts/db/").await.unwrap();
    assert!(server.target.roles().is_empty(), "at once");
    assert!(matches!(server.read(ROOT, "db/things/x").await, Err(RequestError::NoRoute(_))));
    delete(&server, "sys/mounts/db").await.unwrap();
    server.root("sys/mounts/db", json!({ "type": "scripted" })).await.unwrap();
    assert!(matches!(server.read(ROOT, "db/things/x").await, Err(RequestError::NotFound)));
    assert!(server.read(ROOT, "db/creds/app").await.is_ok());
    assert_eq!(refusal(delete(&server, "sys/mounts/sys").await), "Invalid: cannot unmount \"sys/\"");
    assert_eq!(
        refusal(delete(&server, "sys/auth/token").await),
        "Invalid: token credential backend cannot be disabled"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unmount_that_fails_leaves_the_mount_tainted_until_it_succeeds() {
    let server = Server::start().await;
    for _ in 0..4 {
        server.read(ROOT, "db/creds/app").await.unwrap();
    }
    *server.target.refuses.lock().unwrap() = Some("revoke");
    let failed = refusal(delete(&server, "sys/mounts/db").await);
    assert!(
        failed.starts_with("Invalid: failed to revoke \"db/creds/app/") && failed.contains("(1 / 4): "),
        "{failed}"
    );
    for way_out in ["\"db/\" is tainted now", "isable it again", "sys/leases/revoke-force/db/"] {
        assert!(failed.contains(way_out), "{failed}");
    }
    let is_tainted =
        async || server.read(ROOT, "sys/mounts").await.unwrap().data.unwrap()["db/"].get("tainted").cloned();
    assert_eq!(is_tainted().await, Some(json!(true)));
    assert_eq!(
        refusal(server.read(ROOT, "db/creds/app").await),
        "NoRoute: no handler for route \"db/creds/app\" on namespace \"\". route entry or namespace is tainted."
    );
    // Tuning does not heal it, and a restart does not forget it.
    server.root("sys/mounts/db/tune", json!({ "description": "d" })).await.unwrap();
    server.core.seal().await;
    server.unseal().await;
    assert!(matches!(server.read(ROOT, "db/creds/app").await, Err(RequestError::NoRoute(_))));
    assert_eq!((server.target.roles().len(), is_tainted().await), (4, Some(json!(true))));
    *server.target.refuses.lock().unwrap() = None;
    delete(&server, "sys/mounts/db").await.unwrap();
    assert!(server.target.roles().is_empty());
    pass(5).await;
    assert_eq!(server.rows().await.len(), 1, "only root's row is left");
}

#[tokio::test(start_paused = true)]
async fn mounts_and_data_are_there_after_a_restart() {
    let server = Server::start().await;
    server.root("db/things/x", json!({})).await.unwrap();
    let before = server.read(ROOT, "sys/mounts/db").await.unwrap().data;
    server.core.seal().await;
    server.unseal().await;
    assert_eq!(server.read(ROOT, "sys/mounts/db").await.unwrap().data, before);
    assert!(server.read(ROOT, "db/things/x").await.is_ok());
}

/// Asks until the move is over; how it ended.
async fn moved(server: &Server, from: &str, to: &str) -> String {
    let begun = server.root("sys/remount", json!({ "from": from, "to": to })).await.unwrap();
    assert!(begun.warnings[0].contains("has been queued"), "{:?}", begun.warnings);
    let id = begun.data.unwrap()["migration_id"].as_str().unwrap().to_owned();
    for _ in 0..600 {
        let shown = server.read(ROOT, &format!("sys/remount/status/{id}")).await.unwrap().data.unwrap();
        match shown["migration_info"]["status"].as_str().unwrap() {
            "in-progress" => pass(1).await,
            ended => return ended.to_owned(),
        }
    }
    panic!("the move does not end");
}

#[tokio::test(start_paused = true)]
async fn a_moved_mount_keeps_what_is_stored_and_ends_its_leases() {
    let server = Server::start().await;
    server.root("db/things/a", json!({})).await.unwrap();
    server.read(ROOT, "db/creds/app").await.unwrap();
    assert_eq!(server.target.roles().len(), 1);
    assert_eq!(moved(&server, "db/", "/team/pg").await, "success");
    assert!(server.target.roles().is_empty() && server.rows().await.iter().all(|row| row.connection.is_empty()));
    assert!(server.read(ROOT, "team/pg/things/a").await.is_ok());
    assert!(matches!(server.read(ROOT, "db/things/a").await, Err(RequestError::NoRoute(_))));
    let lease = server.read(ROOT, "team/pg/creds/app").await.unwrap().lease.unwrap();
    assert!(lease.id.as_str().starts_with("team/pg/creds/app/"));
    // The old path is free again.
    server.root("sys/mounts/db", json!({ "type": "scripted" })).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_move_whose_leases_do_not_end_leaves_the_mount_where_it_was_and_at_work() {
    let server = Server::start().await;
    server.read(ROOT, "db/creds/app").await.unwrap();
    *server.target.refuses.lock().unwrap() = Some("revoke");
    assert_eq!(moved(&server, "db", "pg").await, "failure");
    assert!(server.read(ROOT, "db/creds/app").await.is_ok(), "it works on");
    assert!(matches!(server.read(ROOT, "pg/creds/app").await, Err(RequestError::NoRoute(_))));
    *server.target.refuses.lock().unwrap() = None;
    assert_eq!(moved(&server, "db", "pg").await, "success");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_moved_says_why() {
    let server = Server::start().await;
    for (from, to, why) in [
        ("", "x", "both 'from' and 'to' path must be specified as a string"),
        ("db", "/", "both 'from' and 'to' path must be specified as a string"),
        ("nope", "x", "no matching mount at \"nope/\""),
        ("sys", "x", "cannot remount \"sys/\""),
        ("auth/token", "auth/x", "cannot remount \"auth/token/\""),
        ("db", "auth/x", "cannot remount secret mount to auth mount \"auth/x/\""),
        ("db", "sys/x", "cannot remount to \"sys/x/\""),
        ("db", "db/below", "path already in use at \"db/\""),
        ("db", "db", "path already in use at \"db/\""),
    ] {
        let answer = server.root("sys/remount", json!({ "from": from, "to": to })).await;
        assert_eq!(refusal(answer), format!("Invalid: {why}"), "{from} to {to}");
    }
}
