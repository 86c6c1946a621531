//! A whole store out and in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{Batch, Changes, Expect, LeaseFilter, Page, StorageError};
use leasehold_core::seams::store_copy::{GROUPS_WAITING, Piece, Record, WholeStore};
use leasehold_model::{Timestamp, Ttl};
use tokio::sync::mpsc;

use super::{Copied, id, key, row};

async fn all_of(storage: &Arc<dyn WholeStore>) -> (Vec<Record>, u64) {
    let (groups, mut waiting) = mpsc::channel::<Vec<Record>>(GROUPS_WAITING);
    let gathering = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(group) = waiting.recv().await {
            assert!(!group.is_empty());
            all.extend(group);
        }
        all
    });
    let number = storage.export(groups).await.unwrap();
    (gathering.await.unwrap(), number)
}

async fn put_in(storage: &Arc<dyn WholeStore>, records: Vec<Record>, ends: bool) -> Result<(), StorageError> {
    let (pieces, waiting) = mpsc::channel(GROUPS_WAITING);
    let sending = tokio::spawn(async move {
        for group in records.chunks(7) {
            if pieces.send(Piece::Records(group.to_vec())).await.is_err() {
                return;
            }
        }
        if ends {
            let _ = pieces.send(Piece::End).await;
        }
    });
    let done = storage.replace(waiting).await;
    sending.await.unwrap();
    done
}

fn value(name: &str, value: &[u8]) -> Record {
    Record::Value { key: key(name), value: value.to_vec() }
}

fn full_row(name: &str) -> LeaseRow {
    LeaseRow {
        kind: LeaseKind::Token,
        state: LeaseState::Revoking,
        next_at: Timestamp::from_nanos(-7),
        expires_at: Timestamp::NEVER,
        fence: 41,
        holder: Some("node 'a'".to_owned()),
        held_until: Some(Timestamp::from_nanos(123_456_789)),
        connection: String::new(),
        body: (0..=255).collect(),
        ..row(name, 1)
    }
}

/// In the order in which a store gives them.
fn sample() -> Vec<Record> {
    let mut records = vec![
        value("a", b""),
        value("a/b", &(0..=255).collect::<Vec<u8>>()),
        value("big", &vec![7; 600 << 10]),
        value("sys/policy/x", b"p"),
        value("é", b"y"),
    ];
    records.extend((0..40).map(|n| Record::Lease(row(&format!("database/creds/r/{n:02}"), n))));
    records.push(Record::Lease(full_row("x/%_é/y")));
    records
}

pub(super) async fn what_is_exported_is_all_in_order_and_comes_back(Copied { storage, .. }: Copied) {
    assert_eq!(all_of(&storage).await.0, [], "nothing");
    put_in(&storage, sample(), true).await.unwrap();
    let (found, number) = all_of(&storage).await;
    assert!(found == sample(), "{found:?}");
    let Changes::All { next } = storage.changes(0).await.unwrap() else { panic!("a copy is no list of changes") };
    assert_eq!(number, next, "the number that is told is that of the last change");
    // It is a store as any other.
    assert!(storage.lease(&id("x/%_é/y")).await.unwrap().unwrap() == full_row("x/%_é/y"));
    assert_eq!(
        storage.count_leases().await.unwrap(),
        [(LeaseKind::Secret, LeaseState::Active, 40), (LeaseKind::Token, LeaseState::Revoking, 1)]
    );
    assert_eq!(storage.next_due().await.unwrap(), Some(Timestamp::from_nanos(-7)));
    let claimed = storage.claim_due("n", 100, Ttl::from_secs(30), &[]).await.unwrap();
    assert_eq!(claimed.len(), 41, "every row can be claimed");
    put_in(&storage, Vec::new(), true).await.unwrap();
    assert_eq!(all_of(&storage).await.0, [], "nothing again");
    assert_eq!(storage.count_leases().await.unwrap(), []);
    assert_eq!(storage.next_due().await.unwrap(), None);
}

pub(super) async fn what_is_replaced_leaves_nothing_of_what_was_there(Copied { storage, .. }: Copied) {
    let before = Batch::new()
        .put(key("sys/policy/old"), b"1".to_vec(), Expect::Absent)
        .put(key("a"), b"2".to_vec(), Expect::Absent)
        .insert(row("old/1", 5))
        .insert(row("database/creds/r/00", 900));
    storage.commit(before).await.unwrap();
    storage.commit(Batch::new().put(key("sys/gone"), vec![], Expect::Absent)).await.unwrap();
    storage.commit(Batch::new().delete(key("sys/gone"))).await.unwrap();
    put_in(&storage, sample(), true).await.unwrap();
    assert!(all_of(&storage).await.0 == sample());
    let page = Page { after: None, limit: u32::MAX };
    assert_eq!(storage.leases(&LeaseFilter::default(), &page).await.unwrap().len(), 41);
}

