//! Points the server at the components that ship with it. Building them is `cargo xtask guests` and `cargo xtask precompile`.

use std::path::PathBuf;

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
}
