//! A second server that follows the first one by streaming replication, for tests of fail-over.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use secrecy::{ExposeSecret as _, SecretString};

use super::{DevPg, access, free_port, listening, pair};
use crate::home::{Home, Medium};
use crate::process::Process;
use crate::psql::SUPERUSER;
use crate::{Error, Stop, template};

impl DevPg {
    /// A hot standby of this server, with the same logins, which takes over after [`DevPg::promote`]. This server is stopped for the
    /// moment in which its files are copied. Both speak plain text.
    ///
    /// # Errors
    /// As [`DevPg::start`]; [`Error::NotRunning`] when this server is stopped.
    pub fn standby(&self) -> Result<Self, Error> {
        let home = Home::create(&self.identity, Medium::Fastest)?;
        self.stop(Stop::Fast)?;
        let copied = template::copy(&self.identity, &self.data_dir(), &home.data());
        self.start_again()?;
        copied?;
        let port = free_port()?;
        let mut settings = self.settings.clone();
        // Of two settings of one name the last one counts.
        settings.extend(listening(&home, &self.host, port));
        settings.extend(access(&home, &self.identity, &self.host, None)?);
        settings.push(pair("ssl", "off"));
        self.follow(&home)?;
        let process = Process::start(&self.programs, &self.identity, &home, &settings, &self.place)?;
        Ok(Self {
            process: std::sync::Mutex::new(Some(process)),
            home,
            programs: self.programs.clone(),
            identity: self.identity.clone(),
            settings,
            place: self.place.clone(),
            host: self.host.clone(),
            port,
            superuser_password: copy(&self.superuser_password),
            admin: self.admin.clone(),
            admin_password: copy(&self.admin_password),
        })
    }

    /// Makes a primary of a standby; returns when it takes writes.
    ///
    /// # Errors
    /// [`Error::Sql`] when it is none.
    pub fn promote(&self) -> Result<(), Error> {
        self.psql("SELECT pg_promote(true)").map(drop)
    }

    /// In a file that the server's user alone can read: a command line would show the password.
    fn follow(&self, home: &Home) -> Result<(), Error> {
        let conf = home.data().join("postgresql.auto.conf");
        let what = || format!("write `{}`", conf.display());
        let mut file = OpenOptions::new().append(true).open(&conf).map_err(Error::io(what()))?;
        writeln!(
            file,
            "primary_conninfo = 'host={} port={} user={SUPERUSER} password={}'",
            self.host,
            self.port,
            self.superuser_password.expose_secret()
        )
        .map_err(Error::io(what()))?;
        let signal = home.data().join("standby.signal");
        fs::write(&signal, "").map_err(Error::io(format!("write `{}`", signal.display())))?;
        self.identity.give(&signal, 0o600)
    }
}

fn copy(secret: &SecretString) -> SecretString {
    SecretString::from(secret.expose_secret())
}
