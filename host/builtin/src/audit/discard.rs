//! Nowhere, as Vault's `discard`: for measuring what the others cost.

use async_trait::async_trait;
use leasehold_core::seams::audit::{AuditDevice, AuditError, AuditLine, Destination, Receipt};

#[derive(Debug)]
pub(super) struct Discard;

#[async_trait]
impl AuditDevice for Discard {
    fn submit(&self, _: AuditLine, receipt: Receipt) {
        receipt.answer(Ok(()));
    }

    async fn reopen(&self) -> Result<(), AuditError> {
        Ok(())
    }

    fn destination(&self) -> Option<Destination> {
        None
    }
}
