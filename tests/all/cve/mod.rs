//! Classes of vulnerabilities that Vault and OpenBao had, as facts about this server: `host/docs/vulnerability-classes.md`.
//!
//! Each module is a class, each test a fact. A fact is also asked of a real OpenBao when there is one; where it does not hold there,
//! the test says what happens instead, and the document repeats it.
//!
//! Start with [`on_both`]; [`table`] keeps the document true.

mod bounds;
mod identities;
mod lifetimes;
mod logins;
mod paths;
mod policies;
mod secrets;
mod strangers;
mod table;

use serde_json::{Value, json};

use crate::support::{Answer, Bao, Client, Durable, Server};

/// Whether a fact holds, or what happens instead.
type Fact = Result<(), String>;

/// What a real OpenBao does.
enum OpenBao {
    Same,
    /// This instead, in the words of the fact.
    Differs(&'static str),
}

use OpenBao::{Differs, Same};

/// The fact holds here. OpenBao has no such thing, or not in this form.
#[track_caller]
fn here(fact: impl Fn(&Server) -> Fact) {
    // With a configuration: a development server is less strict about audit files. What it has mounted, this has too.
    let server = Server::durable(&Durable::default());
    write(&server.root(), "sys/mounts/secret", json!({ "type": "kv", "options": { "version": "2" } }));
    assert_eq!(fact(&server), Ok(()), "here");
}

/// The fact holds here, and in OpenBao it is as recorded.
#[track_caller]
fn on_both(openbao: OpenBao, fact: impl Fn(&Server) -> Fact) {
    here(&fact);
    let Some(bao) = Bao::find("a class of vulnerabilities with a real OpenBao") else { return };
    let told = fact(&Server::openbao(&bao));
    match openbao {
        Differs(instead) => assert_eq!(told, Err(instead.to_owned()), "OpenBao, as it is recorded"),
        Same => assert_eq!(told, Ok(()), "OpenBao, as it is recorded"),
    }
}

/// The fact holds where this does; else `instead` happens.
fn holds(condition: bool, instead: &str) -> Fact {
    if condition { Ok(()) } else { Err(instead.to_owned()) }
}

/// Writes, whatever the answer to success looks like.
#[track_caller]
fn write(client: &Client, path: &str, body: Value) -> Answer {
    let answer = client.post(path, body);
    assert!(matches!(answer.status, 200 | 204), "{answer}");
    answer
}

#[track_caller]
fn policy(server: &Server, name: &str, text: &str) {
    write(&server.root(), &format!("sys/policies/acl/{name}"), json!({ "policy": text }));
}

fn rule(path: &str, capabilities: &str) -> String {
    format!("path \"{path}\" {{ capabilities = [{capabilities}] }}\n")
}

#[track_caller]
fn enable_auth(server: &Server, path: &str, kind: &str) {
    write(&server.root(), &format!("sys/auth/{path}"), json!({ "type": kind }));
}

#[track_caller]
fn user(server: &Server, name: &str, policies: &str) {
    write(
        &server.root(),
        &format!("auth/userpass/users/{name}"),
        json!({ "password": "correct-horse", "token_policies": policies }),
    );
}

fn log_in(server: &Server, name: &str, password: &str) -> Answer {
    server.nobody().post(&format!("auth/userpass/login/{name}"), json!({ "password": password }))
}

/// How many tokens live. Looking needs none.
fn tokens(server: &Server) -> usize {
    server.root().list("auth/token/accessors").at("/data/keys").as_array().map_or(0, Vec::len)
}

/// Whether this client may do everything.
fn is_root(client: &Client) -> bool {
    client.get("auth/token/lookup-self").at("/data/policies").to_string().contains("\"root\"")
        || client.get("sys/policies/acl/default").status == 200
}
