//! Lifetimes: nothing becomes immortal, nothing outlives what it hangs from, and no error leaves a token behind.

use serde_json::{Value, json};

use super::{Differs, Fact, Same, enable_auth, holds, on_both, rule, tokens, user, write};
use crate::support::{Server, until};

/// Asks until the token is gone; it was to live for a second or two.
fn ends(server: &Server, token: &str) -> Fact {
    let client = server.as_token(token);
    until("the token ends", || (client.get("auth/token/lookup-self").status == 403).then_some(()));
    Ok(())
}

/// CVE-2021-32923: renewed in its last second, a token lived for ever.
#[test]
fn a_token_that_is_renewed_until_its_last_moment_ends() {
    on_both(Same, |server| {
        let token = server.root().child(json!({ "policies": ["default"], "explicit_max_ttl": "2s" }));
        let client = server.as_token(&token);
        until("the token ends", || {
            let renewed = client.post("auth/token/renew-self", json!({ "increment": "1h" }));
            if renewed.status == 200 {
                let left = renewed.number("/auth/lease_duration");
                assert!((0..=2).contains(&left), "{renewed}");
                let looked = client.get("auth/token/lookup-self");
                assert!(looked.status == 403 || !looked.at("/data/expire_time").is_null(), "{looked}");
            }
            (client.get("auth/token/lookup-self").status == 403).then_some(())
        });
        Ok(())
    });
}

#[test]
fn no_increment_makes_a_token_immortal() {
    on_both(Same, |server| {
        let token = server.root().child(json!({ "policies": ["default"], "explicit_max_ttl": "1h", "ttl": "30m" }));
        let client = server.as_token(&token);
        for increment in [
            json!(0),
            json!("0s"),
            json!(-1),
            json!("-1h"),
            json!(i64::MAX),
            json!("9223372036s"),
            json!("1ns"),
            Value::Null,
        ] {
            client.post("auth/token/renew-self", json!({ "increment": increment }));
            let left = client.get("auth/token/lookup-self").number("/data/ttl");
            holds((1..=3600).contains(&left), &format!("{increment} leaves {left} s"))?;
        }
        Ok(())
    });
}

