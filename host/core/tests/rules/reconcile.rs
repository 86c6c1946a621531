//! Leases compared with the roles in their targets.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::lease::reconcile::{Findings, LastTime, REMEMBERED_MAX};
use leasehold_core::lease::revoke::Wait;
use leasehold_core::seams::engine::OwnedRole;
use leasehold_model::{LeaseId, TokenHash, Ttl};
use serde_json::Value;

use super::support::asked;
use super::support::engine::{Trouble, role};
use super::support::gauges::Gauges;
use super::support::node::{Node, World};
use super::support::pass;
use super::support::server::{ROOT, Server, scrape};

async fn start(world: &World) -> (Arc<Node>, TokenHash) {
    let node = Arc::new(world.start().await);
    let token = node.token("t", None, Ttl::from_secs(30 * 86_400)).await;
    (node, token)
}

/// A role that no row names.
fn orphan(world: &World, name: &str) -> OwnedRole {
    let id: LeaseId = format!("db/creds/app/{name}").parse().unwrap();
    world.target.roles.lock().unwrap().insert(id.clone());
    role(&id)
}

fn only(orphans: &[&OwnedRole]) -> Findings {
    Findings { orphans: orphans.iter().map(|role| (*role).clone()).collect(), ..Findings::default() }
}

#[tokio::test(start_paused = true)]
async fn a_role_without_a_lease_is_reported_and_stays() {
    let world = World::new();
    let (node, token) = start(&world).await;
    node.issue(&token).await.unwrap();
    let mut last = LastTime::default();
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), Findings::default());
    assert_eq!(world.target.count("list"), 1, "nothing stands out, so nothing is asked twice");
    let lost = orphan(&world, "lost");
    for _ in 0..3 {
        assert_eq!(node.leases.compare(&mut last).await.unwrap(), only(&[&lost]));
    }
    assert_eq!((world.target.count("drop"), world.target.roles().len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_role_without_a_lease_is_dropped_when_it_is_found_twice_in_a_row() {
    let world = World::new();
    let (node, token) = start(&world).await;
    let kept = node.issue(&token).await.unwrap();
    *node.engine.drops_orphans.lock().unwrap() = true;
    let mut last = LastTime::default();
    let first = orphan(&world, "first");
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), only(&[&first]));
    let second = orphan(&world, "second");
    let found = node.leases.compare(&mut last).await.unwrap();
    assert_eq!(found, Findings { dropped: vec![first.clone()], ..only(&[&second]) });
    // Away, and back: that is found for the first time.
    world.target.roles.lock().unwrap().retain(|id| role(id) != second);
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), Findings::default());
    orphan(&world, "second");
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), only(&[&second]));
    assert_eq!(node.leases.compare(&mut last).await.unwrap().dropped, [second]);
    assert_eq!(world.target.roles().into_iter().collect::<Vec<_>>(), [kept]);
}

#[tokio::test(start_paused = true)]
async fn a_role_made_anew_under_the_name_of_an_orphan_is_another_role() {
    let world = World::new();
    let (node, _) = start(&world).await;
    *node.engine.drops_orphans.lock().unwrap() = true;
    let lost = orphan(&world, "lost");
    let mut last = LastTime::default();
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), only(&[&lost]));
    // Between two comparisons: it is found for the first time.
    *world.target.remade.lock().unwrap() = 1;
    let anew = OwnedRole { id: "1".to_owned(), ..lost };
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), only(&[&anew]));
    // Between a comparison and its drop: the engine keeps it, and it is neither dropped nor the orphan that was found.
    *world.target.remakes_before_drop.lock().unwrap() = true;
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), Findings::default());
    assert_eq!((world.target.count("drop"), world.target.roles().len()), (1, 1));
    let again = OwnedRole { id: "2".to_owned(), ..anew };
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), only(&[&again]));
    assert_eq!(node.leases.compare(&mut last).await.unwrap().dropped, [again]);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_could_not_be_dropped_is_tried_again() {
    let world = World::new();
    let (node, _) = start(&world).await;
    *node.engine.drops_orphans.lock().unwrap() = true;
    let lost = orphan(&world, "lost");
    let mut last = LastTime::default();
    node.leases.compare(&mut last).await.unwrap();
    *world.target.refuses.lock().unwrap() = Some("drop");
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), only(&[&lost]));
    *world.target.refuses.lock().unwrap() = None;
    assert_eq!(node.leases.compare(&mut last).await.unwrap().dropped, [lost]);
}

