//! Which password a reader of a static role gets while it is not certain which one works.
//!
//! Must not know: HTTP, SQL, or how a password is changed.
//!
//! Start with [`DatabaseEngine::resolve_static`].
//!
//! Invariants: no password is tried where it was not set or written for. However many readers there are, one at a time asks the database
//! for one role, and none again within [`LOOK_AGE_MAX`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::StorageError;
use secrecy::SecretString;

use super::super::postgresql::logins::Login;
use super::super::static_role::StaticRole;
use super::super::{DatabaseEngine, TargetId, connection::ConnectionRecord};
use super::kept::{Kept, Record};

/// How long an answer of the database counts, as long as nobody writes the role.
const LOOK_AGE_MAX: Duration = Duration::from_secs(5);
/// So many are remembered before the old ones are forgotten.
const LOOKS_MAX: usize = 1_024;

/// When the database was asked which password of a static role works.
#[derive(Default)]
pub(in super::super) struct Looks(Mutex<HashMap<TargetId, Arc<tokio::sync::Mutex<Option<Look>>>>>);

/// The version of the role for which the database was asked, and when.
struct Look {
    version: u64,
    at: Duration,
}

impl Looks {
    /// Whoever holds it asks.
    fn of(&self, id: TargetId) -> Arc<tokio::sync::Mutex<Option<Look>>> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() >= LOOKS_MAX {
            looks.retain(|_, look| Arc::strong_count(look) > 1);
        }
        Arc::clone(looks.entry(id).or_default())
    }
}

impl DatabaseEngine {
    /// The role with the password that its user has, as far as a login tells: only where it is not certain.
    pub(in super::super) async fn resolve_static(
        &self,
        at: &EngineContext,
        kept: Kept,
        connection: &ConnectionRecord,
    ) -> Result<StaticRole, RequestError> {
        let is_clear = |role: &StaticRole| {
            let rotation = &role.rotation;
            rotation.is_certain() || rotation.is_in_flight(at.clock.now()) || !role.is_bound_to(connection)
        };
        if let Record::Static(role) = &kept.record
            && is_clear(role)
        {
            return Ok((**role).clone());
        }
        let look = self.looks.of((at.mount.accessor.clone(), kept.subject.name().to_owned()));
        let mut last = look.lock().await;
        // Whoever asked before may have stored what they found.
        let subject = kept.subject.clone();
        let kept = Kept::load(at, &subject).await?.unwrap_or(kept);
        let is_fresh = last.as_ref().is_some_and(|last| {
            last.version == kept.version && at.clock.steady().saturating_sub(last.at) < LOOK_AGE_MAX
        });
        if is_fresh {
            return static_of(kept);
        }
        let version = kept.version;
        let answer = self.ask_which_works(at, kept).await;
        *last = Some(Look { version, at: at.clock.steady() });
        answer
    }

    async fn ask_which_works(&self, at: &EngineContext, kept: Kept) -> Result<StaticRole, RequestError> {
        let Record::Static(role) = &kept.record else { return static_of(kept) };
        let as_stored = || Ok((**role).clone());
        // An answer from the store, be it the wrong one of two, is better than none: the target may be down.
        let Ok(opened) = self.open(at, &role.db_name).await else { return as_stored() };
        if !role.is_bound_to(&opened.record) {
            return as_stored();
        }
        for (place, password) in kept.passwords().into_iter().enumerate() {
            match opened.target.try_login(&role.username, &password).await {
                Ok(Login::Wrong) => {}
                Ok(Login::Right) if place == 0 && role.password.is_some() => return as_stored(),
                Ok(Login::Right) => return found(at, &kept, password).await,
                Ok(Login::Unasked | Login::NotLetIn) | Err(_) => return as_stored(),
            }
        }
        as_stored()
    }
}

/// Stores that this is the password that works.
async fn found(at: &EngineContext, kept: &Kept, password: SecretString) -> Result<StaticRole, RequestError> {
    let mut settled = kept.clone();
    if let Some(old) = settled.take_current(password) {
        settled.rotation_mut().doubt(old);
    }
    let settled = match settled.store(at).await {
        Ok(()) => settled,
        // Somebody has settled it: that is what counts.
        Err(StorageError::Conflict(_)) => Kept::load(at, &kept.subject).await?.unwrap_or(settled),
        Err(error) => return Err(error.into()),
    };
    static_of(settled)
}

fn static_of(kept: Kept) -> Result<StaticRole, RequestError> {
    match kept.record {
        Record::Static(role) => Ok(*role),
        Record::Root(_) => Err(RequestError::Internal("a connection is no static role".to_owned())),
    }
}
