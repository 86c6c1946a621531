//! Files of any size, on their way in and out: a few blocks of one are in memory at a time.
//!
//! Must not know: what is in a file. Who may send one is asked before the first byte of it is read.

use std::fs::File;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use leasehold_core::seams::snapshot::Spool;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::FrontendError;

/// Read or written at once.
const BLOCK: usize = 256 << 10;

/// Keeps a body in a file without a name.
///
/// # Errors
/// It is larger than `max`, it stops for longer than `pause`, it does not end as it should, or there is no place for it.
pub(crate) async fn spooled<B>(body: &mut B, max: u64, pause: Duration) -> Result<Arc<Spool>, FrontendError>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > max {
        return Err(FrontendError::BodyTooLarge);
    }
    let mut file = written(tempfile::tempfile).await?;
    let (mut waiting, mut len) = (Vec::new(), 0_u64);
    loop {
        let frame = tokio::time::timeout(pause, body.frame()).await.map_err(|_| FrontendError::Time)?;
        let Some(frame) = frame else { break };
        let Ok(chunk) = frame.map_err(|_| FrontendError::Body)?.into_data() else { continue };
        len += chunk.len() as u64;
        if len > max {
            return Err(FrontendError::BodyTooLarge);
        }
        waiting.extend_from_slice(&chunk);
        if waiting.len() >= BLOCK {
            (file, waiting) = write(file, waiting).await?;
        }
    }
    let (file, _) = write(file, waiting).await?;
    Ok(Arc::new(Spool::new(file, len)))
}

async fn write(mut file: File, mut bytes: Vec<u8>) -> Result<(File, Vec<u8>), FrontendError> {
    written(move || {
        file.write_all(&bytes)?;
        bytes.clear();
        Ok((file, bytes))
    })
    .await
}

async fn written<T: Send + 'static>(
    write: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, FrontendError> {
    let done = spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|error| {
        let place = std::env::temp_dir();
        tracing::error!(%error, "an uploaded file could not be kept in {}", place.display());
        FrontendError::NoPlace
    })
}

/// A file as a body.
pub(crate) struct FileBody {
    spool: Arc<Spool>,
    at: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(crate) fn new(spool: Arc<Spool>) -> Self {
        Self { spool, at: 0, reading: None }
    }

    pub(crate) fn left(&self) -> u64 {
        self.spool.len().saturating_sub(self.at)
    }

    /// The next block; `None` at the end.
    pub(crate) fn poll_block(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left() == 0 {
            return Poll::Ready(None);
        }
        let (spool, at) = (&self.spool, self.at);
        let reading = self.reading.get_or_insert_with(|| {
            let spool = Arc::clone(spool);
            spawn_blocking(move || {
                let mut block = vec![0; BLOCK];
                let count = spool.read_at(&mut block, at)?;
                block.truncate(count);
                Ok(Bytes::from(block))
            })
        });
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        Poll::Ready(Some(match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(block) if block.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(block) => {
                self.at += block.len() as u64;
                Ok(block)
            }
            Err(error) => {
                tracing::error!(%error, "a file could not be read on: its client gets a part of it");
                Err(error)
            }
        }))
    }
}
