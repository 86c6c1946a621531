//! Several policies into one set.
//!
//! Must not know: requests. See [`crate::decide`].
//!
//! Invariants: of a set with an invalid policy nothing counts. Rules with the same pattern become one, and `deny` in any
//! of them is all that is left of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::matching::{Matcher, RuleId};
use crate::policy::pattern::{self, Glob};
use crate::policy::templates::{self, Unfilled};
use crate::policy::{self, Findings, Limits, Rule, values};
use crate::syntax::text::quoted;
use crate::types::{Capabilities, Diagnostic, Position, RuleRef, Severity, Source};

/// Rules of a whole set, and segments of all its patterns with `+`: they bound the memory of a compiled set.
const MAX_SET_RULES: usize = 20_000;
const MAX_SET_SEGMENTS: usize = 100_000;

/// A compiled, merged set of policies. No decision changes it.
#[derive(Debug)]
pub struct PolicySet {
    pub(crate) matcher: Matcher,
    /// The rules for names that fold, in lower case, where that makes a difference.
    folded: Option<Box<Self>>,
    pub(crate) rules: Vec<Merged>,
    policies: Vec<String>,
    valid_until: Option<u64>,
    watched: Vec<String>,
    template_names: Vec<String>,
}

/// All rules with one pattern.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) capabilities: Capabilities,
    /// None when there are no limits: most rules.
    pub(crate) limits: Option<Box<Limits>>,
    /// In policy order, one for each policy.
    contributors: Vec<Contributor>,
}

#[derive(Debug)]
struct Contributor {
    policy: u32,
    /// As written.
    pattern: String,
    at: Position,
}

/// The three kinds of patterns in the order of their rules' numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Exact,
    Prefix,
    Segments,
}

/// A rule on its way into the set.
#[derive(Clone)]
struct Entry {
    table: Table,
    /// Filled in; the leading slash off, and a prefix's final `*`.
    pattern: Box<str>,
    policy: u32,
    rule: Rule,
}

