//! The kinds of secrets engines that can be mounted. A new one is one line here.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_core::seams::engine::SecretsEngine;

use crate::secrets::database::DatabaseEngine;
use crate::secrets::kv::KvEngine;

/// By the `type` that a mount names. One value serves all mounts of its kind.
#[must_use]
pub fn secrets_engines() -> BTreeMap<&'static str, Arc<dyn SecretsEngine>> {
    let database: Arc<dyn SecretsEngine> = Arc::new(DatabaseEngine::new());
    let kv: Arc<dyn SecretsEngine> = Arc::new(KvEngine);
    // `generic` is the old name of `kv`.
    BTreeMap::from([("database", database), ("generic", Arc::clone(&kv)), ("kv", kv)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_engines_ship_with_the_server() {
        assert_eq!(secrets_engines().into_keys().collect::<Vec<_>>(), ["database", "generic", "kv"]);
    }
}
