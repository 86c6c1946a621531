//! The shipped components against the same logic as native code: they agree on every case.

use leasehold_acl as acl;
use leasehold_core::request::Object;
use leasehold_core::seams::sandbox as seam;
use leasehold_core::seams::sandbox::{AclError, AclEvaluator as _, AclRequest, Dialect, Reason, TemplateRenderer as _};
use leasehold_model::{Capabilities, Operation, Ttl};
use leasehold_sandbox::Sandbox;
use leasehold_statements as statements;
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{NOW, policy, sandbox};

const SAMPLE: &str = include_str!("../../../../guests/acl/tests/acl-sample.jsonl");

fn bits(theirs: acl::Capabilities) -> Capabilities {
    let pairs = [
        ("create", Capabilities::CREATE),
        ("read", Capabilities::READ),
        ("update", Capabilities::UPDATE),
        ("delete", Capabilities::DELETE),
        ("list", Capabilities::LIST),
        ("scan", Capabilities::SCAN),
        ("patch", Capabilities::PATCH),
        ("sudo", Capabilities::SUDO),
        ("deny", Capabilities::DENY),
    ];
    let held = pairs.into_iter().filter(|(name, _)| theirs.contains(acl::Capabilities::named(name).unwrap()));
    held.fold(Capabilities::NONE, |sum, (_, one)| sum.union(one))
}

fn translated(verdict: acl::Verdict) -> seam::Verdict {
    let rules = verdict.rules.into_iter();
    seam::Verdict {
        allowed: verdict.allowed,
        capabilities: bits(verdict.capabilities),
        reason: match verdict.reason {
            acl::Reason::Granted => Reason::Granted,
            acl::Reason::NoRule => Reason::NoRule,
            acl::Reason::Denied => Reason::Denied,
            acl::Reason::Missing(missing) => Reason::Missing(bits(missing)),
            acl::Reason::Parameter(text) => Reason::Parameter(text),
            acl::Reason::Wrapping(text) => Reason::Wrapping(text),
            acl::Reason::Pagination(text) => Reason::Pagination(text),
            acl::Reason::Unapproved => Reason::Unapproved,
        },
        rules: rules
            .map(|rule| seam::RuleRef {
                policy: rule.policy,
                pattern: rule.pattern,
                line: rule.at.line,
                column: rule.at.column,
            })
            .collect(),
        limit: verdict.limit,
        control_group: verdict.control_group.map(|control| seam::ControlGroup {
            ttl: Ttl::from_secs(control.ttl),
            factors: control
                .factors
                .into_iter()
                .map(|one| seam::Factor { name: one.name, approvals: one.approvals, given: one.given })
                .collect(),
        }),
    }
}

fn native_approval(approval: &seam::Approval) -> acl::Approval {
    let (group_names, group_ids) = approval.groups.iter().cloned().unzip();
    acl::Approval { entity: approval.entity.clone(), group_names, group_ids, age: approval.age.as_secs() }
}

struct Case {
    texts: Vec<String>,
    path: String,
    operation: Operation,
    sudo: bool,
    wrap: Option<u64>,
    data: Object,
    approvals: Vec<seam::Approval>,
}

