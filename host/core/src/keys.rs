//! Every storage key, in one place. Keys are readable in the store: none holds a secret.

use leasehold_model::{Accessor, MountAccessor, TokenHash};

/// Names one stored value: segments joined by `/`. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// There while a store is being filled from another one: no server may use it. It is written and read below the barrier.
#[must_use]
pub fn unfinished() -> Key {
    Key::new("unfinished")
}

/// Wrapped keys, and how the root key is split: with [`root_handover`] the only values outside the barrier.
#[must_use]
pub fn keyring() -> Key {
    Key::new("sys/keyring")
}

#[must_use]
pub fn seal() -> Key {
    Key::new("sys/seal")
}

/// Whether a value under this key is stored as it stands.
#[must_use]
pub fn is_outside_barrier(key: &Key) -> bool {
    *key == keyring() || *key == seal() || *key == root_handover()
}

/// The keyed digest over all other values under `sys/`: it shows a row that was removed or put back from outside.
#[must_use]
pub fn integrity() -> Key {
    Key::new("sys/integrity")
}

/// What servers keep in memory and decide from: policies, mounts, modules, bindings, audit devices, the key ring. A store numbers
/// changes to these keys, so that a server can ask what it has missed. Tokens and leases are read when they are needed.
pub const CACHED: &str = "sys/";

/// Whether a change to this key is numbered; see [`CACHED`].
#[must_use]
pub fn is_cached(key: &Key) -> bool {
    key.as_str().starts_with(CACHED)
}

