//! What exists: the Makefile's targets, the tasks of `cargo xtask`, packages, and the commands of `leasehold`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::under_test;

/// Cargo's own subcommands that documents name, and flags of theirs that take no name of ours.
const CARGO: [&str; 10] = ["bench", "build", "check", "clippy", "deny", "fmt", "metadata", "run", "test", "xtask"];
const CARGO_FLAGS: [&str; 6] = ["--all", "--all-targets", "--check", "--no-fail-fast", "--release", "--workspace"];
const WORKSPACES: [&str; 2] = ["Cargo.toml", "guests/Cargo.toml"];

pub(super) struct Known {
    root: PathBuf,
    makefile: String,
    /// Lines of `cargo xtask help`, without what stands behind two blanks.
    tasks: Vec<String>,
    packages: BTreeSet<String>,
    /// Of tests, benches and programs.
    targets: BTreeSet<String>,
}

impl Known {
    pub(super) fn of(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let xtask = read("host/xtask/src/main.rs");
        let help = xtask.split("const HELP: &str = \"\\\n").nth(1).and_then(|rest| rest.split("\";").next());
        let help = help.expect("host/xtask/src/main.rs has its tasks in HELP");
        let tasks = help
            .lines()
            .filter_map(|line| line.strip_prefix("  "))
            .map(|line| line.split("  ").next().unwrap_or_default().to_owned())
            .collect();
        let (mut packages, mut targets) = (BTreeSet::new(), BTreeSet::new());
        for manifest in WORKSPACES {
            for package in metadata(&root.join(manifest))["packages"].as_array().into_iter().flatten() {
                packages.extend(package["name"].as_str().map(str::to_owned));
                let names = package["targets"].as_array().into_iter().flatten();
                targets.extend(names.filter_map(|target| target["name"].as_str()).map(str::to_owned));
            }
        }
        Self { root: root.to_owned(), makefile: read("Makefile"), tasks, packages, targets }
    }

    /// Whether a command names things that exist; what is `run` proves most of it by itself.
    pub(super) fn look_at(&self, command: &str, run: bool) -> Result<(), String> {
        let line = command.split(" #").next().unwrap_or_default().replace("\\\n", " ");
        let words: Vec<&str> = line.split_whitespace().skip_while(|word| is_setting(word)).collect();
        match words.as_slice() {
            ["make", rest @ ..] => self.make(rest),
            ["cargo", "xtask", rest @ ..] => self.xtask(rest),
            // Another toolchain's.
            ["cargo", toolchain, rest @ ..] if toolchain.starts_with('+') => self.cargo(rest),
            ["cargo", rest @ ..] => self.cargo(rest),
            ["leasehold", rest @ ..] if !run || rest.first() == Some(&"server") => leasehold(rest),
            // Typed into the document's shell, where it must succeed.
            ["leasehold" | "curl" | "cat" | "export" | "source", ..] if run => Ok(()),
            // Of other people's programs a sentence may say what it likes.
            ["curl" | "bao" | "psql", ..] if !run => Ok(()),
            _ => Err("nothing runs it and nothing knows it".to_owned()),
        }
    }

    fn make(&self, words: &[&str]) -> Result<(), String> {
        for word in words {
            let known = match word.split_once('=') {
                Some((variable, _)) => self.makefile.contains(&format!("$({variable}")),
                None => self.makefile.lines().any(|line| line.starts_with(&format!("{word}: ##"))),
            };
            if !known {
                return Err(format!("the Makefile has no `{word}`"));
            }
        }
        Ok(())
    }

    fn xtask(&self, words: &[&str]) -> Result<(), String> {
        let Some((verb, rest)) = words.split_first() else { return Err("which task?".to_owned()) };
        let task =
            self.tasks.iter().map(|task| task.split(' ').collect::<Vec<_>>()).find(|task| task.first() == Some(verb));
        let Some(task) = task else { return Err(format!("`cargo xtask help` has no `{verb}`")) };
        for word in rest {
            let is_path = task.contains(&"PATH") && !word.starts_with('-');
            // Prose writes a placeholder in capitals.
            let is_there = word.chars().all(|letter| letter.is_ascii_uppercase()) || self.root.join(word).exists();
            if !(task.contains(&format!("[{word}]").as_str()) || is_path && is_there) {
                return Err(format!("`cargo xtask {verb}` does not take `{word}`, or it does not exist"));
            }
        }
        Ok(())
    }

    fn cargo(&self, words: &[&str]) -> Result<(), String> {
        let Some((verb, rest)) = words.split_first() else { return Err("which command?".to_owned()) };
        if let ["fuzz", "run", "--fuzz-dir", folder, target] = words {
            let file = self.root.join(folder).join(format!("fuzz_targets/{target}.rs"));
            return if file.is_file() { Ok(()) } else { Err(format!("there is no {}", file.display())) };
        }
        if !CARGO.contains(verb) {
            return Err(format!("`cargo {verb}` is not among {CARGO:?}"));
        }
        let mut rest = rest.iter().take_while(|&&word| word != "--");
        while let Some(&flag) = rest.next() {
            if CARGO_FLAGS.contains(&flag) {
                continue;
            }
            let value = rest.next().copied().unwrap_or_default();
            let known = match flag {
                "-p" | "--package" => self.packages.contains(value),
                "--test" | "--bench" | "--bin" => self.targets.contains(value),
                "--manifest-path" => self.root.join(value).is_file(),
                "--target" => value == "wasm32-unknown-unknown",
                _ => false,
            };
            if !known {
                return Err(format!("`{flag} {value}` is unknown"));
            }
        }
        Ok(())
    }
}

/// `NAME=value` in front of a command.
fn is_setting(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
    })
}

fn metadata(manifest: &Path) -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap_or_else(|error| panic!("cargo metadata: {error}"));
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON of cargo metadata")
}

/// The command's own help must be there and know every flag.
pub(super) fn leasehold(words: &[&str]) -> Result<(), String> {
    let names: Vec<&str> = words
        .iter()
        .take_while(|word| {
            word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') && !word.starts_with('-')
        })
        .copied()
        .collect();
    let help = help(&names)?;
    for word in words.iter().filter(|word| word.starts_with('-') && word.len() > 1) {
        let flag = word.trim_start_matches('-').split('=').next().unwrap_or_default();
        let shown = help.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'));
        if !shown.into_iter().any(|known| known.strip_prefix("--") == Some(flag)) {
            return Err(format!("its help knows no -{flag}"));
        }
    }
    Ok(())
}

/// The help of the command that these words begin with.
pub(super) fn help(names: &[&str]) -> Result<String, String> {
    let output = Command::new(under_test())
        // What are no commands among them changes nothing: the help is that of the last command.
        .args(names)
        .arg("-help")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(said(&output.stderr).lines().next().unwrap_or_default().to_owned());
    }
    Ok(said(&output.stdout))
}
