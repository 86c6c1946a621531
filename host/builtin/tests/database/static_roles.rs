//! Static roles: PostgreSQL roles that stand already, whose passwords change here. Whatever goes wrong, a reader gets the one that works.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_builtin::secrets::database::DatabaseEngine;
use leasehold_core::seams::engine::SecretsEngine as _;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::{MountBatch, MountStorage};
use leasehold_core::seams::storage::Expect;
use leasehold_model::Operation;
use serde_json::{Value, json};

use crate::faults::{FaultyStore, Line, LineFault, STORE_FAULTS, StoreFault};
use crate::rotation::{JOB, PLUGIN, Rotating, text};

#[tokio::test]
async fn a_static_role_has_a_password_that_works_and_changes() {
    let world = Rotating::new().await;
    world.make("static_one", "LOGIN");
    let body = json!({"db_name": "pg", "username": "static_one", "rotation_period": "1h"});
    assert!(world.write("static-roles/app", body.clone()).await.unwrap().data.is_none());
    let creds = world.creds("app").await;
    let keys: Vec<&String> = creds.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["last_vault_rotation", "password", "rotation_period", "ttl", "username"]);
    assert_eq!((text(&creds["username"]), &creds["rotation_period"]), ("static_one", &json!(3_600)));
    assert!((3_200..=3_600).contains(&creds["ttl"].as_u64().unwrap()), "{creds}");
    assert!(world.takes("static_one", text(&creds["password"])).await);
    let shown = world.read("static-roles/app").await.unwrap();
    let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["credential_type", "db_name", "last_vault_rotation", "rotation_period", "rotation_statements", "username"]
    );
    world.write("rotate-role/app", json!({})).await.unwrap();
    let next = world.creds("app").await;
    assert_ne!(next["password"], creds["password"]);
    assert!(!world.takes("static_one", text(&creds["password"])).await);
    assert!(world.takes("static_one", text(&next["password"])).await);
    // The same write again, as Terraform does it, and one of a part, change no password.
    world.write("static-roles/app", body).await.unwrap();
    world.write("static-roles/app", json!({"rotation_period": "2h"})).await.unwrap();
    let later = world.creds("app").await;
    assert_eq!((&later["password"], &later["rotation_period"]), (&next["password"], &json!(7_200)));
    assert_eq!(world.queue().await.len(), 1);
    world.write("static-roles/app", json!({"rotation_schedule": "0 3 * * *"})).await.unwrap();
    let later = world.creds("app").await;
    assert_eq!((text(&later["rotation_schedule"]), &later["rotation_window"]), ("0 3 * * *", &json!(0)));
    assert!(later["rotation_period"].is_null());
    let listed = world.answer(Operation::List, "static-roles/", json!({})).await.unwrap();
    assert_eq!(Value::Object(listed.data.unwrap()), json!({"keys": ["app"]}));
    for _ in 0..2 {
        world.answer(Operation::Delete, "static-roles/app", json!({})).await.unwrap();
    }
    assert!(world.role_exists("static_one") && world.takes("static_one", text(&next["password"])).await);
    assert_eq!(world.queue().await, Vec::<String>::new());
    assert!(matches!(world.read("static-roles/app").await, Err(RequestError::NotFound)));
    match world.read("static-creds/app").await {
        Err(RequestError::Invalid(said)) => assert_eq!(said, "unknown role: app"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.refused("rotate-role/app", json!({})).await, "no static role found for role name");
    // Its user is free again.
    world
        .write("static-roles/again", json!({"db_name": "pg", "username": "static_one", "rotation_period": 60}))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_static_role_that_cannot_be_is_refused_and_changes_nothing() {
    let world = Rotating::new().await;
    world.make("static_two", "LOGIN PASSWORD 'kept-password'");
    world.role("dyn", crate::support::MEMBER.replace("IN ROLE readonly", "").trim(), json!({})).await;
    let leased = world.issue("dyn").await;
    world.connect("narrow", json!({"allowed_roles": "other"})).await;
    let good = json!({"db_name": "pg", "username": "static_two", "rotation_period": 60});
    for (name, change, why) in [
        ("s", json!({"db_name": null}), "database name is a required field"),
        ("s", json!({"username": null}), "username is a required field to create a static account"),
        ("s", json!({"rotation_period": null}), "rotation_period is required to create static accounts"),
        ("s", json!({"rotation_period": 4}), "rotation_period must be 5 seconds or more"),
        ("s", json!({"rotation_schedule": "0 0 * * *"}), "mutually exclusive fields"),
        ("s", json!({"rotation_period": null, "rotation_schedule": "nonsense"}), "could not parse rotation_schedule"),
        ("s", json!({"credential_type": "foo"}), "invalid credential_type \"foo\""),
        ("s", json!({"credential_type": "rsa_private_key"}), "unsupported credential_type: \"rsa_private_key\""),
        (
            "s",
            json!({"credential_config": {"password_policy": "p"}}),
            "failed to generate password: no password policy found",
        ),
        ("s", json!({"db_name": "nodb"}), "failed to find entry for connection with name: \"nodb\""),
        ("s", json!({"db_name": "narrow"}), "\"s\" is not an allowed role"),
        (
            "s",
            json!({"username": "no_such_user"}),
            "error setting credentials: failed to execute query: ERROR: role \"no_such_user\" does not exist (SQLSTATE 42704)",
        ),
        (
            "s",
            json!({"username": world.pg.admin_user()}),
            &format!("\"{}\" is the user of connection \"narrow\" itself", world.pg.admin_user()),
        ),
        ("s", json!({"username": leased.username}), &format!("\"{}\" was made for a lease", leased.username)),
        ("s", json!({"username": "x".repeat(64)}), "username is no name"),
        (
            "s",
            json!({"rotation_statements": ["NONSENSE"]}),
            "error setting credentials: failed to execute query: ERROR: syntax error",
        ),
        (
            "s",
            json!({"self_managed_password": "wrong"}),
            "the database does not take this password for user \"static_two\"",
        ),
        (
            "s",
            json!({"password": "a", "self_managed_password": "b"}),
            "password and self_managed_password say different things",
        ),
        ("dyn", json!({}), "Role and Static Role names must be unique"),
    ] {
        let mut body = good.clone();
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        let said = world.refused(&format!("static-roles/{name}"), body).await;
        assert!(said.starts_with(why), "{change}: {said}");
        assert!(matches!(world.read("static-roles/s").await, Err(RequestError::NotFound)), "{change}");
        assert_eq!(world.queue().await, Vec::<String>::new(), "{change}");
        assert!(world.takes("static_two", "kept-password").await, "{change}");
    }
    world.write("static-roles/s", good.clone()).await.unwrap();
    let said = world.refused("static-roles/t", good).await;
    assert!(said.starts_with("the password of user \"static_two\" is already changed by static role \"s\""), "{said}");
    assert_eq!(
        world.refused("static-roles/s", json!({"username": "other"})).await,
        "cannot update static account username"
    );
    assert!(
        world
            .refused("static-roles/s", json!({"db_name": "narrow"}))
            .await
            .starts_with("cannot update static account database")
    );
    let said = world.refused("roles/s", json!({"db_name": "pg", "creation_statements": "x"})).await;
    assert_eq!(said, "Role and Static Role names must be unique");
    world.revoke(&leased).await.unwrap();
}

#[tokio::test]
async fn a_password_that_stands_already_may_be_brought_along() {
    let world = Rotating::new().await;
    world.make("static_kept", "LOGIN PASSWORD 'their-password'");
    let body =
        json!({"db_name": "pg", "username": "static_kept", "rotation_period": "1h", "skip_import_rotation": true});
    world.write("static-roles/kept", body.clone()).await.unwrap();
    let said = match world.read("static-creds/kept").await {
        Err(RequestError::Invalid(said)) => said,
        other => panic!("{other:?}"),
    };
    assert!(said.starts_with("the password of static role \"kept\" is not known before its first rotation"), "{said}");
    let said = world.refused("static-roles/kept", json!({"password": "another-password"})).await;
    assert_eq!(said, "the database does not take this password for user \"static_kept\"");
    world.write("static-roles/kept", json!({"password": "their-password"})).await.unwrap();
    assert_eq!(world.creds("kept").await["password"], "their-password");
    let shown = world.read("static-roles/kept").await.unwrap();
    assert_eq!(
        (&shown["skip_import_rotation"], text(&shown["last_vault_rotation"])),
        (&json!(true), "0001-01-01T00:00:00Z")
    );
    assert!(!shown.to_string().contains("their-password"), "{shown}");
    world.clock.advance(Duration::from_secs(3_600));
    world.job().await;
    let creds = world.creds("kept").await;
    assert_ne!(creds["password"], "their-password");
    assert!(world.takes("static_kept", text(&creds["password"])).await);
    // The first password again, as Terraform sends it: it is known better here.
    let answer = world.write("static-roles/kept", json!({"password": "their-password"})).await.unwrap();
    assert!(answer.warnings[0].starts_with("the password of this write is not used: the database does not take it"));
    assert_eq!(world.creds("kept").await["password"], creds["password"]);
    let mut again = body;
    again["skip_import_rotation"] = json!(false);
    let said = world.refused("static-roles/kept", again).await;
    assert!(said.starts_with("skip_import_rotation can only be set when the static role is created"), "{said}");
}

#[tokio::test]
async fn a_role_that_manages_itself_needs_no_admin_who_may_change_it() {
    let world = Rotating::with_admin("rot_weak", json!({})).await;
    world.pg.psql("ALTER ROLE rot_weak NOCREATEROLE").unwrap();
    world.make("static_self", "LOGIN PASSWORD 'their-password'");
    let body = json!({"db_name": "rot", "username": "static_self", "rotation_period": "1h"});
    let said = world.refused("static-roles/own", body.clone()).await;
    assert!(said.contains("permission denied") || said.contains("must have"), "{said}");
    let mut own = body;
    own["self_managed_password"] = json!("their-password");
    world.write("static-roles/own", own).await.unwrap();
    for _ in 0..3 {
        world.write("rotate-role/own", json!({})).await.unwrap();
        let creds = world.creds("own").await;
        assert_ne!(creds["password"], "their-password");
        assert!(world.takes("static_self", text(&creds["password"])).await);
    }
}

#[tokio::test]
async fn what_is_due_changes_once_over_all_servers() {
    let world = Rotating::new().await;
    world.pg.psql("DROP TABLE IF EXISTS turned; CREATE TABLE turned (who text)").unwrap();
    world.pg.psql(&format!("GRANT INSERT ON turned TO \"{}\"", world.pg.admin_user())).unwrap();
    for role in 0..40 {
        let user = format!("static_many_{role}");
        world.make(&user, "LOGIN");
        let statements =
            json!(["ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'", "INSERT INTO turned VALUES ('{{name}}')"]);
        let body =
            json!({"db_name": "pg", "username": user, "rotation_period": "1h", "rotation_statements": statements});
        world.write(&format!("static-roles/many-{role}"), body).await.unwrap();
    }
    let count = || world.pg.psql("SELECT count(*) || '/' || count(DISTINCT who) FROM turned").unwrap();
    assert_eq!(count(), "40/40");
    assert!(world.job().await.unwrap() > world.clock_now());
    assert_eq!(count(), "40/40", "nothing is due");
    world.clock.advance(Duration::from_secs(5 * 3_600));
    let engines: Vec<DatabaseEngine> = (0..3).map(|_| DatabaseEngine::new()).collect();
    for done in futures_util::future::join_all(engines.iter().map(|one| one.run_job(&world.context, JOB))).await {
        done.unwrap();
    }
    assert_eq!(count(), "80/40");
    assert_eq!(world.queue().await.len(), 40);
    for role in 0..40 {
        let creds = world.creds(&format!("many-{role}")).await;
        assert!(world.takes(text(&creds["username"]), text(&creds["password"])).await, "{creds}");
    }
}

/// vault#7222 and vault#21857: a rotation that fails is tried again later and later, its TTL is never nothing, and it succeeds when it can.
#[tokio::test]
async fn a_rotation_that_fails_is_tried_again_and_tells_when() {
    let world = Rotating::new().await;
    world.make("static_lost", "LOGIN");
    world
        .write("static-roles/lost", json!({"db_name": "pg", "username": "static_lost", "rotation_period": 5}))
        .await
        .unwrap();
    let first = world.creds("lost").await;
    world.pg.psql("DROP ROLE static_lost").unwrap();
    let mut waits = Vec::new();
    for _ in 0..6 {
        let ttl = world.creds("lost").await["ttl"].as_u64().unwrap();
        assert!(ttl >= 1);
        waits.push(ttl);
        world.clock.advance(Duration::from_secs(ttl + 1));
        let next = world.job().await.unwrap();
        assert!(next > world.clock_now(), "the job must not spin");
    }
    assert!(waits[1..].is_sorted() && waits[5] >= 80, "{waits:?}");
    assert_eq!(world.creds("lost").await["password"], first["password"]);
    assert!(text(&world.stored("static-role/lost").await["rotation"]["failure"]).contains("does not exist"));
    world.make("static_lost", "LOGIN");
    world.clock.advance(Duration::from_secs(900));
    world.job().await;
    let creds = world.creds("lost").await;
    assert!(
        world.takes("static_lost", text(&creds["password"])).await && creds["ttl"].as_u64().unwrap() <= 5,
        "{creds}"
    );
}

/// Each role of a database that is away was tried in each run, and those of other databases waited for that.
#[tokio::test]
async fn what_is_due_on_a_server_that_is_down_waits_for_it_and_holds_up_no_other() {
    let world = Rotating::new().await;
    let line = Line::to((world.pg.host().to_owned(), world.pg.port()), LineFault::NotSent).await;
    let url = world.pg.templated_url().replace(&format!(":{}/", world.pg.port()), &format!(":{}/", line.port));
    // One connection is one try: it does not begin anew without TLS.
    world.connect("away", json!({"connection_url": format!("{url}?sslmode=disable")})).await;
    for role in 0..30 {
        let (user, connection) = (format!("static_away_{role}"), if role < 20 { "away" } else { "pg" });
        world.make(&user, "LOGIN");
        let body = json!({"db_name": connection, "username": user, "rotation_period": "1h"});
        world.write(&format!("static-roles/away-{role}"), body).await.unwrap();
    }
    let changed = async |role: usize| {
        let stored = world.stored(&format!("static-role/away-{role}")).await;
        stored["rotation"]["last_rotated_at"] == serde_json::to_value(world.clock_now()).unwrap()
    };
    line.set_down(true);
    line.tries();
    world.clock.advance(Duration::from_secs(3_600));
    // It has no session that is open.
    let engine = DatabaseEngine::new();
    let next = engine.run_job(&world.context, JOB).await.unwrap().unwrap();
    assert!(next >= world.clock_now() + Duration::from_secs(9), "{next:?}");
    let tries = line.tries();
    assert!((1..=8).contains(&tries), "{tries} connections for 20 roles");
    for role in 0..30 {
        assert_eq!(changed(role).await, role >= 20, "{role}");
    }
    line.set_down(false);
    world.clock.advance(Duration::from_secs(60));
    engine.run_job(&world.context, JOB).await.unwrap();
    for role in 0..20 {
        assert!(changed(role).await, "{role}");
        let creds = world.creds(&format!("away-{role}")).await;
        assert!(creds["ttl"].as_u64().unwrap() > 3_000, "{creds}");
        assert!(world.takes(text(&creds["username"]), text(&creds["password"])).await, "{creds}");
    }
}

/// All places of a run were taken by the first database, and each round waited for its slowest.
#[tokio::test]
async fn roles_of_a_slow_database_hold_up_no_other() {
    let world = Rotating::new().await;
    world.connect("slow", json!({})).await;
    for role in 0..20 {
        let user = format!("static_slow_{role}");
        world.make(&user, "LOGIN");
        let body = if role < 12 {
            let statements = json!(["ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'", "SELECT pg_sleep(60)"]);
            json!({"db_name": "slow", "username": user, "rotation_period": "1h", "rotation_statements": statements,
                   "skip_import_rotation": true})
        } else {
            // Due after all of the others.
            json!({"db_name": "pg", "username": user, "rotation_period": "2h", "skip_import_rotation": true})
        };
        world.write(&format!("static-roles/slow-{role}"), body).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(2 * 3_600));
    let run = tokio::time::timeout(Duration::from_secs(5), world.job()).await;
    assert!(run.is_err(), "nothing was slow");
    for role in 12..20 {
        let stored = world.stored(&format!("static-role/slow-{role}")).await;
        assert!(!stored["rotation"]["last_rotated_at"].is_null(), "{role}: {stored}");
    }
}

/// What is due again before a run is over kept it going for ever.
#[tokio::test]
async fn a_run_has_an_end_although_more_comes_due() {
    let world = Rotating::new().await;
    // Of so many, the first are due again before the last have changed.
    for role in 0..16 {
        let user = format!("static_endless_{role}");
        world.make(&user, "LOGIN");
        let statements = json!(["ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'", "SELECT pg_sleep(0.05)"]);
        let body = json!({"db_name": "pg", "username": user, "rotation_period": 5, "rotation_statements": statements});
        world.write(&format!("static-roles/endless-{role}"), body).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(5));
    let time_passes = async {
        loop {
            world.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = async {
        tokio::select! {
            next = world.job() => next,
            () = time_passes => None,
        }
    };
    let next = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the run never ends");
    assert!(next.unwrap() <= world.clock_now(), "what is left is done by the next run, at once");
}

/// Each reader of a role whose last change nobody saw the end of logged in to its database, twice.
#[tokio::test]
async fn many_readers_ask_the_database_once() {
    let world = Rotating::new().await;
    let line = Line::to((world.pg.host().to_owned(), world.pg.port()), LineFault::NotSent).await;
    let url = world.pg.templated_url().replace(&format!(":{}/", world.pg.port()), &format!(":{}/", line.port));
    world.connect("pg", json!({"connection_url": format!("{url}?sslmode=disable")})).await;
    world.make("static_read", "LOGIN");
    let body = json!({"db_name": "pg", "username": "static_read", "rotation_period": "1h"});
    world.write("static-roles/read", body).await.unwrap();
    let works = world.is_settled("static-role/read", "static_read").await;
    world.leave_pending("rotate-role/read").await;
    world.clock.advance(Duration::from_secs(3));
    line.tries();
    let reads = async |count: usize| {
        for creds in futures_util::future::join_all((0..count).map(|_| world.creds("read"))).await {
            assert_eq!(creds["password"], works.as_str());
        }
        line.tries()
    };
    assert_eq!(reads(50).await, 1);
    assert_eq!(reads(10).await, 0, "a moment later");
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(reads(10).await, 1);
}

/// A reader gets the password that works as soon as the server is back, not half a minute later.
async fn reads_what_works(world: &Rotating, user: &str, what: &str) {
    // It began a while ago.
    world.clock.advance(Duration::from_secs(3));
    let other = DatabaseEngine::new();
    let read = async || {
        let answer = world.read_on(&other, "static-creds/app").await.unwrap();
        let password = text(&answer["password"]).to_owned();
        assert!(world.takes(user, &password).await, "{what}: a reader gets {answer}");
        password
    };
    read().await;
    world.pass();
    other.run_job(&world.context, JOB).await.unwrap();
    read().await;
    world.pass();
    world.write("rotate-role/app", json!({})).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    read().await;
    world.is_settled("static-role/app", user).await;
    assert_eq!(world.queue().await.len(), 1, "{what}");
}

#[tokio::test]
async fn a_fault_at_any_write_leaves_a_static_role_with_a_known_password() {
    let world = Rotating::new().await;
    world.make("static_faults", "LOGIN");
    let body = json!({"db_name": "pg", "username": "static_faults", "rotation_period": "1h"});
    world.write("static-roles/app", body).await.unwrap();
    for fault in STORE_FAULTS {
        for write in 1.. {
            let store = FaultyStore::new(Arc::clone(&world.store), fault, write);
            let mut at = world.context.clone();
            at.storage = MountStorage::new(store.clone(), at.mount.accessor.clone());
            let engine = DatabaseEngine::new();
            let done = store.until_killed(world.handle_on(&engine, &at, "rotate-role/app")).await;
            if !store.was_hit() {
                assert!(done.unwrap().is_ok());
                assert_eq!(write, 3);
                break;
            }
            reads_what_works(&world, "static_faults", &format!("{fault:?} at write {write}")).await;
        }
    }
}

/// Of a role that an admin changes, and of one that changes its own password.
#[tokio::test]
async fn a_line_that_breaks_at_any_message_leaves_a_static_role_with_a_known_password() {
    for fault in [LineFault::NotSent, LineFault::NotAnswered] {
        for is_self_managed in [false, true] {
            let world = Rotating::new().await;
            world.make("static_line", "LOGIN PASSWORD 'their-password'");
            let line = Line::to((world.pg.host().to_owned(), world.pg.port()), fault).await;
            let url = world.pg.templated_url().replace(&format!(":{}/", world.pg.port()), &format!(":{}/", line.port));
            world.connect("pg", json!({"connection_url": url})).await;
            let mut body = json!({"db_name": "pg", "username": "static_line", "rotation_period": "1h"});
            if is_self_managed {
                body["self_managed_password"] = json!("their-password");
            }
            world.write("static-roles/app", body).await.unwrap();
            for message in 1.. {
                let engine = DatabaseEngine::new();
                line.break_at(message);
                let done = world.handle_on(&engine, &world.context, "rotate-role/app").await;
                if !line.was_hit() {
                    done.unwrap();
                    assert!(message > 4, "only {message} messages were seen");
                    break;
                }
                let what = format!("{fault:?} at message {message}, self-managed: {is_self_managed}");
                reads_what_works(&world, "static_line", &what).await;
            }
        }
    }
}

/// What must hold after a creation that did not come to its end: there is none, and the user is as it was, or there is one that works.
/// Returns whether there is one.
async fn is_born_whole(world: &Rotating, user: &str, what: &str) -> bool {
    world.pass();
    world.job().await;
    let stands = world.read("static-roles/born").await.is_ok();
    if stands {
        let creds = world.creds("born").await;
        assert!(world.takes(user, text(&creds["password"])).await, "{what}: {creds}");
    } else {
        assert!(world.takes(user, "kept-password").await, "{what}: nobody knows the password");
        assert_eq!(world.queue().await, Vec::<String>::new(), "{what}");
    }
    stands
}

/// The creation of a static role is a change like any other: a kill leaves none of which nobody knows the password. Nor does a store that
/// is away: the role was removed although PostgreSQL had taken its password.
#[tokio::test]
async fn a_fault_while_a_static_role_is_created_leaves_none_or_one_that_works() {
    for fault in STORE_FAULTS {
        for write in 1.. {
            let world = Rotating::new().await;
            world.make("static_born", "LOGIN PASSWORD 'kept-password'");
            let (store, at) = world.faulty(fault, write);
            let engine = DatabaseEngine::new();
            let body = json!({"db_name": "pg", "username": "static_born", "rotation_period": "1h"});
            let done = store.until_killed(world.send_on(&engine, &at, "static-roles/born", body)).await;
            if !store.was_hit() {
                assert!(done.unwrap().is_ok());
                assert_eq!(write, 4);
                break;
            }
            let what = format!("{fault:?} at write {write}");
            let stands = is_born_whole(&world, "static_born", &what).await;
            match (done, fault) {
                (None, _) => assert_eq!(stands, write > 1 || fault == StoreFault::KilledAfter, "{what}"),
                (Some(done), _) => {
                    assert!(done.is_err(), "{what}");
                    let is_nothing_done = fault == StoreFault::Refused && write < 3;
                    assert_eq!(stands, !is_nothing_done, "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_line_that_breaks_while_a_static_role_is_created_leaves_none_or_one_that_works() {
    for fault in [LineFault::NotSent, LineFault::NotAnswered] {
        for message in 1.. {
            let world = Rotating::new().await;
            world.make("static_wired", "LOGIN PASSWORD 'kept-password'");
            let line = Line::to((world.pg.host().to_owned(), world.pg.port()), fault).await;
            let url = world.pg.templated_url().replace(&format!(":{}/", world.pg.port()), &format!(":{}/", line.port));
            world.connect("pg", json!({"connection_url": url})).await;
            let body = json!({"db_name": "pg", "username": "static_wired", "rotation_period": "1h"});
            line.break_at(message);
            let done = world.write("static-roles/born", body).await;
            if !line.was_hit() {
                done.unwrap();
                assert!(message > 4, "only {message} messages were seen");
                break;
            }
            is_born_whole(&world, "static_wired", &format!("{fault:?} at message {message}")).await;
        }
    }
}

/// What Vault looks at when a password is read and changed, and not only when the role is written.
#[tokio::test]
async fn a_role_that_its_connection_no_longer_allows_has_no_password() {
    let world = Rotating::new().await;
    world.make("static_barred", "LOGIN");
    let body = json!({"db_name": "pg", "username": "static_barred", "rotation_period": "1h"});
    world.write("static-roles/barred", body).await.unwrap();
    let creds = world.creds("barred").await;
    let refused = |done: Result<Value, RequestError>| match done {
        Err(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    world.write("config/pg", json!({"plugin_name": PLUGIN, "allowed_roles": "other"})).await.unwrap();
    assert_eq!(refused(world.read("static-creds/barred").await), "\"barred\" is not an allowed role");
    assert_eq!(world.refused("rotate-role/barred", json!({})).await, "\"barred\" is not an allowed role");
    world.clock.advance(Duration::from_secs(3_600));
    world.job().await;
    assert!(world.takes("static_barred", text(&creds["password"])).await, "the job changed it");
    assert_eq!(world.stored("static-role/barred").await["rotation"]["failure"], "\"barred\" is not an allowed role");
    world.answer(Operation::Delete, "config/pg", json!({"force": true})).await.unwrap();
    assert!(refused(world.read("static-creds/barred").await).starts_with("failed to find entry for connection"));
}

/// The next change of the static role would lock the connection out.
#[tokio::test]
async fn no_connection_has_the_user_of_a_static_role() {
    let world = Rotating::new().await;
    world.make("static_admin", "LOGIN CREATEROLE PASSWORD 'their-password'");
    let body = json!({"db_name": "pg", "username": "static_admin", "rotation_period": "1h"});
    world.write("static-roles/admin", body).await.unwrap();
    let password = world.creds("admin").await["password"].clone();
    let url = world.pg.templated_url();
    world.has_sudo.store(true, Ordering::Relaxed);
    for name in ["pg", "another"] {
        for verify in [true, false] {
            let body = json!({
                "plugin_name": PLUGIN, "allowed_roles": "*", "connection_url": url, "username": "static_admin",
                "password": password, "verify_connection": verify,
            });
            // Without asking the server, another connection does not know that it is the same one.
            if name == "another" && !verify {
                continue;
            }
            let said = world.refused(&format!("config/{name}"), body).await;
            assert!(said.contains("is changed by static role \"admin\""), "{name}: {said}");
        }
    }
    // A server that nobody has asked may be another one, where another user has this name.
    let nowhere = url.replace(&format!(":{}/", world.pg.port()), ":1/");
    let elsewhere =
        json!({"connection_url": nowhere, "username": "static_admin", "password": "its", "verify_connection": false});
    world.connect("another", json!({})).await;
    world.connect("another", elsewhere).await;
    world.answer(Operation::Delete, "config/another", json!({})).await.unwrap();
    world.answer(Operation::Delete, "static-roles/admin", json!({})).await.unwrap();
    world.connect("another", json!({"username": "static_admin", "password": password})).await;
}

/// A connection that is led elsewhere had the user of the same name there changed, and `static-creds` answered a password that the real
/// server does not have.
#[tokio::test]
async fn a_static_role_stays_with_the_server_where_its_password_was_set() {
    let world = Rotating::new().await;
    world.make("static_stays", "LOGIN");
    let body = json!({"db_name": "pg", "username": "static_stays", "rotation_period": "1h"});
    world.write("static-roles/stays", body.clone()).await.unwrap();
    let first = world.creds("stays").await["password"].clone();
    let lead_to = async |host: &str| {
        let url = world.pg.templated_url().replace("127.0.0.1", host);
        world.connect("pg", json!({"connection_url": url})).await;
    };
    lead_to("localhost").await;
    world.clock.advance(Duration::from_secs(3_600));
    world.job().await;
    assert!(world.takes("static_stays", text(&first)).await, "the job changed it elsewhere");
    let failure = world.stored("static-role/stays").await["rotation"]["failure"].clone();
    assert!(text(&failure).contains("leads elsewhere"), "{failure}");
    let answer = world.answer(Operation::Read, "static-creds/stays", json!({})).await.unwrap();
    assert!(answer.warnings[0].contains("leads elsewhere") && answer.data.unwrap()["password"] == first);
    let answer = world.write("static-roles/stays", body).await.unwrap();
    assert!(answer.warnings[0].contains("leads elsewhere"), "{answer:?}");
    // Back again, all is as it was.
    lead_to("127.0.0.1").await;
    world.clock.advance(Duration::from_secs(900));
    world.job().await;
    let second = world.creds("stays").await["password"].clone();
    assert_ne!(second, first);
    assert!(world.takes("static_stays", text(&second)).await);
    // Whoever asks for a change there means the user there.
    lead_to("localhost").await;
    world.write("rotate-role/stays", json!({})).await.unwrap();
    let third = world.is_settled("static-role/stays", "static_stays").await;
    assert_ne!(third, text(&second));
    let answer = world.answer(Operation::Read, "static-creds/stays", json!({})).await.unwrap();
    assert!(answer.warnings.is_empty());
    // So does whoever writes the password that it has there.
    lead_to("127.0.0.1").await;
    assert_eq!(
        world.refused("static-roles/stays", json!({"password": "wrong"})).await,
        "the database does not take this password for user \"static_stays\""
    );
    world.write("static-roles/stays", json!({"password": third})).await.unwrap();
    world.clock.advance(Duration::from_secs(3_600));
    world.job().await;
    assert_ne!(world.is_settled("static-role/stays", "static_stays").await, third);
    assert_eq!(world.queue().await.len(), 1);
    // A lease's role, or none, is not taken for the user there either.
    lead_to("localhost").await;
    world.pg.psql("DROP ROLE static_stays").unwrap();
    assert!(world.refused("rotate-role/stays", json!({})).await.contains("does not exist"));
}

/// A change that was stored for one place stops when its connection is led elsewhere meanwhile.
#[tokio::test]
async fn a_change_of_a_static_role_that_waits_is_not_carried_out_elsewhere() {
    let world = Rotating::new().await;
    world.make("static_waits", "LOGIN");
    let body = json!({"db_name": "pg", "username": "static_waits", "rotation_period": "1h"});
    world.write("static-roles/waits", body).await.unwrap();
    let first = world.is_settled("static-role/waits", "static_waits").await;
    let (store, at) = world.faulty(StoreFault::StopsAfter, 1);
    let engine = DatabaseEngine::new();
    let url = world.pg.templated_url().replace("127.0.0.1", "localhost");
    let (done, ()) = tokio::join!(
        world.handle_on(&engine, &at, "rotate-role/waits"),
        store.meanwhile(world.connect("pg", json!({"connection_url": url})))
    );
    assert!(done.is_err(), "{done:?}");
    assert_eq!(world.is_settled("static-role/waits", "static_waits").await, first);
}

/// What a crash left is settled outside of the window; a change waits for it.
#[tokio::test]
async fn a_window_holds_for_a_role_that_is_not_certain_too() {
    let world = Rotating::new().await;
    world.make("static_window", "LOGIN");
    let now = world.clock_now();
    let hour = (now.as_secs() / 3_600 + 3) % 24;
    let body = json!({
        "db_name": "pg", "username": "static_window", "rotation_schedule": format!("0 {hour} * * *"), "rotation_window": "1h",
    });
    world.write("static-roles/window", body).await.unwrap();
    let first = world.is_settled("static-role/window", "static_window").await;
    world.leave_pending("rotate-role/window").await;
    // What is under way may still arrive: it would be forgotten.
    let done = world.answer(Operation::Delete, "static-roles/window", json!({})).await;
    assert!(matches!(done, Err(RequestError::Unavailable(_))), "{done:?}");
    world.pass();
    for _ in 0..3 {
        world.job().await;
        world.clock.advance(Duration::from_secs(60));
    }
    let stored = world.stored("static-role/window").await;
    assert!(stored["rotation"]["pending"].is_null(), "{stored}");
    assert!(world.takes("static_window", &first).await, "it was changed outside of its window");
    assert_eq!(world.creds("window").await["password"], first.as_str());
}

/// Custom statements that set nothing gave a static role a password that its user does not have.
#[tokio::test]
async fn statements_of_a_static_role_that_set_nothing_change_nothing() {
    let world = Rotating::new().await;
    world.make("static_idle", "LOGIN");
    let body = json!({"db_name": "pg", "username": "static_idle", "rotation_period": "1h"});
    world.write("static-roles/idle", body).await.unwrap();
    let first = world.is_settled("static-role/idle", "static_idle").await;
    world.write("static-roles/idle", json!({"rotation_statements": ["SELECT 1"]})).await.unwrap();
    let said = world.refused("rotate-role/idle", json!({})).await;
    assert!(said.contains("the statements ran, but the database takes the former password"), "{said}");
    assert_eq!(world.creds("idle").await["password"], first.as_str());
    assert!(world.takes("static_idle", &first).await);
}

/// A role that cannot be read stood at the head of the queue for ever.
#[tokio::test]
async fn a_static_role_that_cannot_be_read_holds_up_nobody() {
    let world = Rotating::new().await;
    world.make("static_damaged", "LOGIN");
    let body = json!({"db_name": "pg", "username": "static_damaged", "rotation_period": "1h"});
    world.write("static-roles/damaged", body).await.unwrap();
    let damage = MountBatch::new().put("static-role/damaged", b"{".to_vec(), Expect::Anything);
    world.context.storage.commit(damage).await.unwrap();
    world.clock.advance(Duration::from_secs(3_600));
    assert_eq!(world.job().await.unwrap(), world.clock_now() + Duration::from_secs(60));
    assert_eq!(world.queue().await, Vec::<String>::new());
    world.answer(Operation::Delete, "static-roles/damaged", json!({})).await.unwrap();
    // Its user is free again, at least for a role of the same name.
    let body = json!({"db_name": "pg", "username": "static_damaged", "rotation_period": "1h"});
    world.write("static-roles/damaged", body).await.unwrap();
}

#[tokio::test]
async fn no_error_of_a_rotation_shows_a_password() {
    let world = Rotating::new().await;
    world.make("static_shown", "LOGIN");
    let raise = "DO $$ BEGIN RAISE EXCEPTION 'got %', '{{password}}'; END $$";
    let said = world
        .refused(
            "static-roles/shown",
            json!({"db_name": "pg", "username": "static_shown", "rotation_period": 60, "rotation_statements": [raise]}),
        )
        .await;
    assert!(said.contains("got [redacted]"), "{said}");
}
