//! Lines on standard output, for containers.

use std::io::Write as _;

use async_trait::async_trait;
use leasehold_core::seams::audit::{AuditDevice, AuditError, AuditLine};

#[derive(Debug)]
pub(super) struct Stdout;

#[async_trait]
impl AuditDevice for Stdout {
    async fn write(&self, line: &AuditLine<'_>) -> Result<(), AuditError> {
        let line = format!("{}\n", line.0);
        let write = move || {
            let mut out = std::io::stdout().lock();
            out.write_all(line.as_bytes()).and_then(|()| out.flush())
        };
        // A reader that has stopped reading blocks the write.
        let failed = |why: String| AuditError { device: "stdout".to_owned(), why };
        tokio::task::spawn_blocking(write).await.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
    }

    async fn reopen(&self) -> Result<(), AuditError> {
        Ok(())
    }
}
