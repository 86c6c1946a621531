//! `cargo xtask precompile`: the built-in components as machine code, so that a server starts without compiling.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use serde_json::Value;

use crate::{error::Error, files, guests};

/// Which build of the compiling program to use. The machine code is the same; the point is to build only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Compiles each built-in component whose result is older than the component or than the program that compiles.
pub(crate) fn run(root: &Path, profile: Profile) -> Result<(), Error> {
    let out = files::guests_out(root);
    let program = program(root, profile)?;
    for name in guests::BUILT_IN {
        let component = out.join(guests::file_name(name));
        let compiled = out.join(format!("{name}.cwasm"));
        if !component.exists() {
            return Err(Error::Toolchain(format!("`{}` is missing: run `cargo xtask guests`", component.display())));
        }
        let made = changed(&compiled);
        if made.is_some() && made > changed(&component) && made > changed(&program) {
            continue;
        }
        let status =
            Command::new(&program).args([&component, &compiled]).status().map_err(Error::io("run", &program))?;
        if !status.success() {
            return Err(Error::Program(format!("precompile {name}")));
        }
        println!("target/guests/{name}.cwasm");
    }
    Ok(())
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|facts| facts.modified()).ok()
}

fn program(root: &Path, profile: Profile) -> Result<PathBuf, Error> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["build", "--message-format=json-render-diagnostics"]);
    // With the server, which has no part in it: what both depend on is then built with one set of features, and once.
    command.args(["--package", "leasehold-sandbox", "--package", "leasehold-server", "--bin", "precompile"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    let output = command.stderr(Stdio::inherit()).output().map_err(Error::io("run cargo for", root))?;
    if !output.status.success() {
        return Err(Error::Program("cargo build --package leasehold-sandbox --bin precompile".to_owned()));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| Error::Answer { program: "cargo build".to_owned(), what: "no program was named".to_owned() })
}
