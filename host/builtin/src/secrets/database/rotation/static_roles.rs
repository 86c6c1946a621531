//! Which password a reader of a static role gets while it is not certain which one works.
//!
//! Must not know: HTTP, SQL, or how a password is changed.
//!
//! Start with [`DatabaseEngine::resolve_static`].
//!
//! Invariant: no password is tried where it was not set or written for.

use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::StorageError;
use secrecy::SecretString;

use super::super::postgresql::logins::Login;
use super::super::static_role::StaticRole;
use super::super::{DatabaseEngine, connection::ConnectionRecord};
use super::kept::{Kept, Record};

impl DatabaseEngine {
    /// The role with the password that its user has, as far as a login tells: only where it is not certain.
    pub(in super::super) async fn resolve_static(
        &self,
        at: &EngineContext,
        kept: Kept,
        connection: &ConnectionRecord,
    ) -> Result<StaticRole, RequestError> {
        let Record::Static(role) = &kept.record else {
            return Err(RequestError::Internal("a connection is no static role".to_owned()));
        };
        let as_stored = || Ok((**role).clone());
        if role.rotation.is_certain() || role.rotation.is_in_flight(at.clock.now()) || !role.is_bound_to(connection) {
            return as_stored();
        }
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
    match settled.record {
        Record::Static(role) => Ok(*role),
        Record::Root(_) => Err(RequestError::Internal("a connection is no static role".to_owned())),
    }
}
