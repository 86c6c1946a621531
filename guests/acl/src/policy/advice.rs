//! Legal, and probably not meant.

use super::pattern::{self, Glob};
use super::{Findings, Rule, templates};
use crate::syntax::text::quoted;
use crate::types::{Capabilities, Severity};

/// Comparing every wildcard rule with every other is for texts that people write.
const MAX_COMPARED: usize = 500;

/// Warnings and hints about rules that are all valid.
pub(crate) fn advise(rules: &[Rule], findings: &mut Findings<'_>) {
    for rule in rules {
        about_pattern(rule, findings);
        about_capabilities(rule, findings);
        about_control_groups(rule, findings);
    }
    about_repetition(rules, findings);
    about_shadows(rules, findings);
}

fn say(
    findings: &mut Findings<'_>,
    severity: Severity,
    code: &'static str,
    rule: &Rule,
    what: &str,
    help: Option<String>,
) {
    let message = format!("path {}: {what}", quoted(&rule.pattern));
    findings.add(severity, code, message, (rule.at, rule.end), help);
}

fn about_pattern(rule: &Rule, findings: &mut Findings<'_>) {
    let pattern = pattern::without_slash(&rule.pattern);
    if pattern.starts_with('/') || pattern.split('/').next() == Some("v1") {
        let what = "matches nothing: paths begin behind `/v1/`";
        let right = pattern.trim_start_matches('/').trim_start_matches("v1/");
        say(findings, Severity::Warning, "unreachable-rule", rule, what, Some(format!("write {}", quoted(right))));
    }
    let body = pattern.strip_suffix('*').unwrap_or(pattern);
    if body.contains('*') {
        let what = "a `*` that is not the last character is an ordinary character";
        let help = format!("`+` stands for one segment: {}", quoted(&pattern.replace("/*/", "/+/")));
        say(findings, Severity::Warning, "literal-star", rule, what, Some(help));
    }
    if body.split('/').any(|segment| segment.len() > 1 && segment.contains('+')) {
        let what = "a `+` beside other characters of a segment is an ordinary character";
        say(findings, Severity::Warning, "literal-plus", rule, what, None);
    }
    if pattern::misses_by_case(&rule.pattern) {
        let what = "matches no policy: names of policies are compared in lower case";
        let help = Some("write the name in lower case".to_owned());
        say(findings, Severity::Warning, "upper-case-name", rule, what, help);
    }
    for name in templates::names(&rule.pattern) {
        if !templates::is_known(&name) {
            let what = format!("nothing is ever known as `{name}`, so the path never counts");
            say(findings, Severity::Warning, "unknown-template", rule, &what, None);
        }
    }
}

fn about_capabilities(rule: &Rule, findings: &mut Findings<'_>) {
    if rule.capabilities.is_empty() {
        let what = "grants nothing, and hides less specific rules";
        let help = Some("write \"deny\" if that is meant".to_owned());
        say(findings, Severity::Hint, "empty-rule", rule, what, help);
    }
    let listing = Capabilities::LIST | Capabilities::SCAN;
    let beyond = rule.capabilities - listing - Capabilities::SUDO - Capabilities::DENY;
    if rule.pattern.len() > 1 && rule.pattern.ends_with('/') && !beyond.is_empty() {
        let what = "only list and scan ask for a path that ends in `/`";
        let help = Some(format!("write {} for what is below it", quoted(&format!("{}*", rule.pattern))));
        say(findings, Severity::Warning, "trailing-slash", rule, what, help);
    }
    if rule.limits.pagination > 0 && (rule.capabilities & listing).is_empty() {
        let what = "pagination_limit counts for list and scan only, and neither is granted here";
        say(findings, Severity::Warning, "pagination-without-list", rule, what, None);
    }
    let restricts = !(rule.limits.allowed.is_empty() && rule.limits.denied.is_empty());
    let takes_parameters = Capabilities::CREATE | Capabilities::READ | Capabilities::UPDATE | Capabilities::PATCH;
    if restricts && rule.capabilities.grants() && (rule.capabilities & takes_parameters).is_empty() {
        let what = "parameters are looked at on create, read, update and patch only, and none of them is granted here";
        say(findings, Severity::Warning, "parameters-without-write", rule, what, None);
    }
}

/// Who writes that updates must be approved of, in a rule that grants reading alone, has held nothing back.
fn about_control_groups(rule: &Rule, findings: &mut Findings<'_>) {
    for factor in rule.limits.factors.iter().filter(|factor| (factor.operations & rule.capabilities).is_empty()) {
        let names: Vec<&str> = factor.operations.names().collect();
        let what = format!(
            "the control group's factor {} holds nothing back: it names {}, which this rule does not grant",
            quoted(&factor.name),
            names.join(", ")
        );
        say(findings, Severity::Warning, "control-group-beyond-rule", rule, &what, None);
    }
}

