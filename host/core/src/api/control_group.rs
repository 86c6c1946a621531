//! A request that needs approval waits under a wrapping token; unwrapping that token carries it out, if it is approved by then.
//!
//! Must not know: who counts as an approver. The ACL component is asked, with the approvals as they stand now.
//!
//! Start with [`Core::defer`], and [`Core::release`] for what comes of it.
//!
//! Invariants: when it is carried out a request is judged as if it came now: token, addresses, ACL, modules, and of every approval
//! whether its entity still has the right to it. The wrapping token is taken away between that decision and the first thing that the
//! request does, so it does nothing twice.

use std::sync::Arc;

use leasehold_model::{TokenHash, TokenId, Ttl};

use crate::api::backend::Backend;
use crate::api::call::Call;
use crate::api::pipeline::{Admitted, canonical, client_of, served};
use crate::api::sys::wrapping::not_valid;
use crate::api::trace::RequestTrace;
use crate::control_group::{Approved, Deferred, Waiting};
use crate::core::{Core, Unsealed};
use crate::identity::CallerIdentity;
use crate::mount::MountEntry;
use crate::nodes::Admission;
use crate::policy::{Holder, decide};
use crate::request::{LogicalRequest, LogicalResponse};
use crate::routes::Answering;
use crate::seams::error::RequestError;
use crate::seams::sandbox::{AclRequest, Approval, Verdict};
use crate::seams::storage::StorageError;
use crate::token::{Caller, MintError};

/// Where an approver must be allowed to write.
pub(super) const AUTHORIZE: &str = "sys/control-group/authorize";

/// For whoever asked: a wrapped answer looks alike.
const WAITS: &str =
    "This request waits for approval: give the accessor of the wrapping token to an approver, then unwrap the token.";

/// More than an approver can look at; and all of it is stored.
const DATA_MAX: usize = 64 * 1024;

/// A request that has waited and is to be carried out.
pub(super) struct Release {
    /// The wrapping token that stands for it.
    hash: TokenHash,
    deferred: Deferred,
}

impl Release {
    pub(super) fn is_for(&self, mount: &MountEntry) -> bool {
        self.deferred.mount == mount.accessor
    }
}

impl Core {
    /// The ACL's verdict on a request.
    pub(super) async fn verdict(
        &self,
        unsealed: &Unsealed,
        request: &LogicalRequest,
        trace: &RequestTrace,
        admitted: Option<&Admitted>,
        (caller, approvals): (&Caller, &[Approval]),
    ) -> Result<Verdict, RequestError> {
        let operation = trace.operation.unwrap_or(request.operation);
        let needs_sudo = match admitted {
            Some(admitted) => admitted.matched.needs_sudo(operation),
            None => super::sys::is_protected(&request.path),
        };
        let ask = AclRequest {
            path: trace.as_sent.as_deref().unwrap_or(&request.path),
            operation,
            needs_sudo,
            wrap_ttl: request.wrap_ttl,
            data: &request.data,
            requester: caller.entity_id(),
            approvals,
        };
        let is_same = |to: &Admitted| trace.as_sent.is_some() && to.backend.serves_with_slash(&to.path, operation);
        let bare = admitted.is_some_and(is_same).then_some(&*request.path);
        decide::decide(&*self.seams.acl, &unsealed.policies, caller, &ask, bare).await
    }

