//! Runs cargo for a workspace of guests and says which core modules came out.

use std::{
    io::BufRead as _,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{error::Error, toolchain::Toolchain};

/// A package whose library, or examples, are core modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest: PathBuf,
    library: bool,
    examples: bool,
}

/// What cargo knows about a workspace.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    pub(crate) target_directory: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// A core module that cargo made.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// The component's name: the example's, or the package's without `leasehold-`.
    pub(crate) name: String,
    pub(crate) core: PathBuf,
    /// The manifest of its package.
    pub(crate) manifest: PathBuf,
}

/// Asks cargo about the workspace of this manifest.
pub(crate) fn workspace(toolchain: &Toolchain, manifest: &Path) -> Result<Workspace, Error> {
    let mut command = toolchain.cargo("metadata", manifest);
    command.args(["--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let output = command.stderr(Stdio::inherit()).output().map_err(Error::io("run cargo for", manifest))?;
    if !output.status.success() {
        return Err(Error::Program("cargo metadata".to_owned()));
    }
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|error| unexpected(&error.to_string()))?;
    let path = |field: &str| answer[field].as_str().map(PathBuf::from).ok_or_else(|| unexpected(field));
    let packages = answer["packages"].as_array().into_iter().flatten().filter_map(package).collect();
    Ok(Workspace { target_directory: path("target_directory")?, root: path("workspace_root")?, packages })
}

fn package(entry: &Value) -> Option<Package> {
    let dynamic = |kind: &str| {
        entry["targets"].as_array().into_iter().flatten().any(|target| {
            let has =
                |field: &str, word: &str| target[field].as_array().is_some_and(|list| list.iter().any(|it| it == word));
            has("crate_types", "cdylib") && (kind == "example") == has("kind", "example")
        })
    };
    let (library, examples) = (dynamic("lib"), dynamic("example"));
    let name = entry["name"].as_str()?.to_owned();
    let manifest = entry["manifest_path"].as_str()?.into();
    (library || examples).then_some(Package { name, manifest, library, examples })
}

/// Builds the packages, optimised. Cargo does nothing where nothing changed.
pub(crate) fn build(
    toolchain: &Toolchain,
    workspace: &Workspace,
    packages: &[Package],
    sources: &Path,
    target_directory: &Path,
) -> Result<Vec<Built>, Error> {
    let mut built = Vec::new();
    let libraries: Vec<_> = packages.iter().filter(|package| package.library).collect();
    let examples: Vec<_> = packages.iter().filter(|package| package.examples).collect();
    // Apart from each other: an example brings its package's development dependencies, which need not compile here.
    for (packages, what) in [(libraries, "--lib"), (examples, "--examples")] {
        if packages.is_empty() {
            continue;
        }
        let mut command = toolchain.cargo("build", sources);
        command.args(["--release", "--message-format=json-render-diagnostics", what]);
        command.arg("--manifest-path").arg(workspace.root.join("Cargo.toml"));
        command.arg("--target-dir").arg(target_directory);
        if workspace.root.join("Cargo.lock").exists() {
            command.arg("--locked");
        }
        for package in packages {
            command.args(["--package", &package.name]);
        }
        built.extend(artifacts(command)?);
    }
    built.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(built)
}

fn artifacts(mut command: Command) -> Result<Vec<Built>, Error> {
    let here = Path::new("the guests");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(Error::io("run cargo for", here))?;
    let mut built = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(Error::io("read cargo's answer about", here))?;
            // A build script may print something of its own.
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            built.extend(artifact(&message));
        }
    }
    let status = child.wait().map_err(Error::io("wait for cargo about", here))?;
    if status.success() { Ok(built) } else { Err(Error::Program("cargo build".to_owned())) }
}

fn artifact(message: &Value) -> Option<Built> {
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let core =
        message["filenames"].as_array()?.iter().filter_map(Value::as_str).find(|name| name.ends_with(".wasm"))?;
    let target = &message["target"];
    let is_example = target["kind"].as_array()?.iter().any(|kind| kind == "example");
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let target_name = target["name"].as_str()?;
    let name = if is_example { target_name.to_owned() } else { component_name(&target_name.replace('_', "-")) };
    Some(Built { name, core: core.into(), manifest })
}

/// `acl` for the package `leasehold-acl`.
pub(crate) fn component_name(package: &str) -> String {
    package.strip_prefix("leasehold-").unwrap_or(package).to_owned()
}

fn unexpected(what: &str) -> Error {
    Error::Answer { program: "cargo metadata".to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_core_modules_are_taken_from_what_cargo_says() {
        let said = |kind: &str, name: &str, file: &str| {
            artifact(&json!({
                "reason": "compiler-artifact", "manifest_path": "/src/Cargo.toml",
                "target": { "name": name, "kind": [kind] }, "filenames": [file],
            }))
        };
        assert_eq!(said("cdylib", "leasehold_acl", "/t/leasehold_acl.wasm").unwrap().name, "acl");
        assert_eq!(said("example", "endless-loop", "/t/endless_loop.wasm").unwrap().name, "endless-loop");
        assert!(said("lib", "serde", "/t/libserde.rlib").is_none());
        assert!(artifact(&json!({ "reason": "build-finished", "success": true })).is_none());
    }

    #[test]
    fn packages_without_a_core_module_are_left_out() {
        let of = |types: &str| {
            package(&json!({
                "name": "x", "manifest_path": "/x/Cargo.toml",
                "targets": [{ "kind": ["lib"], "crate_types": [types] }],
            }))
        };
        assert!(of("cdylib").is_some_and(|package| package.library && !package.examples));
        assert_eq!(of("lib"), None);
    }
}
