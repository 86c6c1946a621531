//! Lease rows: inserts, moves, removals, lists, counts.

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{Batch, Expect, LeaseFilter, Page, StorageError};
use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash, Ttl};

use super::{Fixture, id, key, row};

pub(super) async fn a_row_comes_back_as_it_went_in(Fixture { storage, .. }: Fixture) {
    let full = LeaseRow {
        kind: LeaseKind::Token,
        state: LeaseState::Issuing,
        next_at: Timestamp::from_nanos(-7),
        expires_at: Timestamp::NEVER,
        fence: 41,
        holder: Some("node 'a'".to_owned()),
        held_until: Some(Timestamp::from_nanos(123_456_789)),
        body: (0..=255).collect(),
        ..row("database/creds/%_é/x", 1)
    };
    let bare = LeaseRow { body: vec![], connection: String::new(), ..row("database/creds/a/y", 2) };
    storage.commit(Batch::new().insert(full.clone()).insert(bare.clone())).await.unwrap();
    assert!(storage.lease(&full.id).await.unwrap().unwrap() == full);
    assert!(storage.lease(&bare.id).await.unwrap().unwrap() == bare);
    assert!(storage.lease(&id("database/creds/a/z")).await.unwrap().is_none());
}

pub(super) async fn a_row_is_inserted_once(Fixture { storage, .. }: Fixture) {
    storage.commit(Batch::new().insert(row("a/1", 1))).await.unwrap();
    let again = storage.commit(Batch::new().insert(row("a/2", 2)).insert(row("a/1", 9))).await;
    assert!(matches!(again, Err(StorageError::Conflict(at)) if at == "a/1"));
    assert!(storage.lease(&id("a/2")).await.unwrap().is_none());
    assert_eq!(storage.lease(&id("a/1")).await.unwrap().unwrap().next_at, Timestamp::from_secs(1));
}

pub(super) async fn a_move_needs_the_state_and_the_fence(Fixture { storage, .. }: Fixture) {
    let first = LeaseRow { fence: 3, ..row("a/1", 1) };
    storage.commit(Batch::new().insert(first.clone())).await.unwrap();
    let moved = LeaseRow {
        state: LeaseState::Revoking,
        next_at: Timestamp::from_secs(9),
        token: TokenHash::from_hex("bb"),
        mount: MountAccessor::new("other"),
        body: b"new".to_vec(),
        ..first.clone()
    };
    for (from, fence) in [(LeaseState::Issuing, 3), (LeaseState::Active, 2), (LeaseState::Active, 4)] {
        let refused = storage.commit(Batch::new().shift(moved.clone(), from, fence)).await;
        assert!(matches!(refused, Err(StorageError::Fenced(at)) if at == first.id), "{from:?} {fence}");
    }
    assert!(storage.lease(&first.id).await.unwrap().unwrap() == first);
    storage.commit(Batch::new().shift(moved.clone(), LeaseState::Active, 3)).await.unwrap();
    assert!(storage.lease(&first.id).await.unwrap().unwrap() == moved);
    assert_eq!(storage.next_due().await.unwrap(), Some(Timestamp::from_secs(9)));
    let absent = storage.commit(Batch::new().shift(row("a/2", 1), LeaseState::Active, 0)).await;
    assert!(matches!(absent, Err(StorageError::Fenced(at)) if at == id("a/2")));
}

pub(super) async fn a_move_without_a_body_keeps_the_stored_one(Fixture { storage, .. }: Fixture) {
    storage.commit(Batch::new().insert(row("a/1", 1))).await.unwrap();
    let bare =
        LeaseRow { state: LeaseState::Revoking, next_at: Timestamp::from_secs(9), body: vec![], ..row("a/1", 1) };
    storage.commit(Batch::new().shift(bare.clone(), LeaseState::Active, 0)).await.unwrap();
    assert!(storage.lease(&bare.id).await.unwrap().unwrap() == LeaseRow { body: b"body of a/1".to_vec(), ..bare });
}

pub(super) async fn a_removal_needs_the_fence(Fixture { storage, .. }: Fixture) {
    storage.commit(Batch::new().insert(LeaseRow { fence: 3, ..row("a/1", 1) })).await.unwrap();
    assert!(matches!(storage.commit(Batch::new().remove(id("a/1"), 2)).await, Err(StorageError::Fenced(_))));
    storage.commit(Batch::new().remove(id("a/1"), 3)).await.unwrap();
    assert!(storage.lease(&id("a/1")).await.unwrap().is_none());
    assert!(matches!(storage.commit(Batch::new().remove(id("a/1"), 3)).await, Err(StorageError::Fenced(_))));
}