/// Both sides on one case; panics with the case where they differ.
async fn agree(sandbox: &Sandbox, case: &Case) {
    let sources: Vec<_> = case.texts.iter().enumerate().map(|(n, text)| policy(&format!("p{n}"), text)).collect();
    let native_sources: Vec<_> = sources
        .iter()
        .map(|one| acl::Source { name: one.name.clone(), text: one.text.to_string(), ..acl::Source::default() })
        .collect();
    let native = acl::PolicySet::compile(&native_sources, &[], NOW as u64);
    let guest = sandbox.compile_acl(&sources, &seam::IdentityValues::new()).await;
    let (native, guest) = match (native, guest) {
        (Ok(native), Ok(guest)) => (native, guest.id),
        (Err(native), Err(AclError::Refused(guest))) => {
            let native: Vec<_> = native.iter().map(|one| (&one.message, one.start.line, one.start.column)).collect();
            let guest: Vec<_> = guest.iter().map(|one| (&one.message, one.line, one.column)).collect();
            assert_eq!(native, guest, "{:?}", case.texts);
            return;
        }
        (native, guest) => panic!("{:?}: native {native:?}, guest {guest:?}", case.texts),
    };
    let operation = match case.operation {
        Operation::Create => acl::Operation::Create,
        Operation::Read => acl::Operation::Read,
        Operation::Update => acl::Operation::Update,
        Operation::Patch => acl::Operation::Patch,
        Operation::Delete => acl::Operation::Delete,
        Operation::List => acl::Operation::List,
        Operation::Scan => acl::Operation::Scan,
        other => panic!("{other}"),
    };
    let request = acl::Request {
        path: case.path.clone(),
        operation,
        needs_sudo: case.sudo,
        wrap_ttl: case.wrap,
        parameters: case
            .data
            .iter()
            .map(|(name, value)| acl::Parameter { name: name.clone(), value: Some(value.to_string()) })
            .collect(),
        requester: Some("alice".to_owned()),
        approvals: case.approvals.iter().map(native_approval).collect(),
    };
    let ask = AclRequest {
        path: &case.path,
        operation: case.operation,
        needs_sudo: case.sudo,
        wrap_ttl: case.wrap.map(Ttl::from_secs),
        data: &case.data,
        requester: Some("alice"),
        approvals: &case.approvals,
    };
    let verdict = sandbox.decide(&guest, &ask).await.unwrap();
    assert_eq!(verdict, translated(native.evaluate(&request)), "{:?} {}", case.texts, case.path);
    let path = case.path.as_str();
    assert_eq!(sandbox.capabilities(&guest, &[path]).await.unwrap(), [bits(native.capabilities(path))]);
    assert_eq!(sandbox.grants_below(&guest, path).await.unwrap(), native.grants_below(path));
}

#[tokio::test]
async fn component_and_native_code_agree_on_every_recorded_case() {
    let (sandbox, _) = sandbox();
    let mut asked = 0;
    for line in SAMPLE.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let texts: Vec<String> =
            row["policies"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
        let operation = match row["op"].as_str().unwrap_or("read") {
            "list" => Operation::List,
            "delete" => Operation::Delete,
            "create-new" => Operation::Create,
            "update-existing" => Operation::Update,
            _ => Operation::Read,
        };
        let mut path = row["path"].as_str().unwrap().to_owned();
        if operation == Operation::List && !path.ends_with('/') {
            path.push('/');
        }
        let wrap = row["wrap"].as_str().map(|ttl| if ttl == "2m" { 120 } else { 30 });
        let data = row["data"].as_object().cloned().unwrap_or_default();
        agree(
            &sandbox,
            &Case { texts, path, operation, sudo: row["group"] == "root-paths", wrap, data, approvals: Vec::new() },
        )
        .await;
        asked += 1;
    }
    assert_eq!(asked, 150);
}

