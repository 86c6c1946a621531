//! What is to be thought of a role that does not stand under its name: that it is gone must be known, not supposed.

use leasehold_core::seams::engine::OwnedRole;
use tokio_postgres::error::SqlState;

use super::failure::TargetError;
use super::locks;
use super::pool::{ANSWER_MAX, ConnectionPool};
use super::sql::{ident, literal, rows};

/// What made the role that is looked for.
pub(crate) struct Origin<'a> {
    pub(crate) name: &'a str,
    /// Its mark.
    pub(crate) mark: String,
    /// The server it was made on, where that was known.
    pub(crate) server: Option<&'a str>,
}

/// The same role under another name, if somebody renamed it; `None`: it is gone.
///
/// # Errors
/// Also when it may still be there: on another server, or about to be made by a transaction that has not ended.
pub(crate) async fn find(target: &ConnectionPool, origin: &Origin<'_>) -> Result<Option<OwnedRole>, TargetError> {
    if let Some(made_on) = origin.server
        && let Some(found) = target.identity().await?
        && found != made_on
    {
        return Err(TargetError::Refused(format!(
            "role {:?} was made on another server than the connection leads to now (system identifier {made_on}, not {found})",
            origin.name
        )));
    }
    match renamed(target, origin).await? {
        Some(role) => Ok(Some(role)),
        None => nobody_is_making(target, origin.name).await.map(|()| None),
    }
}

async fn renamed(target: &ConnectionPool, origin: &Origin<'_>) -> Result<Option<OwnedRole>, TargetError> {
    let sql = format!(
        "SELECT r.rolname, r.oid FROM pg_catalog.pg_shdescription d JOIN pg_catalog.pg_roles r ON r.oid = d.objoid \
         WHERE d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.description = {}",
        literal(&origin.mark)
    );
    let session = target.session().await?;
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    session.finish();
    Ok(rows(&answer).find_map(|row| match row.as_slice() {
        [Some(name), Some(oid)] => Some(OwnedRole {
            name: (*name).to_owned(),
            id: (*oid).to_owned(),
            lease: origin.mark.rsplit(':').next().unwrap_or_default().to_owned(),
        }),
        _ => None,
    }))
}

/// A commit that waits for a standby or a disk is not over and not to be seen. But who makes a role of the same name has to wait for it.
async fn nobody_is_making(target: &ConnectionPool, name: &str) -> Result<(), TargetError> {
    let session = target.session().await?;
    // Without a commit: the role that is made here never is.
    let wait = locks::WAIT.as_millis();
    let attempt = format!("BEGIN; SET LOCAL lock_timeout = {wait}; CREATE ROLE {} NOLOGIN", ident(name));
    match session.run(&attempt, ANSWER_MAX).await {
        Ok(_) => {
            session.run("ROLLBACK", ANSWER_MAX).await?;
            session.finish();
            Ok(())
        }
        // Who may not make roles has made none by himself either; an operator's function did, and that is over with its answer.
        Err(error) if error.is_code(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(()),
        Err(error) if error.is_code(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err(TargetError::Refused(format!("a transaction that makes role {name:?} has not ended")))
        }
        Err(error) => Err(error),
    }
}
