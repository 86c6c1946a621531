//! `userpass`: people log in with a name and a password.
//!
//! Must not know: how a token is made.
//!
//! Start with [`routes`], then `log_in`; [`passwords`] hashes and checks.
//!
//! Invariants: a name is lower case. A login that fails says the same, and takes as long, whether or not the user exists. (The
//! time differs for users with a bcrypt hash, until they get a new password.)

mod passwords;
mod routes;

use std::collections::BTreeMap;

use async_trait::async_trait;
use leasehold_core::fields::Fields;
use leasehold_core::request::{LogicalResponse, Object};
use leasehold_core::routes::Route;
use leasehold_core::seams::auth::{
    AuthContext, AuthHandler, AuthMethod, AuthOutcome, AuthRequest, LoginAlias, LoginLimits, LoginPlan, LoginToken,
    Refusal,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_core::seams::token_params::TokenParams;
use leasehold_core::seams::token_params::sanitized;
use leasehold_model::Operation;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::old_names::{OldNames, Renamed};
use super::{TRIES, check_client, check_policies, contended, encode, listed, load};
use passwords::{Hashing, PasswordHash};

/// What Vault called these fields before all methods shared them.
const RENAMED: &[Renamed] = &[
    ("policies", "token_policies"),
    ("ttl", "token_ttl"),
    ("max_ttl", "token_max_ttl"),
    ("bound_cidrs", "token_bound_cidrs"),
];

const REFUSED: &str = "invalid username or password";

/// The method, for all its mounts.
#[derive(Debug)]
pub struct Userpass {
    hashing: Hashing,
}

impl Default for Userpass {
    fn default() -> Self {
        Self::new()
    }
}

/// What is stored of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct User {
    password: PasswordHash,
    token: TokenParams,
    #[serde(default)]
    old_names: OldNames,
}

fn key(name: &str) -> String {
    format!("user/{name}")
}

async fn find(storage: &MountStorage, name: &str) -> Result<Option<(User, u64)>, RequestError> {
    load(storage, &key(name)).await
}

fn name_of(request: &AuthRequest) -> String {
    request.capture("username").to_lowercase()
}

fn given<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.text(name).filter(|text| !text.is_empty())
}

impl Userpass {
    #[must_use]
    pub fn new() -> Self {
        Self { hashing: Hashing::new() }
    }

    /// The hash of the password that a request brings, or the hash that it brings itself.
    async fn password(&self, request: &AuthRequest) -> Result<Option<PasswordHash>, RequestError> {
        match (given(&request.fields, "password"), given(&request.fields, "password_hash")) {
            (Some(_), Some(_)) => Err(RequestError::invalid("only one of password or password_hash may be provided")),
            (Some(password), None) => {
                let password = SecretString::from(password);
                self.hashing.hash(password, &*request.context.entropy).await.map(Some)
            }
            (None, Some(hash)) => PasswordHash::from_bcrypt(hash).map(Some),
            (None, None) => Ok(None),
        }
    }

