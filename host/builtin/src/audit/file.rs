//! Lines in a file: append-only, one `write(2)` per line.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use leasehold_core::seams::audit::{AuditDevice, AuditError, AuditLine, Destination, Receipt};

use super::lines::Lines;
use super::writer::{Sink, Writer};

/// A file that lines are appended to.
#[derive(Debug)]
pub struct FileDevice {
    writer: Writer,
    destination: Arc<Mutex<Destination>>,
}

/// Why a file cannot be written to.
#[derive(Debug)]
pub enum Unopened {
    System(io::Error),
    /// Another device writes to it.
    Taken,
}

impl From<io::Error> for Unopened {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl FileDevice {
    /// Opens or makes the file with `mode`; an existing file gets the mode too, unless it is 0 (leave it as it is). Nothing of a
    /// file that is in `taken` is changed.
    ///
    /// # Errors
    /// Anything that exists there and is no regular file is refused: writing to a device or a pipe is not keeping a record.
    pub fn open(path: &Path, mode: u32, taken: &[Destination]) -> Result<Self, Unopened> {
        let Opened { file, destination, torn } = open(path, mode, taken)?;
        let name = destination.name.clone();
        let destination = Arc::new(Mutex::new(destination));
        let sink =
            FileSink { path: path.to_owned(), mode, lines: Lines::new(file, torn), destination: destination.clone() };
        Ok(Self { writer: Writer::start(name, sink)?, destination })
    }
}

struct FileSink {
    path: PathBuf,
    mode: u32,
    lines: Lines,
    destination: Arc<Mutex<Destination>>,
}

impl Sink for FileSink {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.lines.append(line)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let opened = open(&self.path, self.mode, &[]).map_err(|error| match error {
            Unopened::System(error) => error,
            Unopened::Taken => io::ErrorKind::ResourceBusy.into(),
        })?;
        self.lines = Lines::new(opened.file, opened.torn);
        *self.destination.lock().unwrap_or_else(PoisonError::into_inner) = opened.destination;
        Ok(())
    }
}

struct Opened {
    file: File,
    destination: Destination,
    torn: bool,
}

fn open(path: &Path, mode: u32, taken: &[Destination]) -> Result<Opened, Unopened> {
    let file = open_to_append(path, if mode == 0 { 0o600 } else { mode })?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file").into());
    }
    let destination = Destination { name: resolved(path), file: Some((about.dev(), about.ino())) };
    if taken.iter().any(|other| other.is_same(&destination)) {
        return Err(Unopened::Taken);
    }
    if mode != 0 && about.permissions().mode() & 0o7777 != mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    let torn = is_torn(&file, about.len());
    Ok(Opened { file, destination, torn })
}

fn open_to_append(path: &Path, mode: u32) -> io::Result<File> {
    let open = |readable: bool| {
        OpenOptions::new()
            .read(readable)
            .append(true)
            .create(true)
            .mode(mode)
            // A pipe without a reader must not hang us, and the last part of the path must not lead elsewhere.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
    };
    // Reading serves one thing: to see whether the last line has an end. A file that may only be written is a fine record.
    open(true).or_else(|error| if error.kind() == io::ErrorKind::PermissionDenied { open(false) } else { Err(error) })
}

/// Whether the last line has no end: a full disk or the end of a process cut it. What cannot be read may be cut.
fn is_torn(file: &File, length: u64) -> bool {
    let Some(last) = length.checked_sub(1) else { return false };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last).is_err() || byte != *b"\n"
}

/// The path after symbolic links, where it has any.
fn resolved(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
}

#[async_trait]
impl AuditDevice for FileDevice {
    fn submit(&self, line: AuditLine, receipt: Receipt) {
        self.writer.submit(line, receipt);
    }

    async fn reopen(&self) -> Result<(), AuditError> {
        self.writer.reopen().await
    }

    fn destination(&self) -> Option<Destination> {
        Some(self.destination.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
