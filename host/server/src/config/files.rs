//! Which files a configuration consists of: each `-config`, a file or a folder of `.hcl` and `.json` files.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::{Config, Migration, Refused, Source, defaults, read, read_development, read_migration};

/// Reads them all.
///
/// # Errors
/// In words for the operator: what could not be read, or everything that is wrong, line by line.
pub(crate) fn configuration(paths: &[PathBuf]) -> Result<Config, String> {
    let sources = sources(paths)?;
    read(&sources).map_err(|refused| said(&sources, refused, "that the server can start with"))
}

/// Reads what is added to a development server. A folder may be empty, as that of an image is into which nobody put a file.
///
/// # Errors
/// As [`configuration`].
pub(crate) fn of_development(paths: &[PathBuf]) -> Result<Config, String> {
    let is_empty = |path: &&PathBuf| folder(path).is_ok_and(|within| within.is_empty());
    let paths: Vec<PathBuf> = paths.iter().filter(|path| !is_empty(path)).cloned().collect();
    let sources = sources(&paths)?;
    read_development(&sources).map_err(|refused| said(&sources, refused, "of a development server"))
}

/// Reads the file of a migration.
///
/// # Errors
/// As [`configuration`].
pub(crate) fn migration(path: &Path) -> Result<Migration, String> {
    let sources = sources(&[path.to_owned()])?;
    read_migration(&sources).map_err(|refused| said(&sources, refused, "of a migration"))
}

fn said(sources: &[Source], Refused { problems, warnings }: Refused, what: &str) -> String {
    let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let problems = problems.iter().map(|problem| format!("  {problem}"));
    let warnings = warnings.iter().map(|warning| format!("  warning: {warning}"));
    let lines: Vec<String> = problems.chain(warnings).collect();
    let verb = if names.len() == 1 { "is not a configuration" } else { "are not a configuration" };
    format!("{} {verb} {what}:\n{}", names.join(", "), lines.join("\n"))
}

fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, String> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |error: std::io::Error| format!("could not read {}: {error}", path.display());
        if fs::metadata(path).map_err(failed)?.is_dir() {
            let within = folder(path).map_err(failed)?;
            if within.is_empty() {
                return Err(format!("{} has no file that ends in .hcl or .json", path.display()));
            }
            files.extend(within);
        } else {
            files.push(path.clone());
        }
    }
    files.iter().map(|file| source(file)).collect()
}

/// In the order of their names, as Vault. Hidden ones and editors' copies are left out.
fn folder(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = [".hcl", ".json"].iter().any(|ending| name.ends_with(ending)) && !name.starts_with(['.', '#']);
        if is_ours && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

fn source(file: &Path) -> Result<Source, String> {
    let failed = |error: &dyn std::fmt::Display| format!("could not read {}: {error}", file.display());
    let mut text = String::new();
    let read = File::open(file).and_then(|opened| opened.take(defaults::FILE_MAX + 1).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(failed(&"it is not text in UTF-8")),
        Err(error) => Err(failed(&error)),
        Ok(bytes) if bytes as u64 > defaults::FILE_MAX => Err(failed(&"it is longer than 1 MiB")),
        Ok(_) => Ok(Source { name: file.display().to_string(), text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names() {
        let folder = std::env::temp_dir().join(format!("leasehold-config-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write(
            "20-more.json",
            r#"{"max_lease_ttl": "100h", "listener": {"tcp": {"address": "127.0.0.1:2", "tls_disable": 1}}}"#,
        );
        write(
            "10-base.hcl",
            "storage \"inmem\" {}\nmax_lease_ttl = \"9h\"\ndefault_lease_ttl = \"1h\"\nlistener \"tcp\" {\n tls_disable = true\n}\n",
        );
        write(".hidden.hcl", "nonsense");
        write("notes.txt", "nonsense");
        let config = configuration(std::slice::from_ref(&folder)).unwrap();
        assert_eq!(config.max_lease_ttl.as_secs(), 360_000, "the later file wins");
        assert_eq!(config.listeners.len(), 2, "listeners add up");
        write("30-wrong.hcl", "ui = true\nlistener \"tcp\" {\n adress = 1\n tls_disable = true\n}\n");
        let said = configuration(std::slice::from_ref(&folder)).unwrap_err();
        assert!(
            said.contains("30-wrong.hcl: line 3: unknown setting of listener `adress`: did you mean `address`?"),
            "{said}"
        );
        assert!(said.contains("warning: ") && said.contains("30-wrong.hcl: line 1: `ui` has no effect"), "{said}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_no_file_of_text_is_said() {
        let folder = std::env::temp_dir().join(format!("leasehold-config-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let said = |path: &Path| configuration(&[path.to_owned()]).unwrap_err();
        assert!(said(&folder).contains("no file that ends in .hcl or .json"));
        assert_eq!(of_development(std::slice::from_ref(&folder)), Ok(Config::with_defaults()));
        assert!(of_development(&[folder.join("none.hcl")]).unwrap_err().contains("No such file"));
        assert!(said(&folder.join("none.hcl")).contains("No such file"));
        fs::write(folder.join("x.hcl"), [0xff, 0xfe]).unwrap();
        assert!(said(&folder.join("x.hcl")).contains("UTF-8"));
        assert!(
            said(Path::new("/dev/zero")).contains("longer than 1 MiB")
                || said(Path::new("/dev/zero")).contains("UTF-8")
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
