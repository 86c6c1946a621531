//! Passwords of connections' own users that are changed. Whatever goes wrong, the store knows the one that works.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_builtin::secrets::database::DatabaseEngine;
use leasehold_core::seams::engine::{EngineContext, SecretsEngine as _};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::{MountBatch, MountStorage};
use leasehold_core::seams::storage::Expect;
use leasehold_core::testing::ManualClock;
use leasehold_devpg::Options;
use leasehold_model::{Operation, Timestamp};
use serde_json::{Value, json};

use crate::faults::{FaultyStore, Line, LineFault, STORE_FAULTS, StoreFault};
use crate::support::{Issued, World, log_in, own_server, shared_server};

pub const JOB: &str = "rotate-passwords";

/// A world whose clock can be moved.
pub struct Rotating {
    pub world: World,
    pub clock: Arc<ManualClock>,
}

impl std::ops::Deref for Rotating {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Rotating {
    pub async fn new() -> Self {
        let world = World::on(shared_server());
        let now = world.context.clock.now().as_secs();
        let mut rotating = Self { world, clock: Arc::new(ManualClock::at(now)) };
        rotating.world.context.clock = rotating.clock.clone();
        rotating.connect("pg", json!({})).await;
        rotating
    }

    /// With a connection whose own user is `user`.
    pub async fn with_admin(user: &str, more: Value) -> Self {
        let rotating = Self::new().await;
        rotating.make(user, "LOGIN CREATEROLE PASSWORD 'first-password'");
        let mut body = json!({ "username": user, "password": "first-password" });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        rotating.connect("rot", body).await;
        rotating
    }

    pub fn make(&self, user: &str, how: &str) {
        self.pg.psql(&format!("DROP ROLE IF EXISTS \"{user}\"; CREATE ROLE \"{user}\" {how}")).unwrap();
    }

    /// The same on a server of its own, which lets these users in without asking for a password.
    pub async fn trusting(users: &[&str], more: Options) -> Self {
        let world = World::on(Arc::new(own_server(more)));
        let file = world.pg.psql("SHOW hba_file").unwrap();
        let trusted: String = users.iter().map(|user| format!("host all {user} all trust\n")).collect();
        let rules = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, trusted + &rules).unwrap();
        world.pg.psql("SELECT pg_reload_conf()").unwrap();
        let now = world.context.clock.now().as_secs();
        let mut rotating = Self { world, clock: Arc::new(ManualClock::at(now)) };
        rotating.world.context.clock = rotating.clock.clone();
        rotating.connect("pg", json!({})).await;
        rotating
    }

    /// A store for another server, with a fault at one write.
    pub fn faulty(&self, fault: StoreFault, write: i64) -> (Arc<FaultyStore>, EngineContext) {
        let store = FaultyStore::new(Arc::clone(&self.store), fault, write);
        let mut at = self.context.clone();
        at.storage = MountStorage::new(store.clone(), at.mount.accessor.clone());
        (store, at)
    }

    /// A server begins a change and is killed before PostgreSQL hears of it.
    pub async fn leave_pending(&self, path: &str) {
        let (store, at) = self.faulty(StoreFault::KilledAfter, 1);
        assert!(store.until_killed(self.handle_on(&DatabaseEngine::new(), &at, path)).await.is_none());
    }

