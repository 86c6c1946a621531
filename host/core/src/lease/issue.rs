//! Issuing: durable intent, effect, commit. A crash after the intent leaves a row that falls due and is undone.

use leasehold_model::{LeaseId, Timestamp, Ttl};

use super::revoke::Trigger;
use super::{
    EFFECT_GRACE, EFFECT_TIME, EndCause, LeaseBody, LeaseError, LeaseKind, LeaseRow, LeaseState, Leases, NO_ANSWER,
};
use crate::codec::encode;
use crate::keys;
use crate::mount::{MountEntry, Table};
use crate::random;
use crate::request::LeaseAnswer;
use crate::seams::engine::{Effected, EngineContext, EngineError, LeasePlan, SecretData, SecretsEngine};
use crate::seams::storage::{Batch, Expect, StorageError};
use crate::token::Leaseholder;
use crate::ttl::{capped, least};

/// What is to be issued, and for whom.
#[derive(Debug)]
pub struct IssueRequest<'a> {
    /// The request's path: the lease's name begins with it.
    pub path: &'a str,
    pub holder: Leaseholder<'a>,
    /// The id of whom the token stands for, who must be there and not be disabled.
    pub entity: Option<&'a str>,
    pub mount: &'a MountEntry,
    pub plan: LeasePlan,
    /// The least ceiling that policy modules put on this request.
    pub ceiling: Option<Ttl>,
}

/// An issued lease. The secret leaves only after audit has it.
#[derive(Debug)]
pub struct Issued {
    pub lease: LeaseAnswer,
    pub data: SecretData,
    pub warnings: Vec<String>,
}

