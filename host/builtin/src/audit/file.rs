//! Lines in a file: append-only, one `write(2)` per line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use leasehold_core::seams::audit::{AuditDevice, AuditError, AuditLine};

/// A file that lines are appended to.
#[derive(Debug)]
pub struct FileDevice {
    path: PathBuf,
    mode: u32,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// The last write stopped inside a line; the next one begins with a line end.
    torn: bool,
}

impl FileDevice {
    /// Opens or makes the file with `mode`; an existing file gets the mode too, unless it is 0 (leave it as it is).
    ///
    /// # Errors
    /// Anything that exists there and is no regular file is refused: writing to a device or a pipe is not keeping a record.
    pub fn open(path: &Path, mode: u32) -> io::Result<Self> {
        let file = open(path, mode)?;
        Ok(Self { path: path.to_owned(), mode, open: Arc::new(Mutex::new(Open { file, torn: false })) })
    }

    fn failed(&self, why: impl std::fmt::Display) -> AuditError {
        AuditError { device: self.path.display().to_string(), why: why.to_string() }
    }
}

fn open(path: &Path, mode: u32) -> io::Result<File> {
    let wished = if mode == 0 { 0o600 } else { mode };
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(wished)
        // A pipe without a reader must not hang us, and the last part of the path must not lead elsewhere.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if mode != 0 && about.permissions().mode() & 0o7777 != mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

impl Open {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
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
                    // The disk was full in the middle of the line. Rather a line that says so by being cut than a repeated half.
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

#[async_trait]
impl AuditDevice for FileDevice {
    async fn write(&self, line: &AuditLine<'_>) -> Result<(), AuditError> {
        // One write into the page cache: microseconds, less than handing it to another thread would cost.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.append(line.0.as_bytes()).map_err(|error| self.failed(error))
    }

    async fn reopen(&self) -> Result<(), AuditError> {
        let file = open(&self.path, self.mode).map_err(|error| self.failed(error))?;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Open { file, torn: false };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appender(path: &Path) -> Open {
        Open { file: OpenOptions::new().append(true).open(path).unwrap(), torn: false }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut full = appender(Path::new("/dev/full"));
        assert_eq!(full.append(b"line").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn the_line_after_a_torn_one_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "half of a li").unwrap();
        let mut open = appender(&path);
        open.torn = true;
        open.append(b"whole").unwrap();
        open.append(b"next").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "half of a li\nwhole\nnext\n");
    }

    #[tokio::test]
    async fn a_partial_write_is_an_error_and_the_next_line_is_whole() {
        // A pipe that does not block takes what fits and leaves the rest.
        let (reader, writer) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        let file = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
        let open = Arc::new(Mutex::new(Open { file, torn: false }));
        let device = FileDevice { path: PathBuf::from("pipe"), mode: 0, open };
        let long = "x".repeat(1 << 20);
        let error = device.write(&AuditLine(&long)).await.unwrap_err();
        assert!(error.why.contains("of 1048577 bytes were written"), "{error}");
        assert!(device.write(&AuditLine("y")).await.is_err(), "still full");
        drop(reader);
    }
}
