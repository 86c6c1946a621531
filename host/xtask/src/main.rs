//! Contributors' tasks, run as `cargo xtask TASK`: building the guests and checking the tree.
//!
//! Must not know: the host's crates; it only starts their programs. Its own dependencies stay few, since everyone who
//! wants to build a guest waits for them.
//!
//! Start with `guests` (what is built), then `toolchain` (with what), `build` (how), `component` (what comes out).
//!
//! Invariants: a guest that imports a function is never written. The same sources and compiler give the same bytes,
//! whatever directory they are built in.

mod build;
mod component;
mod error;
mod files;
mod guests;
mod module;
mod precompile;
mod toolchain;
mod tree;

use std::{env, path::Path, process::ExitCode};

use error::Error;

const HELP: &str = "\
Tasks:
  guests [--check-reproducible]  build every guest into target/guests/*.component.wasm
  module PATH                    build a policy module outside our workspaces (a crate folder) into a component
  precompile [--release]         compile the built-in components ahead into target/guests/*.cwasm
  check-tree                     dependency directions, forbidden words, import-free guests, top-level entries, links
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Error> {
    let root = files::root()?;
    match arguments {
        ["guests"] => guests::build(&root),
        ["guests", "--check-reproducible"] => guests::check_reproducible(&root),
        ["module", path] => module::build(&root, Path::new(path)),
        ["precompile"] => precompile::run(&root, precompile::Profile::Dev),
        ["precompile", "--release"] => precompile::run(&root, precompile::Profile::Release),
        ["check-tree"] => tree::check(&root),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(Error::Usage(HELP)),
    }
}
