//! SQL statement templates: templates and public values in, statements out.
//!
//! Must not know: credentials, the database, the host. Where a password belongs the host hands in a random
//! placeholder and puts the real value in its place after rendering; nothing here may rely on what a value says.
//!
//! Start with [`check`] (what happens when a role is written), then [`render`] (what happens at every lease).
//! [`username`](mod@username) makes the names of leased roles.
//! [`outline`] is the gate before the template engine: a template reaches [`engine`] only after it passed there.
//!
//! Invariants: a template of bare `{{tags}}` renders byte for byte as Vault's replacement does. Every variable that
//! a template names is known, or it does not render. A check never refuses. Time and depth are bounded by the
//! length of the input. This crate is plain Rust and tested natively; `component` is the only glue.

pub mod check;
pub mod engine;
mod lint;
pub mod outline;
pub mod plain;
mod position;
pub mod render;
mod spelling;
mod sql;
pub mod username;

#[cfg(target_arch = "wasm32")]
mod component;

pub use check::check;
pub use render::render;
pub use username::{UsernameFacts, check_username, username};

/// How a template is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Handlebars, strict, nothing escaped; see [`outline`] for what is offered.
    Handlebars,
    /// Vault's: `{{key}}` of a known key is replaced, everything else stays.
    Plain,
}

/// What the statements are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Creation,
    Renewal,
    Revocation,
    Rollback,
    Rotation,
}

impl Purpose {
    /// The variables that exist for this purpose (contract.md §5.6).
    #[must_use]
    pub fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Creation => &["name", "username", "password", "expiration"],
            Self::Renewal => &["name", "username", "expiration"],
            Self::Revocation | Self::Rollback => &["name", "username"],
            Self::Rotation => &["name", "username", "password"],
        }
    }

    /// The word for a message.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Renewal => "renewal",
            Self::Revocation => "revocation",
            Self::Rollback => "rollback",
            Self::Rotation => "rotation",
        }
    }
}

/// How much a diagnostic matters. Nothing here refuses a write, so there is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Warning,
    Hint,
}

/// Something to say about a statement. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable, kebab-case.
    pub code: &'static str,
    pub message: String,
    /// 0-based.
    pub statement: u32,
    /// 1-based.
    pub line: u32,
    /// 1-based, in bytes of UTF-8.
    pub column: u32,
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic at byte `offset` of `text`, the statement of index `statement`.
    pub(crate) fn at(
        severity: Severity,
        code: &'static str,
        message: String,
        statement: usize,
        text: &str,
        offset: usize,
    ) -> Self {
        let (line, column) = position::of(text, offset);
        Self {
            severity,
            code,
            message,
            statement: u32::try_from(statement).unwrap_or(u32::MAX),
            line,
            column,
            help: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// What [`check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In which these statements will be rendered.
    pub dialect: Dialect,
    pub diagnostics: Vec<Diagnostic>,
}

/// The text of one role's statements that is looked at: more than anybody writes, little enough for a millisecond.
pub const TEXT_MAX: usize = 1 << 20;
/// What a render may produce; a template can repeat a value as often as it has room for tags.
pub const OUTPUT_MAX: usize = 4 << 20;
/// Diagnostics of one check; what comes after adds nothing.
pub const DIAGNOSTICS_MAX: usize = 64;
