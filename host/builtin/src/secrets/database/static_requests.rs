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
use super::credential::check_policy;
use super::open::{Opened, missing};
use super::postgresql::logins::Login;
use super::postgresql::ownership_comment::MARK;
use super::postgresql::set_password::{self, Found};
use super::requests::{list, name_of, under_way};
use super::rotation::kept::{Kept, Record};
use super::rotation::queue::{JOB, Subject, reschedule};
use super::rotation::{Cause, RotationFailed, StoredPassword};
use super::static_role::{self, StaticRole};
use super::{AGAIN_MAX, DatabaseEngine, connection_key, role_key, target_name};

pub(super) const NOT_UNIQUE: &str = "Role and Static Role names must be unique";

/// The handlers of the routes.
impl DatabaseEngine {
    pub(super) async fn rotate_connection(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        let name = name_of(request);
        let subject = Subject::Root(name.to_owned());
        self.rotate(&request.context, &subject, Cause::Asked).await.map_err(|failed| failed.error)?;
        Ok(Outcome::Reopened { connection: target_name(&request.context, name), answer: LogicalResponse::empty() })
    }

    pub(super) async fn list_static_roles(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        list(request, "static-role/").await
    }

    pub(super) async fn show_static_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        match load(&request.context, name_of(request)).await? {
            Some((_, role)) => Ok(role.answer()),
            None => Err(RequestError::NotFound),
        }
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
        let (at, name) = (&request.context, name_of(request));
        remove(at, name, |role| {
            // Its password would be forgotten, and the database may take it a moment later.
            if role.rotation.is_under_way(at.clock.now()) { Err(under_way("static role", name)) } else { Ok(true) }
        })
        .await?;
        Ok(LogicalResponse::empty())
    }

    pub(super) async fn read_static_credentials(
        &self,
        request: &EngineRequest,
    ) -> Result<LogicalResponse, RequestError> {
        let (at, name) = (&request.context, name_of(request));
        let found = load(at, name).await?;
        let (kept, role) = found.ok_or_else(|| RequestError::invalid(format!("unknown role: {name}")))?;
        let stored = at.storage.get(&connection_key(&role.db_name)).await?;
        let stored = stored.ok_or_else(|| RequestError::Engine(missing(&role.db_name)))?;
        let connection = ConnectionRecord::from_bytes(&stored.value)
            .map_err(|_| RequestError::Internal(format!("the stored connection {:?} is not readable", role.db_name)))?;
        if !connection.allows(name) {
            return Err(RequestError::Engine(format!("{name:?} is not an allowed role")));
        }
        let role = self.resolve_static(at, kept, &connection).await?;
        let answer = role.credentials(at.clock.now()).ok_or_else(|| {
            RequestError::invalid(format!(
                "the password of static role {name:?} is not known before its first rotation: ask for one with rotate-role/{name}, or \
                 write the present password to static-roles/{name}"
            ))
        })?;
        Ok(if role.is_bound_to(&connection) { answer } else { answer.warn(moved(&role)) })
    }

    pub(super) async fn rotate_static_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let subject = Subject::Static(name_of(request).to_owned());
        let rotated = self.rotate(&request.context, &subject, Cause::Asked).await;
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
        let subject = Subject::Static(name.to_owned());
        let Some((mut kept, before)) = load(at, name).await? else {
            return self.create_static_role(request, name).await;
        };
        let mut role = before.clone();
        let mut warnings = role.merge(&request.fields, &*at.templates, false).await?;
        check_own_policy(request, &role).await?;
        let opened = self.open(at, &role.db_name).await?;
        if !opened.record.allows(name) {
            return Err(RequestError::Engine(format!("{name:?} is not an allowed role")));
        }
        let brings = |field: &str| request.fields.text(field).is_some_and(|text| !text.is_empty());
        let brings_password = brings("password") || brings("self_managed_password");
        if !role.is_bound_to(&opened.record) && brings_password {
            if before.rotation.is_under_way(at.clock.now()) {
                return Err(under_way("static role", name));
            }
            // Who writes it means the user where the connection leads now, of whom nothing is known here.
            role.rotation.forget_passwords();
            warnings.extend(try_password(&mut role, None, &opened).await?);
            self.check_user(at, &role, &opened).await?;
            role.bind(&opened.record);
            kept.expect_user_key(self.check_user_key(at, &role, name).await?);
        } else if !role.is_bound_to(&opened.record) {
            warnings.push(moved(&role));
        } else if !role.has_password_of(&before) {
            warnings.extend(try_password(&mut role, before.password.as_ref(), &opened).await?);
        }
        if role.rotation.schedule != before.rotation.schedule || role.rotation.due_at.is_none() {
            role.rotation.plan_written(at.clock.now(), &subject.seed(at));
        }
        let is_first = role.password.is_none() && !role.skip_import_rotation;
        kept.record = Record::Static(Box::new(role));
        kept.store(at).await?;
        Ok((warnings, is_first.then_some(false)))
    }

    async fn create_static_role(
        &self,
        request: &EngineRequest,
        name: &str,
    ) -> Result<(Vec<String>, Option<bool>), RequestError> {
        let (at, subject) = (&request.context, Subject::Static(name.to_owned()));
        if at.storage.get(&role_key(name)).await?.is_some() {
            return Err(RequestError::invalid(NOT_UNIQUE));
        }
        let mut role = StaticRole::default();
        let mut warnings = role.merge(&request.fields, &*at.templates, true).await?;
        check_own_policy(request, &role).await?;
        let opened = self.open(at, &role.db_name).await?;
        if !opened.record.allows(name) {
            return Err(RequestError::Engine(format!("{name:?} is not an allowed role")));
        }
        if role.password.is_some() {
            warnings.extend(try_password(&mut role, None, &opened).await?);
        }
        let now = at.clock.now();
        if role.is_self_managed && role.password.is_none() {
            return Err(RequestError::invalid("self_managed_password is required: the role logs in with it"));
        }
        self.check_user(at, &role, &opened).await?;
        if role.skip_import_rotation {
            role.rotation.plan(now, &subject.seed(at));
        } else {
            // Whoever looks first does it, should this server end before.
            role.rotation.due_at = Some(now);
        }
        role.bind(&opened.record);
        let user_key = self.check_user_key(at, &role, name).await?;
        let bytes = serde_json::to_vec(&role).map_err(|error| RequestError::Internal(error.to_string()))?;
        let batch = MountBatch::new()
            .put(static_role::key(name), bytes, Expect::Absent)
            .put(role.user_key.clone(), name.as_bytes().to_vec(), user_key)
            .check(role_key(name), Expect::Absent)
            // Whose own user it must not be.
            .check(connection_key(&role.db_name), Expect::Version(opened.version));
        at.storage.commit(reschedule(batch, &subject, None, role.rotation.due_at)).await?;
        Ok((warnings, (!role.skip_import_rotation).then_some(true)))
    }

    /// The first change. A new role whose password surely was never changed is not kept.
    async fn rotate_first(&self, at: &EngineContext, name: &str, is_new: bool) -> Result<(), RequestError> {
        let subject = Subject::Static(name.to_owned());
        let Err(RotationFailed { error, .. }) = self.rotate(at, &subject, Cause::Asked).await else {
            return Ok(());
        };
        if is_new {
            // What this request saw does not count: the job may have come first, and a store that did not answer may have written.
            let removed = remove(at, name, |role| Ok(!role.rotation.was_rotated() && role.rotation.is_certain())).await;
            if let Err(why) = removed {
                tracing::warn!(
                    mount.path = %at.mount.path,
                    error = %why,
                    "static role {name:?} is kept, although its password could not be changed: it is tried again"
                );
            }
        }
        Err(error)
    }

    /// Says what whoever takes the user is to expect of its key: a role of this name that could not be read may have left its own behind.
    ///
    /// # Errors
    /// Another static role has the user.
    pub(super) async fn check_user_key(
        &self,
        at: &EngineContext,
        role: &StaticRole,
        name: &str,
    ) -> Result<Expect, RequestError> {
        match at.storage.get(&role.user_key).await? {
            None => Ok(Expect::Absent),
            Some(own) if own.value == name.as_bytes() => Ok(Expect::Version(own.version)),
            Some(other) => Err(RequestError::Invalid(format!(
                "the password of user {:?} is already changed by static role {:?}: two would log each other out",
                role.username,
                String::from_utf8_lossy(&other.value)
            ))),
        }
    }

    /// Whether the user may have its password changed here: it stands, and nobody else counts on its password.
    pub(super) async fn check_user(
        &self,
        at: &EngineContext,
        role: &StaticRole,
        opened: &Opened,
    ) -> Result<(), RequestError> {
        let user = role.username.as_str();
        for name in at.storage.names("connection/", "", usize::MAX).await? {
            let Some(stored) = at.storage.get(&connection_key(&name)).await? else { continue };
            let Ok(record) = ConnectionRecord::from_bytes(&stored.value) else { continue };
            let server = record.server_here();
            let is_same_server = server.is_some() && server == opened.record.server_here();
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

/// The password policy that a write names must be there, as in Vault, which makes a password at once.
async fn check_own_policy(request: &EngineRequest, role: &StaticRole) -> Result<(), RequestError> {
    match role.credential_config.get("password_policy").filter(|_| request.fields.has("credential_config")) {
        Some(policy) => check_policy(&request.context, policy).await,
        None => Ok(()),
    }
}

/// With the record that it was read from.
async fn load(at: &EngineContext, name: &str) -> Result<Option<(Kept, StaticRole)>, RequestError> {
    let kept = Kept::load(at, &Subject::Static(name.to_owned())).await?;
    Ok(kept.and_then(|kept| match &kept.record {
        Record::Static(role) => Some(((**role).clone(), kept)).map(|(role, kept)| (kept, role)),
        Record::Root(_) => None,
    }))
}

/// The warning of what is answered or written while a connection leads elsewhere.
fn moved(role: &StaticRole) -> String {
    format!(
        "connection {:?} leads elsewhere since the password of this static role was set: the password is the one of user {:?} where the \
         connection led then, and it is not changed by itself before somebody writes the password that the user has now, or asks for a \
         change with rotate-role",
        role.db_name, role.username
    )
}

/// A password that somebody brings along counts when the database takes it. What this server knows already is not given up for another
/// one: Terraform sends the first password again with each change.
async fn try_password(
    role: &mut StaticRole,
    known: Option<&StoredPassword>,
    opened: &Opened,
) -> Result<Option<String>, RequestError> {
    let Some(brought) = role.password.clone() else { return Ok(None) };
    let met = opened.target.try_login(&role.username, &brought.0).await;
    let Some(known) = known else {
        return match met {
            Ok(Login::Wrong) => Err(RequestError::Invalid(format!(
                "the database does not take this password for user {:?}",
                role.username
            ))),
            // Where no login tells, whoever writes it is believed.
            Ok(Login::Right | Login::Unasked | Login::NotLetIn) | Err(_) => Ok(None),
        };
    };
    let why = match met {
        Ok(Login::Right) => return Ok(None),
        Ok(Login::Unasked) => "the database lets this user in without asking for a password, so that it is not proved",
        Ok(Login::Wrong | Login::NotLetIn) => "the database does not take it",
        Err(_) => "it could not be tried on the database",
    };
    role.password = Some(known.clone());
    Ok(Some(format!("the password of this write is not used: {why}, and another one is known here")))
}

/// Forgets a static role where `may` says so; its PostgreSQL role stays as it is.
async fn remove(
    at: &EngineContext,
    name: &str,
    may: impl Fn(&StaticRole) -> Result<bool, RequestError>,
) -> Result<(), RequestError> {
    let mut left = AGAIN_MAX;
    loop {
        let batch = match load(at, name).await {
            Ok(None) => return Ok(()),
            Ok(Some((kept, role))) => {
                if !may(&role)? {
                    return Ok(());
                }
                let batch = MountBatch::new()
                    .delete(static_role::key(name), Expect::Version(kept.version))
                    .delete(role.user_key.clone(), Expect::Anything);
                reschedule(batch, &kept.subject, role.rotation.due_at, None)
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
