//! Passwords of connections' own users that are changed. Whatever goes wrong, the store knows the one that works.

use std::sync::Arc;
use std::time::Duration;

use leasehold_builtin::secrets::database::DatabaseEngine;
use leasehold_core::seams::engine::SecretsEngine as _;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::testing::ManualClock;
use leasehold_model::{Operation, Timestamp};
use serde_json::{Value, json};

use crate::faults::{FaultyStore, Line, LineFault, STORE_FAULTS, StoreFault};
use crate::support::{Issued, World, log_in, shared_server};

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
        match self.write(path, body).await {
            Err(RequestError::Invalid(said) | RequestError::Engine(said)) => said,
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
    let hash = world.pg.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'rot_plain'").unwrap();
    assert!(hash.starts_with("SCRAM-SHA-256$4096:"), "{hash}");
    assert!(!world.pg.log().unwrap().contains(&first));
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
