//! TTL rules of leases, and what happens when two things want one lease.

use std::time::Duration;

use leasehold_core::lease::revoke::Wait;
use leasehold_core::lease::{LeaseError, LeaseState};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::host::Clock as _;
use leasehold_core::token::end::Children;
use leasehold_model::{Operation, Ttl};
use serde_json::{Value, json};

use super::support::asked;
use super::support::engine::Trouble;
use super::support::node::{Node, World};
use super::support::pass;
use super::support::server::{ROOT, Server, lease_of, refusal};

const LONG: Ttl = Ttl::from_secs(30 * 86_400);

/// An issue whose effect takes two seconds, and what else happens in the first of them.
async fn while_issuing<F: Future<Output = ()>>(
    meanwhile: impl FnOnce(std::sync::Arc<Node>) -> F,
) -> (World, std::sync::Arc<Node>) {
    let world = World::new();
    let node = std::sync::Arc::new(world.start().await);
    node.token("t", None, LONG).await;
    *node.engine.takes.lock().unwrap() = Duration::from_secs(2);
    let issuing = {
        let node = node.clone();
        let token = node.tokens.hash(&leasehold_model::TokenId::new("t"));
        tokio::spawn(async move { node.issue(&token).await })
    };
    pass(1).await;
    let ticking = {
        let node = node.clone();
        tokio::spawn(async move { node.tick(120).await })
    };
    meanwhile(node.clone()).await;
    let issued = issuing.await.unwrap();
    assert!(issued.is_err(), "{issued:?}");
    ticking.await.unwrap();
    assert_eq!(world.target.count("effect"), 1);
    node.assert_no_violation("while issuing");
    assert!(world.target.roles().is_empty() && world.secrets().await.is_empty());
    (world, node)
}

