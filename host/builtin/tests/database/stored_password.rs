//! A stored password goes nowhere else, and in no other way, than where it was given for.
//!
//! The listener here is an attacker: it stands where a write would have the password sent, says that it speaks no TLS, asks for the
//! password in clear and keeps every byte that comes.

use std::sync::{Arc, Mutex};

use leasehold_core::seams::error::RequestError;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::World;

struct Rogue {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Rogue {
    async fn listen() -> Self {
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
                        // "No TLS", or AuthenticationCleartextPassword, byte by byte.
                        let answer: &[u8] = if is_tls_request { b"N" } else { &[b'R', 0, 0, 0, 8, 0, 0, 0, 3] };
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
    let (world, rogue) = (World::new().await, Rogue::listen().await);
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
    assert!(!rogue.has_heard(&password));
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

/// Even somebody who brings a password does not send it in clear to whoever asks.
#[tokio::test]
async fn a_listener_that_asks_for_the_password_in_clear_gets_none() {
    let (world, rogue) = (World::new().await, Rogue::listen().await);
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
