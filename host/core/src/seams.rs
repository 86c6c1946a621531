//! Where technology plugs in: storage, clock, entropy, sandbox, engines, audit devices. Nothing else lives here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_model::{Capabilities, LeaseId, MountAccessor, MountPath, Operation, Timestamp, TokenHash, Ttl};
use secrecy::SecretString;
use serde_json::Value;

use crate::fields::Fields;
use crate::lease::{LeaseRow, LeaseState};
use crate::request::{LogicalResponse, Object, RequestError};
use crate::routes::Route;

// ---------------------------------------------------------------- storage

/// Names one stored value: segments joined by `/`. See `keys.rs` for all of them. Holds no secret.
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

/// A value with the number that its next writer must name. Versions of one key only grow.
#[derive(Clone)]
pub struct Versioned {
    pub value: Vec<u8>,
    pub version: u64,
}

impl fmt::Debug for Versioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versioned").field("version", &self.version).finish_non_exhaustive()
    }
}

/// What a batch demands of a key before anything of it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    Present,
    Version(u64),
}

#[derive(Clone)]
pub enum Change {
    Put {
        key: Key,
        value: Vec<u8>,
        expect: Expect,
    },
    Delete {
        key: Key,
        expect: Expect,
    },
    /// Only a condition.
    Check {
        key: Key,
        expect: Expect,
    },
    /// A new lease row; its id must not exist.
    Insert(LeaseRow),
    /// Replaces a lease row if it is in state `from` and its fence is `fence`. A row with an empty body leaves the stored one as
    /// it is.
    Move {
        row: LeaseRow,
        from: LeaseState,
        fence: u64,
    },
    /// Deletes a lease row if its fence is `fence`.
    Remove {
        id: LeaseId,
        fence: u64,
    },
}

/// Written all or nothing, in one atomic step.
#[derive(Clone, Default)]
pub struct Batch(pub Vec<Change>);

impl Batch {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn put(mut self, key: Key, value: Vec<u8>, expect: Expect) -> Self {
        self.0.push(Change::Put { key, value, expect });
        self
    }

    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.0.push(Change::Delete { key, expect: Expect::Anything });
        self
    }

    #[must_use]
    pub fn check(mut self, key: Key, expect: Expect) -> Self {
        self.0.push(Change::Check { key, expect });
        self
    }

    #[must_use]
    pub fn insert(mut self, row: LeaseRow) -> Self {
        self.0.push(Change::Insert(row));
        self
    }

    #[must_use]
    pub fn shift(mut self, row: LeaseRow, from: LeaseState, fence: u64) -> Self {
        self.0.push(Change::Move { row, from, fence });
        self
    }

    #[must_use]
    pub fn remove(mut self, id: LeaseId, fence: u64) -> Self {
        self.0.push(Change::Remove { id, fence });
        self
    }
}

/// Outlines only: values are what the barrier seals.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, expect, .. } => write!(f, "Put({}, {expect:?})", key.as_str()),
            Self::Delete { key, expect } => write!(f, "Delete({}, {expect:?})", key.as_str()),
            Self::Check { key, expect } => write!(f, "Check({}, {expect:?})", key.as_str()),
            Self::Insert(row) => write!(f, "Insert({row:?})"),
            Self::Move { row, from, fence } => write!(f, "Move({row:?}, {from:?}, {fence})"),
            Self::Remove { id, fence } => write!(f, "Remove({id}, {fence})"),
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} changes)", self.0.len())
    }
}

/// Which lease rows to list; every field that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct LeaseFilter {
    pub id_prefix: Option<String>,
    pub token: Option<TokenHash>,
    pub mount: Option<MountAccessor>,
    pub state: Option<LeaseState>,
    pub kind: Option<crate::lease::LeaseKind>,
}

#[derive(Clone, Debug)]
pub struct Page {
    /// Rows after this id, in id order.
    pub after: Option<LeaseId>,
    pub limit: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("Vault is sealed")]
    Sealed,
    /// An expectation of a batch did not hold; nothing was written.
    #[error("changed in the meantime: `{0}`")]
    Conflict(String),
    /// The lease row is held by somebody else, in another state, or gone; nothing was written.
    #[error("lease `{0}` is no longer held")]
    Fenced(LeaseId),
    /// A value that this barrier cannot open: damaged, or moved to another key.
    #[error("stored value `{0}` is damaged")]
    Corrupt(String),
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
}

