//! Who serves a path, and by which of its routes: the server itself, a secrets engine or an auth method.
//!
//! Must not know: whether the request is allowed. [`super::pipeline`] finds the route first and asks the ACL afterwards.
//!
//! Start with [`Backend::of`] and [`Backend::find`].

use std::sync::Arc;

use leasehold_model::Operation;

use crate::api::call::SystemHandler;
use crate::api::sys;
use crate::core::Unsealed;
use crate::fields::Field;
use crate::mount::{MountEntry, Table};
use crate::request::LogicalResponse;
use crate::routes::{self, Captures, Found, Route};
use crate::seams::auth::{AuthHandler, AuthMethod};
use crate::seams::engine::{EngineHandler, SecretsEngine};

/// Who serves a mount.
pub(super) enum Backend {
    /// `sys/`, `auth/token/`, `cubbyhole/` and `identity/`: handlers that see all that is unsealed.
    System(&'static [Route<SystemHandler>]),
    /// With the routes that the mount's options give it.
    Secrets(Arc<dyn SecretsEngine>, &'static [Route<EngineHandler>]),
    Auth(Arc<dyn AuthMethod>),
}

/// The route of a request, by its backend, and the handler of its operation if there is one.
pub(super) enum Matched {
    System(Found<SystemHandler>),
    Secrets(Arc<dyn SecretsEngine>, Found<EngineHandler>),
    Auth(Arc<dyn AuthMethod>, Found<AuthHandler>),
    /// The mount itself, which only help is asked about.
    Mount,
}

/// Evaluates an expression on the route that was found, whichever backend's it is.
macro_rules! on_route {
    ($matched:expr, $found:ident => $then:expr, $else:expr) => {
        match $matched {
            Matched::System($found) => $then,
            Matched::Secrets(_, $found) => $then,
            Matched::Auth(_, $found) => $then,
            Matched::Mount => $else,
        }
    };
}

impl Matched {
    pub(super) fn needs_sudo(&self, operation: Operation) -> bool {
        on_route!(self, found => found.route.access.needs_sudo(operation), false)
    }

    pub(super) fn is_unauthenticated(&self) -> bool {
        on_route!(self, found => found.route.access.is_unauthenticated(), false)
    }

    pub(super) fn may_be_let_in(&self) -> bool {
        on_route!(self, found => found.route.access == routes::Access::TokenUnlessLetIn, false)
    }

    pub(super) fn has_existence_check(&self) -> bool {
        on_route!(self, found => found.route.existence_check, false)
    }

    /// Whether the route has the operation that it was looked up for.
    pub(super) fn has_operation(&self) -> bool {
        on_route!(self, found => found.op.is_some(), false)
    }

    pub(super) fn fields(&self) -> &'static [Field] {
        on_route!(self, found => found.op.map_or(&[], |op| op.fields), &[])
    }

    pub(super) fn takes_document(&self) -> bool {
        on_route!(self, found => found.op.is_some_and(|op| op.is_document), false)
    }

    pub(super) fn captures(&self) -> Option<&Captures> {
        on_route!(self, found => Some(&found.captures), None)
    }
}

impl Backend {
    pub(super) fn of(entry: &MountEntry, unsealed: &Unsealed) -> Option<Self> {
        match entry.kind.as_str() {
            "system" => Some(Self::System(sys::ROUTES)),
            "token" => Some(Self::System(super::token::ROUTES)),
            "cubbyhole" => Some(Self::System(super::cubbyhole::ROUTES)),
            "identity" => Some(Self::System(super::identity::ROUTES)),
            _ if entry.table == Table::Auth => unsealed.methods.of(entry).cloned().map(Self::Auth),
            kind => unsealed.engines.of_kind(kind).cloned().map(|engine| {
                let routes = engine.routes_with(&entry.engine_options());
                Self::Secrets(engine, routes)
            }),
        }
    }

    pub(super) fn find(&self, path: &str, operation: Operation) -> Option<Matched> {
        if path.is_empty() && operation == Operation::Help {
            return Some(Matched::Mount);
        }
        Some(match self {
            Self::System(routes) => Matched::System(routes::find(routes, path, operation)?),
            Self::Secrets(engine, routes) => {
                Matched::Secrets(Arc::clone(engine), routes::find(routes, path, operation)?)
            }
            Self::Auth(method) => Matched::Auth(Arc::clone(method), routes::find(method.routes(), path, operation)?),
        })
    }

    /// Whether a path with a slash at its end is answered as the `path` without it. Only then can a rule for the one be walked around
    /// with the other; elsewhere a slash leads nowhere.
    pub(super) fn serves_with_slash(&self, path: &str, operation: Operation) -> bool {
        self.is_folder(path) && self.find(path, operation).is_some_and(|matched| matched.has_operation())
    }

    pub(super) fn is_folder(&self, path: &str) -> bool {
        match self {
            Self::System(routes) => routes::is_folder(routes, path),
            Self::Secrets(_, routes) => routes::is_folder(routes, path),
            Self::Auth(method) => routes::is_folder(method.routes(), path),
        }
    }

    pub(super) fn help(&self, path: &str, matched: &Matched) -> LogicalResponse {
        match (self, matched) {
            (Self::System(routes), Matched::System(found)) => sys::help::of_route(routes, found.route, path),
            (Self::System(routes), _) => sys::help::of_mount(routes),
            (Self::Secrets(_, routes), Matched::Secrets(_, found)) => sys::help::of_route(routes, found.route, path),
            (Self::Secrets(_, routes), _) => sys::help::of_mount(routes),
            (Self::Auth(method), Matched::Auth(_, found)) => sys::help::of_route(method.routes(), found.route, path),
            (Self::Auth(method), _) => sys::help::of_mount(method.routes()),
        }
    }
}
