//! The ACL's verdict on one request, and what `sys/capabilities` says beforehand of a request on the same path.
//!
//! Must not know: how a path is routed.
//!
//! Start with [`decide`] and [`capabilities`].
//!
//! Invariants: a request on a path gets what [`capabilities`] says of that path, spelled alike.
//! Where the router answers `x/` as `x`, a request on `x/` gets nothing that the rules deny for either spelling.

use leasehold_model::{Capabilities, Operation};
use serde_json::Value;

use super::{Holder, Policies};
use crate::request::Object;
use crate::seams::error::RequestError;
use crate::seams::sandbox::{AclEvaluator, AclRequest, ControlGroup, Reason, RuleRef, SandboxError, Verdict};
use crate::token::Caller;

/// Asks the guest. `root` has no text to ask about: it is the absence of a policy, as in Vault.
///
/// `bare` is the path without the slash at its end, where the router answers the one that `ask` names as this one.
///
/// # Errors
/// A guest that gave no answer that counts.
pub async fn decide(
    acl: &dyn AclEvaluator,
    policies: &Policies,
    caller: &Caller,
    ask: &AclRequest<'_>,
    bare: Option<&str>,
) -> Result<Verdict, RequestError> {
    if caller.is_root() {
        return Ok(root_verdict());
    }
    if ask.operation == Operation::Help {
        return Ok(Verdict::unasked());
    }
    let holder = Holder::of(caller);
    let verdict = judged(acl, policies, holder, ask).await?;
    let may_go_on = |verdict: &Verdict| verdict.allowed || verdict.reason == Reason::Unapproved;
    let Some(path) = bare.filter(|_| may_go_on(&verdict)) else { return Ok(verdict) };
    let of_bare = judged(acl, policies, holder, &AclRequest { path, ..ask.clone() }).await?;
    Ok(if may_go_on(&of_bare) { both(verdict, of_bare) } else { of_bare })
}

/// Two verdicts that refuse nothing but for approvals: those of both are needed.
fn both(first: Verdict, second: Verdict) -> Verdict {
    let control_group = match (first.control_group, second.control_group) {
        (Some(one), Some(other)) => {
            let ttl = one.ttl.min(other.ttl);
            let more = other.factors.into_iter().filter(|factor| !one.factors.contains(factor));
            let factors = one.factors.iter().cloned().chain(more).collect();
            Some(ControlGroup { ttl, factors })
        }
        (one, other) => one.or(other),
    };
    let reason = if first.allowed { second.reason } else { first.reason };
    let rules = if first.allowed { second.rules } else { first.rules };
    Verdict { allowed: first.allowed && second.allowed, reason, rules, control_group, ..second }
}

async fn judged(
    acl: &dyn AclEvaluator,
    policies: &Policies,
    holder: Holder<'_>,
    ask: &AclRequest<'_>,
) -> Result<Verdict, RequestError> {
    let set = policies.set(holder).await?;
    Ok(match acl.decide(&set, ask).await {
        Err(SandboxError::Unknown(_)) => acl.decide(&policies.compiled_anew(holder, &set).await?, ask).await,
        other => other,
    }?)
}

/// A path that `sys/capabilities` is asked about.
#[derive(Clone, Copy, Debug)]
pub struct AskedPath<'a> {
    /// As a request would have it.
    pub path: &'a str,
    /// Of a path with a slash at its end: the operations that the router answers as for the path without it.
    pub served_without_slash: Capabilities,
}

impl AskedPath<'_> {
    fn bare(&self) -> Option<&str> {
        self.path.strip_suffix('/').map(|path| path.trim_end_matches('/'))
    }
}

