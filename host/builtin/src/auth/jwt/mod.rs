//! `jwt`: whoever has a token of an identity provider logs in with it: CI jobs, Kubernetes pods, cloud workloads.
//!
//! Must not know: how a token of this server is made.
//!
//! Start with [`routes`], then `log_in`; [`config`] says who may sign tokens, [`role`] what a role demands of one. Signatures, keys and
//! fetching are in [`jose`](super::jose).
//!
//! Invariants: a role is looked at only after a token's signature was verified, so that nobody without such a token learns which roles
//! there are, neither by an answer nor by the time it takes. All refusals read alike; the audit record has the reason.

mod config;
mod role;
mod routes;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::Route;
use leasehold_core::seams::auth::{
    AuthContext, AuthHandler, AuthMethod, AuthOutcome, AuthRequest, LoginAlias, LoginLimits, LoginPlan, LoginToken,
    Refusal,
};
use leasehold_core::seams::error::RequestError;
use serde_json::json;

use super::jose::{Claims, Compact, Fetcher, Flaw, KeySet, RemoteKeys, Source};
use super::{OUTSIDE, listed, may_come_from, records};
use config::Config;
use role::Role;

const REFUSED: &str = "error validating token: the token or the role is not valid for this login";

/// The method, for all its mounts.
#[derive(Debug)]
pub struct Jwt {
    remote: RemoteKeys,
}

/// A token was not accepted, or could not be judged.
enum Failure {
    Flaw(Flaw),
    /// No keys could be had.
    NoKeys,
}

impl Default for Jwt {
    fn default() -> Self {
        Self::new()
    }
}

impl Jwt {
    #[must_use]
    pub fn new() -> Self {
        Self { remote: RemoteKeys::new(Arc::new(Fetcher::default())) }
    }

    async fn read_config(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        config::read(request).await
    }

    async fn write_config(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        let config = Config::of(&request.fields)?;
        let mut answer = LogicalResponse::empty();
        let sources = config.sources();
        let mount = &request.context.mount.accessor;
        let probes = join_all(sources.iter().map(|(_, source)| self.remote.probe(mount, source))).await;
        for ((name, _), probe) in sources.iter().zip(probes) {
            let Err(why) = probe else { continue };
            if request.fields.bool("skip_jwks_validation") != Some(true) {
                return Err(RequestError::Invalid(format!("error checking '{name}': {why}")));
            }
            answer = answer.warn(format!("'{name}' was stored although it does not work now: {why}"));
        }
        config::store(&request.context.storage, &config).await?;
        Ok(answer)
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
        let config = config::find(&at.storage).await?;
        let config = config.ok_or_else(|| RequestError::invalid("could not load configuration"))?;
        let given = |name: &str| request.fields.text(name).filter(|text| !text.is_empty());
        let name = given("role").unwrap_or(&config.default_role).to_lowercase();
        if name.is_empty() {
            return Err(RequestError::invalid("missing role"));
        }
        let token = given("jwt").ok_or_else(|| RequestError::invalid("missing token"))?;
        let claims = match self.verified(request, &config, token).await {
            Ok(claims) => claims,
            Err(Failure::Flaw(flaw)) => return Ok(refused(flaw.to_string())),
            Err(Failure::NoKeys) => {
                return Err(RequestError::Unavailable(
                    "the keys of the identity provider cannot be fetched at the moment; the server's log has the reason".to_owned(),
                ));
            }
        };
        let Some(role) = records::find::<Role>(&at.storage, &name).await? else {
            return Ok(refused("no role has this name".to_owned()));
        };
        let times = claims.check_times(&role.leeways(), at.clock.now());
        if let Err(flaw) = times.and_then(|()| claims.check_issuer(&config.bound_issuer)) {
            return Ok(refused(flaw.to_string()));
        }
        let identity = match role.admit(&claims) {
            Ok(identity) => identity,
            Err(unfit) => return Ok(refused(unfit.to_string())),
        };
        if !may_come_from(request.client, &role.token) {
            return Ok(refused(OUTSIDE.to_owned()));
        }
        let mut metadata = identity.metadata;
        let alias =
            LoginAlias { name: identity.name.clone(), metadata: Some(metadata.clone()), groups: Some(identity.groups) };
        metadata.insert("role".to_owned(), name.clone());
        let internal = json!({ "role": name });
        Ok(AuthOutcome::Login(Box::new(LoginPlan {
            display_name: identity.name,
            metadata,
            alias,
            token: role.token,
            internal,
        })))
    }

    /// What a token says, when a key of the mount has signed it.
    async fn verified(&self, request: &AuthRequest, config: &Config, token: &str) -> Result<Claims, Failure> {
        let compact = Compact::read(token).map_err(Failure::Flaw)?;
        if !config.takes(compact.algorithm()) {
            return Err(Failure::Flaw(Flaw::Algorithm));
        }
        let sources = config.sources();
        if sources.is_empty() {
            return compact.verify(&config.static_keys()).map_err(Failure::Flaw);
        }
        let (mount, clock) = (&request.context.mount.accessor, &request.context.clock);
        let mut fetched = FuturesUnordered::new();
        for (_, source) in &sources {
            fetched.push(async move { (source, self.remote.keys(mount, source, clock).await) });
        }
        let (mut known, mut flaw): (Vec<(&Source, Arc<KeySet>)>, _) = (Vec::new(), Flaw::UnknownKey);
        // Each as it comes: a provider that is away delays nobody whose token is another's.
        while let Some((source, keys)) = fetched.next().await {
            let Ok(keys) = keys else { continue };
            match compact.verify(&keys) {
                Ok(claims) => return Ok(claims),
                Err(Flaw::UnknownKey) => {}
                Err(other) => flaw = other,
            }
            known.push((source, keys));
        }
        if known.is_empty() {
            return Err(Failure::NoKeys);
        }
        if flaw != Flaw::UnknownKey {
            return Err(Failure::Flaw(flaw));
        }
        // The provider may have a new key since.
        let newer = known.iter().map(|(source, seen)| self.remote.newer(mount, source, clock, request.client, seen));
        for keys in join_all(newer).await.into_iter().flatten() {
            match compact.verify(&keys) {
                Ok(claims) => return Ok(claims),
                Err(Flaw::UnknownKey) => {}
                Err(other) => flaw = other,
            }
        }
        Err(Failure::Flaw(flaw))
    }
}

fn refused(reason: String) -> AuthOutcome {
    AuthOutcome::Refused(Refusal { said: REFUSED, reason })
}

#[async_trait]
impl AuthMethod for Jwt {
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
        let given = request.fields.text("role").filter(|name| !name.is_empty()).map(str::to_lowercase);
        match given {
            Some(given) => Some(given),
            None => config::find(&request.context.storage).await.ok()?.map(|config| config.default_role.to_lowercase()),
        }
    }

    fn role_of<'a>(&self, internal: &'a serde_json::Value) -> Option<&'a str> {
        internal.get("role")?.as_str()
    }

    fn has_exact_names(&self) -> bool {
        true
    }

    async fn renew(&self, at: &AuthContext, token: &LoginToken<'_>) -> Result<LoginLimits, RequestError> {
        records::renew_by_role::<Role>(at, token).await
    }

    async fn unmount(&self, at: &AuthContext) {
        self.remote.forget(&at.mount.accessor);
    }
}