    /// What PostgreSQL has instead of the password.
    pub fn verifier(&self, user: &str) -> String {
        self.pg.psql(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'")).unwrap()
    }

    /// Long enough for any change that was begun to be over.
    pub fn pass(&self) {
        self.clock.advance(Duration::from_secs(31));
    }

    pub async fn takes(&self, user: &str, password: &str) -> bool {
        log_in(&self.pg, user, password, self.pg.database()).await.is_ok()
    }

    pub async fn stored(&self, key: &str) -> Value {
        let stored = self.context.storage.get(key).await.unwrap().unwrap();
        serde_json::from_slice(&stored.value).unwrap()
    }

    pub async fn job(&self) -> Option<Timestamp> {
        self.engine.run_job(&self.context, JOB).await.unwrap()
    }

    pub async fn queue(&self) -> Vec<String> {
        self.context.storage.list("due/", None, 1_000).await.unwrap()
    }

    /// The stored password is the one that PostgreSQL takes, and there is no doubt about it.
    pub async fn is_settled(&self, key: &str, user: &str) -> String {
        let stored = self.stored(key).await;
        assert!(stored["rotation"]["pending"].is_null(), "{stored}");
        assert_eq!(stored["rotation"]["doubtful"], json!([]), "{stored}");
        assert_eq!(stored["rotation"]["unlikely"], json!([]), "{stored}");
        let password = stored["password"].as_str().unwrap().to_owned();
        assert!(self.takes(user, &password).await, "{user} is locked out: {stored}");
        password
    }

    pub async fn creds(&self, name: &str) -> Value {
        self.read(&format!("static-creds/{name}")).await.unwrap()
    }

    /// Refused with this text.
    pub async fn refused(&self, path: &str, body: Value) -> String {
        let shown = body.to_string();
        let error = self.write(path, body).await.expect_err(&shown);
        match error.bare() {
            RequestError::Invalid(said) | RequestError::InvalidMulti(said) | RequestError::Engine(said) => said.clone(),
            other => panic!("{path} {shown}: {other:?}"),
        }
    }
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn rotate_root_changes_the_password_and_every_server_goes_on() {
    let world = Rotating::with_admin("rot_plain", json!({})).await;
    world.role("r", crate::support::MEMBER.replace("IN ROLE readonly", "").trim(), json!({ "db_name": "rot" })).await;
    let before: Issued = world.issue("r").await;
    // Another server over the same store has a pool of its own.
    let other = DatabaseEngine::new();
    other.run_job(&world.context, JOB).await.unwrap();
    let answer = world.write("rotate-root/rot", json!({})).await.unwrap();
    assert!(answer.data.is_none() && answer.warnings.is_empty());
    let first = world.is_settled("connection/rot", "rot_plain").await;
    assert!(!world.takes("rot_plain", "first-password").await, "the first password still works");
    world.revoke(&before).await.unwrap();
    world.write("rotate-root/rot", json!({})).await.unwrap();
    assert_ne!(world.is_settled("connection/rot", "rot_plain").await, first);
    drop(world.issue("r").await);
    let intent = world.intent("r", &world.plan("r").await.unwrap());
    other.effect(&world.context, &intent).await.unwrap();
    other.revoke(&world.context, &intent).await.unwrap();
    let shown = world.read("config/rot").await.unwrap();
    assert!(!shown.to_string().contains(&first) && !shown["last_vault_rotation"].is_null(), "{shown}");
    // PostgreSQL has a verifier, and its log has no password.
    let hash = world.verifier("rot_plain");
    assert!(hash.starts_with("SCRAM-SHA-256$4096:"), "{hash}");
    assert_eq!(world.queue().await, Vec::<String>::new(), "nothing is due where there is no schedule");
}

#[tokio::test]
async fn rotate_root_is_refused_where_the_password_is_not_a_field_of_its_own() {
    let world = Rotating::with_admin("rot_refused", json!({})).await;
    let url = world.pg.templated_url();
    let inline = url.replace("{{username}}", "rot_refused").replace("{{password}}", "first-password");
    for (name, body, why) in [
        ("inline", json!({"connection_url": inline, "username": "", "password": ""}), "no username in configuration"),
        (
            "nopw",
            json!({"username": "rot_refused", "password": "", "verify_connection": false}),
            "no password in configuration",
        ),
        (
            "unused",
            json!({"connection_url": inline, "username": "rot_refused", "password": "first-password"}),
            "connection_url does not use {{username}}: write it there instead of the value",
        ),
    ] {
        world.connect(name, body).await;
        let said = world.refused(&format!("rotate-root/{name}"), json!({})).await;
        assert_eq!(said, format!("unable to rotate root credentials: {why}"));
        let said = world
            .refused(
                &format!("config/{name}"),
                json!({"plugin_name": "postgresql-database-plugin", "rotation_period": "1h"}),
            )
            .await;
        assert!(said.ends_with(why), "{said}");
    }
    let said = world.refused("rotate-root/nope", json!({})).await;
    assert_eq!(said, "failed to find entry for connection with name: \"nope\"");
    assert!(world.takes("rot_refused", "first-password").await);
}

#[tokio::test]
async fn statements_of_the_operator_set_the_password_or_the_old_one_stays() {
    let world = Rotating::with_admin("rot_custom", json!({
        "root_rotation_statements": ["ALTER ROLE \"{{username}}\" PASSWORD '{{password}}'", "COMMENT ON ROLE \"{{name}}\" IS 'turned'"],
    }))
    .await;
    world.write("rotate-root/rot", json!({})).await.unwrap();
    let first = world.is_settled("connection/rot", "rot_custom").await;
    let comment = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'rot_custom'";
    assert_eq!(world.pg.psql(comment).unwrap(), "turned");
    for (statements, why) in [
        (
            json!(["SELECT 1; NONSENSE '{{password}}'"]),
            "syntax error at or near \"NONSENSE\" (SQLSTATE 42601): rotation statement 2 of 2",
        ),
        (json!(["SELECT 1"]), "the statements ran, but the database takes the former password and not the new one"),
        (json!(["ALTER ROLE rot_custom PASSWORD 'fixed'; COMMIT"]), "must not begin, end or prepare a transaction"),
        (json!(["ALTER ROLE \"{{password}}\" NOLOGIN"]), "failed to render rotation statements"),
        // Kept as plain text, in which it means nothing.
        (json!(["ALTER ROLE {{#if}}"]), "syntax error at or near \"{\" (SQLSTATE 42601): rotation statement 1 of 1"),
    ] {
        let body = json!({"plugin_name": "postgresql-database-plugin", "root_rotation_statements": statements});
        world.write("config/rot", body).await.unwrap();
        // They are rendered as they were judged when somebody wrote them.
        assert!(!world.stored("connection/rot").await["root_rotation_dialect"].is_null());
        let said = world.refused("rotate-root/rot", json!({})).await;
        assert!(said.contains(why), "{statements}: {said}");
        assert!(world.takes("rot_custom", &first).await, "{statements}");
        let stored = world.stored("connection/rot").await;
        assert!(stored["rotation"]["pending"].is_null() && stored["password"] == first.as_str(), "{stored}");
        world.write("reset/rot", json!({})).await.unwrap();
    }
    let body = json!({"plugin_name": "postgresql-database-plugin", "root_rotation_statements": []});
    world.write("config/rot", body).await.unwrap();
    world.write("rotate-root/rot", json!({})).await.unwrap();
    world.is_settled("connection/rot", "rot_custom").await;
}

/// What must hold after any fault: the connection works at once, on another server too, and is settled when the change can no longer
/// happen.
async fn is_made_good(world: &Rotating, user: &str, what: &str) {
    let stored = world.stored("connection/rot").await;
    let mut known: Vec<&str> = vec![text(&stored["password"])];
    known.extend(stored["rotation"]["pending"]["password"].as_str());
    known.extend(stored["rotation"]["doubtful"].as_array().unwrap().iter().map(text));
    known.extend(stored["rotation"]["unlikely"].as_array().unwrap().iter().map(text));
    let mut works = 0;
    for password in &known {
        works += usize::from(world.takes(user, password).await);
    }
    assert_eq!(works, 1, "{what}: no stored password works: {stored}");
    let other = DatabaseEngine::new();
    let named = leasehold_core::seams::engine::KnownTarget {
        connection: String::new(),
        name: "rot".to_owned(),
        drops_orphans: false,
    };
    other.owned_roles(&world.context, &named).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    // The first settles what is open by itself; nobody asks for it.
    world.pass();
    other.run_job(&world.context, JOB).await.unwrap();
    let stored = world.stored("connection/rot").await;
    assert!(stored["rotation"]["pending"].is_null(), "{what}: {stored}");
    let password = text(&stored["password"]);
    assert!(world.takes(user, password).await, "{what}: settled on one that does not work: {stored}");
    world.write("rotate-root/rot", json!({})).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    world.is_settled("connection/rot", user).await;
}

/// vault#6042: the store was away during a rotation, and nobody could log in any more.
#[tokio::test]
async fn a_fault_at_any_write_of_the_store_locks_nobody_out() {
    let world = Rotating::with_admin("rot_store", json!({})).await;
    for fault in STORE_FAULTS {
        for write in 1.. {
            let store = FaultyStore::new(Arc::clone(&world.store), fault, write);
            let mut at = world.context.clone();
            at.storage = MountStorage::new(store.clone(), at.mount.accessor.clone());
            let engine = DatabaseEngine::new();
            let done = store.until_killed(world.handle_on(&engine, &at, "rotate-root/rot")).await;
            if !store.was_hit() {
                assert!(done.unwrap().is_ok());
                assert_eq!(write, 3, "a rotation writes twice");
                break;
            }
            let is_kill = matches!(fault, StoreFault::KilledBefore | StoreFault::KilledAfter);
            assert_eq!(done.is_none(), is_kill);
            is_made_good(&world, "rot_store", &format!("{fault:?} at write {write}")).await;
        }
    }
}

#[tokio::test]
async fn a_line_that_breaks_at_any_message_locks_nobody_out() {
    for fault in [LineFault::NotSent, LineFault::NotAnswered] {
        let world = Rotating::with_admin("rot_line", json!({})).await;
        let line = Line::to((world.pg.host().to_owned(), world.pg.port()), fault).await;
        let url = world.pg.templated_url().replace(&format!(":{}/", world.pg.port()), &format!(":{}/", line.port));
        world
            .connect("rot", json!({"connection_url": url, "username": "rot_line", "password": "first-password"}))
            .await;
        for message in 1.. {
            let engine = DatabaseEngine::new();
            line.break_at(message);
            let done = world.handle_on(&engine, &world.context, "rotate-root/rot").await;
            if !line.was_hit() {
                done.unwrap();
                assert!(message > 6, "only {message} messages were seen");
                break;
            }
            is_made_good(&world, "rot_line", &format!("{fault:?} at message {message}")).await;
        }
    }
}

#[tokio::test]
async fn rotations_of_one_connection_on_two_servers_take_turns() {
    let world = Rotating::with_admin("rot_turns", json!({})).await;
    let engines: Vec<DatabaseEngine> = (0..4).map(|_| DatabaseEngine::new()).collect();
    let rotations = engines.iter().map(|engine| world.handle_on(engine, &world.context, "rotate-root/rot"));
    for done in futures_util::future::join_all(rotations).await {
        done.unwrap();
    }
    world.is_settled("connection/rot", "rot_turns").await;
}

#[tokio::test]
async fn the_own_user_changes_by_schedule_once_and_after_a_pause_once() {
    let body = json!({"rotation_period": "1h"});
    let world = Rotating::with_admin("rot_period", body).await;
    assert_eq!(world.queue().await.len(), 1);
    let next = world.job().await.unwrap();
    assert!(world.takes("rot_period", "first-password").await, "it is not due yet");
    // Whatever is due when: what a killed server leaves behind must not wait for that.
    assert_eq!(next, world.clock_now() + Duration::from_secs(60));
    world.clock.advance(Duration::from_secs(3_600));
    let (one, two) = (DatabaseEngine::new(), DatabaseEngine::new());
    let (first, second) = tokio::join!(one.run_job(&world.context, JOB), two.run_job(&world.context, JOB));
    first.unwrap();
    second.unwrap();
    let changed = world.is_settled("connection/rot", "rot_period").await;
    assert_ne!(changed, "first-password");
    world.job().await;
    assert_eq!(world.is_settled("connection/rot", "rot_period").await, changed, "once");
    world.clock.advance(Duration::from_secs(10 * 3_600));
    world.job().await;
    let again = world.is_settled("connection/rot", "rot_period").await;
    world.job().await;
    assert_eq!(world.is_settled("connection/rot", "rot_period").await, again, "missed ones happen once");
    let plugin = "postgresql-database-plugin";
    world.write("config/rot", json!({"plugin_name": plugin, "disable_automated_rotation": true})).await.unwrap();
    assert_eq!(world.queue().await, Vec::<String>::new());
    world.write("config/rot", json!({"plugin_name": plugin, "disable_automated_rotation": false})).await.unwrap();
    assert_eq!(world.queue().await.len(), 1);
    let shown = world.read("config/rot").await.unwrap();
    assert_eq!(shown["rotation_period"], 3_600);
    let cron = json!({"plugin_name": plugin, "rotation_schedule": "0 0 * * SAT", "rotation_window": "2h"});
    world.write("config/rot", cron).await.unwrap();
    let shown = world.read("config/rot").await.unwrap();
    assert!(shown["rotation_period"].is_null() && shown["rotation_schedule"] == "0 0 * * SAT", "{shown}");
    assert_eq!((&shown["rotation_window"], world.queue().await.len()), (&json!(7_200), 1));
    world.answer(Operation::Delete, "config/rot", json!({})).await.unwrap();
    assert_eq!(world.queue().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_write_that_replaces_a_rotated_password_does_not_lose_it() {
    let world = Rotating::with_admin("rot_written", json!({})).await;
    world.write("rotate-root/rot", json!({})).await.unwrap();
    let rotated = world.is_settled("connection/rot", "rot_written").await;
    let plugin = "postgresql-database-plugin";
    // As Terraform does that knows the first password only.
    let said = world.refused("config/rot", json!({"plugin_name": plugin, "password": "first-password"})).await;
    assert!(said.contains("password authentication failed"), "{said}");
    world.is_settled("connection/rot", "rot_written").await;
    let unseen = json!({"plugin_name": plugin, "password": "first-password", "verify_connection": false});
    let answer = world.write("config/rot", unseen).await.unwrap();
    assert!(
        answer.warnings.iter().any(|told| told.contains("had been changed by rotate-root")),
        "{:?}",
        answer.warnings
    );
    world.write("reset/rot", json!({})).await.unwrap();
    world.write("rotate-root/rot", json!({})).await.unwrap();
    assert_ne!(world.is_settled("connection/rot", "rot_written").await, rotated);
    // Somebody sets it in PostgreSQL and says so: that is what counts, alone.
    world.pg.psql("ALTER ROLE rot_written PASSWORD 'set-by-hand'").unwrap();
    world.write("config/rot", json!({"plugin_name": plugin, "password": "set-by-hand"})).await.unwrap();
    assert_eq!(world.is_settled("connection/rot", "rot_written").await, "set-by-hand");
}

pub const PLUGIN: &str = "postgresql-database-plugin";

/// The server of [`shared_server`] logs no statements, so that its log proves nothing.
#[tokio::test]
async fn postgresqls_log_sees_no_password_of_a_rotation() {
    let world = Rotating::trusting(&[], Options { log_statements: true, ..Options::default() }).await;
    world.make("rot_logged", "LOGIN CREATEROLE PASSWORD 'first-password'");
    world.make("static_logged", "LOGIN");
    world.connect("rot", json!({"username": "rot_logged", "password": "first-password"})).await;
    world.write("rotate-root/rot", json!({})).await.unwrap();
    let root = world.is_settled("connection/rot", "rot_logged").await;
    let body = json!({"db_name": "pg", "username": "static_logged", "rotation_period": "1h"});
    world.write("static-roles/logged", body).await.unwrap();
    let creds = world.creds("logged").await;
    let log = world.pg.log().unwrap();
    assert!(log.contains("ALTER ROLE \"rot_logged\"") && log.contains("ALTER ROLE \"static_logged\""), "{log}");
    assert!(!log.contains(&root) && !log.contains(text(&creds["password"])));
}

/// The moment at which a change was to be settled stayed when that change was forgotten. The job took it for a change that was due, and
/// gave another admin a new password that nobody had asked for.
#[tokio::test]
async fn an_admin_that_a_connection_moves_to_is_not_rotated_unasked() {
    for (more, is_paused) in
        [(json!({}), false), (json!({"rotation_period": "1h", "disable_automated_rotation": true}), true)]
    {
        let world = Rotating::with_admin("rot_left", more).await;
        world.make("rot_standby", "LOGIN CREATEROLE PASSWORD 'standby-password'");
        world.leave_pending("rotate-root/rot").await;
        assert_eq!(world.queue().await.len(), 1);
        world.has_sudo.store(true, Ordering::Relaxed);
        let url = world.pg.templated_url().replace("127.0.0.1", "localhost");
        let elsewhere = json!({
            "plugin_name": PLUGIN, "connection_url": url, "username": "rot_standby", "password": "standby-password",
        });
        // What is under way may still arrive: it would be forgotten.
        let done = world.write("config/rot", elsewhere.clone()).await;
        assert!(matches!(done, Err(RequestError::Unavailable(_))), "{done:?}");
        let done = world.answer(Operation::Delete, "config/rot", json!({})).await;
        assert!(matches!(done, Err(RequestError::Unavailable(_))), "{done:?}");
        world.pass();
        world.write("config/rot", elsewhere).await.unwrap();
        assert_eq!(world.queue().await, Vec::<String>::new(), "paused: {is_paused}");
        world.clock.advance(Duration::from_secs(10 * 3_600));
        world.job().await;
        assert!(world.takes("rot_standby", "standby-password").await, "paused: {is_paused}");
    }
}

/// The recovery that the documents name: the password that somebody has just set was replaced by the job.
#[tokio::test]
async fn a_password_that_is_written_after_a_lost_change_is_not_replaced_unasked() {
    let world = Rotating::with_admin("rot_recovered", json!({})).await;
    world.leave_pending("rotate-root/rot").await;
    world.pass();
    world.pg.psql("ALTER ROLE rot_recovered PASSWORD 'set-by-hand'").unwrap();
    world.write("config/rot", json!({"plugin_name": PLUGIN, "password": "set-by-hand"})).await.unwrap();
    assert_eq!(world.queue().await, Vec::<String>::new());
    world.clock.advance(Duration::from_secs(3_600));
    world.job().await;
    assert_eq!(world.is_settled("connection/rot", "rot_recovered").await, "set-by-hand");
}

/// A key that an older version left behind, or a clock that jumped, changes nothing that has no schedule.
#[tokio::test]
async fn what_has_no_schedule_is_not_changed_by_the_job_whatever_is_due() {
    let world = Rotating::with_admin("rot_stray", json!({})).await;
    let mut stored = world.stored("connection/rot").await;
    let due = world.clock_now();
    stored["rotation"]["due_at"] = serde_json::to_value(due).unwrap();
    let key = format!("due/{:020}/root/rot", due.as_nanos());
    let put = |name: &str, value: Vec<u8>| MountBatch::new().put(name, value, Expect::Anything);
    world.context.storage.commit(put("connection/rot", serde_json::to_vec(&stored).unwrap())).await.unwrap();
    world.context.storage.commit(put(&key, Vec::new())).await.unwrap();
    world.job().await;
    assert_eq!(world.queue().await, Vec::<String>::new());
    assert!(world.takes("rot_stray", "first-password").await);
}

/// While a change waited, its connection was led elsewhere: the user of that name there got the new password, which nobody knew then.
#[tokio::test]
async fn a_change_that_was_stored_for_one_place_is_not_carried_out_at_another() {
    let world = Rotating::with_admin("rot_waits", json!({})).await;
    let (store, at) = world.faulty(StoreFault::StopsAfter, 1);
    let engine = DatabaseEngine::new();
    let url = world.pg.templated_url().replace("127.0.0.1", "localhost");
    let elsewhere = json!({
        "plugin_name": PLUGIN, "connection_url": url, "username": "rot_waits", "password": "first-password",
    });
    let (done, ()) = tokio::join!(
        world.handle_on(&engine, &at, "rotate-root/rot"),
        store.meanwhile(async {
            // The server stood still for longer than its change may take.
            world.pass();
            world.write("config/rot", elsewhere).await.unwrap();
        })
    );
    match done {
        Err(RequestError::Engine(said)) => assert!(said.contains("configured anew"), "{said}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.is_settled("connection/rot", "rot_waits").await, "first-password");
}

/// A rotated password was replaced by one that nobody tried, and then by a change whose statements did nothing: it is the one that works.
#[tokio::test]
async fn statements_that_set_nothing_lose_no_password_of_an_earlier_change() {
    let world = Rotating::with_admin("rot_nothing", json!({})).await;
    world.write("rotate-root/rot", json!({})).await.unwrap();
    let rotated = world.is_settled("connection/rot", "rot_nothing").await;
    for guess in ["first-password", "guess 2", "guess 3", "guess 4", "guess 5"] {
        let unseen = json!({"plugin_name": PLUGIN, "password": guess, "verify_connection": false});
        world.write("config/rot", unseen).await.unwrap();
    }
    let nothing = json!({"plugin_name": PLUGIN, "root_rotation_statements": ["SELECT 1"]});
    world.write("config/rot", nothing).await.unwrap();
    for _ in 0..3 {
        let said = world.refused("rotate-root/rot", json!({})).await;
        assert!(said.contains("the statements ran, but the database takes the former password"), "{said}");
        assert_eq!(world.stored("connection/rot").await["password"], rotated.as_str());
    }
    world.write("reset/rot", json!({})).await.unwrap();
    let ours = json!({"plugin_name": PLUGIN, "root_rotation_statements": []});
    world.write("config/rot", ours).await.unwrap();
    world.write("rotate-root/rot", json!({})).await.unwrap();
    world.is_settled("connection/rot", "rot_nothing").await;
}

/// Where `trust` lets in whoever comes, a login took each password for the right one: the one that the user has was forgotten, and found
/// missing when the rules of the server changed.
#[tokio::test]
async fn a_server_that_asks_for_no_password_proves_none() {
    let world = Rotating::trusting(&["rot_trusted", "static_trusted"], Options::default()).await;
    world.make("rot_trusted", "LOGIN CREATEROLE PASSWORD 'first-password'");
    world.connect("rot", json!({"username": "rot_trusted", "password": "first-password"})).await;
    world.write("rotate-root/rot", json!({})).await.unwrap();
    let stored = world.stored("connection/rot").await;
    let rotated = text(&stored["password"]).to_owned();
    assert!(stored["rotation"]["doubtful"].as_array().unwrap().is_empty(), "our own statement is believed: {stored}");
    let answer = world.write("config/rot", json!({"plugin_name": PLUGIN, "password": "first-password"})).await.unwrap();
    assert!(answer.warnings.iter().any(|told| told.contains("without asking for the password")), "{answer:?}");
    let kept = |stored: &Value| stored["rotation"]["doubtful"].to_string().contains(&rotated);
    assert!(kept(&world.stored("connection/rot").await), "the rotated password is lost");
    let nothing = json!({"plugin_name": PLUGIN, "root_rotation_statements": ["SELECT 1"]});
    world.write("config/rot", nothing).await.unwrap();
    world.write("rotate-root/rot", json!({})).await.unwrap();
    assert!(kept(&world.stored("connection/rot").await), "the rotated password is lost");

    world.make("static_trusted", "LOGIN");
    let body = json!({"db_name": "pg", "username": "static_trusted", "rotation_period": "1h"});
    world.write("static-roles/trusted", body).await.unwrap();
    let creds = world.creds("trusted").await;
    let answer = world.write("static-roles/trusted", json!({"password": "their-password"})).await.unwrap();
    assert!(answer.warnings[0].contains("lets this user in without asking"), "{answer:?}");
    assert_eq!(world.creds("trusted").await["password"], creds["password"]);
    // A change that was cut off is not settled by a login that proves nothing: its password is set once more.
    world.leave_pending("rotate-role/trusted").await;
    let pending = world.stored("static-role/trusted").await["rotation"]["pending"]["password"].clone();
    let before = world.verifier("static_trusted");
    world.pass();
    world.job().await;
    assert_eq!(world.creds("trusted").await["password"], pending);
    assert_ne!(world.verifier("static_trusted"), before);
}

/// The password that only this server knew went without a word when its connection moved.
#[tokio::test]
async fn a_move_tells_that_a_rotated_password_is_left_behind() {
    let world = Rotating::with_admin("rot_behind", json!({})).await;
    world.make("rot_ahead", "LOGIN CREATEROLE PASSWORD 'other-password'");
    world.write("rotate-root/rot", json!({})).await.unwrap();
    world.has_sudo.store(true, Ordering::Relaxed);
    let url = world.pg.templated_url().replace("127.0.0.1", "localhost");
    let elsewhere = json!({
        "plugin_name": PLUGIN, "connection_url": url, "username": "rot_ahead", "password": "other-password",
    });
    let answer = world.write("config/rot", elsewhere).await.unwrap();
    assert!(answer.warnings.iter().any(|told| told.contains("it is forgotten")), "{answer:?}");
    assert_eq!(world.is_settled("connection/rot", "rot_ahead").await, "other-password");
}
