//! Password policies, beside OpenBao's where that is given: host/docs/password-policies.md.

use serde_json::{Value, json};

use crate::support::{Bao, Credential, Database, Server};

const ABC: &str = "length = 20\nrule \"charset\" {\n  charset = \"abc\"\n  min-chars = 1\n}\n";

/// Texts, and why they are no policies; empty: they are.
const TEXTS: &[(&str, &str)] = &[
    (ABC, ""),
    ("length = 20\nrule \"charset\" { charset = \"abc\" min-chars = 1 }", ""),
    ("length = 4 rule \"charset\" {\n charset = \"ab\" }", ""),
    ("length = 100\nrule \"charset\" {\n charset = \"abc\"\n}", ""),
    ("length = 0x14\nrule \"charset\" {\n charset = \"a b\"\n}", ""),
    ("length = 20.5\nrule \"charset\" {\n charset = \"ab\\u20ac\"\n}", ""),
    ("# a\nlength = 20 // b\nfoo = 1\nrule \"charset\" {\n charset = \"aab€\" /* c */ bar = 2\n min-chars = -1\n}", ""),
    ("Length = 20\nrule \"charset\" {\n Charset = \"abc\"\n}", ""),
    ("{\"length\":20,\"rule\":[{\"charset\":[{\"charset\":\"abc\",\"min-chars\":1}]}]}", ""),
    ("{\"length\":20,\"rule\":{\"charset\":{\"charset\":\"abc\"}}}", ""),
    ("length = 3\nrule \"charset\" {\n charset = \"abc\"\n}", "passwords must be between 4 and 100 characters"),
    ("length = 101\nrule \"charset\" {\n charset = \"abc\"\n}", "passwords must be between 4 and 100 characters"),
    ("length = 0\nrule \"charset\" {\n charset = \"abc\"\n}", "1 error occurred:\n\t* length must be > 0\n\n"),
    ("length = -3\nrule \"charset\" {\n charset = \"abc\"\n}", "1 error occurred:\n\t* length must be > 0\n\n"),
    ("rule \"charset\" {\n charset = \"abc\"\n}", "1 error occurred:\n\t* length must be > 0\n\n"),
    ("length = 20", "1 error occurred:\n\t* no charset specified\n\n"),
    (" ", "2 errors occurred:\n\t* length must be > 0\n\t* no charset specified\n\n"),
    ("length = 20\ncharset = \"abcdef\"", "1 error occurred:\n\t* no charset specified\n\n"),
    ("length = 20\nrule \"charset\" {\n charset = \"\"\n}", "1 error occurred:\n\t* no charset specified\n\n"),
    ("length = 20\nRule \"charset\" {\n charset = \"ab\"\n}", "1 error occurred:\n\t* no charset specified\n\n"),
    ("length = 20\nrule \"charset\" \"x\" {\n charset = \"ab\"\n}", "1 error occurred:\n\t* no charset specified\n\n"),
    (
        "length = 20\nrule \"charset\" {\n charset = \"abc\"\n min-chars = 11\n}\nrule \"charset\" {\n charset = \"de\"\n min-chars = 11\n}",
        "1 error occurred:\n\t* specified rules require at least 22 characters but 20 is specified\n\n",
    ),
    (
        "length = 20\nrule \"charset\" {\n charset = \"ab\\n\"\n}",
        "1 error occurred:\n\t* non-printable character in charset\n\n",
    ),
    (
        "length = 20\nrule \"charset\" {\n charset = <<EOF\nabc\nEOF\n}",
        "1 error occurred:\n\t* non-printable character in charset\n\n",
    ),
    (
        "length = 20\nrule \"charset\" {\n charset = \"a\u{a0}b\u{200b}\"\n}",
        "1 error occurred:\n\t* non-printable character in charset\n\n",
    ),
    (
        "length = \"20\"\nrule \"charset\" {\n charset = \"abc\"\n}",
        "failed to decode configuration: decoding failed due to the following error(s):\n\n'length' expected type 'int', got unconvertible type 'string'",
    ),
    (
        "length = [20]\nrule \"charset\" {\n charset = \"abc\"\n}",
        "failed to decode configuration: decoding failed due to the following error(s):\n\n'length' expected type 'int', got unconvertible type '[]interface {}'",
    ),
    (
        "length = 20\nrule \"other\" {\n charset = \"abc\"\n}",
        "unable to parse rules: unable to parse rule other: unrecognized rule type other",
    ),
    (
        "length = 20\nrule {\n charset = \"abc\"\n}",
        "unable to parse rules: unable to get rule info: unable to get rule data: '' source data must be an array or slice, got string",
    ),
    (
        "length = 20\nrule = \"charset\"",
        "unable to retrieve rules: '' source data must be an array or slice, got string",
    ),
    (
        "length = 20\nrule \"charset\" {\n charset = 5\n}",
        "unable to parse rules: unable to parse rule charset: failed to parse charset restriction: decoding failed due to the following error(s):\n\n'charset' source data must be an array or slice, got int",
    ),
    (
        "length = 20\nrule \"charset\" {\n charset = [\"abc\"]\n}",
        "unable to parse rules: unable to parse rule charset: failed to parse charset restriction: decoding failed due to the following error(s):\n\n'charset[0]' expected type 'int32', got unconvertible type 'string'",
    ),
    (
        "length = 20\nrule \"charset\" {\n charset = \"abc\"\n min-chars = true\n}",
        "unable to parse rules: unable to parse rule charset: failed to parse charset restriction: decoding failed due to the following error(s):\n\n'min-chars' expected type 'int', got unconvertible type 'bool'",
    ),
    ("this is not hcl {", "unable to decode: At 1:19: object expected closing RBRACE got: EOF"),
    ("length = \nrule \"charset\" {\n charset = \"ab\" }", "unable to decode: At 2:1: Unknown token: 2:1 IDENT rule"),
    ("= 5", "unable to decode: At 1:1: no object keys found!"),
    ("length = 20\nrule \"charset\" {\n charset = \"a\\qb\"\n}", "unable to decode: At 3:15: illegal char escape"),
    ("5", "unable to decode: At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: NUMBER"),
];

