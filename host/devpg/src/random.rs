//! Random text for passwords and port numbers, from the kernel.

use std::{fmt::Write as _, fs::File, io::Read as _};

use crate::Error;

/// `bytes` random bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: usize) -> Result<String, Error> {
    let mut buffer = vec![0_u8; bytes];
    fill(&mut buffer)?;
    Ok(buffer.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Any 16-bit number.
pub(crate) fn number() -> Result<u16, Error> {
    let mut buffer = [0_u8; 2];
    fill(&mut buffer)?;
    Ok(u16::from_ne_bytes(buffer))
}

fn fill(buffer: &mut [u8]) -> Result<(), Error> {
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(buffer)).map_err(Error::io("read /dev/urandom"))
}
