//! Declarations of routes. From one declaration come dispatch, help, the OpenAPI document, the list of root-protected paths and the
//! fields whose values policy modules may see.
//!
//! Must not know: what a handler does, or which backends exist. `H` is the type of the backend's handlers: a declaration that names
//! a function that is not there, or one of another backend, does not compile.
//!
//! Start with [`Route`] and [`Op`]; [`find`] is what the pipeline asks, once per request.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use leasehold_model::{Operation, name};

use crate::fields::Field;

/// What a handler gives back: an `async fn` in a box, so that tables of handlers can be constants.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A token whose policies grant the operation.
    Token,
    /// The same, and `sudo` besides (a root-protected path).
    Sudo,
    /// The same as [`Access::Token`] for reads and lists, [`Access::Sudo`] for everything else (`sys/modules/*`).
    SudoToWrite,
    /// The same as [`Access::Token`], unless the listener lets the request in without one
    /// ([`LogicalRequest::is_let_in`](crate::request::LogicalRequest::is_let_in)).
    TokenUnlessLetIn,
    /// Nobody is asked for a token.
    Unauthenticated,
    /// The same, and the route answers while the server is sealed. Such a request leaves no audit record.
    WhileSealed,
}

impl Access {
    /// Whether the operation needs `sudo` besides its own capability.
    #[must_use]
    pub const fn needs_sudo(self, operation: Operation) -> bool {
        match self {
            Self::Sudo => true,
            Self::SudoToWrite => !matches!(operation, Operation::Read | Operation::List | Operation::Scan),
            Self::Token | Self::TokenUnlessLetIn | Self::Unauthenticated | Self::WhileSealed => false,
        }
    }

    /// Whether the route answers without a token.
    #[must_use]
    pub const fn is_unauthenticated(self) -> bool {
        matches!(self, Self::Unauthenticated | Self::WhileSealed)
    }
}

