//! The front end over real connections, with a scripted pipeline behind it.

mod bodies;
mod delivery;
mod framing;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::connection::ConnectionInfo;
use leasehold_core::request::{Attachment, AuthAnswer, HandedOut, LeaseAnswer, LogicalRequest, LogicalResponse, Shape};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::snapshot::Spool;
use leasehold_core::testing::CountingEntropy;
use leasehold_model::{Timestamp, TokenId, Ttl};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};

use crate::listener::Peer;
use crate::{Frontend, Pipeline, RequestLimits, serve};

/// Echoes what it was asked; `slow` answers when told to, `lease` hands out a lease, `token` a token.
struct Scripted {
    undelivered: mpsc::UnboundedSender<HandedOut>,
    began: Notify,
    go_on: Notify,
    dropped: Arc<AtomicU32>,
}

struct CountsDrop(Arc<AtomicU32>);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Pipeline for Scripted {
    async fn handle(self: Arc<Self>, request: LogicalRequest) -> Result<LogicalResponse, RequestError> {
        match request.path.as_str() {
            "slow" => {
                let _here = CountsDrop(Arc::clone(&self.dropped));
                self.began.notify_one();
                self.go_on.notified().await;
                Ok(LogicalResponse::json(json!({"slow": true})))
            }
            "lease" | "large-lease" => {
                let id = "lease/x".parse().map_err(|_| RequestError::NotFound)?;
                let lease = LeaseAnswer { id, renewable: true, ttl: Ttl::from_secs(60) };
                // More than the buffers of two sockets hold together.
                let length = if request.path == "lease" { 1 } else { 32 << 20 };
                let data = json!({"password": "p".repeat(length)});
                Ok(LogicalResponse { lease: Some(lease), ..LogicalResponse::json(data) })
            }
            "sys/storage/raft/snapshot" | "sys/storage" => Ok(LogicalResponse::json(json!({
                "data": request.data,
                "raw": request.raw_body.map(|body| body.len()),
                "upload": request.upload.map(|file| file.len()),
                "withheld": request.body_withheld,
            }))),
            "file" => {
                let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| b'a' + at.rem_euclid(23).to_le_bytes()[0]).collect();
                let mut file = tempfile::tempfile().unwrap();
                std::io::Write::write_all(&mut file, &bytes).unwrap();
                let spool = Arc::new(Spool::new(file, bytes.len() as u64));
                let attachment = Some(Attachment { spool, kind: "application/gzip" });
                Ok(LogicalResponse { attachment, ..LogicalResponse::default() })
            }
            "token" => Ok(LogicalResponse { auth: Some(new_token()), ..LogicalResponse::default() }),
            "sys/health" => Ok(LogicalResponse::json(json!({"sealed": true})).shaped(Shape::Plain).with_status(503)),
            "broken" => Err(RequestError::Internal("the password is hunter2".to_owned())),
            _ => Ok(LogicalResponse::json(json!({
                "operation": request.operation,
                "path": request.path,
                "data": request.data,
                "raw": request.raw_body.map(|body| body.len()),
                "withheld": request.body_withheld,
                "token": request.token.is_some(),
                "client": request.client.is_some(),
            }))),
        }
    }

    async fn metrics(self: Arc<Self>, _: LogicalRequest) -> LogicalResponse {
        LogicalResponse::json(json!({"metrics": "for everybody"})).shaped(Shape::Plain)
    }

    async fn knows(&self, token: &TokenId, _: Option<IpAddr>) -> bool {
        token.expose() == "s.known"
    }

    async fn may_upload(&self, token: &TokenId, _: &str, _: Option<IpAddr>) -> bool {
        token.expose() == "s.operator"
    }

    fn undelivered(self: Arc<Self>, handed_out: HandedOut) {
        let _ = self.undelivered.send(handed_out);
    }
}

fn new_token() -> AuthAnswer {
    AuthAnswer {
        display_name: String::new(),
        issued_at: Timestamp::NEVER,
        client_token: Some(TokenId::new("s.new")),
        accessor: "accessor".to_owned(),
        policies: Vec::new(),
        metadata: None,
        ttl: Ttl::from_secs(60),
        renewable: true,
        token_type: "service",
        orphan: false,
        num_uses: 0,
        is_new: true,
        identity: None,
    }
}

