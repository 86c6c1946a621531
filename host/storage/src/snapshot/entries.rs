//! Records as bytes: protocol buffers, each with its length before it.
//!
//! An entry has a key (1) and a value (2), as in the snapshots of Vault, so that its tools can count them. A lease row's entry says so
//! (15), its key begins with `lease/`, and its value is a message of its columns. A field that is not known is an error, not skipped: a
//! newer server would have meant something by it.

use std::io::{self, Read};

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::snapshot::SnapshotError;
use leasehold_core::seams::storage::Key;
use leasehold_core::seams::store_copy::Record;
use leasehold_model::{MountAccessor, Timestamp, TokenHash};

use super::{damaged, disk, shown};

/// No row is claimed so often.
const FENCE_MAX: u64 = 1 << 62;

/// What the key of a lease row's entry begins with.
const LEASE: &str = "lease/";
/// Of one entry. The largest values are policy modules.
const ENTRY_MAX: u64 = 64 << 20;

const NUMBER: u64 = 0;
const BYTES: u64 = 2;

/// Appends the record with its length.
pub(crate) fn write(record: &Record, out: &mut Vec<u8>) {
    let mut entry = Vec::with_capacity(record.size() + 256);
    match record {
        Record::Value { key, value } => {
            bytes(&mut entry, 1, key.as_str().as_bytes());
            bytes(&mut entry, 2, value);
        }
        Record::Lease(row) => {
            bytes(&mut entry, 1, format!("{LEASE}{}", row.id).as_bytes());
            bytes(&mut entry, 2, &columns(row));
            number(&mut entry, 15, 1);
        }
    }
    varint(out, entry.len() as u64);
    out.extend_from_slice(&entry);
}

fn columns(row: &LeaseRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(row.body.len() + 256);
    bytes(&mut out, 1, row.kind.as_str().as_bytes());
    bytes(&mut out, 2, row.state.as_str().as_bytes());
    number(&mut out, 3, zigzag(row.next_at.as_nanos()));
    number(&mut out, 4, zigzag(row.expires_at.as_nanos()));
    number(&mut out, 5, row.fence);
    if let Some(holder) = &row.holder {
        bytes(&mut out, 6, holder.as_bytes());
    }
    if let Some(until) = row.held_until {
        number(&mut out, 7, zigzag(until.as_nanos()));
    }
    bytes(&mut out, 8, row.token.as_str().as_bytes());
    bytes(&mut out, 9, row.mount.as_str().as_bytes());
    bytes(&mut out, 10, row.connection.as_bytes());
    bytes(&mut out, 11, &row.body);
    out
}

/// The next record; `None` at the end. Its own bytes, length included, are given to `seen`.
pub(crate) fn read(from: &mut impl Read, mut seen: impl FnMut(&[u8])) -> Result<Option<Record>, SnapshotError> {
    let Some(length) = length(from, &mut seen)? else { return Ok(None) };
    if length > ENTRY_MAX {
        return Err(damaged(format!("an entry says that it has {length} bytes")));
    }
    let mut entry = Vec::new();
    // Grows with what is there: a length that lies costs no memory.
    from.take(length).read_to_end(&mut entry).map_err(|error| disk(&error))?;
    if entry.len() as u64 != length {
        return Err(damaged("it ends in the middle of an entry"));
    }
    seen(&entry);
    parse(&entry).map(Some)
}

fn length(from: &mut impl Read, seen: &mut impl FnMut(&[u8])) -> Result<Option<u64>, SnapshotError> {
    let (mut length, mut one) = (0_u64, [0_u8]);
    for place in 0..10 {
        match from.read_exact(&mut one) {
            Ok(()) => seen(&one),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && place == 0 => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("it ends in the middle of an entry"));
            }
            Err(error) => return Err(disk(&error)),
        }
        let [byte] = one;
        length |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some(length));
        }
    }
    Err(damaged("the length of an entry has no end"))
}

