//! Against a real HTTP server, on a clock that the test moves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use leasehold_core::testing::ManualClock;
use serde_json::json;

use super::super::testing::SignKey;
use super::super::{Algorithm, Compact};
use super::*;

/// Answers every GET with what stands in `said`, by its path.
struct Server {
    address: String,
    said: Arc<Mutex<BTreeMap<String, String>>>,
    asked: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
    delay: Arc<Mutex<Duration>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            said: Arc::default(),
            asked: Arc::default(),
            is_down: Arc::default(),
            delay: Arc::default(),
        };
        let (said, asked, is_down, delay) = (
            Arc::clone(&server.said),
            Arc::clone(&server.asked),
            Arc::clone(&server.is_down),
            Arc::clone(&server.delay),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::SeqCst);
                if is_down.load(Ordering::SeqCst) {
                    continue;
                }
                let (said, delay) = (said.lock().unwrap().clone(), *delay.lock().unwrap());
                std::thread::spawn(move || serve(stream, &said, delay));
            }
        });
        server
    }

    fn says(&self, path: &str, text: impl ToString) {
        self.said.lock().unwrap().insert(path.to_owned(), text.to_string());
    }

    fn shows(&self, keys: &[(&str, &SignKey)]) {
        let keys: Vec<_> = keys.iter().map(|(kid, key)| key.jwk(Some(kid))).collect();
        self.says("/keys", json!({ "keys": keys }));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn jwks(&self) -> Source {
        Source::Jwks { url: format!("{}/keys", self.address), ca_pem: String::new() }
    }
}

fn serve(mut stream: TcpStream, said: &BTreeMap<String, String>, delay: Duration) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    std::thread::sleep(delay);
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split([' ', '?']).nth(1).unwrap_or_default();
    let (status, body) = match said.get(path) {
        Some(text) if text.starts_with("302 ") => ("302 Found\r\nLocation: /keys", ""),
        Some(text) => ("200 OK", text.as_str()),
        None => ("404 Not Found", ""),
    };
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
}

struct Fixture {
    server: Server,
    remote: RemoteKeys,
    manual: Arc<ManualClock>,
    clock: Arc<dyn Clock>,
    mount: MountAccessor,
}

impl Fixture {
    fn new() -> Self {
        let manual = Arc::new(ManualClock::at(1_800_000_000));
        Self {
            server: Server::start(),
            remote: RemoteKeys::new(Arc::default()),
            clock: manual.clone(),
            manual,
            mount: MountAccessor::new("auth_jwt_00000001"),
        }
    }

    async fn keys(&self, source: &Source) -> Result<Arc<KeySet>, String> {
        self.remote.keys(&self.mount, source, &self.clock).await
    }

    async fn newer(&self, client: &str, seen: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        self.remote.newer(&self.mount, &self.server.jwks(), &self.clock, client.parse().ok(), seen).await
    }

    fn advance(&self, length: Duration) {
        self.manual.advance(length);
    }
}

fn key() -> SignKey {
    SignKey::for_algorithm(Algorithm::Es256)
}

fn takes(keys: &KeySet, kid: &str, key: &SignKey) -> bool {
    Compact::read(&key.token(Some(kid), &json!({}))).unwrap().verify(keys).is_ok()
}

#[tokio::test]
async fn keys_are_fetched_once_and_used_until_they_are_five_minutes_old() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    for _ in 0..3 {
        assert!(takes(&at.keys(&at.server.jwks()).await.unwrap(), "a", &key));
    }
    at.advance(FRESH - Duration::from_nanos(1));
    at.keys(&at.server.jwks()).await.unwrap();
    assert_eq!(at.server.asked(), 1);
    at.server.shows(&[("b", &key)]);
    at.advance(Duration::from_nanos(1));
    let keys = at.keys(&at.server.jwks()).await.unwrap();
    assert!(takes(&keys, "b", &key) && !takes(&keys, "a", &key), "a key that was withdrawn is refused");
    assert_eq!(at.server.asked(), 2);
}

#[tokio::test]
async fn many_logins_at_once_make_one_request() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    *at.server.delay.lock().unwrap() = Duration::from_millis(200);
    let source = at.server.jwks();
    let found = futures_util::future::join_all((0..50).map(|_| at.keys(&source))).await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!(at.server.asked(), 1);
}

#[tokio::test]
async fn a_provider_that_is_away_leaves_its_keys_in_use_for_six_hours() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    at.keys(&at.server.jwks()).await.unwrap();
    at.server.is_down.store(true, Ordering::SeqCst);
    at.advance(FRESH);
    assert!(takes(&at.keys(&at.server.jwks()).await.unwrap(), "a", &key));
    let asked = at.server.asked();
    at.keys(&at.server.jwks()).await.unwrap();
    assert_eq!(at.server.asked(), asked, "it is left alone for a while");
    at.advance(STALE_MAX - FRESH - Duration::from_nanos(1));
    assert!(at.keys(&at.server.jwks()).await.is_ok());
    at.advance(Duration::from_nanos(1));
    let why = at.keys(&at.server.jwks()).await.unwrap_err();
    assert!(why.contains("does not answer"), "{why}");
    at.advance(AGAIN);
    assert!(at.keys(&at.server.jwks()).await.is_err());
    // It comes back.
    at.server.is_down.store(false, Ordering::SeqCst);
    at.advance(AGAIN);
    assert!(at.keys(&at.server.jwks()).await.is_ok());
}

