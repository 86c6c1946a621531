//! The password of a static role, from one to the next.
//!
//! Must not know: HTTP, SQL.
//!
//! Start with [`DatabaseEngine::rotate_static`]; [`DatabaseEngine::resolve_static`] is how a reader gets the password that works while it
//! is not certain which one that is.
//!
//! Invariants: as of [the whole](super). A role that is not due is left alone by the job, so that however many servers look at the queue, a
//! password changes once.

use leasehold_core::fail;
use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_model::Timestamp;

use super::super::postgresql::failure::TargetError;
use super::super::postgresql::logins::Login;
use super::super::postgresql::set_password::{self, PasswordChange};
use super::super::static_role::{self, StaticRole};
use super::super::{DatabaseEngine, credential};
use super::queue::{Subject, reschedule};
use super::{Cause, Pending, RotationFailed, StoredPassword, Taken, wait_for_other};

const FAILED: &str = "error setting credentials";

impl DatabaseEngine {
    /// Gives a static role a new password.
    pub(in super::super) async fn rotate_static(
        &self,
        at: &EngineContext,
        name: &str,
        cause: Cause,
    ) -> Result<(), RotationFailed> {
        let began = at.clock.steady();
        loop {
            let loaded = static_role::load(&at.storage, name).await?;
            let (role, version) = loaded.ok_or_else(|| RequestError::invalid("no static role found for role name"))?;
            let now = at.clock.now();
            if role.rotation.pending.as_ref().is_some_and(|pending| !pending.is_over(now)) {
                if cause == Cause::Due {
                    return Ok(());
                }
                wait_for_other(at, began).await?;
                continue;
            }
            if role.rotation.pending.is_some() && cause == Cause::Due && self.settle_static(at, name, &role).await? {
                return Ok(());
            }
            let done = if cause == Cause::Due && role.rotation.due_at.is_none_or(|due| due > now) {
                return Ok(());
            } else if cause == Cause::Due && role.rotation.is_certain() && !role.rotation.schedule.may_happen(now) {
                let mut later = role.clone();
                later.rotation.plan(now, &seed(at, name));
                store(at, name, &later, version, role.rotation.due_at).await.map_err(RotationFailed::from)
            } else {
                match self.change_static(at, name, &role, version, cause).await {
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                }
            };
            match done {
                Err(error) if error.is_conflict() => {}
                done => done?,
            }
        }
    }

    async fn change_static(
        &self,
        at: &EngineContext,
        name: &str,
        role: &StaticRole,
        version: u64,
        cause: Cause,
    ) -> Result<(), RotationFailed> {
        let due_before = role.rotation.due_at;
        let placeholder = credential::placeholder(&*at.entropy);
        let prepared = match self.prepare_static(at, role, &placeholder).await {
            Ok(statements) => statements,
            Err(failed) => {
                if cause == Cause::Due {
                    let mut later = role.clone();
                    later.rotation.fail(&failed.error.to_string(), Taken::Perhaps, at.clock.now(), &*at.entropy);
                    store(at, name, &later, version, due_before).await?;
                }
                return Err(failed);
            }
        };
        let mut begun = role.clone();
        let pending = begun.rotation.begin(credential::password(&*at.entropy), at.clock.now(), &*at.entropy);
        store(at, name, &begun, version, due_before).await?;
        fail::point("static-rotation-stored");
        let done = self.set_static_password(at, &begun, &prepared, &placeholder, &pending).await;
        fail::point("static-rotation-set");
        let Err(failed) = done else {
            return end_static(at, name, &pending, None).await;
        };
        let taken = match (failed.is_open, role.statements.texts.is_empty()) {
            (true, _) => Taken::Perhaps,
            (false, false) => Taken::Hardly,
            (false, true) => Taken::No,
        };
        match end_static(at, name, &pending, Some((failed.error.to_string(), taken))).await {
            Err(RotationFailed { error: RequestError::Storage(error), .. }) => {
                tracing::warn!(role = name, %error, "could not store that the password of a static role was not changed");
            }
            other => other?,
        }
        Err(failed)
    }

    /// What can be seen before anything is stored.
    async fn prepare_static(
        &self,
        at: &EngineContext,
        role: &StaticRole,
        placeholder: &str,
    ) -> Result<Vec<String>, RotationFailed> {
        let opened = self.open(at, &role.db_name).await?;
        if role.username == opened.target.user() {
            return Err(RequestError::invalid(format!(
                "{:?} is the user of connection {:?} itself: its password is changed by rotate-root",
                role.username, role.db_name
            ))
            .into());
        }
        if role.statements.texts.is_empty() {
            return Ok(vec![set_password::default_statement(&role.username, placeholder)]);
        }
        let name = role.username.as_str();
        let values = [("name", name), ("username", name), ("password", placeholder)];
        Ok(role.statements.rendered(&*at.templates, &values, "rotation").await?)
    }

