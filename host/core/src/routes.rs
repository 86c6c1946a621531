//! Declarations of routes: pattern, operations, fields, who may call. One table per engine; the pipeline reads it.

use std::collections::BTreeMap;

use leasehold_model::{Operation, name};

use crate::fields::Field;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A token whose policies grant the operation.
    Token,
    /// The same, and `sudo` besides (a root-protected path).
    Sudo,
    /// The same as [`Access::Token`] for reads and lists, [`Access::Sudo`] for everything else (`sys/modules/*`).
    SudoToWrite,
    /// Nobody is asked for a token.
    Unauthenticated,
}

/// One route below a mount.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Segments: literal, `:name` (a generic name), `*name` (the rest, at least one character, only at the end). A pattern that ends
    /// in `/` is the list form; `List` also matches a pattern without it.
    pub pattern: &'static str,
    pub operations: &'static [Operation],
    pub fields: &'static [Field],
    pub access: Access,
    /// Whether `exists` tells create from update; without it every write is an update.
    pub existence_check: bool,
    /// First line: synopsis.
    pub help: &'static str,
}

/// What a pattern captured, by name.
pub type Captures = BTreeMap<&'static str, String>;

impl Route {
    /// A route that takes updates takes creations: which one a write is, is found out later.
    #[must_use]
    pub fn supports(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
            || operation == Operation::Create && self.operations.contains(&Operation::Update)
    }

    /// Whether a path with a slash at its end, as those of lists have, can be one of this route's at all.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.pattern.contains('*') || self.supports(Operation::List)
    }

    /// Matches `path` (below the mount, canonical; a trailing slash is ignored unless a capture would lose it).
    #[must_use]
    pub fn captures(&self, path: &str) -> Option<Captures> {
        let mut found = Captures::new();
        let mut rest = path;
        let pattern = self.pattern.strip_suffix('/').unwrap_or(self.pattern);
        let mut segments = pattern.split('/').peekable();
        while let Some(segment) = segments.next() {
            if let Some(capture) = segment.strip_prefix('*') {
                let whole = rest.strip_suffix('/').unwrap_or(rest);
                if whole.is_empty() {
                    return None;
                }
                found.insert(capture, rest.to_owned());
                return Some(found);
            }
            let (head, tail) = rest.split_once('/').unwrap_or((rest, ""));
            if segments.peek().is_none() && !tail.is_empty() {
                return None;
            }
            match segment.strip_prefix(':') {
                Some(capture) if name::is_generic(head) => {
                    found.insert(capture, head.to_owned());
                }
                Some(_) => return None,
                None if segment == head => {}
                None => return None,
            }
            rest = tail;
        }
        rest.is_empty().then_some(found)
    }
}

/// The first route that matches and knows the operation, else the first that matches; literal patterns come before captures.
#[must_use]
pub fn find<'a>(routes: &'a [Route], path: &str, operation: Operation) -> Option<(&'a Route, Captures)> {
    let matches = || routes.iter().filter_map(|route| route.captures(path).map(|captures| (route, captures)));
    matches().find(|(route, _)| route.supports(operation)).or_else(|| matches().next())
}

/// Whether any route that matches can be a folder.
#[must_use]
pub fn is_folder(routes: &[Route], path: &str) -> bool {
    routes.iter().any(|route| route.is_folder() && route.captures(path).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(pattern: &'static str) -> Route {
        Route { pattern, operations: &[], fields: &[], access: Access::Token, existence_check: false, help: "" }
    }

    #[test]
    fn patterns_capture_names_and_rests() {
        let captured = |pattern, path: &str| route(pattern).captures(path).map(|c| c.into_values().collect::<Vec<_>>());
        assert_eq!(captured("config/:name", "config/pg"), Some(vec!["pg".to_owned()]));
        assert_eq!(captured("config", "config/"), Some(vec![]));
        assert_eq!(captured("config", "config"), Some(vec![]));
        assert_eq!(captured("config/:name", "config/"), None);
        assert_eq!(captured("config/:name", "config/a b"), None);
        assert_eq!(captured("config/:name", "config/a/b"), None);
        assert_eq!(captured("leases/lookup/*prefix", "leases/lookup/a/b/"), Some(vec!["a/b/".to_owned()]));
        assert_eq!(captured("leases/lookup/*prefix", "leases/lookup/"), None);
        assert_eq!(captured("mounts/*path", "mounts/database"), Some(vec!["database".to_owned()]));
    }
}
