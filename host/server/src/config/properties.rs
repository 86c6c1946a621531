//! What holds for every configuration text: asked by the tests with texts that are likely to matter, by the fuzz target with any.

use super::{Address, Source, read};

/// A text is a configuration that a server can run with, or everything wrong with it is said, line by line.
pub(crate) fn any_configuration_is_read_or_refused(text: &str) {
    match read(&[Source { name: "x.hcl".to_owned(), text: text.to_owned() }]) {
        Ok(config) => {
            assert!(!config.listeners.is_empty());
            assert!(!config.default_lease_ttl.is_zero() && config.default_lease_ttl <= config.max_lease_ttl);
            assert!(config.listeners.iter().all(|listener| match &listener.address {
                Address::Tcp(address) => address.contains(':'),
                Address::Unix { path, .. } => !path.as_os_str().is_empty(),
            }));
            assert!(config.audit.iter().all(|device| device.path.ends_with('/')));
        }
        Err(refused) => {
            let lines = text.matches('\n').count() + 1;
            assert!(!refused.problems.is_empty());
            for remarks in [&refused.problems, &refused.warnings] {
                assert!(remarks.iter().all(|remark| (1..=lines).contains(&remark.line) && !remark.what.is_empty()));
                assert!(remarks.is_sorted_by_key(|remark| remark.line));
            }
        }
    }
}
