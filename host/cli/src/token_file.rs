//! The token helper: one file, `~/.vault-token`, shared with Vault's other clients.
//!
//! Invariants: the file is only ever written with mode 0600, by rename, so that a reader sees the old token or the new.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::environment::Environment;

/// A token is never longer than this; a file that is has been mixed up with something else.
const TOKEN_MAX: u64 = 64 << 10;

/// Where the token of `login` is kept.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// `TOKEN_PATH`, or `.vault-token` in the home folder. `None` without either.
    pub(crate) fn of(env: &Environment) -> Option<Self> {
        let path = match env.setting("TOKEN_PATH") {
            Some(path) => PathBuf::from(path),
            None => env.home()?.join(".vault-token"),
        };
        Some(Self { path })
    }

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
}
