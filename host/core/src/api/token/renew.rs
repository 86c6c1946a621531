//! Renewals of tokens: how long one may live from now on, by what made it as that is by now.

use std::collections::BTreeMap;

use leasehold_model::{MountAccessor, Timestamp, TokenHash, TokenId, Ttl};
use serde_json::Value;

use super::{auth_answer, limits};
use crate::api::call::Call;
use crate::commit::TRIES;
use crate::request::LogicalResponse;
use crate::seams::auth::LoginToken;
use crate::seams::error::RequestError;
use crate::seams::storage::StorageError;
use crate::token::TokenRecord;
use crate::ttl::{self, End, RequestedTtl, TtlBounds};

/// A renewal without an increment asks for the last effective TTL again; a periodic token always gets its period.
pub(super) async fn renew(
    call: &Call<'_>,
    hash: &TokenHash,
    token: Option<TokenId>,
) -> Result<LogicalResponse, RequestError> {
    for _ in 0..TRIES {
        let Some((mut record, version)) = call.unsealed.tokens.find(hash).await? else {
            return Err(RequestError::invalid("token not found"));
        };
        // It ends with this request, and with it what would be renewed.
        if record.num_uses < 0 {
            return Err(RequestError::invalid("token not found"));
        }
        if !record.renewable || record.expires_at.is_none() {
            return Err(RequestError::invalid("lease is not renewable"));
        }
        let now = call.core.seams.clock.now();
        let Some(end) = new_end(call, &record, now).await? else {
            return Err(RequestError::invalid("past the max TTL, cannot renew"));
        };
        let identities = &call.unsealed.identities;
        let identity = identities.shown_of(record.entity.as_deref(), &record.policies).await?;
        record.expires_at = Some(end.at);
        record.last_renewed_at = Some(now);
        record.renewed_ttl = Some(end.ttl);
        match call.unsealed.tokens.extend(hash, &record, version).await {
            Ok(()) => {
                call.unsealed.leases.falls_due(end.at);
                let auth = auth_answer(&record, end.ttl, token, false, identity);
                return Ok(LogicalResponse { auth: Some(auth), warnings: end.warnings, ..LogicalResponse::default() });
            }
            // It was used, renewed or revoked in between: look again.
            Err(StorageError::Conflict(_) | StorageError::Fenced(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(RequestError::Unavailable("token is in use by too many requests, try again".to_owned()))
}

/// How long a renewed token may live.
struct Renewal {
    /// Without an increment.
    ttl: Ttl,
    max_ttl: Ttl,
    /// Zero: not periodic.
    period: Ttl,
    /// Zero: none set.
    explicit_max: Ttl,
}

/// `None`: its maximum has passed.
async fn new_end(call: &Call<'_>, record: &TokenRecord, now: Timestamp) -> Result<Option<End>, RequestError> {
    let renewal = match &record.mount {
        None => {
            let limits = limits(call);
            let last = record.renewed_ttl.or(record.creation_ttl.if_set());
            let (period, explicit_max) = by_role(call, record).await?;
            let ttl = last.unwrap_or(limits.default_ttl);
            Renewal { ttl, max_ttl: limits.max_ttl, period, explicit_max }
        }
        Some(mount) => by_method(call, record, mount).await?,
    };
    let increment = call.fields.ttl("increment").and_then(Ttl::if_set);
    let wish = match renewal.period.if_set() {
        Some(period) => RequestedTtl::Period(period),
        None => RequestedTtl::Ttl(increment.unwrap_or(renewal.ttl)),
    };
    let bounds = TtlBounds {
        created_at: record.created_at,
        now,
        max: renewal.max_ttl,
        explicit_max: renewal.explicit_max,
        agreed_end: record.agreed_end.unwrap_or(Timestamp::NEVER),
        ceiling: call.ceiling,
    };
    Ok(ttl::end(wish, &bounds))
}

/// Period and explicit maximum, as the token's role has them by now: it may have changed, or be gone.
async fn by_role(call: &Call<'_>, record: &TokenRecord) -> Result<(Ttl, Ttl), RequestError> {
    let Some(name) = &record.role else { return Ok((record.period, record.explicit_max_ttl)) };
    let Some(role) = call.unsealed.tokens.role(name).await? else {
        return Err(RequestError::Engine(format!(
            "failed to renew entry: original token role {name:?} could not be found, not renewing"
        )));
    };
    // What the token was told at first still holds.
    let explicit_max = ttl::least(&[record.explicit_max_ttl, role.role.token.explicit_max_ttl]).unwrap_or(Ttl::ZERO);
    Ok((role.role.token.period, explicit_max))
}

/// What the method says that made the token: its user or role may have changed since, or be gone.
async fn by_method(call: &Call<'_>, record: &TokenRecord, mount: &MountAccessor) -> Result<Renewal, RequestError> {
    let methods = &call.unsealed.methods;
    let Some((method, entry)) = methods.at(mount) else { return Err(RequestError::invalid("lease is not renewable")) };
    let (nothing, no_data) = (BTreeMap::new(), Value::Null);
    let token = LoginToken {
        metadata: record.meta.as_ref().unwrap_or(&nothing),
        internal: record.login.as_ref().unwrap_or(&no_data),
        policies: &record.policies,
        certificate: call.request.client.as_ref().and_then(|client| client.certificate.as_deref()),
    };
    let limits = method.renew(&methods.context(&entry), &token).await?;
    let ttls = methods.ttls(&entry);
    Ok(Renewal {
        ttl: limits.ttl.if_set().unwrap_or(ttls.default_lease_ttl),
        max_ttl: ttl::least(&[limits.max_ttl, ttls.max_lease_ttl]).unwrap_or(ttls.max_lease_ttl),
        period: limits.period,
        explicit_max: record.explicit_max_ttl,
    })
}
