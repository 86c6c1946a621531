//! What no recording shows: our own commands and spellings, and what a hostile or broken server does to the client.

use std::io::Write;
use std::net::TcpListener;

use serde_json::{Value, json};

use super::responder::{Answer, Ran, Request, Responder, client};

fn run(answers: Vec<Answer>, arguments: &[&str]) -> (Ran, Vec<Request>) {
    run_with(answers, &[], arguments)
}

pub(crate) fn run_with(answers: Vec<Answer>, variables: &[(&str, &str)], arguments: &[&str]) -> (Ran, Vec<Request>) {
    let home = tempfile::tempdir().unwrap();
    let responder = Responder::start(answers);
    let mut all = vec![("VAULT_ADDR", responder.address.as_str()), ("VAULT_TOKEN", "s.super-secret")];
    all.extend_from_slice(variables);
    let ran = client(home.path(), &all, "", arguments);
    let asked = responder.asked();
    (ran, asked)
}

fn empty() -> Answer {
    Answer::new(204, "")
}

/// The same with something on standard input.
fn run_piped(answers: Vec<Answer>, stdin: &str, arguments: &[&str]) -> (Ran, Vec<Request>) {
    let home = tempfile::tempdir().unwrap();
    let responder = Responder::start(answers);
    let ran = client(home.path(), &[("VAULT_ADDR", responder.address.as_str())], stdin, arguments);
    (ran, responder.asked())
}

#[test]
fn a_key_share_can_be_piped() {
    let seal = json!({ "sealed": false, "t": 1, "n": 1 });
    let answers = vec![Answer::new(200, &seal), Answer::new(200, json!({ "ha_enabled": false }))];
    let (ran, asked) = run_piped(answers, "c2hhcmU=\n", &["operator", "unseal", "-"]);

    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let sent: Value = serde_json::from_slice(&asked[0].body).unwrap();
    assert_eq!(sent["key"], "c2hhcmU=");

    let (ran, asked) = run_piped(Vec::new(), "c2hhcmU=\n", &["operator", "unseal", "-non-interactive", "-"]);
    assert_eq!((ran.status, asked.len()), (1, 0), "{}", ran.stderr);
}

/// Field case S6 (hashicorp/vault#32089): a token that could not be stored was printed in spite of `-no-print`.
#[test]
fn a_login_that_must_not_print_prints_no_token_whatever_goes_wrong() {
    let found = json!({ "data": { "id": "s.shown-nowhere", "accessor": "a", "ttl": 60, "policies": ["default"] } });
    let issued = json!({ "auth": { "client_token": "s.shown-nowhere", "accessor": "a", "policies": ["default"] } });
    let wrapped = json!({ "wrap_info": { "token": "s.shown-nowhere", "wrapped_accessor": "a", "ttl": 60 } });
    let by_token = ["login", "-no-print", "s.shown-nowhere"].as_slice();
    let by_password = ["login", "-no-print", "-method=userpass", "username=u", "password=shown-nowhere"].as_slice();
    let taken_apart =
        ["login", "-no-print", "-token-only", "-wrap-ttl=60", "-method=userpass", "username=u", "password=x"];
    for (answer, arguments, status) in [
        (&found, by_token, 2),
        (&found, &["login", "-no-print", "-format=json", "s.shown-nowhere"], 2),
        (&found, &["login", "-no-print", "-field=token", "s.shown-nowhere"], 2),
        (&issued, by_password, 2),
        (&wrapped, &taken_apart, 0),
    ] {
        for variable in ["VAULT_TOKEN_PATH", "LEASEHOLD_TOKEN_PATH"] {
            let (ran, _) = run_with(vec![Answer::new(200, answer)], &[(variable, "/nosuch/x")], arguments);
            assert_eq!(ran.status, status, "{arguments:?}: {}", ran.stderr);
            assert_eq!(ran.stdout, "", "{arguments:?}");
            assert!(!ran.stderr.contains("shown-nowhere"), "{arguments:?}: {}", ran.stderr);
            assert!(status == 0 || ran.stderr.contains("not persisted"), "{arguments:?}: {}", ran.stderr);
        }
    }
    let arguments = ["login", "s.shown-nowhere"];
    let (ran, _) = run_with(vec![Answer::new(200, &found)], &[("VAULT_TOKEN_PATH", "/nosuch/x")], &arguments);
    assert!(ran.stdout.contains("s.shown-nowhere"), "who may see it is not left without it: {}", ran.stderr);
}