/// Keeps values and lease rows. Every call is one atomic step; no transaction outlives a call. When `commit` has
/// returned, what it wrote survives `kill -9` (durable stores).
#[async_trait]
pub trait Storage: Send + Sync {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError>;
    /// Keys that start with `prefix`, after `after`, in byte order.
    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError>;
    /// A row whose body a barrier cannot open comes with an empty one, here and from every call that gives rows: it must be
    /// found to be dealt with, and must not hide the others.
    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError>;
    /// In id order.
    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError>;
    /// How many rows of each kind and state there are.
    async fn count_leases(&self) -> Result<Vec<(crate::lease::LeaseKind, LeaseState, u64)>, StorageError>;
    /// # Errors
    /// [`StorageError::Conflict`] or [`StorageError::Fenced`] when an expectation does not hold: nothing was written.
    async fn commit(&self, batch: Batch) -> Result<(), StorageError>;
    /// Takes up to `limit` rows with `next_at` ≤ now that nobody holds (or whose hold is over), in order of `next_at`, except those
    /// whose connection is in `skip`. A taken row has `holder` and `held_until = now + hold_for` set and its fence raised by one;
    /// its state is untouched. Now is this *store's* clock.
    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError>;
    /// Takes one row, due or not, unless somebody else holds it. `Ok(None)`: gone. `Err(Fenced)`: held.
    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError>;
    /// The least `next_at` of all rows.
    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError>;
}

/// Opens and shuts the barrier. The barrier implements [`Storage`] and this.
#[async_trait]
pub trait Seal: Send + Sync {
    async fn status(&self) -> Result<SealStatus, SealError>;
    /// Makes keys and shares; leaves the barrier shut. Once only.
    async fn init(&self, shares: u8, threshold: u8) -> Result<Vec<KeyShare>, SealError>;
    /// Takes one share; opens the barrier when there are enough of them.
    async fn unseal(&self, share: &[u8]) -> Result<SealStatus, SealError>;
    /// Forgets the shares given so far.
    async fn reset(&self) -> Result<SealStatus, SealError>;
    /// Shuts the barrier and wipes the keys from memory.
    async fn seal(&self);
    fn is_sealed(&self) -> bool;
    /// Adds a key to the key ring; later writes use it.
    async fn rotate(&self) -> Result<(), SealError>;
    /// Term and install time of the newest key, and how many values it has sealed since this start.
    async fn key_status(&self) -> Result<KeyStatus, SealError>;
    /// 32 bytes that never change and exist only while unsealed, derived for one purpose (`token`, `audit`, …).
    fn derive(&self, purpose: &str) -> Result<SecretKey, SealError>;
}

/// 32 secret bytes.
pub struct SecretKey(pub zeroize::Zeroizing<[u8; 32]>);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey([REDACTED])")
    }
}

/// One share of the root key.
pub struct KeyShare(pub zeroize::Zeroizing<Vec<u8>>);

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyShare([REDACTED])")
    }
}

#[derive(Clone, Debug, Default)]
pub struct SealStatus {
    pub initialized: bool,
    pub sealed: bool,
    pub threshold: u8,
    pub shares: u8,
    pub progress: u8,
    /// Names the unsealing under way; empty when none is.
    pub nonce: String,
}

#[derive(Clone, Debug)]
pub struct KeyStatus {
    pub term: u32,
    pub installed_at: Timestamp,
    pub encryptions: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("Vault is already initialized")]
    AlreadyInitialized,
    #[error("Vault is not initialized")]
    NotInitialized,
    #[error("Vault is sealed")]
    Sealed,
    /// The client's mistake, in the field's words.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

// ---------------------------------------------------------------- time and randomness

/// Tells the time. It may jump after a suspend: callers must not assume that it only grows.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The one source of randomness.
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

// ---------------------------------------------------------------- sandbox

/// SHA-256 of a component's bytes, 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub String);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicySource {
    pub name: String,
    pub text: String,
    pub allow_slashes: bool,
    pub allow_wildcards: bool,
}

/// Values for `{{identity.…}}`; empty until identity exists.
pub type IdentityValues = BTreeMap<String, String>;

/// Names a compiled policy set by content: equal sources and identity values give the same id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicySetId(pub Arc<str>);

