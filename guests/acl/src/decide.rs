//! One request against a compiled set.
//!
//! Must not know: how policies are written, or how a winner is found.
//!
//! Start with [`PolicySet::evaluate`].
//!
//! Invariants: only the one winning rule counts. Whatever cannot be understood is a refusal. Texts name keys and bounds,
//! never values.

use crate::compile::{Merged, PolicySet};
use crate::policy::values::{self, Value};
use crate::policy::{Limits, control_group, pattern};
use crate::syntax::text::quoted;
use crate::types::{Capabilities, ControlGroup, FactorState, Operation, Parameter, Reason, Request, RuleRef, Verdict};

/// Bytes of a client's own key that a text repeats.
const MAX_SPOKEN_KEY: usize = 64;

/// A [`Verdict`] that still borrows from its set.
#[derive(Debug)]
pub struct Decision<'s> {
    pub reason: Reason,
    pub capabilities: Capabilities,
    pub limit: Option<u32>,
    pub control_group: Option<ControlGroup>,
    set: &'s PolicySet,
    rule: Option<&'s Merged>,
}

impl Decision<'_> {
    fn lacks_approvals_at_most(&self) -> bool {
        matches!(self.reason, Reason::Granted | Reason::Unapproved)
    }

    /// This one, and the approvals that the other asks for besides.
    fn and(mut self, other: Self) -> Self {
        if self.allowed() {
            self.reason = other.reason;
        }
        self.control_group = match (self.control_group, other.control_group) {
            (Some(mut one), Some(other)) => {
                one.ttl = one.ttl.min(other.ttl);
                let missing = other.factors.into_iter().filter(|factor| !one.factors.contains(factor));
                let missing: Vec<FactorState> = missing.collect();
                one.factors.extend(missing);
                Some(one)
            }
            (one, other) => one.or(other),
        };
        self
    }

    #[must_use]
    pub fn allowed(&self) -> bool {
        self.reason == Reason::Granted
    }

    /// Where the winning rule comes from.
    pub fn rules(&self) -> impl Iterator<Item = RuleRef> + '_ {
        self.rule.into_iter().flat_map(|rule| self.set.origins(rule))
    }

    #[must_use]
    pub fn verdict(self) -> Verdict {
        Verdict {
            allowed: self.allowed(),
            capabilities: self.capabilities,
            rules: self.rules().collect(),
            limit: self.limit,
            control_group: self.control_group,
            reason: self.reason,
        }
    }
}

impl PolicySet {
    #[must_use]
    pub fn evaluate(&self, request: &Request) -> Verdict {
        self.decide(request).verdict()
    }

    /// As [`Self::evaluate`], without copying the winner's names.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision<'_> {
        let path = request.path.trim_start_matches('/');
        let as_sent = self.decide_on(path, request);
        if !as_sent.lacks_approvals_at_most() || !pattern::names_fold(path) {
            return as_sent;
        }
        // Another case of the same name must not step around a rule for it.
        let folded = self.folded().decide_on(&pattern::folded(path), request);
        if folded.lacks_approvals_at_most() { as_sent.and(folded) } else { folded }
    }

    fn decide_on(&self, path: &str, request: &Request) -> Decision<'_> {
        let found = self.matcher.find(path, request.operation.ends_in_slash()).and_then(|id| self.rule(id));
        let Some(rule) = found else {
            let capabilities = Capabilities::NONE;
            let reason = Reason::NoRule;
            return Decision { reason, capabilities, limit: None, control_group: None, set: self, rule: None };
        };
        let mut control_group = None;
        let (reason, limit) = match judge(rule, request) {
            Ok(limit) => {
                control_group = control(rule, request);
                match &control_group {
                    Some(control) if !control.factors.iter().all(FactorState::is_met) => (Reason::Unapproved, None),
                    _ => (Reason::Granted, limit),
                }
            }
            Err(reason) => (reason, None),
        };
        Decision { reason, capabilities: rule.capabilities, limit, control_group, set: self, rule: Some(rule) }
    }

    /// What `sys/capabilities` answers. Empty or with `deny`: nothing is granted.
    #[must_use]
    pub fn capabilities(&self, path: &str) -> Capabilities {
        let path = path.trim_start_matches('/');
        let as_sent = self.capabilities_of(path);
        if !pattern::names_fold(path) {
            return as_sent;
        }
        let folded = self.folded().capabilities_of(&pattern::folded(path));
        if folded.contains(Capabilities::DENY) { folded } else { as_sent & folded }
    }

    fn capabilities_of(&self, path: &str) -> Capabilities {
        let found = self.matcher.find(path, true);
        found.and_then(|id| self.rule(id)).map_or(Capabilities::NONE, |rule| rule.capabilities)
    }

    /// Whether any rule grants something at or below a mount.
    #[must_use]
    pub fn grants_below(&self, prefix: &str) -> bool {
        let mount = prefix.trim_start_matches('/');
        let granting = |id| self.rule(id).is_some_and(|rule| rule.capabilities.grants());
        self.capabilities(mount).grants() || self.matcher.below(mount).any(granting)
    }
}

/// The `limit` to use, if any.
fn judge(rule: &Merged, request: &Request) -> Result<Option<u32>, Reason> {
    if rule.capabilities.contains(Capabilities::DENY) {
        return Err(Reason::Denied);
    }
    let sudo = if request.needs_sudo { Capabilities::SUDO } else { Capabilities::NONE };
    let missing = (request.operation.capability() | sudo) - rule.capabilities;
    if !missing.is_empty() {
        return Err(Reason::Missing(missing));
    }
    let Some(limits) = rule.limits.as_deref() else { return Ok(None) };
    check_wrapping(limits, request.wrap_ttl)?;
    match request.operation {
        Operation::Create | Operation::Read | Operation::Update | Operation::Patch => {
            check_parameters(limits, &request.parameters).map(|()| None)
        }
        Operation::List | Operation::Scan => page(limits, &request.parameters),
        Operation::Delete => Ok(None),
    }
}

