//! What only the durable store promises: files, locks, reopening.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::seal::Seal;
use leasehold_core::seams::storage::{Batch, Expect, Key, LeaseFilter, Page, Storage, StorageError};
use leasehold_core::testing::CountingEntropy;
use leasehold_model::Ttl;
use rusqlite::Connection;

use super::{clock, place};
use crate::conformance::{id, key, row};
use crate::{Barrier, OpenError, SqliteStorage};

#[tokio::test]
async fn a_reopened_store_is_as_it_was() {
    let (_directory, file) = place();
    let first = SqliteStorage::open(&file, clock()).unwrap();
    let batch = Batch::new().put(key("a"), b"1".to_vec(), Expect::Absent).insert(row("d/1", 5)).insert(row("d/2", 6));
    first.commit(batch).await.unwrap();
    first.commit(Batch::new().put(key("gone"), vec![], Expect::Absent)).await.unwrap();
    let last = first.get(&key("gone")).await.unwrap().unwrap().version;
    first.commit(Batch::new().delete(key("gone"))).await.unwrap();
    drop(first);

    let second = SqliteStorage::open(&file, clock()).unwrap();
    assert_eq!(second.get(&key("a")).await.unwrap().unwrap().value, b"1");
    assert_eq!(second.claim_due("y", 9, Ttl::from_secs(30), &[]).await.unwrap().len(), 2);
    second.commit(Batch::new().put(key("gone"), vec![], Expect::Absent)).await.unwrap();
    assert!(second.get(&key("gone")).await.unwrap().unwrap().version > last, "versions grow over a restart, too");
}

/// A server that is started again must not wait for what it claimed before it was killed, where doing it twice does no harm.
#[tokio::test]
async fn claims_of_a_process_that_has_ended_hold_up_no_end_of_a_lease() {
    let (_directory, file) = place();
    let first = SqliteStorage::open(&file, clock()).unwrap();
    let states = [LeaseState::Active, LeaseState::Revoking, LeaseState::Issuing];
    let batch = states.iter().enumerate().fold(Batch::new(), |batch, (at, state)| {
        batch.insert(LeaseRow { state: *state, ..row(&format!("d/{at}"), 5) })
    });
    first.commit(batch.insert(LeaseRow { kind: LeaseKind::Job, ..row("d/job", 5) })).await.unwrap();
    let held = first.claim_due("x", 9, Ttl::from_secs(60), &[]).await.unwrap();
    assert_eq!(held.len(), 4);
    drop(first);

    let second = SqliteStorage::open(&file, clock()).unwrap();
    let free = second.claim_due("y", 9, Ttl::from_secs(60), &[]).await.unwrap();
    assert_eq!(free.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["d/0", "d/1"]);
    assert!(free.iter().zip(&held).all(|(now, before)| now.id == before.id && now.fence > before.fence));
    assert!(second.lease(&id("d/2")).await.unwrap().unwrap() == held[2], "what may not be done twice stays claimed");
}

#[tokio::test]
async fn a_sealed_store_opens_with_its_key_after_a_restart_and_with_no_other() {
    let (_directory, file) = place();
    let over = |storage: SqliteStorage| Barrier::new(Arc::new(storage), Arc::new(CountingEntropy::default()));
    let first = over(SqliteStorage::open(&file, clock()).unwrap());
    let share = first.init_and_unseal_dev().await.unwrap();
    let batch = Batch::new().put(key("a"), b"the secret value".to_vec(), Expect::Absent);
    first.commit(batch.insert(LeaseRow { body: b"the secret body".to_vec(), ..row("d/1", 5) })).await.unwrap();
    let derived = *first.derive("token").unwrap().0;
    drop(first);

    for entry in fs::read_dir(file.parent().unwrap()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        for secret in [b"the secret value".as_slice(), b"the secret body", &*share.0, &derived] {
            assert!(!bytes.windows(secret.len()).any(|at| at == secret), "a secret lies on the disk");
        }
    }

    let second = over(SqliteStorage::open(&file, clock()).unwrap());
    assert!(second.status().await.unwrap().sealed);
    assert!(matches!(second.get(&key("a")).await, Err(StorageError::Sealed)));
    assert!(second.unseal(&[7; 32]).await.is_err());
    second.unseal(&share.0).await.unwrap();
    assert_eq!(second.get(&key("a")).await.unwrap().unwrap().value, b"the secret value");
    assert_eq!(second.lease(&id("d/1")).await.unwrap().unwrap().body, b"the secret body");
    assert_eq!(*second.derive("token").unwrap().0, derived);
}

#[tokio::test]
async fn a_second_server_is_kept_out_and_told_why() {
    let (_directory, file) = place();
    let first = SqliteStorage::open(&file, clock()).unwrap();
    let refused = SqliteStorage::open(&file, clock()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }));
    assert!(refused.to_string().contains("in use by another server"), "{refused}");
    drop(first);
    SqliteStorage::open(&file, clock()).expect("free again at once");
}

#[tokio::test]
async fn nobody_else_may_read_the_files() {
    let (directory, file) = place();
    fs::write(&file, b"").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let storage = SqliteStorage::open(&file, clock()).unwrap();
    storage.commit(Batch::new().put(key("a"), vec![1], Expect::Absent)).await.unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["leasehold.db", "leasehold.db-shm", "leasehold.db-wal", "leasehold.db.lock"]);
}

