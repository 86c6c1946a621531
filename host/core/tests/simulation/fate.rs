//! What befalls servers, store and database.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::servers::{NODES, Servers};
use super::world::Weather;

/// Until `end`. What has begun by then is taken back by whoever heals.
pub async fn strike(servers: Arc<Servers>, end: u64) {
    let world = servers.world.clone();
    let (least, limit) = match world.weather {
        Weather::Calm => return,
        Weather::Rough => (500, 4_000),
        Weather::Storm => (100, 2_500),
    };
    loop {
        tokio::time::sleep(world.chance.millis(least, limit * (1 + world.pace / 4))).await;
        if world.millis() >= end {
            return;
        }
        let node = world.chance.index(NODES);
        let length = match world.chance.below(3) {
            0 => world.chance.millis(50, 500),
            1 => world.chance.millis(1_500, 2_800),
            _ => world.chance.millis(500, 5_000),
        };
        let servers = servers.clone();
        // In Rough weather one thing comes after the other.
        let blow = tokio::spawn(async move { befall(&servers, node, length).await });
        if world.weather == Weather::Rough {
            let _ = blow.await;
        }
    }
}

async fn befall(servers: &Servers, node: usize, length: Duration) {
    let world = &servers.world;
    let server = servers.at(node);
    let machine = &server.machine;
    let millis = length.as_millis();
    let is_storm = world.weather == Weather::Storm;
    match world.chance.below(if is_storm { 13 } else { 11 }) {
        0..3 => {
            machine.pause(length);
            tokio::time::sleep(length).await;
        }
        3..6 => {
            world.note(0xE2, format_args!("node {node} is cut off from the store for {millis} ms"));
            machine.is_cut_from_store.store(true, Ordering::SeqCst);
            tokio::time::sleep(length).await;
            machine.is_cut_from_store.store(false, Ordering::SeqCst);
            world.note(0xE3, format_args!("node {node} reaches the store"));
        }
        6 => {
            world.note(0xE4, format_args!("node {node} is killed, and starts in {millis} ms"));
            servers.kill(node);
            tokio::time::sleep(length).await;
            if !world.is_healed() {
                servers.restart(node).await;
            }
        }
        7 => {
            world.note(0xE5, format_args!("node {node} is sealed for {millis} ms"));
            let sealed = async {
                server.core.seal().await;
                tokio::time::sleep(length).await;
                server.unseal(&servers.share).await;
            };
            tokio::select! {
                biased;
                () = machine.dies() => {}
                () = sealed => world.note(0xE6, format_args!("node {node} is unsealed")),
            }
        }
        8 => {
            let seconds = i64::try_from(world.chance.below(14_400)).unwrap() - 7_200;
            world.note(0xE7, format_args!("the clock of node {node} is set by {seconds} s"));
            machine.wall_offset.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
        }
        9 => {
            world.note(0xE8, format_args!("node {node} is cut off from the database for {millis} ms"));
            machine.is_cut_from_target.store(true, Ordering::SeqCst);
            tokio::time::sleep(length).await;
            machine.is_cut_from_target.store(false, Ordering::SeqCst);
        }
        10 => {
            world.note(0xEB, format_args!("node {node} hears of no change for {millis} ms"));
            machine.is_cut_from_news.store(true, Ordering::SeqCst);
            tokio::time::sleep(length).await;
            machine.is_cut_from_news.store(false, Ordering::SeqCst);
        }
        11 => {
            world.note(0xE9, format_args!("the database is down for {millis} ms"));
            world.target.is_down.store(true, Ordering::SeqCst);
            tokio::time::sleep(length).await;
            world.target.is_down.store(false, Ordering::SeqCst);
        }
        _ => {
            world.note(0xEA, format_args!("the store is away for {millis} ms"));
            let all = servers.all();
            all.iter().for_each(|server| server.machine.is_cut_from_store.store(true, Ordering::SeqCst));
            tokio::time::sleep(length).await;
            all.iter().for_each(|server| server.machine.is_cut_from_store.store(false, Ordering::SeqCst));
        }
    }
}
