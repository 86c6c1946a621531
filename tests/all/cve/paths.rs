//! Path normalisation: what the policy judges is what is served, however it is written.

use serde_json::json;

use super::{Differs, Fact, Same, enable_auth, here, holds, log_in, on_both, rule, user, write};
use crate::modules::{ALWAYS, push, window};
use crate::support::{Client, Server, change_freeze};

/// Somebody who may read and list everything in `secret/`, a folder and a value excepted.
fn reader(server: &Server) -> Client {
    write(&server.root(), "secret/data/hidden/key", json!({ "data": { "canary": "canary-Jf82" } }));
    write(&server.root(), "secret/data/open", json!({ "data": { "a": "b" } }));
    let all = "\"read\", \"list\", \"create\", \"update\", \"delete\"";
    let text =
        [rule("secret/*", all), rule("secret/data/hidden/*", "\"deny\""), rule("secret/metadata/hidden/*", "\"deny\"")];
    server.with_policy("reader", &text.concat())
}

fn unread(client: &Client, spellings: &[&str]) -> Fact {
    for spelling in spellings {
        let answer = client.raw_path("GET", &format!("/v1/{spelling}"));
        holds(!answer.body.contains("canary-Jf82"), &format!("{spelling} is read"))?;
        holds(answer.status != 200, &format!("{spelling} is answered with 200"))?;
    }
    Ok(())
}

#[test]
fn dots_and_doubled_slashes_reach_no_denied_value() {
    on_both(Same, |server| {
        let spellings = [
            "secret/data/./hidden/key",
            "secret/data/x/../hidden/key",
            "secret//data/hidden/key",
            "secret/data//hidden/key",
            "secret/data/hidden//key",
            "secret/data/open/../../data/hidden/key",
            "sys/../secret/data/hidden/key",
        ];
        unread(&reader(server), &spellings)
    });
}

#[test]
fn encoded_separators_and_dots_reach_no_denied_value() {
    on_both(Same, |server| {
        let spellings = [
            "secret/data/hidden%2Fkey",
            "secret/data%2Fhidden%2Fkey",
            "secret%2Fdata%2Fhidden%2Fkey",
            "secret/data/%68idden/key",
            "secret/data/%2e/hidden/key",
            "secret/data/x/%2e%2e/hidden/key",
            "secret/data/x%2F..%2Fhidden%2Fkey",
            "secret/data/%2Fhidden/key",
            "secret/data/hidden%252Fkey",
            "secret/data/hidden/key%00",
            "secret/data/hidden/key%0a",
        ];
        unread(&reader(server), &spellings)
    });
}

#[test]
fn bytes_that_are_no_utf8_reach_no_denied_value() {
    on_both(Same, |server| {
        let spellings = [
            "secret/data/hidden%c0%afkey",
            "secret/data/hidden%e0%80%afkey",
            "secret/data/hidden%ef%bc%8fkey",
            "secret/data/hidden%5ckey",
            "secret/data/%c0%ae%c0%ae/hidden/key",
            "secret/data/hidden/key%ff",
        ];
        unread(&reader(server), &spellings)
    });
}

/// CVE-2026-63131: a list has a slash at its end that the request may leave out.
#[test]
fn a_denied_folder_is_not_listed_with_or_without_its_slash() {
    on_both(Same, |server| {
        let client = reader(server);
        for (method, path) in [
            ("LIST", "secret/metadata/hidden"),
            ("LIST", "secret/metadata/hidden/"),
            ("GET", "secret/metadata/hidden?list=true"),
            ("GET", "secret/metadata/hidden/?list=true"),
            ("GET", "secret/metadata/hidden//?list=true"),
            ("SCAN", "secret/metadata/hidden"),
        ] {
            let answer = client.raw_path(method, &format!("/v1/{path}"));
            holds(answer.status != 200 && !answer.body.contains("key\""), &format!("{method} {path} is answered"))?;
        }
        Ok(())
    });
}

#[test]
fn a_folder_denied_without_its_slash_is_not_listed() {
    on_both(Same, |server| {
        write(&server.root(), "secret/data/hidden/key", json!({ "data": { "a": "b" } }));
        let text = rule("secret/metadata/*", "\"list\"") + &rule("secret/metadata/hidden", "\"deny\"");
        let client = server.with_policy("reader", &text);
        holds(client.list("secret/metadata/hidden").status == 403, "the folder is listed")
    });
}

/// Vault 2.2.2: the engine folds the name, the policy did not.
#[test]
fn a_denied_user_is_written_in_no_case() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "admin", "default");
        let text =
            rule("auth/userpass/users/*", "\"create\", \"update\"") + &rule("auth/userpass/users/admin", "\"deny\"");
        let helper = server.with_policy("helper", &text);
        for name in ["admin", "ADMIN", "Admin", "aDmIn"] {
            helper.post(&format!("auth/userpass/users/{name}"), json!({ "password": "stolen-now" }));
        }
        holds(log_in(server, "admin", "stolen-now").status != 200, "the password of the denied user is changed")
    });
}

