//! Reading a snapshot from its beginning to its end, without going back.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use aws_lc_rs::digest::{Context, SHA256, digest};
use leasehold_core::seams::snapshot::SnapshotError;
use leasehold_core::seams::store_copy::Record;

use super::gzip::GzipReader;
use super::writer::{sized, sums};
use super::{FORMAT, META, Meta, PART_MAX, SEALED, STATE, STATE_MAX, SUMS, damaged, disk, entries, shown, tar};

/// Segments of a key by which entries are counted, when nothing else is said.
pub(crate) const DEPTH: usize = 2;
/// Names under which entries are counted; all others are counted together.
const PREFIXES_MAX: usize = 1_000;

/// What is in a snapshot whose digests are right.
#[derive(Clone, Debug)]
pub struct Contents {
    pub meta: Meta,
    /// Of the records, SHA-256.
    pub digest: [u8; 32],
    /// What each part of the keys takes.
    pub prefixes: BTreeMap<String, Prefix>,
    /// The digests as they stand in it.
    pub(crate) sums: String,
    /// What proves who made them.
    pub(crate) sealed: Vec<u8>,
}

/// Entries whose keys begin alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    pub count: u64,
    pub bytes: u64,
}

/// Reads everything, gives each record to `each`, and compares digests and counts at the end: only then is what `each` got known to be
/// right.
///
/// # Errors
/// [`SnapshotError::Damaged`]; what `each` answers.
pub(crate) fn read(
    from: impl BufRead,
    each: impl FnMut(Record) -> Result<(), SnapshotError>,
) -> Result<Contents, SnapshotError> {
    read_counting(from, DEPTH, each)
}

/// As [`read`]; `depth` segments of a key tell entries apart where they are counted.
pub(crate) fn read_counting(
    from: impl BufRead,
    depth: usize,
    each: impl FnMut(Record) -> Result<(), SnapshotError>,
) -> Result<Contents, SnapshotError> {
    let mut parts = Parts { archive: GzipReader::new(from), depth };
    let contents = parts.contents(each).map_err(of_archive)?;
    parts.end()?;
    Ok(contents)
}

/// The archive reports what it does not understand as errors of reading.
fn of_archive(error: SnapshotError) -> SnapshotError {
    match error {
        SnapshotError::Disk(why) => damaged(format!("it is not a snapshot, or not all of one: {why}")),
        other => other,
    }
}

struct Parts<R> {
    archive: GzipReader<R>,
    depth: usize,
}

impl<R: BufRead> Parts<R> {
    fn contents(&mut self, each: impl FnMut(Record) -> Result<(), SnapshotError>) -> Result<Contents, SnapshotError> {
        let meta_bytes = self.part(META)?;
        let meta: Meta = serde_json::from_slice(&meta_bytes).map_err(|error| {
            damaged(format!("its {META} is not that of a Leasehold snapshot (line {}): {error}", error.line()))
        })?;
        if meta.version != 1 || meta.own.format != FORMAT {
            return Err(damaged(format!("it has format {}, and this version knows {FORMAT}", meta.own.format)));
        }
        let size = self.head(STATE, STATE_MAX)?;
        let (digest_of_state, prefixes) = self.records(&meta, size, each)?;
        let text = self.part(SUMS)?;
        let wanted = sums(&sized(digest(&SHA256, &meta_bytes).as_ref()), &digest_of_state);
        if text != wanted.as_bytes() {
            return Err(damaged("its contents are not those that its digests are of"));
        }
        let sealed = self.part(SEALED)?;
        Ok(Contents { meta, digest: digest_of_state, prefixes, sums: wanted, sealed })
    }

