//! One admitted request, as handlers see it, and what they share.

use std::sync::{Arc, Mutex, PoisonError};

use leasehold_model::{Operation, Ttl};

use crate::core::{Core, Unsealed};
use crate::fields::Fields;
use crate::lease::LeaseError;
use crate::mount::MountEntry;
use crate::policy::egp::Judgement;
use crate::request::{LogicalRequest, RequestError};
use crate::routes::Captures;
use crate::seams::sandbox::{ModuleIdentity, ModuleRequest};
use crate::token::Caller;

/// An admitted request, as the handlers of `sys/` and `auth/token/` see it.
pub(crate) struct Call<'a> {
    pub core: &'a Arc<Core>,
    pub unsealed: &'a Arc<Unsealed>,
    pub request: &'a LogicalRequest,
    pub operation: Operation,
    /// The declared pattern: handlers match on it.
    pub pattern: &'static str,
    pub captures: Captures,
    pub fields: Fields,
    /// None on open routes.
    pub caller: Option<&'a Caller>,
    /// The winning rule carries sudo, or the caller is root.
    pub sudo: bool,
    pub ceiling: Option<Ttl>,
    /// Judgements that handlers caused (renewals are judged on the lease's own path).
    pub judgements: Mutex<Vec<Judgement>>,
}

impl Call<'_> {
    /// A capture, which the route's pattern guarantees.
    pub fn capture(&self, name: &str) -> &str {
        self.captures.get(name).map(String::as_str).unwrap_or_default()
    }

    pub fn caller(&self) -> Result<&Caller, RequestError> {
        self.caller.ok_or(RequestError::BadToken)
    }

    /// Lets the policy modules judge what this request does to a lease, on the lease's own path.
    pub async fn judge_lease(&self, path: &str, operation: Operation) -> Result<Option<Ttl>, RequestError> {
        let caller = self.caller()?;
        if caller.is_root() || !self.unsealed.egps.cover(path) {
            return Ok(None);
        }
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
        self.judgements.lock().unwrap_or_else(PoisonError::into_inner).extend(judged.judgements);
        judged.refusal.map_or(Ok(judged.max_ttl), Err)
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
        attributes: Vec::new(),
    }
}

/// How a lease's failure is said on the request that caused it.
pub(crate) fn lease_error(error: LeaseError) -> RequestError {
    match error {
        LeaseError::Store(error) => error.into(),
        LeaseError::Engine(text) => RequestError::Engine(text),
        LeaseError::Damaged(_) => RequestError::Engine(error.to_string()),
        LeaseError::TokenGone => RequestError::BadToken,
        LeaseError::Busy(_) | LeaseError::Overtaken(_) => RequestError::Unavailable(error.to_string()),
        other => RequestError::Invalid(other.to_string()),
    }
}
