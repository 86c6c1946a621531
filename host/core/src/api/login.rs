//! Logins: what an auth method says becomes a token.
//!
//! Must not know: how a method checks a proof. It decides what mount and system make of a [`LoginPlan`], and counts refusals.
//!
//! Start with [`ask`].
//!
//! Invariants: no login makes a root token. A locked name is refused whatever its proof is.

use std::net::IpAddr;
use std::sync::Arc;

use leasehold_model::{Cidr, Timestamp, Ttl};

use crate::core::{Core, Unsealed};
use crate::identity::Entity;
use crate::identity::entity::AliasName;
use crate::identity::login::LoginIdentity;
use crate::lockout::LockoutRules;
use crate::metrics;
use crate::mount::{MountEntry, MountTokenType, SystemTtls};
use crate::request::{LogicalRequest, LogicalResponse};
use crate::seams::auth::{AuthHandler, AuthMethod, AuthOutcome, AuthRequest, LoginAlias, LoginPlan, Refusal};
use crate::seams::error::RequestError;
use crate::seams::token_params::TokenParams;
use crate::seams::token_params::{ChosenKind, sanitized};

use super::token::auth_answer;
use crate::token::{MintError, NewToken, TokenKind};
use crate::ttl::{self, End, RequestedTtl, TtlBounds, least};

/// Asks a method, and makes the token when it was a login that succeeded.
///
/// # Errors
/// The method's own; [`RequestError::LoginRefused`] and [`RequestError::LoginDenied`] for a login.
pub(crate) async fn ask(
    core: &Core,
    unsealed: &Unsealed,
    request: &LogicalRequest,
    mount: &MountEntry,
    (method, handle): (&Arc<dyn AuthMethod>, AuthHandler),
    asked: &AuthRequest,
) -> Result<LogicalResponse, RequestError> {
    let rules = mount.lockout.unwrap_or_default();
    let name = method.alias(asked);
    let gate = Gate { core, unsealed, mount, rules, name: name.as_deref() };
    gate.check().await?;
    match handle(&**method, asked).await? {
        AuthOutcome::Answer(answer) => Ok(answer),
        AuthOutcome::Job { name, begun, under_way } => {
            let begins = unsealed.jobs.ask_for(name, Some(&mount.accessor)).await?;
            Ok(if begins { begun } else { under_way })
        }
        AuthOutcome::Refused(refusal) => Err(gate.refuse(refusal).await),
        AuthOutcome::Login(plan) => {
            // Others may have failed under this name since: of many guesses at once only so many may be answered.
            gate.check().await?;
            let is_exact = method.has_exact_names();
            let answer = make_token(core, unsealed, request, mount, asked.client, (*plan, is_exact)).await?;
            gate.succeeded();
            Ok(answer)
        }
    }
}

/// The lockout of one name.
struct Gate<'a> {
    core: &'a Core,
    unsealed: &'a Unsealed,
    mount: &'a MountEntry,
    rules: LockoutRules,
    name: Option<&'a str>,
}

impl Gate<'_> {
    fn now(&self) -> Timestamp {
        self.core.seams.clock.now()
    }

    async fn check(&self) -> Result<(), RequestError> {
        let Some(name) = self.name else { return Ok(()) };
        if self.unsealed.lockouts.is_locked(&self.mount.accessor, name, &self.rules, self.now()).await? {
            return Err(RequestError::LoginDenied {
                reason: "too many failed logins have locked this name for some time".to_owned(),
            });
        }
        Ok(())
    }

    async fn refuse(&self, refusal: Refusal) -> RequestError {
        // A name that became locked meanwhile is told no more.
        if let Err(locked) = self.check().await {
            return locked;
        }
        if let Some(name) = self.name
            && let Err(error) = self.unsealed.lockouts.failed(&self.mount.accessor, name, &self.rules, self.now()).await
        {
            return error.into();
        }
        RequestError::LoginRefused { said: refusal.said, reason: refusal.reason }
    }

    fn succeeded(&self) {
        if let Some(name) = self.name {
            self.unsealed.lockouts.succeeded(&self.mount.accessor, name);
        }
    }
}

