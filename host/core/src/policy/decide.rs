//! The ACL's verdict on one request.

use leasehold_model::{Capabilities, Operation};

use super::Policies;
use crate::request::RequestError;
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

/// The verdict on a request whose path came with a slash at its end, from those on the path without it and with it. Both name the
/// same thing: what a rule grants on either is granted, and what a rule denies on either is denied.
#[must_use]
pub fn of_both_forms(bare: Verdict, slashed: Verdict) -> Verdict {
    match (&bare.reason, &slashed.reason) {
        (Reason::Denied, _) => bare,
        (_, Reason::Denied) => slashed,
        _ if slashed.allowed => slashed,
        _ => bare,
    }
}

/// The same for capabilities. Lists and scans are asked about the path with the slash alone, as they are decided.
fn capabilities_of_both_forms(bare: Capabilities, slashed: Capabilities) -> Capabilities {
    let lists = Capabilities::LIST.union(Capabilities::SCAN);
    let of_folder = slashed.intersection(lists);
    if slashed.contains(Capabilities::DENY) {
        slashed
    } else if bare.contains(Capabilities::DENY) {
        // What else the path without the slash is denied, is denied here.
        if of_folder == Capabilities::NONE { Capabilities::DENY } else { of_folder }
    } else {
        slashed.union(bare.difference(lists))
    }
}

/// Capabilities on each path, for a list of policy names: what [`decide`] and [`of_both_forms`] would allow.
///
/// # Errors
/// As [`decide`].
pub async fn capabilities(
    acl: &dyn AclEvaluator,
    policies: &Policies,
    names: &[String],
    paths: &[&str],
) -> Result<Vec<Capabilities>, RequestError> {
    let bare: Vec<&str> = paths.iter().map(|path| path.trim_end_matches('/')).collect();
    let slashed = of_paths(acl, policies, names, paths).await?;
    if bare == paths {
        return Ok(slashed);
    }
    let bare = of_paths(acl, policies, names, &bare).await?;
    let both = bare.into_iter().zip(slashed).zip(paths);
    Ok(both
        .map(|((bare, slashed), path)| match path.ends_with('/') {
            true => capabilities_of_both_forms(bare, slashed),
            false => slashed,
        })
        .collect())
}

async fn of_paths(
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
