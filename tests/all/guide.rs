//! The guide "Dynamic Secrets", command by command, against a real PostgreSQL; and the same against a real OpenBao.
//!
//! [`by_commands`] and [`by_curl`] walk it and note what a person would see; what both servers must do is asserted on
//! the way. The notes of the two servers must agree except for [`DIFFERENCES`].

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Answer, Bao, Database, Kind, Ran, Server, eventually};

/// Where we answer differently from OpenBao, and why. Each row must still be true.
const DIFFERENCES: &[(&str, &str)] = &[
    ("commands: configure", "OpenBao 2.7 warns that it ignored connection_url, which it uses"),
    ("curl: configure", "OpenBao 2.7 warns that it ignored connection_url, which it uses"),
    ("commands: role", "we warn of a right that is granted to the leased role itself"),
    ("curl: role", "we warn of a right that is granted to the leased role itself"),
    ("commands: read the role", "our roles have a template_dialect"),
    ("curl: read the role", "our roles have a template_dialect"),
    ("commands: renew as in 2018", "we keep the old spelling of the guide; OpenBao has dropped the command"),
    ("commands: the open session after the revocation", "our revocation ends sessions; OpenBao's leaves them reading"),
    ("curl: renew as in 2018", "we serve the old route, with the ACL on the path as requested; OpenBao removed it"),
];

/// The guide's policy with its braces repaired, and the routes that today's commands use.
const ADMIN_POLICY: &str = r#"
path "sys/mounts/*"      { capabilities = ["create","read","update","delete","list"] }
path "database/*"        { capabilities = ["create","read","update","delete","list"] }
path "sys/policy/*"      { capabilities = ["create","read","update","delete","list"] }
path "auth/token/create" { capabilities = ["create","read","update","delete","list","sudo"] }
path "sys/policies/acl/*"         { capabilities = ["create","read","update","delete","list"] }
path "sys/leases/revoke/*"        { capabilities = ["update"] }
path "sys/leases/revoke"          { capabilities = ["update"] }
path "sys/leases/revoke-prefix/*" { capabilities = ["update","sudo"] }
"#;

const READONLY_SQL: &str = "\
CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\";
";

const APPS_POLICY: &str = "\
# Get credentials from the database backend
path \"database/creds/readonly\" {
  capabilities = [ \"read\" ]
}
";

#[test]
fn every_command_of_the_guide_works() {
    by_commands(&Server::dev());
}

#[test]
fn every_curl_call_of_the_guide_works() {
    by_curl(&Server::dev());
}