async fn make_token(
    core: &Core,
    unsealed: &Unsealed,
    request: &LogicalRequest,
    mount: &MountEntry,
    client: Option<IpAddr>,
    (plan, is_exact): (LoginPlan, bool),
) -> Result<LogicalResponse, RequestError> {
    let LoginPlan { display_name: name, metadata, alias, token: params, internal } = plan;
    let policies = policies(&params)?;
    let bound_cidrs = addresses(&params, client)?;
    let kind = kind(params.kind, mount.token_type);
    let is_batch = kind == TokenKind::Batch;
    // A mount that makes batch tokens only does not ask what its roles wished.
    let period = if is_batch { Ttl::ZERO } else { params.period };
    let created_at = core.seams.clock.now();
    let End { ttl, warnings, .. } = lifetime(&params, period, unsealed.methods.ttls(mount), created_at)?;
    if is_batch {
        let role = unsealed.methods.of(mount).and_then(|method| method.role_of(&internal)).unwrap_or_default();
        unsealed.quotas.leases.refuse_if_full(&request.path, &mount.accessor, role).await?;
    }
    let entity = entity(unsealed, mount, &alias, is_exact).await?;
    let new = NewToken {
        kind,
        parent: None,
        mount: Some(mount.accessor.clone()),
        policies,
        path: request.path.clone(),
        display_name: display_name(mount, &name),
        meta: Some(metadata),
        role: None,
        num_uses: if is_batch { 0 } else { params.num_uses },
        created_at,
        ttl,
        explicit_max_ttl: params.explicit_max_ttl,
        period,
        // Policy modules do not judge logins.
        agreed_end: None,
        renewable: true,
        bound_cidrs,
        wraps: None,
        entity: entity.as_ref().map(|entity| entity.id.clone()),
        login: Some(internal),
        id: None,
    };
    let (id, record) = match unsealed.tokens.mint(new).await {
        Ok(made) => made,
        Err(MintError::Store(error)) => return Err(error.into()),
        // The mount was disabled, or the entity deleted, while this request was under way.
        Err(MintError::Orphaned) => return Err(RequestError::BadToken),
        Err(other) => return Err(RequestError::Invalid(other.to_string())),
    };
    unsealed.leases.falls_due(record.expires_at.unwrap_or(Timestamp::NEVER));
    metrics::token_made(&unsealed.installation.cluster_name, mount, record.kind.as_str(), record.creation_ttl);
    let identity = entity.map(|entity| unsealed.identities.seen(entity, &record.policies));
    let auth = auth_answer(&record, record.creation_ttl, Some(id), true, identity);
    Ok(LogicalResponse { auth: Some(auth), warnings, ..LogicalResponse::default() })
}

/// Who stands behind the name.
async fn entity(
    unsealed: &Unsealed,
    mount: &MountEntry,
    alias: &LoginAlias,
    is_exact: bool,
) -> Result<Option<Entity>, RequestError> {
    if alias.name.is_empty() {
        return Ok(None);
    }
    let named = |name: &String| AliasName::new(name, is_exact);
    let who = LoginIdentity {
        name: named(&alias.name),
        metadata: alias.metadata.clone(),
        groups: alias.groups.as_ref().map(|groups| groups.iter().map(named).collect()),
    };
    match unsealed.identities.log_in(&mount.accessor, &who).await {
        Ok(entity) => Ok(Some(entity)),
        Err(RequestError::BadToken) => {
            Err(RequestError::LoginDenied { reason: "the entity that the name stands for is disabled".to_owned() })
        }
        Err(other) => Err(other),
    }
}

fn policies(params: &TokenParams) -> Result<Vec<String>, RequestError> {
    let mut policies = params.policies.clone();
    if !params.no_default_policy {
        policies.push("default".to_owned());
    }
    let policies = sanitized(&policies);
    for name in &policies {
        match name.as_str() {
            "root" => return Err(RequestError::invalid("auth methods cannot create root tokens")),
            "response-wrapping" => return Err(RequestError::Invalid(format!("cannot assign policy {name:?}"))),
            _ => {}
        }
    }
    Ok(policies)
}

