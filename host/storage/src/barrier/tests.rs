use std::sync::Arc;

use leasehold_core::keys;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::seal::{KeyShare, Seal, SealError};
use leasehold_core::seams::storage::{Batch, Change, Expect, Key, LeaseFilter, Page, Storage, StorageError};
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_core::testing::CountingEntropy;
use leasehold_model::{MountAccessor, Timestamp, TokenHash, Ttl};

use super::Barrier;
use super::ring::{self, Ring, SEALS_BLOCK, SEALS_MAX};
use crate::MemoryStorage;
use crate::conformance::{id, key, row};
use crate::tests::{clock, place, unsealed};

fn memory() -> Arc<dyn WholeStore> {
    Arc::new(MemoryStorage::new(clock()))
}

fn over(inner: &Arc<dyn WholeStore>) -> Barrier {
    Barrier::new(Arc::clone(inner), Arc::new(CountingEntropy::default()))
}

fn text<T: std::fmt::Debug>(result: Result<T, SealError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn a_seal_that_makes_no_sense_is_refused_in_vaults_words() {
    let barrier = over(&memory());
    for (shares, threshold, why) in [
        (0, 0, "shares must be at least one"),
        (0, 1, "shares must be at least one"),
        (3, 0, "threshold must be at least one"),
        (1, 2, "threshold cannot be larger than shares"),
        (2, 3, "threshold cannot be larger than shares"),
        (5, 1, "threshold must be greater than one for multiple shares"),
    ] {
        assert_eq!(text(barrier.init(shares, threshold).await), format!("invalid seal configuration: {why}"));
    }
    assert!(!barrier.status().await.unwrap().initialized);
    assert_eq!(text(barrier.unseal(&[0; 32]).await), "Vault is not initialized");
    barrier.init(1, 1).await.unwrap();
    assert_eq!(text(barrier.init(1, 1).await), "Vault is already initialized");
    assert_eq!(text(barrier.init(0, 1).await), "Vault is already initialized");
}

#[tokio::test]
async fn any_threshold_of_shares_unseals_and_fewer_do_not() {
    let barrier = over(&memory());
    let shares = barrier.init(5, 3).await.unwrap();
    assert!(shares.len() == 5 && shares.iter().all(|share| share.0.len() == 33));
    for picked in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
        let mut nonce = String::new();
        for (given, at) in picked.into_iter().enumerate() {
            assert!(barrier.is_sealed());
            let status = barrier.unseal(&shares[at].0).await.unwrap();
            assert_eq!((status.threshold, status.shares), (3, 5));
            if given == 2 {
                assert!(!status.sealed && status.progress == 0 && status.nonce.is_empty(), "{status:?}");
            } else {
                assert!(status.sealed && usize::from(status.progress) == given + 1, "{status:?}");
                assert!(status.nonce.len() == 36 && (given == 0 || status.nonce == nonce), "{status:?}");
                nonce = status.nonce;
                let again = barrier.unseal(&shares[at].0).await.unwrap();
                assert_eq!(usize::from(again.progress), given + 1, "the same share again is no progress");
            }
        }
        let status = barrier.unseal(b"whatever it is").await.unwrap();
        assert!(!status.sealed, "unsealed already");
        barrier.seal().await;
    }
}

/// The words are OpenBao's. There, a wrong share is found out only when there are enough of them, and takes the right ones along.
#[tokio::test]
async fn a_wrong_share_is_refused_and_spoils_no_other() {
    let barrier = over(&memory());
    let shares = barrier.init(5, 3).await.unwrap();
    assert_eq!(text(barrier.unseal(&[1; 15]).await), "invalid key: key is shorter than minimum 16 bytes");
    assert_eq!(text(barrier.unseal(&[1; 34]).await), "invalid key: key is longer than maximum 33 bytes");
    let mut twin = shares[0].0.to_vec();
    twin[9] ^= 1;
    let garbage = [vec![0x33; 33], [&[0], &shares[2].0[1..]].concat(), shares[0].0[..20].to_vec(), twin];
    let annoy = async |progress: u8| {
        for share in &garbage {
            let said = text(barrier.unseal(share).await);
            assert!(said.ends_with("cipher: message authentication failed"), "{said}");
            assert_eq!(barrier.status().await.unwrap().progress, progress);
        }
    };
    annoy(0).await;
    for (given, share) in shares[..2].iter().enumerate() {
        barrier.unseal(&share.0).await.unwrap();
        annoy(u8::try_from(given + 1).unwrap()).await;
    }
    assert_eq!(barrier.reset().await.unwrap().progress, 0);
    for share in &shares[2..] {
        barrier.unseal(&share.0).await.unwrap();
    }
    assert!(!barrier.is_sealed());
}