#[tokio::test(start_paused = true)]
async fn a_revocation_waits_for_the_effect_that_it_undoes() {
    while_issuing(|node| async move {
        let id = node.issuing().await;
        node.leases.revoke(&id, Wait::UntilGone, &asked()).await.unwrap();
    })
    .await;
    while_issuing(|node| async move {
        let id = node.issuing().await;
        node.leases.revoke(&id, Wait::UntilStored, &asked()).await.unwrap();
        assert_eq!(node.row(&id).await.unwrap().state, LeaseState::Revoking);
    })
    .await;
    while_issuing(|node| async move {
        node.leases.revoke_prefix("db", Wait::UntilGone, &asked()).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_during_an_issue_takes_the_lease_with_it() {
    let (world, node) = while_issuing(|node| async move {
        let token = node.tokens.hash(&leasehold_model::TokenId::new("t"));
        node.leases.end_token(&token, Children::AreRevoked, &asked()).await.unwrap();
    })
    .await;
    assert!(world.rows().await.is_empty());
    let token = node.tokens.hash(&leasehold_model::TokenId::new("t"));
    assert!(matches!(node.issue(&token).await, Err(LeaseError::TokenGone)));
}

/// The lease becomes active while the token's leases are looked for: it is found before that or after.
#[tokio::test(start_paused = true)]
async fn a_lease_that_becomes_active_while_its_token_ends_goes_with_it() {
    let world = World::new();
    let node = std::sync::Arc::new(world.start().await);
    let token = node.token("t", None, LONG).await;
    *node.engine.takes.lock().unwrap() = Duration::from_secs(2);
    let issuing = {
        let (node, token) = (node.clone(), token.clone());
        tokio::spawn(async move { node.issue(&token).await })
    };
    pass(1).await;
    *node.process.pause_after_lists.lock().unwrap() = Duration::from_secs(2);
    node.leases.end_token(&token, Children::AreRevoked, &asked()).await.unwrap();
    issuing.await.unwrap().unwrap();
    node.tick(10).await;
    assert!(world.target.roles().is_empty() && world.rows().await.is_empty());
    node.assert_no_violation("a lease that becomes active");
}

#[tokio::test(start_paused = true)]
async fn an_unmount_during_an_issue_leaves_nothing_and_nothing_begins_after_it() {
    let (_, node) = while_issuing(|node| async move {
        let entry = node.mounts.by_path("db/").unwrap();
        let taint = |entry: &mut leasehold_core::mount::MountEntry| {
            entry.tainted = true;
            Ok::<(), leasehold_core::seams::storage::StorageError>(())
        };
        assert!(node.mounts.update(&entry.accessor, taint).await.unwrap());
        // A request that was admitted before the taint.
        let token = node.tokens.hash(&leasehold_model::TokenId::new("t"));
        assert!(matches!(node.issue(&token).await, Err(LeaseError::NoEngine(_))));
        node.leases.revoke_mount(&entry.accessor, &asked()).await.unwrap();
        node.mounts.remove(&entry).await.unwrap();
    })
    .await;
    assert!(node.mounts.by_path("db/").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_outlives_its_row_is_undone_all_the_same() {
    while_issuing(|node| async move {
        // The store's clock says that the deadline is over, and another node is quicker.
        let id = node.issuing().await;
        let row = node.row(&id).await.unwrap();
        node.process.force.store(true, std::sync::atomic::Ordering::SeqCst);
        let gone = leasehold_core::seams::storage::Batch::new().remove(id, row.fence);
        leasehold_core::seams::storage::Storage::commit(&*node.process.store, gone).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_issue_that_reached_nobody_leaves_nothing() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    node.process.trouble_at(0, Trouble::Unreached);
    assert_eq!(node.issue(&token).await.unwrap_err().to_string(), "connection refused");
    assert!(world.secrets().await.is_empty(), "nothing was sent, so nothing is to be undone");
    assert!(node.issue(&token).await.is_err(), "it counts as down all the same");
    assert_eq!((world.target.count("effect"), world.target.count("revoke")), (1, 0));
    node.assert_no_violation("unreached");
}

#[tokio::test(start_paused = true)]
async fn an_issue_that_was_cut_off_is_undone_after_its_deadline() {
    for trouble in [Trouble::Down, Trouble::DownAfter] {
        let world = World::new();
        let node = world.start().await;
        let token = node.token("t", None, LONG).await;
        node.process.trouble_at(0, trouble);
        assert!(node.issue(&token).await.is_err());
        let row = world.secrets().await.remove(0);
        assert_eq!((row.state, row.next_at), (LeaseState::Revoking, node.at(35)), "the target may still be at it");
        node.tick(60).await;
        assert!(world.secrets().await.is_empty() && world.target.roles().is_empty());
    }
}

/// Its token's end has moved the row and raised its fence.
#[tokio::test(start_paused = true)]
async fn an_issue_that_reached_nobody_leaves_nothing_of_a_dead_token_either() {
    let world = World::new();
    let node = std::sync::Arc::new(world.start().await);
    let token = node.token("t", None, LONG).await;
    *node.engine.takes.lock().unwrap() = Duration::from_secs(2);
    node.process.trouble_at(0, Trouble::Unreached);
    let issuing = {
        let (node, token) = (node.clone(), token.clone());
        tokio::spawn(async move { node.issue(&token).await })
    };
    pass(1).await;
    node.leases.end_token(&token, Children::AreRevoked, &asked()).await.unwrap();
    assert!(issuing.await.unwrap().is_err());
    assert!(world.rows().await.is_empty() && world.target.count("revoke") == 0);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_during_a_renewal_wins() {
    let world = World::new();
    let node = std::sync::Arc::new(world.start().await);
    let token = node.token("t", None, LONG).await;
    let id = node.issue(&token).await.unwrap();
    *node.engine.takes.lock().unwrap() = Duration::from_secs(2);
    let renewal = {
        let (node, id) = (node.clone(), id.clone());
        tokio::spawn(async move { node.renew(&id, None).await })
    };
    pass(1).await;
    node.leases.revoke(&id, Wait::UntilGone, &asked()).await.unwrap();
    assert!(matches!(renewal.await.unwrap(), Err(LeaseError::Overtaken(_))));
    assert!(!world.target.has(&id) && node.row(&id).await.is_none());
    node.assert_no_violation("renewal");
}

#[tokio::test(start_paused = true)]
async fn two_renewals_at_once_do_not_mix() {
    let world = World::new();
    let node = std::sync::Arc::new(world.start().await);
    let token = node.token("t", None, LONG).await;
    let id = node.issue(&token).await.unwrap();
    *node.engine.takes.lock().unwrap() = Duration::from_secs(2);
    let (one, other) = tokio::join!(node.renew(&id, None), node.renew(&id, None));
    assert!(one.is_ok() != other.is_ok());
    assert!([one.err(), other.err()].into_iter().flatten().all(|error| matches!(error, LeaseError::Busy(_))));
}

#[tokio::test(start_paused = true)]
async fn a_token_renewed_in_its_last_instant_is_not_ended() {
    let world = World::new();
    let node = std::sync::Arc::new(world.start().await);
    let token = node.token("t", None, Ttl::from_secs(100)).await;
    // A renewal that has found the token alive, and commits when the ticker has claimed the row, and is slow.
    let (mut record, version) = node.tokens.find(&token).await.unwrap().unwrap();
    *node.process.pause_after_claims.lock().unwrap() = Duration::from_secs(10);
    let ticking = {
        let node = node.clone();
        tokio::spawn(async move { node.tick(900).await })
    };
    pass(105).await;
    record.expires_at = Some(node.at(1_000));
    node.tokens.extend(&token, &record, version).await.unwrap();
    ticking.await.unwrap();
    assert!(world.token_lives(&token).await);
    node.tick(300).await;
    assert!(!world.token_lives(&token).await && world.rows().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lease_outlives_neither_its_token_nor_the_tokens_parent() {
    let world = World::new();
    let node = world.start().await;
    let parent = node.token("parent", None, Ttl::from_secs(600)).await;
    let child = node.token("child", Some(&parent), LONG).await;
    let id = node.issue(&child).await.unwrap();
    node.tick(590).await;
    assert!(world.target.has(&id));
    node.tick(15).await;
    assert!(world.rows().await.is_empty() && world.target.roles().is_empty());
    assert!(node.try_token("late", Some(&parent), LONG).await.is_err(), "the dead have no children");
}

#[tokio::test(start_paused = true)]
async fn a_dead_target_holds_up_no_other_and_is_tried_again() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(node.issue(&token).await.unwrap());
    }
    *world.target.refuses.lock().unwrap() = Some("revoke");
    node.leases.end_token(&token, Children::AreRevoked, &asked()).await.unwrap();
    node.tick(200).await;
    assert_eq!(world.secrets().await.len(), 40, "nothing is forgotten");
    let tries = world.target.count("revoke");
    assert!((40 * 3..=40 * 6).contains(&tries), "back-off doubles from 10 s: {tries} tries");
    *world.target.refuses.lock().unwrap() = None;
    node.tick(900).await;
    assert!(world.secrets().await.is_empty() && world.target.roles().is_empty());
}

/// Longer than a claim lasts: nobody else begins the same meanwhile.
#[tokio::test(start_paused = true)]
async fn a_revocation_that_may_take_long_stays_with_whoever_has_begun_it() {
    let world = World::new();
    let (node, other) = (world.start().await, world.start().await);
    let token = node.token("t", None, LONG).await;
    let id = node.issue(&token).await.unwrap();
    for node in [&node, &other] {
        *node.engine.revocation_timeout.lock().unwrap() = Some(Duration::from_secs(300));
        *node.engine.takes.lock().unwrap() = Duration::from_secs(200);
    }
    node.leases.end_token(&token, Children::AreRevoked, &asked()).await.unwrap();
    tokio::join!(node.tick(250), other.tick(250));
    assert_eq!((world.target.count("revoke"), world.secrets().await.len()), (1, 0));
    assert!(!world.target.has(&id));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_takes_too_long_says_so_and_is_tried_again() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    let id = node.issue(&token).await.unwrap();
    *node.engine.revocation_timeout.lock().unwrap() = Some(Duration::from_secs(5));
    *node.engine.takes.lock().unwrap() = Duration::from_secs(8);
    let failed = node.leases.revoke(&id, Wait::UntilGone, &asked()).await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        "the revocation was not through after 5 s, its revocation_timeout; what is done stays done, and it is tried again"
    );
    let (row, body) = node.leases.find(&id).await.unwrap().unwrap();
    assert_eq!((row.state, body.attempts, body.last_error), (LeaseState::Revoking, 1, Some(failed.to_string())));
    assert!(row.next_at > world.clock.now(), "not at once");
    *node.engine.revocation_timeout.lock().unwrap() = Some(Duration::from_secs(60));
    node.tick(60).await;
    assert!(world.secrets().await.is_empty() && !world.target.has(&id));
}

/// A server that is to stop does not wait for ten minutes, and whoever comes after it goes on.
#[tokio::test(start_paused = true)]
async fn a_long_revocation_does_not_keep_a_server_from_stopping() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    node.issue(&token).await.unwrap();
    *node.engine.revocation_timeout.lock().unwrap() = Some(Duration::from_secs(600));
    *node.engine.takes.lock().unwrap() = Duration::from_secs(500);
    node.leases.end_token(&token, Children::AreRevoked, &asked()).await.unwrap();
    let began = tokio::time::Instant::now();
    node.tick(5).await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let again = world.start().await;
    again.tick(100).await;
    assert!(world.secrets().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_revocation_leaves_slots_for_others() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    for _ in 0..20 {
        node.issue(&token).await.unwrap();
    }
    *node.engine.takes.lock().unwrap() = Duration::from_secs(1_000_000);
    let other = node.token("other", None, Ttl::from_secs(10)).await;
    node.leases.end_token(&token, Children::AreRevoked, &asked()).await.unwrap();
    node.tick(15).await;
    assert!(!world.token_lives(&other).await, "tokens end while a target hangs");
}

#[tokio::test(start_paused = true)]
async fn revocations_that_have_failed_before_keep_no_fresh_one_waiting() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    for _ in 0..60 {
        let id = node.issue(&token).await.unwrap();
        world.target.stuck.lock().unwrap().insert(id.clone());
        node.leases.revoke(&id, Wait::UntilStored, &asked()).await.unwrap();
    }
    // Each has had its first try by then, and each is due again.
    node.tick(300).await;
    let fresh = node.issue_for(&token, Ttl::from_secs(3), LONG, None).await.unwrap().lease.id;
    node.tick(5).await;
    assert!(!world.target.has(&fresh), "it ended two seconds late, or never");
    assert_eq!(world.secrets().await.len(), 60, "and none of the others is given up");
}

#[tokio::test(start_paused = true)]
async fn work_that_a_busy_target_turned_away_is_done_in_a_moment() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    let id = node.issue(&token).await.unwrap();
    node.process.trouble_at(0, Trouble::Busy);
    node.leases.revoke(&id, Wait::UntilGone, &asked()).await.unwrap();
    assert!(!world.target.has(&id) && world.secrets().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_again_and_again_makes_no_later_end() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    let id = node.issue(&token).await.unwrap();
    *world.target.refuses.lock().unwrap() = Some("revoke");
    for _ in 0..8 {
        node.leases.revoke(&id, Wait::UntilGone, &asked()).await.unwrap_err();
    }
    assert_eq!(node.leases.find(&id).await.unwrap().unwrap().1.attempts, 1);
    *world.target.refuses.lock().unwrap() = None;
    node.tick(15).await;
    assert!(!world.target.has(&id), "it is tried again as soon as after one try");
}

#[tokio::test(start_paused = true)]
async fn force_waits_for_no_target_that_does_not_answer() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    for _ in 0..100 {
        node.issue(&token).await.unwrap();
    }
    *node.engine.takes.lock().unwrap() = Duration::from_secs(5);
    *world.target.is_down.lock().unwrap() = true;
    let begun = tokio::time::Instant::now();
    node.process.force.store(true, std::sync::atomic::Ordering::SeqCst);
    node.leases.revoke_force("db/creds/app", &asked()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(world.secrets().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_ticker_ends_with_the_one_who_could_stop_it() {
    let world = World::new();
    let node = world.start().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let ticker = tokio::spawn(node.leases.clone().run(node.jobs.clone(), stop.clone()));
    drop(stop.drop_guard());
    tokio::time::timeout(Duration::from_secs(5), ticker).await.unwrap().unwrap();
}

/// The auth mount whose login made a batch token is being removed while that token's request is under way.
#[tokio::test(start_paused = true)]
async fn a_batch_token_whose_login_is_gone_gets_no_lease_and_hears_why() {
    let world = World::new();
    let node = world.start().await;
    let login = leasehold_core::mount::MountEntry::new(
        leasehold_core::mount::Table::Auth,
        "auth/door/".parse().unwrap(),
        "scripted",
        &*world.entropy,
    );
    node.mounts.add(login.clone()).await.unwrap();
    let token = node.tokens.batch_tokens_of(&login.accessor);
    let issue = async || {
        let mount = node.mounts.by_path("db/").unwrap();
        let holder = leasehold_core::token::Leaseholder::Batch {
            token: &token,
            parent: None,
            login: Some(&login.accessor),
            until: node.at(600),
        };
        node.issue_as(holder, &mount).await
    };
    assert_eq!(issue().await.unwrap().lease.ttl, Ttl::from_secs(600), "it ends with its token");
    let taint = |entry: &mut leasehold_core::mount::MountEntry| {
        entry.tainted = true;
        Ok::<(), leasehold_core::seams::storage::StorageError>(())
    };
    assert!(node.mounts.update(&login.accessor, taint).await.unwrap());
    assert!(matches!(issue().await, Err(LeaseError::TokenGone)), "it is on its way out");
    node.mounts.remove(&login).await.unwrap();
    assert!(matches!(issue().await, Err(LeaseError::TokenGone)), "it is gone");
    assert_eq!(world.target.count("effect"), 1);
}

/// Its deadline has passed by the store's clock, and another worker has claimed the row to undo it: there is one who undoes it.
#[tokio::test(start_paused = true)]
async fn an_issue_that_lost_its_row_to_a_worker_leaves_the_undoing_to_that_worker() {
    let world = World::new();
    let node = std::sync::Arc::new(world.start().await);
    let token = node.token("t", None, LONG).await;
    *node.engine.takes.lock().unwrap() = Duration::from_secs(2);
    let issuing = {
        let node = node.clone();
        tokio::spawn(async move { node.issue(&token).await })
    };
    pass(1).await;
    let id = node.issuing().await;
    let row = node.row(&id).await.unwrap();
    let claimed = leasehold_core::lease::LeaseRow {
        fence: row.fence + 1,
        holder: Some("another".to_owned()),
        held_until: Some(node.at(60)),
        ..row.clone()
    };
    let claim = leasehold_core::seams::storage::Batch::new().shift(claimed.clone(), LeaseState::Issuing, row.fence);
    leasehold_core::seams::storage::Storage::commit(&*world.store, claim).await.unwrap();
    assert!(matches!(issuing.await.unwrap(), Err(LeaseError::Overtaken(_))));
    assert_eq!(node.row(&id).await.unwrap(), claimed, "it is the worker's");
    assert_eq!(world.target.count("revoke"), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_ends_a_prefix_hears_when_all_is_gone_however_much_there_is() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    // More than are worked on at once, and more than one page. Nobody else works here: there is no ticker.
    for _ in 0..1_030 {
        node.issue(&token).await.unwrap();
    }
    node.leases.revoke_prefix("db/creds", Wait::UntilGone, &asked()).await.unwrap();
    assert!(world.secrets().await.is_empty() && world.target.roles().is_empty());
    assert_eq!(world.target.count("revoke"), 1_030);
}

#[tokio::test(start_paused = true)]
async fn of_all_that_could_not_be_ended_the_first_is_named_by_its_place() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, LONG).await;
    for _ in 0..1_010 {
        node.issue(&token).await.unwrap();
    }
    let ids: Vec<_> = world.secrets().await.into_iter().map(|row| row.id).collect();
    // On the second page, and places are counted over all pages.
    *world.target.stuck.lock().unwrap() = [1_004, 1_007].into_iter().map(|at| ids[at].clone()).collect();
    let told = node.leases.revoke_prefix("db", Wait::UntilGone, &asked()).await.unwrap_err().to_string();
    assert!(told.starts_with(&format!("failed to revoke \"{}\" (1005 / 1010): ", ids[1_004])), "{told}");
    // Of two that fail, the earlier one is named although it fails later.
    let two: Vec<_> = world.secrets().await.into_iter().map(|row| row.id).collect();
    assert_eq!(two.len(), 2, "all others were ended all the same");
    *world.target.stuck.lock().unwrap() = [two[0].clone()].into();
    *world.target.refuses.lock().unwrap() = Some("revoke");
    let told = node.leases.revoke_prefix("db", Wait::UntilGone, &asked()).await.unwrap_err().to_string();
    assert!(told.starts_with(&format!("failed to revoke \"{}\" (1 / 2): ERROR: lock timeout", two[0])), "{told}");
}

/// Another node was faster: what both wanted is done.
#[tokio::test(start_paused = true)]
async fn a_revocation_that_somebody_else_finished_has_succeeded() {
    let world = World::new();
    let node = std::sync::Arc::new(world.start().await);
    let token = node.token("t", None, LONG).await;
    let id = node.issue(&token).await.unwrap();
    *node.engine.takes.lock().unwrap() = Duration::from_secs(2);
    let revoking = {
        let (node, id) = (node.clone(), id.clone());
        tokio::spawn(async move { node.leases.revoke(&id, Wait::UntilGone, &asked()).await })
    };
    pass(1).await;
    let row = node.row(&id).await.unwrap();
    let gone = leasehold_core::seams::storage::Batch::new().remove(id.clone(), row.fence);
    leasehold_core::seams::storage::Storage::commit(&*world.store, gone).await.unwrap();
    revoking.await.unwrap().unwrap();
    assert!(node.row(&id).await.is_none() && !world.target.has(&id));
}

/// A target has eight places, whoever asks and however much.
#[tokio::test(start_paused = true)]
async fn a_prefix_takes_no_more_than_a_targets_places_at_once() {
    for forced in [false, true] {
        let world = World::new();
        let node = world.start().await;
        let token = node.token("t", None, LONG).await;
        for _ in 0..9 {
            node.issue(&token).await.unwrap();
        }
        *node.engine.takes.lock().unwrap() = Duration::from_secs(5);
        let begun = tokio::time::Instant::now();
        match forced {
            false => node.leases.revoke_prefix("db", Wait::UntilGone, &asked()).await.unwrap(),
            true => node.leases.revoke_force("db", &asked()).await.unwrap(),
        }
        let took = begun.elapsed();
        assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&took), "eight, and then one: {took:?}");
        assert!(world.target.roles().is_empty());
    }
}

// ---------------------------------------------------------------- over the API

#[tokio::test(start_paused = true)]
async fn the_least_maximum_caps_a_lease() {
    let secs = Ttl::from_secs;
    // The system's default is a day here, its maximum 32 days. Role default, role max, mount default, mount max, ceiling; TTL, whether there is a warning.
    for (role_default, role_max, mount_default, mount_max, ceiling, ttl, warns) in [
        (0, 0, 0, 0, None, 86_400, false),
        (3_600, 0, 0, 0, None, 3_600, false),
        (0, 0, 1_800, 0, None, 1_800, false),
        (3_600, 600, 0, 0, None, 600, true),
        (3_600, 86_400, 0, 900, None, 900, true),
        (3_600, 86_400, 0, 0, Some(60), 60, true),
        (60, 86_400, 0, 0, Some(600), 60, false),
        // The system's default is more than this mount allows.
        (0, 0, 0, 900, None, 900, true),
    ] {
        let world = World::new();
        let node = world.start().await;
        let token = node.token("t", None, LONG).await;
        let accessor = node.mounts.by_path("db/").unwrap().accessor.clone();
        let tune = |entry: &mut leasehold_core::mount::MountEntry| {
            entry.default_lease_ttl = secs(mount_default);
            entry.max_lease_ttl = secs(mount_max);
            Ok::<(), leasehold_core::seams::storage::StorageError>(())
        };
        assert!(node.mounts.update(&accessor, tune).await.unwrap());
        let issued = node.issue_for(&token, secs(role_default), secs(role_max), ceiling.map(secs)).await.unwrap();
        assert_eq!(issued.lease.ttl, secs(ttl), "{role_default} {role_max} {mount_default} {mount_max}");
        assert_eq!(!issued.warnings.is_empty(), warns, "{:?}", issued.warnings);
        let row = node.row(&issued.lease.id).await.unwrap();
        assert_eq!(row.expires_at, node.at(ttl));
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_counts_from_now_and_never_passes_the_maximum() {
    let server = Server::start().await;
    *server.engine.ttls.lock().unwrap() = (Ttl::from_secs(100), Ttl::from_secs(1_000));
    let answer = server.read(ROOT, "db/creds/app").await.unwrap();
    let id = lease_of(&answer);
    let renew =
        |increment: Value| server.root("sys/leases/renew", json!({ "lease_id": id.as_str(), "increment": increment }));
    for (wait, increment, ttl, warns) in [
        (50, json!(0), 100, false),
        (50, json!(null), 100, false),
        (50, json!("10m"), 600, false),
        (50, json!(30), 30, false),
        (20, json!(3600), 780, true),
    ] {
        pass(wait).await;
        let answer = renew(increment.clone()).await.unwrap();
        assert_eq!(answer.lease.unwrap().ttl, Ttl::from_secs(ttl), "{increment}");
        assert_eq!(!answer.warnings.is_empty(), warns, "{increment}: {:?}", answer.warnings);
        assert!(answer.data.is_none());
    }
    pass(775).await;
    let last = renew(json!(3600)).await.unwrap();
    assert_eq!(last.lease.unwrap().ttl, Ttl::from_secs(5));
    assert_eq!(
        last.warnings,
        ["TTL of \"1h\" exceeded the effective max_ttl of \"5s\"; TTL value is capped accordingly"],
        "what is left is named"
    );
    pass(10).await;
    assert_eq!(refusal(renew(json!(0)).await), "Invalid: lease not found");
    assert!(server.target.roles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lowered_reaches_leases_that_live() {
    let secs = Ttl::from_secs;
    // Role and mount (default, maximum) after a quarter of an hour; increment; what is left then.
    for (role, mount, increment, left) in [
        ((3_600, 86_400), json!({}), 0, Some(3_600)),
        ((300, 86_400), json!({}), 0, Some(300)),
        ((0, 0), json!({ "default_lease_ttl": "10m" }), 0, Some(600)),
        ((3_600, 1_500), json!({}), 0, Some(600)),
        ((3_600, 1_500), json!({}), 60, Some(60)),
        ((3_600, 86_400), json!({ "default_lease_ttl": "20m", "max_lease_ttl": "20m" }), 18_000, Some(300)),
        ((3_600, 900), json!({}), 0, None),
        ((3_600, 1), json!({}), 60, None),
        // What was agreed at issue holds too.
        ((3_600, 864_000), json!({}), 864_000, Some(86_400 - 900)),
    ] {
        let server = Server::start().await;
        let id = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
        pass(900).await;
        *server.engine.ttls.lock().unwrap() = (secs(role.0), secs(role.1));
        server.root("sys/mounts/db/tune", mount.clone()).await.unwrap();
        let renewed = server.root("sys/leases/renew", json!({ "lease_id": id.as_str(), "increment": increment })).await;
        let context = format!("{role:?} {mount} {increment}");
        match left {
            Some(left) => assert_eq!(renewed.unwrap().lease.unwrap().ttl, secs(left), "{context}"),
            None => assert_eq!(
                refusal(renewed),
                "Invalid: failed to renew entry: resp: (*logical.Response)(nil) err: past the max TTL, cannot renew",
                "{context}"
            ),
        }
        // Refused or not, nobody holds it any more.
        assert!(server.rows().await.iter().all(|row| row.holder.is_none()), "{context}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_a_target_that_is_down_hears_its_own_words_at_once() {
    let server = Server::start().await;
    server.process.trouble_at(0, Trouble::Unreached);
    for said in ["Engine: connection refused", "Engine: connection refused; it is not tried again for 5 s"] {
        assert_eq!(refusal(server.read(ROOT, "db/creds/app").await), said);
    }
    assert_eq!(server.target.count("effect"), 1, "the second did not try");
    pass(6).await;
    server.read(ROOT, "db/creds/app").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_was_opened_anew_is_tried_at_once() {
    let server = Server::start().await;
    server.process.trouble_at(0, Trouble::Unreached);
    assert!(server.read(ROOT, "db/creds/app").await.is_err());
    server.root("db/reset", Value::Null).await.unwrap();
    server.read(ROOT, "db/creds/app").await.unwrap();
    // What began before it was opened anew, and fails after that, says nothing of it.
    *server.engine.takes.lock().unwrap() = Duration::from_secs(2);
    server.process.trouble_at(0, Trouble::Unreached);
    let reset = async {
        pass(1).await;
        server.root("db/reset", Value::Null).await
    };
    let (late, reset) = tokio::join!(server.read(ROOT, "db/creds/app"), reset);
    assert!(late.is_err() && reset.is_ok());
    server.read(ROOT, "db/creds/app").await.unwrap();
    // What begins and fails after it says as much as ever.
    *server.engine.takes.lock().unwrap() = Duration::ZERO;
    server.process.trouble_at(0, Trouble::Unreached);
    assert!(server.read(ROOT, "db/creds/app").await.is_err());
    assert!(refusal(server.read(ROOT, "db/creds/app").await).ends_with("it is not tried again for 5 s"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_renewed_says_why() {
    let server = Server::start().await;
    *server.engine.renewable.lock().unwrap() = false;
    let fixed = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    *server.engine.renewable.lock().unwrap() = true;
    let lost = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    server.target.roles.lock().unwrap().remove(&lost);
    let stuck = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    *server.target.refuses.lock().unwrap() = Some("revoke");
    let failed = refusal(server.root("sys/leases/revoke", json!({ "lease_id": stuck.as_str() })).await);
    assert_eq!(
        failed,
        "Invalid: failed to revoke entry: resp: (*logical.Response)(nil) err: ERROR: refused (SQLSTATE 42501)"
    );
    let tokens =
        server.call(Some(ROOT), Operation::List, "sys/leases/lookup/auth/token/create/", Value::Null).await.unwrap();
    let root = format!("auth/token/create/{}", tokens.data.unwrap()["keys"][0].as_str().unwrap());
    for (id, why) in [
        (fixed.as_str(), "Invalid: lease is not renewable"),
        (
            lost.as_str(),
            "Invalid: failed to renew entry: resp: (*logical.Response)(nil) err: ERROR: role does not exist (SQLSTATE 42704)",
        ),
        (stuck.as_str(), "Invalid: lease expired"),
        (root.as_str(), "Invalid: tokens cannot be renewed through this endpoint"),
        ("db/creds/app/nosuch", "Invalid: lease not found"),
        ("", "Invalid: lease_id must be specified"),
    ] {
        assert_eq!(refusal(server.root("sys/leases/renew", json!({ "lease_id": id })).await), why, "{id}");
    }
    let shown = server.root("sys/leases/lookup", json!({ "lease_id": stuck.as_str() })).await.unwrap().data.unwrap();
    assert_eq!((&shown["renewable"], shown["ttl"].as_i64().unwrap() <= 0), (&json!(false), true));
    let minute = |key: &str| shown[key].as_str().unwrap().get(..16).unwrap().to_owned();
    assert_eq!(minute("expire_time"), minute("issue_time"), "it ended early, and says so");
    assert_eq!(shown["revoke_error"], "ERROR: refused (SQLSTATE 42501)");
    // It is still tried, and only force forgets it.
    server.root("sys/leases/revoke-force/db", Value::Null).await.unwrap();
    assert!(server.target.has(&stuck) && !server.rows().await.iter().any(|row| row.id == stuck));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_lease_is_shown_as_irrevocable_and_tried_for_ever() {
    let server = Server::start().await;
    let id = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    *server.target.refuses.lock().unwrap() = Some("revoke");
    let later = server.root("sys/leases/revoke", json!({ "lease_id": id.as_str(), "sync": false })).await.unwrap();
    assert_eq!(later.status, Some(202));
    let count = || server.call(Some(ROOT), Operation::Read, "sys/leases/count", json!({ "type": "irrevocable" }));
    pass(100).await;
    assert_eq!(count().await.unwrap().data.unwrap()["lease_count"], 0);
    pass(1_200).await;
    assert_eq!(count().await.unwrap().data.unwrap()["lease_count"], 1);
    *server.target.refuses.lock().unwrap() = None;
    pass(800).await;
    assert_eq!(count().await.unwrap().data.unwrap()["lease_count"], 0);
    assert!(!server.target.has(&id));
}

/// Each failed try doubled the wait, so that a role stayed for minutes after its target was back, or while another server reached it.
#[tokio::test(start_paused = true)]
async fn a_lease_goes_soon_after_its_target_is_back_however_long_it_was_away() {
    for (away, is_irrevocable) in [(3, false), (60, false), (250, false), (1_200, true)] {
        let server = Server::start().await;
        let id = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
        *server.target.refuses.lock().unwrap() = Some("away");
        server.root("sys/leases/revoke", json!({ "lease_id": id.as_str(), "sync": false })).await.unwrap();
        pass(away).await;
        let count =
            server.call(Some(ROOT), Operation::Read, "sys/leases/count", json!({ "type": "irrevocable" })).await;
        let count = count.unwrap().data.unwrap()["lease_count"].as_u64().unwrap();
        assert_eq!(count, u64::from(is_irrevocable), "it counts as failed as often as with longer waits: {away} s");
        assert!(server.target.has(&id));
        *server.target.refuses.lock().unwrap() = None;
        pass(7).await;
        assert!(!server.target.has(&id), "{away} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_prefix_ends_what_is_below_it_and_nothing_beside_it() {
    let server = Server::start().await;
    server.root("sys/mounts/db2", json!({ "type": "scripted" })).await.unwrap();
    let mut ids = Vec::new();
    for path in ["db/creds/app", "db/creds/app", "db/creds/app2", "db2/creds/app"] {
        ids.push(lease_of(&server.read(ROOT, path).await.unwrap()));
    }
    let left = || server.target.roles();
    server.root(&format!("sys/leases/revoke-prefix/{}", ids[0]), json!({})).await.unwrap();
    assert!(!left().contains(&ids[0]) && left().len() == 3, "an id is a prefix of its own");
    server.root("sys/leases/revoke-prefix/db/creds/app", json!({})).await.unwrap();
    assert!(!left().contains(&ids[1]) && left().len() == 2, "app2 is not below app");
    server.root("sys/revoke-prefix/db", json!({ "sync": false })).await.unwrap();
    pass(2).await;
    assert_eq!(left().into_iter().collect::<Vec<_>>(), [ids[3].clone()], "db2 is not below db");
    let empty = server.root("sys/leases/revoke-prefix/", json!({})).await;
    assert!(matches!(empty, Err(RequestError::UnsupportedPath | RequestError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn one_lease_that_stays_does_not_keep_the_others() {
    let server = Server::start().await;
    for _ in 0..4 {
        server.read(ROOT, "db/creds/app").await.unwrap();
    }
    server.process.trouble_at(0, Trouble::Fails);
    let answer = server.root("sys/leases/revoke-prefix/db", json!({})).await;
    pass(60).await;
    assert!(server.target.roles().is_empty(), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn lists_name_folders_once_and_read_no_more_than_they_show() {
    let server = Server::start().await;
    for path in ["db/creds/a", "db/creds/a", "db/creds/b"] {
        server.read(ROOT, path).await.unwrap();
    }
    let list = async |prefix: &str| {
        let path = format!("sys/leases/lookup/{prefix}");
        let answer = server.call(Some(ROOT), Operation::List, &path, Value::Null).await.unwrap();
        assert!(answer.warnings.is_empty(), "all of them are there: {:?}", answer.warnings);
        answer.data.unwrap()["keys"].as_array().unwrap().clone()
    };
    assert_eq!(list("").await, [json!("auth/"), json!("db/")]);
    assert_eq!(list("db/creds/").await, [json!("a/"), json!("b/")]);
    assert_eq!(list("db/creds/a/").await.len(), 2);
    let none = server.call(Some(ROOT), Operation::List, "sys/leases/lookup/nosuch/", Value::Null).await;
    assert!(matches!(none, Err(RequestError::NotFound)));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_lease_hides_no_other_and_goes_by_force() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(lease_of(&server.read(ROOT, "db/creds/app").await.unwrap()));
    }
    let bad = ids.remove(1);
    server.damage(&bad).await;
    let irrevocable = async || {
        let shown = server.read_with(ROOT, "sys/leases", json!({ "type": "irrevocable" })).await.unwrap();
        shown.data.unwrap()["lease_count"].clone()
    };
    assert_eq!(irrevocable().await, 0, "nobody has tried to end it yet");
    let left = async || {
        let path = "sys/leases/lookup/db/creds/app/";
        match server.call(Some(ROOT), Operation::List, path, Value::Null).await {
            Ok(answer) => answer.data.unwrap()["keys"].as_array().unwrap().len(),
            Err(_) => 0,
        }
    };
    assert_eq!(left().await, 3);
    let why = format!(
        "stored lease `{bad}` is damaged and cannot be read: revoke-force removes it, and its credential may remain in the target"
    );
    for route in ["lookup", "renew", "revoke"] {
        let said = refusal(server.root(&format!("sys/leases/{route}"), json!({ "lease_id": bad.as_str() })).await);
        assert_eq!(said, format!("Engine: {why}"), "{route}");
    }
    let said = refusal(server.root("sys/leases/revoke-prefix/db", json!({})).await);
    assert!(said.starts_with("Invalid: failed to revoke ") && said.ends_with(&why), "{said}");
    assert_eq!((left().await, server.target.roles().into_iter().collect::<Vec<_>>()), (1, vec![bad.clone()]));
    let shown = server.read_with(ROOT, "sys/leases", json!({ "type": "irrevocable" })).await.unwrap().data.unwrap();
    assert_eq!(shown["leases"], json!([{ "lease_id": bad.as_str(), "error": why }]));

    server.root("sys/leases/revoke-force/db", Value::Null).await.unwrap();
    assert_eq!(left().await, 0);
    assert!(server.target.has(&bad), "nobody knew what to undo");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_row_keeps_no_other_from_its_end() {
    let server = Server::start().await;
    *server.engine.ttls.lock().unwrap() = (Ttl::from_secs(100), Ttl::from_secs(100));
    let token = server.token(json!({ "policies": ["root"], "ttl": "60s" })).await;
    let of_token = lease_of(&server.read(&token, "db/creds/app").await.unwrap());
    let bad = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    for _ in 0..20 {
        server.read(ROOT, "db/creds/app").await.unwrap();
    }
    server.damage(&bad).await;
    let of_tokens = |row: &leasehold_core::lease::LeaseRow| row.kind == leasehold_core::lease::LeaseKind::Token;
    for row in server.rows().await.into_iter().filter(of_tokens) {
        server.damage(&row.id).await;
    }
    pass(70).await;
    assert!(!server.lives(&token).await && !server.target.has(&of_token), "an end needs no body of a token's row");
    pass(60).await;
    assert_eq!(server.target.roles().into_iter().collect::<Vec<_>>(), std::slice::from_ref(&bad));
    let held = server.rows().await.into_iter().find(|row| row.id == bad).unwrap();
    assert!(held.state == LeaseState::Revoking && held.holder.is_none(), "it waits, and no worker waits for it");
    let shown = server.read_with(ROOT, "sys/leases", json!({ "type": "irrevocable" })).await.unwrap().data.unwrap();
    assert_eq!(shown["lease_count"], 1, "damaged rows of tokens are no leases of secrets: {shown:?}");
    server.read(ROOT, "db/creds/app").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unmount_ends_the_leases_of_its_mount_and_no_others() {
    let server = Server::start().await;
    server.root("sys/mounts/other", json!({ "type": "scripted" })).await.unwrap();
    let kept = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    let ended = lease_of(&server.read(ROOT, "other/creds/app").await.unwrap());
    let token = server.token(json!({ "ttl": "1h" })).await;
    server.call(Some(ROOT), Operation::Delete, "sys/mounts/other", Value::Null).await.unwrap();
    assert!(server.target.has(&kept) && !server.target.has(&ended));
    assert!(server.lives(&token).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_revoked_is_free_and_due_at_once_unless_it_is_being_issued() {
    let world = World::new();
    let node = std::sync::Arc::new(world.start().await);
    let token = node.token("t", None, LONG).await;
    let id = node.issue(&token).await.unwrap();
    let before = node.row(&id).await.unwrap();
    node.leases.revoke(&id, Wait::UntilStored, &asked()).await.unwrap();
    let row = node.row(&id).await.unwrap();
    assert_eq!(row.state, LeaseState::Revoking);
    assert_eq!((row.holder, row.held_until), (None, None));
    assert!(row.fence > before.fence, "whoever worked on it does not any more");
    assert!(row.next_at <= node.at(0));

    // What is being issued stays held until its issuer is through.
    *node.engine.takes.lock().unwrap() = Duration::from_secs(2);
    let issuing = {
        let (node, token) = (node.clone(), token.clone());
        tokio::spawn(async move { node.issue(&token).await })
    };
    pass(1).await;
    let id = node.issuing().await;
    let before = node.row(&id).await.unwrap();
    node.leases.revoke(&id, Wait::UntilStored, &asked()).await.unwrap();
    let row = node.row(&id).await.unwrap();
    assert_eq!((row.state, row.holder, row.held_until), (LeaseState::Revoking, before.holder, before.held_until));
    assert!(row.fence > before.fence && Some(row.next_at) == row.held_until);
    assert!(issuing.await.unwrap().is_err());
    // A renewal that is refused gives its claim back.
    *node.engine.takes.lock().unwrap() = Duration::ZERO;
    let id = node.issue(&token).await.unwrap();
    let before = node.row(&id).await.unwrap();
    node.process.trouble_at(0, Trouble::Fails);
    assert!(node.renew(&id, None).await.is_err());
    let row = node.row(&id).await.unwrap();
    assert_eq!((row.state, row.holder, row.held_until), (LeaseState::Active, None, None));
    assert_eq!((row.next_at, row.expires_at), (before.next_at, before.expires_at));
}

/// What only the target knew before an effect is stored with the lease, and told to whatever is done to it later.
#[tokio::test(start_paused = true)]
async fn what_an_effect_gave_back_reaches_renewals_and_revocations() {
    let server = Server::start().await;
    let lease = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    server.root("sys/leases/renew", json!({ "lease_id": lease.as_str() })).await.unwrap();
    server.root("sys/leases/revoke", json!({ "lease_id": lease.as_str() })).await.unwrap();
    let made = json!({ "made": lease.random() });
    assert_eq!(*server.target.receipts.lock().unwrap(), [made.clone(), made]);
}
