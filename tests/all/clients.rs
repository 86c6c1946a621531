//! Other people's clients against our server: OpenBao's command line, hvac, node-vault, vaultrs and Ansible's modules.

use std::process::Command;

use serde_json::json;

use crate::support::{Bao, Cli, Database, Durable, Server, eventually};

const APPS: &str = "path \"database/creds/readonly\" { capabilities = [\"read\"] }\npath \"sys/leases/*\" { capabilities = [\"update\"] }";

fn ready() -> (Server, Database<'static>) {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("readonly", json!({}));
    (server, database)
}

/// What `make test` installs for these tests. Without it, says so on the terminal: nothing is skipped silently.
fn given(variable: &str, what: &str) -> Option<String> {
    use std::io::Write as _;
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let _ = writeln!(std::io::stderr(), "NOT RUN, because {variable} is not set (`make test` sets it): {what}");
    }
    value
}

/// Runs a walk of somebody else's client library, which says at its end that all its steps held.
fn walk(program: &str, script: Option<&str>, variables: &[(&str, &str)]) {
    let (server, database) = ready();
    let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    // Its name is the whole cluster's: that of the walk.
    let fixed = format!("static_{}", script.unwrap_or("vaultrs").replace('.', "_"));
    database.sql(&format!("CREATE ROLE {fixed} LOGIN"));
    let output = Command::new(program)
        .args(script.map(|name| scripts.join(name)))
        .envs(variables.iter().copied())
        .env("STATIC_USER", fixed)
        .env("VAULT_ADDR", format!("http://{}", server.address()))
        .env("VAULT_TOKEN", server.root_token())
        .env("HOME", server.home())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("steps held"), "{said}");
    let leases = || server.root().list("sys/leases/lookup/database/creds/readonly").status;
    eventually("the walk leaves no lease", || leases() == 404);
}

#[test]
fn hvac_walks() {
    if let Some(python) = given("LEASEHOLD_PYTHON", "the walk of hvac") {
        walk(&python, Some("walk.py"), &[]);
    }
}

#[test]
fn hvac_makes_root_tokens_and_new_shares() {
    let Some(python) = given("LEASEHOLD_PYTHON", "the walk of hvac over key shares") else { return };
    let server = Server::durable(&Durable { shares: 3, threshold: 2, ..Durable::default() });
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/quorum.py");
    let output = Command::new(python)
        .arg(script)
        .env("VAULT_ADDR", format!("http://{}", server.address()))
        .env("VAULT_TOKEN", server.root_token())
        .env("UNSEAL_KEYS", server.shares()[1..].join(","))
        .env("HOME", server.home())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("steps held"), "{said}");
}

#[test]
fn node_vault_walks() {
    if let Some(modules) = given("LEASEHOLD_NODE_MODULES", "the walk of node-vault") {
        walk("node", Some("walk.js"), &[("NODE_PATH", &modules)]);
    }
}

#[test]
fn ansible_walks() {
    let what = "the walk of Ansible's community.hashi_vault";
    let Some(program) = given("LEASEHOLD_ANSIBLE", what) else { return };
    let Some(collections) = given("LEASEHOLD_ANSIBLE_COLLECTIONS", what) else { return };
    let (server, database) = ready();
    let (owner, fixed) = ("ansible_admin", "ansible_static");
    database.sql(&format!("CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'first-one'; CREATE ROLE {fixed} LOGIN; GRANT {fixed} TO {owner} WITH ADMIN OPTION"));
    let output = Command::new(program)
        .args(["-i", "localhost,"])
        .arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/walk.yml"))
        .env("ANSIBLE_COLLECTIONS_PATH", collections)
        .env("ANSIBLE_NOCOLOR", "1")
        // Ansible refuses to run in a locale that is not UTF-8.
        .env("LC_ALL", "C.UTF-8")
        .env("STATIC_USER", fixed)
        .env("CONNECTION_URL", database.templated_url())
        .env("CONNECTION_USER", owner)
        .env("CONNECTION_PASSWORD", "first-one")
        .env("VAULT_ADDR", format!("http://{}", server.address()))
        .env("VAULT_TOKEN", server.root_token())
        .env("HOME", server.home())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("steps held"), "{said}");
    assert!(!database.lets_in(owner, "first-one"), "the root credential was rotated");
    let leased = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%' AND rolname LIKE '%-ans-%'";
    eventually("the walk leaves no PostgreSQL role", || database.sql(leased) == "0");
}

#[test]
fn vaultrs_walks() {
    if let Some(program) = given("LEASEHOLD_VAULTRS_WALK", "the walk of vaultrs") {
        walk(&program, None, &[]);
    }
}