#[test]
fn no_ttl_of_a_new_token_is_for_ever() {
    on_both(Same, |server| {
        let maker = server.with_policy("maker", &rule("auth/token/create", "\"create\", \"update\""));
        for ttl in [
            json!(0),
            json!("0s"),
            json!("1ns"),
            json!("999ms"),
            json!(i64::MAX),
            json!("9223372036s"),
            json!("-1"),
            json!(-1),
        ] {
            for field in ["ttl", "explicit_max_ttl", "lease"] {
                let made = maker.post("auth/token/create", json!({ field: ttl, "policies": ["maker"] }));
                if made.status == 200 {
                    let client = server.as_token(&made.text("/auth/client_token"));
                    let found =
                        server.root().post("auth/token/lookup", json!({ "token": made.text("/auth/client_token") }));
                    let is_bounded = found.status == 403 || !found.at("/data/expire_time").is_null();
                    holds(is_bounded, &format!("{field} {ttl} never ends"))?;
                    drop(client);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_batch_token_ends_with_its_parent() {
    on_both(Same, |server| {
        let parent = server.root().child(json!({ "policies": ["root"], "ttl": "1h" }));
        let made = server
            .as_token(&parent)
            .post("auth/token/create", json!({ "type": "batch", "policies": ["default"], "ttl": "1h" }));
        let batch = made.assert_status(200).text("/auth/client_token");
        holds(server.as_token(&batch).get("auth/token/lookup-self").status == 200, "the batch token is not good")?;
        server.root().post("auth/token/revoke", json!({ "token": parent })).assert_status(204);
        ends(server, &batch)
    });
}

#[test]
fn a_batch_token_is_neither_renewed_nor_made_a_parent() {
    on_both(Same, |server| {
        let text = rule("auth/token/*", "\"create\", \"update\", \"sudo\"");
        super::policy(server, "maker", &text);
        let made =
            server.root().post("auth/token/create", json!({ "type": "batch", "policies": ["maker"], "ttl": "1h" }));
        let batch = server.as_token(&made.assert_status(200).text("/auth/client_token"));
        holds(batch.post("auth/token/renew-self", json!({})).status == 400, "a batch token is renewed")?;
        for path in ["auth/token/create", "auth/token/create-orphan"] {
            holds(
                batch.post(path, json!({ "policies": ["maker"] })).status == 400,
                &format!("{path} by a batch token"),
            )?;
        }
        Ok(())
    });
}

/// Vault 0.6.4: what a token with few uses had made was not revoked with it. Such a token makes none.
#[test]
fn a_token_with_few_uses_makes_no_token() {
    on_both(Same, |server| {
        super::policy(server, "maker", &rule("auth/token/*", "\"create\", \"update\", \"sudo\""));
        for path in ["auth/token/create", "auth/token/create-orphan"] {
            let few = server.as_token(&server.root().child(json!({ "policies": ["maker"], "num_uses": 3 })));
            holds(few.post(path, json!({ "policies": ["default"] })).status == 400, &format!("{path} makes a token"))?;
        }
        Ok(())
    });
}

#[test]
fn a_token_is_gone_after_its_last_use() {
    on_both(Same, |server| {
        let made = server
            .root()
            .post("auth/token/create", json!({ "policies": ["default"], "num_uses": 2 }))
            .assert_status(200);
        let few = server.as_token(&made.text("/auth/client_token"));
        write(&few, "cubbyhole/x", json!({ "a": "b" }));
        holds(few.get("cubbyhole/x").status == 200, "the second use is none")?;
        holds(few.get("cubbyhole/x").status == 403, "there is a third use")?;
        let accessor = json!({ "accessor": made.text("/auth/accessor") });
        holds(server.root().post("auth/token/lookup-accessor", accessor).status != 200, "its accessor still finds it")
    });
}

#[test]
fn uses_are_counted_for_refused_requests_too() {
    on_both(Same, |server| {
        let few = server.as_token(&server.root().child(json!({ "policies": ["default"], "num_uses": 3 })));
        for path in ["sys/policies/acl/x", "secret/data/x"] {
            holds(few.get(path).status == 403, &format!("{path} is granted"))?;
        }
        few.get("auth/token/lookup-self");
        holds(few.get("auth/token/lookup-self").status == 403, "a fourth use is one")
    });
}

/// CVE-2026-46405: an error was told, and a token was made all the same.
#[test]
fn a_refused_token_is_not_made() {
    on_both(Same, |server| {
        let root = server.root();
        let maker = server.with_policy("maker", &rule("auth/token/create*", "\"create\", \"update\""));
        write(&root, "auth/token/roles/narrow", json!({ "allowed_policies": "default" }));
        let before = tokens(server);
        for (client, path, body) in [
            (&root, "auth/token/create", json!({ "ttl": "abc" })),
            (&root, "auth/token/create", json!({ "type": "odd" })),
            (&root, "auth/token/create", json!({ "num_uses": -1 })),
            (&root, "auth/token/create", json!({ "policies": { "a": 1 } })),
            (&root, "auth/token/create", json!({ "id": "has.dot" })),
            (&root, "auth/token/create", json!({ "type": "batch", "id": "mine" })),
            (&root, "auth/token/create", json!({ "entity_alias": "nobody" })),
            (&root, "auth/token/create/none", json!({})),
            (&root, "auth/token/create/narrow", json!({ "policies": ["other"] })),
            (&maker, "auth/token/create", json!({ "policies": ["root"] })),
            (&maker, "auth/token/create", json!({ "policies": ["other"] })),
            (&maker, "auth/token/create", json!({ "no_parent": true })),
            (&maker, "auth/token/create", json!({ "id": "mine" })),
            (&maker, "auth/token/create-orphan", json!({ "id": "mine" })),
        ] {
            let answer = client.post(path, body.clone());
            holds(answer.status >= 400, &format!("{path} {body} is answered with {}", answer.status))?;
        }
        holds(tokens(server) == before, "there are more tokens than before")
    });
}

#[test]
fn a_refused_login_makes_no_token() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        enable_auth(server, "approle", "approle");
        user(server, "ada", "default");
        let elsewhere = json!({ "password": "correct-horse", "token_bound_cidrs": "203.0.113.0/24" });
        write(&server.root(), "auth/userpass/users/eve", elsewhere);
        let before = tokens(server);
        for (path, body) in [
            ("auth/userpass/login/ada", json!({ "password": "wrong" })),
            ("auth/userpass/login/ada", json!({ "password": ["correct-horse"] })),
            ("auth/userpass/login/ada", json!({})),
            ("auth/userpass/login/eve", json!({ "password": "correct-horse" })),
            ("auth/userpass/login/nobody", json!({ "password": "correct-horse" })),
            ("auth/approle/login", json!({ "role_id": "x", "secret_id": "y" })),
            ("auth/token/login", json!({})),
        ] {
            let answer = server.nobody().post(path, body);
            holds(answer.status >= 400, &format!("{path} is answered with {}", answer.status))?;
        }
        holds(tokens(server) == before, "there are more tokens than before")
    });
}

/// A wish that cannot be met comes before the effect.
#[test]
fn a_login_whose_answer_cannot_be_wrapped_makes_no_token() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "ada", "default");
        let before = tokens(server);
        let body = json!({ "password": "correct-horse" }).to_string();
        for ttl in ["abc", "-5", "1w", "99999999999999999999"] {
            let answer =
                server.nobody().bytes("POST", "auth/userpass/login/ada", body.as_bytes(), &[("X-Vault-Wrap-TTL", ttl)]);
            holds(answer.status >= 400, &format!("{ttl} is answered with {}", answer.status))?;
        }
        holds(tokens(server) == before, "there are more tokens than before")
    });
}

#[test]
fn what_is_wrapped_is_read_once() {
    on_both(Same, |server| {
        write(&server.root(), "secret/data/x", json!({ "data": { "a": "b" } }));
        let wrapped = server.root().try_wrapped("GET", "secret/data/x", "60s").map_err(|error| error.to_string())?;
        let client = server.as_token(&wrapped.text("/wrap_info/token"));
        holds(client.put("sys/wrapping/unwrap", json!({})).status == 200, "it is not read")?;
        holds(client.put("sys/wrapping/unwrap", json!({})).status == 400, "it is read twice")
    });
}

/// The wrapped token is nobody's before it is unwrapped, and ends with its wrapping.
#[test]
fn a_token_in_a_wrapped_answer_ends_with_its_wrapping_token() {
    on_both(Differs("the token outlives its wrapping"), |server| {
        let wrapped =
            server.root().try_wrapped("POST", "auth/token/create", "60s").map_err(|error| error.to_string())?;
        let accessor = wrapped.text("/wrap_info/wrapped_accessor");
        let gone = json!({ "token": wrapped.text("/wrap_info/token") });
        server.root().post("auth/token/revoke", gone).assert_status(204);
        let looked = || server.root().post("auth/token/lookup-accessor", json!({ "accessor": accessor }));
        if server.kind() == crate::support::Kind::Leasehold {
            until("the wrapped token ends", || (looked().status != 200).then_some(()));
        }
        holds(looked().status != 200, "the token outlives its wrapping")
    });
}
