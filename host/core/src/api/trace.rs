//! What is known of a request while it is answered, and what audit and the log say of it.
//!
//! Must not know: how anything was decided. It only carries what [`super::pipeline`] found out.
//!
//! Start with [`RequestTrace`].
//!
//! Invariant: the body of a request whose token does not live has no place in audit.

use std::sync::Arc;

use leasehold_model::{Capabilities, Operation, Ttl};

use crate::api::control_group::Release;
use crate::audit::{Entry, Phase};
use crate::core::{Core, Unsealed};
use crate::mount::MountEntry;
use crate::policy::egp::Judgement;
use crate::request::{LogicalRequest, LogicalResponse};
use crate::seams::error::RequestError;
use crate::seams::sandbox::{SandboxError, Verdict};
use crate::token::Caller;

/// What is known of a request so far: audit wants it whether or not the request goes on.
#[derive(Default)]
pub(super) struct RequestTrace {
    /// The path came with a slash at its end, which is no longer there: as it came.
    pub(super) as_sent: Option<String>,
    pub(super) operation: Option<Operation>,
    pub(super) caller: Option<Caller>,
    pub(super) mount: Option<Arc<MountEntry>>,
    pub(super) verdict: Option<Verdict>,
    pub(super) judgements: Vec<Judgement>,
    /// The least ceiling of the policy modules.
    pub(super) ceiling: Option<Ttl>,
    /// The token lives, or the route needs none: only then is the body worth a place in audit.
    pub(super) is_known: bool,
    /// The request has waited for approval and is being carried out.
    pub(super) release: Option<Release>,
}

impl RequestTrace {
    /// The rule that decided carries `sudo`, or the caller is root.
    pub(super) fn has_sudo(&self) -> bool {
        self.caller.as_ref().is_some_and(Caller::is_root)
            || self.verdict.as_ref().is_some_and(|verdict| verdict.capabilities.contains(Capabilities::SUDO))
    }
}

impl Core {
    /// Writes a record of the request to every audit device, before it is carried out or before it is answered.
    ///
    /// # Errors
    /// Devices are enabled, and none of those that count took the record.
    pub(super) async fn record(
        &self,
        unsealed: &Unsealed,
        request: &LogicalRequest,
        trace: &RequestTrace,
        phase: Phase,
        response: Option<&LogicalResponse>,
        error: Option<&RequestError>,
    ) -> Result<(), RequestError> {
        if !unsealed.audit.is_enabled() {
            return Ok(());
        }
        let error = error.map(RequestError::bare).and_then(|error| match error {
            // That nothing is there is an answer like any other, in Vault too.
            RequestError::NotFound => None,
            RequestError::Sandbox(cause) => Some(format!("{error}: {cause}")),
            RequestError::LoginRefused { reason, .. } | RequestError::LoginDenied { reason } => {
                Some(format!("{error}: {reason}"))
            }
            // As the client reads it.
            RequestError::Denied | RequestError::DeniedByModule { .. } => {
                Some(format!("1 error occurred:\n\t* {error}\n\n"))
            }
            other => Some(other.to_string()),
        });
        let entry = Entry {
            phase,
            at: self.seams.clock.now(),
            request,
            operation: trace.operation.unwrap_or(request.operation),
            caller: trace.caller.as_ref(),
            mount: trace.mount.as_deref(),
            verdict: trace.verdict.as_ref(),
            judgements: &trace.judgements,
            acl_digest: &unsealed.acl_digest,
            response,
            error: error.as_deref(),
            shows_data: trace.is_known,
            headers: &unsealed.audit.pick_headers(&request.headers),
        };
        unsealed.audit.record(&entry).await
    }
}

/// Client errors are the client's business; what broke goes to the log with its whole chain, once.
pub(super) fn log(request: &LogicalRequest, error: &RequestError) {
    let chain = || {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        text
    };
    match error.bare() {
        RequestError::Sandbox(SandboxError::Busy) => {}
        RequestError::Storage(_) | RequestError::Sandbox(_) | RequestError::Internal(_) | RequestError::Audit => {
            tracing::error!(request.id, request.path, "request {} failed: {}", request.id, chain());
        }
        RequestError::Engine(_) => {
            tracing::warn!(request.id, request.path, "request {} failed: {}", request.id, chain())
        }
        _ => {}
    }
}
