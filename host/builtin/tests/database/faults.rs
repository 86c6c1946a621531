//! What may go wrong between the engine and what it writes to: a store that fails or takes its server with it at a chosen write, and a
//! line to PostgreSQL that breaks at a chosen message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{
    Batch, Changes, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned,
};
use leasehold_model::{LeaseId, Timestamp, Ttl};
use leasehold_storage::MemoryStorage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens at the chosen write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing is written, and the writer is told so.
    Refused,
    /// It is written, and the writer is told that the store is away.
    AnswerLost,
    /// The server ends before it is written.
    KilledBefore,
    /// The server ends after it was written.
    KilledAfter,
    /// The server stands still after it was written, until it is let go on.
    StopsAfter,
}

pub const STORE_FAULTS: [StoreFault; 4] =
    [StoreFault::Refused, StoreFault::AnswerLost, StoreFault::KilledBefore, StoreFault::KilledAfter];

/// A store that fails once.
pub struct FaultyStore {
    pub inner: Arc<MemoryStorage>,
    pub fault: StoreFault,
    /// Writes until then; negative afterwards.
    pub left: AtomicI64,
    pub killed: Notify,
    pub goes_on: Notify,
}

impl FaultyStore {
    pub fn new(inner: Arc<MemoryStorage>, fault: StoreFault, write: i64) -> Arc<Self> {
        Arc::new(Self { inner, fault, left: AtomicI64::new(write), killed: Notify::new(), goes_on: Notify::new() })
    }

    pub fn was_hit(&self) -> bool {
        self.left.load(Ordering::SeqCst) <= 0
    }

    /// Runs what a server does until it ends by itself or is killed.
    pub async fn until_killed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.killed.notified() => None,
        }
    }

    /// What others do while this server stands still.
    pub async fn meanwhile(&self, work: impl Future<Output = ()>) {
        self.killed.notified().await;
        work.await;
        self.goes_on.notify_one();
    }

    async fn die(&self) -> StorageError {
        self.killed.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl Storage for FaultyStore {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        self.inner.now().await
    }

    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        self.inner.changes(since).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        self.inner.get(key).await
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        self.inner.scan(prefix, after, limit).await
    }

    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        self.inner.names(of, prefix, after, limit).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        self.inner.lease(id).await
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        self.inner.leases(filter, page).await
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        self.inner.count_leases().await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return self.inner.commit(batch).await;
        }
        let away = || StorageError::Unavailable("the store is away".to_owned());
        match self.fault {
            StoreFault::Refused => Err(away()),
            StoreFault::AnswerLost => self.inner.commit(batch).await.and_then(|()| Err(away())),
            StoreFault::KilledBefore => Err(self.die().await),
            StoreFault::KilledAfter => {
                self.inner.commit(batch).await?;
                Err(self.die().await)
            }
            StoreFault::StopsAfter => {
                self.inner.commit(batch).await?;
                self.killed.notify_one();
                self.goes_on.notified().await;
                Ok(())
            }
        }
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        self.inner.claim_due(holder, limit, hold_for, skip).await
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        self.inner.claim(holder, id, hold_for).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.inner.next_due().await
    }
}

/// What happens at the chosen message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// PostgreSQL never hears it.
    NotSent,
    /// PostgreSQL hears it, and its answer does not come.
    NotAnswered,
}

/// A line to a server that breaks once, at a message of the client's.
pub struct Line {
    pub port: u16,
    left: Arc<AtomicI64>,
    is_down: Arc<AtomicBool>,
    tries: Arc<AtomicI64>,
}

impl Line {
    /// The first message of each session, which names the user, does not count.
    pub async fn to(server: (String, u16), fault: LineFault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicI64::new(0));
        let counted = Arc::clone(&left);
        let (is_down, tries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (hangs_up, counted_tries) = (Arc::clone(&is_down), Arc::clone(&tries));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counted_tries.fetch_add(1, Ordering::SeqCst);
                if hangs_up.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(carry(client, server, Arc::clone(&counted), fault));
            }
        });
        Self { port, left, is_down, tries }
    }

    pub fn break_at(&self, message: i64) {
        self.left.store(message, Ordering::SeqCst);
    }

    /// Whether new connections are cut off at once. Those that are open go on.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// How many connections began since the last question.
    pub fn tries(&self) -> i64 {
        self.tries.swap(0, Ordering::SeqCst)
    }

    pub fn was_hit(&self) -> bool {
        self.left.swap(0, Ordering::SeqCst) < 0
    }
}

async fn carry(client: TcpStream, server: TcpStream, left: Arc<AtomicI64>, fault: LineFault) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_broken = Arc::new(AtomicBool::new(false));
    let swallows = Arc::clone(&is_broken);
    let back = tokio::spawn(async move {
        let mut bytes = [0; 4_096];
        while let Ok(len @ 1..) = from_server.read(&mut bytes).await {
            if !swallows.load(Ordering::SeqCst) && to_client.write_all(&bytes[..len]).await.is_err() {
                return;
            }
        }
    });
    let mut is_first = true;
    loop {
        let mut head = vec![0; if is_first { 4 } else { 5 }];
        if from_client.read_exact(&mut head).await.is_err() {
            break;
        }
        let len = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap());
        let mut message = vec![0; len as usize - 4];
        if from_client.read_exact(&mut message).await.is_err() {
            break;
        }
        let breaks = !is_first && left.load(Ordering::SeqCst) > 0 && left.fetch_sub(1, Ordering::SeqCst) == 1;
        // A question about TLS, which is answered with no, is no beginning yet.
        is_first = is_first && len == 8;
        if breaks {
            left.store(-1, Ordering::SeqCst);
            is_broken.store(true, Ordering::SeqCst);
            if fault == LineFault::NotAnswered {
                let _ = to_server.write_all(&[head, message].concat()).await;
                // It is done before the line is seen to be gone: what has not ended by then would be another case.
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
            back.abort();
            return;
        }
        if to_server.write_all(&[head, message].concat()).await.is_err() {
            break;
        }
    }
    back.abort();
}
