//! Names and texts that try to be SQL.

use leasehold_core::seams::LeaseIntent;
use serde_json::json;

use crate::support::World;

#[tokio::test]
async fn a_lease_with_a_hostile_role_name_ends_that_role_and_no_other() {
    let world = World::new().await;
    let names = [
        "a\"; DROP ROLE bystander; --",
        "it's",
        "back\\slash",
        "$$dollar$$",
        "Ünïcode 名前",
        "{{name}}",
        "x'; SELECT pg_sleep(9); --",
    ];
    world.pg.psql("CREATE ROLE bystander").unwrap();
    for name in names {
        world.pg.psql(&format!("CREATE ROLE \"{}\" LOGIN IN ROLE readonly", name.replace('"', "\"\""))).unwrap();
        let intent = LeaseIntent {
            id: "database/creds/x/y".parse().unwrap(),
            issued_at: world.context.clock.now(),
            expires_at: world.context.clock.now(),
            deadline: world.context.clock.now(),
            effect: json!({
                "connection": "pg", "role": "x", "username": name, "creation": [], "password_at": "La",
                "expiration_at": "Lb", "revocation": [],
            }),
        };
        leasehold_core::seams::SecretsEngine::revoke(&world.engine, &world.context, &intent).await.unwrap();
        assert!(!world.role_exists(name), "{name}");
    }
    assert!(world.role_exists("bystander"));
}

#[tokio::test]
async fn a_stored_effect_that_is_not_readable_is_an_error_and_no_panic() {
    let world = World::new().await;
    let now = world.context.clock.now();
    for effect in [json!(null), json!({}), json!({"connection": 1}), json!([1])] {
        let intent = LeaseIntent { id: "a/b".parse().unwrap(), issued_at: now, expires_at: now, deadline: now, effect };
        let error =
            leasehold_core::seams::SecretsEngine::revoke(&world.engine, &world.context, &intent).await.unwrap_err();
        assert_eq!(error.to_string(), "the lease's stored effect is not readable");
    }
}
