//! What the sandbox is built from, and how much a guest may have.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How much one call may use. Whichever limit is met first ends it; a call that is ended never counts as an allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Units of fuel, about one per instruction. The first limit to bite: the same input always uses the same.
    pub fuel: u64,
    /// By the wall clock.
    pub wall: Duration,
    /// Bytes, over all linear memories of the component; 64 MiB at most.
    pub memory: usize,
    /// Of one table.
    pub table_elements: usize,
    /// Bytes that the host copies out of the guest for one answer.
    pub answer: usize,
}

/// Limits of everything. The defaults are the product's; tests use smaller ones.
#[derive(Clone, Debug)]
pub struct GuestLimits {
    /// One ACL decision. A set of 20 policies with 50 rules each uses about 12,000 units.
    pub decide: Budget,
    /// Compiling a policy set, or reading one policy. 1,000 rules use 17 million units.
    pub compile_acl: Budget,
    /// Checking or rendering the statements of one role.
    pub statements: Budget,
    /// A module's `describe` and `evaluate`; the deadline counts for `configure` and `evaluate` together.
    pub evaluate: Budget,
    /// Fuel of a module's `configure`.
    pub configure_fuel: u64,
    /// ACL decisions at a time; one more is refused as busy.
    pub acl_at_once: u32,
    /// Policy sets that are compiled at a time, be it for one decision only. Half of them may be for the same set; what comes on top
    /// waits. As many questions that take as long as a hundred decisions are answered at a time, in places of their own.
    pub compiles_at_once: u32,
    /// The same for wide sets, which keep nobody else waiting.
    pub wide_compiles_at_once: u32,
    /// Bytes of the texts of a set beyond which it is a wide one: some 800 rules, 10 ms of compiling.
    pub wide_set: usize,
    /// How long a compilation waits for one of `compiles_at_once`; then the request fails with `Busy`.
    pub compile_patience: Duration,
    pub statements_at_once: u32,
    /// Decisions of modules that run at a time, over all bindings. Times [`GuestLimits::evaluate`]'s memory, this bounds what
    /// modules may use together.
    pub modules_at_once: u32,
    /// Decisions that run at a time for one binding …
    pub binding_at_once: u32,
    /// … decisions that wait for one of these places …
    pub binding_queue: u32,
    /// … and how long they wait; then the judgement fails with `Busy`.
    pub binding_patience: Duration,
    /// Warm ACL instances that are kept while idle …
    pub warm: usize,
    /// … and those for wide sets.
    pub warm_wide: usize,
    /// A warm instance is replaced after so many calls …
    pub warm_calls: u32,
    /// … or when it is this old …
    pub warm_age: Duration,
    /// … or when its memory has grown to so many bytes.
    pub warm_memory: usize,
    /// Policy sets that one warm instance holds.
    pub warm_sets: usize,
    /// Policy sets that are known by their id …
    pub known_sets: usize,
    /// … and the bytes of their texts.
    pub known_bytes: usize,
    /// One in so many answers of warm ACL instances is compared with a fresh one's; zero: none is.
    pub shadow_one_in: u64,
    /// Bytes of one request for the ACL: path, keys, and values that rules name.
    pub request: usize,
    /// Bytes of one request for a module, after values that nobody may see are left out.
    pub module_request: usize,
    /// Bytes of a role's statements and values.
    pub templates: usize,
    pub module: ModuleLimits,
}

/// What the load gate and the compiler allow a third party's module.
#[derive(Clone, Debug)]
pub struct ModuleLimits {
    /// Bytes of the component.
    pub size: usize,
    /// Over all core modules in it.
    pub functions: u32,
    /// Bytes of one function. Compiling a function takes more than proportionally long.
    pub function_size: usize,
    /// By the wall clock, for checking and compiling. The upload is refused afterwards.
    pub compile_wall: Duration,
    /// Processor seconds of the compiling child process.
    pub compile_cpu: u64,
    /// Bytes of address space of the compiling child process.
    pub compile_memory: u64,
}