/// Logins wait two seconds for newer keys, and go on with those that are there.
#[tokio::test]
async fn a_provider_that_is_slow_holds_no_login_up_that_has_keys() {
    let (at, old, new) = (Fixture::new(), key(), key());
    at.server.shows(&[("old", &old)]);
    at.keys(&at.server.jwks()).await.unwrap();
    at.server.shows(&[("new", &new)]);
    *at.server.delay.lock().unwrap() = PATIENCE + Duration::from_millis(500);
    at.advance(FRESH);
    assert!(takes(&at.keys(&at.server.jwks()).await.unwrap(), "old", &old));
    // What comes later is there for the next login.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(takes(&at.keys(&at.server.jwks()).await.unwrap(), "new", &new));
    assert_eq!(at.server.asked(), 2);
}

/// However many sources there are, only so many requests are under way, and only so many wait.
#[tokio::test]
async fn requests_to_other_servers_are_bounded_over_all_sources() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    *at.server.delay.lock().unwrap() = Duration::from_millis(100);
    let sources: Vec<Source> = (0..300)
        .map(|n| Source::Jwks { url: format!("{}/keys?n={n}", at.server.address), ca_pem: String::new() })
        .collect();
    let found = futures_util::future::join_all(sources.iter().map(|source| at.keys(source))).await;
    let busy = found.iter().filter(|one| one.as_ref().is_err_and(|why| why.contains("under way"))).count();
    assert_eq!((busy, at.server.asked()), (44, 256));
    // What had no place has not failed, and is fetched by the next login.
    assert!(at.keys(&sources[299]).await.is_ok());
}

/// After a fetch that failed, nobody who has keys waits for the next one.
#[tokio::test]
async fn a_provider_that_has_failed_and_is_slow_delays_no_login_that_has_keys() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    at.keys(&at.server.jwks()).await.unwrap();
    at.server.is_down.store(true, Ordering::SeqCst);
    at.advance(FRESH);
    at.keys(&at.server.jwks()).await.unwrap();
    at.server.is_down.store(false, Ordering::SeqCst);
    *at.server.delay.lock().unwrap() = PATIENCE + Duration::from_secs(1);
    at.advance(AGAIN);
    let asked = at.server.asked();
    let found = tokio::time::timeout(PATIENCE / 2, at.keys(&at.server.jwks())).await;
    assert!(takes(&found.expect("it does not wait").unwrap(), "a", &key));
    while at.server.asked() == asked {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A request that took long is followed by a rest, too.
#[test]
fn a_source_rests_after_its_fetch_has_ended() {
    let mut state = State { tried_at: Some(Duration::from_secs(100)), ..State::default() };
    let failure = || Err(Unfetched::Answer("x".to_owned()));
    state.take(failure(), Duration::from_secs(110), "a");
    assert!(!state.may_ask_again(None, Duration::from_secs(119)));
    assert!(state.may_ask_again(None, Duration::from_secs(120)));
    state.take(Err(FetchError::Busy.into()), Duration::from_secs(120), "a");
    assert_eq!((state.tried_at, state.failure.as_str()), (None, "x"), "a server that was busy was not tried");
}

/// A server that leaves requests unanswered has one place, and the servers of other mounts have theirs.
#[tokio::test]
async fn a_silent_server_takes_up_one_place_and_delays_no_other_mount() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/keys", silent.local_addr().unwrap());
    let (fetcher, other) = (Fetcher::default(), MountAccessor::new("auth_jwt_00000002"));
    let asked = || fetcher.get(&at.mount, &address, "");
    let many = futures_util::future::join_all((0..100).map(|_| asked()));
    let healthy = async {
        let url = format!("{}/keys", at.server.address);
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::time::timeout(Duration::from_secs(5), fetcher.get(&other, &url, "")).await
    };
    let (many, healthy) = tokio::join!(tokio::time::timeout(Duration::from_secs(20), many), healthy);
    healthy.expect("it has places of its own").unwrap();
    let many = many.expect("the wait for a place counts");
    let busy = many.iter().filter(|one| matches!(one, Err(FetchError::Busy))).count();
    assert!(many.iter().all(Result::is_err) && busy >= 36, "{busy}");
    let two = tokio::time::timeout(Duration::from_secs(20), futures_util::future::join(asked(), asked())).await;
    let (first, second) = two.unwrap();
    assert!(first.unwrap_err().to_string().contains("not within 8 s"));
    assert!(second.unwrap_err().to_string().contains("tried once at a time"));
}

