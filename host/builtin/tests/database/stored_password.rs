//! A stored password goes nowhere else, and in no other way, than where it was given for.
//!
//! The listener here is an attacker: it stands where a write would have the password sent, says that it speaks no TLS, asks for the
//! password (in clear, which it never gets, or as an MD5 digest, which any server may ask for) and keeps every byte that comes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_model::Operation;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::faults::{FaultyStore, StoreFault};
use crate::rotation::Rotating;
use crate::support::World;

struct Rogue {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

/// What goes into a digest besides the password and the user.
const SALT: [u8; 4] = [1, 2, 3, 4];
/// AuthenticationCleartextPassword.
const CLEAR_TEXT: &[u8] = &[b'R', 0, 0, 0, 8, 0, 0, 0, 3];
/// AuthenticationMD5Password.
const MD5: &[u8] = &[b'R', 0, 0, 0, 12, 0, 0, 0, 5, SALT[0], SALT[1], SALT[2], SALT[3]];

impl Rogue {
    async fn listen(asks_for: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(len @ 1..) = stream.read(&mut bytes).await {
                        kept.lock().unwrap().extend(&bytes[..len]);
                        let is_tls_request = len == 8 && bytes[4..8] == [0x04, 0xd2, 0x16, 0x2f];
                        // "No TLS", or the question, byte by byte.
                        let answer: &[u8] = if is_tls_request { b"N" } else { asks_for };
                        for byte in answer {
                            let _ = stream.write_all(&[*byte]).await;
                            let _ = stream.flush().await;
                        }
                    }
                });
            }
        });
        Self { port, heard }
    }

    fn has_heard(&self, text: &str) -> bool {
        let heard = self.heard.lock().unwrap();
        heard.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Whether somebody logged in with a password, in clear or as a digest.
    fn has_password(&self, users: &[&str], password: &str) -> bool {
        let digest =
            |user: &&str| postgres_protocol::authentication::md5_hash(user.as_bytes(), password.as_bytes(), SALT);
        self.has_heard(password) || users.iter().map(digest).any(|digest| self.has_heard(&digest))
    }
}

fn refusal(done: &Result<leasehold_core::request::LogicalResponse, RequestError>) -> &str {
    match done {
        Err(RequestError::Invalid(said)) => said,
        other => panic!("{other:?}"),
    }
}

/// A2: with `update` on the connection alone, one write had the stored password sent to a listener.
#[tokio::test]
async fn no_write_has_the_stored_password_sent_elsewhere_or_in_another_way() {
    let (world, rogue) = (World::new().await, Rogue::listen(MD5).await);
    let (password, real) = (world.pg.admin_password().to_owned(), world.pg.port());
    let before = world.read("config/pg").await.unwrap();
    let to = |place: &str| format!("postgresql://{{{{username}}}}:{{{{password}}}}@{place}");
    for verify in [true, false] {
        for write in [
            json!({"connection_url": to(&format!("127.0.0.1:{}/myapp", rogue.port))}),
            json!({"connection_url": to(&format!("127.0.0.1:{real},127.0.0.1:{}/myapp", rogue.port))}),
            json!({"connection_url": to(&format!("127.0.0.1:{real}/myapp?port={}", rogue.port))}),
            json!({"connection_url": to(&format!("localhost:{real}/myapp"))}),
            json!({"connection_url": to(&format!("127.0.0.1:{real}/myapp?hostaddr=127.0.0.2"))}),
            json!({"connection_url": to(&format!("127.0.0.1:{real}/myapp?sslmode=disable"))}),
            json!({"connection_url": to(&format!("127.0.0.1:{real}/myapp?channel_binding=disable"))}),
            json!({"connection_url": to(&format!("127.0.0.1:{real}/myapp?require_auth=password"))}),
            json!({"connection_url": format!("host=127.0.0.1 port={} user={{{{username}}}} password={{{{password}}}} dbname=myapp", rogue.port)}),
            json!({"tls_ca": "-----BEGIN CERTIFICATE-----"}),
            // The user's name can hold a host when it is not escaped.
            json!({"disable_escaping": true, "username": format!("x@127.0.0.1:{}/d?user=x&password={{{{password}}}}", rogue.port)}),
            json!({"disable_escaping": true, "username": "u", "connection_url": to(&format!("127.0.0.1:{}/d", rogue.port))}),
        ] {
            let mut write = write;
            write["verify_connection"] = json!(verify);
            let done = world.write("config/pg", write.clone()).await;
            let said = refusal(&done);
            assert!(!said.contains(&password), "{said}");
            assert!(said.contains("send password again") || said.contains("template variables"), "{write}: {said}");
        }
    }
    for stray in [
        "postgresql://{{username}}:{{password}}@127.0.0.1/{{password}}",
        "postgresql://{{password}}:x@127.0.0.1/d",
        "postgresql://u:{{password}}@{{password}}/d",
        "postgresql://u:{{password}}@h/d?application_name={{password}}",
        "postgresql://u@h/d?sslrootcert={{password}}",
        "postgresql://u@h:{{password}}/d",
        "postgresql://u@h/d?sslmode={{password}}",
        "host=h user=u dbname={{password}}",
    ] {
        for body in [json!({"connection_url": stray}), json!({"connection_url": stray, "password": "disable"})] {
            let done = world.write("config/pg", body).await;
            assert!(refusal(&done).starts_with("error creating database object: connection_url"), "{stray}: {done:?}");
        }
    }
    assert_eq!(world.read("config/pg").await.unwrap(), before, "nothing was stored");
    assert!(!rogue.has_password(&[world.pg.admin_user(), "x", "u"], &password));
}

