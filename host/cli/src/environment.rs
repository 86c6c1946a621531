//! What a command meets: variables, streams, the home folder.
//!
//! Handed in, so that a test gives its own and no test touches the process's environment. Start with
//! [`Environment::of_this_process`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

/// The prefixes of the environment variables, in order of precedence.
pub(crate) const PREFIXES: [&str; 3] = ["LEASEHOLD_", "VAULT_", "BAO_"];

/// Variables, streams and folders of one run.
pub struct Environment {
    /// Environment variables. Ones that are not Unicode are left out.
    pub variables: BTreeMap<String, String>,
    /// Where `-` reads from.
    pub stdin: Box<dyn Read>,
    /// Where results go.
    pub stdout: Box<dyn Write>,
    /// Where warnings and errors go.
    pub stderr: Box<dyn Write>,
    /// Whether a person reads standard output: a single field then ends with a newline.
    pub stdout_is_terminal: bool,
    /// Whether a person reads standard error: slow requests then show that they are under way.
    pub stderr_is_terminal: bool,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variables hold tokens.
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

impl Environment {
    /// The real ones.
    pub fn of_this_process() -> Self {
        let unicode = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self {
            variables: std::env::vars_os().filter_map(unicode).collect(),
            stdin: Box::new(io::stdin()),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
        }
    }

    /// A variable by its short name: `ADDR` is `LEASEHOLD_ADDR`, else `VAULT_ADDR`, else `BAO_ADDR`. Empty is unset.
    pub(crate) fn setting(&self, short_name: &str) -> Option<&str> {
        self.setting_with_name(short_name).map(|(_, value)| value)
    }

    /// The same, with the full name under which it was found.
    pub(crate) fn setting_with_name(&self, short_name: &str) -> Option<(String, &str)> {
        PREFIXES.iter().find_map(|prefix| {
            let name = format!("{prefix}{short_name}");
            let value = self.variables.get(&name).filter(|value| !value.is_empty())?;
            Some((name, value.as_str()))
        })
    }

    /// A setting that says yes or no, as Go reads it. What it cannot read is no.
    pub(crate) fn switch(&self, short_name: &str) -> bool {
        self.setting(short_name).and_then(parse_bool).unwrap_or(false)
    }

    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.variables.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
    }

    /// `~` and `~/x` become paths beneath the home folder.
    pub(crate) fn expand_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix('~'), self.home()) {
            (Some(""), Some(home)) => home,
            (Some(rest), Some(home)) => match rest.strip_prefix('/') {
                Some(rest) => home.join(rest),
                None => PathBuf::from(path),
            },
            _ => PathBuf::from(path),
        }
    }

    /// Prints one line of result.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stdout, "{line}")
    }

    /// Prints one line beside the result. A standard error that is closed is not worth failing for.
    pub(crate) fn warn(&mut self, line: &str) {
        let _ = writeln!(self.stderr, "{line}");
    }

    /// A line of progress that nobody but a person wants.
    pub(crate) fn prints_colour(&self) -> bool {
        self.stdout_is_terminal
            && !self.variables.contains_key("NO_COLOR")
            && self.variables.get("TERM").is_none_or(|term| term != "dumb")
            && self.setting("CLI_NO_COLOR").is_none()
    }
}

/// What Go's `strconv.ParseBool` takes.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn quiet(variables: &[(&str, &str)]) -> Environment {
        Environment {
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            stdin: Box::new(io::empty()),
            stdout: Box::new(io::sink()),
            stderr: Box::new(io::sink()),
            stdout_is_terminal: false,
            stderr_is_terminal: false,
        }
    }

    #[test]
    fn our_own_variables_win_over_vaults_and_those_over_baos() {
        let all = quiet(&[("LEASEHOLD_ADDR", "l"), ("VAULT_ADDR", "v"), ("BAO_ADDR", "b")]);
        let others = quiet(&[("VAULT_ADDR", "v"), ("BAO_ADDR", "b")]);
        let last = quiet(&[("LEASEHOLD_ADDR", ""), ("BAO_ADDR", "b")]);

        assert_eq!(
            (all.setting("ADDR"), others.setting("ADDR"), last.setting("ADDR")),
            (Some("l"), Some("v"), Some("b"))
        );
    }

    #[test]
    fn surroundings_never_show_a_token_in_debug_output() {
        let shown = format!("{:?}", quiet(&[("VAULT_TOKEN", "s.super-secret")]));

        assert!(!shown.contains("super-secret"), "{shown}");
    }
}
