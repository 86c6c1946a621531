//! One request, from bytes to bytes.
//!
//! Start with [`Frontend::answer`]. A handler that is dropped, because its client hung up or its time was over, leaves the
//! work behind it running: the core finishes and then finds that nobody waits.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use http::Response;
use leasehold_core::connection::ConnectionInfo;
use leasehold_core::random;
use leasehold_core::request::{LogicalRequest, LogicalResponse, Object};
use leasehold_core::seams::host::Entropy;
use leasehold_model::Operation;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::body::{self, Carried};
use crate::delivery::{self, UndeliveredGuard};
use crate::envelope;
use crate::error::{self, FrontendError};
use crate::extract::{self, Head};
use crate::limits::{Budget, RequestLimits, Share};
use crate::listener::{Peer, Places, Rules};
use crate::metrics::Meter;
use crate::pipeline::Pipeline;
use crate::plain::{HEALTH, HealthCodes, METRICS};

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
        let under_way = Semaphore::new(limits.requests_max);
        let connections = Arc::new(Semaphore::new(limits.connections_max));
        let places = Places::new(limits.connections_per_address_max);
        Arc::new(Self { pipeline, entropy, limits, meter: Meter::new(), budget, under_way, connections, places })
    }

    /// Every method on every path ends here.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .fallback(async |State(frontend): State<Arc<Self>>, request: Request| frontend.answer(request).await)
            .with_state(Arc::clone(self))
    }

    async fn answer(&self, request: Request) -> Response<Body> {
        let began = Instant::now();
        let mut operation = None;
        let rules = request.extensions().get::<Arc<Peer>>().map(|peer| Arc::clone(&peer.rules));
        let mut answer = match self.under_way.try_acquire() {
            Err(_) => error::of_door(&FrontendError::Busy),
            Ok(_permit) => {
                let answering = self.answer_in_time(request, &mut operation);
                match tokio::time::timeout(self.limits.request_time, answering).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(refused)) => error::of_door(&refused),
                    Err(_) => error::of_door(&FrontendError::Time),
                }
            }
        };
        if let Some(rules) = rules {
            rules.response_headers.put_on(answer.status(), answer.headers_mut());
        }
        self.meter.count(operation, answer.status(), began.elapsed());
        answer
    }

    async fn answer_in_time(
        &self,
        request: Request,
        operation: &mut Option<Operation>,
    ) -> Result<Response<Body>, FrontendError> {
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get::<Arc<Peer>>();
        let client = peer.map(|peer| peer.of_request(&parts.headers)).transpose()?;
        let head = extract::head(&parts, &self.limits)?;
        *operation = Some(head.operation);
        let namespace = head.namespace.clone();
        let mut share = Share::default();
        let carried = if head.has_body {
            let bytes = body::read(body, &self.limits, &self.budget, &mut share).await?;
            body::decode(bytes, &parts.headers, &self.limits, &self.budget, &mut share)?
        } else {
            Carried::Data(None)
        };
        let rules = peer.map(|peer| Arc::clone(&peer.rules)).unwrap_or_default();
        let mut answer = self.ask(head, carried, client, &rules).await?;
        if let Some(namespace) = namespace {
            answer.headers_mut().insert("x-vault-namespace", namespace);
        }
        Ok(answer)
    }

    async fn ask(
        &self,
        head: Head,
        carried: Carried,
        client: Option<ConnectionInfo>,
        rules: &Rules,
    ) -> Result<Response<Body>, FrontendError> {
        let Head { operation, path, parameters, token, headers, has_body, namespace: _ } = head;
        let (data, raw_body) = match carried {
            Carried::Data(data) if has_body => (data.unwrap_or_default(), None),
            Carried::Data(_) => (parameters, None),
            Carried::Raw(bytes) => (parameters, Some(bytes.to_vec())),
        };
        let is_health = path == HEALTH && operation == Operation::Read;
        let codes =
            if is_health { HealthCodes::read(&data).ok_or(FrontendError::Query)? } else { HealthCodes::default() };
        let data = if is_health { Object::new() } else { data };
        let id = random::uuid(self.entropy.as_ref());
        let span = tracing::info_span!("request", request.id = %id, operation = operation.as_str(), path = %path);
        let request =
            LogicalRequest { id: id.clone(), operation, path, data, token, client, wrap_ttl: None, headers, raw_body };
        let is_metrics = request.path == METRICS && request.operation == Operation::Read;
        if is_metrics && rules.disallows_metrics {
            return Err(FrontendError::Elsewhere);
        }
        let pipeline = Arc::clone(&self.pipeline);
        let mut result = if is_metrics && rules.unauthenticated_metrics {
            Ok(pipeline.metrics(request).instrument(span.clone()).await)
        } else {
            pipeline.handle(request).instrument(span.clone()).await
        };
        if is_health && let Ok(answer) = &mut result {
            answer.status = Some(codes.apply(answer.status.unwrap_or(200)));
        }
        let _entered = span.enter();
        Ok(match result {
            Ok(answer) => self.deliver(&id, operation, &answer),
            // The core has logged what broke here.
            Err(failed) => error::of_request(&failed, &id),
        })
    }

    fn deliver(&self, id: &str, operation: Operation, answer: &LogicalResponse) -> Response<Body> {
        // From here on an issued lease goes back unless its body is taken.
        let promise = answer.issued().map(|lease| UndeliveredGuard::new(Arc::clone(&self.pipeline), lease.clone()));
        let response = envelope::of_answer(id, operation, answer);
        match promise {
            Some(promise) => response.map(|body| delivery::after(body, promise)),
            None => response,
        }
    }
}
