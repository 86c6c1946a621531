//! What a role says of its leases: how many there may be, and how long their making and their end may take.

use std::time::{Duration, Instant};

use leasehold_core::seams::engine::SecretsEngine as _;
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

#[tokio::test]
async fn how_long_a_revocation_may_take_is_what_the_role_says_now() {
    let world = World::new().await;
    for refused in ["4s", "601s"] {
        let body = json!({ "db_name": "pg", "creation_statements": MEMBER, "revocation_timeout": refused });
        let refused = world.write("roles/ending", body).await.unwrap_err();
        assert_eq!(refused.to_string(), "revocation_timeout must be between 5 s and 600 s, or 0 for the default");
    }
    world.role("ending", MEMBER, json!({ "revocation_timeout": "5s" })).await;
    assert_eq!(world.read("roles/ending").await.unwrap()["revocation_timeout"], 5);
    let issued = world.issue("ending").await;
    let takes =
        async || world.engine.revocation_timeout(&world.context, &issued.intent).await.map(|time| time.as_secs());
    assert_eq!(takes().await, Some(5));
    world.write("roles/ending", json!({ "revocation_timeout": "10m" })).await.unwrap();
    assert_eq!(takes().await, Some(600));
    world.write("roles/ending", json!({ "revocation_timeout": 0 })).await.unwrap();
    assert_eq!(takes().await, None);
    world.answer(Operation::Delete, "roles/ending", json!({})).await.unwrap();
    assert_eq!(takes().await, Some(5), "of a role that is gone, what it said at issue");
    world.revoke(&issued).await.unwrap();
}

/// Statements of the operator's, and no others, may take as long as the role says.
#[tokio::test]
async fn revocation_statements_may_take_as_long_as_the_role_says() {
    let world = World::new().await;
    world
        .connect("hasty", json!({ "connection_url": format!("{}?statement_timeout=1000", world.pg.templated_url()) }))
        .await;
    let ends = r#"SELECT pg_sleep(2); REVOKE readonly FROM "{{name}}"; DROP ROLE "{{name}}";"#;
    world.role("slow_end", MEMBER, json!({ "db_name": "hasty", "revocation_statements": ends })).await;
    let issued = world.issue("slow_end").await;
    let refused = world.revoke(&issued).await.unwrap_err().to_string();
    assert!(refused.contains("57014"), "{refused}");
    world.write("roles/slow_end", json!({ "revocation_timeout": "10s" })).await.unwrap();
    let began = Instant::now();
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username) && began.elapsed() > Duration::from_secs(2));
    // The session is as it was for whoever has it next.
    let issued = world.issue("slow_end").await;
    world.write("roles/slow_end", json!({ "revocation_timeout": 0 })).await.unwrap();
    assert!(world.revoke(&issued).await.unwrap_err().to_string().contains("57014"));
}
