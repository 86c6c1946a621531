//! What a request to one of the engine's routes does.
//!
//! Must not know: what happens to a lease after it was planned.
//!
//! Start with the handlers, which [`super::routes`] names.

use std::num::NonZeroU64;

use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::engine::{EngineContext, EngineRequest, Outcome};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_leases::{PathLimit, Standing, above_limit};
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::{Expect, StorageError};
use serde_json::json;

use super::connection::{self, ConnectionRecord, creating};
use super::credential::{self, advise_policy};
use super::effect::Effect;
use super::open::{Unusable, missing};
use super::postgresql::dry_run::{self, Report};
use super::postgresql::logins::Login;
use super::postgresql::renew;
use super::role::RoleRecord;
use super::rotation::queue::{JOB, Subject, reschedule};
use super::standing::{self, Force, StaticRoles};
use super::static_requests::NOT_UNIQUE;
use super::static_role;
use super::{AGAIN_MAX, DatabaseEngine, connection_key, plan, read_role, role, role_key, target_name};

/// What becomes of leases whose connection was taken from under them.
fn end_later(standing: &Standing) -> String {
    let (they, them) = if standing.is_one() { ("it ends", "it") } else { ("they end", "them") };
    format!(
        "{they} only when a connection of this name leads to that server again, or when `lease revoke -force -prefix` gives {them} up"
    )
}

/// What becomes of static roles whose connection is gone.
const UNREADABLE: &str = "static-creds refuses their passwords, which stay as they are, and changes that fall due are tried again and again \
     until a connection of this name leads to that server again";

const NOT_ASKED: &str = "the database let us in without asking for the password, so that it is not proved: passwords that are stored beside it \
     are kept";

/// The handlers of the routes.
impl DatabaseEngine {
    pub(super) async fn list_connections(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        list(request, "connection/").await
    }

    pub(super) async fn read_connection(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let name = name_of(request);
        let stored = request.context.storage.get(&connection_key(name)).await?.ok_or(RequestError::NotFound)?;
        let record = ConnectionRecord::from_bytes(&stored.value)
            .map_err(|_| RequestError::Internal(format!("the stored connection {name:?} is not readable")))?;
        Ok(record.answer())
    }

    pub(super) async fn write_connection(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        let answer = self.write(request, "config", name_of(request)).await?;
        let outcome = Outcome::Reopened { connection: target_name(&request.context, name_of(request)), answer };
        let is_about_rotation = ["rotation_period", "rotation_schedule", "disable_automated_rotation"]
            .iter()
            .any(|name| request.fields.has(name));
        Ok(if is_about_rotation { Outcome::Job { name: JOB.name, outcome: Box::new(outcome) } } else { outcome })
    }

    pub(super) async fn reset_connection(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        let answer = self.write(request, "reset", name_of(request)).await?;
        Ok(Outcome::Reopened { connection: target_name(&request.context, name_of(request)), answer })
    }

    pub(super) async fn delete_connection(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let name = name_of(request);
        let mut left = AGAIN_MAX;
        let left_alone = loop {
            let Some(stored) = request.context.storage.get(&connection_key(name)).await? else {
                return Ok(LogicalResponse::empty());
            };
            let rotation = ConnectionRecord::from_bytes(&stored.value).ok().map(|record| record.rotation);
            // Its password would be forgotten, and the database may take it a moment later.
            if rotation.as_ref().is_some_and(|rotation| rotation.is_under_way(request.context.clock.now())) {
                return Err(under_way("connection", name));
            }
            let batch = MountBatch::new().delete(connection_key(name), Expect::Version(stored.version));
            let due_at = rotation.and_then(|rotation| rotation.due_at);
            let batch = reschedule(batch, &Subject::Root(name.to_owned()), due_at, None);
            let refused = |standing: &Standing| {
                format!(
                    "connection {name:?} cannot be deleted: {} on it and could not end without it; revoke {}, or send force=true to \
                     delete it all the same",
                    standing.with_verb("stands", "stand"),
                    standing.pronoun()
                )
            };
            match standing::commit(&request.context, name, batch, force(request), refused).await {
                Err(RequestError::Storage(StorageError::Conflict(_))) if left > 0 => left -= 1,
                done => break done?,
            }
        };
        self.retain_pools(|id| *id != (request.context.mount.accessor.clone(), name.to_owned()));
        // None is created any more. It is done: whatever goes wrong here only leaves the warning out.
        let static_roles = StaticRoles::of(&request.context, name).await.unwrap_or_default();
        let unreadable =
            static_roles.map(|static_roles| format!("{static_roles} stood on this connection: {UNREADABLE}"));
        let left_alone =
            left_alone.map(|standing| format!("{standing} stood on this connection: {}", end_later(&standing)));
        let warnings = unreadable.into_iter().chain(left_alone);
        Ok(warnings.fold(LogicalResponse::empty(), LogicalResponse::warn))
    }

