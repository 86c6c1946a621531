//! Opens the server without people, where the configuration names a seal that can.
//!
//! Must not know: what kind of seal that is. It asks, opens with the answer, and asks again later when there was none; whoever has
//! sealed the server by hand is not overruled.
//!
//! Start with [`Core::keep_unsealed`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::core::Core;
use crate::seams::seal::SealError;

/// Between two tries to open a server whose seal does not answer: doubled from the first to the last.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often a server looks whether another one over the same storage has initialised or moved it meanwhile.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct AutoUnseal {
    /// Somebody wants the server to be sealed.
    held: AtomicBool,
    woken: Notify,
}

impl AutoUnseal {
    /// The server stays sealed until it is released.
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::Release);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// What is stored is another thing now: it is to be tried at once.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }
}

/// What came of one try.
enum Attempt {
    /// The server is open, or is to stay closed: nothing is to be done before something changes.
    Done,
    /// People have to do something first.
    NeedsPeople,
    Failed(String),
}

impl Core {
    /// Opens the server whenever it is sealed and its seal can open it. Never ends; a server without such a seal waits for good.
    pub async fn keep_unsealed(&self) {
        let mut wait = RETRY_MIN;
        let mut is_said = false;
        loop {
            let woken = self.auto_unseal.woken.notified();
            match self.try_unseal().await {
                Attempt::Done => {
                    (wait, is_said) = (RETRY_MIN, false);
                    woken.await;
                }
                Attempt::NeedsPeople => {
                    if !std::mem::replace(&mut is_said, true) {
                        self.say_what_people_must_do().await;
                    }
                    let _ = tokio::time::timeout(LOOK, woken).await;
                }
                Attempt::Failed(why) => {
                    tracing::warn!(
                        "the server could not unseal itself: {why}; the next try is in {} s",
                        wait.as_secs()
                    );
                    let _ = tokio::time::timeout(wait, woken).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Once, for whoever has just initialised the server. [`Core::keep_unsealed`] goes on if that fails.
    pub(crate) async fn unseal_now(&self) {
        if let Attempt::Failed(why) = self.try_unseal().await {
            tracing::warn!("the server is initialised and could not unseal itself: {why}");
        }
    }

    async fn try_unseal(&self) -> Attempt {
        if self.unsealed().is_ok() || self.auto_unseal.is_held() {
            return Attempt::Done;
        }
        match self.seams.seal.fetch_key().await {
            Ok(()) => match self.open_with_fetched_key().await {
                Ok(()) => Attempt::Done,
                Err(error) => Attempt::Failed(error.to_string()),
            },
            Err(SealError::NotInitialized | SealError::ByShares) => {
                let status = self.seams.seal.status().await;
                // Without a seal of that kind, people do all of it.
                if status.is_ok_and(|status| status.recovery) { Attempt::NeedsPeople } else { Attempt::Done }
            }
            Err(error) => Attempt::Failed(error.to_string()),
        }
    }

    async fn say_what_people_must_do(&self) {
        if self.seams.seal.status().await.is_ok_and(|status| status.migration) {
            tracing::warn!(
                "another seal is configured than the one that what is stored was sealed with: run `leasehold operator unseal -migrate` to \
                 move to the new one. Until then the server does not unseal itself"
            );
        }
    }
}
