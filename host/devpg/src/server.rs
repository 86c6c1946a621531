//! The private PostgreSQL as its owner sees it.

mod standby;

use std::{
    fmt, fs,
    net::TcpListener,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    Error, Login, Options, Stop, TlsFiles,
    home::{Home, Medium},
    identity::Identity,
    process::{Place, Process},
    programs::Programs,
    psql::{self, Logging, SUPERUSER},
    random,
    seed::{self, DATABASE},
    template,
};

const LOOPBACK: &str = "127.0.0.1";
/// Below the range that systems give to outgoing connections, so that a stopped server finds its port free again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Between looking for a free port and listening on it, another process may take it.
const START_TRIES: u32 = 4;

/// A running PostgreSQL of our own. Dropping it stops the server and removes every file of it.
pub struct DevPg {
    // Fields are dropped in this order after `drop` has stopped the server.
    process: Mutex<Option<Process>>,
    home: Home,
    programs: Programs,
    identity: Identity,
    settings: Vec<(String, String)>,
    place: Place,
    host: String,
    port: u16,
    superuser_password: SecretString,
    admin: String,
    admin_password: SecretString,
}

impl DevPg {
    /// Makes and starts a server, with the database `myapp` in it. Blocks: 1–3 s the first time, 0.3 s from then on.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] says what to install; [`Error::DidNotStart`] carries the end of the server's log.
    pub fn start(options: Options) -> Result<Self, Error> {
        let programs = Programs::find(options.programs.as_deref())?;
        let identity = Identity::find()?;
        let superuser_password = SecretString::from(random::hex(16)?);
        let Login { name: admin, password } = options.admin;
        let admin_password = match password {
            Some(given) => given,
            None => SecretString::from(random::hex(16)?),
        };
        let common = settings(&options.settings, options.max_connections, options.fsync, options.log_statements);
        let medium = if options.fsync { Medium::Disk } else { Medium::Fastest };
        let host = options.network.as_ref().map_or_else(|| LOOPBACK.to_owned(), |network| network.address.to_string());
        let place = Place { network: options.network, environment: options.environment };
        let mut attempt = 0;
        let (process, home, port, settings) = loop {
            attempt += 1;
            let home = Home::create(&identity, medium)?;
            template::fill(&programs, &identity, &home.data())?;
            let port = free_port()?;
            let mut settings = listening(&home, &host, port);
            settings.extend(access(&home, &identity, &host, options.tls.as_ref())?);
            settings.extend(common.iter().cloned());
            match Process::start(&programs, &identity, &home, &settings, &place) {
                Ok(process) => break (process, home, port, settings),
                Err(Error::DidNotStart { .. }) if attempt < START_TRIES => {
                    // Either the port was taken, or the template had lost a file: a new one costs a second.
                    template::discard(&programs, &identity);
                }
                Err(error) => return Err(error),
            }
        };
        let server = Self {
            process: Mutex::new(Some(process)),
            home,
            programs,
            identity,
            settings,
            place,
            host,
            port,
            superuser_password,
            admin,
            admin_password,
        };
        let logins = seed::logins(
            server.superuser_password.expose_secret(),
            &server.admin,
            server.admin_password.expose_secret(),
        );
        server.run(DATABASE, &logins, Logging::Off)?;
        Ok(server)
    }

    /// `127.0.0.1`, or the address of the namespace.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port; it stays the same when the server is started again.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The database with the tables `customers` and `orders`.
    #[must_use]
    pub fn database(&self) -> &'static str {
        DATABASE
    }

    /// The non-superuser admin's name.
    #[must_use]
    pub fn admin_user(&self) -> &str {
        &self.admin
    }

    /// The non-superuser admin's password.
    #[must_use]
    pub fn admin_password(&self) -> &str {
        self.admin_password.expose_secret()
    }

    /// `postgresql://…/myapp` with the admin's name and password. Holds a secret.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.url(&self.admin, self.admin_password())
    }

    /// `postgresql://…/myapp` with the superuser's name and password. Holds a secret.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        self.url(SUPERUSER, self.superuser_password.expose_secret())
    }

    /// `postgresql://NAME:PASSWORD@HOST:PORT/myapp`, both percent-encoded.
    #[must_use]
    pub fn url(&self, name: &str, password: &str) -> String {
        let (name, password) = (percent_encode(name), percent_encode(password));
        format!("postgresql://{name}:{password}@{}:{}/{DATABASE}", self.host(), self.port)
    }

    /// `postgresql://{{username}}:{{password}}@HOST:PORT/myapp`, as a connection's `connection_url` is written.
    #[must_use]
    pub fn templated_url(&self) -> String {
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@{}:{}/{DATABASE}", self.host, self.port)
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.data()
    }

    /// The directory of the UNIX socket.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.home.run()
    }

    /// The server's process id, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    /// Everything that the server has logged so far, over all its runs.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub fn log(&self) -> Result<String, Error> {
        let bytes = fs::read(self.home.log()).map_err(Error::io("read the server's log"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Stops the server and waits until it is gone; files and port stay ours.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it is stopped already.
    pub fn stop(&self, how: Stop) -> Result<(), Error> {
        let mut process = self.process();
        process.as_mut().ok_or(Error::NotRunning)?.stop(how)?;
        *process = None;
        Ok(())
    }

    /// Starts a stopped server again, with the same data on the same port.
    ///
    /// # Errors
    /// [`Error::Running`] when it was not stopped; [`Error::DidNotStart`] with the end of the log.
    pub fn start_again(&self) -> Result<(), Error> {
        let mut process = self.process();
        if process.is_some() {
            return Err(Error::Running);
        }
        *process = Some(Process::start(&self.programs, &self.identity, &self.home, &self.settings, &self.place)?);
        Ok(())
    }

    /// Freezes server and sessions (SIGSTOP): a server that hangs. Connections are accepted and never answered.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it is stopped.
    pub fn pause(&self) -> Result<(), Error> {
        self.process().as_mut().ok_or(Error::NotRunning)?.pause()
    }

    /// Ends a [`DevPg::pause`].
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it is stopped.
    pub fn resume(&self) -> Result<(), Error> {
        self.process().as_mut().ok_or(Error::NotRunning)?.resume()
    }

    /// Runs SQL in `myapp` as superuser. Returns the rows, one per line, columns separated by `|`.
    ///
    /// # Errors
    /// [`Error::Sql`] with psql's words.
    pub fn psql(&self, sql: &str) -> Result<String, Error> {
        self.psql_in(DATABASE, sql)
    }

    /// As [`DevPg::psql`], in another database.
    ///
    /// # Errors
    /// [`Error::Sql`] with psql's words.
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String, Error> {
        self.run(database, sql, Logging::AsConfigured)
    }

    fn run(&self, database: &str, sql: &str, logging: Logging) -> Result<String, Error> {
        psql::run(&self.programs, &self.home, self.port, database, sql, logging)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        // A panic elsewhere leaves at worst a stopped server, and dropping must work all the same.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DevPg {
    fn drop(&mut self) {
        if let Some(process) = self.process().as_mut() {
            // Nothing to report to; the watchdog removes the files in any case.
            let _ = process.stop(Stop::Immediate);
        }
    }
}

impl fmt::Debug for DevPg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevPg")
            .field("port", &self.port)
            .field("admin", &self.admin)
            .field("directory", &self.home.path())
            .finish_non_exhaustive()
    }
}

