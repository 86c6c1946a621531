//! One guest's store: its limits, and why it stopped.
//!
//! Must not know: what the guest computes.
//!
//! Invariant: a store whose guest did not come to its end is never entered again; its owner drops it.

use leasehold_core::seams::sandbox::SandboxError;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{Engine, PoolConcurrencyLimitError, ResourceLimiter, Store, Trap, WasmBacktrace};

use crate::config::Budget;
use crate::engine::{self, CORE_INSTANCES_PER_COMPONENT, MEMORIES_PER_COMPONENT, TABLES_PER_COMPONENT};

/// Bytes of a guest's own words that reach an error.
const MAX_WORDS: usize = 1024;

/// What the host keeps beside a guest.
#[derive(Debug)]
pub(crate) struct Guest {
    memory_max: usize,
    table_max: usize,
    memory: usize,
    denied: Option<Denied>,
    /// Given back when the store is dropped.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    Memory { wanted: usize },
    Table { wanted: usize },
}

impl Guest {
    /// Bytes of linear memory in use.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, wasmtime::Error> {
        // Over all memories of the component together.
        let wanted = self.memory.saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_max {
            self.denied = Some(Denied::Memory { wanted });
            return Ok(false);
        }
        self.memory = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool, wasmtime::Error> {
        if desired > self.table_max {
            self.denied = Some(Denied::Table { wanted: desired });
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_PER_COMPONENT as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_COMPONENT as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_COMPONENT as usize
    }
}

/// A store that has nothing in it yet. `place` is held until it is dropped.
pub(crate) fn fresh(engine: &Engine, budget: &Budget, place: Option<OwnedSemaphorePermit>) -> Store<Guest> {
    let guest =
        Guest { memory_max: budget.memory, table_max: budget.table_elements, memory: 0, denied: None, _place: place };
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| guest);
    // Bounds what the host allocates for an answer: a list may name the same string a million times.
    store.set_hostcall_fuel(budget.answer);
    store.set_max_component_handles(10_000);
    store
}

/// Fills up the fuel and sets the deadline for what comes next.
pub(crate) fn arm(store: &mut Store<Guest>, budget: &Budget) -> Result<(), SandboxError> {
    store.set_epoch_deadline(engine::ticks(budget.wall));
    refuel(store, budget.fuel)
}

/// Fills up the fuel and leaves the deadline where it is.
pub(crate) fn refuel(store: &mut Store<Guest>, fuel: u64) -> Result<(), SandboxError> {
    store.data_mut().denied = None;
    store.set_fuel(fuel).map_err(|error| SandboxError::Host(format!("{error:#}")))
}

/// Fuel that was used since the last [`arm`] or [`refuel`].
pub(crate) fn used(store: &Store<Guest>, given: u64) -> u64 {
    store.get_fuel().map_or(given, |left| given.saturating_sub(left))
}

/// Why the guest came to no end.
pub(crate) fn stopped(store: &Store<Guest>, error: &wasmtime::Error) -> SandboxError {
    let Some(trap) = error.downcast_ref::<Trap>() else { return not_a_trap(store, error) };
    match (trap, store.data().denied) {
        (Trap::OutOfFuel, _) => SandboxError::Fuel,
        (Trap::Interrupt, _) => SandboxError::Time,
        // A guest that gets no memory mostly gives up with `unreachable`: the limit is the cause.
        (_, Some(Denied::Memory { .. })) => SandboxError::Memory,
        (_, Some(Denied::Table { wanted })) => SandboxError::Trap(table_text(wanted, store.data().table_max)),
        (trap, None) => SandboxError::Trap(format!("{}{}", kind(*trap), frames(error))),
    }
}

fn not_a_trap(store: &Store<Guest>, error: &wasmtime::Error) -> SandboxError {
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return SandboxError::Busy;
    }
    match store.data().denied {
        // An instance whose first memory or table is too large is not made at all.
        Some(Denied::Memory { .. }) => SandboxError::Memory,
        Some(Denied::Table { wanted }) => SandboxError::Trap(table_text(wanted, store.data().table_max)),
        // No valid UTF-8, a pointer to nowhere, a case that does not exist, more than the host will copy.
        None => SandboxError::Answer(words(&format!("{error:#}"))),
    }
}

fn table_text(wanted: usize, allowed: usize) -> String {
    format!("a table of {wanted} elements was wanted, {allowed} are allowed")
}

fn kind(trap: Trap) -> String {
    let text = trap.to_string();
    text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned()
}

/// The innermost functions, by the names that the module gives them.
fn frames(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let named = trace.frames().iter().take(5).map(|frame| {
        let name = frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), str::to_owned);
        words(&name.chars().take(80).collect::<String>())
    });
    let named: Vec<_> = named.collect();
    if named.is_empty() { String::new() } else { format!(" in {}", named.join(" < ")) }
}

/// Whether a terminal shows it and nothing else happens: control characters, and those that turn the direction of what
/// follows, are an author's way to an operator's screen.
pub(crate) fn is_harmless(letter: char) -> bool {
    let turns =
        matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(letter, '\u{2028}' | '\u{2029}');
    !letter.is_control() && !turns && !breaks
}

/// A guest's own words, short and on one line.
pub(crate) fn words(text: &str) -> String {
    let mut short = String::new();
    for letter in text.chars() {
        if short.len() + letter.len_utf8() > MAX_WORDS {
            short.push('…');
            break;
        }
        short.push(if is_harmless(letter) { letter } else { ' ' });
    }
    short
}
