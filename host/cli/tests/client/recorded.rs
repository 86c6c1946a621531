//! What OpenBao 2.7.2's client sent and printed, command by command, and ours must send and print.
//!
//! `recorded.json` was made with a proxy between `bao` and real servers (one in memory with PostgreSQL behind its
//! `database/` mount, one on raft before, during and after initialisation). Every command runs again here against the
//! recorded answers. Requests must be equal (bodies as JSON), standard output and exit status byte for byte; standard
//! error as well, except for the program's and the product's names, and the rows of [`OWN_WORDS`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::responder::{Answer, Request, Responder, client};

/// Where we say it in words of our own, and why.
const OWN_WORDS: [(&str, &str); 3] = [
    ("data from a broken file", "the line and column of the mistake are told"),
    ("a login can stay off the disk", "it does not claim that the token was stored"),
    ("init", "it does not recommend a command that is not there"),
];

#[derive(Deserialize)]
struct Recording {
    files: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    arguments: Vec<String>,
    code: u8,
    stdout: String,
    stderr: String,
    exchanges: Vec<Exchange>,
    #[serde(default)]
    stdin: String,
    environment: BTreeMap<String, String>,
    token_file: Option<String>,
}

#[derive(Deserialize)]
struct Exchange {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
    answer: Answer,
}

#[test]
fn every_recorded_command_is_sent_and_printed_as_by_the_fields_own_client() {
    let recording: Recording = serde_json::from_str(include_str!("recorded.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display().to_string();
    for (name, text) in &recording.files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    assert!(recording.cases.len() > 180, "the recording is incomplete");
    for (name, why) in OWN_WORDS {
        assert!(recording.cases.iter().any(|case| case.name == name), "{name} ({why})");
    }

    let wrong: Vec<String> = recording.cases.iter().flat_map(|case| replay(case, &dir)).collect();

    assert!(wrong.is_empty(), "{} differences\n\n{}", wrong.len(), wrong.join("\n\n"));
}

fn replay(case: &Case, dir: &str) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let responder = Responder::start(case.exchanges.iter().map(|exchange| exchange.answer.clone()).collect());
    let mut variables = vec![("VAULT_ADDR", responder.address.as_str())];
    variables.extend(case.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let arguments: Vec<String> = case.arguments.iter().map(|argument| argument.replace("{dir}", dir)).collect();
    let ran = client(home.path(), &variables, &case.stdin, &arguments.iter().map(String::as_str).collect::<Vec<_>>());

    let placed = |text: &str| text.replace("{addr}", &responder.address).replace("{dir}", dir);
    let mut wrong = Vec::new();
    let mut compare = |what: &str, is_same: bool, expected: &str, found: &str| {
        if !is_same {
            wrong.push(format!(
                "{} ($ {}): {what}\n--- recorded\n{expected}\n--- ours\n{found}",
                case.name,
                case.arguments.join(" ")
            ));
        }
    };
    let own_words = OWN_WORDS.iter().any(|(name, _)| *name == case.name);
    compare("exit status", ran.status == case.code, &case.code.to_string(), &format!("{} {}", ran.status, ran.stderr));
    let (stdout, stderr) = (placed(&case.stdout), placed(&case.stderr));
    compare("standard output", own_words || same_words(&stdout, &ran.stdout), &stdout, &ran.stdout);
    compare("standard error", own_words || same_words(&stderr, &ran.stderr), &stderr, &ran.stderr);
    let asked = responder.asked();
    compare(
        "number of requests",
        asked.len() == case.exchanges.len(),
        &case.exchanges.len().to_string(),
        &asked.len().to_string(),
    );
    for (expected, found) in case.exchanges.iter().zip(&asked) {
        compare(
            "request",
            same_request(expected, found),
            &format!("{} {} {:?} {}", expected.method, expected.target, expected.headers, expected.body),
            &format!("{found:?} {}", String::from_utf8_lossy(&found.body)),
        );
    }
    let stored = std::fs::read_to_string(home.path().join(".vault-token")).ok();
    compare("token file", stored == case.token_file, &format!("{:?}", case.token_file), &format!("{stored:?}"));
    wrong
}

/// Equal byte for byte; where the product's name stands in a paragraph, the lines may break elsewhere.
fn same_words(recorded: &str, ours: &str) -> bool {
    let renamed = recorded
        .replace("OpenBao", "Leasehold")
        .replace("\"bao ", "\"leasehold ")
        .replace("$(bao ", "$(leasehold ")
        .replace("the BAO_TOKEN environment", "the LEASEHOLD_TOKEN environment");
    if renamed == recorded {
        return recorded == ours;
    }
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // A name inside an answer of the server is the server's.
    words(&renamed) == words(ours) || words(&renamed) == words(&ours.replace("OpenBao", "Leasehold"))
}

fn same_request(recorded: &Exchange, ours: &Request) -> bool {
    let body = match (recorded.body.as_str(), ours.body.as_slice()) {
        ("", b"") => true,
        (recorded, ours) => serde_json::from_str::<Value>(recorded).ok() == serde_json::from_slice::<Value>(ours).ok(),
    };
    body && recorded.method == ours.method && recorded.target == ours.target && recorded.headers == ours.headers
}