#[test]
fn who_cannot_be_asked_is_told_what_reads_standard_input() {
    for (arguments, piped) in [
        (vec!["login"], "give \"-\""),
        (vec!["operator", "unseal"], "give \"-\""),
        (vec!["login", "-method=userpass", "username=u"], "give \"password=-\""),
    ] {
        let (ran, _) = run_piped(Vec::new(), "", &arguments);
        assert!(ran.stderr.contains("no terminal") && ran.stderr.contains(piped), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn an_answer_without_an_envelope_is_data() {
    let (ran, _) = run(
        vec![Answer::new(200, r#"{"initialized":true,"version":"2.7.2"}"#)],
        &["read", "-field=version", "sys/health"],
    );
    assert_eq!((ran.status, ran.stdout.trim()), (0, "2.7.2"), "{}", ran.stderr);
}

#[test]
fn unwrapping_what_is_not_there_is_an_error() {
    let (ran, _) = run(
        vec![Answer::new(404, r#"{"errors":["1 error occurred:\n\t* unsupported path\n\n"]}"#)],
        &["unwrap", "s.foo"],
    );
    assert_eq!(ran.status, 2, "{}", ran.stdout);
    assert!(ran.stderr.contains("unsupported path"), "{}", ran.stderr);
}

#[test]
fn spellings_of_old_send_what_todays_send() {
    let lease = json!({ "lease_id": "a/b/1", "renewable": true, "lease_duration": 3600 });
    for (old, new) in [
        (vec!["mount", "-path=db", "database"], vec!["secrets", "enable", "-path=db", "database"]),
        (vec!["unmount", "database"], vec!["secrets", "disable", "database"]),
        (vec!["renew", "a/b/1"], vec!["lease", "renew", "a/b/1"]),
        (vec!["renew", "a/b/1", "3600"], vec!["lease", "renew", "-increment=1h", "a/b/1"]),
        (vec!["revoke", "-prefix=true", "a/b"], vec!["lease", "revoke", "-prefix", "a/b"]),
        (vec!["token-revoke", "s.x"], vec!["token", "revoke", "s.x"]),
        (vec!["policy-delete", "apps"], vec!["policy", "delete", "apps"]),
        (vec!["auth-enable", "userpass"], vec!["auth", "enable", "userpass"]),
        (vec!["seal"], vec!["operator", "seal"]),
    ] {
        let (ran_old, asked_old) = run(vec![Answer::new(200, &lease)], &old);
        let (ran_new, asked_new) = run(vec![Answer::new(200, &lease)], &new);

        assert_eq!(
            (ran_old.status, &asked_old, &ran_old.stdout),
            (0, &asked_new, &ran_new.stdout),
            "{old:?}: {}",
            ran_old.stderr
        );
        assert_eq!(asked_old.len(), 1, "{old:?}");
    }
}

#[test]
fn flags_work_with_one_dash_or_two_before_and_after_the_arguments() {
    let body = json!({ "data": { "x": "1", "y": "2" } });
    for arguments in [
        ["read", "-field=x", "a/b"],
        ["read", "--field=x", "a/b"],
        ["read", "a/b", "-field=x"],
        ["read", "a/b", "--field=x"],
    ] {
        let (ran, _) = run(vec![Answer::new(200, &body)], &arguments);
        assert_eq!((ran.status, ran.stdout.as_str()), (0, "1"), "{arguments:?}");
    }
}

#[test]
fn one_redirect_is_followed_with_method_body_and_token() {
    let target = Responder::start(vec![empty()]);
    let moved = Answer {
        status: 307,
        body: String::new(),
        location: Some(format!("{}/v1/a/b", target.address)),
        content_type: None,
    };
    let (ran, first) = run(vec![moved], &["write", "a/b", "k=v"]);

    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(target.asked(), first);
    assert_eq!(first[0].headers["x-vault-token"], "s.super-secret");
}

#[test]
fn a_second_redirect_is_not_followed() {
    let again =
        || Answer { status: 307, body: String::new(), location: Some("/v1/a/b".to_owned()), content_type: None };
    let (_, asked) = run(vec![again(), again(), again()], &["read", "a/b"]);

    assert_eq!(asked.len(), 2);
}

#[test]
fn redirects_can_be_switched_off() {
    let moved = Answer { status: 307, body: String::new(), location: Some("/v1/a/b".to_owned()), content_type: None };
    let (_, asked) = run(vec![moved], &["read", "-disable-redirects", "a/b"]);

    assert_eq!(asked.len(), 1);
}

#[test]
fn a_failing_server_is_asked_once_unless_retries_are_wanted() {
    let busy = || Answer::new(503, json!({ "errors": ["Vault is sealed"] }));
    let (ran, asked) = run(vec![busy(), empty()], &["write", "a/b", "k=v"]);
    assert_eq!((ran.status, asked.len()), (2, 1));

    let (ran, asked) = run_with(vec![busy(), empty()], &[("VAULT_MAX_RETRIES", "2")], &["write", "a/b", "k=v"]);
    assert_eq!((ran.status, asked.len()), (0, 2), "{}", ran.stderr);

    let refused = Answer::new(400, json!({ "errors": ["no"] }));
    let (ran, asked) = run_with(vec![refused], &[("VAULT_MAX_RETRIES", "2")], &["write", "a/b", "k=v"]);
    assert_eq!((ran.status, asked.len()), (2, 1), "what the client did wrong does not get better");
}

#[test]
fn no_error_repeats_the_token_or_a_value() {
    let refused = || Answer::new(403, json!({ "errors": ["permission denied"] }));
    for arguments in [
        vec!["write", "a/b", "password=hunter2"],
        vec!["write", "a/b", "password=hunter2", "bare"],
        vec!["write", "a/b", "password=hunter2", "-nosuchflag"],
        vec!["write", "-format=toml", "a/b", "password=hunter2"],
        vec!["read", "a/b"],
        vec!["login", "-method=userpass", "username=u", "password=hunter2"],
    ] {
        let (ran, _) = run(vec![refused()], &arguments);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            ran.status != 0 && !said.contains("hunter2") && !said.contains("super-secret"),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn a_server_that_is_not_there_is_said_to_be_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let home = tempfile::tempdir().unwrap();
    let ran = client(
        home.path(),
        &[("LEASEHOLD_ADDR", &address), ("VAULT_ADDR", "http://192.0.2.1:1")],
        "",
        &["read", "a/b"],
    );

    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("is the server running at") && ran.stderr.contains(&address), "{}", ran.stderr);
}

#[test]
fn an_answer_without_end_is_not_read_to_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let flood = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"data\":\"");
        let chunk = vec![b'x'; 1 << 20];
        // Ends only when the client hangs up.
        (0..1024).take_while(|_| stream.write_all(&chunk).is_ok()).count()
    });
    let home = tempfile::tempdir().unwrap();
    let ran = client(home.path(), &[("VAULT_ADDR", &address)], "", &["read", "a/b"]);

    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("longer than 64 MiB"), "{}", ran.stderr);
    assert!(flood.join().unwrap() < 1024);
}

#[test]
fn what_the_server_calls_text_is_printed_as_it_is() {
    let metrics =
        || Answer { content_type: Some("text/plain; version=0.0.4".to_owned()), ..Answer::new(200, "up 1\n") };
    let (ran, asked) = run(vec![metrics()], &["read", "sys/metrics", "format=prometheus"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "up 1\n"), "{}", ran.stderr);
    assert_eq!(asked[0].target, "/v1/sys/metrics?format=prometheus");

    for unfit in ["-format=json", "-field=up"] {
        let (ran, _) = run(vec![metrics()], &["read", unfit, "sys/metrics"]);
        assert_eq!(ran.status, 1);
        assert!(ran.stderr.contains("-format=raw"), "{}", ran.stderr);
    }
}

#[test]
fn an_answer_that_is_no_json_is_not_repeated() {
    let (ran, _) = run(vec![Answer::new(200, "password=hunter2")], &["read", "a/b"]);

    assert_eq!(ran.status, 2);
    assert!(
        ran.stderr.contains("not what an API of this kind sends") && !ran.stderr.contains("hunter2"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_module_travels_as_it_is_and_its_digest_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.wasm");
    std::fs::write(&file, b"\0asm\xff\x00").unwrap();
    let file = file.display().to_string();
    let answer = Answer::new(200, json!({ "data": { "name": "freeze", "digest": "sha256:abc" } }));
    let (ran, asked) = run(vec![answer], &["module", "push", "freeze", &file]);

    assert_eq!((asked[0].method.as_str(), asked[0].target.as_str()), ("PUT", "/v1/sys/modules/freeze"));
    assert_eq!(
        (asked[0].headers["content-type"].as_str(), asked[0].body.as_slice()),
        ("application/wasm", &b"\0asm\xff\x00"[..])
    );
    assert_eq!(
        ran.stdout,
        "Success! Uploaded module: freeze\n\nKey       Value\n---       -----\ndigest    sha256:abc\nname      freeze\n"
    );
}

#[test]
fn a_module_is_inspected_and_checked_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file.display().to_string()
    };
    let (good, bad, frozen) =
        (write("m.wasm", b"\0asm"), write("n.wasm", b"ELF"), format!("@{}", write("c.json", b"{\"frozen\": true}")));
    let offline = |arguments: &[&str]| {
        let (ran, asked) = run(Vec::new(), arguments);
        assert!(asked.is_empty());
        ran
    };

    assert_eq!(offline(&["module", "inspect", &good, "-field=digest"]).stdout, "sha256:abc");
    assert_eq!(offline(&["module", "inspect", &bad]).status, 1);
    assert_eq!(offline(&["module", "check", &good]).status, 0);
    assert_eq!(offline(&["module", "check", &bad]).status, 1);
    let denied = offline(&["module", "check", &good, "-config", &frozen, "-request={\"path\":\"x/y\"}"]);
    assert_eq!(denied.status, 2, "a denial is no success");
    assert!(denied.stdout.contains("deny") && denied.stdout.contains("x/y"), "{}", denied.stdout);
}

#[test]
fn a_policy_file_is_formatted_in_place_and_a_broken_one_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.hcl");
    let path = file.display().to_string();
    std::fs::write(&file, "path \"a\" {capabilities=[\"read\"]}").unwrap();
    let (ran, asked) = run(Vec::new(), &["policy", "fmt", &path]);
    assert_eq!((ran.status, asked.len(), ran.stdout), (0, 0, format!("Success! Formatted policy: {path}\n")));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "path \"a\" {\n  capabilities = [\"read\"]\n}\n");

    std::fs::write(&file, "path \"a\" {\n  capabilities \"read\"\n").unwrap();
    let (ran, _) = run(Vec::new(), &["policy", "fmt", &path]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.starts_with("failed to parse policy: At 3:1: "), "{}", ran.stderr);
    assert!(std::fs::read_to_string(&file).unwrap().contains("capabilities \"read\""));

    // Well formed, and no policy.
    let bogus = "path \"a\" {capabilities=[\"bogus\"]}";
    std::fs::write(&file, bogus).unwrap();
    let (ran, _) = run(Vec::new(), &["policy", "fmt", &path]);
    assert_eq!((ran.status, ran.stderr.trim()), (1, "failed to parse policy: invalid capability"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), bogus);
}

