//! Files of any size, on their way in and out: a few blocks of one are in memory at a time.
//!
//! Must not know: what is in a file. Who may send one is asked before the first byte of it is read.

use std::fs::File;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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

/// How long a client may leave a file unread before it is given up.
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// A file as a body. Whoever stops reading it keeps neither the file nor its place on the disk.
pub(crate) struct FileBody {
    kept: Arc<Kept>,
    len: u64,
    at: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

struct Kept {
    spool: Mutex<Option<Arc<Spool>>>,
    /// Blocks that were asked for.
    blocks: AtomicU64,
}

/// Lets the file go when no block was asked for in [`UNREAD_MAX`].
async fn watch(kept: Weak<Kept>) {
    let mut before = 0;
    loop {
        tokio::time::sleep(UNREAD_MAX).await;
        let Some(kept) = kept.upgrade() else { return };
        let blocks = kept.blocks.load(Ordering::Relaxed);
        if blocks == before {
            tracing::warn!("a client did not read on for {} s: the file is given up", UNREAD_MAX.as_secs());
            *kept.spool.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return;
        }
        before = blocks;
    }
}

impl FileBody {
    pub(crate) fn new(spool: Arc<Spool>) -> Self {
        let len = spool.len();
        let kept = Arc::new(Kept { spool: Mutex::new(Some(spool)), blocks: AtomicU64::new(1) });
        tokio::spawn(watch(Arc::downgrade(&kept)));
        Self { kept, len, at: 0, reading: None }
    }

    pub(crate) fn left(&self) -> u64 {
        self.len.saturating_sub(self.at)
    }

    /// The next block; `None` at the end.
    pub(crate) fn poll_block(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left() == 0 {
            return Poll::Ready(None);
        }
        if self.reading.is_none() {
            self.kept.blocks.fetch_add(1, Ordering::Relaxed);
            let Some(spool) = self.kept.spool.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
                return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
            };
            let at = self.at;
            self.reading = Some(spawn_blocking(move || {
                let mut block = vec![0; BLOCK];
                let count = spool.read_at(&mut block, at)?;
                block.truncate(count);
                Ok(Bytes::from(block))
            }));
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> (FileBody, Weak<Spool>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 2 * BLOCK]).unwrap();
        let spool = Arc::new(Spool::new(file, 2 * BLOCK as u64));
        let still_there = Arc::downgrade(&spool);
        (FileBody::new(spool), still_there)
    }

    async fn block(body: &mut FileBody) -> Option<io::Result<Bytes>> {
        std::future::poll_fn(|context| body.poll_block(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_nobody_reads_on_is_given_up() {
        let (mut body, still_there) = body();
        assert_eq!(block(&mut body).await.unwrap().unwrap().len(), BLOCK);
        tokio::time::sleep(2 * UNREAD_MAX + Duration::from_secs(1)).await;
        assert!(still_there.upgrade().is_none(), "its place on the disk is free");
        assert_eq!(block(&mut body).await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_all_of_it() {
        let (mut body, _) = body();
        for _ in 0..2 {
            tokio::time::sleep(UNREAD_MAX - Duration::from_secs(1)).await;
            assert_eq!(block(&mut body).await.unwrap().unwrap().len(), BLOCK);
        }
        assert!(block(&mut body).await.is_none());
    }
}
