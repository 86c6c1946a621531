//! gzip around bytes that are not compressed: what the barrier seals is as good as random, so that trying would gain little.
//!
//! Any gzip reads what is written here. What another program has compressed is not read: nothing can make a small file grow.
//!
//! Source: RFC 1952 (gzip), RFC 1951, 3.2.4 (stored blocks).

use std::io::{self, BufRead, Read, Write};

/// Deflate, no name, no time, made on an unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const BLOCK_MAX: usize = 65_535;

/// What stands behind the bytes: a checksum and their number.
#[derive(Clone, Copy)]
struct Check {
    crc: u32,
    len: u32,
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let (mut table, mut at) = ([0_u32; 256], 0);
    while at < 256 {
        let (mut word, mut bit) = (at as u32, 0);
        while bit < 8 {
            word = if word & 1 == 1 { 0xedb8_8320 ^ (word >> 1) } else { word >> 1 };
            bit += 1;
        }
        table[at] = word;
        at += 1;
    }
    table
}

impl Check {
    const NEW: Self = Self { crc: u32::MAX, len: 0 };

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.crc.to_le_bytes();
            let word = TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default();
            self.crc = word ^ (self.crc >> 8);
        }
        // Modulo 2³², as the format has it.
        self.len = self.len.wrapping_add(u32::try_from(bytes.len()).unwrap_or_default());
    }

    fn tail(self) -> [u8; 8] {
        let mut tail = [0; 8];
        let bytes = (!self.crc).to_le_bytes().into_iter().chain(self.len.to_le_bytes());
        tail.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        tail
    }
}

pub(super) struct GzipWriter<W> {
    out: W,
    block: Vec<u8>,
    check: Check,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&HEAD)?;
        Ok(Self { out, block: Vec::with_capacity(BLOCK_MAX), check: Check::NEW })
    }

    fn put_block(&mut self, is_last: bool) -> io::Result<()> {
        let len = u16::try_from(self.block.len()).map_err(io::Error::other)?;
        self.out.write_all(&[u8::from(is_last)])?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&(!len).to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.check.update(&self.block);
        self.block.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.put_block(true)?;
        self.out.write_all(&self.check.tail())?;
        Ok(self.out)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK_MAX {
            self.put_block(false)?;
        }
        let taken = bytes.len().min(BLOCK_MAX - self.block.len());
        self.block.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(super) struct GzipReader<R> {
    from: R,
    /// Bytes of this block that are still to come.
    left: usize,
    has_begun: bool,
    is_last: bool,
    has_ended: bool,
    check: Check,
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: BufRead> GzipReader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, left: 0, has_begun: false, is_last: false, has_ended: false, check: Check::NEW }
    }

    /// What comes after it.
    pub(super) fn into_inner(self) -> R {
        self.from
    }

    /// The next block that holds anything; `false` at the end, whose checksum is right.
    fn next_block(&mut self) -> io::Result<bool> {
        if !self.has_begun {
            let mut head = [0; HEAD.len()];
            self.from.read_exact(&mut head)?;
            if head != HEAD {
                return Err(wrong("its head is not that of a snapshot as it was saved"));
            }
            self.has_begun = true;
        }
        while self.left == 0 {
            if self.is_last {
                let mut tail = [0; 8];
                self.from.read_exact(&mut tail)?;
                if tail != self.check.tail() {
                    return Err(wrong("its checksum does not fit"));
                }
                self.has_ended = true;
                return Ok(false);
            }
            let (mut kind, mut len, mut complement) = ([0; 1], [0; 2], [0; 2]);
            self.from.read_exact(&mut kind)?;
            self.from.read_exact(&mut len)?;
            self.from.read_exact(&mut complement)?;
            let len = u16::from_le_bytes(len);
            if kind > [1] || len != !u16::from_le_bytes(complement) {
                return Err(wrong("it is damaged, or compressed by another program"));
            }
            self.is_last = kind == [1];
            self.left = usize::from(len);
        }
        Ok(true)
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || self.has_ended || !self.next_block()? {
            return Ok(0);
        }
        let wanted = into.len().min(self.left);
        let into = into.get_mut(..wanted).unwrap_or_default();
        let count = self.from.read(into)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.check.update(into.get(..count).unwrap_or_default());
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut writer = GzipWriter::new(Vec::new()).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn what_was_packed_comes_back() {
        for len in [0, 1, 65_534, 65_535, 65_536, 200_000] {
            let bytes: Vec<u8> = (0..len).map(|n: u32| n.to_le_bytes()[0]).collect();
            let packed = packed(&bytes);
            let mut found = Vec::new();
            GzipReader::new(packed.as_slice()).read_to_end(&mut found).unwrap();
            assert!(found == bytes, "{len}");
        }
    }

    /// As `printf 123456789 | gzip` has it: the check value of CRC-32.
    #[test]
    fn the_checksum_is_that_of_gzip() {
        let packed = packed(b"123456789");
        assert_eq!(packed[packed.len() - 8..], [0x26, 0x39, 0xf4, 0xcb, 9, 0, 0, 0]);
        let gunzip = std::process::Command::new("gzip").arg("-t").stdin(std::process::Stdio::piped()).spawn();
        if let Ok(mut gunzip) = gunzip {
            gunzip.stdin.take().unwrap().write_all(&packed).unwrap();
            assert!(gunzip.wait().unwrap().success());
        }
    }
}
