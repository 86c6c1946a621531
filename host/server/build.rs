//! Points the server at the components that ship with it. Building them is `cargo xtask guests` and `cargo xtask precompile`.
//! Tells it when its sources were committed.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=LEASEHOLD_GUESTS_DIR");
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dir =
        std::env::var_os("LEASEHOLD_GUESTS_DIR").map_or_else(|| manifest.join("../../target/guests"), PathBuf::from);
    for name in ["acl", "statements"] {
        for suffix in ["component.wasm", "cwasm", "cwasm.sha256"] {
            let file = dir.join(format!("{name}.{suffix}"));
            println!("cargo::rerun-if-changed={}", file.display());
            if !file.is_file() {
                println!(
                    "cargo::error={} is missing: run `cargo xtask guests && cargo xtask precompile`",
                    file.display()
                );
            }
        }
    }
    let dir = std::fs::canonicalize(&dir).unwrap_or(dir);
    println!("cargo::rustc-env=LEASEHOLD_GUESTS={}", dir.display());

    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rustc-env=LEASEHOLD_COMMITTED_AT={}", committed_at());
}

/// Seconds since 1970: what the builder says, else what git says, else nothing.
fn committed_at() -> String {
    if let Ok(said) = std::env::var("SOURCE_DATE_EPOCH") {
        return said.trim().to_owned();
    }
    let git = Command::new("git").args(["log", "-1", "--format=%ct"]).output();
    match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => String::new(),
    }
}
