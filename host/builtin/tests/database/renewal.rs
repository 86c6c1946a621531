//! contract.md §5.4 and §5.7, renewals.

use leasehold_core::seams::engine::EngineError;
use leasehold_model::{Operation, Ttl};
use serde_json::json;

use crate::support::{MEMBER, World};

fn failed(result: Result<(), EngineError>) -> String {
    match result {
        Err(EngineError::Failed(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn valid_until(world: &World, name: &str) -> String {
    world
        .pg
        .psql(&format!("SELECT extract(epoch FROM rolvaliduntil)::bigint FROM pg_roles WHERE rolname = '{name}'"))
        .unwrap()
}

#[tokio::test]
async fn a_renewal_moves_valid_until() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    let until = issued.intent.expires_at + Ttl::from_secs(600);
    world.renew(&issued, until).await.unwrap();
    assert_eq!(valid_until(&world, &issued.username), (until.as_secs() + 5).to_string());
}

#[tokio::test]
async fn renew_statements_are_the_roles_as_they_are_now() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    let statements =
        r#"ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}'; ALTER ROLE "{{username}}" CONNECTION LIMIT 7;"#;
    world.role("readonly", MEMBER, json!({"renew_statements": statements})).await;
    world.renew(&issued, issued.intent.expires_at).await.unwrap();
    let limit = format!("SELECT rolconnlimit FROM pg_roles WHERE rolname = '{}'", issued.username);
    assert_eq!(world.pg.psql(&limit).unwrap(), "7");

    let half = r#"ALTER ROLE "{{name}}" CONNECTION LIMIT 9; SELECT 1 / 0;"#;
    world.role("readonly", MEMBER, json!({"renew_statements": half})).await;
    let said = failed(world.renew(&issued, issued.intent.expires_at).await);
    assert_eq!(said, "failed to execute query: ERROR: division by zero (SQLSTATE 22012): renew statement 2 of 2");
    assert_eq!(world.pg.psql(&limit).unwrap(), "7", "one transaction");
}

#[tokio::test]
async fn what_is_gone_cannot_be_renewed_and_the_error_says_what() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.pg.psql(&format!("DROP ROLE \"{}\"", issued.username)).unwrap();
    assert_eq!(
        failed(world.renew(&issued, issued.intent.expires_at).await),
        format!("failed to execute query: ERROR: role \"{}\" does not exist (SQLSTATE 42704)", issued.username)
    );

    world.answer(Operation::Delete, "roles/readonly", json!({})).await.unwrap();
    assert_eq!(
        failed(world.renew(&issued, issued.intent.expires_at).await),
        "error during renew: could not find role with name \"readonly\""
    );

    world.role("readonly", MEMBER, json!({})).await;
    world.answer(Operation::Delete, "config/pg", json!({})).await.unwrap();
    assert_eq!(
        failed(world.renew(&issued, issued.intent.expires_at).await),
        "failed to find entry for connection with name: \"pg\": write it again so that its leases can end, or give them up with \
         `lease revoke -force -prefix`"
    );
}
