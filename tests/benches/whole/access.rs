//! What comes before a lease and around it, on a durable store: logins, tokens, kv under many rules, wrapping, renewals.

use leasehold_devpg::DevPg;
use serde_json::{Value, json};

use crate::cases::{Book, CLIENTS, Plan, issue, member_role, write_policies};
use crate::load::{Done, each_once, for_time, meanwhile, request, wrapped};
use crate::peer::{Peer, Running, Store};

/// Logins, and of what is made and then ended or read. A client address may prove so much in bodies without a pause.
const PAIRS: usize = 1_500;
const LEASES: usize = 600;

pub fn run(book: &mut Book, plan: &Plan, peer: &Peer, postgresql: &DevPg) {
    let server = peer.start_durable(Store::Own);
    login(book, &server);
    let create = vec![request("POST", "auth/token/create", &server.root, "{\"policies\":[\"default\"]}"); PAIRS];
    pair(book, &server, ("token create + revoke: CPU of both", "≤ 1/6"), &create, 204, |body| {
        let token = text(body, "/auth/client_token");
        request("POST", "auth/token/revoke-self", &token, "")
    });
    let wrap = vec![wrapped("POST", "sys/wrapping/wrap", &server.root, "{\"a\":\"b\"}"); PAIRS];
    pair(book, &server, ("wrap + unwrap: CPU of both", "≤ 1/5"), &wrap, 200, |body| {
        request("POST", "sys/wrapping/unwrap", &text(body, "/wrap_info/token"), "")
    });

    let many = write_policies(&server);
    server.admin("POST", "sys/mounts/secret", &json!({ "type": "kv" }));
    server.admin("POST", "secret/team3/app3/config", &json!({ "a": "b" }));
    let read = request("GET", "secret/team3/app3/config", &many, "");
    let (_, cpu) = book.measure(&server, || for_time(&server.address, CLIENTS, plan.length, &[200], &read));
    book.add("kv v1 read under 20 × 50 rules: CPU per request", "ms", false, "≤ 1/30", peer.kind, cpu);

    flood(book, plan, &server);

    server.connect(postgresql, peer.kind.default_authentication(), &member_role("1h"));
    let renewals: Vec<Vec<u8>> = issue(&server, LEASES)
        .iter()
        .map(|id| request("PUT", "sys/leases/renew", &server.root, &json!({ "lease_id": id }).to_string()))
        .collect();
    let (done, cpu) = book.measure(&server, || each_once(&server.address, CLIENTS, &[200], &renewals).0);
    book.add("renew on a durable store: rate", "/s", true, "≥ 5 ×", peer.kind, done.rate());
    book.add("renew on a durable store: CPU per request", "ms", false, "", peer.kind, cpu);
    server.admin("PUT", "sys/leases/revoke-prefix/database/creds/app", &json!({}));
}

fn text(body: &[u8], pointer: &str) -> String {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer}: {body}")).to_owned()
}

fn login(book: &mut Book, server: &Running) {
    server.admin("POST", "sys/auth/approle", &json!({ "type": "approle" }));
    server.admin("POST", "auth/approle/role/app", &json!({ "token_policies": "default", "token_ttl": "1h" }));
    let role = server.admin("GET", "auth/approle/role/app/role-id", &Value::Null);
    let secret = server.admin("POST", "auth/approle/role/app/secret-id", &json!({}));
    let body = json!({ "role_id": role["data"]["role_id"], "secret_id": secret["data"]["secret_id"] }).to_string();
    let login = request("POST", "auth/approle/login", "", &body);
    let logins = vec![login; PAIRS];
    let (done, cpu) = book.measure(server, || each_once(&server.address, CLIENTS, &[200], &logins).0);
    book.add("approle login: CPU per request", "ms", false, "≤ 1/5", server.kind, cpu);
    book.add("approle login: rate", "/s", true, "", server.kind, done.rate());
}

/// What is made, and what is then done with each of it: the CPU of one and the other together.
fn pair(
    book: &mut Book,
    server: &Running,
    (name, wanted): (&'static str, &'static str),
    first: &[Vec<u8>],
    status: u16,
    second: impl Fn(&[u8]) -> Vec<u8>,
) {
    let mut made = Vec::new();
    let (_, one) = book.measure(server, || {
        let (done, bodies) = each_once(&server.address, CLIENTS, &[200], first);
        made = bodies;
        done
    });
    let then: Vec<Vec<u8>> = made.iter().map(|body| second(body)).collect();
    let (_, other) = book.measure(server, || each_once(&server.address, CLIENTS, &[status], &then).0);
    book.add(name, "ms", false, wanted, server.kind, one + other);
}

/// Logins whose password takes the server long to check, and one client that looks itself up meanwhile.
fn flood(book: &mut Book, plan: &Plan, server: &Running) {
    server.admin("POST", "sys/auth/userpass", &json!({ "type": "userpass" }));
    server.admin(
        "POST",
        "auth/userpass/users/u",
        &json!({ "password": "a-long-password", "token_policies": "default" }),
    );
    let login = request("POST", "auth/userpass/login/u", "", "{\"password\":\"a-long-password\"}");
    let look = request("GET", "auth/token/lookup-self", &server.root, "");
    let mut logins = Done { requests: 0, took: plan.length, p99: plan.length };
    let looked = meanwhile(&server.address, 1, &[200], &look, || {
        logins = for_time(&server.address, CLIENTS, plan.length, &[200, 429], &login);
    });
    let p99 = looked.p99.as_secs_f64() * 1_000.0;
    book.add("a flood of userpass logins: p99 of lookup-self meanwhile", "ms", false, "< 10", server.kind, p99);
    book.add("a flood of userpass logins: answers", "/s", true, "", server.kind, logins.rate());
}
