//! Whole lines on a file descriptor, whatever was written to it before.

use std::fs::File;
use std::io::{self, Write as _};

/// Appends lines. A line that was cut, by a full disk or by the end of a process, is closed before the next one begins, so that
/// what is written stays parseable line by line.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    /// The last line has no end: the next one begins with a line end.
    torn: bool,
}

impl Lines {
    pub(super) fn new(file: File, torn: bool) -> Self {
        Self { file, torn }
    }

    /// # Errors
    /// As `write(2)`; a line of which only a part was written counts as not written.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut whole = Vec::with_capacity(line.len() + 2);
        if self.torn {
            whole.push(b'\n');
        }
        whole.extend_from_slice(line);
        whole.push(b'\n');
        loop {
            match self.file.write(&whole) {
                Ok(written) if written == whole.len() => {
                    self.torn = false;
                    return Ok(());
                }
                Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "nothing was written")),
                Ok(written) => {
                    // The disk was full in the middle of the line. A line that says so by being cut is better than a repeated half.
                    self.torn = true;
                    return Err(io::Error::new(
                        io::ErrorKind::WriteZero,
                        format!("only {written} of {} bytes were written", whole.len()),
                    ));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::Path;

    use super::*;

    fn appender(path: &Path, torn: bool) -> Lines {
        Lines::new(OpenOptions::new().append(true).open(path).unwrap(), torn)
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut full = appender(Path::new("/dev/full"), false);
        assert_eq!(full.append(b"line").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn the_line_after_a_torn_one_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "half of a li").unwrap();
        let mut lines = appender(&path, true);
        lines.append(b"whole").unwrap();
        lines.append(b"next").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "half of a li\nwhole\nnext\n");
    }

    #[test]
    fn a_partial_write_is_an_error_and_the_next_line_is_whole() {
        // A pipe that does not block takes what fits and leaves the rest.
        let (reader, writer) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        let file = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
        let mut lines = Lines::new(file, false);
        let error = lines.append("x".repeat(1 << 20).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("of 1048577 bytes were written"), "{error}");
        assert!(lines.append(b"y").is_err(), "still full");
        assert!(lines.torn, "what comes next begins on a line of its own");
        drop(reader);
    }
}
