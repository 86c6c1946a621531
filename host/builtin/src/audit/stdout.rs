//! Lines on standard output, for containers.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use async_trait::async_trait;
use leasehold_core::seams::audit::{AuditDevice, AuditError, AuditLine, Destination, Receipt};

use super::lines::Lines;
use super::writer::{Sink, Writer};

/// The descriptor itself, not the library's handle: a write that blocks must not hold that handle's lock.
#[derive(Debug)]
pub(super) struct Stdout(Writer);

impl Stdout {
    pub(super) fn destination() -> Destination {
        Destination { name: "stdout".to_owned(), file: None }
    }

    /// # Errors
    /// As the system's: standard output may be closed.
    pub(super) fn open() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self(Writer::start("stdout".to_owned(), StdoutSink(Lines::new(file, false)))?))
    }
}

struct StdoutSink(Lines);

impl Sink for StdoutSink {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.append(line)
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl AuditDevice for Stdout {
    fn submit(&self, line: AuditLine, receipt: Receipt) {
        self.0.submit(line, receipt);
    }

    async fn reopen(&self) -> Result<(), AuditError> {
        self.0.reopen().await
    }

    fn destination(&self) -> Option<Destination> {
        Some(Self::destination())
    }
}
