//! What targets were asked for, and how long it took, under Vault's names (contract.md §7).

use leasehold_core::seams::engine::EngineError;
use tokio::time::Instant;

/// What is done to a user of a target.
#[derive(Clone, Copy)]
pub(super) enum DatabaseOperation {
    New,
    Update,
    Delete,
}

impl DatabaseOperation {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::New => ("vault.database.NewUser", "vault.database.NewUser.error"),
            Self::Update => ("vault.database.UpdateUser", "vault.database.UpdateUser.error"),
            Self::Delete => ("vault.database.DeleteUser", "vault.database.DeleteUser.error"),
        }
    }

    /// In milliseconds, as in Vault.
    pub(super) async fn measured<T>(
        self,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let (times, errors) = self.names();
        let began = Instant::now();
        let done = work.await;
        metrics::histogram!(times).record(began.elapsed().as_secs_f64() * 1e3);
        if done.is_err() {
            metrics::counter!(errors).increment(1);
        }
        done
    }
}
