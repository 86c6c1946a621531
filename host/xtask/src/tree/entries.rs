//! What lies at the top of the tree: few things, each expected by everyone.

use std::{path::Path, process::Command};

use crate::error::Error;

const FOLDERS: [&str; 5] = ["examples", "guests", "host", "tests", "wit"];
const FILES: [&str; 9] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "rust-toolchain.toml",
];

/// Looks at every file that git knows or would add.
pub(super) fn check(root: &Path) -> Result<Vec<String>, Error> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(Error::io("run git in", root))?;
    if !output.status.success() {
        return Err(Error::Program("git ls-files".to_owned()));
    }
    Ok(unexpected(&String::from_utf8_lossy(&output.stdout)))
}

fn unexpected(files: &str) -> Vec<String> {
    let mut tops: Vec<_> = files.split('\0').filter(|file| !file.is_empty()).filter(|file| !expected(file)).collect();
    tops.iter_mut().for_each(|file| *file = file.split('/').next().unwrap_or(file));
    tops.dedup();
    tops.into_iter().map(|top| format!("`{top}` has no place at the top of the tree")).collect()
}

fn expected(file: &str) -> bool {
    match file.split_once('/') {
        Some((folder, _)) => folder.starts_with('.') || FOLDERS.contains(&folder),
        None => file.starts_with('.') || FILES.contains(&file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_file_is_reported_once() {
        let listed = "Cargo.toml\0.ci/run\0host/core/src/lib.rs\0scripts/a.sh\0scripts/b.sh\0deny.toml\0";
        let wrong = unexpected(listed);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("scripts") && wrong[1].contains("deny.toml"));
    }
}
