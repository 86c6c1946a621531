//! Leases: contract.md §2.5.

use serde_json::json;

use crate::support::{Answer, Bao, Database, Server, eventually};

fn ready() -> (Server, Database<'static>) {
    prepared(Server::dev())
}

fn prepared(server: Server) -> (Server, Database<'static>) {
    let database = Database::fresh();
    server.connect(&database);
    server.role("r", json!({}));
    (server, database)
}

#[test]
fn a_lease_can_be_looked_up_and_listed() {
    let (server, _database) = ready();
    let root = server.root();
    let credential = root.credential("r");
    let found = root
        .put("sys/leases/lookup", json!({ "lease_id": credential.lease }))
        .assert_status(200)
        .assert_at("/data/id", credential.lease.as_str())
        .assert_at("/data/path", "database/creds/r")
        .assert_at("/data/renewable", true)
        .assert_at("/data/last_renewal", json!(null));
    assert!((3540..=3600).contains(&found.number("/data/ttl")), "{found}");
    assert!(found.text("/data/issue_time").ends_with('Z'), "{found}");
    assert!(found.text("/data/expire_time") > found.text("/data/issue_time"), "{found}");
    assert!(!found.body.contains(&credential.password));

    let leaf = credential.lease.rsplit('/').next().unwrap();
    root.list("sys/leases/lookup/database/creds/r").assert_status(200).assert_at("/data/keys", json!([leaf]));
    root.list("sys/leases/lookup/database/creds").assert_at("/data/keys", json!(["r/"]));
    root.list("sys/leases/lookup/nothing/here").assert_errors(404, &[]);

    root.put("sys/leases/renew", json!({ "lease_id": credential.lease })).assert_status(200);
    let renewed = root.put("sys/leases/lookup", json!({ "lease_id": credential.lease }));
    assert!(renewed.text("/data/last_renewal").ends_with('Z'), "{renewed}");
}

/// Lists that may be long are read page by page, by clients that ask for it and by those whose policy makes them.
#[test]
fn leases_and_accessors_are_listed_page_by_page() {
    let (server, _database) = ready();
    server.role("s", json!({}));
    let root = server.root();
    let leaf = |role: &str| root.credential(role).lease.rsplit_once('/').unwrap().1.to_owned();
    let mut leaves: Vec<String> = (0..5).map(|_| leaf("r")).collect();
    leaves.sort();
    leaf("s");
    let leases = "sys/leases/lookup/database/creds";
    for (query, keys) in [
        ("r?limit=2", &leaves[..2]),
        (&format!("r?limit=2&after={}", leaves[1]), &leaves[2..4]),
        (&format!("r?after={}", leaves[3]), &leaves[4..]),
        ("r?limit=0", &leaves[..]),
        ("r", &leaves[..]),
    ] {
        let listed = root.list(&format!("{leases}/{query}")).assert_status(200).assert_at("/data/keys", json!(keys));
        listed.assert_at("/warnings", json!(null));
    }
    root.list(&format!("{leases}/r?after={}", leaves[4])).assert_errors(404, &[]);
    // A folder is one name, and what is in it is not listed again behind it.
    for (query, keys) in [("?limit=1", vec!["r/"]), ("?after=r/&limit=9", vec!["s/"]), ("?after=r&limit=1", vec!["r/"])]
    {
        root.list(&format!("{leases}{query}")).assert_status(200).assert_at("/data/keys", json!(keys));
    }
    root.list(&format!("{leases}?limit=no")).assert_status(400);

    for _ in 0..4 {
        root.child(json!({ "policies": ["default"] }));
    }
    let limited = "path \"auth/token/accessors/\" { capabilities = [\"list\", \"sudo\"] pagination_limit = 2 }\n\
                   path \"sys/leases/lookup/*\" { capabilities = [\"list\", \"sudo\"] pagination_limit = 2 }";
    let limited = server.with_policy("limited", limited);
    for (path, asked) in [("auth/token/accessors", &root), ("sys/leases/lookup/database/creds/r", &root)] {
        let whole = asked.list(path).assert_status(200).at("/data/keys");
        let mut pages: Vec<serde_json::Value> = Vec::new();
        loop {
            let after = pages.last().map_or("", |last| last.as_str().unwrap());
            let page = limited.list(&format!("{path}?after={after}"));
            if page.status == 404 {
                break;
            }
            let page = page.assert_status(200).assert_at("/warnings", json!(null)).at("/data/keys");
            let page = page.as_array().unwrap();
            // All but the last are full.
            assert!(page.len() == 2 || page.last() == whole.as_array().unwrap().last(), "{page:?} of {whole}");
            pages.extend(page.iter().cloned());
        }
        assert_eq!(json!(pages), whole, "{path}");
    }
}

