//! The thread of one device. A `write(2)` to a dead file server or to a pipe that nobody reads blocks for as long as it likes;
//! here it blocks its own device and nothing else, neither a request nor the end of the process.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use leasehold_core::seams::audit::{AuditError, AuditLine, Receipt};
use tokio::sync::oneshot;

/// More than the core ever lets wait for one device: see the lane of a device there.
const JOBS_MAX: usize = 2_048;

/// What a device's thread writes to.
pub(super) trait Sink: Send + 'static {
    /// Writes one line, with the line end that is not in it.
    fn append(&mut self, line: &[u8]) -> io::Result<()>;
    /// Closes and opens again, after a rotation. What was open stays when that fails.
    fn reopen(&mut self) -> io::Result<()>;
}

enum Job {
    Line(AuditLine, Receipt),
    Reopen(oneshot::Sender<io::Result<()>>),
}

/// Hands lines to a thread of its own, which ends when this is dropped and all lines are written. Nobody waits for it to end.
#[derive(Debug)]
pub(super) struct Writer {
    /// As an operator would name the device.
    name: String,
    jobs: SyncSender<Job>,
}

impl Writer {
    /// # Errors
    /// As the system's, when there is no thread to be had.
    pub(super) fn start(name: String, sink: impl Sink) -> io::Result<Self> {
        let (jobs, taken) = sync_channel(JOBS_MAX);
        let device = name.clone();
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || work(&device, sink, &taken))?;
        Ok(Self { name, jobs })
    }

    pub(super) fn submit(&self, line: AuditLine, receipt: Receipt) {
        if let Err(refused) = self.jobs.try_send(Job::Line(line, receipt)) {
            let (job, why) = match refused {
                TrySendError::Full(job) => (job, "too many lines wait for the device"),
                TrySendError::Disconnected(job) => (job, "the device's thread has ended"),
            };
            if let Job::Line(_, receipt) = job {
                receipt.answer(Err(self.failed(why)));
            }
        }
    }

    /// Answers when the lines before it are written and the file is open again.
    pub(super) async fn reopen(&self) -> Result<(), AuditError> {
        let (done, told) = oneshot::channel();
        self.jobs.try_send(Job::Reopen(done)).map_err(|_| self.failed("it is behind with its lines"))?;
        match told.await {
            Ok(opened) => opened.map_err(|error| self.failed(error)),
            Err(_) => Err(self.failed("the device's thread has ended")),
        }
    }

    fn failed(&self, why: impl std::fmt::Display) -> AuditError {
        failed(&self.name, why)
    }
}

fn failed(device: &str, why: impl std::fmt::Display) -> AuditError {
    AuditError { device: device.to_owned(), why: why.to_string() }
}

fn work(device: &str, mut sink: impl Sink, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Line(line, receipt) => {
                receipt.answer(sink.append(line.0.as_bytes()).map_err(|error| failed(device, error)));
            }
            // Whoever asked may have gone.
            Job::Reopen(done) => drop(done.send(sink.reopen())),
        }
    }
}

/// Runs what may block on a thread of its own, for so long. Whoever waits goes on without it after that.
///
/// # Errors
/// `None`: it takes longer, or there is no thread to be had.
pub(super) async fn on_a_thread<T: Send + 'static>(
    limit: std::time::Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, told) = oneshot::channel();
    let run = move || drop(done.send(work()));
    std::thread::Builder::new().name("audit-open".to_owned()).spawn(run).ok()?;
    tokio::time::timeout(limit, told).await.ok()?.ok()
}
