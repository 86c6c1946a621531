//! What takes a quorum of shares: attempts that any server goes on with, and what they bring about in one commit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use leasehold_core::keys;
use leasehold_core::request::Object;
use leasehold_core::seams::storage::Storage as _;
use leasehold_core::token::create::First;
use leasehold_model::{Operation, TokenId};
use serde_json::{Value, json};

use super::support::faults::FAULTS;
use super::support::pass;
use super::support::server::{Answer, ROOT, Server, refusal, request};

const OTP: &str = "0123456789ABCDEFGHIJKLMNOP";
const ATTEMPT: &str = "sys/generate-root-token/attempt";
const UPDATE: &str = "sys/generate-root-token/update";

/// Unsealed; three shares, of which two are enough.
pub(super) async fn server() -> (Server, Vec<String>) {
    let server = Server::empty(Vec::new());
    let shares = initialised(&server).await;
    (server, shares)
}

pub(super) async fn initialised(server: &Server) -> Vec<String> {
    let made = server.core.init(3, 2, First::Development(Some(TokenId::new(ROOT)))).await.unwrap();
    open(server, &made.shares.iter().map(|share| hex(&share.0)).collect::<Vec<_>>()).await;
    made.shares.iter().map(|share| hex(&share.0)).collect()
}

pub(super) async fn open(server: &Server, shares: &[String]) {
    for share in &shares[..2] {
        server.core.unseal(&bytes(share)).await.unwrap();
    }
    assert!(!server.core.seal_status().await.unwrap().sealed);
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

pub(super) fn data(answer: Answer) -> Object {
    answer.unwrap().data.unwrap()
}

/// Begins an attempt with the known password; its nonce.
async fn begin(server: &Server) -> String {
    let begun = data(server.root(ATTEMPT, json!({ "otp": OTP })).await);
    begun["nonce"].as_str().unwrap().to_owned()
}

async fn give(server: &Server, share: &str, nonce: &str) -> Answer {
    server.root(UPDATE, json!({ "key": share, "nonce": nonce })).await
}

async fn progress(server: &Server) -> (bool, u64) {
    let status = data(server.read(ROOT, ATTEMPT).await);
    (status["started"] == true, status["progress"].as_u64().unwrap())
}

fn decoded(answer: &Object) -> String {
    let encoded = STANDARD_NO_PAD.decode(answer["encoded_token"].as_str().unwrap()).unwrap();
    String::from_utf8(encoded.iter().zip(OTP.bytes()).map(|(encoded, otp)| encoded ^ otp).collect()).unwrap()
}

pub(super) fn wrong() -> String {
    "11".repeat(33)
}

#[tokio::test(start_paused = true)]
async fn enough_shares_make_a_root_token() {
    let (server, shares) = server().await;
    assert_eq!(progress(&server).await, (false, 0));
    let nonce = begin(&server).await;
    let first = data(give(&server, &shares[2], &nonce).await);
    assert_eq!((&first["complete"], &first["progress"], &first["required"]), (&json!(false), &json!(1), &json!(2)));
    let last = data(give(&server, &shares[0], &nonce).await);
    assert_eq!((&last["complete"], &last["progress"], &last["nonce"]), (&json!(true), &json!(2), &json!(nonce)));
    let token = decoded(&last);
    let found = server.lookup(&token).await.unwrap();
    assert_eq!((&found["policies"], &found["ttl"], &found["orphan"]), (&json!(["root"]), &json!(0), &json!(true)));
    assert_eq!((&found["path"], &found["display_name"]), (&json!("auth/token/root"), &json!("root")));
    assert_eq!(progress(&server).await, (false, 0), "the attempt has ended");
    assert!(refusal(give(&server, &shares[0], &nonce).await).ends_with("no root generation in progress"));
}

#[tokio::test(start_paused = true)]
async fn a_password_is_made_where_none_is_given_and_told_once() {
    let (server, shares) = server().await;
    let begun = data(server.root(ATTEMPT, json!({})).await);
    let otp = begun["otp"].as_str().unwrap().to_owned();
    assert!(otp.len() == 26 && otp.chars().all(|c| c.is_ascii_alphanumeric()), "{otp}");
    assert_eq!(data(server.read(ROOT, ATTEMPT).await)["otp"], "");
    let nonce = begun["nonce"].as_str().unwrap();
    data(give(&server, &shares[0], nonce).await);
    let last = data(give(&server, &shares[1], nonce).await);
    let decode = json!({ "encoded_token": last["encoded_token"], "otp": otp });
    let token = data(server.call(None, Operation::Update, "sys/decode-token", decode).await);
    assert!(server.lives(token["token"].as_str().unwrap()).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_step_of_the_attempt_is_refused_in_vaults_words() {
    let (server, shares) = server().await;
    for (fields, why) in [
        (json!({ "otp": "short" }), "Invalid: OTP string has incorrect length"),
        (json!({ "pgp_key": "x" }), "Invalid: encrypting the root token with a PGP key is not supported"),
        (json!({ "pgp_key": "x", "otp": OTP }), "Invalid: encrypting the root token with a PGP key is not supported"),
    ] {
        let said = refusal(server.root(ATTEMPT, fields).await);
        assert!(said.starts_with(why), "{said}");
    }
    let nonce = begin(&server).await;
    let again = refusal(server.root(ATTEMPT, json!({})).await);
    assert_eq!(again, "Invalid: root generation already in progress for this namespace");
    let short = "11".repeat(15);
    let long = "11".repeat(34);
    for (fields, why) in [
        (json!({ "key": shares[0] }), "Invalid: nonce is required".to_owned()),
        (json!({ "nonce": nonce }), "Invalid: key is required".to_owned()),
        (json!({ "key": "zz", "nonce": nonce }), "Engine: 'key' must be a valid hex or base64 string".to_owned()),
        (
            json!({ "key": short, "nonce": nonce }),
            "Engine: invalid key: key is shorter than minimum 16 bytes".to_owned(),
        ),
        (json!({ "key": long, "nonce": nonce }), "Engine: invalid key: key is longer than maximum 33 bytes".to_owned()),
        (
            json!({ "key": shares[0], "nonce": "x" }),
            format!("Engine: incorrect nonce supplied; nonce for this root generation operation is \"{nonce}\""),
        ),
    ] {
        assert_eq!(refusal(server.root(UPDATE, fields).await), why);
    }
    data(give(&server, &shares[0], &nonce).await);
    let twice = refusal(give(&server, &shares[0], &nonce).await);
    assert_eq!(twice, "Engine: given key has already been provided during this generation operation");
    assert_eq!(progress(&server).await, (true, 1));
    server.call(Some(ROOT), Operation::Delete, ATTEMPT, Value::Null).await.unwrap();
    assert_eq!(progress(&server).await, (false, 0));
    server.call(Some(ROOT), Operation::Delete, ATTEMPT, Value::Null).await.expect("whether or not there is one");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_share_ends_the_progress_and_leaves_the_attempt() {
    let (server, shares) = server().await;
    let nonce = begin(&server).await;
    data(give(&server, &shares[0], &nonce).await);
    for left in [1, 0] {
        assert_eq!(progress(&server).await, (true, left));
        let said = refusal(give(&server, &wrong(), &nonce).await);
        assert!(said.contains("root generation aborted: unable to authenticate"), "{said}");
    }
    data(give(&server, &shares[1], &nonce).await);
    assert_eq!(progress(&server).await, (true, 1), "the share from before does not count any more");
    assert!(server.lives(&decoded(&data(give(&server, &shares[2], &nonce).await))).await);
}

/// Shares may arrive at any server, and any server may be restarted in between.
#[tokio::test(start_paused = true)]
async fn any_server_goes_on_with_the_attempt() {
    let one = Server::start_shared().await;
    let other = one.beside().await;
    let share = hex(&one.share);
    let nonce = begin(&one).await;
    assert_eq!(progress(&other).await, (true, 0));
    let again = refusal(other.root(ATTEMPT, json!({})).await);
    assert!(again.ends_with("already in progress for this namespace"), "{again}");
    let next = other.again();
    next.unseal().await;
    assert!(one.lives(&decoded(&data(give(&next, &share, &nonce).await))).await);
    assert_eq!(progress(&one).await, (false, 0));
}

#[tokio::test(start_paused = true)]
async fn of_two_last_shares_at_once_one_makes_a_token() {
    let one = Server::start_shared().await;
    let other = one.beside().await;
    for server in [&one, &other] {
        server.process.yields.store(true, std::sync::atomic::Ordering::SeqCst);
    }
    let share = hex(&one.share);
    for head_start in 0..12 {
        let nonce = begin(&one).await;
        let tokens = one.process.store.scan(&keys::Key::new("token/id/"), None, 1_000).await.unwrap().len();
        let late = async {
            for _ in 0..head_start {
                tokio::task::yield_now().await;
            }
            give(&other, &share, &nonce).await
        };
        let (first, second) = tokio::join!(give(&one, &share, &nonce), late);
        assert_eq!([&first, &second].iter().filter(|told| told.is_ok()).count(), 1, "{first:?} {second:?}");
        let after = one.process.store.scan(&keys::Key::new("token/id/"), None, 1_000).await.unwrap().len();
        assert_eq!(after, tokens + 1, "{head_start}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_nobody_ends_is_over_after_a_day() {
    let (server, shares) = server().await;
    let nonce = begin(&server).await;
    data(give(&server, &shares[0], &nonce).await);
    pass(86_399).await;
    assert_eq!(progress(&server).await, (true, 1));
    pass(2).await;
    assert_eq!(progress(&server).await, (false, 0));
    assert!(refusal(give(&server, &shares[1], &nonce).await).ends_with("no root generation in progress"));
    let next = begin(&server).await;
    data(give(&server, &shares[1], &next).await);
    assert_eq!(progress(&server).await, (true, 1), "what was given to the old one counts for nothing");
}

/// Whatever fails at whichever write: the token is there and the attempt is over, or neither.
#[tokio::test(start_paused = true)]
async fn a_token_is_stored_with_the_end_of_its_attempt_or_not_at_all() {
    for fault in FAULTS {
        for write in 0..6 {
            let (server, shares) = server().await;
            let nonce = begin(&server).await;
            data(give(&server, &shares[0], &nonce).await);
            server.process.fault_at(write, fault);
            let told =
                tokio::time::timeout(std::time::Duration::from_secs(60), give(&server, &shares[1], &nonce)).await;
            let fired = !server.process.is_armed();
            server.process.disarm();
            let next = server.again();
            open(&next, &shares).await;
            let tokens = next.process.store.scan(&keys::Key::new("token/id/"), None, 1_000).await.unwrap().len();
            let context = format!("{fault:?} at write {write}");
            match progress(&next).await {
                (false, 0) => assert_eq!(tokens, 2, "{context}"),
                (true, 1) => assert_eq!(tokens, 1, "{context}"),
                other => panic!("{context}: {other:?}"),
            }
            if let Ok(Ok(answer)) = told {
                assert!(next.lives(&decoded(&answer.data.unwrap())).await, "{context}");
            }
            if !fired {
                break;
            }
        }
    }
}

/// The only place where a share, the password or the token may stand is the answer.
#[tokio::test(start_paused = true)]
async fn audit_has_neither_share_nor_password_nor_token() {
    let (server, shares) = server().await;
    server.audited().await;
    let nonce = begin(&server).await;
    give(&server, &wrong(), &nonce).await.unwrap_err();
    data(give(&server, &shares[0], &nonce).await);
    let last = data(give(&server, &shares[1], &nonce).await);
    let recorded = server.audit.first.text();
    assert!(recorded.contains("generate-root-token/update"));
    let encoded = last["encoded_token"].as_str().unwrap().to_owned();
    for secret in [&shares[0], &shares[1], &wrong(), &OTP.to_owned(), &encoded, &decoded(&last)] {
        assert!(!recorded.contains(secret.as_str()), "{secret}");
    }
}

/// The old routes: a token as in Vault 2, unless the listener asks for none.
#[tokio::test(start_paused = true)]
async fn the_old_routes_are_let_in_only_where_the_listener_says_so() {
    let (server, shares) = server().await;
    let ask = async |is_let_in: bool, token: Option<&str>, route: &str, data: Value| {
        let asked = request(token, Operation::Update, &format!("sys/generate-root/{route}"), data);
        server.core.handle(leasehold_core::request::LogicalRequest { is_let_in, ..asked }).await
    };
    assert!(refusal(ask(false, None, "attempt", json!({})).await).starts_with("BadToken"));
    assert!(refusal(ask(false, Some("dead"), "attempt", json!({})).await).starts_with("BadToken"));
    let weak = server.token_with("db/x: read").await;
    assert!(refusal(ask(false, Some(&weak), "attempt", json!({})).await).starts_with("Denied"));
    // Nobody who has lost every token is kept out by one that has ended.
    let begun = data(ask(true, Some("dead"), "attempt", json!({ "otp": OTP })).await);
    let nonce = begun["nonce"].as_str().unwrap();
    let step = |share: &String| json!({ "key": share, "nonce": nonce });
    assert_eq!(data(ask(true, None, "update", step(&shares[0])).await)["progress"], 1);
    let last = data(ask(false, Some(ROOT), "update", step(&shares[1])).await);
    assert_eq!((&last["complete"], &last["encoded_root_token"]), (&json!(true), &last["encoded_token"]));
    assert!(server.lives(&decoded(&last)).await);
    // Nothing else is let in.
    let asked = request(None, Operation::Read, "sys/mounts", Value::Null);
    let other = leasehold_core::request::LogicalRequest { is_let_in: true, ..asked };
    assert!(refusal(server.core.handle(other).await).starts_with("BadToken"));
}
