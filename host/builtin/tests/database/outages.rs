//! Targets that are down, hang, or have no connection left.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::seams::engine::EngineError;
use leasehold_devpg::{Options, Stop};
use serde_json::json;

use crate::support::{MEMBER, World, log_in, own_server, shared_server};

fn down(result: Result<(), EngineError>) -> String {
    match result {
        Err(EngineError::Down(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// How an issue fails.
async fn issue_error(world: &World, role: &str) -> EngineError {
    let plan = world.plan(role).await.unwrap();
    world.effect(world.intent(role, &plan)).await.err().expect("nothing is issued")
}

/// Nothing was sent, so the lease module has nothing to undo.
fn unreached(error: EngineError) -> String {
    match error {
        EngineError::Unreached(text) => text,
        other => panic!("{other:?}"),
    }
}

/// With a time limit: a call that hangs is what these tests are about.
async fn within<T>(secs: u64, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(secs), work).await.expect("it hangs")
}

/// Sessions of the pool notice by themselves, on another thread.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_is_down_and_leases_end_when_it_is_back() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.pg.stop(Stop::Immediate).unwrap();

    // On a session of the pool that has died since, then on none.
    let said = unreached(within(5, issue_error(&world, "readonly")).await);
    assert!(said.starts_with("unable to start transaction: "), "{said}");
    let said = unreached(within(5, issue_error(&world, "readonly")).await);
    assert!(said.starts_with("unable to start transaction: failed to connect to `user="), "{said}");
    assert!(said.contains("onnection refused"), "{said}");
    down(within(5, world.revoke(&issued)).await);
    down(within(5, world.renew(&issued, issued.intent.expires_at)).await);

    world.pg.start_again().unwrap();
    within(5, world.revoke(&issued)).await.unwrap();
    assert!(!world.role_exists(&issued.username));
    within(5, world.issue("readonly")).await;
}

/// Whether the last statement still happened is not known then.
#[tokio::test]
async fn a_session_that_breaks_on_the_way_is_no_session_that_never_was() {
    let world = World::new().await;
    world.role("cut", &format!("{MEMBER} SELECT pg_terminate_backend(pg_backend_pid());"), json!({})).await;
    down(Err(issue_error(&world, "cut").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_not_noticed_by_the_next_request() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    world.role("readonly", MEMBER, json!({})).await;
    world.issue("readonly").await;
    world.pg.stop(Stop::Immediate).unwrap();
    world.pg.start_again().unwrap();
    world.issue("readonly").await;
}

#[tokio::test]
async fn a_hanging_server_is_down_within_seconds_and_blocks_no_other_connection() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    let other = shared_server();
    let url = other.admin_url();
    let body = json!({"plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": "*"});
    world.write("config/other", body).await.unwrap();
    world.role("elsewhere", MEMBER, json!({"db_name": "other"})).await;

    world.pg.pause().unwrap();
    let hanging =
        within(15, async { tokio::join!(issue_error(&world, "readonly"), within(3, world.issue("elsewhere"))) });
    // Heard a moment ago, so everything was sent at once: whether it is done nobody knows.
    let (EngineError::Down(said), _) = hanging.await else { panic!("not down") };
    assert!(said.starts_with("unable to start transaction: ") && said.contains("did not answer"), "{said}");
    // Not heard lately, so it is asked first.
    let said = unreached(within(15, issue_error(&world, "readonly")).await);
    assert!(said.starts_with("unable to start transaction: "), "{said}");
    assert!(said.contains("did not answer") || said.contains("timed out"), "{said}");
    world.pg.resume().unwrap();
    within(10, world.revoke(&issued)).await.unwrap();
}

/// After a fail-over that leaves sessions hanging, each of them cost five seconds more before the new server was used.
#[tokio::test]
async fn one_hanging_session_empties_the_pool() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    world.role("readonly", MEMBER, json!({})).await;
    let busy = (0..4).map(|_| world.issue("readonly"));
    futures_util::future::join_all(busy).await;
    let pids = world.pg.psql("SELECT pid FROM pg_stat_activity WHERE application_name = 'leasehold'").unwrap();
    assert!(pids.lines().count() > 1, "the pool has several sessions: {pids}");
    let signal = |name: &str| {
        let done = std::process::Command::new("kill").arg(name).args(pids.lines()).status().unwrap();
        assert!(done.success());
    };
    signal("-STOP");
    // Which of them hang is not known before one does; then none of the others is tried.
    let first = within(15, issue_error(&world, "readonly")).await;
    let began = std::time::Instant::now();
    let issued = within(15, world.issue("readonly")).await;
    let took = began.elapsed();
    signal("-CONT");
    assert!(first.to_string().contains("did not answer"), "{first}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    within(10, world.revoke(&issued)).await.unwrap();
}

#[tokio::test]
async fn a_server_without_a_free_connection_says_so() {
    let world = World::on(Arc::new(own_server(Options { max_connections: 8, ..Options::default() })));
    world.connect("pg", json!({})).await;
    world.role("readonly", MEMBER, json!({})).await;
    world.write("reset/pg", json!({})).await.unwrap();
    let mut held = Vec::new();
    let held_user = (world.pg.admin_user().to_owned(), world.pg.admin_password().to_owned());
    while let Ok(client) = log_in(&world.pg, &held_user.0, &held_user.1, "myapp").await {
        held.push(client);
    }
    // The pool's one idle session is gone with its configuration.
    world.write("config/pg", json!({"verify_connection": false})).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    while let Ok(client) = log_in(&world.pg, &held_user.0, &held_user.1, "myapp").await {
        held.push(client);
    }
    let said = within(10, world.issue_fails("readonly")).await;
    assert!(said.contains("(SQLSTATE 53300)"), "{said}");
    drop(held);
    tokio::time::sleep(Duration::from_millis(200)).await;
    within(10, world.issue("readonly")).await;
}

#[tokio::test]
async fn a_request_that_is_dropped_in_the_middle_leaves_no_open_transaction() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({"max_open_connections": 1})).await;
    world.role("slow", &format!("{MEMBER} SELECT pg_sleep(1);"), json!({})).await;
    world.role("readonly", MEMBER, json!({})).await;
    let plan = world.plan("slow").await.unwrap();
    let username = plan.effect["username"].as_str().unwrap().to_owned();
    let cut = tokio::time::timeout(Duration::from_millis(300), world.effect(world.intent("slow", &plan))).await;
    assert!(cut.is_err());
    within(8, world.issue("readonly")).await;
    assert!(!world.role_exists(&username));
}