#[test]
fn what_is_no_lease_is_refused_in_the_fields_words() {
    let (server, _database) = ready();
    let root = server.root();
    for route in ["lookup", "renew", "revoke"] {
        root.put(&format!("sys/leases/{route}"), json!({})).assert_error(400, "lease_id must be specified");
    }
    for id in ["database/creds/r/none", "x", "a/b/c", "\u{0}", "../../etc"] {
        root.put("sys/leases/lookup", json!({ "lease_id": id })).assert_error(400, "invalid lease");
        root.put("sys/leases/renew", json!({ "lease_id": id })).assert_error(400, "lease not found");
        root.put("sys/leases/revoke", json!({ "lease_id": id })).assert_status(204).assert_empty();
        root.put("sys/leases/revoke", json!({ "lease_id": id, "sync": false })).assert_status(202).assert_empty();
    }
    root.put("sys/leases/revoke-prefix/", json!({})).assert_status(400);
}

#[test]
fn a_lease_is_renewed_and_revoked_by_body_by_path_and_by_the_old_routes() {
    let (server, database) = ready();
    let root = server.root();
    let live = root.credential("r");
    for (path, body) in [
        ("sys/leases/renew".to_owned(), json!({ "lease_id": live.lease })),
        (format!("sys/leases/renew/{}", live.lease), json!({})),
        ("sys/renew".to_owned(), json!({ "lease_id": live.lease })),
        (format!("sys/renew/{}", live.lease), json!({})),
    ] {
        root.put(&path, body)
            .assert_status(200)
            .assert_at("/lease_id", live.lease.as_str())
            .assert_at("/lease_duration", 3600)
            .assert_at("/renewable", true)
            .assert_at("/data", json!(null));
    }
    for by_path in [true, false] {
        for route in ["sys/leases/revoke", "sys/revoke"] {
            let credential = root.credential("r");
            let answer = if by_path {
                root.put(&format!("{route}/{}", credential.lease), json!({}))
            } else {
                root.put(route, json!({ "lease_id": credential.lease }))
            };
            answer.assert_status(204).assert_empty();
            assert!(!database.has_role(&credential.user));
        }
    }
    assert!(root.has_lease(&live.lease));
    for route in ["sys/leases/revoke-prefix", "sys/revoke-prefix", "sys/leases/revoke-force", "sys/revoke-force"] {
        let credential = root.credential("r");
        root.put(&format!("{route}/database/creds/r"), json!({})).assert_status(204);
        assert!(!root.has_lease(&credential.lease), "{route}");
    }
}

/// The old routes are judged on the path as it was asked for.
#[test]
fn an_old_route_is_no_way_around_a_policy() {
    let (server, _database) = ready();
    let lease = server.root().credential("r").lease;
    let new_only = server.with_policy("new", "path \"sys/leases/revoke\" { capabilities = [\"update\"] }");
    new_only.put("sys/revoke", json!({ "lease_id": lease })).assert_multi(403, "permission denied");
    let old_only = server.with_policy("old", "path \"sys/revoke\" { capabilities = [\"update\"] }");
    old_only.put("sys/leases/revoke", json!({ "lease_id": lease })).assert_multi(403, "permission denied");
    let no_sudo = server.with_policy("prefix", "path \"sys/*\" { capabilities = [\"update\", \"list\"] }");
    for path in [
        "sys/leases/revoke-prefix/database",
        "sys/revoke-prefix/database",
        "sys/leases/revoke-force/database",
        "sys/revoke-force/database",
    ] {
        no_sudo.put(path, json!({})).assert_multi(403, "permission denied");
    }
    no_sudo.list("sys/leases/lookup/database").assert_multi(403, "permission denied");
    assert!(server.root().has_lease(&lease));
}

#[test]
fn a_limit_that_is_lowered_reaches_leases_that_live() {
    lowered_limits(Server::dev());
}

#[test]
fn a_limit_that_is_lowered_reaches_the_leases_of_a_real_openbao_too() {
    let Some(bao) = Bao::find("limits that are lowered under leases, against a real OpenBao") else { return };
    lowered_limits(Server::openbao(&bao));
}

