//! contract.md §4.2 to §4.6, row by row.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use leasehold_acl::{Capabilities, Operation, PolicySet, Position, Reason, Request, RuleRef, Source};
use support::{ask, compiled, request, source, spoken};

fn rules(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(pattern, caps)| format!("path {pattern:?} {{ capabilities = [{caps:?}] }}\n")).collect()
}

/// One table row: rules, then what `sys/capabilities` answers.
fn row(pairs: &[(&str, &str)], expected: &[(&str, &str)]) {
    let set = compiled(&[&rules(pairs)]);
    for (path, capability) in expected {
        assert_eq!(spoken(set.capabilities(path)), [*capability], "{path} by {pairs:?}");
    }
}

#[test]
fn an_exact_rule_beats_any_prefix_and_a_longer_prefix_a_shorter_one() {
    row(
        &[("secret/foo", "read"), ("secret/*", "list"), ("secret/f*", "create")],
        &[
            ("secret/foo", "read"),
            ("secret/fab", "create"),
            ("secret/bar", "list"),
            ("secret/", "list"),
            ("secret", "deny"),
            ("secret/foo/", "read"),
        ],
    );
}

#[test]
fn a_deny_counts_where_its_rule_wins_and_nowhere_else() {
    row(&[("secret/*", "read"), ("secret/bad", "deny")], &[("secret/bad", "deny"), ("secret/bad/x", "read")]);
    let set = compiled(&[&rules(&[("secret/*", "deny")]), &rules(&[("secret/ok", "read")])]);
    assert_eq!(spoken(set.capabilities("secret/ok")), ["read"]);
    assert_eq!(spoken(set.capabilities("secret/other")), ["deny"]);
}

/// Whoever serves these paths folds most names in them, behind the policies' back.
#[test]
fn below_auth_and_identity_no_case_steps_around_a_refusal_and_none_is_granted_more() {
    for (rule, refused) in [
        ("auth/u/users/ada", &["auth/u/users/ada", "auth/u/users/ADA", "/auth/u/users/Ada"][..]),
        ("auth/u/users/Ada", &["auth/u/users/ada", "auth/u/users/ADA", "auth/u/users/Ada"]),
        ("auth/+/users/Ad*", &["auth/u/users/ada", "auth/x/users/aDa"]),
        ("identity/entity/name/A", &["identity/entity/name/a"]),
        ("+/u/users/Ada", &["auth/u/users/ADA"]),
    ] {
        let set = compiled(&[&rules(&[("*", "update"), (rule, "deny")])]);
        for path in refused {
            assert_eq!(spoken(set.capabilities(path)), ["deny"], "{path} by {rule}");
            assert_eq!(ask(&set, path, Operation::Update, &[]).reason, Reason::Denied, "{path} by {rule}");
        }
        assert_eq!(spoken(set.capabilities("auth/u/users/bob")), ["update"], "{rule}");
    }
    // Whoever wrote a name in capitals has the right to that name, also among others that are denied.
    row(
        &[
            ("auth/a/role/*", "deny"),
            ("auth/a/role/My", "read"),
            ("auth/token/roles/*", "read"),
            ("auth/token/roles/x", "deny"),
        ],
        &[
            ("auth/a/role/My", "read"),
            ("auth/a/role/my", "deny"),
            ("auth/a/role/MY", "deny"),
            ("auth/token/roles/X", "read"),
            ("auth/token/roles/x", "deny"),
        ],
    );
    // Also a rule that asks for more counts in every case.
    let text = "path \"auth/u/users/*\" { capabilities = [\"update\"] }\n\
                path \"auth/u/users/ada\" { capabilities = [\"update\"] denied_parameters = { token_policies = [] } }";
    let set = compiled(&[text]);
    for (path, granted) in [("auth/u/users/bob", true), ("auth/u/users/ada", false), ("auth/u/users/ADA", false)] {
        assert_eq!(ask(&set, path, Operation::Update, &[("token_policies", "[]")]).allowed, granted, "{path}");
    }
    row(&[("secret/*", "read"), ("secret/a", "deny")], &[("secret/A", "read"), ("secret/a", "deny")]);
}

