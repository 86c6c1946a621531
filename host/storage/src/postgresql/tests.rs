//! The store in PostgreSQL: the suite on a real server, and what only this store promises.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use leasehold_core::seams::storage::{Batch, Expect, Storage, StorageError};
use leasehold_devpg::{DevPg, Options, Stop};
use leasehold_model::Ttl;
use secrecy::SecretString;

use super::{PostgresOpenError, PostgresSettings, PostgresStorage, claim, commit};
use crate::conformance::{self, Copied, Fixture, id, key, row};
use crate::tests::{TwoHandles, clock, unsealed};

/// One server for all tests of this process; each store has tables of its own.
fn server() -> &'static DevPg {
    static SERVER: OnceLock<DevPg> = OnceLock::new();
    SERVER.get_or_init(|| DevPg::start(Options::default()).unwrap())
}

fn settings_on(server: &DevPg, table: &str) -> PostgresSettings {
    let url = format!("{}?sslmode=disable", server.superuser_url());
    let settings = PostgresSettings::new(SecretString::from(url), format!("a test of {table}"));
    PostgresSettings { table: table.to_owned(), max_parallel: 6, ..settings }
}

fn fresh() -> PostgresSettings {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    settings_on(server(), &format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

async fn opened(settings: &PostgresSettings) -> PostgresStorage {
    PostgresStorage::open_with_clock(settings.clone(), clock()).await.unwrap()
}

fn put(name: &str) -> Batch {
    Batch::new().put(key(name), b"x".to_vec(), Expect::Anything)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_keeps_what_every_store_promises() {
    conformance::run(|| async {
        let clock = clock();
        let storage = PostgresStorage::open_with_clock(fresh(), clock.clone()).await.unwrap();
        Fixture { storage: Arc::new(storage), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_copied_as_every_store_is() {
    conformance::run_copies(|| async {
        let (clock, settings) = (clock(), fresh());
        let first = PostgresStorage::open_with_clock(settings.clone(), clock.clone()).await.unwrap();
        let second = first.beside(settings).await.unwrap();
        Copied { storage: Arc::new(TwoHandles { first, second, turn: AtomicUsize::new(0) }), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_postgresql_keep_what_every_store_promises() {
    conformance::run(|| async {
        let (clock, settings) = (clock(), fresh());
        let first = PostgresStorage::open_with_clock(settings.clone(), clock.clone()).await.unwrap();
        let second = first.beside(settings).await.unwrap();
        Fixture { storage: Arc::new(TwoHandles { first, second, turn: AtomicUsize::new(0) }), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_over_postgresql_keeps_what_every_store_promises() {
    conformance::run(|| async {
        let clock = clock();
        let storage = PostgresStorage::open_with_clock(fresh(), clock.clone()).await.unwrap();
        Fixture { storage: Arc::new(unsealed(Arc::new(storage)).await), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_is_kept_out_until_the_first_gives_the_store_back() {
    let settings = fresh();
    let first = opened(&settings).await;
    first.commit(put("a").insert(row("d/1", 5))).await.unwrap();
    let held = first.claim_due("x", 1, Ttl::from_secs(30), &[]).await.unwrap().remove(0);
    let refused = PostgresStorage::open(settings.clone()).await.unwrap_err();
    assert!(matches!(&refused, PostgresOpenError::InUse(_)), "{refused}");
    assert!(!first.is_lost());
    first.release().await;
    let second = opened(&settings).await;
    assert_eq!(second.get(&key("a")).await.unwrap().unwrap().value, b"x");
    assert!(second.lease(&id("d/1")).await.unwrap().unwrap() == held, "the hold outlives the server");
    let late = first.commit(put("b")).await;
    assert!(matches!(late, Err(StorageError::Unavailable(_))), "what the first still sends is refused");
    assert!(first.is_lost());
    assert!(matches!(first.get(&key("a")).await, Err(StorageError::Unavailable(_))), "it answers nothing any more");
    assert!(second.get(&key("b")).await.unwrap().is_none());
}

/// A1: SERIALIZABLE conflicts and deadlocks are PostgreSQL's to raise at any time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_postgresql_rolled_back_for_another_is_repeated_and_not_for_ever() {
    for code in ["40001", "40P01"] {
        let settings = fresh();
        let storage = opened(&settings).await;
        let table = &settings.table;
        // A sequence counts on when its transaction is rolled back.
        let sql = format!(
            "create sequence public.{table}_tries; create function {table}_fail() returns trigger language plpgsql as $f$ begin \
             if nextval('public.{table}_tries') <= 5 then raise exception using errcode = '{code}', message = 'injected'; end if; \
             return new; end $f$; \
             create trigger fail before insert or update on {table}_kv for each row execute function {table}_fail()"
        );
        server().psql(&sql).unwrap();
        storage.commit(put("a").put(key("sys/b"), vec![1], Expect::Absent)).await.unwrap();
        assert_eq!(server().psql(&format!("select last_value from {table}_tries")).unwrap().trim(), "7");
        server().psql(&format!("alter sequence {table}_tries restart minvalue -1000 start -1000")).unwrap();
        let refused = storage.commit(put("c")).await;
        assert!(matches!(&refused, Err(StorageError::Unavailable(why)) if why.contains(code)), "{refused:?}");
        assert!(storage.get(&key("c")).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_somebody_else_are_left_as_they_were() {
    for (theirs, table) in [
        ("create table vault_kv_store (parent_path text, path text, key text, value bytea)", "vault_kv_store"),
        ("create table theirs_schema (x int)", "theirs"),
        ("create table their_kv (x int)", "their"),
    ] {
        server().psql(theirs).unwrap();
        let listed =
            || server().psql("select relname from pg_class where relname ~ '^(vault|their)' order by 1").unwrap();
        let before = listed();
        let refused = PostgresStorage::open(settings_on(server(), table)).await.unwrap_err();
        assert!(matches!(&refused, PostgresOpenError::Foreign(_)), "{refused}");
        assert_eq!(listed(), before);
    }
    for table in ["", "a.b.c", "a b", "a\"b", "a'b", &"x".repeat(41)] {
        let refused = PostgresStorage::open(settings_on(server(), table)).await.unwrap_err();
        assert!(matches!(&refused, PostgresOpenError::Settings(_)), "{table}: {refused}");
    }
    let missing = PostgresSettings { skip_create_table: true, ..settings_on(server(), "nobody") };
    let refused = PostgresStorage::open(missing).await.unwrap_err();
    assert!(matches!(&refused, PostgresOpenError::Missing(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_a_newer_leasehold_is_written_only_if_it_says_so() {
    let settings = fresh();
    opened(&settings).await.release().await;
    let table = &settings.table;
    server().psql(&format!("update {table}_schema set version = 9, oldest_writer = 1")).unwrap();
    opened(&settings).await.release().await;
    server().psql(&format!("update {table}_schema set oldest_writer = 9")).unwrap();
    let refused = PostgresStorage::open(settings).await.unwrap_err();
    assert!(matches!(&refused, PostgresOpenError::Newer { found: 9, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_make_the_tables_once() {
    let settings = fresh();
    let first = opened(&settings).await;
    let others: Vec<_> = (0..4)
        .map(|_| {
            let (settings, first) = (fresh(), settings.clone());
            tokio::spawn(async move {
                // All of them on the same new tables, which one of them has to make.
                let settings = PostgresSettings { table: format!("{}_together", first.table), ..settings };
                PostgresStorage::open(settings).await.map(drop)
            })
        })
        .collect();
    let mut opened = 0;
    for other in others {
        match other.await.unwrap() {
            Ok(()) => opened += 1,
            Err(PostgresOpenError::InUse(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(opened >= 1);
    assert!(!first.is_lost());
}

/// A3: away, hanging, and back without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_is_told_soon_and_comes_back_by_itself() {
    let server = DevPg::start(Options::default()).unwrap();
    let storage = PostgresStorage::open(settings_on(&server, "away")).await.unwrap();
    storage.commit(put("kept")).await.unwrap();
    for hangs in [false, true] {
        if hangs {
            server.pause().unwrap()
        } else {
            server.stop(Stop::Immediate).unwrap()
        }
        let begun = Instant::now();
        let refused = storage.commit(put("late")).await;
        assert!(matches!(refused, Err(StorageError::Unavailable(_))));
        assert!(begun.elapsed() < Duration::from_secs(3), "told after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        assert!(matches!(storage.get(&key("kept")).await, Err(StorageError::Unavailable(_))));
        assert!(begun.elapsed() < Duration::from_millis(200), "while it is away nobody waits: {:?}", begun.elapsed());
        if hangs {
            server.resume().unwrap()
        } else {
            server.start_again().unwrap()
        }
        let begun = Instant::now();
        while storage.get(&key("kept")).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it does not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        storage.commit(put("again")).await.unwrap();
        // Whether it happened is settled when the store answers again.
        let settled = storage.get(&key("late")).await.unwrap().map(|stored| stored.version);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(storage.get(&key("late")).await.unwrap().map(|stored| stored.version), settled);
    }
}

/// Whatever comes in between: what a server remembers from before somebody else wrote is old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_taken_over_never_comes_back_also_when_the_other_has_ended() {
    let settings = fresh();
    for other_gives_back in [true, false] {
        let first = opened(&settings).await;
        first.keeper.abort();
        let stale = || server().psql(&format!("update {}_server set beat_at = 0", settings.table)).unwrap();
        stale();
        let second = opened(&settings).await;
        if other_gives_back {
            second.release().await;
        } else {
            second.keeper.abort();
            stale();
        }
        let keeping = claim::keep(Arc::clone(&first.shared));
        tokio::time::timeout(Duration::from_secs(5), keeping).await.expect("the first server goes on");
        assert!(first.is_lost());
        assert!(first.commit(put("late")).await.is_err());
        second.release().await;
    }
}

/// The claim changes hands only when no write is under way that has seen the old term.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_waits_for_the_writes_under_way() {
    let settings = fresh();
    let storage = Arc::new(opened(&settings).await);
    let names = &storage.shared.names;
    // Somebody holds the lock of a key, so that a write stands still in its middle.
    let (other, _task) = storage.shared.sessions.alone().await.unwrap();
    let lock = commit::lock_of(&names.prefix, "key", "a");
    other.batch_execute(&format!("begin; select pg_advisory_xact_lock({lock})")).await.unwrap();
    let writer = Arc::clone(&storage);
    let write = tokio::spawn(async move { writer.commit(put("a")).await });
    let waits = format!(
        "select count(*) from pg_locks where locktype = 'advisory' and not granted and objid = {}",
        lock as u32
    );
    while server().psql(&waits).unwrap().trim() != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let take_over = names.sql(&format!("select {{p}}hold\"('', 'other', 'other', {}, 0)", names.lock));
    let (taker, _task) = storage.shared.sessions.alone().await.unwrap();
    let taking = tokio::spawn(async move { taker.batch_execute(&take_over).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!taking.is_finished(), "the claim has changed hands under a write");
    other.batch_execute("commit").await.unwrap();
    write.await.unwrap().unwrap();
    taking.await.unwrap().unwrap();
    assert!(storage.commit(put("b")).await.is_err());
}

/// Two batches that each demand that the other's key is absent: one of them is refused, however they meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_hold_at_the_moment_of_the_commit() {
    let settings = fresh();
    let storage = Arc::new(opened(&settings).await);
    for round in 0..60 {
        let (one, other) = (format!("one{round}"), format!("other{round}"));
        let write = |mine: &str, not: &str| {
            let batch = put(mine).check(key(not), Expect::Absent);
            let storage = Arc::clone(&storage);
            tokio::spawn(async move { storage.commit(batch).await })
        };
        let (first, second) = (write(&one, &other), write(&other, &one));
        let done = [first.await.unwrap().is_ok(), second.await.unwrap().is_ok()];
        assert_eq!(done.iter().filter(|done| **done).count(), 1, "round {round}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_transactions_see_an_old_moment_is_refused() {
    let settings = fresh();
    let name = format!("{}_repeatable", settings.table);
    server()
        .psql(&format!(
            "create role {name} superuser login password 'x'; alter role {name} set default_transaction_isolation = 'repeatable read'"
        ))
        .unwrap();
    let url = format!("postgresql://{name}:x@127.0.0.1:{}/postgres?sslmode=disable", server().port());
    let theirs = PostgresSettings { connection_url: SecretString::from(url), ..settings };
    let refused = PostgresStorage::open(theirs).await.unwrap_err();
    assert!(refused.to_string().contains("must be read committed"), "{refused}");
}