    fn records(
        &mut self,
        meta: &Meta,
        size: u64,
        mut each: impl FnMut(Record) -> Result<(), SnapshotError>,
    ) -> Result<([u8; 32], BTreeMap<String, Prefix>), SnapshotError> {
        let (mut hash, mut bytes) = (Context::new(&SHA256), 0_u64);
        let (mut values, mut leases, mut prefixes) = (0_u64, 0_u64, BTreeMap::<String, Prefix>::new());
        let mut last = (false, String::new());
        {
            let depth = self.depth;
            let mut state = io::BufReader::with_capacity(64 << 10, (&mut self.archive).take(size));
            loop {
                let before = bytes;
                let read = entries::read(&mut state, |part| {
                    hash.update(part);
                    bytes += part.len() as u64;
                })?;
                let Some(record) = read else { break };
                let (is_lease, name) = match &record {
                    Record::Value { key, .. } => (false, key.as_str().to_owned()),
                    Record::Lease(row) => (true, row.id.as_str().to_owned()),
                };
                if values + leases > 0 && (is_lease, &name) <= (last.0, &last.1) {
                    return Err(damaged(format!(
                        "its entries are not in order: `{}` comes after `{}`",
                        shown(&name),
                        shown(&last.1)
                    )));
                }
                *(if is_lease { &mut leases } else { &mut values }) += 1;
                count(&mut prefixes, prefix(is_lease, &name, depth), bytes - before);
                last = (is_lease, name);
                each(record)?;
            }
        }
        if bytes != size || size != meta.size || (values, leases) != (meta.own.values, meta.own.leases) {
            return Err(damaged("it holds more or less than it says"));
        }
        self.padding(size)?;
        Ok((sized(hash.finish().as_ref()), prefixes))
    }

    /// The next part must be this one.
    fn head(&mut self, name: &str, max: u64) -> Result<u64, SnapshotError> {
        let mut head = [0; tar::BLOCK];
        self.archive.read_exact(&mut head).map_err(|error| disk(&error))?;
        match tar::parse(&head)? {
            Some((found, size)) if found == name && size <= max => Ok(size),
            Some((found, _)) if found == name => Err(damaged(format!("its part {name} is too large"))),
            Some((found, _)) => {
                Err(damaged(format!("its part {name} is missing: `{}` stands in its place", shown(&found))))
            }
            None => Err(damaged(format!("its part {name} is missing"))),
        }
    }

    fn part(&mut self, name: &str) -> Result<Vec<u8>, SnapshotError> {
        let size = self.head(name, PART_MAX)?;
        let mut content = Vec::new();
        (&mut self.archive).take(size).read_to_end(&mut content).map_err(|error| disk(&error))?;
        if content.len() as u64 != size {
            return Err(damaged(format!("it ends in the middle of {name}")));
        }
        self.padding(size)?;
        Ok(content)
    }

    fn padding(&mut self, size: u64) -> Result<(), SnapshotError> {
        let mut rest = vec![0; tar::padding(size)];
        self.archive.read_exact(&mut rest).map_err(|error| disk(&error))?;
        if rest.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(damaged("there is something between its parts")) }
    }

    /// Two blocks of zeros, the end of the compressed bytes with the right checksum, and nothing behind them.
    fn end(mut self) -> Result<(), SnapshotError> {
        let mut rest = Vec::new();
        let more = "there is something behind its end";
        (&mut self.archive).take(PART_MAX).read_to_end(&mut rest).map_err(|error| of_archive(disk(&error)))?;
        if rest.len() < 2 * tar::BLOCK || rest.len() as u64 >= PART_MAX || rest.iter().any(|byte| *byte != 0) {
            return Err(damaged(if rest.len() < 2 * tar::BLOCK { "its end is missing" } else { more }));
        }
        match self.archive.into_inner().read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(damaged(more)),
            Err(error) => Err(disk(&error)),
        }
    }
}

fn prefix(is_lease: bool, name: &str, depth: usize) -> String {
    let whole = if is_lease { format!("lease/{name}") } else { name.to_owned() };
    whole.split('/').take(depth).collect::<Vec<_>>().join("/")
}

fn count(prefixes: &mut BTreeMap<String, Prefix>, name: String, bytes: u64) {
    let is_full = prefixes.len() >= PREFIXES_MAX;
    let name = if is_full && !prefixes.contains_key(&name) { "(others)".to_owned() } else { name };
    let prefix = prefixes.entry(name).or_default();
    prefix.count += 1;
    prefix.bytes += bytes;
}
