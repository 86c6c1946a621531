//! Nothing panics, and the fast matcher agrees with the slow one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use leasehold_acl::{Capabilities, Operation, PolicySet, lint};
use proptest::prelude::*;
use support::{ask, path, pieces, request, rules, slow_capabilities, source, written};

fn try_everything(text: &str) {
    let identity = [("identity.entity.id".to_owned(), "e/1".to_owned())];
    let refused = lint(&source("p", text)).iter().any(|one| one.severity == leasehold_acl::Severity::Error);
    let set = PolicySet::compile(&[source("p", text)], &[], 0);
    assert_eq!(set.is_err(), refused, "lint and compile disagree about {text:?}");
    let _ = PolicySet::compile(&[source("p", text)], &identity, u64::MAX);
    if let Ok(set) = set {
        for asked in ["", "a", "a/x/b", "/z", "x/{{identity.entity.id}}", text] {
            let _ = ask(&set, asked, Operation::Update, &[("a", text), ("limit", "\"x\"")]);
            let _ = set.evaluate(&request(asked, Operation::List));
            let _ = (set.capabilities(asked), set.grants_below(asked));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        try_everything(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_cut_up_policy_panics(text in pieces()) {
        try_everything(&text);
    }

    #[test]
    fn the_fast_matcher_agrees_with_the_slow_one(rules in rules(), paths in prop::collection::vec(path(), 1..8)) {
        let set = PolicySet::compile(&[source("p", &written(&rules))], &[], 0).unwrap();
        let plain: Vec<(String, Capabilities)> = rules.iter().map(|(pattern, names)| {
            let sum = names.iter().fold(Capabilities::NONE, |sum, name| sum | Capabilities::named(name).unwrap());
            (pattern.clone(), if sum.contains(Capabilities::DENY) { Capabilities::DENY } else { sum })
        }).collect();
        for path in paths {
            let path = path.trim_start_matches('/');
            prop_assert_eq!(set.capabilities(path), slow_capabilities(&plain, path), "{} by\n{}", path, written(&rules));
        }
    }

    /// The host relies on it: it hands values in only after a refusal without them.
    #[test]
    fn a_value_that_is_missing_helps_no_request(
        allowed in prop::collection::vec(("[ab*]", prop::collection::vec("[xy*]{0,2}", 0..3)), 0..3),
        denied in prop::collection::vec(("[ab*]", prop::collection::vec("[xy*]{0,2}", 0..3)), 0..3),
        required in prop::collection::vec("[ab]", 0..2),
        given in prop::collection::btree_map("[abc]", "[xy*]{0,2}", 0..3),
        limit in prop::option::of("[0-9]"),
        list in any::<bool>(),
    ) {
        let lists = |lists: &[(String, Vec<String>)]| {
            let mut seen = std::collections::BTreeSet::new();
            let each = lists.iter().filter(|(key, _)| seen.insert(key.clone()));
            each.map(|(key, values)| format!("{key:?} = {values:?}\n")).collect::<String>()
        };
        let text = format!(
            "path \"p\" {{\n capabilities = [\"update\", \"list\"]\n pagination_limit = 5\n required_parameters = {required:?}\n \
             allowed_parameters = {{\n{}}}\n denied_parameters = {{\n{}}}\n}}\n",
            lists(&allowed), lists(&denied)
        );
        let set = PolicySet::compile(&[source("p", &text)], &[], 0).unwrap();
        let mut asked = request("p", if list { Operation::List } else { Operation::Update });
        let mut parameter = |name: &str, value: String| {
            asked.parameters.push(leasehold_acl::Parameter { name: name.to_owned(), value: Some(value) });
        };
        given.iter().for_each(|(name, value)| parameter(name, format!("{value:?}")));
        limit.iter().for_each(|limit| parameter("limit", limit.clone()));
        let whole = set.evaluate(&asked);
        asked.parameters.iter_mut().for_each(|parameter| parameter.value = None);
        let bare = set.evaluate(&asked);
        if bare.allowed {
            prop_assert_eq!(bare, whole);
        } else if !matches!(bare.reason, leasehold_acl::Reason::Parameter(_) | leasehold_acl::Reason::Pagination(_)) {
            prop_assert_eq!(bare.reason, whole.reason);
        }
    }

    #[test]
    fn the_order_of_policies_changes_no_capability(rules in rules(), path in path()) {
        let texts: Vec<String> = rules.iter().map(|rule| written(std::slice::from_ref(rule))).collect();
        let there: Vec<_> = texts.iter().map(|text| source("p", text)).collect();
        let back: Vec<_> = there.iter().rev().cloned().collect();
        let there = PolicySet::compile(&there, &[], 0).unwrap();
        let back = PolicySet::compile(&back, &[], 0).unwrap();
        prop_assert_eq!(there.capabilities(&path), back.capabilities(&path));
    }

    #[test]
    fn an_unreachable_rule_never_decides(rules in rules(), paths in prop::collection::vec(path(), 1..8)) {
        let text = written(&rules);
        let unreachable: Vec<u32> =
            lint(&source("p", &text)).iter().filter(|one| one.code == "unreachable-rule").map(|one| one.start.line).collect();
        let set = PolicySet::compile(&[source("p", &text)], &[], 0).unwrap();
        for path in paths {
            for rule in ask(&set, path.trim_start_matches('/'), Operation::Read, &[]).rules {
                prop_assert!(!unreachable.contains(&rule.at.line), "{} decided {} by\n{}", rule.pattern, path, text);
            }
        }
    }
}
