//! Finds the installed PostgreSQL programs, or says how to install them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Error;

/// The oldest version whose behaviour Leasehold's SQL relies on.
const OLDEST_MAJOR: u32 = 13;

/// Where distributions put each version's programs; `*` stands for one directory name.
const PLACES: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", "bin"), // Debian, Ubuntu: /usr/lib/postgresql/15/bin
    ("/usr", "bin"),                // PostgreSQL's own Fedora packages: /usr/pgsql-17/bin
    ("/opt/homebrew/opt", "bin"),   // macOS on Apple silicon: /opt/homebrew/opt/postgresql@17/bin
    ("/usr/local/opt", "bin"),      // macOS on Intel
];

/// The programs of one installed PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) bin: PathBuf,
    /// As `postgres --version` says it: the key of the cached template.
    pub(crate) version: String,
    pub(crate) psql: PathBuf,
}

impl Programs {
    /// `wanted`, then `LEASEHOLD_PG_BIN`, then PATH, then the newest in the places where distributions put them.
    pub(crate) fn find(wanted: Option<&Path>) -> Result<Self, Error> {
        let bin = match wanted.map(|path| path.as_os_str().to_owned()).or_else(|| env::var_os("LEASEHOLD_PG_BIN")) {
            Some(set) if complete(Path::new(&set)).is_none() => return Err(Error::WrongDirectory(set.into())),
            Some(set) => PathBuf::from(set),
            None => on_path().or_else(newest).ok_or_else(not_installed)?,
        };
        let version = version(&bin)?;
        if major(&version).is_none_or(|major| major < OLDEST_MAJOR) {
            return Err(Error::TooOld { found: version, bin });
        }
        let beside = bin.join("psql");
        let psql = if beside.exists() { beside } else { PathBuf::from("psql") };
        Ok(Self { bin, version, psql })
    }

    pub(crate) fn initdb(&self) -> PathBuf {
        self.bin.join("initdb")
    }

    pub(crate) fn postgres(&self) -> PathBuf {
        self.bin.join("postgres")
    }
}

fn on_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find_map(|directory| complete(&directory))
}

/// The directory when it has both programs; a link to one of them leads to where both are.
fn complete(directory: &Path) -> Option<PathBuf> {
    let has_both = |place: &Path| place.join("initdb").is_file() && place.join("postgres").is_file();
    if has_both(directory) {
        return Some(directory.to_owned());
    }
    let real = fs::canonicalize(directory.join("initdb")).ok()?;
    real.parent().filter(|place| has_both(place)).map(Path::to_owned)
}

fn newest() -> Option<PathBuf> {
    PLACES
        .iter()
        .filter_map(|(above, below)| Some((fs::read_dir(above).ok()?, below)))
        .flat_map(|(entries, below)| entries.flatten().map(move |entry| (entry, below)))
        .filter_map(|(entry, below)| {
            let number = trailing_number(&entry.file_name().to_string_lossy());
            Some((number, complete(&entry.path().join(below))?))
        })
        .max_by_key(|(number, _)| *number)
        .map(|(_, bin)| bin)
}

/// `15` of `15`, `pgsql-15`, `postgresql@15`; 0 when there is none.
fn trailing_number(name: &str) -> u32 {
    let digits = name.len() - name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    name.get(name.len() - digits..).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn version(bin: &Path) -> Result<String, Error> {
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .output()
        .map_err(Error::io(format!("run `{}`", bin.join("postgres").display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim().trim_start_matches("postgres (PostgreSQL) ").to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn not_installed() -> Error {
    Error::NotInstalled(
        "no PostgreSQL server programs (`initdb`, `postgres`) were found. Install them with\n  \
         Debian, Ubuntu:  sudo apt-get install postgresql\n  \
         Fedora:          sudo dnf install postgresql-server\n  \
         macOS:           brew install postgresql@17\n\
         or set LEASEHOLD_PG_BIN to the directory that holds them"
            .to_owned(),
    )
}

/// Takes away what would let the user's own PostgreSQL settings steer a command of ours.
pub(crate) fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("TZ", "UTC");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_found_by_number_not_by_letter() {
        let mut names = vec!["9", "15", "pgsql-16", "postgresql@17", "postgresql"];
        names.sort_by_key(|name| trailing_number(name));
        assert_eq!(names, ["postgresql", "9", "15", "pgsql-16", "postgresql@17"]);
    }

    #[test]
    fn distribution_versions_are_understood() {
        assert_eq!(major("15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major("18beta1"), Some(18));
        assert_eq!(major(""), None);
    }

    #[test]
    fn the_advice_names_a_command_for_each_system() {
        let text = not_installed().to_string();
        for part in ["apt-get install postgresql", "dnf install postgresql-server", "brew install"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
