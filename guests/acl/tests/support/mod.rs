//! What the tests share: short ways to compile and ask, a reference matcher, and a generator of policies.
#![allow(dead_code, reason = "each test file uses a part")]

use leasehold_acl::{Capabilities, Operation, Parameter, PolicySet, Request, Source, Verdict};
use proptest::prelude::*;

pub(crate) fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned(), ..Source::default() }
}

pub(crate) fn sources(texts: &[&str]) -> Vec<Source> {
    texts.iter().enumerate().map(|(index, text)| source(&format!("p{index}"), text)).collect()
}

pub(crate) fn compiled(texts: &[&str]) -> PolicySet {
    PolicySet::compile(&sources(texts), &[], 0).unwrap_or_else(|refused| panic!("{texts:?}: {refused:?}"))
}

/// The first error of a text, as a client reads it behind `failed to parse policy: `.
pub(crate) fn refusal(text: &str) -> Option<String> {
    PolicySet::compile(&[source("p", text)], &[], 0).err().map(|refused| refused[0].message.clone())
}

pub(crate) fn request(path: &str, operation: Operation) -> Request {
    Request {
        path: path.to_owned(),
        operation,
        needs_sudo: false,
        wrap_ttl: None,
        parameters: Vec::new(),
        requester: None,
        approvals: Vec::new(),
    }
}

pub(crate) fn ask(set: &PolicySet, path: &str, operation: Operation, parameters: &[(&str, &str)]) -> Verdict {
    let parameters = parameters
        .iter()
        .map(|(name, value)| Parameter { name: (*name).to_owned(), value: Some((*value).to_owned()) })
        .collect();
    set.evaluate(&Request { parameters, ..request(path, operation) })
}

/// Sorted, and `deny` when nothing is granted: the answer of `sys/capabilities`.
pub(crate) fn spoken(capabilities: Capabilities) -> Vec<String> {
    if !capabilities.grants() {
        return vec!["deny".to_owned()];
    }
    let mut names: Vec<String> = capabilities.names().map(str::to_owned).collect();
    names.sort();
    names
}

/// Vault's rules in the slowest and plainest way: look at every pattern, sort the ones that match.
pub(crate) fn slow_capabilities(rules: &[(String, Capabilities)], path: &str) -> Capabilities {
    let merge = |pattern: &str| {
        let mut sum = Capabilities::NONE;
        for (_, capabilities) in rules.iter().filter(|(other, _)| other == pattern) {
            sum |= *capabilities;
        }
        if sum.contains(Capabilities::DENY) { Capabilities::DENY } else { sum }
    };
    let exact =
        |path: &str| rules.iter().find(|(pattern, _)| !is_wild(pattern) && pattern == path).map(|(p, _)| p.clone());
    let wild = |path: &str| {
        let mut matching: Vec<&String> = rules
            .iter()
            .map(|(pattern, _)| pattern)
            .filter(|pattern| is_wild(pattern) && matches(pattern, path))
            .collect();
        // Among prefixes only the longest takes part.
        let longest = matching.iter().filter(|p| !has_plus(p)).map(|p| p.len()).max();
        matching.retain(|p| has_plus(p) || Some(p.len()) == longest);
        matching.sort_by_key(|pattern| {
            let body = pattern.strip_suffix('*').unwrap_or(pattern);
            let plus = has_plus(pattern);
            let first = body.find('+').filter(|_| plus).unwrap_or(body.len());
            let pluses = if plus { body.split('/').filter(|segment| *segment == "+").count() } else { 0 };
            (first, !pattern.ends_with('*'), std::cmp::Reverse(pluses), body.len(), body.to_owned())
        });
        matching.last().map(|p| (*p).clone())
    };
    let bare = path.strip_suffix('/');
    let winner = exact(path).or_else(|| exact(bare?)).or_else(|| wild(path)).or_else(|| wild(bare?));
    winner.map_or(Capabilities::NONE, |pattern| merge(&pattern))
}

fn has_plus(pattern: &str) -> bool {
    pattern == "+" || pattern.starts_with("+/") || pattern.contains("/+")
}

fn is_wild(pattern: &str) -> bool {
    has_plus(pattern) || pattern.ends_with('*')
}

fn matches(pattern: &str, path: &str) -> bool {
    let (body, open) = match pattern.strip_suffix('*') {
        Some(body) => (body, true),
        None => (pattern, false),
    };
    if !has_plus(pattern) {
        return path.starts_with(body);
    }
    let wanted: Vec<&str> = body.split('/').collect();
    let given: Vec<&str> = path.split('/').collect();
    if given.len() < wanted.len() || (!open && given.len() != wanted.len()) {
        return false;
    }
    wanted.iter().zip(&given).enumerate().all(|(index, (want, have))| {
        *want == "+" || want == have || (open && index + 1 == wanted.len() && have.starts_with(want))
    })
}

pub(crate) fn capability_set() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(
        prop::sample::select(vec!["create", "read", "update", "delete", "list", "patch", "scan", "sudo", "deny"]),
        0..4,
    )
}

/// Segments from a small alphabet, so that patterns and paths meet often.
pub(crate) fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "abc", "", "c"]);
    prop::collection::vec(segment, 1..5).prop_map(|segments| segments.join("/"))
}

pub(crate) fn pattern() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "+", "+", "", "a+", "+b", "c"]);
    let end = prop::sample::select(vec!["", "", "*", "/*", "/", "b*"]);
    (prop::collection::vec(segment, 1..5), end)
        .prop_map(|(segments, end)| segments.join("/") + end)
        .prop_filter("refused, or no path", |pattern| !pattern.contains("+*") && !pattern.starts_with('/'))
}

pub(crate) fn rules() -> impl Strategy<Value = Vec<(String, Vec<&'static str>)>> {
    prop::collection::vec((pattern(), capability_set()), 1..8)
}

pub(crate) fn written(rules: &[(String, Vec<&'static str>)]) -> String {
    rules
        .iter()
        .map(|(pattern, capabilities)| format!("path {pattern:?} {{\n  capabilities = {capabilities:?}\n}}\n"))
        .collect()
}

/// Every construct of the grammar, to be cut up and glued together.
const SEED: &str = r#"# c
path "a/+/b*" { capabilities = ["read", "list"], policy = "write" /* c */ }
"path" "x/{{identity.entity.id}}" { allowed_parameters = { "a" = ["x*", 1, true, [1.5e3, {b = 0x1F}]] b = [] } }
path "y\u00e9${"z"}" { comment = <<-EOF
  text
  EOF
  min_wrapping_ttl = "1h30m" max_wrapping_ttl = 7200 expiration = "2030-01-01T00:00:00Z" }
path "/z" { denied_parameters { "*" = [] } required_parameters = ["a"] pagination_limit = -010 }
"#;
const JSON: &str =
    r#"{"path":[{"a":{"capabilities":["re\u0061d"]}},{"b":{"allowed_parameters":{"x":[1.5,null,{}]}}}]}"#;

pub(crate) fn pieces() -> impl Strategy<Value = String> {
    let cut = |text: &'static str| {
        (0..=text.len(), 0..=text.len()).prop_map(move |(a, b)| {
            let bytes = &text.as_bytes()[a.min(b)..a.max(b)];
            String::from_utf8_lossy(bytes).into_owned()
        })
    };
    let piece = prop_oneof![cut(SEED), cut(JSON), "[\\x00-\\x7f]{0,6}", "\\PC{0,4}", Just("<<EOF\n".to_owned())];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}
