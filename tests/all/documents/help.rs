//! The examples of `leasehold COMMAND -help` are documents too: each is run as it stands, but for ids that only one server knows.

use std::fs;
use std::sync::OnceLock;

use serde_json::json;

use super::known::help;
use super::session::shell;
use crate::support::{Client, Database, Durable, Server, Signer, change_freeze, now};

/// Commands that ask a person, and here find none.
const ASKS: [&str; 7] = [
    "leasehold login",
    "leasehold operator unseal",
    "leasehold operator generate-root",
    "leasehold operator rekey",
    "leasehold operator rekey -verify",
    "leasehold operator rotate-keys",
    "leasehold operator rotate-keys -verify",
];
/// Ids in examples. Each stands for one that is made for the example.
const LEASES: [&str; 2] = ["database/creds/readonly/2f6a614c", "database/creds/readonly/LEASE"];
const TOKEN: &str = "s.24C1WPwTpPR0uUq6sfFYtu9o";
const WRAPPING_TOKEN: &str = "s.u3Mq9yTQkm0yTTVcGJsKxVnE";
const ACCESSOR: &str = "0Lb4CqOoZFs4bAy2weIKoxhV";
/// What the client can ask of other servers only. When this server learns it, the remark must go.
const REFUSED: &str = "# refused by this server";

/// A command and the examples in its help.
struct Page {
    command: String,
    examples: Vec<String>,
}

/// The pages of a command and of all beneath it.
fn gather(names: &[&str], pages: &mut Vec<Page>) {
    let text = help(names).unwrap_or_else(|why| panic!("leasehold {} -help: {why}", names.join(" ")));
    let mut examples: Vec<String> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("  $ "), examples.last_mut().filter(|last| last.ends_with('\\'))) {
            (Some(example), _) => examples.push(example.to_owned()),
            (None, Some(last)) => *last = format!("{last}\n{line}"),
            (None, None) => {
                let hidden = line.trim_start().trim_start_matches("$ ");
                assert!(!hidden.starts_with("leasehold ") || line.contains('`'), "not as the others: {line}\n{text}");
            }
        }
    }
    pages.push(Page { command: format!("leasehold {}", names.join(" ")), examples });
    let commands = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for name in commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        gather(&[names, &[name]].concat(), pages);
    }
}

/// Whatever an example before may have removed is there again.
fn prepare(server: &Server, database: &Database<'_>, example: &str) {
    if server.nobody().get("sys/seal-status").at("/sealed") == true {
        server.unseal();
    }
    let root = server.root();
    let is_missing = |path: &str| root.get(path).status != 200;
    if example.starts_with("leasehold secrets enable database") {
        root.delete("sys/mounts/database").assert_status(204);
    } else if is_missing("sys/mounts/database") {
        root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    }
    if !example.starts_with("leasehold secrets enable database") && is_missing("database/roles/readonly") {
        root.post("database/config/postgresql", database.config()).assert_status(204);
        server.role("readonly", json!({ "db_name": "postgresql" }));
    }
    if example.starts_with("leasehold auth enable") {
        for path in ["userpass", "machines"] {
            root.delete(&format!("sys/auth/{path}")).assert_status(204);
        }
    } else if example.starts_with("leasehold login -method") {
        enable_auth(&root);
    }
    if example.starts_with("leasehold kv ") {
        if is_missing("sys/mounts/secret") {
            root.post("sys/mounts/secret", json!({ "type": "kv-v2" })).assert_status(204);
        }
        // Two versions, whatever the example before has done.
        root.delete("secret/metadata/app").assert_status(204);
        for color in ["red", "green"] {
            root.put("secret/data/app", json!({ "data": { "color": color } })).assert_status(200);
        }
    }
    if is_missing("sys/policies/acl/apps") {
        root.put("sys/policies/acl/apps", json!({ "policy": POLICY })).assert_status(204);
    }
    if is_missing("sys/modules/change-freeze") {
        root.bytes("PUT", "sys/modules/change-freeze", &change_freeze(), &[("Content-Type", "application/wasm")])
            .assert_status(200);
    }
}

