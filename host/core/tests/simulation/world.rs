//! What outlives a process: store, database, time, the list of servers; and what is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use leasehold_core::seams::host::Clock;
use leasehold_core::seams::nodes::Node;
use leasehold_core::seams::storage::Key;
use leasehold_core::testing::CountingEntropy;
use leasehold_model::Timestamp;
use leasehold_storage::MemoryStorage;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::chance::Chance;
use super::jobs::JobModel;
use super::model::Model;
use super::target::Target;

/// 2026-11-23 00:00:00 UTC, by the store's clock.
const START: i64 = 1_795_392_000;

/// A rule that somebody has broken by hand: the checker must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// The store moves and removes rows whatever fence and state they are named with.
    FencesIgnored,
    /// The store takes any version for the one that a commit names.
    VersionsIgnored,
    /// The clock by which one server reckons its cache lease stands still: that lease never ends.
    CacheLeaseNeverEnds,
    /// A change has its number before it can be seen, as from a sequence: one that comes later may be seen earlier. Changes take turns at
    /// the digest over them as well, which would hide it: that goes with it.
    NumbersFromASequence,
}

/// The server whose clock stands still when [`Breakage::CacheLeaseNeverEnds`].
pub const STOPPED: usize = 2;

/// How a history is hindered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Small delays, and nothing fails.
    Calm,
    /// One server at a time is paused, cut off, killed or sealed, or its clock is set.
    Rough,
    /// As rough, more often, with long delays, and store and database fail as well.
    Storm,
}

/// The store's clock, which is also true time.
pub struct TrueClock(Instant);