#[tokio::test]
async fn an_unknown_key_id_has_keys_fetched_again_at_a_bounded_rate() {
    let (at, old, new) = (Fixture::new(), key(), key());
    at.server.shows(&[("old", &old)]);
    let seen = at.keys(&at.server.jwks()).await.unwrap();
    assert!(at.newer("10.0.0.1", &seen).await.is_none(), "they have just come");
    assert_eq!(at.server.asked(), 1);
    at.advance(AGAIN);
    // Nothing new is there.
    let seen = at.newer("10.0.0.1", &seen).await.unwrap();
    assert!(!takes(&seen, "new", &new));
    assert_eq!(at.server.asked(), 2);
    at.server.shows(&[("old", &old), ("new", &new)]);
    for client in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        assert!(at.newer(client, &seen).await.is_none(), "{client}: the source was asked a moment ago");
    }
    at.advance(AGAIN);
    assert!(at.newer("10.0.0.1", &seen).await.is_none(), "this address has had its turn");
    assert_eq!(at.server.asked(), 2);
    let keys = at.newer("10.0.0.2", &seen).await.unwrap();
    assert!(takes(&keys, "new", &new) && takes(&keys, "old", &old));
    assert_eq!(at.server.asked(), 3);
    // Whoever comes with keys seen before gets those that are there, and asks nobody.
    assert!(takes(&at.newer("10.0.0.1", &seen).await.unwrap(), "new", &new));
    assert_eq!(at.server.asked(), 3);
    // A minute later the first address may ask again.
    at.advance(AGAIN_FROM_ADDRESS);
    let seen = at.keys(&at.server.jwks()).await.unwrap();
    assert!(at.newer("10.0.0.1", &seen).await.is_some());
}

/// A thousand addresses with keys that nobody has: the provider hears of it once in a while.
#[tokio::test]
async fn a_flood_of_unknown_key_ids_asks_the_provider_every_ten_seconds_at_most() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    let mut seen = at.keys(&at.server.jwks()).await.unwrap();
    for second in 0..60_u8 {
        for host in 0..20_u8 {
            if let Some(keys) = at.newer(&format!("10.0.{second}.{host}"), &seen).await {
                seen = keys;
            }
        }
        at.advance(Duration::from_secs(1));
    }
    assert!(at.server.asked() <= 7, "{}", at.server.asked());
}

#[tokio::test]
async fn a_providers_configuration_leads_to_its_keys() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    let issuer = at.server.address.clone();
    let source = Source::Discovery { issuer: issuer.clone(), ca_pem: String::new() };
    let (document, keys) = ("/.well-known/openid-configuration", format!("{issuer}/keys"));
    at.server.says(document, json!({ "issuer": issuer, "jwks_uri": keys }));
    assert!(takes(&at.keys(&source).await.unwrap(), "a", &key));
    for (said, why) in [
        (json!({ "issuer": format!("{issuer}/"), "jwks_uri": keys }), "of another issuer"),
        (json!({ "issuer": "https://accounts.example", "jwks_uri": keys }), "of another issuer"),
        (json!({ "issuer": issuer }), "no configuration of an OpenID provider"),
        (
            json!({ "issuer": issuer, "jwks_uri": "http://169.254.169.254/latest" }),
            "plain http is taken to localhost only",
        ),
        (json!({ "issuer": issuer, "jwks_uri": "file:///etc/passwd" }), "cannot be used"),
        (json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/nothing") }), "answered 404"),
        (json!([]), "no configuration of an OpenID provider"),
    ] {
        at.server.says(document, &said);
        let found = at.remote.probe(&at.mount, &source).await.unwrap_err();
        assert!(found.contains(why), "{said}: {found}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_key_set_or_too_large_or_leads_elsewhere_is_refused() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    for (said, why) in [
        ("<html>secret</html>".to_owned(), "no JSON Web Key Set"),
        ("{\"keys\":[]}".to_owned(), "no public key"),
        ("x".repeat(600 << 10), "longer than 512 KiB"),
        ("302 ".to_owned(), "redirects are not followed"),
    ] {
        at.server.says("/odd", &said);
        let source = Source::Jwks { url: format!("{}/odd?code=hush", at.server.address), ca_pem: String::new() };
        let found = at.remote.probe(&at.mount, &source).await.unwrap_err();
        assert!(found.contains(why) && !found.contains("secret") && !found.contains("hush"), "{found}");
    }
}

#[tokio::test]
async fn what_a_mount_has_fetched_is_forgotten_with_it() {
    let (at, key) = (Fixture::new(), key());
    at.server.shows(&[("a", &key)]);
    at.keys(&at.server.jwks()).await.unwrap();
    at.remote.forget(&at.mount);
    at.keys(&at.server.jwks()).await.unwrap();
    assert_eq!(at.server.asked(), 2);
}
