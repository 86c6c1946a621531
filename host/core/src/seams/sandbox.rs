//! What guests are asked and what they answer: three seams, one for each kind of guest.
//!
//! Data in, data out, so that a child process can stand behind each of them. Guests compute; none of these calls has an
//! effect outside of the sandbox. Must not know: wasmtime, tokens, leases, or which policy binds which module.
//!
//! Start with [`AclEvaluator`] (policy texts), [`TemplateRenderer`] (SQL statements; all that a secrets engine gets) and
//! [`ModuleHost`] (third parties' modules).
//!
//! Invariant: an error is never an allow.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_model::{Capabilities, Operation, Timestamp, Ttl};

use crate::fields::Object;

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
    /// Shared: a text may be long, and many sets hold it.
    pub text: Arc<str>,
    pub allow_slashes: bool,
    pub allow_wildcards: bool,
}

/// Values for `{{identity.…}}`; empty until identity exists.
pub type IdentityValues = BTreeMap<String, String>;

/// Names a compiled policy set by content: equal sources and identity values give the same id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicySetId(pub Arc<str>);

/// A set that can be asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPolicies {
    pub id: PolicySetId,
    /// What its templates ask for, sorted, whether or not they were given a value: all that two holders of the same policies can
    /// differ in.
    pub template_names: Vec<String>,
}

/// What the ACL is asked. `Debug` leaves the data out: it may hold secrets.
#[derive(Clone)]
pub struct AclRequest<'a> {
    pub path: &'a str,
    pub operation: Operation,
    pub needs_sudo: bool,
    pub wrap_ttl: Option<Ttl>,
    /// The request's data. The sandbox hands names in, and values only of keys that a rule of the set names.
    pub data: &'a Object,
    /// The id of the entity that asks.
    pub requester: Option<&'a str>,
    pub approvals: &'a [Approval],
}

/// Somebody's approval of a request, as it stands now.
#[derive(Clone, Debug)]
pub struct Approval {
    /// The entity that approves.
    pub entity: String,
    /// The groups that it is in now: names, and ids.
    pub groups: Vec<(String, String)>,
    pub age: Ttl,
}

impl fmt::Debug for AclRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AclRequest")
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
    /// All but approvals is there; see [`Verdict::control_group`].
    Unapproved,
}

/// Who must approve of a request, and who does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlGroup {
    /// How long the request may wait, and for how long an approval is good.
    pub ttl: Ttl,
    /// Each of them must be met.
    pub factors: Vec<Factor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    pub name: String,
    /// How many must approve.
    pub approvals: u32,
    /// The entities whose approval counts.
    pub given: Vec<String>,
}

impl Factor {
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.given.len() >= self.approvals as usize
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    pub capabilities: Capabilities,
    pub reason: Reason,
    pub rules: Vec<RuleRef>,
    pub limit: Option<u32>,
    /// Where nothing but approvals can refuse the request, whether or not they are there.
    pub control_group: Option<ControlGroup>,
}

impl Verdict {
    /// Where no policy is asked: on open routes, and for help.
    #[must_use]
    pub fn unasked() -> Self {
        Self {
            allowed: true,
            capabilities: Capabilities::NONE,
            reason: Reason::Granted,
            rules: Vec::new(),
            limit: None,
            control_group: None,
        }
    }
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

impl Diagnostic {
    /// Place, message and advice on one line: `At 3:6: path "a/*/b": a `*` that is … (write "a/+/b")`.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { line, column, message, .. } = self;
        match &self.help {
            Some(help) => format!("At {line}:{column}: {message} ({help})"),
            None => format!("At {line}:{column}: {message}"),
        }
    }
}

/// What there is to say about one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyReport {
    /// Errors first, then warnings and hints.
    pub diagnostics: Vec<Diagnostic>,
    /// The identity groups that it names, whether or not there are any.
    pub groups: Vec<NamedGroup>,
}

