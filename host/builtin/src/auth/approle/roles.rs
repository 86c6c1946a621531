//! Roles in storage: found by name and by role id, changed by compare-and-set.

use aws_lc_rs::hmac;
use leasehold_core::random;
use leasehold_core::request::{LogicalResponse, Object};
use leasehold_core::seams::auth::AuthRequest;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::host::Entropy;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_core::seams::token_params::TokenParams;
use leasehold_model::Ttl;
use serde_json::json;

use super::role::{ID_LEN_MAX, RENAMED, Role, or_null};
use super::uid_key;
use crate::auth::{TRIES, contended, encode, load};

/// Under this name the mount keeps the key with which role ids are hashed: names of keys can be read in the store.
const INDEX_KEY: &str = "role-id-key";

fn role_key(name: &str) -> String {
    format!("role/{name}")
}

pub(super) fn name_of(request: &AuthRequest) -> String {
    request.capture("role_name").to_lowercase()
}

pub(super) async fn find(storage: &MountStorage, name: &str) -> Result<Option<(Role, u64)>, RequestError> {
    load(storage, &role_key(&name.to_lowercase())).await
}

/// The name of a role, and the role, by its role id.
pub(super) async fn by_role_id(storage: &MountStorage, role_id: &str) -> Result<Option<(String, Role)>, RequestError> {
    if role_id.len() > ID_LEN_MAX {
        return Ok(None);
    }
    // No role has ever been written.
    let Some(key) = storage.get(INDEX_KEY).await? else { return Ok(None) };
    let Some(name) = storage.get(&index(&key.value, role_id)).await? else { return Ok(None) };
    let name = String::from_utf8_lossy(&name.value).into_owned();
    // The index and the role change in one step; between two reads the role may have another id all the same.
    let role = find(storage, &name).await?.map(|(role, _)| role).filter(|role| role.role_id == role_id);
    Ok(role.map(|role| (name, role)))
}

fn index(key: &[u8], role_id: &str) -> String {
    format!("role-id/{}", hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), role_id.as_bytes())))
}

async fn index_key(storage: &MountStorage, entropy: &dyn Entropy) -> Result<Vec<u8>, RequestError> {
    if let Some(stored) = storage.get(INDEX_KEY).await? {
        return Ok(stored.value);
    }
    let key = random::hex_digits(entropy, 64).into_bytes();
    match storage.put(INDEX_KEY, key.clone(), Expect::Absent).await {
        Ok(()) => Ok(key),
        // Another request made one at the same moment.
        Err(StorageError::Conflict(_)) => {
            storage.get(INDEX_KEY).await?.map(|stored| stored.value).ok_or_else(contended)
        }
        Err(other) => Err(other.into()),
    }
}

