//! The mount table: entries, their rules, and the longest prefix of a path.

use std::sync::{Arc, RwLock};

use leasehold_model::{MountAccessor, MountPath, Ttl};
use serde::{Deserialize, Serialize};

use super::moves::Moves;
use crate::codec::encode;
use crate::commit::{
    TRIES, commit_surely, delete_surely, overtaken_too_often, read, read_all, table_unchanged, was_overtaken,
};
use crate::keys;
use crate::lockout::LockoutRules;
use crate::random;
use crate::request::Object;
use crate::seams::engine::MountOptions;
use crate::seams::error::RequestError;
use crate::seams::host::Entropy;
use crate::seams::storage::{Batch, Expect, Storage, StorageError};

/// The two tables of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// `sys/mounts`
    Mount,
    /// `sys/auth`
    Auth,
}

impl Table {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Auth => "auth",
        }
    }
}

/// Which kind of tokens an auth mount makes. `default-…` lets a user or role say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountTokenType {
    #[default]
    DefaultService,
    DefaultBatch,
    Service,
    Batch,
}

impl MountTokenType {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DefaultService => "default-service",
            Self::DefaultBatch => "default-batch",
            Self::Service => "service",
            Self::Batch => "batch",
        }
    }

    /// An empty text is the default, as in Vault.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        [Self::DefaultService, Self::DefaultBatch, Self::Service, Self::Batch].into_iter().find(|t| t.as_str() == text)
    }
}

pub(super) const BUILTIN_VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"), "+builtin");

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountEntry {
    pub table: Table,
    /// Full: `database/`, `auth/token/`.
    pub path: MountPath,
    /// `database`, `system`, `token`.
    pub kind: String,
    pub accessor: MountAccessor,
    pub uuid: String,
    pub description: String,
    /// Zero: the system's.
    pub default_lease_ttl: Ttl,
    pub max_lease_ttl: Ttl,
    pub force_no_cache: bool,
    #[serde(default)]
    pub listing_visibility: String,
    #[serde(default)]
    pub audit_non_hmac_request_keys: Vec<String>,
    #[serde(default)]
    pub audit_non_hmac_response_keys: Vec<String>,
    /// None as in the answer of a mount without options.
    #[serde(default)]
    pub options: Option<Object>,
    /// Of an auth mount.
    #[serde(default)]
    pub token_type: MountTokenType,
    /// Of an auth mount whose lockout was tuned; none: Vault's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lockout: Option<LockoutRules>,
    pub local: bool,
    pub seal_wrap: bool,
    /// A removal failed half way: nothing is routed here until it is tried again.
    #[serde(default)]
    pub tainted: bool,
}

impl MountEntry {
    #[must_use]
    pub fn new(table: Table, path: MountPath, kind: &str, entropy: &dyn Entropy) -> Self {
        let prefix = if table == Table::Auth { "auth_" } else { "" };
        Self {
            table,
            path,
            kind: kind.to_owned(),
            accessor: MountAccessor::new(format!("{prefix}{kind}_{}", random::hex_digits(entropy, 8))),
            uuid: random::uuid(entropy),
            description: String::new(),
            default_lease_ttl: Ttl::ZERO,
            max_lease_ttl: Ttl::ZERO,
            force_no_cache: false,
            listing_visibility: String::new(),
            audit_non_hmac_request_keys: Vec::new(),
            audit_non_hmac_response_keys: Vec::new(),
            options: None,
            token_type: MountTokenType::default(),
            lockout: None,
            local: false,
            seal_wrap: false,
            tainted: false,
        }
    }

    /// All there is ships with the server.
    #[must_use]
    pub const fn running_version(&self) -> &'static str {
        BUILTIN_VERSION
    }

    /// The options as engines get them: texts.
    #[must_use]
    pub fn engine_options(&self) -> MountOptions {
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.options.iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
    }

    /// As `sys/auth` shows it: without `auth/`.
    #[must_use]
    pub fn shown_path(&self) -> &str {
        let path = self.path.as_str();
        match self.table {
            Table::Auth => path.strip_prefix("auth/").unwrap_or(path),
            Table::Mount => path,
        }
    }
}