/// By name or by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedGroup {
    pub key: GroupKey,
    /// Its members may approve; otherwise a template asks for a value of it.
    pub approves: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupKey {
    Name(String),
    Id(String),
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
pub struct ModuleRequest {
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
    pub entity_id: Option<String>,
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
    #[error("the module is still being loaded")]
    Loading,
    /// More than these bytes would have to go in.
    #[error("the request's path, keys and values that policies name are longer than {0} bytes")]
    TooLong(usize),
    /// All instances are busy and the queue is full.
    #[error("policy workers are busy")]
    Busy,
    #[error("the sandbox failed: {0}")]
    Host(String),
}

/// A module gave no verdict that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct EvaluationFailed {
    pub why: SandboxError,
    /// Units of fuel that it used all the same.
    pub fuel: u64,
}

impl From<SandboxError> for EvaluationFailed {
    /// It did not begin.
    fn from(why: SandboxError) -> Self {
        Self { why, fuel: 0 }
    }
}

/// Why a component is not taken. The text says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

/// Compiles policy texts and decides requests by them.
#[async_trait]
pub trait AclEvaluator: Send + Sync {
    /// Compiles once per distinct (sources, identity values). `Err`: diagnostics with at least one error.
    async fn compile_acl(
        &self,
        sources: &[PolicySource],
        identity: &IdentityValues,
    ) -> Result<CompiledPolicies, AclError>;
    async fn decide(&self, set: &PolicySetId, ask: &AclRequest<'_>) -> Result<Verdict, SandboxError>;
    async fn capabilities(&self, set: &PolicySetId, paths: &[&str]) -> Result<Vec<Capabilities>, SandboxError>;
    async fn grants_below(&self, set: &PolicySetId, prefix: &str) -> Result<bool, SandboxError>;
    /// Everything there is to say about one text.
    async fn lint(&self, source: &PolicySource) -> Result<PolicyReport, SandboxError>;
    /// Of the component that decides: it stands in every audit record.
    fn digest(&self) -> Digest;
}

/// Checks and renders the statements of a role. The only seam to guests that a secrets engine gets.
#[async_trait]
pub trait TemplateRenderer: Send + Sync {
    /// Looks for what is legal and probably not meant, and says in which dialect the statements are written.
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
    /// Reads a `username_template` and tries it. Warnings.
    async fn check_username(&self, template: &str) -> Result<Vec<String>, UsernameError>;
    /// A name for a leased role.
    async fn username(&self, template: &str, facts: &UsernameFacts<'_>) -> Result<String, UsernameError>;
    fn digest(&self) -> Digest;
}

/// What the name of a leased role may say.
#[derive(Clone, Copy, Debug)]
pub struct UsernameFacts<'a> {
    pub display_name: &'a str,
    pub role_name: &'a str,
    pub now: Timestamp,
    /// No secret: it shows in the name.
    pub randomness: &'a [u8],
}

/// Keeps third parties' modules and asks them.
#[async_trait]
pub trait ModuleHost: Send + Sync {
    /// The load gate: known world, no function import, size, function count; then `describe` on a fresh instance.
    async fn inspect(&self, module: &[u8]) -> Result<ModuleFacts, LoadError>;
    /// Compiles and keeps a module, so that `evaluate` finds it by digest.
    async fn load(&self, module: &[u8]) -> Result<Digest, LoadError>;
    async fn unload(&self, module: &Digest);
    /// Whether a fresh instance takes this configuration.
    async fn configure(&self, module: &Digest, config: &[u8]) -> Result<(), SandboxError>;
    /// Asks a fresh instance. `binding` names whose places the call takes: no binding ever takes another's.
    async fn evaluate(
        &self,
        binding: &str,
        module: &Digest,
        config: &[u8],
        ask: &ModuleRequest,
    ) -> Result<ModuleVerdict, EvaluationFailed>;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// The texts do not parse; the diagnostics are Vault's own.
    #[error("failed to parse policy")]
    Refused(Vec<Diagnostic>),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    /// In Vault's words, or ours for a name that cannot be one.
    #[error("{0}")]
    Refused(String),
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
