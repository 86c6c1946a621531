//! From a component to machine code: in this process, or in a child that can be killed.
//!
//! Start with [`Workshop::compile`]. Cranelift cannot be interrupted, and a component can be made that takes it very
//! long; so third parties' modules are compiled one at a time, with an end by the wall clock.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::seams::sandbox::LoadError;
use rustix::process::{Resource, Rlimit, setrlimit};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::config::{Artifact, Compiler, ModuleLimits};
use crate::engine;
use crate::store::words;

/// Machine code is at most about twenty times as long as the component; seen: 3 to 5 times.
const MAX_CODE: u64 = 128 << 20;
const MAX_COMPLAINT: u64 = 4 << 10;

/// Compiles third parties' components, one at a time.
pub(crate) struct Workshop {
    engine: Engine,
    how: Compiler,
    limits: ModuleLimits,
    one: Arc<Semaphore>,
}

impl Workshop {
    pub(crate) fn new(engine: Engine, how: Compiler, limits: ModuleLimits) -> Self {
        Self { engine, how, limits, one: Arc::new(Semaphore::new(1)) }
    }

    /// Waits its turn, then compiles within the limits.
    pub(crate) async fn compile(&self, bytes: &[u8]) -> Result<Component, LoadError> {
        let turn = turn(&self.one, self.limits.compile_wall).await?;
        let work = async {
            match &self.how {
                Compiler::InProcess => {
                    let (engine, bytes) = (self.engine.clone(), bytes.to_vec());
                    let compiled = tokio::task::spawn_blocking(move || {
                        // The turn ends with the work, not with the waiting for it.
                        let _turn = turn;
                        Component::from_binary(&engine, &bytes)
                    });
                    compiled
                        .await
                        .map_err(|_| LoadError("the compiler stopped".to_owned()))?
                        .map_err(|error| refused(&error))
                }
                Compiler::Child { .. } => {
                    let _turn = turn;
                    let code = self.in_child(bytes).await?;
                    let engine = self.engine.clone();
                    let loaded = tokio::task::spawn_blocking(move || machine_code(&engine, &code));
                    loaded
                        .await
                        .map_err(|_| LoadError("the compiler stopped".to_owned()))?
                        .map_err(|error| LoadError(format!("what the compiler made does not load: {error:#}")))
                }
            }
        };
        match tokio::time::timeout(self.limits.compile_wall, work).await {
            Ok(done) => done,
            Err(_) => Err(too_long(&self.limits)),
        }
    }

    async fn in_child(&self, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
        let Compiler::Child { program, arguments } = &self.how else { return Ok(Vec::new()) };
        let broken = |error: std::io::Error| {
            warn!("the compiling child process failed: {error}");
            LoadError("the compiling process could not be run".to_owned())
        };
        // Nothing of our environment is its business.
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(broken)?;
        let (Some(mut input), Some(output), Some(complaint)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(LoadError("the compiling process could not be run".to_owned()));
        };
        let mut order = format!("{} {}\n", self.limits.compile_cpu, self.limits.compile_memory).into_bytes();
        order.extend_from_slice(bytes);
        let give = async move {
            // A child that has already given up closes its end; what it says decides.
            let _ = input.write_all(&order).await;
            drop(input);
        };
        let (mut code, mut said) = (Vec::new(), Vec::new());
        let (mut output, mut complaint) = (output.take(MAX_CODE + 1), complaint.take(MAX_COMPLAINT));
        let ((), read, heard) = tokio::join!(give, output.read_to_end(&mut code), complaint.read_to_end(&mut said));
        read.map_err(broken)?;
        heard.map_err(broken)?;
        if code.len() as u64 > MAX_CODE {
            return Err(LoadError(format!("the module's machine code is longer than {MAX_CODE} bytes")));
        }
        let status = child.wait().await.map_err(broken)?;
        if status.success() {
            return Ok(code);
        }
        match status.code() {
            Some(REFUSED) => Err(LoadError(format!("this is no valid component: {}", said_by(&said)))),
            Some(code) => {
                warn!("the compiling child process ended with {code}: {}", said_by(&said));
                Err(LoadError("the module could not be compiled; the server's log says more".to_owned()))
            }
            // By its limit of processor time, or because it got no more memory.
            None => Err(LoadError(format!(
                "compiling the module took more than {} s of processor time or {} MiB of memory",
                self.limits.compile_cpu,
                self.limits.compile_memory >> 20
            ))),
        }
    }
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop").field("how", &self.how).finish_non_exhaustive()
    }
}

