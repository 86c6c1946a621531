//! Ends one lease: by the statements of its issue, by those that its role has now, or by the default revocation.
//!
//! Must not know: SQL. Start with [`Ending::carry_out`]; what each way does stands in `postgresql/revoke.rs`.
//!
//! Invariant: a lease that counts as ended has no role that can log in and no session.

use std::time::Duration;

use leasehold_core::seams::engine::EngineContext;
use tokio_postgres::error::SqlState;

use super::connection::Leftovers;
use super::effect::Effect;
use super::postgresql::failure::TargetError;
use super::postgresql::pool::ConnectionPool;
use super::postgresql::revoke::{self, End, Theirs};
use super::postgresql::role_identity::RoleIdentity;
use super::postgresql::verify_absent::{self, Origin};
use super::postgresql::{ownership_comment, transaction};

/// The end of one lease.
pub(super) struct Ending<'a> {
    pub(super) at: &'a EngineContext,
    pub(super) effect: &'a Effect,
    /// The random part of its name.
    pub(super) lease: &'a str,
    pub(super) target: &'a ConnectionPool,
    pub(super) leftovers: Leftovers,
    /// How long the operator's statements may take, where their role says so.
    pub(super) statement_max: Option<Duration>,
}

impl Ending<'_> {
    /// By the statements of the issue; when they fail for good, by those that the role has now; when these fail too, by ours.
    pub(super) async fn carry_out(&self) -> Result<(), TargetError> {
        let issued = self.effect.revocation.as_slice();
        let error = match self.revoke(issued).await {
            Err(error) if error.is_of_statement() && error.is_refusal() => error,
            done => return done.map(drop),
        };
        let present = self.present_statements().await.filter(|present| !present.is_empty() && present != issued);
        let error = match present {
            // Statements that were wrong when the lease was issued may have been put right since.
            Some(present) => match self.revoke(&present).await {
                Err(error) if error.is_of_statement() && error.is_refusal() => error,
                done => return done.map(drop),
            },
            None => error,
        };
        tracing::warn!(
            role = self.effect.username,
            %error,
            "the revocation statements for role {:?} fail: it is ended by the default revocation instead",
            self.effect.username
        );
        match self.revoke(&[]).await {
            // What they were to undo is not a role, so that ours have undone nothing.
            Ok(End::Absent) if !self.effect.creates_role() => Err(error),
            Ok(_) => Ok(()),
            Err(ours) => Err(error.note(format!("the default revocation, tried next, failed too: {ours}"))),
        }
    }

    fn theirs<'a>(&self, texts: &'a [String]) -> Theirs<'a> {
        Theirs { texts, statement_max: self.statement_max }
    }

    async fn revoke(&self, statements: &[String]) -> Result<End, TargetError> {
        let (name, installation) = (self.effect.username.as_str(), self.at.mount.installation.as_str());
        match revoke::revoke(self.target, &RoleIdentity::named(name), self.theirs(statements), &self.leftovers).await? {
            End::Gone => return Ok(End::Gone),
            End::Kept => {
                tracing::info!(
                    role = name,
                    "role {name:?} stays, without login and session, as its revocation statements say"
                );
                ownership_comment::keep(self.target, name, installation, self.lease).await;
                return Ok(End::Kept);
            }
            End::Absent => {}
        }
        let origin = Origin {
            name,
            mark: ownership_comment::comment(installation, self.lease),
            server: self.effect.server.as_deref(),
        };
        let Some(renamed) = verify_absent::find(self.target, &origin).await? else {
            return self.undo_without_role(statements).await.map(|()| End::Absent);
        };
        tracing::warn!(role = renamed.name, was = origin.name, "a leased role had been renamed");
        let subject = RoleIdentity::found(&renamed, installation);
        revoke::revoke(self.target, &subject, self.theirs(&[]), &self.leftovers).await
    }

    /// What creation statements make that do not say CREATE ROLE is not known here: a function may have made anything. So what undoes it
    /// runs, although no role stands.
    async fn undo_without_role(&self, statements: &[String]) -> Result<(), TargetError> {
        if statements.is_empty() || self.effect.creates_role() {
            return Ok(());
        }
        let name = &self.effect.username;
        match transaction::run(self.target, name, transaction::REVOCATION, statements, self.statement_max).await {
            // It has been undone before, or was never done.
            Err(error) if error.is_code(&SqlState::UNDEFINED_OBJECT) => Ok(()),
            done => done,
        }
    }

    /// The role's revocation statements as they are now; `None` when there is no such role any more, or they do not render.
    async fn present_statements(&self) -> Option<Vec<String>> {
        let role = super::role(&self.at.storage, &self.effect.role).await.ok()??;
        let name = self.effect.username.as_str();
        role.revocation.rendered(&*self.at.templates, &[("name", name), ("username", name)], "revocation").await.ok()
    }
}
