//! The end of a token: its descendants end with it, and all their leases.

use leasehold_model::{MountAccessor, TokenHash};

use super::{EndCause, LeaseError, LeaseRow, LeaseState, Leases};
use crate::rows::lease::Wrapped;
use crate::seams::storage::{Batch, Key, LeaseFilter, StorageError};
use crate::token::end::{Children, Ended};

/// A token that has ended, and how far its children have been dealt with.
struct Ending {
    token: TokenHash,
    /// Empty when it had ended before.
    accessor: String,
    child: Option<Key>,
}

impl Leases {
    /// Ends a token and what descends from it. When this returns none of them can act, and the duty to undo their leases is
    /// stored. A crash in between leaves rows in `Revoking`, from which the ticker goes on: a token's row goes only when its
    /// children have ended, each under a row of its own, and its leases are marked.
    ///
    /// # Errors
    /// As storage.
    pub async fn end_token(&self, token: &TokenHash, children: Children, cause: &EndCause) -> Result<(), LeaseError> {
        let accessor = match self.tokens.revoke_one(token, children, cause).await? {
            Ended::Whole => return Ok(()),
            Ended::Itself(accessor) => accessor,
            Ended::Before => String::new(),
        };
        crate::fail::point("token-buried");
        // Depth first, child by child: nothing here grows with the number of children.
        let mut open = vec![Ending { token: token.clone(), accessor, child: None }];
        while let Some(ended) = open.last_mut() {
            match self.tokens.next_child(&ended.token, ended.child.as_ref()).await? {
                Some((key, child)) => {
                    ended.child = Some(key);
                    let because = EndCause::ParentEnded { parent: ended.accessor.clone() };
                    let accessor = match self.tokens.revoke_one(&child, Children::AreRevoked, &because).await? {
                        Ended::Whole => continue,
                        Ended::Itself(accessor) => accessor,
                        Ended::Before => String::new(),
                    };
                    crate::fail::point("child-buried");
                    open.push(Ending { token: child, accessor, child: None });
                }
                None => {
                    let Some(Ending { token, accessor, .. }) = open.pop() else { break };
                    self.tokens.empty_cubbyhole(&token).await?;
                    self.mark_secrets_of(&token, &EndCause::TokenEnded { token: accessor.clone() }).await?;
                    self.remove_token_row(&token, accessor).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends every token that logins at one auth mount have made, with what descends from them and all their leases. The mount is
    /// tainted already: no login makes another one. A second call goes on where the first one failed.
    ///
    /// # Errors
    /// As storage.
    pub async fn end_tokens_of(&self, mount: &MountAccessor, cause: &EndCause) -> Result<(), LeaseError> {
        let filter =
            LeaseFilter { mount: Some(mount.clone()), kind: Some(super::LeaseKind::Token), ..LeaseFilter::default() };
        for row in self.rows(&filter).await? {
            self.end_token(&row.token, Children::AreRevoked, cause).await?;
        }
        // Batch tokens are stored nowhere and have ended with the mount; their leases have not.
        Ok(self.mark_secrets_of(&self.tokens.batch_tokens_of(mount), cause).await?)
    }

    /// The row of a token whose children and leases have all been dealt with. What a wrapping token stood for ends first.
    async fn remove_token_row(&self, token: &TokenHash, accessor: String) -> Result<(), LeaseError> {
        let filter = LeaseFilter {
            token: Some(token.clone()),
            kind: Some(super::LeaseKind::Token),
            state: Some(LeaseState::Revoking),
            ..LeaseFilter::default()
        };
        for row in self.rows(&filter).await? {
            if let Some(wrapped) = row.opened_body().and_then(|body| body.wrapped) {
                self.end_unread(wrapped, &EndCause::Unread { wrapping: accessor.clone() }).await?;
                crate::fail::point("unread-ended");
            }
            match self.storage.commit(Batch::new().remove(row.id.clone(), row.fence)).await {
                // The ticker took it in this moment: it will find nothing left to do, and remove it.
                Ok(()) | Err(StorageError::Fenced(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }

    /// Ends what an answer hands out that nobody has unwrapped.
    async fn end_unread(&self, wrapped: Wrapped, cause: &EndCause) -> Result<(), LeaseError> {
        if let Some(lease) = &wrapped.lease {
            self.queue_revocation(lease, cause).await?;
        }
        match &wrapped.token {
            // It is no wrapping token itself: this goes no deeper.
            Some(token) => Box::pin(self.end_token(token, Children::AreRevoked, cause)).await,
            None => Ok(()),
        }
    }

    /// A claimed token row that fell due: expired, used up, or left behind by a crash.
    pub(super) async fn end_due_token(&self, row: LeaseRow) -> Result<(), LeaseError> {
        let token = row.token.clone();
        let mut cause =
            row.read_body().ok().and_then(|body| body.ending).map_or(EndCause::Unknown, |ending| ending.cause);
        if row.state == LeaseState::Active {
            let fence = row.fence;
            let due = row.expires_at;
            cause = EndCause::Expired;
            if due > self.now() {
                if !self.tokens.is_used_up(&token).await? {
                    return Ok(self
                        .storage
                        .commit(Batch::new().shift(row.released(due), LeaseState::Active, fence))
                        .await?);
                }
                cause = EndCause::UsedUp;
            }
            // Both are refused when it was renewed since the claim: whoever was told so must keep it.
            if self.tokens.end_whole(&row, &cause).await? {
                return Ok(());
            }
            let since = due.min(self.now());
            let ending = LeaseRow { state: LeaseState::Revoking, ..row }.ending(&cause, since);
            self.storage.commit(Batch::new().shift(ending, LeaseState::Active, fence)).await?;
        }
        self.end_token(&token, Children::AreRevoked, &cause).await
    }
}