fn about_repetition(rules: &[Rule], findings: &mut Findings<'_>) {
    let mut sorted: Vec<&Rule> = rules.iter().collect();
    sorted.sort_by_cached_key(|rule| pattern::compared(&rule.pattern).into_owned());
    for pair in sorted.windows(2) {
        let [first, second] = pair else { continue };
        if pattern::compared(&first.pattern) == pattern::compared(&second.pattern) {
            let what = format!("stands here and on line {}: the two add up", first.at.line);
            say(findings, Severity::Hint, "duplicate-rule", second, &what, None);
        }
    }
}

/// A `+` rule with a final `*` loses to any such rule that starts to be wild at the same place, has fewer `+`, and
/// matches all it matches. Its author expects the opposite.
fn about_shadows(rules: &[Rule], findings: &mut Findings<'_>) {
    let wild: Vec<(&Rule, &str)> = rules
        .iter()
        .filter_map(|rule| {
            let pattern = pattern::without_slash(&rule.pattern);
            let body = match pattern::kind(pattern) {
                Glob::Prefix(body) => body,
                Glob::Segments(pattern) => pattern.strip_suffix('*')?,
                _ => return None,
            };
            (!rule.templated).then_some((rule, body))
        })
        .take(MAX_COMPARED)
        .collect();
    for (rule, body) in &wild {
        let Some(plus) = body.find('+') else { continue };
        let winner = wild.iter().find(|(_, other)| {
            let same_start = other.find('+').unwrap_or(other.len()) == plus;
            same_start && pluses(other) < pluses(body) && covers(other, body)
        });
        if let Some((winner, _)) = winner {
            let denies =
                if rule.capabilities.contains(Capabilities::DENY) { ", so nothing is denied here" } else { "" };
            let (pattern, line) = (quoted(&winner.pattern), winner.at.line);
            let what = format!("never decides: {pattern} on line {line} always wins{denies}");
            say(findings, Severity::Warning, "unreachable-rule", rule, &what, None);
        }
    }
}

fn pluses(body: &str) -> usize {
    body.split('/').filter(|segment| *segment == "+").count()
}

/// Whether `other*` matches all that `body*` matches. Both without the star; the last segment of each is a beginning.
fn covers(other: &str, body: &str) -> bool {
    let mut segments = body.split('/');
    let mut wanted = other.split('/').peekable();
    while let Some(segment) = wanted.next() {
        let Some(mine) = segments.next() else { return false };
        let fits = match wanted.peek() {
            Some(_) => segment == "+" || segment == mine,
            None => segment.is_empty() || (mine != "+" && mine.starts_with(segment)),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// The known word that differs in at most two letters, if the word is long enough for that to mean something.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    let lowered = word.to_lowercase();
    let distances = known.iter().map(|candidate| (strsim::levenshtein(&lowered, candidate), *candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 && distance * 2 <= candidate.len()).then_some(candidate)
}

/// What a person means who writes an HTTP method or a word of another system.
pub(super) fn http_verb(word: &str) -> Option<&'static str> {
    Some(match word.to_lowercase().as_str() {
        "get" | "view" => "read",
        "post" | "put" | "write" => "update",
        "remove" | "destroy" => "delete",
        "ls" => "list",
        "root" | "admin" => "sudo",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_found_and_a_far_one_is_not() {
        let known = Capabilities::NAMED.map(|(name, _)| name);
        for (word, expected) in [
            ("raed", Some("read")),
            ("READ", Some("read")),
            ("lists", Some("list")),
            ("updte", Some("update")),
            ("xyzzy", None),
            ("a", None),
            // Two letters of four are half the word, and three are too many.
            ("lixx", Some("list")),
            ("lxxx", None),
            ("deleteee", Some("delete")),
            ("deleteeee", None),
        ] {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
        let long = "x".repeat(64);
        assert_eq!(nearest(&long, &[&format!("{long}y")]), Some(format!("{long}y").as_str()));
        assert_eq!(nearest(&format!("{long}x"), &[&long]), None, "nobody misspells a word of 65 letters");
    }

    #[test]
    fn words_of_other_systems_have_a_meaning_here() {
        for (words, meant) in [
            ("get view GET", "read"),
            ("post put write", "update"),
            ("remove destroy", "delete"),
            ("ls", "list"),
            ("root admin", "sudo"),
        ] {
            for word in words.split(' ') {
                assert_eq!(http_verb(word), Some(meant), "{word}");
            }
        }
        assert_eq!(http_verb("read"), None);
    }
}
