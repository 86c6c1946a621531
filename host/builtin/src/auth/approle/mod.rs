//! `approle`: machines log in with the id of a role and a secret id.
//!
//! Must not know: how a token is made.
//!
//! Start with [`routes`], then `log_in`; [`role`] is what a role says, [`roles`] where roles stand, [`secret_id`] the secret ids,
//! [`tidy`] what removes the rest of them.
//!
//! Invariants: a secret id is stored only as an HMAC under its role's key. Of two logins that want its last use one gets it. The
//! secret ids of a role that is gone are good for nothing, also when another role gets its name.

mod role;
mod roles;
mod routes;
mod secret_id;
mod tidy;

use std::collections::BTreeMap;

use async_trait::async_trait;
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::Route;
use leasehold_core::seams::auth::{
    AuthContext, AuthHandler, AuthMethod, AuthOutcome, AuthRequest, LoginAlias, LoginLimits, LoginPlan, LoginToken,
    Refusal,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::job::MountJob;
use leasehold_model::Ttl;
use serde_json::json;

use super::listed;

const REFUSED: &str = "invalid role or secret ID";

/// Removes what is left of expired secret ids. Nothing depends on it, so that it need not come often.
const TIDY: MountJob = MountJob { name: "tidy-secret-ids", every: Ttl::from_secs(3_600) };

/// The method, for all its mounts.
#[derive(Debug, Default)]
pub struct AppRole;

/// There as long as a role is.
fn uid_key(uid: &str) -> String {
    format!("uid/{uid}")
}

impl AppRole {
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    async fn log_in(&self, request: &AuthRequest) -> Result<AuthOutcome, RequestError> {
        let at = &request.context;
        let role_id = given_role_id(request).ok_or(RequestError::LoginIncomplete("missing role_id"))?;
        let Some((name, role)) = roles::by_role_id(&at.storage, role_id).await? else {
            return Ok(refused("no role has this role_id"));
        };
        let mut token = role.token.clone();
        let mut metadata = BTreeMap::new();
        if role.bind_secret_id {
            let secret_id = request.fields.text("secret_id").map(str::trim).unwrap_or_default();
            if secret_id.is_empty() {
                return Err(RequestError::invalid("missing secret_id"));
            }
            let Some(found) = secret_id::consume(at, &role, secret_id, request.client).await? else {
                return Ok(refused("the secret_id is unknown, expired or used up"));
            };
            if !found.token_bound_cidrs.is_empty() {
                token.bound_cidrs = role::parsed(&found.token_bound_cidrs);
            }
            metadata = found.metadata;
        } else {
            secret_id::check_source(&role.secret_id_bound_cidrs, request.client, "role")?;
        }
        // After the secret id's own metadata, which must not name another role.
        metadata.insert("role_name".to_owned(), name.clone());
        let internal = json!({ "role_name": name });
        // As in Vault: whoever logs in with a role is the role.
        let alias = LoginAlias { name: role_id.to_owned(), metadata: Some(metadata.clone()), groups: None };
        Ok(AuthOutcome::Login(Box::new(LoginPlan { display_name: String::new(), metadata, alias, token, internal })))
    }

    async fn list_secret_ids(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        let name = request.capture("role_name");
        let found = roles::find(&request.context.storage, name).await?;
        let (role, _) = found.ok_or_else(|| RequestError::Invalid(format!("role {name:?} does not exist")))?;
        listed(request, &format!("accessor/{}/", role.uid)).await
    }
}

/// The handlers that only look at what is asked for and hand it on.
impl AppRole {
    async fn list(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        listed(request, "role/").await
    }

    async fn read(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        roles::read(request).await
    }

    async fn write(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        roles::write(request).await
    }

    async fn delete(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        roles::delete(request).await
    }

    async fn show_role_id(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        roles::show_role_id(request).await
    }

    async fn set_role_id(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        roles::set_role_id(request).await
    }

    async fn show_field(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        roles::show_field(request).await
    }

    async fn set_field(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        roles::set_field(request).await
    }

    async fn reset_field(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        roles::reset_field(request).await
    }

    async fn make_secret_id(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        secret_id::make(&request.context, request.capture("role_name"), &request.fields, None).await
    }

    async fn take_secret_id(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        let custom = request.fields.text("secret_id").unwrap_or_default();
        secret_id::make(&request.context, request.capture("role_name"), &request.fields, Some(custom)).await
    }

    async fn look_up(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        secret_id::look_up(request).await
    }

    async fn destroy(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        secret_id::destroy(request).await
    }

    async fn look_up_by_accessor(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        secret_id::look_up_by_accessor(request).await
    }

    async fn destroy_by_accessor(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        secret_id::destroy_by_accessor(request).await
    }

    async fn begin_tidy(&self, _: &AuthRequest) -> Result<AuthOutcome, RequestError> {
        let accepted = |words: &str| LogicalResponse::empty().warn(words).with_status(202);
        Ok(AuthOutcome::Job {
            name: TIDY.name,
            begun: accepted(
                "Tidy operation successfully started. Any information from the operation will be printed to the server logs.",
            ),
            under_way: accepted("Tidy operation already in progress."),
        })
    }
}

fn given_role_id(request: &AuthRequest) -> Option<&str> {
    request.fields.text("role_id").map(str::trim).filter(|id| !id.is_empty())
}

fn refused(reason: &str) -> AuthOutcome {
    AuthOutcome::Refused(Refusal { said: REFUSED, reason: reason.to_owned() })
}

#[async_trait]
impl AuthMethod for AppRole {
    fn routes(&self) -> &'static [Route<AuthHandler>] {
        routes::ROUTES
    }

    async fn exists(&self, request: &AuthRequest) -> Result<bool, RequestError> {
        Ok(roles::find(&request.context.storage, &roles::name_of(request)).await?.is_some())
    }

    fn alias(&self, request: &AuthRequest) -> Option<String> {
        given_role_id(request).filter(|_| request.pattern == "login").map(str::to_owned)
    }

    fn has_roles(&self) -> bool {
        true
    }

    async fn role_of_login(&self, request: &AuthRequest) -> Option<String> {
        let found = roles::by_role_id(&request.context.storage, given_role_id(request)?).await.ok()?;
        found.map(|(name, _)| name)
    }

    fn role_of<'a>(&self, internal: &'a serde_json::Value) -> Option<&'a str> {
        internal.get("role_name")?.as_str()
    }

    fn has_exact_names(&self) -> bool {
        true
    }

    async fn renew(&self, at: &AuthContext, token: &LoginToken<'_>) -> Result<LoginLimits, RequestError> {
        let name = token.internal.get("role_name").and_then(serde_json::Value::as_str).unwrap_or_default();
        let found = roles::find(&at.storage, name).await?;
        let (role, _) = found.ok_or_else(|| {
            RequestError::Engine(format!("failed to renew entry: role {name:?} does not exist during renewal"))
        })?;
        Ok(LoginLimits::from(&role.token))
    }

    fn jobs(&self) -> &'static [MountJob] {
        &[TIDY]
    }

    async fn run_job(&self, at: &AuthContext, _: &str) -> Result<(), RequestError> {
        let (path, removed) = (&at.mount.path, tidy::tidy(at).await?);
        if removed > 0 {
            tracing::info!(mount.path = %path, removed, "removed {removed} secret ids and accessors at {path}");
        }
        Ok(())
    }
}
