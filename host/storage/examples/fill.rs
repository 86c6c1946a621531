//! Fills a store with tokens and leases for `make bench SCALE=1`: copies of one token and of one lease that a server has made, each
//! sealed under a name of its own, as the server would have stored them. Over HTTP a million of them would take an hour.
//!
//! `fill sqlite:PATH|postgres://URL SHARE COUNT`: half of COUNT are tokens, half are leases. The server must have been stopped.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a program for benchmarks that cannot go on has nothing to save"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leasehold_core::keys;
use leasehold_core::lease::{LeaseKind, LeaseRow};
use leasehold_core::seams::host::{Clock, Entropy};
use leasehold_core::seams::seal::Seal as _;
use leasehold_core::seams::storage::{Batch, Expect, LeaseFilter, Page, Storage as _};
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_model::{Accessor, LeaseId, Timestamp, TokenHash};
use leasehold_storage::{Barrier, PostgresSettings, PostgresStorage, SqliteStorage};
use secrecy::SecretString;
use serde_json::Value;

/// Copies in one commit. Each token is four changes, and PostgreSQL has a place for each lock that a commit takes.
const BATCH: usize = 1_000;
/// Commits at a time.
const WRITERS: usize = 2;

struct System;

impl Clock for System {
    #[expect(clippy::disallowed_methods, reason = "this program has no server whose clock it could ask")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    fn steady(&self) -> Duration {
        Duration::ZERO
    }
}

impl Entropy for System {
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).expect("the system gives random bytes");
    }
}

/// Random, but in ascending order over the whole range: a million random names one after another would write each page of the store a
/// hundred times.
fn ascending(n: usize, count: usize, bytes: usize) -> String {
    let mut random = vec![0; bytes];
    System.fill(&mut random);
    let begin = (n as u64).saturating_mul(u64::from(u32::MAX)) / (count as u64).max(1);
    if let (Some(head), Ok(begin)) = (random.first_chunk_mut::<4>(), u32::try_from(begin)) {
        *head = begin.to_be_bytes();
    }
    hex::encode(random)
}

/// What is copied.
struct Samples {
    token: Value,
    token_row: LeaseRow,
    lease: LeaseRow,
}

impl Samples {
    async fn of(barrier: &Barrier) -> Self {
        let rows = async |kind| {
            let filter = LeaseFilter { kind: Some(kind), ..LeaseFilter::default() };
            barrier.leases(&filter, &Page { after: None, limit: 1_000 }).await.expect("rows")
        };
        let lease = rows(LeaseKind::Secret).await.into_iter().next().expect("one lease that a server has made");
        for token_row in rows(LeaseKind::Token).await {
            let stored = barrier.get(&keys::token(&token_row.token)).await.expect("a store that answers");
            let Some(stored) = stored else { continue };
            let token: Value = serde_json::from_slice(&stored.value).expect("a token's record");
            if token["parent"].is_string() {
                return Self { token, token_row, lease };
            }
        }
        panic!("one token that has a parent");
    }

    fn batch(&self, range: std::ops::Range<usize>, count: usize) -> Batch {
        range.fold(
            Batch::new(),
            |batch, n| {
                if n % 2 == 0 { self.token(batch, n, count) } else { self.lease(batch, n, count) }
            },
        )
    }

    fn token(&self, batch: Batch, n: usize, count: usize) -> Batch {
        let hash = TokenHash::from_hex(ascending(n, count, 32));
        let accessor = Accessor::new(ascending(n, count, 12));
        let mut record = self.token.clone();
        record["accessor"] = accessor.as_str().into();
        let parent = TokenHash::from_hex(record["parent"].as_str().unwrap_or_default());
        let record = serde_json::to_vec(&record).expect("JSON");
        let id = self.token_row.id.as_str().replace(self.token_row.token.as_str(), hash.as_str());
        let row = LeaseRow { id: id.parse().expect("an id"), token: hash.clone(), ..self.token_row.clone() };
        batch
            .put(keys::token(&hash), record, Expect::Absent)
            .put(keys::token_accessor(&accessor), hash.as_str().as_bytes().to_vec(), Expect::Absent)
            .put(keys::token_child(&parent, &hash), Vec::new(), Expect::Anything)
            .insert(row)
    }

    fn lease(&self, batch: Batch, n: usize, count: usize) -> Batch {
        let id: LeaseId = format!("{}/{}", self.lease.id.path(), ascending(n, count, 12)).parse().expect("an id");
        batch.insert(LeaseRow { id, ..self.lease.clone() })
    }
}

async fn opened(store: &str) -> Arc<dyn WholeStore> {
    match store.strip_prefix("sqlite:") {
        Some(path) => Arc::new(SqliteStorage::open(path, Arc::new(System)).expect("the file")),
        None => {
            let settings = PostgresSettings::new(SecretString::from(store), "fill".to_owned());
            Arc::new(PostgresStorage::open(settings).await.expect("the tables"))
        }
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, share, count] = &*arguments else { panic!("fill sqlite:PATH|postgres://URL SHARE COUNT") };
    let (share, count) = (hex::decode(share).expect("a share"), count.parse::<usize>().expect("a number"));
    let barrier = Arc::new(Barrier::new(opened(store).await, Arc::new(System)));
    barrier.unseal(&share).await.expect("the share of this store");
    let samples = Arc::new(Samples::of(&barrier).await);
    let writers = (0..WRITERS).map(|writer| {
        let (barrier, samples) = (Arc::clone(&barrier), Arc::clone(&samples));
        tokio::spawn(async move {
            for first in (writer * BATCH..count).step_by(WRITERS * BATCH) {
                // A PostgreSQL on a busy machine may be silent for so long that it counts as away. Whether the batch was written is not
                // known then; the next one has other names.
                let mut tries = 0;
                while let Err(error) = barrier.commit(samples.batch(first..count.min(first + BATCH), count)).await {
                    assert!(tries < 60, "a commit: {error}");
                    tries += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                if first % 100_000 == 0 && first > 0 {
                    eprintln!("  {first} of {count}");
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer that comes to its end");
    }
    barrier.seal().await;
}
