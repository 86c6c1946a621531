//! Counts round trips to a store: a proxy that sees when the talk changes its direction.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Forwards to one address, for as long as the process lives.
#[derive(Debug)]
pub struct Counter {
    pub address: SocketAddr,
    trips: Arc<AtomicU64>,
}

impl Counter {
    pub fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let trips = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&trips);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                let counted = Arc::clone(&counted);
                // Whether the last bytes came from the client.
                let asked = Arc::new(AtomicBool::new(false));
                let (from, to) = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
                let is_asked = Arc::clone(&asked);
                thread::spawn(move || {
                    copy(from, to, || {
                        if !is_asked.swap(true, Ordering::Relaxed) {
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                });
                thread::spawn(move || copy(server, client, || asked.store(false, Ordering::Relaxed)));
            }
        });
        Self { address, trips }
    }

    pub fn so_far(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut()) {
    let _ = to.set_nodelay(true);
    let mut part = [0; 16 << 10];
    while let Ok(read) = from.read(&mut part) {
        if read == 0 {
            break;
        }
        seen();
        if to.write_all(&part[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
