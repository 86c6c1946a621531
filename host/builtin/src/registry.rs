//! The kinds of secrets engines and auth methods that can be mounted. A new one is one line here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use leasehold_core::seams::auth::AuthMethod;
use leasehold_core::seams::engine::SecretsEngine;

use crate::auth::approle::AppRole;
use crate::auth::cert::Cert;
use crate::auth::jwt::Jwt;
use crate::auth::kubernetes::Kubernetes;
use crate::auth::userpass::Userpass;
use crate::secrets::database::DatabaseEngine;
use crate::secrets::kv::KvEngine;

/// By the `type` that a mount names. One value serves all mounts of its kind.
///
/// `connection_files`: the directory beneath which files must lie that database connections name; without one they may name none.
#[must_use]
pub fn secrets_engines(connection_files: Option<PathBuf>) -> BTreeMap<&'static str, Arc<dyn SecretsEngine>> {
    let database: Arc<dyn SecretsEngine> = Arc::new(DatabaseEngine::with_files(connection_files));
    let kv: Arc<dyn SecretsEngine> = Arc::new(KvEngine);
    // `generic` is the old name of `kv`.
    BTreeMap::from([("database", database), ("generic", Arc::clone(&kv)), ("kv", kv)])
}

/// By the `type` that an auth mount names. One value serves all mounts of its kind.
#[must_use]
pub fn auth_methods() -> BTreeMap<&'static str, Arc<dyn AuthMethod>> {
    let approle: Arc<dyn AuthMethod> = Arc::new(AppRole::new());
    let cert: Arc<dyn AuthMethod> = Arc::new(Cert::new());
    let jwt: Arc<dyn AuthMethod> = Arc::new(Jwt::new());
    let kubernetes: Arc<dyn AuthMethod> = Arc::new(Kubernetes::new());
    let userpass: Arc<dyn AuthMethod> = Arc::new(Userpass::new());
    BTreeMap::from([
        ("approle", approle),
        ("cert", cert),
        ("jwt", jwt),
        ("kubernetes", kubernetes),
        ("userpass", userpass),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_engines_ship_with_the_server() {
        assert_eq!(secrets_engines(None).into_keys().collect::<Vec<_>>(), ["database", "generic", "kv"]);
    }

    #[test]
    fn these_auth_methods_ship_with_the_server() {
        assert_eq!(
            auth_methods().into_keys().collect::<Vec<_>>(),
            ["approle", "cert", "jwt", "kubernetes", "userpass"]
        );
    }
}
