//! A password that is changed here, with the record that keeps it: of a connection's own user, or of a static role.
//!
//! Must not know: how a password is changed, or when.
//!
//! Start with [`Kept::load`] and [`Kept::store`].
//!
//! Invariants: a record is written with the version that was read, and its key in the queue moves in the same commit. The passwords of a
//! static role are used only where its connection led when they were set or written.

use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::{Expect, StorageError, Versioned};
use leasehold_model::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::super::connection::ConnectionRecord;
use super::super::open::Opened;
use super::super::static_role::{self, StaticRole};
use super::super::{DatabaseEngine, connection_key};
use super::queue::{Subject, reschedule};
use super::{Rotation, StoredPassword, is_same};

/// The record as it was read, and as it is to be written.
#[derive(Clone)]
pub(in super::super) struct Kept {
    pub(in super::super) subject: Subject,
    pub(in super::super) record: Record,
    pub(in super::super) version: u64,
    due_before: Option<Timestamp>,
    user_key_before: String,
    /// Of the new key of the user, where it changes.
    user_key: Expect,
}

#[derive(Clone)]
pub(in super::super) enum Record {
    Root(Box<ConnectionRecord>),
    Static(Box<StaticRole>),
}

impl Subject {
    /// Of the record.
    pub(super) fn record_key(&self) -> String {
        match self {
            Self::Root(name) => connection_key(name),
            Self::Static(name) => static_role::key(name),
        }
    }

    /// What failed, in Vault's words.
    pub(super) fn failed(&self) -> &'static str {
        match self {
            Self::Root(_) => "failed to update user",
            Self::Static(_) => "error setting credentials",
        }
    }

    pub(super) fn missing(&self) -> RequestError {
        match self {
            Self::Root(name) => RequestError::Engine(super::super::open::missing(name)),
            Self::Static(_) => RequestError::invalid("no static role found for role name"),
        }
    }

    /// In a sentence.
    pub(super) fn described(&self) -> String {
        match self {
            Self::Root(name) => format!("connection {name:?}"),
            Self::Static(name) => format!("static role {name:?}"),
        }
    }

    /// Says where between others the rotation stands.
    pub(in super::super) fn seed(&self, at: &EngineContext) -> String {
        format!("{}/{self}", at.mount.accessor)
    }
}

impl Kept {
    pub(in super::super) async fn load(at: &EngineContext, subject: &Subject) -> Result<Option<Self>, RequestError> {
        match at.storage.get(&subject.record_key()).await? {
            Some(stored) => Self::read(subject, &stored).map(Some),
            None => Ok(None),
        }
    }

    /// # Errors
    /// It is not readable.
    pub(super) fn read(subject: &Subject, stored: &Versioned) -> Result<Self, RequestError> {
        let record = match subject {
            Subject::Root(_) => {
                ConnectionRecord::from_bytes(&stored.value).map(|record| Record::Root(Box::new(record)))
            }
            Subject::Static(_) => serde_json::from_slice(&stored.value).map(|role| Record::Static(Box::new(role))),
        };
        let record = record.map_err(|_| {
            RequestError::Internal(format!("what is stored of {} is not readable", subject.described()))
        })?;
        let mut kept = Self {
            subject: subject.clone(),
            record,
            version: stored.version,
            due_before: None,
            user_key_before: String::new(),
            user_key: Expect::Absent,
        };
        kept.due_before = kept.rotation().due_at;
        if let Record::Static(role) = &kept.record {
            kept.user_key_before.clone_from(&role.user_key);
        }
        Ok(kept)
    }

    /// Writes the record, and moves its keys with it.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when somebody has written it since it was read.
    pub(in super::super) async fn store(&self, at: &EngineContext) -> Result<(), StorageError> {
        let bytes = match &self.record {
            Record::Root(record) => record.to_bytes(),
            Record::Static(role) => serde_json::to_vec(role),
        };
        let bytes = bytes.map_err(|error| StorageError::Corrupt(error.to_string()))?;
        let mut batch = MountBatch::new().put(self.subject.record_key(), bytes, Expect::Version(self.version));
        if let (Record::Static(role), Subject::Static(name)) = (&self.record, &self.subject)
            && role.user_key != self.user_key_before
        {
            if !self.user_key_before.is_empty() {
                batch = batch.delete(self.user_key_before.clone(), Expect::Anything);
            }
            batch = batch.put(role.user_key.clone(), name.as_bytes().to_vec(), self.user_key);
        }
        let batch = reschedule(batch, &self.subject, self.due_before, self.rotation().due_at);
        at.storage.commit(batch).await
    }