#[test]
fn a_path_that_cannot_be_a_store_is_refused_with_the_reason() {
    let (directory, file) = place();
    let open = |path: &std::path::Path| SqliteStorage::open(path, clock()).unwrap_err();
    let missing = open(&directory.path().join("missing").join("leasehold.db"));
    assert!(missing.to_string().ends_with("/missing` does not exist: create it first"), "{missing}");
    assert!(matches!(open(directory.path()), OpenError::IsDirectory(_)));

    fs::write(&file, "certainly no database, and long enough to be looked at as one".repeat(90)).unwrap();
    assert!(matches!(open(&file), OpenError::Foreign(_)));
    fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("create table theirs (x)").unwrap();
    assert!(matches!(open(&file), OpenError::Foreign(_)));
}

#[test]
fn a_file_of_somebody_else_is_left_as_it_was() {
    let (directory, file) = place();
    let theirs: [fn(&std::path::Path); 2] = [
        |file| fs::write(file, "root:x:0:0:root:/root:/bin/bash\n").unwrap(),
        |file| Connection::open(file).unwrap().execute_batch("create table theirs (x)").unwrap(),
    ];
    for make in theirs {
        make(&file);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let before = fs::read(&file).unwrap();
        assert!(matches!(SqliteStorage::open(&file, clock()), Err(OpenError::Foreign(_))));

        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read(&file).unwrap(), before);
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["leasehold.db"], "nothing lies beside it");
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_damaged_file_is_refused_with_sqlites_own_reason() {
    let (_directory, file) = place();
    drop(SqliteStorage::open(&file, clock()).unwrap());
    let mut bytes = fs::read(&file).unwrap();
    bytes[100..].fill(0xff);
    fs::write(&file, bytes).unwrap();
    let refused = SqliteStorage::open(&file, clock()).unwrap_err();
    let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("malformed"), "{refused}: {cause}");
}

#[test]
fn a_store_of_a_newer_leasehold_is_left_alone() {
    let (_directory, file) = place();
    drop(SqliteStorage::open(&file, clock()).unwrap());
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 999).unwrap();
    let refused = SqliteStorage::open(&file, clock()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 999, .. }), "{refused}");
}

#[tokio::test]
async fn a_damaged_row_is_reported_and_keeps_no_other_from_its_turn() {
    let (_directory, file) = place();
    let storage = SqliteStorage::open(&file, clock()).unwrap();
    storage.commit(Batch::new().insert(row("d/1", 5)).insert(row("d/2", 6))).await.unwrap();
    Connection::open(&file).unwrap().execute_batch("update lease set state = 'odd' where id = 'd/1'").unwrap();
    assert!(matches!(storage.lease(&id("d/1")).await, Err(StorageError::Corrupt(at)) if at == "d/1"));
    let page = Page { after: None, limit: 9 };
    assert!(matches!(storage.leases(&LeaseFilter::default(), &page).await, Err(StorageError::Corrupt(_))));
    let due = storage.claim_due("x", 9, Ttl::from_secs(30), &[]).await.unwrap();
    assert_eq!(due.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["d/2"]);
}

#[tokio::test]
async fn every_list_and_claim_is_answered_by_an_index() {
    let (_directory, file) = place();
    drop(SqliteStorage::open(&file, clock()).unwrap());
    let database = Connection::open(&file).unwrap();
    for (query, index) in [
        ("select id from lease where id >= 'a' and id < 'b' order by id", "PRIMARY KEY"),
        ("select id from lease where token = 'x' order by id", "lease_token"),
        ("select id from lease where mount = 'x' order by id", "lease_mount"),
        ("select id from lease where next_at <= 5 order by next_at, id limit 5", "lease_due"),
        ("select min(next_at) from lease", "lease_due"),
        ("select key from kv where key > 'a' and key < 'b' order by key", "PRIMARY KEY"),
    ] {
        let plan = |row: &rusqlite::Row<'_>| row.get::<_, String>(3);
        let mut statement = database.prepare(&format!("explain query plan {query}")).unwrap();
        let steps: Vec<String> = statement.query_map([], plan).unwrap().map(Result::unwrap).collect();
        assert!(steps.iter().any(|step| step.contains(index)), "{query}: {steps:?}");
        assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{query}: {steps:?}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_written_fails_the_commit_and_nothing_else() {
    let (_directory, file) = place();
    let storage = SqliteStorage::open(&file, clock()).unwrap();
    storage.commit(Batch::new().put(key("a"), vec![1], Expect::Absent)).await.unwrap();
    // Somebody else holds the write lock for longer than we wait.
    let other = Connection::open(&file).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let refused = storage.commit(Batch::new().put(key("a"), vec![2], Expect::Present)).await;
    assert!(matches!(refused, Err(StorageError::Unavailable(_))));
    assert_eq!(storage.get(&key("a")).await.unwrap().unwrap().value, [1]);
    other.execute_batch("rollback").unwrap();
    storage.commit(Batch::new().put(key("a"), vec![3], Expect::Present)).await.unwrap();
    assert_eq!(storage.get(&Key::new("a")).await.unwrap().unwrap().value, [3]);
    let moved = LeaseRow { state: LeaseState::Revoking, ..row("d/1", 1) };
    let fenced = storage.commit(Batch::new().shift(moved, LeaseState::Active, 0)).await;
    assert!(matches!(fenced, Err(StorageError::Fenced(_))), "and refusals are themselves again");
}
