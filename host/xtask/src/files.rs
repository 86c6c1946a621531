//! Places of the tree, and writing that leaves unchanged files alone.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// The repository's root directory.
pub(crate) fn root() -> Result<PathBuf, Error> {
    // Cargo tells it at run time, so a tree that was moved after the build is not mixed up with the old place.
    let here =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = here.join("../..");
    root.canonicalize().map_err(Error::io("find", &root))
}

/// Where the guests' components go.
pub(crate) fn guests_out(root: &Path) -> PathBuf {
    root.join("target/guests")
}

/// Writes the file unless it holds these bytes already: what depends on its time stamp stays fresh.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    // By a rename, so that nobody reads half a component.
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    fs::write(&part, bytes).map_err(Error::io("write", &part))?;
    fs::rename(&part, path).map_err(Error::io("write", path))
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Every file beneath `directory`, except in folders with a name in `skipped`.
pub(crate) fn beneath(directory: &Path, skipped: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let entry = entry.map_err(Error::io("list", &folder))?;
            let (path, name) = (entry.path(), entry.file_name());
            if !entry.file_type().map_err(Error::io("look at", &path))?.is_dir() {
                found.push(path);
            } else if !skipped.iter().any(|skipped| name == *skipped) {
                open.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
