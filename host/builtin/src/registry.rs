//! The kinds of secrets engines that can be mounted. A new one is one line here.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_core::seams::engine::SecretsEngine;

use crate::secrets::database::DatabaseEngine;

/// By the `type` that a mount names. One value serves all mounts of its kind.
#[must_use]
pub fn secrets_engines() -> BTreeMap<&'static str, Arc<dyn SecretsEngine>> {
    let database: Arc<dyn SecretsEngine> = Arc::new(DatabaseEngine::new());
    BTreeMap::from([("database", database)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_engine_ships_with_the_server() {
        assert_eq!(secrets_engines().into_keys().collect::<Vec<_>>(), ["database"]);
    }
}
