//! Snapshots made, damaged, and restored into another kind of store.

use std::io::{Cursor, Read as _};
use std::sync::Arc;

use leasehold_core::keys;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::host::Entropy as _;
use leasehold_core::seams::seal::{KeyShare, Seal};
use leasehold_core::seams::snapshot::{Provenance, SnapshotError, SnapshotOrigin, Snapshots, Spool, SpoolReader};
use leasehold_core::seams::storage::{Batch, Expect, Storage, StorageError};
use leasehold_core::seams::store_copy::{Record, WholeStore};
use leasehold_core::testing::CountingEntropy;
use leasehold_model::Timestamp;
use proptest::prelude::*;

use super::{entries, reader};
use crate::conformance::{id, key, row};
use crate::tests::{clock, place};
use crate::{Barrier, MemoryStorage, SqliteStorage};

fn barrier(store: Arc<dyn WholeStore>) -> Barrier {
    Barrier::new(store, Arc::new(CountingEntropy::default()))
}

fn origin() -> SnapshotOrigin {
    SnapshotOrigin {
        cluster_id: "id".to_owned(),
        cluster_name: "name".to_owned(),
        version: "1.19.0".to_owned(),
        storage_type: "inmem".to_owned(),
        made_at: Timestamp::from_secs(1_800_000_000),
    }
}

fn bytes_of(spool: &Arc<Spool>) -> Vec<u8> {
    let mut bytes = Vec::new();
    SpoolReader::new(Arc::clone(spool)).read_to_end(&mut bytes).unwrap();
    bytes
}

