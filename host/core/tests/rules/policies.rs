//! The rules of `sys/policies`, of capabilities, of modules and of audit devices.

use base64::Engine as _;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::error::RequestError;
use leasehold_model::Operation;
use serde_json::{Value, json};

use super::support::pass;
use super::support::server::{ROOT, Server, refusal};

const BOTH_ENDS: &str = "cannot supply both 'expiration' and 'ttl' for policies";
const ELAPSED: &str = "refusing to update policy as expiration time has already elapsed";

#[tokio::test(start_paused = true)]
async fn policies_are_stored_under_their_lower_case_names() {
    let server = Server::start().await;
    server.root("sys/policies/acl/App", json!({ "policy": "db/static: read" })).await.unwrap();
    for path in ["sys/policies/acl/app", "sys/policies/acl/APP", "sys/policy/app"] {
        let shown = server.read(ROOT, path).await.unwrap().data.unwrap();
        assert_eq!(shown["name"], "app");
        let text = if path.contains("policies") { "policy" } else { "rules" };
        assert_eq!(shown[text], "db/static: read");
    }
    let listed = server.call(Some(ROOT), Operation::List, "sys/policies/acl/", Value::Null).await.unwrap();
    assert_eq!(listed.data.unwrap()["keys"], json!(["app", "default", "root"]));
    assert!(server.read(ROOT, "sys/policies/acl/response-wrapping").await.is_ok(), "hidden, not gone");
    // Nested names; base64; the old field.
    let packed = base64::engine::general_purpose::STANDARD.encode("a: read");
    server.root("sys/policies/acl/a/b", json!({ "policy": packed })).await.unwrap();
    assert_eq!(server.read(ROOT, "sys/policies/acl/a/b").await.unwrap().data.unwrap()["policy"], "a: read");
    let old = server.root("sys/policy/old", json!({ "rules": "a: read" })).await.unwrap();
    assert_eq!(old.warnings, ["'rules' is deprecated, please use 'policy' instead"]);
}

#[tokio::test(start_paused = true)]
async fn check_and_set_holds_off_who_has_not_seen_the_last_version() {
    let server = Server::start().await;
    let write = |fields: Value| server.root("sys/policies/acl/app", fields);
    let mismatch = |given: i64, version: u64| {
        format!("Invalid: check-and-set parameter {given} did not match the current version {version}")
    };
    assert_eq!(refusal(write(json!({ "policy": "a", "cas": 5 })).await), mismatch(5, 0));
    write(json!({ "policy": "a: read", "cas": -1, "cas_required": true })).await.unwrap();
    assert_eq!(
        refusal(write(json!({ "policy": "b", "cas": -1 })).await),
        "Invalid: check-and-set parameter set to -1 on existing entry"
    );
    assert_eq!(
        refusal(write(json!({ "policy": "b" })).await),
        "Invalid: check-and-set parameter required for this call"
    );
    write(json!({ "policy": "b: read", "cas": 1 })).await.unwrap();
    // A write without it clears the demand.
    write(json!({ "policy": "c: read" })).await.unwrap();
    let shown = server.read(ROOT, "sys/policies/acl/app").await.unwrap().data.unwrap();
    assert_eq!((&shown["version"], &shown["policy"]), (&json!(3), &json!("c: read")));
}