/// What a key under the cached prefix stands for in the memory of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached<'a> {
    Policy(&'a str),
    Module(&'a str),
    /// A binding of a module.
    Egp(&'a str),
    Mount,
    AuditDevice,
    AuditedHeader(&'a str),
    /// What follows `sys/quota/`.
    Quota(&'a str),
    Group(&'a str),
    /// The root key and its shares.
    RootKey,
}

/// `None`: nothing in memory is decided by it. The key ring is among these: who meets a key that it does not know reads it again.
#[must_use]
pub fn cached(key: &Key) -> Option<Cached<'_>> {
    if *key == root_handover() || *key == seal() {
        return Some(Cached::RootKey);
    }
    let (kind, rest) = key.as_str().strip_prefix(CACHED)?.split_once('/')?;
    Some(match (kind, rest.strip_prefix("name/")) {
        ("policy", _) => Cached::Policy(rest),
        ("module", Some(name)) => Cached::Module(name),
        ("egp", _) => Cached::Egp(rest),
        ("mount" | "auth", _) => Cached::Mount,
        ("audit", _) => Cached::AuditDevice,
        ("audited-header", _) => Cached::AuditedHeader(rest),
        ("quota", _) => Cached::Quota(rest),
        ("group", _) => Cached::Group(rest),
        _ => return None,
    })
}

/// A new root key, for a while, wrapped so that the servers that work over the store can follow to it.
#[must_use]
pub fn root_handover() -> Key {
    Key::new("sys/root-handover")
}

/// Name and id of this installation.
#[must_use]
pub fn installation() -> Key {
    Key::new("sys/installation")
}

/// Mount entries of one table: `sys/mount/` (secrets engines) or `sys/auth/`.
#[must_use]
pub fn mount(table: &str, accessor: &MountAccessor) -> Key {
    Key::new(format!("sys/{table}/{accessor}"))
}

/// There from the beginning of an unmount: no lease begins at this mount any more.
#[must_use]
pub fn mount_taint(accessor: &MountAccessor) -> Key {
    Key::new(format!("sys/mount-taint/{accessor}"))
}

/// Written by whatever adds or moves a mount: no two paths may overlap, and this row's version keeps two servers from both being right.
#[must_use]
pub fn mount_table() -> Key {
    Key::new("sys/mount-table")
}

/// The same for audit devices, whose paths may not overlap either.
#[must_use]
pub fn audit_table() -> Key {
    Key::new("sys/audit-table")
}

#[must_use]
pub fn audit(path: &str) -> Key {
    Key::new(format!("sys/audit/{path}"))
}

#[must_use]
pub fn audited_header(name: &str) -> Key {
    Key::new(format!("sys/audited-header/{name}"))
}

#[must_use]
pub fn policy(name: &str) -> Key {
    Key::new(format!("sys/policy/{name}"))
}

/// What no rate limit counts.
#[must_use]
pub fn quota_config() -> Key {
    Key::new("sys/quota/config")
}

/// All rate limits.
#[must_use]
pub fn quota_rate_limits() -> Key {
    Key::new("sys/quota/rate-limit")
}

/// All lease count quotas: whatever begins or ends a lease names its version.
#[must_use]
pub fn quota_lease_counts() -> Key {
    Key::new("sys/quota/lease-count")
}

/// What the places of a lease count quota count; see [`crate::quota`].
#[must_use]
pub fn lease_count_places(quota: &str) -> Key {
    Key::new(format!("quota/lease-count/{quota}/"))
}

#[must_use]
pub fn lease_count_place(quota: &str, place: u32) -> Key {
    Key::new(format!("quota/lease-count/{quota}/{place}"))
}

/// Whether a commit that was refused because of this key was refused by what counts leases.
#[must_use]
pub fn is_lease_count(key: &str) -> bool {
    key == quota_lease_counts().as_str() || key.starts_with("quota/lease-count/")
}

/// What servers have drawn for the clients of a rate limit.
#[must_use]
pub fn rate_pools(limit: &str) -> Key {
    Key::new(format!("quota/rate-limit/{limit}/"))
}

#[must_use]
pub fn rate_pool(limit: &str, row: u64) -> Key {
    Key::new(format!("quota/rate-limit/{limit}/{row}"))
}

/// Whether a token's record stands under this key.
#[must_use]
pub fn is_token(key: &Key) -> bool {
    key.as_str().starts_with("token/id/")
}

/// Read when a password is made, and kept in no memory.
#[must_use]
pub fn password_policy(name: &str) -> Key {
    Key::new(format!("sys/password-policy/{name}"))
}

#[must_use]
pub fn egp(name: &str) -> Key {
    Key::new(format!("sys/egp/{name}"))
}

#[must_use]
pub fn module(name: &str) -> Key {
    Key::new(format!("sys/module/name/{name}"))
}

#[must_use]
pub fn module_bytes(digest: &str) -> Key {
    Key::new(format!("sys/module/bytes/{digest}"))
}

/// A group of identities, without its entities.
#[must_use]
pub fn group(id: &str) -> Key {
    Key::new(format!("sys/group/{id}"))
}

/// As [`mount_table`], for groups: no circle, and no name twice.
#[must_use]
pub fn group_table() -> Key {
    Key::new("sys/group-table")
}

#[must_use]
pub fn entity(id: &str) -> Key {
    Key::new(format!("identity/entity/{id}"))
}

/// Which entity has a name, whose case is folded. Names may hold anything, slashes too.
#[must_use]
pub fn entity_name(folded: &str) -> Key {
    Key::new(format!("identity/name/{}", hex::encode(folded)))
}

/// An entity's name as it was written, for lists.
#[must_use]
pub fn entity_listed(name: &str) -> Key {
    Key::new(format!("{ENTITIES_LISTED}{}", hex::encode(name)))
}

pub const ENTITIES_LISTED: &str = "identity/listed/";

/// Which entity a mount has a name for.
#[must_use]
pub fn entity_alias(mount: &MountAccessor, key: &str) -> Key {
    Key::new(format!("identity/alias/{mount}/{}", hex::encode(key)))
}

/// Which entity has the alias with this id.
#[must_use]
pub fn entity_alias_id(id: &str) -> Key {
    Key::new(format!("identity/alias-id/{id}"))
}

/// What an entity has become a part of.
#[must_use]
pub fn entity_merged(id: &str) -> Key {
    Key::new(format!("identity/merged/{id}"))
}

/// There while an entity is disabled: nothing begins for it.
#[must_use]
pub fn entity_disabled(id: &str) -> Key {
    Key::new(format!("identity/disabled/{id}"))
}

/// That a mount said at an entity's last login there that it is in a group of this name; all of them with an empty entity.
#[must_use]
pub fn group_vouched(mount: &MountAccessor, key: &str, entity: &str) -> Key {
    Key::new(format!("identity/vouched/{mount}/{}/{entity}", hex::encode(key)))
}

/// Which group has a name, whose case is folded.
#[must_use]
pub fn group_name(folded: &str) -> Key {
    Key::new(format!("identity/group-name/{}", hex::encode(folded)))
}

/// Which group a mount has a name for.
#[must_use]
pub fn group_alias(mount: &MountAccessor, key: &str) -> Key {
    Key::new(format!("identity/group-alias/{mount}/{}", hex::encode(key)))
}

/// Which group has the alias with this id.
#[must_use]
pub fn group_alias_id(id: &str) -> Key {
    Key::new(format!("identity/group-alias-id/{id}"))
}

/// That an entity is a direct member of a group; all of a group's with an empty entity.
#[must_use]
pub fn group_member(group: &str, entity: &str) -> Key {
    Key::new(format!("identity/member/{group}/{entity}"))
}

#[must_use]
pub fn token(hash: &TokenHash) -> Key {
    Key::new(format!("token/id/{hash}"))
}

#[must_use]
pub fn token_accessor(accessor: &Accessor) -> Key {
    Key::new(format!("token/accessor/{accessor}"))
}

#[must_use]
pub fn token_child(parent: &TokenHash, child: &TokenHash) -> Key {
    Key::new(format!("token/child/{parent}/{child}"))
}

#[must_use]
pub fn token_children(parent: &TokenHash) -> Key {
    Key::new(format!("token/child/{parent}/"))
}

#[must_use]
pub fn token_role(name: &str) -> Key {
    Key::new(format!("token/role/{name}"))
}

/// The answer that a wrapping token stands for.
#[must_use]
pub fn wrapped(token: &TokenHash) -> Key {
    Key::new(format!("token/wrapped/{token}"))
}

/// The request that a wrapping token stands for, and who approves of it.
#[must_use]
pub fn deferred(token: &TokenHash) -> Key {
    Key::new(format!("token/deferred/{token}"))
}

/// A value in a token's cubbyhole; all of them below an empty path.
#[must_use]
pub fn cubbyhole(token: &TokenHash, path: &str) -> Key {
    Key::new(format!("token/cubbyhole/{token}/{path}"))
}

/// The corner of storage that belongs to one mount.
#[must_use]
pub fn mount_data(accessor: &MountAccessor, rest: &str) -> Key {
    Key::new(format!("mount/{accessor}/{rest}"))
}

const WAITS_OF: &str = "waits-of/";

/// There for as long as a request of this entity waits for approval, under the wrapping token of this hash.
#[must_use]
pub fn waits_of(entity: &str, hash: &TokenHash) -> Key {
    Key::new(format!("{WAITS_OF}{entity}/{hash}"))
}

/// The entity of such a key.
#[must_use]
pub fn waits_of_whom(key: &Key) -> Option<&str> {
    key.as_str().strip_prefix(WAITS_OF)?.split_once('/').map(|(entity, _)| entity)
}

/// How many requests of an entity wait.
#[must_use]
pub fn waiting_count(entity: &str) -> Key {
    Key::new(format!("waiting/{entity}"))
}

/// An attempt that takes a quorum of shares: `root-token`, `rotate-root` or `rotate-recovery`. Nothing is decided by it from memory.
#[must_use]
pub fn attempt(at: &str) -> Key {
    Key::new(format!("attempt/{at}"))
}

/// Whether it is that of an [`attempt`].
#[must_use]
pub fn is_attempt(key: &Key) -> bool {
    key.as_str().starts_with("attempt/")
}

/// What became of the last moves of mounts.
#[must_use]
pub fn moves() -> Key {
    Key::new("moves")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server decides from must be followed: whoever adds a key of it here adds it to [`cached`].
    #[test]
    fn every_key_that_is_decided_by_is_followed() {
        let accessor = MountAccessor::new("kv_1");
        for (key, wanted) in [
            (policy("a/b"), Some(Cached::Policy("a/b"))),
            (module("m"), Some(Cached::Module("m"))),
            (egp("name/x"), Some(Cached::Egp("name/x"))),
            (mount("mount", &accessor), Some(Cached::Mount)),
            (mount("auth", &accessor), Some(Cached::Mount)),
            (audit("file/"), Some(Cached::AuditDevice)),
            (audited_header("x"), Some(Cached::AuditedHeader("x"))),
            (quota_config(), Some(Cached::Quota("config"))),
            (quota_rate_limits(), Some(Cached::Quota("rate-limit"))),
            (quota_lease_counts(), Some(Cached::Quota("lease-count"))),
            (lease_count_place("id", 0), None),
            (group("g"), Some(Cached::Group("g"))),
            (group_table(), None),
            (entity("e"), None),
            (root_handover(), Some(Cached::RootKey)),
            (seal(), Some(Cached::RootKey)),
            (module_bytes("d"), None),
            (mount_taint(&accessor), None),
            (password_policy("name/x"), None),
            (mount_table(), None),
            (audit_table(), None),
            (keyring(), None),
            (integrity(), None),
            (mount_data(&accessor, "sys/policy/x"), None),
        ] {
            assert_eq!(cached(&key), wanted, "{}", key.as_str());
        }
    }
}
