//! What became of mounts that were moved: stored, so that every server can say it.

use std::sync::Arc;

use leasehold_model::{MountAccessor, MountPath, Timestamp, Ttl};
use serde::{Deserialize, Serialize};

use crate::codec::{decode, encode};
use crate::keys;
use crate::mount::MountEntry;
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
    /// The mount, and since when it moves. None: an older server began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<(MountAccessor, Timestamp)>,
}

/// Within this time of its beginning a move closes its mount, or fails.
const CLOSES_WITHIN: Ttl = Ttl::from_secs(60);

impl Move {
    /// How far it has come, by what is mounted now. A server that was killed or sealed in the middle of a move, or whose last word was
    /// lost, says nothing more of it.
    #[must_use]
    pub fn state_by(&self, mounts: &[Arc<MountEntry>], now: Timestamp) -> MoveState {
        if self.state != MoveState::InProgress {
            return self.state;
        }
        let Some((mount, begun_at)) = &self.begun else { return MoveState::InProgress };
        match mounts.iter().find(|entry| entry.accessor == *mount) {
            None => MoveState::Failure,
            Some(entry) if entry.tainted => MoveState::InProgress,
            Some(entry) if entry.path == self.to => MoveState::Success,
            Some(_) if *begun_at + CLOSES_WITHIN < now => MoveState::Failure,
            Some(_) => MoveState::InProgress,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::Table;
    use crate::testing::CountingEntropy;

    #[test]
    fn a_move_of_which_nothing_more_was_heard_is_judged_by_what_is_mounted() {
        let at = |path: &str, tainted: bool| {
            let mut entry = MountEntry::new(Table::Mount, path.parse().unwrap(), "kv", &CountingEntropy::default());
            entry.tainted = tainted;
            vec![Arc::new(entry)]
        };
        // Of the same entropy all are one mount.
        let accessor = at("a/", false)[0].accessor.clone();
        let (begun, soon, late) =
            (Timestamp::from_secs(1_000), Timestamp::from_secs(1_010), Timestamp::from_secs(1_100));
        let moving = Move {
            id: String::new(),
            from: "a/".parse().unwrap(),
            to: "b/".parse().unwrap(),
            state: MoveState::InProgress,
            begun: Some((accessor, begun)),
        };
        for (mounts, now, wanted) in [
            (at("a/", false), soon, MoveState::InProgress),
            (at("a/", false), late, MoveState::Failure),
            // Its leases may take long to end.
            (at("a/", true), late, MoveState::InProgress),
            (at("b/", true), soon, MoveState::InProgress),
            (at("b/", false), soon, MoveState::Success),
            // It was unmounted, and another one may stand in its place.
            (Vec::new(), soon, MoveState::Failure),
        ] {
            assert_eq!(moving.state_by(&mounts, now), wanted, "{mounts:?}");
        }
        let failed = Move { state: MoveState::Failure, ..moving };
        assert_eq!(failed.state_by(&at("b/", false), soon), MoveState::Failure, "what was said stands");
    }
}
