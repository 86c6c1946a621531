//! What goes in and what comes out: the WIT package's types in plain Rust.
//!
//! `component.rs` converts between these and the generated ones; nothing else knows that a component exists.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};

pub use leasehold_hcl::text::Position;

/// One policy as the operator wrote it, HCL or JSON.
#[derive(Debug, Clone, Default)]
pub struct Source {
    pub name: String,
    pub text: String,
    /// Identity values may hold `/` when this is set; otherwise such a value refuses the whole set.
    pub allow_slashes: bool,
    /// The same for `*` and `+`.
    pub allow_wildcards: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The text is refused.
    Error,
    /// The text is taken, and probably does not do what its author thinks.
    Warning,
    /// Worth a second look.
    Hint,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable and kebab-case.
    pub code: &'static str,
    pub message: String,
    pub policy: String,
    pub start: Position,
    pub end: Position,
    pub help: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Read,
    Update,
    Delete,
    List,
    Scan,
    Patch,
}

impl Operation {
    /// The capability that lets it pass.
    #[must_use]
    pub fn capability(self) -> Capabilities {
        match self {
            Self::Create => Capabilities::CREATE,
            Self::Read => Capabilities::READ,
            Self::Update => Capabilities::UPDATE,
            Self::Delete => Capabilities::DELETE,
            Self::List => Capabilities::LIST,
            Self::Scan => Capabilities::SCAN,
            Self::Patch => Capabilities::PATCH,
        }
    }

    /// List and scan are asked on `path/`, and a rule on `path` answers for them too.
    #[must_use]
    pub fn ends_in_slash(self) -> bool {
        matches!(self, Self::List | Self::Scan)
    }
}

/// A set of capabilities. The bits stand in the order of the WIT flags.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(u16);

impl Capabilities {
    pub const NONE: Self = Self(0);
    pub const CREATE: Self = Self(1);
    pub const READ: Self = Self(1 << 1);
    pub const UPDATE: Self = Self(1 << 2);
    pub const DELETE: Self = Self(1 << 3);
    pub const LIST: Self = Self(1 << 4);
    pub const SCAN: Self = Self(1 << 5);
    pub const PATCH: Self = Self(1 << 6);
    pub const SUDO: Self = Self(1 << 7);
    pub const DENY: Self = Self(1 << 8);

    /// Every capability under its name, in the order of the bits.
    pub const NAMED: [(&'static str, Self); 9] = [
        ("create", Self::CREATE),
        ("read", Self::READ),
        ("update", Self::UPDATE),
        ("delete", Self::DELETE),
        ("list", Self::LIST),
        ("scan", Self::SCAN),
        ("patch", Self::PATCH),
        ("sudo", Self::SUDO),
        ("deny", Self::DENY),
    ];

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, capability)| *capability)
    }

    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Both sets together; `|` where a constant is needed.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether anything is allowed by these: `deny` grants nothing, and neither does an empty set.
    #[must_use]
    pub const fn grants(self) -> bool {
        self.0 != 0 && self.0 & Self::DENY.0 == 0
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.into_iter().filter(move |(_, one)| self.contains(*one)).map(|(name, _)| name)
    }
}

impl BitOr for Capabilities {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Capabilities {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Capabilities {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Capabilities {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.names()).finish()
    }
}

/// One key of a request's body or query.
#[derive(Clone)]
pub struct Parameter {
    /// As the client wrote it.
    pub name: String,
    /// JSON text; none when no rule of the set watches the key.
    pub value: Option<String>,
}

impl fmt::Debug for Parameter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Parameter").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub struct Request {
    /// The one canonical path that the router uses, no leading slash. List and scan end in `/`.
    pub path: String,
    pub operation: Operation,
    /// The route asks for `sudo` besides the operation's capability.
    pub needs_sudo: bool,
    /// Seconds.
    pub wrap_ttl: Option<u64>,
    pub parameters: Vec<Parameter>,
    /// The entity that asks.
    pub requester: Option<String>,
    pub approvals: Vec<Approval>,
}

/// Somebody's approval of a request, as it stands now.
#[derive(Debug, Clone)]
pub struct Approval {
    /// The entity that approves.
    pub entity: String,
    /// The groups that it is in now.
    pub group_names: Vec<String>,
    pub group_ids: Vec<String>,
    /// Seconds since it was given.
    pub age: u64,
}

/// What the winning rule's control groups ask of a request, and how far that is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlGroup {
    /// Seconds that a request may wait, and that an approval is good for.
    pub ttl: u64,
    /// Each of them must be met.
    pub factors: Vec<FactorState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactorState {
    pub name: String,
    /// How many must approve.
    pub approvals: u32,
    /// Members of the factor's groups that do.
    pub given: Vec<String>,
}

impl FactorState {
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.given.len() >= self.approvals as usize
    }
}

/// Where a deciding rule stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRef {
    pub policy: String,
    /// As written, templates unfilled: an identity value is nobody's business here.
    pub pattern: String,
    pub at: Position,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    Granted,
    NoRule,
    Denied,
    Missing(Capabilities),
    /// Names the key, never the value.
    Parameter(String),
    /// Names the bounds.
    Wrapping(String),
    Pagination(String),
    /// All is granted but for approvals that are missing; see [`Verdict::control_group`].
    Unapproved,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// Of the winning rule.
    pub capabilities: Capabilities,
    pub reason: Reason,
    pub rules: Vec<RuleRef>,
    /// The request must be handled with this `limit`.
    pub limit: Option<u32>,
    /// Where nothing else refuses the request and somebody must approve of it.
    pub control_group: Option<ControlGroup>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupKey {
    Name,
    Id,
}

/// An identity group that a text names, without knowing whether there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedGroup {
    pub key: GroupKey,
    pub value: String,
    /// Its members may approve; otherwise a template asks for a value of it.
    pub approves: bool,
}

/// What there is to say about one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub diagnostics: Vec<Diagnostic>,
    /// Each once; none when there is an error.
    pub groups: Vec<NamedGroup>,
}