struct Served {
    address: std::net::SocketAddr,
    pipeline: Arc<Scripted>,
    undelivered: mpsc::UnboundedReceiver<HandedOut>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

struct Prepared {
    frontend: Arc<Frontend>,
    pipeline: Arc<Scripted>,
    undelivered: mpsc::UnboundedReceiver<HandedOut>,
}

fn prepared(limits: RequestLimits) -> Prepared {
    let (sender, undelivered) = mpsc::unbounded_channel();
    let pipeline =
        Arc::new(Scripted { undelivered: sender, began: Notify::new(), go_on: Notify::new(), dropped: Arc::default() });
    let frontend = Frontend::new(pipeline.clone(), Arc::new(CountingEntropy::default()), limits);
    Prepared { frontend, pipeline, undelivered }
}

/// What the listener knows of a client on this machine.
fn peer() -> Peer {
    let info = ConnectionInfo::of_peer(([127, 0, 0, 1], 4711).into());
    Peer { info, rules: Arc::default() }
}

async fn served(limits: RequestLimits) -> Served {
    let Prepared { frontend, pipeline, undelivered } = prepared(limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(serve::serve(listener.into(), frontend, stopped, Duration::from_secs(5)));
    Served { address, pipeline, undelivered, stop, serving }
}

impl Served {
    async fn send(&self, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream
    }

    /// One request on a connection of its own; the whole answer.
    async fn ask(&self, head: &str, body: &[u8]) -> String {
        let head = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut stream = self.send(&[head.as_bytes(), body].concat()).await;
        let mut answer = Vec::new();
        // A refused body may end in a reset; what was answered before counts.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn a_request_travels_through() {
    let served = served(RequestLimits::default()).await;
    let answer = served.ask("POST /v1/a/b%20c?x=1 HTTP/1.1\r\nX-Vault-Token: s.x", b"{\"k\":\"<v>\"}").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for part in [
        "cache-control: no-store",
        "content-type: application/json",
        "strict-transport-security: max-age=31536000; includeSubDomains",
        "\"data\":{\"operation\":\"update\",\"path\":\"a/b c\",\"data\":{\"k\":\"\\u003cv\\u003e\"},\"raw\":null,\"withheld\":false,\"token\":true,\"client\":true}",
        "\"auth\":null}\n",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let raw = served.ask("PUT /v1/sys/modules/x HTTP/1.1\r\nContent-Type: application/wasm", b"\0asm").await;
    assert!(raw.contains("\"raw\":4"), "{raw}");
    let list = served.ask("LIST /v1/a?after=b HTTP/1.1", b"").await;
    assert!(list.contains("\"operation\":\"list\",\"path\":\"a/\",\"data\":{\"after\":\"b\"}"), "{list}");
}

#[tokio::test]
async fn health_answers_with_the_code_that_was_asked_for() {
    let served = served(RequestLimits::default()).await;
    let answer = served.ask("HEAD /v1/sys/health?sealedcode=299 HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 299 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "HEAD has no body: {answer}");
    let answer = served.ask("GET /v1/sys/health HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("{\"sealed\":true}\n"), "{answer}");
}

#[tokio::test]
async fn large_inputs_are_refused_before_anybody_is_asked() {
    let served = served(RequestLimits { body_max: 1_000, ..RequestLimits::default() }).await;
    let body = served.ask("POST /v1/a HTTP/1.1\r\nX-Vault-Token: s.known", &[b'x'; 1_001]).await;
    assert!(body.starts_with("HTTP/1.1 413 ") && body.contains("connection: close"), "{body}");
    assert!(body.ends_with("{\"errors\":[\"http: request body too large\"]}\n"), "{body}");
    let path = served.ask(&format!("GET /v1/{} HTTP/1.1", "a".repeat(10_000)), b"").await;
    assert!(path.starts_with("HTTP/1.1 414 "), "{path}");
    let headers = served.ask(&format!("GET /v1/a HTTP/1.1\r\nX-Big: {}", "a".repeat(15_000)), b"").await;
    assert!(headers.starts_with("HTTP/1.1 200 "), "{headers}");
    let headers = served.ask(&format!("GET /v1/a HTTP/1.1\r\nX-Big: {}", "a".repeat(16 << 10)), b"").await;
    assert!(headers.starts_with("HTTP/1.1 431 "), "{headers}");
    let many = served.ask(&format!("GET /v1/a HTTP/1.1{}", "\r\nX-A: b".repeat(200)), b"").await;
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
}

#[tokio::test]
async fn what_broke_here_is_not_told_to_the_client() {
    let served = served(RequestLimits::default()).await;
    let answer = served.ask("GET /v1/broken HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("internal error, request id "), "{answer}");
    assert!(!answer.contains("hunter2"), "{answer}");
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_handler() {
    let served = served(RequestLimits::default()).await;
    let stream = served.send(b"GET /v1/slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    served.pipeline.began.notified().await;
    drop(stream);
    while served.pipeline.dropped.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_has_its_time_and_no_more() {
    let served = served(RequestLimits { request_time: Duration::from_millis(50), ..RequestLimits::default() }).await;
    let answer = served.ask("GET /v1/slow HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("context deadline exceeded"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let limits = RequestLimits { first_header_time: Duration::from_millis(50), ..RequestLimits::default() };
    let served = served(limits).await;
    for begun in [b"GET /v1/a HT".as_slice(), b""] {
        let mut stream = served.send(begun).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
    }
}

/// A3 of the attack: one client must not hold all places.
#[tokio::test]
async fn one_address_has_a_share_of_the_connections() {
    let served = served(RequestLimits { connections_per_address_max: 1, ..RequestLimits::default() }).await;
    let holds = served.send(b"").await;
    // The first may not have been accepted yet when the second connects: the second is accepted after it.
    let mut second = served.send(b"").await;
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "the second connection is closed");
    drop(holds);
    while !served.ask("GET /v1/a HTTP/1.1", b"").await.starts_with("HTTP/1.1 200 ") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn more_requests_than_allowed_are_told_to_wait() {
    let served = served(RequestLimits { requests_max: 1, ..RequestLimits::default() }).await;
    let mut slow = served.send(b"GET /v1/slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    served.pipeline.began.notified().await;
    let refused = served.ask("GET /v1/a HTTP/1.1", b"").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    served.pipeline.go_on.notify_one();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\"slow\":true"), "{answer}");
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way() {
    let served = served(RequestLimits::default()).await;
    let mut slow = served.send(b"GET /v1/slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    served.pipeline.began.notified().await;
    served.stop.send(true).unwrap();
    while TcpStream::connect(served.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    served.pipeline.go_on.notify_one();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\"slow\":true"), "{answer}");
    served.serving.await.unwrap();
}
