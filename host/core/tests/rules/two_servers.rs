//! Two servers over one store: the store's versions decide between them, whatever each has in memory.

use std::sync::atomic::Ordering;

use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::Storage as _;
use leasehold_model::Operation;
use serde_json::{Value, json};

use super::support::server::{Answer, ROOT, Server, refusal};

/// Both unsealed; what they do at once is mixed step by step.
async fn two() -> (Server, Server) {
    let one = Server::start().await;
    one.policy("known", "db/static: read").await;
    let other = one.beside().await;
    for server in [&one, &other] {
        server.process.yields.store(true, Ordering::SeqCst);
    }
    (one, other)
}

/// What a server knows that reads everything from the store anew.
async fn reader(one: &Server, other: &Server) -> Server {
    other.process.die();
    let reader = one.again();
    reader.unseal().await;
    reader
}

fn delete(server: &Server, path: &str) -> impl Future<Output = Answer> {
    server.call(Some(ROOT), Operation::Delete, path, Value::Null)
}

/// Lets one of the two take `head_start` steps before the other begins, so that every mixture of their steps is tried.
async fn after_steps<T>(head_start: usize, then: impl Future<Output = T>) -> T {
    for _ in 0..head_start {
        tokio::task::yield_now().await;
    }
    then.await
}

const STEPS: usize = 24;

#[tokio::test(start_paused = true)]
async fn of_two_writes_that_name_one_version_exactly_one_is_made() {
    let (one, other) = two().await;
    let write = |server: &Server, who: &str, cas: i64| {
        let fields = json!({ "policy": format!("db/{who}: read"), "cas": cas });
        let server = server.core.clone();
        async move {
            let request =
                super::support::server::request(Some(ROOT), Operation::Update, "sys/policies/acl/app", fields);
            server.handle(request).await
        }
    };
    for round in 0..STEPS {
        let version = i64::try_from(round).unwrap();
        let cas = if round == 0 { -1 } else { version };
        let (first, second) = tokio::join!(write(&one, "one", cas), after_steps(round, write(&other, "other", cas)));
        let lost = match (first, second) {
            (Ok(_), lost @ Err(_)) | (lost @ Err(_), Ok(_)) => refusal(lost),
            (first, second) => panic!("round {round}: {first:?} and {second:?}"),
        };
        let wanted = match round {
            0 => "Invalid: check-and-set parameter set to -1 on existing entry".to_owned(),
            _ => format!("Invalid: check-and-set parameter {cas} did not match the current version {}", version + 1),
        };
        assert_eq!(lost, wanted, "round {round}");
    }
    let shown = reader(&one, &other).await.read(ROOT, "sys/policies/acl/app").await.unwrap().data.unwrap();
    assert_eq!(shown["version"], STEPS, "as many writes as rounds");
}

/// A refusal is a look at the store as well: whoever hears of version 2 reads version 2 afterwards.
#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_a_write_shows_what_it_was_refused_for() {
    let (one, other) = two().await;
    other.root("sys/policies/acl/known", json!({ "policy": "db/newer: read" })).await.unwrap();
    let refused = one.root("sys/policies/acl/known", json!({ "policy": "db/mine: read", "cas": 1 })).await;
    assert_eq!(refusal(refused), "Invalid: check-and-set parameter 1 did not match the current version 2");
    let shown = one.read(ROOT, "sys/policies/acl/known").await.unwrap().data.unwrap();
    assert_eq!((&shown["policy"], &shown["version"]), (&json!("db/newer: read"), &json!(2)));
}

