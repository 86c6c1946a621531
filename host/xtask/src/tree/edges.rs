//! Who may depend on whom: the picture in `host/docs/architecture.md`, as a table.

use serde_json::Value;

/// What a crate of ours may use of ours. A crate that is not in the table may not exist.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("model", &[]),
    ("core", &["model"]),
    ("storage", &["core", "model"]),
    ("sandbox", &["core", "model"]),
    ("builtin", &["core", "model"]),
    ("http", &["core", "model"]),
    ("cli", &["model", "sandbox"]),
    ("devpg", &[]),
    ("xtask", &[]),
    ("server", &["model", "core", "storage", "sandbox", "builtin", "http", "cli", "devpg"]),
    ("tests", &["model", "core", "storage", "sandbox", "builtin", "http", "cli", "devpg", "server"]),
];

/// One heavy technology, one home.
const HOMES: [(&str, &[&str]); 4] = [
    ("wasmtime", &["sandbox"]),
    ("axum", &["http"]),
    ("rusqlite", &["storage"]),
    ("tokio-postgres", &["builtin", "storage", "tests"]),
];

/// Looks at the host's workspace.
pub(super) fn check(metadata: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let Some(name) = ours(package) else { continue };
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("`leasehold-{name}` has no place in the table of allowed dependencies"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            // A test may look at its crate from anywhere; what ships may not.
            if dependency["kind"] == "dev" {
                continue;
            }
            match used.strip_prefix("leasehold-") {
                Some(room) if !allowed.contains(&room) => {
                    wrong.push(format!("`leasehold-{name}` must not depend on `{used}`"));
                }
                Some(_) => {}
                None => {
                    let stranger = HOMES.iter().find(|(known, homes)| *known == used && !homes.contains(&name));
                    wrong.extend(stranger.map(|_| format!("`leasehold-{name}` must not depend on `{used}`")));
                }
            }
        }
    }
    wrong
}

/// Looks at the guests' workspace: a guest never uses a crate of the host.
pub(super) fn check_guests(metadata: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let path = dependency["path"].as_str().unwrap_or_default();
            if path.contains("/host/") {
                wrong.push(format!("guest `{name}` must not depend on the host's `{}`", dependency["name"]));
            }
        }
    }
    wrong
}

fn ours(package: &Value) -> Option<&str> {
    package["name"].as_str()?.strip_prefix("leasehold-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(name: &str, dependency: &str, kind: Option<&str>) -> Vec<String> {
        check(&json!({ "packages": [{ "name": name, "dependencies": [{ "name": dependency, "kind": kind }] }] }))
    }

    #[test]
    fn adapters_must_not_see_each_other() {
        assert_eq!(one("leasehold-http", "leasehold-core", None), Vec::<String>::new());
        assert_eq!(one("leasehold-http", "leasehold-storage", None).len(), 1);
        assert_eq!(one("leasehold-core", "leasehold-server", None).len(), 1);
        assert_eq!(one("leasehold-builtin", "leasehold-devpg", Some("dev")), Vec::<String>::new());
    }

    #[test]
    fn a_heavy_library_has_one_home() {
        assert_eq!(one("leasehold-sandbox", "wasmtime", None), Vec::<String>::new());
        assert_eq!(one("leasehold-core", "wasmtime", None).len(), 1);
        assert_eq!(one("leasehold-server", "axum", None).len(), 1);
    }

    #[test]
    fn a_new_crate_needs_a_place_in_the_picture() {
        assert_eq!(one("leasehold-other", "serde", None).len(), 1);
    }

    #[test]
    fn a_guest_must_not_use_the_host() {
        let guest = |path: &str| {
            let dependency = json!({ "name": "x", "path": path });
            check_guests(&json!({ "packages": [{ "name": "leasehold-acl", "dependencies": [dependency] }] })).len()
        };
        assert_eq!(guest("/src/host/model"), 1);
        assert_eq!(guest("/src/guests/shared"), 0);
    }
}
