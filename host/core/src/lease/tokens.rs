//! The end of a token: its descendants end with it, and all their leases.

use leasehold_model::TokenHash;

use super::{LeaseError, LeaseRow, LeaseState, Leases};
use crate::seams::{Batch, LeaseFilter, StorageError};
use crate::token::store::Children;

impl Leases {
    /// Ends a token and what descends from it. When this returns none of them can act, and the duty to undo their leases is
    /// stored. A crash in between leaves rows in `Revoking`, from which the ticker goes on.
    ///
    /// # Errors
    /// As storage.
    pub async fn end_token(&self, token: &TokenHash, children: Children) -> Result<(), LeaseError> {
        let mut open = vec![token.clone()];
        let mut fate = children;
        while let Some(next) = open.pop() {
            self.tokens.bury(&next, fate).await?;
            crate::fail::point("token-buried");
            fate = Children::AreRevoked;
            open.extend(self.tokens.children(&next).await?);
            self.mark_secrets_of(&next).await?;
            self.remove_token_row(&next).await?;
        }
        self.wake.notify_one();
        Ok(())
    }

    /// The row of a token whose children and leases have all been dealt with.
    async fn remove_token_row(&self, token: &TokenHash) -> Result<(), StorageError> {
        let filter = LeaseFilter {
            token: Some(token.clone()),
            kind: Some(super::LeaseKind::Token),
            state: Some(LeaseState::Revoking),
            ..LeaseFilter::default()
        };
        for row in self.rows(&filter).await? {
            match self.storage.commit(Batch::new().remove(row.id.clone(), row.fence)).await {
                // The ticker took it in this moment: it will find nothing left to do, and remove it.
                Ok(()) | Err(StorageError::Fenced(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// A claimed token row that fell due: expired, or left behind by a crash.
    pub(super) async fn end_due_token(&self, row: LeaseRow) -> Result<(), LeaseError> {
        self.end_token(&row.token, Children::AreRevoked).await
    }
}