/// Capabilities on each path, for whoever holds some policies.
///
/// # Errors
/// As [`decide`].
pub async fn capabilities(
    acl: &dyn AclEvaluator,
    policies: &Policies,
    holder: Holder<'_>,
    paths: &[AskedPath<'_>],
) -> Result<Vec<Capabilities>, RequestError> {
    let bare = paths.iter().filter_map(AskedPath::bare);
    let texts: Vec<&str> = paths.iter().map(|asked| asked.path).chain(bare).collect();
    let set = policies.set(holder).await?;
    let mut found = match acl.capabilities(&set, &texts).await {
        Err(SandboxError::Unknown(_)) => acl.capabilities(&policies.compiled_anew(holder, &set).await?, &texts).await,
        other => other,
    }?;
    let of_bare = found.split_off(paths.len().min(found.len()));
    let mut of_bare = of_bare.into_iter();
    for (asked, found) in paths.iter().zip(&mut found) {
        if asked.bare().is_some() {
            let bare = of_bare.next().unwrap_or(Capabilities::NONE);
            *found = of_slashed(acl, policies, holder, asked, *found, bare).await?;
        }
    }
    Ok(found)
}

/// What requests on a path with a slash at its end get. `listed` is what holds for lists, which fall back on a rule for the path
/// without the slash; `bare` is what holds for that path itself.
async fn of_slashed(
    acl: &dyn AclEvaluator,
    policies: &Policies,
    holder: Holder<'_>,
    asked: &AskedPath<'_>,
    listed: Capabilities,
    bare: Capabilities,
) -> Result<Capabilities, RequestError> {
    if listed.contains(Capabilities::DENY) {
        return Ok(listed);
    }
    let data = Object::new();
    let direct = judged(acl, policies, holder, &plain(asked.path, &data)).await?.capabilities;
    let bare = if bare.contains(Capabilities::DENY) { Capabilities::NONE } else { bare };
    let lists = Capabilities::LIST.union(Capabilities::SCAN);
    let every = [
        Capabilities::CREATE,
        Capabilities::READ,
        Capabilities::UPDATE,
        Capabilities::DELETE,
        Capabilities::PATCH,
        Capabilities::LIST,
        Capabilities::SCAN,
        Capabilities::SUDO,
    ];
    let holds = |capability: Capabilities| {
        if lists.contains(capability) {
            return listed.contains(capability);
        }
        let is_sudo = capability == Capabilities::SUDO;
        let needs_both = match is_sudo {
            true => asked.served_without_slash != Capabilities::NONE,
            false => asked.served_without_slash.contains(capability),
        };
        let sent = if is_sudo { listed } else { direct };
        sent.contains(capability) && (!needs_both || bare.contains(capability))
    };
    Ok(every.into_iter().filter(|capability| holds(*capability)).fold(Capabilities::NONE, Capabilities::union))
}

/// Whether whoever holds some policies may write a field to a path, whatever its value.
///
/// # Errors
/// As [`decide`].
pub async fn may_update(
    acl: &dyn AclEvaluator,
    policies: &Policies,
    holder: Holder<'_>,
    path: &str,
    field: &str,
) -> Result<bool, RequestError> {
    let data = Object::from_iter([(field.to_owned(), Value::from(""))]);
    let ask = AclRequest { operation: Operation::Update, ..plain(path, &data) };
    Ok(holder.is_root() || judged(acl, policies, holder, &ask).await?.allowed)
}

/// A read that asks for nothing besides.
fn plain<'a>(path: &'a str, data: &'a Object) -> AclRequest<'a> {
    AclRequest {
        path,
        operation: Operation::Read,
        needs_sudo: false,
        wrap_ttl: None,
        data,
        requester: None,
        approvals: &[],
    }
}

/// Whether anything is granted at or below a mount.
///
/// # Errors
/// As [`decide`].
pub async fn grants_below(
    acl: &dyn AclEvaluator,
    policies: &Policies,
    caller: &Caller,
    prefix: &str,
) -> Result<bool, RequestError> {
    if caller.is_root() {
        return Ok(true);
    }
    let holder = Holder::of(caller);
    let set = policies.set(holder).await?;
    Ok(match acl.grants_below(&set, prefix).await {
        Err(SandboxError::Unknown(_)) => acl.grants_below(&policies.compiled_anew(holder, &set).await?, prefix).await,
        other => other,
    }?)
}

fn root_verdict() -> Verdict {
    let all = [
        Capabilities::CREATE,
        Capabilities::READ,
        Capabilities::UPDATE,
        Capabilities::DELETE,
        Capabilities::LIST,
        Capabilities::SCAN,
        Capabilities::PATCH,
        Capabilities::SUDO,
    ];
    Verdict {
        allowed: true,
        capabilities: all.into_iter().fold(Capabilities::NONE, Capabilities::union),
        reason: Reason::Granted,
        rules: vec![RuleRef { policy: "root".to_owned(), pattern: String::new(), line: 0, column: 0 }],
        limit: None,
        control_group: None,
    }
}
