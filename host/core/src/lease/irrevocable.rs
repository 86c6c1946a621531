//! Leases whose revocation has failed so often that the API shows them as irrevocable. Trying goes on all the same.

use leasehold_model::LeaseId;
use tokio_util::sync::CancellationToken;

use super::{IRREVOCABLE_AFTER, LeaseKind, LeaseRow, LeaseState, Leases, PAGE};
use crate::seams::storage::{LeaseFilter, Page, StorageError};

impl Leases {
    /// Remembers whether the API shows a lease as irrevocable.
    pub(super) fn note_irrevocable(&self, id: &LeaseId, is_irrevocable: bool) {
        let mut known = self.irrevocable.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if is_irrevocable {
            known.insert(id.clone());
        } else {
            known.remove(id);
        }
    }

    /// Counts once those that were irrevocable before this start, unless `stop` comes first.
    pub async fn count_irrevocable(&self, stop: CancellationToken) {
        tokio::select! {
            biased;
            found = self.find_irrevocable() => match found {
                Ok(()) | Err(StorageError::Sealed) => {}
                Err(error) => tracing::warn!(%error, "could not count the leases that cannot be revoked"),
            },
            () = stop.cancelled() => {}
        }
    }

    /// How many leases the API shows as irrevocable.
    #[must_use]
    pub fn irrevocable_count(&self) -> usize {
        self.irrevocable.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }

    /// Finds those that were irrevocable before this start.
    ///
    /// # Errors
    /// As storage.
    pub async fn find_irrevocable(&self) -> Result<(), StorageError> {
        let filter = revoking_secrets();
        let mut after = None;
        loop {
            let page = self.storage.leases(&filter, &Page { after, limit: PAGE }).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id.clone());
            for row in page {
                if obstacle(&row).is_some() && self.storage.lease(&row.id).await?.is_some() {
                    self.note_irrevocable(&row.id, true);
                }
            }
        }
    }

    /// Leases that the API shows as irrevocable, each with what stands in its way; so many at most, and how many there are.
    ///
    /// # Errors
    /// As storage.
    pub async fn irrevocable(&self, most: usize) -> Result<(Vec<(LeaseId, String)>, usize), StorageError> {
        let filter = revoking_secrets();
        let (mut found, mut count) = (Vec::new(), 0);
        let mut after = None;
        loop {
            let page = self.storage.leases(&filter, &Page { after, limit: PAGE }).await?;
            let Some(last) = page.last() else { return Ok((found, count)) };
            after = Some(last.id.clone());
            for row in page {
                let Some(why) = obstacle(&row) else { continue };
                count += 1;
                if found.len() < most {
                    found.push((row.id, why));
                }
            }
        }
    }
}

fn revoking_secrets() -> LeaseFilter {
    LeaseFilter { state: Some(LeaseState::Revoking), kind: Some(LeaseKind::Secret), ..LeaseFilter::default() }
}

/// What stands in the way of a row that the API shows as irrevocable; `None` for others.
fn obstacle(row: &LeaseRow) -> Option<String> {
    match row.read_body() {
        Ok(body) if body.attempts < IRREVOCABLE_AFTER => None,
        Ok(body) => Some(body.last_error.unwrap_or_default()),
        Err(error) => Some(error.to_string()),
    }
}
