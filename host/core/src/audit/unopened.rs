//! A device that another server has enabled and that does not open on this one: it takes no record until it does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::DeviceEntry;
use crate::seams::audit::{AuditDevice, AuditDevices, AuditError, AuditLine, Destination, Receipt};

/// How often it is tried.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Unopened {
    factory: Arc<dyn AuditDevices>,
    path: String,
    kind: String,
    options: BTreeMap<String, String>,
    /// What other devices write to.
    taken: Vec<Destination>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    opened: Option<Arc<dyn AuditDevice>>,
    tried_at: Option<Instant>,
}

impl Unopened {
    pub(super) fn new(factory: Arc<dyn AuditDevices>, entry: &DeviceEntry, taken: Vec<Destination>) -> Arc<Self> {
        let state = State { opened: None, tried_at: Some(Instant::now()) };
        Arc::new(Self {
            factory,
            path: entry.path.clone(),
            kind: entry.kind.clone(),
            options: entry.options.clone(),
            taken,
            state: Arc::new(Mutex::new(state)),
        })
    }

    fn opened(&self) -> Option<Arc<dyn AuditDevice>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).opened.clone()
    }

    /// Tries again, unless it was tried a moment ago.
    fn try_again(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tried_at.is_some_and(|at| at.elapsed() < AGAIN_AFTER) {
            return;
        }
        state.tried_at = Some(Instant::now());
        let (factory, kind, options) = (Arc::clone(&self.factory), self.kind.clone(), self.options.clone());
        let (path, taken, shared) = (self.path.clone(), self.taken.clone(), Arc::clone(&self.state));
        tokio::spawn(async move {
            match factory.open(&kind, &options, &taken).await {
                Ok(device) => {
                    tracing::warn!("audit device `{path}` opens now");
                    shared.lock().unwrap_or_else(PoisonError::into_inner).opened = Some(device);
                }
                Err(error) => tracing::debug!(%error, "audit device `{path}` still does not open"),
            }
        });
    }
}

#[async_trait]
impl AuditDevice for Unopened {
    fn submit(&self, line: AuditLine, receipt: Receipt) {
        match self.opened() {
            Some(device) => device.submit(line, receipt),
            None => {
                self.try_again();
                receipt.answer(Err(AuditError {
                    device: self.path.clone(),
                    why: "another server has enabled it, and it does not open here".to_owned(),
                }));
            }
        }
    }

    async fn reopen(&self) -> Result<(), AuditError> {
        match self.opened() {
            Some(device) => device.reopen().await,
            None => Ok(()),
        }
    }

    fn destination(&self) -> Option<Destination> {
        self.opened().and_then(|device| device.destination())
    }
}
