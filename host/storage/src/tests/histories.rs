//! Random histories: memory, SQLite and a barrier over each give the same answers, word for word.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{Batch, Change, Expect, LeaseFilter, Page, Storage};
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_core::testing::{CountingEntropy, ManualClock};
use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash, Ttl};
use proptest::collection::vec;
use proptest::prelude::*;

use super::place;
use crate::conformance::{START_SECS, id, key, row};
use crate::{Barrier, MemoryStorage, SqliteStorage};

/// Few names, so that histories meet themselves; odd ones among them.
const KEYS: [&str; 6] = ["a", "a/%", "a/_", "a/b", "b", "é/\u{10ffff}"];
const IDS: [&str; 5] = ["d/creds/a_b/1", "d/creds/a%b/2", "d/creds/axb/3", "d/creds/4", "e/5"];
const CONNECTIONS: [&str; 3] = ["one", "two", ""];
const STATES: [LeaseState; 3] = [LeaseState::Issuing, LeaseState::Active, LeaseState::Revoking];

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Piece>),
    Get(usize),
    Scan {
        prefix: usize,
        cut: usize,
        after: Option<usize>,
        limit: u32,
    },
    Lease(usize),
    Leases {
        prefix: Option<usize>,
        token: Option<u8>,
        mount: Option<u8>,
        connection: Option<usize>,
        state: Option<usize>,
        after: Option<usize>,
    },
    ClaimDue {
        holder: u8,
        limit: u32,
        skip: Option<usize>,
    },
    Claim {
        holder: u8,
        id: usize,
    },
    Counts,
    Wait(u64),
}

/// One change, with numbers that often fit what is there.
#[derive(Clone, Debug)]
enum Piece {
    Put(usize, u8, u8),
    Delete(usize, u8),
    Check(usize, u8),
    Empty(usize, usize),
    NoLeases(u8, usize),
    Insert(usize, u8),
    Move { id: usize, shape: u8, from: usize, fence: u64 },
    Remove(usize, u64),
}

fn expectation(number: u8) -> Expect {
    match number {
        0..=5 => Expect::Anything,
        6 | 7 => Expect::Absent,
        8 | 9 => Expect::Present,
        version => Expect::Version(u64::from(version) - 9),
    }
}

fn beginning(key: usize, cut: usize) -> String {
    KEYS[key].chars().take(cut + 1).collect()
}

fn token_of(number: u8) -> TokenHash {
    TokenHash::from_hex(format!("{number:02}"))
}

