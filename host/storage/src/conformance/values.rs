//! Values, versions, batches, scans.

use std::sync::Arc;

use leasehold_core::seams::storage::{Batch, Expect, Key, Storage, StorageError};

use super::{Fixture, id, key, row};

async fn put(storage: &Arc<dyn Storage>, name: &str, value: &[u8], expect: Expect) -> Result<(), StorageError> {
    storage.commit(Batch::new().put(key(name), value.to_vec(), expect)).await
}

async fn value(storage: &Arc<dyn Storage>, name: &str) -> Option<Vec<u8>> {
    storage.get(&key(name)).await.unwrap().map(|found| found.value)
}

pub(super) async fn what_was_put_is_read_until_it_is_deleted(Fixture { storage, .. }: Fixture) {
    assert!(value(&storage, "a").await.is_none());
    put(&storage, "a", b"one", Expect::Anything).await.unwrap();
    put(&storage, "a", b"two", Expect::Anything).await.unwrap();
    assert_eq!(value(&storage, "a").await.unwrap(), b"two");
    storage.commit(Batch::new().delete(key("a")).delete(key("never"))).await.unwrap();
    assert!(value(&storage, "a").await.is_none());
}

pub(super) async fn versions_only_grow_also_when_a_key_is_made_anew(Fixture { storage, .. }: Fixture) {
    let mut last = 0;
    for _ in 0..3 {
        for text in [b"one", b"two"] {
            put(&storage, "a", text, Expect::Anything).await.unwrap();
            let version = storage.get(&key("a")).await.unwrap().unwrap().version;
            assert!(version > last, "{version} after {last}");
            last = version;
        }
        storage.commit(Batch::new().delete(key("a"))).await.unwrap();
    }
    let refused = put(&storage, "a", b"x", Expect::Version(last)).await;
    assert!(matches!(refused, Err(StorageError::Conflict(at)) if at == "a"), "an old version of a deleted key");
}

pub(super) async fn a_batch_is_written_whole_or_not_at_all(Fixture { storage, .. }: Fixture) {
    put(&storage, "kept", b"old", Expect::Absent).await.unwrap();
    let batch = Batch::new()
        .put(key("a"), b"1".to_vec(), Expect::Absent)
        .put(key("kept"), b"new".to_vec(), Expect::Present)
        .delete(key("kept"))
        .insert(super::row("a/1", 5))
        .check(key("missing"), Expect::Present);
    assert!(matches!(storage.commit(batch).await, Err(StorageError::Conflict(at)) if at == "missing"));
    assert!(value(&storage, "a").await.is_none());
    assert_eq!(value(&storage, "kept").await.unwrap(), b"old");
    assert!(storage.lease(&super::id("a/1")).await.unwrap().is_none());
    assert!(storage.next_due().await.unwrap().is_none());
    storage.commit(Batch::new()).await.expect("an empty batch is written, too");
}

pub(super) async fn every_expectation_is_checked(Fixture { storage, .. }: Fixture) {
    put(&storage, "there", b"x", Expect::Absent).await.unwrap();
    let version = storage.get(&key("there")).await.unwrap().unwrap().version;
    for (name, expect, holds) in [
        ("there", Expect::Anything, true),
        ("there", Expect::Present, true),
        ("there", Expect::Absent, false),
        ("there", Expect::Version(version), true),
        ("there", Expect::Version(version + 1), false),
        ("there", Expect::Version(u64::MAX), false),
        ("gone", Expect::Anything, true),
        ("gone", Expect::Present, false),
        ("gone", Expect::Absent, true),
        ("gone", Expect::Version(0), false),
    ] {
        let done = storage.commit(Batch::new().check(key(name), expect)).await;
        assert_eq!(done.is_ok(), holds, "{name} {expect:?}");
    }
}

pub(super) async fn a_batch_sees_its_own_changes(Fixture { storage, .. }: Fixture) {
    let batch = Batch::new()
        .put(key("a"), b"1".to_vec(), Expect::Absent)
        .check(key("a"), Expect::Present)
        .delete(key("a"))
        .put(key("a"), b"2".to_vec(), Expect::Absent);
    storage.commit(batch).await.unwrap();
    assert_eq!(value(&storage, "a").await.unwrap(), b"2");
}

