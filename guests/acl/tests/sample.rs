//! 150 cases that OpenBao 2.7.2 answered.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use leasehold_acl::{Operation, PolicySet, Request, Source};
use serde_json::Value;
use support::{request, source, spoken};

const DEFAULT: &str = include_str!("../../../host/core/src/policy/default.hcl");
const WRAPPING: &str = include_str!("../../../host/core/src/policy/response-wrapping.hcl");

/// Who asks in the rows about templates. The names in `@…@` stand for values that the recording server invented.
const ENTITY: [(&str, &str); 6] = [
    ("identity.entity.id", "e-1"),
    ("identity.entity.name", "alice"),
    ("identity.entity.metadata.team", "payments"),
    ("identity.entity.aliases.acc-1.name", "alice-up"),
    ("identity.groups.ids.g-1.name", "staff"),
    ("identity.groups.names.staff.id", "g-1"),
];
const STAND_INS: [(&str, &str); 4] = [("@ID@", "e-1"), ("@NAME@", "alice"), ("@UP@", "acc-1"), ("@GID@", "g-1")];

#[test]
fn every_recorded_case_is_answered_as_recorded() {
    let mut asked = 0;
    let mut wrong = Vec::new();
    for line in include_str!("acl-sample.jsonl").lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        asked += 1;
        if let Some(answer) = differing(&row) {
            wrong.push(format!("{answer} for {line}"));
        }
    }
    assert_eq!(asked, 150);
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
}

/// What we answered, when it is not what was recorded.
fn differing(row: &Value) -> Option<String> {
    let path = stood_in(row["path"].as_str().unwrap());
    let texts: Vec<String> =
        row["policies"].as_array().unwrap().iter().map(|p| stood_in(p.as_str().unwrap())).collect();
    if texts == ["@root"] {
        // Root is no text: the host answers for it, and a set that names it must not compile.
        let refused = PolicySet::compile(&[source("root", "")], &[], 0).is_err();
        return (!refused).then(|| "root compiled".to_owned());
    }
    let mut sources: Vec<Source> = vec![source("default", DEFAULT)];
    if texts != ["@default"] {
        sources.extend(texts.iter().enumerate().map(|(index, text)| source(&format!("p{index}"), text)));
    }
    let entity = row["entity"].as_bool().unwrap_or(false);
    let identity: Vec<(String, String)> =
        ENTITY.iter().filter(|_| entity).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let set = PolicySet::compile(&sources, &identity, 1_800_000_000);
    let answer = match row["kind"].as_str().unwrap() {
        "syntax" => Value::from(if set.is_ok() { "accept" } else { "refuse" }),
        "caps" => Value::from(spoken(set.unwrap().capabilities(&path))),
        "req" => Value::from(if set.unwrap().evaluate(&implied(row, &path)).allowed { "allow" } else { "deny" }),
        other => panic!("unknown kind {other}"),
    };
    (answer != row["expected"]).then(|| answer.to_string())
}

fn implied(row: &Value, path: &str) -> Request {
    let operation = match row["op"].as_str().unwrap() {
        "read" => Operation::Read,
        "list" => Operation::List,
        "delete" => Operation::Delete,
        "create-new" => Operation::Create,
        "update-existing" => Operation::Update,
        other => panic!("unknown operation {other}"),
    };
    let path = if operation == Operation::List && !path.ends_with('/') { format!("{path}/") } else { path.to_owned() };
    let data = row["data"].as_object();
    let parameters = data.into_iter().flatten();
    Request {
        needs_sudo: row["group"] == "root-paths",
        wrap_ttl: row["wrap"].as_str().map(|ttl| match ttl {
            "30s" => 30,
            "2m" => 120,
            other => panic!("unknown TTL {other}"),
        }),
        parameters: parameters
            .map(|(name, value)| leasehold_acl::Parameter { name: name.clone(), value: Some(value.to_string()) })
            .collect(),
        ..request(&path, operation)
    }
}

fn stood_in(text: &str) -> String {
    STAND_INS.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

#[test]
fn the_policy_of_a_wrapping_token_reaches_its_response_only() {
    let set = PolicySet::compile(&[source("response-wrapping", WRAPPING)], &[], 0).unwrap();
    for (path, expected) in [
        ("cubbyhole/response", vec!["create", "read"]),
        ("cubbyhole/other", vec!["deny"]),
        ("sys/wrapping/unwrap", vec!["update"]),
        ("auth/token/revoke-self", vec!["update"]),
        ("auth/token/lookup-self", vec!["deny"]),
    ] {
        assert_eq!(spoken(set.capabilities(path)), expected, "{path}");
    }
}

#[test]
fn the_default_policies_give_no_warning() {
    for (name, text) in [("default", DEFAULT), ("response-wrapping", WRAPPING)] {
        assert_eq!(leasehold_acl::lint(&source(name, text)), [], "{name}");
    }
}
