//! What a caller may choose about the server.

use std::{net::Ipv4Addr, path::PathBuf};

use secrecy::SecretString;

/// How the private PostgreSQL should be. `Options::default()` suits a test.
#[derive(Debug)]
pub struct Options {
    /// The non-superuser admin role (LOGIN CREATEROLE). A password of `None` means a random one.
    pub admin: Login,
    /// TLS on the TCP port; without it the server speaks plain text only.
    pub tls: Option<TlsFiles>,
    /// The server's `max_connections`.
    pub max_connections: u32,
    /// Whether commits wait for the disk. Off by default: the data is thrown away anyway. A benchmark wants it on.
    pub fsync: bool,
    /// Whether the server logs every statement it is sent (`log_statement=all`), to prove what is *not* in them.
    pub log_statements: bool,
    /// Further server settings, `("deadlock_timeout", "100ms")`. Visible in `ps`: no secrets here.
    pub settings: Vec<(String, String)>,
    /// The directory of `initdb` and `postgres`; `None`: as `LEASEHOLD_PG_BIN` says, else the ones that are installed.
    pub programs: Option<PathBuf>,
    /// Further variables of the server's environment.
    pub environment: Vec<(String, String)>,
    /// Where the server runs and listens; `None`: here, on 127.0.0.1.
    pub network: Option<Network>,
}

/// A network namespace of Linux. Whoever uses one is root in it.
#[derive(Clone, Debug)]
pub struct Network {
    /// The namespace's file, as `ip netns` makes it.
    pub namespace: PathBuf,
    /// An address of the namespace, on which the server listens. Everybody in its /24 may log in with a password.
    pub address: Ipv4Addr,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            admin: Login { name: "leasehold_admin".to_owned(), password: None },
            tls: None,
            max_connections: 100,
            fsync: false,
            log_statements: false,
            settings: Vec::new(),
            programs: None,
            environment: Vec::new(),
            network: None,
        }
    }
}

/// A PostgreSQL role that may log in.
#[derive(Debug)]
pub struct Login {
    /// The PostgreSQL role's name.
    pub name: String,
    /// Its password; `None` asks for a random one.
    pub password: Option<SecretString>,
}

impl Login {
    /// A login with this name and password.
    #[must_use]
    pub fn new(name: &str, password: &str) -> Self {
        Self { name: name.to_owned(), password: Some(SecretString::from(password.to_owned())) }
    }
}

/// The server's certificate and key, PEM files. They are copied, so their owner and mode do not matter.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Refuse plain text connections (`hostssl` rules only).
    pub required: bool,
}
