//! Makes audit devices from their options.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_core::request::RequestError;
use leasehold_core::seams::audit::{AuditDevice, AuditDevices};

use super::discard::Discard;
use super::file::FileDevice;
use super::stdout::Stdout;

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

    fn file(&self, options: &BTreeMap<String, String>) -> Result<Arc<dyn AuditDevice>, RequestError> {
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
        if path.eq_ignore_ascii_case("stdout") {
            return Ok(Arc::new(Stdout));
        }
        if path.eq_ignore_ascii_case("discard") {
            return Ok(Arc::new(Discard));
        }
        let path = self.allowed(Path::new(path))?;
        let device = FileDevice::open(&path, mode).map_err(|error| {
            RequestError::invalid(format!("sanity check failed; unable to open {}: {error}", path.display()))
        })?;
        // An option may name it relative to somewhere.
        tracing::info!(path = %path.display(), "audit records are written to {}", path.display());
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
    async fn open(&self, kind: &str, options: &BTreeMap<String, String>) -> Result<Arc<dyn AuditDevice>, RequestError> {
        match kind {
            "file" => self.file(options),
            other => Err(RequestError::invalid(format!("unknown backend type: {other:?}"))),
        }
    }
}