impl PolicySet {
    /// `identity`: values for `{{identity.…}}` by full name; a rule whose value is missing or empty does not count.
    /// `now`: Unix seconds.
    ///
    /// # Errors
    /// At least one diagnostic of severity error. Texts are Vault's own without `failed to parse policy: ` in front,
    /// except for a forbidden identity value (code `forbidden-template-value`), whose text is complete.
    pub fn compile(sources: &[Source], identity: &[(String, String)], now: u64) -> Result<Self, Vec<Diagnostic>> {
        let identity: BTreeMap<&str, &str> =
            identity.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut refused = Vec::new();
        let mut entries = Vec::new();
        let mut template_names = BTreeSet::new();
        let mut valid_until: Option<u64> = None;
        for (index, source) in sources.iter().enumerate() {
            let mut findings = Findings::about(&source.name);
            if source.name == "root" {
                let message = "root grants everything and is no text".to_owned();
                let place = Position { line: 1, column: 1 };
                findings.add(Severity::Error, "root-policy", message, (place, place), None);
            }
            for rule in policy::read(source, Some(now), &mut findings) {
                if let Some(expires) = rule.expires {
                    valid_until = Some(valid_until.map_or(expires, |earliest| earliest.min(expires)));
                }
                if rule.templated {
                    template_names.extend(templates::names(&rule.pattern).map(Cow::into_owned));
                }
                if let Some((table, pattern)) = filled(source, &rule, &identity, &mut findings) {
                    entries.push(Entry { table, pattern, policy: index as u32, rule });
                }
            }
            if findings.has_errors() {
                let errors = findings.into_diagnostics().into_iter().filter(|one| one.severity == Severity::Error);
                refused.extend(errors);
            }
        }
        if let Some(too_large) = too_large(sources, &entries) {
            refused.push(too_large);
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let template_names = template_names.into_iter().collect();
        let folded = folded(&entries).map(|entries| Box::new(merged(entries, policies_of(sources))));
        Ok(Self { valid_until, template_names, folded, ..merged(entries, policies_of(sources)) })
    }

    /// Unix seconds from which the set must be compiled again because a rule expires.
    #[must_use]
    pub fn valid_until(&self) -> Option<u64> {
        self.valid_until
    }

    /// Lower-cased keys whose values some rule looks at, sorted.
    #[must_use]
    pub fn watched_parameters(&self) -> &[String] {
        &self.watched
    }

    /// The names that templates ask for, sorted, whether or not they have a value.
    #[must_use]
    pub fn template_names(&self) -> &[String] {
        &self.template_names
    }

    /// The set that is asked once more for a path whose names fold.
    pub(crate) fn folded(&self) -> &Self {
        self.folded.as_deref().unwrap_or(self)
    }

    pub(crate) fn rule(&self, id: RuleId) -> Option<&Merged> {
        self.rules.get(id as usize)
    }

    /// Where a merged rule comes from.
    pub(crate) fn origins<'s>(&'s self, merged: &'s Merged) -> impl ExactSizeIterator<Item = RuleRef> + 's {
        merged.contributors.iter().map(|one| RuleRef {
            policy: self.policies.get(one.policy as usize).cloned().unwrap_or_default(),
            pattern: one.pattern.clone(),
            at: one.at,
        })
    }
}

fn policies_of(sources: &[Source]) -> Vec<String> {
    sources.iter().map(|source| source.name.clone()).collect()
}

/// The rules that may match a path whose names fold, in lower case. None where no such rule has a capital.
fn folded(entries: &[Entry]) -> Option<Vec<Entry>> {
    let reaches = |entry: &&Entry| pattern::reaches_folding(&entry.pattern, entry.table == Table::Prefix);
    let has_capitals = |entry: &Entry| entry.pattern.chars().any(|letter| !letter.to_lowercase().eq([letter]));
    if !entries.iter().filter(reaches).any(has_capitals) {
        return None;
    }
    let lowered = |entry: &Entry| Entry { pattern: pattern::folded(&entry.pattern).into(), ..entry.clone() };
    Some(entries.iter().filter(reaches).map(lowered).collect())
}

/// The pattern with its templates filled in and checked again; none when the rule does not count.
fn filled(
    source: &Source,
    rule: &Rule,
    identity: &BTreeMap<&str, &str>,
    findings: &mut Findings<'_>,
) -> Option<(Table, Box<str>)> {
    if !rule.templated {
        return sorted_in(&rule.pattern);
    }
    let value_of = |name: &str| identity.get(name).copied();
    let refusal = match templates::fill(&rule.pattern, value_of, source.allow_slashes, source.allow_wildcards) {
        Ok(filled) => {
            if let Some(found) = sorted_in(&filled) {
                return Some(found);
            }
            // The filled pattern holds a value, so the text shows the template.
            pattern::FORBIDDEN.to_owned()
        }
        Err(Unfilled::Missing) => return None,
        Err(Unfilled::Forbidden(character)) => {
            format!("template substitution contains forbidden value: {}", quoted(&character.to_string()))
        }
    };
    let message = format!(
        "error parsing templated policy {}: failed to parse policy: path {}: {refusal}",
        quoted(&source.name),
        quoted(&rule.pattern)
    );
    findings.add(Severity::Error, "forbidden-template-value", message, (rule.at, rule.end), None);
    None
}

/// None for a forbidden pattern.
fn sorted_in(pattern: &str) -> Option<(Table, Box<str>)> {
    match pattern::kind(&pattern::compared(pattern)) {
        Glob::Exact(text) => Some((Table::Exact, text.into())),
        Glob::Prefix(text) => Some((Table::Prefix, text.into())),
        Glob::Segments(text) => Some((Table::Segments, text.into())),
        Glob::Forbidden => None,
    }
}

fn too_large(sources: &[Source], entries: &[Entry]) -> Option<Diagnostic> {
    let segments: usize = entries
        .iter()
        .filter(|entry| entry.table == Table::Segments)
        .map(|entry| entry.pattern.split('/').count())
        .sum();
    let message = if entries.len() > MAX_SET_RULES {
        format!("the policies have more than {MAX_SET_RULES} paths together")
    } else if segments > MAX_SET_SEGMENTS {
        format!("the patterns with `+` have more than {MAX_SET_SEGMENTS} segments together")
    } else {
        return None;
    };
    let last = entries.last().and_then(|entry| sources.get(entry.policy as usize));
    let place = Position { line: 1, column: 1 };
    Some(Diagnostic {
        severity: Severity::Error,
        code: "too-large",
        message,
        policy: last.map(|source| source.name.clone()).unwrap_or_default(),
        start: place,
        end: place,
        help: None,
    })
}

/// Without end, and without the names of templates.
fn merged(mut entries: Vec<Entry>, policies: Vec<String>) -> PolicySet {
    // A stable sort: entries with one pattern stay in policy order.
    entries.sort_by(|a, b| (a.table, &a.pattern).cmp(&(b.table, &b.pattern)));
    let mut rules: Vec<Merged> = Vec::with_capacity(entries.len());
    let (mut exact, mut prefixes, mut segments) = (Vec::new(), Vec::new(), Vec::new());
    for Entry { table, pattern, policy, rule } in entries {
        let patterns = match table {
            Table::Exact => &mut exact,
            Table::Prefix => &mut prefixes,
            Table::Segments => &mut segments,
        };
        let repeats = patterns.last().is_some_and(|(last, _): &(Box<str>, RuleId)| *last == pattern);
        match rules.last_mut() {
            Some(merged) if repeats => merged.add(policy, rule),
            _ => {
                patterns.push((pattern, rules.len() as RuleId));
                rules.push(Merged::new(policy, rule));
            }
        }
    }
    let watched = watched(&rules);
    let matcher = Matcher::new(exact, prefixes, &segments);
    PolicySet { matcher, folded: None, rules, policies, valid_until: None, watched, template_names: Vec::new() }
}

impl Merged {
    fn new(policy: u32, rule: Rule) -> Self {
        let limits = (rule.limits != Limits::default()).then(|| Box::new(rule.limits));
        let contributors = vec![Contributor { policy, pattern: rule.pattern, at: rule.at }];
        Self { capabilities: rule.capabilities, limits, contributors }
    }

