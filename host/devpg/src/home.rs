//! The server's directory, and the watchdog that removes it when its owner is gone.

use std::{
    env, fs,
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{Error, identity::Identity};

const WATCHDOG: &str = include_str!("watchdog.sh");

/// Where the data lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// In memory where the system offers it: a thousand new files take a second on some disks.
    Fastest,
    /// On a disk, for a server that waits for it.
    Disk,
}

/// A server takes about 50 MB and grows with what a test does.
const ROOM: u64 = 1 << 30;

impl Medium {
    fn directory(self) -> PathBuf {
        let memory = Path::new("/dev/shm");
        let roomy = rustix::fs::statvfs(memory).is_ok_and(|facts| facts.f_bavail.saturating_mul(facts.f_frsize) > ROOM);
        // Whoever sets TMPDIR wants temporary files there.
        let wanted = self == Self::Fastest && env::var_os("TMPDIR").is_none();
        if wanted && roomy { memory.to_owned() } else { base() }
    }
}

/// A directory that lasts as long as this value, or, when this process is killed, as long as the process.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    watchdog: Child,
}

impl Home {
    pub(crate) fn create(identity: &Identity, medium: Medium) -> Result<Self, Error> {
        let made = tempfile::Builder::new()
            .prefix("leasehold-pg-")
            .tempdir_in(medium.directory())
            .map_err(Error::io("make a temporary directory"))?;
        // Others may pass through to the socket, which asks for a password, but see nothing.
        fs::set_permissions(made.path(), fs::Permissions::from_mode(0o711))
            .map_err(Error::io("open the temporary directory to the server's user"))?;
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "leasehold-devpg-watchdog"])
            .arg(made.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the owner's process group; the watchdog must outlive the owner.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start the watchdog"))?;
        let home = Self { path: made.keep(), watchdog };
        for (name, mode) in [("data", 0o700), ("run", 0o711), ("conf", 0o700)] {
            let directory = home.path.join(name);
            fs::create_dir(&directory).map_err(Error::io(format!("make `{}`", directory.display())))?;
            identity.give(&directory, mode)?;
        }
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Holds the UNIX socket.
    pub(crate) fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    /// Holds `pg_hba.conf`, `pg_ident.conf` and the TLS files.
    pub(crate) fn conf(&self) -> PathBuf {
        self.path.join("conf")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }
}

impl Drop for Home {
    /// The server has been stopped by now; the watchdog only removes the directory.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            // A watchdog that somebody killed cannot remove anything; the line below does.
            let _ = pipe.write_all(b"stopped\n");
        }
        let _ = self.watchdog.wait();
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The temporary directory, or `/tmp` when another user could not reach into it.
pub(crate) fn base() -> PathBuf {
    let chosen = env::temp_dir();
    let open = |path: &Path| fs::metadata(path).is_ok_and(|facts| facts.mode() & 0o001 != 0);
    if !rustix::process::geteuid().is_root() || chosen.ancestors().all(open) { chosen } else { PathBuf::from("/tmp") }
}