pub(super) async fn filters_hold_together(Fixture { storage, .. }: Fixture) {
    let other = |name: &str| LeaseRow { token: TokenHash::from_hex("bb"), ..row(name, 1) };
    let batch = Batch::new()
        .insert(row("d/creds/a_b/1", 1))
        .insert(row("d/creds/axb/2", 1))
        .insert(LeaseRow { state: LeaseState::Revoking, ..row("d/creds/a%b/3", 1) })
        .insert(other("d/creds/a_b/4"))
        .insert(LeaseRow {
            mount: MountAccessor::new("database_2"),
            connection: "database_2/a_b".into(),
            ..other("e/creds/a_b/5")
        })
        .insert(LeaseRow { kind: LeaseKind::Token, ..other("auth/token/create/6") })
        .insert(LeaseRow { kind: LeaseKind::Job, ..other("d/creds/a_b/7") });
    storage.commit(batch).await.unwrap();
    let token = |hex: &str| Some(TokenHash::from_hex(hex));
    let none = LeaseFilter::default;
    // The numbers are those of the ids, in the order of the ids.
    for (filter, numbers) in [
        (none(), "631425"),
        (LeaseFilter { id_prefix: Some("d/creds/a_b/".into()), ..none() }, "14"),
        (LeaseFilter { id_prefix: Some("d/creds/a%b/".into()), ..none() }, "3"),
        (LeaseFilter { id_prefix: Some("d/creds/a_b/".into()), token: token("bb"), ..none() }, "4"),
        (LeaseFilter { token: token("bb"), ..none() }, "645"),
        (LeaseFilter { token: token("cc"), ..none() }, ""),
        (LeaseFilter { mount: Some(MountAccessor::new("database_2")), ..none() }, "5"),
        (LeaseFilter { mount: Some(MountAccessor::new("database_1")), token: token("bb"), ..none() }, "64"),
        (LeaseFilter { connection: Some("database_2/a_b".into()), ..none() }, "5"),
        (LeaseFilter { connection: Some("database_2/a_b".into()), token: token("aa"), ..none() }, ""),
        (LeaseFilter { connection: Some("database_2/axb".into()), ..none() }, ""),
        (LeaseFilter { state: Some(LeaseState::Revoking), ..none() }, "3"),
        (LeaseFilter { kind: Some(LeaseKind::Token), ..none() }, "6"),
        (LeaseFilter { kind: Some(LeaseKind::Token), token: token("aa"), ..none() }, ""),
        (LeaseFilter { kind: Some(LeaseKind::Secret), state: Some(LeaseState::Active), ..none() }, "1425"),
        // A job is no lease: only who asks for jobs finds it.
        (LeaseFilter { kind: Some(LeaseKind::Job), ..none() }, "7"),
        (LeaseFilter { kind: Some(LeaseKind::Job), id_prefix: Some("d/creds/".into()), ..none() }, "7"),
        (LeaseFilter { kind: Some(LeaseKind::Job), id_prefix: Some("e/".into()), ..none() }, ""),
    ] {
        let rows = storage.leases(&filter, &Page { after: None, limit: 100 }).await.unwrap();
        let found: String = rows.iter().map(|row| row.id.random().to_owned()).collect();
        assert_eq!(found, numbers, "{filter:?}");
        assert!(rows.iter().all(|row| row.body == format!("body of {}", row.id).into_bytes()));
    }
}

pub(super) async fn lists_of_leases_page_in_id_order(Fixture { storage, .. }: Fixture) {
    let mut batch = Batch::new();
    for n in (0..120).rev() {
        batch = batch.insert(row(&format!("d/{:03}", n), n));
    }
    storage.commit(batch).await.unwrap();
    let by_prefix = LeaseFilter { id_prefix: Some("d/".into()), ..LeaseFilter::default() };
    let by_token = LeaseFilter { token: Some(TokenHash::from_hex("aa")), ..LeaseFilter::default() };
    let by_mount = LeaseFilter { mount: Some(MountAccessor::new("database_1")), ..LeaseFilter::default() };
    for filter in [LeaseFilter::default(), by_prefix, by_token, by_mount] {
        for limit in [7, 50, 500] {
            let mut seen: Vec<LeaseId> = Vec::new();
            loop {
                let page = Page { after: seen.last().cloned(), limit };
                let rows = storage.leases(&filter, &page).await.unwrap();
                if rows.is_empty() {
                    break;
                }
                assert_eq!(rows.len(), (120 - seen.len()).min(limit as usize), "{filter:?} by {limit}: a page is full");
                seen.extend(rows.into_iter().map(|row| row.id));
            }
            let expected: Vec<LeaseId> = (0..120).map(|n| id(&format!("d/{n:03}"))).collect();
            assert_eq!(seen, expected, "{filter:?} by {limit}");
        }
    }
}

pub(super) async fn rows_and_values_share_a_batch(Fixture { storage, .. }: Fixture) {
    let both = || Batch::new().insert(row("a/1", 1)).put(key("a"), vec![1], Expect::Absent);
    storage.commit(both()).await.unwrap();
    let fenced = Batch::new().put(key("b"), vec![1], Expect::Absent).remove(id("a/1"), 7);
    assert!(matches!(storage.commit(fenced).await, Err(StorageError::Fenced(_))));
    assert!(storage.get(&key("b")).await.unwrap().is_none());
    let end = Batch::new().remove(id("a/1"), 0).delete(key("a"));
    storage.commit(end).await.unwrap();
    storage.commit(both()).await.expect("nothing of the first pair is left");
}