#[test]
fn a_later_wildcard_beats_an_earlier_one() {
    row(
        &[("secret/+/team", "read"), ("secret/a/*", "list"), ("secret/*", "delete")],
        &[
            ("secret/a/team", "list"),
            ("secret/b/team", "read"),
            ("secret/b", "delete"),
            ("secret/b/c/team", "delete"),
            ("secret/b/team/", "delete"),
        ],
    );
    row(
        &[("secret/+/+/z", "read"), ("secret/a/+/z", "update"), ("secret/+/b/z", "list"), ("secret/a/b/*", "delete")],
        &[("secret/a/b/z", "delete"), ("secret/x/b/z", "list"), ("secret/x/y/z", "read"), ("secret/a/y/z", "update")],
    );
}

#[test]
fn a_whole_pattern_beats_one_with_a_final_star() {
    row(
        &[("secret/+/ba*", "read"), ("secret/+/bar", "update"), ("secret/+/b*", "list")],
        &[("secret/q/bar", "update"), ("secret/q/baz", "read"), ("secret/q/bax/deep", "read"), ("secret/q/bo", "list")],
    );
}

#[test]
fn a_plus_is_exactly_one_segment_and_may_be_empty() {
    row(&[("+", "read")], &[("a", "read"), ("a/b", "deny")]);
    row(&[("secret/+/team", "read")], &[("secret//team", "read"), ("secret/team", "deny")]);
    row(&[("+/config", "read")], &[("x/config", "read"), ("config", "deny")]);
}

#[test]
fn stars_and_pluses_elsewhere_are_ordinary_characters() {
    row(&[("secret/*/bar", "read")], &[("secret/*/bar", "read"), ("secret/x/bar", "deny")]);
    row(&[("a+b", "read")], &[("a+b", "read"), ("axb", "deny")]);
    row(&[("+bar", "read")], &[("+bar", "read"), ("xbar", "deny")]);
    row(&[("x/+bar", "read")], &[("x/+bar", "read"), ("x/bar", "deny")]);
    row(&[("*", "read")], &[("", "read"), ("anything/at/all", "read")]);
}

