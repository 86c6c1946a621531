//! Claims: who may work on a row, and until when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::lease::{LeaseRow, LeaseState};
use leasehold_core::seams::storage::{Batch, StorageError};
use leasehold_model::{Timestamp, Ttl};

use super::{Fixture, START_SECS, id, row};

const CLAIM_TTL: Ttl = Ttl::from_secs(30);

fn names(rows: &[LeaseRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

pub(super) async fn rows_are_claimed_in_order_of_their_turn(Fixture { storage, clock }: Fixture) {
    let batch = Batch::new()
        .insert(row("a/4", START_SECS))
        .insert(row("a/3", 10))
        .insert(row("b/2", 5))
        .insert(row("a/2", 5))
        .insert(row("a/5", START_SECS + 1))
        .insert(LeaseRow { next_at: Timestamp::NEVER, ..row("a/6", 0) });
    storage.commit(batch).await.unwrap();
    assert!(storage.claim_due("n", 0, CLAIM_TTL, &[]).await.unwrap().is_empty());
    let first = storage.claim_due("n", 2, CLAIM_TTL, &[]).await.unwrap();
    assert_eq!(names(&first), ["a/2", "b/2"]);
    let claimed = LeaseRow {
        fence: 1,
        holder: Some("n".to_owned()),
        held_until: Some(Timestamp::from_secs(START_SECS) + CLAIM_TTL),
        ..row("a/2", 5)
    };
    assert!(first[0] == claimed, "a claim changes holder, hold and fence only: {:?}", first[0]);
    assert!(storage.lease(&claimed.id).await.unwrap().unwrap() == claimed);
    assert_eq!(names(&storage.claim_due("n", 10, CLAIM_TTL, &[]).await.unwrap()), ["a/3", "a/4"]);
    assert!(storage.claim_due("n", 10, CLAIM_TTL, &[]).await.unwrap().is_empty(), "not even one's own again");
    clock.advance(Duration::from_secs(1));
    assert_eq!(names(&storage.claim_due("n", 10, CLAIM_TTL, &[]).await.unwrap()), ["a/5"]);
}

pub(super) async fn ten_thousand_rows_are_claimed_in_order(Fixture { storage, .. }: Fixture) {
    // A walk through all remainders: inserted in an order that is not the order of their turns.
    let at = |n: i64| n * 7_919 % 10_000;
    for block in 0..10 {
        let rows = (block * 1_000..(block + 1) * 1_000).map(|n| {
            let next_at = Timestamp::from_nanos(at(n));
            LeaseRow { next_at, ..row(&format!("many/{:05}", at(n)), 0) }
        });
        storage.commit(rows.fold(Batch::new(), Batch::insert)).await.unwrap();
    }
    assert_eq!(storage.next_due().await.unwrap(), Some(Timestamp::from_nanos(0)));
    let mut seen = Vec::new();
    loop {
        let rows = storage.claim_due("n", 1_024, CLAIM_TTL, &[]).await.unwrap();
        if rows.is_empty() {
            break;
        }
        seen.extend(rows.into_iter().map(|row| row.next_at.as_nanos()));
    }
    assert!(seen.into_iter().eq(0..10_000));
}

pub(super) async fn two_holders_never_have_one_row(Fixture { storage, .. }: Fixture) {
    let rows = (0..300).map(|n| row(&format!("a/{n:03}"), n % 7));
    storage.commit(rows.fold(Batch::new(), Batch::insert)).await.unwrap();
    let holders: Vec<_> = (0..6)
        .map(|n| {
            let storage = Arc::clone(&storage);
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let rows = storage.claim_due(&format!("node {n}"), 7, CLAIM_TTL, &[]).await.unwrap();
                    if rows.is_empty() {
                        return mine;
                    }
                    mine.extend(rows.into_iter().map(|row| row.id));
                }
            })
        })
        .collect();
    let (mut all, mut count) = (BTreeSet::new(), 0);
    for holder in holders {
        let mine = holder.await.unwrap();
        count += mine.len();
        all.extend(mine);
    }
    assert_eq!((count, all.len()), (300, 300));
}

pub(super) async fn a_hold_ends_by_the_clock_of_the_store(Fixture { storage, clock }: Fixture) {
    storage.commit(Batch::new().insert(row("a/1", 1))).await.unwrap();
    assert_eq!(storage.claim_due("x", 1, CLAIM_TTL, &[]).await.unwrap()[0].fence, 1);
    clock.advance(Duration::from_secs(29));
    assert!(storage.claim_due("y", 1, CLAIM_TTL, &[]).await.unwrap().is_empty());
    assert!(matches!(storage.claim("y", &id("a/1"), CLAIM_TTL).await, Err(StorageError::Fenced(_))));
    clock.advance(Duration::from_secs(1));
    let second = storage.claim_due("y", 1, CLAIM_TTL, &[]).await.unwrap();
    assert_eq!((second[0].fence, second[0].holder.as_deref()), (2, Some("y")));
}

