//! The ACL's verdict on one request.

use leasehold_model::{Capabilities, Operation};

use super::Policies;
use crate::seams::error::RequestError;
use crate::seams::sandbox::{AclEvaluator, AclRequest, Reason, RuleRef, SandboxError, Verdict};
use crate::token::Caller;

/// Asks the guest. `root` has no text to ask about: it is the absence of a policy, as in Vault.
///
/// # Errors
/// A guest that gave no answer that counts.
pub async fn decide(
    acl: &dyn AclEvaluator,
    policies: &Policies,
    caller: &Caller,
    ask: &AclRequest<'_>,
) -> Result<Verdict, RequestError> {
    if caller.is_root() {
        return Ok(root_verdict());
    }
    if ask.operation == Operation::Help {
        return Ok(Verdict::unasked());
    }
    let names = &caller.record.policies;
    Ok(match acl.decide(&policies.set(names).await?, ask).await {
        Err(SandboxError::Unknown(_)) => acl.decide(&policies.compiled_anew(names).await?, ask).await,
        other => other,
    }?)
}

/// Capabilities on each path, for a list of policy names.
///
/// # Errors
/// As [`decide`].
pub async fn capabilities(
    acl: &dyn AclEvaluator,
    policies: &Policies,
    names: &[String],
    paths: &[&str],
) -> Result<Vec<Capabilities>, RequestError> {
    Ok(match acl.capabilities(&policies.set(names).await?, paths).await {
        Err(SandboxError::Unknown(_)) => acl.capabilities(&policies.compiled_anew(names).await?, paths).await,
        other => other,
    }?)
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
    let names = &caller.record.policies;
    Ok(match acl.grants_below(&policies.set(names).await?, prefix).await {
        Err(SandboxError::Unknown(_)) => acl.grants_below(&policies.compiled_anew(names).await?, prefix).await,
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
    }
}