    /// Has a request wait that was admitted but for approvals.
    pub(super) async fn defer(
        &self,
        unsealed: &Unsealed,
        request: &LogicalRequest,
        trace: &RequestTrace,
        ttl: Ttl,
    ) -> Result<LogicalResponse, RequestError> {
        let (Some(caller), Some(token), Some(mount)) = (&trace.caller, &request.token, &trace.mount) else {
            return Err(RequestError::BadToken);
        };
        let asked = trace.as_sent.as_deref().unwrap_or(&request.path);
        let cannot = |why: &str| Err(RequestError::Forbidden(format!("{asked} needs approval, and {why}")));
        let Some(entity) = caller.entity_id() else {
            return cannot("only a token that stands for an entity can ask for it: log in by an auth method");
        };
        if caller.record.is_batch() {
            return cannot("a batch token cannot wait for it: ask with a service token");
        }
        if caller.last_use {
            return cannot("this was the token's last use: ask with a token that has a use left to carry it out");
        }
        if ["sys/wrapping/", "sys/control-group/"].iter().any(|tree| request.path.starts_with(tree)) {
            return cannot("what wraps and approves cannot wait itself: take the control group off this path");
        }
        if request.raw_body.is_some() || request.upload.is_some() {
            return cannot("a request that sends a file cannot wait for it");
        }
        let size = serde_json::to_vec(&request.data).map_or(usize::MAX, |data| data.len());
        if size > DATA_MAX {
            return cannot(&format!("{size} bytes of data are more than the {DATA_MAX} that can wait for it"));
        }
        let deferred = Deferred {
            id: request.id.clone(),
            operation: request.operation,
            path: asked.to_owned(),
            data: request.data.clone(),
            mount: mount.accessor.clone(),
            wrap_ttl: request.wrap_ttl,
            requester: caller.hash.clone(),
            entity: entity.to_owned(),
            approvals: Vec::new(),
        };
        match unsealed.tokens.defer(&deferred, token, ttl).await {
            Ok(wrap_info) => {
                crate::fail::point("deferred");
                Ok(LogicalResponse { wrap_info: Some(wrap_info), ..LogicalResponse::default() }.warn(WAITS))
            }
            Err(MintError::Store(StorageError::TooManyWaiting(count))) => Err(RequestError::Invalid(format!(
                "{asked} needs approval, and {count} requests of this entity wait for it already, which is as many as may: unwrap or revoke \
                 some of their wrapping tokens, or wait until they end"
            ))),
            Err(MintError::Store(error)) => Err(error.into()),
            Err(other) => Err(RequestError::Internal(format!("a wrapping token could not be made: {other}"))),
        }
    }

    /// Carries a request out whose wrapping token is shown, if it would be let in now. Otherwise nothing happens.
    pub(super) async fn release(
        self: &Arc<Self>,
        call: &Call<'_>,
        token: &TokenId,
        waiting: Waiting,
    ) -> Result<LogicalResponse, RequestError> {
        let unsealed = call.unsealed;
        let Some(requester) = unsealed.tokens.requester(token).await? else { return Err(not_valid()) };
        let Some(admission) = Admission::current() else { return Err(RequestError::BadToken) };
        let mut request = asked_again(&waiting.deferred);
        request.token = Some(requester);
        request.client.clone_from(&call.request.client);
        request.headers.clone_from(&call.request.headers);
        let release = Release { hash: waiting.hash, deferred: waiting.deferred };
        let mut trace =
            RequestTrace { as_sent: canonical(&mut request), release: Some(release), ..RequestTrace::default() };
        let answering: Answering<'_, _> = Box::pin(self.answer(unsealed, &mut request, &mut trace, &admission));
        match answering.await {
            Err(RequestError::BadToken) => Err(ended()),
            answer => answer,
        }
    }

    /// Takes the wrapping token away that stood for a request, and a use of the token that asked. Who comes second gets an error.
    pub(super) async fn take(
        &self,
        unsealed: &Unsealed,
        request: &LogicalRequest,
        trace: &mut RequestTrace,
    ) -> Result<(), RequestError> {
        let (Some(release), Some(token)) = (&trace.release, &request.token) else { return Err(RequestError::BadToken) };
        if !unsealed.tokens.end_read(&release.hash).await? {
            return Err(not_valid());
        }
        crate::fail::point("released");
        let caller = unsealed.tokens.admit(token, client_of(request)).await?;
        let identity = trace.caller.take().and_then(|before| before.identity);
        trace.caller = Some(Caller { identity, ..caller });
        Ok(())
    }

    /// The approvals of the request that is being carried out; none of one that has just come.
    pub(super) async fn approvals(
        &self,
        unsealed: &Unsealed,
        trace: &RequestTrace,
    ) -> Result<Vec<Approval>, RequestError> {
        match &trace.release {
            Some(release) => self.approvals_now(unsealed, &release.deferred.approvals).await,
            None => Ok(Vec::new()),
        }
    }

