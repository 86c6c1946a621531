//! What a secrets engine is asked, and the lease that it plans.
//!
//! Must not know: whether the request may be carried out (`pipeline` has asked by then), how a lease is kept.

use std::sync::Arc;

use leasehold_model::Operation;

use crate::api::call::lease_error;
use crate::api::trace::RequestTrace;
use crate::core::{Core, Unsealed};
use crate::fields::Fields;
use crate::lease::LeaseError;
use crate::lease::issue::IssueRequest;
use crate::metrics;
use crate::request::{LogicalRequest, LogicalResponse, Object};
use crate::routes::Captures;
use crate::seams::engine::{EngineHandler, EngineRequest, Outcome, SecretValue, SecretsEngine};
use crate::seams::error::RequestError;

/// How often a lease is planned anew because what it is made of was changed meanwhile.
const PLANS_MAX: u32 = 32;

impl Core {
    pub(super) async fn ask_engine(
        &self,
        unsealed: &Arc<Unsealed>,
        request: &LogicalRequest,
        trace: &RequestTrace,
        (engine, handle): (&Arc<dyn SecretsEngine>, EngineHandler),
        (operation, captures, fields): (Operation, Captures, Fields),
    ) -> Result<LogicalResponse, RequestError> {
        let (Some(caller), Some(mount)) = (&trace.caller, &trace.mount) else { return Err(RequestError::BadToken) };
        let asked = EngineRequest {
            context: unsealed.engines.context(mount),
            operation,
            path: request.path.clone(),
            captures,
            fields,
            display_name: caller.record.display_name.clone(),
            has_sudo: trace.has_sudo(),
        };
        let mut plans = PLANS_MAX;
        let issued = loop {
            let outcome = match handle(&**engine, &asked).await? {
                Outcome::Job { name, outcome } => {
                    // What the request asked for is done; the job comes by itself later at the latest.
                    if let Err(error) = unsealed.jobs.ask_for(name, Some(&mount.accessor)).await {
                        tracing::warn!(%error, "could not have job {name:?} of {} done at once", mount.path);
                    }
                    *outcome
                }
                outcome => outcome,
            };
            let plan = match outcome {
                Outcome::Answer(answer) => return Ok(answer),
                Outcome::Job { name, .. } => {
                    return Err(RequestError::Internal(format!(
                        "an engine asked for job {name:?} inside of another one"
                    )));
                }
                Outcome::Reopened { connection, answer } => {
                    unsealed.leases.reopened(&connection);
                    return Ok(answer);
                }
                Outcome::Lease(plan) => plan,
            };
            let order = IssueRequest {
                path: &request.path,
                holder: caller.leaseholder(),
                entity: caller.entity_id(),
                mount,
                plan,
                ceiling: trace.ceiling,
            };
            match unsealed.leases.issue(order).await {
                Err(LeaseError::PlanOutdated(_)) if plans > 0 => plans -= 1,
                issued => break issued.map_err(lease_error)?,
            }
        };
        metrics::lease_made(&unsealed.installation.cluster_name, mount, issued.lease.ttl);
        let data: Object = issued
            .data
            .0
            .into_iter()
            .map(|(name, value)| match value {
                SecretValue::Public(value) => (name, value),
                SecretValue::Secret(secret) => (name, secrecy::ExposeSecret::expose_secret(&secret).into()),
            })
            .collect();
        Ok(LogicalResponse {
            data: Some(data),
            lease: Some(issued.lease),
            warnings: issued.warnings,
            ..LogicalResponse::default()
        })
    }
}
