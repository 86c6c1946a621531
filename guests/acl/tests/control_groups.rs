//! Who must approve of a request: what a policy's text may ask for, and what approvals count.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use leasehold_acl::{Approval, GroupKey, NamedGroup, Operation, PolicySet, Reason, Request, Verdict, report};
use support::{compiled, refusal, request, source};

/// Each row was asked of OpenBao 2.7.2, which answers the same.
#[test]
fn a_refusal_reads_as_in_the_field() {
    let factor = |inside: &str| format!(r#"control_group {{ ttl=60 factor "a" {{ {inside} }} }}"#);
    let whole = r#"controlled_capabilities=["read"] identity { group_names=["g"] approvals=1 }"#;
    for (block, expected) in [
        (factor(r#"identity { group_names=["g"] approvals=1 }"#), "factor 0: missing controlled capabilities"),
        (
            factor(r#"controlled_capabilities=["read"] identity { group_names=["g"] }"#),
            "factor 0: missing required approvals",
        ),
        (
            factor(r#"controlled_capabilities=["read"] identity { group_names=["g"] approvals=-1 }"#),
            "factor 0: missing required approvals",
        ),
        (factor(r#"controlled_capabilities=["read"] identity { approvals=1 }"#), "factor 0: missing approving groups"),
        (factor(r#"controlled_capabilities=["read"]"#), "factor 0: missing required approvals"),
        ("control_group { ttl=60 }".to_owned(), "requires at least one factor but had none"),
        ("control_group { }".to_owned(), "requires at least one factor but had none"),
        (
            factor(r#"controlled_capabilities=["bogus"] identity { group_names=["g"] approvals=1 }"#),
            "path control_group Operation(s) not valid: bogus",
        ),
        (
            factor(r#"controlled_capabilities=["sudo"] identity { group_names=["g"] approvals=1 }"#),
            "path control_group Operation(s) not valid: sudo",
        ),
        (
            format!("control_group {{ ttl=60 factor {{ {whole} }} }}"),
            "error handling control_group factor: 1 error occurred:\n\t* path control_group factor: require name key\n\n",
        ),
        (
            format!(r#"control_group {{ ttl="x" factor "a" {{ {whole} }} }}"#),
            "path control_group: invalid ttl: time: invalid duration \"x\"",
        ),
        (
            factor(r#"controlled_capabilities=["read"] identity { group_names=["g"] approvals="x" }"#),
            "error handling control_group factor: 1 error occurred:\n\t* path control_group factor: strconv.ParseInt: parsing \"x\": invalid syntax\n\n",
        ),
        (
            factor(r#"controlled_capabilities="read" identity { group_names=["g"] approvals=1}"#),
            "error handling control_group factor: 1 error occurred:\n\t* path control_group factor: At 1:94: unknown slice type: *ast.LiteralType\n\n",
        ),
        (
            "control_group { ttl=60 factor = \"x\" }".to_owned(),
            "error handling control_group factor: 1 error occurred:\n\t* path control_group factor: cannot check HCL keys of type *ast.LiteralType\n\n",
        ),
        ("control_group = \"x\"".to_owned(), "cannot check HCL keys of type *ast.LiteralType"),
        (format!("control_group {{ max_ttl=60 factor \"a\" {{ {whole} }} }}"), "invalid key \"max_ttl\" on line 1"),
        ("control_group = []".to_owned(), "cannot check HCL keys of type *ast.ListType"),
    ] {
        let text = format!(r#"path "a" {{ capabilities=["read"] {block} }}"#);
        let expected = format!("path \"a\": error handling control_group: 1 error occurred:\n\t* {expected}\n\n");
        assert_eq!(refusal(&text), Some(expected), "{text}");
    }
    let unknown = factor(r#"bogus=1 controlled_capabilities=["read"] identity { group_names=["g"] approvals=1 }"#);
    assert_eq!(
        refusal(&format!(r#"path "a" {{ capabilities=["read"] {unknown} }}"#)).unwrap(),
        "path \"a\": error handling control_group: 1 error occurred:\n\t* error handling control_group factor: 1 error \
         occurred:\n\t* path control_group factor: invalid key \"bogus\" on line 1\n\n\n\n"
    );
    assert!(
        refusal(r#"path "a" { capabilities=["deny"] control_group { ttl=60 } }"#)
            .unwrap()
            .contains("at least one factor")
    );
}

/// What would restrict less than it says is refused here, and taken by OpenBao.
#[test]
fn what_would_restrict_nothing_is_refused() {
    for (block, part) in [
        (
            r#"control_group { factor "a" { controlled_capabilities=["renew"] identity { group_names=["g"] approvals=1 } } }"#,
            "Operation(s) not valid: renew",
        ),
        (
            r#"control_group { factor "a" { controlled_capabilities=["read"] identity { bogus=1 group_names=["g"] approvals=1 } } }"#,
            "invalid key \"bogus\"",
        ),
        (
            r#"control_group { ttl="-5m" factor "a" { controlled_capabilities=["read"] identity { group_names=["g"] approvals=1 } } }"#,
            "invalid ttl: a negative duration",
        ),
        (
            r#"control_group { factor "a" { controlled_capabilities=["read"] identity { group_names=["g"] approvals=101 } } }"#,
            "at most 100 approvals",
        ),
        (
            r#"control_group { factor "a" { controlled_capabilities=["read"] identity { group_names=["nobody"] approvals=2 } identity { group_names=["g"] approvals=1 } } }"#,
            "a factor has one identity block",
        ),
        (
            r#"control_group { factor "a" { controlled_capabilities=["read"] identity "x" { group_names=["g"] approvals=1 } } }"#,
            "a factor has one identity block",
        ),
        (
            r#"control_group { factor "a" "b" { controlled_capabilities=["read"] identity { group_names=["g"] approvals=1 } } }"#,
            "a factor has one name",
        ),
        (
            r#"control_group { ttl="769h" factor "a" { controlled_capabilities=["read"] identity { group_names=["g"] approvals=1 } } }"#,
            "invalid ttl: it is at most 768h",
        ),
        (
            r#"control_group { ttl=99999999999 factor "a" { controlled_capabilities=["read"] identity { group_names=["g"] approvals=1 } } }"#,
            "invalid ttl: it is at most 768h",
        ),
        (
            r#"control_group { self_auth_allowed="maybe" factor "a" { controlled_capabilities=["read"] identity { group_names=["g"] approvals=1 } } }"#,
            "must be true or false",
        ),
    ] {
        let message = refusal(&format!(r#"path "a" {{ capabilities=["read"] {block} }}"#)).unwrap_or_default();
        assert!(message.contains(part), "{block}: {message}");
    }
}

#[test]
fn the_longest_wait_is_taken() {
    let block = r#"control_group { ttl="768h" factor "a" { controlled_capabilities=["read"] identity { group_names=["g"] approvals=1 } } }"#;
    assert_eq!(refusal(&format!(r#"path "a" {{ capabilities=["read"] {block} }}"#)), None);
}

/// Whoever writes the text is told of groups that do not exist; the component only knows what they are called.
#[test]
fn a_text_says_which_groups_it_names() {
    let text = r#"
path "a/{{identity.groups.names.a.b.id}}/{{ identity.groups.ids.7.metadata.x }}" { capabilities = ["read"] }
path "b/{{identity.groups.ids.9.name}}/{{identity.entity.id}}" { capabilities = ["read"] }
path "c/{{identity.groups.names.x.metadata.y.metadata.z}}" { capabilities = ["read"] }
path "d" {
  capabilities = ["read"]
  control_group {
    factor "one" { controlled_capabilities = ["read"] identity { group_names = ["g", "h"] approvals = 1 } }
    factor "two" { controlled_capabilities = ["read"] identity { group_names = ["h"] group_ids = ["7"] approvals = 1 } }
  }
}"#;
    let group = |key: GroupKey, value: &str, approves: bool| NamedGroup { key, value: value.to_owned(), approves };
    assert_eq!(
        report(&source("p", text)).groups,
        [
            group(GroupKey::Name, "a.b", false),
            group(GroupKey::Name, "g", true),
            group(GroupKey::Name, "h", true),
            group(GroupKey::Id, "7", false),
            group(GroupKey::Id, "7", true),
            group(GroupKey::Id, "9", false),
        ]
    );
    let many: String = (0..200)
        .map(|n| format!("path \"a/{{{{identity.groups.ids.{n}.name}}}}\" {{ capabilities = [\"read\"] }}\n"))
        .collect();
    assert_eq!(report(&source("p", &many)).groups.len(), 100);
    let long = format!("path \"a/{{{{identity.groups.ids.{}.name}}}}\" {{ }}", "x".repeat(513));
    assert_eq!(report(&source("p", &long)).groups, []);
    assert_eq!(report(&source("p", &format!("{text}\nbroken {{"))).groups, []);
}

fn approval(entity: &str, groups: &[&str]) -> Approval {
    let group_names = groups.iter().map(|name| (*name).to_owned()).collect();
    let group_ids = groups.iter().map(|name| format!("id-of-{name}")).collect();
    Approval { entity: entity.to_owned(), group_names, group_ids, age: 0 }
}

fn asked(set: &PolicySet, operation: Operation, approvals: &[Approval]) -> Verdict {
    set.evaluate(&Request {
        requester: Some("alice".to_owned()),
        approvals: approvals.to_vec(),
        ..request("a", operation)
    })
}

const ONE: &str = r#"path "a" { capabilities=["read", "list"]
  control_group = { ttl = "1h" factor "first" {
    controlled_capabilities = ["read"]
    identity = { group_names = ["security"] group_ids = ["id-of-board"] approvals = 2 } } } }"#;

#[test]
fn as_many_members_as_are_asked_for_must_approve() {
    let set = compiled(&[ONE]);
    let (bob, carol) = (approval("bob", &["other", "security"]), approval("carol", &["board"]));
    for (approvals, given) in [
        (vec![], vec![]),
        (vec![bob.clone()], vec!["bob"]),
        (vec![bob.clone(), bob.clone()], vec!["bob"]),
        (vec![bob.clone(), approval("alice", &["security"])], vec!["bob"]),
        (vec![bob.clone(), approval("mallory", &["other"])], vec!["bob"]),
        (vec![bob.clone(), Approval { age: 3600, ..carol.clone() }], vec!["bob"]),
        (vec![bob.clone(), Approval { age: 3599, ..carol.clone() }], vec!["bob", "carol"]),
    ] {
        let verdict = asked(&set, Operation::Read, &approvals);
        let control = verdict.control_group.unwrap();
        assert_eq!((control.ttl, control.factors.len(), &*control.factors[0].name), (3600, 1, "first"));
        assert_eq!(control.factors[0].given, given, "{approvals:?}");
        let is_approved = given.len() == 2;
        assert_eq!(verdict.allowed, is_approved, "{approvals:?}");
        assert_eq!(verdict.reason, if is_approved { Reason::Granted } else { Reason::Unapproved });
    }
    // What is not controlled needs nobody.
    let listed = set.evaluate(&request("a/", Operation::List));
    assert_eq!((listed.allowed, listed.control_group), (true, None));
}

#[test]
fn no_approval_stands_for_a_right() {
    let set = compiled(&[ONE]);
    let all = [approval("bob", &["security"]), approval("carol", &["security"])];
    let verdict = asked(&set, Operation::Update, &all);
    assert_eq!((verdict.allowed, verdict.control_group), (false, None));
    assert!(matches!(verdict.reason, Reason::Missing(_)));
    // Nor is a refused request one that waits.
    let bounded = ONE.replace("capabilities=[", "required_parameters=[\"why\"] capabilities=[");
    assert!(matches!(asked(&compiled(&[&bounded]), Operation::Read, &[]).reason, Reason::Parameter(_)));
}

#[test]
fn whoever_asks_may_approve_where_the_block_says_so() {
    let own = [approval("alice", &["security"]), approval("bob", &["security"])];
    assert!(!asked(&compiled(&[ONE]), Operation::Read, &own).allowed);
    let set = compiled(&[&ONE.replace("ttl =", "self_auth_allowed = true ttl =")]);
    assert!(asked(&set, Operation::Read, &own).allowed);
}

/// OpenBao takes the control group of the first policy that has the path, also where that has none.
#[test]
fn control_groups_of_several_policies_all_hold() {
    let other = r#"path "a" { capabilities=["read"] control_group { ttl=60 self_auth_allowed=true
        factor "second" { controlled_capabilities=["read"] identity { group_names=["board"] approvals=1 } } } }"#;
    let bare = r#"path "a" { capabilities=["read"] }"#;
    let security = [approval("bob", &["security"]), approval("carol", &["security"])];
    let board = [approval("alice", &["board"])];
    for texts in [[ONE, other, bare], [bare, other, ONE]] {
        let set = compiled(&texts);
        assert!(!asked(&set, Operation::Read, &[]).allowed);
        assert!(!asked(&set, Operation::Read, &security).allowed, "the second one is missing");
        assert!(!asked(&set, Operation::Read, &board).allowed, "the first one is missing");
        let both = [security.to_vec(), board.to_vec()].concat();
        let verdict = asked(&set, Operation::Read, &both);
        assert!(verdict.allowed);
        assert_eq!(verdict.control_group.unwrap().ttl, 60, "the shorter one");
    }
    // In one rule too.
    let twice = ONE.replace("control_group = {", "control_group { factor \"x\" { controlled_capabilities=[\"read\"] identity { group_names=[\"x\"] approvals=1 } } }\n control_group = {");
    assert!(!asked(&compiled(&[&twice]), Operation::Read, &security).allowed);
}

#[test]
fn json_says_the_same() {
    for text in [
        r#"{"path":{"a":{"capabilities":["read"],"control_group":{"ttl":"1h","factor":{"x":{"controlled_capabilities":["read"],"identity":{"group_names":["g"],"approvals":1}}}}}}}"#,
        r#"{"path":{"a":{"capabilities":["read"],"control_group":{"ttl":"1h","factor":[{"x":{"controlled_capabilities":["read"],"identity":{"group_names":["g"],"approvals":1}}},{"y":{"controlled_capabilities":["read"],"identity":[{"group_names":["g"],"approvals":1}]}}]}}}}"#,
    ] {
        let set = compiled(&[text]);
        assert_eq!(asked(&set, Operation::Read, &[]).reason, Reason::Unapproved, "{text}");
        assert!(asked(&set, Operation::Read, &[approval("bob", &["g"])]).allowed, "{text}");
    }
}
