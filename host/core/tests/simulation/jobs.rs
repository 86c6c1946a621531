//! A job of each mount: how long it takes, and what must hold of its runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leasehold_core::seams::error::RequestError;
use leasehold_model::{Timestamp, Ttl};

use super::world::Machine;

pub const EVERY: Ttl = Ttl::from_secs(20);
/// How far a server's idea of the store's time may be from it.
const CLOCK_ERROR_SECS: u64 = 1;

/// Runs, by the mount that they are for.
#[derive(Default)]
pub struct JobModel {
    of: BTreeMap<String, Runs>,
}

#[derive(Default)]
struct Runs {
    /// Lives that are at it.
    under_way: BTreeSet<usize>,
    /// Lives whose run has come to its end, which the store does not know yet.
    through: BTreeSet<usize>,
    /// What the store says of the next one since a run that succeeded.
    next_at: Option<Timestamp>,
    succeeded: u32,
}

impl JobModel {
    /// The row was given back by this life.
    pub fn released(&mut self, mount: &str, life: usize, next_at: Timestamp) {
        let runs = self.of.entry(mount.to_owned()).or_default();
        if runs.through.remove(&life) {
            runs.next_at = Some(next_at);
            runs.succeeded += 1;
        }
    }

    /// How often it was done.
    pub fn succeeded(&self, mount: &str) -> u32 {
        self.of.get(mount).map_or(0, |runs| runs.succeeded)
    }
}

/// One that is given up ends here.
struct UnderWay<'a> {
    machine: &'a Machine,
    mount: &'a str,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut jobs = self.machine.world.jobs.lock().unwrap();
        if let Some(runs) = jobs.of.get_mut(self.mount) {
            runs.under_way.remove(&self.machine.life);
        }
    }
}

/// The claim of a run lasts longer than anything that befalls its server, but its death: so nobody else begins meanwhile.
pub async fn run(machine: &Arc<Machine>, mount: &str) -> Result<(), RequestError> {
    let (world, life) = (&machine.world, machine.life);
    machine.runs().await;
    let now = world.now();
    let complaint = {
        let mut jobs = world.jobs.lock().unwrap();
        let runs = jobs.of.entry(mount.to_owned()).or_default();
        runs.through.remove(&life);
        let other = runs.under_way.iter().find(|other| world.is_alive(**other)).copied();
        let early = runs.next_at.filter(|at| now + Ttl::from_secs(CLOCK_ERROR_SECS) < *at);
        runs.under_way.insert(life);
        match (other, early) {
            (Some(other), _) => Some(format!("while life {other} is at it")),
            (_, Some(at)) => Some(format!("before {}", at.rfc3339())),
            _ => None,
        }
    };
    let under_way = UnderWay { machine, mount };
    world.note(0xB4, format_args!("node {}: the job of {mount} begins", machine.node));
    if let Some(why) = complaint {
        world.complain(format!("life {life} begins the job of {mount} {why}"));
    }
    tokio::time::sleep(world.chance.millis(50, 20_000)).await;
    machine.runs().await;
    drop(under_way);
    if world.chance.percent(10) && !world.is_healed() {
        return Err(RequestError::Engine("it did not work this time".to_owned()));
    }
    world.note(0xB5, format_args!("node {}: the job of {mount} is done", machine.node));
    world.jobs.lock().unwrap().of.entry(mount.to_owned()).or_default().through.insert(life);
    Ok(())
}