    async fn write(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        let (storage, name) = (&request.context.storage, name_of(request));
        let is_new = request.operation == Operation::Create;
        // Before the password is hashed, which takes long.
        let mut tried = TokenParams::default();
        tried.update(&request.fields)?;
        let password = self.password(request).await?;
        let missing = || RequestError::invalid("must provide either password or password_hash");
        if is_new && password.is_none() {
            return Err(missing());
        }
        for _ in 0..TRIES {
            let (mut user, expect) = match find(storage, &name).await? {
                Some((user, version)) => (user, Expect::Version(version)),
                None => {
                    let password = password.clone().ok_or_else(missing)?;
                    let user = User { password, token: TokenParams::default(), old_names: OldNames::default() };
                    (user, Expect::Absent)
                }
            };
            user.token.update(&request.fields)?;
            user.old_names.update(&mut user.token, &request.fields, RENAMED)?;
            user.password = password.clone().unwrap_or(user.password);
            match storage.put(&key(&name), encode(&user)?, expect).await {
                Ok(()) => return Ok(LogicalResponse::empty()),
                Err(StorageError::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(contended())
    }

    /// Changes a user that exists.
    async fn change(
        &self,
        request: &AuthRequest,
        change: impl Fn(&mut User) -> Result<(), RequestError> + Send + Sync,
    ) -> Result<LogicalResponse, RequestError> {
        let (storage, name) = (&request.context.storage, name_of(request));
        for _ in 0..TRIES {
            let Some((mut user, version)) = find(storage, &name).await? else {
                return Err(RequestError::Engine("username does not exist".to_owned()));
            };
            change(&mut user)?;
            match storage.put(&key(&name), encode(&user)?, Expect::Version(version)).await {
                Ok(()) => return Ok(LogicalResponse::empty()),
                Err(StorageError::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(contended())
    }

    async fn change_password(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        if find(&request.context.storage, &name_of(request)).await?.is_none() {
            return Err(RequestError::Engine("username does not exist".to_owned()));
        }
        let password = self.password(request).await?;
        let password =
            password.ok_or_else(|| RequestError::invalid("must provide either password or password_hash"))?;
        self.change(request, |user| {
            user.password = password.clone();
            Ok(())
        })
        .await
    }

    async fn change_policies(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        self.change(request, |user| {
            if let Some(policies) = request.fields.list("token_policies") {
                user.token.policies = sanitized(policies);
            }
            user.old_names.update(&mut user.token, &request.fields, RENAMED)
        })
        .await
    }

    async fn read(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        let found = find(&request.context.storage, &name_of(request)).await?;
        let (user, _) = found.ok_or(RequestError::NotFound)?;
        let mut data = Object::new();
        user.token.show(&mut data);
        user.old_names.show(&mut data, RENAMED);
        Ok(LogicalResponse::data(data))
    }

    async fn list(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        listed(request, "user/").await
    }

    async fn delete(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        request.context.storage.delete(&key(&name_of(request))).await?;
        Ok(LogicalResponse::empty())
    }

    async fn log_in(&self, request: &AuthRequest) -> Result<AuthOutcome, RequestError> {
        let name = name_of(request);
        let password = given(&request.fields, "password").ok_or(RequestError::LoginIncomplete("missing password"))?;
        let user = find(&request.context.storage, &name).await?.map(|(user, _)| user);
        let hash = user.as_ref().map(|user| user.password.clone());
        let fits = self.hashing.check(SecretString::from(password), hash).await?;
        let user = match user {
            Some(user) if fits => user,
            Some(_) => return Ok(refused("the password is wrong")),
            None => return Ok(refused("no user has this name")),
        };
        check_client(&user.token, request.client)?;
        Ok(AuthOutcome::Login(Box::new(LoginPlan {
            metadata: BTreeMap::from([("username".to_owned(), name.clone())]),
            alias: LoginAlias { name: name.clone(), ..LoginAlias::default() },
            display_name: name,
            token: user.token,
            internal: Value::Null,
        })))
    }
}

fn refused(reason: &str) -> AuthOutcome {
    AuthOutcome::Refused(Refusal { said: REFUSED, reason: reason.to_owned() })
}

#[async_trait]
impl AuthMethod for Userpass {
    fn routes(&self) -> &'static [Route<AuthHandler>] {
        routes::ROUTES
    }

    async fn exists(&self, request: &AuthRequest) -> Result<bool, RequestError> {
        Ok(find(&request.context.storage, &name_of(request)).await?.is_some())
    }

    fn alias(&self, request: &AuthRequest) -> Option<String> {
        (request.pattern == "login/:username").then(|| name_of(request))
    }

    async fn renew(&self, at: &AuthContext, token: &LoginToken<'_>) -> Result<LoginLimits, RequestError> {
        let name = token.metadata.get("username").map(String::as_str).unwrap_or_default();
        // Vault answers 204 here and extends nothing; a client that takes that for success loses its token without a word.
        let refuse = |why: String| RequestError::Engine(format!("failed to renew entry: {why}"));
        let found = find(&at.storage, name).await?;
        let (user, _) = found.ok_or_else(|| refuse(format!("user {name:?} does not exist any more, not renewing")))?;
        check_policies(&user.token, token)?;
        Ok(LoginLimits::from(&user.token))
    }
}