fn shaped(name: &str, shape: u8, fence: u64) -> LeaseRow {
    let pick = usize::from(shape);
    LeaseRow {
        kind: match shape % 5 {
            0 => LeaseKind::Token,
            1 => LeaseKind::Job,
            _ => LeaseKind::Secret,
        },
        state: STATES[pick % 3],
        next_at: Timestamp::from_secs(START_SECS - 30 + i64::from(shape)),
        fence,
        token: token_of(shape % 2),
        mount: MountAccessor::new(format!("m{}", shape % 3)),
        connection: CONNECTIONS[pick % 3].to_owned(),
        body: vec![shape; pick],
        ..row(name, 0)
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    let (k, i) = (0..KEYS.len(), 0..IDS.len());
    prop_oneof![
        4 => (k.clone(), any::<u8>(), 0..16_u8).prop_map(|(key, value, expect)| Piece::Put(key, value, expect)),
        1 => (k.clone(), 0..12_u8).prop_map(|(key, expect)| Piece::Delete(key, expect)),
        1 => (k.clone(), 0..12_u8).prop_map(|(key, expect)| Piece::Check(key, expect)),
        1 => (k, 0..3_usize).prop_map(|(prefix, cut)| Piece::Empty(prefix, cut)),
        1 => (0..2_u8, i.clone()).prop_map(|(token, but)| Piece::NoLeases(token, but)),
        4 => (i.clone(), 0..60_u8).prop_map(|(id, shape)| Piece::Insert(id, shape)),
        // From 1: a move without a body must keep what the stored one is bound to, and this one changes everything.
        2 => (i.clone(), 1..60_u8, 0..3_usize, 0..3_u64)
            .prop_map(|(id, shape, from, fence)| Piece::Move { id, shape, from, fence }),
        1 => (i, 0..3_u64).prop_map(|(id, fence)| Piece::Remove(id, fence)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    use proptest::option::of;
    let (k, i) = (0..KEYS.len(), 0..IDS.len());
    prop_oneof![
        8 => vec(piece(), 0..4).prop_map(Step::Commit),
        2 => k.clone().prop_map(Step::Get),
        2 => (k.clone(), 0..3_usize, of(k), 0..9_u32)
            .prop_map(|(prefix, cut, after, limit)| Step::Scan { prefix, cut, after, limit }),
        2 => i.clone().prop_map(Step::Lease),
        2 => (of(i.clone()), of(0..2_u8), of(0..3_u8), of(0..3_usize), of(0..3_usize), of(i.clone()))
            .prop_map(|(prefix, token, mount, connection, state, after)| Step::Leases { prefix, token, mount, connection, state, after }),
        3 => (0..2_u8, 0..4_u32, of(0..3_usize))
            .prop_map(|(holder, limit, skip)| Step::ClaimDue { holder, limit, skip }),
        2 => (0..2_u8, i).prop_map(|(holder, id)| Step::Claim { holder, id }),
        1 => Just(Step::Counts),
        1 => (0..20_u64).prop_map(Step::Wait),
    ]
}

fn batch(pieces: &[Piece]) -> Batch {
    let change = |piece: &Piece| match *piece {
        Piece::Put(at, value, expect) => {
            Change::Put { key: key(KEYS[at]), value: vec![value], expect: expectation(expect) }
        }
        Piece::Delete(at, expect) => Change::Delete { key: key(KEYS[at]), expect: expectation(expect) },
        Piece::Check(at, expect) => Change::Check { key: key(KEYS[at]), expect: expectation(expect) },
        Piece::Empty(prefix, cut) => Change::Empty { prefix: key(&beginning(prefix, cut)) },
        Piece::NoLeases(token, but) => Change::NoLeases { token: token_of(token), but: id(IDS[but]) },
        Piece::Insert(at, shape) => Change::Insert(shaped(IDS[at], shape, 0)),
        Piece::Move { id, shape, from, fence } => {
            Change::Move { row: shaped(IDS[id], shape, fence), from: STATES[from], fence }
        }
        Piece::Remove(at, fence) => Change::Remove { id: id(IDS[at]), fence },
    };
    Batch(pieces.iter().map(change).collect())
}

/// Everything an answer says, as text. Versions are given from `base` on: a barrier's own writes count, too.
async fn answer(storage: &dyn Storage, base: u64, step: &Step) -> String {
    let rows = |rows: Vec<LeaseRow>| format!("{:?}", rows.iter().map(full).collect::<Vec<_>>());
    let hold = Ttl::from_secs(10);
    let said = match step {
        Step::Commit(pieces) => storage.commit(shifted(batch(pieces), base)).await.map(|()| "done".to_owned()),
        Step::Get(at) => storage
            .get(&key(KEYS[*at]))
            .await
            .map(|found| format!("{:?}", found.map(|found| (found.version - base, found.value)))),
        Step::Scan { prefix, cut, after, limit } => {
            let after = after.map(|at| key(KEYS[at]));
            storage.scan(&key(&beginning(*prefix, *cut)), after.as_ref(), *limit).await.map(|keys| format!("{keys:?}"))
        }
        Step::Lease(at) => storage.lease(&id(IDS[*at])).await.map(|row| format!("{:?}", row.as_ref().map(full))),
        Step::Leases { prefix, token, mount, connection, state, after } => {
            let filter = LeaseFilter {
                id_prefix: prefix.map(|at| IDS[at].rsplit_once('/').unwrap().0.to_owned()),
                token: token.map(token_of),
                mount: mount.map(|at| MountAccessor::new(format!("m{at}"))),
                connection: connection.map(|at| CONNECTIONS[at].to_owned()),
                state: state.map(|at| STATES[at]),
                kind: None,
            };
            let page = Page { after: after.map(|at| id(IDS[at])), limit: 3 };
            storage.leases(&filter, &page).await.map(rows)
        }
        Step::ClaimDue { holder, limit, skip } => {
            let skip: Vec<String> = skip.iter().map(|at| CONNECTIONS[*at].to_owned()).collect();
            storage.claim_due(&holder.to_string(), *limit, hold, &skip).await.map(rows)
        }
        Step::Claim { holder, id: at } => storage
            .claim(&holder.to_string(), &id(IDS[*at]), hold)
            .await
            .map(|row| format!("{:?}", row.as_ref().map(full))),
        Step::Counts => storage.count_leases().await.map(|counts| format!("{counts:?}")),
        Step::Wait(_) => storage.next_due().await.map(|next| format!("{next:?}")),
    };
    said.unwrap_or_else(|error| error.to_string())
}

/// A row's own `Debug` leaves out what may be secret; here all of it counts.
fn full(row: &LeaseRow) -> (LeaseId, String, String, String, Vec<u8>) {
    (
        row.id.clone(),
        format!("{row:?}"),
        format!("{} {}", row.token, row.mount),
        row.connection.clone(),
        row.body.clone(),
    )
}

fn shifted(mut batch: Batch, base: u64) -> Batch {
    for change in &mut batch.0 {
        if let Change::Put { expect, .. } | Change::Delete { expect, .. } | Change::Check { expect, .. } = change
            && let Expect::Version(version) = expect
        {
            *version += base;
        }
    }
    batch
}

async fn unsealed(inner: Arc<dyn WholeStore>) -> (Arc<dyn Storage>, u64) {
    let barrier = Barrier::new(Arc::clone(&inner), Arc::new(CountingEntropy::default()));
    barrier.init_and_unseal_dev().await.unwrap();
    let written = inner.get(&leasehold_core::keys::keyring()).await.unwrap().unwrap().version;
    (Arc::new(barrier), written)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_stores_give_the_same_answers_to_any_history(steps in vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (directory, file) = place();
            let clock = Arc::new(ManualClock::at(START_SECS));
            let memory = || Arc::new(MemoryStorage::new(clock.clone()));
            let sqlite = |file| Arc::new(SqliteStorage::open(file, clock.clone()).unwrap());
            let stores: [(Arc<dyn Storage>, u64); 4] = [
                (memory(), 0),
                (sqlite(file), 0),
                unsealed(memory()).await,
                unsealed(sqlite(directory.path().join("below.db"))).await,
            ];
            for (n, step) in steps.iter().enumerate() {
                if let Step::Wait(secs) = step {
                    clock.advance(Duration::from_secs(*secs));
                }
                let mut answers = Vec::new();
                for (store, base) in &stores {
                    answers.push(answer(&**store, *base, step).await);
                }
                let (first, others) = answers.split_first().unwrap();
                prop_assert!(others.iter().all(|other| other == first), "step {n} {step:?}: {answers:#?}");
            }
            Ok(())
        })?;
    }
}
