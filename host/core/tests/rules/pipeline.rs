//! The order of one request. Each of these fails when its step is left out or comes in another place.

use std::time::Duration;

use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::sandbox::{ModuleDecision, ModuleVerdict, SandboxError};
use leasehold_model::{Operation, TokenId, Ttl};
use serde_json::{Value, json};

use super::support::engine::PASSWORD;
use super::support::pass;
use super::support::server::{ROOT, Server, lease_of, refusal, request, token_of};

fn sandbox_errors() -> Vec<SandboxError> {
    vec![
        SandboxError::Trap("unreachable".to_owned()),
        SandboxError::Fuel,
        SandboxError::Time,
        SandboxError::Memory,
        SandboxError::Answer("too long".to_owned()),
        SandboxError::Failed("no data".to_owned()),
        SandboxError::Unknown("set".to_owned()),
        SandboxError::Busy,
        SandboxError::Host("io".to_owned()),
    ]
}

fn verdict(decision: ModuleDecision, max_ttl: Option<Ttl>) -> Result<ModuleVerdict, SandboxError> {
    Ok(ModuleVerdict {
        decision,
        messages: vec!["office hours only".to_owned()],
        max_ttl,
        annotations: Vec::new(),
        fuel: 1,
    })
}

#[tokio::test(start_paused = true)]
async fn whoever_is_refused_is_audited_before_he_hears_of_it() {
    let server = Server::start().await;
    server.audited().await;
    let nobody = server.token_with("x: read").await;
    for (token, path, error) in [
        (Some(nobody.as_str()), "db/creds/app", "Denied: permission denied"),
        (Some("s.unknown"), "db/creds/app", "BadToken: permission denied"),
        (None, "db/creds/app", "BadToken: permission denied"),
        (None, "nomount/x", "BadToken: permission denied"),
        (Some(nobody.as_str()), "nomount/x", "Denied: permission denied"),
    ] {
        server.audit.first.clear();
        assert_eq!(refusal(server.call(token, Operation::Read, path, Value::Null).await), error);
        for kind in ["request", "response"] {
            let line = server.audit.first.last(kind);
            let said = line["error"].as_str().unwrap();
            let denied = "1 error occurred:\n\t* permission denied\n\n";
            assert_eq!(said, if error.starts_with("Denied") { denied } else { "permission denied" }, "{path} {kind}");
            assert_eq!(line["request"]["path"], path);
        }
        // What audit cannot take is not answered as a refusal either.
        *server.audit.first.refuses.lock().unwrap() = Some("\"type\":\"request\"");
        assert!(matches!(server.call(token, Operation::Read, path, Value::Null).await, Err(RequestError::Audit)));
        *server.audit.first.refuses.lock().unwrap() = None;
    }
    let denied = server.audit.first.last("request");
    assert_eq!(denied["auth"]["policy_results"]["allowed"], false);
    assert_eq!(server.target.count("effect"), 0);
}

/// Attack A4: what was not read is refused in the words of its path, recorded, and never carried out.
#[tokio::test(start_paused = true)]
async fn a_request_whose_body_was_withheld_is_refused_and_recorded() {
    let server = Server::start().await;
    server.audited().await;
    let withheld = async |token: Option<&str>, path: &str| {
        let mut asked = request(token, Operation::Update, path, Value::Null);
        asked.body_withheld = true;
        refusal(server.core.handle(asked).await)
    };
    let too_large = "BodyTooLarge: http: request body too large";
    for (token, path, error) in [
        (None, "db/roles/r", "BadToken: permission denied"),
        (Some("s.unknown"), "db/roles/r", "BadToken: permission denied"),
        // It was made after the front end had asked.
        (Some(ROOT), "db/roles/r", too_large),
        (Some(ROOT), "sys/mounts/other", too_large),
    ] {
        server.audit.first.clear();
        assert_eq!(withheld(token, path).await, error, "{path}");
        let line = server.audit.first.last("request");
        assert_eq!(line["request"]["path"], path);
        assert_eq!(line["request"]["data"], Value::Null, "{path}");
    }
    for path in ["sys/init", "sys/unseal"] {
        assert_eq!(withheld(None, path).await, too_large, "{path}");
    }
    assert!(server.read(ROOT, "sys/mounts/other").await.is_err(), "nothing was carried out");
    assert!(
        server.core.knows(&TokenId::new(ROOT), None).await
            && !server.core.knows(&TokenId::new("s.unknown"), None).await
    );
    let sealed = Server::sealed().await;
    assert!(!sealed.core.knows(&TokenId::new(ROOT), None).await);
}