/// What the ACL is asked. `Debug` leaves the data out: it may hold secrets.
#[derive(Clone)]
pub struct Ask<'a> {
    pub path: &'a str,
    pub operation: Operation,
    pub needs_sudo: bool,
    pub wrap_ttl: Option<Ttl>,
    /// The request's data. The sandbox hands names in, and values only of keys that a rule of the set names.
    pub data: &'a Object,
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("path", &self.path)
            .field("operation", &self.operation)
            .field("needs_sudo", &self.needs_sudo)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RuleRef {
    pub policy: String,
    pub pattern: String,
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Granted,
    NoRule,
    Denied,
    Missing(Capabilities),
    Parameter(String),
    Wrapping(String),
    Pagination(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    pub capabilities: Capabilities,
    pub reason: Reason,
    pub rules: Vec<RuleRef>,
    pub limit: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Hint,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: String,
    pub message: String,
    pub line: u32,
    pub column: u32,
    pub help: Option<String>,
    /// The policy's name, or the index of the statement.
    pub at: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    Handlebars,
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Creation,
    Renewal,
    Revocation,
    Rollback,
    Rotation,
}

#[derive(Clone, Debug)]
pub struct TemplateReport {
    pub dialect: Dialect,
    pub diagnostics: Vec<Diagnostic>,
}

/// What is known of a component before anything of it runs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ModuleFacts {
    pub digest: String,
    pub size: usize,
    /// `leasehold:policy@0.1.0` …
    pub world: String,
    pub functions: u32,
    pub exports: Vec<String>,
    /// Instances of types only; anything else is refused.
    pub imports: Vec<String>,
    /// From the module's own `describe`.
    pub name: String,
    pub version: String,
    pub description: String,
}

/// What a third party's module is asked. Values only of fields that the route declares visible.
#[derive(Clone, Debug)]
pub struct ModuleAsk {
    pub id: String,
    pub path: String,
    pub mount_path: String,
    pub mount_type: String,
    pub operation: Operation,
    pub parameters: Vec<(String, Option<String>)>,
    pub identity: ModuleIdentity,
    pub now: Timestamp,
    pub client_address: Option<String>,
    pub attributes: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default)]
pub struct ModuleIdentity {
    pub display_name: String,
    pub token_accessor: String,
    pub token_policies: Vec<String>,
    pub metadata: Vec<(String, String)>,
    pub token_created: i64,
    pub token_ttl: Option<u32>,
    pub auth_path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleDecision {
    Allow,
    Deny,
    Abstain,
}

#[derive(Clone, Debug)]
pub struct ModuleVerdict {
    pub decision: ModuleDecision,
    pub messages: Vec<String>,
    /// The least of the module's TTL ceilings.
    pub max_ttl: Option<Ttl>,
    pub annotations: Vec<(String, String)>,
    /// Units of fuel the call used.
    pub fuel: u64,
}

/// Why a guest gave no answer that counts. None of these is ever an allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    #[error("the module trapped: {0}")]
    Trap(String),
    #[error("the module ran out of fuel")]
    Fuel,
    #[error("the module ran out of time")]
    Time,
    #[error("the module wanted more memory than it may have")]
    Memory,
    /// Too long, too many, an unknown obligation, an error where the interface allows none.
    #[error("the module's answer is out of bounds: {0}")]
    Answer(String),
    /// The module itself says that it cannot decide.
    #[error("the module failed: {0}")]
    Failed(String),
    #[error("no such module is loaded: {0}")]
    Unknown(String),
    /// All instances are busy and the queue is full.
    #[error("policy workers are busy")]
    Busy,
    #[error("the sandbox failed: {0}")]
    Host(String),
}

/// Why a component is not taken. The text says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

