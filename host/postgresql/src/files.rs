//! Files that a request or a stored connection names. Every one of them is read here.
//!
//! Whoever may write a connection may not thereby read the server's files, fill its memory, hang its threads or learn which paths
//! exist. A file must lie beneath the directory that the server's configuration names, be a regular file reached without links, and
//! be small; it is opened without waiting, away from the runtime's threads; and every failure has one and the same answer.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// No certificate, and no bundle of them, is larger.
const SIZE_MAX: u64 = 1024 * 1024;
/// A file system that does not answer holds a thread each; more than these are not risked.
const READS_MAX: usize = 4;
/// How long a file may take to come.
const READ_TIME_MAX: Duration = Duration::from_secs(5);

/// Reads files that connections name.
#[derive(Clone, Debug)]
pub struct ConnectionFiles {
    directory: Option<Arc<Path>>,
    reads: Arc<Semaphore>,
}

/// Who named a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Somebody who writes the connection now.
    ByRequest,
    /// A connection that was stored before such names were confined to the directory.
    ByOldRecord,
    /// The operator, in the server's configuration: they may name any file, and are told what is wrong with it.
    ByConfiguration,
}

impl ConnectionFiles {
    /// Files may lie beneath `directory`; without one, none is read.
    pub fn beneath(directory: Option<PathBuf>) -> Self {
        Self { directory: directory.map(Arc::from), reads: Arc::new(Semaphore::new(READS_MAX)) }
    }

    /// The file that `option` names.
    ///
    /// # Errors
    /// One text for whatever is wrong with the file; another where none may be named at all.
    pub async fn read(&self, option: &str, path: &str, named: Named) -> Result<Zeroizing<Vec<u8>>, String> {
        let (directory, named_path) = (self.directory.clone(), PathBuf::from(path));
        if directory.is_none() && named == Named::ByRequest {
            return Err(format!(
                "{option} names a file, and connection_files_dir is not set in the server's configuration: send the PEM text in {} \
                 instead",
                inline(option)
            ));
        }
        let unusable = |cause: &str| {
            if named == Named::ByConfiguration {
                return Err(format!("{option}={path}: {cause}"));
            }
            tracing::info!(option, path, cause, "a file that a connection names cannot be used");
            Err(unusable(option))
        };
        let Ok(Ok(place)) = timeout(READ_TIME_MAX, Arc::clone(&self.reads).acquire_owned()).await else {
            return unusable("other files have not come yet");
        };
        let reading = tokio::task::spawn_blocking(move || {
            // Held until the file system answers, however long nobody waits for it any more.
            let _place = place;
            match (named, directory) {
                (Named::ByRequest, Some(directory)) => open_beneath(&directory, &named_path).and_then(contents),
                (Named::ByRequest, None) => Err("no directory is configured"),
                (Named::ByOldRecord | Named::ByConfiguration, _) => open_anywhere(&named_path).and_then(contents),
            }
        });
        match timeout(READ_TIME_MAX, reading).await {
            Ok(Ok(Ok(bytes))) => Ok(bytes),
            Ok(Ok(Err(cause))) => unusable(cause),
            Ok(Err(_)) => unusable("reading it was cancelled"),
            Err(_) => unusable("it did not come in time"),
        }
    }
}

/// The one answer, whether the file is missing, forbidden, too large, of another kind, or not what it should hold.
pub fn unusable(option: &str) -> String {
    format!(
        "{option} names a file that cannot be used: it must be a PEM file of at most 1 MiB beneath connection_files_dir, a regular one \
         that is not reached through a link. Or send its text in {}",
        inline(option)
    )
}

/// The field that takes the same as text.
fn inline(option: &str) -> &'static str {
    match option {
        "sslcert" => "tls_certificate",
        "sslkey" => "private_key",
        _ => "tls_ca",
    }
}

const OPEN: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::NOFOLLOW);

/// Walks from the directory to the file, following no link on the way.
fn open_beneath(directory: &Path, named: &Path) -> Result<File, &'static str> {
    let below = if named.is_absolute() {
        named.strip_prefix(directory).map_err(|_| "it lies outside connection_files_dir")?
    } else {
        named
    };
    let mut names = Vec::new();
    for part in below.components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return Err("its path leads upwards"),
        }
    }
    let (last, folders) = names.split_last().ok_or("it is the directory itself")?;
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let missing = "a part of its path cannot be opened";
    let mut at =
        rustix::fs::open(directory, folder, Mode::empty()).map_err(|_| "connection_files_dir cannot be opened")?;
    for name in folders {
        at = rustix::fs::openat(&at, *name, folder | OFlags::NOFOLLOW, Mode::empty()).map_err(|_| missing)?;
    }
    // Not opened before this is known: opening alone does something to some devices.
    let kind = rustix::fs::statat(&at, *last, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing)?;
    if FileType::from_raw_mode(kind.st_mode) != FileType::RegularFile {
        return Err("it is not a regular file");
    }
    rustix::fs::openat(&at, *last, OPEN, Mode::empty()).map(File::from).map_err(|_| missing)
}