#[tokio::test]
async fn a_write_that_brings_the_password_or_changes_nothing_of_its_way_is_taken() {
    let world = World::new().await;
    let (user, password, port) = (world.pg.admin_user(), world.pg.admin_password(), world.pg.port());
    let templated = |more: &str| format!("postgresql://{{{{username}}}}:{{{{password}}}}@localhost:{port}/myapp{more}");
    for write in [
        json!({"allowed_roles": "*"}),
        json!({"connection_url": format!("{}?application_name=other&statement_timeout=5s", world.pg.templated_url())}),
        json!({"connection_url": templated(""), "password": password}),
        json!({"connection_url": format!("postgresql://{user}:{password}@127.0.0.1:{port}/myapp")}),
        json!({"connection_url": templated(""), "username": user, "password": password}),
    ] {
        let done = world.write("config/pg", write.clone()).await;
        assert!(done.is_ok(), "{write}: {done:?}");
    }
}

/// What a write to a connection brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brings {
    Nothing,
    StoredPassword,
    OtherPassword,
    OtherPasswordAndUser,
    /// The same user as is stored, named again.
    OtherPasswordAndSameUser,
    UserOnly,
    OtherLoginInUrl,
}

/// Everything that leads a connection elsewhere, or in a weaker way, is refused alike: to whoever lacks `sudo` unless they bring the
/// stored password, and to everybody who brings no complete login.
#[tokio::test]
async fn a_connection_moves_only_for_somebody_who_knows_its_password_or_has_sudo_and_another_login() {
    let world = World::new().await;
    let (user, password, port) = (world.pg.admin_user(), world.pg.admin_password(), world.pg.port());
    let at = |place: String| format!("postgresql://{{{{username}}}}:{{{{password}}}}@{place}");
    let moves = [
        ("host", at(format!("localhost:{port}/myapp"))),
        ("port", at("127.0.0.1:1/myapp".to_owned())),
        ("second host", at(format!("127.0.0.1:{port},127.0.0.1:1/myapp"))),
        ("hostaddr", at(format!("127.0.0.1:{port}/myapp?hostaddr=127.0.0.2"))),
        ("database", at(format!("127.0.0.1:{port}/postgres"))),
        ("sslmode", at(format!("127.0.0.1:{port}/myapp?sslmode=disable"))),
        ("sslrootcert", at(format!("127.0.0.1:{port}/myapp?sslmode=verify-full&sslrootcert=system"))),
        ("protocol", at(format!("127.0.0.1:{port}/myapp?ssl_max_protocol_version=TLSv1.2"))),
        ("channel_binding", at(format!("127.0.0.1:{port}/myapp?channel_binding=disable"))),
        ("require_auth", at(format!("127.0.0.1:{port}/myapp?require_auth=password"))),
        ("sslsni", at(format!("127.0.0.1:{port}/myapp?sslsni=0"))),
    ];
    let rows = [
        // Brings, without sudo, with sudo.
        (Brings::Nothing, "send password again", "send password again"),
        (Brings::UserOnly, "send password again", "send password again"),
        (Brings::StoredPassword, "", ""),
        (Brings::OtherPassword, "sudo", "send username and password together"),
        (Brings::OtherPasswordAndUser, "sudo", ""),
        (Brings::OtherPasswordAndSameUser, "sudo", ""),
        (Brings::OtherLoginInUrl, "sudo", ""),
    ];
    for (what, url) in &moves {
        for (brings, plain, with_sudo) in rows {
            for (has_sudo, wanted) in [(false, plain), (true, with_sudo)] {
                world.has_sudo.store(false, Ordering::Relaxed);
                world.answer(Operation::Delete, "config/moved", json!({})).await.unwrap();
                world.connect("moved", json!({})).await;
                let before = world.read("config/moved").await.unwrap();
                let mut write = json!({"connection_url": url, "verify_connection": false});
                match brings {
                    Brings::Nothing => {}
                    Brings::StoredPassword => write["password"] = json!(password),
                    Brings::OtherPassword => write["password"] = json!("other"),
                    Brings::UserOnly => write["username"] = json!("other"),
                    Brings::OtherPasswordAndUser | Brings::OtherPasswordAndSameUser => {
                        let is_same = brings == Brings::OtherPasswordAndSameUser;
                        write["username"] = json!(if is_same { user } else { "other" });
                        write["password"] = json!("other");
                    }
                    Brings::OtherLoginInUrl => {
                        write["connection_url"] =
                            json!(url.replace("{{username}}", "other").replace("{{password}}", "other"));
                    }
                }
                world.has_sudo.store(has_sudo, Ordering::Relaxed);
                let done = world.write("config/moved", write).await;
                let row = format!("{what}, {brings:?}, sudo: {has_sudo}");
                match &done {
                    Ok(_) => assert_eq!(wanted, "", "{row} was taken"),
                    Err(RequestError::Invalid(said) | RequestError::Forbidden(said)) => {
                        assert!(!wanted.is_empty() && said.contains(wanted), "{row}: {said}");
                        assert_eq!(matches!(done, Err(RequestError::Forbidden(_))), wanted == "sudo", "{row}: {said}");
                        assert_eq!(world.read("config/moved").await.unwrap(), before, "{row}");
                    }
                    Err(other) => panic!("{row}: {other:?}"),
                }
            }
        }
    }
}

