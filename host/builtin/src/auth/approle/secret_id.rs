//! Secret ids: what is stored of one, and the rules by which it is made, used and ended. The id itself is stored nowhere.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leasehold_core::fields::Fields;
use leasehold_core::random;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::auth::{AuthContext, AuthRequest};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_model::{Timestamp, Ttl};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::role::{ID_LEN_MAX, Role, check_blocks, check_subset, parsed};
use super::{roles, uid_key};
use crate::auth::{TRIES, contended, encode, load};

/// What is stored of a secret id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SecretId {
    pub accessor: String,
    /// Logins that are left; zero: without limit.
    pub num_uses: i64,
    /// As it was asked for; zero: for ever.
    pub ttl: Ttl,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub metadata: BTreeMap<String, String>,
    /// As they were given.
    pub cidr_list: Vec<String>,
    pub token_bound_cidrs: Vec<String>,
}

impl SecretId {
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    fn shown(&self) -> LogicalResponse {
        // As Go writes a moment that was never set.
        let end = self.expires_at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), Timestamp::rfc3339);
        LogicalResponse::json(json!({
            "cidr_list": self.cidr_list,
            "creation_time": self.created_at.rfc3339(),
            "expiration_time": end,
            "last_updated_time": self.updated_at.rfc3339(),
            "metadata": self.metadata,
            "secret_id_accessor": self.accessor,
            "secret_id_num_uses": self.num_uses,
            "secret_id_ttl": self.ttl.as_secs(),
            "token_bound_cidrs": self.token_bound_cidrs,
        }))
    }
}

/// Where a role's secret ids stand, each under its hash.
pub(super) fn secret_key(uid: &str, hash: &str) -> String {
    format!("secret/{uid}/{hash}")
}

/// Where the hash of a secret id stands under its accessor.
pub(super) fn accessor_key(uid: &str, accessor: &str) -> String {
    format!("accessor/{uid}/{accessor}")
}

/// A secret id as it stands in storage.
pub(super) struct Found {
    pub entry: SecretId,
    pub hash: String,
    version: u64,
}

/// Looks a secret id up by its hash. One that has expired is removed, and is not there.
pub(super) async fn by_hash(at: &AuthContext, role: &Role, hash: String) -> Result<Option<Found>, RequestError> {
    let Some((entry, version)) = load::<SecretId>(&at.storage, &secret_key(&role.uid, &hash)).await? else {
        return Ok(None);
    };
    let found = Found { entry, hash, version };
    if found.entry.is_expired(at.clock.now()) {
        remove(&at.storage, role, &found).await?;
        return Ok(None);
    }
    Ok(Some(found))
}

pub(super) async fn by_id(at: &AuthContext, role: &Role, secret_id: &str) -> Result<Option<Found>, RequestError> {
    if secret_id.len() > ID_LEN_MAX {
        return Ok(None);
    }
    by_hash(at, role, role.hash(secret_id)).await
}

async fn by_accessor(at: &AuthContext, role: &Role, accessor: &str) -> Result<Option<Found>, RequestError> {
    // A longer text, or one with a slash, cannot be one and must not become a storage key.
    if accessor.len() > 64 || !accessor.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Ok(None);
    }
    match at.storage.get(&accessor_key(&role.uid, accessor)).await? {
        Some(hash) => by_hash(at, role, String::from_utf8_lossy(&hash.value).into_owned()).await,
        None => Ok(None),
    }
}