pub(super) async fn a_batch_that_expects_nothing_is_refused_where_there_is_something(Fixture { storage, .. }: Fixture) {
    put(&storage, "a/%", b"x", Expect::Absent).await.unwrap();
    storage.commit(Batch::new().insert(row("t/1", 1)).insert(row("t/2", 1))).await.unwrap();
    let token = row("t/1", 1).token;
    for (prefix, is_empty) in [("a", false), ("a/", false), ("a/%", false), ("a/%/", true), ("a/$", true), ("b", true)]
    {
        let batch = Batch::new().check_empty(key(prefix)).put(key("done"), vec![], Expect::Anything);
        match storage.commit(batch).await {
            Ok(()) => assert!(is_empty, "{prefix}"),
            Err(StorageError::NotEmpty(at)) => assert!(at == prefix && !is_empty, "{prefix}"),
            Err(error) => panic!("{error}"),
        }
        let written = value(&storage, "done").await;
        assert_eq!(written.is_some(), is_empty, "{prefix}");
        storage.commit(Batch::new().delete(key("done"))).await.unwrap();
    }
    let lone = || Batch::new().check_no_leases(token.clone(), id("t/1"));
    let refused = storage.commit(lone().remove(id("t/1"), 0)).await;
    assert!(matches!(refused, Err(StorageError::NotEmpty(at)) if at == token.as_str()));
    assert!(storage.lease(&id("t/1")).await.unwrap().is_some());
    // What the batch itself takes away is not there, and what it brings is.
    storage.commit(lone().remove(id("t/1"), 0).remove(id("t/2"), 0)).await.unwrap();
    let brings = Batch::new().check_empty(key("c/")).put(key("c/d"), vec![], Expect::Absent);
    assert!(matches!(storage.commit(brings).await, Err(StorageError::NotEmpty(_))));
    storage.commit(Batch::new().check_empty(key("a/")).delete(key("a/%"))).await.unwrap();
}

pub(super) async fn nothing_slips_below_what_goes(Fixture { storage, .. }: Fixture) {
    let token = row("t/1", 1).token;
    for round in 0..40 {
        let (parent, child, lease) = (format!("p{round}"), format!("p{round}/c"), format!("l/{round}"));
        storage.commit(Batch::new().put(key(&parent), vec![], Expect::Absent)).await.unwrap();
        let beside = |batch: Batch| {
            let storage = Arc::clone(&storage);
            tokio::spawn(async move { storage.commit(batch).await.is_ok() })
        };
        let adds = match round % 2 {
            0 => Batch::new().put(key(&child), vec![], Expect::Anything),
            _ => Batch::new().insert(row(&lease, 1)),
        };
        let goes = Batch::new().delete_expecting(key(&parent), Expect::Present).check_empty(key(&format!("{parent}/")));
        let added = beside(adds.check(key(&parent), Expect::Present));
        let gone = beside(goes.check_no_leases(token.clone(), id("l/none")));
        let (added, gone) = (added.await.unwrap(), gone.await.unwrap());
        assert!(added != gone, "round {round}: added {added}, gone {gone}");
        storage.commit(Batch::new().delete(key(&parent)).delete(key(&child))).await.unwrap();
        if storage.lease(&id(&lease)).await.unwrap().is_some() {
            storage.commit(Batch::new().remove(id(&lease), 0)).await.unwrap();
        }
    }
}

pub(super) async fn one_conflict_does_not_spoil_the_batches_beside_it(Fixture { storage, .. }: Fixture) {
    put(&storage, "taken", b"x", Expect::Absent).await.unwrap();
    let tasks: Vec<_> = (0..60)
        .map(|n| {
            let storage = Arc::clone(&storage);
            tokio::spawn(async move {
                let batch = Batch::new().put(key(&format!("n/{n}")), vec![1], Expect::Absent);
                let batch = if n % 3 == 0 { batch.put(key("taken"), vec![2], Expect::Absent) } else { batch };
                storage.commit(batch).await.is_ok()
            })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), n % 3 != 0, "batch {n}");
        assert_eq!(value(&storage, &format!("n/{n}")).await.is_some(), n % 3 != 0, "value {n}");
    }
}

