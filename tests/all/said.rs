//! What is said to people beyond Vault's words: what to do about a refusal, as a further entry of `errors` or a warning.
//!
//! The first entry is what OpenBao says, and it is asked here as well.

use serde_json::{Value, json};

use super::auth::enable;
use crate::support::{Answer, Bao, Kind, Server};

/// A policy for `k/*` and what it says besides.
fn rule(besides: &str) -> String {
    format!("path \"k/*\" {{\n  capabilities = [\"create\", \"read\", \"update\", \"list\"]\n  {besides}\n}}\n")
}

fn prepared(server: Server) -> Server {
    enable(&server, "approle", "approle");
    enable(&server, "jwt", "jwt");
    server.root().post("sys/mounts/k", json!({ "type": "kv" })).assert_status(204);
    server
}

fn ours() -> Server {
    prepared(Server::dev())
}

/// A refusal is `text`, and ours says `help` besides.
#[track_caller]
fn refused(server: &Server, answer: Answer, status: u16, text: &str, help: &str) {
    assert_eq!((answer.status, answer.at("/errors/0")), (status, json!(text)), "{answer}");
    match (server.kind(), help) {
        (Kind::OpenBao, _) | (Kind::Leasehold, "") => assert_eq!(answer.at("/errors/1"), Value::Null, "{answer}"),
        (Kind::Leasehold, help) => assert_eq!(answer.at("/errors/1"), json!(help), "{answer}"),
    }
}

fn multi(text: &str) -> String {
    format!("1 error occurred:\n\t* {text}\n\n")
}

#[test]
fn refusals_say_what_to_do() {
    refusals(&ours());
}

#[test]
fn refusals_begin_as_those_of_a_real_openbao() {
    let Some(bao) = Bao::find("refusals that say more, against a real OpenBao") else { return };
    refusals(&prepared(Server::openbao(&bao)));
}

fn refusals(server: &Server) {
    let root = server.root();
    let asked =
        |path: &str, body: Value, text: &str, help: &str| refused(server, root.post(path, body), 400, text, help);
    asked(
        "sys/quotas/rate-limit/q",
        json!({ "ratee": 5 }),
        "'rate' is invalid",
        "`ratee` is not known: did you mean `rate`?",
    );
    // What is far from every field, or near one that is given, is not what went wrong.
    asked("sys/quotas/rate-limit/q", json!({ "speed": 5 }), "'rate' is invalid", "");
    asked("sys/quotas/rate-limit/q", json!({ "rate": 0, "ratee": 5 }), "'rate' is invalid", "");
    asked(
        "sys/policies/acl/p",
        json!({ "polcy": "x" }),
        "'policy' parameter not supplied or empty",
        "`polcy` is not known: did you mean `policy`?",
    );
    asked(
        "sys/policies/acl/p",
        json!({ "policy": "path \"a\" {\n  capabilites = [\"read\"]\n}" }),
        "failed to parse policy: path \"a\": 1 error occurred:\n\t* invalid key \"capabilites\" on line 2\n\n",
        "line 2: did you mean \"capabilities\"?",
    );
    asked(
        "auth/jwt/role/r",
        json!({ "role_type": "jwt", "user_claim": "sub" }),
        "must have at least one bound constraint when creating/updating a role",
        "give bound_audiences, bound_subject, bound_claims or token_bound_cidrs",
    );
    asked(
        "auth/jwt/role/r",
        json!({ "role_type": "jwt", "bound_subject": "x" }),
        "a user claim must be defined on the role",
        "user_claim names the claim that says who somebody is, as `sub`",
    );
    for (text, said, help) in [
        (
            "lenght = 20\nrule \"charset\" {\n  charset = \"abc\"\n}",
            "1 error occurred:\n\t* length must be > 0\n\n",
            "`lenght` is not known in a password policy: did you mean `length`?",
        ),
        (
            "length = 20\nrule \"charset\" {\n  charst = \"abc\"\n}",
            "1 error occurred:\n\t* no charset specified\n\n",
            "`charst` is not known in a password policy: did you mean `charset`?",
        ),
    ] {
        let said = multi(&format!("invalid password policy: {said}"));
        asked("sys/policies/password/p", json!({ "policy": text }), &said, help);
    }
}

#[test]
fn an_answer_says_what_an_unknown_field_may_have_meant() {
    let server = ours();
    let root = server.root();
    root.post("auth/token/create", json!({ "polices": ["a"] })).assert_status(200).assert_at(
        "/warnings",
        json!([
            "Endpoint ignored these unrecognized parameters: [polices]",
            "`polices` is not known: did you mean `policies`?",
        ]),
    );
    let policy = "length = 20\nrule \"charset\" {\n  charset = \"abc\"\n  min_chars = 3\n}";
    root.post("sys/policies/password/p", json!({ "policy": policy }))
        .assert_status(200)
        .assert_at("/warnings", json!(["`min_chars` is not known in a password policy: did you mean `min-chars`?"]));
}

#[test]
fn a_policy_that_names_groups_which_do_not_exist_is_stored_with_a_warning() {
    let server = ours();
    let root = server.root();
    let made = root.post("identity/group", json!({ "name": "Security" })).assert_status(200).text("/data/id");
    let policy = |path: &str, name: &str, id: &str| {
        let factor = format!("identity {{ group_names = [\"{name}\"] group_ids = [\"{id}\"] approvals = 1 }}");
        let control = format!("control_group {{ factor \"f\" {{ controlled_capabilities = [\"read\"] {factor} }} }}");
        format!("path \"{path}\" {{ capabilities = [\"read\"] {control} }}")
    };
    let write = |text: &str| root.post("sys/policies/acl/p", json!({ "policy": text }));
    write(&policy("a/{{identity.groups.names.Security.id}}", "Security", &made)).assert_status(204);
    write(&policy("a/{{identity.groups.ids.none.name}}", "security", "nothing")).assert_status(200).assert_at(
        "/warnings",
        json!([
            "a control group asks members of the identity group named \"security\", which does not exist, but \"Security\" does: until \
             it does, nobody can approve as one of them",
            "a template asks for the identity group with the id \"none\", which does not exist: until it does, its rule counts for nobody",
            "a control group asks members of the identity group with the id \"nothing\", which does not exist: until it does, nobody \
             can approve as one of them",
        ]),
    );
    // The text is stored, and a change of something else says it again.
    let patched = root.bytes(
        "PATCH",
        "sys/policies/acl/p",
        b"{\"cas_required\": false}",
        &[("Content-Type", "application/merge-patch+json")],
    );
    assert_eq!(patched.assert_status(200).at("/warnings").as_array().map(Vec::len), Some(3));
    root.get("sys/policies/acl/p").assert_at("/data/version", 3);
}

#[test]
fn a_control_group_waits_for_a_month_at_most() {
    let server = ours();
    let root = server.root();
    for (ttl, is_taken) in [("768h", true), ("32d", true), ("769h", false), ("876000h", false)] {
        let factor =
            "factor \"f\" { controlled_capabilities = [\"read\"] identity { group_ids = [\"x\"] approvals = 1 } }";
        let text = rule(&format!("control_group {{ ttl = \"{ttl}\" {factor} }}"));
        let answer = root.post("sys/policies/acl/p", json!({ "policy": text }));
        match is_taken {
            true => drop(answer.assert_status(200)),
            false => drop(answer.assert_error_has(400, "path control_group: invalid ttl: it is at most 768h")),
        }
    }
}
