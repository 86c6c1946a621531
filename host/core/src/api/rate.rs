//! Rate limits at the door: each request is counted before anybody looks at its token.
//!
//! Must not know: how requests are counted ([`crate::quota`] does).
//!
//! Start with [`Core::limit_rate`].

use std::net::{IpAddr, Ipv6Addr};

use leasehold_model::Operation;

use super::backend::{Backend, Matched};
use super::trace::RequestTrace;
use crate::audit::Phase;
use crate::core::{Core, Unsealed};
use crate::fields::Fields;
use crate::metrics;
use crate::mount::MountEntry;
use crate::names;
use crate::quota::rate::{RateCounts, Taken};
use crate::quota::scope::At;
use crate::request::LogicalRequest;
use crate::seams::auth::AuthRequest;
use crate::seams::error::RequestError;

impl Core {
    /// Counts a request by the rate limit that covers it. What it answers goes into the headers of the answer.
    ///
    /// # Errors
    /// [`RequestError::RateLimited`]: the client is to come back later.
    pub async fn limit_rate(&self, request: &LogicalRequest) -> Result<Option<RateCounts>, RequestError> {
        let Ok(unsealed) = self.unsealed() else { return Ok(None) };
        let quotas = &unsealed.quotas;
        if quotas.rates.is_empty() {
            return Ok(None);
        }
        let config = quotas.settings.get();
        // What names the same thing is counted by the same limit.
        let lower = names::in_lower_case(&request.path);
        let path = lower.as_deref().unwrap_or(&request.path);
        if config.exempts(path) {
            return Ok(None);
        }
        let routed = unsealed.mounts.route(path);
        let mut at = At::new(path, routed.as_ref().map(|(entry, _)| &**entry), "");
        let role = match &routed {
            Some((entry, rest)) if quotas.rates.ask_for_roles(&at) => {
                role_of_login(&unsealed, entry, rest, request).await.unwrap_or_default()
            }
            _ => String::new(),
        };
        at.role = &role;
        let client = request.client.as_ref().and_then(|client| client.address()).map(network);
        let now = || self.seams.clock.steady();
        let Some((name, taken)) = quotas.rates.take(&at, client, now, self.nodes.at_work()).await else {
            return Ok(None);
        };
        match taken {
            // Nobody is asked to draw more than there is.
            Taken::Draw(_) => Ok(None),
            Taken::Allowed(counts) => Ok(config.shows_headers.then_some(counts)),
            Taken::Refused { retry_secs, counts } => {
                metrics::rate_refused(&unsealed.installation.cluster_name, &name);
                let counts = counts.filter(|_| config.shows_headers);
                let refused = RequestError::RateLimited { path: request.path.clone(), retry_secs, counts };
                if config.audits_refusals {
                    let trace = RequestTrace::default();
                    // It is refused whether or not that leaves a record; the broker has logged why it does not.
                    let _ = self.record(&unsealed, request, &trace, Phase::Request, None, Some(&refused)).await;
                }
                Err(refused)
            }
        }
    }
}

/// Whoever has an IPv6 address has all of its network: 64 bits of it are one client, as for all other bounds.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// The role that a login names, of which nothing is proved yet.
async fn role_of_login(
    unsealed: &Unsealed,
    mount: &MountEntry,
    rest: &str,
    request: &LogicalRequest,
) -> Option<String> {
    if request.body_withheld || request.operation == Operation::Help {
        return None;
    }
    let matched = Backend::of(mount, unsealed)?.find(rest, request.operation)?;
    if !matched.is_unauthenticated() {
        return None;
    }
    let fields = Fields::coerce(matched.fields(), &request.data).ok()?;
    let Matched::Auth(method, found) = matched else { return None };
    let asked = AuthRequest {
        context: unsealed.methods.context(mount),
        operation: request.operation,
        pattern: found.route.pattern,
        captures: found.captures,
        fields,
        client: request.client.as_ref().and_then(|client| client.address()),
        certificate: request.client.as_ref().and_then(|client| client.certificate.clone()),
    };
    method.role_of_login(&asked).await
}