/// The same as another user: at the same place, too, the stored password is theirs who own it.
#[tokio::test]
async fn another_user_needs_the_stored_password_or_sudo() {
    let world = World::new().await;
    let password = world.pg.admin_password();
    for (write, has_sudo, wanted) in [
        (json!({"username": "other"}), false, Some("send password again")),
        (json!({"username": "other"}), true, Some("send password again")),
        (json!({"username": "other", "password": "its"}), false, Some("sudo")),
        (json!({"username": "other", "password": password}), false, None),
        (json!({"username": "another", "password": "its"}), true, None),
    ] {
        let mut body = write.clone();
        body["verify_connection"] = json!(false);
        world.has_sudo.store(has_sudo, Ordering::Relaxed);
        let done = world.write("config/pg", body).await;
        match wanted {
            None => assert!(done.is_ok(), "{write}: {done:?}"),
            Some(wanted) => assert!(done.is_err_and(|error| error.to_string().contains(wanted)), "{write}"),
        }
    }
}

/// One write alone was judged: a first that no longer used the stored password could lead the connection anywhere, and a second used it there.
#[tokio::test]
async fn no_series_of_writes_has_the_stored_password_sent_elsewhere() {
    let rogue = Rogue::listen(MD5).await;
    let at_rogue = |login: &str| format!("postgresql://{login}@127.0.0.1:{}/d", rogue.port);
    let templated = at_rogue("{{username}}:{{password}}");
    let world = World::new().await;
    let (user, password, port) = (world.pg.admin_user(), world.pg.admin_password(), world.pg.port());
    let here = |login: &str| format!("postgresql://{login}@127.0.0.1:{port}/myapp");
    let series = [
        ("no password there", vec![json!({"connection_url": at_rogue(user)}), json!({"connection_url": templated})]),
        (
            "another there",
            vec![json!({"connection_url": at_rogue(&format!("{user}:x"))}), json!({"connection_url": templated})],
        ),
        (
            "first unused here, then there",
            vec![
                json!({"connection_url": here(&format!("{user}:x"))}),
                json!({"connection_url": at_rogue(&format!("{user}:x"))}),
                json!({"connection_url": templated}),
            ],
        ),
        (
            "another here, then there",
            vec![json!({"password": "x"}), json!({"connection_url": templated, "password": "x"})],
        ),
        (
            "without a login here, then there",
            vec![
                json!({"connection_url": here(user)}),
                json!({"connection_url": at_rogue(user)}),
                json!({"connection_url": templated}),
            ],
        ),
        (
            "hidden here by an empty one, then there",
            vec![
                json!({"connection_url": format!("{}?password=", here("{{username}}"))}),
                json!({"connection_url": templated}),
            ],
        ),
        (
            "hidden here by an empty one in words, then there",
            vec![
                json!({"connection_url": format!("host=127.0.0.1 port={port} user={user} password='' dbname=myapp")}),
                json!({"connection_url": templated}),
            ],
        ),
        (
            "emptied here, then another there",
            vec![json!({"password": ""}), json!({"connection_url": templated, "password": "mine"})],
        ),
        (
            "emptied here, one harmless write, then another there",
            vec![
                json!({"password": ""}),
                json!({"allowed_roles": "*"}),
                json!({"connection_url": templated, "password": "mine"}),
            ],
        ),
        (
            "in an option that means nothing, then there",
            vec![
                json!({"connection_url": format!("{}?krbsrvname={{{{password}}}}", at_rogue("u"))}),
                json!({"connection_url": at_rogue("u:{{password}}")}),
            ],
        ),
        (
            "out of the URL into another part of it",
            vec![
                json!({"connection_url": here(&format!("{{{{username}}}}:{password}"))}),
                json!({"disable_escaping": true, "username": format!("u@127.0.0.1:{}/d?application_name=", rogue.port)}),
            ],
        ),
    ];
    for (what, writes) in &series {
        for has_sudo in [false, true] {
            world.has_sudo.store(false, Ordering::Relaxed);
            world.answer(Operation::Delete, "config/pg", json!({})).await.unwrap();
            world.connect("pg", json!({})).await;
            world.has_sudo.store(has_sudo, Ordering::Relaxed);
            let mut moved = false;
            for write in writes {
                let mut write = write.clone();
                write["verify_connection"] = json!(false);
                let done = world.write("config/pg", write).await;
                moved = done.is_ok();
                let _ = world.write("reset/pg", json!({})).await;
            }
            assert!(has_sudo || !moved, "{what}: the connection was moved without sudo");
            assert!(!rogue.has_password(&[user, "u"], password), "{what}, sudo: {has_sudo}");
        }
    }
    // The listener would have heard it: whoever knows the password may send it there.
    world.has_sudo.store(false, Ordering::Relaxed);
    world.answer(Operation::Delete, "config/pg", json!({})).await.unwrap();
    world.connect("pg", json!({})).await;
    let given = json!({"connection_url": templated, "password": password, "verify_connection": false});
    world.write("config/pg", given).await.unwrap();
    let _ = world.write("reset/pg", json!({})).await;
    assert!(rogue.has_password(&[user], password), "the listener hears nothing");
    // What the database took is proved.
    world.has_sudo.store(false, Ordering::Relaxed);
    world.answer(Operation::Delete, "config/pg", json!({})).await.unwrap();
    world.connect("pg", json!({"password": "typing error", "verify_connection": false})).await;
    for (write, is_taken) in [
        (json!({"password": password, "verify_connection": false}), true),
        (
            json!({"connection_url": format!("{}?sslmode=disable", here("{{username}}:{{password}}")), "password": password}),
            false,
        ),
        (json!({"password": password}), true),
        (
            json!({"connection_url": format!("{}?sslmode=disable", here("{{username}}:{{password}}")), "password": password}),
            true,
        ),
    ] {
        let done = world.write("config/pg", write.clone()).await;
        assert_eq!(done.is_ok(), is_taken, "{write}: {done:?}");
    }
}

