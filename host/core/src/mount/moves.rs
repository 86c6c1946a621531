//! What became of mounts that were moved: stored, so that every server can say it.

use std::sync::Arc;

use leasehold_model::MountPath;
use serde::{Deserialize, Serialize};

use crate::codec::{decode, encode};
use crate::keys;
use crate::seams::storage::{Batch, Expect, Storage, StorageError};

/// How many moves are remembered.
const MOVES_MAX: usize = 100;
/// How often the row is read again that others write at the same time.
const TRIES_MAX: u32 = 20;

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MoveState {
    InProgress,
    Success,
    Failure,
}

impl MoveState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in-progress",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub id: String,
    pub from: MountPath,
    pub to: MountPath,
    pub state: MoveState,
}

/// The last moves of all servers.
pub struct Moves(Arc<dyn Storage>);

impl std::fmt::Debug for Moves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Moves")
    }
}

impl Moves {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self(storage)
    }

    async fn read(&self) -> Result<(Vec<Move>, Expect), StorageError> {
        let row = keys::moves();
        match self.0.get(&row).await? {
            Some(found) => Ok((decode(row.as_str(), &found.value)?, Expect::Version(found.version))),
            None => Ok((Vec::new(), Expect::Absent)),
        }
    }

    /// Remembers a move as it stands now.
    ///
    /// # Errors
    /// As storage.
    pub async fn note(&self, noted: Move) -> Result<(), StorageError> {
        let mut tries = TRIES_MAX;
        loop {
            let (mut moves, expect) = self.read().await?;
            moves.retain(|known| known.id != noted.id);
            moves.drain(..(moves.len() + 1).saturating_sub(MOVES_MAX));
            moves.push(noted.clone());
            tries -= 1;
            match self.0.commit(Batch::new().put(keys::moves(), encode(&moves)?, expect)).await {
                Err(StorageError::Conflict(_)) if tries > 0 => {}
                other => return other,
            }
        }
    }

    /// # Errors
    /// As storage.
    pub async fn find(&self, id: &str) -> Result<Option<Move>, StorageError> {
        Ok(self.read().await?.0.into_iter().find(|known| known.id == id))
    }
}