/// An unsealed barrier with something of each kind beneath it.
async fn furnished() -> (Barrier, KeyShare) {
    let barrier = barrier(Arc::new(MemoryStorage::new(clock())));
    let share = barrier.init_and_unseal_dev().await.unwrap();
    let batch = Batch::new()
        .put(key("sys/policy/p"), b"a policy".to_vec(), Expect::Absent)
        .put(key("mount/kv_1/secret"), vec![3; 100_000], Expect::Absent)
        .insert(row("database/creds/r/1", 5_000))
        .insert(LeaseRow { state: LeaseState::Revoking, ..row("database/creds/r/2", 6_000) });
    barrier.commit(batch).await.unwrap();
    (barrier, share)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_back_what_was_there_on_another_kind_of_store() {
    let (first, share) = furnished().await;
    let spool = first.save(origin()).await.unwrap();
    // Rotated since: the proof outlives that.
    first.rotate().await.unwrap();
    first.commit(Batch::new().put(key("later"), vec![1], Expect::Absent).delete(key("sys/policy/p"))).await.unwrap();
    first.check(Arc::clone(&spool), Provenance::OwnOnly).await.unwrap();

    let (_directory, file) = place();
    let store = Arc::new(SqliteStorage::open(file, clock()).unwrap());
    // Keys of its own: the tests' entropy always begins alike.
    let entropy = CountingEntropy::default();
    entropy.fill(&mut [0; 8]);
    let second = Barrier::new(store, Arc::new(entropy));
    let other_share = second.init_and_unseal_dev().await.unwrap();
    second.commit(Batch::new().put(key("theirs"), vec![1], Expect::Absent)).await.unwrap();
    let refused = second.check(Arc::clone(&spool), Provenance::OwnOnly).await.unwrap_err();
    assert!(matches!(refused, SnapshotError::Foreign), "{refused}");
    assert_eq!(second.get(&key("theirs")).await.unwrap().unwrap().value, [1], "a check writes nothing");

    let checked = second.check(spool, Provenance::Any).await.unwrap();
    assert_eq!((checked.facts.leases, checked.facts.cluster_id.as_str()), (2, "id"));
    second.restore(checked).await.unwrap();
    assert!(second.is_sealed());
    assert!(matches!(second.get(&key("theirs")).await, Err(StorageError::Sealed)));
    assert!(second.unseal(&other_share.0).await.is_err(), "the keys of before open nothing");
    assert!(!second.unseal(&share.0).await.unwrap().sealed);
    assert!(second.get(&key("theirs")).await.unwrap().is_none());
    assert!(second.get(&key("later")).await.unwrap().is_none());
    assert_eq!(second.get(&key("sys/policy/p")).await.unwrap().unwrap().value, b"a policy");
    assert_eq!(second.get(&key("mount/kv_1/secret")).await.unwrap().unwrap().value, vec![3; 100_000]);
    assert!(second.lease(&id("database/creds/r/1")).await.unwrap().unwrap() == row("database/creds/r/1", 5_000));
    assert_eq!(
        second.count_leases().await.unwrap(),
        [(LeaseKind::Secret, LeaseState::Active, 1), (LeaseKind::Secret, LeaseState::Revoking, 1)]
    );
    second.commit(Batch::new().put(key("sys/policy/q"), vec![1], Expect::Absent)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_goes_back_to_a_snapshot_of_its_own() {
    let (barrier, share) = furnished().await;
    let spool = barrier.save(origin()).await.unwrap();
    let ring = barrier.get(&keys::keyring()).await.unwrap().unwrap().version;
    barrier.commit(Batch::new().put(key("later"), vec![1], Expect::Absent)).await.unwrap();
    let checked = barrier.check(spool, Provenance::OwnOnly).await.unwrap();
    barrier.restore(checked).await.unwrap();
    assert!(!barrier.unseal(&share.0).await.unwrap().sealed);
    assert!(barrier.get(&key("later")).await.unwrap().is_none());
    assert!(barrier.get(&keys::keyring()).await.unwrap().unwrap().version > ring);
}

/// A snapshot is of no use to whoever has no unseal key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_sealed_can_be_read_in_a_snapshot() {
    let (barrier, share) = furnished().await;
    let spool = barrier.save(origin()).await.unwrap();
    let mut plain = Vec::new();
    SpoolReader::new(spool).read_to_end(&mut plain).unwrap();
    for secret in [b"a policy".as_slice(), b"body of", &[3; 64], &share.0] {
        assert!(!plain.windows(secret.len()).any(|window| window == secret));
    }
    assert!(barrier.save(origin()).await.is_ok());
    barrier.seal().await;
    let refused = barrier.save(origin()).await.unwrap_err();
    assert!(matches!(refused, SnapshotError::Storage(StorageError::Sealed)));
}

/// Cut anywhere, a bit turned anywhere, two places exchanged, something added: never taken for a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_refused_wherever_it_is_damaged() {
    let (barrier, _share) = furnished().await;
    let whole = bytes_of(&barrier.save(origin()).await.unwrap());
    reader::read(Cursor::new(&whole), |_| Ok(())).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        let read = reader::read(Cursor::new(bytes), |_| Ok(()));
        assert!(matches!(read, Err(SnapshotError::Damaged(_))), "{what}: {read:?}");
    };
    let places: Vec<usize> = (0..whole.len()).step_by(4_096).chain(whole.len() - 600..whole.len()).collect();
    for &at in &places {
        refused(&whole[..at], &format!("cut at {at}"));
        let mut turned = whole.clone();
        turned[at] ^= 0x10;
        refused(&turned, &format!("a bit turned at {at}"));
    }
    let mut longer = whole.clone();
    longer.push(0);
    refused(&longer, "a byte more");
    refused(&[whole.clone(), whole.clone()].concat(), "twice");
    for (one, other) in [(20_000, 30_000), (40_000, 80_000)] {
        let mut exchanged = whole.clone();
        for n in 0..4_096 {
            exchanged.swap(one + n, other + n);
        }
        refused(&exchanged, "two places exchanged");
    }
    for other in [b"".as_slice(), b"{}", b"\x1f\x8b", &[0; 5_000]] {
        refused(other, "something else");
    }
}