/// Removes a secret id as it was found. When it has changed meanwhile it stays: whoever changed it decides.
async fn remove(storage: &MountStorage, role: &Role, found: &Found) -> Result<bool, RequestError> {
    let gone = MountBatch::new()
        .delete(secret_key(&role.uid, &found.hash), Expect::Version(found.version))
        .delete(accessor_key(&role.uid, &found.entry.accessor), Expect::Anything);
    match storage.commit(gone).await {
        Ok(()) => Ok(true),
        Err(StorageError::Conflict(_)) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

fn missing<T>(field: &str) -> Result<T, RequestError> {
    Err(RequestError::Invalid(format!("missing {field}")))
}

/// Makes a secret id, of the caller's choice or a random one.
pub(super) async fn make(
    at: &AuthContext,
    role_name: &str,
    fields: &Fields,
    custom: Option<&str>,
) -> Result<LogicalResponse, RequestError> {
    let secret_id = match custom {
        Some("") => return missing("secret_id"),
        Some(custom) if custom.len() > ID_LEN_MAX => {
            return Err(RequestError::Engine(format!(
                "failed to store secret_id: failed to create HMAC of secret ID: value is longer than maximum of {ID_LEN_MAX} bytes"
            )));
        }
        Some(custom) => custom.to_owned(),
        None => random::uuid(&*at.entropy),
    };
    let Some((role, _)) = roles::find(&at.storage, role_name).await? else {
        return Err(RequestError::NoRoute(format!("role {role_name:?} does not exist")));
    };
    let entry = planned(at, &role, fields)?;
    let hash = role.hash(&secret_id);
    // One that has expired does not stand in the way of another.
    by_hash(at, &role, hash.clone()).await?;
    let batch = MountBatch::new()
        // The role is still there, and is still the same.
        .check(uid_key(&role.uid), Expect::Present)
        .put(secret_key(&role.uid, &hash), encode(&entry)?, Expect::Absent)
        .put(accessor_key(&role.uid, &entry.accessor), hash.into_bytes(), Expect::Absent);
    match at.storage.commit(batch).await {
        Ok(()) => {}
        Err(StorageError::Conflict(key)) if key.ends_with(&uid_key(&role.uid)) => {
            return Err(RequestError::NoRoute(format!("role {role_name:?} does not exist")));
        }
        Err(StorageError::Conflict(_)) => {
            return Err(RequestError::Engine("failed to store secret_id: SecretID is already registered".to_owned()));
        }
        Err(other) => return Err(other.into()),
    }
    let ttl = entry.expires_at.map_or(0, |end| end.since(entry.created_at).as_secs());
    Ok(LogicalResponse::json(json!({
        "secret_id": secret_id,
        "secret_id_accessor": entry.accessor,
        "secret_id_num_uses": entry.num_uses,
        "secret_id_ttl": ttl,
    })))
}

/// Everything that is known of a secret id before it is stored.
fn planned(at: &AuthContext, role: &Role, fields: &Fields) -> Result<SecretId, RequestError> {
    if !role.bind_secret_id {
        return Err(RequestError::invalid("bind_secret_id is not set on the role"));
    }
    let cidr_list = fields.list("cidr_list").unwrap_or_default().to_vec();
    check_blocks(&cidr_list).map_err(RequestError::Engine)?;
    check_subset(&parsed(&role.secret_id_bound_cidrs), &cidr_list)?;
    let token_bound_cidrs = fields.list("token_bound_cidrs").unwrap_or_default().to_vec();
    check_blocks(&token_bound_cidrs)
        .map_err(|why| RequestError::Engine(why.replacen("validate CIDR", "validate token CIDR", 1)))?;
    check_subset(&role.token.bound_cidrs, &token_bound_cidrs)?;
    let most = role.secret_id_num_uses;
    let num_uses = fields.int("num_uses").unwrap_or(most);
    if num_uses < 0 {
        return Err(RequestError::invalid("num_uses cannot be negative"));
    }
    if most > 0 && (num_uses == 0 || num_uses > most) {
        return Err(RequestError::invalid("num_uses cannot be higher than the role's secret_id_num_uses"));
    }
    let longest = role.secret_id_ttl;
    let ttl = fields.ttl("ttl").unwrap_or(longest);
    if !longest.is_zero() && (ttl.is_zero() || ttl > longest) {
        return Err(RequestError::invalid("ttl cannot be longer than the role's secret_id_ttl"));
    }
    let metadata = metadata(fields.text("metadata").unwrap_or_default())?;
    let now = at.clock.now();
    Ok(SecretId {
        accessor: random::uuid(&*at.entropy),
        num_uses,
        ttl,
        created_at: now,
        expires_at: ttl.if_set().map(|ttl| now + ttl.min(at.mount.max_lease_ttl)),
        updated_at: now,
        metadata,
        cidr_list,
        token_bound_cidrs,
    })
}

/// A JSON object of texts, the same in base64, or `k=v` with commas in between.
fn metadata(text: &str) -> Result<BTreeMap<String, String>, RequestError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    if let Ok(metadata) = serde_json::from_str(text) {
        return Ok(metadata);
    }
    if let Ok(decoded) = STANDARD.decode(text)
        && let Ok(metadata) = serde_json::from_slice(&decoded)
    {
        return Ok(metadata);
    }
    let pairs = text.split(',').map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
    });
    pairs.collect::<Option<_>>().ok_or_else(|| {
        RequestError::invalid("failed to parse metadata: failed to parse the input: invalid <key,value> format")
    })
}