/// As a store was initialised before the digests of the shares were kept with it.
#[tokio::test]
async fn a_store_without_digests_gets_them_when_it_is_unsealed() {
    let inner = memory();
    let shares = over(&inner).init(5, 3).await.unwrap();
    let old = Batch::new().put(keys::seal(), br#"{"shares":5,"threshold":3}"#.to_vec(), Expect::Present);
    inner.commit(old).await.unwrap();

    let barrier = over(&inner);
    let combined = "invalid key: failed to compute combined key: ";
    let mut twin = shares[0].0.to_vec();
    twin[9] ^= 1;
    for (third, why) in [
        (vec![0x33; 33], "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: cipher: message authentication failed".to_owned()),
        (shares[0].0[..20].to_vec(), format!("{combined}all parts must be the same length")),
        (twin, format!("{combined}duplicate part detected")),
    ] {
        barrier.unseal(&shares[0].0).await.unwrap();
        barrier.unseal(&shares[1].0).await.unwrap();
        assert_eq!(text(barrier.unseal(&third).await), why);
        let status = barrier.status().await.unwrap();
        assert!(status.sealed && status.progress == 0 && status.nonce.is_empty(), "{status:?}");
    }
    for share in &shares[1..4] {
        barrier.unseal(&share.0).await.unwrap();
    }
    assert!(!barrier.is_sealed());

    let next = over(&inner);
    for (given, share) in [&shares[4], &shares[0]].into_iter().enumerate() {
        assert_eq!(usize::from(next.unseal(&share.0).await.unwrap().progress), given + 1);
        assert!(next.unseal(&[0x33; 33]).await.is_err());
    }
    assert!(!next.unseal(&shares[2].0).await.unwrap().sealed);
}

#[tokio::test]
async fn one_share_is_the_key_itself() {
    let barrier = over(&memory());
    let shares = barrier.init(1, 1).await.unwrap();
    assert!(shares.len() == 1 && shares[0].0.len() == 32);
    assert!(text(barrier.unseal(&[0; 33]).await).contains("message authentication failed"));
    assert!(!barrier.unseal(&shares[0].0).await.unwrap().sealed);
}

#[tokio::test]
async fn a_sealed_barrier_answers_nothing() {
    let barrier = unsealed(memory()).await;
    barrier.commit(Batch::new().put(key("a"), vec![1], Expect::Absent).insert(row("d/1", 1))).await.unwrap();
    barrier.seal().await;
    let (page, hold) = (Page { after: None, limit: 1 }, Ttl::from_secs(1));
    let answers = [
        barrier.get(&key("a")).await.err(),
        barrier.get(&keys::seal()).await.err(),
        barrier.scan(&key("a"), None, 1).await.err(),
        barrier.lease(&id("d/1")).await.err(),
        barrier.leases(&LeaseFilter::default(), &page).await.err(),
        barrier.count_leases().await.err(),
        barrier.commit(Batch::new()).await.err(),
        barrier.claim_due("n", 1, hold, &[]).await.err(),
        barrier.claim("n", &id("d/1"), hold).await.err(),
        barrier.next_due().await.err(),
        barrier.changes(0).await.err(),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        assert!(matches!(answer, Some(StorageError::Sealed)), "answer {n}: {answer:?}");
    }
    assert!(matches!(barrier.derive("token"), Err(SealError::Sealed)));
    assert!(matches!(barrier.rotate().await, Err(SealError::Sealed)));
    assert!(matches!(barrier.key_status().await, Err(SealError::Sealed)));
}

#[tokio::test]
async fn nothing_but_the_wrapped_keys_is_stored_in_the_clear() {
    let inner = memory();
    let barrier = unsealed(Arc::clone(&inner)).await;
    let secret = b"a very secret value";
    for name in ["a", "sys/keyring2", "sys/seal/x", "mount/m/role/r", "sys/policy/p"] {
        barrier.commit(Batch::new().put(key(name), secret.to_vec(), Expect::Absent)).await.unwrap();
    }
    barrier.commit(Batch::new().insert(LeaseRow { body: secret.to_vec(), ..row("d/1", 1) })).await.unwrap();
    let hidden = |bytes: &[u8]| !bytes.windows(6).any(|at| secret.windows(6).any(|part| at == part));
    for stored in inner.scan(&key(""), None, 100).await.unwrap() {
        assert!(hidden(&inner.get(&stored).await.unwrap().unwrap().value), "{stored:?}");
    }
    assert!(hidden(&inner.lease(&id("d/1")).await.unwrap().unwrap().body));
    for outside in [keys::keyring(), keys::seal()] {
        let refused = barrier.commit(Batch::new().put(outside.clone(), vec![], Expect::Anything)).await;
        assert!(matches!(refused, Err(StorageError::Unavailable(_))), "{outside:?} is the barrier's own");
        assert!(barrier.commit(Batch::new().delete(outside)).await.is_err());
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_noticed() {
    let inner = memory();
    let barrier = unsealed(Arc::clone(&inner)).await;
    let batch = Batch::new().put(key("a"), b"value".to_vec(), Expect::Absent).insert(row("d/1", 1));
    barrier.commit(batch.insert(row("d/2", 2))).await.unwrap();
    let good = inner.get(&key("a")).await.unwrap().unwrap().value;
    let damaged = (0..good.len()).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        bytes
    });
    let cut = (0..good.len()).map(|len| good[..len].to_vec());
    let longer = [good.clone(), vec![0]].concat();
    for bytes in damaged.chain(cut).chain([longer]) {
        inner.commit(Batch::new().put(key("a"), bytes.clone(), Expect::Anything)).await.unwrap();
        let found = barrier.get(&key("a")).await;
        assert!(matches!(found, Err(StorageError::Corrupt(at)) if at == "a"), "{bytes:?}");
    }
    let mut bad = inner.lease(&id("d/1")).await.unwrap().unwrap();
    bad.body[20] ^= 1;
    inner.commit(Batch(vec![Change::Move { row: bad, from: LeaseState::Active, fence: 0 }])).await.unwrap();
    let bodies = |rows: Vec<LeaseRow>| rows.into_iter().map(|row| row.body).collect::<Vec<_>>();
    let (none, whole) = (Vec::new(), b"body of d/2".to_vec());
    assert!(opens_no_more(&barrier, "d/1").await);
    let page = Page { after: None, limit: 9 };
    let listed = barrier.leases(&LeaseFilter::default(), &page).await.unwrap();
    assert_eq!(bodies(listed), [none.clone(), whole.clone()], "a damaged row hides no other");
    let due = barrier.claim_due("n", 9, Ttl::from_secs(1), &[]).await.unwrap();
    assert_eq!(bodies(due), [none, whole], "and keeps no other from its end");
}

/// The row is there, and its body cannot be read.
async fn opens_no_more(barrier: &Barrier, name: &str) -> bool {
    barrier.lease(&id(name)).await.unwrap().unwrap().body.is_empty()
}

#[tokio::test]
async fn moving_a_damaged_row_leaves_its_body_for_whoever_may_mend_it() {
    let inner = memory();
    let barrier = unsealed(Arc::clone(&inner)).await;
    barrier.commit(Batch::new().insert(row("d/1", 1))).await.unwrap();
    let good = inner.lease(&id("d/1")).await.unwrap().unwrap();
    let mut bad = good.clone();
    bad.body[20] ^= 1;
    inner.commit(Batch::new().shift(bad.clone(), LeaseState::Active, 0)).await.unwrap();

    let claimed = barrier.claim("n", &id("d/1"), Ttl::from_secs(1)).await.unwrap().unwrap();
    let revoking = LeaseRow { state: LeaseState::Revoking, ..claimed };
    barrier.commit(Batch::new().shift(revoking.clone(), LeaseState::Active, 1)).await.unwrap();
    let stored = inner.lease(&id("d/1")).await.unwrap().unwrap();
    assert!(stored == LeaseRow { body: bad.body, ..revoking });
    let mended = LeaseRow { body: good.body, ..stored };
    inner.commit(Batch::new().shift(mended, LeaseState::Revoking, 1)).await.unwrap();
    assert_eq!(barrier.lease(&id("d/1")).await.unwrap().unwrap().body, b"body of d/1");
    barrier.commit(Batch::new().remove(id("d/1"), 1)).await.unwrap();
}

#[tokio::test]
async fn a_value_opens_only_where_it_was_written() {
    let inner = memory();
    let barrier = unsealed(Arc::clone(&inner)).await;
    let batch = Batch::new().put(key("a"), b"value".to_vec(), Expect::Absent).put(key("d/1"), vec![], Expect::Absent);
    barrier.commit(batch.insert(row("d/1", 1)).insert(row("d/2", 2))).await.unwrap();
    let value = |name: &str| {
        let (inner, name) = (Arc::clone(&inner), Key::new(name));
        async move { inner.get(&name).await.unwrap().unwrap().value }
    };
    let moved = value("a").await;
    inner.commit(Batch::new().put(key("b"), moved, Expect::Absent)).await.unwrap();
    assert!(matches!(barrier.get(&key("b")).await, Err(StorageError::Corrupt(_))), "from key to key");

    let one = inner.lease(&id("d/1")).await.unwrap().unwrap();
    let two = LeaseRow { body: one.body.clone(), ..inner.lease(&id("d/2")).await.unwrap().unwrap() };
    inner.commit(Batch::new().shift(two, LeaseState::Active, 0)).await.unwrap();
    assert!(opens_no_more(&barrier, "d/2").await, "from lease to lease");

    inner.commit(Batch::new().put(key("lease:d/1"), one.body.clone(), Expect::Absent)).await.unwrap();
    assert!(matches!(barrier.get(&key("lease:d/1")).await, Err(StorageError::Corrupt(_))), "from lease to key");
    let swapped = LeaseRow { body: value("d/1").await, ..one };
    inner.commit(Batch::new().shift(swapped, LeaseState::Active, 0)).await.unwrap();
    assert!(opens_no_more(&barrier, "d/1").await, "from key to lease");
}

#[tokio::test]
async fn rotation_changes_the_key_and_nothing_a_reader_sees() {
    let inner = memory();
    let barrier = over(&inner);
    let share = barrier.init_and_unseal_dev().await.unwrap();
    barrier.commit(Batch::new().put(key("old"), b"1".to_vec(), Expect::Absent)).await.unwrap();
    let derived = *barrier.derive("token").unwrap().0;
    assert_eq!(barrier.key_status().await.unwrap().term, 1);
    barrier.rotate().await.unwrap();
    barrier.commit(Batch::new().put(key("new"), b"2".to_vec(), Expect::Absent)).await.unwrap();
    let status = barrier.key_status().await.unwrap();
    assert_eq!((status.term, status.encryptions), (2, 1), "counted for each key");
    let second = over(&inner);
    second.unseal(&share.0).await.unwrap();
    for barrier in [&barrier, &second] {
        assert_eq!(barrier.get(&key("old")).await.unwrap().unwrap().value, b"1");
        assert_eq!(barrier.get(&key("new")).await.unwrap().unwrap().value, b"2");
        assert_eq!(*barrier.derive("token").unwrap().0, derived, "derived keys never change");
    }
    assert_ne!(*barrier.derive("audit").unwrap().0, derived, "and differ by purpose");
    let ids = [inner.get(&key("old")).await, inner.get(&key("new")).await]
        .map(|found| found.unwrap().unwrap().value[..4].to_vec());
    assert_ne!(ids[0], ids[1], "the key's id stands in front");
}

#[test]
fn a_key_is_replaced_long_before_its_nonces_could_meet() {
    let entropy = CountingEntropy::default();
    let root = ring::random(&entropy);
    let mut ring = Ring::generate(&entropy, &root, Timestamp::from_secs(1)).unwrap();
    assert!(!ring.take(1), "no use without a reservation on disk");
    let mut blocks = 0;
    while !ring.is_used_up(1) {
        ring = ring.with_room(1).unwrap();
        blocks += 1;
    }
    assert_eq!(blocks, SEALS_MAX.div_ceil(SEALS_BLOCK));
    // A restart counts the whole of the last block as used.
    let wrapped = ring.wrap(&entropy).unwrap();
    let again = Ring::unwrap_with(&root, wrapped).unwrap();
    assert!(again.is_used_up(1) && !again.take(1));
    let rotated = again.rotated(&entropy, Timestamp::from_secs(2), 1).unwrap();
    assert!(rotated.term() == (2, Timestamp::from_secs(2)) && rotated.take(SEALS_BLOCK) && !rotated.take(1));
}

#[tokio::test]
async fn uses_are_reserved_again_when_a_block_is_spent() {
    let inner = memory();
    let barrier = unsealed(Arc::clone(&inner)).await;
    let before = inner.get(&keys::keyring()).await.unwrap().unwrap().version;
    barrier.ring().unwrap().take(SEALS_BLOCK);
    barrier.commit(Batch::new().put(key("a"), b"1".to_vec(), Expect::Absent)).await.unwrap();
    assert!(inner.get(&keys::keyring()).await.unwrap().unwrap().version > before);
    assert_eq!(barrier.key_status().await.unwrap().term, 1, "no rotation for that");
    assert_eq!(barrier.get(&key("a")).await.unwrap().unwrap().value, b"1");
}

#[tokio::test]
async fn a_damaged_key_ring_or_configuration_is_an_error_and_no_panic() {
    let inner = memory();
    let share = over(&inner).init(1, 1).await.unwrap().remove(0);
    let good = inner.get(&keys::keyring()).await.unwrap().unwrap().value;
    for len in 0..good.len() {
        let cut = Batch::new().put(keys::keyring(), good[..len].to_vec(), Expect::Present);
        inner.commit(cut).await.unwrap();
        assert!(over(&inner).unseal(&share.0).await.is_err());
    }
    inner.commit(Batch::new().delete(keys::keyring())).await.unwrap();
    assert!(matches!(over(&inner).unseal(&share.0).await, Err(SealError::Storage(StorageError::Corrupt(_)))));
    inner.commit(Batch::new().put(keys::seal(), b"{".to_vec(), Expect::Present)).await.unwrap();
    assert!(matches!(over(&inner).status().await, Err(SealError::Storage(StorageError::Corrupt(_)))));
}

#[tokio::test]
async fn a_lease_whose_columns_were_changed_in_the_store_opens_no_more() {
    let later = Timestamp::from_secs(9_000);
    type Bend = fn(&mut LeaseRow, Timestamp);
    let changes: [(&str, Bend); 5] = [
        ("its end", |row, later| row.expires_at = later),
        ("its kind", |row, _| row.kind = LeaseKind::Token),
        ("its token", |row, _| row.token = TokenHash::from_hex("bb")),
        ("its mount", |row, _| row.mount = MountAccessor::new("database_2")),
        ("its connection", |row, _| row.connection = "two".to_owned()),
    ];
    for (what, change) in changes {
        let inner = memory();
        let barrier = unsealed(Arc::clone(&inner)).await;
        barrier.commit(Batch::new().insert(row("d/1", 1))).await.unwrap();
        let mut bent = inner.lease(&id("d/1")).await.unwrap().unwrap();
        change(&mut bent, later);
        inner.commit(Batch::new().shift(bent, LeaseState::Active, 0)).await.unwrap();
        assert!(opens_no_more(&barrier, "d/1").await, "{what} was changed");
    }
    // What working on a row changes stays outside.
    let inner = memory();
    let barrier = unsealed(Arc::clone(&inner)).await;
    barrier.commit(Batch::new().insert(row("d/1", 1))).await.unwrap();
    barrier.claim("n", &id("d/1"), Ttl::from_secs(1)).await.unwrap().unwrap();
    assert!(!opens_no_more(&barrier, "d/1").await);
}

/// A store with two policies, one of which was written twice, and a token; its share, and the first policy's two stored values.
async fn with_policies() -> (Arc<dyn WholeStore>, KeyShare, [Vec<u8>; 2]) {
    let inner = memory();
    let barrier = over(&inner);
    let share = barrier.init_and_unseal_dev().await.unwrap();
    let put = |name: &str, text: &str| Batch::new().put(key(name), text.as_bytes().to_vec(), Expect::Anything);
    let mut values = Vec::new();
    for text in ["narrow", "wide"] {
        barrier.commit(put("sys/policy/a", text)).await.unwrap();
        values.push(inner.get(&key("sys/policy/a")).await.unwrap().unwrap().value);
    }
    barrier.commit(put("sys/policy/b", "other").put(key("token/id/aa"), b"t".to_vec(), Expect::Absent)).await.unwrap();
    barrier.commit(put("sys/egp/x", "binding")).await.unwrap();
    barrier.commit(Batch::new().delete(key("sys/egp/x"))).await.unwrap();
    barrier.seal().await;
    (inner, share, values.try_into().unwrap())
}

#[tokio::test]
async fn a_row_under_sys_that_was_removed_or_put_back_is_seen_when_unsealing() {
    let (inner, share, [old, new]) = with_policies().await;
    over(&inner).unseal(&share.0).await.expect("nobody has changed anything");
    let digest = inner.get(&keys::integrity()).await.unwrap().unwrap().value;
    let put = |name: &str, value: &[u8]| Batch::new().put(key(name), value.to_vec(), Expect::Anything);
    let attacks = [
        ("a policy is removed", Batch::new().delete(key("sys/policy/b")), put("sys/policy/b", &[])),
        ("yesterday's policy is put back", put("sys/policy/a", &old), put("sys/policy/a", &new)),
        ("a row is copied", put("sys/policy/c", &new), Batch::new().delete(key("sys/policy/c"))),
        ("the digest is removed", Batch::new().delete(keys::integrity()), put("sys/integrity", &digest)),
    ];
    let other = inner.get(&key("sys/policy/b")).await.unwrap().unwrap().value;
    for (what, attack, mend) in attacks {
        inner.commit(attack).await.unwrap();
        let refused = text(over(&inner).unseal(&share.0).await);
        assert!(refused.contains("was changed outside this server"), "{what}: {refused}");
        assert!(refused.contains("-accept-changed-storage"), "{what}: the way out is named: {refused}");
        inner.commit(mend).await.unwrap();
        inner.commit(put("sys/policy/b", &other)).await.unwrap();
        over(&inner).unseal(&share.0).await.unwrap_or_else(|error| panic!("{what}, mended: {error}"));
    }
    inner.commit(Batch::new().delete(key("token/id/aa"))).await.unwrap();
    over(&inner).unseal(&share.0).await.expect("tokens are no part of it");
}

#[tokio::test]
async fn the_operator_may_go_on_with_changed_rows_and_is_asked_once() {
    let (inner, share, _) = with_policies().await;
    inner.commit(Batch::new().delete(key("sys/policy/b"))).await.unwrap();
    assert!(over(&inner).unseal(&share.0).await.is_err());
    let accepting = over(&inner).accepting_changed_rows(true);
    accepting.unseal(&share.0).await.unwrap();
    accepting.commit(Batch::new().put(key("sys/policy/d"), b"new".to_vec(), Expect::Absent)).await.unwrap();
    accepting.seal().await;
    over(&inner).unseal(&share.0).await.expect("what was there counts from then on");
}

#[tokio::test]
async fn two_servers_over_one_store_follow_each_others_keys() {
    let inner = memory();
    let first = over(&inner);
    let share = first.init_and_unseal_dev().await.unwrap();
    let second = over(&inner);
    second.unseal(&share.0).await.unwrap();
    let put = |name: &str| Batch::new().put(key(name), name.as_bytes().to_vec(), Expect::Absent);
    for (n, (writer, reader)) in [(&first, &second), (&second, &first), (&first, &second)].into_iter().enumerate() {
        writer.rotate().await.unwrap();
        let (plain, policy, lease) = (format!("key/{n}"), format!("sys/policy/{n}"), format!("d/{n}"));
        writer.commit(put(&plain).insert(row(&lease, 1))).await.unwrap();
        writer.commit(put(&policy)).await.unwrap();
        assert_eq!(reader.get(&key(&plain)).await.unwrap().unwrap().value, plain.as_bytes());
        assert_eq!(reader.lease(&id(&lease)).await.unwrap().unwrap().body, format!("body of {lease}").into_bytes());
        // It writes under a ring that is not the stored one any more, and must notice.
        reader.commit(put(&format!("{plain}/back"))).await.unwrap();
        reader.commit(put(&format!("{policy}/back"))).await.unwrap();
        assert_eq!(first.key_status().await.unwrap().term, second.key_status().await.unwrap().term);
    }
    over(&inner).unseal(&share.0).await.expect("the digest has followed both");
}

/// The second one has not heard of the first one's key when it adds its own.
#[tokio::test]
async fn a_key_that_another_server_has_added_is_never_lost() {
    let inner = memory();
    let first = over(&inner);
    let share = first.init_and_unseal_dev().await.unwrap();
    let second = over(&inner);
    second.unseal(&share.0).await.unwrap();
    first.rotate().await.unwrap();
    first.commit(Batch::new().put(key("a"), b"1".to_vec(), Expect::Absent)).await.unwrap();
    second.rotate().await.unwrap();
    let next = over(&inner);
    next.unseal(&share.0).await.unwrap();
    assert_eq!(next.get(&key("a")).await.unwrap().unwrap().value, b"1");
    assert_eq!(next.key_status().await.unwrap().term, 3);
}

#[tokio::test]
async fn nothing_is_written_under_a_key_that_the_stored_ring_has_not() {
    let inner = memory();
    let barrier = unsealed(Arc::clone(&inner)).await;
    let before = inner.get(&keys::keyring()).await.unwrap().unwrap().value;
    barrier.rotate().await.unwrap();
    // A fail-over has lost the rotation.
    inner.commit(Batch::new().put(keys::keyring(), before, Expect::Present)).await.unwrap();
    let put = |name: &str| Batch::new().put(key(name), b"1".to_vec(), Expect::Absent);
    assert!(matches!(barrier.commit(put("a")).await, Err(StorageError::Unavailable(_))));
    assert!(inner.get(&key("a")).await.unwrap().is_none());
    barrier.commit(put("a")).await.expect("the next one goes by the stored ring");
    assert_eq!(barrier.get(&key("a")).await.unwrap().unwrap().value, b"1");
}

/// Made by the first version that had a store at all; see `tests/fixtures/README.md`.
#[tokio::test]
async fn a_store_of_the_first_format_is_read_on_and_written_in_the_present_one() {
    let (_directory, file) = place();
    std::fs::write(&file, include_bytes!("../tests/fixtures/first.db")).unwrap();
    let share = hex(include_str!("../tests/fixtures/first.share"));
    let inner: Arc<dyn WholeStore> = Arc::new(crate::SqliteStorage::open(&file, clock()).unwrap());
    for start in ["the first start", "the second start"] {
        let barrier = over(&inner);
        barrier.unseal(&share).await.unwrap();
        assert_eq!(barrier.get(&key("sys/policy/apps")).await.unwrap().unwrap().value, b"first policy", "{start}");
        assert_eq!(barrier.get(&key("token/id/aa")).await.unwrap().unwrap().value, b"first token", "{start}");
        let lease = barrier.lease(&id("database/creds/app/first")).await.unwrap().unwrap();
        assert_eq!(lease.body, b"body of database/creds/app/first", "{start}");
    }
    let barrier = over(&inner);
    barrier.unseal(&share).await.unwrap();
    assert_eq!(barrier.key_status().await.unwrap().term, 3, "two keys it had, and one of the present format");
    barrier.commit(Batch::new().insert(row("d/1", 1))).await.unwrap();
    let mut bent = inner.lease(&id("d/1")).await.unwrap().unwrap();
    bent.expires_at = Timestamp::from_secs(9_000);
    inner.commit(Batch::new().shift(bent, LeaseState::Active, 0)).await.unwrap();
    assert!(opens_no_more(&barrier, "d/1").await, "rows are bound to their columns from then on");
    inner.commit(Batch::new().delete(key("sys/policy/apps"))).await.unwrap();
    assert!(text(over(&inner).unseal(&share).await).contains("was changed outside"), "and sys/ is watched");
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.trim().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[tokio::test]
async fn keys_and_shares_never_show_in_debug_output() {
    let barrier = over(&memory());
    let share = barrier.init_and_unseal_dev().await.unwrap();
    assert_eq!(format!("{barrier:?}"), "Barrier { .. }");
    assert_eq!(format!("{share:?}"), "KeyShare([REDACTED])");
    assert_eq!(format!("{:?}", barrier.derive("token").unwrap()), "SecretKey([REDACTED])");
}