/// Whoever can make a file with right digests still has no key: what they left out or put in is found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_somebody_put_together_is_not_the_installations_own() {
    let (barrier, _share) = furnished().await;
    let spool = barrier.save(origin()).await.unwrap();
    let mut records = Vec::new();
    let contents = reader::read(Cursor::new(bytes_of(&spool)), |record| {
        records.push(record);
        Ok(())
    })
    .unwrap();
    let rebuilt = |records: &[Record]| {
        let mut state = super::writer::StateWriter::to_file().unwrap();
        records.iter().for_each(|record| state.put(record).unwrap());
        let mut meta = contents.meta.clone();
        (meta.size, meta.own.values, meta.own.leases) = (state.len, state.values, state.leases);
        // The old proof.
        super::writer::finish(state, &meta, 1, |_| contents.sealed.clone()).map(Arc::new)
    };
    barrier.check(rebuilt(&records).unwrap(), Provenance::OwnOnly).await.expect("the same contents");
    let without: Vec<_> = records.iter().filter(|record| !format!("{record:?}").contains("r/2")).cloned().collect();
    assert_eq!(without.len(), records.len() - 1);
    let refused = barrier.check(rebuilt(&without).unwrap(), Provenance::OwnOnly).await.unwrap_err();
    assert!(matches!(refused, SnapshotError::Foreign), "{refused}");
    // Whatever the digests say, the order is checked as well: no name stands twice.
    let mut twice = records.clone();
    twice.insert(0, records[0].clone());
    let refused = barrier.check(rebuilt(&twice).unwrap(), Provenance::Any).await.unwrap_err();
    assert!(refused.to_string().contains("not in order"), "{refused}");
    twice = records.clone();
    twice.reverse();
    let refused = barrier.check(rebuilt(&twice).unwrap(), Provenance::Any).await.unwrap_err();
    assert!(refused.to_string().contains("not in order"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_inspected_without_keys() {
    let (barrier, _share) = furnished().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.snap");
    std::fs::write(&file, bytes_of(&barrier.save(origin()).await.unwrap())).unwrap();
    let contents = super::inspect(&file, 2).unwrap();
    assert_eq!(contents.meta.own.leases, 2);
    assert_eq!(contents.prefixes["lease/database"].count, 2);
    assert_eq!(contents.prefixes["sys/policy"].count, 1);
    let bytes: u64 = contents.prefixes.values().map(|prefix| prefix.bytes).sum();
    assert_eq!(bytes, contents.meta.size);
    for (path, why) in [(directory.path().join("none"), "No such file"), (directory.path().to_owned(), "not a file")] {
        let refused = super::inspect(&path, 2).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

fn a_row() -> impl Strategy<Value = LeaseRow> {
    (any::<(i64, i64, u64)>(), any::<(Option<String>, Option<i64>, String)>(), any::<Vec<u8>>()).prop_map(
        |((next_at, expires_at, fence), (holder, held_until, connection), body)| LeaseRow {
            next_at: Timestamp::from_nanos(next_at),
            expires_at: Timestamp::from_nanos(expires_at),
            fence: fence % (1 << 62),
            holder,
            held_until: held_until.map(Timestamp::from_nanos),
            connection,
            body,
            ..row("a/b/c", 1)
        },
    )
}

proptest! {
    #[test]
    fn records_come_back_as_they_were_written(rows in proptest::collection::vec(a_row(), 0..4), name in ".*", value in any::<Vec<u8>>()) {
        let mut records = vec![Record::Value { key: key(&name), value }];
        records.extend(rows.into_iter().map(Record::Lease));
        let mut bytes = Vec::new();
        records.iter().for_each(|record| entries::write(record, &mut bytes));
        let (mut source, mut found, mut seen) = (bytes.as_slice(), Vec::new(), Vec::new());
        while let Some(record) = entries::read(&mut source, |part| seen.extend_from_slice(part)).unwrap() {
            found.push(record);
        }
        prop_assert!(found == records);
        prop_assert!(seen == bytes);
    }

    /// No bytes make it panic, or take more memory than they have.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
        let mut source = bytes.as_slice();
        while let Ok(Some(_)) = entries::read(&mut source, |_| {}) {}
        let read = reader::read(Cursor::new(&bytes), |_| Ok(()));
        prop_assert!(read.is_err());
    }
}
