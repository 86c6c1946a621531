//! `precompile IN OUT`: machine code of a component that ships with the server, and its digest in `OUT.sha256`.
//!
//! It runs on every machine of this architecture: no CPU feature beyond the baseline is used.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use sha2::{Digest as _, Sha256};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("precompile: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [input, output] = arguments.as_slice() else { return Err("usage: precompile COMPONENT OUT".to_owned()) };
    let component = fs::read(input).map_err(|error| format!("could not read `{}`: {error}", input.display()))?;
    let code = leasehold_sandbox::precompile(&component).map_err(|error| error.to_string())?;
    let mut digest = output.clone().into_os_string();
    digest.push(".sha256");
    let write = |path: &PathBuf, bytes: &[u8]| {
        fs::write(path, bytes).map_err(|error| format!("could not write `{}`: {error}", path.display()))
    };
    // Without a line break: the server includes the text as it is.
    write(&PathBuf::from(digest), hex::encode(Sha256::digest(&code)).as_bytes())?;
    write(output, &code)
}
