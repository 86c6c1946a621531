//! OpenBao's agent and proxy before our server: they log in by themselves, keep what they read alive, and notice its end.
//!
//! Start with [`the_agent_renders_keeps_and_renews_what_it_reads`]; the configurations are [`agent`] and [`proxy`].

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::json;

use crate::support::{Bao, Client, Database, Secrets, Server, eventually, free_port, until};

/// Short enough for a test to see renewals; long enough for a busy machine to make one.
const LEASE: &str = "9s";
const APPS: &str = "path \"database/creds/app\" { capabilities = [\"read\"] }\n\
                    path \"secret/data/app\" { capabilities = [\"read\", \"create\", \"update\"] }\n\
                    path \"sys/leases/revoke\" { capabilities = [\"update\"] }";

/// Our server, with a database role `app` and an approle `app` whose ids lie in files.
struct World {
    server: Server,
    database: Database<'static>,
    bao: Bao,
}

impl World {
    /// `token_ttl` is that of the approle.
    fn new(what: &str, token_ttl: &str) -> Option<Self> {
        let bao = Bao::find(what)?;
        let (server, database) = (Server::dev(), Database::fresh());
        server.connect(&database);
        server.role("app", json!({ "default_ttl": LEASE, "max_ttl": "24h" }));
        let root = server.root();
        root.put("sys/policies/acl/app", json!({ "policy": APPS })).assert_status(204);
        root.post("sys/auth/approle", json!({ "type": "approle" })).assert_status(204);
        root.post("auth/approle/role/app", json!({ "token_policies": ["app"], "token_ttl": token_ttl }))
            .assert_status(204);
        let world = Self { server, database, bao };
        world.write("role-id", &root.get("auth/approle/role/app/role-id").text("/data/role_id"));
        world.new_secret_id();
        Some(world)
    }

    fn new_secret_id(&self) {
        let made = self.server.root().post("auth/approle/role/app/secret-id", json!({})).assert_status(200);
        self.write("secret-id", &made.text("/data/secret_id"));
    }

    fn home(&self) -> &Path {
        self.server.home()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.home().join(name), text).expect("a file");
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.home().join(name)).ok().filter(|text| !text.is_empty())
    }

    /// Where the server is and how to log in there.
    fn auto_auth(&self, rest: &str) -> String {
        let home = self.home().display();
        format!(
            "vault {{\n  address = \"http://{}\"\n}}\n\
             auto_auth {{\n  method \"approle\" {{\n    mount_path = \"auth/approle\"\n    min_backoff = \"100ms\"\n    config = {{\n      \
             role_id_file_path = \"{home}/role-id\"\n      secret_id_file_path = \"{home}/secret-id\"\n      \
             remove_secret_id_file_after_reading = false\n    }}\n  }}\n  \
             sink \"file\" {{\n    config = {{\n      path = \"{home}/token\"\n    }}\n  }}\n}}\n{rest}",
            self.server.address()
        )
    }

    /// Starts `bao agent` or `bao proxy` with this configuration.
    fn start(&self, mode: &str, configuration: &str) -> Process {
        self.write("bao.hcl", configuration);
        let log = File::create(self.home().join("bao.log")).expect("a log");
        let mut command = Command::new(&self.bao.program);
        command.args([mode, "-config=bao.hcl", "-log-level=debug"]).current_dir(self.home());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VAULT_") || name.starts_with("BAO_")) {
            command.env_remove(name);
        }
        command.env("HOME", self.home()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.bao.program.display()));
        Process { child, log: self.home().join("bao.log") }
    }

    /// Waits until the agent has rendered a credential for which `holds`.
    fn rendered(&self, what: &str, holds: impl Fn(&Rendered) -> bool) -> Rendered {
        until(what, || {
            let text = self.read("rendered")?;
            let mut lines = text.lines().map(str::to_owned);
            let rendered = Rendered { lease: lines.next()?, user: lines.next()?, password: lines.next()? };
            self.server.secrets().tell(&rendered.password);
            holds(&rendered).then_some(rendered)
        })
    }

    /// When the lease was last renewed, if it lives and was.
    fn renewed(&self, lease: &str) -> Option<String> {
        let told = self.server.root().put("sys/leases/lookup", json!({ "lease_id": lease }));
        told.at("/data/last_renewal").as_str().map(str::to_owned)
    }
}

/// Ends with the test; when that fails, its own words are shown.
struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- OpenBao's log ---\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

struct Rendered {
    lease: String,
    user: String,
    password: String,
}

const TEMPLATE: &str = r#"
template {
  destination = "rendered"
  contents    = <<END
{{ with secret "database/creds/app" }}{{ .LeaseID }}
{{ .Data.username }}
{{ .Data.password }}
{{ end }}
END
}
"#;

