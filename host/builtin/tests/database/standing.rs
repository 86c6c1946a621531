//! Connections that leases stand on.

use std::sync::atomic::Ordering;

use leasehold_core::seams::storage::Expect;
use leasehold_model::Operation;
use serde_json::json;

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
            "connection \"standing\" cannot be deleted: 1 lease (of database/creds/readonly) stand on it and could not end without it; \
             revoke them, or send force=true to delete it all the same"
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