/// Even somebody who brings a password does not send it in clear to whoever asks.
#[tokio::test]
async fn a_listener_that_asks_for_the_password_in_clear_gets_none() {
    let (world, rogue) = (World::new().await, Rogue::listen(CLEAR_TEXT).await);
    for options in ["", "?sslmode=prefer", "?sslmode=allow", "?sslmode=disable"] {
        let body = json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": "u", "password": "s3cret-w0rd",
            "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/d{options}", rogue.port),
        });
        let done = world.write("config/rogue", body).await;
        assert!(refusal(&done).contains("asks for the password in clear text"), "{options}: {done:?}");
    }
    let heard: Value = json!(rogue.heard.lock().unwrap().len());
    assert!(heard.as_u64().unwrap() > 0, "the listener was never reached");
    assert!(!rogue.has_heard("s3cret-w0rd"));
}

/// A rotation that did not come to its end leaves more than one password beside the connection: none of them is sent elsewhere, though it
/// is tried where the connection leads.
#[tokio::test]
async fn no_password_of_an_unfinished_rotation_is_sent_elsewhere() {
    let (world, rogue) = (Rotating::new().await, Rogue::listen(MD5).await);
    let make = "DROP ROLE IF EXISTS rot_moved; CREATE ROLE rot_moved LOGIN PASSWORD 'first-password'";
    world.pg.psql(make).unwrap();
    world.connect("moved", json!({"username": "rot_moved", "password": "first-password"})).await;
    world.write("rotate-root/moved", json!({})).await.unwrap();
    let store = FaultyStore::new(Arc::clone(&world.store), StoreFault::KilledAfter, 1);
    let mut at = world.context.clone();
    at.storage = MountStorage::new(store.clone(), at.mount.accessor.clone());
    let killed = store.until_killed(world.handle_on(&world.engine, &at, "rotate-root/moved")).await;
    assert!(killed.is_none());
    let stored = |value: Vec<u8>| serde_json::from_slice::<Value>(&value).unwrap();
    let read = async || stored(world.context.storage.get("connection/moved").await.unwrap().unwrap().value);
    let before = read().await;
    let known: Vec<String> = [&before["password"], &before["rotation"]["pending"]["password"]]
        .map(|password| password.as_str().unwrap().to_owned())
        .to_vec();
    let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/myapp", rogue.port);
    let other = json!({"connection_url": url, "username": "rot_moved", "password": "other-password"});
    // Until then no write moves the connection at all.
    world.pass();
    let done = world.write("config/moved", other.clone()).await;
    assert!(matches!(done, Err(RequestError::Forbidden(_))), "{done:?}");
    world.has_sudo.store(true, Ordering::Relaxed);
    for verify in [true, false] {
        let mut move_it = other.clone();
        move_it["verify_connection"] = json!(verify);
        let done = world.write("config/moved", move_it).await;
        assert_eq!(done.is_ok(), !verify, "{done:?}");
    }
    let reset = world.write("reset/moved", json!({})).await;
    assert!(reset.is_err(), "{reset:?}");
    let rotated = world.write("rotate-root/moved", json!({})).await;
    assert!(rotated.is_err(), "{rotated:?}");
    assert!(rogue.has_password(&["rot_moved"], "other-password"), "the listener was asked at all");
    for password in &known {
        assert!(!rogue.has_password(&["rot_moved"], password));
    }
    // The one that the rotation there made up is not known here either, when the connection comes back.
    let back = json!({
        "connection_url": world.pg.templated_url(), "username": "rot_moved", "password": known[0], "verify_connection": false,
    });
    world.pass();
    world.write("config/moved", back).await.unwrap();
    world.write("reset/moved", json!({})).await.unwrap();
    assert_eq!(read().await["rotation"]["doubtful"], json!([]));
}

