//! What a role says of its leases: how many there may be, and how long their making may take.

use std::time::Duration;

use leasehold_model::Operation;
use serde_json::json;

use crate::support::{MEMBER, World};

#[tokio::test]
async fn the_limit_of_a_roles_leases_is_written_with_the_role_and_goes_with_it() {
    let world = World::new().await;
    let set = || std::mem::take(&mut *world.standing.limits.lock().unwrap());
    world.role("bounded", MEMBER, json!({ "max_leases": 3 })).await;
    assert_eq!(set(), [("creds/bounded".to_owned(), Some(3))]);
    assert_eq!(world.read("roles/bounded").await.unwrap()["max_leases"], 3);
    // A write that does not change it holds nobody up.
    world.write("roles/bounded", json!({ "default_ttl": "2h", "max_leases": 3 })).await.unwrap();
    assert_eq!(set(), []);
    let refused = world.write("roles/bounded", json!({ "max_leases": -1 })).await.unwrap_err().to_string();
    assert_eq!(refused, "max_leases must not be negative; 0 allows as many as anybody wants");
    world.write("roles/bounded", json!({ "max_leases": "7" })).await.unwrap();
    world.write("roles/bounded", json!({ "max_leases": 0 })).await.unwrap();
    assert_eq!(set(), [("creds/bounded".to_owned(), Some(7)), ("creds/bounded".to_owned(), None)]);
    assert_eq!(world.read("roles/bounded").await.unwrap()["max_leases"], json!(null));
    world.answer(Operation::Delete, "roles/bounded", json!({})).await.unwrap();
    assert_eq!(set(), []);

    world.role("bounded", MEMBER, json!({ "max_leases": 1 })).await;
    world.answer(Operation::Delete, "roles/bounded", json!({})).await.unwrap();
    assert_eq!(set(), [("creds/bounded".to_owned(), Some(1)), ("creds/bounded".to_owned(), None)]);
    world.answer(Operation::Delete, "roles/bounded", json!({})).await.unwrap();
    assert_eq!(set(), []);
}

#[tokio::test]
async fn how_long_a_lease_may_take_to_be_made_is_the_roles_or_the_connections_to_say() {
    let world = World::new().await;
    let takes = async |role: &str| world.plan(role).await.unwrap().effect_time;
    world.role("timed", MEMBER, json!({})).await;
    assert_eq!(takes("timed").await, Some(Duration::from_secs(85)));
    world.connect("pg", json!({ "creation_timeout": "20s" })).await;
    assert_eq!(takes("timed").await, Some(Duration::from_secs(20)));
    world.role("timed", MEMBER, json!({ "creation_timeout": "2m" })).await;
    assert_eq!(takes("timed").await, Some(Duration::from_secs(120)));
    assert_eq!(world.read("roles/timed").await.unwrap()["creation_timeout"], 120);
    let refused = world.write("roles/timed", json!({ "creation_timeout": "601s" })).await.unwrap_err();
    assert_eq!(refused.to_string(), "creation_timeout must not be longer than 600 s");
}
