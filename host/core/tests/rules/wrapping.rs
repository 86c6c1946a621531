//! Wrapped answers whose readers, servers and stores fail: whatever was not read ends, and what was read lives.

use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::request::{LogicalRequest, LogicalResponse};
use leasehold_core::seams::storage::Storage as _;
use leasehold_model::{Operation, Ttl};
use serde_json::{Value, json};

use super::several_servers::{right_ends, slow_with};
use super::support::faults::{FAULTS, Fault};
use super::support::pass;
use super::support::server::{ROOT, Server, lease_of, refusal, request, token_of};

/// An unwrapping takes the token's use, and then takes the token away.
const LAST_OF_UNWRAP: usize = 1;

fn wrapping(request: LogicalRequest) -> LogicalRequest {
    LogicalRequest { wrap_ttl: Some(Ttl::from_secs(86_400)), ..request }
}

fn creds() -> LogicalRequest {
    wrapping(request(Some(ROOT), Operation::Read, "db/creds/app", Value::Null))
}

fn wrapped(answer: &LogicalResponse) -> String {
    answer.wrap_info.as_ref().unwrap().token.expose().to_owned()
}

fn unwrap(token: &str) -> LogicalRequest {
    request(Some(ROOT), Operation::Update, "sys/wrapping/unwrap", json!({ "token": token }))
}

/// By a token of its own, and by the wrapping token with and without its name in the body.
fn ways(token: &str) -> [LogicalRequest; 3] {
    let own = |data| request(Some(token), Operation::Update, "sys/wrapping/unwrap", data);
    [unwrap(token), own(json!({})), own(json!({ "token": token }))]
}

#[tokio::test(start_paused = true)]
async fn each_way_of_unwrapping_reads_the_answer_once() {
    for way in 0..3 {
        let server = Server::start().await;
        let token = wrapped(&server.core.handle(creds()).await.unwrap());
        let [first, again] = [ways(&token), ways(&token)].map(|ways| ways.into_iter().nth(way).unwrap());
        let answer = server.core.handle(first).await.unwrap();
        assert!(server.target.has(&lease_of(&answer)), "way {way}");
        assert!(refusal(server.core.handle(again).await).contains("not valid"), "way {way}");
        pass(120).await;
        assert!(server.target.has(&lease_of(&answer)), "way {way}: it was read");
    }
}

