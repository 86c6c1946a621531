//! Issuing: durable intent, effect, commit. A crash after the intent leaves a row that falls due and is undone.

use leasehold_model::{LeaseId, TokenHash, Ttl};

use super::{EFFECT_TIME, LeaseBody, LeaseError, LeaseKind, LeaseRow, LeaseState, Leases};
use crate::keys;
use crate::mount::MountEntry;
use crate::random;
use crate::request::LeaseAnswer;
use crate::seams::{Batch, Expect, LeasePlan, SecretData, StorageError};
use crate::token::store::{encode, least};

/// What is to be issued, and for whom.
#[derive(Debug)]
pub struct Order<'a> {
    /// The request's path: the lease's name begins with it.
    pub path: &'a str,
    pub token: &'a TokenHash,
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
    pub async fn issue(&self, order: Order<'_>) -> Result<Issued, LeaseError> {
        let Order { path, token, mount, plan, ceiling } = order;
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
        let deadline = now + EFFECT_TIME;
        let body = LeaseBody {
            issued_at: now,
            last_renewed_at: None,
            max_expires_at: now + max,
            ttl,
            renewable: plan.renewable,
            effect: plan.effect,
            attempts: 0,
            last_error: None,
        };
        let row = LeaseRow {
            id: id.clone(),
            kind: LeaseKind::Secret,
            state: LeaseState::Issuing,
            // Nobody commits it: it falls due and is undone.
            next_at: deadline,
            expires_at: now + ttl,
            fence: 1,
            holder: Some(self.holder.clone()),
            held_until: Some(deadline),
            token: token.clone(),
            mount: mount.accessor.clone(),
            connection: plan.connection.clone(),
            body: encode(&body)?,
        };
        self.refuse_if_down(&plan.connection)?;

        let intent = Batch::new().check(keys::token(token), Expect::Present).insert(row.clone());
        match self.storage.commit(intent).await {
            Ok(()) => {}
            Err(StorageError::Conflict(_)) => return Err(LeaseError::TokenGone),
            Err(other) => return Err(other.into()),
        }
        crate::fail::point("after-intent");

        let intent = row.intent(&body, deadline);
        let limit = std::time::Duration::from_secs(EFFECT_TIME.as_secs());
        let data = match tokio::time::timeout(limit, engine.effect(&context, &intent)).await {
            Ok(Ok(data)) => data,
            Ok(Err(error)) => {
                self.note_target(&plan.connection, &error);
                self.take_back(row).await;
                return Err(LeaseError::Engine(error.to_string()));
            }
            Err(_) => {
                self.take_back(row).await;
                return Err(LeaseError::Engine("the database did not answer in time".to_owned()));
            }
        };
        crate::fail::point("after-effect");

        let active = LeaseRow { state: LeaseState::Active, ..row.clone() }.released(row.expires_at);
        if let Err(error) = self.storage.commit(Batch::new().shift(active, LeaseState::Issuing, row.fence)).await {
            match error {
                // Its token was revoked meanwhile: the row is Revoking and waits for our deadline. We are done, so it need not wait.
                StorageError::Fenced(_) => self.hurry(&id).await,
                // Whether this was written is unknown; the row falls due either way.
                _ => self.take_back(row).await,
            }
            return Err(error.into());
        }
        crate::fail::point("after-commit");
        self.wake.notify_one();
        metrics::counter!("leasehold_leases_issued_total", "mount" => mount.path.to_string()).increment(1);
        Ok(Issued { lease: LeaseAnswer { id, renewable: body.renewable, ttl }, data, warnings })
    }

    /// Undoes an issue that failed: now if possible, else the ticker does.
    async fn take_back(&self, row: LeaseRow) {
        let fence = row.fence;
        let revoking = LeaseRow { state: LeaseState::Revoking, ..row };
        match self.storage.commit(Batch::new().shift(revoking.clone(), LeaseState::Issuing, fence)).await {
            Ok(()) => {
                // The outcome is stored with the row and logged; the caller's own error is what the client hears.
                let _ = self.undo(revoking).await;
            }
            Err(error) => {
                tracing::warn!(lease.id = %revoking.id, %error, "could not take back lease {}: it falls due at its deadline", revoking.id);
            }
        }
    }

    /// Lets a row in `Revoking` that waits for a deadline be worked on at once.
    async fn hurry(&self, id: &LeaseId) {
        if let Ok(Some(row)) = self.storage.lease(id).await
            && row.state == LeaseState::Revoking
        {
            let fence = row.fence;
            let now = self.now();
            let hurried = LeaseRow { fence: fence + 1, ..row }.released(now);
            // Lost to another worker: then it is being worked on already.
            let _ = self.storage.commit(Batch::new().shift(hurried, LeaseState::Revoking, fence)).await;
            self.wake.notify_one();
        }
    }
}

/// The field's warning for a TTL beyond its maximum.
#[must_use]
pub fn capped(wanted: Ttl, max: Ttl) -> String {
    format!("TTL of \"{wanted}\" exceeded the effective max_ttl of \"{max}\"; TTL value is capped accordingly")
}