    pub(super) async fn list_roles(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        list(request, "role/").await
    }

    pub(super) async fn show_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let role = role(&request.context.storage, name_of(request)).await?.ok_or(RequestError::NotFound)?;
        Ok(role.answer())
    }

    pub(super) async fn write_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        self.write(request, "roles", name_of(request)).await
    }

    pub(super) async fn delete_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let (at, name) = (&request.context, name_of(request));
        let mut left = AGAIN_MAX;
        loop {
            let Some(stored) = at.storage.get(&role_key(name)).await? else { break };
            let batch = MountBatch::new().delete(role_key(name), Expect::Version(stored.version));
            // Of one that is not readable it is not known whether it has a limit.
            let is_limited = read_role(name, &stored.value).map_or(true, |role| role.max_leases > 0);
            match commit_role(at, name, batch, is_limited.then_some(0)).await {
                Err(RequestError::Storage(StorageError::Conflict(_))) if left > 0 => left -= 1,
                done => {
                    done?;
                    break;
                }
            }
        }
        Ok(LogicalResponse::empty())
    }

    pub(super) async fn read_credentials(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        self.plan(request, name_of(request)).await
    }
}

impl DatabaseEngine {
    /// A write that met another one is done again, on what that left.
    async fn write(&self, request: &EngineRequest, branch: &str, name: &str) -> Result<LogicalResponse, RequestError> {
        let mut left = AGAIN_MAX;
        loop {
            let done = match branch {
                "config" => self.configure(request, name).await,
                "reset" => self.reset(&request.context, name).await,
                _ => self.merge_role(request, name).await,
            };
            match done {
                Err(RequestError::Storage(StorageError::Conflict(_))) if left > 0 => left -= 1,
                done => return done,
            }
        }
    }

    async fn configure(&self, request: &EngineRequest, name: &str) -> Result<LogicalResponse, RequestError> {
        let at = &request.context;
        let stored = at.storage.get(&connection_key(name)).await?;
        let expect = stored.as_ref().map_or(Expect::Absent, |old| Expect::Version(old.version));
        let mut record = match &stored {
            Some(old) => ConnectionRecord::from_bytes(&old.value)
                .map_err(|_| RequestError::Internal(format!("the stored connection {name:?} is not readable")))?,
            None => ConnectionRecord::default(),
        };
        let before = record.clone();
        let now = at.clock.now();
        let mut warnings = record.merge(&request.fields, request.has_sudo)?;
        record.check_validity(&request.fields, now).map_err(|why| RequestError::Invalid(creating(&why)))?;
        if before.rotation.is_under_way(now) && !before.leads_as(&record) {
            return Err(under_way("connection", name));
        }
        warnings.extend(advise_policy(at, request.fields.text("password_policy").unwrap_or_default()).await?);
        let template = request.fields.text("username_template").unwrap_or_default();
        warnings.extend(credential::check_template(at, template).await.map_err(|error| match error {
            RequestError::Invalid(why) => RequestError::Invalid(creating(&why)),
            other => other,
        })?);
        if request.fields.list("root_rotation_statements").is_some() {
            warnings.extend(record.advise_rotation(&*at.templates).await?);
        }
        // A password that comes with the write must be the one that works, not another one that is tried after it.
        let brings_password = ["password", "connection_url"].iter().any(|name| request.fields.has(name));
        let tried = if brings_password { record.with_current_password_alone() } else { record.clone() };
        let target = self.pool(&tried).await.map_err(|why| RequestError::Invalid(creating(&why)))?;
        let mut is_another_server = false;
        if request.fields.bool("verify_connection").unwrap_or(true) {
            let server = target.verify().await.map_err(|error| {
                let error = record.scrubbed(error);
                RequestError::Invalid(creating(&format!("error verifying connection: {error}")))
            })?;
            warnings.extend(server.warnings);
            is_another_server =
                record.server.is_some() && server.identity.is_some() && server.identity != record.server;
            record.told_server(server.identity);
            // Where others were tried as well, nobody knows which one the database took.
            let is_tried_alone = brings_password || record.rotation.is_certain();
            if is_tried_alone
                && record.is_in_doubt()
                && let Some(password) = record.sent_password()
            {
                // A server that lets in whoever comes has not taken it.
                match target.try_login(target.user(), &password).await {
                    Ok(Login::Right) => {
                        record.prove_password();
                        record.rotation.current_was_proved(now);
                    }
                    _ => warnings.push(NOT_ASKED.to_owned()),
                }
            }
        }
        let user_keys = static_user_keys(&record, name);
        for key in &user_keys {
            if let Some(other) = at.storage.get(key).await? {
                return Err(RequestError::Invalid(creating(&format!(
                    "the password of this user is changed by static role {:?}, and its next change would lock this connection out: use \
                     another user, or delete the static role and set the password with rotate-root",
                    String::from_utf8_lossy(&other.value)
                ))));
            }
        }
        let subject = Subject::Root(name.to_owned());
        let (is_paused, schedule) = (record.rotation.is_paused, record.rotation.schedule.clone());
        if schedule != before.rotation.schedule || is_paused != before.rotation.is_paused {
            record.rotation.plan_written(now, &subject.seed(at));
        } else if record.rotation.due_at.is_none() {
            // What was due for another place, or to settle a change, is forgotten with that.
            record.rotation.plan(record.rotation.last_rotated_at.unwrap_or(now), &subject.seed(at));
        }
        let bytes = record.to_bytes().map_err(|error| RequestError::Internal(error.to_string()))?;
        let batch = MountBatch::new().put(connection_key(name), bytes, expect);
        let batch = user_keys.into_iter().fold(batch, |batch, key| batch.check(key, Expect::Absent));
        let batch = reschedule(batch, &subject, before.rotation.due_at, record.rotation.due_at);
        if is_another_server {
            let refused = |standing: &Standing| {
                creating(&format!(
                    "this connection would lead to another server than before, and {} on the former one and could not end from there; \
                     revoke {}, or send force=true to write it all the same",
                    standing.with_verb("stands", "stand"),
                    standing.pronoun()
                ))
            };
            let left_alone = standing::commit(at, name, batch, force(request), refused).await?;
            warnings.extend(left_alone.map(|standing| {
                let stands = standing.with_verb("stands", "stand");
                format!("{stands} on the server that this connection led to before: {}", end_later(&standing))
            }));
        } else {
            at.storage.commit(batch).await?;
        }
        // The next use opens the stored one: its version is known only then.
        target.close();
        self.retain_pools(|id| *id != (at.mount.accessor.clone(), name.to_owned()));
        if record.has_password_in_url() {
            warnings.insert(0, connection::PASSWORD_IN_URL.to_owned());
        }
        Ok(warnings.into_iter().fold(LogicalResponse::empty(), LogicalResponse::warn))
    }