/// Stores a role with its index in one step; false when the role has changed meanwhile.
async fn store(
    request: &AuthRequest,
    name: &str,
    before: Option<(&Role, u64)>,
    role: &Role,
) -> Result<bool, RequestError> {
    role.check()?;
    let storage = &request.context.storage;
    let key = index_key(storage, &*request.context.entropy).await?;
    let expect = before.map_or(Expect::Absent, |(_, version)| Expect::Version(version));
    let mut batch = MountBatch::new().put(role_key(name), encode(role)?, expect);
    if before.is_none() {
        batch = batch.put(uid_key(&role.uid), Vec::new(), Expect::Absent);
    }
    let new = index(&key, &role.role_id);
    match before {
        Some((before, _)) if before.role_id == role.role_id => {}
        Some((before, _)) => {
            batch = batch.delete(index(&key, &before.role_id), Expect::Anything).put(
                new.as_str(),
                name.into(),
                Expect::Absent,
            );
        }
        None => batch = batch.put(new.as_str(), name.into(), Expect::Absent),
    }
    match storage.commit(batch).await {
        Ok(()) => Ok(true),
        Err(StorageError::Conflict(key)) if key.ends_with(&new) => {
            Err(RequestError::Engine("role_id already in use".to_owned()))
        }
        Err(StorageError::Conflict(_)) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// Makes a role or changes what is named.
pub(super) async fn write(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (name, at) = (name_of(request), &request.context);
    for _ in 0..TRIES {
        let before = find(&at.storage, &name).await?;
        let mut role = before.as_ref().map_or_else(|| Role::new(&*at.entropy), |(role, _)| role.clone());
        let warnings = role.update(&request.fields, before.is_none(), at.mount.max_lease_ttl)?;
        if store(request, &name, before.as_ref().map(|(role, version)| (role, *version)), &role).await? {
            return Ok(LogicalResponse { warnings, ..LogicalResponse::default() });
        }
    }
    Err(contended())
}

/// Changes a role that exists; none: there is none.
async fn change(
    request: &AuthRequest,
    change: impl Fn(&mut Role) -> Result<(), RequestError> + Send + Sync,
) -> Result<Option<LogicalResponse>, RequestError> {
    let name = name_of(request);
    for _ in 0..TRIES {
        let Some((before, version)) = find(&request.context.storage, &name).await? else { return Ok(None) };
        let mut role = before.clone();
        change(&mut role)?;
        if store(request, &name, Some((&before, version)), &role).await? {
            return Ok(Some(LogicalResponse::empty()));
        }
    }
    Err(contended())
}

pub(super) async fn read(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (role, _) = find(&request.context.storage, &name_of(request)).await?.ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::data(role.shown()))
}

/// Ends a role: from the first step on nothing logs in with it, and its secret ids can be found no more. The rest is cleaning up,
/// which `tidy` does as well.
pub(super) async fn delete(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (name, storage) = (name_of(request), &request.context.storage);
    for _ in 0..TRIES {
        let Some((role, version)) = find(storage, &name).await? else { return Ok(LogicalResponse::empty()) };
        let key = index_key(storage, &*request.context.entropy).await?;
        let batch = MountBatch::new()
            .delete(role_key(&name), Expect::Version(version))
            .delete(index(&key, &role.role_id), Expect::Anything)
            .delete(uid_key(&role.uid), Expect::Anything);
        match storage.commit(batch).await {
            Ok(()) => {
                storage.remove_below(&format!("secret/{}/", role.uid)).await?;
                storage.remove_below(&format!("accessor/{}/", role.uid)).await?;
                return Ok(LogicalResponse::empty());
            }
            Err(StorageError::Conflict(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(contended())
}

pub(super) async fn show_role_id(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (role, _) = find(&request.context.storage, &name_of(request)).await?.ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::json(json!({ "role_id": role.role_id })))
}

pub(super) async fn set_role_id(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let given = request.fields.text("role_id").unwrap_or_default();
    let changed = change(request, |role| {
        if given.is_empty() {
            return Err(RequestError::invalid("missing role_id"));
        }
        if given.len() > ID_LEN_MAX {
            return Err(RequestError::invalid("invalid role_id supplied, or failed to generate a role_id"));
        }
        given.clone_into(&mut role.role_id);
        Ok(())
    });
    changed.await?.ok_or(RequestError::UnsupportedPath)
}

/// What a route of a single field is about: the last segment of its pattern.
fn segment_of(request: &AuthRequest) -> &'static str {
    request.pattern.rsplit('/').next().unwrap_or_default()
}

pub(super) async fn show_field(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (role, _) = find(&request.context.storage, &name_of(request)).await?.ok_or(RequestError::NotFound)?;
    Ok(shown(segment_of(request), &role))
}

pub(super) async fn set_field(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let max_ttl = request.context.mount.max_lease_ttl;
    let changed = change(request, |role| set(segment_of(request), role, request, max_ttl));
    changed.await?.ok_or(RequestError::UnsupportedPath)
}

pub(super) async fn reset_field(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let changed = change(request, |role| {
        reset(segment_of(request), role);
        Ok(())
    });
    Ok(changed.await?.unwrap_or_default())
}

/// The field's present name.
fn field(segment: &str) -> &'static str {
    match segment {
        "policies" => "token_policies",
        "bound-cidr-list" | "secret-id-bound-cidrs" => "secret_id_bound_cidrs",
        "token-bound-cidrs" => "token_bound_cidrs",
        "bind-secret-id" => "bind_secret_id",
        "secret-id-num-uses" => "secret_id_num_uses",
        "secret-id-ttl" => "secret_id_ttl",
        "period" => "token_period",
        "token-num-uses" => "token_num_uses",
        "token-ttl" => "token_ttl",
        "token-max-ttl" => "token_max_ttl",
        _ => "local_secret_ids",
    }
}

fn shown(segment: &str, role: &Role) -> LogicalResponse {
    let all = role.shown();
    if segment == "bound-cidr-list" {
        // Vault keeps what is written here under the new name, and shows nothing.
        return LogicalResponse::json(json!({ "bound_cidr_list": null })).warn(
            "The \"bound_cidr_list\" field is deprecated and will be removed. Please use \"secret_id_bound_cidrs\" instead.",
        );
    }
    let new = field(segment);
    let mut data = Object::new();
    let value = all.get(new).cloned().unwrap_or_default();
    data.insert(new.to_owned(), if segment == "token-bound-cidrs" { or_null(value) } else { value });
    for (old, _) in RENAMED.iter().filter(|(_, renamed)| *renamed == new) {
        data.extend(all.get(*old).map(|value| ((*old).to_owned(), value.clone())));
    }
    LogicalResponse::data(data)
}

fn reset(segment: &str, role: &mut Role) {
    let default = TokenParams::default();
    match segment {
        "policies" => role.token.policies = default.policies,
        "bound-cidr-list" | "secret-id-bound-cidrs" => role.secret_id_bound_cidrs = Vec::new(),
        "token-bound-cidrs" => role.token.bound_cidrs = default.bound_cidrs,
        "bind-secret-id" => role.bind_secret_id = true,
        "secret-id-num-uses" => role.secret_id_num_uses = 0,
        "secret-id-ttl" => role.secret_id_ttl = Ttl::ZERO,
        "period" => role.token.period = default.period,
        "token-num-uses" => role.token.num_uses = default.num_uses,
        "token-ttl" => role.token.ttl = default.ttl,
        "token-max-ttl" => role.token.max_ttl = default.max_ttl,
        _ => {}
    }
    if matches!(segment, "policies" | "period") {
        role.old_names.forget(segment);
    }
}

fn set(segment: &str, role: &mut Role, request: &AuthRequest, max_ttl: Ttl) -> Result<(), RequestError> {
    let fields = &request.fields;
    let given = |name: &str| fields.has(name);
    let (new, old) = (field(segment), segment.replace('-', "_"));
    if !given(new) && !given(&old) {
        return match segment {
            // Nothing is named, and nothing changes.
            "bound-cidr-list" | "secret-id-bound-cidrs" | "token-bound-cidrs" => Ok(()),
            "policies" => Err(RequestError::invalid("missing token_policies")),
            _ => Err(RequestError::Invalid(format!("missing {old}"))),
        };
    }
    if new == "secret_id_bound_cidrs" && [new, &old].iter().all(|name| fields.list(name).is_none_or(<[_]>::is_empty)) {
        return Err(RequestError::invalid("missing bound_cidr_list"));
    }
    let (ttl, max) = (fields.ttl("token_ttl"), fields.ttl("token_max_ttl"));
    if ttl.is_some_and(|ttl| !role.token.max_ttl.is_zero() && ttl > role.token.max_ttl) {
        return Err(RequestError::invalid("token_ttl should not be greater than token_max_ttl"));
    }
    if max.is_some_and(|max| !max.is_zero() && max < role.token.ttl) {
        return Err(RequestError::invalid("token_max_ttl should be greater than or equal to token_ttl"));
    }
    role.update(fields, false, max_ttl).map(drop)
}