/// R5: the reader is there when the work begins, and gone when the answer could be fetched.
#[tokio::test(start_paused = true)]
async fn an_unwrapped_answer_that_nobody_got_ends() {
    for way in 0..3 {
        let server = Server::start().await;
        let before = server.rows().await.len();
        let credential = wrapped(&server.core.handle(creds()).await.unwrap());
        let login = wrapping(request(Some(ROOT), Operation::Update, "auth/token/create", json!({ "ttl": "1h" })));
        let login = wrapped(&server.core.handle(login).await.unwrap());
        for token in [credential, login] {
            let mut call = Box::pin(server.core.handle(ways(&token).into_iter().nth(way).unwrap()));
            assert!(tokio::time::timeout(Duration::ZERO, &mut call).await.is_err());
            pass(1).await;
            drop(call);
        }
        pass(5).await;
        assert_eq!(server.rows().await.len(), before, "way {way}");
        assert!(server.target.roles().is_empty(), "way {way}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrapping_token_that_nobody_got_ends_with_what_it_stands_for() {
    let server = Server::start().await;
    let before = server.rows().await.len();
    let token = wrapped(&server.core.handle(creds()).await.unwrap());
    let rewrap = request(Some(ROOT), Operation::Update, "sys/wrapping/rewrap", json!({ "token": token }));
    for asked in [creds(), rewrap] {
        let mut call = Box::pin(server.core.handle(asked));
        assert!(tokio::time::timeout(Duration::ZERO, &mut call).await.is_err());
        pass(1).await;
        drop(call);
        pass(5).await;
    }
    assert_eq!(server.rows().await.len(), before);
    assert!(server.target.roles().is_empty());
}

/// A fault at every write of wrapping, unwrapping and moving: who was told nothing has nothing, a minute later.
#[tokio::test(start_paused = true)]
async fn a_fault_anywhere_leaves_no_credential_that_nobody_has() {
    for (way, route) in [(0, "unwrap"), (1, "unwrap"), (2, "unwrap"), (0, "rewrap"), (0, "wrap")] {
        for fault in FAULTS {
            let mut write = 0;
            loop {
                let context = format!("{route} by way {way}, {fault:?} at write {write}");
                let server = Server::start().await;
                let token = match route {
                    "wrap" => None,
                    _ => Some(wrapped(&server.core.handle(creds()).await.unwrap())),
                };
                let asked = match &token {
                    None => creds(),
                    Some(token) => {
                        let asked = ways(token).into_iter().nth(way).unwrap();
                        LogicalRequest { path: format!("sys/wrapping/{route}"), ..asked }
                    }
                };
                server.process.fault_at(write, fault);
                let told = server.core.handle(asked).await;
                let fired = !server.process.is_armed();
                server.process.disarm();
                let died = server.process.is_dead();
                let server = if died {
                    let next = server.again();
                    next.unseal().await;
                    next
                } else {
                    server
                };
                // Longer than the last use of a token may take, and not as long as the wrapping token lives.
                pass(200).await;
                match told {
                    Ok(answer) if answer.wrap_info.is_some() => {
                        let token = wrapped(&answer);
                        let read = server.core.handle(unwrap(&token)).await;
                        let read = read.unwrap_or_else(|error| panic!("{context}: {error}"));
                        assert!(server.target.has(&lease_of(&read)), "{context}");
                    }
                    Ok(answer) => assert!(server.target.has(&lease_of(&answer)), "{context}"),
                    // As with any credential: a kill between the last commit and the answer leaves it to its own end, and what
                    // nobody knows the wrapping token of to that token's.
                    Err(_) if died && (route != "unwrap" || fault == Fault::CrashAfter && write == LAST_OF_UNWRAP) => {}
                    // Nothing was taken: whoever asks again reads it. Or it is gone.
                    Err(_) => match token {
                        Some(token) => match server.core.handle(unwrap(&token)).await {
                            Ok(answer) => assert!(server.target.has(&lease_of(&answer)), "{context}"),
                            Err(_) => assert!(server.target.roles().is_empty(), "{context}"),
                        },
                        None => assert!(server.target.roles().is_empty(), "{context}"),
                    },
                }
                if !fired {
                    break;
                }
                write += 1;
            }
            assert!(write > 0, "{route} never writes");
        }
    }
}

/// Nothing that is to be wrapped leaves as it is, also while the server seals and can wrap nothing any more.
#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_while_the_server_seals_does_not_leave_unwrapped() {
    let server = std::sync::Arc::new(Server::start().await);
    // Its revocation keeps the server from being sealed for some time.
    let stuck = lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    server.target.stuck.lock().unwrap().insert(stuck.clone());
    let revoke = json!({ "lease_id": stuck.as_str(), "sync": false });
    server.root("sys/leases/revoke", revoke).await.unwrap();
    pass(1).await;
    *server.engine.takes.lock().unwrap() = Duration::from_secs(3);
    let asked = |request: LogicalRequest| {
        let server = server.clone();
        tokio::spawn(async move { server.core.handle(request).await })
    };
    let plain = asked(request(Some(ROOT), Operation::Read, "db/creds/app", Value::Null));
    let wrapped = asked(creds());
    pass(1).await;
    let sealing = {
        let server = server.clone();
        tokio::spawn(async move { server.core.seal().await })
    };
    pass(4).await;
    assert!(plain.await.unwrap().is_ok(), "answers still leave while the server seals");
    assert!(refusal(wrapped.await.unwrap()).starts_with("Sealed"));
    sealing.await.unwrap();
}

/// A token made by a wrapped login is no child of the wrapping token, and outlives it when it was read.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_read_outlives_its_wrapping_token() {
    let server = Server::start().await;
    let made = wrapping(request(Some(ROOT), Operation::Update, "auth/token/create", json!({ "ttl": "1h" })));
    let token = wrapped(&server.core.handle(made).await.unwrap());
    let read = token_of(&server.core.handle(unwrap(&token)).await.unwrap());
    pass(120).await;
    assert!(server.lives(&read).await);
    assert!(!server.lives(&token).await);
}

