//! Auth methods: they check who somebody is and say what their token is like. They make no token themselves.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_model::{Operation, Ttl};
use serde_json::Value;

use super::engine::MountView;
use super::host::{Clock, Entropy};
use super::job::MountJob;
use crate::connection::ClientCertificate;
use crate::fields::Fields;
use crate::request::LogicalResponse;
use crate::routes::{Answering, Route};
use crate::seams::error::RequestError;
use crate::seams::mount_storage::MountStorage;
use crate::seams::token_params::TokenParams;

/// What a method may use: its own corner of storage, time and randomness.
#[derive(Clone)]
pub struct AuthContext {
    pub storage: MountStorage,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub mount: MountView,
}

impl fmt::Debug for AuthContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthContext").field("mount", &self.mount).finish_non_exhaustive()
    }
}

/// A request to a method: an admitted one, or a login, which nobody has admitted.
pub struct AuthRequest {
    pub context: AuthContext,
    pub operation: Operation,
    /// The declared pattern of the route.
    pub pattern: &'static str,
    /// What the route's pattern captured, by name.
    pub captures: BTreeMap<&'static str, String>,
    /// Coerced by the route's field declarations. May hold secrets.
    pub fields: Fields,
    /// The address that the request came from; none where it is not known, as on a Unix socket.
    pub client: Option<IpAddr>,
    /// The certificate of the client, of which its connection has proved that it holds the key. Nothing says who vouches for it.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthRequest")
            .field("operation", &self.operation)
            .field("pattern", &self.pattern)
            .finish_non_exhaustive()
    }
}

impl AuthRequest {
    /// A capture, which the route's pattern guarantees.
    #[must_use]
    pub fn capture(&self, name: &str) -> &str {
        self.captures.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// What a method makes of a request.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each request, moved a few times")]
pub enum AuthOutcome {
    Answer(LogicalResponse),
    /// An answer, for which one of [`AuthMethod::jobs`] is to be done for this mount as soon as possible.
    Job {
        name: &'static str,
        begun: LogicalResponse,
        /// Said instead when it is being done already.
        under_way: LogicalResponse,
    },
    /// The proof is good: core makes the token.
    Login(Box<LoginPlan>),
    /// The proof is not good. Core counts it against the name that [`AuthMethod::alias`] gave.
    Refused(Refusal),
}

/// Why a login was refused: one text for the client, which tells nobody whether a name exists, and one for the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub said: &'static str,
    /// Holds no secret.
    pub reason: String,
}

/// Somebody has proved who they are. Nothing has been made yet.
#[derive(Debug)]
pub struct LoginPlan {
    /// Follows the mount's name in the token's display name; empty: the mount's name stands alone.
    pub display_name: String,
    /// Shown with the token.
    pub metadata: BTreeMap<String, String>,
    pub alias: LoginAlias,
    /// As the user or role wishes; core adds what mount and system allow.
    pub token: TokenParams,
    /// Opaque to core, kept with the token: what [`AuthMethod::renew`] will need. No secret.
    pub internal: Value,
}

/// By what name a method knows whoever has logged in: core keeps who stands behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginAlias {
    /// The same for the same user at every login, and no other's. Empty: the method has no name, and the token stands for nobody.
    pub name: String,
    /// What the method says of the name besides; policies may be written about it.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The method's names of the groups that the user is in; none: the method knows no groups.
    pub groups: Option<Vec<String>>,
}

/// A token that a login made and that is to be renewed.
#[derive(Debug)]
pub struct LoginToken<'a> {
    /// As in [`LoginPlan::metadata`].
    pub metadata: &'a BTreeMap<String, String>,
    /// As in [`LoginPlan::internal`].
    pub internal: &'a Value,
    /// The token's policies, with `default` if it has that.
    pub policies: &'a [String],
    /// That of the connection over which somebody renews the token, as in [`AuthRequest::certificate`].
    pub certificate: Option<&'a ClientCertificate>,
}

/// How long a renewed token may live, as its user or role is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginLimits {
    /// Zero: the mount's default.
    pub ttl: Ttl,
    /// Zero: the mount's maximum.
    pub max_ttl: Ttl,
    /// Zero: not periodic.
    pub period: Ttl,
}

