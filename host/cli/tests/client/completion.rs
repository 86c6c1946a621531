//! Completion while somebody types: what is offered, and that nothing disturbs whoever types.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::by_hand::run_with;
use crate::responder::{Answer, Ran, Request, client};

fn completed(answers: Vec<Answer>, typed: &str) -> (Vec<String>, Vec<Request>) {
    let point = typed.len().to_string();
    let variables = [("COMP_LINE", typed), ("COMP_POINT", point.as_str()), ("VAULT_TOKEN", "s.mine")];
    let (ran, asked) = run_with(answers, &variables, &["leasehold", "", ""]);
    (offered(&ran), asked)
}

fn offered(ran: &Ran) -> Vec<String> {
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    ran.stdout.lines().map(str::to_owned).collect()
}

fn answer(data: &Value) -> Answer {
    Answer::new(200, json!({ "data": data }))
}

fn mounts() -> Answer {
    answer(&json!({
        "secret": { "database/": {}, "data-store/": {}, "kv/": {} },
        "auth": { "token/": {}, "userpass/": {} },
    }))
}

#[test]
fn commands_and_flags_need_no_server() {
    for (typed, wanted) in [
        ("leasehold sec", vec!["secrets"]),
        ("leasehold lease re", vec!["renew", "revoke"]),
        ("leasehold lease revoke -pre", vec!["-prefix"]),
        ("leasehold lease revoke x --pre", vec!["--prefix"]),
        ("leasehold nosuch x", vec![]),
        ("leasehold read -field ", vec![]),
        ("leasehold read some/path x", vec![]),
    ] {
        let (found, asked) = completed(Vec::new(), typed);
        assert_eq!((found, asked.len()), (wanted.into_iter().map(str::to_owned).collect(), 0), "{typed}");
    }
}

#[test]
fn a_path_is_completed_by_mounts_and_then_by_lists() {
    let get = |asked: &[Request]| {
        assert!(asked.iter().all(|one| one.method == "GET" && one.headers["x-vault-token"] == "s.mine"), "{asked:?}");
        asked.iter().map(|one| one.target.clone()).collect::<Vec<_>>()
    };
    let version = answer(&json!({ "path": "kv/", "options": { "version": "2" } }));
    for (typed, answers, wanted, targets) in [
        ("leasehold read dat", vec![mounts()], vec!["data-store/", "database/"], vec!["/v1/sys/internal/ui/mounts"]),
        ("leasehold write auth/u", vec![mounts()], vec!["auth/userpass/"], vec!["/v1/sys/internal/ui/mounts"]),
        ("leasehold list a", vec![mounts()], vec!["auth/"], vec!["/v1/sys/internal/ui/mounts"]),
        (
            "leasehold read -format json database/roles/r",
            // Whoever made a role chose its name.
            vec![answer(&json!({ "keys": ["rw", "ro/", "other", "r \u{1b}[2J", "r x", 5] }))],
            vec!["database/roles/ro/", "database/roles/rw"],
            vec!["/v1/database/roles?list=true"],
        ),
        ("leasehold secrets disable k", vec![mounts()], vec!["kv/"], vec!["/v1/sys/internal/ui/mounts"]),
        ("leasehold auth disable ", vec![mounts()], vec!["token/", "userpass/"], vec!["/v1/sys/internal/ui/mounts"]),
        (
            "leasehold policy read a",
            vec![answer(&json!({ "keys": ["apps", "root"] }))],
            vec!["apps"],
            vec!["/v1/sys/policies/acl?list=true"],
        ),
        (
            "leasehold kv get kv/app/",
            vec![version.clone(), answer(&json!({ "keys": ["a", "b/"] }))],
            vec!["kv/app/a", "kv/app/b/"],
            vec!["/v1/sys/internal/ui/mounts/kv/app", "/v1/kv/metadata/app?list=true"],
        ),
        (
            "leasehold kv get -mount=kv a",
            vec![version, answer(&json!({ "keys": ["a", "b/"] }))],
            vec!["a"],
            vec!["/v1/sys/internal/ui/mounts/kv", "/v1/kv/metadata?list=true"],
        ),
    ] {
        let (found, asked) = completed(answers, typed);
        assert_eq!(found, wanted, "{typed}");
        assert_eq!(get(&asked), targets, "{typed}");
    }
}

/// Whoever may write a key or a policy chooses its name, and bash puts what is offered on the line as it is.
#[test]
fn nothing_is_offered_that_a_shell_would_carry_out() {
    let names = [
        "$(id)",
        "`id`",
        "x;id",
        "x|id",
        "x&id",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "~root",
        "a\\b",
        "a'b",
        "a\"b",
        "a>b",
        "#a",
        "!a",
        "-rf",
        "plain",
        "dotted.name@host",
        "é",
    ];
    let keys = answer(&json!({ "keys": names }));
    let (found, _) = completed(vec![keys], "leasehold policy read ");
    assert_eq!(found, ["dotted.name@host", "plain", "é"]);
}

#[test]
fn what_stands_behind_the_cursor_counts_no_more_than_what_is_asked_for_by_a_script() {
    let typed = "leasehold read dat and more";
    let variables = [("COMP_LINE", typed), ("COMP_POINT", "18"), ("LEASEHOLD_COMPLETE", "paths")];
    let (ran, _) = run_with(vec![mounts()], &variables, &["leasehold"]);
    assert_eq!(offered(&ran), ["data-store/", "database/"]);
    for typed in ["leasehold sec", "leasehold read -f", ""] {
        let (ran, asked) =
            run_with(Vec::new(), &[("COMP_LINE", typed), ("LEASEHOLD_COMPLETE", "paths")], &["leasehold"]);
        assert_eq!((offered(&ran).len(), asked.len()), (0, 0), "{typed}");
    }
}

#[test]
fn a_failure_is_quiet_and_nobody_waits_for_more_than_a_second() {
    for answers in
        [vec![], vec![Answer::new(403, "{}")], vec![Answer::new(200, "no json")], vec![Answer::new(200, "{}")]]
    {
        assert_eq!(completed(answers, "leasehold read database/").0, [""; 0]);
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let home = tempfile::tempdir().unwrap();
    for address in [address.as_str(), "http://127.0.0.1:1", "nonsense://"] {
        let began = Instant::now();
        let variables = [("COMP_LINE", "leasehold read d"), ("VAULT_ADDR", address), ("VAULT_MAX_RETRIES", "5")];
        assert_eq!(offered(&client(home.path(), &variables, "", &["leasehold"])), [""; 0], "{address}");
        assert!(began.elapsed() < Duration::from_millis(1_900), "{address}: {:?}", began.elapsed());
    }
}
