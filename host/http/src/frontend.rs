//! One request, from bytes to bytes.
//!
//! Start with [`Frontend::answer`]. A handler that is dropped, because its client hung up or its time was over, leaves the
//! work behind it running: the core finishes and then finds that nobody waits.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Body;
use leasehold_core::api::sys;
use leasehold_core::connection::ConnectionInfo;
use leasehold_core::random;
use leasehold_core::request::{LogicalRequest, LogicalResponse, Object};
use leasehold_core::seams::host::Entropy;
use leasehold_model::{Operation, TokenId};
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::body::{self, Carried, Reading};
use crate::delivery::{Outbox, Payload, UndeliveredGuard};
use crate::envelope;
use crate::error::{self, FrontendError};
use crate::extract::{self, Head};
use crate::file;
use crate::limits::{Budget, RequestLimits, Share};
use crate::listener::{Peer, Places, Rules};
use crate::metrics::Meter;
use crate::pipeline::Pipeline;
use crate::plain::{self, HEALTH, HealthCodes, METRICS};
use crate::rate::RateLimit;

/// Translates between HTTP and the core.
pub struct Frontend {
    pipeline: Arc<dyn Pipeline>,
    entropy: Arc<dyn Entropy>,
    pub(crate) limits: RequestLimits,
    pub(crate) meter: Meter,
    budget: Budget,
    under_way: Semaphore,
    /// Of all listeners together.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) places: Places,
    /// Bodies that are being read.
    reading: Semaphore,
    bodies: Places,
    /// Files that are being taken in.
    files: Semaphore,
    proofs: RateLimit,
}

