//! One admitted request, as handlers of `sys/` and `auth/token/` see it, and what they share.

use std::net::IpAddr;
use std::sync::Arc;

use leasehold_model::{Operation, Ttl};

use crate::core::{Core, Unsealed};
use crate::fields::Fields;
use crate::identity::CallerIdentity;
use crate::lease::LeaseError;
use crate::mount::MountEntry;
use crate::policy::egp::Judgement;
use crate::request::{LogicalRequest, LogicalResponse};
use crate::routes::{Answering, Captures};
use crate::seams::error::RequestError;
use crate::seams::sandbox::{ModuleIdentity, ModuleRequest};
use crate::token::Caller;

/// How a route of `sys/` or `auth/token/` is served.
#[derive(Clone, Copy, Debug)]
pub enum SystemHandler {
    /// An admitted request, while the server is unsealed.
    Unsealed(for<'a> fn(&'a Call<'a>) -> Answering<'a, Handled>),
    /// Without a token, also while the server is sealed ([`crate::routes::Access::WhileSealed`]).
    WhileSealed(for<'a> fn(&'a SealedCall<'a>) -> Answering<'a, Result<LogicalResponse, RequestError>>),
}

/// What a handler gives back: its outcome, and what audit needs besides.
#[derive(Debug)]
pub struct Handled {
    pub outcome: Result<LogicalResponse, RequestError>,
    /// What policy modules said of a lease on the lease's own path.
    pub judgements: Vec<Judgement>,
}

impl From<Result<LogicalResponse, RequestError>> for Handled {
    fn from(outcome: Result<LogicalResponse, RequestError>) -> Self {
        Self { outcome, judgements: Vec::new() }
    }
}

/// Makes an `async fn` of a [`Call`] the handler of an operation. What it returns becomes a [`Handled`].
macro_rules! handler {
    ($handle:path) => {
        $crate::api::call::SystemHandler::Unsealed(|call| {
            Box::pin(async move { $crate::api::call::Handled::from($handle(call).await) })
        })
    };
}
/// Makes an `async fn` of a [`SealedCall`] the handler of an operation.
macro_rules! sealed_handler {
    ($handle:path) => {
        $crate::api::call::SystemHandler::WhileSealed(|call| Box::pin($handle(call)))
    };
}
pub(crate) use {handler, sealed_handler};

/// A request that is answered whether or not the server is sealed.
#[derive(Debug)]
pub struct SealedCall<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) fields: Fields,
    /// The address of whoever asks, if it is known.
    pub(crate) from: Option<IpAddr>,
}

/// An admitted request.
#[derive(Debug)]
pub struct Call<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) unsealed: &'a Arc<Unsealed>,
    pub(crate) request: &'a LogicalRequest,
    pub(crate) captures: Captures,
    pub(crate) fields: Fields,
    /// None where no token is asked for and none was sent.
    pub(crate) caller: Option<&'a Caller>,
    /// The winning rule carries sudo, or the caller is root.
    pub(crate) sudo: bool,
    pub(crate) ceiling: Option<Ttl>,
}

/// What the policy modules said of something that a request does to a lease.
pub(crate) struct LeaseJudged {
    pub judgements: Vec<Judgement>,
    /// The least TTL that they allow, or their refusal.
    pub ceiling: Result<Option<Ttl>, RequestError>,
}

