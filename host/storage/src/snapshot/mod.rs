//! Snapshots as files: everything that a store held at one moment, as the barrier had sealed it.
//!
//! Must not know: which store it comes from or goes to, nor any key. Who sealed a file is the barrier's to say.
//!
//! Start with [`writer`] and [`reader`] (the container, which Vault's own tools read), then [`entries`] (how a record looks in it).
//!
//! Invariants: a file that was cut, changed, reordered or added to is found out before the first record of it is used. No more of a
//! file is in memory than one record and a few blocks.
//!
//! Source: `host/docs/decisions/0015-snapshots.md`.

pub(crate) mod entries;
mod gzip;
pub(crate) mod reader;
mod tar;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use leasehold_core::seams::snapshot::SnapshotError;
use serde::{Deserialize, Serialize};

pub use reader::{Contents, Prefix};

/// The parts, in their order.
const META: &str = "meta.json";
const STATE: &str = "state.bin";
const SUMS: &str = "SHA256SUMS";
/// What proves who made the other three.
const SEALED: &str = "SHA256SUMS.sealed";

/// Of the records: what a size in the container's header can say.
const STATE_MAX: u64 = (1 << 33) - 1;
/// Of each other part.
const PART_MAX: u64 = 64 << 10;
const FORMAT: u32 = 1;

/// `meta.json`. The first seven are those of Vault's snapshots, so that its tools can show them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    #[serde(rename = "Version")]
    pub version: u32,
    #[serde(rename = "ID")]
    pub id: String,
    /// The number of the last change that is in it.
    #[serde(rename = "Index")]
    pub index: u64,
    /// How many keys had been in the key ring.
    #[serde(rename = "Term")]
    pub term: u64,
    /// Nobody's: there is no cluster of Raft. Vault's tools expect the two.
    #[serde(rename = "Configuration", default)]
    pub configuration: Servers,
    #[serde(rename = "ConfigurationIndex", default)]
    pub configuration_index: u64,
    /// Bytes of the records.
    #[serde(rename = "Size")]
    pub size: u64,
    #[serde(rename = "Leasehold")]
    pub own: OwnMeta,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    #[serde(rename = "Servers", default)]
    pub servers: Vec<serde_json::Value>,
}

/// What Vault's snapshots do not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnMeta {
    pub format: u32,
    pub cluster_id: String,
    pub cluster_name: String,
    /// Of the server that made it.
    pub server: String,
    pub storage_type: String,
    pub made_at: String,
    pub values: u64,
    pub leases: u64,
}

/// Reads the file at `path` to its end and compares its digests; `depth` segments of a key tell entries apart where they are counted.
/// Needs no key, and so cannot tell who made it.
///
/// # Errors
/// [`SnapshotError::Damaged`] says what is wrong with it, [`SnapshotError::Disk`] why it cannot be read.
pub fn inspect(path: &Path, depth: usize) -> Result<Contents, SnapshotError> {
    let failed = |error: io::Error| SnapshotError::Disk(format!("{}: {error}", path.display()));
    let about = path.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(SnapshotError::Disk(format!("{} is not a file", path.display())));
    }
    let file = BufReader::with_capacity(256 << 10, File::open(path).map_err(failed)?);
    reader::read_counting(file, depth, |_| Ok(()))
}

/// A name out of a file that anybody may have made, as it may be shown.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn damaged(why: impl Into<String>) -> SnapshotError {
    SnapshotError::Damaged(why.into())
}

fn disk(error: &io::Error) -> SnapshotError {
    SnapshotError::Disk(error.to_string())
}