#[test]
fn the_guide_agrees_with_a_real_openbao() {
    let Some(bao) = Bao::find("the guide beside a real OpenBao") else { return };
    let ours = {
        let mut notes = by_commands(&Server::dev());
        notes.extend(by_curl(&Server::dev()));
        notes
    };
    let theirs = {
        let mut notes = by_commands(&Server::openbao(&bao));
        notes.extend(by_curl(&Server::openbao(&bao)));
        notes
    };
    let mut wrong = Vec::new();
    for (step, seen) in &ours {
        let other = theirs.get(step).unwrap_or(&Value::Null);
        let known = DIFFERENCES.iter().any(|(name, _)| name == step);
        match (seen == other, known) {
            (true, false) | (false, true) => {}
            (false, false) => wrong.push(format!("{step}\n  ours    {seen:#}\n  OpenBao {other:#}")),
            (true, true) => wrong.push(format!("{step}: listed as a difference, but it is none")),
        }
    }
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{} steps differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What was seen at each step, with names and secrets replaced by what they are.
struct Notes {
    way: &'static str,
    seen: BTreeMap<String, Value>,
    known: Vec<(String, &'static str)>,
}

impl Notes {
    fn new(way: &'static str) -> Self {
        Self { way, seen: BTreeMap::new(), known: Vec::new() }
    }

    /// From now on this value is noted as `<what>`.
    fn call(&mut self, value: &str, what: &'static str) {
        self.known.push((value.to_owned(), what));
    }

    fn note(&mut self, step: &str, seen: Value) {
        self.seen.insert(format!("{}: {step}", self.way), seen);
    }

    fn ran(&mut self, step: &str, ran: &Ran) {
        let lines = |text: &str| -> Vec<String> {
            self.plain(text).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        let seen = json!({ "status": ran.status, "stdout": lines(&ran.stdout), "stderr": lines(&ran.stderr) });
        self.note(step, seen);
    }

    fn answered(&mut self, step: &str, answer: &Answer) {
        let mut body = answer.json();
        if let Some(id) = body.get_mut("request_id") {
            assert_eq!(id.as_str().map(str::len), Some(36), "{answer}");
            *id = json!("<request>");
        }
        let body: Value = serde_json::from_str(&self.plain(&body.to_string())).unwrap();
        self.note(step, json!({ "status": answer.status, "type": answer.header("content-type"), "body": body }));
    }

    fn plain(&self, text: &str) -> String {
        self.known.iter().fold(text.to_owned(), |text, (value, what)| text.replace(value, &format!("<{what}>")))
    }
}

/// One credential, as PostgreSQL sees it.
struct Credential {
    lease: String,
    user: String,
    password: String,
}

fn check_credential(database: &Database<'_>, credential: &Credential, ttl: i64) {
    let Credential { lease, user, password } = credential;
    let random = lease.strip_prefix("database/creds/readonly/").expect("a lease is named after its path");
    assert_eq!(random.len(), 24, "{lease}");
    assert!(random.chars().all(|c| c.is_ascii_alphanumeric()), "{lease}");
    let parts: Vec<&str> = user.split('-').collect();
    assert!(matches!(parts[..], ["v", "token", "readonly", random, _] if random.len() == 20), "{user}");
    assert!(password.len() >= 20, "a short password");

    assert!(database.has_role(user));
    // The guide's `\du`: the end is the lease's, and five seconds.
    let left = database.seconds_left(user);
    assert!((ttl - 60..=ttl + 5).contains(&left), "{left} s left of {ttl}");
    let session = database.login(user, password).expect("the credential works");
    assert_eq!(session.sql("SELECT name FROM customers WHERE id = 1").unwrap(), ["Ada"]);
    let refused = session.sql("INSERT INTO customers (name, city) VALUES ('x', 'y')").unwrap_err();
    assert!(refused.contains("42501"), "{refused}");
}

fn check_gone(database: &Database<'_>, credential: &Credential) {
    eventually("the PostgreSQL role is gone", || !database.has_role(&credential.user));
    assert!(!database.lets_in(&credential.user, &credential.password));
}

/// The guide's left column: the command line.
fn by_commands(server: &Server) -> BTreeMap<String, Value> {
    let database = Database::fresh();
    let mut notes = Notes::new("commands");
    let root = server.cli();
    notes.call(&database.server().port().to_string(), "port");
    notes.call(database.name(), "database");
    for (name, text) in [("admin.hcl", ADMIN_POLICY), ("readonly.sql", READONLY_SQL), ("apps-policy.hcl", APPS_POLICY)]
    {
        fs::write(root.home().join(name), text).unwrap();
    }

    root.line("policy write admin admin.hcl").assert_status(0);
    let made = root.line("token create -policy=admin -field=token").assert_status(0);
    let admin = root.with_token(made.stdout.trim());
    server.secrets().tell(made.stdout.trim());

    let ran = admin.line("secrets enable database").assert_status(0);
    notes.ran("mount", &ran);
    notes.ran("mount again: message", &message_of(&admin.line("secrets enable database").assert_status(2)));

    let url = format!("connection_url={}", database.plain_url());
    let ran = admin
        .run(&[
            "write",
            "database/config/postgresql",
            "plugin_name=postgresql-database-plugin",
            "allowed_roles=readonly",
            &url,
        ])
        .assert_status(0);
    notes.ran("configure", &ran);

    let ran = admin
        .line(
            "write database/roles/readonly db_name=postgresql creation_statements=@readonly.sql default_ttl=1h max_ttl=24h",
        )
        .assert_status(0);
    notes.ran("role", &ran);
    notes.ran("read the role", &admin.line("read database/roles/readonly").assert_status(0));

    notes.ran("policy", &admin.line("policy write apps apps-policy.hcl").assert_status(0));
    let ran = admin.run(&["token", "create", "-policy=apps"]).assert_status(0);
    let token = ran.row("token");
    server.secrets().tell(&token);
    notes.call(&token, "token");
    notes.call(&ran.row("token_accessor"), "accessor");
    notes.ran("token", &ran);

    // The application's person has no token but the one that `login` stores.
    let apps = root.without_token();
    let ran = apps.run(&["login", &token]).assert_status(0);
    notes.note("log in: status", json!(ran.status));

    let ran = apps.line("read database/creds/readonly").assert_status(0);
    let credential = credential_of(&ran);
    server.secrets().tell(&credential.password);
    check_credential(&database, &credential, 3600);
    notes.call(&credential.lease, "lease");
    notes.call(&credential.user, "user");
    notes.call(&credential.password, "password");
    notes.ran("read a credential", &ran);
    let second = credential_of(&apps.line("read database/creds/readonly").assert_status(0));
    assert_ne!(credential.user, second.user);

    let session = database.login(&credential.user, &credential.password).unwrap();
    let ran = apps.run(&["lease", "renew", &credential.lease]).assert_status(0);
    notes.ran("renew", &ran);
    let ran = apps.run(&["renew", &credential.lease]);
    notes.note("renew as in 2018", json!(ran.status));

    notes.ran("revoke as the application", &message_of(&apps.run(&["lease", "revoke", &credential.lease])));
    assert!(database.has_role(&credential.user));
    let ran = admin.run(&["lease", "revoke", &credential.lease]).assert_status(0);
    notes.ran("revoke", &ran);
    check_gone(&database, &credential);
    notes.note("the open session after the revocation", json!(session.is_alive()));
    assert!(server.kind() == Kind::OpenBao || !session.is_alive());

    assert!(database.has_role(&second.user));
    let third = credential_of(&apps.line("read database/creds/readonly").assert_status(0));
    let ran = admin.line("lease revoke -prefix=true database/creds/readonly").assert_status(0);
    notes.ran("revoke all", &ran);
    check_gone(&database, &second);
    check_gone(&database, &third);

    let last = credential_of(&apps.line("read database/creds/readonly").assert_status(0));
    let ran = admin.run(&["lease", "revoke", "-sync", &last.lease]).assert_status(0);
    assert!(!database.has_role(&last.user), "-sync answers when the role is gone");
    notes.call(&last.lease, "last lease");
    notes.ran("revoke and wait", &ran);
    notes.seen
}

fn credential_of(ran: &Ran) -> Credential {
    Credential { lease: ran.row("lease_id"), user: ran.row("username"), password: ran.row("password") }
}

/// Only how a command failed, and the server's own words: clients put the address around them.
fn message_of(ran: &Ran) -> Ran {
    let words = ran.stderr.lines().filter(|line| line.trim_start().starts_with('*'));
    Ran { stderr: words.collect::<Vec<_>>().join("\n"), ..ran.clone() }
}

/// The guide's right column: curl.
fn by_curl(server: &Server) -> BTreeMap<String, Value> {
    let database = Database::fresh();
    let mut notes = Notes::new("curl");
    notes.call(&database.server().port().to_string(), "port");
    let admin = server.with_policy("admin", ADMIN_POLICY);
    // The client above only made the token; the calls are curl's.
    let made = server.root().post("auth/token/create", json!({ "policies": ["admin"] })).assert_status(200);
    drop(admin);
    let admin = made.text("/auth/client_token");

    let mount = |curl: &Curl<'_>| curl.run("POST", Some(r#"{"type":"database"}"#), "sys/mounts/database");
    let as_admin = Curl { server, token: &admin };
    notes.answered("mount", &mount(&as_admin).assert_status(204).assert_empty());
    notes.answered("mount again", &mount(&as_admin).assert_error(400, "path is already in use at database/"));

    let payload = format!(
        r#"{{ "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "readonly",
            "connection_url": "{}" }}"#,
        database.plain_url()
    );
    let answer = as_admin.file("POST", &payload, "database/config/postgresql").assert_status(200);
    notes.answered("configure", &answer.assert_warning("Password found in connection_url"));

    // As the guide prints it: a role for a connection that is not there, its name in single quotes. Stored, then refused.
    let payload = r#"{ "db_name": "postgres",
        "creation_statements": "CREATE ROLE '{{name}}' WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';",
        "default_ttl": "1h", "max_ttl": "24h" }"#;
    let answer = as_admin.file("POST", payload, "database/roles/readonly");
    assert!(matches!(answer.status, 200 | 204), "{answer}");
    let answer = as_admin.run("GET", None, "database/creds/readonly");
    let answer = answer.assert_multi(500, r#"failed to find entry for connection with name: "postgres""#);
    notes.answered("credential of an unknown connection", &answer);
    let answer = as_admin.file("POST", r#"{ "db_name": "postgresql" }"#, "database/roles/readonly");
    assert!(matches!(answer.status, 200 | 204), "{answer}");
    let answer = as_admin.run("GET", None, "database/creds/readonly");
    let answer = answer.assert_error_has(500, "failed to execute query: ERROR: syntax error at or near");
    assert!(answer.body.contains("(SQLSTATE 42601)"), "{answer}");
    assert_eq!(database.sql("SELECT count(*) FROM pg_shdescription WHERE description LIKE '%readonly/%'"), "0");

    let payload = json!({
        "db_name": "postgresql",
        "creation_statements":
            "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\";",
        "default_ttl": "1h", "max_ttl": "24h",
    });
    let answer = as_admin.file("POST", &payload.to_string(), "database/roles/readonly");
    assert!(matches!(answer.status, 200 | 204), "{answer}");
    notes.answered("role", &answer);
    notes.answered("read the role", &as_admin.run("GET", None, "database/roles/readonly").assert_status(200));

    let payload = r#"{ "policy": "path \"database/creds/readonly\" {capabilities = [ \"read\" ]}" }"#;
    let answer = as_admin.file("PUT", payload, "sys/policy/apps");
    notes.answered("policy", &answer.assert_status(204).assert_empty());
    let answer = as_admin.run("POST", Some(r#"{"policies": ["apps"]}"#), "auth/token/create").assert_status(200);
    let token = answer.text("/auth/client_token");
    notes.call(&token, "token");
    notes.call(&answer.text("/auth/accessor"), "accessor");
    notes.answered("token", &answer);

    let as_apps = Curl { server, token: &token };
    let answer = as_apps.run("GET", None, "database/creds/readonly").assert_status(200);
    let credential = Credential {
        lease: answer.text("/lease_id"),
        user: answer.text("/data/username"),
        password: answer.text("/data/password"),
    };
    check_credential(&database, &credential, 3600);
    notes.call(&credential.lease, "lease");
    notes.call(&credential.user, "user");
    notes.call(&credential.password, "password");
    notes.answered("read a credential", &answer);
    let answer = as_apps.run("GET", None, "database/roles/readonly").assert_multi(403, "permission denied");
    notes.answered("read the role as the application", &answer);
    let answer = as_apps.run("POST", Some("{}"), "database/creds/readonly");
    notes.answered("write a credential as the application", &answer);
    let answer = as_admin.run("POST", Some("{}"), "database/creds/readonly").assert_multi(405, "unsupported operation");
    notes.answered("write a credential", &answer);

    let body = json!({ "lease_id": credential.lease }).to_string();
    let answer = as_apps.run("PUT", Some(&body), "sys/leases/renew").assert_status(200);
    notes.answered("renew", &answer.assert_at("/lease_duration", 3600));
    let answer = as_apps.run("PUT", Some(&body), "sys/renew");
    notes.answered("renew as in 2018", &answer);
    let beyond = json!({ "lease_id": credential.lease, "increment": "99h" }).to_string();
    let answer = as_apps.run("PUT", Some(&beyond), "sys/leases/renew").assert_status(200);
    let answer = answer.assert_warning("TTL of \"99h\" exceeded the effective max_ttl of ");
    let left = database.seconds_left(&credential.user);
    assert!((86_400 - 60..=86_405).contains(&left), "{left} s left after a renewal to the maximum");
    notes.note("renew beyond the maximum", json!(answer.status));

    notes.answered("revoke as the application", &as_apps.run("PUT", Some(&body), "sys/leases/revoke"));
    let answer = as_admin.run("PUT", Some(&body), "sys/leases/revoke").assert_status(204).assert_empty();
    assert!(!database.has_role(&credential.user), "the answer comes when the role is gone");
    notes.answered("revoke", &answer);
    check_gone(&database, &credential);
    notes.answered("revoke again", &as_admin.run("PUT", Some(&body), "sys/leases/revoke").assert_status(204));
    let answer = as_apps.run("PUT", Some(&body), "sys/leases/renew").assert_error(400, "lease not found");
    notes.answered("renew what was revoked", &answer);
    let answer = as_apps.run("PUT", Some(&body), "sys/leases/lookup").assert_error(400, "invalid lease");
    notes.answered("look up what was revoked", &answer);

    as_apps.run("GET", None, "database/creds/readonly").assert_status(200);
    let user = as_apps.run("GET", None, "database/creds/readonly").assert_status(200).text("/data/username");
    let answer = as_admin.run("PUT", None, "sys/leases/revoke-prefix/database/creds/readonly").assert_status(204);
    assert!(!database.has_role(&user));
    notes.answered("revoke all", &answer.assert_empty());
    notes.seen
}

/// curl as the guide calls it.
struct Curl<'a> {
    server: &'a Server,
    token: &'a str,
}

impl Curl<'_> {
    fn file(&self, method: &str, payload: &str, path: &str) -> Answer {
        let file = self.server.home().join("payload.json");
        fs::write(&file, payload).unwrap();
        self.run(method, Some(&format!("@{}", file.display())), path)
    }

    fn run(&self, method: &str, data: Option<&str>, path: &str) -> Answer {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--max-time", "120"]);
        command.args(["--header", &format!("X-Vault-Token: {}", self.token), "--request", method]);
        if let Some(data) = data {
            command.args(["--data", data]);
        }
        let output = command.arg(format!("http://{}/v1/{path}", self.server.address())).output().expect("curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let answer = Answer { asked: format!("curl {method} {path}"), status, headers, body: body.to_owned() };
        self.server.secrets().tell_answer(&answer.json());
        answer
    }
}
