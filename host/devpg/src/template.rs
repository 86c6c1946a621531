//! A data directory made once and copied from then on: `initdb` takes a second or more, a copy a fraction of it.
//!
//! The template lies in the temporary directory under a name made of everything that shapes it, belongs to the server's
//! user and holds no password. It appears by one rename, so concurrent runs never see half of one.

use std::{
    collections::hash_map::DefaultHasher,
    ffi::OsStr,
    fs,
    hash::{Hash as _, Hasher as _},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use crate::{
    Error, home,
    identity::Identity,
    programs::Programs,
    psql::SUPERUSER,
    seed::{self, DATABASE},
};

const INITDB: [&str; 6] =
    ["--auth=scram-sha-256", "--no-locale", "--encoding=UTF8", "--no-sync", "--no-instructions", "--username"];

/// Fills `data` with a ready cluster, from the cached template when there is a sound one.
pub(crate) fn fill(programs: &Programs, identity: &Identity, data: &Path) -> Result<(), Error> {
    let template = path(programs, identity);
    if !sound(&template, identity) {
        make(programs, identity, &template)?;
    }
    copy(identity, &template, data)
}

/// Forgets the template, after a copy of it did not work: cleaners of temporary directories take single old files.
pub(crate) fn discard(programs: &Programs, identity: &Identity) {
    let template = path(programs, identity);
    if sound(&template, identity) {
        let _ = fs::remove_dir_all(template);
    }
}

fn path(programs: &Programs, identity: &Identity) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (&programs.version, &programs.bin, identity.uid).hash(&mut hasher);
    (INITDB, SUPERUSER, seed::CLUSTER, seed::TABLES).hash(&mut hasher);
    home::base().join(format!("leasehold-pg-template-{:016x}", hasher.finish()))
}

/// The temporary directory is everybody's: only a directory that the server's user owns alone can be trusted.
fn sound(template: &Path, identity: &Identity) -> bool {
    fs::symlink_metadata(template)
        .is_ok_and(|facts| facts.is_dir() && facts.uid() == identity.uid && facts.mode() & 0o077 == 0)
}

fn make(programs: &Programs, identity: &Identity, template: &Path) -> Result<(), Error> {
    let workshop = tempfile::Builder::new()
        .prefix("leasehold-pg-making-")
        .tempdir_in(home::base())
        .map_err(Error::io("make a temporary directory"))?;
    identity.give(workshop.path(), 0o700)?;
    let data = workshop.path().join("data");
    let mut initdb = identity.command(&programs.initdb());
    initdb.args(INITDB).arg(SUPERUSER);
    // With password authentication initdb insists on a password. This one is thrown away: each server sets its own.
    let password = crate::random::hex(16)?;
    let password_file = workshop.path().join("password");
    fs::write(&password_file, &password).map_err(Error::io("write the password file"))?;
    identity.give(&password_file, 0o600)?;
    initdb.arg("--pwfile").arg(&password_file).arg("-D").arg(&data);
    finish("initdb", initdb.stdin(Stdio::null()).output())?;
    for (database, sql) in [("postgres", seed::CLUSTER), (DATABASE, seed::TABLES)] {
        single_user(programs, identity, &data, database, sql)?;
    }
    match fs::rename(&data, template) {
        Ok(()) => Ok(()),
        // Another run was quicker; its template is as good as ours.
        Err(_) if sound(template, identity) => Ok(()),
        Err(source) => Err(Error::Io { what: format!("put the template at `{}`", template.display()), source }),
    }
}

/// Runs statements without a listening server. Every statement ends with a semicolon at the end of a line.
fn single_user(programs: &Programs, identity: &Identity, data: &Path, database: &str, sql: &str) -> Result<(), Error> {
    let mut child = identity
        .command(&programs.postgres())
        .args(["--single", "-F", "-c", "exit_on_error=on", "-c", "log_checkpoints=off", "-D"])
        .arg(data)
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("run `postgres --single`"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A server that ended early says why itself.
        let _ = pipe.write_all(sql.trim_start().as_bytes());
    }
    finish("postgres --single", child.wait_with_output())
}

/// Copies a data directory that no server works on.
pub(crate) fn copy(identity: &Identity, template: &Path, data: &Path) -> Result<(), Error> {
    let mut everything = template.as_os_str().to_owned();
    everything.push(OsStr::new("/."));
    finish("cp", identity.command(Path::new("cp")).arg("-R").arg(everything).arg(data).output())
}

fn finish(program: &str, ended: std::io::Result<Output>) -> Result<(), Error> {
    let output = ended.map_err(Error::io(format!("run `{program}`")))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Program { program: program.to_owned(), status: output.status, stderr })
}