impl From<&TokenParams> for LoginLimits {
    fn from(params: &TokenParams) -> Self {
        Self { ttl: params.ttl, max_ttl: params.max_ttl, period: params.period }
    }
}

impl From<LogicalResponse> for AuthOutcome {
    fn from(answer: LogicalResponse) -> Self {
        Self::Answer(answer)
    }
}

/// How an operation of an auth method is served. [`auth_handler!`](crate::auth_handler) makes one of a method's function.
pub type AuthHandler =
    for<'a> fn(&'a (dyn AuthMethod + 'static), &'a AuthRequest) -> Answering<'a, Result<AuthOutcome, RequestError>>;

/// Makes an `async fn(&self, &AuthRequest) -> Result<impl Into<AuthOutcome>, RequestError>` of an auth method the handler of an
/// operation: `auth_handler!(Userpass, read)`.
#[macro_export]
macro_rules! auth_handler {
    ($auth:ty, $function:ident) => {{
        const HANDLER: $crate::seams::auth::AuthHandler = |method, request| {
            Box::pin(async move {
                let method = $crate::seams::auth::own::<$auth>(method)?;
                <$auth>::$function(method, request).await.map(::core::convert::Into::into)
            })
        };
        HANDLER
    }};
}

/// The method that a handler was written for. A table of routes names handlers of its own method only, so that there is no other.
///
/// # Errors
/// Another method's table names this handler.
pub fn own<'a, M: AuthMethod>(method: &'a (dyn AuthMethod + 'static)) -> Result<&'a M, RequestError> {
    let method: &dyn Any = method;
    let misplaced = || RequestError::Internal("a route names the handler of another auth method".to_owned());
    method.downcast_ref::<M>().ok_or_else(misplaced)
}

/// One kind of auth method; one value serves all its mounts. Routes that nobody needs a token for are logins.
#[async_trait]
pub trait AuthMethod: Any + Send + Sync {
    /// The routes below the mount.
    fn routes(&self) -> &'static [Route<AuthHandler>];
    /// Whether what a write names is there: tells create from update. Asked only on routes with an existence check.
    async fn exists(&self, request: &AuthRequest) -> Result<bool, RequestError>;
    /// Under which name failed logins are counted, so that guessing locks the name. It is the same whether or not the name exists.
    /// None: the request is no login, or the proof cannot be guessed.
    fn alias(&self, _: &AuthRequest) -> Option<String> {
        None
    }
    /// Whether logins name a role: then a quota may be for the logins of one.
    fn has_roles(&self) -> bool {
        false
    }
    /// The role that a login names. Nothing of it is proved yet, and nothing follows from it but by which quota the request is counted.
    async fn role_of_login(&self, _: &AuthRequest) -> Option<String> {
        None
    }
    /// The role with which a login succeeded, out of its [`LoginPlan::internal`].
    fn role_of<'a>(&self, _internal: &'a Value) -> Option<&'a str> {
        None
    }
    /// Whether names that differ in their case alone are of two users, or of two groups. Where a method says no, core takes them for
    /// one, as Vault does.
    fn has_exact_names(&self) -> bool {
        false
    }
    /// What holds for a token at this moment, and not when it was made. Reads only.
    ///
    /// # Errors
    /// Why the token is not renewed, for example because its user is gone.
    async fn renew(&self, at: &AuthContext, token: &LoginToken<'_>) -> Result<LoginLimits, RequestError>;
    /// What is to be done for each mount again and again.
    fn jobs(&self) -> &'static [MountJob] {
        &[]
    }
    /// Does one of [`AuthMethod::jobs`] for a mount.
    ///
    /// # Errors
    /// In words for the log, without a secret; it is tried again.
    async fn run_job(&self, _: &AuthContext, name: &str) -> Result<(), RequestError> {
        Err(RequestError::Internal(format!("this auth method has no job {name:?}")))
    }
    /// The mount is gone, its tokens too: forget what is cached.
    async fn unmount(&self, _: &AuthContext) {}
}