fn text() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "+", "", "c"]);
    let end = prop::sample::select(vec!["", "*", "/*", "/", "b*"]);
    let capability = prop::sample::select(vec![
        "create", "read", "update", "delete", "list", "patch", "scan", "sudo", "deny", "bad",
    ]);
    let extra = prop::sample::select(vec![
        "",
        "",
        "  required_parameters = [\"x\"]\n",
        "  denied_parameters = { \"y\" = [\"1\"] }\n",
        "  allowed_parameters = { \"x\" = [], \"z\" = [\"a*\"] }\n",
        "  min_wrapping_ttl = \"1m\"\n",
        "  pagination_limit = 5\n",
        "  control_group { factor \"f\" { controlled_capabilities = [\"read\", \"update\"] identity { group_names = [\"g\"] approvals = 1 } } }\n",
        "  control_group { ttl = 60 self_auth_allowed = true factor \"f\" { controlled_capabilities = [\"list\", \"create\", \"read\"] identity { group_ids = [\"h\"] approvals = 2 } } }\n",
    ]);
    let rule = (prop::collection::vec(segment, 1..4), end, prop::collection::vec(capability, 0..3), extra).prop_map(
        |(segments, end, capabilities, extra)| {
            format!("path {:?} {{\n  capabilities = {capabilities:?}\n{extra}}}\n", segments.join("/") + end)
        },
    );
    prop_oneof![
        9 => prop::collection::vec(rule, 0..6).prop_map(|rules| rules.concat()),
        1 => "[a-z{}=\"\\[\\]/* \n]{0,60}",
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "abc", "", "c"]);
    let operation = prop::sample::select(vec![
        Operation::Create,
        Operation::Read,
        Operation::Update,
        Operation::Patch,
        Operation::Delete,
        Operation::List,
        Operation::Scan,
    ]);
    let value = prop::sample::select(vec!["1", "abc", "b", ""]);
    let data = prop::collection::btree_map(prop::sample::select(vec!["x", "y", "Z", "limit"]), value, 0..3);
    let approver = prop::sample::select(vec!["alice", "bob", "carol"]);
    let approval = (approver, prop::sample::select(vec!["g", "h", "x"]), prop::sample::select(vec![0, 61]));
    let approvals = prop::collection::vec(approval, 0..4);
    (
        prop::collection::vec(text(), 1..3),
        prop::collection::vec(segment, 1..5),
        operation,
        any::<bool>(),
        prop::option::of(prop::sample::select(vec![30u64, 120])),
        data,
        approvals,
    )
        .prop_map(|(texts, segments, operation, sudo, wrap, data, approvals)| Case {
            texts,
            path: segments.join("/"),
            operation,
            sudo,
            wrap,
            data: data.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect(),
            approvals: approvals
                .into_iter()
                .map(|(entity, group, age)| seam::Approval {
                    entity: entity.to_owned(),
                    groups: vec![(group.to_owned(), group.to_owned())],
                    age: Ttl::from_secs(age),
                })
                .collect(),
        })
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} {} {:?}", self.texts, self.operation, self.path, self.data)
    }
}

#[test]
fn component_and_native_code_agree_on_random_policies_and_requests() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (sandbox, _) = sandbox();
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(case in case())| {
        runtime.block_on(agree(&sandbox, &case));
    });
}

#[test]
fn component_and_native_code_agree_on_random_templates() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (sandbox, _) = sandbox();
    let piece = prop::sample::select(vec![
        "CREATE ROLE ",
        "\"{{name}}\"",
        "'{{password}}'",
        "{{ name }}",
        "{{nmae}}",
        "{{",
        "}}",
        "\\{{name}}",
        "{{#if name}}",
        "{{/if}}",
        "{{ident name}}",
        "{{literal name}}",
        "{{{name}}}",
        " VALID UNTIL ",
        "{{expiration}}",
        ";\n",
        "$$ ",
        "é",
    ]);
    let templates = prop::collection::vec(prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat()), 0..4);
    let dialect = prop::sample::select(vec![Dialect::Handlebars, Dialect::Plain]);
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(texts in templates, dialect in dialect)| {
        let values = [("name", "v-x"), ("password", "Placeholder"), ("expiration", "2026-11-23")];
        let theirs = match dialect {
            Dialect::Handlebars => statements::Dialect::Handlebars,
            Dialect::Plain => statements::Dialect::Plain,
        };
        let owned: Vec<(String, String)> =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let native = statements::render(&texts, theirs, &owned);
        let guest = runtime.block_on(sandbox.render(&texts, dialect, &values));
        match (native, guest) {
            (Ok(native), Ok(guest)) => prop_assert_eq!(native, guest),
            (Err(native), Err(seam::RenderError::Refused(guest))) => {
                prop_assert_eq!(native.message, guest.message);
                prop_assert_eq!((native.line, native.column), (guest.line, guest.column));
            }
            (native, guest) => prop_assert!(false, "native {:?}, guest {:?}", native, guest),
        }
    });
}