#[test]
fn a_policy_is_written_read_listed_used_and_deleted() {
    walk(&Server::dev());
}

#[test]
fn a_real_openbao_answers_alike() {
    let Some(bao) = Bao::find("password policies, against a real OpenBao") else { return };
    walk(&Server::openbao(&bao));
}

fn walk(server: &Server) {
    let root = server.root();
    root.list("sys/policies/password").assert_errors(404, &[]);
    root.get("sys/policies/password").assert_multi(405, "unsupported operation");
    for path in ["sys/policies/password/none", "sys/policies/password/none/generate"] {
        root.get(path).assert_multi(404, "policy does not exist");
    }
    root.delete("sys/policies/password/none").assert_status(204);
    for body in [json!({}), json!({ "policy": "" })] {
        root.put("sys/policies/password/a", body).assert_multi(400, "missing policy");
    }
    for (text, why) in TEXTS {
        let answer = root.put("sys/policies/password/t", json!({ "policy": text }));
        match *why {
            "" => drop(answer.assert_status(204)),
            why if why.starts_with("passwords must") => drop(answer.assert_multi(400, why)),
            why => drop(answer.assert_multi(400, &format!("invalid password policy: {why}"))),
        }
        if why.is_empty() {
            root.get("sys/policies/password/t").assert_at("/data", json!({ "policy": text }));
            let made = root.get("sys/policies/password/t/generate").assert_status(200).text("/data/password");
            assert!(!made.is_empty(), "{text}");
        }
    }
    // In base64; the answer has the text.
    let packed = "bGVuZ3RoID0gMjAKcnVsZSAiY2hhcnNldCIgewogY2hhcnNldCA9ICJhYmMiCn0K";
    root.post("sys/policies/password/Upper", json!({ "policy": packed })).assert_status(204);
    root.get("sys/policies/password/Upper")
        .assert_at("/data/policy", "length = 20\nrule \"charset\" {\n charset = \"abc\"\n}\n");
    // Letters of another case name another policy, and a slash makes no folder.
    root.get("sys/policies/password/upper").assert_multi(404, "policy does not exist");
    root.post("sys/policies/password/x/y", json!({ "policy": ABC })).assert_status(204);
    let mut names = root.list("sys/policies/password").assert_status(200).at("/data/keys");
    names.as_array_mut().unwrap().sort_by_key(Value::to_string);
    assert_eq!(names, json!(["Upper", "t", "x/y"]));
    let made = root.get("sys/policies/password/x/y/generate").assert_status(200).text("/data/password");
    assert!(made.len() == 20 && made.chars().all(|c| "abc".contains(c)), "{made}");
    for (method, path) in [
        ("POST", "sys/policies/password/x/y/generate"),
        ("LIST", "sys/policies/password/x/y"),
        ("DELETE", "sys/policies/password"),
    ] {
        root.request(method, path, Some(json!({}))).assert_multi(405, "unsupported operation");
    }
    for name in ["Upper", "t", "x/y"] {
        root.delete(&format!("sys/policies/password/{name}")).assert_status(204);
    }
    root.list("sys/policies/password").assert_errors(404, &[]);
    // A token without a rule for it learns nothing.
    let nobody =
        server.as_token(&root.post("auth/token/create", json!({ "policies": "default" })).text("/auth/client_token"));
    for path in ["sys/policies/password/x", "sys/policies/password/x/generate"] {
        nobody.get(path).assert_multi(403, "permission denied");
    }
}