pub(super) async fn a_late_holder_is_fenced_off(Fixture { storage, clock }: Fixture) {
    storage.commit(Batch::new().insert(row("a/1", 1))).await.unwrap();
    let late = storage.claim_due("x", 1, CLAIM_TTL, &[]).await.unwrap().remove(0);
    clock.advance(Duration::from_secs(31));
    let winner = storage.claim_due("y", 1, CLAIM_TTL, &[]).await.unwrap().remove(0);
    let fence = late.fence;
    let gone = storage.commit(Batch::new().remove(late.id.clone(), fence)).await;
    assert!(matches!(gone, Err(StorageError::Fenced(_))));
    let moved = LeaseRow { state: LeaseState::Revoking, ..late };
    let moved = storage.commit(Batch::new().shift(moved, LeaseState::Active, fence)).await;
    assert!(matches!(moved, Err(StorageError::Fenced(_))));
    storage.commit(Batch::new().remove(winner.id, winner.fence)).await.unwrap();
}

pub(super) async fn rows_of_skipped_connections_stay(Fixture { storage, .. }: Fixture) {
    let on = |name: &str, connection: &str| LeaseRow { connection: connection.to_owned(), ..row(name, 1) };
    let batch = Batch::new()
        .insert(on("a/1", "down"))
        .insert(on("a/2", "odd \"name\", 'x' %"))
        .insert(on("a/3", "fine"))
        .insert(on("a/4", ""));
    storage.commit(batch).await.unwrap();
    let skip = ["down".to_owned(), "odd \"name\", 'x' %".to_owned(), "unknown".to_owned()];
    assert_eq!(names(&storage.claim_due("n", 10, CLAIM_TTL, &skip).await.unwrap()), ["a/3", "a/4"]);
    assert_eq!(storage.lease(&id("a/1")).await.unwrap().unwrap().fence, 0);
    assert_eq!(names(&storage.claim_due("n", 10, CLAIM_TTL, &skip[..1]).await.unwrap()), ["a/2"]);
    assert_eq!(names(&storage.claim_due("n", 10, CLAIM_TTL, &[]).await.unwrap()), ["a/1"]);
}

pub(super) async fn a_named_row_is_claimed_due_or_not(Fixture { storage, clock }: Fixture) {
    storage.commit(Batch::new().insert(row("a/1", START_SECS + 500))).await.unwrap();
    assert!(storage.claim("x", &id("a/2"), CLAIM_TTL).await.unwrap().is_none());
    let first = storage.claim("x", &id("a/1"), CLAIM_TTL).await.unwrap().unwrap();
    assert_eq!((first.fence, first.holder.as_deref()), (1, Some("x")));
    assert_eq!(first.body, b"body of a/1");
    assert!(
        matches!(storage.claim("y", &id("a/1"), CLAIM_TTL).await, Err(StorageError::Fenced(at)) if at == id("a/1"))
    );
    assert_eq!(storage.claim("x", &id("a/1"), CLAIM_TTL).await.unwrap().unwrap().fence, 2, "one's own, again");
    clock.advance(Duration::from_secs(30));
    assert_eq!(storage.claim("y", &id("a/1"), CLAIM_TTL).await.unwrap().unwrap().fence, 3);
    // Given back by a write that names no holder.
    let freed = LeaseRow { holder: None, held_until: None, ..storage.lease(&id("a/1")).await.unwrap().unwrap() };
    storage.commit(Batch::new().shift(freed, LeaseState::Active, 3)).await.unwrap();
    assert_eq!(storage.claim("x", &id("a/1"), CLAIM_TTL).await.unwrap().unwrap().fence, 4);
}

pub(super) async fn the_next_turn_is_the_least(Fixture { storage, .. }: Fixture) {
    assert!(storage.next_due().await.unwrap().is_none());
    storage.commit(Batch::new().insert(row("a/1", 70)).insert(row("a/2", 50))).await.unwrap();
    assert_eq!(storage.next_due().await.unwrap(), Some(Timestamp::from_secs(50)));
    let later = LeaseRow { next_at: Timestamp::from_secs(90), ..row("a/2", 0) };
    storage.commit(Batch::new().shift(later, LeaseState::Active, 0)).await.unwrap();
    assert_eq!(storage.next_due().await.unwrap(), Some(Timestamp::from_secs(70)));
    storage.commit(Batch::new().remove(id("a/1"), 0)).await.unwrap();
    assert_eq!(storage.next_due().await.unwrap(), Some(Timestamp::from_secs(90)));
}