#[test]
fn a_list_falls_back_to_the_path_without_its_slash() {
    row(&[("secret/list", "list")], &[("secret/list", "list"), ("secret/list/", "list")]);
    row(&[("secret/list/", "list")], &[("secret/list", "deny"), ("secret/list/", "list")]);
    // The path with the slash comes first.
    row(&[("x/+", "list"), ("x/*", "read")], &[("x/a/", "read")]);
    row(&[("x/+", "list")], &[("x/a/", "list")]);
    // Only list and scan fall back.
    let set = compiled(&[r#"path "a" { capabilities = ["read", "scan", "list"] }"#]);
    assert!(ask(&set, "a/", Operation::List, &[]).allowed);
    assert!(ask(&set, "a/", Operation::Scan, &[]).allowed);
    assert!(!ask(&set, "a/", Operation::Read, &[]).allowed);
}

#[test]
fn each_operation_needs_its_own_capability() {
    let operations = [
        (Operation::Create, "create"),
        (Operation::Read, "read"),
        (Operation::Update, "update"),
        (Operation::Delete, "delete"),
        (Operation::List, "list"),
        (Operation::Scan, "scan"),
        (Operation::Patch, "patch"),
    ];
    for (_, capability) in operations {
        let set = compiled(&[&rules(&[("a", capability)])]);
        for (operation, needed) in operations {
            assert_eq!(ask(&set, "a", operation, &[]).allowed, capability == needed, "{capability} for {operation:?}");
        }
    }
}

#[test]
fn a_protected_path_needs_sudo_and_the_capability() {
    for (capabilities, expected) in [
        (r#""read""#, Reason::Missing(Capabilities::SUDO)),
        (r#""sudo""#, Reason::Missing(Capabilities::READ)),
        (r#""list""#, Reason::Missing(Capabilities::READ | Capabilities::SUDO)),
        (r#""read", "sudo""#, Reason::Granted),
    ] {
        let set = compiled(&[&format!("path \"a\" {{ capabilities = [{capabilities}] }}")]);
        let verdict = set.evaluate(&Request { needs_sudo: true, ..request("a", Operation::Read) });
        assert_eq!(verdict.reason, expected, "{capabilities}");
        assert_eq!(verdict.allowed, expected == Reason::Granted);
    }
}

#[test]
fn a_verdict_names_every_policy_of_the_winning_rule() {
    let set = compiled(&["path \"a*\" {}\npath \"/b\" { capabilities = [\"read\"] }", &rules(&[("b", "list")])]);
    let verdict = ask(&set, "b", Operation::Read, &[]);
    let rule = |policy: &str, pattern: &str, line| RuleRef {
        policy: policy.to_owned(),
        pattern: pattern.to_owned(),
        at: Position { line, column: 6 },
    };
    assert_eq!(verdict.rules, [rule("p0", "/b", 2), rule("p1", "b", 1)]);
    assert_eq!(verdict.capabilities, Capabilities::READ | Capabilities::LIST);

    let nothing = ask(&set, "c", Operation::Read, &[]);
    assert_eq!((nothing.allowed, nothing.reason, nothing.rules), (false, Reason::NoRule, vec![]));
}

#[test]
fn a_denying_policy_is_the_only_one_that_is_named() {
    for texts in [[("a", "read"), ("a", "deny")], [("a", "deny"), ("a", "read")]] {
        let set = compiled(&[&rules(&texts[..1]), &rules(&texts[1..])]);
        let verdict = ask(&set, "a", Operation::Read, &[]);
        assert_eq!((verdict.allowed, verdict.reason), (false, Reason::Denied));
        assert_eq!(verdict.rules.len(), 1);
        assert_eq!(verdict.capabilities, Capabilities::DENY);
    }
}

fn write(policies: &[&str], parameters: &[(&str, &str)]) -> bool {
    let texts: Vec<String> = policies
        .iter()
        .map(|limits| format!("path \"p\" {{ capabilities = [\"update\", \"read\"] {limits} }}"))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    ask(&compiled(&texts), "p", Operation::Update, parameters).allowed
}

/// Each row was asked of OpenBao 2.7.2.
#[test]
fn parameters_are_held_against_their_lists() {
    for (limits, parameters, expected) in [
        (r#"allowed_parameters = {a = ["x", "y*", "*z"] b = []}"#, &[("a", r#""x""#)][..], true),
        (r#"allowed_parameters = {a = ["x", "y*", "*z"] b = []}"#, &[("a", r#""yes""#), ("b", "1")], true),
        (r#"allowed_parameters = {a = ["x", "y*", "*z"] b = []}"#, &[("a", r#""fuzz""#)], true),
        (r#"allowed_parameters = {a = ["x", "y*", "*z"] b = []}"#, &[("a", r#""w""#)], false),
        (r#"allowed_parameters = {a = ["x", "y*", "*z"] b = []}"#, &[("c", r#""x""#)], false),
        (r#"allowed_parameters = {A = ["x"]}"#, &[("a", r#""x""#)], true),
        (r#"allowed_parameters = {a = ["x"]}"#, &[("A", r#""x""#)], true),
        (r#"allowed_parameters = {a = ["x"]}"#, &[("a", r#""x""#), ("A", r#""y""#)], false),
        (r#"allowed_parameters = {a = ["x"] "*" = []}"#, &[("b", "1")], true),
        (r#"allowed_parameters = {a = ["x"] "*" = []}"#, &[("a", "1")], false),
        (r#"allowed_parameters = {}"#, &[("a", "1")], true),
        (r#"allowed_parameters = {a = []} allowed_parameters = {b = []}"#, &[("a", "1"), ("b", "1")], true),
        (r#"allowed_parameters = {a = {}}"#, &[("a", "{}")], true),
        (r#"allowed_parameters = {a = [1]}"#, &[("a", "1")], false),
        (r#"allowed_parameters = {a = [1]}"#, &[("a", r#""1""#)], false),
        (r#"allowed_parameters = {a = [true]}"#, &[("a", "true")], true),
        (r#"denied_parameters = {a = ["x*"]}"#, &[("a", r#""xy""#)], false),
        (r#"denied_parameters = {a = ["x*"]}"#, &[("a", r#""y""#)], true),
        (r#"denied_parameters = {a = []}"#, &[("a", r#""y""#)], false),
        (r#"denied_parameters = {a = [1]}"#, &[("a", "1")], true),
        (r#"denied_parameters = {a = [["x"]]}"#, &[("a", r#"["x"]"#)], false),
        (r#"denied_parameters = {"*" = ["x"]}"#, &[("b", r#""y""#)], false),
        (r#"denied_parameters = {"*" = []}"#, &[], true),
        (r#"required_parameters = ["A"]"#, &[("a", "null")], true),
        (r#"required_parameters = ["a"]"#, &[("A", "1")], false),
        (r#"required_parameters = ["a"]"#, &[], false),
    ] {
        assert_eq!(write(&[limits], parameters), expected, "{limits} {parameters:?}");
    }
}

#[test]
fn parameter_lists_of_several_policies_add_up() {
    let x = r#"allowed_parameters = {a = ["x"]}"#;
    assert!(write(&[x, r#"allowed_parameters = {a = ["y"]}"#], &[("a", r#""x""#)]));
    assert!(write(&[x, r#"allowed_parameters = {a = []}"#], &[("a", r#""z""#)]));
    assert!(!write(&[x, ""], &[("a", r#""z""#)]));
    assert!(!write(&["", r#"required_parameters = ["b"]"#], &[("a", r#""z""#)]));
}

#[test]
fn required_parameters_count_on_reads_and_not_on_lists_or_deletes() {
    let set = compiled(&[r#"path "p" { capabilities = ["read", "list", "delete"] required_parameters = ["a"] }"#]);
    assert!(!ask(&set, "p", Operation::Read, &[]).allowed);
    assert!(ask(&set, "p", Operation::Read, &[("a", r#""1""#)]).allowed);
    assert!(ask(&set, "p", Operation::List, &[]).allowed);
    assert!(ask(&set, "p", Operation::Delete, &[]).allowed);
}

#[test]
fn a_value_that_was_not_handed_in_never_helps() {
    for limits in [r#"allowed_parameters = {a = ["x"]}"#, r#"denied_parameters = {a = ["x"]}"#] {
        let set = compiled(&[&format!("path \"p\" {{ capabilities = [\"update\"] {limits} }}")]);
        assert_eq!(set.watched_parameters(), ["a"]);
        for value in [None, Some("no json".to_owned())] {
            let parameters = vec![leasehold_acl::Parameter { name: "a".to_owned(), value }];
            let verdict = set.evaluate(&Request { parameters, ..request("p", Operation::Update) });
            assert!(!verdict.allowed, "{limits}");
        }
    }
}

#[test]
fn a_refusal_names_the_key_and_never_the_value() {
    let set = compiled(&[r#"path "p" { capabilities = ["update"] denied_parameters = {a = ["s3cret"]} }"#]);
    let verdict = ask(&set, "p", Operation::Update, &[("a", r#""s3cret""#)]);
    assert_eq!(verdict.reason, Reason::Parameter("parameter \"a\" has a denied value".to_owned()));
}

#[test]
fn only_keys_whose_values_are_listed_are_watched() {
    let set = compiled(&[r#"path "p" {
        allowed_parameters = { B = ["x"] a = [] }
        denied_parameters = { c = [true] }
        required_parameters = ["d"]
    } path "l" { pagination_limit = 2 }"#]);
    assert_eq!(set.watched_parameters(), ["b", "c", "limit"]);
}

#[test]
fn a_rule_with_wrapping_bounds_wants_a_ttl_within() {
    let wrapped = |limits: &[&str], wrap_ttl| {
        let texts: Vec<String> =
            limits.iter().map(|limits| format!("path \"p\" {{ capabilities = [\"read\"] {limits} }}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        compiled(&texts).evaluate(&Request { wrap_ttl, ..request("p", Operation::Read) }).allowed
    };
    let both = r#"min_wrapping_ttl = "60s" max_wrapping_ttl = "2m""#;
    for (ttl, expected) in [(None, false), (Some(30), false), (Some(60), true), (Some(120), true), (Some(121), false)] {
        assert_eq!(wrapped(&[both], ttl), expected, "{ttl:?}");
    }
    // One bound alone.
    for (limits, ttl, expected) in [
        ("min_wrapping_ttl = 60", Some(1 << 40), true),
        ("min_wrapping_ttl = 60", Some(59), false),
        ("max_wrapping_ttl = 60", Some(0), true),
        ("max_wrapping_ttl = 60", Some(61), false),
        ("max_wrapping_ttl = 60", None, false),
    ] {
        assert_eq!(wrapped(&[limits], ttl), expected, "{limits} {ttl:?}");
    }
    for (limits, said) in [
        ("min_wrapping_ttl = 60", "the response must be wrapped with a TTL of at least 60s"),
        ("max_wrapping_ttl = 90", "the response must be wrapped with a TTL of at most 90s"),
        (both, "the response must be wrapped with a TTL of at least 60s and at most 120s"),
    ] {
        let set = compiled(&[&format!("path \"p\" {{ capabilities = [\"read\"] {limits} }}")]);
        let verdict = set.evaluate(&request("p", Operation::Read));
        assert_eq!(verdict.reason, Reason::Wrapping(said.to_owned()));
    }
    // The smaller of each counts.
    assert!(wrapped(&[both, r#"min_wrapping_ttl = 10"#], Some(10)));
    // Bounds that nothing meets.
    assert!(!wrapped(&[r#"min_wrapping_ttl = 60"#, r#"max_wrapping_ttl = 30"#], Some(45)));
}

/// Asked of OpenBao 2.7.2.
#[test]
fn a_page_is_never_larger_than_the_rule_allows() {
    let set = compiled(&[r#"path "p/" { capabilities = ["list"] pagination_limit = 2 }"#]);
    for (limit, expected) in [
        (None, Some(2)),
        (Some(r#""1""#), Some(1)),
        (Some("2"), Some(2)),
        (Some(r#""3""#), None),
        (Some(r#""max""#), Some(2)),
        (Some(r#""0""#), Some(2)),
        (Some(r#""""#), Some(2)),
        (Some(r#""-1""#), None),
        (Some(r#""x""#), None),
        (Some("null"), Some(2)),
        (Some("0"), Some(2)),
        (Some("1.5"), None),
        (Some("[]"), None),
        (Some("{}"), None),
        (Some("true"), None),
        (Some("4294967296"), None),
    ] {
        let parameters: Vec<(&str, &str)> = limit.into_iter().map(|limit| ("limit", limit)).collect();
        let verdict = ask(&set, "p/", Operation::List, &parameters);
        assert_eq!((verdict.allowed, verdict.limit), (expected.is_some(), expected), "{limit:?}");
    }
    let required =
        compiled(&[r#"path "p/" { capabilities = ["list"] pagination_limit = 2 required_parameters = ["limit"] }"#]);
    assert!(!ask(&required, "p/", Operation::List, &[]).allowed);
    assert_eq!(ask(&required, "p/", Operation::List, &[("limit", r#""max""#)]).limit, Some(2));
}

fn templated(pattern: &str, value: &str, allow_slashes: bool, allow_wildcards: bool) -> Result<PolicySet, String> {
    let text = format!("path {pattern:?} {{ capabilities = [\"read\"] }}");
    let source = Source { allow_slashes, allow_wildcards, ..source("tm", &text) };
    let identity = [("identity.entity.metadata.team".to_owned(), value.to_owned())];
    PolicySet::compile(&[source], &identity, 0).map_err(|refused| refused[0].message.clone())
}

#[test]
fn templates_are_filled_in_or_their_rule_is_gone() {
    for (pattern, path, expected) in [
        ("x/{{identity.entity.metadata.team}}/q", "x/ok/q", "read"),
        ("x/{{ identity.entity.metadata.team }}/q", "x/ok/q", "read"),
        ("x/{{identity.entity.metadata.team}}{{identity.entity.metadata.team}}", "x/okok", "read"),
        ("{{identity.entity.metadata.team}}", "ok", "read"),
        ("x/{{}}", "x/", "deny"),
        ("x/{{identity.entity.id}}/*", "x//a", "deny"),
        ("x/{{identity.entity.id}}/*", "x/{{identity.entity.id}}/a", "deny"),
    ] {
        let set = templated(pattern, "ok", false, false).unwrap();
        assert_eq!(spoken(set.capabilities(path)), [expected], "{pattern} {path}");
    }
}

#[test]
fn a_value_that_changes_the_pattern_refuses_the_whole_set() {
    let pattern = "/x/{{ identity.entity.metadata.team }}/q";
    for (value, character) in [("a/b", "/"), ("a*", "*"), ("a+", "+")] {
        let expected = format!(
            "error parsing templated policy \"tm\": failed to parse policy: path \"{pattern}\": \
             template substitution contains forbidden value: \"{character}\""
        );
        assert_eq!(templated(pattern, value, false, false).unwrap_err(), expected);
    }
    assert!(templated(pattern, "a/b", true, false).is_ok());
    assert!(templated(pattern, "+", true, true).is_ok_and(|set| !set.capabilities("x/any/q").is_empty()));
    assert!(templated("x/{{identity.entity.metadata.team}}", "+*", true, true).is_err());
}

#[test]
fn a_verdict_shows_the_template_and_not_the_value() {
    let set = templated("x/{{identity.entity.metadata.team}}", "s3cret", false, false).unwrap();
    let verdict = ask(&set, "x/s3cret", Operation::Read, &[]);
    assert_eq!(verdict.rules[0].pattern, "x/{{identity.entity.metadata.team}}");
}

#[test]
fn an_expired_rule_is_gone_and_the_set_knows_when_the_next_one_goes() {
    let text = r#"
        path "a" { capabilities = ["read"] expiration = "2030-01-01T00:00:00Z" }
        path "b" { capabilities = ["read"] expiration = "2031-01-01T00:00:00Z" }
        path "c" { capabilities = ["read"] }"#;
    let at = |now| PolicySet::compile(&[source("p", text)], &[], now).unwrap();
    let (first, second) = (1_893_456_000, 1_924_992_000);
    for (now, expected, next) in [
        (first - 1, ["read", "read"], Some(first)),
        (first, ["deny", "read"], Some(second)),
        (second, ["deny", "deny"], None),
    ] {
        let set = at(now);
        assert_eq!([set.capabilities("a"), set.capabilities("b")].map(|c| spoken(c)[0].clone()), expected, "{now}");
        assert_eq!(set.valid_until(), next, "{now}");
        assert_eq!(spoken(set.capabilities("c")), ["read"]);
    }
}

#[test]
fn what_is_wrong_in_a_block_that_has_expired_does_not_count() {
    for wrong in [
        "capabilities = [\"bogus\"]",
        "policy = \"bogus\"",
        "capabilities = [\"read\"] min_wrapping_ttl = \"x\"",
        "capabilities = [\"read\"] min_wrapping_ttl = \"2h\" max_wrapping_ttl = \"1h\"",
    ] {
        let text = format!(
            "path \"a/+*\" {{ {wrong} expiration = \"2030-01-01T00:00:00Z\" }}\npath \"b\" {{ capabilities = [\"read\"] }}"
        );
        let at = |now| PolicySet::compile(&[source("p", &text)], &[], now);
        assert!(at(1_893_455_999).is_err(), "{wrong}");
        assert_eq!(spoken(at(1_893_456_000).unwrap().capabilities("b")), ["read"], "{wrong}");
    }
}

#[test]
fn of_keys_that_differ_in_case_only_both_restrict() {
    let asked = |parameters: &str, value: &str| {
        let text = format!("path \"p\" {{ capabilities = [\"update\"]\n {parameters} }}");
        ask(&compiled(&[&text]), "p", Operation::Update, &[("a", value)]).allowed
    };
    for (parameters, value, allowed) in [
        (r#"allowed_parameters = { A = ["x"] a = ["y"] }"#, r#""x""#, false),
        (r#"allowed_parameters = { A = ["x"] a = ["y"] }"#, r#""y""#, false),
        (r#"allowed_parameters = { A = ["x", "y"] a = ["y"] }"#, r#""y""#, true),
        (r#"allowed_parameters = { A = [] a = ["*y"] }"#, r#""x""#, false),
        (r#"allowed_parameters = { A = [] a = ["*y"] }"#, r#""xy""#, true),
        (r#"denied_parameters = { A = ["x"] a = ["y"] }"#, r#""x""#, false),
        (r#"denied_parameters = { A = ["x"] a = ["y"] }"#, r#""z""#, true),
        (r#"denied_parameters = { A = [] a = ["y"] }"#, r#""z""#, false),
        (r#"allowed_parameters = { a = [{ b = { c = "x" } }] }"#, r#"{"b":{"c":"x"}}"#, false),
        (r#"denied_parameters = { a = [{ b = { c = "x" } }] }"#, r#"{"b":{"c":"x"}}"#, true),
        (r#"allowed_parameters = { a = [{ b = "x" b = "x" }] }"#, r#"{"b":"x","c":"z"}"#, false),
        (r#"allowed_parameters = { a = [{ b = "x" b = "y" }] }"#, r#"{"b":"y"}"#, true),
        (r#"denied_parameters = { a = [{ b = "x" b = "y" }] }"#, r#"{"b":"y"}"#, false),
        (r#"denied_parameters = { a = { b = "x" b = "y" } }"#, r#"{"b":"y"}"#, false),
        (r#"denied_parameters = { a = [{ b = "x" c = "y" }] }"#, r#"{"c":"y","b":"x"}"#, false),
    ] {
        assert_eq!(asked(parameters, value), allowed, "{parameters} {value}");
    }
}

#[test]
fn of_a_set_with_an_invalid_policy_nothing_counts() {
    let refused =
        PolicySet::compile(&[source("good", &rules(&[("a", "read")])), source("bad", "path \"a\" {")], &[], 0);
    let diagnostics = refused.unwrap_err();
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].policy, "bad");
}

#[test]
fn a_mount_is_seen_when_something_at_or_below_it_is_granted() {
    for (pattern, capability, expected) in [
        ("database/creds/x", "read", true),
        ("database/creds/*", "read", true),
        ("database/*", "read", true),
        ("*", "read", true),
        ("+/creds/x", "read", true),
        ("+/*", "read", true),
        ("data+/x", "read", false),
        ("kv/+/x", "read", false),
        ("kv/x", "read", false),
        ("database2/x", "read", false),
        ("database/creds/x", "deny", false),
        ("database/", "read", true),
        ("databas*", "read", true),
        ("a", "read", false),
        ("z/*", "read", false),
        // A list of the mount itself is at it. The star may stand inside the mount's own segment.
        ("database/+", "read", true),
        ("+", "read", true),
        ("+/da*", "read", true),
    ] {
        let set = compiled(&[&rules(&[(pattern, capability)])]);
        assert_eq!(set.grants_below("database/"), expected, "{pattern} {capability}");
    }
    for (pattern, expected) in [
        ("+/ab*", true),
        ("+/abc/*", true),
        ("+/abcd*", false),
        ("+/ab", false),
        ("+/a*/x", false),
        ("+/abc", true),
        ("+/abc/x", true),
        ("+/+", true),
        ("x/+", true),
        ("y/abc/+", false),
        ("x/+/y", true),
    ] {
        let set = compiled(&[&rules(&[(pattern, "read")])]);
        assert_eq!(set.grants_below("x/abc/"), expected, "{pattern}");
    }
    // Wherever the rule stands among others that begin before and behind the mount.
    let many = [("a", "read"), ("b/c", "read"), ("m/x", "read"), ("n", "read"), ("z/*", "read")];
    let set = compiled(&[&rules(&many)]);
    for (mount, expected) in [("m/", true), ("b/", true), ("z/", true), ("l/", false), ("o/", false), ("n/", true)] {
        assert_eq!(set.grants_below(mount), expected, "{mount}");
    }
    assert!(!compiled(&[r#"path "database/x" {}"#]).grants_below("database/"));
}

/// The guest's own bounds, at the very number.
#[test]
fn a_set_is_refused_from_the_first_rule_on_that_is_too_many() {
    let paths = |count: usize, of: &str| (0..count).map(|n| format!("path \"{of}{n}\" {{}}\n")).collect::<String>();
    let refusal =
        |texts: &[&str]| PolicySet::compile(&support::sources(texts), &[], 0).err().map(|found| found[0].clone());
    let (half, other) = (paths(10_000, "a"), paths(10_000, "b"));
    assert_eq!(refusal(&[&half, &other]), None, "20,000 are as many as there may be");
    let found = refusal(&[&half, &other, &paths(1, "c")]).unwrap();
    assert_eq!((found.code, found.message.as_str()), ("too-large", "the policies have more than 20000 paths together"));
    // Patterns with a plus have segments: 100 of them in each of 1,000.
    let deep = |count: usize, segments: usize| {
        let tail = "/x".repeat(segments - 2);
        (0..count).map(|n| format!("path \"+/{n}{tail}\" {{}}\n")).collect::<String>()
    };
    assert_eq!(refusal(&[&deep(1_000, 100)]), None);
    let found = refusal(&[&deep(1_000, 100), "path \"+\" {}"]).unwrap();
    assert_eq!(found.message, "the patterns with `+` have more than 100000 segments together");
}
