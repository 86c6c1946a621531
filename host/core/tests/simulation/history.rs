//! One history from its seed: three servers, some clients, what befalls them, and what must hold when all has come to rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::keys;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{LeaseFilter, Page, Storage};

use super::clients::Client;
use super::fate;
use super::model::Grant;
use super::servers::{NODES, Servers};
use super::world::{Breakage, Condition, Weather, World};

/// Each has a policy of its own.
const CLIENTS: usize = 4;
/// Rest is reached at the latest so long after everything works again: a claim of a server that was killed, an effect that hangs, and
/// the waits after failures.
const REST_AFTER_SECS: u64 = 400;

/// How a history ended.
pub struct Outcome {
    pub violations: Vec<String>,
    pub lines: Vec<String>,
    /// Of all that happened.
    pub digest: u64,
}

/// The same seed gives the same history.
pub fn run(seed: u64, broken: Option<Breakage>, keeps_log: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, broken, keeps_log);
        live(&world).await;
        Outcome { violations: world.violations(), lines: world.lines(), digest: world.digest() }
    })
}

async fn live(world: &Arc<World>) {
    world.is_healed.store(true, Ordering::SeqCst);
    world.model().grants.extend((0..CLIENTS).map(|_| Grant::default()));
    world.model().mounts.extend((0..CLIENTS).map(|_| Grant::default()));
    let servers = Servers::start(world, CLIENTS).await;
    // Each has reported by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.is_healed.store(false, Ordering::SeqCst);
    let length = (world.chance.below(4_000) + 2_000) * if world.pace > 1 { 30 } else { 1 };
    world.note(0xF0, format_args!("{:?} weather for {length} ms", world.weather));
    let end = world.millis() + length;
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| tokio::spawn(Client { servers: servers.clone(), number }.live(end))).collect();
    let fate = tokio::spawn(fate::strike(servers.clone(), end));
    if world.weather == Weather::Calm {
        tokio::spawn(watch_ends(world.clone()));
    }
    tokio::time::sleep(Duration::from_millis(length)).await;
    fate.abort();
    heal(&servers).await;
    for client in clients {
        if client.await.is_err() {
            world.complain("a client has panicked".to_owned());
        }
    }
    rest(&servers).await;
    if world.pace > 1 {
        work_goes_on(&servers).await;
    }
}

/// Whatever befell those who were at it.
async fn work_goes_on(servers: &Servers) {
    let world = &servers.world;
    let jobs = LeaseFilter { kind: Some(LeaseKind::Job), ..LeaseFilter::default() };
    let rows = world.store.leases(&jobs, &Page { after: None, limit: 100 }).await.unwrap();
    let mut of_mounts = Vec::new();
    for row in rows.into_iter().filter(|row| row.id.as_str().starts_with("sys/jobs/sweep/")) {
        // That of a mount which was taken away goes by itself, and waits while it is half taken away.
        let is_there = world.store.get(&keys::mount("mount", &row.mount)).await.unwrap().is_some();
        if is_there && world.store.get(&keys::mount_taint(&row.mount)).await.unwrap().is_none() {
            of_mounts.push(row);
        }
    }
    let Some(job) = of_mounts.first() else {
        return world.complain("no row of a job is there".to_owned());
    };
    let done = || world.jobs.lock().unwrap().succeeded(job.mount.as_str());
    let before = done();
    for _ in 0..REST_AFTER_SECS {
        if done() > before {
            return;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    world.complain(format!("{} is not done again", job.id));
}

/// While nothing is in the way, everything ends in time.
async fn watch_ends(world: Arc<World>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (roles, now) = (world.target.roles(), world.millis());
        for id in roles {
            let why = world.model().is_overdue(&id, now);
            if let Some(why) = why {
                world.complain(format!("the role of {id} is there: {why}"));
            }
        }
    }
}

/// Everything works again, and one server is enough.
async fn heal(servers: &Arc<Servers>) {
    let world = &servers.world;
    world.is_healed.store(true, Ordering::SeqCst);
    world.note(0xF1, format_args!("everything works again"));
    world.target.is_down.store(false, Ordering::SeqCst);
    for server in servers.all() {
        server.machine.heal();
    }
    let survivor = world.chance.index(NODES);
    if servers.at(survivor).machine.is_dead() {
        servers.restart(survivor).await;
    }
    for node in (0..NODES).filter(|node| *node != survivor) {
        // Its clients are answered first, unless it was sealed.
        let servers = servers.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            servers.kill(node);
        });
    }
    let server = servers.at(survivor);
    if server.machine.condition() == Condition::Runs {
        server.unseal(&servers.share).await;
    }
}

async fn rows(world: &World) -> Vec<LeaseRow> {
    world.store.leases(&LeaseFilter::default(), &Page { after: None, limit: 10_000 }).await.unwrap()
}

/// Waits until nothing is under way, and holds what is left against what clients were told.
async fn rest(servers: &Servers) {
    let world = &servers.world;
    let mut waited = 0;
    loop {
        let rows = rows(world).await;
        let is_secret = |row: &&LeaseRow| row.kind == LeaseKind::Secret;
        let named: Vec<_> = rows.iter().filter(is_secret).map(|row| row.id.clone()).collect();
        let is_at_rest = rows.iter().all(|row| row.state == LeaseState::Active && row.next_at > world.now());
        let strays = world.target.roles().into_iter().filter(|id| !named.contains(id));
        let strays: Vec<_> = strays.map(|id| id.to_string()).collect();
        if is_at_rest && strays.is_empty() {
            let (now, known) = (world.millis(), world.model().leases());
            for id in known {
                let must_go = world.model().must_be_gone(&id, now);
                let must_stay = world.model().must_live(&id, now);
                if let Some(why) = must_go.filter(|_| world.target.has(&id) || named.contains(&id)) {
                    world.complain(format!("{id} is there in the end: {why}"));
                }
                if let Some(why) = must_stay.filter(|_| !world.target.has(&id) || !named.contains(&id)) {
                    world.complain(format!("{id} is not there in the end: {why}"));
                }
            }
            for row in rows.iter().filter(is_secret).filter(|row| !world.target.has(&row.id)) {
                world.complain(format!("{} is a row without a role", row.id));
            }
            return;
        }
        if waited >= REST_AFTER_SECS {
            for row in rows.iter().filter(|row| row.state != LeaseState::Active || row.next_at <= world.now()) {
                world.complain(format!("{row:?} never comes to rest"));
            }
            for stray in &strays {
                world.complain(format!("the role of {stray} has no row"));
            }
            return;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        waited += 2;
    }
}
