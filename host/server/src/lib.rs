//! The program: configuration, wiring, listeners, signals. It wires everything and decides nothing.
//!
//! Must not know: what a request means. Every rule lives in the core.
//!
//! Start with [`main_with_args`], then `run` (a server's life), `wiring` (which adapter stands behind which seam), `dev` (the
//! development server), `migrate` and `inspect` (commands on stores and snapshots without a server), `config` (the configuration), `bind` (sockets), `signals`, `descriptors` (open files) and `service`
//! (what a service manager is told).

mod bind;
mod causes;
mod clock;
mod command;
mod config;
mod descriptors;
mod dev;
mod entropy;
mod guests;
mod inspect;
mod log;
mod metrics;
mod migrate;
mod run;
mod service;
mod signals;
mod tls;
mod tools;
mod wiring;

use std::ffi::OsString;
use std::process::ExitCode;

/// The hidden subcommand in which third parties' modules are compiled, apart from every key.
const COMPILE_WORKER: &str = "compile-module";

/// Runs the program with these arguments; the first is its own name.
#[must_use]
pub fn main_with_args(arguments: Vec<OsString>) -> ExitCode {
    if arguments.get(1).is_some_and(|word| word == COMPILE_WORKER) {
        return ExitCode::from(u8::try_from(leasehold_sandbox::compile_worker()).unwrap_or(1));
    }
    let server = leasehold_cli::OwnCommand::new(command::server(), command::run);
    let own = vec![server, migrate::own(), migrate::own_of_storage(), inspect::own(false), inspect::own(true)];
    leasehold_cli::run(arguments, &tools::Offline, own)
}
