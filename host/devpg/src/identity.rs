//! Who runs the server. PostgreSQL refuses root, so root hands the work to an unprivileged user.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use crate::Error;

/// The user that owns the data directory and runs the server.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Who this process is: the only operating-system user (besides the server's) that may become superuser by the socket.
    pub(crate) owner: String,
    /// The server's user and group id.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    switches: bool,
}

impl Identity {
    /// This process's user, or `postgres` or `nobody` when that is root.
    pub(crate) fn find() -> Result<Self, Error> {
        let owner = id(&["-un"]).unwrap_or_else(|| "root".to_owned());
        let euid = rustix::process::geteuid();
        if !euid.is_root() {
            let gid = rustix::process::getegid().as_raw();
            return Ok(Self { owner, uid: euid.as_raw(), gid, switches: false });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| {
                let uid = id(&["-u", name])?.parse().ok().filter(|uid| *uid != 0)?;
                let gid = id(&["-g", name])?.parse().ok()?;
                Some(Self { owner: owner.clone(), uid, gid, switches: true })
            })
            .ok_or(Error::NoUnprivilegedUser)
    }

    /// A command that will run as the server's user, without this process's PostgreSQL settings.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        crate::programs::scrub(&mut command);
        // The present directory may be closed to the other user; initdb and postgres insist on reading it.
        command.current_dir("/");
        if self.switches {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// The same in a network namespace, with these further variables. Only root may enter one, so that it is entered before the user
    /// changes; the variables come last, because a preloaded library of theirs must be loaded by that user alone.
    pub(crate) fn command_in(&self, namespace: &Path, environment: &[(String, String)], program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        crate::programs::scrub(&mut command);
        command.current_dir("/").arg(format!("--net={}", namespace.display()));
        if self.switches {
            command.arg("--setuid").arg(self.uid.to_string()).arg("--setgid").arg(self.gid.to_string());
        }
        command.args(["--", "env"]).args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(program);
        command
    }

    /// Makes `path` the server user's, with this mode.
    pub(crate) fn give(&self, path: &Path, mode: u32) -> Result<(), Error> {
        let what = || format!("hand `{}` to the server's user", path.display());
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io(what()))?;
        if self.switches {
            chown(path, Some(self.uid), Some(self.gid)).map_err(Error::io(what()))?;
        }
        Ok(())
    }
}

fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
