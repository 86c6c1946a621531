//! A kv engine of version 2 with few keys beside one with many: `KEYS=1000000`, on SQLite.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cases::CLIENTS;
use crate::load::{Connection, each_once, for_time, request};
use crate::peer::{Peer, Store};

const FEW: usize = 1_000;
/// In one folder.
const FOLDER: usize = 1_000;

pub fn run(peer: &Peer, many: usize, length: Duration) {
    let sides = [FEW, many].map(|count| measured(peer, count, length));
    println!("\n| kv version 2 on SQLite | {FEW} keys | {many} | ratio |\n|---|---|---|---|");
    for ((what, few), (_, many)) in sides[0].iter().zip(&sides[1]) {
        println!("| {what} | {few:.2} | {many:.2} | {:.2} |", many / few);
    }
}

fn measured(peer: &Peer, count: usize, length: Duration) -> Vec<(&'static str, f64)> {
    eprintln!("{count} keys");
    let mut server = peer.start_durable(Store::Own);
    server.admin("POST", "sys/mounts/k", &json!({ "type": "kv", "options": { "version": "2" } }));
    let root = server.root.clone();
    let write = |n: usize| {
        request("POST", &format!("k/data/f{}/k{n}", n / FOLDER), &root, "{\"data\":{\"a\":\"a value of some length\"}}")
    };
    let began = Instant::now();
    for first in (0..count).step_by(10_000) {
        let part: Vec<Vec<u8>> = (first..count.min(first + 10_000)).map(write).collect();
        each_once(&server.address, CLIENTS, &[200], &part);
    }
    let mut figures = vec![("keys written, per s", count as f64 / began.elapsed().as_secs_f64())];
    figures.push(("resident after that, MiB", server.rss() as f64 / 1_024.0));
    let after = server.restart();
    figures.push(("from the share to the first answer, ms", after.as_secs_f64() * 1_000.0));
    std::thread::sleep(Duration::from_secs(2));
    figures.push(("resident then, MiB", server.rss() as f64 / 1_024.0));
    let middle = count / 2;
    let read = request("GET", &format!("k/data/f{}/k{middle}", middle / FOLDER), &server.root, "");
    let before = server.cpu();
    let done = for_time(&server.address, CLIENTS, length, &[200], &read);
    let cpu = server.cpu().saturating_sub(before).as_secs_f64() * 1_000.0 / done.requests as f64;
    figures.push(("a read: CPU, ms", cpu));
    let write = write(middle);
    let before = server.cpu();
    let done = for_time(&server.address, CLIENTS, length, &[200], &write);
    let cpu = server.cpu().saturating_sub(before).as_secs_f64() * 1_000.0 / done.requests as f64;
    figures.push(("a new version: CPU, ms", cpu));
    for (what, path) in [
        ("the first 100 folders, ms", "k/metadata/?list=true&limit=100".to_owned()),
        ("a folder of 1,000, ms", format!("k/metadata/f{}?list=true", middle / FOLDER)),
    ] {
        let mut connection = Connection::open(&server.address);
        let ask = request("GET", &path, &server.root, "");
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                let began = Instant::now();
                assert_eq!(connection.ask(&ask).status, 200, "{path}");
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        figures.push((what, times[4].as_secs_f64() * 1_000.0));
    }
    figures.push(("resident at the end, MiB", server.rss() as f64 / 1_024.0));
    figures
}
