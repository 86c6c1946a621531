//! What a client may make the server hold. Nearly all of it is counted before anybody asks for a token; only who shows a
//! living one may send a large body.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bounds of one frontend. `RequestLimits::default()` is the contract's.
#[derive(Clone, Debug)]
pub struct RequestLimits {
    /// Bytes of a body with a living token; more answers 413.
    pub body_max: usize,
    /// Bytes of a body without one: login, unwrap, unseal and init carry their proof in the body and need little.
    pub unknown_body_max: usize,
    /// For all of a body without a living token to arrive.
    pub unknown_body_time: Duration,
    /// Bodies that are being read at once from one client address; further ones answer 503.
    pub bodies_per_address_max: usize,
    /// Requests of one client address that carry their proof in the body, in each second; further ones answer 429.
    pub proofs_per_second: u32,
    /// The same, at once after a time of rest.
    pub proofs_burst: u32,
    /// JSON strings in a body, keys included: each costs an HMAC in the audit record.
    pub json_strings_max: usize,
    /// Estimated bytes that a decoded body takes.
    pub json_memory_max: usize,
    /// Arrays and objects inside one another.
    pub json_depth_max: usize,
    /// Bytes of the path as it arrives.
    pub path_max: usize,
    /// Bytes of the query string.
    pub query_max: usize,
    /// Parameters in a query string or a form.
    pub parameters_max: usize,
    /// Bytes of a token.
    pub token_max: usize,
    /// Bytes of request line and headers together; more answers 431. Nobody has shown a token before the head is read, so
    /// each connection may cost this much of anybody.
    pub headers_max: usize,
    /// Bytes of a file (a snapshot to restore) with the right to send it; more answers 413.
    pub file_max: u64,
    /// Files that are being taken in at once; further ones answer 503.
    pub files_max: usize,
    /// In place of `request_time` where a file comes or goes.
    pub file_time: Duration,
    /// From the first byte of the head to the answer.
    pub request_time: Duration,
    /// For the first head of a connection, from its acceptance or the end of its TLS handshake.
    pub first_header_time: Duration,
    /// For the head of a later request, and so for how long a connection may idle between two requests.
    pub header_time: Duration,
    pub handshake_time: Duration,
    /// Open connections, over all listeners; further ones wait in the listen queue.
    pub connections_max: usize,
    /// Open connections of one address (one /64 of IPv6); further ones are closed.
    pub connections_per_address_max: usize,
    /// Requests under way at once, over all connections; further ones answer 503.
    pub requests_max: usize,
    /// Requests under way at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// KiB that all bodies together may hold, decoded or not, beyond what is small; further ones answer 503.
    pub bodies_kib_max: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            body_max: 32 << 20,
            unknown_body_max: 64 << 10,
            unknown_body_time: Duration::from_secs(10),
            bodies_per_address_max: 256,
            // Behind one address may stand a whole cluster whose programs all start at once.
            proofs_per_second: 50,
            proofs_burst: 500,
            file_max: 8 << 30,
            files_max: 1,
            file_time: Duration::from_secs(3_600),
            json_strings_max: 1_000,
            json_memory_max: 34_078_720,
            // serde_json stops at 128 by itself.
            json_depth_max: 100,
            // A lease id is a path and 25 characters, and ids end at 4,200.
            path_max: 4_096,
            query_max: 16 << 10,
            parameters_max: 200,
            // Batch tokens of Vault have some 300; anything longer cannot be one of ours.
            token_max: 8 << 10,
            headers_max: 16 << 10,
            request_time: Duration::from_secs(90),
            first_header_time: Duration::from_secs(10),
            header_time: Duration::from_secs(60),
            handshake_time: Duration::from_secs(10),
            connections_max: 4_096,
            // A quarter: what is behind one proxy still has room, and one client cannot shut out the others.
            connections_per_address_max: 1_024,
            requests_max: 2_048,
            streams_max: 100,
            bodies_kib_max: 256 << 10,
        }
    }
}