#[test]
fn what_stands_out_in_a_policy_file_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.hcl");
    let path = file.display().to_string();
    let odd = format!("{path}:1:6: warning: path \"odd\": stands out (write it even) [odd-rule]\n");
    let plain = format!("{path}:1:6: hint: path \"plain\": stands out (write it even) [plain-rule]\n");
    for (text, status, said) in [
        ("path \"odd\" {}\n", 2, odd.clone()),
        ("path \"plain\" {}\n", 0, plain.clone()),
        ("path \"odd\" {}\n\npath \"plain\" {}\n", 2, format!("{odd}{plain}")),
        ("path \"a\" {}\n", 0, format!("Success! Nothing stands out in {path}\n")),
        ("path \"bogus\" {}\n", 1, String::new()),
    ] {
        std::fs::write(&file, text).unwrap();
        let (ran, asked) = run(Vec::new(), &["policy", "lint", &path]);
        assert_eq!((ran.status, asked.len(), ran.stdout), (status, 0, said), "{text}: {}", ran.stderr);
        // Formatting says the warnings, and formats all the same.
        let (ran, _) = run(Vec::new(), &["policy", "fmt", &path]);
        let warned = if text.contains("odd") { odd.as_str() } else { "" };
        assert!(ran.stderr.starts_with(warned) && !ran.stderr.contains("hint"), "{text}: {}", ran.stderr);
        assert_eq!(ran.status, u8::from(text.contains("bogus")), "{text}");
    }
    std::fs::write(&file, "path \"odd\" {}\n").unwrap();
    let (ran, _) = run(Vec::new(), &["policy", "lint", "-format=json", &path]);
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&shown[0]["code"], &shown[0]["line"], &shown[0]["column"]), (&"odd-rule".into(), &1.into(), &6.into()));
}