impl Leases {
    /// Carries the whole saga out. Must run to its end once begun: the caller spawns it.
    ///
    /// # Errors
    /// Whatever failed; what had been done is undone now or, if that fails too, by the ticker.
    pub async fn issue(&self, order: IssueRequest<'_>) -> Result<Issued, LeaseError> {
        let IssueRequest { path, holder, entity, mount, plan, ceiling } = order;
        let id: LeaseId = format!("{path}/{}", random::base62(&*self.entropy, 24))
            .parse()
            .map_err(|_| LeaseError::Engine("request path is too long".to_owned()))?;
        let (engine, context) = self.engines.at(&mount.accessor).ok_or_else(|| LeaseError::NoEngine(id.clone()))?;

        let ttls = self.engines.ttls(mount);
        let wanted = plan.default_ttl.if_set().unwrap_or(ttls.default_lease_ttl);
        let max =
            least(&[plan.max_ttl, ttls.max_lease_ttl, ceiling.unwrap_or(Ttl::ZERO)]).unwrap_or(ttls.max_lease_ttl);
        let ttl = wanted.min(max);
        let mut warnings = plan.warnings;
        if wanted > max {
            warnings.push(capped(wanted, max));
        }

        let now = self.now();
        // Nobody notices when a batch token ends: what was issued to it must end by itself, renewed or not.
        let (expires_at, max_expires_at) = ((now + ttl).min(holder.until()), (now + max).min(holder.until()));
        if expires_at <= now {
            return Err(LeaseError::TokenGone);
        }
        let left = u64::try_from(expires_at.seconds_from(now)).unwrap_or(0);
        let deadline = match plan.effect_time {
            Some(time) => now + time,
            None => now + EFFECT_TIME,
        };
        let body = LeaseBody {
            wrapped: None,
            role: None,
            below: None,
            is_root: false,
            issued_at: now,
            last_renewed_at: None,
            max_expires_at,
            ttl,
            renewable: plan.renewable,
            effect: plan.effect,
            receipt: serde_json::Value::Null,
            attempts: 0,
            last_error: None,
            ending: None,
        };
        let row = LeaseRow {
            id: id.clone(),
            kind: LeaseKind::Secret,
            state: LeaseState::Issuing,
            // Nobody commits it: it falls due and is undone.
            next_at: deadline + EFFECT_GRACE,
            expires_at,
            fence: 1,
            holder: Some(self.claimant()),
            held_until: Some(deadline + EFFECT_GRACE),
            token: holder.token().clone(),
            mount: mount.accessor.clone(),
            connection: plan.connection.clone(),
            body: encode(&body)?,
        };
        self.refuse_if_down(&plan.connection)?;

        let token_key = holder.stored().map(keys::token);
        let mut intent = Batch::new();
        if let Some(key) = &token_key {
            intent = intent.check(key.clone(), Expect::Present);
        }
        if let Some(login) = holder.login() {
            intent = intent
                .check(keys::mount(Table::Auth.as_str(), login), Expect::Present)
                .check(keys::mount_taint(login), Expect::Absent);
        }
        let entity_keys = entity.map(|id| (keys::entity(id), keys::entity_disabled(id)));
        if let Some((entity, disabled)) = &entity_keys {
            intent = intent.check(entity.clone(), Expect::Present).check(disabled.clone(), Expect::Absent);
        }
        let made_of = |(name, expect): &(String, Expect)| (keys::mount_data(&mount.accessor, name), *expect);
        let made_of: Vec<_> = plan.made_of.iter().map(made_of).collect();
        let intent = made_of.iter().fold(intent, |intent, (key, expect)| intent.check(key.clone(), *expect));
        let intent = intent
            // The mount may be on its way out: what begins after its leases were listed would never be undone.
            .check(keys::mount(mount.table.as_str(), &mount.accessor), Expect::Present)
            .check(keys::mount_taint(&mount.accessor), Expect::Absent)
            .insert(row.clone());
        match self.storage.commit(intent).await {
            Ok(()) => {}
            Err(StorageError::Conflict(key)) if token_key.is_some_and(|token| token.as_str() == key) => {
                return Err(LeaseError::TokenGone);
            }
            Err(StorageError::Conflict(key)) if holder.login().is_some_and(|login| key.ends_with(login.as_str())) => {
                return Err(LeaseError::TokenGone);
            }
            Err(StorageError::Conflict(key))
                if entity_keys
                    .is_some_and(|(entity, disabled)| [entity.as_str(), disabled.as_str()].contains(&&*key)) =>
            {
                return Err(LeaseError::TokenGone);
            }
            Err(StorageError::Conflict(key)) if made_of.iter().any(|(made_of, _)| made_of.as_str() == key) => {
                return Err(LeaseError::PlanOutdated(id));
            }
            Err(StorageError::Conflict(_)) => return Err(LeaseError::NoEngine(id)),
            Err(other) => return Err(other.into()),
        }
        crate::fail::point("after-intent");

        let effected = self.run_effect(&*engine, &context, &row, &body, deadline).await?;
        crate::fail::point("after-effect");

        // From here on it is known what was made; an undoing gets it too.
        let (row, body) = match effected.receipt {
            serde_json::Value::Null => (row, body),
            receipt => {
                let body = LeaseBody { receipt, ..body };
                (LeaseRow { body: encode(&body)?, ..row }, body)
            }
        };
        let active = LeaseRow { state: LeaseState::Active, ..row.clone() }.released(row.expires_at);
        if let Err(error) = self.storage.commit(Batch::new().shift(active, LeaseState::Issuing, row.fence)).await {
            self.take_back(&*engine, &context, row, &body).await;
            return Err(match error {
                StorageError::Fenced(_) => LeaseError::Overtaken(id),
                other => other.into(),
            });
        }
        crate::fail::point("after-commit");
        self.target_is_up(&plan.connection);
        self.falls_due(row.expires_at);
        metrics::counter!("leasehold_leases_issued_total", "mount" => mount.path.to_string()).increment(1);
        let ttl = Ttl::from_secs(left);
        Ok(Issued { lease: LeaseAnswer { id, renewable: body.renewable, ttl }, data: effected.secret, warnings })
    }