    async fn set_static_password(
        &self,
        at: &EngineContext,
        role: &StaticRole,
        statements: &[String],
        placeholder: &str,
        pending: &Pending,
    ) -> Result<(), RotationFailed> {
        let passwords = role.passwords();
        let mut again = super::super::AGAIN_MAX;
        loop {
            let opened = self.open(at, &role.db_name).await?;
            let authentication = opened.record.password_authentication().map_err(RequestError::Engine)?;
            let mut secrets = opened.record.secrets();
            secrets.extend(passwords.iter().cloned());
            let change = PasswordChange {
                username: &role.username,
                statements,
                placeholder,
                password: &pending.password.0,
                authentication,
                deadline: pending.deadline,
                itself: role.is_self_managed.then_some(passwords.as_slice()),
            };
            match set_password::set(&opened.target, at, &change, &secrets).await {
                Ok(()) => return Ok(()),
                Err(TargetError::Reconfigured) if again > 0 => again -= 1,
                Err(error) => return Err(RotationFailed::of(FAILED, &opened.failed(error))),
            }
        }
    }

    /// Whether a change that somebody began, and can no longer happen, has happened: then it counts, and is not made again.
    async fn settle_static(&self, at: &EngineContext, name: &str, role: &StaticRole) -> Result<bool, RotationFailed> {
        // Where the former one still works, as well as where no login tells, the password is simply set once more.
        let (Some(pending), Some(former)) = (&role.rotation.pending, &role.password) else { return Ok(false) };
        let opened = self.open(at, &role.db_name).await?;
        let login = async |password| opened.target.try_login(&role.username, password).await.ok();
        if login(&former.0).await != Some(Login::Wrong) || login(&pending.password.0).await != Some(Login::Right) {
            return Ok(false);
        }
        end_static(at, name, pending, None).await?;
        Ok(true)
    }

    /// The role with the password that its user has, as far as a login tells: only where it is not certain.
    pub(in super::super) async fn resolve_static(
        &self,
        at: &EngineContext,
        name: &str,
        role: StaticRole,
        version: u64,
    ) -> Result<StaticRole, RequestError> {
        if role.rotation.is_certain() || role.rotation.is_in_flight(at.clock.now()) {
            return Ok(role);
        }
        // An answer from the store, be it the wrong one of two, is better than none: the target may be down.
        let Ok(opened) = self.open(at, &role.db_name).await else { return Ok(role) };
        for (place, password) in role.passwords().into_iter().enumerate() {
            match opened.target.try_login(&role.username, &password).await {
                Ok(Login::Wrong) => {}
                // The target asks for no password at all, or the current one is it.
                Ok(Login::Right) if place == 0 && role.password.is_some() => return Ok(role),
                Ok(Login::Right) => {
                    let mut found = role.clone();
                    found.password = Some(StoredPassword(password));
                    if let Some(old) = &role.password {
                        found.rotation.doubt(old.0.clone());
                    }
                    return Ok(match store(at, name, &found, version, role.rotation.due_at).await {
                        Ok(()) => found,
                        // Somebody has settled it: that is what counts.
                        Err(StorageError::Conflict(_)) => {
                            static_role::load(&at.storage, name).await?.map_or(found, |(settled, _)| settled)
                        }
                        Err(error) => return Err(error.into()),
                    });
                }
                Ok(Login::NotLetIn) | Err(_) => return Ok(role),
            }
        }
        Ok(role)
    }
}

/// Stores how a change ended: well, or why not. When it was settled by somebody else meanwhile, that stands.
async fn end_static(
    at: &EngineContext,
    name: &str,
    pending: &Pending,
    failure: Option<(String, Taken)>,
) -> Result<(), RotationFailed> {
    loop {
        let Some((mut role, version)) = static_role::load(&at.storage, name).await? else {
            return match failure {
                Some(_) => Ok(()),
                None => Err(RequestError::Engine(format!(
                    "{FAILED}: static role {name:?} was deleted while its password was being changed"
                ))
                .into()),
            };
        };
        let due_before = role.rotation.due_at;
        if !role.rotation.is_pending(&pending.id) {
            return Ok(());
        }
        match &failure {
            None => {
                if let Some(password) = role.rotation.succeed(at.clock.now(), &seed(at, name)) {
                    role.password = Some(StoredPassword(password));
                }
            }
            Some((why, taken)) => role.rotation.fail(why, *taken, at.clock.now(), &*at.entropy),
        }
        match store(at, name, &role, version, due_before).await {
            Err(StorageError::Conflict(_)) => {}
            stored => {
                stored?;
                fail::point("static-rotation-ended");
                return Ok(());
            }
        }
    }
}

/// Says where between others a role's rotation stands.
pub(in super::super) fn seed(at: &EngineContext, name: &str) -> String {
    format!("{}/static/{name}", at.mount.accessor)
}

/// Writes the record, and moves its key in the queue with it.
pub(in super::super) async fn store(
    at: &EngineContext,
    name: &str,
    role: &StaticRole,
    version: u64,
    due_before: Option<Timestamp>,
) -> Result<(), StorageError> {
    let bytes = serde_json::to_vec(role).map_err(|error| StorageError::Corrupt(error.to_string()))?;
    let batch = MountBatch::new().put(static_role::key(name), bytes, Expect::Version(version));
    let batch = reschedule(batch, &Subject::Static(name.to_owned()), due_before, role.rotation.due_at);
    at.storage.commit(batch).await
}