pub(super) async fn counts_follow_every_change(Fixture { storage, .. }: Fixture) {
    assert!(storage.count_leases().await.unwrap().is_empty());
    let token = LeaseRow { kind: LeaseKind::Token, ..row("t/1", 1) };
    let job = LeaseRow { kind: LeaseKind::Job, ..row("j/1", 1) };
    let batch =
        Batch::new().insert(row("a/1", 1)).insert(row("a/2", 1)).insert(row("a/3", 1)).insert(token).insert(job);
    storage.commit(batch).await.unwrap();
    let revoking = LeaseRow { state: LeaseState::Revoking, ..row("a/1", 1) };
    storage.commit(Batch::new().shift(revoking, LeaseState::Active, 0).remove(id("a/2"), 0)).await.unwrap();
    assert_eq!(
        storage.count_leases().await.unwrap(),
        [
            (LeaseKind::Secret, LeaseState::Active, 1),
            (LeaseKind::Secret, LeaseState::Revoking, 1),
            (LeaseKind::Token, LeaseState::Active, 1),
            (LeaseKind::Job, LeaseState::Active, 1),
        ]
    );
}

/// Counts may be kept beside the rows. Whatever happens to the rows, refused batches and claims included, they must not drift.
pub(super) async fn counts_equal_a_count_after_any_history(Fixture { storage, .. }: Fixture) {
    const STATES: [LeaseState; 3] = [LeaseState::Issuing, LeaseState::Active, LeaseState::Revoking];
    const KINDS: [LeaseKind; 3] = [LeaseKind::Secret, LeaseKind::Token, LeaseKind::Job];
    // Numbers that look random and are the same each time.
    let mut seed = 1_u64;
    let mut below = |end: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % end
    };
    let mut outcomes = (0, 0);
    for step in 0..600 {
        let mut batch = Batch::new();
        for _ in 0..=below(3) {
            let name = format!("a/{}", below(12));
            let known = storage.lease(&id(&name)).await.unwrap();
            let (from, fence) = known.as_ref().map_or((LeaseState::Active, 0), |row| (row.state, row.fence));
            let kind = KINDS[usize::try_from(below(3)).unwrap()];
            let state = STATES[usize::try_from(below(3)).unwrap()];
            let changed = LeaseRow { kind, state, fence, ..row(&name, 1) };
            batch = match below(4) {
                0 | 1 => batch.insert(changed),
                2 => batch.shift(changed, from, fence),
                _ => batch.remove(id(&name), fence),
            };
        }
        match storage.commit(batch).await {
            Ok(()) => outcomes.0 += 1,
            Err(_) => outcomes.1 += 1,
        }
        if below(5) == 0 {
            storage.claim_due("somebody", 2, Ttl::from_secs(1), &[]).await.unwrap();
        }
        let mut counted = std::collections::BTreeMap::new();
        for kind in KINDS {
            let filter = LeaseFilter { kind: Some(kind), ..LeaseFilter::default() };
            for row in storage.leases(&filter, &Page { after: None, limit: 100 }).await.unwrap() {
                *counted.entry((row.kind, row.state)).or_insert(0_u64) += 1;
            }
        }
        let counted: Vec<_> = counted.into_iter().map(|((kind, state), count)| (kind, state, count)).collect();
        assert_eq!(storage.count_leases().await.unwrap(), counted, "after step {step}");
    }
    assert!(outcomes.0 > 100 && outcomes.1 > 100, "both happen often: {outcomes:?}");
}

/// Writers that work at once, some of whom are refused, must neither lose a count nor wait for one another for ever.
pub(super) async fn counts_of_many_writers_add_up(Fixture { storage, .. }: Fixture) {
    let writers = (0..12).map(|writer| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for n in 0..12 {
                let mine = row(&format!("w/{writer}/{n}"), 1);
                storage.commit(Batch::new().insert(mine.clone())).await.unwrap();
                let revoking = LeaseRow { state: LeaseState::Revoking, ..mine.clone() };
                match n % 3 {
                    0 => storage.commit(Batch::new().remove(mine.id, 0)).await.unwrap(),
                    1 => storage.commit(Batch::new().shift(revoking, LeaseState::Active, 0)).await.unwrap(),
                    _ => assert!(storage.commit(Batch::new().insert(mine)).await.is_err(), "it is there already"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let counted = [(LeaseKind::Secret, LeaseState::Active, 48), (LeaseKind::Secret, LeaseState::Revoking, 48)];
    assert_eq!(storage.count_leases().await.unwrap(), counted);
    assert_eq!(storage.recount_leases().await.unwrap(), 0, "there is nothing to correct");
    assert_eq!(storage.count_leases().await.unwrap(), counted);
}