fn free_port() -> Result<u16, Error> {
    // Tried at random, so that concurrent runs rarely meet.
    for _ in 0..1_000 {
        let port = PORTS.start + random::number()? % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::io("find a free port"))
}

fn settings(
    extra: &[(String, String)],
    max_connections: u32,
    fsync: bool,
    log_statements: bool,
) -> Vec<(String, String)> {
    let mut settings = vec![
        pair("max_connections", max_connections),
        pair("password_encryption", "scram-sha-256"),
        // Files in the data directory: a killed server would leave segments behind in /dev/shm.
        pair("dynamic_shared_memory_type", "mmap"),
        pair("logging_collector", "off"),
        pair("log_destination", "stderr"),
        pair("log_timezone", "UTC"),
        pair("timezone", "UTC"),
    ];
    if !fsync {
        settings.extend(["fsync", "synchronous_commit", "full_page_writes"].map(|name| pair(name, "off")));
    }
    if log_statements {
        settings.push(pair("log_statement", "all"));
    }
    settings.extend(extra.iter().cloned());
    settings
}

fn listening(home: &Home, host: &str, port: u16) -> Vec<(String, String)> {
    vec![pair("listen_addresses", host), pair("port", port), pair("unix_socket_directories", home.run().display())]
}

/// Writes who may log in and how, and the TLS files; returns the settings that name them.
fn access(
    home: &Home,
    identity: &Identity,
    address: &str,
    tls: Option<&TlsFiles>,
) -> Result<Vec<(String, String)>, Error> {
    let neighbours = if address == LOOPBACK { 32 } else { 24 };
    let conf = home.conf();
    let host = if tls.is_some_and(|files| files.required) { "hostssl" } else { "host" };
    let mut files = vec![
        (
            "pg_hba.conf",
            format!(
                "local all {SUPERUSER} peer map=owner\nlocal all all scram-sha-256\n\
                 {host} all all {address}/{neighbours} scram-sha-256\n\
                 {host} replication all {address}/{neighbours} scram-sha-256\n"
            )
            .into_bytes(),
        ),
        ("pg_ident.conf", format!("owner \"{}\" {SUPERUSER}\n", identity.owner).into_bytes()),
    ];
    let mut settings = vec![
        pair("hba_file", conf.join("pg_hba.conf").display()),
        pair("ident_file", conf.join("pg_ident.conf").display()),
    ];
    if let Some(tls) = tls {
        let read = |path: &PathBuf| fs::read(path).map_err(Error::io(format!("read `{}`", path.display())));
        files.push(("server.crt", read(&tls.certificate)?));
        files.push(("server.key", read(&tls.key)?));
        settings.push(pair("ssl", "on"));
        settings.push(pair("ssl_cert_file", conf.join("server.crt").display()));
        settings.push(pair("ssl_key_file", conf.join("server.key").display()));
    }
    for (name, content) in files {
        let path = conf.join(name);
        fs::write(&path, content).map_err(Error::io(format!("write `{}`", path.display())))?;
        identity.give(&path, 0o600)?;
    }
    Ok(settings)
}

fn pair(name: &str, value: impl fmt::Display) -> (String, String) {
    (name.to_owned(), value.to_string())
}

/// Everything but letters, digits and `-._~` as `%XX`.
fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_special_characters_stays_one_part_of_the_url() {
        assert_eq!(percent_encode("p@ss/w:rd é"), "p%40ss%2Fw%3Ard%20%C3%A9");
    }
}