/// Uses a secret id for one login. None: there is no such secret id, or nothing of it is left.
///
/// # Errors
/// The login comes from an address that role or secret id do not allow; then no use is taken.
pub(super) async fn consume(
    at: &AuthContext,
    role: &Role,
    secret_id: &str,
    client: Option<IpAddr>,
) -> Result<Option<SecretId>, RequestError> {
    for _ in 0..TRIES {
        let Some(found) = by_id(at, role, secret_id).await? else { return Ok(None) };
        // The role's blocks may have become fewer since.
        check_subset(&parsed(&role.secret_id_bound_cidrs), &found.entry.cidr_list)?;
        check_source(&found.entry.cidr_list, client, "secret ID")?;
        check_source(&role.secret_id_bound_cidrs, client, "role")?;
        if found.entry.num_uses == 0 {
            return Ok(Some(found.entry));
        }
        let is_taken = if found.entry.num_uses == 1 {
            remove(&at.storage, role, &found).await?
        } else {
            let left =
                SecretId { num_uses: found.entry.num_uses - 1, updated_at: at.clock.now(), ..found.entry.clone() };
            let key = secret_key(&role.uid, &found.hash);
            match at.storage.put(&key, encode(&left)?, Expect::Version(found.version)).await {
                Ok(()) => true,
                Err(StorageError::Conflict(_)) => false,
                Err(other) => return Err(other.into()),
            }
        };
        if is_taken {
            return Ok(Some(found.entry));
        }
        // Another login took a use at the same moment: look again.
    }
    Err(contended())
}

/// Whether a login may come from where it comes from.
pub(super) fn check_source(blocks: &[String], client: Option<IpAddr>, whose: &str) -> Result<(), RequestError> {
    if blocks.is_empty() {
        return Ok(());
    }
    let Some(client) = client else {
        return Err(RequestError::Engine("failed to get connection information".to_owned()));
    };
    if parsed(blocks).iter().any(|block| block.contains(client)) {
        return Ok(());
    }
    Err(RequestError::Invalid(format!("source address \"{client}\" unauthorized by CIDR restrictions on the {whose}")))
}

/// The role of a request that is about one of its secret ids.
async fn role_of(request: &AuthRequest) -> Result<Role, RequestError> {
    let name = request.capture("role_name");
    let found = roles::find(&request.context.storage, name).await?;
    found.map(|(role, _)| role).ok_or_else(|| RequestError::Engine(format!("role {name:?} does not exist")))
}

fn given<'a>(request: &'a AuthRequest, field: &str) -> Result<&'a str, RequestError> {
    match request.fields.text(field) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => missing(field),
    }
}

/// `secret-id/lookup`. An unknown one is answered without a body, as in Vault.
pub(super) async fn look_up(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let secret_id = given(request, "secret_id")?;
    let found = by_id(&request.context, &role_of(request).await?, secret_id).await?;
    Ok(found.map_or_else(LogicalResponse::empty, |found| found.entry.shown()))
}

/// `secret-id/destroy`. An unknown one counts as destroyed.
pub(super) async fn destroy(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (secret_id, role) = (given(request, "secret_id")?, role_of(request).await?);
    for _ in 0..TRIES {
        match by_id(&request.context, &role, secret_id).await? {
            None => return Ok(LogicalResponse::empty()),
            Some(found) if remove(&request.context.storage, &role, &found).await? => {
                return Ok(LogicalResponse::empty());
            }
            // A login used it at the same moment: look again.
            Some(_) => {}
        }
    }
    Err(contended())
}

fn no_accessor(accessor: &str) -> String {
    let shown: String = accessor.chars().take(64).collect();
    format!("failed to find accessor entry for secret_id_accessor: {shown:?}")
}

/// `secret-id-accessor/lookup`.
pub(super) async fn look_up_by_accessor(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let accessor = given(request, "secret_id_accessor")?;
    Ok(match by_accessor(&request.context, &role_of(request).await?, accessor).await? {
        Some(found) => found.entry.shown(),
        // An envelope around the error, as in Vault.
        None => LogicalResponse::json(json!({ "error": no_accessor(accessor) })).with_status(404),
    })
}

/// `secret-id-accessor/destroy`.
pub(super) async fn destroy_by_accessor(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (accessor, role) = (given(request, "secret_id_accessor")?, role_of(request).await?);
    for _ in 0..TRIES {
        let found = by_accessor(&request.context, &role, accessor).await?;
        let found = found.ok_or_else(|| RequestError::Engine(no_accessor(accessor)))?;
        if remove(&request.context.storage, &role, &found).await? {
            return Ok(LogicalResponse::empty());
        }
    }
    Err(contended())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_comes_in_three_forms() {
        let wanted = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        for text in ["{\"a\":\"b\"}", "eyJhIjoiYiJ9", "a=b", " a = b "] {
            assert_eq!(metadata(text).unwrap(), wanted, "{text}");
        }
        assert!(metadata("").unwrap().is_empty());
        for text in ["zzz", "{\"a\":1}", "=b", "a=b,c"] {
            assert!(metadata(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_login_from_no_known_address_is_in_no_block() {
        let blocks = ["10.0.0.0/8".to_owned()];
        assert!(check_source(&blocks, "10.1.1.1".parse().ok(), "role").is_ok());
        assert!(check_source(&blocks, "11.1.1.1".parse().ok(), "role").is_err());
        assert!(check_source(&blocks, None, "role").is_err());
        assert!(check_source(&[], None, "role").is_ok());
    }
}
