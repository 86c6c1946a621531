//! What `module inspect`, `module check`, `policy fmt` and `policy lint` need of the sandbox, without this crate knowing it.

use std::fmt;

use serde_json::Value;

/// Looks at policy modules and policies offline. The server's binary gives the real one.
pub trait ModuleTools {
    /// Puts a module through the load gate.
    ///
    /// The answer is one JSON object, shown to the user as a table or as it is: digest, world and its version, size,
    /// limits, what the module says about itself.
    ///
    /// # Errors
    /// What the gate objects to.
    fn inspect(&self, module: &[u8]) -> Result<Value, ModuleRefused>;

    /// Configures a module with `config` (JSON text) and asks it for one verdict.
    ///
    /// `request` is the sample: `path`, `operation`, `parameters`, `identity`, `now`; what is left out is for the
    /// sandbox to fill. The answer holds at least `decision` (`allow`, `deny` or `abstain`) and `messages`.
    ///
    /// # Errors
    /// The gate's objection, or how the module failed: a trap, a limit, its own error.
    fn check(&self, module: &[u8], config: &[u8], request: &Value) -> Result<Value, ModuleRefused>;

    /// Reads a policy as the server does when it is written. The answer is what is legal and probably not meant.
    ///
    /// # Errors
    /// The server's words.
    fn check_policy(&self, text: &str) -> Result<Vec<PolicyFinding>, ModuleRefused>;
}

/// What stands out in a policy that the server would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFinding {
    pub severity: FindingSeverity,
    /// Stable, for machines: `literal-star`, `unreachable-rule` …
    pub code: String,
    pub line: u32,
    /// Counted from 1, in bytes.
    pub column: u32,
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingSeverity {
    /// The text means what it says, and there is a plainer way to say it.
    Hint,
    /// A rule does nothing, or something else than it seems to.
    Warning,
}

impl FindingSeverity {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Warning => "warning",
        }
    }
}

/// Why a module was refused, in words for the user.
#[derive(Debug)]
pub struct ModuleRefused(pub String);

impl fmt::Display for ModuleRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ModuleRefused {}

/// For a client that was built without a sandbox.
#[derive(Debug)]
pub struct NoTools;

impl ModuleTools for NoTools {
    fn inspect(&self, _module: &[u8]) -> Result<Value, ModuleRefused> {
        Err(ModuleRefused("this client was built without a sandbox".to_owned()))
    }

    fn check(&self, module: &[u8], _config: &[u8], _request: &Value) -> Result<Value, ModuleRefused> {
        self.inspect(module)
    }

    /// Left to the server.
    fn check_policy(&self, _text: &str) -> Result<Vec<PolicyFinding>, ModuleRefused> {
        Ok(Vec::new())
    }
}