#[test]
fn the_agent_renders_keeps_and_renews_what_it_reads() {
    let Some(world) = World::new("OpenBao's agent with our server", "1h") else { return };
    let _agent = world.start("agent", &world.auto_auth(TEMPLATE));
    let first = world.rendered("the agent renders a credential", |_| true);
    assert!(world.database.lets_in(&first.user, &first.password));
    // Twice, so that the lease lives longer than it was made for.
    let once = until("the agent renews the lease", || world.renewed(&first.lease));
    eventually("the agent renews it again", || world.renewed(&first.lease).is_some_and(|then| then != once));
    assert_eq!(world.rendered("it is still the same", |_| true).lease, first.lease);
    assert!(world.database.lets_in(&first.user, &first.password));

    // What is gone cannot be renewed: another is read and rendered.
    let gone = json!({ "lease_id": first.lease, "sync": true });
    world.server.root().put("sys/leases/revoke", gone).assert_status(204);
    let second = world.rendered("a new credential is rendered", |now| now.lease != first.lease);
    assert_ne!(second.user, first.user);
    assert!(world.database.lets_in(&second.user, &second.password));
    assert!(!world.database.has_role(&first.user));
}

#[test]
fn the_agent_renews_its_token_and_logs_in_again_when_that_is_revoked() {
    let Some(world) = World::new("OpenBao's agent and its token with our server", LEASE) else { return };
    let _agent = world.start("agent", &world.auto_auth(TEMPLATE));
    let first = world.rendered("the agent renders a credential", |_| true);
    let token = until("the agent keeps its token", || world.read("token"));
    world.server.secrets().tell(&token);
    let root = world.server.root();
    let lookup = |token: &str| root.put("auth/token/lookup", json!({ "token": token }));
    lookup(&token).assert_status(200).assert_at("/data/path", "auth/approle/login");
    eventually("the agent renews its token", || lookup(&token).at("/data/last_renewal").is_string());

    // With the token goes what it leased; the agent logs in again, by a secret id of today.
    world.new_secret_id();
    root.put("auth/token/revoke", json!({ "token": token })).assert_status(204);
    let second = world.rendered("a new credential is rendered", |now| now.lease != first.lease);
    assert!(world.database.lets_in(&second.user, &second.password));
    assert!(!world.database.lets_in(&first.user, &first.password));
    let new = until("the agent keeps its new token", || world.read("token").filter(|now| *now != token));
    world.server.secrets().tell(&new);
    lookup(&new).assert_status(200);
}

#[test]
fn the_proxy_acts_with_its_own_token_and_keeps_what_it_leased() {
    let Some(world) = World::new("OpenBao's proxy with our server", "1h") else { return };
    let address = format!("127.0.0.1:{}", free_port());
    let rest = format!(
        "api_proxy {{\n  use_auto_auth_token = true\n}}\ncache {{}}\n\
         listener \"tcp\" {{\n  address = \"{address}\"\n  tls_disable = true\n}}\n"
    );
    let _proxy = world.start("proxy", &world.auto_auth(&rest));
    // Nobody's client: what has a token, the proxy has.
    let client = Client::new(&address, None, Secrets::default());
    let first = until("the proxy has logged in", || {
        client.try_request("GET", "database/creds/app", None).ok().filter(|answer| answer.status == 200)
    });
    let (user, password) = (first.text("/data/username"), first.text("/data/password"));
    world.server.secrets().tell(&password);
    assert_eq!(first.header("x-cache"), Some("MISS"), "{first}");
    assert!(world.database.lets_in(&user, &password));

    // The same lease for everybody who asks, and it is renewed.
    let again = client.get("database/creds/app").assert_status(200);
    assert_eq!((again.header("x-cache"), again.text("/lease_id")), (Some("HIT"), first.text("/lease_id")));
    until("the proxy renews the lease", || world.renewed(&first.text("/lease_id")));

    // What is no lease goes through: writing, reading, refusals.
    client
        .post("secret/data/app", json!({ "data": { "color": "green" } }))
        .assert_status(200)
        .assert_at("/data/version", 1);
    client.get("secret/data/app").assert_status(200).assert_at("/data/data/color", "green");
    client.get("sys/policies/acl/app").assert_multi(403, "permission denied");
    client.get("sys/health").assert_status(200);
    // A token that comes along goes before the proxy's own.
    client.with_token(&world.server.root_token()).get("sys/policies/acl/app").assert_status(200);

    // Revoked through the proxy, the lease leaves its cache.
    client.put("sys/leases/revoke", json!({ "lease_id": first.text("/lease_id"), "sync": true })).assert_status(204);
    let second = until("another credential", || {
        let answer = client.get("database/creds/app");
        (answer.status == 200 && answer.text("/lease_id") != first.text("/lease_id")).then_some(answer)
    });
    world.server.secrets().tell(&second.text("/data/password"));
    assert!(world.database.lets_in(&second.text("/data/username"), &second.text("/data/password")));
    assert!(!world.database.has_role(&user));
    // Revoked past it, the proxy notices at the renewal that fails.
    let gone = json!({ "lease_id": second.text("/lease_id"), "sync": true });
    world.server.root().put("sys/leases/revoke", gone).assert_status(204);
    let third = until("a third credential", || {
        let answer = client.get("database/creds/app");
        (answer.status == 200 && answer.text("/lease_id") != second.text("/lease_id")).then_some(answer)
    });
    world.server.secrets().tell(&third.text("/data/password"));
    assert!(world.database.lets_in(&third.text("/data/username"), &third.text("/data/password")));
}
