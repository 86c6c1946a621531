//! Field case R5: what an answer hands out is kept only if all of the answer was written to the socket.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use leasehold_core::request::HandedOut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{peer, prepared, served};
use crate::RequestLimits;
use crate::serve::Connection;

/// A connection in memory whose buffer holds this many bytes in either direction.
struct InMemory {
    client: DuplexStream,
    undelivered: mpsc::UnboundedReceiver<HandedOut>,
    serving: JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

fn in_memory(buffer: usize, is_http2: bool) -> InMemory {
    let (client, server) = duplex(buffer);
    let (stop, stopped) = watch::channel(false);
    let prepared = prepared(RequestLimits::default());
    let connection = Connection { frontend: prepared.frontend, rules: Arc::default(), stop: stopped };
    let serving = tokio::spawn(async move { connection.answer(server, peer(), is_http2).await });
    InMemory { client, undelivered: prepared.undelivered, serving, _stop: stop }
}

async fn taken_back(undelivered: &mut mpsc::UnboundedReceiver<HandedOut>) -> HandedOut {
    tokio::time::timeout(Duration::from_secs(10), undelivered.recv()).await.expect("nothing was taken back").unwrap()
}

fn what(handed_out: &HandedOut) -> (Option<&str>, Option<&str>) {
    (handed_out.lease.as_ref().map(|lease| lease.as_str()), handed_out.token.as_ref().map(|token| token.expose()))
}

#[tokio::test]
async fn what_was_written_stays_with_its_client() {
    for path in ["lease", "token"] {
        let mut connection = in_memory(64, false);
        let request = format!("GET /v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        connection.client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("}\n"), "{answer}");
        connection.serving.await.unwrap();
        assert!(connection.undelivered.try_recv().is_err(), "{path}");
    }
}

/// The protocol has taken all of the body, and the socket only the beginning of it.
#[tokio::test]
async fn http1_gives_back_what_was_polled_and_not_written() {
    for (path, expected) in [("lease", (Some("lease/x"), None)), ("token", (None, Some("s.new")))] {
        let mut connection = in_memory(64, false);
        let request = format!("GET /v1/{path} HTTP/1.1\r\nHost: x\r\n\r\n");
        connection.client.write_all(request.as_bytes()).await.unwrap();
        let mut beginning = [0; 32];
        connection.client.read_exact(&mut beginning).await.unwrap();
        assert!(beginning.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(connection.undelivered.try_recv().is_err(), "the client is still there");
        drop(connection.client);
        assert_eq!(what(&taken_back(&mut connection.undelivered).await), expected, "{path}");
    }
}

/// The same over TCP, where the kernel's buffers take their part.
#[tokio::test]
async fn a_client_that_closes_before_it_reads_keeps_no_lease() {
    let mut served = served(RequestLimits::default()).await;
    let mut stream = served.send(b"GET /v1/large-lease HTTP/1.1\r\nHost: x\r\n\r\n").await;
    stream.read_exact(&mut [0; 17]).await.unwrap();
    drop(stream);
    assert_eq!(what(&taken_back(&mut served.undelivered).await), (Some("lease/x"), None));
}

async fn over_http2(window: u32, reads: bool) -> InMemory {
    let mut connection = in_memory(64 << 10, true);
    let (client, _) = duplex(1);
    let client = std::mem::replace(&mut connection.client, client);
    let (requests, driver) =
        h2::client::Builder::new().initial_window_size(window).handshake::<_, bytes::Bytes>(client).await.unwrap();
    let driver = tokio::spawn(driver);
    let mut requests = requests.ready().await.unwrap();
    let request = Request::get("https://x/v1/lease").body(()).unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    if reads {
        while let Some(chunk) = answer.data().await {
            let length = chunk.unwrap().len();
            answer.flow_control().release_capacity(length).unwrap();
        }
    } else {
        // All that the window allows has arrived: the rest waits in the server's queue.
        answer.data().await.unwrap().unwrap();
        assert!(connection.undelivered.try_recv().is_err(), "the client is still there");
    }
    driver.abort();
    connection
}

#[tokio::test]
async fn http2_gives_back_what_its_window_held_up() {
    let mut connection = over_http2(16, false).await;
    assert_eq!(what(&taken_back(&mut connection.undelivered).await), (Some("lease/x"), None));
}

#[tokio::test]
async fn http2_leaves_what_was_written_however_small_the_window() {
    for window in [16, 65_535] {
        let mut connection = over_http2(window, true).await;
        connection.serving.await.unwrap();
        assert!(connection.undelivered.try_recv().is_err(), "window {window}");
    }
}

/// An answer that is a file comes whole, with its length, whatever the size of the socket's buffers.
#[tokio::test]
async fn a_file_is_sent_whole() {
    let served = served(RequestLimits::default()).await;
    let answer = served.ask("GET /v1/file HTTP/1.1\r\nX-Vault-Token: s.known", b"").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-disposition: attachment"), "{head}");
    assert!(head.contains("content-type: application/gzip") && head.contains("content-length: 3000000"), "{head}");
    assert_eq!(body.len(), 3_000_000);
    assert!(body.bytes().zip(0_u32..).all(|(byte, at)| u32::from(byte) == u32::from(b'a') + at % 23));
}
