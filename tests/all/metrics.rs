//! Metrics: contract.md §2.7 and §7. What dashboards of Vault look for is there, in both forms.

use serde_json::{Value, json};

use crate::support::{Answer, Database, Server};

/// The entry of this name in one of the lists of the JSON form.
#[track_caller]
fn entry(answer: &Answer, list: &str, name: &str) -> Value {
    let found = answer.at(list).as_array().into_iter().flatten().find(|entry| entry["Name"] == name).cloned();
    found.unwrap_or_else(|| panic!("no {name} in {list}\n{answer}"))
}

/// A server that has leased one credential, and failed once.
fn busy() -> (Server, Database<'static>) {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    server.root().credential("r");
    server.role("broken", json!({ "creation_statements": "SELECT 1/0;" }));
    server.root().get("database/creds/broken").assert_status(500);
    (server, database)
}

#[test]
fn without_a_format_metrics_are_the_fields_json() {
    let (server, _database) = busy();
    for path in ["sys/metrics", "sys/metrics?format="] {
        let answer = server.root().get(path).assert_status(200);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer}");
        let keys: Vec<String> = answer.json().as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["Timestamp", "Gauges", "Points", "Counters", "Samples"]);
        for (name, value) in [
            ("vault.core.unsealed", 1),
            ("vault.core.active", 1),
            // The root token and a credential.
            ("vault.expire.num_leases", 2),
            ("vault.expire.num_irrevocable_leases", 0),
            ("vault.token.count", 1),
        ] {
            assert_eq!(entry(&answer, "/Gauges", name)["Value"], value, "{name}");
        }
        let made = entry(&answer, "/Counters", "vault.secret.lease.creation");
        assert_eq!(made["Count"], 1, "{made}");
        let cluster = server.nobody().get("sys/seal-status").text("/cluster_name");
        let labels = json!({ "cluster": cluster, "creation_ttl": "1h", "mount_point": "database/", "namespace": "root", "secret_engine": "database" });
        assert_eq!(made["Labels"], labels);
        for name in ["vault.core.handle_request", "vault.database.NewUser"] {
            let sample = entry(&answer, "/Samples", name);
            assert!(sample["Max"].as_f64() >= sample["Mean"].as_f64(), "{sample}");
        }
        assert_eq!(entry(&answer, "/Counters", "vault.database.NewUser.error")["Count"], 1);
    }
}

#[test]
fn prometheus_gets_its_text_when_it_asks() {
    let (server, _database) = busy();
    let root = server.root();
    let by_header = root.bytes("GET", "sys/metrics", b"", &[("Accept", "application/openmetrics-text;version=1.0.0")]);
    for answer in [by_header, root.get("sys/metrics?format=prometheus")] {
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{answer}");
        for line in [
            "vault_core_unsealed{cluster=\"leasehold-cluster-",
            "vault_expire_num_leases 2",
            "vault_core_handle_request_count ",
            "vault_database_NewUser_count 2",
            "vault_database_NewUser_error 1",
            "leasehold_leases_issued_total{mount=\"database/\"} 1",
        ] {
            assert!(answer.body.lines().any(|found| found.starts_with(line)), "no `{line}`\n{answer}");
        }
    }
    root.get("sys/metrics?format=xml").assert_status(400);
}

#[test]
fn metrics_need_a_token_that_may_read_them() {
    let server = Server::dev();
    server.nobody().get("sys/metrics").assert_error(403, "permission denied");
    server.with_policy("none", "path \"x\" { capabilities = [\"read\"] }").get("sys/metrics").assert_status(403);
}