/// Data in, data out, so that a child process can stand behind it. Guests compute; none of these calls has an effect.
#[async_trait]
pub trait Sandbox: Send + Sync {
    // --- ACL
    /// Compiles once per distinct (sources, identity values). `Err`: diagnostics with at least one error.
    async fn compile_acl(&self, sources: &[PolicySource], identity: &IdentityValues) -> Result<PolicySetId, AclError>;
    async fn decide(&self, set: &PolicySetId, ask: &Ask<'_>) -> Result<Verdict, SandboxError>;
    async fn capabilities(&self, set: &PolicySetId, paths: &[&str]) -> Result<Vec<Capabilities>, SandboxError>;
    async fn grants_below(&self, set: &PolicySetId, prefix: &str) -> Result<bool, SandboxError>;
    async fn lint(&self, source: &PolicySource) -> Result<Vec<Diagnostic>, SandboxError>;
    // --- statements
    async fn check_template(
        &self,
        statements: &[String],
        purpose: Purpose,
        wished: Dialect,
    ) -> Result<TemplateReport, SandboxError>;
    /// `values` hold no credential: where a password belongs there is a placeholder.
    async fn render(
        &self,
        statements: &[String],
        dialect: Dialect,
        values: &[(&str, &str)],
    ) -> Result<Vec<String>, RenderError>;
    // --- third parties' modules
    /// The load gate: known world, no function import, size, function count; then `describe` on a fresh instance.
    async fn inspect(&self, module: &[u8]) -> Result<ModuleFacts, LoadError>;
    /// Compiles and keeps a module, so that `evaluate` finds it by digest.
    async fn load(&self, module: &[u8]) -> Result<Digest, LoadError>;
    async fn unload(&self, module: &Digest);
    async fn configure(&self, module: &Digest, config: &[u8]) -> Result<(), SandboxError>;
    async fn evaluate(&self, module: &Digest, config: &[u8], ask: &ModuleAsk) -> Result<ModuleVerdict, SandboxError>;
    /// Name and digest of the components that ship with the server.
    fn builtins(&self) -> Vec<(String, Digest)>;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// The texts do not parse; the diagnostics are the field's own.
    #[error("failed to parse policy")]
    Refused(Vec<Diagnostic>),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The template cannot be rendered with these values; the diagnostic says where.
    #[error("{}", .0.message)]
    Refused(Box<Diagnostic>),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

// ---------------------------------------------------------------- engines

/// What an engine may use: its own corner of storage, and the seams. No globals.
#[derive(Clone)]
pub struct EngineContext {
    pub storage: crate::mount::MountStorage,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub sandbox: Arc<dyn Sandbox>,
    pub mount: MountView,
}

impl fmt::Debug for EngineContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineContext").field("mount", &self.mount).finish_non_exhaustive()
    }
}

/// The mount an engine answers at, with the TTLs that hold there.
#[derive(Clone, Debug)]
pub struct MountView {
    pub path: MountPath,
    pub accessor: MountAccessor,
    pub default_lease_ttl: Ttl,
    pub max_lease_ttl: Ttl,
    /// Names this installation in ownership comments on PostgreSQL roles.
    pub installation: String,
}

pub struct EngineRequest {
    pub context: EngineContext,
    pub operation: Operation,
    /// Full canonical path, mount included.
    pub path: String,
    /// What the route's pattern captured, by name.
    pub captures: BTreeMap<&'static str, String>,
    /// Coerced by the route's field declarations.
    pub fields: Fields,
    /// Of the calling token.
    pub display_name: String,
}

impl fmt::Debug for EngineRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineRequest")
            .field("operation", &self.operation)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What an engine makes of a request: an answer, or a plan for a lease that the lease room will carry out.
#[derive(Debug)]
pub enum Outcome {
    Answer(LogicalResponse),
    /// An answer, after which the target is reached in another way or on new sessions: what it did before says nothing any more.
    Reopened {
        /// As in [`LeasePlan::connection`].
        connection: String,
        answer: LogicalResponse,
    },
    Lease(LeasePlan),
}

/// Reads only; nothing has happened yet.
#[derive(Debug)]
pub struct LeasePlan {
    /// Of the role; zero: the mount's default.
    pub default_ttl: Ttl,
    /// Of the role; zero: the mount's maximum.
    pub max_ttl: Ttl,
    pub renewable: bool,
    /// Names the target for per-connection limits and back-off: unique in the installation.
    pub connection: String,
    /// Opaque to core, stored sealed with the lease: all that `effect`, `renew` and `revoke` will need. No credential.
    pub effect: Value,
    pub warnings: Vec<String>,
}

/// A target as an engine lists it, for comparing what stands there with leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTarget {
    /// As in [`LeasePlan::connection`].
    pub connection: String,
    /// As its mount calls it.
    pub name: String,
    /// Roles that no lease names are to go.
    pub drops_orphans: bool,
}

/// What a lease made in a target, with the mark of this installation on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnedRole {
    pub name: String,
    /// The target's own number for it: another role that comes by the same name has another.
    pub id: u32,
    /// The random part of the lease that it was made for.
    pub lease: String,
}