impl Default for GuestLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
        let third_party = Budget {
            fuel: 20_000_000,
            wall: Duration::from_secs(1),
            memory: 32 << 20,
            table_elements: 10_000,
            answer: 256 << 10,
        };
        Self {
            decide: Budget { fuel: 50_000_000, memory: 64 << 20, answer: 1 << 20, ..third_party },
            compile_acl: Budget { fuel: 1_000_000_000, memory: 64 << 20, answer: 4 << 20, ..third_party },
            statements: Budget { fuel: 500_000_000, memory: 16 << 20, answer: 8 << 20, ..third_party },
            evaluate: third_party,
            configure_fuel: 200_000_000,
            acl_at_once: 64,
            compiles_at_once: u32::try_from(cores).unwrap_or(2).max(2),
            wide_compiles_at_once: u32::try_from(cores / 2).unwrap_or(1).max(1),
            wide_set: 64 << 10,
            compile_patience: Duration::from_secs(2),
            statements_at_once: 32,
            modules_at_once: 32,
            // A module that only burns time gets half of the cores at most, so that another binding always gets on.
            binding_at_once: u32::try_from(cores / 2).unwrap_or(1).clamp(1, 8),
            binding_queue: 64,
            binding_patience: Duration::from_millis(500),
            warm: cores,
            warm_wide: (cores / 2).max(1),
            warm_calls: 10_000,
            warm_age: Duration::from_secs(60),
            warm_memory: 48 << 20,
            warm_sets: 64,
            known_sets: 4096,
            known_bytes: 64 << 20,
            shadow_one_in: 1000,
            request: 1 << 20,
            module_request: 64 << 10,
            templates: 1 << 20,
            module: ModuleLimits::default(),
        }
    }
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self {
            size: 4 << 20,
            functions: 20_000,
            function_size: 1 << 20,
            compile_wall: Duration::from_secs(60),
            compile_cpu: 60,
            compile_memory: 2 << 30,
        }
    }
}

/// Where third parties' modules are compiled. Compiling cannot be interrupted from within a process.
#[derive(Clone, Debug, Default)]
pub enum Compiler {
    /// In this process. When the time is over the upload is refused, and the thread goes on alone until it is done;
    /// no other module is compiled meanwhile.
    #[default]
    InProcess,
    /// By a child that calls [`crate::compile_worker`]; it has processor and memory limits and is killed when its time
    /// is over.
    Child { program: PathBuf, arguments: Vec<OsString> },
}

impl Compiler {
    /// This program once more, with these arguments. In this process when the program's path is not known.
    #[must_use]
    pub fn this_program(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(OsString::from).collect();
        std::env::current_exe().map_or(Self::InProcess, |program| Self::Child { program, arguments })
    }
}

/// The components that ship with the server.
#[derive(Clone, Debug)]
pub struct Builtins {
    pub acl: Artifact,
    pub statements: Artifact,
}

/// A component that ships with the server, with machine code for it or without.
#[derive(Clone)]
pub struct Artifact {
    pub(crate) component: Cow<'static, [u8]>,
    pub(crate) compiled: Option<Compiled>,
}

#[derive(Clone, Copy)]
pub(crate) struct Compiled {
    pub(crate) code: &'static [u8],
    pub(crate) sha256: &'static str,
}

impl Artifact {
    /// A component that is compiled when the sandbox is made: up to half a second.
    #[must_use]
    pub fn component(bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { component: bytes.into(), compiled: None }
    }

    /// A component with what `precompile` made of it, all three embedded by the same build.
    ///
    /// `sha256` is the text of `precompile`'s second output: 64 hex digits. Machine code that has another digest is not
    /// run, and what was made by another version or for another machine is not either: the component is compiled instead.
    #[must_use]
    pub const fn embedded(component: &'static [u8], code: &'static [u8], sha256: &'static str) -> Self {
        Self { component: Cow::Borrowed(component), compiled: Some(Compiled { code, sha256 }) }
    }
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact")
            .field("size", &self.component.len())
            .field("compiled", &self.compiled.is_some())
            .finish_non_exhaustive()
    }
}

/// Everything [`crate::Sandbox::new`] needs but a clock.
#[derive(Clone, Debug)]
pub struct Config {
    pub builtins: Builtins,
    pub limits: GuestLimits,
    pub compiler: Compiler,
}

impl Config {
    /// With the product's limits, compiling in this process.
    #[must_use]
    pub fn new(builtins: Builtins) -> Self {
        Self { builtins, limits: GuestLimits::default(), compiler: Compiler::default() }
    }
}