/// The attempts of a quorum that an example goes on with; the nonce of the one that it means.
fn begin_attempts(server: &Server, example: &str) -> Option<String> {
    let begins = example.contains("-init") || example.contains("-decode");
    let root = server.root();
    let (generation, rotation) = ("sys/generate-root-token/attempt", "sys/rotate/root/init");
    for attempt in [generation, rotation] {
        root.delete(attempt).assert_status(204);
    }
    if begins {
        return None;
    }
    if example.contains("generate-root") {
        return Some(root.put(generation, json!({})).text("/data/nonce"));
    }
    // To be verified: otherwise the server would have another share afterwards.
    let wish = json!({ "secret_shares": 1, "secret_threshold": 1, "require_verification": true });
    let nonce = root.put(rotation, wish).text("/data/nonce");
    if example.contains("-verify") {
        let last = json!({ "key": server.shares()[0], "nonce": nonce });
        root.put("sys/rotate/root/update", last).assert_status(200);
    }
    Some(nonce)
}

/// Those who log in in examples.
fn enable_auth(root: &Client) {
    for (path, kind) in [("userpass", "userpass"), ("machines", "approle"), ("jwt", "jwt")] {
        root.delete(&format!("sys/auth/{path}")).assert_status(204);
        root.post(&format!("sys/auth/{path}"), json!({ "type": kind })).assert_status(204);
    }
    let password = json!({ "password": crate::support::ADMIN_PASSWORD });
    root.post("auth/userpass/users/sally", password).assert_status(204);
    root.post("auth/machines/role/apps", json!({ "role_id": "apps" })).assert_status(204);
    let secret_id = json!({ "secret_id": SECRET_ID });
    root.post("auth/machines/role/apps/custom-secret-id", secret_id).assert_status(200);
    root.post("auth/jwt/config", json!({ "jwt_validation_pubkeys": provider().public_pem() })).assert_status(204);
    let role = json!({ "role_type": "jwt", "user_claim": "sub", "bound_subject": "job" });
    root.post("auth/jwt/role/ci", role).assert_status(204);
}

/// Signs the tokens of the role `ci` in examples.
fn provider() -> &'static Signer {
    static PROVIDER: OnceLock<Signer> = OnceLock::new();
    PROVIDER.get_or_init(Signer::new)
}

/// Of the role `apps` in examples.
const SECRET_ID: &str = "secret-id-of-the-examples";

/// The files that examples name.
fn write_files(server: &Server, token: &str) {
    let work = server.cli().home().join("work");
    fs::create_dir_all(&work).expect("a folder");
    let jwt = provider().token(None, &json!({ "sub": "job", "iat": now(), "exp": now() + 600 }));
    for (name, text) in [
        ("apps-policy.hcl", POLICY),
        ("readonly.sql", crate::support::CREATE_IN_GROUP),
        (
            "role.json",
            "{\"db_name\":\"postgresql\",\"creation_statements\":[\"CREATE ROLE \\\"{{name}}\\\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'\"]}",
        ),
        ("app.json", "{\"color\":\"green\"}"),
        ("freeze.json", "{\"max_ttl\":\"15m\"}"),
        ("password.txt", crate::support::ADMIN_PASSWORD),
        ("token.txt", token),
        ("token.jwt", &jwt),
        ("secret-id.txt", SECRET_ID),
        ("share.txt", server.shares().first().map(String::as_str).unwrap_or_default()),
    ] {
        fs::write(work.join(name), text).expect("a file can be written");
    }
    fs::write(work.join("change-freeze.wasm"), change_freeze()).expect("a file can be written");
}

const POLICY: &str = "path \"database/creds/readonly\" {\n  capabilities = [\"read\"]\n}\n";

#[test]
fn every_example_of_the_help_runs() {
    let mut pages = Vec::new();
    gather(&[], &mut pages);
    assert!(pages.len() > 45, "only {} commands", pages.len());
    let (server, database) = (Server::durable(&Durable::default()), Database::fresh());
    let empty = Server::uninitialised(&Durable::default());
    let mut wrong = Vec::new();
    for page in &pages {
        for example in &page.examples {
            if let Err(why) = try_example(&server, &empty, &database, example) {
                wrong.push(format!("{}: $ {example}\n{why}", page.command));
            }
        }
    }
    assert!(wrong.is_empty(), "{} examples fail:\n{}", wrong.len(), wrong.join("\n"));
}

