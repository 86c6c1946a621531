//! Numbered changes under the cached prefix.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_core::keys;
use leasehold_core::seams::storage::{Batch, Changes, Expect, Key, Storage};

use super::{Fixture, key};

fn put(name: &str) -> Batch {
    Batch::new().put(key(name), b"x".to_vec(), Expect::Anything)
}

/// What has changed, in order of the keys and without the barrier's own, and the number to go on from.
async fn since(storage: &Arc<dyn Storage>, number: u64) -> (Option<Vec<String>>, u64) {
    match storage.changes(number).await.unwrap() {
        Changes::All { next } => (None, next),
        Changes::Keys { keys: changed, next } => {
            let others = |key: &Key| *key != keys::integrity() && !keys::is_outside_barrier(key);
            let mut names: Vec<_> = changed.into_iter().filter(others).map(|key| key.as_str().to_owned()).collect();
            names.sort();
            (Some(names), next)
        }
    }
}

fn names(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

pub(super) async fn what_was_written_or_deleted_since_a_number_is_told(Fixture { storage, .. }: Fixture) {
    let (none, start) = since(&storage, 0).await;
    assert_eq!(none, names(&[]));
    storage
        .commit(put("sys/a").put(key("sys/b"), vec![], Expect::Absent).put(key("other"), vec![], Expect::Absent))
        .await
        .unwrap();
    let (changed, one) = since(&storage, start).await;
    assert_eq!(changed, names(&["sys/a", "sys/b"]));
    assert!(one > start);
    assert_eq!(since(&storage, one).await, (names(&[]), one), "nothing since");
    storage.commit(put("sys/b")).await.unwrap();
    storage.commit(Batch::new().delete(key("sys/a"))).await.unwrap();
    let (changed, two) = since(&storage, one).await;
    assert_eq!(changed, names(&["sys/a", "sys/b"]), "a deletion is a change");
    storage.commit(put("sys/a")).await.unwrap();
    let (changed, three) = since(&storage, two).await;
    assert_eq!(changed, names(&["sys/a"]), "made anew");
    assert!(three > two);
    let refused = storage.commit(put("sys/c").check(key("missing"), Expect::Present)).await;
    assert!(refused.is_err());
    assert_eq!(since(&storage, three).await, (names(&[]), three), "what was refused is no change");
}

pub(super) async fn uncached_keys_are_not_numbered_when_they_go(Fixture { storage, .. }: Fixture) {
    storage.commit(put("token/id/a").put(key("sys0"), vec![], Expect::Absent)).await.unwrap();
    let (changed, number) = since(&storage, 0).await;
    assert_eq!(changed, names(&[]));
    storage.commit(Batch::new().delete(key("token/id/a")).delete(key("sys0"))).await.unwrap();
    assert_eq!(since(&storage, number).await, (names(&[]), number));
}

pub(super) async fn old_deletions_are_forgotten_and_said_to_be(Fixture { storage, .. }: Fixture) {
    storage.commit(put("sys/first")).await.unwrap();
    let (_, before) = since(&storage, 0).await;
    storage.commit(Batch::new().delete(key("sys/first"))).await.unwrap();
    let (_, after_first) = since(&storage, 0).await;
    let many = crate::memory::TOMBSTONES_MAX;
    for chunk in (0..many).collect::<Vec<_>>().chunks(512) {
        let mut batch = Batch::new();
        for n in chunk {
            batch = batch.put(key(&format!("sys/many/{n}")), vec![], Expect::Absent);
        }
        storage.commit(batch).await.unwrap();
    }
    for n in 0..many {
        storage.commit(Batch::new().delete(key(&format!("sys/many/{n}")))).await.unwrap();
    }
    assert_eq!(since(&storage, before).await.0, None, "the first deletion is forgotten: read everything");
    let (changed, _) = since(&storage, after_first).await;
    assert_eq!(changed.map(|changed| changed.len()), Some(many), "the others are remembered");
}

pub(super) async fn no_change_hides_behind_a_later_number(Fixture { storage, .. }: Fixture) {
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let storage = Arc::clone(&storage);
            tokio::spawn(async move {
                for n in 0..25 {
                    storage.commit(put(&format!("sys/{writer}/{n}"))).await.unwrap();
                }
            })
        })
        .collect();
    let (mut seen, mut number) = (BTreeSet::new(), 0);
    while seen.len() < 200 {
        let (changed, next) = since(&storage, number).await;
        seen.extend(changed.unwrap());
        assert!(next >= number);
        number = next;
        if writers.iter().all(tokio::task::JoinHandle::is_finished) && since(&storage, number).await.0 == names(&[]) {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(seen.len(), 200, "whoever goes on from `next` misses nothing");
}
