//! What a mount keeps by name and all methods treat alike: the roles of those that take signed tokens, the certificates of `cert`.
//!
//! Must not know: what stands in one. Names are not told apart by their case, as in Vault.

use leasehold_core::fields::Fields;
use leasehold_core::request::{LogicalResponse, Object};
use leasehold_core::seams::auth::{AuthContext, AuthRequest, LoginLimits, LoginToken};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_core::seams::token_params::TokenParams;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{TRIES, contended, encode, load};

pub(super) trait Record: Default + Serialize + DeserializeOwned + Send + Sync {
    /// Where they lie, with a slash at its end.
    const FOLDER: &'static str;
    /// How many there may be at one mount, and what they are called.
    const MOST: Option<(usize, &'static str)> = None;

    /// Takes over what the fields name.
    ///
    /// # Errors
    /// What is wrong with it then.
    fn update(&mut self, fields: &Fields, is_new: bool) -> Result<(), RequestError>;

    /// What its name stands in for.
    fn named(&mut self, _: &str) {}

    /// What whoever has written it should know.
    fn warnings(&self) -> Vec<String>;

    /// As it is read back; nothing in it is secret.
    fn shown(&self) -> Object;

    /// What its tokens are like.
    fn token(&self) -> &TokenParams;
}

fn key<R: Record>(name: &str) -> String {
    format!("{}{name}", R::FOLDER)
}

fn name_of(request: &AuthRequest) -> String {
    request.capture("name").to_lowercase()
}

pub(super) async fn find<R: Record>(storage: &MountStorage, name: &str) -> Result<Option<R>, RequestError> {
    Ok(load(storage, &key::<R>(name)).await?.map(|(record, _)| record))
}

pub(super) async fn exists<R: Record>(request: &AuthRequest) -> Result<bool, RequestError> {
    Ok(request.context.storage.get(&key::<R>(&name_of(request))).await?.is_some())
}

pub(super) async fn read<R: Record>(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let record: R = find(&request.context.storage, &name_of(request)).await?.ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::data(record.shown()))
}

pub(super) async fn write<R: Record>(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (storage, key) = (&request.context.storage, key::<R>(&name_of(request)));
    for _ in 0..TRIES {
        let (mut record, expect) = match load::<R>(storage, &key).await? {
            Some((record, version)) => (record, Expect::Version(version)),
            None => (R::default(), Expect::Absent),
        };
        let is_new = expect == Expect::Absent;
        if let Some((most, what)) = R::MOST.filter(|_| is_new)
            && storage.names(R::FOLDER, "", most).await?.len() >= most
        {
            return Err(RequestError::Invalid(format!("there are {most} {what} at this mount, which is the most")));
        }
        record.update(&request.fields, is_new)?;
        record.named(&name_of(request));
        match storage.put(&key, encode(&record)?, expect).await {
            Ok(()) => return Ok(LogicalResponse { warnings: record.warnings(), ..LogicalResponse::default() }),
            Err(StorageError::Conflict(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(contended())
}

pub(super) async fn delete<R: Record>(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    request.context.storage.delete(&key::<R>(&name_of(request))).await?;
    Ok(LogicalResponse::empty())
}

/// How long a token may go on that a login with a role has made: as the role says now.
///
/// # Errors
/// The role is gone.
pub(super) async fn renew_by_role<R: Record>(
    at: &AuthContext,
    token: &LoginToken<'_>,
) -> Result<LoginLimits, RequestError> {
    let name = token.internal.get("role").and_then(Value::as_str).unwrap_or_default();
    let role: Option<R> = find(&at.storage, name).await?;
    let role = role.ok_or_else(|| {
        RequestError::Engine(format!("failed to renew entry: role {name:?} does not exist during renewal"))
    })?;
    Ok(LoginLimits::from(role.token()))
}
