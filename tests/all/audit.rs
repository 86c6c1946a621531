//! Audit: what is recorded, what never is, and that nothing leaves which was not recorded.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Client, Credential, Database, Durable, Server, eventually};

const READER: &str = "path \"database/creds/reader\" { capabilities = [\"read\"] }";

/// A durable server with the file device `file/`.
pub fn audited() -> (Server, PathBuf) {
    let server = Server::durable(&Durable::default());
    let file = server.home().join("audit/main.log");
    enable(&server, "file", &file);
    (server, file)
}

pub fn enable(server: &Server, name: &str, file: &Path) {
    let body = json!({ "type": "file", "description": "for tests", "options": { "file_path": file } });
    server.root().put(&format!("sys/audit/{name}"), body).assert_status(204).assert_empty();
}

/// Every record of a file; each line must be one.
pub fn records(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line has no end");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("no record: {error}: `{line}`")))
        .collect()
}

/// Request and response record of the latest request on this path.
pub fn last(file: &Path, path: &str) -> (Value, Value) {
    let all = records(file);
    let of = |kind: &str| {
        let found = all.iter().rev().find(|line| line["type"] == kind && line["request"]["path"] == path);
        found.unwrap_or_else(|| panic!("no {kind} on {path}")).clone()
    };
    let (request, response) = (of("request"), of("response"));
    assert_eq!(request["request"]["id"], response["request"]["id"], "two halves of one request");
    (request, response)
}

fn hash(server: &Server, text: &str) -> Value {
    server.root().post("sys/audit-hash/file", json!({ "input": text })).assert_status(200).at("/data/hash")
}

