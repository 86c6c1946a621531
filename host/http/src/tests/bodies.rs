//! Attack A4: what somebody without a token may send, and for how long.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::served;
use crate::RequestLimits;

const SMALL: usize = 64 << 10;

fn json_of(length: usize) -> Vec<u8> {
    let frame = "{\"k\":\"\"}".len();
    format!("{{\"k\":\"{}\"}}", "x".repeat(length - frame)).into_bytes()
}

#[tokio::test]
async fn only_a_living_token_may_send_a_large_body() {
    let served = served(RequestLimits::default()).await;
    for (token, length, withheld) in [
        ("", SMALL, false),
        ("X-Vault-Token: s.unknown", SMALL, false),
        ("", SMALL + 1, true),
        ("X-Vault-Token: s.unknown", SMALL + 1, true),
        ("X-Vault-Token: s.known", SMALL + 1, false),
        ("Authorization: Bearer s.known", 1 << 20, false),
        ("X-Vault-Token: s.unknown\r\nContent-Type: application/wasm", SMALL + 1, true),
    ] {
        let head = format!("POST /v1/a HTTP/1.1\r\n{token}").trim_end().to_owned();
        let answer = served.ask(&head, &json_of(length)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{token} {length}: {answer}");
        assert!(answer.contains(&format!("\"withheld\":{withheld}")), "{token} {length}");
        assert_eq!(answer.contains("\"data\":{},\"raw\":null"), withheld, "{token} {length}");
        assert!(!withheld || answer.contains("connection: close"), "the rest was not read: {answer}");
    }
}

/// What announces itself as too large is answered before a byte of it has come.
#[tokio::test]
async fn megabytes_are_refused_by_their_announcement() {
    let served = served(RequestLimits::default()).await;
    let head =
        format!("POST /v1/a HTTP/1.1\r\nHost: x\r\nX-Vault-Token: s.unknown\r\nContent-Length: {}\r\n\r\n", 31 << 20);
    let mut stream = served.send(head.as_bytes()).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\"withheld\":true"), "{answer}");
}

