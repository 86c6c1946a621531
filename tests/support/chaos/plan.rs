//! Which faults come when: a plan that follows from its seed.

use std::fmt;
use std::time::Duration;

/// SplitMix64: small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(end).expect("a small number")).expect("a small number")
    }

    pub fn millis(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis(u64::try_from(from + self.below(to - from)).expect("a small number"))
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Where a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Node(usize),
    /// A server of the store; with Patroni there are two.
    Store(usize),
    Target,
    /// The load balancer.
    Balancer,
    /// etcd, which knows which server of the store is the primary.
    Witness,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(at) => write!(f, "node{at}"),
            Self::Store(at) => write!(f, "store{at}"),
            Self::Target => write!(f, "target"),
            Self::Balancer => write!(f, "balancer"),
            Self::Witness => write!(f, "witness"),
        }
    }
}

/// What is done to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; at the end it is started and unsealed.
    Kill(usize),
    /// SIGSTOP, and SIGCONT at the end.
    Pause(usize),
    /// PostgreSQL ends at once, its sessions too, and is started at the end.
    Restart(Place),
    /// PostgreSQL and its sessions are stopped by SIGSTOP.
    Freeze(Place),
    /// Every packet between the two is dropped, in both directions.
    Cut(Place, Place),
    /// The primary of the store is cut off from its standby, then killed by SIGKILL with everything that belongs to it, and comes back at
    /// the end.
    FailOver,
    /// The wall clock is set so many seconds off, and back at the end.
    Bend(Place, i64),
}

impl Fault {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill of a node",
            Self::Pause(_) => "pause of a node",
            Self::Restart(Place::Target) => "restart of the target",
            Self::Restart(_) => "restart of the store",
            Self::Freeze(Place::Target) => "pause of the target",
            Self::Freeze(_) => "pause of the store",
            Self::Cut(..) => "cut",
            Self::FailOver => "fail-over of the store",
            Self::Bend(Place::Node(_), _) => "clock of a node",
            Self::Bend(Place::Target, _) => "clock of the target",
            Self::Bend(..) => "clock of the store",
        }
    }

    /// Whom it concerns: no two faults concern the same place at once, so that each ends as it should.
    fn places(&self) -> Vec<Place> {
        match *self {
            Self::Kill(at) | Self::Pause(at) => vec![Place::Node(at)],
            Self::Restart(place) | Self::Freeze(place) | Self::Bend(place, _) => vec![place],
            Self::Cut(one, other) => vec![one, other],
            Self::FailOver => vec![Place::Store(0), Place::Store(1)],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(at) => write!(f, "kill node{at}"),
            Self::Pause(at) => write!(f, "pause node{at}"),
            Self::Restart(place) => write!(f, "restart {place}"),
            Self::Freeze(place) => write!(f, "pause {place}"),
            Self::Cut(one, other) => write!(f, "cut {one} from {other}"),
            Self::FailOver => write!(f, "kill the primary of the store"),
            Self::Bend(place, by) => write!(f, "set the clock of {place} off by {by} s"),
        }
    }
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Since the beginning of the round.
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// What a world can do to its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub nodes: usize,
    /// Packets can be dropped.
    pub cuts: bool,
    /// Clocks can be set.
    pub clocks: bool,
    /// The store has a standby.
    pub fails_over: bool,
}

/// After a fault its place is left alone for so long, that it may serve again before the next one.
const REST: Duration = Duration::from_secs(6);

/// The faults of a round that lasts for `length`: about one every two seconds, up to three at once.
pub fn plan(seed: u64, length: Duration, abilities: &Abilities) -> Vec<Planned> {
    let mut random = Seeded::new(seed);
    let mut planned: Vec<Planned> = Vec::new();
    let mut at = Duration::from_secs(2);
    while at < length {
        let (fault, lasts) = any(&mut random, abilities);
        let is_free = |place: &Place| {
            planned.iter().all(|other| !other.fault.places().contains(place) || other.at + other.lasts + REST <= at)
        };
        let concurrent = planned.iter().filter(|other| other.at + other.lasts > at).count();
        if concurrent < 3 && fault.places().iter().all(is_free) && at + lasts < length {
            planned.push(Planned { at, lasts, fault });
            at += random.millis(1_000, 3_000);
        } else {
            at += Duration::from_millis(250);
        }
    }
    planned
}

fn any(random: &mut Seeded, abilities: &Abilities) -> (Fault, Duration) {
    let node = random.below(abilities.nodes);
    let store = Place::Store(if abilities.fails_over { random.below(2) } else { 0 });
    loop {
        return match random.below(15) {
            0..=2 => (Fault::Kill(node), random.millis(300, 6_000)),
            3..=5 => (Fault::Pause(node), random.millis(300, 9_000)),
            6 => (Fault::Restart(Place::Target), random.millis(200, 6_000)),
            // Now and then for longer than any statement may take.
            7 if random.below(6) == 0 => (Fault::Freeze(Place::Target), random.millis(36_000, 45_000)),
            7 => (Fault::Freeze(Place::Target), random.millis(500, 6_000)),
            // Patroni lets the standby take over when nothing was heard of the primary for 20 s.
            8 if abilities.fails_over => (Fault::FailOver, random.millis(22_000, 35_000)),
            8 => (Fault::Restart(store), random.millis(200, 4_000)),
            9 => (Fault::Freeze(store), random.millis(300, 5_000)),
            10..=12 if abilities.cuts => {
                let others = [Place::Node((node + 1) % abilities.nodes), store, store, Place::Target, Place::Balancer];
                let cut = match random.below(6) {
                    0 if abilities.fails_over => Fault::Cut(Place::Store(0), Place::Store(1)),
                    1 if abilities.fails_over => Fault::Cut(store, Place::Witness),
                    _ => Fault::Cut(Place::Node(node), random.one_of(&others)),
                };
                (cut, random.millis(500, 10_000))
            }
            13..=14 if abilities.clocks => {
                let place = random.one_of(&[Place::Node(node), store, Place::Target]);
                let by = i64::try_from(random.below(1_201)).expect("a small number") - 600;
                (Fault::Bend(place, by), random.millis(3_000, 20_000))
            }
            _ => continue,
        };
    }
}