pub(super) async fn concurrent_increments_lose_nothing(Fixture { storage, .. }: Fixture) {
    put(&storage, "n", &0_u32.to_be_bytes(), Expect::Absent).await.unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let storage = Arc::clone(&storage);
            tokio::spawn(async move {
                let mut done = 0;
                while done < 10 {
                    let now = storage.get(&key("n")).await.unwrap().unwrap();
                    let next = u32::from_be_bytes(now.value.try_into().unwrap()) + 1;
                    match put(&storage, "n", &next.to_be_bytes(), Expect::Version(now.version)).await {
                        Ok(()) => done += 1,
                        Err(StorageError::Conflict(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(value(&storage, "n").await.unwrap(), 40_u32.to_be_bytes());
}

/// What a search by pattern would trip over, in byte order.
const ODD: [&str; 14] = [
    "a",
    "a/",
    "a/\u{1}",
    "a/%",
    "a/%/x",
    "a/*",
    "a/?",
    "a/B",
    "a/[a]",
    "a/_",
    "a/b",
    "a/é",
    "a/\u{e000}",
    "a/\u{10ffff}\u{10ffff}",
];

pub(super) async fn a_scan_is_in_byte_order_and_pages_without_gaps(Fixture { storage, .. }: Fixture) {
    let mut batch = Batch::new();
    for name in ODD.iter().rev() {
        batch = batch.put(key(name), vec![], Expect::Absent);
    }
    storage.commit(batch.put(key("b"), vec![], Expect::Absent)).await.unwrap();
    let expected: Vec<Key> = ODD.iter().map(|name| key(name)).collect();
    for limit in [1, 3, 14, 100] {
        let mut seen: Vec<Key> = Vec::new();
        loop {
            let page = storage.scan(&key("a"), seen.last(), limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, expected, "pages of {limit}");
    }
    assert!(storage.scan(&key("a"), None, 0).await.unwrap().is_empty());
    let all = storage.scan(&key(""), None, 100).await.unwrap();
    assert_eq!(all.iter().filter(|key| !key.as_str().starts_with("sys/")).count(), ODD.len() + 1);
    let before = storage.scan(&key("a/b"), Some(&key("a")), 100).await.unwrap();
    assert_eq!(before, [key("a/b")], "an `after` before the prefix hides nothing");
    assert!(storage.scan(&key("a/b"), Some(&key("z")), 100).await.unwrap().is_empty());
}

pub(super) async fn a_prefix_matches_no_more_than_itself(Fixture { storage, .. }: Fixture) {
    let names = ["p_q/1", "pxq/1", "p%q/1", "pq/1", "P_q/1", "p_q", "p_q0", "p\0q/1"];
    let mut batch = Batch::new();
    for name in names {
        batch = batch.put(key(name), vec![], Expect::Absent);
    }
    storage.commit(batch).await.unwrap();
    for (prefix, found) in [
        ("p_q/", vec!["p_q/1"]),
        ("p%q/", vec!["p%q/1"]),
        ("p%", vec!["p%q/1"]),
        ("p\0", vec!["p\0q/1"]),
        ("p_", vec!["p_q", "p_q/1", "p_q0"]),
        ("_", vec![]),
        ("%", vec![]),
        ("p'", vec![]),
    ] {
        let found: Vec<Key> = found.into_iter().map(key).collect();
        assert_eq!(storage.scan(&key(prefix), None, 100).await.unwrap(), found, "{prefix:?}");
    }
}

pub(super) async fn values_of_any_bytes_and_sizes_come_back(Fixture { storage, .. }: Fixture) {
    let all: Vec<u8> = (0..=255).collect();
    for (name, bytes) in [("empty", vec![]), ("zero", vec![0]), ("all", all.clone()), ("large", all.repeat(12_000))] {
        put(&storage, name, &bytes, Expect::Absent).await.unwrap();
        assert!(value(&storage, name).await.unwrap() == bytes, "{name}");
    }
    put(&storage, "nul\0in the key", b"x", Expect::Absent).await.unwrap();
    assert_eq!(value(&storage, "nul\0in the key").await.unwrap(), b"x");
    assert!(value(&storage, "nul").await.is_none());
}
