//! The command line client, ours or OpenBao's, as a person types it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    pub line: String,
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    #[track_caller]
    pub fn assert_status(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    #[track_caller]
    pub fn assert_stdout(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "`{part}` is not on stdout\n{self}");
        self
    }

    #[track_caller]
    pub fn assert_stderr(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "`{part}` is not on stderr\n{self}");
        self
    }

    /// The value of a row `key   value` of a table.
    #[track_caller]
    pub fn row(&self, key: &str) -> String {
        self.stdout
            .lines()
            .filter_map(|line| line.split_once(char::is_whitespace))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_else(|| panic!("no row `{key}`\n{self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n{}{}(exit status {})", self.line, self.stdout, self.stderr, self.status)
    }
}

/// A program with the surroundings of one person: an address, a home directory, a token or none.
#[derive(Clone, Debug)]
pub struct Cli {
    program: PathBuf,
    address: String,
    home: PathBuf,
    directory: PathBuf,
    token: Option<String>,
}

impl Cli {
    /// `home` also is the working directory.
    pub fn new(program: &Path, address: &str, home: &Path, token: Option<&str>) -> Self {
        Self {
            program: program.to_owned(),
            address: if address.contains("://") { address.to_owned() } else { format!("http://{address}") },
            home: home.to_owned(),
            directory: home.to_owned(),
            token: token.map(str::to_owned),
        }
    }

    /// The same person with `VAULT_TOKEN` set.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same person relying on the token that `login` stored.
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runs one command.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.directory).stdin(Stdio::null());
        for (name, _) in std::env::vars() {
            if ["VAULT_", "BAO_", "LEASEHOLD_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.env("VAULT_ADDR", &self.address).env("HOME", &self.home);
        if let Some(token) = &self.token {
            command.env("VAULT_TOKEN", token);
        }
        let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        Ran {
            line: words.join(" "),
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs one command, its words separated by blanks.
    #[track_caller]
    pub fn line(&self, words: &str) -> Ran {
        self.run(&words.split_whitespace().collect::<Vec<_>>())
    }
}