/// What is stored from one comparison to the next has a bound, whatever somebody makes in a database.
#[tokio::test(start_paused = true)]
async fn more_orphans_than_are_remembered_go_in_several_rounds() {
    let world = World::new();
    let (node, _) = start(&world).await;
    *node.engine.drops_orphans.lock().unwrap() = true;
    *node.engine.connections.lock().unwrap() = vec!["a", "b", "c", "d", "e", "f", "g"];
    for n in 0..REMEMBERED_MAX + 250 {
        orphan(&world, &format!("o{n:06}"));
    }
    let mut last = LastTime::default();
    let found = node.leases.compare(&mut last).await.unwrap();
    assert_eq!(found.orphans.len(), 7 * (REMEMBERED_MAX + 250), "all are reported");
    let stored = serde_json::to_value(&last).unwrap();
    let remembered = |name: &str| stored[name]["orphans"].as_array().unwrap().len();
    assert_eq!(["a", "b", "c", "d", "e", "f", "g"].map(remembered), [1_000, 1_000, 1_000, 1_000, 1_000, 0, 0]);
    assert_eq!(stored["g"]["orphan_count"], REMEMBERED_MAX + 250, "and counted");
    *node.engine.connections.lock().unwrap() = vec!["a"];
    let mut last: LastTime = serde_json::from_value(stored).unwrap();
    for left in [250, 0] {
        node.leases.compare(&mut last).await.unwrap();
        assert_eq!(world.target.roles().len(), left);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_role_is_gone_is_reported_and_kept() {
    let world = World::new();
    let (node, token) = start(&world).await;
    let (lost, kept) = (node.issue(&token).await.unwrap(), node.issue(&token).await.unwrap());
    world.target.roles.lock().unwrap().remove(&lost);
    let found = node.leases.compare(&mut LastTime::default()).await.unwrap();
    assert_eq!(found, Findings { missing: vec![lost.clone()], ..Findings::default() });
    assert!(node.row(&lost).await.is_some() && node.row(&kept).await.is_some());
}

/// While the list of roles is on its way a lease begins and another ends.
#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_no_finding() {
    let world = World::new();
    let (node, token) = start(&world).await;
    let ends = node.issue(&token).await.unwrap();
    *node.engine.lists_take.lock().unwrap() = Duration::from_secs(4);
    let comparing = {
        let node = node.clone();
        tokio::spawn(async move { node.leases.compare(&mut LastTime::default()).await.unwrap() })
    };
    pass(1).await;
    node.issue(&token).await.unwrap();
    node.leases.revoke(&ends, Wait::UntilGone, &asked()).await.unwrap();
    // A third is being issued, without a role, and a fourth is being revoked, with its role, when the leases are read.
    let half_way = node.issue(&token).await.unwrap();
    *node.engine.takes.lock().unwrap() = Duration::from_secs(20);
    let slow = {
        let (node, token) = (node.clone(), token.clone());
        let cause = asked();
        tokio::spawn(
            async move { tokio::join!(node.issue(&token), node.leases.revoke(&half_way, Wait::UntilGone, &cause)) },
        )
    };
    assert_eq!(comparing.await.unwrap(), Findings::default());
    let (issued, revoked) = slow.await.unwrap();
    assert!(issued.is_ok() && revoked.is_ok());
    assert_eq!(world.target.count("list"), 2, "what stood out was looked at again");
}

#[tokio::test(start_paused = true)]
async fn a_lease_under_revocation_whose_role_is_gone_is_no_finding() {
    let world = World::new();
    let (node, token) = start(&world).await;
    let id = node.issue(&token).await.unwrap();
    node.process.trouble_at(0, Trouble::LiesFailure);
    assert!(node.leases.revoke(&id, Wait::UntilGone, &asked()).await.is_err());
    assert!(!world.target.has(&id) && node.row(&id).await.is_some());
    assert_eq!(node.leases.compare(&mut LastTime::default()).await.unwrap(), Findings::default());
}

/// Two connections to one server see the same roles; a lease of one must not look like an orphan on the other.
#[tokio::test(start_paused = true)]
async fn connections_to_one_server_do_not_take_each_others_roles_for_orphans() {
    let world = World::new();
    let (node, token) = start(&world).await;
    *node.engine.connections.lock().unwrap() = vec!["other", "pg"];
    *node.engine.drops_orphans.lock().unwrap() = true;
    let kept = node.issue(&token).await.unwrap();
    let lost = orphan(&world, "lost");
    let mut last = LastTime::default();
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), only(&[&lost, &lost]));
    let found = node.leases.compare(&mut last).await.unwrap();
    assert_eq!((found.dropped, found.missing.is_empty()), (vec![lost], true));
    assert!(world.target.has(&kept) && world.target.roles().len() == 1);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_is_passed_over_and_nothing_of_it_is_forgotten() {
    let world = World::new();
    let (node, token) = start(&world).await;
    *node.engine.drops_orphans.lock().unwrap() = true;
    let lost = orphan(&world, "lost");
    let mut last = LastTime::default();
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), only(&[&lost]));
    *world.target.refuses.lock().unwrap() = Some("list");
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), Findings::default());
    *world.target.refuses.lock().unwrap() = None;
    node.process.trouble_at(0, Trouble::Unreached);
    assert!(node.issue(&token).await.is_err());
    let lists = world.target.count("list");
    assert_eq!(node.leases.compare(&mut last).await.unwrap(), Findings::default());
    assert_eq!(world.target.count("list"), lists, "it is known to be down");
    pass(6).await;
    assert_eq!(node.leases.compare(&mut last).await.unwrap().dropped, [lost]);
}