#[test]
fn openbaos_command_line_works_with_our_server() {
    let Some(bao) = Bao::find("OpenBao's command line with our server") else { return };
    let (server, database) = ready();
    let cli = Cli::new(&bao.program, server.address(), server.cli().home(), Some(&server.root_token()));
    std::fs::write(cli.home().join("apps.hcl"), APPS).unwrap();

    cli.line("status").assert_status(0).assert_stdout("Sealed");
    cli.line("secrets list").assert_status(0).assert_stdout("database/");
    cli.line("secrets enable -path=second database").assert_status(0);
    cli.line("secrets tune -default-lease-ttl=2h second").assert_status(0);
    cli.line("secrets disable second").assert_status(0);
    cli.line("auth list").assert_status(0).assert_stdout("token/");
    cli.line("policy write apps apps.hcl").assert_status(0);
    cli.line("policy list").assert_status(0).assert_stdout("apps");
    cli.line("policy read apps").assert_status(0).assert_stdout("database/creds/readonly");
    cli.line("list database/roles").assert_status(0).assert_stdout("readonly");
    cli.line("read database/roles/readonly").assert_status(0).assert_stdout("1h");
    cli.line("read database/roles/none").assert_status(2);
    cli.line("path-help database/").assert_status(0);

    let made = cli.line("token create -policy=apps -ttl=30m -display-name=bao");
    let token = made.clone().assert_status(0).row("token");
    server.secrets().tell(&token);
    cli.run(&["token", "lookup", &token]).assert_status(0).assert_stdout("token-bao");
    cli.run(&["token", "renew", &token]).assert_status(0);
    cli.run(&["token", "capabilities", &token, "database/creds/readonly"]).assert_status(0).assert_stdout("read");
    cli.run(&["token", "lookup", "-accessor", &made.row("token_accessor")]).assert_status(0);

    let person = cli.without_token();
    person.run(&["login", &token]).assert_status(0);
    let read = person.line("read database/creds/readonly").assert_status(0);
    let (lease, user, password) = (read.row("lease_id"), read.row("username"), read.row("password"));
    server.secrets().tell(&password);
    assert!(database.lets_in(&user, &password));
    person.run(&["lease", "lookup", &lease]).assert_status(0);
    person.run(&["lease", "renew", "-increment=10m", &lease]).assert_status(0).assert_stdout("10m");
    person.run(&["lease", "revoke", "-sync", &lease]).assert_status(0);
    assert!(!database.has_role(&user));
    person.line("read sys/mounts").assert_status(2).assert_stderr("permission denied");

    let json = cli.line("read -format=json database/creds/readonly").assert_status(0);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    server.secrets().tell_answer(&json);
    cli.line("lease revoke -prefix database/creds/readonly").assert_status(0);
    let user = json.pointer("/data/username").and_then(serde_json::Value::as_str).unwrap().to_owned();
    eventually("the PostgreSQL role is gone", || !database.has_role(&user));
    cli.line("write -f database/reset/pg").assert_status(0);
    // Not the admin that other tests share.
    database.sql("CREATE ROLE bao_admin LOGIN CREATEROLE PASSWORD 'first-password'; CREATE ROLE bao_app LOGIN");
    let mut config = database.config();
    config["username"] = json!("bao_admin");
    config["password"] = json!("first-password");
    server.root().post("database/config/own", config).assert_status(204);
    cli.line("write -f database/rotate-root/own").assert_status(0).assert_stdout("Success!");
    assert!(!database.lets_in("bao_admin", "first-password"));
    cli.line("write database/static-roles/app db_name=own username=bao_app rotation_period=1h").assert_status(0);
    cli.line("write -f database/rotate-role/app").assert_status(0);
    cli.line("list database/static-roles").assert_status(0).assert_stdout("app");
    let read = cli.line("read -field=password database/static-creds/app").assert_status(0);
    server.secrets().tell(read.stdout.trim());
    assert!(database.lets_in("bao_app", read.stdout.trim()), "{}", read.stdout);
    cli.line("delete database/static-roles/app").assert_status(0);
    cli.run(&["token", "revoke", &token]).assert_status(0);
    cli.line("delete database/roles/readonly").assert_status(0);
    cli.line("policy delete apps").assert_status(0);
    cli.line("kv put -mount=secret -cas=0 app color=green").assert_status(0).assert_stdout("secret/data/app");
    cli.line("kv patch -mount=secret app size=5").assert_status(0);
    cli.line("kv get -mount=secret -field=size app").assert_status(0).assert_stdout("5");
    cli.line("kv delete secret/app").assert_status(0);
    cli.line("kv undelete -versions=2 secret/app").assert_status(0);
    cli.line("kv rollback -version=1 secret/app").assert_status(0);
    cli.line("kv metadata put -custom-metadata=owner=web secret/app").assert_status(0);
    cli.line("kv metadata get secret/app").assert_status(0).assert_stdout("map[owner:web]").assert_stdout("Version 3");
    cli.line("secrets enable -path=old -version=1 kv").assert_status(0);
    cli.line("kv put old/x a=b").assert_status(0);
    cli.line("kv enable-versioning old").assert_status(0).assert_stdout("Success!");
    cli.line("kv get -field=a old/x").assert_status(0).assert_stdout("b");
}

/// The examples are what a user copies.
#[test]
fn the_client_snippets_of_the_examples_run() {
    let (server, _database) = ready();
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/clients");
    let run = |program: &str, file: &str, path: &str| {
        let output = Command::new(program)
            .arg(examples.join(file))
            .env("VAULT_ADDR", format!("http://{}", server.address()))
            .env("VAULT_TOKEN", server.root_token())
            .env("HOME", server.home())
            .env("PATH", path)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{file}: {said}");
    };
    let path = std::env::var("PATH").unwrap_or_default();
    run("bash", "curl.sh", &path);
    if let Some(bao) = Bao::find("examples/clients/bao.sh") {
        let beside = bao.program.parent().map(|parent| parent.display().to_string()).unwrap_or_default();
        run("bash", "bao.sh", &format!("{beside}:{path}"));
    }
    if let Some(python) = given("LEASEHOLD_PYTHON", "examples/clients/with_hvac.py") {
        run(&python, "with_hvac.py", &path);
    }
    assert_eq!(server.root().list("sys/leases/lookup/database/creds/readonly").status, 404, "they tidy up");
    let mut files: Vec<_> = std::fs::read_dir(&examples).unwrap().flatten().map(|entry| entry.file_name()).collect();
    files.sort();
    assert_eq!(files, ["bao.sh", "curl.sh", "with_hvac.py"], "each of them is run above");
}