/// Who must approve of this operation, and who of them does. None: nobody must.
fn control(rule: &Merged, request: &Request) -> Option<ControlGroup> {
    let factors = &rule.limits.as_deref()?.factors;
    let (operation, requester) = (request.operation.capability(), request.requester.as_deref());
    let applicable = || factors.iter().filter(|factor| factor.operations.contains(operation));
    let ttl = applicable().map(|factor| factor.ttl).min()?;
    let state = |factor: &control_group::Factor| {
        let counting = request.approvals.iter().filter(|approval| factor.counts(approval, requester));
        let mut given: Vec<String> = counting.map(|approval| approval.entity.clone()).collect();
        given.sort();
        given.dedup();
        FactorState { name: factor.name.clone(), approvals: factor.approvals, given }
    };
    Some(ControlGroup { ttl, factors: applicable().map(state).collect() })
}

fn check_wrapping(limits: &Limits, ttl: Option<u64>) -> Result<(), Reason> {
    let (min, max) = (limits.min_wrapping, limits.max_wrapping);
    if min == 0 && max == 0 {
        return Ok(());
    }
    // Merging can leave bounds that nothing meets.
    let asked = ttl.map(|seconds| seconds.saturating_mul(1_000_000_000));
    let fits = asked.is_some_and(|asked| asked >= min && (max == 0 || asked <= max)) && (max == 0 || max >= min);
    if fits {
        return Ok(());
    }
    let bound = |name: &str, bound: u64| (bound > 0).then(|| format!("{name} {}s", bound as f64 / 1e9));
    let bounds: Vec<String> = [bound("at least", min), bound("at most", max)].into_iter().flatten().collect();
    Err(Reason::Wrapping(format!("the response must be wrapped with a TTL of {}", bounds.join(" and "))))
}

fn check_parameters(limits: &Limits, parameters: &[Parameter]) -> Result<(), Reason> {
    for name in &limits.required {
        if !parameters.iter().any(|parameter| parameter.name == *name) {
            return Err(Reason::Parameter(format!("parameter {} is required", quoted(name))));
        }
    }
    if parameters.is_empty() {
        return Ok(());
    }
    if values::listed(&limits.denied, "*").is_some() {
        return Err(Reason::Parameter("every parameter is denied".to_owned()));
    }
    if !limits.denied.is_empty() {
        for parameter in parameters {
            let Some(denied) = values::listed(&limits.denied, &parameter.name.to_lowercase()) else { continue };
            // A value that cannot be read counts as one that is denied.
            if covered(denied, parameter).unwrap_or(true) {
                return Err(refused(parameter, if denied.is_empty() { "is denied" } else { "has a denied value" }));
            }
        }
    }
    if limits.allowed.is_empty() {
        return Ok(());
    }
    let others = values::listed(&limits.allowed, "*").is_some();
    if others && limits.allowed.len() == 1 {
        return Ok(());
    }
    for parameter in parameters {
        match values::listed(&limits.allowed, &parameter.name.to_lowercase()) {
            None if others => {}
            None => return Err(refused(parameter, "is not allowed")),
            Some(allowed) if covered(allowed, parameter).unwrap_or(false) => {}
            Some(_) => return Err(refused(parameter, "has a value that is not allowed")),
        }
    }
    Ok(())
}

/// Whether one of the listed values covers the request's; none when that one cannot be read. No values: all are covered.
fn covered(listed: &[Value], parameter: &Parameter) -> Option<bool> {
    if listed.is_empty() {
        return Some(true);
    }
    let asked = Value::from_json(parameter.value.as_deref()?)?;
    Some(listed.iter().any(|value| value.covers(&asked)))
}

fn refused(parameter: &Parameter, what: &str) -> Reason {
    let name = &parameter.name;
    let end = (0..=name.len().min(MAX_SPOKEN_KEY)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    Reason::Parameter(format!("parameter {} {what}", quoted(name.get(..end).unwrap_or_default())))
}

/// Pages of list and scan. No `limit`, an empty one, 0 and `max` mean: as many as the rule allows.
fn page(limits: &Limits, parameters: &[Parameter]) -> Result<Option<u32>, Reason> {
    let most = limits.pagination;
    if most == 0 {
        return Ok(None);
    }
    let refuse = || Err(Reason::Pagination(format!("limit must be between 1 and {most}")));
    let Some(asked) = parameters.iter().find(|parameter| parameter.name == "limit") else {
        if limits.required.iter().any(|name| name == "limit") {
            return Err(Reason::Parameter("parameter \"limit\" is required".to_owned()));
        }
        return Ok(Some(most));
    };
    let text = match asked.value.as_deref() {
        Some(json) => match Value::from_json(json) {
            Some(Value::Text(text)) => text,
            Some(Value::Number) => json.trim().to_owned(),
            Some(Value::Null) => String::new(),
            _ => return refuse(),
        },
        None => return refuse(),
    };
    match text.as_str() {
        "" | "max" => Ok(Some(most)),
        number => match number.parse::<u32>() {
            Ok(0) => Ok(Some(most)),
            Ok(number) if number <= most => Ok(Some(number)),
            _ => refuse(),
        },
    }
}