/// All mounts. Writes go to storage first.
pub struct MountTable {
    storage: Arc<dyn Storage>,
    entries: RwLock<Arc<Vec<Arc<MountEntry>>>>,
    writing: tokio::sync::Mutex<()>,
    /// What became of moves.
    pub moves: Moves,
}

impl std::fmt::Debug for MountTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MountTable")
    }
}

impl MountTable {
    /// Reads the table; makes those that are always there where they are missing.
    ///
    /// # Errors
    /// As storage.
    pub async fn load(storage: Arc<dyn Storage>, entropy: &dyn Entropy) -> Result<Self, StorageError> {
        let entries = stored_entries(&*storage).await?;
        let table = Self {
            moves: Moves::new(storage.clone()),
            storage,
            entries: RwLock::new(Arc::new(entries.into_iter().map(Arc::new).collect())),
            writing: tokio::sync::Mutex::new(()),
        };
        for entry in Self::first(entropy)? {
            // Another server that begins at the same time may have made it.
            if table.by_path(entry.path.as_str()).is_none()
                && let Placed::Conflict(_) = table.place(&entry, None).await?
            {
                table.after_failed_write(&entry).await;
            }
        }
        Ok(table)
    }

    /// The mounts that are always there, as they begin.
    ///
    /// # Errors
    /// None that happens: their paths are well formed.
    pub(crate) fn first(entropy: &dyn Entropy) -> Result<Vec<MountEntry>, StorageError> {
        let mut first = Vec::new();
        for (kind, path, which, description) in [
            ("system", "sys/", Table::Mount, "system endpoints used for control, policy and debugging"),
            ("token", "auth/token/", Table::Auth, "token based credentials"),
            ("cubbyhole", "cubbyhole/", Table::Mount, "per-token private secret storage"),
            ("identity", "identity/", Table::Mount, "identity store"),
        ] {
            let path = path.parse().map_err(|_| StorageError::Corrupt(path.to_owned()))?;
            let mut entry = MountEntry::new(which, path, kind, entropy);
            description.clone_into(&mut entry.description);
            entry.seal_wrap = kind == "system";
            entry.local = kind == "cubbyhole";
            first.push(entry);
        }
        Ok(first)
    }

    #[must_use]
    pub fn all(&self) -> Arc<Vec<Arc<MountEntry>>> {
        self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// With the slash at its end.
    #[must_use]
    pub fn by_path(&self, path: &str) -> Option<Arc<MountEntry>> {
        self.all().iter().find(|entry| entry.path.as_str() == path).cloned()
    }

    #[must_use]
    pub fn by_accessor(&self, accessor: &MountAccessor) -> Option<Arc<MountEntry>> {
        self.all().iter().find(|entry| entry.accessor == *accessor).cloned()
    }

    /// The mount with the longest prefix, and the rest of the path. `database` finds `database/`.
    #[must_use]
    pub fn route<'a>(&self, path: &'a str) -> Option<(Arc<MountEntry>, &'a str)> {
        let all = self.all();
        let entry = all
            .iter()
            .filter(|entry| {
                path.starts_with(entry.path.as_str()) || entry.path.as_str().strip_suffix('/') == Some(path)
            })
            .max_by_key(|entry| entry.path.as_str().len())?;
        Some((entry.clone(), path.get(entry.path.as_str().len()..).unwrap_or_default()))
    }

