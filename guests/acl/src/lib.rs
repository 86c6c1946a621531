//! Vault's ACL policies: texts in, decisions out.
//!
//! Plain Rust without a clock, a file or a secret; `component.rs` is the only part that knows of WebAssembly, and it is
//! compiled only there. The host uses this crate natively to compare the component's answers with, and the command line to
//! format policies.
//!
//! Start with [`PolicySet::compile`] and [`PolicySet::evaluate`]; [`lint`] is what an editor calls. Inside: `syntax`
//! reads HCL and JSON, `policy` checks what one text says, `compile` merges texts, `matching` finds the winning rule,
//! `decide` holds it against a request. `format` prints a text in its usual shape.
//!
//! Invariants: default deny; `deny` wins among rules with one pattern; of an invalid policy nothing counts; no input
//! panics; no text that comes out holds a parameter's or an identity's value.

#[cfg(target_arch = "wasm32")]
mod component;

mod compile;
mod decide;
mod format;
mod matching;
mod policy;
mod syntax;
mod types;

pub use compile::PolicySet;
pub use decide::Decision;
#[cfg(any(test, fuzzing))]
pub use format::any_policy_keeps_its_meaning;
pub use format::{FormatError, format_policy};
pub use types::{
    Approval, Capabilities, ControlGroup, Diagnostic, FactorState, GroupKey, NamedGroup, Operation, Parameter,
    Position, Reason, Report, Request, RuleRef, Severity, Source, Verdict,
};

/// Everything there is to say about one text: errors (it would be refused) and warnings (it would be taken).
///
/// Errors come first, and the first of them is the one a client reads.
#[must_use]
pub fn lint(source: &Source) -> Vec<Diagnostic> {
    report(source).diagnostics
}

/// The same, and the identity groups that the text names.
#[must_use]
pub fn report(source: &Source) -> Report {
    let mut findings = policy::Findings::about(&source.name);
    let rules = policy::read(source, None, &mut findings);
    let mut groups = Vec::new();
    if !findings.has_errors() {
        policy::advice::advise(&rules, &mut findings);
        groups = policy::groups::named(&rules);
    }
    Report { diagnostics: findings.into_diagnostics(), groups }
}
