//! Fail-overs that lose what was answered, between a real primary and its standby.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_core::lease::{LeaseRow, LeaseState};
use leasehold_core::seams::host::{Clock as _, Entropy as _};
use leasehold_core::seams::seal::Seal as _;
use leasehold_core::seams::storage::{Batch, Expect, Storage, StorageError};
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_core::testing::{CountingEntropy, ManualClock};
use leasehold_devpg::{DevPg, Options, Stop};
use leasehold_model::Ttl;
use secrecy::{ExposeSecret as _, SecretString};

use super::journal::{Receipt, Write};
use super::timeline::replay;
use super::{PostgresSettings, PostgresStorage, node};
use crate::barrier::Barrier;
use crate::conformance::{id, key, row};
use crate::tests::clock;

const LONG: Duration = Duration::from_secs(30);

/// Two servers over a primary and its standby.
struct Pair {
    primary: DevPg,
    standby: DevPg,
    /// Leads to both.
    url: String,
    clock: Arc<ManualClock>,
    one: PostgresStorage,
    other: PostgresStorage,
}

impl Pair {
    async fn start() -> Self {
        let primary = DevPg::start(Options::default()).unwrap();
        let standby = primary.standby().unwrap();
        let url = SecretString::from(format!("{}?sslmode=disable", primary.superuser_url()));
        let hosts = url.expose_secret().replace(
            &format!("127.0.0.1:{}", primary.port()),
            &format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port()),
        );
        let settings = PostgresSettings::new(SecretString::from(hosts.clone()), "a test of fail-overs".to_owned());
        let clock = clock();
        let open = async || PostgresStorage::open_with_clock(settings.clone(), clock.clone()).await.unwrap();
        let (one, other) = (open().await, open().await);
        Self { primary, standby, url: hosts, clock, one, other }
    }

    /// From now on the standby hears of nothing more.
    fn cut(&self) {
        let written = self.primary.psql("SELECT pg_current_wal_flush_lsn()").unwrap();
        until("the standby has everything", || {
            self.standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")).unwrap() == "t"
        });
        self.standby.psql("ALTER SYSTEM SET primary_conninfo = ''").unwrap();
        self.standby.psql("SELECT pg_reload_conf()").unwrap();
        until("the standby hears of nothing more", || {
            self.standby.psql("SELECT count(*) FROM pg_stat_wal_receiver").unwrap() == "0"
        });
    }

    /// Returns when both servers write again.
    async fn fail_over(&self) {
        self.primary.stop(Stop::Immediate).unwrap();
        let began = Instant::now();
        // After an outage a server takes a new term.
        while [&self.one, &self.other].iter().any(|storage| storage.shared.member.is_up().is_ok()) {
            assert!(began.elapsed() < LONG, "nobody notices that the primary is gone");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.standby.promote().unwrap();
        for storage in [&self.one, &self.other] {
            while let Err(error) = storage.commit(put("again", b"x")).await {
                assert!(began.elapsed() < LONG, "{error}");
                for _ in 0..10 {
                    let found = storage.get(&key("token/id/ends")).await;
                    assert!(!matches!(found, Ok(Some(_))), "it has ended, and is read all the same");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    async fn value(&self, name: &str) -> Option<Vec<u8>> {
        let key = key(name);
        let (one, other) = (self.one.get(&key).await.unwrap(), self.other.get(&key).await.unwrap());
        assert_eq!(one.as_ref().map(|stored| stored.version), other.as_ref().map(|stored| stored.version));
        one.map(|stored| stored.value)
    }

    /// A claimed row, as whoever ends the lease has it.
    async fn claimed(&self, storage: &PostgresStorage, lease: &str) -> LeaseRow {
        storage.claim("worker", &id(lease), Ttl::from_secs(60)).await.unwrap().unwrap()
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn put(name: &str, value: &[u8]) -> Batch {
    Batch::new().put(key(name), value.to_vec(), Expect::Anything)
}

fn version(stored: &leasehold_core::seams::storage::Versioned) -> Expect {
    Expect::Version(stored.version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_fail_over_has_lost_is_replayed() {
    let pair = Pair::start().await;
    let Pair { one, other, .. } = &pair;
    one.commit(put("sys/policy/a", b"before").put(key("sys/integrity"), b"0".to_vec(), Expect::Absent)).await.unwrap();
    for lease in ["d/ends", "d/is-revoked", "d/stays"] {
        one.commit(Batch::new().insert(row(lease, 5))).await.unwrap();
    }
    one.commit(put("token/id/ends", b"x").put(key("plain"), b"before".to_vec(), Expect::Anything)).await.unwrap();
    one.commit(put("goes", b"x")).await.unwrap();
    let watched = "CREATE TABLE seen (replayed bigint); \
                   CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS \
                   'begin insert into seen values (new.replayed); return new; end'; \
                   CREATE TRIGGER seen AFTER UPDATE OF replayed ON leasehold_node FOR EACH ROW EXECUTE FUNCTION see()";
    pair.primary.psql(watched).unwrap();
    pair.cut();

    // Changes under `sys/` stand on each other, whichever server makes them.
    let mut chain = one.get(&key("sys/integrity")).await.unwrap().unwrap();
    for (storage, name) in
        [(one, "sys/policy/a"), (other, "sys/policy/b"), (one, "sys/policy/c"), (other, "sys/policy/a")]
    {
        let batch = put(name, name.as_bytes()).put(key("sys/integrity"), name.as_bytes().to_vec(), version(&chain));
        storage.commit(batch).await.unwrap();
        chain = storage.get(&key("sys/integrity")).await.unwrap().unwrap();
    }
    one.commit(Batch::new().delete(key("token/id/ends")).delete(key("goes"))).await.unwrap();
    // Made by one server and ended by the other: the end counts, whoever says first what it had.
    for (first, second, name) in [(one, other, "short-1"), (other, one, "short-2")] {
        let (token, lease) = (format!("token/id/{name}"), format!("d/{name}"));
        first.commit(put(&token, b"x").insert(row(&lease, 5))).await.unwrap();
        let held = pair.claimed(second, &lease).await;
        second.commit(Batch::new().delete(key(&token)).remove(held.id, held.fence)).await.unwrap();
    }
    other.commit(put("plain", b"first")).await.unwrap();
    one.commit(put("plain", b"last")).await.unwrap();
    let held = pair.claimed(other, "d/ends").await;
    other.commit(Batch::new().remove(held.id, held.fence)).await.unwrap();
    let held = pair.claimed(other, "d/is-revoked").await;
    let revoking = LeaseRow { state: LeaseState::Revoking, body: Vec::new(), ..held.clone() };
    other.commit(Batch::new().shift(revoking, LeaseState::Active, held.fence)).await.unwrap();
    // Made by one, changed by the other without its body.
    one.commit(Batch::new().insert(row("d/new", 5))).await.unwrap();
    let held = pair.claimed(other, "d/new").await;
    let renewed = LeaseRow { next_at: pair.clock.now() + Ttl::from_secs(77), body: Vec::new(), ..held.clone() };
    other.commit(Batch::new().shift(renewed.clone(), LeaseState::Active, held.fence)).await.unwrap();
    let stays = pair.claimed(one, "d/stays").await;
    let before = one.changes(0).await.unwrap();

    pair.fail_over().await;
    let seen = pair.standby.psql("SELECT count(*) FROM seen WHERE replayed = 2").unwrap();
    assert_eq!(seen, "2", "each said that it had replayed, so that nobody waited in vain");
    assert_eq!(pair.value("sys/policy/a").await.unwrap(), b"sys/policy/a");
    assert_eq!(pair.value("sys/policy/b").await.unwrap(), b"sys/policy/b");
    assert_eq!(pair.value("sys/policy/c").await.unwrap(), b"sys/policy/c");
    assert_eq!(
        one.get(&key("sys/integrity")).await.unwrap().unwrap().version,
        chain.version,
        "whoever stands on it goes on"
    );
    assert_eq!(pair.value("plain").await.unwrap(), b"last");
    for gone in ["token/id/ends", "goes", "token/id/short-1", "token/id/short-2"] {
        assert_eq!(pair.value(gone).await, None, "{gone}");
    }
    for gone in ["d/ends", "d/short-1", "d/short-2"] {
        assert!(one.lease(&id(gone)).await.unwrap().is_none(), "{gone}");
    }
    let revoked = one.lease(&id("d/is-revoked")).await.unwrap().unwrap();
    assert_eq!((revoked.state, revoked.body), (LeaseState::Revoking, row("d/is-revoked", 5).body));
    let new = one.lease(&id("d/new")).await.unwrap().unwrap();
    assert_eq!((new.next_at, new.body), (renewed.next_at, row("d/new", 5).body));
    assert_eq!(one.recount_leases().await.unwrap(), 0);

    // The claim was lost, and whoever had it has no right any more: no fence is given twice, and no number.
    let late = one.commit(Batch::new().remove(stays.id, stays.fence)).await;
    assert!(matches!(late, Err(StorageError::Fenced(_))), "{late:?}");
    assert!(pair.claimed(other, "d/stays").await.fence > stays.fence);
    let next = |changes| match changes {
        leasehold_core::seams::storage::Changes::Keys { next, .. }
        | leasehold_core::seams::storage::Changes::All { next } => next,
    };
    assert!(next(one.changes(0).await.unwrap()) > next(before));
}

/// Several fail-overs at once, say: nobody knows what is lost, and what ended must not come back all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_stays_ended_where_nobody_knows_what_is_lost() {
    let pair = Pair::start().await;
    let Pair { one, other, .. } = &pair;
    one.commit(put("token/id/ends", b"x").insert(row("d/ends", 5)).insert(row("d/is-revoked", 5))).await.unwrap();
    one.commit(put("plain", b"before")).await.unwrap();
    pair.primary.psql("UPDATE leasehold_counter SET timeline = 0").unwrap();
    pair.cut();
    other.commit(Batch::new().delete(key("token/id/ends"))).await.unwrap();
    let held = pair.claimed(one, "d/ends").await;
    one.commit(Batch::new().remove(held.id, held.fence)).await.unwrap();
    let held = pair.claimed(other, "d/is-revoked").await;
    let revoking = LeaseRow { state: LeaseState::Revoking, ..held.clone() };
    other.commit(Batch::new().shift(revoking, LeaseState::Active, held.fence)).await.unwrap();
    one.commit(put("plain", b"after")).await.unwrap();
    pair.fail_over().await;
    assert_eq!(pair.value("token/id/ends").await, None);
    assert!(one.lease(&id("d/ends")).await.unwrap().is_none());
    assert_eq!(one.lease(&id("d/is-revoked")).await.unwrap().unwrap().state, LeaseState::Revoking);
    assert_eq!(pair.value("plain").await.unwrap(), b"before", "whether somebody has written it since, nobody knows");
    assert_eq!(one.recount_leases().await.unwrap(), 0);
}

/// What stands on a change that nobody can replay is not replayed either: the digest over `sys/` would say that rows were changed from
/// outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_base_is_lost_is_lost_with_it() {
    let pair = Pair::start().await;
    pair.one.commit(put("sys/integrity", b"0")).await.unwrap();
    pair.cut();
    let first = pair.one.get(&key("sys/integrity")).await.unwrap().unwrap();
    // A server that dies with the primary.
    let gone = PostgresSettings::new(
        SecretString::from(format!("{}?sslmode=disable", pair.primary.superuser_url())),
        "it dies".to_owned(),
    );
    let gone = PostgresStorage::open_with_clock(gone, pair.clock.clone()).await.unwrap();
    gone.commit(put("sys/policy/a", b"a").put(key("sys/integrity"), b"1".to_vec(), version(&first))).await.unwrap();
    drop(gone);
    let second = pair.one.get(&key("sys/integrity")).await.unwrap().unwrap();
    pair.one
        .commit(put("sys/policy/b", b"b").put(key("sys/integrity"), b"2".to_vec(), version(&second)))
        .await
        .unwrap();
    pair.one.commit(put("elsewhere", b"x")).await.unwrap();
    pair.fail_over().await;
    assert_eq!(pair.value("sys/integrity").await.unwrap(), b"0");
    assert_eq!(pair.value("sys/policy/a").await, None);
    assert_eq!(pair.value("sys/policy/b").await, None);
    assert_eq!(pair.value("elsewhere").await.unwrap(), b"x");
}

/// A server holds keys that the store has lost, and goes on with those that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_lost_for_good_stop_no_write() {
    let pair = Pair::start().await;
    let over = |storage: PostgresStorage, entropy| {
        let storage: Arc<dyn WholeStore> = Arc::new(storage);
        Barrier::new(storage, Arc::new(entropy))
    };
    let open = async |url: &str| {
        let settings = PostgresSettings::new(SecretString::from(url.to_owned()), "over a barrier".to_owned());
        PostgresStorage::open_with_clock(settings, pair.clock.clone()).await.unwrap()
    };
    let barrier = over(open(&pair.url).await, CountingEntropy::default());
    let share = barrier.init_and_unseal_dev().await.unwrap();
    barrier.commit(put("before", b"x")).await.unwrap();
    let other_entropy = CountingEntropy::default();
    other_entropy.fill(&mut [0; 65_536]);
    let gone = over(open(&format!("{}?sslmode=disable", pair.primary.superuser_url())).await, other_entropy);
    gone.unseal(&share.0).await.unwrap();
    pair.cut();
    gone.rotate().await.unwrap();
    drop(gone);
    barrier.commit(put("after", b"x")).await.unwrap();
    pair.fail_over().await;
    let began = Instant::now();
    while let Err(error) = barrier.commit(put("again", b"x")).await {
        assert!(began.elapsed() < LONG, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(barrier.get(&key("again")).await.unwrap().unwrap().value, b"x");
    assert_eq!(barrier.get(&key("before")).await.unwrap().unwrap().value, b"x");
    assert!(barrier.get(&key("after")).await.unwrap().is_none(), "nobody could read it");
}

/// A store that has failed over, on which no server works yet.
async fn not_open() -> (DevPg, PostgresStorage) {
    let pg = DevPg::start(Options::default()).unwrap();
    let url = SecretString::from(format!("{}?sslmode=disable", pg.superuser_url()));
    let settings = PostgresSettings::new(url, "a test of fail-overs".to_owned());
    let storage = PostgresStorage::open_with_clock(settings, clock()).await.unwrap();
    pg.psql("UPDATE leasehold_counter SET is_open = false, value = 10").unwrap();
    (pg, storage)
}

async fn replayed(storage: &PostgresStorage, only_ends: bool, lsn: i64, number: i64, batch: Batch) -> bool {
    let receipt = Receipt { lsn, transaction: 0, number: Some(number) };
    replay(&storage.shared, 1, only_ends, &Write::new(receipt, batch)).await.unwrap().is_some()
}

/// A server may know only that something ended, and say so before the one that made it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_counts_also_before_what_it_ends_is_replayed() {
    let (_pg, storage) = not_open().await;
    let ends = Batch::new().delete(key("token/id/t")).remove(id("d/1"), 5);
    assert!(replayed(&storage, true, 200, 0, ends).await);
    assert!(replayed(&storage, false, 100, 0, put("token/id/t", b"x").insert(row("d/1", 5))).await);
    assert!(storage.get(&key("token/id/t")).await.unwrap().is_none());
    assert!(storage.lease(&id("d/1")).await.unwrap().is_none());
}

/// So does a revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_counts_also_before_its_lease_is_replayed() {
    let (_pg, storage) = not_open().await;
    let revoking = LeaseRow { state: LeaseState::Revoking, fence: 1, ..row("d/1", 5) };
    assert!(replayed(&storage, true, 200, 0, Batch::new().shift(revoking, LeaseState::Active, 0)).await);
    assert!(storage.lease(&id("d/1")).await.unwrap().is_none(), "only who has made it knows all of it");
    assert!(replayed(&storage, false, 100, 0, Batch::new().insert(row("d/1", 5))).await);
    assert_eq!(storage.lease(&id("d/1")).await.unwrap().unwrap().state, LeaseState::Revoking);
    // What was written after the revocation stands.
    assert!(replayed(&storage, false, 300, 0, Batch::new().shift(row("d/1", 5), LeaseState::Revoking, 1)).await);
    assert_eq!(storage.lease(&id("d/1")).await.unwrap().unwrap().state, LeaseState::Active);
    assert_eq!(storage.recount_leases().await.unwrap(), 0);
}

/// What a batch was written under was there when it was written, also if a newer one is there by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_that_a_later_write_has_ended_held_all_the_same() {
    let (_pg, storage) = not_open().await;
    let check = |version| Batch::new().check(key("sys/keyring"), Expect::Version(version));
    assert!(replayed(&storage, false, 50, 5, put("sys/keyring", b"5")).await);
    assert!(replayed(&storage, false, 200, 6, put("sys/keyring", b"6")).await);
    assert!(replayed(&storage, false, 100, 0, check(5).insert(row("d/1", 5))).await);
    assert!(storage.lease(&id("d/1")).await.unwrap().is_some());
    assert!(!replayed(&storage, false, 300, 0, check(7).insert(row("d/2", 5))).await, "that one is not there yet");
    // An answer that was lost: the same again changes nothing.
    for _ in 0..2 {
        let batch = Batch::new().put(key("sys/keyring"), b"7".to_vec(), Expect::Version(6));
        assert!(replayed(&storage, false, 400, 7, batch).await);
    }
    assert_eq!(storage.get(&key("sys/keyring")).await.unwrap().unwrap().version, 7);
    assert_eq!(storage.recount_leases().await.unwrap(), 0);
}

/// The effect of a lease that was being issued may be under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_a_row_that_is_being_issued_before_its_time() {
    let (pg, storage) = not_open().await;
    let until = clock().now() + Ttl::from_secs(35);
    let issuing = LeaseRow {
        state: LeaseState::Issuing,
        holder: Some("worker".to_owned()),
        held_until: Some(until),
        fence: 1,
        ..row("d/1", 5)
    };
    assert!(replayed(&storage, false, 100, 0, Batch::new().insert(issuing)).await);
    pg.psql("UPDATE leasehold_counter SET is_open = true").unwrap();
    let held = storage.claim("another", &id("d/1"), Ttl::from_secs(60)).await;
    assert!(matches!(held, Err(StorageError::Fenced(_))), "{held:?}");
}

/// Servers of before this schema replay nothing, and are not kept out for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_knows_nothing_of_timelines_joins_after_a_while() {
    let (pg, storage) = not_open().await;
    let lock = storage.shared.names.lock;
    storage.leave().await;
    pg.psql("INSERT INTO leasehold_node SELECT 'old', 'old', '', '', '', false, null, 0, 0, 0, 0, 0, 0").unwrap();
    pg.psql("UPDATE leasehold_counter SET timeline = 0").unwrap();
    let join = format!("SELECT leasehold_join('new', 'another', '', false, 1, 1000000000000, {lock})");
    let joins = || pg.psql(&join).is_ok();
    assert!(!joins(), "there is one that may have something to replay");
    assert_eq!(pg.psql(&format!("SELECT leasehold_beat('old', 'old', {lock})")).unwrap(), "f");
    until("it joins", joins);
    assert_eq!(pg.psql("SELECT string_agg(id, ',') FROM leasehold_node").unwrap(), "another");
    node::leave(&storage.shared).await;
}