#[tokio::test(start_paused = true)]
async fn policies_that_cannot_be_used_together_are_told_so_and_compiled_once() {
    let server = Server::start().await;
    let compiled = || server.sandbox.compiled.load(std::sync::atomic::Ordering::SeqCst);
    for (text, told) in [
        ("large", "the policies have more than 20000 paths together"),
        ("dear", "the policies of this token are too large to be read together"),
    ] {
        server.policy(text, text).await;
        let token = server.token(json!({ "policies": [text] })).await;
        let before = compiled();
        for _ in 0..5 {
            let told = format!("Forbidden: permission denied: {told}");
            assert_eq!(refusal(server.read(&token, "sys/mounts").await), told);
        }
        assert_eq!(compiled(), before + 1);
        // Rules expire without a write.
        pass(61).await;
        assert!(server.read(&token, "sys/mounts").await.is_err());
        assert_eq!(compiled(), before + 2);
        server.policy(text, "sys/mounts: read").await;
        server.read(&token, "sys/mounts").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_whose_broken_blocks_have_expired_is_stored() {
    let server = Server::start().await;
    server.policy("old", "broken, expired\nsys/mounts: read").await;
    let token = server.token(json!({ "policies": ["old"] })).await;
    server.read(&token, "sys/mounts").await.unwrap();
    let broken = server.root("sys/policies/acl/new", json!({ "policy": "broken" })).await;
    assert_eq!(refusal(broken), "Invalid: failed to parse policy: At 1:1: broken");
}

#[tokio::test(start_paused = true)]
async fn texts_that_are_too_long_together_reach_no_guest() {
    let server = Server::start().await;
    let names: Vec<String> = (0..9).map(|number| format!("long{number}")).collect();
    for name in &names {
        server.policy(name, &format!("sys/mounts: read\n{}", "#".repeat(1_000_000))).await;
    }
    let all = server.token(json!({ "policies": names, "no_default_policy": true })).await;
    let few = server.token(json!({ "policies": names[..8] })).await;
    let before = server.sandbox.compiled.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(
        refusal(server.read(&all, "sys/mounts").await),
        "Forbidden: permission denied: the policies of this token are longer than 8388608 bytes together"
    );
    assert_eq!(server.sandbox.compiled.load(std::sync::atomic::Ordering::SeqCst), before);
    server.read(&few, "sys/mounts").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_no_policy_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    server.policy("app", "db/static: read").await;
    for (path, fields, why) in [
        ("app", json!({}), "'policy' parameter not supplied or empty"),
        ("app", json!({ "policy": "" }), "'policy' parameter not supplied or empty"),
        ("app", json!({ "policy": "broken" }), "failed to parse policy: At 1:1: broken"),
        ("root", json!({ "policy": "a" }), "cannot update \"root\" policy"),
        ("ROOT", json!({ "policy": "a" }), "cannot update \"root\" policy"),
        ("response-wrapping", json!({ "policy": "a" }), "cannot update \"response-wrapping\" policy"),
        ("app", json!({ "policy": "a", "ttl": "1h", "expiration": "2030-01-01T00:00:00Z" }), BOTH_ENDS),
        ("app", json!({ "policy": "a", "ttl": "0", "expiration": "2030-01-01T00:00:00Z" }), BOTH_ENDS),
        ("app", json!({ "policy": "a", "ttl": "10ms" }), ELAPSED),
        ("app", json!({ "policy": "a", "ttl": 0, "cas": 7 }), ELAPSED),
        ("app", json!({ "policy": "broken", "expiration": "2020-01-01T00:00:00Z" }), ELAPSED),
        ("app", json!({ "policy": "a", "expiration": -5 }), ELAPSED),
        ("app", json!({ "policy": "a", "cas_required": true }), "check-and-set parameter required for this call"),
    ] {
        let answer = server.root(&format!("sys/policies/acl/{path}"), fields).await;
        assert_eq!(refusal(answer), format!("Invalid: {why}"), "{path}");
    }
    assert_eq!(server.read(ROOT, "sys/policies/acl/app").await.unwrap().data.unwrap()["policy"], "db/static: read");
    for (name, why) in [
        ("root", "cannot delete \"root\" policy"),
        ("default", "cannot delete default policy"),
        ("Response-Wrapping", "cannot delete \"response-wrapping\" policy"),
    ] {
        let answer = server.call(Some(ROOT), Operation::Delete, &format!("sys/policies/acl/{name}"), Value::Null).await;
        assert_eq!(refusal(answer), format!("Invalid: {why}"));
    }
}

/// `Success!` was all that a person heard of a rule that does nothing.
#[tokio::test(start_paused = true)]
async fn what_the_guest_found_reaches_whoever_writes() {
    let server = Server::start().await;
    let warned = |answer: Result<LogicalResponse, RequestError>| answer.unwrap().warnings;
    let told = "At 1:6: \"odd: read\" is odd (write it even)";
    for path in ["sys/policies/acl/app", "sys/policy/app"] {
        assert_eq!(warned(server.root(path, json!({ "policy": "odd: read" })).await), [told], "{path}");
        assert!(warned(server.root(path, json!({ "policy": "a: read" })).await).is_empty(), "{path}");
    }
    let old = warned(server.root("sys/policy/app", json!({ "rules": "odd: read" })).await);
    assert_eq!(old, ["'rules' is deprecated, please use 'policy' instead", told]);
    let patch = server.call(Some(ROOT), Operation::Patch, "sys/policies/acl/app", json!({ "policy": "odd: list" }));
    assert_eq!(warned(patch.await), ["At 1:6: \"odd: list\" is odd (write it even)"]);
    let many = warned(server.root("sys/policies/acl/app", json!({ "policy": "odd: read\n".repeat(45) })).await);
    assert_eq!(many.len(), 21);
    assert!(many[20].starts_with("25 more warnings are not shown"), "{}", many[20]);
}

#[tokio::test(start_paused = true)]
async fn an_attribute_that_is_set_twice_is_refused_when_it_is_written() {
    let server = Server::start().await;
    for path in ["sys/policies/acl/app", "sys/policy/app"] {
        let refused = server.root(path, json!({ "policy": "twice: read" })).await;
        assert_eq!(refusal(refused), "Invalid: failed to parse policy: At 1:1: twice", "{path}");
    }
    assert!(matches!(server.read(ROOT, "sys/policies/acl/app").await, Err(RequestError::NotFound)));
}

#[tokio::test(start_paused = true)]
async fn a_blank_at_an_end_makes_no_name() {
    let server = Server::start().await;
    let blank = "policy name begins or ends with a blank: take the blank off";
    for (name, why) in [
        ("root ", "cannot update \"root\" policy"),
        (" root", "cannot update \"root\" policy"),
        ("Root\u{a0}", "cannot update \"root\" policy"),
        ("response-wrapping ", "cannot update \"response-wrapping\" policy"),
        ("app ", blank),
        (" app", blank),
        ("\tapp", blank),
        ("a\u{7}pp", "policy name holds control characters"),
    ] {
        for folder in ["sys/policies/acl", "sys/policy"] {
            let answer = server.root(&format!("{folder}/{name}"), json!({ "policy": "a: read" })).await;
            assert_eq!(refusal(answer), format!("Invalid: {why}"), "{folder}/{name:?}");
        }
    }
    server.root("sys/policies/acl/a b", json!({ "policy": "a: read" })).await.unwrap();
    // Names of modules and of what binds them have no blanks at all.
    for path in ["sys/modules/probe ", "sys/modules/ probe", "sys/policies/egp/gate ", "sys/policies/egp/a b"] {
        let answer = server.root(path, json!({ "module": "AAEC" })).await;
        assert!(matches!(answer, Err(RequestError::UnsupportedPath)), "{path}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_policy_holds_from_the_next_request_on() {
    let server = Server::start().await;
    server.policy("app", "db/static: read").await;
    let token = server.token(json!({ "policies": ["app"] })).await;
    assert!(server.read(&token, "db/static").await.is_ok());
    server.policy("app", "db/static: deny").await;
    assert!(matches!(server.read(&token, "db/static").await, Err(RequestError::Denied)));
    server.policy("app", "db/static: read").await;
    assert!(server.read(&token, "db/static").await.is_ok());
    server.call(Some(ROOT), Operation::Delete, "sys/policies/acl/app", Value::Null).await.unwrap();
    assert!(matches!(server.read(&token, "db/static").await, Err(RequestError::Denied)), "default deny");
}

#[tokio::test(start_paused = true)]
async fn an_end_of_a_policy_is_a_moment_and_nothing_else() {
    let server = Server::start().await;
    for (given, shown) in [
        (json!("2030-01-01T00:00:00Z"), "2030-01-01T00:00:00Z"),
        (json!("2030-01-01T00:00:00+02:00"), "2029-12-31T22:00:00Z"),
        (json!(1_900_000_000), "2030-03-17T17:46:40Z"),
        (json!("1900000000"), "2030-03-17T17:46:40Z"),
    ] {
        server.root("sys/policies/acl/app", json!({ "policy": "a", "expiration": given })).await.unwrap();
        assert_eq!(server.read(ROOT, "sys/policies/acl/app").await.unwrap().data.unwrap()["expiration"], shown);
    }
    for (given, why) in [
        (json!(""), "could not parse string as date and time"),
        (json!("1h"), "could not parse string as date and time"),
        (json!("2030-01-01"), "could not parse string as date and time"),
        (json!("2030-01-01 00:00:00Z"), "could not parse string as date and time"),
        (json!("2030-01-01T00:00:00Z[UTC]"), "could not parse string as date and time"),
        (json!("99999-01-01T00:00:00Z"), "could not parse string as date and time"),
        (json!(true), "could not parse time from input type"),
        (json!(1.5), "strconv.ParseInt: parsing \"1.5\": invalid syntax"),
    ] {
        let answer = server.root("sys/policies/acl/app", json!({ "policy": "a", "expiration": given })).await;
        let prefix = "Invalid: Field validation failed: error converting input for field \"expiration\"";
        assert_eq!(refusal(answer), format!("{prefix}: {why}"), "{given}");
    }
    // A write without an end takes it away.
    server.root("sys/policies/acl/app", json!({ "policy": "a", "ttl": null, "expiration": null })).await.unwrap();
    assert_eq!(server.read(ROOT, "sys/policies/acl/app").await.unwrap().data.unwrap().get("expiration"), None);
}

#[tokio::test(start_paused = true)]
async fn an_expired_policy_grants_nothing_from_its_end_on() {
    let server = Server::start().await;
    server.policy("stays", "db/things/a: read").await;
    server.root("sys/policies/acl/app", json!({ "policy": "db/static: read", "ttl": "60s" })).await.unwrap();
    let names = json!({ "policies": ["app", "stays"], "no_default_policy": true });
    let token = server.token(names.clone()).await;
    assert!(server.read(&token, "db/static").await.is_ok());
    pass(59).await;
    // Its set of policies is known by now, and must not outlive one of them.
    assert!(server.read(&token, "db/static").await.is_ok());
    pass(1).await;
    assert!(matches!(server.read(&token, "db/static").await, Err(RequestError::Denied)));
    assert!(!matches!(server.read(&token, "db/things/a").await, Err(RequestError::Denied)), "the other one holds");
    let told = server.root("sys/capabilities", json!({ "token": token, "paths": "db/static" })).await.unwrap();
    assert_eq!(told.data.unwrap()["capabilities"], json!(["deny"]));
    // It is as if it had been deleted.
    assert!(matches!(server.read(ROOT, "sys/policies/acl/app").await, Err(RequestError::NotFound)));
    let listed = server.call(Some(ROOT), Operation::List, "sys/policies/acl/", Value::Null).await.unwrap();
    assert_eq!(listed.data.unwrap()["keys"], json!(["default", "stays", "root"]));
    let made = server.root("auth/token/create", names).await.unwrap();
    assert_eq!(made.warnings, ["Policy \"app\" does not exist"]);
    let patched = server.call(Some(ROOT), Operation::Patch, "sys/policies/acl/app", json!({ "ttl": "1h" })).await;
    assert_eq!(refusal(patched), "Invalid: policy not found");
    // Nor after a restart.
    server.core.seal().await;
    server.unseal().await;
    assert!(matches!(server.read(&token, "db/static").await, Err(RequestError::Denied)));
    // It can be written as one that is not there.
    server.root("sys/policies/acl/app", json!({ "policy": "db/static: read", "cas": -1 })).await.unwrap();
    assert!(server.read(&token, "db/static").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_version_of_a_policy_that_expired_never_fits_its_successor() {
    let server = Server::start().await;
    let write = |fields: Value| server.root("sys/policies/acl/app", fields);
    let version =
        || async { server.read(ROOT, "sys/policies/acl/app").await.unwrap().data.unwrap()["version"].clone() };
    write(json!({ "policy": "a: read", "ttl": "60s" })).await.unwrap();
    assert_eq!(version().await, 1);
    pass(61).await;
    // Nothing is there, so nothing but "not there" and "none" fits: also after a restart.
    server.core.seal().await;
    server.unseal().await;
    let stale = write(json!({ "policy": "b: read", "cas": 1 })).await;
    assert_eq!(refusal(stale), "Invalid: check-and-set parameter 1 did not match the current version 0");
    write(json!({ "policy": "c: read", "cas": 0, "ttl": "60s" })).await.unwrap();
    let stale = write(json!({ "policy": "b: read", "cas": 1 })).await;
    assert_eq!(refusal(stale), "Invalid: check-and-set parameter 1 did not match the current version 2");
    pass(61).await;
    write(json!({ "policy": "d: read", "cas": -1 })).await.unwrap();
    assert_eq!(version().await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_patch_keeps_what_it_does_not_name() {
    let server = Server::start().await;
    let end = "2030-01-01T00:00:00Z";
    let first = json!({ "policy": "a: read", "cas": -1, "cas_required": true, "expiration": end });
    server.root("sys/policies/acl/app", first).await.unwrap();
    let patch = |fields: Value| server.call(Some(ROOT), Operation::Patch, "sys/policies/acl/App", fields);
    let answer = patch(json!({ "policy": "b: read" })).await.unwrap();
    assert_eq!((answer.status, answer.data), (Some(200), None));
    let shown = || async { server.read(ROOT, "sys/policies/acl/app").await.unwrap().data.unwrap() };
    let kept = shown().await;
    assert_eq!(
        [&kept["policy"], &kept["version"], &kept["cas_required"], &kept["expiration"]],
        [&json!("b: read"), &json!(2), &json!(true), &json!(end)]
    );
    patch(json!({ "cas": 2, "allow_slashes_in_identity_templates": true, "expiration": null })).await.unwrap();
    patch(json!({ "cas_required": false, "ttl": "1h" })).await.unwrap();
    let kept = shown().await;
    assert_eq!(
        [&kept["policy"], &kept["cas_required"], &kept["allow_slashes_in_identity_templates"]],
        [&json!("b: read"), &json!(false), &json!(true)]
    );
    assert_ne!(kept["expiration"], end);
    for (fields, why) in [
        (json!({ "policy": "" }), "'policy' parameter not supplied or empty"),
        (json!({ "policy": null }), "'policy' parameter not supplied or empty"),
        (json!({ "policy": "broken" }), "failed to parse policy: At 1:1: broken"),
        (json!({ "ttl": 0, "cas": 99 }), ELAPSED),
        (json!({ "cas": 99 }), "check-and-set parameter 99 did not match the current version 4"),
    ] {
        assert_eq!(refusal(patch(fields).await), format!("Invalid: {why}"));
    }
    assert_eq!(shown().await["version"], 4, "what was refused changed nothing");
    for (path, why) in [
        ("sys/policies/acl/nope", "Invalid: policy not found"),
        ("sys/policies/acl/root", "Invalid: cannot update \"root\" policy"),
        ("sys/policies/acl/response-wrapping", "Invalid: cannot update \"response-wrapping\" policy"),
        ("sys/policy/app", "UnsupportedOperation: unsupported operation"),
    ] {
        let answer = server.call(Some(ROOT), Operation::Patch, path, json!({ "policy": "a" })).await;
        assert_eq!(refusal(answer), why, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn capabilities_are_told_for_tokens_that_live() {
    let server = Server::start().await;
    let token = server.token_with("db/static: read, list\nsys/capabilities-self: update").await;
    let ask = |fields: Value| server.root("sys/capabilities", fields);
    let told = ask(json!({ "token": token, "paths": ["db/static", "x"] })).await.unwrap().data.unwrap();
    assert_eq!(Value::Object(told), json!({ "db/static": ["list", "read"], "x": ["deny"] }));
    let own = server.update(&token, "sys/capabilities-self", json!({ "path": "db/static" })).await.unwrap();
    assert_eq!(own.data.unwrap()["capabilities"], json!(["list", "read"]));
    // As a request for the path is judged: names of policies are one name in capitals or without.
    let guard = server.token_with("sys/policies/acl/prod: read").await;
    let told = ask(json!({ "token": guard, "paths": "sys/policies/acl/PROD" })).await.unwrap().data.unwrap();
    assert_eq!(told["sys/policies/acl/PROD"], json!(["read"]));
    let root = server.root("sys/capabilities-self", json!({ "paths": "x" })).await.unwrap();
    assert_eq!(root.data.unwrap()["capabilities"], json!(["root"]));
    for (fields, why) in [
        (json!({ "token": token }), "Invalid: paths must be supplied"),
        (json!({ "token": token, "paths": [""] }), "InvalidMulti: missing path"),
        (json!({ "token": "s.nosuch", "paths": ["x"] }), "InvalidMulti: invalid token"),
        (json!({ "paths": ["x"] }), "Engine: no token found"),
    ] {
        assert_eq!(refusal(ask(fields).await), why);
    }
}

#[tokio::test(start_paused = true)]
async fn stored_modules_keep_nobody_waiting_and_nothing_passes_before_they_are_loaded() {
    let server = Server::start().await;
    server.judge("hard-mandatory", "db/*").await;
    let verdict = leasehold_core::seams::sandbox::ModuleVerdict {
        decision: leasehold_core::seams::sandbox::ModuleDecision::Allow,
        messages: Vec::new(),
        max_ttl: None,
        annotations: Vec::new(),
        fuel: 1,
    };
    *server.sandbox.module.lock().unwrap() = Some(Ok(verdict));
    server.policy("user", "db/*: read\nsys/mounts: read").await;
    let token = server.token(json!({ "policies": ["user"] })).await;
    server.read(&token, "db/static").await.unwrap();
    server.core.seal().await;

    let slow = server.sandbox.may_load.lock().await;
    server.unseal().await;
    let told = "Unavailable: a policy module that judges this request is still being loaded, try again".to_owned();
    assert_eq!(refusal(server.read(&token, "db/static").await), told);
    server.read(&token, "sys/mounts").await.unwrap();
    let egp = json!({ "module": "probe", "paths": "x", "enforcement_level": "advisory" });
    assert_eq!(refusal(server.root("sys/policies/egp/other", egp).await), told);

    drop(slow);
    pass(1).await;
    server.read(&token, "db/static").await.unwrap();
}

/// A module that nobody uses and that takes long to compile kept a mandatory policy's paths shut after a restart.
#[tokio::test(start_paused = true)]
async fn what_mandatory_policies_name_is_loaded_first() {
    let server = Server::start().await;
    // In the order of their digests, and of their names, it would be the last.
    for (name, bytes) in [("a", "AAAA"), ("b", "AAAB"), ("c", "AAAC"), ("d", "AAAD")] {
        server.root(&format!("sys/modules/{name}"), json!({ "module": bytes })).await.unwrap();
    }
    for (name, module, level) in
        [("advice", "c", "advisory"), ("gate", "d", "hard-mandatory"), ("more", "d", "advisory")]
    {
        let egp = json!({ "module": module, "paths": "db/*", "enforcement_level": level });
        server.root(&format!("sys/policies/egp/{name}"), egp).await.unwrap();
    }
    server.core.seal().await;
    server.sandbox.loaded.lock().unwrap().clear();
    server.unseal().await;
    pass(1).await;
    assert_eq!(*server.sandbox.loaded.lock().unwrap(), ["000003", "000002", "000001", "000000"]);
}

#[tokio::test(start_paused = true)]
async fn modules_and_their_policies_are_bounded_in_number() {
    let server = Server::start().await;
    let push = async |number: usize| {
        let bytes = base64::engine::general_purpose::STANDARD.encode(number.to_be_bytes());
        server.root(&format!("sys/modules/m{number}"), json!({ "module": bytes })).await
    };
    for number in 0..leasehold_core::policy::modules::MODULES_MAX {
        push(number).await.unwrap();
    }
    assert!(refusal(push(1_000).await).starts_with("Invalid: 128 modules are stored"));
    push(5).await.unwrap();
    let bind = async |number: usize| {
        let egp = json!({ "module": "m0", "paths": "x", "enforcement_level": "advisory" });
        server.root(&format!("sys/policies/egp/p{number}"), egp).await
    };
    for number in 0..leasehold_core::policy::egp::POLICIES_MAX {
        bind(number).await.unwrap();
    }
    assert!(refusal(bind(1_000).await).starts_with("Invalid: 256 policies of this kind are stored"));
    bind(5).await.unwrap();
    server.call(Some(ROOT), Operation::Delete, "sys/modules/m9", Value::Null).await.unwrap();
    push(1_000).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unsealing_goes_on_when_its_client_has_gone() {
    let server = Server::sealed().await;
    let mut unsealing = Box::pin(server.core.unseal(&server.share));
    std::future::poll_fn(|context| {
        assert!(unsealing.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(unsealing);
    pass(1).await;
    assert!(!server.core.seal_status().await.unwrap().sealed);
    server.read(ROOT, "sys/mounts").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_module_changes_under_no_policy_that_was_bound_meanwhile() {
    let server = Server::start().await;
    let bind = || {
        let egp = json!({ "module": "probe", "paths": "db/*", "enforcement_level": "hard-mandatory" });
        server.root("sys/policies/egp/gate", egp)
    };
    let delete = || server.call(Some(ROOT), Operation::Delete, "sys/modules/probe", Value::Null);
    server.root("sys/modules/probe", json!({ "module": "AAEC" })).await.unwrap();

    // Bound while other bytes are being inspected.
    let slow = server.sandbox.may_inspect.lock().await;
    let push = server.root("sys/modules/probe", json!({ "module": "AAED" }));
    let (pushed, ()) = tokio::join!(push, async {
        pass(1).await;
        bind().await.unwrap();
        drop(slow);
    });
    assert!(refusal(pushed).contains("is used by a policy"));

    // Deleted, or pushed anew, while it is being configured.
    server.call(Some(ROOT), Operation::Delete, "sys/policies/egp/gate", Value::Null).await.unwrap();
    for change in ["delete", "push"] {
        let slow = server.sandbox.may_configure.lock().await;
        let (bound, ()) = tokio::join!(bind(), async {
            pass(1).await;
            if change == "delete" {
                delete().await.unwrap();
            } else {
                server.root("sys/modules/probe", json!({ "module": "AAED" })).await.unwrap();
            }
            drop(slow);
        });
        assert!(refusal(bound).contains("was changed or deleted in the meantime"), "{change}");
        server.root("sys/modules/probe", json!({ "module": "AAEC" })).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_module_in_use_neither_goes_nor_changes() {
    let server = Server::start().await;
    server.judge("hard-mandatory", "db/*").await;
    let changed = server.root("sys/modules/probe", json!({ "module": "AAED" })).await;
    assert!(refusal(changed).starts_with("Invalid: module \"probe\" is used by a policy"));
    let same = server.root("sys/modules/probe", json!({ "module": "AAEC" })).await;
    assert!(same.is_ok());
    let gone = server.call(Some(ROOT), Operation::Delete, "sys/modules/probe", Value::Null).await;
    assert!(refusal(gone).contains("is used by gate"));
    for (fields, why) in [
        (json!({ "module": "nosuch", "paths": "x", "enforcement_level": "advisory" }), "no module named \"nosuch\""),
        (json!({ "module": "probe", "paths": "/x", "enforcement_level": "advisory" }), "path \"/x\" is not canonical"),
        (
            json!({ "module": "probe", "paths": "a*b", "enforcement_level": "advisory" }),
            "path \"a*b\" is not canonical",
        ),
        (json!({ "module": "probe", "paths": "a/../b", "enforcement_level": "advisory" }), "path \"a/../b\" is not"),
        (json!({ "module": "probe", "paths": "db/", "enforcement_level": "advisory" }), "path \"db/\" ends in a slash"),
        (json!({ "module": "probe", "paths": "x", "enforcement_level": "soft-mandatory" }), "`soft-mandatory` is not"),
        (json!({ "module": "probe", "paths": "x" }), "`enforcement_level` must be"),
        (json!({ "module": "probe", "enforcement_level": "advisory" }), "`paths` must name"),
    ] {
        let said = refusal(server.root("sys/policies/egp/other", fields).await);
        assert!(said.starts_with(&format!("Invalid: {why}")), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_binding_covers_its_paths_in_every_spelling() {
    let server = Server::start().await;
    server.policy("user", "db/*: read\nsys/policies/acl/*: update").await;
    let token = server.token(json!({ "policies": ["user"] })).await;
    // The module fails, so whatever is covered is refused.
    for (paths, covered) in [("db/+", "db/static"), ("sys/policies/acl/Prod", "sys/policies/acl/PROD")] {
        server.judge("hard-mandatory", paths).await;
        let data = json!({ "policy": "a: read" });
        let answer = if covered == "db/static" {
            server.read(&token, covered).await
        } else {
            server.update(&token, covered, data).await
        };
        assert!(matches!(answer, Err(RequestError::Sandbox(_))), "{paths}: {answer:?}");
    }
    let shown = server.read(ROOT, "sys/policies/egp/gate").await.unwrap().data.unwrap();
    assert_eq!(shown["paths"], json!(["sys/policies/acl/prod"]));
}

#[tokio::test(start_paused = true)]
async fn audit_devices_come_and_go_in_the_fields_words() {
    let server = Server::start().await;
    assert_eq!(server.read(ROOT, "sys/audit").await.unwrap().data.unwrap().len(), 0);
    for (fields, why) in [
        (json!({ "type": "nosuch" }), "unknown backend type: \"nosuch\""),
        (json!({ "type": "first", "options": { "prefix": "x" } }), "audit log prefixing is not allowed"),
    ] {
        assert_eq!(refusal(server.root("sys/audit/a", fields).await), format!("Invalid: {why}"));
    }
    *server.audit.first.refuses.lock().unwrap() = Some("sys/audit/test");
    assert!(server.root("sys/audit/a", json!({ "type": "first" })).await.is_err(), "it must take a test record");
    *server.audit.first.refuses.lock().unwrap() = None;
    server.root("sys/audit/a", json!({ "type": "first" })).await.unwrap();
    assert_eq!(refusal(server.root("sys/audit/a", json!({ "type": "first" })).await), "Invalid: path already in use");
    assert_eq!(
        refusal(server.root("sys/audit-hash/nope", json!({ "input": "x" })).await),
        "Invalid: unknown audit backend \"nope/\""
    );
    let hash = async |input: &str| {
        server.root("sys/audit-hash/a", json!({ "input": input })).await.unwrap().data.unwrap()["hash"].clone()
    };
    let before = hash("x").await;
    // Devices and their salts outlive a restart.
    server.core.seal().await;
    server.unseal().await;
    assert_eq!(hash("x").await, before);
    assert_ne!(hash("y").await, before);
    server.call(Some(ROOT), Operation::Delete, "sys/audit/a", Value::Null).await.unwrap();
    assert_eq!(server.read(ROOT, "sys/audit").await.unwrap().data.unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_registered_headers_reach_audit_and_never_the_token() {
    let server = Server::start().await;
    server.audited().await;
    for header in ["X-Vault-Token", "Authorization"] {
        let path = format!("sys/config/auditing/request-headers/{header}");
        assert!(server.root(&path, json!({})).await.is_err());
    }
    server.root("sys/config/auditing/request-headers/X-Seen", json!({ "hmac": false })).await.unwrap();
    server.root("sys/config/auditing/request-headers/X-Hashed", json!({ "hmac": true })).await.unwrap();
    let mut request = super::support::server::request(Some(ROOT), Operation::Read, "db/static", Value::Null);
    for (name, value) in [("x-seen", "clear"), ("x-hashed", "canary"), ("x-other", "canary")] {
        request.headers.insert(name.to_owned(), vec![value.to_owned()]);
    }
    server.core.handle(request).await.unwrap();
    let headers = server.audit.first.last("request")["request"]["headers"].clone();
    assert_eq!(headers["x-seen"], json!(["clear"]));
    assert!(headers["x-hashed"][0].as_str().unwrap().starts_with("hmac-sha256:"));
    assert!(headers.get("x-other").is_none() && !server.audit.first.text().contains("canary"));
}
