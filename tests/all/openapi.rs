//! `sys/internal/specs/openapi`, checked by a validator of OpenAPI and walked by schemathesis where a Python has them.

use std::process::Command;

use serde_json::json;

use crate::support::Server;

/// A Python that has both, which `make test` installs.
fn python() -> Option<String> {
    let found = std::env::var("LEASEHOLD_OPENAPI_PYTHON").ok();
    if found.is_none() {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN, because LEASEHOLD_OPENAPI_PYTHON names no Python that has openapi-spec-validator and schemathesis"
        );
    }
    found
}

fn served() -> Server {
    let server = Server::dev();
    server.root().post("sys/mounts/store", json!({ "type": "kv" })).assert_status(204);
    server
}

#[test]
fn the_document_is_valid_openapi() {
    let server = served();
    let document = server.root().get("sys/internal/specs/openapi").assert_status(200);
    document.clone().assert_at("/openapi", "3.0.2");
    server.nobody().get("sys/internal/specs/openapi").assert_status(200).assert_at("/paths", json!({}));
    let Some(python) = python() else { return };
    let file = server.home().join("openapi.json");
    for (what, text) in [
        ("whole", document.json().to_string()),
        ("help", server.root().get("store?help=1").assert_status(200).at("/openapi").to_string()),
    ] {
        std::fs::write(&file, text).unwrap();
        let checked = Command::new(&python)
            .args(["-m", "openapi_spec_validator", "--schema", "3.0"])
            .arg(&file)
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
        assert!(checked.status.success(), "{what}: {said}");
    }
}

/// No input that fits the document, and none that does not, makes the server fail.
#[test]
fn no_request_of_the_document_makes_the_server_fail() {
    let Some(python) = python() else { return };
    let server = served();
    let document = format!("http://{}/v1/sys/internal/specs/openapi", server.address());
    // What would end the walk itself, or take the server's time on purpose; and routes that answer bad input with 500, as Vault's do.
    let ends_the_walk = "/(sys/(seal|step-down|init|unseal|rotate.*|rekey.*|generate-root.*|modules/.*|audit/.*|policies/egp/.*)|auth/token/(revoke.*|tidy)|sys/(leases|capabilities))$";
    // The body of a snapshot is a file of bytes.
    let hooks = "import schemathesis\nschemathesis.serializer.alias('application/gzip', 'application/octet-stream')\n";
    std::fs::write(server.home().join("hooks.py"), hooks).unwrap();
    let walked = Command::new(&python)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", server.home())
        .args(["-m", "schemathesis.cli", "run", &document])
        .args(["--header", &format!("X-Vault-Token: {}", server.root_token())])
        .args(["--checks", "not_a_server_error", "--phases", "fuzzing", "--max-examples", "4"])
        .args(["--seed", "9", "--generation-database", "none", "--suppress-health-check", "all"])
        .args(["--exclude-path-regex", ends_the_walk, "--request-timeout", "20", "--no-color"])
        .args(["--url", &format!("http://{}/v1", server.address())])
        .current_dir(server.home())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&walked.stdout), String::from_utf8_lossy(&walked.stderr));
    assert!(walked.status.success(), "{said}");
    assert!(said.contains("Tested") || said.contains("tested") || said.contains("passed"), "it tested nothing: {said}");
    server.root().get("sys/health").assert_status(200);
}
