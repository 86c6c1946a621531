//! One function per request: token → route → exists? → policy → audit → handle → lease → audit → answer.
//!
//! What is decided where: `token` admits, `policy` judges, the engine plans, the lease module acts. This file
//! only keeps the order, and the order is the security of the whole.

use std::sync::{Arc, Mutex};

use leasehold_model::{Operation, Ttl};
use tokio::sync::oneshot;

use crate::audit::{Entry, Phase};
use crate::call::{Call, lease_error, module_request};
use crate::core::{Core, Unsealed};
use crate::fields::Fields;
use crate::lease::issue::IssueRequest;
use crate::metrics;
use crate::mount::MountEntry;
use crate::policy::egp::Judgement;
use crate::policy::{decide, egp_paths};
use crate::request::{LogicalRequest, LogicalResponse, Object, RequestError};
use crate::routes::{self, Access, Captures, Route};
use crate::seams::engine::{EngineRequest, Outcome, SecretValue, SecretsEngine};
use crate::seams::sandbox::{AclRequest, SandboxError, Verdict};
use crate::sys;
use crate::token::{self, Caller};

/// What is known of a request so far: audit wants it whether or not the request goes on.
#[derive(Default)]
struct RequestTrace {
    /// The path came with a slash at its end, which is no longer there: as it came.
    as_sent: Option<String>,
    operation: Option<Operation>,
    caller: Option<Caller>,
    mount: Option<Arc<MountEntry>>,
    verdict: Option<Verdict>,
    judgements: Vec<Judgement>,
    /// The least ceiling of the policy modules.
    ceiling: Option<Ttl>,
}

/// A request that may go on.
struct Admitted {
    backend: Backend,
    route: Route,
    captures: Captures,
    path: String,
}

#[derive(Clone)]
enum Backend {
    System,
    Token,
    Engine(Arc<dyn SecretsEngine>),
}

impl Backend {
    fn of(entry: &MountEntry, unsealed: &Unsealed) -> Option<Self> {
        match entry.kind.as_str() {
            "system" => Some(Self::System),
            "token" => Some(Self::Token),
            kind => unsealed.engines.of_kind(kind).cloned().map(Self::Engine),
        }
    }

    fn routes(&self) -> &[Route] {
        match self {
            Self::System => sys::ROUTES,
            Self::Token => token::routes::ROUTES,
            Self::Engine(engine) => engine.routes(),
        }
    }
}