    pub(in super::super) fn expect_user_key(&mut self, expect: Expect) {
        self.user_key = expect;
    }

    pub(in super::super) fn rotation(&self) -> &Rotation {
        match &self.record {
            Record::Root(record) => &record.rotation,
            Record::Static(role) => &role.rotation,
        }
    }

    pub(in super::super) fn rotation_mut(&mut self) -> &mut Rotation {
        match &mut self.record {
            Record::Root(record) => &mut record.rotation,
            Record::Static(role) => &mut role.rotation,
        }
    }

    pub(in super::super) fn connection(&self) -> &str {
        match (&self.subject, &self.record) {
            (_, Record::Static(role)) => &role.db_name,
            (Subject::Root(name) | Subject::Static(name), Record::Root(_)) => name,
        }
    }

    pub(super) fn is_root(&self) -> bool {
        matches!(self.record, Record::Root(_))
    }

    /// The PostgreSQL role that logs in with the password.
    pub(super) fn user<'a>(&'a self, opened: &'a Opened) -> &'a str {
        match &self.record {
            Record::Root(_) => opened.target.user(),
            Record::Static(role) => &role.username,
        }
    }

    pub(super) fn current(&self) -> Option<&SecretString> {
        match &self.record {
            Record::Root(record) => Some(record.password()),
            Record::Static(role) => role.password.as_ref().map(|password| &password.0),
        }
    }

    /// The current password from now on. Returns the one before.
    pub(super) fn take_current(&mut self, password: SecretString) -> Option<SecretString> {
        match &mut self.record {
            Record::Root(record) => Some(record.take_rotated(password)),
            Record::Static(role) => role.password.replace(StoredPassword(password)).map(|old| old.0),
        }
    }

    /// All passwords that the user may have: the most likely one first.
    pub(super) fn passwords(&self) -> Vec<SecretString> {
        let current = self.current().filter(|password| !password.expose_secret().is_empty());
        current.cloned().into_iter().chain(self.rotation().other_passwords()).collect()
    }

    /// A login has shown that the user has this one of the passwords, and no change is under way.
    pub(super) fn settle_on(&mut self, at: &EngineContext, password: &SecretString) {
        let (now, seed) = (at.clock.now(), self.subject.seed(at));
        let is_new = self.rotation().pending.as_ref().is_some_and(|pending| is_same(&pending.password.0, password));
        if is_new {
            if let Some(password) = self.rotation_mut().succeed(super::Certainty::Proved, now, &seed) {
                self.take_current(password);
            }
            return;
        }
        self.rotation_mut().settle_on_another(now, &*at.entropy);
        if self.current().is_none_or(|current| !is_same(current, password))
            && let Some(other) = self.take_current(password.clone())
        {
            self.rotation_mut().hardly(other);
        }
    }

    /// Whether an admin's change of the password mends what a login cannot.
    pub(super) fn is_changed_by_an_admin(&self) -> bool {
        matches!(&self.record, Record::Static(role) if !role.is_self_managed)
    }

    /// Whether its passwords were set or written where the connection leads now. A write that moves a connection takes care of its own
    /// user's password.
    pub(super) fn is_where(&self, connection: &ConnectionRecord) -> bool {
        match &self.record {
            Record::Root(_) => true,
            Record::Static(role) => role.is_bound_to(connection),
        }
    }
}

impl DatabaseEngine {
    /// Somebody asks for a change after the connection of a static role was led elsewhere: the role of that name there is meant from now
    /// on. No stored password is sent there.
    pub(super) async fn bind_anew(
        &self,
        at: &EngineContext,
        kept: &mut Kept,
        opened: &Opened,
    ) -> Result<(), RequestError> {
        let Record::Static(role) = &mut kept.record else { return Ok(()) };
        self.check_user(at, role, opened).await?;
        role.bind(&opened.record);
        kept.user_key = self.check_user_key(at, role, kept.subject.name()).await?;
        role.password = None;
        role.rotation.forget_passwords();
        Ok(())
    }
}