impl fmt::Debug for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frontend").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Frontend {
    /// The metrics recorder must be installed before: its handles are made here.
    #[must_use]
    pub fn new(pipeline: Arc<dyn Pipeline>, entropy: Arc<dyn Entropy>, limits: RequestLimits) -> Arc<Self> {
        let budget = Budget::new(limits.bodies_kib_max);
        Arc::new(Self {
            pipeline,
            entropy,
            meter: Meter::new(),
            budget,
            under_way: Semaphore::new(limits.requests_max),
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            places: Places::new(limits.connections_per_address_max),
            reading: Semaphore::new(limits.requests_max),
            bodies: Places::new(limits.bodies_per_address_max),
            files: Semaphore::new(limits.files_max),
            proofs: RateLimit::new(limits.proofs_per_second, limits.proofs_burst),
            limits,
        })
    }

    /// Every method on every path ends here. What the answer hands out is taken back unless `outbox` hears that the answer
    /// was written.
    pub(crate) async fn answer<B>(&self, request: Request<B>, peer: &Peer, outbox: &Outbox) -> Response<Payload>
    where
        B: Body<Data = Bytes, Error: Send> + Unpin + Send + 'static,
    {
        let began = Instant::now();
        let method = request.method().clone();
        let mut operation = None;
        let path = request.uri().path().strip_prefix("/v1/");
        let moves_file = path.is_some_and(sys::takes_file);
        let limit = if moves_file { self.limits.file_time } else { self.limits.request_time };
        let answering = self.answer_in_time(request, peer, outbox, &mut operation);
        let mut answer = match tokio::time::timeout(limit, answering).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(refused)) => error::of_frontend(&refused),
            Err(_) => error::of_frontend(&FrontendError::Time),
        };
        peer.rules.response_headers.put_on(answer.status(), answer.headers_mut());
        self.meter.count(operation, answer.status(), began.elapsed());
        framed(&method, answer)
    }

    async fn answer_in_time<B>(
        &self,
        request: Request<B>,
        peer: &Peer,
        outbox: &Outbox,
        operation: &mut Option<Operation>,
    ) -> Result<Response<Payload>, FrontendError>
    where
        B: Body<Data = Bytes, Error: Send> + Unpin + Send + 'static,
    {
        let (parts, body) = request.into_parts();
        let client = peer.of_request(&parts.headers)?;
        let head = extract::head(&parts, &self.limits)?;
        *operation = Some(head.operation);
        if !matches!(head.operation, Operation::List | Operation::Scan | Operation::Help)
            && head.token.is_none()
            && peer.rules.lets_in.admits(&head.path) == Some(false)
        {
            return Err(FrontendError::NotLetIn);
        }
        if head.has_body
            && plain::carries_proof(&head.path)
            && client.address().is_some_and(|address| !self.proofs.allows(address))
        {
            return Err(FrontendError::TooOften(head.path));
        }
        let namespace = head.namespace.clone();
        let mut share = Share::default();
        let carried = if head.has_body && sys::takes_file(&head.path) {
            self.take_file(body, &head, &client).await?
        } else if head.has_body {
            match self.read(body, head.token.as_ref(), &client, &mut share).await? {
                Some(bytes) => body::decode(bytes, &parts.headers, &self.limits, &self.budget, &mut share)?,
                None => Carried::Withheld,
            }
        } else {
            Carried::Data(None)
        };
        let is_withheld = matches!(carried, Carried::Withheld | Carried::Unread);
        let _permit = self.under_way.try_acquire().map_err(|_| FrontendError::Busy)?;
        let mut answer = self.ask(head, carried, client, &peer.rules, outbox).await?;
        if let Some(namespace) = namespace {
            answer.headers_mut().insert("x-vault-namespace", namespace);
        }
        if is_withheld {
            error::close_after(&mut answer);
        }
        Ok(answer)
    }

    /// All of a body, however slowly it comes. `None`: it is larger than it may be without a living token, and most of it
    /// was not read.
    async fn read<B>(
        &self,
        body: B,
        token: Option<&TokenId>,
        client: &ConnectionInfo,
        share: &mut Share,
    ) -> Result<Option<Bytes>, FrontendError>
    where
        B: Body<Data = Bytes, Error: Send> + Unpin + Send + 'static,
    {
        // Places of their own: whoever sends a body slowly must not hold up requests that have none.
        let _permit = self.reading.try_acquire().map_err(|_| FrontendError::Busy)?;
        let held = match client.address() {
            Some(address) => Some(self.bodies.take(address).ok_or(FrontendError::Busy)?),
            // Whoever may open a Unix socket is on this machine.
            None => None,
        };
        let mut reading = Reading::new(body, &self.budget, share);
        let limits = &self.limits;
        let small = limits.unknown_body_max.min(limits.body_max);
        let is_late = match tokio::time::timeout(limits.unknown_body_time, reading.up_to(small)).await {
            Ok(Ok(None)) => false,
            Ok(done) => return done,
            Err(_) => true,
        };
        let is_known = match token {
            Some(token) => self.pipeline.knows(token, client.address()).await,
            None => false,
        };
        let refused = match is_known {
            true => match reading.up_to(limits.body_max).await? {
                Some(whole) => return Ok(Some(whole)),
                None => Err(FrontendError::BodyTooLarge),
            },
            false if is_late => Err(FrontendError::Time),
            false => Ok(None),
        };
        tokio::spawn(body::linger(reading.into_rest(), limits.body_max.saturating_mul(2), held));
        refused
    }

    /// A file, if the client may send it.
    async fn take_file<B>(&self, mut body: B, head: &Head, client: &ConnectionInfo) -> Result<Carried, FrontendError>
    where
        B: Body<Data = Bytes, Error: Send> + Unpin + Send + 'static,
    {
        let held = match client.address() {
            Some(address) => Some(self.bodies.take(address).ok_or(FrontendError::Busy)?),
            None => None,
        };
        let may = match &head.token {
            Some(token) => self.pipeline.may_upload(token, &head.path, client.address()).await,
            None => false,
        };
        let taken = if may {
            let _permit = self.files.try_acquire().map_err(|_| FrontendError::Busy)?;
            file::spooled(&mut body, self.limits.file_max, self.limits.header_time).await.map(Carried::File)
        } else {
            Ok(Carried::Unread)
        };
        if !matches!(taken, Ok(Carried::File(_))) {
            tokio::spawn(body::linger(body, self.limits.body_max.saturating_mul(2), held));
        }
        taken
    }

    async fn ask(
        &self,
        head: Head,
        carried: Carried,
        client: ConnectionInfo,
        rules: &Rules,
        outbox: &Outbox,
    ) -> Result<Response<Payload>, FrontendError> {
        let Head { operation, path, parameters, token, wrap_ttl, headers, has_body, namespace: _ } = head;
        let body_withheld = matches!(carried, Carried::Withheld);
        let mut upload = None;
        let (data, raw_body) = match carried {
            Carried::Data(data) if has_body => (data.unwrap_or_default(), None),
            Carried::Data(_) => (parameters, None),
            Carried::Raw(bytes) => (parameters, Some(bytes.to_vec())),
            Carried::File(spool) => {
                upload = Some(spool);
                (Object::new(), None)
            }
            Carried::Withheld | Carried::Unread => (Object::new(), None),
        };
        let is_health = path == HEALTH && operation == Operation::Read;
        let codes =
            if is_health { HealthCodes::read(&data).ok_or(FrontendError::Query)? } else { HealthCodes::default() };
        let data = if is_health { Object::new() } else { data };
        let is_let_in = rules.lets_in.admits(&path) == Some(true);
        let id = random::uuid(self.entropy.as_ref());
        let span = tracing::info_span!("request", request.id = %id, operation = operation.as_str(), path = %path);
        let client = Some(client);
        let request = LogicalRequest {
            id: id.clone(),
            operation,
            path,
            data,
            token,
            client,
            wrap_ttl,
            headers,
            raw_body,
            upload,
            body_withheld,
            is_let_in,
        };
        let is_metrics = request.path == METRICS && request.operation == Operation::Read;
        if is_metrics && rules.disallows_metrics {
            return Err(FrontendError::Elsewhere);
        }
        let pipeline = Arc::clone(&self.pipeline);
        let counts = match pipeline.limit_rate(&request).instrument(span.clone()).await {
            Ok(counts) => counts,
            Err(refused) => return Ok(error::of_request(&refused, &id)),
        };
        let mut result = if is_metrics && rules.unauthenticated_metrics {
            Ok(pipeline.metrics(request).instrument(span.clone()).await)
        } else {
            pipeline.handle(request).instrument(span.clone()).await
        };
        if is_health && let Ok(answer) = &mut result {
            answer.status = Some(codes.apply(answer.status.unwrap_or(200)));
        }
        let _entered = span.enter();
        let mut response = match result {
            Ok(answer) => self.deliver(&id, operation, &answer, outbox),
            // The core has logged what broke here.
            Err(failed) => error::of_request(&failed, &id),
        };
        if let Some(counts) = counts {
            envelope::put_counts(response.headers_mut(), counts);
        }
        Ok(response)
    }

    fn deliver(&self, id: &str, operation: Operation, answer: &LogicalResponse, outbox: &Outbox) -> Response<Payload> {
        let guard = answer.handed_out().map(|given| UndeliveredGuard::new(Arc::clone(&self.pipeline), given));
        let mut response = envelope::of_answer(id, operation, answer);
        if let Some(index) = answer.index.as_deref().and_then(|index| HeaderValue::from_str(index).ok()) {
            response.headers_mut().insert("x-vault-index", index);
        }
        match guard {
            Some(guard) => response.map(|body| body.guarded(guard, outbox.clone())),
            None => response,
        }
    }
}

/// Takes the body away where HTTP allows none, and the headers that would announce one: an answer to HEAD, and every
/// status that has no body by definition. HTTP/2 clients end the whole stream over such a body, and HTTP/1 clients
/// take it for the next answer.
fn framed(method: &Method, mut response: Response<Payload>) -> Response<Payload> {
    let status = response.status();
    let is_bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if is_bodiless || *method == Method::HEAD {
        *response.body_mut() = Payload::empty();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::TRANSFER_ENCODING);
    }
    if status == StatusCode::NOT_MODIFIED {
        // As Go does: it would describe what is not sent.
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    response
}