    /// The effect, over by the deadline, or undone.
    async fn run_effect(
        &self,
        engine: &dyn SecretsEngine,
        context: &EngineContext,
        row: &LeaseRow,
        body: &LeaseBody,
        deadline: Timestamp,
    ) -> Result<Effected, LeaseError> {
        let intent = row.intent(body, deadline);
        let opening = self.opening(&row.connection);
        // A slow commit has used some of the time up.
        match tokio::time::timeout(deadline.since(self.now()), engine.effect(context, &intent)).await {
            Ok(Ok(effected)) => Ok(effected),
            Ok(Err(error)) => {
                self.note_target(&row.connection, opening, &error);
                match error {
                    EngineError::Failed(_) => self.take_back(engine, context, row.clone(), body).await,
                    EngineError::Unreached(_) | EngineError::Busy(_) => self.forget_intent(&row.id).await,
                    EngineError::Down(_) => self.leave_to_ticker(row.clone()).await,
                }
                Err(LeaseError::Engine(error.to_string()))
            }
            Err(_) => {
                self.leave_to_ticker(row.clone()).await;
                Err(LeaseError::Engine(NO_ANSWER.to_owned()))
            }
        }
    }

    /// Undoes an issue whose effect is over, with whatever outcome: now if possible, else the ticker does.
    async fn take_back(&self, engine: &dyn SecretsEngine, context: &EngineContext, row: LeaseRow, body: &LeaseBody) {
        let id = row.id.clone();
        loop {
            match self.try_take_back(engine, context, row.clone(), body).await {
                // It moved under our hands: look again.
                Err(StorageError::Fenced(_)) => {}
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(lease.id = %id, %error, "could not take back lease {id}: it falls due at its deadline");
                    return;
                }
            }
        }
    }

    async fn try_take_back(
        &self,
        engine: &dyn SecretsEngine,
        context: &EngineContext,
        row: LeaseRow,
        body: &LeaseBody,
    ) -> Result<(), StorageError> {
        match self.row(&row.id).await? {
            // Still ours, or made active by a commit that was said to have failed.
            Some(found) if found.fence == row.fence && found.state != LeaseState::Revoking => {
                let revoking = LeaseRow { state: LeaseState::Revoking, ..row }.ending(&EndCause::NotIssued, self.now());
                self.storage.commit(Batch::new().shift(revoking.clone(), found.state, found.fence)).await?;
                // The outcome is stored with the row and logged; the caller's own error is what the client hears.
                drop(self.undo(revoking, Trigger::Due).await);
                Ok(())
            }
            // Revoked meanwhile, with its token or its mount. Whoever undoes it already may have begun before our effect.
            Some(found) if found.state == LeaseState::Revoking => {
                let fence = found.fence;
                let hurried = LeaseRow { fence: fence + 1, ..found }.released(self.now());
                self.storage.commit(Batch::new().shift(hurried, LeaseState::Revoking, fence)).await?;
                self.wake.notify_one();
                Ok(())
            }
            // Claimed at its deadline: that worker undoes it.
            Some(_) => Ok(()),
            // Undone before our effect, which came too late, or forgotten by force: nobody else knows of it.
            None => {
                let id = &row.id;
                tracing::warn!(lease.id = %id, "lease {id} was gone before its effect: undoing that");
                let intent = row.intent(body, self.now() + EFFECT_TIME);
                let limit = std::time::Duration::from_secs(EFFECT_TIME.as_secs());
                match tokio::time::timeout(limit, engine.revoke(context, &intent)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(lease.id = %id, %error, "the late effect of lease {id} remains"),
                    Err(_) => {
                        tracing::error!(lease.id = %id, "the late effect of lease {id} remains: no answer in time")
                    }
                }
                Ok(())
            }
        }
    }

    /// Nothing was sent to the target, and nothing will be: there is nothing to undo, whoever has moved the row meanwhile.
    async fn forget_intent(&self, id: &LeaseId) {
        if let Err(error) = self.forget(id).await {
            tracing::warn!(lease.id = %id, %error, "could not remove lease {id}, which nothing was made for: it falls due");
        }
    }

    /// The target may still be at it: the row is undone after its deadline, when that cannot be.
    async fn leave_to_ticker(&self, row: LeaseRow) {
        let id = row.id.clone();
        let fence = row.fence;
        let revoking = LeaseRow { state: LeaseState::Revoking, ..row }.ending(&EndCause::NotIssued, self.now());
        // Otherwise it falls due as `Issuing`, at the same time and with the same end.
        if let Err(error) = self.storage.commit(Batch::new().shift(revoking, LeaseState::Issuing, fence)).await {
            tracing::warn!(lease.id = %id, %error, "could not mark lease {id}: it falls due at its deadline");
        }
    }
}