#[tokio::test(start_paused = true)]
async fn an_acl_that_gives_no_answer_never_lets_anybody_in() {
    let server = Server::start().await;
    let token = server.token_with("db/*: create, read, update, delete, list, sudo").await;
    assert!(server.read(&token, "db/creds/app").await.is_ok());
    let before = server.target.count("effect");
    for error in sandbox_errors() {
        *server.sandbox.acl_fails.lock().unwrap() = Some(error.clone());
        let answer = server.read(&token, "db/creds/app").await;
        let answer = answer.map(|_| ()).unwrap_err();
        assert!(matches!(answer, RequestError::Sandbox(_) | RequestError::Unavailable(_)), "{error}: {answer:?}");
        assert!(server.update(&token, "db/things/a", json!({})).await.is_err(), "{error}");
    }
    *server.sandbox.acl_fails.lock().unwrap() = None;
    assert_eq!(server.target.count("effect"), before);
    assert!(matches!(server.read(&token, "db/things/a").await, Err(RequestError::NotFound)));
}

#[tokio::test(start_paused = true)]
async fn a_mandatory_module_that_gives_no_answer_refuses() {
    let server = Server::start().await;
    let token = server.token_with("db/*: read").await;
    server.judge("hard-mandatory", "db/*").await;
    let zero = verdict(ModuleDecision::Allow, Some(Ttl::ZERO));
    for said in sandbox_errors().into_iter().map(Err).chain([verdict(ModuleDecision::Deny, None), zero]) {
        *server.sandbox.module.lock().unwrap() = Some(said.clone());
        assert!(server.read(&token, "db/creds/app").await.is_err(), "{said:?}");
    }
    assert_eq!(server.target.count("effect"), 0);
    // Neither an allow nor an abstention replaces the ACL.
    for decision in [ModuleDecision::Allow, ModuleDecision::Abstain] {
        *server.sandbox.module.lock().unwrap() = Some(verdict(decision, None));
        assert!(server.read(&token, "db/creds/app").await.is_ok());
        let nobody = server.token_with("x: read").await;
        assert!(matches!(server.read(&nobody, "db/creds/app").await, Err(RequestError::Denied)));
    }
}

/// One module in two bindings: the places that one of them uses up are not the other's.
#[tokio::test(start_paused = true)]
async fn each_binding_is_asked_in_places_of_its_own() {
    let server = Server::start().await;
    let token = server.token_with("db/*: read").await;
    server.judge("hard-mandatory", "db/*").await;
    let other = json!({ "module": "probe", "paths": "db/creds/*", "enforcement_level": "advisory" });
    server.root("sys/policies/egp/advice", other).await.unwrap();
    *server.sandbox.module.lock().unwrap() = Some(verdict(ModuleDecision::Allow, None));
    server.sandbox.bindings_asked.lock().unwrap().clear();
    server.read(&token, "db/creds/app").await.unwrap();
    assert_eq!(*server.sandbox.bindings_asked.lock().unwrap(), ["advice", "gate"]);
}

#[tokio::test(start_paused = true)]
async fn an_advisory_module_is_recorded_and_never_refuses() {
    let server = Server::start().await;
    server.audited().await;
    let token = server.token_with("db/*: read").await;
    server.judge("advisory", "db/*").await;
    for said in sandbox_errors().into_iter().map(Err).chain([verdict(ModuleDecision::Deny, Some(Ttl::from_secs(1)))]) {
        *server.sandbox.module.lock().unwrap() = Some(said.clone());
        let answer = server.read(&token, "db/creds/app").await.unwrap();
        assert_eq!(answer.lease.unwrap().ttl, Ttl::from_secs(3600), "advice puts no ceiling");
        let judged = &server.audit.first.last("request")["auth"]["policy_results"];
        let judgement = &judged["policy_modules"][0];
        assert_eq!(judgement["verdict"], if said.is_ok() { "deny" } else { "failed" });
        assert_eq!(judgement.get("passed_over"), said.is_err().then_some(&json!(true)), "{said:?}");
        assert_eq!(judged["allowed"], true);
    }
}

