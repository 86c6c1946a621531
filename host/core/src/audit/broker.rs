//! Hands every record to every device. When devices are enabled and none took a record, nothing happens and nothing leaves.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use metrics::counter;
use serde::{Deserialize, Serialize};

use super::form::Form;
use super::hash::Salt;
use super::line::{Entry, Phase, Style};
use crate::keys;
use crate::request::RequestError;
use crate::seams::audit::{AuditDevice, AuditDevices, AuditLine};
use crate::seams::seal::SecretKey;
use crate::seams::storage::{Batch, Expect, Storage, StorageError};
use crate::token::store::{decode, encode};

/// A device that takes longer counts as failed: it must not hold up the others.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// One enabled device, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// With the slash at its end.
    pub path: String,
    pub kind: String,
    pub description: String,
    pub options: BTreeMap<String, String>,
    pub local: bool,
}

struct Device {
    entry: DeviceEntry,
    form: Form,
    salt: Salt,
    sink: Arc<dyn AuditDevice>,
    /// From the server's configuration: cannot be disabled over the API.
    declared: bool,
}

/// A request header that the operator wants in audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedHeader {
    pub name: String,
    pub hmac: bool,
}

pub struct Broker {
    storage: Arc<dyn Storage>,
    devices: RwLock<Arc<Vec<Arc<Device>>>>,
    headers: RwLock<Arc<BTreeMap<String, AuditedHeader>>>,
    factory: Arc<dyn AuditDevices>,
    key: SecretKey,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

impl Broker {
    /// Opens the declared devices and the stored ones.
    ///
    /// # Errors
    /// A device that does not open: a server that should audit must not run without.
    pub async fn load(
        storage: Arc<dyn Storage>,
        factory: Arc<dyn AuditDevices>,
        key: SecretKey,
        declared: (&dyn AuditDevices, &[DeviceEntry]),
    ) -> Result<Self, RequestError> {
        let broker = Self {
            storage: storage.clone(),
            devices: RwLock::new(Arc::new(Vec::new())),
            headers: RwLock::new(Arc::new(BTreeMap::new())),
            factory,
            key,
        };
        for entry in declared.1 {
            let form = Form::of(&entry.options)?;
            let sink = declared.0.open(&entry.kind, &entry.options).await?;
            broker.install(entry.clone(), form, sink, true);
        }
        for key in storage.scan(&keys::audit(""), None, 1_000).await? {
            if let Some(stored) = storage.get(&key).await? {
                let entry: DeviceEntry = decode(key.as_str(), &stored.value)?;
                // Stored before options were looked at: nothing that is hashed by default is shown for it.
                let form = Form::of(&entry.options).unwrap_or_default();
                let sink = broker.factory.open(&entry.kind, &entry.options).await?;
                broker.install(entry, form, sink, false);
            }
        }
        for key in storage.scan(&keys::audited_header(""), None, 1_000).await? {
            if let Some(stored) = storage.get(&key).await? {
                let header: AuditedHeader = decode(key.as_str(), &stored.value)?;
                broker.change_headers(|headers| {
                    headers.insert(header.name.to_lowercase(), header);
                });
            }
        }
        Ok(broker)
    }

    fn all(&self) -> Arc<Vec<Arc<Device>>> {
        self.devices.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.all().is_empty()
    }

    #[must_use]
    pub fn entries(&self) -> Vec<DeviceEntry> {
        self.all().iter().map(|device| device.entry.clone()).collect()
    }

    /// Writes one record to every device.
    ///
    /// # Errors
    /// [`RequestError::Audit`] when there are devices and none of them has it.
    pub async fn record(&self, entry: &Entry<'_>) -> Result<(), RequestError> {
        let devices = self.all();
        if devices.is_empty() {
            return Ok(());
        }
        let mut written = false;
        for device in devices.iter() {
            written |= device.write(entry).await;
        }
        // As in Vault: a failure is a record that no device has.
        match (entry.phase, written) {
            (Phase::Request, true) => counter!("vault.audit.log_request").increment(1),
            (Phase::Request, false) => counter!("vault.audit.log_request_failure").increment(1),
            (Phase::Response, true) => counter!("vault.audit.log_response").increment(1),
            (Phase::Response, false) => counter!("vault.audit.log_response_failure").increment(1),
        }
        if written { Ok(()) } else { Err(RequestError::Audit) }
    }