/// Memory that all bodies share. Small bodies are free: they are bounded by the number of requests.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    kib: Arc<Semaphore>,
}

/// A share of the budget; given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    held: Option<OwnedSemaphorePermit>,
    kib: usize,
}

/// No memory is left for another large body.
#[derive(Debug)]
pub(crate) struct Exhausted;

/// Bytes that a request may hold without asking.
const FREE: usize = 16 << 10;

impl Budget {
    pub(crate) fn new(kib: usize) -> Self {
        Self { kib: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))) }
    }

    /// Raises `share` to cover `bytes`.
    pub(crate) fn cover(&self, share: &mut Share, bytes: usize) -> Result<(), Exhausted> {
        let wanted = if bytes <= FREE { 0 } else { bytes.div_ceil(1024) };
        if wanted <= share.kib {
            return Ok(());
        }
        let more = u32::try_from(wanted - share.kib).map_err(|_| Exhausted)?;
        let permit = Arc::clone(&self.kib).try_acquire_many_owned(more).map_err(|_| Exhausted)?;
        match &mut share.held {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        share.kib = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page for operators quotes what holds here.
    #[test]
    fn the_documented_limits_are_those_that_hold() {
        let page = include_str!("../../docs/limits.md");
        let limits = RequestLimits::default();
        let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
        let seconds = |time: Duration| format!("{} s", time.as_secs());
        for (what, value) in [
            ("request line and headers together", kib(limits.headers_max)),
            ("path", format!("{} bytes", limits.path_max)),
            ("query", kib(limits.query_max)),
            ("parameters of a query or a form", limits.parameters_max.to_string()),
            ("token", kib(limits.token_max)),
            ("body with a living token", format!("{} MiB", limits.body_max >> 20)),
            ("file with the right to send it", format!("{} GiB", limits.file_max >> 30)),
            ("files being taken in", limits.files_max.to_string()),
            ("time of a request that moves a file", seconds(limits.file_time)),
            ("body without one", kib(limits.unknown_body_max)),
            ("time for a body without a living token", seconds(limits.unknown_body_time)),
            ("bodies being read from one address", limits.bodies_per_address_max.to_string()),
            ("strings in a JSON body, keys included", limits.json_strings_max.to_string()),
            ("arrays and objects inside one another", limits.json_depth_max.to_string()),
            ("estimated memory of a decoded JSON body", format!("{} bytes", limits.json_memory_max)),
            ("memory of all bodies together, small ones apart", format!("{} MiB", limits.bodies_kib_max >> 10)),
            ("time of a whole request", seconds(limits.request_time)),
            ("time for a TLS handshake", seconds(limits.handshake_time)),
            ("time for the first head of a connection", seconds(limits.first_header_time)),
            ("time for a later head, and between two requests", seconds(limits.header_time)),
            ("open connections, over all listeners", limits.connections_max.to_string()),
            ("open connections of one address", limits.connections_per_address_max.to_string()),
            ("requests under way", limits.requests_max.to_string()),
            ("streams of one HTTP/2 connection", limits.streams_max.to_string()),
            ("proofs in bodies from one address, at once", limits.proofs_burst.to_string()),
            ("proofs in bodies from one address, lasting", format!("{} per second", limits.proofs_per_second)),
        ] {
            assert!(page.contains(&format!("\n| {what} | {value} | ")), "{what}: {value}");
        }
    }

    #[test]
    fn large_bodies_share_one_budget_and_small_ones_are_free() {
        let budget = Budget::new(64);
        let (mut one, mut other) = (Share::default(), Share::default());
        budget.cover(&mut one, 40 << 10).unwrap();
        budget.cover(&mut one, 50 << 10).unwrap();
        assert!(budget.cover(&mut other, 20 << 10).is_err());
        budget.cover(&mut other, 10 << 10).unwrap();
        drop(one);
        budget.cover(&mut other, 64 << 10).unwrap();
    }
}