#[test]
fn a_credential_is_recorded_by_its_hashes() {
    let (server, file) = audited();
    let database = Database::fresh();
    server.connect(&database);
    server.role("reader", json!({}));
    let app = server.with_policy("reader", READER);
    let answer = app.get("database/creds/reader");
    let credential = Credential::of(&answer);
    let (request, response) = last(&file, "database/creds/reader");

    assert_eq!(request["request"]["operation"], "read");
    assert_eq!(request["request"]["mount_point"], "database/");
    assert_eq!(request["request"]["mount_type"], "database");
    assert_eq!(request["request"]["remote_address"], "127.0.0.1");
    assert_eq!(request["request"]["id"], answer.at("/request_id"));
    assert_eq!(request["auth"]["display_name"], "token");
    assert_eq!(request["auth"]["policies"], json!(["default", "reader"]));
    assert_eq!(request["auth"]["policy_results"]["allowed"], true);
    let granting = &request["auth"]["policy_results"]["granting_policies"][0];
    assert_eq!(*granting, json!({ "name": "reader", "namespace_id": "root", "type": "acl" }));
    assert_eq!(response["response"]["secret"]["lease_id"], credential.lease);
    assert_eq!(response["response"]["data"]["password"], hash(&server, &credential.password));
    assert_eq!(response["response"]["data"]["username"], hash(&server, &credential.user));
    let token = app.get("auth/token/lookup-self").assert_status(200);
    assert_eq!(request["auth"]["client_token"], hash(&server, &token.text("/data/id")));
    assert_eq!(request["auth"]["accessor"], hash(&server, &token.text("/data/accessor")));

    // The component that decided, by the digest that the server tells everybody.
    let digest = server.nobody().get("sys/seal-status").at("/builtin_modules/acl");
    assert!(digest.as_str().is_some_and(|digest| digest.len() == 64), "{digest}");
    assert_eq!(request["auth"]["policy_results"]["acl_module"], digest);
    assert_eq!(request["auth"]["policy_results"]["rules"][0]["policy"], "reader");

    let written = fs::read_to_string(&file).unwrap();
    for secret in [&credential.password, &credential.user, &server.root_token(), &server.shares()[0]] {
        assert!(!written.contains(secret.as_str()), "`{secret}` is in the file");
    }
    for canary in [crate::support::ADMIN_PASSWORD, "postgresql://", "CREATE ROLE"] {
        assert!(!written.contains(canary), "`{canary}` is in the file");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// As the client reads it.
const DENIED: &str = "1 error occurred:\n\t* permission denied\n\n";

#[test]
fn a_record_says_what_the_fields_records_say() {
    let (server, file) = audited();
    let root = server.root();
    // Without an entity a client is known by its policies: the same text as in Vault.
    let made = root.post("auth/token/create", json!({ "policies": ["default"], "display_name": "x y", "num_uses": 9 }));
    let (request, response) = last(&file, "auth/token/create");
    assert_eq!(request["request"]["client_id"], "0DHqvq2D77kL2/JTPSZkTMJbkFVmUu0TzMi0jiXcFy8=");
    assert_eq!(response["response"]["auth"]["display_name"], "token-x-y");
    assert_eq!(response["response"]["auth"]["token_issue_time"], Value::Null);

    let app = server.as_token(&made.text("/auth/client_token"));
    app.post("auth/token/renew-self", json!({})).assert_status(200);
    let (request, response) = last(&file, "auth/token/renew-self");
    assert_eq!(request["request"]["client_id"], "g0A6QFkmfBoCzvwgAWlrwXxqmnxezsz9P+RmbKWtbTM=");
    assert_eq!(request["auth"]["remaining_uses"], 9, "this one included");
    assert_eq!(response["response"]["auth"]["token_issue_time"], request["auth"]["token_issue_time"]);

    let found = app.get("auth/token/lookup-self").assert_status(200);
    let (_, response) = last(&file, "auth/token/lookup-self");
    for time in ["issue_time", "expire_time", "last_renewal"] {
        assert_eq!(response["response"]["data"][time], found.at(&format!("/data/{time}")), "{time}");
    }

    app.get("sys/internal/ui/mounts/nothing").assert_status(403);
    let (request, response) = last(&file, "sys/internal/ui/mounts/nothing");
    assert_eq!(request["auth"]["policy_results"], json!({ "allowed": true }));
    assert!(response["error"].as_str().is_some_and(|error| error.starts_with("preflight")), "{response}");
    assert_eq!(response["response"]["data"]["error"], hash(&server, response["error"].as_str().unwrap()));
}

#[test]
fn refusals_and_bad_tokens_are_recorded() {
    let (server, file) = audited();
    let app = server.with_policy("reader", READER);
    app.get("sys/policies/acl/reader").assert_multi(403, "permission denied");
    let (request, response) = last(&file, "sys/policies/acl/reader");
    for line in [&request, &response] {
        assert_eq!(line["auth"]["policy_results"]["allowed"], false);
        assert_eq!(line["error"], DENIED);
    }
    assert_eq!(response["response"]["data"], json!({ "error": hash(&server, DENIED) }));

    server.as_token("s.notatokenofthisserver00").get("database/creds/reader").assert_error(403, "permission denied");
    let (request, _) = last(&file, "database/creds/reader");
    assert_eq!(request["auth"], json!({ "token_type": "default" }));
    assert_eq!(request["request"]["client_token"], hash(&server, "s.notatokenofthisserver00"));
    server.nobody().get("database/creds/other").assert_error(403, "permission denied");
    let (request, _) = last(&file, "database/creds/other");
    assert_eq!(request["request"]["client_token"], Value::Null);
    assert!(request["error"].as_str().is_some_and(|error| error.contains("permission denied")), "{request}");

    // What needs no token is not recorded.
    let before = records(&file).len();
    server.nobody().get("sys/health").assert_status(200);
    server.nobody().get("sys/seal-status").assert_status(200);
    assert_eq!(records(&file).len(), before);
}

#[test]
fn text_is_hashed_wherever_it_stands_and_new_tokens_too() {
    let (server, file) = audited();
    let body =
        json!({ "policies": ["default"], "meta": { "owner": "canary-owner" }, "num_uses": 5, "renewable": false });
    let made = server.root().post("auth/token/create", body).assert_status(200);
    let (request, response) = last(&file, "auth/token/create");
    assert_eq!(request["request"]["data"]["policies"], json!([hash(&server, "default")]));
    assert_eq!(request["request"]["data"]["meta"]["owner"], hash(&server, "canary-owner"));
    assert_eq!(request["request"]["data"]["num_uses"], 5);
    assert_eq!(request["request"]["data"]["renewable"], false);
    assert_eq!(response["response"]["auth"]["client_token"], hash(&server, &made.text("/auth/client_token")));
    assert_eq!(response["response"]["auth"]["accessor"], hash(&server, &made.text("/auth/accessor")));
    assert_eq!(response["response"]["auth"]["policies"], json!(["default"]));
    assert_eq!(response["response"]["auth"]["token_policies"], json!(["default"]));
    assert_eq!(response["response"]["auth"]["metadata"], json!({ "owner": "canary-owner" }));
    assert_eq!(response["response"]["auth"]["num_uses"], 5);
    for (line, version) in
        [(&request["request"], "mount_running_version"), (&response["response"], "mount_running_plugin_version")]
    {
        assert_eq!(line["mount_class"], "auth");
        assert!(line[version].as_str().is_some_and(|version| version.ends_with("+builtin")), "{line}");
    }
    // The host answered for root: no component can be named.
    assert_eq!(request["auth"]["policy_results"]["rules"][0]["policy"], "root");
    assert_eq!(request["auth"]["policy_results"]["acl_module"], Value::Null);

    let batch = server.root().child(json!({ "type": "batch", "policies": ["default"], "ttl": "1h" }));
    let (_, response) = last(&file, "auth/token/create");
    assert_eq!(response["response"]["auth"]["accessor"], Value::Null, "a batch token has none");
    server.as_token(&batch).get("auth/token/lookup-self").assert_status(200);
    let (request, _) = last(&file, "auth/token/lookup-self");
    assert_eq!(request["request"]["client_token_accessor"], Value::Null);
    assert_eq!(request["request"]["client_token"], hash(&server, &batch));
}

#[test]
fn a_file_lies_beneath_the_configured_directory_or_is_refused() {
    let server = Server::durable(&Durable::default());
    let root = server.root();
    let directory = server.home().join("audit");
    std::os::unix::fs::symlink("/tmp", directory.join("away")).unwrap();
    std::os::unix::fs::symlink(server.home().join("linked.log"), directory.join("link.log")).unwrap();
    let ask = |path: &str| root.put("sys/audit/x", json!({ "type": "file", "options": { "file_path": path } }));
    for outside in [
        server.home().join("elsewhere.log"),
        PathBuf::from("/etc/cron.d/leasehold"),
        directory.join("../elsewhere.log"),
        directory.join("away/elsewhere.log"),
        directory.join("link.log"),
        PathBuf::from("../elsewhere.log"),
        PathBuf::from(format!("{}-beside/x.log", directory.display())),
    ] {
        ask(outside.to_str().unwrap()).assert_error_has(400, "file_path must lie beneath ");
    }
    assert!(!server.home().join("elsewhere.log").exists() && !server.home().join("linked.log").exists());
    ask("").assert_error(400, "file_path is required");
    rustix::fs::mkfifoat(rustix::fs::CWD, directory.join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    ask(directory.join("pipe").to_str().unwrap()).assert_error_has(400, "sanity check failed; unable to open ");
    // Whoever reads a pipe that nobody writes to waits for ever.
    fs::remove_file(directory.join("pipe")).unwrap();
    root.put("sys/audit/x", json!({ "type": "nosuch" })).assert_error(400, "unknown backend type: \"nosuch\"");
    root.get("sys/audit").assert_status(200).assert_at("/data", json!({}));

    enable(&server, "x", Path::new("inside.log"));
    assert!(directory.join("inside.log").exists());
    ask("again.log").assert_error(400, "path already in use");
    let listed = root.get("sys/audit").assert_status(200);
    assert_eq!(listed.at("/data")["x/"]["type"], "file");
    assert_eq!(listed.at("/data")["x/"]["description"], "for tests");
    assert_eq!(listed.json()["x/"], listed.at("/data")["x/"], "old clients look at the top");
}

#[test]
fn audit_is_for_those_with_sudo() {
    let (server, _) = audited();
    let client =
        server.with_policy("auditor", "path \"sys/audit*\" { capabilities = [\"read\", \"update\", \"delete\"] }");
    client.get("sys/audit").assert_multi(403, "permission denied");
    client.delete("sys/audit/file").assert_multi(403, "permission denied");
    client.put("sys/audit/two", json!({ "type": "file" })).assert_multi(403, "permission denied");
    client.post("sys/audit-hash/file", json!({ "input": "x" })).assert_status(200);
    client.post("sys/audit-hash/file", json!({})).assert_error(400, "the \"input\" parameter is empty");
    client.post("sys/audit-hash/nope", json!({ "input": "x" })).assert_error(400, "unknown audit backend \"nope/\"");
}

#[test]
fn a_device_survives_a_restart_and_can_be_disabled() {
    let (server, file) = audited();
    let of_before = hash(&server, "constant");
    server.crash_and_restart();
    assert_eq!(hash(&server, "constant"), of_before, "the salt is the device's own, for ever");
    server.root().get("sys/mounts").assert_status(200);
    last(&file, "sys/mounts");
    server.root().delete("sys/audit/file").assert_status(204);
    server.root().delete("sys/audit/file").assert_status(204);
    let before = records(&file).len();
    server.root().get("sys/mounts").assert_status(200);
    assert_eq!(records(&file).len(), before);
    server.root().get("sys/audit").assert_at("/data", json!({}));
}

#[test]
fn a_declared_device_is_there_from_the_start_and_stays() {
    let settings = "audit \"file\" \"declared\" {\n  options = { file_path = \"audit/declared.log\" }\n}\n";
    let server = Server::durable(&Durable { settings: settings.to_owned(), ..Durable::default() });
    let file = server.home().join("audit/declared.log");
    server.root().get("sys/mounts").assert_status(200);
    last(&file, "sys/mounts");
    server.root().delete("sys/audit/declared").assert_error_has(400, "declared in the server's configuration");
    server.root().get("sys/policy").assert_status(200);
    last(&file, "sys/policy");
}

#[test]
fn a_hangup_reopens_the_file() {
    let (server, file) = audited();
    let rotated = file.with_extension("1");
    fs::rename(&file, &rotated).unwrap();
    server.root().get("sys/mounts").assert_status(200);
    last(&rotated, "sys/mounts");
    server.signal(Signal::HUP);
    eventually("the file is there again", || file.exists());
    server.root().get("sys/policy").assert_status(200);
    last(&file, "sys/policy");
    assert!(!fs::read_to_string(&rotated).unwrap().contains("sys/policy\""));
}

#[test]
fn registered_headers_are_recorded_and_others_are_not() {
    let (server, file) = audited();
    let root = server.root();
    root.post("sys/config/auditing/request-headers/X-Team", json!({ "hmac": false })).assert_status(204);
    root.post("sys/config/auditing/request-headers/X-Ticket", json!({ "hmac": true })).assert_status(204);
    let headers = [("X-Team", "blue"), ("X-Ticket", "canary-ticket"), ("X-Other", "canary-other")];
    root.bytes("PUT", "sys/capabilities-self", br#"{"path":"sys/mounts"}"#, &headers).assert_status(200);
    let (request, _) = last(&file, "sys/capabilities-self");
    let wanted = json!({ "x-team": ["blue"], "x-ticket": [hash(&server, "canary-ticket")] });
    assert_eq!(request["request"]["headers"], wanted);
    root.post("sys/config/auditing/request-headers/X-Vault-Token", json!({})).assert_status(400);
}

/// Lets a device's file be as long as the file system allows, but for a rest: what does not fit fails to be written,
/// as on a full disk.
pub struct Full {
    file: File,
    before: u64,
    longest: u64,
}

impl Full {
    pub fn of(path: &Path) -> Self {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let before = file.metadata().unwrap().len();
        let (mut fits, mut fails) = (before, i64::MAX as u64);
        while fails - fits > 1 {
            let middle = fits + (fails - fits) / 2;
            if file.set_len(middle).is_ok() { fits = middle } else { fails = middle }
        }
        file.set_len(before).unwrap();
        Self { file, before, longest: fits }
    }

    pub fn leave(&self, rest: u64) {
        self.file.set_len(self.longest - rest).unwrap();
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        // Back to a length that can be read.
        let _ = self.file.set_len(self.before);
    }
}

#[test]
fn nothing_is_done_that_cannot_be_recorded() {
    let (server, file) = audited();
    let database = Database::fresh();
    server.connect(&database);
    server.role("silent", json!({}));
    let app = server.with_policy("silent", "path \"database/creds/silent\" { capabilities = [\"read\"] }");
    let leased = app.credential("silent");
    let count = || database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token-silent-%'");
    assert_eq!(count(), "1");

    let full = Full::of(&file);
    full.leave(0);
    let refuse = |client: &Client, method: &str, path: &str, body: Option<Value>| {
        let answer = client.request(method, path, body).assert_error_has(500, "internal error, request id ");
        assert!(answer.at("/data").is_null() && answer.at("/lease_id").is_null(), "{answer}");
    };
    refuse(&app, "GET", "database/creds/silent", None);
    refuse(&server.root(), "PUT", "sys/policies/acl/silent", Some(json!({ "policy": "" })));
    refuse(&server.root(), "GET", "sys/mounts", None);
    refuse(&server.root(), "POST", "auth/token/create", Some(json!({})));
    refuse(&server.root(), "PUT", "sys/leases/revoke", Some(json!({ "lease_id": leased.lease })));
    server.nobody().get("sys/health").assert_status(200);
    assert_eq!(count(), "1", "neither made nor revoked");
    drop(full);

    assert!(server.root().has_lease(&leased.lease));
    app.credential("silent");
    assert_eq!(count(), "2");
}

#[test]
fn a_credential_whose_answer_cannot_be_recorded_does_not_live() {
    let (server, file) = audited();
    let database = Database::fresh();
    server.connect(&database);
    server.role("unheard", json!({}));
    let app = server.with_policy("unheard", "path \"database/creds/unheard\" { capabilities = [\"read\"] }");
    let heard = app.credential("unheard");
    let (request, response) = last(&file, "database/creds/unheard");
    let (request, response) = (request.to_string().len() as u64, response.to_string().len() as u64);

    let full = Full::of(&file);
    // The first half of the record fits, the second does not.
    full.leave(request + response / 2);
    app.get("database/creds/unheard").assert_error_has(500, "internal error, request id ");
    drop(full);

    let others =
        format!("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token-unheard-%' AND rolname <> '{}'", heard.user);
    eventually("the PostgreSQL role is gone", || database.sql(&others) == "0");
    let made = database.server().log().unwrap().matches("CREATE ROLE \"v-token-unheard-").count();
    assert!(made >= 2, "the second was made, before it was taken back");
    assert!(database.has_role(&heard.user));
    let leases = server.root().list("sys/leases/lookup/database/creds/unheard").assert_status(200).at("/data/keys");
    assert_eq!(leases, json!([heard.lease.rsplit('/').next()]));
}

#[test]
fn a_device_that_is_not_meant_as_it_is_written_is_refused() {
    let (server, _) = audited();
    let root = server.root();
    let asked = |path: &str, options: Value| root.put(path, json!({ "type": "file", "options": options }));
    for option in ["log_raw", "hmac_accessor", "elide_list_responses"] {
        for text in ["yes", ""] {
            let file = server.home().join("audit/refused.log");
            let answer = asked("sys/audit/refused", json!({ "file_path": file, option: text }));
            answer.assert_error(400, &format!("strconv.ParseBool: parsing {text:?}: invalid syntax"));
            assert!(!file.exists());
        }
    }
    // Below one that is there, and above one.
    asked("sys/audit/file/below", json!({ "file_path": "stdout" })).assert_error(400, "path already in use");
    asked("sys/audit/deep/one", json!({ "file_path": "stdout", "log_raw": "F" })).assert_status(204);
    asked("sys/audit/deep", json!({ "file_path": "stdout" })).assert_error(400, "path already in use");
    asked("sys/audit/deeper", json!({ "file_path": "stdout" }))
        .assert_error(400, "another audit device writes to stdout already");
    asked("sys/audit/deeper", json!({ "file_path": "deeper.log" })).assert_status(204);

    asked("sys/audit/none", json!({ "file_path": "Discard" })).assert_status(204).assert_empty();
    for folder in [server.home().join("audit"), server.home().to_owned()] {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!names.into_iter().any(|name| name.eq_ignore_ascii_case("discard")));
    }
}

#[test]
fn one_device_that_writes_is_enough() {
    let (server, file) = audited();
    enable(&server, "second", &server.home().join("audit/second.log"));
    let full = Full::of(&file);
    full.leave(0);
    server.root().get("sys/mounts").assert_status(200);
    last(&server.home().join("audit/second.log"), "sys/mounts");
    drop(full);
}