/// The same without an announcement: reading stops by itself.
#[tokio::test]
async fn megabytes_in_chunks_are_refused_at_the_bound() {
    let served = served(RequestLimits::default()).await;
    let mut stream = served.send(b"POST /v1/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [format!("{:x}\r\n", 16 << 10).into_bytes(), vec![b' '; 16 << 10], b"\r\n".to_vec()].concat();
    for _ in 0..5 {
        // The answer may close the connection before the last of them.
        let _ = stream.write_all(&chunk).await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(String::from_utf8_lossy(&answer).contains("\"withheld\":true"));
}

#[tokio::test]
async fn a_slow_body_has_time_only_with_a_living_token() {
    let limits = RequestLimits { unknown_body_time: Duration::from_millis(50), ..RequestLimits::default() };
    let served = served(limits).await;
    for (token, status) in [("s.unknown", "503"), ("s.known", "200")] {
        let head = format!(
            "POST /v1/a HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {token}\r\nConnection: close\r\nContent-Length: 8\r\n\r\n{{\"a\":"
        );
        let mut stream = served.send(head.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let _ = stream.write_all(b"17}").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{token}: {answer}");
        assert!(status == "503" || answer.contains("\"data\":{\"a\":17}"), "{token}: {answer}");
    }
}

#[tokio::test]
async fn slow_bodies_take_no_place_from_requests_without_one() {
    let served = served(RequestLimits { requests_max: 1, ..RequestLimits::default() }).await;
    let slow = served.send(b"POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n{").await;
    // The only place for bodies is taken from the moment that another one is refused.
    while !served.ask("POST /v1/a HTTP/1.1", b"{}").await.starts_with("HTTP/1.1 503 ") {
        tokio::task::yield_now().await;
    }
    let answer = served.ask("GET /v1/a HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(slow);
    while !served.ask("POST /v1/a HTTP/1.1", b"{}").await.starts_with("HTTP/1.1 200 ") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_address_has_a_share_of_the_bodies() {
    let served = served(RequestLimits { bodies_per_address_max: 1, ..RequestLimits::default() }).await;
    let slow = served.send(b"POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n{").await;
    while !served.ask("POST /v1/a HTTP/1.1", b"{}").await.starts_with("HTTP/1.1 503 ") {
        tokio::task::yield_now().await;
    }
    drop(slow);
    while !served.ask("POST /v1/a HTTP/1.1", b"{}").await.starts_with("HTTP/1.1 200 ") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn proofs_in_bodies_have_a_budget_for_each_address() {
    let served = served(RequestLimits { proofs_per_second: 1, proofs_burst: 2, ..RequestLimits::default() }).await;
    let login = async || served.ask("POST /v1/auth/userpass/login/u HTTP/1.1\r\nX-Vault-Token: s.known", b"{}").await;
    assert!(login().await.starts_with("HTTP/1.1 200 "));
    assert!(login().await.starts_with("HTTP/1.1 200 "));
    let mut refused = login().await;
    for _ in 0..20 {
        // A slow machine may have filled in one more.
        if refused.starts_with("HTTP/1.1 429 ") {
            break;
        }
        refused = login().await;
    }
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("retry-after: 1\r\n"), "{refused}");
    let said = "{\"errors\":[\"request path \\\"auth/userpass/login/u\\\": rate limit quota exceeded\"]}\n";
    assert!(refused.ends_with(said), "{refused}");
    let other = served.ask("POST /v1/auth/token/create HTTP/1.1", b"{}").await;
    assert!(other.starts_with("HTTP/1.1 200 "), "{other}");
    let health = served.ask("GET /v1/sys/health HTTP/1.1", b"").await;
    assert!(health.starts_with("HTTP/1.1 503 "), "a probe is no proof: {health}");
}

/// A file is kept on disk, and only of who may send it is a byte read; the core says what the others hear.
#[tokio::test]
async fn a_file_is_taken_only_of_who_may_send_it() {
    let limits = RequestLimits { file_max: 3 << 20, body_max: 1 << 20, ..RequestLimits::default() };
    let served = served(limits).await;
    let path = "/v1/sys/storage/raft/snapshot";
    for (token, length, taken) in [
        ("s.operator", 3 << 20, Some(3 << 20)),
        ("s.operator", 0, Some(0)),
        ("s.known", 100, None),
        ("s.known", 2 << 20, None),
        ("s.unknown", 2 << 20, None),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nX-Vault-Token: {token}\r\nContent-Type: application/gzip");
        let answer = served.ask(&head, &vec![7; length]).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{token} {length}: {answer}");
        let shown = taken.map_or("null".to_owned(), |taken: usize| taken.to_string());
        assert!(
            answer.contains(&format!("\"data\":{{}},\"raw\":null,\"upload\":{shown},\"withheld\":false")),
            "{answer}"
        );
    }
    let head = format!("POST {path} HTTP/1.1\r\nX-Vault-Token: s.operator");
    let answer = served.ask(&head, &vec![7; (3 << 20) + 1]).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // Elsewhere such a body is an ordinary one.
    let answer = served.ask("POST /v1/sys/storage HTTP/1.1\r\nX-Vault-Token: s.operator", b"{}").await;
    assert!(answer.contains("\"upload\":null"), "{answer}");
}

/// One at a time: each of them takes place on the disk.
#[tokio::test]
async fn a_second_file_is_not_taken_while_one_comes() {
    let limits = RequestLimits { header_time: Duration::from_millis(600), ..RequestLimits::default() };
    let served = served(limits).await;
    let head =
        "POST /v1/sys/storage/raft/snapshot HTTP/1.1\r\nHost: x\r\nX-Vault-Token: s.operator\r\nConnection: close";
    let mut slow = served.send(format!("{head}\r\nContent-Length: 8\r\n\r\n1234").as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = served.ask("POST /v1/sys/storage/raft/snapshot HTTP/1.1\r\nX-Vault-Token: s.operator", b"x").await;
    assert!(second.starts_with("HTTP/1.1 503 "), "{second}");
    // The first one stops for too long.
    let mut answer = String::new();
    let _ = slow.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let third = served.ask("POST /v1/sys/storage/raft/snapshot HTTP/1.1\r\nX-Vault-Token: s.operator", b"x").await;
    assert!(third.contains("\"upload\":1"), "{third}");
}