/// Another password that still works beside the stored one proves nothing about that.
#[tokio::test]
async fn a_password_that_nobody_tried_is_not_proved_by_the_one_that_a_rotation_made() {
    let (world, rogue) = (World::new().await, Rogue::listen(MD5).await);
    let make = "DROP ROLE IF EXISTS rot_unproved; CREATE ROLE rot_unproved LOGIN PASSWORD 'first-password'";
    world.pg.psql(make).unwrap();
    world.connect("unproved", json!({"username": "rot_unproved", "password": "first-password"})).await;
    world.write("rotate-root/unproved", json!({})).await.unwrap();
    let plugin = "postgresql-database-plugin";
    let guess = json!({"plugin_name": plugin, "password": "attackers-password", "verify_connection": false});
    world.write("config/unproved", guess).await.unwrap();
    // The rotated one, which is tried next, lets this write in.
    world.write("config/unproved", json!({"plugin_name": plugin, "allowed_roles": "*"})).await.unwrap();
    let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/myapp", rogue.port);
    let done = world.write("config/unproved", json!({"connection_url": url, "password": "attackers-password"})).await;
    assert!(matches!(done, Err(RequestError::Forbidden(_))), "{done:?}");
}

/// Whoever may move a connection got the passwords of its static roles: the job, a reader and a change logged in with them.
#[tokio::test]
async fn no_password_of_a_static_role_is_sent_where_its_connection_was_led_later() {
    let (world, rogue) = (Rotating::new().await, Rogue::listen(MD5).await);
    world.make("static_own", "LOGIN PASSWORD 'their-password'");
    world.make("static_led", "LOGIN");
    let own = json!({
        "db_name": "pg", "username": "static_own", "rotation_period": "1h", "self_managed_password": "their-password",
        "skip_import_rotation": true,
    });
    world.write("static-roles/own", own).await.unwrap();
    let led = json!({"db_name": "pg", "username": "static_led", "rotation_period": "1h"});
    world.write("static-roles/led", led).await.unwrap();
    let mut known =
        vec!["their-password".to_owned(), world.creds("led").await["password"].as_str().unwrap().to_owned()];
    for name in ["own", "led"] {
        world.leave_pending(&format!("rotate-role/{name}")).await;
        let stored = world.stored(&format!("static-role/{name}")).await;
        known.push(stored["rotation"]["pending"]["password"].as_str().unwrap().to_owned());
    }
    let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/myapp", rogue.port);
    // By somebody who knows the connection's own password.
    world.connect("pg", json!({"connection_url": url, "verify_connection": false})).await;
    world.clock.advance(std::time::Duration::from_secs(3_600));
    world.job().await;
    for name in ["own", "led"] {
        world.creds(name).await;
        assert!(world.write(&format!("rotate-role/{name}"), json!({})).await.is_err());
        world.creds(name).await;
    }
    world.job().await;
    for password in &known {
        assert!(!rogue.has_password(&["static_own", "static_led"], password), "the listener heard it");
    }
    assert!(rogue.has_password(&[world.pg.admin_user()], world.pg.admin_password()), "the listener was asked at all");
    world.connect("pg", json!({})).await;
    world.clock.advance(std::time::Duration::from_secs(900));
    world.job().await;
    for (name, user) in [("own", "static_own"), ("led", "static_led")] {
        world.write(&format!("rotate-role/{name}"), json!({})).await.unwrap();
        world.is_settled(&format!("static-role/{name}"), user).await;
    }
}
