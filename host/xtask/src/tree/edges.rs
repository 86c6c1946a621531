//! Who may depend on whom: the picture in `host/docs/architecture.md`, as a table.

use serde_json::Value;

/// A crate of ours, and which others of ours it may use.
struct CrateRule {
    name: &'static str,
    /// In what ships.
    ships_with: &'static [&'static str],
    /// In its tests besides: each a reason to build and to understand another crate before this one can be tested.
    tested_with: &'static [&'static str],
}

/// A crate that is not in the table may not exist.
const CRATES: [CrateRule; 15] = [
    CrateRule { name: "model", ships_with: &[], tested_with: &[] },
    // Itself is its own clock and entropy for tests. The sagas run on the store that ships.
    // Password policies are written in the notation of the others.
    CrateRule { name: "core", ships_with: &["hcl", "model"], tested_with: &["core", "storage"] },
    CrateRule { name: "storage", ships_with: &["core", "model", "postgresql"], tested_with: &["devpg"] },
    // The guests' own logic, native: component and native must agree.
    CrateRule { name: "sandbox", ships_with: &["core", "model"], tested_with: &["acl", "statements"] },
    // Logins ask identity providers over HTTPS. In tests: a real PostgreSQL, a real store and the template guest's logic.
    CrateRule {
        name: "builtin",
        ships_with: &["core", "https", "model", "postgresql", "tls"],
        tested_with: &["devpg", "storage", "statements"],
    },
    CrateRule { name: "http", ships_with: &["core", "model"], tested_with: &[] },
    // The grammar of policies, for `policy fmt` (0011): the one guest that a host crate ships natively.
    CrateRule { name: "cli", ships_with: &["model", "acl", "hcl", "https", "tls"], tested_with: &[] },
    // How every client of ours judges a server's certificate.
    CrateRule { name: "tls", ships_with: &[], tested_with: &[] },
    // How every HTTP client of ours reaches a server.
    CrateRule { name: "https", ships_with: &["tls"], tested_with: &[] },
    // What keeps the key of the barrier elsewhere. The barrier itself is the store's.
    CrateRule { name: "seals", ships_with: &["core", "https", "tls"], tested_with: &["core"] },
    // Connection strings and sessions, for the database engine and for the store.
    CrateRule { name: "postgresql", ships_with: &["tls"], tested_with: &[] },
    CrateRule { name: "devpg", ships_with: &[], tested_with: &[] },
    CrateRule { name: "xtask", ships_with: &[], tested_with: &[] },
    CrateRule {
        name: "server",
        ships_with: &["model", "core", "storage", "sandbox", "builtin", "http", "cli", "devpg", "seals", "tls"],
        tested_with: &[],
    },
    // The server under test with its fail points; the tests themselves see it from outside only.
    CrateRule { name: "tests", ships_with: &["core", "server"], tested_with: &["devpg"] },
];

/// One heavy technology, one home.
const HOMES: [(&str, &[&str]); 4] = [
    ("wasmtime", &["sandbox"]),
    ("hyper", &["http"]),
    ("rusqlite", &["storage"]),
    ("tokio-postgres", &["postgresql", "builtin", "storage", "tests"]),
];

/// Looks at the host's workspace.
pub(super) fn check(metadata: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let Some(name) = ours(package) else { continue };
        let Some(rule) = CRATES.iter().find(|rule| rule.name == name) else {
            wrong.push(format!("`leasehold-{name}` has no place in the table of allowed dependencies"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let in_tests = dependency["kind"] == "dev";
            let may = match used.strip_prefix("leasehold-") {
                Some(other) => rule.ships_with.contains(&other) || in_tests && rule.tested_with.contains(&other),
                None => HOMES.iter().all(|(known, homes)| *known != used || homes.contains(&name)),
            };
            if !may {
                let tests = if in_tests { "the tests of " } else { "" };
                wrong.push(format!("{tests}`leasehold-{name}` must not depend on `{used}`"));
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
    }

    #[test]
    fn tests_may_use_more_than_what_ships_but_not_everything() {
        for (name, used) in [("core", "storage"), ("builtin", "devpg"), ("sandbox", "acl")] {
            let (name, used) = (format!("leasehold-{name}"), format!("leasehold-{used}"));
            assert_eq!(one(&name, &used, Some("dev")), Vec::<String>::new());
            for shipped in [None, Some("build")] {
                assert_eq!(one(&name, &used, shipped), [format!("`{name}` must not depend on `{used}`")]);
            }
        }
        assert_eq!(one("leasehold-http", "leasehold-core", Some("dev")), Vec::<String>::new());
        assert_eq!(
            one("leasehold-http", "leasehold-storage", Some("dev")),
            ["the tests of `leasehold-http` must not depend on `leasehold-storage`"]
        );
        assert_eq!(one("leasehold-core", "leasehold-builtin", Some("dev")).len(), 1);
        assert_eq!(one("leasehold-tests", "leasehold-storage", Some("dev")).len(), 1);
    }

    #[test]
    fn a_heavy_library_has_one_home() {
        assert_eq!(one("leasehold-sandbox", "wasmtime", None), Vec::<String>::new());
        assert_eq!(one("leasehold-core", "wasmtime", None).len(), 1);
        assert_eq!(one("leasehold-server", "hyper", None).len(), 1);
        assert_eq!(one("leasehold-server", "hyper", Some("dev")).len(), 1);
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
