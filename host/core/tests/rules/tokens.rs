//! The rules of `auth/token/` (what a token may make, how long it lives, what ends with it).

use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::StorageError;
use leasehold_core::token::role::UsedRole;
use leasehold_core::token::{MintError, NewToken, TokenKind};
use leasehold_model::{Operation, Ttl};
use serde_json::{Value, json};

use super::support::pass;
use super::support::server::{Answer, ROOT, Server, lease_of, refusal, token_of};

/// A token that may make tokens, with these policies besides `mk`.
async fn maker(server: &Server, sudo: bool, fields: Value) -> String {
    let rule = if sudo { "update, sudo" } else { "update" };
    let name = if sudo { "mksudo" } else { "mk" };
    let text = format!("auth/token/create: {rule}\nauth/token/create-orphan: {rule}\nauth/token/renew-self: update");
    server.policy(name, &text).await;
    let mut all = json!({ "policies": [name, "extra"] });
    for (key, value) in fields.as_object().unwrap() {
        all[key] = value.clone();
    }
    server.token(all).await
}

fn policies(answer: Answer) -> Vec<String> {
    answer.unwrap().auth.unwrap().policies
}

#[tokio::test(start_paused = true)]
async fn nobody_gives_away_a_policy_that_he_does_not_hold() {
    let server = Server::start().await;
    let holder = maker(&server, false, json!({})).await;
    let bare = maker(&server, false, json!({ "no_default_policy": true })).await;
    let chief = maker(&server, true, json!({})).await;
    let subset = "Invalid: child policies must be subset of parent";
    // Who, what is asked; what comes of it.
    for (token, fields, expected) in [
        (&holder, json!({}), Ok("default extra mk")),
        (&holder, json!({ "policies": ["extra"] }), Ok("default extra")),
        (&holder, json!({ "policies": ["EXTRA", " extra ", ""] }), Ok("default extra")),
        (&holder, json!({ "policies": [], "no_default_policy": true }), Ok("extra mk")),
        (&holder, json!({ "policies": ["default", "mk"], "no_default_policy": true }), Ok("mk")),
        (&holder, json!({ "policies": ["other"] }), Err(subset)),
        (&holder, json!({ "policies": ["root"] }), Err(subset)),
        (&holder, json!({ "policies": ["extra", "root"] }), Err(subset)),
        (&holder, json!({ "policies": "extra,mk" }), Err(subset)),
        (&bare, json!({}), Ok("extra mk")),
        (&bare, json!({ "policies": ["mk"] }), Ok("mk")),
        (&bare, json!({ "policies": ["default"] }), Err(subset)),
        (&chief, json!({ "policies": ["other"] }), Ok("default other")),
        (
            &chief,
            json!({ "policies": ["root"] }),
            Err("Invalid: root tokens may not be created without parent token being root"),
        ),
        (
            &chief,
            json!({ "policies": ["response-wrapping"] }),
            Err("Invalid: cannot assign policy \"response-wrapping\""),
        ),
        (&ROOT.to_owned(), json!({}), Ok("root")),
        (&ROOT.to_owned(), json!({ "policies": ["a", "ROOT"] }), Ok("root")),
        (&ROOT.to_owned(), json!({ "policies": ["b", "a"] }), Ok("a b default")),
    ] {
        for path in ["auth/token/create", "auth/token/create-orphan"] {
            let answer = server.update(token, path, fields.clone()).await;
            match expected {
                Ok(expected) => assert_eq!(policies(answer).join(" "), expected, "{path} {fields}"),
                Err(expected) => assert_eq!(refusal(answer), expected, "{path} {fields}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn some_wishes_need_sudo() {
    let server = Server::start().await;
    let holder = maker(&server, false, json!({})).await;
    let chief = maker(&server, true, json!({})).await;
    let privileged = |what: &str| format!("Invalid: root or sudo privileges required to {what}");
    for (fields, what) in [
        (json!({ "no_parent": true }), "create orphan token"),
        (json!({ "id": "my-own" }), "specify token id"),
        (json!({ "period": "1h" }), "create periodic token"),
    ] {
        assert_eq!(refusal(server.update(&holder, "auth/token/create", fields.clone()).await), privileged(what));
        assert!(server.update(&chief, "auth/token/create", fields).await.is_ok(), "{what}");
    }
    // An orphan by its own route needs none; and zero and empty are no wishes.
    let orphan = server.update(&holder, "auth/token/create-orphan", json!({})).await.unwrap();
    assert!(orphan.auth.unwrap().orphan);
    let nothing = json!({ "ttl": "0s", "explicit_max_ttl": "0s", "period": "0s", "display_name": "", "num_uses": 0,
        "renewable": true, "type": "service", "entity_alias": "", "id": "" });
    let child = server.update(&holder, "auth/token/create", nothing).await.unwrap().auth.unwrap();
    assert!(!child.orphan && child.renewable && child.ttl == Ttl::from_secs(2_764_800));
}

#[tokio::test(start_paused = true)]
async fn less_than_a_second_is_never_for_ever() {
    let server = Server::start().await;
    let holder = maker(&server, true, json!({ "renewable": false })).await;
    for fields in [
        json!({ "policies": ["root"], "ttl": "500ms" }),
        json!({ "policies": ["root"], "lease": "1ns" }),
        json!({ "policies": ["root"], "explicit_max_ttl": "0.5s" }),
        json!({ "policies": ["root"], "period": "999999us" }),
        json!({ "policies": ["extra"], "ttl": "500ms" }),
        json!({ "policies": ["extra"], "ttl": "500ms", "type": "batch" }),
    ] {
        let made = server.root("auth/token/create", fields.clone()).await.unwrap();
        assert_eq!(made.auth.as_ref().unwrap().ttl, Ttl::from_secs(1), "{fields}");
        pass(2).await;
        assert!(!server.lives(&token_of(&made)).await, "{fields}");
    }
    for (field, why) in [("period", "batch tokens cannot have \"period\" set"), ("ttl", "")] {
        let asked = json!({ "policies": ["extra"], "type": "batch", field: "1ms" });
        let answer = server.update(&holder, "auth/token/create", asked).await;
        assert_eq!(answer.err().map(|error| error.to_string()).unwrap_or_default(), why);
    }
    // Of a mount too: a maximum of half a second is not the system's.
    server.root("sys/mounts/db/tune", json!({ "default_lease_ttl": "1ms", "max_lease_ttl": "500ms" })).await.unwrap();
    let issued = server.read(ROOT, "db/creds/app").await.unwrap();
    assert_eq!(issued.lease.unwrap().ttl, Ttl::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_in_the_fields_words() {
    let server = Server::start().await;
    for (fields, why) in [
        (json!({ "num_uses": -1 }), "number of uses cannot be negative"),
        (json!({ "num_uses": 3_000_000_000_i64 }), "number of uses is too large"),
        (json!({ "id": "hvs.mine" }), "custom token ID cannot have the 'hvs.' prefix"),
        (json!({ "id": "b.mine" }), "custom token ID cannot have the 'b.' prefix"),
        (json!({ "id": "hvb.mine" }), "custom token ID cannot have the 'hvb.' prefix"),
        (json!({ "id": "a\u{7}b" }), "custom token ID must be printable, without blanks, and at most 1024 bytes"),
        (json!({ "ttl": "-1s" }), "ttl must be positive"),
        (json!({ "period": "-1s" }), "period must be positive"),
        (json!({ "type": "batch" }), "batch tokens cannot be root tokens"),
        (json!({ "type": "batch", "policies": "a", "period": "1h" }), "batch tokens cannot have \"period\" set"),
        (json!({ "type": "batch", "policies": "a", "num_uses": 3 }), "batch tokens cannot have \"num_uses\" set"),
        (json!({ "type": "batch", "policies": "a", "num_uses": -3 }), "batch tokens cannot have \"num_uses\" set"),
        (
            json!({ "type": "batch", "policies": "a", "num_uses": 3, "period": "1h", "explicit_max_ttl": "1h" }),
            "batch tokens cannot have \"explicit_max_ttl\" set",
        ),
        (
            json!({ "type": "batch", "policies": "a", "meta": { "a": "x".repeat(8_000) } }),
            "batch token would be too long: give it fewer policies or less metadata",
        ),
        (json!({ "type": "nonsense" }), "invalid 'token_type' value"),
        (json!({ "entity_alias": "x" }), "'entity_alias' is only allowed in combination with token role"),
        (json!({ "id": "s.mine" }), "custom token ID cannot have the 's.' prefix"),
        (json!({ "id": "my.own" }), "custom token ID cannot have a '.' in the value"),
        (json!({ "id": "root" }), "cannot create a token with a duplicate ID"),
        (json!({ "id": "a b" }), "custom token ID must be printable, without blanks, and at most 1024 bytes"),
        (
            json!({ "id": "x".repeat(1_025) }),
            "custom token ID must be printable, without blanks, and at most 1024 bytes",
        ),
        (json!({ "ttl": "abc" }), "time: invalid duration \"abc\""),
    ] {
        let shown = fields.to_string();
        assert_eq!(refusal(server.root("auth/token/create", fields).await), format!("Invalid: {why}"), "{shown:.60}");
    }
    let counted = maker(&server, true, json!({ "num_uses": 5 })).await;
    assert_eq!(
        refusal(server.update(&counted, "auth/token/create", json!({})).await),
        "Invalid: restricted use token cannot generate child tokens"
    );
    let expiring = server.token(json!({ "policies": ["root"], "ttl": "1h" })).await;
    assert_eq!(
        refusal(server.update(&expiring, "auth/token/create", json!({})).await),
        "Invalid: expiring root tokens cannot create non-expiring root tokens"
    );
}

#[tokio::test(start_paused = true)]
async fn names_and_metadata_are_kept_as_the_field_keeps_them() {
    let server = Server::start().await;
    let token = server
        .token(json!({ "policies": ["a"], "display_name": "My Tok.en", "meta": { "n": 5, "k": "v" }, "id": "my-own" }))
        .await;
    assert_eq!(token, "my-own");
    let shown = server.lookup(&token).await.unwrap();
    assert_eq!(shown["display_name"], "token-My-Tok-en");
    assert_eq!(shown["meta"], json!({ "n": "5", "k": "v" }));
    assert_eq!(shown["path"], "auth/token/create");
    let made = server.root("auth/token/create", json!({ "policies": ["nosuch"] })).await.unwrap();
    assert_eq!(made.warnings, ["Policy \"nosuch\" does not exist"]);
    let random = token_of(&made);
    assert!(random.len() == 26 && random.starts_with("s."));
}

#[tokio::test(start_paused = true)]
async fn a_token_lives_as_long_as_the_least_of_its_limits() {
    let server = Server::start().await;
    let max = 2_764_800_u64;
    for (fields, ttl, warns) in [
        (json!({}), max, false),
        (json!({ "ttl": "1h" }), 3_600, false),
        (json!({ "lease": "1h" }), 3_600, false),
        (json!({ "ttl": "9999h" }), max, true),
        (json!({ "ttl": "2h", "explicit_max_ttl": "1h" }), 3_600, true),
        (json!({ "period": "1h" }), 3_600, false),
        (json!({ "period": "900h" }), max, true),
        (json!({ "period": "1h", "explicit_max_ttl": "30m" }), 1_800, true),
        (json!({ "period": "1h", "ttl": "5h" }), 3_600, false),
    ] {
        let mut asked = fields.clone();
        asked["policies"] = json!(["a"]);
        server.policy("a", "x: read").await;
        let made = server.root("auth/token/create", asked).await.unwrap();
        assert_eq!(made.auth.as_ref().unwrap().ttl, Ttl::from_secs(ttl), "{fields}");
        assert_eq!(!made.warnings.is_empty(), warns, "{fields}: {:?}", made.warnings);
        let token = token_of(&made);
        assert_eq!(server.lookup(&token).await.unwrap()["ttl"], ttl);
        // A month goes by second by second, for the ticker: the short ones must do.
        if ttl <= 3_600 {
            pass(ttl - 1).await;
            assert!(server.lives(&token).await, "{fields}");
            pass(1).await;
            assert!(!server.lives(&token).await, "{fields}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_resets_the_ttl_within_the_limits() {
    let server = Server::start().await;
    // Fields, waits with increments, and the TTL after each.
    for (fields, steps) in [
        (json!({ "ttl": "1h" }), vec![(1_800, json!(0), 3_600), (1_800, json!("2h"), 7_200), (60, json!(60), 60)]),
        // Without an increment it asks for what it had last, more or less than at its making.
        (
            json!({ "ttl": "1h" }),
            vec![(60, json!("2h"), 7_200), (60, json!(0), 7_200), (60, json!(90), 90), (60, json!(null), 90)],
        ),
        (
            json!({ "ttl": "1h", "explicit_max_ttl": "2h" }),
            vec![(3_000, json!(0), 3_600), (3_000, json!(0), 1_200), (1_000, json!("9h"), 200)],
        ),
        (json!({ "period": "1h" }), vec![(3_500, json!("9h"), 3_600), (3_500, json!(1), 3_600)]),
        (json!({ "period": "900h" }), vec![(3_500, json!(0), 2_764_800)]),
        (json!({ "period": "1h", "explicit_max_ttl": "90m" }), vec![(3_000, json!(0), 2_400)]),
    ] {
        let token = maker(&server, false, fields.clone()).await;
        for (wait, increment, ttl) in steps {
            pass(wait).await;
            let renewed = server.update(&token, "auth/token/renew-self", json!({ "increment": increment })).await;
            assert_eq!(renewed.unwrap().auth.unwrap().ttl, Ttl::from_secs(ttl), "{fields} {increment}");
            let shown = server.lookup(&token).await.unwrap();
            assert_eq!(shown["ttl"], ttl, "{fields} {increment}");
            // The row that ends it says the same.
            let ends = shown["expire_time"].as_str().unwrap().to_owned();
            let row = server.rows().await.into_iter().find(|row| row.expires_at.rfc3339() == ends);
            assert!(
                row.is_some_and(|row| row.next_at == row.expires_at && row.holder.is_none()),
                "{fields} {increment}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_renewed_says_why() {
    let server = Server::start().await;
    let fixed = server.token(json!({ "policies": ["a"], "renewable": false })).await;
    for (path, fields, why) in [
        ("renew-self", json!({}), "Invalid: lease is not renewable"),
        ("renew", json!({ "token": fixed }), "Invalid: lease is not renewable"),
        ("renew", json!({ "token": "s.nosuch" }), "Invalid: token not found"),
        ("renew", json!({}), "Invalid: missing token ID"),
        ("renew-accessor", json!({ "accessor": "nosuch" }), "InvalidMulti: invalid accessor"),
        ("renew-accessor", json!({}), "InvalidMulti: missing accessor"),
        ("revoke", json!({}), "Invalid: missing token ID"),
        ("revoke-orphan", json!({ "token": "s.nosuch" }), "Invalid: token to revoke not found"),
        ("lookup", json!({ "token": "s.nosuch" }), "Forbidden: bad token"),
        ("lookup", json!({ "token": "x".repeat(2_000) }), "Forbidden: bad token"),
        ("revoke", json!({ "token": "x".repeat(2_000) }), "Forbidden: bad token"),
        ("renew", json!({ "token": "x".repeat(2_000) }), "Forbidden: bad token"),
        ("revoke", json!({ "token": null }), "Forbidden: invalid token"),
        ("lookup", json!({ "token": 5 }), "Forbidden: invalid token"),
        ("lookup-accessor", json!({ "accessor": "x".repeat(100) }), "InvalidMulti: invalid accessor"),
    ] {
        assert_eq!(refusal(server.root(&format!("auth/token/{path}"), fields).await), why, "{path}");
    }
    assert!(server.root("auth/token/revoke", json!({ "token": "s.nosuch" })).await.is_ok());
    let unknown = server.root("auth/token/revoke-accessor", json!({ "accessor": "nosuch" })).await.unwrap();
    assert_eq!(unknown.warnings, ["No token found with this accessor"]);
}

#[tokio::test(start_paused = true)]
async fn a_tree_ends_with_its_root_and_orphans_do_not() {
    let server = Server::start().await;
    server.policy("mk", "auth/token/create: update\nauth/token/create-orphan: update\ndb/*: read").await;
    let make = async |parent: &str, path: &str| {
        token_of(&server.update(parent, &format!("auth/token/{path}"), json!({ "policies": ["mk"] })).await.unwrap())
    };
    for (route, keeps_children) in [("revoke", false), ("revoke-orphan", true)] {
        let parent = make(ROOT, "create").await;
        let child = make(&parent, "create").await;
        let grandchild = make(&child, "create").await;
        let orphan = make(&parent, "create-orphan").await;
        for token in [&parent, &child, &grandchild, &orphan] {
            server.read(token, "db/creds/app").await.unwrap();
        }
        server.root(&format!("auth/token/{route}"), json!({ "token": parent })).await.unwrap();
        // At once, without a ticker.
        assert!(!server.lives(&parent).await);
        assert_eq!(server.lives(&child).await, keeps_children, "{route}");
        assert_eq!(server.lives(&grandchild).await, keeps_children, "{route}");
        assert!(server.lives(&orphan).await, "{route}");
        if keeps_children {
            assert_eq!(server.lookup(&child).await.unwrap()["orphan"], true);
            assert_eq!(server.lookup(&grandchild).await.unwrap()["orphan"], false);
        }
        pass(5).await;
        assert_eq!(server.target.roles().len(), if keeps_children { 3 } else { 1 }, "{route}");
        for token in [&child, &orphan] {
            server.root("auth/token/revoke", json!({ "token": token })).await.unwrap();
        }
        pass(5).await;
        assert!(server.target.roles().is_empty());
    }
    // Expiry does the same.
    let parent = token_of(&server.root("auth/token/create", json!({ "policies": ["mk"], "ttl": "1h" })).await.unwrap());
    let child = make(&parent, "create").await;
    server.read(&child, "db/creds/app").await.unwrap();
    pass(3_605).await;
    assert!(!server.lives(&child).await && server.target.roles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_accessor_looks_up_and_ends_and_never_acts() {
    let server = Server::start().await;
    let made = server.root("auth/token/create", json!({ "policies": ["a"] })).await.unwrap();
    let (token, accessor) = (token_of(&made), made.auth.unwrap().accessor);
    assert!(matches!(server.read(&accessor, "auth/token/lookup-self").await, Err(RequestError::BadToken)));
    let shown = server.root("auth/token/lookup-accessor", json!({ "accessor": accessor })).await.unwrap();
    assert_eq!(shown.data.unwrap()["id"], "");
    let renewed = server.root("auth/token/renew-accessor", json!({ "accessor": accessor })).await.unwrap();
    assert!(renewed.auth.unwrap().client_token.is_none());
    let listed = server.call(Some(ROOT), Operation::List, "auth/token/accessors/", Value::Null).await.unwrap();
    assert!(listed.warnings.is_empty(), "all of them are there: {:?}", listed.warnings);
    assert!(listed.data.unwrap()["keys"].as_array().unwrap().contains(&json!(accessor)));
    server.root("auth/token/revoke-accessor", json!({ "accessor": accessor })).await.unwrap();
    assert!(!server.lives(&token).await);
}

#[tokio::test(start_paused = true)]
async fn no_shown_token_is_too_odd_to_be_refused() {
    let server = Server::start().await;
    for token in ["", "s.", "\u{0}", "../id", "x".repeat(1_025).as_str(), "s.\u{10ffff}", "token/id/"] {
        let answer = server.read(token, "auth/token/lookup-self").await;
        assert!(matches!(answer, Err(RequestError::BadToken)), "{token:.20}");
    }
}

/// A batch token below `parent` that may read credentials, and what its making said.
async fn batch(server: &Server, parent: &str, path: &str, ttl: &str) -> String {
    server.policy("app", "db/creds/app: read\nauth/token/*: update, read\nsys/leases/renew: update").await;
    let fields = json!({ "type": "batch", "policies": ["app"], "ttl": ttl, "renewable": true, "num_uses": 0 });
    let made = server.update(parent, path, fields).await.unwrap();
    let auth = made.auth.as_ref().unwrap();
    assert_eq!((auth.token_type, auth.accessor.as_str(), auth.renewable), ("batch", "", false));
    let token = token_of(&made);
    assert!(token.starts_with("b."), "{token}");
    token
}

/// A service token that may make any other.
async fn chief(server: &Server, ttl: &str) -> String {
    server.policy("chief", "auth/token/*: update, sudo").await;
    server.token(json!({ "policies": ["chief", "app"], "ttl": ttl })).await
}

#[tokio::test(start_paused = true)]
async fn a_batch_token_acts_and_is_stored_nowhere() {
    let server = Server::start().await;
    let before = server.rows().await.len();
    let token = batch(&server, ROOT, "auth/token/create", "1h").await;
    assert_eq!(server.rows().await.len(), before, "no row");
    let own = server.read(&token, "auth/token/lookup-self").await.unwrap().data.unwrap();
    assert_eq!(own["id"], token.as_str());
    let seen = server.lookup(&token).await.unwrap();
    assert_eq!(own, seen);
    for (key, value) in [
        ("type", json!("batch")),
        ("accessor", json!("")),
        ("ttl", json!(3600)),
        ("creation_ttl", json!(3600)),
        ("num_uses", json!(0)),
        ("renewable", json!(false)),
        ("orphan", json!(false)),
        ("path", json!("auth/token/create")),
        ("policies", json!(["app", "default"])),
        ("expire_time", json!("2026-11-23T01:00:00Z")),
    ] {
        assert_eq!(own[key], value, "{key}");
    }
    let told = server.root("sys/capabilities", json!({ "token": token, "paths": "db/creds/app" })).await.unwrap();
    assert_eq!(told.data.unwrap()["capabilities"], json!(["read"]));
    // The key is the seal's: it is the same after a restart.
    server.core.seal().await;
    server.unseal().await;
    assert!(server.lives(&token).await);
    let ignored = json!({ "type": "batch", "policies": ["app"], "id": "mine" });
    let made = server.root("auth/token/create", ignored).await.unwrap();
    assert_eq!(made.warnings, ["a batch token has no ID of its own: `id` was ignored"]);
    assert!(!server.lives("mine").await);
}

#[tokio::test(start_paused = true)]
async fn a_batch_token_is_neither_renewed_nor_revoked_and_makes_none() {
    let server = Server::start().await;
    let token = batch(&server, ROOT, "auth/token/create", "1h").await;
    let (no_renewal, no_end) = ("Invalid: batch tokens cannot be renewed", "Invalid: batch tokens cannot be revoked");
    for (caller, path, fields, why) in [
        (token.as_str(), "auth/token/renew-self", json!({}), no_renewal),
        (ROOT, "auth/token/renew", json!({ "token": token }), no_renewal),
        (token.as_str(), "auth/token/revoke-self", json!({}), no_end),
        (ROOT, "auth/token/revoke", json!({ "token": token }), no_end),
        (ROOT, "auth/token/revoke-orphan", json!({ "token": token }), no_end),
        (token.as_str(), "auth/token/create", json!({}), "Invalid: batch tokens cannot create more tokens"),
        (token.as_str(), "auth/token/create-orphan", json!({}), "Invalid: batch tokens cannot create more tokens"),
        (ROOT, "auth/token/renew", json!({ "token": "b.abc" }), "Invalid: token not found"),
        (ROOT, "auth/token/lookup", json!({ "token": "b.abc" }), "Forbidden: bad token"),
        (ROOT, "auth/token/revoke-orphan", json!({ "token": "b.abc" }), "Invalid: token to revoke not found"),
    ] {
        assert_eq!(refusal(server.update(caller, path, fields).await), why, "{path}");
    }
    assert!(server.root("auth/token/revoke", json!({ "token": "b.abc" })).await.is_ok());
    assert!(server.lives(&token).await);
    // A bit more, a bit less, another one's.
    for forged in [format!("{token}A"), token[..token.len() - 4].to_owned(), token.replace("b.", "s."), "b.".to_owned()]
    {
        assert!(
            matches!(server.read(&forged, "auth/token/lookup-self").await, Err(RequestError::BadToken)),
            "{forged}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_token_ends_with_its_time_and_with_its_parent() {
    let server = Server::start().await;
    let parent = chief(&server, "1h").await;
    let child = batch(&server, &parent, "auth/token/create", "30s").await;
    let orphan = batch(&server, &parent, "auth/token/create-orphan", "30s").await;
    pass(29).await;
    assert!(server.lives(&child).await);
    pass(1).await;
    for token in [&child, &orphan] {
        assert!(matches!(server.read(token, "auth/token/lookup-self").await, Err(RequestError::BadToken)));
        assert!(!server.lives(token).await);
    }
    let child = batch(&server, &parent, "auth/token/create", "2h").await;
    let orphan = batch(&server, &parent, "auth/token/create-orphan", "2h").await;
    server.root("auth/token/revoke", json!({ "token": parent })).await.unwrap();
    assert!(matches!(server.read(&child, "auth/token/lookup-self").await, Err(RequestError::BadToken)));
    assert_eq!(server.lookup(&orphan).await.unwrap()["orphan"], true);
    // The parent's own time counts too.
    let parent = chief(&server, "60s").await;
    let child = batch(&server, &parent, "auth/token/create", "2h").await;
    pass(60).await;
    assert!(!server.lives(&child).await);
}

#[tokio::test(start_paused = true)]
async fn no_lease_outlives_the_batch_token_that_asked_for_it() {
    let server = Server::start().await;
    let parent = chief(&server, "10h").await;
    for path in ["auth/token/create", "auth/token/create-orphan"] {
        let token = batch(&server, &parent, path, "30s").await;
        let issued = server.read(&token, "db/creds/app").await.unwrap();
        let lease = lease_of(&issued);
        assert_eq!(issued.lease.unwrap().ttl, Ttl::from_secs(30), "its role says an hour");
        pass(20).await;
        // Whoever renews it, and whatever he asks for.
        for caller in [token.as_str(), ROOT] {
            let fields = json!({ "lease_id": lease.as_str(), "increment": 3600 });
            let renewed = server.update(caller, "sys/leases/renew", fields).await.unwrap();
            assert_eq!(renewed.lease.unwrap().ttl, Ttl::from_secs(10), "{path}");
        }
        assert!(server.target.has(&lease));
        pass(12).await;
        assert!(!server.target.has(&lease), "{path}: undone with the token's end");
        assert!(server.rows().await.iter().all(|row| row.id != lease));
    }
}

#[tokio::test(start_paused = true)]
async fn leases_of_a_batch_token_die_with_its_parent() {
    let server = Server::start().await;
    let parent = chief(&server, "10h").await;
    let child = batch(&server, &parent, "auth/token/create", "2h").await;
    let orphan = batch(&server, &parent, "auth/token/create-orphan", "2h").await;
    let of_child = lease_of(&server.read(&child, "db/creds/app").await.unwrap());
    let of_orphan = lease_of(&server.read(&orphan, "db/creds/app").await.unwrap());
    server.root("auth/token/revoke", json!({ "token": parent })).await.unwrap();
    pass(2).await;
    assert!(!server.target.has(&of_child));
    assert!(server.target.has(&of_orphan));
    assert!(matches!(server.read(&child, "db/creds/app").await, Err(RequestError::BadToken)));
}

#[tokio::test(start_paused = true)]
async fn audit_says_what_kind_of_token_called() {
    let server = Server::start().await;
    let token = batch(&server, ROOT, "auth/token/create", "1h").await;
    server.audited().await;
    server.read(&token, "auth/token/lookup-self").await.unwrap();
    let line = server.audit.first.last("request").to_string();
    assert!(line.contains(r#""token_type":"batch""#), "{line}");
    assert!(!line.contains(&token), "{line}");
}

/// What a client sends names values in the store only where it is as short as such a name can be.
#[tokio::test(start_paused = true)]
async fn no_long_text_of_a_client_becomes_a_storage_key() {
    let server = Server::start().await;
    // No path that the front end lets in is longer than 4,096 bytes.
    let (long, name) = ("x".repeat(20_000), "x".repeat(4_000));
    let before = server.process.longest_key();
    for (operation, path, fields) in [
        (Operation::Update, "auth/token/lookup-accessor".to_owned(), json!({ "accessor": long })),
        (Operation::Update, "auth/token/renew-accessor".to_owned(), json!({ "accessor": long })),
        (Operation::Update, "auth/token/revoke-accessor".to_owned(), json!({ "accessor": long })),
        (Operation::Update, "auth/token/lookup".to_owned(), json!({ "token": long })),
        (Operation::Update, "auth/token/revoke".to_owned(), json!({ "token": long })),
        (Operation::Update, "auth/token/create".to_owned(), json!({ "id": long })),
        (Operation::Update, "auth/token/create".to_owned(), json!({ "policies": [long] })),
        (Operation::Update, "sys/leases/lookup".to_owned(), json!({ "lease_id": long })),
        (Operation::Update, "sys/leases/renew".to_owned(), json!({ "lease_id": long })),
        (Operation::Update, "sys/capabilities-accessor".to_owned(), json!({ "accessor": long, "paths": ["x"] })),
        (Operation::Read, format!("sys/policies/acl/{name}"), Value::Null),
        (Operation::Delete, format!("sys/policies/acl/{name}"), Value::Null),
        (Operation::Update, format!("sys/policies/acl/{name}"), json!({ "policy": "x: read" })),
        (Operation::Update, format!("sys/policies/egp/{name}"), json!({ "module": long, "paths": "*" })),
        (Operation::Update, format!("sys/mounts/{name}"), json!({ "type": "scripted" })),
        (Operation::Update, format!("sys/audit/{name}"), json!({ "type": "first" })),
        (Operation::Delete, format!("sys/audit/{name}"), Value::Null),
        (Operation::Update, format!("sys/config/auditing/request-headers/{name}"), json!({})),
        (Operation::Delete, format!("sys/config/auditing/request-headers/{name}"), Value::Null),
    ] {
        let _ = server.call(Some(ROOT), operation, &path, fields).await;
        let longest = server.process.longest_key();
        assert!(longest <= before.max(5_000), "{:.60}: a key of {longest} bytes", path);
    }
    // Accessors are looked up by whoever may ask for them: only what can be one.
    for accessor in ["x".repeat(65), "x".repeat(4_000)] {
        let asked = server.process.longest_key();
        let said = refusal(server.root("auth/token/lookup-accessor", json!({ "accessor": accessor })).await);
        assert_eq!(said, "InvalidMulti: invalid accessor");
        assert!(server.process.longest_key() == asked, "{} bytes were looked up", accessor.len());
    }
}

/// The longest token that somebody may choose is one, and may be shown; accessors are listed over all pages.
#[tokio::test(start_paused = true)]
async fn the_longest_token_works_and_all_accessors_are_listed() {
    let server = Server::start().await;
    let longest = server.token(json!({ "policies": ["root"], "id": "x".repeat(1_024) })).await;
    assert_eq!(longest.len(), 1_024);
    assert!(server.read(&longest, "auth/token/lookup-self").await.is_ok());
    assert_eq!(server.lookup(&longest).await.unwrap()["id"], longest.as_str());
    // A batch token carries its record, and may be longer.
    let meta = json!({ "a": "y".repeat(2_000) });
    let batch = server.token(json!({ "policies": ["a"], "type": "batch", "meta": meta })).await;
    assert!(batch.len() > 2_000 && server.lookup(&batch).await.unwrap()["meta"] == meta);

    let world = super::support::node::World::new();
    let node = world.start().await;
    for n in 0..1_005 {
        node.token(&format!("t{n}"), None, Ttl::from_secs(3_600)).await;
    }
    let all = node.tokens.accessors("", 10_000).await.unwrap();
    assert!(all.len() == 1_005 && all.windows(2).all(|pair| pair[0] < pair[1]), "each once, in order");
    for most in [1, 999, 1_000, 1_001, 1_005] {
        assert_eq!(node.tokens.accessors("", most).await.unwrap(), all[..most], "{most}");
    }
}

/// What init hands out, and what a development server begins with.
#[tokio::test(start_paused = true)]
async fn the_first_token_is_root_without_end() {
    for (first, path, name) in [
        (leasehold_core::token::create::First::Root, "auth/token/root", "root"),
        (leasehold_core::token::create::First::Development(None), "auth/token/create", "token"),
    ] {
        let server = Server::empty(Vec::new());
        let made = server.core.init(1, 1, first).await.unwrap();
        assert!(!server.core.unseal(&made.shares[0].0).await.unwrap().sealed);
        let token = made.root_token.expose();
        assert!(token.len() == 26 && token.starts_with("s."));
        let shown = server.read(token, "auth/token/lookup-self").await.unwrap().data.unwrap();
        for (key, value) in [
            ("path", json!(path)),
            ("display_name", json!(name)),
            ("policies", json!(["root"])),
            ("orphan", json!(true)),
            ("renewable", json!(false)),
            ("expire_time", Value::Null),
            ("ttl", json!(0)),
            ("creation_ttl", json!(0)),
            ("explicit_max_ttl", json!(0)),
            ("num_uses", json!(0)),
        ] {
            assert_eq!(shown[key], value, "{key}");
        }
    }
}

/// Who may have which policies is decided by the role as it is when the token is stored, however long the request took.
#[tokio::test(start_paused = true)]
async fn no_token_is_made_by_a_role_as_it_is_no_more() {
    let server = Server::start().await;
    let unsealed = server.core.unsealed().unwrap();
    let tokens = &unsealed.tokens;
    let allow = async |name: &str| {
        let allowed = vec![name.to_owned()];
        tokens
            .update_role("r", |role| {
                role.allowed_policies.clone_from(&allowed);
                Ok(())
            })
            .await
            .unwrap();
    };
    let mint = async |used: &UsedRole| {
        let new = NewToken {
            kind: TokenKind::Service,
            parent: None,
            mount: None,
            policies: used.role.allowed_policies.clone(),
            path: "auth/token/create/r".to_owned(),
            display_name: "token".to_owned(),
            meta: None,
            role: Some((used.name.clone(), used.unchanged)),
            num_uses: 0,
            created_at: server.clock.now(),
            ttl: Ttl::from_secs(60),
            explicit_max_ttl: Ttl::ZERO,
            period: Ttl::ZERO,
            agreed_end: None,
            renewable: true,
            bound_cidrs: Vec::new(),
            entity: None,
            login: None,
            id: None,
            wraps: None,
        };
        tokens.mint(new).await
    };
    allow("a").await;
    let stale = tokens.role("r").await.unwrap().unwrap();
    allow("b").await;
    let refused = mint(&stale).await;
    assert!(matches!(refused, Err(MintError::Store(StorageError::Conflict(_)))), "{refused:?}");
    let fresh = tokens.role("r").await.unwrap().unwrap();
    let (_, made) = mint(&fresh).await.unwrap();
    assert_eq!((made.policies, made.role), (vec!["b".to_owned()], Some("r".to_owned())));
    server.call(Some(ROOT), Operation::Delete, "auth/token/roles/r", Value::Null).await.unwrap();
    assert!(mint(&fresh).await.is_err(), "it is gone");
    assert_eq!(refusal(server.root("auth/token/create/r", json!({})).await), "Invalid: unknown role r");
}
