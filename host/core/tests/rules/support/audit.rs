//! A device that remembers its lines, refuses those that a test names, and can stop answering.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leasehold_core::seams::audit::{AuditDevice, AuditDevices, AuditError, AuditLine, Destination, Receipt};
use leasehold_core::seams::error::RequestError;
use serde_json::Value;

#[derive(Debug, Default)]
pub struct Recorder {
    lines: Mutex<Vec<String>>,
    /// Lines with this text are refused.
    pub refuses: Mutex<Option<&'static str>>,
    /// It takes lines and does not write them.
    blocked: Mutex<Option<Vec<(AuditLine, Receipt)>>>,
    pub destination: Mutex<Option<Destination>>,
    /// How often its file was opened anew.
    reopened: Mutex<usize>,
    /// Opening its file anew fails.
    pub cannot_reopen: Mutex<bool>,
}

impl Recorder {
    /// As a pipe that nobody reads.
    pub fn block(&self) {
        *self.blocked.lock().unwrap() = Some(Vec::new());
    }

    /// Writes what it was given meanwhile.
    pub fn unblock(&self) {
        let waiting = self.blocked.lock().unwrap().take();
        for (line, receipt) in waiting.into_iter().flatten() {
            self.submit(line, receipt);
        }
    }

    pub fn reopened(&self) -> usize {
        *self.reopened.lock().unwrap()
    }

    /// Lines that it was given and has not written.
    pub fn waiting(&self) -> usize {
        self.blocked.lock().unwrap().as_ref().map_or(0, Vec::len)
    }
}

impl Recorder {
    pub fn text(&self) -> String {
        self.lines.lock().unwrap().concat()
    }

    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The last record of this type.
    pub fn last(&self, kind: &str) -> Value {
        self.lines().into_iter().rfind(|line| line["type"] == kind).unwrap()
    }

    pub fn clear(&self) {
        self.lines.lock().unwrap().clear();
    }
}

#[async_trait]
impl AuditDevice for Recorder {
    fn submit(&self, line: AuditLine, receipt: Receipt) {
        if let Some(waiting) = &mut *self.blocked.lock().unwrap() {
            waiting.push((line, receipt));
            return;
        }
        if self.refuses.lock().unwrap().is_some_and(|text| line.0.contains(text)) {
            let why = "no space left on device".to_owned();
            return receipt.answer(Err(AuditError { device: "recorder".to_owned(), why }));
        }
        self.lines.lock().unwrap().push(line.0);
        receipt.answer(Ok(()));
    }

    async fn reopen(&self) -> Result<(), AuditError> {
        if *self.cannot_reopen.lock().unwrap() {
            return Err(AuditError { device: "recorder".to_owned(), why: "no such directory".to_owned() });
        }
        *self.reopened.lock().unwrap() += 1;
        Ok(())
    }

    fn destination(&self) -> Option<Destination> {
        self.destination.lock().unwrap().clone()
    }
}

/// Two devices: `first` and `second`.
#[derive(Debug, Default)]
pub struct Recorders {
    pub first: Arc<Recorder>,
    pub second: Arc<Recorder>,
    pub refuses_to_open: Mutex<bool>,
}

#[async_trait]
impl AuditDevices for Recorders {
    async fn open(
        &self,
        kind: &str,
        _: &BTreeMap<String, String>,
        _: &[Destination],
    ) -> Result<Arc<dyn AuditDevice>, RequestError> {
        if *self.refuses_to_open.lock().unwrap() {
            return Err(RequestError::invalid("it does not open"));
        }
        match kind {
            "first" => Ok(self.first.clone()),
            "second" => Ok(self.second.clone()),
            _ => Err(RequestError::Invalid(format!("unknown backend type: \"{kind}\""))),
        }
    }
}
