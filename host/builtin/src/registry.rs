//! The kinds of secrets engines that can be mounted. A new one is one line here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use leasehold_core::seams::engine::SecretsEngine;

use crate::secrets::database::DatabaseEngine;

/// By the `type` that a mount names. One value serves all mounts of its kind.
///
/// `connection_files`: the directory beneath which files must lie that database connections name; without one they may name none.
#[must_use]
pub fn secrets_engines(connection_files: Option<PathBuf>) -> BTreeMap<&'static str, Arc<dyn SecretsEngine>> {
    let database: Arc<dyn SecretsEngine> = Arc::new(DatabaseEngine::with_files(connection_files));
    BTreeMap::from([("database", database)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_engine_ships_with_the_server() {
        assert_eq!(secrets_engines(None).into_keys().collect::<Vec<_>>(), ["database"]);
    }
}
