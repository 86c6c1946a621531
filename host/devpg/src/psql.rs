//! Runs SQL through the `psql` program, as the superuser, over the UNIX socket.
//!
//! The socket lets this process's operating-system user in as superuser (`peer`), so no password is needed and none can
//! show up on a command line or in an environment.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use crate::{
    Error,
    home::Home,
    programs::{Programs, scrub},
};

/// The superuser. Leasehold never needs it; tests look around with it.
pub(crate) const SUPERUSER: &str = "postgres";

/// Whether the server may write the statements into its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logging {
    AsConfigured,
    /// For statements that hold a password.
    Off,
}

/// Runs `sql` in `database` and returns the rows, one per line, columns separated by `|`.
pub(crate) fn run(
    programs: &Programs,
    home: &Home,
    port: u16,
    database: &str,
    sql: &str,
    logging: Logging,
) -> Result<String, Error> {
    let mut command = Command::new(&programs.psql);
    scrub(&mut command);
    command
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"])
        .args(["-U", SUPERUSER, "-d", database, "-p", &port.to_string()])
        .arg("-h")
        .arg(home.run())
        .env("PGCONNECT_TIMEOUT", "10")
        .env("PGAPPNAME", "leasehold-devpg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if logging == Logging::Off {
        command.env("PGOPTIONS", "-c log_statement=none -c log_min_error_statement=panic");
    }
    let mut child = command.spawn().map_err(Error::io("run `psql`"))?;
    let pipe = child.stdin.take();
    let sql = sql.to_owned();
    // Written from a thread of its own, so that psql's answers cannot fill their pipe while we still write.
    let writer = thread::spawn(move || pipe.map(|mut pipe| pipe.write_all(sql.as_bytes())));
    let output = child.wait_with_output().map_err(Error::io("wait for `psql`"))?;
    // A psql that stopped at an error closes its input early; its own message says more than ours.
    let _ = writer.join();
    if !output.status.success() {
        return Err(Error::Sql(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
}

/// `text` as an SQL string literal.
pub(crate) fn literal(text: &str) -> String {
    // An E'' string, so that a backslash means the same under any standard_conforming_strings.
    format!(" E'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

/// `name` as a quoted SQL identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal(r"it's \n"), r" E'it''s \\n'");
    }
}
