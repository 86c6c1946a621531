//! What a policy's text may be, and what a client reads when it may not. Texts without `failed to parse policy: `.
//! Unless a row says otherwise, it was asked of OpenBao 2.7.2.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use leasehold_acl::{Capabilities, Operation, PolicySet, Position, Reason, Severity, lint};
use support::{ask, compiled, refusal, source, spoken};

#[test]
fn a_refusal_reads_as_in_the_field() {
    for (text, expected) in [
        // Syntax.
        (r#"path "a" {"#, "At 1:12: object expected closing RBRACE got: EOF"),
        (
            r#"path "a" { capabilities = ["read" }"#,
            "At 1:35: error parsing list, expected comma or list end, got: RBRACE",
        ),
        (r#"path "a" { capabilities = ["read""#, "At 1:34: error parsing list, expected comma or list end, got: EOF"),
        (
            r#"path "a" { capabilities = ["read" "list"] }"#,
            "At 1:35: error parsing list, expected comma or list end, got: STRING",
        ),
        (r#"path "a" { capabilities = ["read"]; policy = "read" }"#, "At 1:35: illegal char"),
        (r#"path "a" = { capabilities = ["read"] }"#, "At 1:10: nested object expected: LBRACE got: ASSIGN"),
        (r#"path "a" b = 1"#, "At 1:12: nested object expected: LBRACE got: ASSIGN"),
        ("x", "At 1:3: key 'x' expected start of object ('{') or assignment ('=')"),
        (r#"path "a""#, r#"At 1:9: key 'path "a"' expected start of object ('{') or assignment ('=')"#),
        (r#"path "a" { x }"#, "At 1:14: key 'x' expected start of object ('{') or assignment ('=')"),
        ("path 5 {}", "At 1:6: expected: IDENT | STRING | ASSIGN | LBRACE got: NUMBER"),
        ("path <<EOF\na\nEOF\n{ }", "At 1:6: expected: IDENT | STRING | ASSIGN | LBRACE got: HEREDOC"),
        (
            r#"path "a" { capabilities = ["read"] } }"#,
            "At 1:38: expected: IDENT | STRING | ASSIGN | LBRACE got: RBRACE",
        ),
        (r#"path "a" { { } }"#, "At 1:12: expected: IDENT | STRING got: LBRACE"),
        ("= 5", "At 1:1: no object keys found!"),
        (r#"path "a" { capabilities = }"#, "At 1:27: Unknown token: 1:27 RBRACE }"),
        (r#"path "a" { capabilities = null }"#, "At 1:27: Unknown token: 1:27 IDENT null"),
        (r#"path "a" { capabilities ="#, "At 1:27: object expected closing RBRACE got: EOF"),
        ("[]", "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: LBRACK"),
        ("@", "At 1:1: illegal char"),
        ("/* open", "At 1:8: comment not terminated"),
        ("/ x", "At 1:1: expected '/' for comment"),
        ("path 'a' {}", "At 1:6: illegal char"),
        ("path \"a\nb\" {}", "At 2:6: literal not terminated"),
        (r#"path "a\qb" {}"#, "At 1:9: illegal char escape"),
        ("path \"a\" { comment = <<EOF\nhi", "At 2:3: heredoc not terminated"),
        ("path \"a\" { comment = <<-EO", "At 1:27: heredoc not terminated"),
        (
            r#"path "a" { comment = [[1, {"z"}]] }"#,
            "At 1:23: error while trying to parse list within list: At 1:27: error while trying to parse object within \
             list: At 1:31: key '\"z\"' expected start of object ('{') or assignment ('=')",
        ),
        (r#"path "a" {};"#, "At 1:12: illegal char"),
        // Keys.
        (r#"foo "a" {}"#, "1 error occurred:\n\t* invalid key \"foo\" on line 0\n\n"),
        (
            "foo = 1\nbar = 2",
            "2 errors occurred:\n\t* invalid key \"foo\" on line 1\n\t* invalid key \"bar\" on line 2\n\n",
        ),
        (r#"path "a" { bogus = 1 }"#, "path \"a\": 1 error occurred:\n\t* invalid key \"bogus\" on line 1\n\n"),
        (r#"path = { "a" = { } }"#, "path \"path\": 1 error occurred:\n\t* invalid key \"a\" on line 1\n\n"),
        ("path = 1", "path \"path\": cannot check HCL keys of type *ast.LiteralType"),
        (r#"{"path":"x"}"#, "path \"path\": cannot check HCL keys of type *ast.LiteralType"),
        (r#"{"path":[]}"#, "path \"path\": cannot check HCL keys of type *ast.ListType"),
        (r#"{"path":{"P":"x"}}"#, "path \"path\": 1 error occurred:\n\t* invalid key \"P\" on line 1\n\n"),
        (r#"{"path":{"a":{"bogus":1}}}"#, "path \"a\": 1 error occurred:\n\t* invalid key \"bogus\" on line 1\n\n"),
        // Types.
        (r#"name = ["x"]"#, "At 1:8: root.name: unknown type for string *ast.ListType"),
        (
            r#"path "a" { capabilities = "read" }"#,
            "path \"a\": path \"a\": At 1:27: unknown slice type: *ast.LiteralType",
        ),
        (
            r#"path "a" { capabilities = [true] }"#,
            "path \"a\": path \"a\": At 1:28: root.Capabilities[0]: unknown type for string *ast.LiteralType",
        ),
        (
            r#"path "a" { capabilities = [1.5] }"#,
            "path \"a\": path \"a\": At 1:28: root.Capabilities[0]: unknown type for string *ast.LiteralType",
        ),
        (
            r#"path "a" { capabilities = [["read"]] }"#,
            "path \"a\": path \"a\": At 1:28: root.Capabilities[0]: unknown type for string *ast.ListType",
        ),
        (
            r#"path "a" { capabilities = {x=1} }"#,
            "path \"a\": path \"a\": At 1:28: root.Capabilities[0]: unknown type for string *ast.ObjectItem",
        ),
        (
            r#"path "a" { policy = true }"#,
            "path \"a\": path \"a\": At 1:21: root.Policy: unknown type for string *ast.LiteralType",
        ),
        (
            r#"path "a" { allowed_parameters = { "x" = "y" } }"#,
            "path \"a\": path \"a\": At 1:41: unknown slice type: *ast.LiteralType",
        ),
        (
            r#"path "a" { allowed_parameters = [] }"#,
            "path \"a\": path \"a\": At 1:33: root.allowed_parameters: not an object type for map (*ast.ListType)",
        ),
        (
            r#"path "a" { pagination_limit = 1.5 }"#,
            "path \"a\": path \"a\": At 1:31: root.pagination_limit: unknown type *ast.LiteralType",
        ),
        (
            r#"path "a" { pagination_limit = 08 }"#,
            "path \"a\": path \"a\": strconv.ParseInt: parsing \"08\": invalid syntax",
        ),
        // Meaning.
        (r#"path "a" { capabilities = ["foo"] }"#, "path \"a\": path \"a\": invalid capability \"foo\""),
        (r#"path "a" { capabilities = ["READ"] }"#, "path \"a\": path \"a\": invalid capability \"READ\""),
        (r#"path "a" { capabilities = [1] }"#, "path \"a\": path \"a\": invalid capability \"1\""),
        (r#"path "a" { capabilities = ["foo", "deny"] }"#, "path \"a\": path \"a\": invalid capability \"foo\""),
        (r#"path "a" { policy = "foo" }"#, "path \"a\": path \"a\": invalid policy \"foo\""),
        (r#"path "/a+*" { }"#, "path \"/a+*\": path \"a+*\": invalid use of wildcards ('+*' is forbidden)"),
        (
            r#"path "a" { min_wrapping_ttl = "5m" max_wrapping_ttl = "1m" }"#,
            "path \"a\": max_wrapping_ttl cannot be less than min_wrapping_ttl",
        ),
        (
            r#"path "a" { min_wrapping_ttl = "x" }"#,
            "path \"a\": error parsing min_wrapping_ttl: time: invalid duration \"x\"",
        ),
        (
            r#"path "a" { max_wrapping_ttl = [1] }"#,
            "path \"a\": error parsing max_wrapping_ttl: could not parse duration from input",
        ),
        (
            r#"path "a" { expiration = "5m" }"#,
            "path \"a\": path \"a\": invalid expiration time: could not parse string as date and time",
        ),
        (
            r#"path "{{identity.entity.id" { }"#,
            "path \"{{identity.entity.id\": failed to validate policy templating: unbalanced templating characters",
        ),
        (
            r#"path "{{a{{b}}}}" { }"#,
            "path \"{{a{{b}}}}\": failed to validate policy templating: unbalanced templating characters",
        ),
    ] {
        assert_eq!(refusal(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn every_notation_of_a_rule_is_taken() {
    for text in [
        r#"path "a" { capabilities = ["read"] }"#,
        "path \"a\"\n{\n  capabilities = [\"read\"]\n}\n",
        "path \"a\" {\r\n  capabilities = [\"read\"]\r\n}\r\n",
        r#"path a { capabilities = ["read"] }"#,
        r#""path" "a" { "capabilities" = ["read"] }"#,
        r#"path "a" "b" { capabilities = ["read"] }"#,
        r#"path "/a" { capabilities = ["read"] }"#,
        r#"path "\x61" { capabilities = ["re\u0061d",] }"#,
        r#"path "a" { capabilities = [,"read"], comment = "x" }, path "b" {}"#,
        r#"path "a" { comment = {a = [1, {b = true}]} capabilities = ["read"] }"#,
        "# c\npath \"a\" { // c\n capabilities = [\"read\", # c\n /* c\n */ ] }\n/* c */ # c",
        "path \"a\" { comment = <<EOF\n}\n  EOF\ncapabilities = [\"read\"] }",
        r#"{"path":{"a":{"capabilities":["read"]}}}"#,
        r#"{"path":[{"a":{"capabilities":["read"]}},{"b":{}}]}"#,
        r#"{"path":{"a":{"capabilities":["\u0072ead"],}},}"#,
        r#"{"name":"x","path":{"a":{"capabilities":["read"],"comment":null}}}"#,
    ] {
        let set = compiled(&[text]);
        assert_eq!(spoken(set.capabilities("a")), ["read"], "{text}");
    }
}

#[test]
fn a_here_document_keeps_its_line_end_and_loses_the_indentation_of_its_mark() {
    for (text, word) in [
        ("path \"a\" { capabilities = [<<EOF\n read\nEOF\n] }", " read\\n"),
        ("path \"a\" { capabilities = [<<-EOF\n  read\n  EOF\n] }", "read\\n"),
        ("path \"a\" { capabilities = [<<-EOF\nread\n  EOF\n] }", "read\\n"),
    ] {
        let expected = format!("path \"a\": path \"a\": invalid capability \"{word}\"");
        assert_eq!(refusal(text), Some(expected), "{text}");
    }
}

#[test]
fn valid_texts_without_rights_are_taken() {
    for text in ["", " \n", "{}", "# nothing", r#"path "a" {}"#, r#"path "a" { capabilities = {} }"#, r#"{"path":{}}"#]
    {
        assert_eq!(refusal(text), None, "{text}");
        assert_eq!(compiled(&[text]).capabilities("a"), Capabilities::NONE, "{text}");
    }
}

#[test]
fn odd_labels_match_as_they_are_written() {
    for (text, path) in [
        (r#"path { capabilities = ["read"] }"#, "path"),
        (r#"path "a${b}" { capabilities = ["read"] }"#, "a${b}"),
        (r#"path "a${"b"}" { capabilities = ["read"] }"#, r#"a${"b"}"#),
        (r#"path "a%{b}" { capabilities = ["read"] }"#, "a%{b}"),
        (r#"path "a\u00e9\x41\101\tz" { capabilities = ["read"] }"#, "aéAA\tz"),
        (r#"path "/" { capabilities = ["read"] }"#, ""),
    ] {
        assert_eq!(spoken(compiled(&[text]).capabilities(path)), ["read"], "{text}");
    }
}

#[test]
fn repeated_keys_add_up_and_single_ones_are_replaced() {
    for (text, expected) in [
        (r#"path "a" { capabilities = ["read"] capabilities = ["list"] }"#, vec!["list", "read"]),
        (r#"path "a" { policy = "read" policy = "write" }"#, vec!["create", "delete", "list", "read", "update"]),
        (r#"path "a" { policy = "read" capabilities = ["sudo"] }"#, vec!["list", "read", "sudo"]),
        (r#"path "a" { policy = "sudo" }"#, vec!["create", "delete", "list", "read", "sudo", "update"]),
        (r#"path "a" { policy = "deny" capabilities = ["sudo"] }"#, vec!["deny"]),
        (r#"path "a" { capabilities = ["deny", "foo"] }"#, vec!["deny"]),
        (r#"path "a" { capabilities = ["read"] } path "a" { capabilities = ["list"] }"#, vec!["list", "read"]),
        (r#"path "a" { capabilities = ["read"] } path "a" { capabilities = ["deny"] }"#, vec!["deny"]),
    ] {
        assert_eq!(spoken(compiled(&[text]).capabilities("a")), expected, "{text}");
    }
}

/// Here we refuse what OpenBao takes: each of these would leave the operator with less than was written.
#[test]
fn what_would_be_dropped_silently_is_refused() {
    for (text, part) in [
        (r#"path "a" { mfa_methods = ["m"] }"#, "mfa_methods is not supported"),
        (
            r#"path "a" { capabilities = ["list"] list_scan_response_keys_filter_path = "{{.path}}{{.key}}" }"#,
            "list_scan_response_keys_filter_path is not supported",
        ),
        (r#"path "a" { min_wrapping_ttl = -5 }"#, "a negative duration bounds nothing"),
        (r#"path "a" { allowed_parameters "x" {} }"#, "allowed_parameters takes no label"),
        (r#"{"path":"#, "expected: a value got: EOF"),
        (r#"{"path":{"a":{}}} x"#, "expected: the end got: 'x'"),
        (r#"{"path":{"a":{"capabilities":[true]}}}"#, "unknown type for string"),
    ] {
        let message = refusal(text).unwrap_or_default();
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn the_json_form_may_hold_parameter_lists_alone() {
    let set = compiled(&[
        r#"{"path":{"a":{"allowed_parameters":{"x":["1"]}}}}"#,
        r#"path "a" { capabilities = ["update"] }"#,
    ]);
    assert!(ask(&set, "a", Operation::Update, &[("x", "\"1\"")]).allowed);
    assert!(!ask(&set, "a", Operation::Update, &[("x", "\"2\"")]).allowed);
}

#[test]
fn sizes_and_depths_are_bounded() {
    let deep = format!("path \"a\" {{ comment = {}1{} }}", "[".repeat(40), "]".repeat(40));
    assert!(refusal(&deep).is_some_and(|message| message.contains("nested more than 32 deep")));
    let deep = format!("{{\"name\":{}", "[".repeat(100_000));
    assert!(refusal(&deep).is_some_and(|message| message.contains("nested more than 32 deep")));
    let long = format!("# {}", "x".repeat(1 << 20));
    assert!(refusal(&long).is_some_and(|message| message.contains("longer than")));
    let many = "path \"a\" {}\n".repeat(20_001);
    assert!(refusal(&many).is_some_and(|message| message.contains("more than 20000 paths")));
    let wide = format!("path \"+{}\" {{}}", "/a".repeat(100_001));
    assert!(refusal(&wide).is_some_and(|message| message.contains("more than 100000 segments")));
}

#[test]
fn a_finding_says_where_and_what_instead() {
    let found =
        lint(&source("p", "path \"å\" {\n  capabilities = [\"å\", \"raed\"]\n}\npath \"b\" { capabilites = [] }"));
    let errors: Vec<_> = found.iter().map(|one| (one.code, one.start, one.help.as_deref())).collect();
    assert_eq!(
        errors,
        [
            ("unknown-capability", Position { line: 2, column: 19 }, None),
            ("unknown-key", Position { line: 4, column: 12 }, Some("did you mean \"capabilities\"?")),
        ]
    );
    assert!(found.iter().all(|one| one.severity == Severity::Error && one.policy == "p"));
}

#[test]
fn legal_and_probably_not_meant_is_a_warning() {
    for (text, expected) in [
        (r#"path "a/*" { capabilities = ["read"] }"#, vec![]),
        (r#"path "a/+/b*" { capabilities = ["read"] }"#, vec![]),
        (r#"path "a" { capabilities = ["read", "deny"] }"#, vec!["deny-with-others"]),
        (r#"path "a" { capabilities = [] }"#, vec!["empty-rule"]),
        (r#"path "a/*/b" { capabilities = ["read"] }"#, vec!["literal-star"]),
        (r#"path "a/x+" { capabilities = ["read"] }"#, vec!["literal-plus"]),
        (r#"path "v1/a" { capabilities = ["read"] }"#, vec!["unreachable-rule"]),
        (r#"path "a/" { capabilities = ["read", "list"] }"#, vec!["trailing-slash"]),
        (r#"path "a/" { capabilities = ["list"] }"#, vec![]),
        (r#"path "a" { capabilities = ["read"] pagination_limit = 5 }"#, vec!["pagination-without-list"]),
        (
            r#"path "a" { capabilities = ["read"] control_group { factor "f" { controlled_capabilities = ["update"] identity { group_names = ["g"] approvals = 1 } } } }"#,
            vec!["control-group-beyond-rule"],
        ),
        (
            r#"path "a" { capabilities = ["read"] control_group { factor "f" { controlled_capabilities = ["read"] identity { group_names = ["g"] approvals = 1 } } } }"#,
            vec![],
        ),
        (r#"path "a" { capabilities = ["list"] allowed_parameters = {x=[]} }"#, vec!["parameters-without-write"]),
        (r#"path "a" { capabilities = ["update"] denied_parameters = {x=[1]} }"#, vec!["number-never-matches"]),
        (r#"path "a/{{identity.bogus}}" { capabilities = ["read"] }"#, vec!["unknown-template"]),
        (r#"path "a/{{identity.groups.names.a.b.id}}" { capabilities = ["read"] }"#, vec![]),
        (r#"path "a" { capabilities = ["read"] } path "/a" { capabilities = ["list"] }"#, vec!["duplicate-rule"]),
        // `a/*` starts to be wild at the same place, ends in a star too, and has fewer `+`.
        (
            r#"path "a/*" { capabilities = ["read"] } path "a/+/secret/*" { capabilities = ["deny"] }"#,
            vec!["unreachable-rule"],
        ),
        (r#"path "a/*" { capabilities = ["read"] } path "a/+/secret" { capabilities = ["deny"] }"#, vec![]),
        (r#"path "sys/policies/+/Prod" { capabilities = ["deny"] }"#, vec!["upper-case-name"]),
        (r#"path "sys/+/Prod*" { capabilities = ["deny"] }"#, vec!["upper-case-name"]),
        (r#"path "sys/policies/+/prod" { capabilities = ["deny"] }"#, vec![]),
        (r#"path "sys/policies/acl/Prod" { capabilities = ["deny"] }"#, vec![]),
        (
            r#"path "sys/policy/Prod" { capabilities = ["deny"] } path "sys/policy/prod" { capabilities = ["read"] }"#,
            vec!["duplicate-rule"],
        ),
        (r#"path "database/+/Prod" { capabilities = ["deny"] }"#, vec![]),
    ] {
        let found: Vec<&str> = lint(&source("p", text)).iter().map(|one| one.code).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn a_rule_called_unreachable_really_never_decides() {
    let set = compiled(&[r#"path "a/*" { capabilities = ["read"] } path "a/+/secret/*" { capabilities = ["deny"] }"#]);
    assert_eq!(spoken(set.capabilities("a/x/secret/y")), ["read"]);
}

/// Rules for policies whose names were written with capitals matched nothing: the host asks in lower case.
#[test]
fn a_rule_for_a_policy_counts_however_its_name_is_written() {
    for (pattern, path) in [
        ("sys/policies/acl/Prod", "sys/policies/acl/prod"),
        ("/sys/policies/acl/PROD", "sys/policies/acl/prod"),
        ("sys/policies/acl/Prod*", "sys/policies/acl/production"),
        ("sys/policies/acl/+/Prod", "sys/policies/acl/team/prod"),
        ("sys/policy/Prod", "sys/policy/prod"),
    ] {
        let text = format!(
            "path \"sys/*\" {{ capabilities = [\"read\"] }} path \"{pattern}\" {{ capabilities = [\"deny\"] }}"
        );
        let verdict = ask(&compiled(&[&text]), path, Operation::Read, &[]);
        assert_eq!(verdict.reason, Reason::Denied, "{pattern}");
        assert_eq!(verdict.rules[0].pattern, pattern, "the rule is told as it is written");
    }
    // Other names do differ in case.
    let set = compiled(&[r#"path "database/creds/Prod" { capabilities = ["read"] }"#]);
    assert_eq!(ask(&set, "database/creds/prod", Operation::Read, &[]).reason, Reason::NoRule);
}

/// The second value was taken in silence.
#[test]
fn an_attribute_that_is_written_twice_is_an_error_of_the_lint_and_still_read() {
    for (text, at) in [
        ("path \"a\" {\n  capabilities = [\"read\"]\n  capabilities = [\"deny\"]\n}", Some("capabilities\" at 3:3")),
        ("path \"a\" { policy = \"read\" policy = \"deny\" }", Some("policy\" at 1:28")),
        ("path \"a\" { allowed_parameters = { \"x\" = [1] \"x\" = [2] } }", Some("x\" at 1:45")),
        ("path \"a\" { comment = [{ x = 1 x = 2 }] }", Some("x\" at 1:31")),
        ("name = \"a\"\nname = \"b\"", Some("name\" at 2:1")),
        (r#"{"path":{"a":{"policy":"read","policy":"deny"}}}"#, Some("policy\" at 1:31")),
        ("path \"a\" { policy = \"read\" }\npath \"a\" { policy = \"deny\" }", None),
        ("path \"a\" { allowed_parameters { x = [] } allowed_parameters { y = [] } }", None),
        (r#"{"path":{"a":{"policy":"read"},"a":{"policy":"deny"}}}"#, None),
    ] {
        let found = lint(&source("p", text));
        let error = found.iter().find(|one| one.severity == Severity::Error);
        assert_eq!(error.map(|one| one.code), at.map(|_| "repeated-attribute"), "{text}: {found:?}");
        if let (Some(error), Some(at)) = (error, at) {
            assert!(error.message.contains(at), "{}", error.message);
            assert!(error.message.ends_with(" was already set. Each argument can only be defined once"));
            assert_eq!(found.iter().filter(|one| one.severity == Severity::Error).count(), 1);
        }
        // A text that was stored before this was an error does not shut its tokens out.
        assert!(PolicySet::compile(&[source("p", text)], &[], 0).is_ok(), "{text}");
    }
}

/// Errors first, whatever comes before them in the text, and no more findings than somebody reads: but an error is among them.
#[test]
fn findings_are_few_and_an_error_is_never_lost_among_warnings() {
    let warning = |n: usize| format!("path \"w{n}\" {{ capabilities = [\"read\"] comment_{n} = 1 }}\n");
    let error = "path \"e\" { capabilities = [\"raed\"] }\n";
    let found = |text: &str| lint(&source("p", text));
    let is_error = |one: &leasehold_acl::Diagnostic| one.severity == leasehold_acl::Severity::Error;
    let first_kind = found(&warning(0));
    assert!(!first_kind.is_empty());
    let mixed = found(&format!("{}{error}", warning(0)));
    assert!(is_error(&mixed[0]), "{mixed:?}");
    for count in [1, 49, 50, 51, 200] {
        let all: String = (0..count).map(|_| error).collect();
        assert_eq!(found(&all).len(), count.min(50), "{count} errors");
        let before: String = (0..count).map(warning).collect();
        let all = found(&format!("{before}{error}{error}"));
        assert!(all.len() <= 51 && is_error(&all[0]), "{count} findings before two errors: {}", all.len());
    }
}

#[test]
fn the_longest_text_is_read_and_formatted_and_a_longer_one_is_not() {
    let text = |len: usize| format!("path \"a\" {{}} #{}", "x".repeat(len - 13));
    assert_eq!(text(100).len(), 100);
    assert_eq!(refusal(&text(1 << 20)), None);
    assert!(leasehold_acl::format_policy(&text(1 << 20)).is_ok());
    let too_long = text((1 << 20) + 1);
    assert!(refusal(&too_long).unwrap().ends_with("the policy is longer than 1048576 bytes"));
    assert_eq!(leasehold_acl::format_policy(&too_long).unwrap_err().why, "the policy is longer than 1048576 bytes");
}

/// Comments and the empty lines between them stay as they were; of many empty lines one is left, and none after the last comment.
#[test]
fn comments_keep_their_places_and_the_lines_between_them() {
    for (text, formatted) in [
        ("# a\n# b\npath \"x\" {}\n", "# a\n# b\npath \"x\" {}\n"),
        ("# a\n\n\n# b\npath \"x\" {}\n", "# a\n\n# b\npath \"x\" {}\n"),
        ("/* a\nb */\n# c\npath \"x\" {}\n", "/* a\nb */\n# c\npath \"x\" {}\n"),
        ("/* a\nb */\n\n# c\npath \"x\" {}\n", "/* a\nb */\n\n# c\npath \"x\" {}\n"),
    ] {
        assert_eq!(leasehold_acl::format_policy(text).unwrap(), formatted, "{text:?}");
    }
}

/// The path that a text names, written with each escape of its notation.
#[test]
fn escapes_stand_for_their_characters_in_either_notation() {
    let grants = |text: &str, path: &str| {
        let set = compiled(&[text]);
        assert_eq!(spoken(set.capabilities(path)), ["read"], "{text}: {path:?}");
        assert_eq!(spoken(set.capabilities("other")), ["deny"], "{text}");
    };
    for (written, path) in [
        (r#"a\"b"#, "a\"b"),
        (r"a\\b", "a\\b"),
        (r"a\/b", "a/b"),
        (r"a\bb", "a\u{8}b"),
        (r"a\fb", "a\u{c}b"),
        (r"a\nb", "a\nb"),
        (r"a\rb", "a\rb"),
        (r"a\tb", "a\tb"),
        (r"a\u0041b", "aAb"),
        (r"a\u00E9b", "aéb"),
        (r"a\ud83d\ude00b", "a😀b"),
        (r"a\uD800\uDC00b", "a\u{10000}b"),
        (r"a\udbff\udfffb", "a\u{10ffff}b"),
    ] {
        grants(&format!(r#"{{"path": {{"{written}": {{"capabilities": ["read"]}}}}}}"#), path);
    }
    for wrong in [r"a\x", r"a\ud83d", r"a\ud83dx", r"a\ud83d\n", r"a\ud83d\u0041", r"a\ude00", r"a\u00g1", r"a\u12"] {
        let text = format!(r#"{{"path": {{"{wrong}": {{"capabilities": ["read"]}}}}}}"#);
        assert!(refusal(&text).is_some(), "{wrong}");
    }
    for (written, path) in [
        (r#"a\"b"#, "a\"b"),
        (r"a\\b", "a\\b"),
        (r"a\nb", "a\nb"),
        (r"a\tb", "a\tb"),
        (r"a\101b", "aAb"),
        (r"a\x41b", "aAb"),
        (r"a\u00e9b", "aéb"),
        (r"a\U0001F600b", "a😀b"),
        // Between braces of an interpolation all is as it is written, quotes and backslashes too.
        (r#"a${b("c")}\x41"#, r#"a${b("c")}A"#),
        (r"a${b{c}\x41}\x41", r"a${b{c}\x41}A"),
        (r"a$b\x41", "a$bA"),
        (r"a}b{\x41", "a}b{A"),
        (r"a${\x41}${\x41}\x41", r"a${\x41}${\x41}A"),
    ] {
        grants(&format!("path \"{written}\" {{ capabilities = [\"read\"] }}"), path);
    }
    for wrong in [r"a\q", r"a\xg1", r"a\u12g4", r"a\U0001F60g", r"a\8", "a\nb"] {
        assert!(refusal(&format!("path \"{wrong}\" {{ capabilities = [\"read\"] }}")).is_some(), "{wrong}");
    }
}

/// What is a number, and what is none: only the first is taken where a parameter's value stands.
#[test]
fn numbers_have_the_forms_of_hcl() {
    let text = |value: &str| {
        format!("path \"a\" {{ capabilities = [\"read\"] allowed_parameters = {{ \"b\" = [{value}] }} }}")
    };
    for number in ["0", "7", "-7", "017", "0x1F", "0XaB", "1.5", "-1.5", "1e3", "1E+3", "1.5e-3", ".5"] {
        assert_eq!(refusal(&text(number)), None, "{number}");
    }
    for none in ["+7", "0x", "0xg", "-", "..", "1..5", "e3", "-x"] {
        assert!(refusal(&text(none)).is_some(), "{none}");
    }
}
