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
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::Route;
use leasehold_core::seams::auth::{
    AuthContext, AuthHandler, AuthMethod, AuthOutcome, AuthRequest, LoginAlias, LoginLimits, LoginPlan, LoginToken,
};
use leasehold_core::seams::error::RequestError;
use leasehold_model::MountAccessor;
use serde_json::json;

use super::jose::Fetcher;
use super::{check_client, listed, records};
use review::Failure;
use role::Role;

/// The method, for all its mounts.
#[derive(Debug, Default)]
pub struct Kubernetes {
    fetcher: Fetcher,
    /// When the log was told last that a mount's cluster reviews no tokens, by the steady clock.
    warned_at: Mutex<BTreeMap<MountAccessor, Duration>>,
}

/// Anybody can have a cluster asked: the log is told at most so often.
const WARN_AGAIN: Duration = Duration::from_secs(60);

fn denied(reason: impl ToString) -> RequestError {
    RequestError::LoginDenied { reason: reason.to_string() }
}

impl Kubernetes {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn warned_at(&self) -> MutexGuard<'_, BTreeMap<MountAccessor, Duration>> {
        self.warned_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the log was told nothing of this mount for a while.
    fn may_warn(&self, mount: &MountAccessor, now: Duration) -> bool {
        let mut warned_at = self.warned_at();
        if warned_at.get(mount).is_some_and(|at| now.saturating_sub(*at) < WARN_AGAIN) {
            return false;
        }
        warned_at.insert(mount.clone(), now);
        true
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
        records::read::<Role>(request).await
    }

    async fn write(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        records::write::<Role>(request).await
    }

    async fn delete(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        records::delete::<Role>(request).await
    }

    async fn log_in(&self, request: &AuthRequest) -> Result<AuthOutcome, RequestError> {
        let at = &request.context;
        let given = |name: &str| request.fields.text(name).map(str::trim).filter(|text| !text.is_empty());
        let name = given("role").ok_or_else(|| RequestError::invalid("missing role"))?.to_lowercase();
        let token = given("jwt").ok_or_else(|| RequestError::invalid("missing jwt"))?;
        let config = config::find(&at.storage).await?;
        let config = config.ok_or_else(|| RequestError::Engine("could not load backend configuration".to_owned()))?;
        let said = review::read(token, &config, at.clock.now()).map_err(denied)?;
        let role = records::find::<Role>(&at.storage, &name).await?;
        let audience = role.as_ref().map_or("", |role| role.audience.as_str());
        let account = match review::ask(&self.fetcher, &at.mount.accessor, &config, token, audience, &said).await {
            Ok(account) => account,
            Err(Failure::Away(why)) => {
                if self.may_warn(&at.mount.accessor, at.clock.steady()) {
                    tracing::warn!(mount.path = %at.mount.path, "no TokenReview: {why}");
                }
                return Err(RequestError::Unavailable(
                    "the Kubernetes API server cannot be asked at the moment; the server's log has the reason"
                        .to_owned(),
                ));
            }
            Err(failure) => {
                if matches!(failure, Failure::Refused(_)) && self.may_warn(&at.mount.accessor, at.clock.steady()) {
                    tracing::warn!(
                        mount.path = %at.mount.path,
                        "{failure}: the reviewer's token has ended, or lacks the role system:auth-delegator"
                    );
                }
                return Err(denied(failure));
            }
        };
        let role = role.ok_or_else(|| denied("no role has this name"))?;
        role.admit(&account).map_err(denied)?;
        check_client(&role.token, request.client)?;
        let known_as = role.alias_of(&account);
        let mut metadata = BTreeMap::from([
            ("service_account_name".to_owned(), account.name.clone()),
            ("service_account_namespace".to_owned(), account.namespace.clone()),
            ("service_account_secret_name".to_owned(), account.secret),
            ("service_account_uid".to_owned(), account.uid),
        ]);
        let alias = LoginAlias { name: known_as, metadata: Some(metadata.clone()), groups: None };
        metadata.insert("role".to_owned(), name.clone());
        Ok(AuthOutcome::Login(Box::new(LoginPlan {
            display_name: format!("{}-{}", account.namespace, account.name),
            metadata,
            alias,
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
        records::exists::<Role>(request).await
    }

    fn has_roles(&self) -> bool {
        true
    }

    async fn role_of_login(&self, request: &AuthRequest) -> Option<String> {
        request.fields.text("role").filter(|name| !name.is_empty()).map(str::to_lowercase)
    }

    fn role_of<'a>(&self, internal: &'a serde_json::Value) -> Option<&'a str> {
        internal.get("role")?.as_str()
    }

    async fn renew(&self, at: &AuthContext, token: &LoginToken<'_>) -> Result<LoginLimits, RequestError> {
        records::renew_by_role::<Role>(at, token).await
    }

    async fn unmount(&self, at: &AuthContext) {
        self.fetcher.forget(&at.mount.accessor);
        self.warned_at().remove(&at.mount.accessor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_of_a_mount_once_a_minute_at_most() {
        let (method, one, two) = (Kubernetes::new(), MountAccessor::new("a_1"), MountAccessor::new("a_2"));
        let told: Vec<bool> = [(0, &one), (59, &one), (59, &two), (60, &one), (119, &one), (118, &two), (120, &one)]
            .map(|(at, mount)| method.may_warn(mount, Duration::from_secs(at)))
            .into();
        assert_eq!(told, [true, false, true, true, false, false, true]);
    }
}