pub(super) async fn versions_go_on_when_all_is_replaced(Copied { storage, .. }: Copied) {
    for _ in 0..3 {
        storage.commit(Batch::new().put(key("sys/policy/x"), vec![1], Expect::Anything)).await.unwrap();
        storage.commit(Batch::new().put(key("a"), vec![1], Expect::Anything)).await.unwrap();
    }
    for _ in 0..2 {
        let mut before = Vec::new();
        for name in ["sys/policy/x", "a"] {
            before.push((name, storage.get(&key(name)).await.unwrap().unwrap().version));
        }
        let (Changes::All { next: last } | Changes::Keys { next: last, .. }) =
            storage.changes(u64::from(u32::MAX)).await.unwrap();
        put_in(&storage, sample(), true).await.unwrap();
        for (name, version) in before {
            assert!(storage.get(&key(name)).await.unwrap().unwrap().version > version, "{name}");
            let late = Batch::new().put(key(name), vec![], Expect::Version(version));
            assert!(matches!(storage.commit(late).await, Err(StorageError::Conflict(_))), "{name}");
        }
        let since = storage.changes(last).await.unwrap();
        assert!(matches!(since, Changes::All { next } if next > last), "everything is to be read again: {since:?}");
        let (Changes::All { next } | Changes::Keys { next, .. }) = since;
        assert_eq!(storage.changes(next).await.unwrap(), Changes::Keys { keys: vec![], next });
        storage.commit(Batch::new().put(key("sys/policy/x"), vec![2], Expect::Present)).await.unwrap();
        let since = storage.changes(next).await.unwrap();
        assert!(
            matches!(&since, Changes::Keys { keys, .. } if *keys == [key("sys/policy/x")]),
            "and from there on changes are told one by one: {since:?}"
        );
    }
}

pub(super) async fn a_copy_without_an_end_replaces_nothing(Copied { storage, .. }: Copied) {
    storage.commit(Batch::new().put(key("a"), b"kept".to_vec(), Expect::Absent).insert(row("a/1", 5))).await.unwrap();
    let before = all_of(&storage).await;
    for records in [Vec::new(), sample()] {
        assert!(matches!(put_in(&storage, records, false).await, Err(StorageError::Unavailable(_))));
        assert!(all_of(&storage).await == before);
    }
    storage.commit(Batch::new().put(key("b"), vec![], Expect::Absent)).await.unwrap();
}

/// While one goes out, others write; what is exported is none of it or all of a batch, and the sum stays.
pub(super) async fn an_export_sees_one_moment(Copied { storage, .. }: Copied) {
    const KEYS: usize = 600;
    let names: Vec<String> = (0..KEYS).map(|n| format!("n/{n:04}")).collect();
    let first = names.iter().fold(Batch::new(), |batch, name| batch.put(key(name), vec![0; 2_000], Expect::Absent));
    storage.commit(first).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, stopped) = (Arc::clone(&storage), Arc::clone(&stop));
    let writing = tokio::spawn(async move {
        let mut round = 0_u8;
        while !stopped.load(Ordering::Relaxed) && round < 250 {
            round += 1;
            // The first, one in the middle and the last key, and a row: always of one round.
            let batch = ["n/0000", "n/0300", "n/0599"]
                .iter()
                .fold(Batch::new(), |batch, name| batch.put(key(name), vec![round; 2_000], Expect::Present))
                .insert(LeaseRow { body: vec![round], ..row(&format!("z/{round:03}"), 9) });
            writer.commit(batch).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..6 {
        let (found, _) = all_of(&storage).await;
        let rounds: Vec<u8> = found
            .iter()
            .filter_map(|record| match record {
                Record::Value { key, value } if ["n/0000", "n/0300", "n/0599"].contains(&key.as_str()) => {
                    value.first().copied()
                }
                _ => None,
            })
            .collect();
        let rows = found.iter().filter(|record| matches!(record, Record::Lease(_))).count();
        assert_eq!(rounds.len(), 3);
        assert!(rounds.iter().all(|round| *round == rounds[0] && usize::from(*round) == rows), "{rounds:?} {rows}");
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
}

pub(super) async fn an_export_that_nobody_takes_ends(Copied { storage, .. }: Copied) {
    put_in(&storage, sample(), true).await.unwrap();
    let (groups, waiting) = mpsc::channel(1);
    drop(waiting);
    assert!(matches!(storage.export(groups).await, Err(StorageError::Unavailable(_))));
    storage.commit(Batch::new().delete(key("a"))).await.unwrap();
}
