//! Where the token of `login` is kept: in the file `~/.vault-token`, shared with Vault's other clients, or by a program that the
//! configuration of the command line names.
//!
//! Start with [`TokenHelper::of`].
//!
//! Invariants: the file is only ever written with mode 0600, by rename, so that a reader sees the old token or the new. A program gets
//! the token on its standard input, never as an argument.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use leasehold_hcl::Kind;
use leasehold_hcl::text::Lines;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::environment::Environment;

/// A token is never longer than this; a file that is has been mixed up with something else.
const TOKEN_MAX: u64 = 64 << 10;
/// The same of the configuration.
const CONFIG_MAX: u64 = 64 << 10;

/// Where the token of `login` is kept.
#[derive(Debug)]
pub(crate) enum TokenHelper {
    File(TokenFile),
    Program(TokenProgram),
}

impl TokenHelper {
    /// The program that the configuration names; else `TOKEN_PATH`, or `.vault-token` in the home folder. `None` without any of them.
    ///
    /// # Errors
    /// A configuration that cannot be read, with the place.
    pub(crate) fn of(env: &Environment) -> Result<Option<Self>, String> {
        if let Some(program) = configured(env)? {
            return Ok(Some(Self::Program(TokenProgram { program, variables: env.variables.clone() })));
        }
        let path = match env.setting("TOKEN_PATH") {
            Some(path) => Some(PathBuf::from(path)),
            None => env.home().map(|home| home.join(".vault-token")),
        };
        Ok(path.map(|path| Self::File(TokenFile { path })))
    }

    /// The stored token; none is no error.
    pub(crate) fn read(&self) -> io::Result<Option<SecretString>> {
        match self {
            Self::File(file) => file.read(),
            Self::Program(program) => program.read(),
        }
    }

    pub(crate) fn store(&self, token: &SecretString) -> io::Result<()> {
        match self {
            Self::File(file) => file.store(token),
            Self::Program(program) => program.run("store", Some(token)).map(drop),
        }
    }
}

/// `token_helper` in the file that `CONFIG_PATH` names, or in `.vault` or `.bao` in the home folder.
fn configured(env: &Environment) -> Result<Option<PathBuf>, String> {
    let named = env.setting("CONFIG_PATH").map(|path| env.expand_home(path));
    let is_named = named.is_some();
    let beside = || env.home().into_iter().flat_map(|home| [home.join(".vault"), home.join(".bao")]);
    for path in named.into_iter().chain(beside().filter(|_| !is_named)) {
        let failed = |why: &dyn std::fmt::Display| format!("error reading config file {}: {why}", path.display());
        let mut text = String::new();
        match fs::File::open(&path) {
            Ok(file) => file.take(CONFIG_MAX).read_to_string(&mut text).map_err(|error| failed(&error))?,
            // As in Vault, also where it is named.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&error)),
        };
        return helper(&text).map_err(|why| failed(&why));
    }
    Ok(None)
}

/// What a configuration says, if it says something.
fn helper(text: &str) -> Result<Option<PathBuf>, String> {
    let lines = Lines::of(text);
    let items = leasehold_hcl::parse(text)
        .map_err(|error| format!("error parsing config: At {}: {}", lines.spoken(error.at), error.message))?;
    let mut found = None;
    for item in items {
        let (name, at) = item.keys.first().map_or(("", 0), |key| (&*key.name, key.at));
        if name != "token_helper" {
            return Err(format!("invalid key {name:?} at {}: the only one is token_helper", lines.spoken(at)));
        }
        match item.value.kind {
            Kind::Text(path) if path.is_empty() => {}
            Kind::Text(path) if Path::new(&*path).is_absolute() => found = Some(PathBuf::from(path.into_owned())),
            Kind::Text(path) => return Err(format!("token_helper must be an absolute path, not {path:?}")),
            _ => return Err(format!("token_helper at {} must be a text", lines.spoken(at))),
        }
    }
    Ok(found)
}

/// A program that keeps the token: it is called with `get`, `store` or `erase`.
pub(crate) struct TokenProgram {
    program: PathBuf,
    variables: std::collections::BTreeMap<String, String>,
}

/// Without the variables, which may hold tokens.
impl std::fmt::Debug for TokenProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenProgram").field("program", &self.program).finish_non_exhaustive()
    }
}

impl TokenProgram {
    fn read(&self) -> io::Result<Option<SecretString>> {
        let text = self.run("get", None)?;
        let token = text.trim();
        Ok((!token.is_empty()).then(|| SecretString::from(token)))
    }

    /// What the program prints. It sees the variables of this run, as a helper that keeps tokens by server needs to.
    fn run(&self, what: &str, token: Option<&SecretString>) -> io::Result<Zeroizing<String>> {
        let mut child = Command::new(&self.program)
            .arg(what)
            .env_clear()
            .envs(&self.variables)
            .stdin(if token.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", self.program.display())))?;
        if let (Some(token), Some(mut stdin)) = (token, child.stdin.take()) {
            match stdin.write_all(token.expose_secret().as_bytes()) {
                // It may not care to read.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        let mut text = Zeroizing::new(String::new());
        if let Some(stdout) = child.stdout.take() {
            stdout.take(TOKEN_MAX).read_to_string(&mut text)?;
        }
        let status = child.wait()?;
        if status.success() {
            Ok(text)
        } else {
            Err(io::Error::other(format!("{} {what}: {status}", self.program.display())))
        }
    }
}

/// The token in a file.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// The stored token. A file that is not there, or empty, is none.
    pub(crate) fn read(&self) -> io::Result<Option<SecretString>> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        file.take(TOKEN_MAX).read_to_string(&mut text)?;
        let token = text.trim();
        Ok((!token.is_empty()).then(|| SecretString::from(token)))
    }

    pub(crate) fn store(&self, token: &SecretString) -> io::Result<()> {
        let beside = self.path.with_extension("tmp");
        // Mode counts only for a file that is made: one left behind by an interrupted run goes first.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let stored = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| file.write_all(token.expose_secret().as_bytes()))
            .and_then(|()| fs::rename(&beside, &self.path));
        if stored.is_err() {
            let _ = fs::remove_file(&beside);
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_stored_token_is_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile { path: folder.path().join(".vault-token") };
        fs::write(&file.path, "old").unwrap();
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).unwrap();

        file.store(&SecretString::from("s.new")).unwrap();

        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.read().unwrap().map(|token| token.expose_secret().to_owned()).as_deref(), Some("s.new"));
    }

    #[test]
    fn a_configuration_names_a_program_or_says_what_is_wrong() {
        for (text, wanted) in [
            ("", Ok(None)),
            ("# nothing", Ok(None)),
            ("token_helper = \"\"", Ok(None)),
            ("token_helper = \"/usr/bin/helper\"", Ok(Some(PathBuf::from("/usr/bin/helper")))),
            ("{\"token_helper\": \"/h\"}", Ok(Some(PathBuf::from("/h")))),
            ("token_helper = \"helper\"", Err("token_helper must be an absolute path, not \"helper\"")),
            ("token_helper = 5", Err("token_helper at 1:1 must be a text")),
            ("x = 1", Err("invalid key \"x\" at 1:1: the only one is token_helper")),
        ] {
            assert_eq!(helper(text), wanted.map_err(str::to_owned), "{text}");
        }
        assert!(helper("token_helper = ").unwrap_err().starts_with("error parsing config: At 1:"));
    }
}
