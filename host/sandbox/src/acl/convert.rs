//! Between the seam's words and those of `wit/acl`.

use leasehold_core::seams::sandbox::{
    AclRequest, Approval, ControlGroup, Diagnostic, Factor, GroupKey, IdentityValues, NamedGroup, PolicyReport,
    PolicySource, Reason, RuleRef, SandboxError, Severity, Verdict,
};
use leasehold_model::{Capabilities, Operation, Ttl};

use crate::bindings::acl::exports::leasehold::acl::evaluator as wit;
use crate::bindings::acl::leasehold::acl::types;

pub(super) fn source(source: &PolicySource) -> wit::Source {
    wit::Source {
        name: source.name.clone(),
        text: source.text.to_string(),
        allow_slashes: source.allow_slashes,
        allow_wildcards: source.allow_wildcards,
    }
}

pub(super) fn identity(values: &IdentityValues) -> Vec<(String, String)> {
    values.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A request for the guest, and whether a value went in.
///
/// Of the client's data only the keys go in, and the values of keys that a rule of the set names.
pub(super) fn request(
    ask: &AclRequest<'_>,
    watched: &[String],
    max: usize,
) -> Result<(wit::Request, bool), SandboxError> {
    let operation = match ask.operation {
        Operation::Create => types::Operation::Create,
        Operation::Read => types::Operation::Read,
        Operation::Update => types::Operation::Update,
        Operation::Patch => types::Operation::Patch,
        Operation::Delete => types::Operation::Delete,
        Operation::List => types::Operation::List,
        Operation::Scan => types::Operation::Scan,
        other @ (Operation::Help | Operation::Renew | Operation::Revoke) => {
            return Err(SandboxError::Host(format!("the ACL has no operation `{other}`")));
        }
    };
    let too_long = || SandboxError::TooLong(max);
    let mut with_values = false;
    let mut size = ask.path.len();
    if size > max {
        return Err(too_long());
    }
    let mut parameters = Vec::with_capacity(ask.data.len());
    for (name, value) in ask.data {
        let is_watched = !watched.is_empty() && watched.contains(&name.to_lowercase());
        let value = is_watched.then(|| value.to_string());
        with_values |= is_watched;
        size = size.saturating_add(name.len()).saturating_add(value.as_ref().map_or(0, String::len));
        if size > max {
            return Err(too_long());
        }
        parameters.push(types::Parameter { name: name.clone(), value });
    }
    let request = wit::Request {
        path: ask.path.to_owned(),
        operation,
        needs_sudo: ask.needs_sudo,
        wrap_ttl: ask.wrap_ttl.map(Ttl::as_secs),
        parameters,
        requester: ask.requester.map(str::to_owned),
        approvals: ask.approvals.iter().map(approval).collect(),
    };
    Ok((request, with_values))
}

fn approval(approval: &Approval) -> types::Approval {
    let (group_names, group_ids) = approval.groups.iter().cloned().unzip();
    types::Approval { entity: approval.entity.clone(), group_names, group_ids, age: approval.age.as_secs() }
}

fn control_group(from: types::ControlGroup) -> ControlGroup {
    let factor = |one: types::Factor| Factor { name: one.name, approvals: one.approvals, given: one.given };
    ControlGroup { ttl: Ttl::from_secs(from.ttl), factors: from.factors.into_iter().map(factor).collect() }
}

/// By name, so that neither side depends on the other's order of bits.
pub(super) fn capabilities(from: wit::Capabilities) -> Capabilities {
    const PAIRS: [(wit::Capabilities, Capabilities); 9] = [
        (wit::Capabilities::CREATE, Capabilities::CREATE),
        (wit::Capabilities::READ, Capabilities::READ),
        (wit::Capabilities::UPDATE, Capabilities::UPDATE),
        (wit::Capabilities::DELETE, Capabilities::DELETE),
        (wit::Capabilities::LIST, Capabilities::LIST),
        (wit::Capabilities::SCAN, Capabilities::SCAN),
        (wit::Capabilities::PATCH, Capabilities::PATCH),
        (wit::Capabilities::SUDO, Capabilities::SUDO),
        (wit::Capabilities::DENY, Capabilities::DENY),
    ];
    let held = PAIRS.iter().filter(|(theirs, _)| from.contains(*theirs));
    held.fold(Capabilities::NONE, |sum, (_, ours)| sum.union(*ours))
}

/// Takes a verdict only if its parts agree: a guest that contradicts itself has decided nothing.
pub(super) fn verdict(from: wit::Verdict) -> Result<Verdict, SandboxError> {
    let reason = match from.reason {
        types::Reason::Granted => Reason::Granted,
        types::Reason::NoRule => Reason::NoRule,
        types::Reason::Denied => Reason::Denied,
        types::Reason::Missing(missing) => Reason::Missing(capabilities(missing)),
        types::Reason::Parameter(text) => Reason::Parameter(text),
        types::Reason::Wrapping(text) => Reason::Wrapping(text),
        types::Reason::Pagination(text) => Reason::Pagination(text),
        types::Reason::Unapproved => Reason::Unapproved,
    };
    let control_group = from.control_group.map(control_group);
    let is_unapproved = control_group.as_ref().is_some_and(|control| !control.factors.iter().all(Factor::is_met));
    let capabilities = capabilities(from.capabilities);
    let granted = reason == Reason::Granted;
    let can_grant = !capabilities.is_empty() && !capabilities.contains(Capabilities::DENY) && !from.rules.is_empty();
    let is_one = from.allowed == granted && is_unapproved == (reason == Reason::Unapproved);
    if !is_one || ((granted || is_unapproved) && !can_grant) {
        return Err(SandboxError::Answer("the verdict contradicts its own reason".to_owned()));
    }
    let rules = from.rules.into_iter();
    Ok(Verdict {
        allowed: from.allowed,
        capabilities,
        reason,
        rules: rules
            .map(|rule| RuleRef {
                policy: rule.policy,
                pattern: rule.pattern,
                line: rule.at.line,
                column: rule.at.column,
            })
            .collect(),
        limit: from.limit,
        control_group,
    })
}

pub(super) fn report(from: types::Report) -> PolicyReport {
    let group = |from: types::NamedGroup| NamedGroup {
        key: match from.key {
            types::GroupKey::Name => GroupKey::Name(from.value),
            types::GroupKey::Id => GroupKey::Id(from.value),
        },
        approves: from.approves,
    };
    PolicyReport {
        diagnostics: from.diagnostics.into_iter().map(diagnostic).collect(),
        groups: from.groups.into_iter().map(group).collect(),
    }
}

pub(super) fn diagnostic(from: types::Diagnostic) -> Diagnostic {
    Diagnostic {
        severity: match from.severity {
            types::Severity::Error => Severity::Error,
            types::Severity::Warning => Severity::Warning,
            types::Severity::Hint => Severity::Hint,
        },
        code: from.code,
        message: from.message,
        line: from.start.line,
        column: from.start.column,
        help: from.help,
        at: from.policy,
    }
}
