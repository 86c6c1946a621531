//! Wall clocks that are set off, by libfaketime: the monotonic clocks stay as they are, or the tool would be what is tested.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::plan::Place;

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// The clocks of all places.
#[derive(Debug)]
pub struct Clocks {
    files: TempDir,
    library: PathBuf,
}

impl Clocks {
    /// # Errors
    /// What is not installed.
    pub fn new() -> Result<Self, String> {
        let library = LIBRARIES.map(PathBuf::from).into_iter().find(|file| file.is_file()).ok_or_else(|| {
            "libfaketime is not installed (Debian's package libfaketime): host/xtask/bootstrap.sh chaos installs it"
                .to_owned()
        })?;
        // PostgreSQL's user must be able to read it.
        let files = tempfile::Builder::new()
            .prefix("leasehold-clocks-")
            .tempdir_in("/tmp")
            .map_err(|error| error.to_string())?;
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(files.path(), everybody).map_err(|error| error.to_string())?;
        Ok(Self { files, library })
    }

    fn file(&self, place: Place) -> PathBuf {
        self.files.path().join(place.to_string())
    }

    /// For the processes of a place.
    pub fn environment(&self, place: Place) -> Vec<(String, String)> {
        self.set(place, 0);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            pair("LD_PRELOAD", &self.library.to_string_lossy()),
            pair("FAKETIME_TIMESTAMP_FILE", &self.file(place).to_string_lossy()),
            pair("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            pair("FAKETIME_CACHE_DURATION", "1"),
        ]
    }

    /// Sets the clock of a place so many seconds off; its processes follow within a second.
    pub fn set(&self, place: Place, by: i64) {
        // In one step, so that nobody reads half of it.
        let next = self.files.path().join(format!("next-{place}"));
        fs::write(&next, format!("{by:+}\n")).expect("a clock can be set");
        fs::rename(next, self.file(place)).expect("a clock can be set");
    }
}