fn addresses(params: &TokenParams, client: Option<IpAddr>) -> Result<Vec<Cidr>, RequestError> {
    match (params.strictly_bind_ip, client) {
        (false, _) => Ok(params.bound_cidrs.clone()),
        (true, Some(client)) => Ok(vec![Cidr::only(client)]),
        (true, None) => Err(RequestError::LoginDenied {
            reason: "token_strictly_bind_ip is set, and the request came from no IP address".to_owned(),
        }),
    }
}

/// What a mount makes of a user's or role's wish.
fn kind(wished: ChosenKind, mount: MountTokenType) -> TokenKind {
    match (mount, wished) {
        (MountTokenType::Service, _)
        | (MountTokenType::DefaultService, ChosenKind::Default)
        | (MountTokenType::DefaultService | MountTokenType::DefaultBatch, ChosenKind::Service) => TokenKind::Service,
        (MountTokenType::Batch, _)
        | (MountTokenType::DefaultBatch, ChosenKind::Default)
        | (MountTokenType::DefaultService | MountTokenType::DefaultBatch, ChosenKind::Batch) => TokenKind::Batch,
    }
}

fn lifetime(params: &TokenParams, period: Ttl, ttls: SystemTtls, now: Timestamp) -> Result<End, RequestError> {
    let wished = match period.if_set() {
        Some(period) => RequestedTtl::Period(period),
        None => RequestedTtl::Ttl(params.ttl.if_set().unwrap_or(ttls.default_lease_ttl)),
    };
    let bounds = TtlBounds {
        created_at: now,
        now,
        max: least(&[params.max_ttl, ttls.max_lease_ttl]).unwrap_or(ttls.max_lease_ttl),
        explicit_max: params.explicit_max_ttl,
        agreed_end: Timestamp::NEVER,
        ceiling: None,
    };
    ttl::end(wished, &bounds).ok_or_else(|| RequestError::Internal("max TTL must be greater than zero".to_owned()))
}

/// `userpass-bob` for Bob of `auth/userpass/`; `team-approle` for a role of `auth/team/approle/`.
fn display_name(mount: &MountEntry, name: &str) -> String {
    let mount = mount.shown_path().replace('/', "-");
    format!("{mount}{name}").trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_decides_where_it_is_set_and_the_role_where_it_is_not() {
        use ChosenKind as Role;
        use MountTokenType as Mount;
        for (mount, [by_default, service, batch]) in [
            (Mount::DefaultService, [TokenKind::Service, TokenKind::Service, TokenKind::Batch]),
            (Mount::DefaultBatch, [TokenKind::Batch, TokenKind::Service, TokenKind::Batch]),
            (Mount::Service, [TokenKind::Service; 3]),
            (Mount::Batch, [TokenKind::Batch; 3]),
        ] {
            assert_eq!(kind(Role::Default, mount), by_default, "{mount:?}");
            assert_eq!(kind(Role::Service, mount), service, "{mount:?}");
            assert_eq!(kind(Role::Batch, mount), batch, "{mount:?}");
        }
    }

    #[test]
    fn no_login_makes_a_root_token() {
        for policy in ["root", " ROOT ", "response-wrapping"] {
            let params = TokenParams { policies: vec!["a".to_owned(), policy.to_owned()], ..TokenParams::default() };
            assert!(policies(&params).is_err(), "{policy}");
        }
        assert_eq!(policies(&TokenParams::default()).unwrap(), ["default"]);
    }

    #[test]
    fn a_token_is_not_bound_to_an_address_that_is_not_known() {
        let strict = TokenParams { strictly_bind_ip: true, ..TokenParams::default() };
        assert!(addresses(&strict, None).is_err());
        assert_eq!(addresses(&strict, "10.0.0.9".parse().ok()).unwrap(), ["10.0.0.9".parse().unwrap()]);
    }
}