fn lowered_limits(server: Server) {
    let (server, _database) = prepared(server);
    let root = server.root();
    server.role("free", json!({ "default_ttl": 0, "max_ttl": 0 }));
    let (of_role, of_mount) = (root.credential("r").lease, root.credential("free").lease);
    let renew = |lease: &str, increment: &str| {
        root.put("sys/leases/renew", json!({ "lease_id": lease, "increment": increment }))
    };
    let near = |answer: Answer, wanted: i64| {
        let left = answer.number("/lease_duration");
        assert!((wanted - 60..=wanted).contains(&left), "{answer}");
    };
    server.role("r", json!({ "default_ttl": "5m", "max_ttl": "10m" }));
    near(renew(&of_role, "0"), 300);
    near(renew(&of_role, "5h").assert_warning("TTL of \"5h\" exceeded the effective max_ttl of "), 600);
    root.post("sys/mounts/database/tune", json!({ "default_lease_ttl": "20m", "max_lease_ttl": "40m" }))
        .assert_status(204);
    near(renew(&of_mount, "0"), 1_200);
    near(renew(&of_mount, "5h"), 2_400);
    let later = root.child(json!({ "ttl": "2s" }));
    eventually("two seconds have passed", || server.as_token(&later).get("auth/token/lookup-self").status == 403);
    server.role("r", json!({ "default_ttl": "1s", "max_ttl": "1s" }));
    renew(&of_role, "0")
        .assert_error(400, "failed to renew entry: resp: (*logical.Response)(nil) err: past the max TTL, cannot renew");
}

#[test]
fn a_revocation_in_the_background_ends_soon() {
    let (server, database) = ready();
    let root = server.root();
    let credential = root.credential("r");
    let session = credential.login(&database);
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease, "sync": false }))
        .assert_status(202)
        .assert_empty();
    eventually("the PostgreSQL role is gone", || !database.has_role(&credential.user));
    eventually("the lease is gone", || !root.has_lease(&credential.lease));
    eventually("its session is gone", || !session.is_alive());
    root.put("sys/leases/renew", json!({ "lease_id": credential.lease })).assert_error(400, "lease not found");
}

#[test]
fn a_lease_ends_by_itself() {
    let (server, database) = ready();
    let root = server.root();
    server.role("short", json!({ "default_ttl": "2s", "max_ttl": "4s" }));
    let credential = root.credential("short");
    let session = credential.login(&database);
    // Renewed once, and not past its maximum.
    let renewed = root.put("sys/leases/renew", json!({ "lease_id": credential.lease, "increment": "1h" }));
    assert!(renewed.status == 400 || renewed.number("/lease_duration") <= 4, "{renewed}");
    eventually("the PostgreSQL role is gone", || !database.has_role(&credential.user));
    eventually("the lease is gone", || !root.has_lease(&credential.lease));
    eventually("its session is gone", || !session.is_alive());
}

#[test]
fn many_leases_that_end_together_all_end() {
    let (server, database) = ready();
    server.role("many", json!({ "default_ttl": "3s" }));
    let root = server.root();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| drop(root.credential("many"))));
        }
    });
    eventually("all PostgreSQL roles are gone", || {
        database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token-many-%'") == "0"
    });
    eventually("all leases are gone", || root.list("sys/leases/lookup/database/creds/many").status == 404);
}

#[test]
fn tidy_and_the_count_of_irrevocable_leases_answer() {
    let (server, _database) = ready();
    let root = server.root();
    root.put("sys/leases/tidy", json!({})).assert_status(202);
    root.get("sys/leases/count?type=irrevocable").assert_status(200).assert_at("/data/lease_count", 0);
    root.get("sys/leases?type=irrevocable").assert_status(200).assert_at("/data/lease_count", 0);
    root.get("sys/leases/count").assert_status(404);
}

#[test]
fn unmounting_revokes_every_lease_of_the_mount() {
    let (server, database) = ready();
    let root = server.root();
    let credentials = [root.credential("r"), root.credential("r")];
    root.delete("sys/mounts/database").assert_status(204);
    for credential in &credentials {
        assert!(!database.has_role(&credential.user));
        assert!(!root.has_lease(&credential.lease));
    }
    root.get("database/creds/r").assert_error(404, "no handler for route \"database/creds/r\". route entry not found.");
}