#[test]
fn a_denied_role_gives_no_secret_id_in_any_case() {
    on_both(Differs("a secret id of the denied role is made"), |server| {
        enable_auth(server, "approle", "approle");
        write(&server.root(), "auth/approle/role/Admin", json!({ "token_policies": "default" }));
        let text = rule("auth/approle/role/+/secret-id", "\"create\", \"update\"")
            + &rule("auth/approle/role/Admin/*", "\"deny\"");
        let helper = server.with_policy("helper", &text);
        for name in ["Admin", "admin", "ADMIN"] {
            let made = helper.post(&format!("auth/approle/role/{name}/secret-id"), json!({}));
            holds(made.status == 403, "a secret id of the denied role is made")?;
        }
        Ok(())
    });
}

#[test]
fn a_denied_entity_is_changed_in_no_case() {
    on_both(Differs("the denied entity is changed"), |server| {
        write(&server.root(), "identity/entity", json!({ "name": "boss", "policies": ["default"] }));
        let text =
            rule("identity/entity/name/*", "\"create\", \"update\"") + &rule("identity/entity/name/boss", "\"deny\"");
        let helper = server.with_policy("helper", &text);
        for name in ["boss", "Boss", "BOSS"] {
            helper.post(&format!("identity/entity/name/{name}"), json!({ "disabled": true }));
        }
        let kept = server.root().get("identity/entity/name/boss").at("/data/disabled") == false;
        holds(kept, "the denied entity is changed")
    });
}

/// A rule for one name may ask for more than the rule for all; no spelling has only the latter.
#[test]
fn what_a_rule_for_one_name_forbids_is_forbidden_in_every_case() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "admin", "default");
        let text = rule("auth/userpass/users/*", "\"create\", \"update\"")
            + "path \"auth/userpass/users/admin\" { capabilities = [\"update\"] denied_parameters = { token_policies = [] } }";
        let helper = server.with_policy("helper", &text);
        for name in ["admin", "ADMIN"] {
            helper.post(&format!("auth/userpass/users/{name}"), json!({ "token_policies": "other" }));
        }
        let policies = server.root().get("auth/userpass/users/admin").at("/data/token_policies");
        holds(policies == json!(["default"]), "the user is given another policy")
    });
}

#[test]
fn a_right_is_not_wider_for_its_case() {
    on_both(Same, |server| {
        write(&server.root(), "secret/data/team", json!({ "data": { "a": "b" } }));
        let client =
            server.with_policy("capitals", &(rule("secret/data/Team", "\"read\"") + &rule("AUTH/*", "\"read\"")));
        for path in ["secret/data/team", "SECRET/data/Team", "auth/token/accessors", "Secret/data/Team"] {
            holds(client.get(path).status == 403, &format!("{path} is granted"))?;
        }
        Ok(())
    });
}

#[test]
fn a_module_bound_to_a_name_judges_every_case_of_it() {
    here(|server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "admin", "default");
        push(server, "freeze", &change_freeze()).assert_status(200);
        let bound = json!({
            "module": "freeze", "paths": ["auth/userpass/users/Admin"], "enforcement_level": "hard-mandatory",
            "config": window(ALWAYS.0, ALWAYS.1),
        });
        write(&server.root(), "sys/policies/egp/freeze", bound);
        let helper = server.with_policy("helper", &rule("auth/userpass/users/*", "\"update\""));
        for name in ["admin", "ADMIN", "Admin"] {
            let answer = helper.post(&format!("auth/userpass/users/{name}"), json!({ "password": "stolen-now" }));
            holds(answer.status == 403 && answer.body.contains("release week"), &format!("{name}: {answer}"))?;
        }
        user(server, "other", "default");
        Ok(())
    });
}

#[test]
fn sys_capabilities_says_of_every_case_what_a_request_gets() {
    here(|server| {
        enable_auth(server, "userpass", "userpass");
        let text = rule("auth/userpass/users/*", "\"update\"")
            + &rule("auth/userpass/users/Admin", "\"deny\"")
            + &rule("sys/capabilities-self", "\"update\"");
        let client = server.with_policy("helper", &text);
        for name in ["admin", "ADMIN", "Admin"] {
            let path = format!("auth/userpass/users/{name}");
            let told = client.post("sys/capabilities-self", json!({ "paths": [path] })).at("/data/capabilities");
            holds(told == json!(["deny"]), &format!("{name}: {told}"))?;
            holds(client.post(&path, json!({ "password": "x" })).status == 403, &format!("{name} is written"))?;
        }
        Ok(())
    });
}