/// The release of a request is a request within a request, with a decision of its own. What the outer one was decided by must hold as
/// well when the first thing is written: the inner decision, which comes later, must not stand in its place.
#[tokio::test(start_paused = true)]
async fn nothing_is_released_by_a_right_to_unwrap_that_has_ended() {
    let one = Server::start_shared().await;
    let (other, third) = (one.beside().await, one.beside().await);
    one.root("sys/auth/s", json!({ "type": "scripted" })).await.unwrap();
    one.policy("default", "db/creds/app: read").await;
    let asker = one.call(None, Operation::Update, "auth/s/login/ada", json!({})).await.unwrap();
    *one.sandbox.unapproved.lock().unwrap() = Some("db/creds/app");
    let waiting = wrapped(&one.read(&token_of(&asker), "db/creds/app").await.unwrap());
    let unwrapping = (Operation::Update, "sys/wrapping/unwrap", json!({ "token": waiting }));
    let slow = slow_with(&one, &other, "sys/wrapping/unwrap: update", unwrapping).await;
    right_ends(&one).await;
    other.audit.first.unblock();
    assert_eq!(refusal(slow.await.unwrap()), "Denied: permission denied");
    assert!(other.target.roles().is_empty(), "it was carried out");
    // It waits on, for whoever may.
    lease_of(&third.core.handle(unwrap(&waiting)).await.unwrap());
}

/// Each of them takes room, and whoever asks has not been let in yet.
#[tokio::test(start_paused = true)]
async fn an_entity_has_so_many_requests_waiting_on_all_servers_and_no_more() {
    let one = Server::start_shared().await;
    let (other, third) = (one.beside().await, one.beside().await);
    one.root("sys/auth/s", json!({ "type": "scripted" })).await.unwrap();
    one.policy("default", "db/creds/app: read").await;
    let log_in = async |name: &str| {
        token_of(&one.call(None, Operation::Update, &format!("auth/s/login/{name}"), json!({})).await.unwrap())
    };
    let (ada, again, eve) = (log_in("ada").await, log_in("ada").await, log_in("eve").await);
    let servers = [&one, &other, &third];
    for server in servers {
        *server.sandbox.unapproved.lock().unwrap() = Some("db/creds/app");
        server.process.yields.store(true, Ordering::SeqCst);
    }
    let ask = |at: usize, token: &str| {
        let (core, asked) =
            (servers[at % 3].core.clone(), request(Some(token), Operation::Read, "db/creds/app", Value::Null));
        tokio::spawn(async move { core.handle(asked).await })
    };
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for round in 0..51 {
        let asked: Vec<_> = (0..20).map(|at| ask(round + at, if at % 2 == 0 { &ada } else { &again })).collect();
        for answer in asked {
            match answer.await.unwrap() {
                Ok(answer) => waiting.push(wrapped(&answer)),
                other => {
                    assert_eq!(
                        refusal(other),
                        "Invalid: db/creds/app needs approval, and 1000 requests of this entity wait for it already, which is as many as \
                         may: unwrap or revoke some of their wrapping tokens, or wait until they end"
                    );
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((waiting.len(), refused), (1_000, 20));
    ask(0, &eve).await.unwrap().unwrap();
    // Each end makes room: a revocation, a release, and the time that they may wait.
    third.root("auth/token/revoke", json!({ "token": waiting[0] })).await.unwrap();
    *other.sandbox.unapproved.lock().unwrap() = None;
    other.core.handle(unwrap(&waiting[1])).await.unwrap();
    for at in [0, 2] {
        ask(at, &ada).await.unwrap().unwrap();
    }
    assert!(ask(0, &ada).await.unwrap().is_err());
    pass(700).await;
    let ada = log_in("ada").await;
    for _ in 0..3 {
        ask(0, &ada).await.unwrap().unwrap();
    }
    pass(700).await;
    let left = one.process.store.scan(&leasehold_core::keys::Key::new("wait"), None, 100).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}
