//! What a client may send over all servers of a store: the batches of requests that they draw for it.
//!
//! Of the requests of a window, each server lets its share in without asking anybody: as many as there are requests for each server. For
//! more it draws batches of that size from a row of the store, which has the rest of the window's requests. So a client that speaks to one
//! server has all its requests there; and one that speaks to all of them has at most one batch more for each further server. A draw costs
//! the store one write, and there are fewer of them in a window than there are servers.
//!
//! Invariants: the place that draws take in the store is bounded, for each rate limit by itself; a client that has drawn all costs the store
//! nothing more until its window ends.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use leasehold_model::{Timestamp, Ttl};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use super::rate::{Draw, RateLimit};
use crate::codec::encode;
use crate::commit::{Stored, read, was_overtaken};
use crate::keys;
use crate::seams::host::Clock;
use crate::seams::storage::{Batch, Storage, StorageError};

/// Rows of a rate limit: clients whose addresses fall into different ones do not wait for each other.
const ROWS: u64 = 64;
/// Clients in one row. Beyond that, those whose windows end first are forgotten.
const CLIENTS_MAX: usize = 100;
/// How often a row is read again that other servers write at the same time.
const TRIES: u32 = 8;

/// What is left of a client's window.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Left {
    client: Option<IpAddr>,
    ends_at: Timestamp,
    requests: u64,
}

/// The rows of all rate limits.
pub(super) struct Pools {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    /// Of this server's tasks one draws from a row at a time.
    turns: Vec<Mutex<()>>,
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pools")
    }
}

impl Pools {
    pub(super) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self { storage, clock, turns: (0..ROWS).map(|_| Mutex::default()).collect() }
    }

    /// Waits until nobody of this server draws for the same client.
    pub(super) async fn turn(&self, client: Option<IpAddr>) -> Option<MutexGuard<'_, ()>> {
        let turn = self.turns.get(usize::try_from(row_of(client)).ok()?)?;
        Some(turn.lock().await)
    }

    /// Draws a batch of requests for a client, or what is left of them.
    ///
    /// # Errors
    /// As storage.
    pub(super) async fn draw(
        &self,
        limit: &RateLimit,
        client: Option<IpAddr>,
        wanted: Draw,
    ) -> Result<u64, StorageError> {
        let Draw { batch, most, left } = wanted;
        let key = keys::rate_pool(&limit.id, row_of(client));
        for _ in 0..TRIES {
            let Stored { record, unchanged } = read::<Vec<Left>>(&*self.storage, &key).await?;
            let now = self.clock.now();
            let mut windows: Vec<Left> = record.unwrap_or_default();
            windows.retain(|window| window.ends_at > now);
            let known = windows.iter_mut().find(|window| window.client == client);
            let drawn = match known {
                Some(window) => {
                    let drawn = batch.min(window.requests);
                    window.requests -= drawn;
                    drawn
                }
                None => {
                    windows.sort_unstable_by_key(|window| window.ends_at);
                    windows.drain(..(windows.len() + 1).saturating_sub(CLIENTS_MAX));
                    let rest = most.saturating_sub(batch);
                    let drawn = batch.min(rest);
                    let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                    windows.push(Left { client, ends_at: now + Ttl::from_secs(secs), requests: rest - drawn });
                    drawn
                }
            };
            if drawn == 0 {
                return Ok(0);
            }
            let written = Batch::new().put(key.clone(), encode(&windows)?, unchanged);
            if !was_overtaken(self.storage.commit(written).await)? {
                return Ok(drawn);
            }
        }
        Err(StorageError::Unavailable("other servers draw from the same row all the time".to_owned()))
    }

    /// Removes the rows of a rate limit that is there no more.
    ///
    /// # Errors
    /// As storage.
    pub(super) async fn forget(&self, id: &str) -> Result<(), StorageError> {
        let rows = self.storage.scan(&keys::rate_pools(id), None, u32::try_from(ROWS).unwrap_or(u32::MAX)).await?;
        if rows.is_empty() {
            return Ok(());
        }
        self.storage.commit(rows.into_iter().fold(Batch::new(), Batch::delete)).await
    }
}

/// The same on every server.
fn row_of(client: Option<IpAddr>) -> u64 {
    let mixed =
        |octets: &[u8]| octets.iter().fold(0_u64, |sum, octet| sum.wrapping_mul(31).wrapping_add(u64::from(*octet)));
    match client {
        None => 0,
        Some(IpAddr::V4(address)) => mixed(&address.octets()) % ROWS,
        Some(IpAddr::V6(address)) => mixed(&address.octets()) % ROWS,
    }
}
