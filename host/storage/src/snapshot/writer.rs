//! Writing a snapshot: the records first, into a file of their own, because the container says their size before them.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, Write};

use aws_lc_rs::digest::{Context, SHA256, digest};
use leasehold_core::seams::snapshot::{SnapshotError, Spool};
use leasehold_core::seams::store_copy::Record;

use super::gzip::GzipWriter;
use super::{META, Meta, SEALED, STATE, STATE_MAX, SUMS, disk, entries, tar};

const BUFFER: usize = 256 << 10;

/// Takes records and keeps their digest. Without a file it only counts and hashes.
pub(crate) struct StateWriter {
    file: Option<BufWriter<File>>,
    hash: Context,
    bytes: Vec<u8>,
    pub(crate) len: u64,
    pub(crate) values: u64,
    pub(crate) leases: u64,
}

impl StateWriter {
    /// Into a file without a name.
    pub(crate) fn to_file() -> Result<Self, SnapshotError> {
        let file = tempfile::tempfile().map_err(|error| no_place(&error))?;
        Ok(Self { file: Some(BufWriter::with_capacity(BUFFER, file)), ..Self::to_nothing() })
    }

    pub(crate) fn to_nothing() -> Self {
        Self { file: None, hash: Context::new(&SHA256), bytes: Vec::new(), len: 0, values: 0, leases: 0 }
    }

    pub(crate) fn put(&mut self, record: &Record) -> Result<(), SnapshotError> {
        self.bytes.clear();
        entries::write(record, &mut self.bytes);
        self.hash.update(&self.bytes);
        self.len += self.bytes.len() as u64;
        if self.file.is_some() && self.len > STATE_MAX {
            return Err(SnapshotError::Disk(format!("the store holds more than {} GiB", (STATE_MAX + 1) >> 30)));
        }
        match record {
            Record::Value { .. } => self.values += 1,
            Record::Lease(_) => self.leases += 1,
        }
        match &mut self.file {
            Some(file) => file.write_all(&self.bytes).map_err(|error| no_place(&error)),
            None => Ok(()),
        }
    }

    /// SHA-256 of what was put so far.
    pub(crate) fn digest(&self) -> [u8; 32] {
        sized(self.hash.clone().finish().as_ref())
    }

    fn into_file(self) -> io::Result<File> {
        let file = self.file.ok_or_else(|| io::Error::other("the records were not kept"))?;
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    }
}

/// Puts the container around the records. `seal` makes of the digests what proves who made them.
pub(crate) fn finish(
    state: StateWriter,
    meta: &Meta,
    made_at: u64,
    seal: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<Spool, SnapshotError> {
    let meta = serde_json::to_vec(meta).map_err(|error| SnapshotError::Disk(error.to_string()))?;
    let sums = sums(&sized(digest(&SHA256, &meta).as_ref()), &state.digest());
    let sealed = seal(sums.as_bytes());
    let write = || -> io::Result<Spool> {
        let mut records = state.into_file()?;
        let out = BufWriter::with_capacity(BUFFER, tempfile::tempfile()?);
        let mut out = GzipWriter::new(out)?;
        part(&mut out, META, &meta, made_at)?;
        out.write_all(&tar::head(STATE, len_of(&records)?, made_at))?;
        let mut block = vec![0; BUFFER];
        loop {
            let count = records.read(&mut block)?;
            if count == 0 {
                break;
            }
            out.write_all(block.get(..count).unwrap_or_default())?;
        }
        pad(&mut out, len_of(&records)?)?;
        part(&mut out, SUMS, sums.as_bytes(), made_at)?;
        part(&mut out, SEALED, &sealed, made_at)?;
        out.write_all(&[0; 2 * tar::BLOCK])?;
        let file = out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        let len = file.metadata()?.len();
        Ok(Spool::new(file, len))
    };
    write().map_err(|error| no_place(&error))
}

fn len_of(file: &File) -> io::Result<u64> {
    file.metadata().map(|about| about.len())
}

fn part(out: &mut impl Write, name: &str, content: &[u8], made_at: u64) -> io::Result<()> {
    out.write_all(&tar::head(name, content.len() as u64, made_at))?;
    out.write_all(content)?;
    pad(out, content.len() as u64)
}

fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    out.write_all([0; tar::BLOCK].get(..tar::padding(size)).unwrap_or_default())
}

/// The lines of `sha256sum`.
pub(super) fn sums(meta: &[u8; 32], state: &[u8; 32]) -> String {
    format!("{}  {META}\n{}  {STATE}\n", hex::encode(meta), hex::encode(state))
}

pub(super) fn sized(hash: &[u8]) -> [u8; 32] {
    let mut sized = [0; 32];
    sized.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    sized
}

/// Whoever reads this must know which disk is meant.
fn no_place(error: &io::Error) -> SnapshotError {
    let SnapshotError::Disk(why) = disk(error) else { return disk(error) };
    SnapshotError::Disk(format!("a temporary file in {} could not be written: {why}", std::env::temp_dir().display()))
}
