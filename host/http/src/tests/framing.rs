//! Where HTTP allows no body there is none, in either version of the protocol.

use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::{peer, prepared, served};
use crate::RequestLimits;
use crate::serve::Connection;

const STATUSES: [u16; 8] = [200, 204, 205, 299, 304, 404, 429, 503];

fn has_body(method: &str, status: u16) -> bool {
    method == "GET" && !matches!(status, 204 | 205 | 304)
}

/// The scripted server is sealed, so `sealedcode` chooses any status.
fn uri(status: u16) -> String {
    format!("/v1/sys/health?sealedcode={status}")
}

/// Field case S1: `sys/health?activecode=204` was followed by 315 bytes that clients took for the next answer.
#[tokio::test]
async fn http1_answers_without_a_body_are_followed_by_the_next_answer() {
    let served = served(RequestLimits::default()).await;
    for status in STATUSES {
        for method in ["GET", "HEAD"] {
            let first = format!("{method} {} HTTP/1.1\r\nHost: x\r\n\r\n", uri(status));
            let next = "GET /v1/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let mut stream = served.send(format!("{first}{next}").as_bytes()).await;
            let mut answers = String::new();
            stream.read_to_string(&mut answers).await.unwrap();
            let (head, rest) = answers.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {status}: {answers}");
            assert!(!head.contains("transfer-encoding"), "{method} {status}: {answers}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let rest = if has_body(method, status) {
                let length: usize = length.unwrap().parse().unwrap();
                assert_eq!(&rest[..length], "{\"sealed\":true}\n", "{method} {status}");
                &rest[length..]
            } else {
                // RFC 9110 §15.3.6 lets 205 say that its length is zero, and HTTP/1 needs that.
                assert!(length.is_none_or(|length| status == 205 && length == "0"), "{method} {status}: {answers}");
                rest
            };
            assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{method} {status}: {answers}");
            assert!(rest.contains("\"path\":\"next\""), "{method} {status}: {answers}");
        }
    }
}

/// Field case S1: HTTP/2 clients ended the connection with PROTOCOL_ERROR.
#[tokio::test]
async fn http2_answers_without_a_body_end_their_stream() {
    let (client, server) = tokio::io::duplex(64 << 10);
    let (_stop, stop) = watch::channel(false);
    let frontend = prepared(RequestLimits::default()).frontend;
    let connection = Connection { frontend, rules: Arc::default(), stop };
    tokio::spawn(async move { connection.answer(server, peer(), true).await });
    let (mut requests, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    for status in STATUSES {
        for method in ["GET", "HEAD"] {
            let uri = format!("https://x{}", uri(status));
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            requests = requests.ready().await.unwrap();
            let (answer, _) = requests.send_request(request, true).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), StatusCode::from_u16(status).unwrap(), "{method} {status}");
            let (head, mut body) = answer.into_parts();
            let mut bytes = Vec::new();
            while let Some(chunk) = body.data().await {
                bytes.extend_from_slice(&chunk.unwrap_or_else(|error| panic!("{method} {status}: {error}")));
            }
            let expected = if has_body(method, status) { "{\"sealed\":true}\n" } else { "" };
            assert_eq!(String::from_utf8(bytes).unwrap(), expected, "{method} {status}");
            let length = head.headers.get("content-length").map(|length| length.to_str().unwrap());
            assert_eq!(length.is_some(), has_body(method, status), "{method} {status}");
            assert_eq!(content_type(&head.headers), status != 304, "{method} {status}");
        }
    }
}

/// It stands on 204, too; a 304 describes nothing.
fn content_type(headers: &HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|kind| kind == "application/json")
}

#[tokio::test]
async fn a_refusal_of_head_has_no_body_either() {
    let served = served(RequestLimits::default()).await;
    let mut stream = served.send(b"HEAD /v1/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    stream.flush().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}