fn too_long(limits: &ModuleLimits) -> LoadError {
    LoadError(format!(
        "compiling the module took longer than {:?}: split very long functions, or build with optimisation for size",
        limits.compile_wall
    ))
}

fn refused(error: &wasmtime::Error) -> LoadError {
    LoadError(format!("this is no valid component: {}", words(&format!("{error:#}"))))
}

fn said_by(bytes: &[u8]) -> String {
    words(String::from_utf8_lossy(bytes).trim())
}

/// Exit status of a child that understood, and refuses.
const REFUSED: i32 = 2;

/// What a compiling child process does: limits itself, reads a component from its input, writes machine code.
/// Returns the status to exit with. Call it before anything else of the program: no thread, no file, no key.
#[must_use]
pub fn compile_worker() -> i32 {
    match work() {
        Ok(()) => 0,
        Err((status, why)) => {
            eprintln!("{why}");
            status
        }
    }
}

fn work() -> Result<(), (i32, String)> {
    let broken = |error: &dyn std::fmt::Display| (1, error.to_string());
    let mut order = Vec::new();
    let mut input = std::io::stdin().lock();
    let mut byte = [0];
    while order.len() < 64 && input.read(&mut byte).map_err(|error| broken(&error))? == 1 && byte != *b"\n" {
        order.extend_from_slice(&byte);
    }
    let order = String::from_utf8_lossy(&order).into_owned();
    let mut numbers = order.split(' ').map(str::parse::<u64>);
    let (Some(Ok(cpu)), Some(Ok(memory))) = (numbers.next(), numbers.next()) else {
        return Err((1, "this is a part of the server: it compiles policy modules".to_owned()));
    };
    let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
    for (resource, most) in [(Resource::Cpu, cpu), (Resource::As, memory), (Resource::Core, 0), (Resource::Fsize, 0)] {
        setrlimit(resource, limit(most)).map_err(|error| broken(&error))?;
    }
    let mut component = Vec::new();
    input.read_to_end(&mut component).map_err(|error| broken(&error))?;
    let engine = engine::compiling().map_err(|error| (1, format!("{error:#}")))?;
    let code = engine.precompile_component(&component).map_err(|error| (REFUSED, format!("{error:#}")))?;
    std::io::stdout().lock().write_all(&code).map_err(|error| broken(&error))
}

/// A place among those that look at or compile third parties' modules; whoever waits too long is sent away.
pub(crate) async fn turn(places: &Arc<Semaphore>, patience: Duration) -> Result<OwnedSemaphorePermit, LoadError> {
    match tokio::time::timeout(patience, Arc::clone(places).acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(_)) => Err(LoadError("the sandbox is shutting down".to_owned())),
        Err(_) => Err(LoadError(format!("other modules were compiled for {patience:?}: push this one again later"))),
    }
}

/// A component that ships with the server: its embedded machine code, or compiled now.
pub(crate) fn builtin(engine: &Engine, name: &str, artifact: &Artifact) -> Result<Component, wasmtime::Error> {
    if let Some(compiled) = artifact.compiled {
        let digest = hex::encode(Sha256::digest(compiled.code));
        if digest != compiled.sha256.trim() {
            warn!("machine code of the component `{name}` has not the digest of its build, compiling it instead");
        } else {
            match machine_code(engine, compiled.code) {
                Ok(component) => return Ok(component),
                Err(error) => warn!("machine code of the component `{name}` is not for here, compiling it: {error:#}"),
            }
        }
    }
    Component::from_binary(engine, &artifact.component)
}

/// The one place where machine code is believed; each caller has its reason in `host/docs/decisions/0008`.
#[expect(
    unsafe_code,
    reason = "machine code cannot be checked. It comes from our own build, embedded and with its digest, or through a \
              pipe from a child process that runs this same program; never from a file or a client"
)]
fn machine_code(engine: &Engine, code: &[u8]) -> Result<Component, wasmtime::Error> {
    // SAFETY: see the reason above; both were made by `Engine::precompile_component` with `engine::settings`, and
    // wasmtime refuses code of another version, other settings or for features that this machine does not have.
    unsafe { Component::deserialize(engine, code) }
}

/// Machine code for any machine of this architecture: what `precompile` writes.
///
/// # Errors
/// The text says what is wrong with the component.
pub fn precompile(component: &[u8]) -> Result<Vec<u8>, LoadError> {
    let made = engine::baseline().and_then(|engine| engine.precompile_component(component));
    made.map_err(|error| LoadError(format!("{error:#}")))
}
