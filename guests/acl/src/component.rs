//! The glue between the WIT world and the plain logic. Nothing is decided here.

#![expect(unsafe_code, reason = "the generated exports are unsafe functions")]

use crate as acl;

wit_bindgen::generate!({ path: "../../wit/acl", world: "acl", generate_unused_types: true });

use exports::leasehold::acl::evaluator as wit;
use leasehold::acl::types;
use wit::{Guest, GuestPolicySet};

struct Component;

export!(Component);

impl Guest for Component {
    type PolicySet = acl::PolicySet;

    fn lint(source: wit::Source) -> wit::Report {
        let acl::Report { diagnostics, groups } = acl::report(&source_of(source));
        wit::Report {
            diagnostics: diagnostics.into_iter().map(diagnostic_of).collect(),
            groups: groups.into_iter().map(named_group_of).collect(),
        }
    }
}

impl GuestPolicySet for acl::PolicySet {
    fn compile(
        sources: Vec<wit::Source>,
        identity: Vec<(String, String)>,
        now: u64,
    ) -> Result<wit::PolicySet, Vec<wit::Diagnostic>> {
        let sources: Vec<acl::Source> = sources.into_iter().map(source_of).collect();
        match acl::PolicySet::compile(&sources, &identity, now) {
            Ok(set) => Ok(wit::PolicySet::new(set)),
            Err(refused) => Err(refused.into_iter().map(diagnostic_of).collect()),
        }
    }

    fn valid_until(&self) -> Option<u64> {
        self.valid_until()
    }

    fn watched_parameters(&self) -> Vec<String> {
        self.watched_parameters().to_vec()
    }

    fn template_names(&self) -> Vec<String> {
        self.template_names().to_vec()
    }

    fn evaluate(&self, request: wit::Request) -> wit::Verdict {
        verdict_of(self.evaluate(&request_of(request)))
    }

    fn capabilities(&self, path: String) -> wit::Capabilities {
        capabilities_of(self.capabilities(&path))
    }

    fn grants_below(&self, prefix: String) -> bool {
        self.grants_below(&prefix)
    }
}

fn source_of(source: wit::Source) -> acl::Source {
    let wit::Source { name, text, allow_slashes, allow_wildcards } = source;
    acl::Source { name, text, allow_slashes, allow_wildcards }
}

fn request_of(request: wit::Request) -> acl::Request {
    let parameters = request.parameters.into_iter();
    acl::Request {
        path: request.path,
        operation: match request.operation {
            types::Operation::Create => acl::Operation::Create,
            types::Operation::Read => acl::Operation::Read,
            types::Operation::Update => acl::Operation::Update,
            types::Operation::Delete => acl::Operation::Delete,
            types::Operation::List => acl::Operation::List,
            types::Operation::Scan => acl::Operation::Scan,
            types::Operation::Patch => acl::Operation::Patch,
        },
        needs_sudo: request.needs_sudo,
        wrap_ttl: request.wrap_ttl,
        parameters: parameters.map(|one| acl::Parameter { name: one.name, value: one.value }).collect(),
        requester: request.requester,
        approvals: request.approvals.into_iter().map(approval_of).collect(),
    }
}

fn approval_of(approval: types::Approval) -> acl::Approval {
    let types::Approval { entity, group_names, group_ids, age } = approval;
    acl::Approval { entity, group_names, group_ids, age }
}

fn control_group_of(control: acl::ControlGroup) -> types::ControlGroup {
    let factor = |one: acl::FactorState| types::Factor { name: one.name, approvals: one.approvals, given: one.given };
    types::ControlGroup { ttl: control.ttl, factors: control.factors.into_iter().map(factor).collect() }
}

fn verdict_of(verdict: acl::Verdict) -> wit::Verdict {
    let rules = verdict.rules.into_iter();
    wit::Verdict {
        allowed: verdict.allowed,
        capabilities: capabilities_of(verdict.capabilities),
        reason: match verdict.reason {
            acl::Reason::Granted => types::Reason::Granted,
            acl::Reason::NoRule => types::Reason::NoRule,
            acl::Reason::Denied => types::Reason::Denied,
            acl::Reason::Missing(missing) => types::Reason::Missing(capabilities_of(missing)),
            acl::Reason::Parameter(text) => types::Reason::Parameter(text),
            acl::Reason::Wrapping(text) => types::Reason::Wrapping(text),
            acl::Reason::Pagination(text) => types::Reason::Pagination(text),
            acl::Reason::Unapproved => types::Reason::Unapproved,
        },
        rules: rules
            .map(|rule| types::Rule { policy: rule.policy, pattern: rule.pattern, at: position_of(rule.at) })
            .collect(),
        limit: verdict.limit,
        control_group: verdict.control_group.map(control_group_of),
    }
}

/// By name, so that neither side depends on the other's order of bits.
fn capabilities_of(capabilities: acl::Capabilities) -> wit::Capabilities {
    let pairs = [
        (acl::Capabilities::CREATE, wit::Capabilities::CREATE),
        (acl::Capabilities::READ, wit::Capabilities::READ),
        (acl::Capabilities::UPDATE, wit::Capabilities::UPDATE),
        (acl::Capabilities::DELETE, wit::Capabilities::DELETE),
        (acl::Capabilities::LIST, wit::Capabilities::LIST),
        (acl::Capabilities::SCAN, wit::Capabilities::SCAN),
        (acl::Capabilities::PATCH, wit::Capabilities::PATCH),
        (acl::Capabilities::SUDO, wit::Capabilities::SUDO),
        (acl::Capabilities::DENY, wit::Capabilities::DENY),
    ];
    let held = pairs.into_iter().filter(|(ours, _)| capabilities.contains(*ours));
    held.fold(wit::Capabilities::empty(), |sum, (_, theirs)| sum | theirs)
}

fn diagnostic_of(diagnostic: acl::Diagnostic) -> wit::Diagnostic {
    wit::Diagnostic {
        severity: match diagnostic.severity {
            acl::Severity::Error => types::Severity::Error,
            acl::Severity::Warning => types::Severity::Warning,
            acl::Severity::Hint => types::Severity::Hint,
        },
        code: diagnostic.code.to_owned(),
        message: diagnostic.message,
        policy: diagnostic.policy,
        start: position_of(diagnostic.start),
        end: position_of(diagnostic.end),
        help: diagnostic.help,
    }
}

fn named_group_of(group: acl::NamedGroup) -> types::NamedGroup {
    let key = match group.key {
        acl::GroupKey::Name => types::GroupKey::Name,
        acl::GroupKey::Id => types::GroupKey::Id,
    };
    types::NamedGroup { key, value: group.value, approves: group.approves }
}

fn position_of(position: acl::Position) -> types::Position {
    types::Position { line: position.line, column: position.column }
}