/// What came of dropping a role that no lease names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrphanEnd {
    /// It stands no more, whoever dropped it.
    Gone,
    /// Its name means another role by now, or its mark is off: nothing was dropped.
    Kept,
}

/// A lease as engines see it.
#[derive(Clone, Debug)]
pub struct LeaseIntent {
    pub id: LeaseId,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// `effect` must be over, or never happen, by this moment.
    pub deadline: Timestamp,
    pub effect: Value,
}

/// What the client gets: public values and the one secret.
pub struct SecretData(pub Vec<(String, SecretValue)>);

pub enum SecretValue {
    Public(Value),
    Secret(SecretString),
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue([REDACTED])")
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretData([REDACTED])")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Goes to the client as it stands: 500 `M(text)` (issue), 400 inside `failed to renew entry: …` (renew, revoke).
    #[error("{0}")]
    Failed(String),
    /// The target could not be reached at all, so that nothing of this work can have happened or can happen still. Its
    /// other work should wait too.
    #[error("{0}")]
    Unreached(String),
    /// The target stopped answering on the way: whether it did what it was asked is unknown. Its other work should wait too.
    #[error("{0}")]
    Down(String),
}

/// One kind of secrets engine; one value serves all its mounts. `handle` reads; only the lease room calls `effect`,
/// `renew` and `revoke`, and `revoke` must be idempotent.
#[async_trait]
pub trait SecretsEngine: Send + Sync {
    /// The routes below the mount.
    fn routes(&self) -> &[Route];
    async fn handle(&self, request: &EngineRequest) -> Result<Outcome, RequestError>;
    /// Whether what a write names is there: tells create from update. Asked only on routes with an existence check.
    async fn exists(&self, request: &EngineRequest) -> Result<bool, RequestError>;
    async fn effect(&self, at: &EngineContext, intent: &LeaseIntent) -> Result<SecretData, EngineError>;
    /// Moves the end in the target to `until`. The lease row moves only after this succeeds.
    async fn renew(&self, at: &EngineContext, lease: &LeaseIntent, until: Timestamp) -> Result<(), EngineError>;
    /// The role, its sessions and its rights are gone when this returns `Ok`.
    async fn revoke(&self, at: &EngineContext, lease: &LeaseIntent) -> Result<(), EngineError>;
    /// The targets behind a mount whose roles can be listed.
    async fn targets(&self, _: &EngineContext) -> Result<Vec<KnownTarget>, EngineError> {
        Ok(Vec::new())
    }
    /// All roles in a target that carry the mark of this installation, whichever mount or connection made them.
    async fn owned_roles(&self, _: &EngineContext, _: &KnownTarget) -> Result<Vec<OwnedRole>, EngineError> {
        Ok(Vec::new())
    }
    /// Ends a role that no lease names, as [`SecretsEngine::revoke`] does by default: this very one, by its number, and only
    /// as long as it carries its mark.
    async fn drop_orphan(&self, _: &EngineContext, _: &KnownTarget, _: &OwnedRole) -> Result<OrphanEnd, EngineError> {
        Ok(OrphanEnd::Kept)
    }
    /// The mount is gone, its leases too: close what is open, forget what is cached.
    async fn unmount(&self, at: &EngineContext);
}

// ---------------------------------------------------------------- audit

/// A finished line: secrets in it are HMACs already, unless the operator wants them raw.
pub struct AuditLine<'a>(pub &'a str);

impl fmt::Debug for AuditLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditLine({} bytes)", self.0.len())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("audit device `{device}` could not write: {why}")]
pub struct AuditError {
    pub device: String,
    pub why: String,
}

/// Writes lines. When `write` has returned `Ok`, the operating system has the whole line.
#[async_trait]
pub trait AuditDevice: Send + Sync {
    async fn write(&self, line: &AuditLine<'_>) -> Result<(), AuditError>;
    /// Closes and opens again, after a rotation.
    async fn reopen(&self) -> Result<(), AuditError>;
}

/// Makes devices of a type from their options; refuses with a text for the client.
#[async_trait]
pub trait AuditDevices: Send + Sync {
    async fn open(&self, kind: &str, options: &BTreeMap<String, String>) -> Result<Arc<dyn AuditDevice>, RequestError>;
}
