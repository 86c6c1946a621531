//! Whether a write creates something or changes it: where a route tells the two apart, so do policies.

use std::sync::Arc;

use leasehold_model::Operation;

use crate::api::backend::Matched;
use crate::api::trace::RequestTrace;
use crate::core::{Core, Unsealed};
use crate::fields::Fields;
use crate::request::LogicalRequest;
use crate::routes::Captures;
use crate::seams::auth::AuthRequest;
use crate::seams::engine::EngineRequest;
use crate::seams::error::RequestError;
use crate::seams::storage::StorageError;
use crate::token::Caller;

impl Core {
    /// A write is an update, unless its route asks and nothing is there yet.
    pub(super) async fn create_or_update(
        self: &Arc<Self>,
        unsealed: &Unsealed,
        request: &LogicalRequest,
        matched: Option<&Matched>,
        trace: &RequestTrace,
    ) -> Result<Operation, RequestError> {
        if let (Operation::Update, Some(Matched::Auth(method, found))) = (request.operation, matched)
            && let Some(entry) = trace.mount.as_deref().filter(|_| found.route.existence_check)
        {
            let asked = AuthRequest {
                context: unsealed.methods.context(entry),
                operation: Operation::Update,
                pattern: found.route.pattern,
                captures: found.captures.clone(),
                fields: Fields::default(),
                client: None,
                certificate: None,
            };
            return Ok(if method.exists(&asked).await? { Operation::Update } else { Operation::Create });
        }
        if let (Operation::Update, Some(Matched::System(found)), Some(caller)) =
            (request.operation, matched, &trace.caller)
            && found.route.existence_check
        {
            let kind = trace.mount.as_ref().map_or("", |mount| mount.kind.as_str());
            let exists = exists(kind, unsealed, caller, &found.captures).await?;
            return Ok(if exists { Operation::Update } else { Operation::Create });
        }
        let (Operation::Update, Some(Matched::Secrets(engine, found))) = (request.operation, matched) else {
            return Ok(request.operation);
        };
        let Some(entry) = trace.mount.as_deref().filter(|_| found.route.existence_check) else {
            return Ok(Operation::Update);
        };
        // Fields are not looked at: the path alone says what the write is about.
        let asked = EngineRequest {
            context: unsealed.engines.context(entry),
            operation: Operation::Update,
            path: request.path.clone(),
            captures: found.captures.clone(),
            fields: Fields::default(),
            display_name: String::new(),
            has_sudo: false,
        };
        Ok(if engine.exists(&asked).await? { Operation::Update } else { Operation::Create })
    }
}

/// Whether a write to a route of the server itself that tells creation from change would replace something.
async fn exists(kind: &str, unsealed: &Unsealed, caller: &Caller, captures: &Captures) -> Result<bool, StorageError> {
    match kind {
        "cubbyhole" => super::cubbyhole::exists(unsealed, caller, captures).await,
        _ => super::token::roles::exists(unsealed, captures).await,
    }
}