/// For connections that were stored before the directory was asked for: their operator chose the file then.
fn open_anywhere(named: &Path) -> Result<File, &'static str> {
    let missing = "it cannot be opened";
    let kind = rustix::fs::stat(named).map_err(|_| missing)?;
    if FileType::from_raw_mode(kind.st_mode) != FileType::RegularFile {
        return Err("it is not a regular file");
    }
    rustix::fs::open(named, OPEN.difference(OFlags::NOFOLLOW), Mode::empty()).map(File::from).map_err(|_| missing)
}

fn contents(file: File) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    // Once more: what was looked at may have been replaced.
    let found = file.metadata().map_err(|_| "it cannot be looked at")?;
    if !found.is_file() {
        return Err("it is not a regular file");
    }
    if found.len() > SIZE_MAX {
        return Err("it is too large");
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0)));
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(|_| "it cannot be read")?;
    if bytes.len() as u64 > SIZE_MAX { Err("it is too large") } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;

    /// A1: a device gave the server gigabytes, a FIFO hung it for ever, and the answers told which paths exist.
    #[tokio::test]
    async fn whatever_a_request_names_but_a_small_file_beneath_the_directory_has_one_answer() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("files"), folder.path().join("outside.pem"));
        fs::create_dir_all(inside.join("deep")).unwrap();
        fs::write(&outside, "outside").unwrap();
        fs::write(inside.join("deep/ca.pem"), "ca").unwrap();
        fs::write(inside.join("big.pem"), vec![b'x'; 1024 * 1024 + 1]).unwrap();
        symlink(&outside, inside.join("link.pem")).unwrap();
        symlink(inside.join("deep"), inside.join("linked")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, inside.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _socket = UnixListener::bind(inside.join("socket")).unwrap();
        let files = ConnectionFiles::beneath(Some(inside.clone()));
        let read = async |path: &str| files.read("sslrootcert", path, Named::ByRequest).await;

        for path in ["deep/ca.pem", "./deep/ca.pem", inside.join("deep/ca.pem").to_str().unwrap()] {
            assert_eq!(read(path).await.unwrap().as_slice(), b"ca", "{path}");
        }
        let inside = inside.to_str().unwrap();
        let began = Instant::now();
        for path in [
            "/dev/zero",
            "/etc/passwd",
            "/proc/self/environ",
            "/nonexistent",
            "../outside.pem",
            "deep/../../outside.pem",
            outside.to_str().unwrap(),
            &format!("{inside}/../outside.pem"),
            "link.pem",
            "linked/ca.pem",
            "fifo",
            "socket",
            "deep",
            "",
            ".",
            inside,
            "big.pem",
            "missing.pem",
            "deep/ca.pem/x",
        ] {
            assert_eq!(read(path).await.unwrap_err(), unusable("sslrootcert"), "{path}");
        }
        assert!(began.elapsed() < READ_TIME_MAX, "something waited for a peer");
    }

    #[tokio::test]
    async fn without_a_directory_no_file_is_read_and_the_hint_names_the_field() {
        let files = ConnectionFiles::beneath(None);
        for (option, field) in [("sslrootcert", "tls_ca"), ("sslcert", "tls_certificate"), ("sslkey", "private_key")] {
            let said = files.read(option, "/etc/passwd", Named::ByRequest).await.unwrap_err();
            assert!(said.contains(&format!("PEM text in {field}")), "{said}");
            assert_eq!(said, files.read(option, "/nonexistent", Named::ByRequest).await.unwrap_err());
        }
    }

    #[tokio::test]
    async fn an_old_record_is_read_on_but_no_device_and_nothing_large() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("ca.pem"), folder.path().join("link"));
        fs::write(&file, "ca").unwrap();
        symlink(&file, &link).unwrap();
        let files = ConnectionFiles::beneath(None);
        let read = async |path: &Path| files.read("sslrootcert", path.to_str().unwrap(), Named::ByOldRecord).await;
        assert_eq!(read(&file).await.unwrap().as_slice(), b"ca");
        assert_eq!(read(&link).await.unwrap().as_slice(), b"ca");
        assert_eq!(read(Path::new("/dev/zero")).await.unwrap_err(), unusable("sslrootcert"));
        assert_eq!(read(Path::new("/nonexistent")).await.unwrap_err(), unusable("sslrootcert"));
    }
}
