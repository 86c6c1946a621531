//! Hands every record to every device at once. When devices are enabled and none of those that count took a record, nothing
//! happens and nothing leaves.
//!
//! Where the server's configuration declares devices, these alone count: whoever may enable devices through the API must not be
//! able to keep a record from the operator by adding one that throws records away.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use metrics::counter;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::form::Form;
use super::hash::Salt;
use super::lane::Lane;
use super::line::{Entry, Phase, Style};
use super::unopened::Unopened;
use crate::codec::encode;
use crate::commit::{
    TRIES, commit_surely, delete_surely, overtaken_too_often, read, read_all, table_unchanged, was_overtaken,
};
use crate::keys;
use crate::seams::audit::{AuditDevice, AuditDevices, Destination};
use crate::seams::error::RequestError;
use crate::seams::seal::SecretKey;
use crate::seams::storage::{Batch, Expect, Storage, StorageError};

/// A device that takes longer counts as failed.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How much longer a request waits for other devices once one that counts has its record.
const COMPANION_TIME: Duration = Duration::from_secs(1);
/// How long opening a device may keep this server from following other changes.
const OPEN_TIME: Duration = Duration::from_millis(500);
/// Each device has a thread, and each request is written to all of them.
const DEVICES_MAX: usize = 32;
/// Each is looked for in every request.
const HEADERS_MAX: usize = 128;
/// Longer names are not sent by anybody.
const HEADER_NAME_MAX: usize = 256;

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
    lane: Arc<Lane>,
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
    /// One change of the devices at a time: what they write to is compared before anything is changed.
    changing: Mutex<()>,
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
            changing: Mutex::default(),
        };
        for entry in declared.1 {
            let form = Form::of(&entry.options)?;
            let sink = declared.0.open(&entry.kind, &entry.options, &broker.taken()).await?;
            broker.install(entry.clone(), form, sink, true);
        }
        for (_, entry) in read_all::<DeviceEntry>(&*storage, &keys::audit("")).await? {
            if broker.has_path(&entry.path) {
                tracing::error!(
                    "audit device `{}` is declared in the configuration: the one that was enabled through the API is left out",
                    entry.path
                );
                continue;
            }
            // Stored before options were looked at: nothing that is hashed by default is shown for it.
            let form = Form { raw: false, ..Form::of(&entry.options).unwrap_or_default() };
            match broker.factory.open(&entry.kind, &entry.options, &broker.taken()).await {
                Ok(sink) => broker.install(entry, form, sink, false),
                // A declared one is there, and it alone counts.
                Err(error) if !declared.1.is_empty() => {
                    tracing::error!(%error, "audit device `{}`, which was enabled through the API, is left out", entry.path);
                }
                Err(error) => return Err(error),
            }
        }
        for (_, header) in read_all::<AuditedHeader>(&*storage, &keys::audited_header("")).await? {
            broker.show_header(&header.name.to_lowercase(), Some(header));
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

    fn has_path(&self, path: &str) -> bool {
        self.all().iter().any(|device| device.entry.path == path)
    }

    /// What the devices write to now.
    fn taken(&self) -> Vec<Destination> {
        self.all().iter().filter_map(|device| device.lane.sink.destination()).collect()
    }

    /// Writes one record to every device.
    ///
    /// # Errors
    /// [`RequestError::Audit`] when there are devices and none of those that count has it.
    pub async fn record(&self, entry: &Entry<'_>) -> Result<(), RequestError> {
        let devices = self.all();
        if devices.is_empty() {
            return Ok(());
        }
        let written = write(&devices, entry).await;
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
        let _changing = self.changing.lock().await;
        let present = self.all();
        if present.iter().any(|device| overlap(&device.entry.path, &entry.path)) {
            return Err(RequestError::invalid("path already in use"));
        }
        if present.len() >= DEVICES_MAX {
            return Err(RequestError::Invalid(format!(
                "{DEVICES_MAX} audit devices are enabled, which is as many as there may be: disable one of them first"
            )));
        }
        if entry.options.contains_key("prefix") {
            return Err(RequestError::invalid("audit log prefixing is not allowed"));
        }
        let form = Form::of(&entry.options)?;
        if form.raw {
            return Err(RequestError::invalid(
                "log_raw cannot be set through the API: it would write tokens and credentials in clear; declare the device in the \
                 server's configuration",
            ));
        }
        let sink = self.factory.open(&entry.kind, &entry.options, &self.taken()).await?;
        let device = Arc::new(Device {
            form,
            salt: Salt::new(&self.key, &entry.path),
            lane: Lane::new(&entry.path, sink),
            entry,
            declared: false,
        });
        if !write(std::slice::from_ref(&device), test).await {
            return Err(RequestError::invalid("sanity check failed; unable to write a test record to this device"));
        }
        self.store(&device.entry).await?;
        device.lane.show_stalled(false);
        self.change(|devices| devices.push(device));
        Ok(())
    }

    /// Stores an entry unless its path overlaps with a stored one. Every new device writes the row of the table: of two servers that saw
    /// no overlap, one is refused. Under the lock of changes.
    async fn store(&self, entry: &DeviceEntry) -> Result<(), RequestError> {
        let (key, value, table) = (keys::audit(&entry.path), encode(entry)?, keys::audit_table());
        for _ in 0..TRIES {
            let unchanged = table_unchanged(&*self.storage, &table).await?;
            let stored = read_all::<DeviceEntry>(&*self.storage, &keys::audit("")).await?;
            // Stored by a commit that was said to have failed when this was asked before: then it is enabled.
            if stored.iter().any(|(_, known)| known == entry) {
                return Ok(());
            }
            if stored.iter().any(|(_, known)| overlap(&known.path, &entry.path)) {
                return Err(RequestError::invalid("path already in use"));
            }
            let batch = Batch::new().put(key.clone(), value.clone(), Expect::Absent);
            let batch = batch.put(table.clone(), Vec::new(), unchanged);
            if !was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await)? {
                return Ok(());
            }
        }
        Err(overtaken_too_often(&table).into())
    }

    /// # Errors
    /// As storage; a declared device stays.
    pub async fn disable(&self, path: &str) -> Result<(), RequestError> {
        if self.all().iter().any(|device| device.entry.path == path && device.declared) {
            return Err(RequestError::invalid(
                "this device is declared in the server's configuration: remove it there",
            ));
        }
        let _changing = self.changing.lock().await;
        let key = keys::audit(path);
        delete_surely(&*self.storage, Batch::new().delete(key.clone()), &key).await?;
        self.change(|devices| devices.retain(|device| device.entry.path != path));
        Ok(())
    }

    /// `sys/audit-hash`: what a device would write in place of a text.
    #[must_use]
    pub fn hash(&self, path: &str, text: &str) -> Option<String> {
        self.all().iter().find(|device| device.entry.path == path).map(|device| device.salt.text(text))
    }

    /// Closes and opens every device's file, after a rotation. A device that does not answer keeps nobody waiting: it opens its
    /// file again when it gets there.
    pub fn reopen(&self) {
        for device in self.all().iter().cloned() {
            tokio::spawn(async move {
                if let Err(error) = device.lane.sink.reopen().await {
                    tracing::error!(%error, "could not reopen audit device `{}`", device.entry.path);
                }
            });
        }
    }

    fn install(&self, entry: DeviceEntry, form: Form, sink: Arc<dyn AuditDevice>, declared: bool) {
        let salt = Salt::new(&self.key, &entry.path);
        let lane = Lane::new(&entry.path, sink);
        lane.show_stalled(false);
        self.change(|devices| devices.push(Arc::new(Device { entry, form, salt, lane, declared })));
    }

    fn change(&self, apply: impl FnOnce(&mut Vec<Arc<Device>>)) {
        let mut devices = self.devices.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut changed = Vec::clone(&devices);
        apply(&mut changed);
        *devices = Arc::new(changed);
    }

    /// Makes the devices those that are stored, by whichever server. One that does not open here is there all the same and takes no
    /// record until it does: where none other counts, requests are refused.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_devices(&self) -> Result<(), StorageError> {
        let _changing = self.changing.lock().await;
        let stored = read_all::<DeviceEntry>(&*self.storage, &keys::audit("")).await?;
        let is_stored = |device: &Device| device.declared || stored.iter().any(|(_, entry)| *entry == device.entry);
        self.change(|devices| devices.retain(|device| is_stored(device)));
        for (_, entry) in stored {
            if self.has_path(&entry.path) {
                continue;
            }
            let form = Form { raw: false, ..Form::of(&entry.options).unwrap_or_default() };
            let taken = self.taken();
            let opening = self.factory.open(&entry.kind, &entry.options, &taken);
            let why = match tokio::time::timeout(OPEN_TIME, opening).await {
                Ok(Ok(sink)) => {
                    self.install(entry, form, sink, false);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it takes too long".to_owned(),
            };
            tracing::error!(why, "audit device `{}`, which another server has enabled, does not open here", entry.path);
            let sink = Unopened::new(Arc::clone(&self.factory), &entry, taken);
            self.install(entry, form, sink, false);
        }
        Ok(())
    }

    // --- headers

    #[must_use]
    pub fn headers(&self) -> Arc<BTreeMap<String, AuditedHeader>> {
        self.headers.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// # Errors
    /// As storage; there may be so many of them, and no longer ones.
    pub async fn set_header(&self, header: AuditedHeader) -> Result<(), RequestError> {
        let lower = header.name.to_lowercase();
        if lower.len() > HEADER_NAME_MAX {
            return Err(RequestError::Invalid(format!("a header's name has at most {HEADER_NAME_MAX} bytes")));
        }
        // Memory changes in the order of the commits.
        let _changing = self.changing.lock().await;
        let known = self.headers();
        if known.len() >= HEADERS_MAX && !known.contains_key(&lower) {
            return Err(RequestError::Invalid(format!(
                "{HEADERS_MAX} request headers are audited, which is as many as there may be: remove one of them first"
            )));
        }
        let (key, value) = (keys::audited_header(&lower), encode(&header)?);
        let put = Batch::new().put(key.clone(), value.clone(), Expect::Anything);
        if let Err(error) = commit_surely(&*self.storage, put, &key, &value).await {
            self.header_after_failed_write(&lower).await;
            return Err(error.into());
        }
        self.show_header(&lower, Some(header));
        Ok(())
    }

    /// # Errors
    /// As storage.
    pub async fn unset_header(&self, name: &str) -> Result<(), StorageError> {
        let lower = name.to_lowercase();
        let _changing = self.changing.lock().await;
        let key = keys::audited_header(&lower);
        if let Err(error) = delete_surely(&*self.storage, Batch::new().delete(key.clone()), &key).await {
            self.header_after_failed_write(&lower).await;
            return Err(error);
        }
        self.show_header(&lower, None);
        Ok(())
    }

    /// Makes the copy in memory what is stored, as far as the store tells. Under the lock of changes.
    async fn header_after_failed_write(&self, lower: &str) {
        if let Err(error) = self.read_header(lower).await {
            tracing::warn!(%error, "an audited header could not be read again after a failed write");
        }
    }

    async fn read_header(&self, lower: &str) -> Result<(), StorageError> {
        let stored = read::<AuditedHeader>(&*self.storage, &keys::audited_header(lower)).await?;
        self.show_header(lower, stored.record);
        Ok(())
    }

    /// Makes the copy in memory what is stored, by whichever server.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_header(&self, lower: &str) -> Result<(), StorageError> {
        let _changing = self.changing.lock().await;
        self.read_header(lower).await
    }

    /// The same for all of them.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_headers(&self) -> Result<(), StorageError> {
        let _changing = self.changing.lock().await;
        let stored = read_all::<AuditedHeader>(&*self.storage, &keys::audited_header("")).await?;
        let stored = stored.into_iter().map(|(_, header)| (header.name.to_lowercase(), header)).collect();
        self.change_headers(|headers| *headers = stored);
        Ok(())
    }

    fn show_header(&self, lower: &str, header: Option<AuditedHeader>) {
        self.change_headers(|headers| match header {
            Some(header) => drop(headers.insert(lower.to_owned(), header)),
            None => drop(headers.remove(lower)),
        });
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

/// Whether one path is the beginning of the other. Both end in a slash.
fn overlap(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

impl Device {
    fn line(&self, entry: &Entry<'_>) -> String {
        let Form { raw, hash_accessor, elide_lists } = self.form;
        entry.render(&Style { salt: &self.salt, raw, hash_accessor, elide_lists })
    }
}

/// Whether a device that counts has the record.
async fn write(devices: &[Arc<Device>], entry: &Entry<'_>) -> bool {
    let any_declared = devices.iter().any(|device| device.declared);
    let counts = |device: &Device| device.declared || !any_declared;
    // A device that must have it will not: then none gets it, for what is refused now must not be recorded as done later.
    if devices.iter().all(|device| !counts(device) || device.lane.is_stalled()) {
        return false;
    }
    let (outcomes, mut told) = mpsc::unbounded_channel();
    let mut awaited = vec![false; devices.len()];
    for (position, (device, is_awaited)) in devices.iter().zip(&mut awaited).enumerate() {
        *is_awaited = !device.lane.is_stalled();
        device.lane.submit(device.line(entry), position, &outcomes);
    }
    drop(outcomes);
    let begun = Instant::now();
    let mut end = begun + WRITE_TIME;
    let mut written = false;
    while awaited.contains(&true) {
        let Ok(Some((position, is_written))) = tokio::time::timeout_at(end, told.recv()).await else { break };
        if let Some(is_awaited) = awaited.get_mut(position) {
            *is_awaited = false;
        }
        if is_written && devices.get(position).is_some_and(|device| counts(device)) && !written {
            written = true;
            end = end.min(Instant::now() + COMPANION_TIME);
        }
    }
    for (device, is_awaited) in devices.iter().zip(awaited) {
        if is_awaited {
            device.lane.stall(begun.elapsed());
        }
    }
    written
}
