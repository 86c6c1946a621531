//! `rotate-root/:name`: the password of a connection's own user becomes one that nobody but this server knows.
//!
//! Must not know: HTTP, SQL.
//!
//! Start with [`DatabaseEngine::rotate_root`]; [`DatabaseEngine::settle_root`] is what happens after a crash.
//!
//! Invariants: the connection's stored record holds every password that the target may have, in the order in which they are tried, so that
//! the connection works on every server whatever came between. Changes of one connection take turns by that record's version.

use leasehold_core::fail;
use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_model::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::super::connection::ConnectionRecord;
use super::super::open::Opened;
use super::super::postgresql::failure::TargetError;
use super::super::postgresql::logins::Login;
use super::super::postgresql::set_password::{self, PasswordChange};
use super::super::{DatabaseEngine, connection_key, credential};
use super::queue::{Subject, reschedule};
use super::{Cause, Pending, RotationFailed, Taken, wait_for_other};

const FAILED: &str = "failed to update user";

/// How a change of a connection's own password ended.
enum Ended {
    /// The target has the new one. The second: whether the old one may be it after all.
    New {
        doubts_old: bool,
    },
    Old {
        why: String,
        taken: Taken,
    },
}

/// The statements of one change, with a placeholder for the password.
struct Prepared {
    statements: Vec<String>,
    placeholder: String,
    is_custom: bool,
}

impl DatabaseEngine {
    /// Changes the password of a connection's own user.
    pub(in super::super) async fn rotate_root(
        &self,
        at: &EngineContext,
        name: &str,
        cause: Cause,
    ) -> Result<(), RotationFailed> {
        let began = at.clock.steady();
        loop {
            let opened = self.open(at, name).await?;
            let (now, rotation) = (at.clock.now(), &opened.record.rotation);
            let done = match &rotation.pending {
                Some(pending) if !pending.is_over(now) => {
                    if cause == Cause::Due {
                        return Ok(());
                    }
                    wait_for_other(at, began).await?;
                    continue;
                }
                Some(pending) => self.settle_root(at, name, &opened, pending).await,
                None if cause == Cause::Due && rotation.due_at.is_none_or(|due| due > now) => return Ok(()),
                None if cause == Cause::Due && !rotation.schedule.may_happen(now) => {
                    self.skip_root(at, name, &opened).await
                }
                None => match self.change_root(at, name, &opened, cause).await {
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                },
            };
            match done {
                Err(error) if error.is_conflict() => {}
                done => done?,
            }
        }
    }

    /// Its window is over: the next one counts.
    async fn skip_root(&self, at: &EngineContext, name: &str, opened: &Opened) -> Result<(), RotationFailed> {
        let mut record = opened.record.clone();
        record.rotation.plan(at.clock.now(), &seed(at, name));
        Ok(store(at, name, &record, opened.version, opened.record.rotation.due_at).await?)
    }

