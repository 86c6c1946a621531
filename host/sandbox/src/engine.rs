//! The one engine and its settings.
//!
//! Start with [`settings`]: every program that compiles or runs a component takes its settings from there, or machine
//! code made by one would not load in the other.

use std::time::Duration;

use tracing::{info, warn};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy, WasmFeatures};

/// How often deadlines are looked at. A call is stopped by this much late at most.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Memory that a slot of the pool keeps between instances. A guest's first memory (64 KiB of stack and its data) fits,
/// so that a new instance costs a memset and no page fault: 4 µs instead of 9.
const KEPT_PER_SLOT: usize = 256 << 10;

/// A guest may grow to this much at most, whatever its own limit says.
pub(crate) const LARGEST_MEMORY: usize = 64 << 20;
/// Elements of one table.
pub(crate) const LARGEST_TABLE: usize = 10_000;
pub(crate) const MEMORIES_PER_COMPONENT: u32 = 4;
pub(crate) const TABLES_PER_COMPONENT: u32 = 8;
pub(crate) const CORE_INSTANCES_PER_COMPONENT: u32 = 32;

/// The parts of WebAssembly that guests may use. All others are switched off by name: which of them the engine could run is decided
/// by features of its crate, which any other crate of the build may turn on.
const PROPOSALS: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::COMPONENT_MODEL);

/// What decides about machine code: `precompile`, the compiling child process and the server agree by this function.
pub(crate) fn settings() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // The same input gives the same bits on every machine.
        .cranelift_nan_canonicalization(true)
        // Fuel is the contract: the same call always ends the same way. Epochs are the net below it, for the wall clock.
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(20))
        // No guest of ours and no toolchain that was tried needs them.
        .wasm_features(WasmFeatures::all().difference(PROPOSALS), false)
        .wasm_component_model(true);
    config
}

/// An engine for compiling only, with no pool behind it.
pub(crate) fn compiling() -> Result<Engine, wasmtime::Error> {
    Engine::new(&settings())
}

/// An engine for running one guest or two, without a pool's reservation.
pub(crate) fn on_demand() -> Result<Engine, wasmtime::Error> {
    let engine = compiling()?;
    tick(&engine)?;
    Ok(engine)
}

/// An engine for machine code that runs on every machine of this architecture, not only on one like this.
///
/// # Errors
/// When this architecture or system is none that components are compiled ahead for.
pub(crate) fn baseline() -> Result<Engine, wasmtime::Error> {
    let mut config = settings();
    // Naming a target, even the present one, switches the detection of this machine's CPU features off.
    let target = match (std::env::consts::ARCH, std::env::consts::OS) {
        ("x86_64", "linux") => "x86_64-unknown-linux-gnu",
        ("aarch64", "linux") => "aarch64-unknown-linux-gnu",
        ("x86_64", "macos") => "x86_64-apple-darwin",
        ("aarch64", "macos") => "aarch64-apple-darwin",
        (arch, os) => return Err(wasmtime::Error::msg(format!("no baseline is known for {arch} on {os}"))),
    };
    config.target(target)?;
    Engine::new(&config)
}

/// Instances that may live at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instances {
    /// Of our own components: one memory, two tables and the encoder's shims.
    pub(crate) shipped: u32,
    /// Of third parties' components, each with as much as the load gate lets it have.
    pub(crate) modules: u32,
}

/// The engine that runs guests, for so many instances, and a thread that lets deadlines come.
///
/// The pool reserves some GiB of addresses for each instance. Where a limit on address space forbids that, instances
/// are made on demand: slower, equally safe.
pub(crate) fn running(wanted: Instances) -> Result<Engine, wasmtime::Error> {
    let instances = wanted.shipped.saturating_add(wanted.modules);
    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(wanted)));
    let engine = match Engine::new(&config) {
        Ok(engine) => {
            info!(instances, "guests run in a pool of {instances} instances");
            engine
        }
        Err(refused) => {
            warn!("no address space for a pool of {instances} instances, making them on demand: {refused:#}");
            Engine::new(&settings())?
        }
    };
    tick(&engine)?;
    Ok(engine)
}

fn pool(wanted: Instances) -> PoolingAllocationConfig {
    let slots = |shipped: u32, module: u32| {
        wanted.shipped.saturating_mul(shipped).saturating_add(wanted.modules.saturating_mul(module))
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots(1, 1))
        .total_core_instances(slots(4, CORE_INSTANCES_PER_COMPONENT))
        .total_memories(slots(1, MEMORIES_PER_COMPONENT))
        .total_tables(slots(2, TABLES_PER_COMPONENT))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .max_memories_per_module(MEMORIES_PER_COMPONENT)
        .max_memory_size(LARGEST_MEMORY)
        .table_elements(LARGEST_TABLE)
        .linear_memory_keep_resident(KEPT_PER_SLOT)
        .table_keep_resident(16 << 10);
    pool
}

/// Counts epochs until the engine is gone.
fn tick(engine: &Engine) -> Result<(), wasmtime::Error> {
    let engine = engine.weak();
    let ticking = std::thread::Builder::new().name("sandbox-epoch".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    });
    ticking.map(drop).map_err(wasmtime::Error::from)
}

/// A wall-clock limit as a number of epochs, never fewer than two: the first may come at once.
pub(crate) fn ticks(wall: Duration) -> u64 {
    let ticks = wall.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX / 2).clamp(2, u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use wasmtime::Module;

    use super::*;

    fn names(features: WasmFeatures) -> Vec<String> {
        features.iter_names().map(|(name, _)| name.to_owned()).collect()
    }

    /// One list would do, if both were of one version of the parser.
    #[test]
    fn the_load_gate_lets_in_what_the_engine_runs_and_nothing_else() {
        let gate: Vec<String> = crate::gate::features().iter_names().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names(PROPOSALS), gate);
    }

    #[test]
    fn every_other_proposal_is_refused_by_the_engine_itself() {
        let engine = compiling().unwrap();
        for (proposal, text) in [
            ("threads", "(module (memory 1 1 shared))"),
            ("memory64", "(module (memory i64 1))"),
            ("custom page sizes", "(module (memory 1 (pagesize 1)))"),
            (
                "garbage collection",
                "(module (type (struct (field i32))) (func (result i32) (struct.get 0 0 (struct.new 0 (i32.const 1)))))",
            ),
            ("function references", "(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))"),
            ("exceptions", "(module (tag $e) (func (throw $e)))"),
            (
                "relaxed SIMD",
                "(module (func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
            ),
            (
                "wide arithmetic",
                "(module (func (param i64 i64) (result i64 i64) (i64.mul_wide_u (local.get 0) (local.get 1))))",
            ),
            (
                "stack switching",
                "(module (type $f (func)) (type $c (cont $f)) (func (param (ref $c)) (resume $c (local.get 0))))",
            ),
        ] {
            let bytes = wat::parse_str(text).unwrap();
            assert!(Module::from_binary(&engine, &bytes).is_err(), "{proposal}");
        }
        for text in ["(module (memory 1) (memory 1))", "(module (func $f (return_call $f)))"] {
            Module::from_binary(&engine, &wat::parse_str(text).unwrap()).unwrap();
        }
        for (proposal, text) in [
            (
                "async",
                "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m)) (func (export \"f\") (canon lift (core func $i \"f\") async)))",
            ),
            ("error contexts", "(component (core func (canon error-context.drop)))"),
        ] {
            let bytes = wat::parse_str(text).unwrap();
            assert!(wasmtime::component::Component::from_binary(&engine, &bytes).is_err(), "{proposal}");
        }
    }
}
