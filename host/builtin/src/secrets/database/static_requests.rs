//! What a request about static roles, or for a rotation, does.
//!
//! Must not know: how a password is changed.
//!
//! Start with the handlers, which [`super::routes`] names.

use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::engine::{EngineContext, EngineRequest, Outcome};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::{Expect, StorageError};

use super::connection::ConnectionRecord;
use super::open::Opened;
use super::postgresql::logins::Login;
use super::postgresql::ownership_comment::MARK;
use super::postgresql::set_password::{self, Found};
use super::requests::{list, name_of};
use super::rotation::queue::{JOB, Subject, reschedule};
use super::rotation::static_roles::{self, seed};
use super::rotation::{Cause, RotationFailed};
use super::static_role::{self, StaticRole};
use super::{AGAIN_MAX, DatabaseEngine, connection_key, role_key, target_name};

pub(super) const NOT_UNIQUE: &str = "Role and Static Role names must be unique";

/// The handlers of the routes.
impl DatabaseEngine {
    pub(super) async fn rotate_connection(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        let name = name_of(request);
        self.rotate_root(&request.context, name, Cause::Asked).await.map_err(|failed| failed.error)?;
        Ok(Outcome::Reopened { connection: target_name(&request.context, name), answer: LogicalResponse::empty() })
    }

    pub(super) async fn list_static_roles(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        list(request, "static-role/").await
    }

    pub(super) async fn show_static_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let found = static_role::load(&request.context.storage, name_of(request)).await?;
        found.map(|(role, _)| role.answer()).ok_or(RequestError::NotFound)
    }

    pub(super) async fn write_static_role(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        let mut left = AGAIN_MAX;
        let (warnings, to_rotate) = loop {
            match self.merge_static_role(request, name_of(request)).await {
                Err(RequestError::Storage(StorageError::Conflict(_))) if left > 0 => left -= 1,
                done => break done?,
            }
        };
        if let Some(is_new) = to_rotate {
            self.rotate_first(&request.context, name_of(request), is_new).await?;
        }
        let answer = warnings.into_iter().fold(LogicalResponse::empty(), LogicalResponse::warn);
        Ok(Outcome::Job { name: JOB.name, outcome: Box::new(Outcome::Answer(answer)) })
    }

    pub(super) async fn delete_static_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        remove(&request.context, name_of(request)).await?;
        Ok(LogicalResponse::empty())
    }

    pub(super) async fn read_static_credentials(
        &self,
        request: &EngineRequest,
    ) -> Result<LogicalResponse, RequestError> {
        let (at, name) = (&request.context, name_of(request));
        let found = static_role::load(&at.storage, name).await?;
        let (role, version) = found.ok_or_else(|| RequestError::invalid(format!("unknown role: {name}")))?;
        let role = self.resolve_static(at, name, role, version).await?;
        role.credentials(at.clock.now()).ok_or_else(|| {
            RequestError::invalid(format!(
                "the password of static role {name:?} is not known before its first rotation: ask for one with rotate-role/{name}, or \
                 write the present password to static-roles/{name}"
            ))
        })
    }

    pub(super) async fn rotate_static_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let rotated = self.rotate_static(&request.context, name_of(request), Cause::Asked).await;
        rotated.map(|()| LogicalResponse::empty()).map_err(|failed| failed.error)
    }
}

impl DatabaseEngine {
    /// Stores what a write says. Returns warnings, and whether the password is to be changed now: for a role that is new, or not.
    async fn merge_static_role(
        &self,
        request: &EngineRequest,
        name: &str,
    ) -> Result<(Vec<String>, Option<bool>), RequestError> {
        let at = &request.context;
        let stored = static_role::load(&at.storage, name).await?;
        let is_new = stored.is_none();
        if is_new && at.storage.get(&role_key(name)).await?.is_some() {
            return Err(RequestError::invalid(NOT_UNIQUE));
        }
        let (before, version) = stored.unwrap_or_default();
        let mut role = before.clone();
        let mut warnings = role.merge(&request.fields, &*at.templates, is_new).await?;
        let opened = self.open(at, &role.db_name).await?;
        if !opened.record.allows(name) {
            return Err(RequestError::Engine(format!("{name:?} is not an allowed role")));
        }
        if !role.has_password_of(&before) {
            warnings.extend(try_password(&mut role, &before, &opened).await?);
        }
        let now = at.clock.now();
        if !is_new {
            if role.rotation.schedule != before.rotation.schedule {
                role.rotation.plan(before.rotation.last_rotated_at.unwrap_or(now), &seed(at, name));
            }
            static_roles::store(at, name, &role, version, before.rotation.due_at).await?;
            let is_first = role.password.is_none() && !role.skip_import_rotation;
            return Ok((warnings, is_first.then_some(false)));
        }
        if role.is_self_managed && role.password.is_none() {
            return Err(RequestError::invalid("self_managed_password is required: the role logs in with it"));
        }
        self.check_user(at, &role, &opened).await?;
        if role.skip_import_rotation {
            role.rotation.plan(now, &seed(at, name));
        } else {
            // Whoever looks first does it, should this server end before.
            role.rotation.due_at = Some(now);
        }
        let target = opened.record.server.clone().unwrap_or_else(|| format!("connection {}", role.db_name));
        role.user_key = static_role::user_key(&target, &role.username);
        if let Some(other) = at.storage.get(&role.user_key).await? {
            return Err(RequestError::Invalid(format!(
                "the password of user {:?} is already changed by static role {:?}: two would log each other out",
                role.username,
                String::from_utf8_lossy(&other.value)
            )));
        }
        let bytes = serde_json::to_vec(&role).map_err(|error| RequestError::Internal(error.to_string()))?;
        let batch = MountBatch::new()
            .put(static_role::key(name), bytes, Expect::Absent)
            .put(role.user_key.clone(), name.as_bytes().to_vec(), Expect::Absent)
            .check(role_key(name), Expect::Absent);
        at.storage.commit(reschedule(batch, &Subject::Static(name.to_owned()), None, role.rotation.due_at)).await?;
        Ok((warnings, (!role.skip_import_rotation).then_some(true)))
    }