impl Clock for TrueClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(START) + self.0.elapsed()
    }

    fn steady(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What the store says of changes under the cached prefix.
#[derive(Default)]
pub struct ChangeLog {
    pub handed_out: u64,
    pub visible: Vec<(u64, Key)>,
}

impl ChangeLog {
    pub fn draw(&mut self) -> u64 {
        self.handed_out += 1;
        self.handed_out
    }

    pub fn last(&self) -> u64 {
        self.visible.iter().map(|(number, _)| *number).max().unwrap_or_default()
    }
}

/// The servers on the list, by the id in their reports.
#[derive(Default)]
pub struct Members {
    pub listed: BTreeMap<String, Member>,
    /// Lives that are not on the list.
    pub expelled: BTreeSet<usize>,
}

pub struct Member {
    pub node: Node,
    pub life: usize,
    pub stored_at: Timestamp,
}

pub struct World {
    pub chance: Chance,
    pub clock: Arc<TrueClock>,
    pub store: Arc<MemoryStorage>,
    pub entropy: Arc<CountingEntropy>,
    pub changes: Mutex<ChangeLog>,
    pub members: Mutex<Members>,
    pub target: Target,
    pub jobs: Mutex<JobModel>,
    pub model: Mutex<Model>,
    pub weather: Weather,
    pub broken: Option<Breakage>,
    /// Nothing fails any more, and nothing is slow.
    pub is_healed: AtomicBool,
    /// How many times slower than usual clients ask: a history long enough for jobs.
    pub pace: u64,
    /// Lives of servers so far, and those of them that were killed.
    lives: Mutex<usize>,
    killed: Mutex<BTreeSet<usize>>,
    log: Mutex<Log>,
}

/// What has happened, in order.
struct Log {
    /// Kept only when somebody will read it.
    lines: Option<Vec<String>>,
    /// Over all that happened, also when no lines are kept.
    digest: u64,
    violations: Vec<String>,
}

impl World {
    pub fn new(seed: u64, broken: Option<Breakage>, keeps_log: bool) -> Arc<Self> {
        let chance = Chance::new(seed);
        let clock = Arc::new(TrueClock(Instant::now()));
        let weather = match chance.below(8) {
            0 => Weather::Calm,
            1..=4 => Weather::Rough,
            _ => Weather::Storm,
        };
        let pace = if chance.below(40) == 0 { 12 } else { 1 };
        Arc::new(Self {
            chance,
            store: Arc::new(MemoryStorage::new(clock.clone())),
            clock,
            entropy: Arc::default(),
            changes: Mutex::default(),
            members: Mutex::default(),
            target: Target::default(),
            jobs: Mutex::default(),
            model: Mutex::default(),
            weather,
            broken,
            is_healed: AtomicBool::new(false),
            pace,
            lives: Mutex::default(),
            killed: Mutex::default(),
            log: Mutex::new(Log { lines: keeps_log.then(Vec::new), digest: 0xCBF2_9CE4_8422_2325, violations: vec![] }),
        })
    }

    pub fn is_broken(&self, breakage: Breakage) -> bool {
        self.broken == Some(breakage)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Since the history began.
    pub fn millis(&self) -> u64 {
        u64::try_from(self.clock.steady().as_millis()).unwrap()
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    pub fn new_life(&self) -> usize {
        let mut lives = self.lives.lock().unwrap();
        *lives += 1;
        *lives
    }

    pub fn is_alive(&self, life: usize) -> bool {
        !self.killed.lock().unwrap().contains(&life)
    }

    /// A step of the history. `code` tells it from others where no text is kept.
    pub fn note(&self, code: u64, text: Arguments<'_>) {
        let millis = self.millis();
        let mut log = self.log.lock().unwrap();
        for part in [millis, code] {
            log.digest = (log.digest ^ part).wrapping_mul(0x0000_0100_0000_01B3);
        }
        if let Some(lines) = &mut log.lines {
            lines.push(format!("{millis:>7} ms  {text}"));
        }
    }

    pub fn complain(&self, text: String) {
        self.note(u64::MAX, format_args!("VIOLATION: {text}"));
        self.log.lock().unwrap().violations.push(text);
    }

    pub fn violations(&self) -> Vec<String> {
        self.log.lock().unwrap().violations.clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.log.lock().unwrap().lines.clone().unwrap_or_default()
    }

    pub fn digest(&self) -> u64 {
        self.log.lock().unwrap().digest
    }

    pub fn is_healed(&self) -> bool {
        self.is_healed.load(Ordering::SeqCst)
    }

    /// How long a message is on its way.
    pub async fn on_the_way(&self) {
        let draw = self.chance.below(1_000);
        let length = match (self.weather, draw) {
            _ if self.is_healed() => Duration::ZERO,
            (Weather::Storm, 0..20) => self.chance.millis(50, 400),
            (Weather::Storm, 20..120) | (Weather::Rough, 0..20) => self.chance.millis(5, 60),
            (_, 900..) => self.chance.millis(1, 5),
            _ => Duration::ZERO,
        };
        match draw % 3 {
            _ if !length.is_zero() => tokio::time::sleep(length).await,
            0 => tokio::task::yield_now().await,
            _ => {}
        }
    }
}

/// What a machine does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Runs,
    /// Frozen, while time goes on.
    Paused,
    /// Killed. What it had sent may still arrive.
    Dead,
}

/// What one life of a server runs on.
pub struct Machine {
    pub world: Arc<World>,
    /// Which of the three.
    pub node: usize,
    pub life: usize,
    condition: Mutex<Condition>,
    /// Wakes in the order in which they wait, which a watch does not.
    changed: Notify,
    pub is_cut_from_store: AtomicBool,
    pub is_cut_from_target: AtomicBool,
    /// Its reports get lost, and what others have changed; everything else passes.
    pub is_cut_from_news: AtomicBool,
    born: Duration,
    /// Its clock on the wall, against true time.
    pub wall_offset: AtomicI64,
}

impl Machine {
    pub fn new(world: &Arc<World>, node: usize) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            node,
            life: world.new_life(),
            condition: Mutex::new(Condition::Runs),
            changed: Notify::new(),
            is_cut_from_store: AtomicBool::new(false),
            is_cut_from_target: AtomicBool::new(false),
            is_cut_from_news: AtomicBool::new(false),
            born: world.clock.steady(),
            wall_offset: AtomicI64::new(0),
        })
    }

    pub fn set(&self, condition: Condition) {
        {
            let mut now = self.condition.lock().unwrap();
            // Nobody comes back from the dead.
            if *now == Condition::Dead {
                return;
            }
            *now = condition;
        }
        if condition == Condition::Dead {
            self.world.killed.lock().unwrap().insert(self.life);
        }
        self.changed.notify_waiters();
    }

    pub fn condition(&self) -> Condition {
        *self.condition.lock().unwrap()
    }

    pub fn is_dead(&self) -> bool {
        self.condition() == Condition::Dead
    }

    /// Returns when the machine runs. Never, when it is dead.
    pub async fn runs(&self) {
        self.wait_for(Condition::Runs).await;
    }

    pub async fn dies(&self) {
        self.wait_for(Condition::Dead).await;
    }

    async fn wait_for(&self, wanted: Condition) {
        loop {
            let changed = self.changed.notified();
            if self.condition() == wanted {
                return;
            }
            changed.await;
        }
    }

    /// Stands still from this moment on, for so long.
    pub fn pause(self: &Arc<Self>, length: Duration) {
        self.world.note(0xE0, format_args!("node {} is paused for {} ms", self.node, length.as_millis()));
        self.set(Condition::Paused);
        let machine = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(length).await;
            machine.set(Condition::Runs);
            machine.world.note(0xE1, format_args!("node {} goes on", machine.node));
        });
    }

    pub fn heal(&self) {
        self.is_cut_from_store.store(false, Ordering::SeqCst);
        self.is_cut_from_target.store(false, Ordering::SeqCst);
        self.is_cut_from_news.store(false, Ordering::SeqCst);
        self.set(Condition::Runs);
    }
}

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        let nanos = self.world.now().as_nanos() + self.wall_offset.load(Ordering::SeqCst);
        Timestamp::from_nanos(nanos)
    }

    fn steady(&self) -> Duration {
        match self.world.is_broken(Breakage::CacheLeaseNeverEnds) && self.node == STOPPED {
            true => self.born,
            false => self.world.clock.steady(),
        }
    }
}