    async fn reset(&self, at: &EngineContext, name: &str) -> Result<LogicalResponse, RequestError> {
        self.retain_pools(|id| *id != (at.mount.accessor.clone(), name.to_owned()));
        let opened = self.open(at, name).await?;
        opened.target.ping().await.map_err(|error| {
            let error = opened.record.scrubbed(error);
            RequestError::Engine(format!("error verifying connection: {error}"))
        })?;
        Ok(LogicalResponse::empty())
    }

    async fn merge_role(&self, request: &EngineRequest, name: &str) -> Result<LogicalResponse, RequestError> {
        let at = &request.context;
        let stored = at.storage.get(&role_key(name)).await?;
        let expect = stored.as_ref().map_or(Expect::Absent, |old| Expect::Version(old.version));
        let mut role = match &stored {
            Some(old) => read_role(name, &old.value)?,
            None => RoleRecord::default(),
        };
        if stored.is_none() && at.storage.get(&static_role::key(name)).await?.is_some() {
            return Err(RequestError::invalid(NOT_UNIQUE));
        }
        let limit_before = role.max_leases;
        let mut warnings = role.merge(&request.fields, &*at.templates).await?;
        let policy = role.credential_config.get("password_policy").map_or("", String::as_str);
        warnings.extend(advise_policy(at, policy).await?);
        let template = request.fields.text("username_template").unwrap_or_default();
        warnings.extend(credential::check_template(at, template).await?);
        if at.storage.get(&connection_key(&role.db_name)).await?.is_none() {
            warnings.push(format!(
                "no connection named {:?} is configured yet: credentials cannot be read before it is",
                role.db_name
            ));
        }
        let mut answer = LogicalResponse::empty();
        if request.fields.bool("verify").unwrap_or(false) {
            let report = self.try_out(request, name, &role).await?;
            if let Some(why) = report.failure() {
                return Err(RequestError::Invalid(format!("error verifying role: {why}")));
            }
            answer = LogicalResponse::json(json!({ "verification": report.to_json() }));
            warnings.extend(report.warnings);
        }
        let bytes = serde_json::to_vec(&role).map_err(|error| RequestError::Internal(error.to_string()))?;
        let batch = MountBatch::new().put(role_key(name), bytes, expect).check(static_role::key(name), Expect::Absent);
        let limit = (role.max_leases != limit_before).then_some(role.max_leases);
        let standing = commit_role(at, name, batch, limit).await?;
        warnings.extend(limit.filter(|most| *most > 0).and_then(|most| above_limit(standing, most)));
        Ok(warnings.into_iter().fold(answer, LogicalResponse::warn))
    }