/// OpenBao takes the policy, and tries for a second each time without finding a password.
#[test]
fn a_policy_that_few_passwords_follow_makes_them_at_once() {
    let server = Server::dev();
    let rule = |c: char| format!("rule \"charset\" {{\n charset = \"{c}\"\n min-chars = 10\n}}\n");
    let text = format!("length = 100\n{}", ('a'..='j').map(rule).collect::<String>());
    server.root().put("sys/policies/password/hard", json!({ "policy": text })).assert_status(204);
    let made = server.root().get("sys/policies/password/hard/generate").assert_status(200).text("/data/password");
    assert!(('a'..='j').all(|c| made.matches(c).count() == 10), "{made}");
    let long = format!("length = 20\n# {}\n", "x".repeat(40_000));
    server
        .root()
        .put("sys/policies/password/long", json!({ "policy": long }))
        .assert_multi(400, "invalid password policy: it is longer than 32768 bytes");
}

#[test]
fn leased_and_rotated_passwords_follow_the_policy_of_their_role_or_connection() {
    let database = Database::fresh();
    let server = Server::dev();
    let root = server.root();
    // Signs that mean something in SQL and in a URL, and letters that are no ASCII.
    let signs = "length = 24\nrule \"charset\" {\n charset = \"'\\\"\\\\$@/:?#%& {};-ä€ﬁ\"\n}\n";
    let digits = "length = 30\nrule \"charset\" {\n charset = \"0123456789\"\n}\n";
    root.put("sys/policies/password/signs", json!({ "policy": signs })).assert_status(204);
    root.put("sys/policies/password/digits", json!({ "policy": digits })).assert_status(204);
    server.connect(&database);
    server.role("plain", json!({})).assert_status(204);
    assert_eq!(root.credential("plain").password.len(), 24, "without a policy");

    let mut config = database.config();
    for authentication in ["scram-sha-256", "password"] {
        config["password_authentication"] = json!(authentication);
        config["password_policy"] = json!("signs");
        root.post("database/config/pg", config.clone()).assert_status(204);
        for _ in 0..10 {
            let made: Credential = root.credential("plain");
            assert!(made.password.chars().all(|c| signs.contains(c)), "{}", made.password);
            made.login(&database);
        }
    }
    // The role's own goes first.
    server.role("own", json!({ "credential_config": { "password_policy": "digits" } })).assert_status(204);
    let made = root.credential("own");
    assert!(made.password.len() == 30 && made.password.chars().all(|c| c.is_ascii_digit()), "{}", made.password);
    made.login(&database);

    // Deleted later: told when a password is wanted, and what was made stays good.
    root.delete("sys/policies/password/digits").assert_status(204);
    root.get("database/creds/own").assert_multi(500, "failed to generate password: no password policy found");
    made.login(&database);
    server
        .role("own", json!({ "credential_config": { "password_policy": "later" } }))
        .assert_warning("\"password_policy\" names a policy that is not there");
    root.put("sys/policies/password/later", json!({ "policy": ABC })).assert_status(204);
    assert!(root.credential("own").password.chars().all(|c| "abc".contains(c)));
}