/// What a successful answer looks like, for the OpenAPI document.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// 204, no body.
    Nothing,
    /// The envelope; these fields stand in `data`. More may stand there.
    Data(&'static [Field]),
    /// `data` alone.
    Plain(&'static [Field]),
    /// The envelope with `data.keys`.
    Keys,
    /// The envelope with `auth`.
    Auth,
    /// The envelope with a lease and its secret.
    Lease,
    /// A file of this type.
    File(&'static str),
    /// A text of this content type.
    Text(&'static str),
}

/// One operation of a route.
#[derive(Clone, Copy, Debug)]
pub struct Op<H: 'static> {
    pub operation: Operation,
    /// One line, for help and OpenAPI.
    pub summary: &'static str,
    pub fields: &'static [Field],
    /// The body as a whole is the value: none of its keys is a field, and none is lost.
    pub is_document: bool,
    /// The body is a file of any size, which is spooled, and only for who may call this.
    pub takes_file: bool,
    pub answer: Answer,
    pub handler: H,
}

impl<H: Copy> Op<H> {
    const fn new(operation: Operation, answer: Answer, summary: &'static str, handler: H) -> Self {
        Self { operation, summary, fields: &[], is_document: false, takes_file: false, answer, handler }
    }

    #[must_use]
    pub const fn read(summary: &'static str, handler: H) -> Self {
        Self::new(Operation::Read, Answer::Data(&[]), summary, handler)
    }

    #[must_use]
    pub const fn list(summary: &'static str, handler: H) -> Self {
        Self::new(Operation::List, Answer::Keys, summary, handler)
    }

    #[must_use]
    pub const fn scan(summary: &'static str, handler: H) -> Self {
        Self::new(Operation::Scan, Answer::Keys, summary, handler)
    }

    /// A write. Where the route has an existence check, it creates as well.
    #[must_use]
    pub const fn update(summary: &'static str, handler: H) -> Self {
        Self::new(Operation::Update, Answer::Nothing, summary, handler)
    }

    #[must_use]
    pub const fn patch(summary: &'static str, handler: H) -> Self {
        Self::new(Operation::Patch, Answer::Nothing, summary, handler)
    }

    #[must_use]
    pub const fn delete(summary: &'static str, handler: H) -> Self {
        Self::new(Operation::Delete, Answer::Nothing, summary, handler)
    }

    #[must_use]
    pub const fn takes(self, fields: &'static [Field]) -> Self {
        Self { fields, ..self }
    }

    /// The body is taken as it is: see [`Op::is_document`].
    #[must_use]
    pub const fn takes_document(self) -> Self {
        Self { is_document: true, ..self }
    }

    /// The body is a file: see [`Op::takes_file`].
    #[must_use]
    pub const fn takes_file(self) -> Self {
        Self { takes_file: true, ..self }
    }

    #[must_use]
    pub const fn answers(self, answer: Answer) -> Self {
        Self { answer, ..self }
    }
}

/// One route below a mount.
#[derive(Clone, Copy, Debug)]
pub struct Route<H: 'static> {
    /// Segments: literal, `:name` (a generic name), `*name` (one segment or more; further segments may follow, as in
    /// `mounts/*path/tune`). A pattern that ends in `/` is the list form; `List` also matches a pattern without it.
    pub pattern: &'static str,
    pub access: Access,
    /// Whether the backend tells create from update; without it every write is an update.
    pub existence_check: bool,
    /// Neither help nor the OpenAPI document names the route: it only tells clients which path they should have asked for.
    pub is_unlisted: bool,
    /// What the path is about.
    pub summary: &'static str,
    pub operations: &'static [Op<H>],
}

/// What a pattern captured, by name.
pub type Captures = BTreeMap<&'static str, String>;

impl<H: Copy> Route<H> {
    #[must_use]
    pub const fn new(
        pattern: &'static str,
        access: Access,
        summary: &'static str,
        operations: &'static [Op<H>],
    ) -> Self {
        Self { pattern, access, existence_check: false, is_unlisted: false, summary, operations }
    }

    #[must_use]
    pub const fn with_existence_check(self) -> Self {
        Self { existence_check: true, ..self }
    }

    /// See [`Route::is_unlisted`].
    #[must_use]
    pub const fn unlisted(self) -> Self {
        Self { is_unlisted: true, ..self }
    }

    /// The operation as it is declared. A route that takes updates takes creations: which one a write is, is found out later.
    #[must_use]
    pub fn op(&self, operation: Operation) -> Option<&Op<H>> {
        let declared = |wanted| self.operations.iter().find(|op| op.operation == wanted);
        declared(operation).or_else(|| declared(Operation::Update).filter(|_| operation == Operation::Create))
    }

    /// Whether a path with a slash at its end, as those of lists have, can be one of this route's at all.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.pattern.contains('*') || self.op(Operation::List).is_some()
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
                // What follows the wildcard stands at the end of the path.
                let behind: Vec<&str> = segments.collect();
                let mut whole = rest.strip_suffix('/').unwrap_or(rest);
                for wanted in behind.iter().rev() {
                    let (front, last) = whole.rsplit_once('/')?;
                    match wanted.strip_prefix(':') {
                        Some(capture) if name::is_generic(last) => drop(found.insert(capture, last.to_owned())),
                        None if *wanted == last => {}
                        _ => return None,
                    }
                    whole = front;
                }
                if whole.is_empty() {
                    return None;
                }
                let whole = if behind.is_empty() { rest } else { whole };
                found.insert(capture, whole.to_owned());
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

/// A route that matches, and the operation if it has it.
#[derive(Debug)]
pub struct Found<H: 'static> {
    pub route: &'static Route<H>,
    pub op: Option<&'static Op<H>>,
    pub captures: Captures,
}

/// The first route that matches: literal patterns come before captures. Only its own list form may lend it an operation, never a
/// wider pattern: a `DELETE` of `mounts/a/tune` must not become one of the mount `a/tune`.
#[must_use]
pub fn find<H: Copy>(routes: &'static [Route<H>], path: &str, operation: Operation) -> Option<Found<H>> {
    let bare = |route: &Route<H>| route.pattern.strip_suffix('/').unwrap_or(route.pattern);
    let mut matches = routes.iter().filter_map(|route| route.captures(path).map(|captures| (route, captures)));
    let (first, captures) = matches.next()?;
    let route = match first.op(operation) {
        Some(_) => first,
        None => {
            let mut same = routes.iter().filter(|route| bare(route) == bare(first));
            same.find(|route| route.op(operation).is_some()).unwrap_or(first)
        }
    };
    Some(Found { route, op: route.op(operation), captures })
}

/// Whether any route that matches can be a folder.
#[must_use]
pub fn is_folder<H: Copy>(routes: &[Route<H>], path: &str) -> bool {
    routes.iter().any(|route| route.is_folder() && route.captures(path).is_some())
}

/// Several tables as one, in order.
#[must_use]
pub const fn joined<H: Copy, const LEN: usize>(parts: &[&[Route<H>]]) -> [Route<H>; LEN] {
    let mut all = [parts[0][0]; LEN];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let mut i = 0;
        while i < parts[part].len() {
            all[at] = parts[part][i];
            at += 1;
            i += 1;
        }
        part += 1;
    }
    // A table that was left out of the length does not compile.
    assert!(at == LEN, "the tables have another length together");
    all
}

/// How many routes several tables have together.
#[must_use]
pub const fn count<H>(parts: &[&[Route<H>]]) -> usize {
    let (mut sum, mut part) = (0, 0);
    while part < parts.len() {
        sum += parts[part].len();
        part += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(pattern: &'static str) -> Route<()> {
        Route::new(pattern, Access::Token, "", &[])
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
        assert_eq!(captured("mounts/*path/tune", "mounts/a/b/tune"), Some(vec!["a/b".to_owned()]));
        assert_eq!(captured("mounts/*path/tune", "mounts/a/tune/"), Some(vec!["a".to_owned()]));
        assert_eq!(captured("mounts/*path/tune", "mounts/tune"), None);
        assert_eq!(captured("mounts/*path/tune", "mounts//tune"), None);
        assert_eq!(captured("mounts/*path/tune", "mounts/a/tuned"), None);
        assert_eq!(captured("x/*path/of/:name", "x/a/b/of/c"), Some(vec!["c".to_owned(), "a/b".to_owned()]));
    }

    #[test]
    fn what_a_name_behind_a_wildcard_may_be() {
        let route = route("x/*path/of/:name");
        assert!(route.captures("x/a/of/b.c").is_some());
        assert!(route.captures("x/a/of/b c").is_none());
    }
}