    /// Runs the statements of a role that is about to be stored on its database, and rolls everything back.
    async fn try_out(&self, request: &EngineRequest, name: &str, role: &RoleRecord) -> Result<Report, RequestError> {
        let at = &request.context;
        let refused = |why: String| RequestError::Invalid(format!("error verifying role: {why}"));
        let opened = self.open(at, &role.db_name).await.map_err(|why| match why {
            Unusable::Missing(name) => refused(missing(&name)),
            Unusable::Broken(why) => refused(why),
            Unusable::Storage(error) => error.into(),
        })?;
        let planned = plan::plan(request, name, role, &opened.record).await;
        let plan = planned.map_err(|error| error.reworded(|why| format!("error verifying role: {why}")))?;
        let effect = Effect::read(&plan.effect).map_err(|error| RequestError::Internal(error.to_string()))?;
        let expires_at = at.clock.now() + plan.default_ttl.if_set().unwrap_or(at.mount.default_lease_ttl);
        let renew = match role.renew.texts.is_empty() {
            true => Vec::new(),
            false => {
                renew::statements(at, role, &effect, expires_at).await.map_err(|error| refused(error.to_string()))?
            }
        };
        let authentication = opened.record.password_authentication().map_err(refused)?;
        let secrets = opened.record.secrets();
        let tried = dry_run::run(&opened.target, authentication, at, &effect, &renew, expires_at, &secrets).await;
        tried.map_err(|error| refused(opened.failed(error).to_string()))
    }

    async fn plan(&self, request: &EngineRequest, name: &str) -> Result<Outcome, RequestError> {
        let at = &request.context;
        let stored = at.storage.get(&role_key(name)).await?;
        let stored = stored.ok_or_else(|| RequestError::invalid(format!("unknown role: {name}")))?;
        let role = read_role(name, &stored.value)?;
        let opened = self.open(at, &role.db_name).await?;
        let mut plan = plan::plan(request, name, &role, &opened.record).await?;
        // No lease begins on a connection that is gone or leads elsewhere by then.
        plan.made_of = vec![
            (role_key(name), Expect::Version(stored.version)),
            (connection_key(&role.db_name), Expect::Version(opened.version)),
        ];
        Ok(Outcome::Lease(plan))
    }
}

/// Keys of static roles that would have the connection's own user, whatever is known of the server.
fn static_user_keys(record: &ConnectionRecord, name: &str) -> Vec<String> {
    let Ok(dsn) = record.dsn() else { return Vec::new() };
    let servers = [None, record.server_here()];
    let mut keys: Vec<String> =
        servers.into_iter().map(|server| static_role::user_key(server, name, &dsn.user)).collect();
    keys.dedup();
    keys
}

/// A move or a delete would forget a password that the database may take a moment later.
pub(super) fn under_way(what: &str, name: &str) -> RequestError {
    RequestError::Unavailable(format!(
        "the password of {what} {name:?} is being changed, and it is not known yet whether the database takes it: try again in half a minute"
    ))
}

/// The names below a folder; where a route has pages, those of the one that is asked for.
pub(super) async fn list(request: &EngineRequest, folder: &str) -> Result<LogicalResponse, RequestError> {
    let after = request.fields.text("after").unwrap_or_default();
    let limit = request.fields.int("limit").and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let names = request.context.storage.names(folder, after, limit.unwrap_or(usize::MAX)).await?;
    if names.is_empty() { Err(RequestError::NotFound) } else { Ok(LogicalResponse::json(json!({ "keys": names }))) }
}

/// Writes a batch about a role; with how many leases it may have from then on, where that changes. Zero: as many as anybody wants.
/// Returns how many it has then, where they are counted.
async fn commit_role(
    at: &EngineContext,
    name: &str,
    batch: MountBatch,
    max_leases: Option<u64>,
) -> Result<u64, RequestError> {
    let Some(max_leases) = max_leases else {
        at.storage.commit(batch).await?;
        return Ok(0);
    };
    let limit = PathLimit {
        path: format!("creds/{name}"),
        of: format!("role {name:?}"),
        max_leases: NonZeroU64::new(max_leases),
    };
    at.leases.commit_with_limit(&at.mount.accessor, limit, at.storage.batch(batch)).await
}

fn force(request: &EngineRequest) -> Force {
    if request.fields.bool("force").unwrap_or(false) { Force::Yes } else { Force::No }
}

/// The name in a request's path.
pub(super) fn name_of(request: &EngineRequest) -> &str {
    request.captures.get("name").map_or("", String::as_str)
}
