//! What became of mounts that were moved: known until the server is sealed, as in Vault.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use leasehold_model::MountPath;

/// How many moves are remembered.
const MOVES_MAX: usize = 1_000;

/// How far a move has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveStatus {
    pub from: MountPath,
    pub to: MountPath,
    /// `in-progress`, `success` or `failure`.
    pub state: &'static str,
}

impl MoveStatus {
    #[must_use]
    pub fn begun(from: &MountPath, to: &MountPath) -> Self {
        Self { from: from.clone(), to: to.clone(), state: "in-progress" }
    }
}

/// The last moves, by their ids.
#[derive(Debug, Default)]
pub struct Moves(Mutex<VecDeque<(String, MoveStatus)>>);

impl Moves {
    /// Remembers a move as it stands now.
    pub fn note(&self, id: &str, status: MoveStatus) {
        let mut moves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moves.retain(|(known, _)| known != id);
        moves.push_back((id.to_owned(), status));
        if moves.len() > MOVES_MAX {
            moves.pop_front();
        }
    }

    #[must_use]
    pub fn find(&self, id: &str) -> Option<MoveStatus> {
        let moves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moves.iter().find(|(known, _)| known == id).map(|(_, status)| status.clone())
    }
}
