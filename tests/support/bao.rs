//! A real OpenBao beside us, when `BAO` names its program.

use std::path::PathBuf;

/// The program, and the word about its absence.
#[derive(Clone, Debug)]
pub struct Bao {
    pub program: PathBuf,
}

impl Bao {
    /// The OpenBao of this run. Without one, says so on the terminal, past the test harness's own capture: nothing is
    /// skipped silently.
    pub fn find(what: &str) -> Option<Self> {
        use std::io::Write as _;
        match std::env::var_os("BAO").filter(|path| !path.is_empty()) {
            Some(path) => Some(Self { program: path.into() }),
            None => {
                let _ = writeln!(std::io::stderr(), "NOT RUN, because BAO names no OpenBao program: {what}");
                None
            }
        }
    }
}
