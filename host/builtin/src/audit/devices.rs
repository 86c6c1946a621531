//! Makes audit devices from their options.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::seams::audit::{AuditDevice, AuditDevices, Destination};
use leasehold_core::seams::error::RequestError;

use super::discard::Discard;
use super::file::{FileDevice, Unopened};
use super::stdout::Stdout;
use super::writer::on_a_thread;

/// Opening a file on a file server that is gone takes for ever.
const OPEN_TIME: Duration = Duration::from_secs(10);

/// Who asks for a device decides where its file may lie.
#[derive(Clone, Debug)]
enum Place {
    /// The configuration file: anywhere.
    Anywhere,
    /// The API: beneath this directory only. A file that an administrator of policies can put anywhere is a way to run code.
    Beneath(PathBuf),
    /// The API, and no directory is configured.
    Nowhere,
}

/// The factory of audit devices.
#[derive(Clone, Debug)]
pub struct Devices {
    place: Place,
}

impl Devices {
    /// For devices of the configuration file: the operator may write where the server may.
    #[must_use]
    pub fn of_configuration() -> Self {
        Self { place: Place::Anywhere }
    }

    /// For devices enabled through the API: files lie beneath `directory`, or cannot be had without one.
    #[must_use]
    pub fn of_api(directory: Option<PathBuf>) -> Self {
        Self { place: directory.map_or(Place::Nowhere, Place::Beneath) }
    }

    /// May block.
    fn file(
        &self,
        options: &BTreeMap<String, String>,
        taken: &[Destination],
    ) -> Result<Arc<dyn AuditDevice>, RequestError> {
        let path = options
            .get("file_path")
            .or_else(|| options.get("path"))
            .map(String::as_str)
            .filter(|path| !path.is_empty())
            .ok_or_else(|| RequestError::invalid("file_path is required"))?;
        if options.get("prefix").is_some_and(|prefix| !prefix.is_empty()) {
            return Err(RequestError::invalid("audit log prefixing is not allowed"));
        }
        if options.get("format").is_some_and(|format| format != "json") {
            return Err(RequestError::invalid("unknown format type: only \"json\" is supported"));
        }
        let mode = mode(options.get("mode").map(String::as_str))?;
        let in_use = || RequestError::Invalid(format!("another audit device writes to {path} already"));
        if path.eq_ignore_ascii_case("stdout") {
            if taken.contains(&Stdout::destination()) {
                return Err(in_use());
            }
            let unusable = |error| RequestError::Invalid(format!("standard output cannot be written to: {error}"));
            return Ok(Arc::new(Stdout::open().map_err(unusable)?));
        }
        if path.eq_ignore_ascii_case("discard") {
            return Ok(Arc::new(Discard));
        }
        if mode & 0o007 != 0 {
            match self.place {
                // What the operator's own file says is done, and said.
                Place::Anywhere => {
                    tracing::warn!("the mode of the audit file {path} lets every user of this machine at it")
                }
                _ => {
                    return Err(RequestError::invalid(
                        "mode must not let others than the file's owner and group at the file: use 0600 or 0640",
                    ));
                }
            }
        }
        let allowed = self.allowed(Path::new(path))?;
        let device = FileDevice::open(&allowed, mode, taken).map_err(|error| match error {
            Unopened::Taken => in_use(),
            Unopened::System(error) => {
                RequestError::Invalid(format!("sanity check failed; unable to open {}: {error}", allowed.display()))
            }
        })?;
        // An option may name it relative to somewhere.
        tracing::info!(path = %allowed.display(), "audit records are written to {}", allowed.display());
        Ok(Arc::new(device))
    }

    /// The path to open, with its directory resolved.
    fn allowed(&self, path: &Path) -> Result<PathBuf, RequestError> {
        let directory = match &self.place {
            Place::Anywhere => return Ok(path.to_owned()),
            Place::Nowhere => {
                return Err(RequestError::invalid(
                    "audit files cannot be enabled through the API: no directory is configured for them; set `audit_directory` \
                     in the server's configuration",
                ));
            }
            Place::Beneath(directory) => directory,
        };
        let outside = || {
            RequestError::invalid(format!(
                "file_path must lie beneath {}, where audit files enabled through the API are kept",
                directory.display()
            ))
        };
        if path.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(outside());
        }
        let path = if path.is_absolute() { path.to_owned() } else { directory.join(path) };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(outside()) };
        let unusable = |error: std::io::Error| {
            RequestError::invalid(format!("sanity check failed; unable to open {}: {error}", path.display()))
        };
        let root = directory.canonicalize().map_err(unusable)?;
        // The lexical check first: whether a path elsewhere exists is nobody's business.
        if !path.starts_with(directory) && !path.starts_with(&root) {
            return Err(outside());
        }
        // Resolved after symbolic links, so that none of them leads out.
        let parent = parent.canonicalize().map_err(unusable)?;
        if !parent.starts_with(&root) {
            return Err(outside());
        }
        let resolved = parent.join(name);
        if resolved.is_symlink() {
            return Err(outside());
        }
        Ok(resolved)
    }
}

/// Octal, 0600 without one; `0000` leaves an existing file's mode as it is.
fn mode(text: Option<&str>) -> Result<u32, RequestError> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(0o600),
        Some(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| RequestError::invalid("mode must be an octal number, such as 0600")),
    }
}

#[async_trait]
impl AuditDevices for Devices {
    async fn open(
        &self,
        kind: &str,
        options: &BTreeMap<String, String>,
        taken: &[Destination],
    ) -> Result<Arc<dyn AuditDevice>, RequestError> {
        if kind != "file" {
            return Err(RequestError::Invalid(format!("unknown backend type: {kind:?}")));
        }
        let (devices, options, taken) = (self.clone(), options.clone(), taken.to_vec());
        let opened = on_a_thread(OPEN_TIME, move || devices.file(&options, &taken)).await;
        opened.unwrap_or_else(|| {
            let seconds = OPEN_TIME.as_secs();
            Err(RequestError::Invalid(format!("sanity check failed; the file could not be opened within {seconds} s")))
        })
    }
}