fn try_example(server: &Server, empty: &Server, database: &Database<'_>, example: &str) -> Result<(), String> {
    if example.starts_with("leasehold server ") {
        // A server would not come back; that its flags exist is what the documents' test asks of it.
        return super::known::leasehold(&example.split_whitespace().skip(1).collect::<Vec<_>>());
    }
    prepare(server, database, example);
    let root = server.root();
    let made = root.post("auth/token/create", json!({ "policies": ["root"], "ttl": "1h" })).assert_status(200);
    write_files(server, &made.text("/auth/client_token"));
    // What is moved must be out of use.
    let idle = example.contains(" migrate -config").then(|| {
        let idle = Server::durable(&Durable::default());
        idle.terminate();
        let (from, to) = (idle.home().join("leasehold.db"), idle.home().join("moved.db"));
        let text = format!(
            "storage_source \"sqlite\" {{\n path = \"{}\"\n}}\nstorage_destination \"sqlite\" {{\n path = \"{}\"\n}}\n",
            from.display(),
            to.display()
        );
        fs::write(server.cli().home().join("work/migrate.hcl"), text).expect("a file can be written");
        idle
    });
    let mut line = example.replace(TOKEN, &made.text("/auth/client_token"));
    line = line.replace(ACCESSOR, &made.text("/auth/accessor"));
    if example.contains(WRAPPING_TOKEN) {
        let wrapped = root.try_wrapped("GET", "database/creds/readonly", "60s").expect("an answer");
        line = line.replace(WRAPPING_TOKEN, &wrapped.text("/wrap_info/token"));
    }
    if ["generate-root", "operator rekey", "operator rotate-keys"].iter().any(|of| example.contains(of))
        && let Some(nonce) = begin_attempts(server, example)
    {
        line = line.replace("NONCE", &nonce);
    }
    line = line.replace("http://127.0.0.1:8200", &format!("http://{}", server.address()));
    for lease in LEASES.into_iter().filter(|lease| example.contains(lease)) {
        line = line.replace(lease, &root.credential("readonly").lease);
    }
    // Where zsh and fish look for what they complete with.
    let shells = "fpath=('' ~/zsh); mkdir -p ~/zsh ~/.config/fish/completions; ";
    let at = if example.starts_with("leasehold operator init -key") { empty } else { server };
    // One of its own: some examples revoke it.
    let acting = [("VAULT_TOKEN".to_owned(), root.child(json!({ "policies": ["root"], "ttl": "1h" })))];
    let ran = shell(at, &acting, &format!("{shells}{line}"));
    drop(idle);
    let right = match example.split_once("  #") {
        Some(_) if example.contains(REFUSED) => ran.status == 2,
        _ if ASKS.contains(&example) => ran.status == 1 && ran.stdout.contains("this is no terminal"),
        _ => ran.status == 0,
    };
    if right { Ok(()) } else { Err(format!("exit status {}\n{}", ran.status, ran.stdout)) }
}

/// What `leasehold completion` prints makes a shell complete.
#[test]
fn bash_completes_commands_and_flags() {
    let server = Server::dev();
    let completed = |words: &str, begun: &str| {
        let count = words.split_whitespace().count();
        let script = format!(
            "source <(leasehold completion bash); COMP_WORDS=({words} '{begun}'); COMP_CWORD={count}; \
             _leasehold leasehold '{begun}' {}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.split_whitespace().last().unwrap_or_default()
        );
        let ran = shell(&server, &[], &script).assert_status(0);
        ran.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed("leasehold", "sec"), ["secrets"]);
    assert_eq!(completed("leasehold lease", "re"), ["renew", "revoke"]);
    assert_eq!(completed("leasehold lease revoke", "-pre"), ["-prefix"]);
    let registered = shell(&server, &[], "source <(leasehold completion bash); complete -p leasehold");
    registered.assert_status(0).assert_stdout("_leasehold");
    for shell_name in ["zsh", "fish"] {
        let script = shell(&server, &[], &format!("leasehold completion {shell_name}")).assert_status(0);
        assert!(script.stdout.contains("revoke") && !script.stdout.contains("--prefix"), "{script:?}");
        assert!(shell_name != "fish" || script.stdout.contains("    set -l "), "{script:?}");
    }
    let other = shell(&server, &[], "leasehold completion tcsh");
    other.assert_status(1).assert_stdout("choose bash, zsh or fish");
}