    /// The first change. A role whose password could not be set, and surely was not, is not kept.
    async fn rotate_first(&self, at: &EngineContext, name: &str, is_new: bool) -> Result<(), RequestError> {
        let Err(RotationFailed { error, is_open, .. }) = self.rotate_static(at, name, Cause::Asked).await else {
            return Ok(());
        };
        if is_new && !is_open {
            remove(at, name).await?;
        }
        Err(error)
    }

    /// Whether the user may have its password changed here: it stands, and nobody else counts on its password.
    async fn check_user(&self, at: &EngineContext, role: &StaticRole, opened: &Opened) -> Result<(), RequestError> {
        let user = role.username.as_str();
        for name in at.storage.names("connection/", "", usize::MAX).await? {
            let Some(stored) = at.storage.get(&connection_key(&name)).await? else { continue };
            let Ok(record) = ConnectionRecord::from_bytes(&stored.value) else { continue };
            let is_same_server = record.server.is_some() && record.server == opened.record.server;
            if (name == role.db_name || is_same_server) && record.dsn().is_ok_and(|dsn| dsn.user == user) {
                return Err(RequestError::Invalid(format!(
                    "{user:?} is the user of connection {name:?} itself: its password is changed by rotate-root/{name}"
                )));
            }
        }
        let found = set_password::look(&opened.target, user).await;
        match found
            .map_err(|error| RequestError::Engine(format!("error setting credentials: {}", opened.failed(error))))?
        {
            Found::Absent => Err(RequestError::Engine(format!(
                "error setting credentials: failed to execute query: ERROR: role \"{user}\" does not exist (SQLSTATE 42704): a static \
                 role changes the password of a PostgreSQL role that stands already, create it first"
            ))),
            Found::Role(Some(comment)) if comment.starts_with(MARK) => Err(RequestError::Invalid(format!(
                "{user:?} was made for a lease and goes with it: a static role needs a PostgreSQL role of its own"
            ))),
            Found::Role(_) => Ok(()),
        }
    }
}

/// A password that somebody brings along counts when the database takes it. What this server has set itself is not given up for
/// another one: Terraform sends the first password again with each change.
async fn try_password(
    role: &mut StaticRole,
    before: &StaticRole,
    opened: &Opened,
) -> Result<Option<String>, RequestError> {
    let Some(brought) = role.password.clone() else { return Ok(None) };
    let met = opened.target.try_login(&role.username, &brought.0).await;
    match (met, &before.password) {
        (Ok(Login::Right), _) => Ok(None),
        (Ok(Login::Wrong), None) => {
            Err(RequestError::Invalid(format!("the database does not take this password for user {:?}", role.username)))
        }
        // Where no login tells, whoever writes it is believed.
        (Ok(Login::NotLetIn) | Err(_), None) => Ok(None),
        (met, Some(known)) => {
            role.password = Some(known.clone());
            let why =
                if met.is_ok() { "the database does not take it" } else { "it could not be tried on the database" };
            Ok(Some(format!("the password of this write is not used: {why}, and another one is known here")))
        }
    }
}

/// Forgets a static role; its PostgreSQL role stays as it is.
async fn remove(at: &EngineContext, name: &str) -> Result<(), RequestError> {
    let mut left = AGAIN_MAX;
    loop {
        let batch = match static_role::load(&at.storage, name).await {
            Ok(None) => return Ok(()),
            Ok(Some((role, version))) => {
                let batch = MountBatch::new()
                    .delete(static_role::key(name), Expect::Version(version))
                    .delete(role.user_key.clone(), Expect::Anything);
                reschedule(batch, &Subject::Static(name.to_owned()), role.rotation.due_at, None)
            }
            // What cannot be read can still be removed; its key in the queue goes when it is due.
            Err(RequestError::Internal(_)) => MountBatch::new().delete(static_role::key(name), Expect::Anything),
            Err(error) => return Err(error),
        };
        match at.storage.commit(batch).await {
            Err(StorageError::Conflict(_)) if left > 0 => left -= 1,
            done => return Ok(done?),
        }
    }
}
