//! Every saga, failing, lying and dying at every write and at every step of the engine. Whatever happened, a fresh process
//! over the same store ends with: no role without a row, no row forgotten, no acknowledged lease lost, nothing dropped early.

use std::collections::BTreeSet;
use std::time::Duration;

use leasehold_core::lease::LeaseError;
use leasehold_core::lease::revoke::Wait;
use leasehold_core::token::end::Children;
use leasehold_model::{LeaseId, TokenHash, Ttl};

use super::support::asked;
use super::support::engine::TROUBLES;
use super::support::faults::FAULTS;
use super::support::node::{Node, TTL, World};
use super::support::pass;

/// What a saga is done to: a tree of three tokens with two leases each, and a bystander.
struct Scene {
    parent: TokenHash,
    child: TokenHash,
    grandchild: TokenHash,
    bystander: TokenHash,
    /// Of the tree.
    leases: Vec<LeaseId>,
    /// Of the bystander.
    other: LeaseId,
}

async fn scene(node: &Node) -> Scene {
    let long = Ttl::from_secs(30 * 86_400);
    let parent = node.token("parent", None, long).await;
    let child = node.token("child", Some(&parent), long).await;
    let grandchild = node.token("grandchild", Some(&child), long).await;
    let bystander = node.token("bystander", None, long).await;
    let mut leases = Vec::new();
    for token in [&parent, &child, &grandchild] {
        for _ in 0..2 {
            leases.push(node.issue(token).await.unwrap());
        }
    }
    let other = node.issue(&bystander).await.unwrap();
    Scene { parent, child, grandchild, bystander, leases, other }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saga {
    Issue,
    Renew,
    Revoke,
    RevokeLater,
    RevokePrefix,
    EndToken,
    EndTokenKeepChildren,
    Unmount,
}

const SAGAS: [Saga; 8] = [
    Saga::Issue,
    Saga::Renew,
    Saga::Revoke,
    Saga::RevokeLater,
    Saga::RevokePrefix,
    Saga::EndToken,
    Saga::EndTokenKeepChildren,
    Saga::Unmount,
];

/// What the client was told.
#[derive(Debug)]
enum Told {
    Issued(LeaseId),
    Done,
    Refused,
}

impl Saga {
    async fn run(self, node: &Node, scene: &Scene) -> Told {
        let first = &scene.leases[0];
        let done = |result: Result<(), LeaseError>| if result.is_ok() { Told::Done } else { Told::Refused };
        match self {
            Self::Issue => match node.issue(&scene.parent).await {
                Ok(id) => Told::Issued(id),
                Err(_) => Told::Refused,
            },
            Self::Renew => done(node.renew(first, Some(Ttl::from_secs(3 * 86_400))).await.map(drop)),
            Self::Revoke => done(node.leases.revoke(first, Wait::UntilGone, &asked()).await),
            Self::RevokeLater => done(node.leases.revoke(first, Wait::UntilStored, &asked()).await),
            Self::RevokePrefix => match node.leases.revoke_prefix("db/creds", Wait::UntilGone, &asked()).await {
                Ok(()) => Told::Done,
                Err(_) => Told::Refused,
            },
            Self::EndToken => done(node.leases.end_token(&scene.parent, Children::AreRevoked, &asked()).await),
            Self::EndTokenKeepChildren => {
                done(node.leases.end_token(&scene.parent, Children::BecomeOrphans, &asked()).await)
            }
            Self::Unmount => {
                let entry = node.mounts.by_path("db/").unwrap();
                let taint = |entry: &mut leasehold_core::mount::MountEntry| {
                    entry.tainted = true;
                    Ok::<(), leasehold_core::seams::storage::StorageError>(())
                };
                if node.mounts.update(&entry.accessor, taint).await.is_err() {
                    return Told::Refused;
                }
                if node.leases.revoke_mount(&entry.accessor, &asked()).await.is_err() {
                    return Told::Refused;
                }
                if node.mounts.remove(&entry).await.is_ok() { Told::Done } else { Told::Refused }
            }
        }
    }

    /// Leases that this saga may end.
    fn victims(self, scene: &Scene) -> BTreeSet<LeaseId> {
        let all = scene.leases.iter().cloned();
        match self {
            Self::Issue | Self::Renew => BTreeSet::new(),
            Self::Revoke | Self::RevokeLater => all.take(1).collect(),
            Self::EndToken => all.collect(),
            Self::EndTokenKeepChildren => all.take(2).collect(),
            Self::RevokePrefix | Self::Unmount => all.chain([scene.other.clone()]).collect(),
        }
    }
}

/// One saga with one thing going wrong. `arm` says what; the answer says whether it came to that.
async fn play(saga: Saga, context: &str, arm: impl Fn(&Node)) -> bool {
    let world = World::new();
    let node = world.start().await;
    let scene = scene(&node).await;
    world.assert_settled("before").await;
    let before = node.row(&scene.leases[0]).await.unwrap().expires_at;
    arm(&node);
    let told = tokio::time::timeout(Duration::from_secs(600), saga.run(&node, &scene)).await;
    let told = told.unwrap_or_else(|_| panic!("{context}: never ends"));
    let fired = !node.process.is_armed();
    node.process.disarm();
    node.assert_no_violation(context);
    // No role without a row, at any moment.
    let named: BTreeSet<LeaseId> = world.secrets().await.into_iter().map(|row| row.id).collect();
    assert!(world.target.roles().is_subset(&named), "{context}: a role without a row");
    let died = node.process.is_dead();
    node.process.die();

    // Holds, deadlines and first back-offs end in this time; no lease does.
    let next = world.recover(300).await;
    next.assert_no_violation(context);
    world.assert_settled(context).await;

    let active: BTreeSet<LeaseId> = world.secrets().await.into_iter().map(|row| row.id).collect();
    let victims = saga.victims(&scene);
    for id in scene.leases.iter().chain([&scene.other]).filter(|id| !victims.contains(*id)) {
        assert!(active.contains(id), "{context}: {id} is lost, and nobody asked for that");
    }
    match &told {
        Told::Issued(id) => assert!(active.contains(id), "{context}: acknowledged {id} is lost"),
        Told::Done => assert!(active.is_disjoint(&victims), "{context}: an acknowledged revocation did not happen"),
        // A lease that nobody was told of does not stay; but a process that dies after its commit leaves it to its TTL.
        Told::Refused if saga == Saga::Issue && !died => {
            assert_eq!(active.len(), scene.leases.len() + 1, "{context}: an undelivered lease stays");
        }
        Told::Refused => {}
    }
    if saga == Saga::Renew {
        let after = next.row(&scene.leases[0]).await.unwrap().expires_at;
        match told {
            Told::Done => assert!(after > before, "{context}: an acknowledged renewal is lost"),
            _ => assert!(after >= before, "{context}: a failed renewal took time away"),
        }
    }
    // A token that is gone takes its tree and all their leases with it.
    let (parent, child) = (world.token_lives(&scene.parent).await, world.token_lives(&scene.child).await);
    if !parent {
        assert!(scene.leases[..2].iter().all(|id| !active.contains(id)), "{context}: a lease outlives its token");
        let rest_lives = saga == Saga::EndTokenKeepChildren;
        assert_eq!(child, rest_lives, "{context}: the child");
        assert_eq!(world.token_lives(&scene.grandchild).await, rest_lives, "{context}: the grandchild");
        assert_eq!(scene.leases[2..].iter().all(|id| active.contains(id)), rest_lives, "{context}");
        assert_eq!(scene.leases[2..].iter().any(|id| active.contains(id)), rest_lives, "{context}");
    }
    assert!(world.token_lives(&scene.bystander).await, "{context}: the bystander");

    // Later than any end: nothing is left, in the store or in the target.
    if world.start().await.mounts.by_path("db/").is_some_and(|entry| entry.tainted) {
        // An operator tries again.
        let again = world.start().await;
        assert!(matches!(Saga::Unmount.run(&again, &scene).await, Told::Done), "{context}: the second unmount");
    }
    pass(40 * 86_400).await;
    let last = world.recover(300).await;
    last.assert_no_violation(context);
    assert_eq!(world.target.roles(), BTreeSet::new(), "{context}: roles at the end of time");
    assert_eq!(world.rows().await.len(), 0, "{context}: rows at the end of time");
    fired
}

async fn at_every_write(saga: Saga) {
    for fault in FAULTS {
        let mut write = 0;
        while play(saga, &format!("{saga:?}, {fault:?} at write {write}"), |node| node.process.fault_at(write, fault))
            .await
        {
            write += 1;
        }
        assert!(write > 0, "{saga:?} never writes");
    }
}

async fn at_every_engine_step(saga: Saga) {
    for trouble in TROUBLES {
        let mut step = 0;
        while play(saga, &format!("{saga:?}, {trouble:?} at step {step}"), |node| {
            node.process.trouble_at(step, trouble);
        })
        .await
        {
            step += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_trouble_every_saga_does_what_it_says() {
    for saga in SAGAS {
        let world = World::new();
        let node = world.start().await;
        let scene = scene(&node).await;
        let before = node.row(&scene.leases[0]).await.unwrap().expires_at;
        let asked_at = node.clock_now();
        assert!(!matches!(saga.run(&node, &scene).await, Told::Refused), "{saga:?}");
        node.tick(5).await;
        world.assert_settled(&format!("{saga:?}")).await;
        if saga == Saga::Renew {
            let row = node.row(&scene.leases[0]).await.unwrap();
            let wanted = asked_at + Ttl::from_secs(3 * 86_400);
            assert!(row.expires_at > before, "a renewal moves the end");
            assert_eq!((row.expires_at, row.next_at), (wanted, wanted), "to where it was asked for");
            let (_, body) = node.leases.find(&scene.leases[0]).await.unwrap().unwrap();
            assert_eq!(body.last_renewed_at, Some(asked_at));
        }
        let active: BTreeSet<LeaseId> = world.secrets().await.into_iter().map(|row| row.id).collect();
        assert!(active.is_disjoint(&saga.victims(&scene)), "{saga:?}");
    }
}

macro_rules! every_step {
    ($($write:ident, $step:ident: $saga:expr;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $write() {
            at_every_write($saga).await;
        }

        #[tokio::test(start_paused = true)]
        async fn $step() {
            at_every_engine_step($saga).await;
        }
    )*};
}

every_step! {
    an_issue_survives_every_fault_of_the_store, an_issue_survives_every_trouble_of_the_target: Saga::Issue;
    a_renewal_survives_every_fault_of_the_store, a_renewal_survives_every_trouble_of_the_target: Saga::Renew;
    a_revocation_survives_every_fault_of_the_store, a_revocation_survives_every_trouble_of_the_target: Saga::Revoke;
    a_queued_revocation_survives_every_fault_of_the_store, a_queued_revocation_survives_every_trouble_of_the_target: Saga::RevokeLater;
    a_prefix_revocation_survives_every_fault_of_the_store, a_prefix_revocation_survives_every_trouble_of_the_target: Saga::RevokePrefix;
    the_end_of_a_token_survives_every_fault_of_the_store, the_end_of_a_token_survives_every_trouble_of_the_target: Saga::EndToken;
    the_end_of_a_parent_survives_every_fault_of_the_store, the_end_of_a_parent_survives_every_trouble_of_the_target: Saga::EndTokenKeepChildren;
    an_unmount_survives_every_fault_of_the_store, an_unmount_survives_every_trouble_of_the_target: Saga::Unmount;
}

#[tokio::test(start_paused = true)]
async fn a_saga_repeated_after_a_crash_changes_nothing_more() {
    for saga in [Saga::Revoke, Saga::RevokePrefix, Saga::EndToken, Saga::Unmount] {
        let world = World::new();
        let node = world.start().await;
        let scene = scene(&node).await;
        saga.run(&node, &scene).await;
        let roles = world.target.roles();
        if saga != Saga::Unmount {
            assert!(matches!(saga.run(&node, &scene).await, Told::Done), "{saga:?}");
        }
        node.tick(60).await;
        assert!(world.target.roles().is_subset(&roles), "{saga:?}");
        world.assert_settled(&format!("{saga:?}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_at_its_expiry_and_not_before() {
    let world = World::new();
    let node = world.start().await;
    let token = node.token("t", None, Ttl::from_secs(30 * 86_400)).await;
    let id = node.issue(&token).await.unwrap();
    pass(TTL.as_secs() - 60).await;
    node.tick(50).await;
    assert!(world.target.has(&id));
    node.tick(12).await;
    assert!(!world.target.has(&id) && node.row(&id).await.is_none());
}
