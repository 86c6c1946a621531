//! Clients that keep one connection each and ask again as soon as they have an answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// One answer: status and body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// One keep-alive connection. HTTP/1.1, bodies with a length or in chunks.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn open(address: &str) -> Self {
        Self::over(TcpStream::connect(address).expect("the server listens"))
    }

    /// From an address of its own on loopback: a server that bounds what one address may prove counts each client for itself.
    fn open_as(client: usize, address: &str) -> Self {
        let last = u8::try_from(client + 10).expect("few clients");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 0, last], 0)))?;
            socket.connect(address.parse().expect("an address")).await?.into_std()
        });
        let stream = stream.expect("the server listens");
        stream.set_nonblocking(false).expect("a socket option");
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a socket option");
        Self { stream, buffer: Vec::with_capacity(16 * 1024) }
    }

    pub fn ask(&mut self, request: &[u8]) -> Answer {
        self.stream.write_all(request).expect("the server reads");
        self.buffer.clear();
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill();
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_lowercase();
        let status = text.get(9..12).and_then(|code| code.parse().ok()).expect("a status line");
        let body = if text.contains("transfer-encoding: chunked") {
            self.chunks(head)
        } else {
            let length: usize = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .map_or(0, |length| length.trim().parse().expect("a length"));
            while self.buffer.len() < head + length {
                self.fill();
            }
            self.buffer[head..head + length].to_vec()
        };
        Answer { status, body }
    }

    fn chunks(&mut self, mut at: usize) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = find(&self.buffer[at..], b"\r\n") {
                    break at + end;
                }
                self.fill();
            };
            let length = usize::from_str_radix(String::from_utf8_lossy(&self.buffer[at..line]).trim(), 16)
                .expect("a chunk's length");
            while self.buffer.len() < line + 2 + length + 2 {
                self.fill();
            }
            body.extend_from_slice(&self.buffer[line + 2..line + 2 + length]);
            at = line + 2 + length + 2;
            if length == 0 {
                return body;
            }
        }
    }

    fn fill(&mut self) {
        let mut part = [0; 8192];
        let read = self.stream.read(&mut part).expect("the server answers");
        assert!(read > 0, "the server closed the connection: {}", String::from_utf8_lossy(&self.buffer));
        self.buffer.extend_from_slice(&part[..read]);
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// A request as bytes.
pub fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    with_header(method, path, token, "", body)
}

/// One whose answer is to be wrapped.
pub fn wrapped(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    with_header(method, path, token, "X-Vault-Wrap-TTL: 60\r\n", body)
}

fn with_header(method: &str, path: &str, token: &str, header: &str, body: &str) -> Vec<u8> {
    let token = if token.is_empty() { String::new() } else { format!("X-Vault-Token: {token}\r\n") };
    let length = body.len();
    format!("{method} /v1/{path} HTTP/1.1\r\nHost: bench\r\n{token}{header}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// What a load did.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub requests: usize,
    pub took: Duration,
    pub p99: Duration,
}

impl Done {
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }
}

/// `clients` threads ask for `length`; every answer must have one of `wanted`'s statuses.
pub fn for_time(address: &str, clients: usize, length: Duration, wanted: &[u16], request: &[u8]) -> Done {
    meanwhile(address, clients, wanted, request, || std::thread::sleep(length))
}

/// `clients` threads ask as long as `something` lasts.
pub fn meanwhile(address: &str, clients: usize, wanted: &[u16], request: &[u8], something: impl FnOnce()) -> Done {
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(address);
                    let mut times = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        check(&connection.ask(request), wanted);
                        times.push(asked.elapsed());
                    }
                    times
                })
            })
            .collect();
        something();
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().flat_map(|worker| worker.join().expect("a client ends")).collect()
    });
    done(&mut times, began.elapsed())
}

/// `clients` threads share `requests`, each asked once. Returns the answers' bodies too.
pub fn each_once(address: &str, clients: usize, wanted: &[u16], requests: &[Vec<u8>]) -> (Done, Vec<Vec<u8>>) {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let parts: Vec<(Duration, Vec<u8>)> = std::thread::scope(|scope| {
        let next = &next;
        let workers: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || {
                    let mut connection = Connection::open_as(client, address);
                    let mut parts = Vec::new();
                    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let asked = Instant::now();
                        let answer = connection.ask(request);
                        check(&answer, wanted);
                        parts.push((asked.elapsed(), answer.body));
                    }
                    parts
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a client ends")).collect()
    });
    let took = began.elapsed();
    let (mut times, bodies): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    (done(&mut times, took), bodies)
}

fn check(answer: &Answer, wanted: &[u16]) {
    assert!(wanted.contains(&answer.status), "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
}

fn done(times: &mut [Duration], took: Duration) -> Done {
    times.sort_unstable();
    let p99 = times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
    Done { requests: times.len(), took, p99 }
}