#[tokio::test(start_paused = true)]
async fn patches_of_two_servers_keep_what_the_other_has_changed() {
    for head_start in 0..STEPS {
        let (one, other) = two().await;
        let patch =
            |server, fields| Server::call(server, Some(ROOT), Operation::Patch, "sys/policies/acl/known", fields);
        let (first, second) = tokio::join!(
            patch(&one, json!({ "policy": "db/new: read" })),
            after_steps(head_start, patch(&other, json!({ "allow_slashes_in_identity_templates": true }))),
        );
        assert!(first.is_ok() && second.is_ok(), "{first:?}, {second:?}");
        let shown = reader(&one, &other).await.read(ROOT, "sys/policies/acl/known").await.unwrap().data.unwrap();
        assert_eq!(
            (&shown["policy"], &shown["allow_slashes_in_identity_templates"], &shown["version"]),
            (&json!("db/new: read"), &json!(true), &json!(3)),
            "{head_start} steps apart"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_two_servers_tune_of_one_mount_is_all_kept() {
    for head_start in 0..STEPS {
        let (one, other) = two().await;
        let (first, second) = tokio::join!(
            one.root("sys/mounts/db/tune", json!({ "description": "tuned" })),
            after_steps(head_start, other.root("sys/mounts/db/tune", json!({ "default_lease_ttl": "90s" }))),
        );
        assert!(first.is_ok() && second.is_ok(), "{first:?}, {second:?}");
        let tuned = reader(&one, &other).await.read(ROOT, "sys/mounts/db/tune").await.unwrap().data.unwrap();
        assert_eq!((&tuned["description"], &tuned["default_lease_ttl"]), (&json!("tuned"), &json!(90)));
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_paths_that_overlap_one_is_given_away() {
    let cases = [
        ("sys/mounts/a", "sys/mounts/a", json!({ "type": "scripted" }), "sys/mounts"),
        ("sys/mounts/a", "sys/mounts/a/b", json!({ "type": "scripted" }), "sys/mounts"),
        ("sys/auth/a/b", "sys/auth/a", json!({ "type": "scripted" }), "sys/auth"),
        ("sys/audit/a/b", "sys/audit/a", json!({ "type": "second" }), "sys/audit"),
    ];
    for (left, right, fields, list) in cases {
        for head_start in 0..STEPS {
            let (one, other) = two().await;
            // The two devices must not be the same in all they are.
            let mut others = fields.clone();
            others["description"] = json!("the other one");
            let (first, second) =
                tokio::join!(one.root(left, fields.clone()), after_steps(head_start, other.root(right, others)));
            let lost = match (first, second) {
                (Ok(_), lost @ Err(_)) | (lost @ Err(_), Ok(_)) => refusal(lost),
                (first, second) => panic!("{left} and {right}, {head_start} apart: {first:?} and {second:?}"),
            };
            assert!(lost.contains("already in use"), "{lost}");
            let shown = reader(&one, &other).await.read(ROOT, list).await.unwrap().data.unwrap();
            assert_eq!(shown.keys().filter(|path| path.starts_with("a/")).count(), 1, "{shown:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_binding_names_a_module_that_another_server_deletes_or_replaces() {
    for replaces in [false, true] {
        for head_start in 0..STEPS {
            let (one, _) = two().await;
            one.root("sys/modules/probe", json!({ "module": "AAEC" })).await.unwrap();
            let other = one.beside().await;
            other.process.yields.store(true, Ordering::SeqCst);
            other.core.unsealed().unwrap().modules.load_all(&other.core.unsealed().unwrap().egps).await;
            let binding = json!({ "module": "probe", "paths": "db/*", "enforcement_level": "hard-mandatory" });
            let change = async {
                match replaces {
                    true => one.root("sys/modules/probe", json!({ "module": "AAED" })).await,
                    false => delete(&one, "sys/modules/probe").await,
                }
            };
            let (changed, bound) =
                tokio::join!(change, after_steps(head_start, other.root("sys/policies/egp/gate", binding)));
            assert!(changed.is_ok() != bound.is_ok(), "{head_start} apart: {changed:?}, {bound:?}");
            let reader = reader(&one, &other).await;
            assert_eq!(reader.read(ROOT, "sys/policies/egp/gate").await.is_ok(), bound.is_ok());
            assert_eq!(reader.read(ROOT, "sys/modules/probe").await.is_ok(), replaces || bound.is_ok());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_another_server_names_stay() {
    for head_start in 0..STEPS {
        let (one, other) = two().await;
        one.root("sys/modules/first", json!({ "module": "AAEC" })).await.unwrap();
        let (deleted, pushed) = tokio::join!(
            delete(&one, "sys/modules/first"),
            after_steps(head_start, other.root("sys/modules/second", json!({ "module": "AAEC" }))),
        );
        assert!(deleted.is_ok() && pushed.is_ok(), "{deleted:?}, {pushed:?}");
        let digest = pushed.unwrap().data.unwrap()["digest"].as_str().unwrap().to_owned();
        let bytes = one.process.store.get(&leasehold_core::keys::module_bytes(&digest)).await.unwrap();
        assert!(bytes.is_some(), "{head_start} apart");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_mount_is_not_brought_back_by_a_tuning() {
    for head_start in 0..STEPS {
        let (one, other) = two().await;
        let (removed, tuned) = tokio::join!(
            delete(&one, "sys/mounts/db"),
            after_steps(head_start, other.root("sys/mounts/db/tune", json!({ "description": "tuned" }))),
        );
        assert!(removed.is_ok(), "{removed:?}");
        assert!(matches!(tuned, Ok(_) | Err(RequestError::Invalid(_))), "{tuned:?}");
        let mounts = reader(&one, &other).await.read(ROOT, "sys/mounts").await.unwrap().data.unwrap();
        assert!(!mounts.contains_key("db/"), "{head_start} apart");
    }
}