fn parse(entry: &[u8]) -> Result<Record, SnapshotError> {
    let (mut key, mut value, mut is_lease) = (None, None, false);
    for field in Fields(entry) {
        match field? {
            (1, Content::Bytes(bytes)) => key = Some(text(bytes)?),
            (2, Content::Bytes(bytes)) => value = Some(bytes),
            (15, Content::Number(1)) => is_lease = true,
            (field, _) => return Err(newer(field)),
        }
    }
    // As protocol buffers have it, an empty value may be left out.
    let (key, value) = (key.ok_or_else(|| damaged("an entry has no key"))?, value.unwrap_or_default());
    if !is_lease {
        return Ok(Record::Value { key: Key::new(key), value: value.to_vec() });
    }
    let id = key.strip_prefix(LEASE).and_then(|id| id.parse().ok());
    let wrong = || damaged(format!("the lease row `{}` is damaged", shown(&key)));
    let id = id.ok_or_else(wrong)?;
    let (mut kind, mut state, mut next_at, mut expires_at, mut fence) = (None, None, None, None, None);
    let (mut holder, mut held_until, mut token, mut mount, mut connection, mut body) =
        (None, None, None, None, None, None);
    for field in Fields(value) {
        match field? {
            (1, Content::Bytes(bytes)) => kind = LeaseKind::parse(&text(bytes)?),
            (2, Content::Bytes(bytes)) => state = LeaseState::parse(&text(bytes)?),
            (3, Content::Number(number)) => next_at = Some(moment(number)),
            (4, Content::Number(number)) => expires_at = Some(moment(number)),
            (5, Content::Number(number)) => fence = Some(number),
            (6, Content::Bytes(bytes)) => holder = Some(text(bytes)?),
            (7, Content::Number(number)) => held_until = Some(moment(number)),
            (8, Content::Bytes(bytes)) => token = Some(TokenHash::from_hex(text(bytes)?)),
            (9, Content::Bytes(bytes)) => mount = Some(MountAccessor::new(text(bytes)?)),
            (10, Content::Bytes(bytes)) => connection = Some(text(bytes)?),
            (11, Content::Bytes(bytes)) => body = Some(bytes.to_vec()),
            (field, _) => return Err(newer(field)),
        }
    }
    Ok(Record::Lease(LeaseRow {
        id,
        kind: kind.ok_or_else(|| {
            damaged(format!("the lease row `{}` is of a kind that this version does not know", shown(&key)))
        })?,
        state: state.ok_or_else(|| {
            damaged(format!("the lease row `{}` is in a state that this version does not know", shown(&key)))
        })?,
        next_at: next_at.ok_or_else(wrong)?,
        expires_at: expires_at.ok_or_else(wrong)?,
        // Each claim raises it: it must not overflow.
        fence: fence.filter(|fence| *fence < FENCE_MAX).ok_or_else(wrong)?,
        holder,
        held_until,
        token: token.ok_or_else(wrong)?,
        mount: mount.ok_or_else(wrong)?,
        connection: connection.ok_or_else(wrong)?,
        body: body.ok_or_else(wrong)?,
    }))
}

fn newer(field: u64) -> SnapshotError {
    damaged(format!("an entry has a field {field} that this version does not know"))
}

fn text(bytes: &[u8]) -> Result<String, SnapshotError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| damaged("a name in it is not UTF-8"))
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, field: u64, number: u64) {
    varint(out, field << 3 | NUMBER);
    varint(out, number);
}

fn zigzag(nanos: i64) -> u64 {
    ((nanos << 1) ^ (nanos >> 63)).cast_unsigned()
}

fn moment(number: u64) -> Timestamp {
    Timestamp::from_nanos((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for place in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Content<'a>)> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            NUMBER => Content::Number(self.varint()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Content::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Content<'a>), SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        match self.field() {
            Some(field) => Some(Ok(field)),
            None => {
                self.0 = &[];
                Some(Err(damaged("an entry is damaged")))
            }
        }
    }
}
