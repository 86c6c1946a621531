//! One function per request: token → route → exists? → policy → audit → handle → lease → audit → answer.
//!
//! What is decided where: `token` admits, `policy` judges, the engine plans, the lease module acts. This file
//! only keeps the order, and the order is the security of the whole.

use std::net::IpAddr;
use std::sync::Arc;

use leasehold_model::{Operation, Ttl};
use tokio::sync::oneshot;

use crate::api::backend::{Backend, Matched};
use crate::api::call::{Call, SystemHandler, lease_error, module_request};
use crate::api::control_group::{self, unapproved};
use crate::api::login;
use crate::api::pages;
use crate::api::sys;
use crate::api::trace::{self, RequestTrace};
use crate::api::undelivered::Undelivered;
use crate::audit::Phase;
use crate::core::{Core, Unsealed};
use crate::fields::Fields;
use crate::lease::EndCause;
use crate::names;
use crate::near;
use crate::nodes::{Admission, index};
use crate::request::{LogicalRequest, LogicalResponse};
use crate::routes::Found;
use crate::seams::auth::AuthRequest;
use crate::seams::error::RequestError;
use crate::seams::sandbox::{Reason, Verdict};
use crate::seams::storage::StorageError;
use crate::token::{self, Caller};

/// How often a request is decided because what it was decided by has changed before its first write.
const DECISIONS_MAX: u32 = 64;

/// A request that may go on.
pub(super) struct Admitted {
    pub(super) backend: Backend,
    pub(super) matched: Matched,
    /// Below the mount.
    pub(super) path: String,
    /// It may once it is approved, and how long it may wait for that.
    waits: Option<Ttl>,
}