impl Call<'_> {
    /// A capture, which the route's pattern guarantees.
    pub fn capture(&self, name: &str) -> &str {
        self.captures.get(name).map(String::as_str).unwrap_or_default()
    }

    pub fn caller(&self) -> Result<&Caller, RequestError> {
        self.caller.ok_or(RequestError::BadToken)
    }

    /// Who asks, for the record of what they caused.
    pub fn asker(&self) -> String {
        match self.caller {
            Some(caller) if !caller.record.accessor.as_str().is_empty() => {
                format!("the token with accessor {}", caller.record.accessor.as_str())
            }
            // A batch token has no accessor.
            Some(caller) => format!("a batch token of `{}`", caller.record.display_name),
            None => "somebody without a token".to_owned(),
        }
    }

    /// Lets the policy modules judge what this request does to a lease, on the lease's own path.
    pub(crate) async fn judge_lease(&self, path: &str, operation: Operation) -> LeaseJudged {
        let caller = match self.caller() {
            Ok(caller) if !caller.is_root() && self.unsealed.egps.cover(path) => caller,
            Ok(_) => return LeaseJudged { judgements: Vec::new(), ceiling: Ok(None) },
            Err(error) => return LeaseJudged { judgements: Vec::new(), ceiling: Err(error) },
        };
        let mount = self.unsealed.mounts.route(path);
        let ask = module_request(
            self.core,
            self.request,
            caller,
            mount.as_ref().map(|(entry, _)| &**entry),
            path,
            operation,
            &[],
        );
        let judged = self.unsealed.egps.judge(&self.unsealed.modules, &ask).await;
        LeaseJudged { judgements: judged.judgements, ceiling: judged.refusal.map_or(Ok(judged.max_ttl), Err) }
    }
}

/// What a policy module sees. Values only of fields that their route declares visible.
pub(crate) fn module_request(
    core: &Core,
    request: &LogicalRequest,
    caller: &Caller,
    mount: Option<&MountEntry>,
    path: &str,
    operation: Operation,
    fields: &[crate::fields::Field],
) -> ModuleRequest {
    let record = &caller.record;
    let now = core.seams.clock.now();
    let shown = |name: &String| fields.iter().any(|field| field.visible && field.name == name);
    ModuleRequest {
        id: request.id.clone(),
        path: path.to_owned(),
        mount_path: mount.map(|m| m.path.as_str().to_owned()).unwrap_or_default(),
        mount_type: mount.map(|m| m.kind.clone()).unwrap_or_default(),
        operation,
        parameters: request
            .data
            .iter()
            .map(|(name, value)| (name.clone(), shown(name).then(|| value.to_string())))
            .collect(),
        identity: ModuleIdentity {
            entity_id: caller.entity_id().map(str::to_owned),
            display_name: record.display_name.clone(),
            token_accessor: record.accessor.as_str().to_owned(),
            token_policies: record.policies.clone(),
            metadata: record.meta.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            token_created: record.created_at.as_secs(),
            token_ttl: record.expires_at.map(|_| u32::try_from(record.ttl(now).as_secs()).unwrap_or(u32::MAX)),
            auth_path: record.path.clone(),
        },
        now,
        client_address: request.client.as_ref().and_then(|client| Some(client.address()?.to_string())),
        attributes: caller.identity.as_deref().map(attributes).unwrap_or_default(),
    }
}

/// What a module may know of whom a token stands for, besides the id. A name stands once for each value.
fn attributes(identity: &CallerIdentity) -> Vec<(String, String)> {
    let of = |name: &str, value: &String| (name.to_owned(), value.clone());
    let policies = identity.identity_policies.iter().map(|policy| of("identity_policy", policy));
    let groups = identity.groups.all().map(|group| of("identity_group", &group.name));
    let metadata = identity.entity.metadata.iter().flatten();
    let metadata = metadata.map(|(name, value)| (format!("entity_metadata.{name}"), value.clone()));
    std::iter::once(of("entity_name", &identity.entity.name)).chain(metadata).chain(groups).chain(policies).collect()
}

/// How a lease's failure is said on the request that caused it.
pub(crate) fn lease_error(error: LeaseError) -> RequestError {
    match error {
        LeaseError::Store(error) => error.into(),
        LeaseError::Engine(text) => RequestError::Engine(text),
        LeaseError::Damaged(_) => RequestError::Engine(error.to_string()),
        LeaseError::TokenGone => RequestError::BadToken,
        LeaseError::Busy(_) | LeaseError::Overtaken(_) | LeaseError::PlanOutdated(_) => {
            RequestError::Unavailable(error.to_string())
        }
        other => RequestError::Invalid(other.to_string()),
    }
}
