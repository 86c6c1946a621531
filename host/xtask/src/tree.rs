//! `cargo xtask check-tree`: the rules of the tree that no compiler checks.

mod docs;
mod edges;
mod entries;
mod words;

use std::{env, fs, path::Path, process::Command};

use serde_json::Value;

use crate::{component, error::Error, files, guests};

/// Runs every check and reports all that is wrong at once.
pub(crate) fn check(root: &Path) -> Result<(), Error> {
    let mut wrong = edges::check(&metadata(root, "Cargo.toml")?);
    wrong.extend(edges::check_guests(&metadata(root, "guests/Cargo.toml")?));
    wrong.extend(words::check(root)?);
    wrong.extend(entries::check(root)?);
    wrong.extend(docs::check(root)?);
    wrong.extend(impure_guests(root)?);
    if !wrong.is_empty() {
        return Err(Error::Tree(wrong));
    }
    println!(
        "the tree keeps its rules: dependency directions, forbidden words, import-free guests, top-level entries, links of documents"
    );
    Ok(())
}

fn impure_guests(root: &Path) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    for name in guests::BUILT_IN {
        let path = files::guests_out(root).join(guests::file_name(name));
        let Ok(bytes) = fs::read(&path) else {
            wrong.push(format!("`{}` is missing: run `cargo xtask guests`", path.display()));
            continue;
        };
        if let Err(error) = component::check_pure(name, &bytes) {
            wrong.push(error.to_string());
        }
    }
    Ok(wrong)
}

fn metadata(root: &Path, manifest: &str) -> Result<Value, Error> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(root.join(manifest))
        .output()
        .map_err(Error::io("run cargo for", root))?;
    if !output.status.success() {
        return Err(Error::Program(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::Answer { program: "cargo metadata".to_owned(), what: error.to_string() })
}
