//! What holds for every configuration text: asked by the tests with texts that are likely to matter, by the fuzz target with any.

use super::read;

/// A text is a configuration that a server can run with, or everything wrong with it is said, line by line.
pub(crate) fn any_configuration_is_read_or_refused(text: &str) {
    match read(text) {
        Ok(config) => {
            assert!(!config.listeners.is_empty());
            assert!(!config.default_lease_ttl.is_zero() && config.default_lease_ttl <= config.max_lease_ttl);
            assert!(config.listeners.iter().all(|listener| listener.address.contains(':')));
            assert!(config.audit.iter().all(|device| device.path.ends_with('/')));
        }
        Err(problems) => {
            let lines = text.matches('\n').count() + 1;
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line) && !problem.what.is_empty()));
            assert!(problems.is_sorted_by_key(|problem| problem.line));
        }
    }
}