    /// What the ACL would say of a waiting request now, with these approvals besides. `None`: the token that asked is gone.
    pub(super) async fn standing(
        self: &Arc<Self>,
        unsealed: &Unsealed,
        deferred: &Deferred,
        besides: &[Approved],
    ) -> Result<Option<Verdict>, RequestError> {
        let Some(caller) = requester(unsealed, deferred).await? else { return Ok(None) };
        let mut request = asked_again(deferred);
        let mut trace = RequestTrace { as_sent: canonical(&mut request), ..RequestTrace::default() };
        let routed = unsealed.mounts.route(&request.path);
        trace.mount = routed.as_ref().map(|(entry, _)| entry.clone());
        trace.caller = Some(caller.clone());
        let backend = routed.as_ref().and_then(|(entry, _)| Backend::of(entry, unsealed));
        let admitted = match (backend, &routed) {
            (Some(backend), Some((_, rest))) => {
                let matched = backend.find(rest, request.operation);
                served(backend, matched, rest, trace.as_sent.is_some())
            }
            _ => None,
        };
        let matched = admitted.as_ref().map(|admitted| &admitted.matched);
        trace.operation = Some(self.create_or_update(unsealed, &request, matched, &trace).await?);
        let approvals = self.approvals_now(unsealed, &[&*deferred.approvals, besides].concat()).await?;
        self.verdict(unsealed, &request, &trace, admitted.as_ref(), (&caller, &approvals)).await.map(Some)
    }

    /// Of these approvals those whose entity could still give them, as they stand now.
    async fn approvals_now(&self, unsealed: &Unsealed, given: &[Approved]) -> Result<Vec<Approval>, RequestError> {
        let now = self.seams.clock.now();
        let mut standing = Vec::with_capacity(given.len());
        for one in given {
            let identity = match unsealed.identities.of(Some(&one.entity), &one.policies).await {
                Ok(Some(identity)) => identity,
                // Disabled, or gone.
                Ok(None) | Err(RequestError::BadToken) => continue,
                Err(other) => return Err(other),
            };
            if !self.may_approve(unsealed, &identity).await? {
                continue;
            }
            let groups = identity.groups.all().map(|group| (group.name.clone(), group.id.clone())).collect();
            let age = Ttl::from_secs(u64::try_from(now.seconds_from(one.at)).unwrap_or(0));
            standing.push(Approval { entity: identity.entity.id.clone(), groups, age });
        }
        Ok(standing)
    }

    async fn may_approve(&self, unsealed: &Unsealed, identity: &CallerIdentity) -> Result<bool, RequestError> {
        let holder = Holder { policies: &identity.policies, identity: Some(identity) };
        decide::may_update(&*self.seams.acl, &unsealed.policies, holder, AUTHORIZE, "accessor").await
    }
}

/// For whoever has the wrapping token: they may know.
fn ended() -> RequestError {
    let why = "the token that asked for this has ended, or cannot be used from this address";
    RequestError::Forbidden(why.to_owned())
}

/// Whose token asked, as it is now.
async fn requester(unsealed: &Unsealed, deferred: &Deferred) -> Result<Option<Caller>, RequestError> {
    let found = unsealed.tokens.find(&deferred.requester).await?.filter(|(record, _)| record.num_uses >= 0);
    let Some((record, _)) = found else { return Ok(None) };
    let identity = match unsealed.whom(&record).await {
        Ok(identity) => identity,
        Err(RequestError::BadToken) => return Ok(None),
        Err(other) => return Err(other),
    };
    let (hash, uses_before) = (deferred.requester.clone(), record.num_uses);
    Ok(Some(Caller { hash, record, uses_before, last_use: false, group: None, identity }))
}

/// The request as it came, but for who sends it.
fn asked_again(deferred: &Deferred) -> LogicalRequest {
    LogicalRequest {
        id: deferred.id.clone(),
        operation: deferred.operation,
        path: deferred.path.clone(),
        data: deferred.data.clone(),
        token: None,
        client: None,
        wrap_ttl: deferred.wrap_ttl,
        headers: std::collections::BTreeMap::new(),
        raw_body: None,
        upload: None,
        body_withheld: false,
        is_let_in: false,
    }
}

/// For whoever asked for something of a mount that is there no more.
pub(super) fn gone(path: &str) -> RequestError {
    RequestError::invalid(format!("{path} belongs to another mount than when this was asked for: ask again"))
}

/// Why a request waits on, for whoever asked.
pub(super) fn unapproved(verdict: &Verdict) -> RequestError {
    let missing = verdict.control_group.iter().flat_map(|control| &control.factors).filter(|factor| !factor.is_met());
    let missing: Vec<String> =
        missing.map(|one| format!("{} has {} of {}", one.name, one.given.len(), one.approvals)).collect();
    RequestError::invalid(format!("Request needs further approval: {}", missing.join(", ")))
}
