//! The store in PostgreSQL: the suite on a real server, and what only this store promises.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::nodes::{Node, NodeReport};
use leasehold_core::seams::storage::{Batch, Expect, LeaseFilter, Page, Storage, StorageError};
use leasehold_devpg::{DevPg, Options, Stop};
use leasehold_model::Ttl;
use secrecy::SecretString;

use super::{PostgresOpenError, PostgresSettings, PostgresStorage, commit};
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
        let second = PostgresStorage::open_with_clock(settings, clock.clone()).await.unwrap();
        Copied { storage: Arc::new(TwoHandles { first, second, turn: AtomicUsize::new(0) }), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_postgresql_keep_what_every_store_promises() {
    conformance::run(|| async {
        let (clock, settings) = (clock(), fresh());
        let first = PostgresStorage::open_with_clock(settings.clone(), clock.clone()).await.unwrap();
        let second = PostgresStorage::open_with_clock(settings, clock.clone()).await.unwrap();
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

fn report(id: &str, applied: Option<u64>) -> NodeReport {
    let (name, address) = (format!("name of {id}"), format!("https://{id}"));
    NodeReport { id: id.to_owned(), name, address, version: "1.2.3".to_owned(), applied }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_hear_of_each_other_and_of_every_change() {
    let settings = fresh();
    let (one, other) = (opened(&settings).await, opened(&settings).await);
    let first = one.attend(&report("one", None)).await.unwrap().unwrap();
    assert_eq!(first.nodes.len(), 2, "also one that has said nothing yet");
    other.commit(put("sys/a")).await.unwrap();
    other.commit(put("elsewhere")).await.unwrap();
    let heard = other.attend(&report("other", Some(first.changed))).await.unwrap().unwrap();
    assert_eq!(heard.changed, first.changed + 1, "only what is cached has a number");
    let told = one.attend(&report("one", Some(heard.changed))).await.unwrap().unwrap();
    let reports: Vec<_> = told.nodes.iter().map(|node| node.report.clone()).collect();
    assert_eq!(reports, [report("one", Some(heard.changed)), report("other", Some(first.changed))]);
    // The same again is not stored at once, and after a moment it is.
    let beats = |nodes: &[Node]| nodes.iter().map(|node| node.beat).collect::<Vec<_>>();
    let again = one.attend(&report("one", Some(heard.changed))).await.unwrap().unwrap();
    assert_eq!(beats(&again.nodes), beats(&told.nodes));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let later = one.attend(&report("one", Some(heard.changed))).await.unwrap().unwrap();
    assert!(later.nodes[0].beat > told.nodes[0].beat && later.nodes[1].beat == told.nodes[1].beat);
    other.leave().await;
    assert_eq!(one.attend(&report("one", None)).await.unwrap().unwrap().nodes.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_off_the_list_writes_nothing_until_it_joins_again() {
    let settings = fresh();
    let (one, other) = (opened(&settings).await, opened(&settings).await);
    one.commit(put("a").insert(row("d/1", 5))).await.unwrap();
    other.attend(&report("other", Some(0))).await.unwrap();
    let beat = |nodes: &[Node]| nodes.iter().find(|node| node.report.id == "other").map(|node| node.beat);
    let stale = beat(&one.attend(&report("one", Some(0))).await.unwrap().unwrap().nodes).unwrap();
    other.attend(&report("other", Some(1))).await.unwrap();
    one.expel("other", stale).await.unwrap();
    let known = beat(&one.attend(&report("one", Some(0))).await.unwrap().unwrap().nodes);
    assert!(known.is_some_and(|beat| beat > stale), "it was heard of in between");
    one.expel("other", known.unwrap()).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(other.commit(put("b")).await, Err(StorageError::Expelled)));
        assert!(matches!(other.claim_due("x", 1, Ttl::from_secs(30), &[]).await, Err(StorageError::Expelled)));
        assert!(matches!(other.attend(&report("other", Some(1))).await, Err(StorageError::Expelled)));
        // It decides from memory, so it does not join again by itself.
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert!(one.get(&key("b")).await.unwrap().is_none());
    other.rejoin(&report("other", None)).await.unwrap();
    other.commit(put("b")).await.unwrap();
    assert!(other.attend(&report("other", Some(1))).await.unwrap().is_some());
}

/// A server was killed while it worked on leases: their roles must not wait until its claims are over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_a_server_that_is_not_heard_of_are_taken_over_where_that_is_safe() {
    let settings = fresh();
    let (dead, alive) = (opened(&settings).await, opened(&settings).await);
    let state = |name, kind, state| LeaseRow { kind, state, ..row(name, 5) };
    let batch = Batch::new()
        .insert(state("d/active", LeaseKind::Secret, LeaseState::Active))
        .insert(state("d/issuing", LeaseKind::Secret, LeaseState::Issuing))
        .insert(state("d/job", LeaseKind::Job, LeaseState::Active))
        .insert(state("d/revoking", LeaseKind::Secret, LeaseState::Revoking))
        .insert(state("d/token", LeaseKind::Token, LeaseState::Active));
    dead.commit(batch).await.unwrap();
    let hold = Ttl::from_secs(60);
    let held = dead.claim_due("dead", 9, hold, &[]).await.unwrap();
    assert_eq!(held.len(), 5);
    // A new term after an outage does not make it silent for others, and it does not take its own work from itself.
    assert!(dead.claim_due("dead", 9, hold, &[]).await.unwrap().is_empty());
    assert!(alive.claim_due("alive", 9, hold, &[]).await.unwrap().is_empty(), "it is heard of");
    assert!(matches!(alive.claim("alive", &id("d/active"), hold).await, Err(StorageError::Fenced(_))));
    drop(dead);
    let table = &settings.table;
    let heard = |when: &str| {
        let sql = format!(
            "update {table}_node set heard_at = {table}_now() {when} where term in (select held_by from {table}_lease)"
        );
        server().psql(&sql).unwrap();
    };
    heard("- 1000000000");
    assert!(alive.claim_due("alive", 9, hold, &[]).await.unwrap().is_empty(), "a second is not long");
    heard("- 4000000000");
    let one = alive.claim("alive", &id("d/active"), hold).await.unwrap().unwrap();
    assert!(
        held.iter().any(|row| row.id == one.id && row.fence < one.fence),
        "what the dead one still sends is refused"
    );
    // The clock of the store was set back.
    heard("+ 600000000000");
    let taken = alive.claim_due("alive", 9, hold, &[]).await.unwrap();
    assert_eq!(taken.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["d/revoking", "d/token"]);
}

/// What copies a whole store must not have servers beside it, nor begin beside one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_works_alone_keeps_others_out_and_is_kept_out() {
    let settings = fresh();
    let alone = PostgresSettings { alone: true, ..settings.clone() };
    for (first, second) in [(&settings, &alone), (&alone, &settings), (&alone, &alone)] {
        let here = opened(first).await;
        let refused = PostgresStorage::open(second.clone()).await.unwrap_err();
        assert!(matches!(&refused, PostgresOpenError::InUse(_)), "{refused}");
        here.leave().await;
        opened(second).await.leave().await;
    }
}

/// It was frozen, and does not know that somebody else has begun to copy all that is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wakes_beside_one_that_works_alone_writes_nothing() {
    let settings = fresh();
    let frozen = opened(&settings).await;
    frozen.attend(&report("frozen", Some(0))).await.unwrap();
    frozen.keeper.abort();
    server().psql(&format!("update {}_node set heard_at = 0", settings.table)).unwrap();
    let alone = opened(&PostgresSettings { alone: true, ..settings }).await;
    assert!(matches!(frozen.commit(put("late")).await, Err(StorageError::Expelled)));
    assert!(frozen.rejoin(&report("frozen", None)).await.is_err());
    assert!(alone.get(&key("late")).await.unwrap().is_none());
}

/// A sealed server, or one whose row somebody has deleted: nothing that it has decided could come late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_decides_nothing_joins_again_by_itself() {
    let settings = fresh();
    let storage = opened(&settings).await;
    server().psql(&format!("delete from {}_node", settings.table)).unwrap();
    assert!(matches!(storage.commit(put("a")).await, Err(StorageError::Expelled)));
    let begun = Instant::now();
    while storage.commit(put("a")).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not join again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
    opened(&settings).await.leave().await;
    let table = &settings.table;
    server().psql(&format!("update {table}_schema set version = 9, oldest_writer = 1")).unwrap();
    opened(&settings).await.leave().await;
    server().psql(&format!("update {table}_schema set oldest_writer = 9")).unwrap();
    let refused = PostgresStorage::open(settings).await.unwrap_err();
    assert!(matches!(&refused, PostgresOpenError::Newer { found: 9, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_make_the_tables_once() {
    let settings = fresh();
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
        other.await.unwrap().unwrap();
        opened += 1;
    }
    assert_eq!(opened, 4);
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

/// What has passed the check is written before the server counts as gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_a_server_off_the_list_waits_for_its_writes_under_way() {
    let settings = fresh();
    let storage = Arc::new(opened(&settings).await);
    let names = &storage.shared.names;
    let remover = opened(&settings).await;
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
    let beat = storage.attend(&report("it", Some(0))).await.unwrap().unwrap().nodes[0].beat;
    let removing = tokio::spawn(async move { remover.expel("it", beat).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!removing.is_finished(), "a server was taken off the list under its write");
    other.batch_execute("commit").await.unwrap();
    write.await.unwrap().unwrap();
    removing.await.unwrap().unwrap();
    assert!(matches!(storage.commit(put("b")).await, Err(StorageError::Expelled)));
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

/// Rows that a plan has looked at, those that it passed over included.
fn looked_at(plan: &serde_json::Value, rows: &mut f64) {
    let number = |name: &str| plan[name].as_f64().unwrap_or_default();
    let kind = plan["Node Type"].as_str().unwrap_or_default();
    assert!(kind != "Seq Scan" && !kind.starts_with("Bitmap"), "{plan:#}");
    if kind.starts_with("Index") {
        *rows += (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops");
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        looked_at(below, rows);
    }
}

/// JSON as it is sent.
struct Plan<'a>(&'a [u8]);

impl<'a> tokio_postgres::types::FromSql<'a> for Plan<'a> {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }
    fn accepts(kind: &tokio_postgres::types::Type) -> bool {
        *kind == tokio_postgres::types::Type::JSON
    }
}

async fn rows_looked_at(storage: &PostgresStorage, text: &str, parameters: &[super::Parameter<'_>]) -> f64 {
    let text = storage.shared.names.sql(&format!("explain (analyze, timing off, format json) {text}"));
    let (client, task) = storage.shared.sessions.alone().await.unwrap();
    let found = client.query_typed(&text, parameters).await.unwrap();
    let plan: serde_json::Value = serde_json::from_slice(found[0].try_get::<_, Plan<'_>>(0).unwrap().0).unwrap();
    task.abort();
    let mut rows = 0.0;
    looked_at(&plan[0]["Plan"], &mut rows);
    rows
}

/// A page costs what it shows, however much there is in the folder, below it and behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_looks_at_no_more_rows_than_it_shows() {
    use leasehold_core::seams::storage::Listed;
    let settings = fresh();
    let storage = opened(&settings).await;
    let table = &settings.table;
    let fill = format!(
        "insert into {table}_lease select convert_to(format('d/creds/r%s/%s', n % 7, to_char(n, 'FM000000')), 'UTF8'), 'secret', \
         case n when 3 then 'revoking' else 'active' end, n, n, 0, null, null, 'aa', 'm', 'c', 'x' from generate_series(0, 29999) n; \
         insert into {table}_kv select convert_to('token/accessor/' || to_char(n, 'FM000000'), 'UTF8'), 'x', 1 \
         from generate_series(0, 29999) n"
    );
    server().psql(&fill).unwrap();
    // Whether the tables have been looked over by autovacuum or not.
    for analysed in [false, true] {
        if analysed {
            server().psql(&format!("analyze {table}_lease; analyze {table}_kv")).unwrap();
        }
        for (of, prefix, after, limit, shown) in [
            (Listed::Leases, "", "", 100, 1),
            (Listed::Leases, "d/creds/", "", 100, 7),
            (Listed::Leases, "d/creds/", "r3/", 2, 2),
            (Listed::Leases, "d/creds/r1/", "", 20, 20),
            (Listed::Leases, "d/creds/r1/", "014008", 20, 20),
            (Listed::Leases, "none/", "", 20, 0),
            (Listed::Values, "token/accessor/", "000100", 50, 50),
            (Listed::Values, "token/", "", 50, 1),
        ] {
            assert_eq!(storage.names(of, prefix, after, limit).await.unwrap().len(), shown, "{of:?} {prefix} {after}");
            let asked = super::query::NamesAsked::new(prefix, after, limit);
            let rows = rows_looked_at(&storage, &asked.text(of), &asked.parameters()).await;
            assert!(rows <= shown as f64 + 1.0, "{rows} rows for {shown} names: {of:?} {prefix} {after}");
        }
        // What is revoking is a few of many.
        let filter =
            LeaseFilter { state: Some(LeaseState::Revoking), kind: Some(LeaseKind::Secret), ..LeaseFilter::default() };
        let query = super::query::leases_query(&filter, &Page { after: None, limit: 100 });
        assert_eq!(storage.leases(&filter, &Page { after: None, limit: 100 }).await.unwrap().len(), 1);
        if analysed {
            let rows = rows_looked_at(&storage, &query.text, &query.parameters()).await;
            assert!(rows <= 1.0, "{rows} rows for one that is revoking");
        }
    }
}

/// A commit that PostgreSQL rolls back for another, and then repeats, is counted once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_right_over_two_handles_whatever_is_rolled_back() {
    conformance::run_some("counts_", || async {
        let (clock, settings) = (clock(), fresh());
        let first = PostgresStorage::open_with_clock(settings.clone(), clock.clone()).await.unwrap();
        let second = PostgresStorage::open_with_clock(settings.clone(), clock.clone()).await.unwrap();
        let table = &settings.table;
        // At the end, when everything else of the commit has been done.
        let sql = format!(
            "create sequence public.{table}_turn; create function {table}_fail() returns trigger language plpgsql as $f$ begin \
             if nextval('public.{table}_turn') % 3 = 0 then raise exception using errcode = '40001', message = 'injected'; end if; \
             return new; end $f$; \
             create trigger fail after insert on {table}_lease_count for each statement execute function {table}_fail()"
        );
        server().psql(&sql).unwrap();
        Fixture { storage: Arc::new(TwoHandles { first, second, turn: AtomicUsize::new(0) }), clock }
    })
    .await;
}

/// Somebody has changed rows by hand, or a server of the version before was in the middle of a commit when the tables were migrated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_are_wrong_are_corrected_while_others_write() {
    let settings = fresh();
    let (storage, other) = (opened(&settings).await, Arc::new(opened(&settings).await));
    let mut batch = Batch::new();
    for n in 0..50 {
        batch = batch.insert(row(&format!("d/{n}"), 1));
    }
    storage.commit(batch).await.unwrap();
    let table = &settings.table;
    server()
        .psql(&format!(
            "delete from {table}_lease where id in (select id from {table}_lease limit 20); \
             update {table}_lease set state = 'revoking' where id in (select id from {table}_lease limit 5)"
        ))
        .unwrap();
    let writer = tokio::spawn(async move {
        for n in 0..40 {
            other.commit(Batch::new().insert(row(&format!("e/{n}"), 1))).await.unwrap();
        }
    });
    // 25 are active that were 50, and 5 are revoking.
    assert_eq!(storage.recount_leases().await.unwrap(), 30);
    writer.await.unwrap();
    let counted = [(LeaseKind::Secret, LeaseState::Active, 65), (LeaseKind::Secret, LeaseState::Revoking, 5)];
    assert_eq!(storage.count_leases().await.unwrap(), counted);
    assert_eq!(storage.recount_leases().await.unwrap(), 0);
}

/// The plan of a scrape has nothing of the leases in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_leases_reads_counts_and_no_lease() {
    let settings = fresh();
    let storage = opened(&settings).await;
    let text = storage.shared.names.sql(super::query::COUNTS);
    let plan = server().psql(&format!("explain {text}")).unwrap();
    assert!(plan.contains("lease_count") && !plan.contains("_lease "), "{plan}");
    let held = "select count(*) from pg_indexes where indexname = ";
    assert_eq!(server().psql(&format!("{held}'{}_lease_count'", settings.table)).unwrap().trim(), "0");
}

/// A restored store of a million rows must not be slow until autovacuum has come by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_restored_is_planned_for_at_once() {
    use leasehold_core::seams::store_copy::{Piece, Record, WholeStore};
    let settings = fresh();
    let storage = opened(&settings).await;
    let (pieces, waiting) = tokio::sync::mpsc::channel(4);
    let values = (0..500).map(|n| Record::Value { key: key(&format!("a/{n}")), value: b"x".to_vec() });
    let leases = (0..300).map(|n| Record::Lease(row(&format!("a/creds/{n}"), 1)));
    for piece in [Piece::Records(values.chain(leases).collect()), Piece::End] {
        pieces.send(piece).await.unwrap();
    }
    storage.replace(waiting).await.unwrap();
    for (table, rows) in [("kv", "500"), ("lease", "300")] {
        let known = format!("select reltuples from pg_class where relname = '{}_{table}'", settings.table);
        assert_eq!(server().psql(&known).unwrap().trim(), rows, "{table}");
    }
}

/// A session of somebody else.
async fn session(server: &DevPg) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&server.superuser_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A store of the schema before counts, with leases in it, while somebody holds the table: whoever writes goes on meanwhile, and what was
/// there and what came is counted when it is migrated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_leases_is_migrated_when_nobody_holds_its_tables() {
    use super::open::{MIGRATIONS, prepare_with};
    let settings = fresh();
    drop(prepare_with(&settings, &MIGRATIONS[..3]).await.unwrap());
    let table = format!("{}_lease", settings.table);
    let rows = |numbers: &str| {
        format!(
            "insert into {table} (id, kind, state, next_at, expires_at, fence, token, mount, connection, body) \
             select ('a/' || n)::bytea, 'secret', case when n % 4 = 0 then 'revoking' else 'active' end, 1, 1, 0, '', '', '', '' \
             from generate_series({numbers}) n"
        )
    };
    server().psql(&rows("1, 200")).unwrap();
    let (holder, writer) = (session(server()).await, session(server()).await);
    holder.batch_execute(&format!("begin; lock table {table} in row exclusive mode")).await.unwrap();
    let opening = {
        let settings = settings.clone();
        tokio::spawn(async move { opened(&settings).await })
    };
    let waiting = format!("select count(*) from pg_locks where relation = '{table}'::regclass and not granted");
    while server().psql(&waiting).unwrap().trim() == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Behind the migration, which waits for the holder, who does not end before this.
    writer.batch_execute("set statement_timeout = '30s'").await.unwrap();
    writer.batch_execute(&rows("201, 204")).await.unwrap();
    holder.batch_execute("commit").await.unwrap();
    let storage = opening.await.unwrap();
    let counted = [(LeaseKind::Secret, LeaseState::Active, 153), (LeaseKind::Secret, LeaseState::Revoking, 51)];
    assert_eq!(storage.count_leases().await.unwrap(), counted);
}

/// A store that stands still for a moment ends no copy that takes minutes, also where the restore itself keeps the beat from its lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stands_still_for_a_moment_ends_no_restore() {
    use leasehold_core::seams::store_copy::{Piece, Record, WholeStore};
    let server = DevPg::start(Options::default()).unwrap();
    let storage = Arc::new(PostgresStorage::open(settings_on(&server, "still")).await.unwrap());
    storage.commit(put("old")).await.unwrap();
    let (pieces, waiting) = tokio::sync::mpsc::channel(1);
    let restored = {
        let storage = storage.clone();
        tokio::spawn(async move { storage.replace(waiting).await })
    };
    let piece = |name: &str| Piece::Records(vec![Record::Value { key: key(name), value: b"x".to_vec() }]);
    pieces.send(piece("a")).await.unwrap();
    pieces.send(piece("b")).await.unwrap();
    server.pause().unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(storage.get(&key("old")).await.is_err(), "it counts as away");
    server.resume().unwrap();
    // Longer than a copy goes on without a word of the store.
    tokio::time::sleep(Duration::from_secs(7)).await;
    for piece in [piece("c"), Piece::End] {
        pieces.send(piece).await.unwrap();
    }
    restored.await.unwrap().unwrap();
    let begun = Instant::now();
    while storage.get(&key("c")).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(storage.get(&key("c")).await.unwrap().is_some() && storage.get(&key("old")).await.unwrap().is_none());
    storage.commit(put("again")).await.unwrap();
}
