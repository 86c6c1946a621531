//! The few words of the tar format (POSIX ustar) that a snapshot needs: plain files, one after the other.
//!
//! Source: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>, "ustar Interchange Format".

use leasehold_core::seams::snapshot::SnapshotError;

use super::damaged;

pub(super) const BLOCK: usize = 512;
const NAME: usize = 100;
const SIZE_AT: usize = 124;
const TIME_AT: usize = 136;
const SUM_AT: usize = 148;
const KIND_AT: usize = 156;
const MAGIC_AT: usize = 257;
const MAGIC: &[u8] = b"ustar\x0000";

/// The head of a file of `size` bytes, less than 8 GiB.
pub(super) fn head(name: &str, size: u64, time: u64) -> [u8; BLOCK] {
    let mut head = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        head.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    };
    put(0, name.as_bytes());
    put(100, b"0000600\x000000000\x000000000\0");
    put(SIZE_AT, format!("{size:011o}\0").as_bytes());
    put(TIME_AT, format!("{time:011o}\0").as_bytes());
    put(SUM_AT, b"        ");
    put(KIND_AT, b"0");
    put(MAGIC_AT, MAGIC);
    let sum = sum(&head);
    let text = format!("{sum:06o}\0 ");
    head.iter_mut().skip(SUM_AT).zip(text.as_bytes()).for_each(|(to, from)| *to = *from);
    head
}

/// Name and size of the file that follows. `None`: the end of the archive begins.
pub(super) fn parse(head: &[u8; BLOCK]) -> Result<Option<(String, u64)>, SnapshotError> {
    if head.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let part = |at: usize, len: usize| head.get(at..at + len).unwrap_or_default();
    let octal = |at: usize, len: usize| {
        let text = std::str::from_utf8(part(at, len)).ok()?;
        u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
    };
    let mut bare = *head;
    bare.iter_mut().skip(SUM_AT).take(8).for_each(|byte| *byte = b' ');
    let is_file = matches!(part(KIND_AT, 1), b"0" | b"\0");
    if octal(SUM_AT, 8) != Some(u64::from(sum(&bare))) || !part(MAGIC_AT, 5).starts_with(b"ustar") || !is_file {
        return Err(damaged("the head of a part is damaged"));
    }
    let name = part(0, NAME).split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let size = octal(SIZE_AT, 12).ok_or_else(|| damaged("the head of a part is damaged"))?;
    Ok(Some((name, size)))
}

fn sum(head: &[u8; BLOCK]) -> u32 {
    head.iter().map(|byte| u32::from(*byte)).sum()
}

/// How many bytes fill up the last block of a file.
pub(super) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    if over == 0 { 0 } else { BLOCK - over }
}
