//! Opening the file: whose it is, our lock, modes, pragmas, migrations.
//!
//! Invariant: a file that is not ours, and what lies beside it, is left as it was.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold_model::Timestamp;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::recognise::{APPLICATION_ID, FileKind, recognise};

/// Why the file was not opened. The text goes to the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("storage directory `{}` does not exist: create it first", .0.display())]
    NoDirectory(PathBuf),
    #[error("storage path `{}` is a directory: name a file in it", .0.display())]
    IsDirectory(PathBuf),
    #[error("storage `{}` is in use by another server (it holds the lock file `{}`)", .path.display(), .lock.display())]
    Locked { path: PathBuf, lock: PathBuf },
    #[error("storage `{}` is not a Leasehold database", .0.display())]
    Foreign(PathBuf),
    #[error("storage `{}` was written by a newer Leasehold (schema {found}, this one knows {known})", .path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("could not open storage file `{}`", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not open storage `{}`", .path.display())]
    Database {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
}

/// The one connection that writes, and the lock that keeps other servers out for as long as it is open.
pub(super) struct Opened {
    // Fields drop in this order: the database closes before the lock falls.
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    _lock: Option<Lock>,
}

/// Forward only, one file each; a file's place in this list is the schema version it leads to.
const MIGRATIONS: [&str; 4] = [
    include_str!("migrations/0001_first.sql"),
    include_str!("migrations/0002_changes.sql"),
    include_str!("migrations/0003_counts.sql"),
    include_str!("migrations/0004_revoking.sql"),
];

/// Nobody but an operator's shell competes for the file; its transactions are short.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// What the one connection that writes keeps of the file: the inner pages of a million rows, so that a write reads the one page that it
/// changes. Those that only read forget theirs with each write of another.
const WRITER_CACHE_KIB: i32 = 16 * 1_024;

/// Only who runs the server may read the file: keys and lease columns are plain.
const MODE: u32 = 0o600;

pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Err(OpenError::NoDirectory(directory.to_owned()));
    }
    if path.is_dir() {
        return Err(OpenError::IsDirectory(path.to_owned()));
    }
    let looked_at = recognise(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    if looked_at == FileKind::Foreign {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let lock = Lock::take(path)?;
    Ok(Opened { connection: prepare(path)?, path: path.to_owned(), _lock: Some(lock) })
}

/// The server that took these claims is dead, or it would hold the lock: leases that it was about to end must not wait for its claims to.
/// Only those of which an effect may be undone twice; one that is being issued stays claimed until its deadline, and a job until its
/// claim ends.
pub(super) fn release_claims(opened: &Opened, now: Timestamp) -> Result<(), OpenError> {
    const TEXT: &str = "update lease set holder = null, held_until = null, fence = fence + 1 \
                        where next_at <= ?1 and holder is not null and kind <> 'job' and state <> 'issuing'";
    let failed = |source| OpenError::Database { path: opened.path.clone(), source };
    opened.connection.execute(TEXT, [now.as_nanos()]).map(drop).map_err(failed)
}

/// The same without our lock, for a second handle in one test.
#[cfg(test)]
pub(super) fn open_beside(path: &Path) -> Result<Opened, OpenError> {
    Ok(Opened { connection: prepare(path)?, path: path.to_owned(), _lock: None })
}

fn prepare(path: &Path) -> Result<Connection, OpenError> {
    // Made by us, so that the mode is right from the first byte on; SQLite gives its -wal and -shm files the same.
    private_file(path)?;
    let failed = |source| match source {
        rusqlite::Error::SqliteFailure(code, _) if code.code == rusqlite::ErrorCode::NotADatabase => {
            OpenError::Foreign(path.to_owned())
        }
        source => OpenError::Database { path: path.to_owned(), source },
    };
    let mut connection = connect(path).map_err(failed)?;
    check(&connection, path, failed)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(failed)?;
    migrate(&mut connection, path, failed)?;
    Ok(connection)
}

/// A connection as all of ours are, whoever uses it.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Keeps other servers out for as long as it is open.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(storage: &Path) -> Result<Self, OpenError> {
        let mut name = storage.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let file = private_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: storage.to_owned(), lock: path }),
            Err(TryLockError::Error(source)) => Err(OpenError::File { path, source }),
        }
    }
}

fn private_file(path: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(MODE).open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
    }
    Ok(file)
}

/// Refuses other programs' databases and our own successors' before anything is written.
fn check(connection: &Connection, path: &Path, failed: impl Fn(rusqlite::Error) -> OpenError) -> Result<(), OpenError> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(&failed)?;
    let tables: i64 =
        connection.query_row("select count(*) from sqlite_schema", [], |row| row.get(0)).map_err(&failed)?;
    if id != APPLICATION_ID && (id != 0 || tables > 0) {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let found = version(connection).map_err(&failed)?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Each step in a transaction of its own, with the version it leads to: killed in between, the next start goes on.
fn migrate(
    connection: &mut Connection,
    path: &Path,
    failed: impl Fn(rusqlite::Error) -> OpenError,
) -> Result<(), OpenError> {
    let from = version(connection).map_err(&failed)?;
    for (to, step) in (1_u32..).zip(MIGRATIONS).skip_while(|(to, _)| *to <= from) {
        let one = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", to)?;
            transaction.commit()
        };
        one(connection).map_err(&failed)?;
        tracing::info!(storage.schema = to, "storage {} is at schema {to}", path.display());
    }
    Ok(())
}
