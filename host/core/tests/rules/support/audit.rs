//! A device that remembers its lines, and refuses those that a test names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leasehold_core::request::RequestError;
use leasehold_core::seams::audit::{AuditDevice, AuditDevices, AuditError, AuditLine};
use serde_json::Value;

#[derive(Debug, Default)]
pub struct Recorder {
    lines: Mutex<Vec<String>>,
    /// Lines with this text are refused.
    pub refuses: Mutex<Option<&'static str>>,
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
    async fn write(&self, line: &AuditLine<'_>) -> Result<(), AuditError> {
        if self.refuses.lock().unwrap().is_some_and(|text| line.0.contains(text)) {
            return Err(AuditError { device: "recorder".to_owned(), why: "no space left on device".to_owned() });
        }
        self.lines.lock().unwrap().push(line.0.to_owned());
        Ok(())
    }

    async fn reopen(&self) -> Result<(), AuditError> {
        Ok(())
    }
}

/// Two devices: `first` and `second`.
#[derive(Debug, Default)]
pub struct Recorders {
    pub first: Arc<Recorder>,
    pub second: Arc<Recorder>,
}

#[async_trait]
impl AuditDevices for Recorders {
    async fn open(&self, kind: &str, _: &BTreeMap<String, String>) -> Result<Arc<dyn AuditDevice>, RequestError> {
        match kind {
            "first" => Ok(self.first.clone()),
            "second" => Ok(self.second.clone()),
            _ => Err(RequestError::Invalid(format!("unknown backend type: \"{kind}\""))),
        }
    }
}