impl Core {
    /// Answers one request. Work that must finish, finishes, whether or not the client still listens.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn handle(self: &Arc<Self>, request: LogicalRequest) -> Result<LogicalResponse, RequestError> {
        if let Some(answer) = sys::before_unseal(self, &request).await {
            if let Err(error) = &answer {
                trace::log(&request, error);
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
            // Dropped on its way, wherever that is, it takes back what it hands out.
            let _ = heard.send(Undelivered::new(core, answer));
        });
        let died = || Err(RequestError::Internal("the request's task died".to_owned()));
        answer.await.ok().and_then(Undelivered::deliver).unwrap_or_else(died)
    }

    async fn process(self: &Arc<Self>, mut request: LogicalRequest) -> Result<LogicalResponse, RequestError> {
        let unsealed = self.unsealed()?;
        let cluster = &unsealed.installation.cluster_id;
        let admitted = self.nodes.admit(index::required(&request.headers, cluster)?).await;
        let admission = admitted.inspect_err(|error| trace::log(&request, error))?;
        if request.path.ends_with('/')
            && matches!(request.operation, Operation::Create | Operation::Update | Operation::Patch)
        {
            return Err(RequestError::invalid("cannot write to a path ending in '/'"));
        }
        let mut trace = RequestTrace { as_sent: canonical(&mut request), ..RequestTrace::default() };
        let answering = self.answer(&unsealed, &mut request, &mut trace, &admission);
        let mut outcome = admission.clone().scope(answering).await;
        if let Err(error) = &outcome {
            trace::log(&request, error);
        }
        if let (Ok(answer), Some(number), true) = (&mut outcome, self.nodes.index(), trace.caller.is_some()) {
            answer.index = Some(index::written(cluster, number));
        }
        if outcome.as_ref().is_ok_and(|answer| answer.seals) {
            // The record is written: sealing takes the devices away.
            drop(unsealed);
            self.seal().await;
        }
        outcome
    }

    /// The request between its two audit records. What the second one says is what the client gets: nothing is decided after it.
    pub(super) async fn answer(
        self: &Arc<Self>,
        unsealed: &Arc<Unsealed>,
        request: &mut LogicalRequest,
        trace: &mut RequestTrace,
        admission: &Admission,
    ) -> Result<LogicalResponse, RequestError> {
        // That is decided together with the unwrapping that releases it, or together with it again.
        let is_release = trace.release.is_some();
        let mut tries = DECISIONS_MAX;
        let mut is_recorded = false;
        let outcome = loop {
            trace.judgements.clear();
            trace.ceiling = None;
            if !is_release {
                admission.decide_nothing();
            }
            let admitted = self.admit(unsealed, request, trace, admission).await;
            let asked = self.record(unsealed, request, trace, Phase::Request, None, admitted.as_ref().err()).await;
            is_recorded |= asked.is_ok();
            let outcome = match (asked, admitted) {
                (Ok(()), Ok(Admitted { waits: Some(ttl), .. })) => self.defer(unsealed, request, trace, ttl).await,
                (Ok(()), Ok(admitted)) => self.carry_out(unsealed, request, trace, admitted).await,
                (Ok(()), Err(error)) | (Err(error), _) => Err(error),
            };
            // Nothing was written, or it was read by a right that may be gone: it is decided again, by what holds now.
            let reads = matches!(request.operation, Operation::Read | Operation::List | Operation::Scan);
            let is_outdated = outcome.is_ok() && reads && admission.is_outdated(&self.nodes);
            if is_release || !admission.is_overtaken() && !is_outdated {
                break outcome;
            }
            tries -= 1;
            if tries == 0 {
                break Err(StorageError::Overtaken.into());
            }
            admission.await_turn().await;
        };
        if !is_release {
            admission.decide_nothing();
        }
        let settled = if admission.has_changed_memory() { self.nodes.settle().await } else { Ok(()) };
        if !is_release {
            admission.end_turn();
        }
        let outcome = settled.and(outcome);
        // A snapshot that was restored has taken the token away, and sealed the server.
        let is_there = self.unsealed().is_ok();
        let outcome = match trace.caller.clone().filter(|caller| caller.last_use && is_there) {
            Some(caller) => self.after_last_use(unsealed, &caller, &request.path, outcome).await,
            None => outcome,
        };
        let outcome = match (outcome, request.wrap_ttl) {
            (Ok(answer), Some(ttl)) => self.wrap(unsealed, &request.path, answer, ttl).await,
            (outcome, _) => outcome,
        };
        if !is_recorded {
            return outcome;
        }
        let recorded =
            self.record(unsealed, request, trace, Phase::Response, outcome.as_ref().ok(), outcome.as_ref().err()).await;
        match (recorded, outcome) {
            (Ok(()), outcome) => outcome,
            // The secret does not leave, so it must not live.
            (Err(error), Ok(answer)) => {
                if let Some(handed_out) = answer.handed_out() {
                    self.take_back(unsealed, &handed_out, &EndCause::Withheld).await?;
                }
                Err(error)
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Everything up to the verdict. Fills in `trace` as it goes; who asks is found out once, also when the rest is done again.
    async fn admit(
        self: &Arc<Self>,
        unsealed: &Arc<Unsealed>,
        request: &mut LogicalRequest,
        trace: &mut RequestTrace,
        admission: &Admission,
    ) -> Result<Admitted, RequestError> {
        let epoch = self.nodes.epoch();
        if !self.is_still(unsealed) {
            // What is read below is followed by nobody any more.
            return Err(RequestError::Sealed);
        }
        let routed = unsealed.mounts.route(&request.path);
        // Once per request: everything below asks what was found here.
        let backend = routed.as_ref().and_then(|(entry, _)| Backend::of(entry, unsealed));
        let matched = match (&backend, &routed) {
            (Some(backend), Some((_, rest))) => backend.find(rest, request.operation),
            _ => None,
        };
        let is_let_in = request.is_let_in && matched.as_ref().is_some_and(Matched::may_be_let_in);
        let open = is_let_in || matched.as_ref().is_some_and(Matched::is_unauthenticated);
        // As in Vault: whoever logs in may still send a token that has long ended. Help is for those who have one.
        let is_login = open && matches!(backend, Some(Backend::Auth(_))) && request.operation != Operation::Help;
        trace.operation = Some(request.operation);
        trace.mount = routed.as_ref().map(|(entry, _)| entry.clone());
        let client = client_of(request);
        match (&request.token, open) {
            _ if trace.is_known => {}
            (None, true) => {}
            // Nor is it for a token that has ended to keep anybody from what needs none: it may be the reason why they come.
            (Some(_), true) if is_login || is_let_in => {}
            (Some(token), true) => {
                let known = unsealed.tokens.recognise(token, client).await;
                // Help is for everybody.
                trace.caller = match known {
                    known if request.operation == Operation::Help => known.ok(),
                    known => Some(known.map_err(|error| refused(request, error))?),
                };
                trace.verdict = trace.caller.as_ref().map(|_| Verdict::unasked());
            }
            (None, false) => return Err(sys::wrapping::bad_token(request)),
            // A use is taken when it is carried out.
            (Some(token), false) if trace.release.is_some() => {
                trace.caller = Some(unsealed.tokens.recognise(token, client).await?);
            }
            (Some(token), false) => {
                let admitted = unsealed.tokens.admit(token, client).await;
                let caller = trace.caller.insert(admitted.map_err(|error| refused(request, error))?);
                if caller.record.waits() && request.path != sys::wrapping::UNWRAP {
                    return Err(RequestError::Denied);
                }
            }
        }
        trace.is_known = true;
        if let Some(caller) = trace.caller.as_mut().filter(|_| request.operation != Operation::Help) {
            caller.identity = unsealed.whom(&caller.record).await?;
        }
        if trace.release.is_none() {
            admission.decide(epoch);
        }

        if request.body_withheld {
            // Nothing below may judge a request by data that was not read.
            return Err(RequestError::BodyTooLarge);
        }
        let admitted = match (backend, &routed) {
            (Some(backend), Some((_, rest))) => served(backend, matched, rest, trace.as_sent.is_some()),
            _ => None,
        };
        let operation = self.create_or_update(unsealed, request, admitted.as_ref().map(|a| &a.matched), trace).await?;
        trace.operation = Some(operation);

        let mut waits = None;
        if !open {
            let caller = trace.caller.as_ref().ok_or(RequestError::BadToken)?;
            let approvals = self.approvals(unsealed, trace).await?;
            let verdict = self.verdict(unsealed, request, trace, admitted.as_ref(), (caller, &approvals)).await?;
            let limit = verdict.limit;
            let refusal = match verdict.reason {
                _ if verdict.allowed => None,
                Reason::Unapproved if trace.release.is_none() => {
                    waits = verdict.control_group.as_ref().map(|control| control.ttl);
                    waits.is_none().then_some(RequestError::Denied)
                }
                Reason::Unapproved => Some(unapproved(&verdict)),
                _ => Some(RequestError::Denied),
            };
            trace.verdict = Some(verdict);
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            let pages = matches!(operation, Operation::List | Operation::Scan);
            match limit {
                // It is asked again, as it came.
                _ if waits.is_some() => {}
                Some(limit) => drop(request.data.insert("limit".to_owned(), limit.into())),
                // `max` asks for as much as the policy grants, which is all here. Root has no policy that would know the word.
                None if pages && !caller.is_root() && request.data.get("limit").is_some_and(|limit| limit == "max") => {
                    request.data.insert("limit".to_owned(), 0.into());
                }
                None => {}
            }
            if !caller.is_root() && operation != Operation::Help && unsealed.egps.cover(&request.path) {
                let fields = admitted.as_ref().map(|a| a.matched.fields()).unwrap_or_default();
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
        let Some((entry, below)) = routed else {
            return Err(RequestError::NoRoute(format!("no handler for route \"{asked}\". route entry not found.")));
        };
        if trace.release.as_ref().is_some_and(|release| !release.is_for(&entry)) {
            return Err(control_group::gone(asked));
        }
        if entry.tainted {
            return Err(RequestError::NoRoute(format!(
                "no handler for route \"{asked}\" on namespace \"\". route entry or namespace is tainted."
            )));
        }
        let mut admitted = admitted.ok_or_else(|| match Backend::of(&entry, unsealed) {
            Some(Backend::Secrets(engine, _)) => engine
                .not_offered(below)
                .map_or(RequestError::UnsupportedPath, |why| RequestError::NotOffered(why.to_owned())),
            _ => RequestError::UnsupportedPath,
        })?;
        if operation != Operation::Help && !admitted.matched.has_operation() {
            // The slash that a list appends leads nowhere where there is no folder.
            let leads_nowhere =
                matches!(operation, Operation::List | Operation::Scan) && !admitted.backend.is_folder(&admitted.path);
            return Err(if leads_nowhere { RequestError::UnsupportedPath } else { RequestError::UnsupportedOperation });
        }
        admitted.waits = waits;
        Ok(admitted)
    }

    async fn carry_out(
        self: &Arc<Self>,
        unsealed: &Arc<Unsealed>,
        request: &LogicalRequest,
        trace: &mut RequestTrace,
        admitted: Admitted,
    ) -> Result<LogicalResponse, RequestError> {
        let Admitted { backend, matched, path, waits: _ } = admitted;
        if trace.release.is_some() {
            self.take(unsealed, request, trace).await?;
        }
        let operation = trace.operation.unwrap_or(request.operation);
        if operation == Operation::Help {
            return Ok(backend.help(&path, &matched));
        }
        let mut data = request.data.clone();
        if !matched.takes_document() {
            // What a pattern captured is no field, also when a client repeats it in the body.
            data.retain(|name, _| matched.captures().is_none_or(|captures| !captures.contains_key(name.as_str())));
        }
        let declared = matched.fields();
        let writes = matches!(operation, Operation::Create | Operation::Update);
        let fields = Fields::coerce(declared, &data).map_err(|error| {
            // In Vault it is the existence check that stumbles first, and it says less.
            let bare = matched.has_existence_check() && writes;
            RequestError::Invalid(if bare { error.to_string() } else { format!("Field validation failed: {error}") })
        })?;
        let keeps_all = matched.takes_document() || writes && declared.iter().any(|field| field.name == "*");
        let mut ignored: Vec<String> = if keeps_all { Vec::new() } else { fields.unknown().keys().cloned().collect() };
        let meant = near::meant(declared, &fields, &ignored);
        let handled = self.dispatch(unsealed, request, trace, matched, (operation, fields)).await;
        let mut answer = handled.map_err(|error| match &meant {
            Some(help) if near::is_about_fields(&error) => error.with_help(help.as_str()),
            _ => error,
        })?;
        if let Some(limit) = trace.verdict.as_ref().and_then(|verdict| verdict.limit)
            && matches!(operation, Operation::List | Operation::Scan)
        {
            let after = request.data.get("after").and_then(serde_json::Value::as_str).unwrap_or_default();
            pages::cut_out(&mut answer, after, usize::try_from(limit).unwrap_or(usize::MAX));
            ignored.retain(|name| !matches!(name.as_str(), "after" | "limit"));
        }
        // As in Vault: neither on an answer without a body nor on one to queued work.
        if !ignored.is_empty()
            && answer.has_body()
            && answer.raw.is_none()
            && answer.attachment.is_none()
            && answer.status != Some(202)
        {
            let mut names = ignored;
            names.sort();
            answer.warnings.push(format!("Endpoint ignored these unrecognized parameters: [{}]", names.join(" ")));
            answer.warnings.extend(meant);
        }
        Ok(answer)
    }

    /// Has whoever serves a path do what is asked.
    async fn dispatch(
        self: &Arc<Self>,
        unsealed: &Arc<Unsealed>,
        request: &LogicalRequest,
        trace: &mut RequestTrace,
        matched: Matched,
        (operation, fields): (Operation, Fields),
    ) -> Result<LogicalResponse, RequestError> {
        Ok(match matched {
            Matched::Secrets(engine, Found { op: Some(op), captures, .. }) => {
                let asked = (operation, captures, fields);
                self.ask_engine(unsealed, request, trace, (&engine, op.handler), asked).await?
            }
            Matched::Auth(method, Found { op: Some(op), route, captures }) => {
                let Some(mount) = &trace.mount else { return Err(RequestError::BadToken) };
                let asked = AuthRequest {
                    context: unsealed.methods.context(mount),
                    operation,
                    pattern: route.pattern,
                    captures,
                    fields,
                    client: client_of(request),
                    certificate: request.client.as_ref().and_then(|client| client.certificate.clone()),
                };
                login::ask(self, unsealed, request, mount, (&method, op.handler), &asked).await?
            }
            Matched::System(Found { op: Some(op), captures, .. }) => {
                let SystemHandler::Unsealed(handle) = op.handler else { return Err(RequestError::UnsupportedPath) };
                let handled = handle(&Call {
                    core: self,
                    unsealed,
                    request,
                    captures,
                    fields,
                    caller: trace.caller.as_ref(),
                    sudo: trace.has_sudo(),
                    ceiling: trace.ceiling,
                })
                .await;
                trace.judgements.extend(handled.judgements);
                handled.outcome?
            }
            _ => return Err(RequestError::UnsupportedOperation),
        })
    }

    /// A token that is used up ends here; a lease that it just got would end with it, so the client does not get it at all.
    async fn after_last_use(
        &self,
        unsealed: &Unsealed,
        caller: &Caller,
        path: &str,
        outcome: Result<LogicalResponse, RequestError>,
    ) -> Result<LogicalResponse, RequestError> {
        let ended = unsealed.leases.end_token(&caller.hash, token::end::Children::AreRevoked, &EndCause::UsedUp).await;
        let handed_out = outcome.as_ref().ok().and_then(LogicalResponse::handed_out);
        if let Err(error) = ended {
            // Its row is due in a moment, and then everything ends.
            if let Some(handed_out) = handed_out {
                let _ = self.take_back(unsealed, &handed_out, &EndCause::Withheld).await;
            }
            return Err(lease_error(error));
        }
        // What is unwrapped was made before, and not for this token.
        if path != sys::wrapping::UNWRAP && handed_out.is_some_and(|handed_out| handed_out.lease.is_some()) {
            return Err(RequestError::invalid(
                "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.",
            ));
        }
        outcome
    }
}

/// Who serves a path below a mount, if somebody does. A slash at the end says nothing where the rest of a path is one name, or where
/// there is a list.
pub(super) fn served(backend: Backend, matched: Option<Matched>, rest: &str, has_slash: bool) -> Option<Admitted> {
    let matched = matched?;
    let is_served = !has_slash || matches!(matched, Matched::Mount) || backend.is_folder(rest);
    is_served.then(|| Admitted { backend, matched, path: rest.to_owned(), waits: None })
}

/// A wrapping token that is not good is called so where it was to be unwrapped.
fn refused(request: &LogicalRequest, error: RequestError) -> RequestError {
    if matches!(error, RequestError::BadToken) { sys::wrapping::bad_token(request) } else { error }
}

/// The address that a token's own addresses are compared with.
pub(super) fn client_of(request: &LogicalRequest) -> Option<IpAddr> {
    request.client.as_ref().and_then(|client| client.address()).map(|address| address.to_canonical())
}

/// Turns the path into the one that policies, router and audit see: what names the same thing must read the same, or a rule
/// for it could be walked around. The path as it came, if that had a slash at its end.
pub(super) fn canonical(request: &mut LogicalRequest) -> Option<String> {
    if let Some(path) = names::in_lower_case(&request.path) {
        request.path = path;
    }
    let is_list = matches!(request.operation, Operation::List | Operation::Scan);
    let bare = request.path.trim_end_matches('/').len();
    if is_list || bare == request.path.len() {
        return None;
    }
    request.path.truncate(bare + 1);
    let as_sent = request.path.clone();
    request.path.truncate(bare);
    Some(as_sent)
}
