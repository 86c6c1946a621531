//! `kubernetes`: pods log in with the token of their service account, and the cluster says whether it is good.
//!
//! Must not know: how a token of this server is made.
//!
//! Start with `log_in`; [`config`] is the cluster, [`role`] which accounts a role is for, [`review`] asks the cluster.
//!
//! Invariants: nobody logs in whom the cluster has not vouched for, by a review of this very token, in this very login; what a token
//! says of itself only spares the cluster. All refusals read alike, and those of tokens that the cluster is asked about take as long,
//! whether or not the role exists.

mod config;
mod review;
mod role;
mod routes;

use std::collections::BTreeMap;

use async_trait::async_trait;
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::Route;
use leasehold_core::seams::auth::{
    AuthContext, AuthHandler, AuthMethod, AuthOutcome, AuthRequest, LoginLimits, LoginPlan, LoginToken,
};
use leasehold_core::seams::error::RequestError;
use serde_json::{Value, json};

use super::jose::Fetcher;
use super::{check_client, listed};
use review::Failure;

/// The method, for all its mounts.
#[derive(Debug, Default)]
pub struct Kubernetes {
    fetcher: Fetcher,
}

fn denied(reason: impl ToString) -> RequestError {
    RequestError::LoginDenied { reason: reason.to_string() }
}

impl Kubernetes {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    async fn read_config(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        config::read(request).await
    }

    async fn write_config(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        config::write(request).await
    }

    async fn list(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        listed(request, "role/").await
    }

    async fn read(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        role::read(request).await
    }

    async fn write(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        role::write(request).await
    }

    async fn delete(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        role::delete(request).await
    }

    async fn log_in(&self, request: &AuthRequest) -> Result<AuthOutcome, RequestError> {
        let at = &request.context;
        let given = |name: &str| request.fields.text(name).map(str::trim).filter(|text| !text.is_empty());
        let name = given("role").ok_or_else(|| RequestError::invalid("missing role"))?.to_lowercase();
        let token = given("jwt").ok_or_else(|| RequestError::invalid("missing jwt"))?;
        let config = config::find(&at.storage).await?;
        let config = config.ok_or_else(|| RequestError::Engine("could not load backend configuration".to_owned()))?;
        let said = review::read(token, &config, at.clock.now()).map_err(denied)?;
        let role = role::find(&at.storage, &name).await?.map(|(role, _)| role);
        let audience = role.as_ref().map_or("", |role| role.audience.as_str());
        let account = match review::ask(&self.fetcher, &config, token, audience, &said).await {
            Ok(account) => account,
            Err(Failure::Away(why)) => {
                tracing::warn!(mount.path = %at.mount.path, "no TokenReview: {why}");
                return Err(RequestError::Unavailable(
                    "the Kubernetes API server cannot be asked at the moment; the server's log has the reason"
                        .to_owned(),
                ));
            }
            Err(failure) => return Err(denied(failure)),
        };
        let role = role.ok_or_else(|| denied("no role has this name"))?;
        role.admit(&account).map_err(denied)?;
        check_client(&role.token, request.client)?;
        let metadata = BTreeMap::from([
            ("role".to_owned(), name.clone()),
            ("service_account_name".to_owned(), account.name.clone()),
            ("service_account_namespace".to_owned(), account.namespace.clone()),
            ("service_account_secret_name".to_owned(), account.secret),
            ("service_account_uid".to_owned(), account.uid),
        ]);
        Ok(AuthOutcome::Login(Box::new(LoginPlan {
            display_name: format!("{}-{}", account.namespace, account.name),
            metadata,
            token: role.token,
            internal: json!({ "role": name }),
        })))
    }
}

#[async_trait]
impl AuthMethod for Kubernetes {
    fn routes(&self) -> &'static [Route<AuthHandler>] {
        routes::ROUTES
    }

    async fn exists(&self, request: &AuthRequest) -> Result<bool, RequestError> {
        Ok(role::find(&request.context.storage, &role::name_of(request)).await?.is_some())
    }

    async fn renew(&self, at: &AuthContext, token: &LoginToken<'_>) -> Result<LoginLimits, RequestError> {
        let name = token.internal.get("role").and_then(Value::as_str).unwrap_or_default();
        let found = role::find(&at.storage, name).await?;
        let (role, _) = found.ok_or_else(|| {
            RequestError::Engine(format!("failed to renew entry: role {name:?} does not exist during renewal"))
        })?;
        Ok(LoginLimits::from(&role.token))
    }
}