    fn add(&mut self, policy: u32, rule: Rule) {
        let denied = self.capabilities.contains(Capabilities::DENY);
        let denies = rule.capabilities.contains(Capabilities::DENY);
        if denied && !denies {
            return;
        }
        if denies && !denied {
            *self = Self::new(policy, rule);
            return;
        }
        self.capabilities |= rule.capabilities;
        if rule.limits != Limits::default() {
            self.limits.get_or_insert_default().merge(rule.limits);
        }
        if self.contributors.last().is_none_or(|last| last.policy != policy) {
            self.contributors.push(Contributor { policy, pattern: rule.pattern, at: rule.at });
        }
    }
}

impl Limits {
    /// The shorter of two times, the smaller of two pages; parameter lists add up.
    fn merge(&mut self, other: Self) {
        self.min_wrapping = smaller(self.min_wrapping, other.min_wrapping);
        self.max_wrapping = smaller(self.max_wrapping, other.max_wrapping);
        self.pagination = smaller(self.pagination, other.pagination);
        for (name, listed) in other.allowed {
            values::add(&mut self.allowed, name, listed);
        }
        for (name, listed) in other.denied {
            values::add(&mut self.denied, name, listed);
        }
        for name in other.required {
            if !self.required.contains(&name) {
                self.required.push(name);
            }
        }
        // A rule without a control group takes none away.
        self.factors.extend(other.factors);
    }
}

/// Zero stands for "none".
fn smaller<N: Ord + Default>(a: N, b: N) -> N {
    if a == N::default() {
        b
    } else if b == N::default() {
        a
    } else {
        a.min(b)
    }
}

fn watched(rules: &[Merged]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for limits in rules.iter().filter_map(|rule| rule.limits.as_deref()) {
        let listed = limits.allowed.iter().chain(&limits.denied).filter(|(_, values)| !values.is_empty());
        names.extend(listed.map(|(name, _)| name.clone()));
        if limits.pagination > 0 {
            names.push("limit".to_owned());
        }
    }
    names.sort();
    names.dedup();
    names
}
