//! Connections that leases stand on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::Expect;
use leasehold_model::Operation;
use serde_json::json;

use crate::rotation::Rotating;
use crate::support::{MEMBER, World};

#[tokio::test]
async fn a_connection_goes_only_when_no_lease_stands_on_it_or_by_force() {
    let world = World::new().await;
    world.connect("standing", json!({})).await;
    world.standing.leases.store(1, Ordering::Relaxed);
    let delete = |fields| world.answer(Operation::Delete, "config/standing", fields);
    for fields in [json!({}), json!({ "force": false })] {
        assert_eq!(
            delete(fields).await.unwrap_err().to_string(),
            "connection \"standing\" cannot be deleted: 1 lease (of database/creds/readonly) stands on it and could not end without \
             it; revoke it, or send force=true to delete it all the same"
        );
        world.read("config/standing").await.unwrap();
    }
    let answer = delete(json!({ "force": "true" })).await.unwrap();
    assert_eq!(answer.warnings.len(), 1, "{:?}", answer.warnings);
    world.read("config/standing").await.unwrap_err();
    // Nothing stands on what is not there.
    assert!(!delete(json!({})).await.unwrap().has_body());

    world.connect("standing", json!({})).await;
    world.standing.leases.store(0, Ordering::Relaxed);
    assert!(!delete(json!({})).await.unwrap().has_body());
    world.read("config/standing").await.unwrap_err();
}

#[tokio::test]
async fn a_plan_names_the_role_and_the_connection_that_it_was_made_of() {
    let world = World::new().await;
    world.role("planned", MEMBER, json!({})).await;
    let holds = async |made_of: &[(String, Expect)]| {
        let mut all = true;
        for (name, expect) in made_of {
            let stored = world.context.storage.get(name).await.unwrap();
            all &= stored.is_some_and(|stored| *expect == Expect::Version(stored.version));
        }
        all
    };
    let plan = world.plan("planned").await.unwrap();
    assert_eq!(plan.made_of.len(), 2);
    assert!(holds(&plan.made_of).await);
    world.connect("pg", json!({})).await;
    assert!(!holds(&plan.made_of).await, "the connection was written again");
    let plan = world.plan("planned").await.unwrap();
    world.role("planned", MEMBER, json!({})).await;
    assert!(!holds(&plan.made_of).await, "the role was written again");
}

/// Their passwords can be neither read nor changed without it; all of that begins again with a connection of that name.
#[tokio::test]
async fn a_connection_that_static_roles_stand_on_is_deleted_with_a_warning() {
    let world = Rotating::new().await;
    let delete = async |wanted: &str| {
        let answer = world.answer(Operation::Delete, "config/pg", json!({})).await.unwrap();
        let warning = format!(
            "{wanted} stood on this connection: static-creds refuses their passwords, which stay as they are, and changes that fall due are \
             tried again and again until a connection of this name leads to that server again"
        );
        assert_eq!(answer.warnings, [warning]);
    };
    world.connect("other", json!({})).await;
    for (name, user) in
        [("a", "static_stands_a"), ("b", "static_stands_b"), ("c", "static_stands_c"), ("d", "static_stands_d")]
    {
        world.make(user, "LOGIN");
        let body = json!({"db_name": "pg", "username": user, "rotation_period": "1h"});
        world.write(&format!("static-roles/{name}"), body).await.unwrap();
    }
    let other = world.answer(Operation::Delete, "config/other", json!({})).await.unwrap();
    assert!(other.warnings.is_empty());
    delete("4 static roles (\"a\", \"b\", \"c\", …)").await;
    world.connect("pg", json!({})).await;
    for name in ["b", "c", "d"] {
        world.answer(Operation::Delete, &format!("static-roles/{name}"), json!({})).await.unwrap();
    }
    let before = world.creds("a").await;
    delete("1 static role (\"a\")").await;
    let said = world.read("static-creds/a").await;
    assert!(
        matches!(&said, Err(RequestError::Engine(why)) if why.contains("failed to find entry for connection")),
        "{said:?}"
    );
    world.clock.advance(Duration::from_secs(3_600));
    world.job().await;
    assert!(world.takes("static_stands_a", before["password"].as_str().unwrap()).await);
    world.connect("pg", json!({})).await;
    assert_eq!(world.creds("a").await["password"], before["password"]);
    world.clock.advance(Duration::from_secs(3_600));
    world.job().await;
    let after = world.creds("a").await;
    assert_ne!(after["password"], before["password"]);
    assert!(world.takes("static_stands_a", after["password"].as_str().unwrap()).await);
}

/// By another server, just before the commit.
#[tokio::test]
async fn a_static_role_that_comes_while_its_connection_is_deleted_is_named() {
    let world = Rotating::new().await;
    world.make("static_meets", "LOGIN");
    world.standing.stops.store(true, Ordering::Relaxed);
    let deleting = world.answer(Operation::Delete, "config/pg", json!({}));
    let (deleted, ()) = tokio::join!(deleting, async {
        world.standing.stopped.notified().await;
        let body = json!({"db_name": "pg", "username": "static_meets", "rotation_period": "1h"});
        world.write("static-roles/late", body).await.unwrap();
        world.standing.goes_on.notify_one();
    });
    let warnings = deleted.unwrap().warnings;
    assert!(warnings.iter().any(|one| one.starts_with("1 static role (\"late\")")), "{warnings:?}");
}