    /// Adds a mount.
    ///
    /// # Errors
    /// `path is already in use at …` also when one of the two lies below the other.
    pub async fn add(&self, entry: MountEntry) -> Result<(), RequestError> {
        let _writing = self.writing.lock().await;
        match self.placed(&entry, None).await? {
            Placed::Done => Ok(()),
            Placed::Conflict(other) => {
                Err(RequestError::Invalid(format!("path is already in use at {}", other.shown_path())))
            }
            // Only what is there already can be lost.
            Placed::Lost => Err(RequestError::Internal("a new mount was lost".to_owned())),
        }
    }

    /// Changes an entry as it is stored at this moment; whether it is still there. `change` is asked again when another server was faster.
    ///
    /// # Errors
    /// As `change`, or storage.
    pub async fn update<E: From<StorageError>>(
        &self,
        accessor: &MountAccessor,
        change: impl Fn(&mut MountEntry) -> Result<(), E>,
    ) -> Result<bool, E> {
        let _writing = self.writing.lock().await;
        let Some(known) = self.by_accessor(accessor) else { return Ok(false) };
        let key = keys::mount(known.table.as_str(), accessor);
        for _ in 0..TRIES {
            let stored = read::<MountEntry>(&*self.storage, &key).await?;
            let Some(mut entry) = stored.record else {
                self.forget(accessor);
                return Ok(false);
            };
            change(&mut entry)?;
            let (batch, value) = put(&entry, stored.unchanged)?;
            match was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await) {
                Ok(true) => {}
                Ok(false) => {
                    self.show(entry);
                    return Ok(true);
                }
                Err(error) => {
                    self.after_failed_write(&known).await;
                    return Err(error.into());
                }
            }
        }
        Err(overtaken_too_often(&key).into())
    }

    /// Gives a closed mount another path and opens it there.
    ///
    /// # Errors
    /// The path is in use by now, or the mount was moved or removed by somebody else.
    pub async fn relocate(
        &self,
        accessor: &MountAccessor,
        from: &MountPath,
        to: MountPath,
    ) -> Result<(), RequestError> {
        let _writing = self.writing.lock().await;
        let lost = || RequestError::Invalid(format!("no matching mount at \"{from}\""));
        let Some(entry) = self.by_accessor(accessor).filter(|entry| entry.path == *from) else { return Err(lost()) };
        let moved = MountEntry { path: to, tainted: false, ..MountEntry::clone(&entry) };
        match self.placed(&moved, Some(from)).await? {
            Placed::Done => Ok(()),
            Placed::Conflict(other) => Err(RequestError::Invalid(format!("path already in use at \"{}\"", other.path))),
            Placed::Lost => Err(lost()),
        }
    }

    /// As [`MountTable::place`]; memory shows what is stored also when that failed.
    async fn placed(&self, entry: &MountEntry, from: Option<&MountPath>) -> Result<Placed, StorageError> {
        let placed = self.place(entry, from).await;
        if !matches!(placed, Ok(Placed::Done)) {
            self.after_failed_write(entry).await;
        }
        placed
    }

    /// Puts an entry at its path: a new one, or one that was at `from`. Whether the path is free is decided by what is stored, and every
    /// such change writes the row of the table: of two servers that saw it free, one is refused.
    async fn place(&self, entry: &MountEntry, from: Option<&MountPath>) -> Result<Placed, StorageError> {
        let (key, table) = (keys::mount(entry.table.as_str(), &entry.accessor), keys::mount_table());
        for _ in 0..TRIES {
            let unchanged = table_unchanged(&*self.storage, &table).await?;
            let stored = read::<MountEntry>(&*self.storage, &key).await?;
            if stored.record.as_ref().map(|entry| &entry.path) != from {
                return Ok(Placed::Lost);
            }
            let others = stored_entries(&*self.storage).await?;
            if let Some(other) = others.into_iter().find(|other| other.path.conflicts_with(&entry.path)) {
                return Ok(Placed::Conflict(Box::new(other)));
            }
            // What others have tuned since it was read stays.
            let entry = match stored.record {
                Some(now) => MountEntry { path: entry.path.clone(), tainted: entry.tainted, ..now },
                None => entry.clone(),
            };
            let (batch, value) = put(&entry, stored.unchanged)?;
            let batch = batch.put(table.clone(), Vec::new(), unchanged);
            if !was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await)? {
                self.show(entry);
                return Ok(Placed::Done);
            }
        }
        Err(overtaken_too_often(&table))
    }

    /// Makes the copy in memory what is stored, as far as the store tells. Under the lock of writes.
    async fn after_failed_write(&self, entry: &MountEntry) {
        if let Err(error) = self.read_again().await {
            tracing::warn!(%error, "the mounts could not be read again after a failed write to `{}`", entry.path);
        }
    }

    async fn read_again(&self) -> Result<(), StorageError> {
        let stored = stored_entries(&*self.storage).await?;
        self.change(|entries| *entries = stored.into_iter().map(Arc::new).collect());
        Ok(())
    }

    /// Makes the copy in memory what is stored, by whichever server.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_all(&self) -> Result<(), StorageError> {
        let _writing = self.writing.lock().await;
        self.read_again().await
    }

    fn show(&self, entry: MountEntry) {
        self.change(|entries| {
            entries.retain(|old| old.accessor != entry.accessor);
            entries.push(Arc::new(entry));
        });
    }

    fn forget(&self, accessor: &MountAccessor) {
        self.change(|entries| entries.retain(|old| old.accessor != *accessor));
    }

    /// Deletes what the engine stored, then the entry.
    ///
    /// # Errors
    /// As storage; a second try finishes the work.
    pub async fn remove(&self, entry: &MountEntry) -> Result<(), StorageError> {
        let prefix = keys::mount_data(&entry.accessor, "");
        // However long this takes, other mounts can change meanwhile: nothing is routed to this one any more.
        loop {
            let page = self.storage.scan(&prefix, None, 500).await?;
            if page.is_empty() {
                break;
            }
            self.storage.commit(page.into_iter().fold(Batch::new(), Batch::delete)).await?;
        }
        let _writing = self.writing.lock().await;
        let key = keys::mount(entry.table.as_str(), &entry.accessor);
        let gone = Batch::new().delete(key.clone()).delete(keys::mount_taint(&entry.accessor));
        let deleted = delete_surely(&*self.storage, gone, &key).await;
        match deleted {
            Ok(()) => self.forget(&entry.accessor),
            Err(_) => self.after_failed_write(entry).await,
        }
        deleted
    }

    fn change(&self, apply: impl FnOnce(&mut Vec<Arc<MountEntry>>)) {
        let mut entries = self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut changed = Vec::clone(&entries);
        apply(&mut changed);
        changed.sort_by(|a, b| a.path.cmp(&b.path));
        *entries = Arc::new(changed);
    }
}

/// What became of a change of the table's paths.
enum Placed {
    Done,
    /// A mount that is in the way.
    Conflict(Box<MountEntry>),
    /// The entry is no longer where it was.
    Lost,
}

/// All entries as they are stored, in the order of their paths.
async fn stored_entries(storage: &dyn Storage) -> Result<Vec<MountEntry>, StorageError> {
    let mut entries = Vec::new();
    for table in [Table::Mount, Table::Auth] {
        let prefix = keys::mount(table.as_str(), &MountAccessor::new(""));
        entries.extend(read_all::<MountEntry>(storage, &prefix).await?.into_iter().map(|(_, entry)| entry));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The batch that stores an entry, and the entry's bytes in it.
fn put(entry: &MountEntry, expect: Expect) -> Result<(Batch, Vec<u8>), StorageError> {
    let value = encode(entry)?;
    let batch = Batch::new().put(keys::mount(entry.table.as_str(), &entry.accessor), value.clone(), expect);
    let taint = keys::mount_taint(&entry.accessor);
    Ok((if entry.tainted { batch.put(taint, Vec::new(), Expect::Anything) } else { batch.delete(taint) }, value))
}
