//! The key ring's own work: a newer key when the schedule asks for one, and nothing left behind of keys that were replaced.

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_model::Ttl;
use serde_json::Value;

use super::{Job, JobError};
use crate::core::seal_error;
use crate::quorum::Quorum;
use crate::seams::seal::Seal;

/// The shortest interval of a schedule is a day: a key is a few minutes older at most.
const EVERY: Ttl = Ttl::from_secs(300);

pub(crate) struct KeepKeyring {
    seal: Arc<dyn Seal>,
    quorum: Arc<Quorum>,
}

impl KeepKeyring {
    pub(crate) const NAME: &'static str = "rotate-key";

    pub(crate) fn new(seal: Arc<dyn Seal>, quorum: Arc<Quorum>) -> Self {
        Self { seal, quorum }
    }
}

#[async_trait]
impl Job for KeepKeyring {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn every(&self) -> Ttl {
        EVERY
    }

    async fn run(&self, _: Value) -> Result<Value, JobError> {
        self.seal.rotate_if_due().await.map_err(seal_error)?;
        self.seal.end_handover().await.map_err(seal_error)?;
        self.quorum.forget_old_attempts().await?;
        Ok(Value::Null)
    }
}