impl Core {
    /// Answers one request. Work that must finish, finishes, whether or not the client still listens.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn handle(self: &Arc<Self>, request: LogicalRequest) -> Result<LogicalResponse, RequestError> {
        if let Some(answer) = sys::before_unseal(self, &request).await {
            if let Err(error) = &answer {
                log(&request, error);
            }
            return answer;
        }
        // Every request, also a read: it may take a token's last use, and then somebody must end the token.
        let (heard, answer) = oneshot::channel();
        let core = self.clone();
        tokio::spawn(async move {
            let began = core.seams.clock.now();
            let answer = core.process(request).await;
            core.meter.handled(began, core.seams.clock.now());
            if let Err(Ok(unheard)) = heard.send(answer)
                && let Ok(unsealed) = core.unsealed()
            {
                let _ = core.take_back(&unsealed, &unheard).await;
            }
        });
        answer.await.unwrap_or_else(|_| Err(RequestError::Internal("the request's task died".to_owned())))
    }

    async fn process(self: &Arc<Self>, mut request: LogicalRequest) -> Result<LogicalResponse, RequestError> {
        let unsealed = self.unsealed()?;
        if request.path.ends_with('/')
            && matches!(request.operation, Operation::Create | Operation::Update | Operation::Patch)
        {
            return Err(RequestError::invalid("cannot write to a path ending in '/'"));
        }
        let mut trace = RequestTrace { as_sent: canonical(&mut request), ..RequestTrace::default() };
        let outcome = self.answer(&unsealed, &mut request, &mut trace).await;
        if let Err(error) = &outcome {
            log(&request, error);
        }
        match trace.caller.take().filter(|caller| caller.last_use) {
            Some(caller) => self.after_last_use(&unsealed, &caller, outcome).await,
            None => outcome,
        }
    }

    /// The request between its two audit records.
    async fn answer(
        self: &Arc<Self>,
        unsealed: &Arc<Unsealed>,
        request: &mut LogicalRequest,
        trace: &mut RequestTrace,
    ) -> Result<LogicalResponse, RequestError> {
        let admitted = self.admit(unsealed, request, trace).await;
        self.record(unsealed, request, trace, Phase::Request, None, admitted.as_ref().err()).await?;
        let outcome = match admitted {
            Ok(admitted) => self.carry_out(unsealed, request, trace, admitted).await,
            Err(error) => Err(error),
        };
        let recorded =
            self.record(unsealed, request, trace, Phase::Response, outcome.as_ref().ok(), outcome.as_ref().err()).await;
        match (recorded, outcome) {
            (Ok(()), outcome) => outcome,
            // The secret does not leave, so it must not live.
            (Err(error), Ok(answer)) => {
                self.take_back(unsealed, &answer).await?;
                Err(error)
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Ends what an answer hands out that nobody will get.
    async fn take_back(&self, unsealed: &Unsealed, answer: &LogicalResponse) -> Result<(), RequestError> {
        if let Some(lease) = answer.issued() {
            unsealed.leases.undelivered(lease).await;
        }
        if let Some(token) =
            answer.auth.as_ref().and_then(|auth| auth.client_token.as_ref()).filter(|_| answer.is_new_token())
        {
            let hash = unsealed.tokens.hash(token);
            unsealed.leases.end_token(&hash, token::store::Children::AreRevoked).await.map_err(lease_error)?;
        }
        Ok(())
    }

    /// Everything up to the verdict. Fills in `trace` as it goes.
    async fn admit(
        self: &Arc<Self>,
        unsealed: &Unsealed,
        request: &mut LogicalRequest,
        trace: &mut RequestTrace,
    ) -> Result<Admitted, RequestError> {
        let routed = unsealed.mounts.route(&request.path);
        let open = routed.as_ref().is_some_and(|(entry, rest)| {
            Backend::of(entry, unsealed).is_some_and(|t| {
                routes::find(t.routes(), rest, request.operation)
                    .is_some_and(|(r, _)| r.access == Access::Unauthenticated)
            })
        });
        trace.operation = Some(request.operation);
        trace.mount = routed.as_ref().map(|(entry, _)| entry.clone());
        match (&request.token, open) {
            (None, true) => {}
            (Some(token), true) => {
                let known = unsealed.tokens.recognise(token).await;
                // Help is for everybody.
                trace.caller = if request.operation == Operation::Help { known.ok() } else { Some(known?) };
                trace.verdict = trace.caller.as_ref().map(|_| Verdict::unasked());
            }
            (None, false) => return Err(RequestError::BadToken),
            (Some(token), false) => trace.caller = Some(unsealed.tokens.admit(token).await?),
        }

        let matched = match &routed {
            None => None,
            Some((entry, rest)) => Backend::of(entry, unsealed).and_then(|backend| {
                if rest.is_empty() && request.operation == Operation::Help {
                    let (route, captures) = (sys::help::OF_A_MOUNT, Captures::default());
                    return Some(Admitted { backend, route, captures, path: String::new() });
                }
                let found =
                    routes::find(backend.routes(), rest, request.operation).map(|(route, captures)| (*route, captures));
                // A slash at the end says nothing where the rest of a path is one name, or where there is a list.
                found
                    .filter(|_| trace.as_sent.is_none() || routes::is_folder(backend.routes(), rest))
                    .map(|(route, captures)| Admitted { backend, route, captures, path: (*rest).to_owned() })
            }),
        };
        let operation = self.create_or_update(unsealed, request, matched.as_ref(), trace).await?;
        trace.operation = Some(operation);

        if !open {
            let caller = trace.caller.as_ref().ok_or(RequestError::BadToken)?;
            let needs_sudo = match &matched {
                Some(matched) => needs_sudo(matched.route.access, operation),
                None => sys::is_protected(&request.path),
            };
            let ask = AclRequest {
                path: &request.path,
                operation,
                needs_sudo,
                wrap_ttl: request.wrap_ttl,
                data: &request.data,
            };
            let mut verdict = decide::decide(&*self.seams.sandbox, &unsealed.policies, caller, &ask).await?;
            if let Some(as_sent) = trace.as_sent.as_deref().filter(|_| verdict.allowed) {
                // A rule may name either: what one of them denies is denied.
                let ask = AclRequest { path: as_sent, ..ask };
                let other = decide::decide(&*self.seams.sandbox, &unsealed.policies, caller, &ask).await?;
                verdict = if other.allowed { verdict } else { other };
            }
            let (allowed, limit) = (verdict.allowed, verdict.limit);
            trace.verdict = Some(verdict);
            if !allowed {
                return Err(RequestError::Denied);
            }
            let pages = matches!(operation, Operation::List | Operation::Scan);
            match limit {
                Some(limit) => drop(request.data.insert("limit".to_owned(), limit.into())),
                // Whoever asks for as much as he may have, and may have all. Root has no policy that would know the word.
                None if pages && !caller.is_root() && request.data.get("limit").is_some_and(|limit| limit == "max") => {
                    request.data.insert("limit".to_owned(), 0.into());
                }
                None => {}
            }
            if !caller.is_root() && operation != Operation::Help && unsealed.egps.cover(&request.path) {
                let fields = matched.as_ref().map(|m| m.route.fields).unwrap_or_default();
                let ask =
                    module_request(self, request, caller, trace.mount.as_deref(), &request.path, operation, fields);
                let judged = unsealed.egps.judge(&unsealed.modules, &ask).await;
                trace.judgements = judged.judgements;
                trace.ceiling = judged.max_ttl;
                if let Some(refusal) = judged.refusal {
                    return Err(refusal);
                }
            }
        }
        let asked = trace.as_sent.as_deref().unwrap_or(&request.path);
        let Some((entry, _)) = routed else {
            return Err(RequestError::NoRoute(format!("no handler for route \"{asked}\". route entry not found.")));
        };
        if entry.tainted {
            return Err(RequestError::NoRoute(format!(
                "no handler for route \"{asked}\" on namespace \"\". route entry or namespace is tainted."
            )));
        }
        let admitted = matched.ok_or(RequestError::UnsupportedPath)?;
        if operation != Operation::Help && !admitted.route.supports(operation) {
            // The slash that a list appends leads nowhere where there is no folder.
            let leads_nowhere = matches!(operation, Operation::List | Operation::Scan)
                && !routes::is_folder(admitted.backend.routes(), &admitted.path);
            return Err(if leads_nowhere { RequestError::UnsupportedPath } else { RequestError::UnsupportedOperation });
        }
        Ok(admitted)
    }

    /// A write is an update, unless its route asks and nothing is there yet.
    async fn create_or_update(
        self: &Arc<Self>,
        unsealed: &Unsealed,
        request: &LogicalRequest,
        matched: Option<&Admitted>,
        trace: &RequestTrace,
    ) -> Result<Operation, RequestError> {
        let (Operation::Update, Some(Admitted { backend: Backend::Engine(engine), route, captures, .. })) =
            (request.operation, matched)
        else {
            return Ok(request.operation);
        };
        let Some(entry) = trace.mount.as_deref().filter(|_| route.existence_check) else {
            return Ok(Operation::Update);
        };
        // Fields are not looked at: the path alone says what the write is about.
        let asked = EngineRequest {
            context: unsealed.engines.context(entry),
            operation: Operation::Update,
            path: request.path.clone(),
            captures: captures.clone(),
            fields: Fields::default(),
            display_name: String::new(),
        };
        Ok(if engine.exists(&asked).await? { Operation::Update } else { Operation::Create })
    }

    async fn carry_out(
        self: &Arc<Self>,
        unsealed: &Arc<Unsealed>,
        request: &LogicalRequest,
        trace: &mut RequestTrace,
        admitted: Admitted,
    ) -> Result<LogicalResponse, RequestError> {
        let Admitted { backend, route, captures, path } = admitted;
        let operation = trace.operation.unwrap_or(request.operation);
        if operation == Operation::Help {
            return Ok(sys::help::answer(backend.routes(), &route, &path));
        }
        // What a pattern captured is no field, also when a client repeats it in the body.
        let mut data = request.data.clone();
        data.retain(|name, _| !captures.contains_key(name.as_str()));
        let writes = matches!(operation, Operation::Create | Operation::Update);
        let fields = Fields::coerce(route.fields, &data).map_err(|error| {
            // In Vault it is the existence check that stumbles first, and it says less.
            let bare = route.existence_check && writes;
            RequestError::Invalid(if bare { error.to_string() } else { format!("Field validation failed: {error}") })
        })?;
        let mut ignored: Vec<String> = if writes && route.fields.iter().any(|field| field.name == "*") {
            Vec::new()
        } else {
            fields.unknown().keys().cloned().collect()
        };
        let mut answer = match &backend {
            Backend::Engine(engine) => {
                self.ask_engine(unsealed, request, trace, engine, operation, captures, fields).await?
            }
            Backend::System | Backend::Token => {
                let sudo = trace.caller.as_ref().is_some_and(Caller::is_root)
                    || trace
                        .verdict
                        .as_ref()
                        .is_some_and(|v| v.capabilities.contains(leasehold_model::Capabilities::SUDO));
                let call = Call {
                    core: self,
                    unsealed,
                    request,
                    operation,
                    pattern: route.pattern,
                    captures,
                    fields,
                    caller: trace.caller.as_ref(),
                    sudo,
                    ceiling: trace.ceiling,
                    judgements: Mutex::new(Vec::new()),
                };
                let answer = match backend {
                    Backend::System => sys::handle(&call).await,
                    _ => token::routes::handle(&call).await,
                };
                trace
                    .judgements
                    .extend(call.judgements.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
                answer?
            }
        };
        if let Some(limit) = trace.verdict.as_ref().and_then(|verdict| verdict.limit)
            && matches!(operation, Operation::List | Operation::Scan)
        {
            let after = request.data.get("after").and_then(serde_json::Value::as_str).unwrap_or_default();
            cut_out(&mut answer, after, usize::try_from(limit).unwrap_or(usize::MAX));
            ignored.retain(|name| !matches!(name.as_str(), "after" | "limit"));
        }
        // As in Vault: neither on an answer without a body nor on one to queued work.
        if !ignored.is_empty() && answer.has_body() && answer.raw.is_none() && answer.status != Some(202) {
            let mut names = ignored;
            names.sort();
            answer.warnings.push(format!("Endpoint ignored these unrecognized parameters: [{}]", names.join(" ")));
        }
        Ok(answer)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, each used once")]
    async fn ask_engine(
        &self,
        unsealed: &Arc<Unsealed>,
        request: &LogicalRequest,
        trace: &RequestTrace,
        engine: &Arc<dyn SecretsEngine>,
        operation: Operation,
        captures: Captures,
        fields: Fields,
    ) -> Result<LogicalResponse, RequestError> {
        let (Some(caller), Some(mount)) = (&trace.caller, &trace.mount) else { return Err(RequestError::BadToken) };
        let asked = EngineRequest {
            context: unsealed.engines.context(mount),
            operation,
            path: request.path.clone(),
            captures,
            fields,
            display_name: caller.record.display_name.clone(),
        };
        let plan = match engine.handle(&asked).await? {
            Outcome::Answer(answer) => return Ok(answer),
            Outcome::Reopened { connection, answer } => {
                unsealed.leases.reopened(&connection);
                return Ok(answer);
            }
            Outcome::Lease(plan) => plan,
        };
        let order =
            IssueRequest { path: &request.path, holder: caller.leaseholder(), mount, plan, ceiling: trace.ceiling };
        let issued = unsealed.leases.issue(order).await.map_err(lease_error)?;
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

    /// A token that is used up ends here; a lease that it just got would end with it, so the client does not get it at all.
    async fn after_last_use(
        &self,
        unsealed: &Unsealed,
        caller: &Caller,
        outcome: Result<LogicalResponse, RequestError>,
    ) -> Result<LogicalResponse, RequestError> {
        unsealed.leases.end_token(&caller.hash, token::store::Children::AreRevoked).await.map_err(lease_error)?;
        if outcome.as_ref().is_ok_and(|answer| answer.issued().is_some()) {
            return Err(RequestError::invalid(
                "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.",
            ));
        }
        outcome
    }

    async fn record(
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
        let error = error.map(|error| match error {
            RequestError::Sandbox(cause) => format!("{error}: {cause}"),
            // As the client reads it.
            RequestError::Denied | RequestError::DeniedByModule { .. } => format!("1 error occurred:\n\t* {error}\n\n"),
            other => other.to_string(),
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
            headers: &unsealed.audit.pick_headers(&request.headers),
        };
        unsealed.audit.record(&entry).await
    }
}

/// Turns the path into the one that policies, router and audit see: what names the same thing must read the same, or a rule
/// for it could be walked around. The path as it came, if that had a slash at its end.
fn canonical(request: &mut LogicalRequest) -> Option<String> {
    if let Some(path) = egp_paths::in_lower_case(&request.path) {
        request.path = path;
    }
    let is_list = matches!(request.operation, Operation::List | Operation::Scan);
    let bare = request.path.trim_end_matches('/').len();
    if is_list || bare == request.path.len() {
        return None;
    }
    let as_sent = request.path.clone();
    request.path.truncate(bare);
    Some(as_sent)
}

/// Keeps a policy's `pagination_limit` also where a list has no pages. Then it has to begin after the last key trace, or
/// what lies behind the first page could not be reached.
fn cut_out(answer: &mut LogicalResponse, after: &str, limit: usize) {
    let Some(data) = &mut answer.data else { return };
    let Some(serde_json::Value::Array(keys)) = data.get_mut("keys") else { return };
    match keys.iter().position(|key| key == after) {
        Some(last) => drop(keys.drain(..=last)),
        None => keys.retain(|key| key.as_str().is_none_or(|key| key > after)),
    }
    keys.truncate(limit);
    let kept = keys.clone();
    for other in ["policies", "key_info"] {
        match data.get_mut(other) {
            Some(serde_json::Value::Array(keys)) => keys.clone_from(&kept),
            Some(serde_json::Value::Object(info)) => {
                info.retain(|name, _| kept.iter().any(|key| key.as_str() == Some(name)));
            }
            _ => {}
        }
    }
}

fn needs_sudo(access: Access, operation: Operation) -> bool {
    match access {
        Access::Sudo => true,
        Access::SudoToWrite => !matches!(operation, Operation::Read | Operation::List | Operation::Scan),
        Access::Token | Access::Unauthenticated => false,
    }
}

/// Client errors are the client's business; what broke goes to the log with its whole chain, once.
fn log(request: &LogicalRequest, error: &RequestError) {
    let chain = || {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        text
    };
    match error {
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