    /// Opens, tries and stores a device.
    ///
    /// # Errors
    /// The factory's words; `path already in use`; a device that does not take the test record.
    pub async fn enable(&self, entry: DeviceEntry, test: &Entry<'_>) -> Result<(), RequestError> {
        // One path must not be the beginning of another: both end in a slash.
        let overlaps = |known: &str| known.starts_with(&entry.path) || entry.path.starts_with(known);
        if self.all().iter().any(|device| overlaps(&device.entry.path)) {
            return Err(RequestError::invalid("path already in use"));
        }
        if entry.options.contains_key("prefix") {
            return Err(RequestError::invalid("audit log prefixing is not allowed"));
        }
        let form = Form::of(&entry.options)?;
        let sink = self.factory.open(&entry.kind, &entry.options).await?;
        let device = Device {
            form,
            salt: Salt::new(&self.key, &entry.path),
            entry: entry.clone(),
            sink: sink.clone(),
            declared: false,
        };
        if !device.write(test).await {
            return Err(RequestError::invalid("sanity check failed; unable to write a test record to this device"));
        }
        let key = keys::audit(&entry.path);
        match self.storage.commit(Batch::new().put(key, encode(&entry)?, Expect::Absent)).await {
            Ok(()) => {}
            Err(StorageError::Conflict(_)) => return Err(RequestError::invalid("path already in use")),
            Err(other) => return Err(other.into()),
        }
        self.install(entry, form, sink, false);
        Ok(())
    }

    /// # Errors
    /// As storage; a declared device stays.
    pub async fn disable(&self, path: &str) -> Result<(), RequestError> {
        if self.all().iter().any(|device| device.entry.path == path && device.declared) {
            return Err(RequestError::invalid(
                "this device is declared in the server's configuration: remove it there",
            ));
        }
        self.storage.commit(Batch::new().delete(keys::audit(path))).await?;
        self.change(|devices| devices.retain(|device| device.entry.path != path));
        Ok(())
    }

    /// `sys/audit-hash`: what a device would write in place of a text.
    #[must_use]
    pub fn hash(&self, path: &str, text: &str) -> Option<String> {
        self.all().iter().find(|device| device.entry.path == path).map(|device| device.salt.text(text))
    }

    /// Closes and opens every device's file, after a rotation.
    pub async fn reopen(&self) {
        for device in self.all().iter() {
            if let Err(error) = device.sink.reopen().await {
                tracing::error!(%error, "could not reopen audit device `{}`", device.entry.path);
            }
        }
    }

    fn install(&self, entry: DeviceEntry, form: Form, sink: Arc<dyn AuditDevice>, declared: bool) {
        let salt = Salt::new(&self.key, &entry.path);
        self.change(|devices| devices.push(Arc::new(Device { entry, form, salt, sink, declared })));
    }

    fn change(&self, apply: impl FnOnce(&mut Vec<Arc<Device>>)) {
        let mut devices = self.devices.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut changed = Vec::clone(&devices);
        apply(&mut changed);
        *devices = Arc::new(changed);
    }

    // --- headers

    #[must_use]
    pub fn headers(&self) -> Arc<BTreeMap<String, AuditedHeader>> {
        self.headers.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// # Errors
    /// As storage.
    pub async fn set_header(&self, header: AuditedHeader) -> Result<(), StorageError> {
        let lower = header.name.to_lowercase();
        self.storage.commit(Batch::new().put(keys::audited_header(&lower), encode(&header)?, Expect::Anything)).await?;
        self.change_headers(|headers| {
            headers.insert(lower, header);
        });
        Ok(())
    }

    /// # Errors
    /// As storage.
    pub async fn unset_header(&self, name: &str) -> Result<(), StorageError> {
        let lower = name.to_lowercase();
        self.storage.commit(Batch::new().delete(keys::audited_header(&lower))).await?;
        self.change_headers(|headers| {
            headers.remove(&lower);
        });
        Ok(())
    }

    fn change_headers(&self, apply: impl FnOnce(&mut BTreeMap<String, AuditedHeader>)) {
        let mut headers = self.headers.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut changed = BTreeMap::clone(&headers);
        apply(&mut changed);
        *headers = Arc::new(changed);
    }

    /// The registered ones of a request's headers.
    #[must_use]
    pub fn pick_headers(&self, given: &BTreeMap<String, Vec<String>>) -> Vec<(String, Vec<String>, bool)> {
        let wanted = self.headers();
        wanted
            .iter()
            .filter_map(|(name, header)| given.get(name).map(|values| (name.clone(), values.clone(), header.hmac)))
            .collect()
    }
}

impl Device {
    async fn write(&self, entry: &Entry<'_>) -> bool {
        let Form { raw, hash_accessor, elide_lists } = self.form;
        let style = Style { salt: &self.salt, raw, hash_accessor, elide_lists };
        let line = entry.render(&style);
        let why = match tokio::time::timeout(WRITE_TIME, self.sink.write(&AuditLine(&line))).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "took too long".to_owned(),
        };
        counter!("leasehold_audit_failures_total", "device" => self.entry.path.clone()).increment(1);
        tracing::error!(why, "audit device `{}` did not take a record", self.entry.path);
        false
    }
}
