//! Certificates of many kinds, made by openssl for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use leasehold_devpg::TlsFiles;

/// A folder with an authority `ca.pem`, another, `other.pem`, that signed nothing, and servers' certificates by kind.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub fn new() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["ca", "other"] {
            made.openssl(&format!("{REQUEST} -x509 -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"));
        }
        made
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    /// Signed by the authority, with these extensions; without any it is of X.509 version 1.
    pub fn signed(&self, name: &str, subject: &str, extensions: Option<&str>, more: &str) {
        self.openssl(&format!("{REQUEST} -subj /CN={subject} -keyout {name}.key -out {name}.csr"));
        let sign = format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem {more}");
        match extensions {
            Some(extensions) => {
                std::fs::write(self.file("extensions"), extensions).unwrap();
                self.openssl(&format!("{sign} -extfile extensions"));
            }
            None => self.openssl(&sign),
        }
    }

    /// As PostgreSQL's manual makes one: self-signed, and an authority.
    pub fn self_signed(&self, name: &str, subject: &str) {
        self.openssl(&format!("{REQUEST} -x509 -days 2 -subj /CN={subject} -keyout {name}.key -out {name}.pem"));
    }

    pub fn server(&self, name: &str, required: bool) -> TlsFiles {
        TlsFiles { certificate: self.file(&format!("{name}.pem")), key: self.file(&format!("{name}.key")), required }
    }

    fn openssl(&self, arguments: &str) {
        let arguments = arguments.split_whitespace();
        let done = Command::new("openssl").args(arguments).current_dir(self.path()).output().expect("openssl");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

const REQUEST: &str = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