#[tokio::test(start_paused = true)]
async fn what_audit_cannot_record_does_not_begin() {
    let server = Server::start().await;
    server.audited().await;
    *server.audit.first.refuses.lock().unwrap() = Some("\"type\":\"request\"");
    assert!(matches!(server.read(ROOT, "db/creds/app").await, Err(RequestError::Audit)));
    assert!(matches!(server.root("db/things/a", json!({})).await, Err(RequestError::Audit)));
    assert!(matches!(server.root("auth/token/create", json!({})).await, Err(RequestError::Audit)));
    *server.audit.first.refuses.lock().unwrap() = None;
    assert_eq!(server.target.count("effect"), 0);
    assert!(matches!(server.read(ROOT, "db/things/a").await, Err(RequestError::NotFound)));
    let accessors = server.call(Some(ROOT), Operation::List, "auth/token/accessors/", Value::Null).await.unwrap();
    assert_eq!(accessors.data.unwrap()["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_audit_cannot_record_does_not_leave_and_does_not_live() {
    let server = Server::start().await;
    server.audited().await;
    *server.audit.first.refuses.lock().unwrap() = Some("\"type\":\"response\"");
    assert!(matches!(server.read(ROOT, "db/creds/app").await, Err(RequestError::Audit)));
    assert!(matches!(server.root("auth/token/create", json!({})).await, Err(RequestError::Audit)));
    *server.audit.first.refuses.lock().unwrap() = None;
    pass(5).await;
    assert_eq!(server.target.count("effect"), 1);
    assert!(server.target.roles().is_empty());
    assert_eq!(server.rows().await.len(), 1, "only root's row is left");
}

#[tokio::test(start_paused = true)]
async fn one_device_that_writes_is_enough() {
    let server = Server::start().await;
    server.audited().await;
    server.root("sys/audit/second", json!({ "type": "second" })).await.unwrap();
    *server.audit.first.refuses.lock().unwrap() = Some("type");
    assert!(server.read(ROOT, "db/creds/app").await.is_ok());
    *server.audit.second.refuses.lock().unwrap() = Some("type");
    assert!(matches!(server.read(ROOT, "db/creds/app").await, Err(RequestError::Audit)));
}

#[tokio::test(start_paused = true)]
async fn no_secret_reaches_audit_or_debug() {
    let server = Server::start().await;
    server.audited().await;
    let token = server.token_with("db/*: create, read, update").await;
    let answer = server.read(&token, "db/creds/app").await.unwrap();
    assert_eq!(answer.data.as_ref().unwrap()["password"], PASSWORD);
    server.read(&token, "db/static").await.unwrap();
    let asked = json!({ "password": "canary-in-request", "list": [{ "deep": "canary-in-request" }] });
    server.update(&token, "db/things/a", asked.clone()).await.unwrap();
    let shown = format!("{answer:?} {:?}", request(Some(&token), Operation::Update, "db/things/a", asked));
    for text in [server.audit.first.text(), shown] {
        for secret in [PASSWORD, "canary-in-request", token.as_str()] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    let hash = server.root("sys/audit-hash/first", json!({ "input": PASSWORD })).await.unwrap();
    let hash = hash.data.unwrap()["hash"].as_str().unwrap().to_owned();
    assert!(hash.starts_with("hmac-sha256:") && hash.len() == 12 + 64);
    assert!(server.audit.first.text().contains(&hash), "an auditor can search for what he knows");
    // The store behind the barrier is as tight.
    for row in server.rows().await {
        assert!(!String::from_utf8_lossy(&row.body).contains("username"), "{row:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn policies_judge_the_path_that_is_routed() {
    let server = Server::start().await;
    server.audited().await;
    let token = server
        .token_with(
            "db/creds/*: read\ndb/creds/admin: deny\nsys/policies/acl/*: read, update\nsys/policies/acl/guard: deny",
        )
        .await;
    server.policy("guard", "x: read").await;
    assert!(server.read(&token, "db/creds/app").await.is_ok());
    assert!(matches!(server.read(&token, "db/creds/admin").await, Err(RequestError::Denied)));
    // The same names in other clothes.
    for path in ["sys/policies/acl/GUARD", "sys/policies/acl/guard/", "sys/policies/acl/Guard"] {
        assert!(matches!(server.read(&token, path).await, Err(RequestError::Denied)), "{path}");
        let (asked, ..) = server.sandbox.last_asked();
        assert_eq!(server.audit.first.last("request")["request"]["path"], asked.as_str(), "{path}");
    }
    assert!(matches!(
        server.update(&token, "sys/policies/acl/GUARD", json!({ "policy": "x" })).await,
        Err(RequestError::Denied)
    ));
    // Where a slash leads nowhere, nothing is served, whatever the rules say of either spelling.
    for path in ["db/creds/app/", "db/creds/admin/"] {
        assert!(matches!(server.read(&token, path).await, Err(RequestError::UnsupportedPath)), "{path}");
    }
    // Modules judge the same path.
    server.judge("hard-mandatory", "db/creds/app").await;
    *server.sandbox.module.lock().unwrap() = Some(verdict(ModuleDecision::Deny, None));
    assert!(server.read(&token, "db/creds/app").await.is_err());
    assert!(server.read(&token, "db/creds/app/").await.is_err());
    assert_eq!(server.sandbox.module_asked.lock().unwrap().last().unwrap().path, "db/creds/app");
}

#[tokio::test(start_paused = true)]
async fn modules_see_values_of_visible_fields_only() {
    let server = Server::start().await;
    let token = server.token_with("db/*: create, update").await;
    server.judge("hard-mandatory", "db/*").await;
    *server.sandbox.module.lock().unwrap() = Some(verdict(ModuleDecision::Allow, None));
    let body = json!({ "color": "red", "password": "canary-1", "unknown": "canary-2" });
    server.update(&token, "db/things/a", body).await.unwrap();
    let asked = server.sandbox.module_asked.lock().unwrap().last().unwrap().clone();
    assert!(!format!("{asked:?}").contains("canary"), "{asked:?}");
    assert!(!format!("{asked:?}").contains(&token));
    let names: Vec<&str> = asked.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["color", "password", "unknown"]);
}

#[tokio::test(start_paused = true)]
async fn a_modules_ceiling_holds_for_leases_their_renewals_and_tokens() {
    let server = Server::start().await;
    let token = server.token_with("db/*: read\nsys/leases/renew: update\nauth/token/create: update").await;
    server.judge("hard-mandatory", "db/*,auth/token/create").await;
    *server.sandbox.module.lock().unwrap() = Some(verdict(ModuleDecision::Allow, Some(Ttl::from_secs(60))));
    let answer = server.read(&token, "db/creds/app").await.unwrap();
    assert_eq!(answer.lease.as_ref().unwrap().ttl, Ttl::from_secs(60));
    let renewal = json!({ "lease_id": lease_of(&answer).as_str(), "increment": 3600 });
    let renewed = server.update(&token, "sys/leases/renew", renewal.clone()).await.unwrap();
    assert_eq!(renewed.lease.unwrap().ttl, Ttl::from_secs(60));
    assert_eq!(server.sandbox.module_asked.lock().unwrap().last().unwrap().path, "db/creds/app");
    let child = server.update(&token, "auth/token/create", json!({ "ttl": "1h" })).await.unwrap();
    assert_eq!(child.auth.unwrap().ttl, Ttl::from_secs(60));
    *server.sandbox.module.lock().unwrap() = Some(Err(SandboxError::Fuel));
    assert!(server.update(&token, "sys/leases/renew", renewal).await.is_err());
}

/// A ceiling held for the creation only: `renew-self` with `increment=700h` walked out of it.
#[tokio::test(start_paused = true)]
async fn a_modules_ceiling_holds_for_a_tokens_whole_life_and_for_all_that_it_makes() {
    let server = Server::start().await;
    server.judge("hard-mandatory", "auth/token/create,auth/token/create-orphan").await;
    *server.sandbox.module.lock().unwrap() = Some(verdict(ModuleDecision::Allow, Some(Ttl::from_secs(60))));
    server.policy("maker", "auth/token/*: create, update, read, sudo").await;
    let maker = server.token(json!({ "policies": ["maker"], "ttl": "10h" })).await;
    for (how, path, fields) in [
        ("a service token", "auth/token/create", json!({ "ttl": "700h" })),
        ("one with a period", "auth/token/create", json!({ "period": "700h" })),
        ("one with a longer maximum", "auth/token/create", json!({ "explicit_max_ttl": "700h" })),
        ("an orphan", "auth/token/create-orphan", json!({})),
        ("an orphan by its field", "auth/token/create", json!({ "no_parent": true })),
        ("a batch token", "auth/token/create", json!({ "type": "batch", "ttl": "700h" })),
    ] {
        let made = server.update(&maker, path, fields.clone()).await.unwrap().auth.unwrap();
        assert_eq!(made.ttl, Ttl::from_secs(60), "{how}");
        let is_batch = made.token_type == "batch";
        let token = made.client_token.as_ref().unwrap().expose().to_owned();
        pass(20).await;
        if !is_batch {
            // No module judges these paths: what was agreed when the token was made must do.
            for renewal in [("auth/token/renew-self", json!({ "increment": "700h" }), token.clone())]
                .into_iter()
                .chain([("auth/token/renew", json!({ "token": token, "increment": "700h" }), ROOT.to_owned())])
            {
                let (path, fields, by) = renewal;
                let renewed = server.update(&by, path, fields).await.unwrap();
                assert_eq!(renewed.auth.unwrap().ttl, Ttl::from_secs(40), "{how}: {path}");
                assert!(
                    renewed.warnings.iter().any(|warning| warning.contains("\"40s\"")),
                    "{how}: {:?}",
                    renewed.warnings
                );
            }
            let shown = server.read(&token, "auth/token/lookup-self").await.unwrap().data.unwrap();
            assert_eq!(shown["explicit_max_ttl"], 60, "{how}");
            // Whatever it makes keeps to its end, also where no module is asked any more.
            *server.sandbox.module.lock().unwrap() = Some(verdict(ModuleDecision::Allow, None));
            for child in
                [json!({ "ttl": "700h" }), json!({ "no_parent": true, "period": "700h" }), json!({ "type": "batch" })]
            {
                let child = server.update(&token, "auth/token/create", child).await.unwrap().auth.unwrap();
                assert!(child.ttl <= Ttl::from_secs(40), "{how}: {}", child.ttl);
            }
            *server.sandbox.module.lock().unwrap() = Some(verdict(ModuleDecision::Allow, Some(Ttl::from_secs(60))));
        }
        pass(40).await;
        assert!(server.read(&token, "auth/token/lookup-self").await.is_err(), "{how} lives on");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_use_of_a_token_ends_it_and_what_it_got() {
    let server = Server::start().await;
    server.policy("app", "db/*: read\nauth/token/lookup-self: read").await;
    let one = || server.token(json!({ "policies": ["app"], "num_uses": 1 }));
    let token = one().await;
    let said = refusal(server.read(&token, "db/creds/app").await);
    assert_eq!(
        said,
        "Invalid: Secret cannot be returned; token had one use left, so leased credentials were immediately revoked."
    );
    pass(5).await;
    assert!(server.target.roles().is_empty() && !server.lives(&token).await);
    assert_eq!(server.target.count("effect"), 1);

    let token = one().await;
    let shown = server.read(&token, "auth/token/lookup-self").await.unwrap();
    assert_eq!(shown.data.unwrap()["num_uses"], -1);
    assert!(matches!(server.read(&token, "auth/token/lookup-self").await, Err(RequestError::BadToken)));

    // Refused, or not recorded: a use all the same, and the token ends all the same.
    let token = one().await;
    assert!(matches!(server.read(&token, "sys/mounts").await, Err(RequestError::Denied)));
    assert!(!server.lives(&token).await);
    let token = one().await;
    server.audited().await;
    *server.audit.first.refuses.lock().unwrap() = Some("db/creds");
    assert!(matches!(server.read(&token, "db/creds/app").await, Err(RequestError::Audit)));
    assert!(!server.lives(&token).await);
    assert_eq!(server.rows().await.len(), 1, "only root's row is left");
}

#[tokio::test(start_paused = true)]
async fn uses_are_counted_once_each_however_many_come_together() {
    let server = Server::start().await;
    server.policy("app", "db/*: read").await;
    let token = server.token(json!({ "policies": ["app"], "num_uses": 10 })).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (core, token) = (server.core.clone(), token.clone());
        calls.spawn(async move {
            core.handle(request(Some(&token), Operation::Read, "db/static", Value::Null)).await.is_ok()
        });
    }
    let answers = calls.join_all().await;
    assert_eq!(answers.into_iter().filter(|ok| *ok).count(), 10);
    assert!(!server.lives(&token).await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_leaves_no_credential_behind() {
    let server = Server::start().await;
    *server.engine.takes.lock().unwrap() = Duration::from_secs(2);
    let call = server.read(ROOT, "db/creds/app");
    assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err());
    pass(2).await;
    assert_eq!(server.target.count("effect"), 1, "the saga went on without its client");
    pass(20).await;
    assert!(server.target.roles().is_empty());
    assert_eq!(server.rows().await.len(), 1, "only root's row is left");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_early_ends_its_used_up_token() {
    let server = Server::start().await;
    server.policy("app", "db/*: read").await;
    let token = server.token(json!({ "policies": ["app"], "num_uses": 1 })).await;
    *server.engine.takes.lock().unwrap() = Duration::from_secs(2);
    assert!(tokio::time::timeout(Duration::from_secs(1), server.read(&token, "db/creds/app")).await.is_err());
    pass(30).await;
    assert!(server.target.roles().is_empty() && !server.lives(&token).await);
}

#[tokio::test(start_paused = true)]
async fn a_sealed_server_refuses_everything_but_its_own_state() {
    let server = Server::sealed().await;
    for (operation, path) in [
        (Operation::Read, "db/creds/app"),
        (Operation::Read, "sys/mounts"),
        (Operation::Update, "auth/token/create"),
        (Operation::Read, "sys/internal/ui/mounts"),
        (Operation::Update, "sys/seal"),
        (Operation::Read, "sys/leader"),
        (Operation::Help, "sys/mounts"),
        (Operation::Read, "nomount"),
    ] {
        for token in [None, Some(ROOT), Some("s.unknown")] {
            let answer = server.call(token, operation, path, Value::Null).await;
            assert!(matches!(answer, Err(RequestError::Sealed)), "{path}");
        }
    }
    for path in ["sys/health", "sys/seal-status", "sys/init"] {
        assert!(server.call(None, Operation::Read, path, Value::Null).await.is_ok(), "{path}");
    }
    server.unseal().await;
    server.root("sys/mounts/db", json!({ "type": "scripted" })).await.unwrap();
    server.read(ROOT, "db/creds/app").await.unwrap();
    server.root("sys/seal", Value::Null).await.unwrap();
    pass(1).await;
    assert!(matches!(server.read(ROOT, "db/creds/app").await, Err(RequestError::Sealed)));
    // What was there is there again, and still ends.
    server.unseal().await;
    assert_eq!(server.target.roles().len(), 1);
    pass(3_700).await;
    assert!(server.target.roles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_existence_check_tells_create_from_update() {
    let server = Server::start().await;
    let maker = server.token_with("db/things/*: create").await;
    let keeper = server.token_with("db/things/*: update").await;
    server.audited().await;
    assert!(matches!(server.update(&keeper, "db/things/a", json!({})).await, Err(RequestError::Denied)));
    server.update(&maker, "db/things/a", json!({})).await.unwrap();
    assert_eq!(server.audit.first.last("request")["request"]["operation"], "create");
    assert!(matches!(server.update(&maker, "db/things/a", json!({})).await, Err(RequestError::Denied)));
    server.update(&keeper, "db/things/a", json!({})).await.unwrap();
    assert_eq!(server.audit.first.last("request")["request"]["operation"], "update");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_told_only_to_those_who_may_ask() {
    let server = Server::start().await;
    let nobody = server.token_with("x: read").await;
    for (path, root) in [
        ("nomount/x", "NoRoute: no handler for route \"nomount/x\". route entry not found."),
        ("db/nosuch", "UnsupportedPath: unsupported path"),
        ("db/creds/a b", "UnsupportedPath: unsupported path"),
    ] {
        assert_eq!(refusal(server.read(ROOT, path).await), root);
        assert_eq!(refusal(server.read(&nobody, path).await), "Denied: permission denied", "{path}");
        let anybody = server.call(None, Operation::Read, path, Value::Null).await;
        assert_eq!(refusal(anybody), "BadToken: permission denied", "{path}");
    }
    assert_eq!(refusal(server.root("db/creds/app", json!({})).await), "UnsupportedOperation: unsupported operation");
    assert_eq!(refusal(server.root("db/things/", json!({})).await), "Invalid: cannot write to a path ending in '/'");
    assert_eq!(refusal(server.read(ROOT, "db/boom").await), "Engine: boom");
}

#[tokio::test(start_paused = true)]
async fn open_routes_need_no_token_and_show_nothing_without() {
    let server = Server::start().await;
    let shown = server.call(None, Operation::Read, "sys/internal/ui/mounts", Value::Null).await.unwrap();
    assert_eq!(Value::Object(shown.data.unwrap()), json!({ "auth": {}, "secret": {} }));
    let reader = server.token_with("db/creds/app: read").await;
    let shown = server.read(&reader, "sys/internal/ui/mounts").await.unwrap();
    assert_eq!(shown.data.unwrap()["secret"].as_object().unwrap().keys().collect::<Vec<_>>(), ["db/"]);
    assert_eq!(refusal(server.read("s.unknown", "sys/internal/ui/mounts").await), "BadToken: permission denied");
    let preflight = "sys/internal/ui/mounts/db/creds";
    assert!(matches!(server.call(None, Operation::Read, preflight, Value::Null).await, Err(RequestError::BadToken)));
    assert!(server.read(&reader, preflight).await.is_ok());
    let nobody = server.token_with("x: read").await;
    assert!(matches!(server.read(&nobody, preflight).await, Err(RequestError::Forbidden(_))));
}

#[tokio::test(start_paused = true)]
async fn protected_paths_want_sudo_besides_the_operation() {
    let server = Server::start().await;
    for (operation, path) in [
        (Operation::List, "sys/leases/lookup/"),
        (Operation::Update, "sys/leases/revoke-prefix/db"),
        (Operation::Update, "sys/leases/revoke-force/db"),
        (Operation::Read, "sys/audit"),
        (Operation::Update, "sys/audit/x"),
        (Operation::List, "auth/token/accessors/"),
        (Operation::Update, "sys/rotate"),
        (Operation::Update, "sys/seal"),
        (Operation::Update, "sys/modules/x"),
        (Operation::Delete, "sys/auth/x"),
        (Operation::Read, "sys/auth/x"),
        (Operation::Update, "sys/auth/x/tune"),
        // Nothing serves these.
        (Operation::Update, "sys/remount"),
        (Operation::Read, "sys/raw/core/keyring"),
        (Operation::Update, "auth/token/revoke-orphan/x"),
    ] {
        let rule = format!("{path}: read, update, delete, list");
        let without = server.token_with(&rule).await;
        let answer = server.call(Some(&without), operation, path, Value::Null).await;
        assert!(matches!(answer, Err(RequestError::Denied)), "{path}");
        let (_, _, asked_sudo) = server.sandbox.last_asked();
        assert!(asked_sudo, "{path}");
    }
    let with = server.token_with("sys/leases/revoke-prefix/*: update, sudo").await;
    server.update(&with, "sys/leases/revoke-prefix/db", json!({})).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deny_holds_with_and_without_a_slash_at_the_end() {
    let server = Server::start().await;
    for (rules, bare, slashed) in [
        ("sys/policies/*: read, delete", true, true),
        ("sys/policies/*: read, delete\nsys/policies/acl/p/: deny", true, false),
        ("sys/policies/*: read, delete\nsys/policies/acl/p: deny", false, false),
        ("sys/policies/acl/p: read, delete", true, false),
        ("sys/policies/acl/p/: read, delete", false, false),
        ("sys/policies/acl/p/*: read, delete", false, false),
        ("sys/policies/acl/p: read, delete\nsys/policies/acl/p/: read, delete", true, true),
    ] {
        let token = server.token_with(rules).await;
        for (path, allowed) in [
            ("sys/policies/acl/p", bare),
            ("sys/policies/acl/p/", slashed),
            ("sys/policies/acl/P/", slashed),
            ("sys/policies/acl/p//", slashed),
        ] {
            for operation in [Operation::Read, Operation::Delete] {
                let answer = server.call(Some(&token), operation, path, Value::Null).await;
                assert_eq!(matches!(answer, Err(RequestError::Denied)), !allowed, "{rules}: {path}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policys_limit_cuts_every_list_into_pages_that_end() {
    let server = Server::start().await;
    let token = server.token_with("db/*: list\nsys/policy/: list\nsys/policies/*: list").await;
    for name in ["a", "b", "c"] {
        server.root(&format!("db/things/{name}"), json!({})).await.unwrap();
        server.policy(name, "x: read").await;
    }
    *server.sandbox.limit.lock().unwrap() = Some(2);
    for (path, count) in
        [("db/things/", 3), ("sys/policies/acl/", 6), ("sys/policies/detailed/acl/", 6), ("sys/policy/", 6)]
    {
        let all = server.call(Some(ROOT), Operation::List, path, Value::Null).await.unwrap().data.unwrap();
        let (mut seen, mut after) = (Vec::new(), String::new());
        for _ in 0..count {
            let answer = server.call(Some(&token), Operation::List, path, json!({ "after": after })).await.unwrap();
            assert!(answer.warnings.is_empty(), "{path}: nobody was asked for a limit: {:?}", answer.warnings);
            let data = answer.data.unwrap();
            let page = data["keys"].as_array().unwrap().clone();
            assert!(page.len() <= 2, "{path}: {page:?}");
            assert!(data.get("policies").is_none_or(|policies| *policies == data["keys"]));
            assert!(data.get("key_info").is_none_or(|info| info.as_object().unwrap().len() <= 2));
            let Some(last) = page.last() else { break };
            after = last.as_str().unwrap().to_owned();
            seen.extend(page);
        }
        assert_eq!((Value::from(seen), count), (all["keys"].clone(), all["keys"].as_array().unwrap().len()), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn help_is_for_any_valid_token_and_for_no_other() {
    let server = Server::start().await;
    let nobody = server.token_with("x: read").await;
    assert!(server.call(Some(&nobody), Operation::Help, "db/creds/app", Value::Null).await.is_ok());
    let anybody = server.call(None, Operation::Help, "db/creds/app", Value::Null).await;
    assert!(matches!(anybody, Err(RequestError::BadToken)));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_handed_out_once() {
    let server = Server::start().await;
    let made = server.root("auth/token/create", json!({})).await.unwrap();
    let token = token_of(&made);
    let accessor = made.auth.unwrap().accessor;
    let shown = server.root("auth/token/lookup-accessor", json!({ "accessor": accessor })).await.unwrap();
    assert!(!Value::Object(shown.data.unwrap()).to_string().contains(&token));
}

#[tokio::test(start_paused = true)]
async fn what_a_route_does_not_take_is_named_and_what_its_path_says_is_no_field() {
    let server = Server::start().await;
    for (path, sent, warned) in [
        ("db/creds/app", json!({}), None),
        // The path says it already.
        ("db/creds/app", json!({ "name": "other" }), None),
        ("db/creds/app", json!({ "name": "other", "zone": 1, "color": "red" }), Some("[color zone]")),
        ("db/static", json!({ "name": "other" }), Some("[name]")),
    ] {
        let answer = server.read_with(ROOT, path, sent.clone()).await.unwrap();
        let expected: Vec<String> =
            warned.iter().map(|names| format!("Endpoint ignored these unrecognized parameters: {names}")).collect();
        assert_eq!(answer.warnings, expected, "{path} {sent}");
    }
    // A document is taken as it is: none of its keys is a field, and none is lost.
    let sent = json!({ "name": "other", "color": "red" });
    let answer = server.root("db/documents/a", sent.clone()).await.unwrap();
    assert_eq!((Value::Object(answer.data.unwrap()), answer.warnings), (sent, Vec::new()));
}

/// A slash at the end is answered as the path without it only where there is something to answer.
#[tokio::test(start_paused = true)]
async fn a_rule_for_the_slash_alone_is_enough_where_nothing_is_served() {
    let server = Server::start().await;
    let path = "sys/leases/revoke-prefix/db/";
    let token = server.token_with("sys/leases/revoke-prefix/db/: read, delete, sudo").await;
    for operation in [Operation::Read, Operation::Delete] {
        let said = refusal(server.call(Some(&token), operation, path, Value::Null).await);
        assert_eq!(said, "UnsupportedOperation: unsupported operation");
    }
    let told = server.root("sys/capabilities", json!({ "token": token, "paths": [path] })).await.unwrap();
    assert_eq!(told.data.unwrap()["capabilities"], json!(["delete", "read", "sudo"]));
}