    async fn change_root(
        &self,
        at: &EngineContext,
        name: &str,
        opened: &Opened,
        cause: Cause,
    ) -> Result<(), RotationFailed> {
        let begun = match prepare(at, &opened.record).await {
            Ok(prepared) => {
                let password = credential::password(&*at.entropy);
                let mut record = opened.record.clone();
                let pending = record.rotation.begin(password, at.clock.now(), &*at.entropy);
                store(at, name, &record, opened.version, opened.record.rotation.due_at).await?;
                (prepared, pending)
            }
            Err(error) if cause == Cause::Due => {
                let mut record = opened.record.clone();
                record.rotation.fail(&error.to_string(), Taken::No, at.clock.now(), &*at.entropy);
                store(at, name, &record, opened.version, opened.record.rotation.due_at).await?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        fail::point("root-rotation-stored");
        self.carry_out(at, name, &begun.0, &begun.1).await
    }

    /// From the stored pending password to its end.
    async fn carry_out(
        &self,
        at: &EngineContext,
        name: &str,
        prepared: &Prepared,
        pending: &Pending,
    ) -> Result<(), RotationFailed> {
        let done = self.set_root_password(at, name, prepared, pending).await?;
        fail::point("root-rotation-set");
        match done {
            Ok(opened) => {
                // The target's word is not enough: statements of the operator's may set something else.
                let (new, user) = (&pending.password.0, opened.target.user());
                match opened.target.try_login(user, new).await {
                    Ok(Login::Right) => self.end_root(at, name, pending, Ended::New { doubts_old: false }).await,
                    Ok(Login::Wrong | Login::NotLetIn)
                        if opened.target.try_login(user, opened.record.password()).await.ok() == Some(Login::Right) =>
                    {
                        let why = "the statements ran, but the database takes the former password and not the new one";
                        let ended = Ended::Old { why: why.to_owned(), taken: Taken::Hardly };
                        self.end_root(at, name, pending, ended).await?;
                        Err(RequestError::Engine(format!("{FAILED}: {why}: see root_rotation_statements")).into())
                    }
                    _ => self.end_root(at, name, pending, Ended::New { doubts_old: true }).await,
                }
            }
            Err((opened, error)) => {
                let failed = RotationFailed::of(FAILED, &opened.failed(error));
                let taken = match (failed.is_open, prepared.is_custom) {
                    (true, _) => Taken::Perhaps,
                    (false, true) => Taken::Hardly,
                    (false, false) => Taken::No,
                };
                let why = failed.error.to_string();
                match self.end_root(at, name, pending, Ended::Old { why, taken }).await {
                    Err(RotationFailed { error: RequestError::Storage(error), .. }) => {
                        tracing::warn!(connection = name, %error, "could not store that a password was not changed");
                    }
                    other => other?,
                }
                Err(failed)
            }
        }
    }

    /// The first error: there is no connection. The second: what its target said.
    async fn set_root_password(
        &self,
        at: &EngineContext,
        name: &str,
        prepared: &Prepared,
        pending: &Pending,
    ) -> Result<Result<Opened, (Opened, TargetError)>, RotationFailed> {
        let mut again = super::super::AGAIN_MAX;
        loop {
            let opened = self.open(at, name).await?;
            let authentication = opened.record.password_authentication().map_err(RequestError::Engine)?;
            let secrets = opened.record.secrets();
            let change = PasswordChange {
                username: opened.target.user(),
                statements: &prepared.statements,
                placeholder: &prepared.placeholder,
                password: &pending.password.0,
                authentication,
                deadline: pending.deadline,
                itself: None,
            };
            match set_password::set(&opened.target, at, &change, &secrets).await {
                Ok(()) => return Ok(Ok(opened)),
                Err(TargetError::Reconfigured) if again > 0 => again -= 1,
                Err(error) => return Ok(Err((opened, error))),
            }
        }
    }

    /// Stores how a change ended. When it was settled by somebody else meanwhile, that stands.
    async fn end_root(
        &self,
        at: &EngineContext,
        name: &str,
        pending: &Pending,
        ended: Ended,
    ) -> Result<(), RotationFailed> {
        loop {
            let (mut record, version) = load(at, name).await?;
            let due_before = record.rotation.due_at;
            if !record.rotation.is_pending(&pending.id) {
                let is_ours = record.password().expose_secret() == pending.password.0.expose_secret();
                return match ended {
                    Ended::New { .. } if !is_ours => Err(RequestError::Engine(format!(
                        "{FAILED}: connection {name:?} was configured anew while its password was being changed"
                    ))
                    .into()),
                    _ => Ok(()),
                };
            }
            let now = at.clock.now();
            match &ended {
                Ended::New { doubts_old } => {
                    if let Some(password) = record.rotation.succeed(now, &seed(at, name)) {
                        let old = record.take_rotated(password);
                        if *doubts_old {
                            record.rotation.doubt(old);
                        }
                    }
                }
                Ended::Old { why, taken } => record.rotation.fail(why, *taken, now, &*at.entropy),
            }
            match store(at, name, &record, version, due_before).await {
                Err(StorageError::Conflict(_)) => {}
                stored => {
                    stored?;
                    fail::point("root-rotation-ended");
                    return Ok(());
                }
            }
        }
    }

    /// Finds out what became of a change that can no longer happen, and stores that.
    async fn settle_root(
        &self,
        at: &EngineContext,
        name: &str,
        opened: &Opened,
        pending: &Pending,
    ) -> Result<(), RotationFailed> {
        let (user, target) = (opened.target.user(), &opened.target);
        let met = async |password: &SecretString| {
            let met = target.try_login(user, password).await;
            met.map_err(|error| RotationFailed::of(FAILED, &opened.failed(error.before_anything())))
        };
        let old = met(opened.record.password()).await?;
        let new = met(&pending.password.0).await?;
        match (old, new) {
            (Login::Right, Login::Right) => {
                // The target asks for no password, so that no login says which one it has: it is set once more.
                let mut record = opened.record.clone();
                let again = record.rotation.begin(pending.password.0.clone(), at.clock.now(), &*at.entropy);
                store(at, name, &record, opened.version, opened.record.rotation.due_at).await?;
                let prepared = prepare(at, &record).await?;
                self.carry_out(at, name, &prepared, &again).await
            }
            (_, Login::Right) => self.end_root(at, name, pending, Ended::New { doubts_old: false }).await,
            (Login::Right, _) => {
                let why =
                    "a server ended while it changed the password, before the database took the new one".to_owned();
                self.end_root(at, name, pending, Ended::Old { why, taken: Taken::Hardly }).await
            }
            _ => self.settle_by_former(at, name, opened, pending).await,
        }
    }

    /// Neither the current nor the pending password: one whose end nobody saw may still be it.
    async fn settle_by_former(
        &self,
        at: &EngineContext,
        name: &str,
        opened: &Opened,
        pending: &Pending,
    ) -> Result<(), RotationFailed> {
        let mut found = None;
        for former in opened.record.rotation.other_passwords() {
            if opened.target.try_login(opened.target.user(), &former).await.ok() == Some(Login::Right) {
                found = Some(former);
                break;
            }
        }
        let Some(password) = found else {
            return Err(RequestError::Engine(format!(
                "{FAILED}: the database takes none of the passwords that are stored for user {:?} of connection {name:?}, the new one \
                 among them: somebody has changed it there. Set it in PostgreSQL, then write it to config/{name}",
                opened.target.user()
            ))
            .into());
        };
        let mut record = opened.record.clone();
        let due_before = record.rotation.due_at;
        record.rotation.fail(
            "the database had a password of an earlier change",
            Taken::Hardly,
            at.clock.now(),
            &*at.entropy,
        );
        let old = record.take_rotated(password);
        record.rotation.doubt(old);
        debug_assert!(!record.rotation.is_pending(&pending.id));
        Ok(store(at, name, &record, opened.version, due_before).await?)
    }
}

/// What can be seen before anything is stored.
async fn prepare(at: &EngineContext, record: &ConnectionRecord) -> Result<Prepared, RequestError> {
    let dsn = record.check_rotatable().map_err(RequestError::Engine)?;
    let placeholder = credential::placeholder(&*at.entropy);
    let is_custom = record.has_rotation_statements();
    let statements = if is_custom {
        let values = [("name", dsn.user.as_str()), ("username", dsn.user.as_str()), ("password", placeholder.as_str())];
        record.rotation_templates(&*at.templates).await?.rendered(&*at.templates, &values, "rotation").await?
    } else {
        vec![set_password::default_statement(&dsn.user, &placeholder)]
    };
    Ok(Prepared { statements, placeholder, is_custom })
}

/// Says where between others a connection's rotation stands.
pub(in super::super) fn seed(at: &EngineContext, name: &str) -> String {
    format!("{}/root/{name}", at.mount.accessor)
}

async fn load(at: &EngineContext, name: &str) -> Result<(ConnectionRecord, u64), RotationFailed> {
    let stored = at.storage.get(&connection_key(name)).await?;
    let stored = stored.ok_or_else(|| {
        RequestError::Engine(format!("{FAILED}: connection {name:?} was deleted while its password was being changed"))
    })?;
    let record = ConnectionRecord::from_bytes(&stored.value)
        .map_err(|_| RequestError::Internal(format!("the stored connection {name:?} is not readable")))?;
    Ok((record, stored.version))
}

/// Writes the record, and moves its key in the queue with it.
pub(in super::super) async fn store(
    at: &EngineContext,
    name: &str,
    record: &ConnectionRecord,
    version: u64,
    due_before: Option<Timestamp>,
) -> Result<(), StorageError> {
    let bytes = record.to_bytes().map_err(|error| StorageError::Corrupt(error.to_string()))?;
    let batch = MountBatch::new().put(connection_key(name), bytes, Expect::Version(version));
    let batch = reschedule(batch, &Subject::Root(name.to_owned()), due_before, record.rotation.due_at);
    at.storage.commit(batch).await
}