#[test]
fn help_and_usage_end_as_the_fields_do() {
    for (arguments, status, on_stdout) in [
        (vec![], 127, false),
        (vec!["nosuch"], 127, false),
        (vec!["secrets"], 1, false),
        (vec!["secrets", "nosuch"], 1, false),
        (vec!["read", "-h"], 0, true),
        (vec!["read", "-help"], 0, true),
        (vec!["-h"], 0, true),
        (vec!["read", "-nosuch", "a"], 1, false),
        (vec!["lease", "revoke", "-prefix=maybe", "a"], 1, false),
        (vec!["-version"], 0, true),
        (vec!["completion", "bash"], 0, true),
        (vec!["completion", "tcsh"], 1, false),
    ] {
        let (ran, _) = run(Vec::new(), &arguments);
        assert_eq!((ran.status, ran.stdout.is_empty()), (status, !on_stdout), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stderr.is_empty(), on_stdout, "{arguments:?}: {}", ran.stderr);
    }
    let (ran, _) = run(Vec::new(), &["raed", "a"]);
    assert!(ran.stderr.contains("'read'"), "a near miss is pointed out: {}", ran.stderr);
}

#[test]
fn the_settings_of_the_environment_are_used() {
    let body: Value = json!({ "data": { "x": 1 } });
    let (ran, asked) = run_with(
        vec![Answer::new(200, &body)],
        &[("LEASEHOLD_FORMAT", "yaml"), ("BAO_NAMESPACE", "team"), ("LEASEHOLD_TOKEN", "s.mine")],
        &["read", "-field=x", "a"],
    );

    assert_eq!(ran.stdout, "1\n");
    assert_eq!(
        (asked[0].headers["x-vault-namespace"].as_str(), asked[0].headers["x-vault-token"].as_str()),
        ("team/", "s.mine")
    );
}