#[tokio::test(start_paused = true)]
async fn leases_and_roles_are_compared_a_minute_after_unsealing_and_every_ten() {
    let server = Server::start().await;
    pass(50).await;
    assert_eq!(server.target.count("list"), 0);
    for after in [60, 600, 600] {
        let before = server.target.count("list");
        pass(after).await;
        assert_eq!(server.target.count("list"), before + 1);
    }
    server.core.seal().await;
    pass(1_200).await;
    assert_eq!(server.target.count("list"), 3, "a sealed server compares nothing");
}

#[tokio::test(start_paused = true)]
async fn a_seal_does_not_wait_for_a_comparison() {
    let server = Server::start().await;
    *server.engine.lists_take.lock().unwrap() = Duration::from_secs(25);
    pass(70).await;
    assert_eq!(server.target.count("list"), 1);
    tokio::time::timeout(Duration::from_secs(5), server.core.seal()).await.unwrap();
}

/// What was forgotten by force is what an operator must hear of.
#[tokio::test(start_paused = true)]
async fn gauges_count_both_kinds_by_connection_and_end_with_it() {
    let gauges = Gauges::default();
    let _installed = metrics::set_default_local_recorder(&gauges);
    let server = Server::start().await;
    let lost = super::support::server::lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    server.read(ROOT, "db/creds/app").await.unwrap();
    *server.target.refuses.lock().unwrap() = Some("revoke");
    server.root("sys/leases/revoke-force/db", Value::Null).await.unwrap();
    *server.target.refuses.lock().unwrap() = None;
    let missing = super::support::server::lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    server.target.roles.lock().unwrap().remove(&missing);
    pass(70).await;
    assert!(server.target.has(&lost));
    let counted = async || {
        scrape(&server).await;
        let on = |name| gauges.of(name, &[("mount", "db/"), ("connection", "pg")]);
        (on("leasehold_orphan_roles"), on("leasehold_missing_roles"))
    };
    assert_eq!(counted().await, (2.0, 1.0));
    server.engine.connections.lock().unwrap().clear();
    pass(600).await;
    assert_eq!(counted().await, (0.0, 0.0));
}
