//! What is generated from the declarations of routes: the OpenAPI document, help, protected paths.

use std::collections::BTreeSet;

use leasehold_core::seams::error::RequestError;
use leasehold_model::Operation;
use serde_json::{Value, json};

use super::support::server::{ROOT, Server, refusal};

async fn document(server: &Server, token: Option<&str>) -> Value {
    let answer = server.call(token, Operation::Read, "sys/internal/specs/openapi", Value::Null).await.unwrap();
    Value::Object(answer.data.unwrap())
}

/// All operations: path, method, and what is said of them.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "patch", "delete"] {
            if let Some(operation) = item.get(method) {
                found.push((path.clone(), method.to_owned(), operation.clone()));
            }
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn the_document_names_what_the_caller_can_reach() {
    let server = Server::start().await;
    assert_eq!(document(&server, None).await["paths"], json!({}));
    let all = document(&server, Some(ROOT)).await;
    let paths = all["paths"].as_object().unwrap();
    for path in ["/sys/health", "/sys/mounts/{path}/tune", "/auth/token/create", "/db/things/{name}", "/db/things/"] {
        assert!(paths.contains_key(path), "{path}");
    }
    let narrow = server.token_with("db/*: read").await;
    let some = document(&server, Some(&narrow)).await;
    let some = some["paths"].as_object().unwrap();
    assert!(some.contains_key("/db/things/{name}"));
    assert!(some.keys().all(|path| !path.starts_with("/sys/mounts")), "{:?}", some.keys().collect::<Vec<_>>());
    let refused = server.call(Some("hvs.no-such"), Operation::Read, "sys/internal/specs/openapi", Value::Null).await;
    assert!(matches!(refused, Err(RequestError::BadToken)));
}

#[tokio::test(start_paused = true)]
async fn every_operation_has_a_name_of_its_own_and_its_path_is_declared() {
    let server = Server::start().await;
    let document = document(&server, Some(ROOT)).await;
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap().to_owned();
        assert!(ids.insert(id.clone()), "{method} {path}: {id} twice");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{path}");
        let declared: BTreeSet<String> = document["paths"][&path]["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
            .collect();
        let named: BTreeSet<String> =
            path.split('/').filter(|segment| segment.starts_with('{')).map(str::to_owned).collect();
        assert_eq!(declared, named, "{path}");
        assert!(operation["responses"]["default"].is_object(), "{path}");
    }
    assert!(ids.len() > 60, "{}", ids.len());
}

/// Without a token, an operation answers only where the document says that none is needed; without `sudo`, a protected one
/// never does.
#[tokio::test(start_paused = true)]
async fn the_document_tells_the_truth_about_tokens_and_sudo() {
    let server = Server::start().await;
    let everything = "*: create, read, update, delete, list, patch";
    let almighty = server.token_with(everything).await;
    let document = document(&server, Some(ROOT)).await;
    for (path, method, operation) in operations(&document) {
        let item = &document["paths"][&path];
        let concrete: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let concrete: Vec<&str> = concrete.iter().map(|s| if s.starts_with('{') { "x" } else { s }).collect();
        let concrete = concrete.join("/");
        if matches!(concrete.as_str(), "sys/seal" | "auth/token/revoke-self" | "sys/init" | "sys/unseal") {
            continue;
        }
        let verb = match method.as_str() {
            "get" if concrete.ends_with('/') => Operation::List,
            "get" => Operation::Read,
            "post" => Operation::Update,
            "patch" => Operation::Patch,
            _ => Operation::Delete,
        };
        let nobody = server.call(None, verb, &concrete, json!({})).await;
        let is_open = item["x-vault-unauthenticated"] == true;
        // A preflight asks for a token itself.
        let asks_itself = path == "/sys/internal/ui/mounts/{path}";
        // Where a wrapping token may be what is missing, that is said.
        let is_refused = matches!(nobody, Err(RequestError::BadToken | RequestError::Forbidden(_)));
        let asks_itself = asks_itself || path == "/sys/wrapping/lookup";
        assert_eq!(is_refused, !is_open || asks_itself, "{method} {path}");
        assert_eq!(operation["security"] == json!([]), is_open, "{method} {path}");
        if item["x-vault-sudo"] == true {
            let writes_only = path.starts_with("/sys/modules")
                || path.starts_with("/sys/policies/egp")
                || path == "/sys/storage/raft/snapshot";
            let refused = server.call(Some(&almighty), verb, &concrete, json!({})).await;
            let is_write = matches!(verb, Operation::Update | Operation::Delete | Operation::Patch);
            assert_eq!(matches!(refused, Err(RequestError::Denied)), !writes_only || is_write, "{method} {path}");
        }
    }
}

/// A `DELETE` of a mount's tuning is not one of a mount whose path ends so.
#[tokio::test(start_paused = true)]
async fn a_wider_pattern_lends_no_operation_to_a_narrower_one() {
    let server = Server::start().await;
    assert_eq!(
        refusal(server.call(Some(ROOT), Operation::Delete, "sys/mounts/db/tune", Value::Null).await),
        "UnsupportedOperation: unsupported operation"
    );
    assert!(server.read(ROOT, "sys/mounts/db/tune").await.is_ok());
    let help = server.call(Some(ROOT), Operation::Help, "sys/mounts/db/tune", Value::Null).await.unwrap();
    let help = help.data.unwrap()["help"].as_str().unwrap().to_owned();
    assert!(help.contains("audit_non_hmac_request_keys") && !help.contains("seal_wrap"), "{help}");
}
