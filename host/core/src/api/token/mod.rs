//! The API of `auth/token/` (contract.md §3).

mod renew;
pub(super) mod roles;

use leasehold_model::{Accessor, Timestamp, TokenHash, TokenId, Ttl};
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler, lease_error};
use crate::api::pages;
use crate::commit::TRIES;
use crate::core::Unsealed;
use crate::fields::{Field, Kind};
use crate::identity::CallerIdentity;
use crate::lease::EndCause;
use crate::metrics;
use crate::request::{AuthAnswer, AuthIdentity, LogicalResponse, Object};
use crate::routes::{self, Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::storage::StorageError;
use crate::token::TokenRecord;
use crate::token::create::{self, TokenTtls};
use crate::token::end::Children;
use crate::token::role::UsedRole;
use crate::token::store::may_be_token;

const TOKEN: Field = Field::hidden("token", Kind::Any, "The token.");
const ACCESSOR: Field = Field::visible("accessor", Kind::Text, "The token's accessor.");
const INCREMENT: Field = Field::visible("increment", Kind::Duration, "The wished TTL from now.");

/// A route that takes writes only.
const fn writing(
    pattern: &'static str,
    summary: &'static str,
    ops: &'static [Op<SystemHandler>],
) -> Route<SystemHandler> {
    Route::new(pattern, Access::Token, summary, ops)
}

const SHOWN: Answer = Answer::Data(&[
    Field::visible("accessor", Kind::Text, "Names the token without being one."),
    Field::visible("creation_time", Kind::Int, "Seconds since the epoch."),
    Field::visible("creation_ttl", Kind::Int, "Its first TTL, in seconds."),
    Field::visible("display_name", Kind::Text, "Shown in audit and in user names."),
    Field::visible("entity_id", Kind::Text, "The entity that it stands for."),
    Field::visible("expire_time", Kind::Time, "When it ends; null: never."),
    Field::visible("explicit_max_ttl", Kind::Int, "No renewal passes this; 0: none set."),
    Field::hidden("id", Kind::Text, "The token itself, where the request has shown it."),
    Field::visible("identity_policies", Kind::List, "What that entity and its groups give besides."),
    Field::visible("issue_time", Kind::Time, "When it was made."),
    Field::visible("meta", Kind::KvPairs, "Shown in audit."),
    Field::visible("num_uses", Kind::Int, "Uses that are left; 0: without limit."),
    Field::visible("orphan", Kind::Bool, "Whether it has no parent."),
    Field::visible("path", Kind::Text, "What made it."),
    Field::visible("policies", Kind::List, "Its policies."),
    Field::visible("renewable", Kind::Bool, "Whether it may be renewed."),
    Field::visible("role", Kind::Text, "The token role that it was made with."),
    Field::visible("ttl", Kind::Int, "Seconds that are left."),
    Field::visible("type", Kind::Text, "`service` or `batch`."),
]);

const TABLES: &[&[Route<SystemHandler>]] = &[OWN, roles::ROUTES];

/// All routes; literal ones before captures.
pub const ROUTES: &[Route<SystemHandler>] = &routes::joined::<_, { routes::count(TABLES) }>(TABLES);

const OWN: &[Route<SystemHandler>] = &[
    writing(
        "create",
        "Makes a child token.",
        &[Op::update("Makes a child token.", handler!(create_child)).takes(create::FIELDS).answers(Answer::Auth)],
    ),
    writing(
        "create/:role_name",
        "Makes a token as a token role says.",
        &[Op::update("Makes a token as a token role says.", handler!(create_with_role))
            .takes(create::FIELDS)
            .answers(Answer::Auth)],
    ),
    writing(
        "create-orphan",
        "Makes a token without a parent.",
        &[Op::update("Makes a token without a parent.", handler!(create_orphan))
            .takes(create::FIELDS)
            .answers(Answer::Auth)],
    ),
    writing(
        "lookup-self",
        "The calling token.",
        &[
            Op::read("Shows the calling token.", handler!(lookup_self)).answers(SHOWN),
            Op::update("Shows the calling token.", handler!(lookup_self)).answers(SHOWN),
        ],
    ),
    writing(
        "lookup",
        "Shows a token.",
        &[
            Op::read("Shows a token, the calling one when none is given.", handler!(lookup))
                .takes(&[TOKEN])
                .answers(SHOWN),
            Op::update("Shows a token, the calling one when none is given.", handler!(lookup))
                .takes(&[TOKEN])
                .answers(SHOWN),
        ],
    ),
    writing(
        "lookup-accessor",
        "Shows a token by its accessor.",
        &[Op::update("Shows a token by its accessor.", handler!(lookup_accessor))
            .takes(&[ACCESSOR.required()])
            .answers(SHOWN)],
    ),
    writing(
        "renew-self",
        "Extends the calling token.",
        &[Op::update("Extends the calling token.", handler!(renew_self))
            .takes(&[INCREMENT, TOKEN])
            .answers(Answer::Auth)],
    ),
    writing(
        "renew",
        "Extends a token.",
        &[Op::update("Extends a token.", handler!(renew_given))
            .takes(&[TOKEN.required(), INCREMENT])
            .answers(Answer::Auth)],
    ),
    writing(
        "renew-accessor",
        "Extends a token by its accessor.",
        &[Op::update("Extends a token by its accessor.", handler!(renew_accessor))
            .takes(&[ACCESSOR.required(), INCREMENT])
            .answers(Answer::Auth)],
    ),
    writing(
        "revoke-self",
        "Ends the calling token, its children and leases.",
        &[Op::update("Ends the calling token, its children and leases.", handler!(revoke_self)).takes(&[TOKEN])],
    ),
    writing(
        "revoke",
        "Ends a token, its children and leases.",
        &[Op::update("Ends a token, its children and leases.", handler!(revoke)).takes(&[TOKEN.required()])],
    ),
    writing(
        "revoke-accessor",
        "Ends a token by its accessor.",
        &[Op::update("Ends a token by its accessor.", handler!(revoke_accessor)).takes(&[ACCESSOR.required()])],
    ),
    writing(
        "revoke-orphan",
        "Ends a token and its leases; its children become orphans. Needs sudo.",
        &[Op::update("Ends a token and its leases; its children become orphans.", handler!(revoke_orphan))
            .takes(&[TOKEN.required()])],
    ),
    writing(
        "tidy",
        "Nothing to tidy: tokens and their indexes are written in one step.",
        &[Op::update("Does nothing: tokens and their indexes are written in one step.", handler!(tidy))],
    ),
    Route::new(
        "accessors",
        Access::Sudo,
        "The accessors of all tokens.",
        &[Op::list("Lists the accessors of all tokens.", handler!(accessors)).takes(pages::PAGE)],
    ),
];

async fn create_child(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    create(call, false, None).await
}

async fn create_with_role(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = call.capture("role_name");
    for _ in 0..TRIES {
        let role = call.unsealed.tokens.role(name).await?;
        let role = role.ok_or_else(|| RequestError::Invalid(format!("unknown role {name}")))?;
        match create(call, false, Some(&role)).await {
            // It has changed since it was read.
            Err(RequestError::Storage(StorageError::Conflict(_))) => {}
            done => return done,
        }
    }
    Err(RequestError::Unavailable(format!("token role {name} is being changed by too many requests, try again")))
}

async fn create_orphan(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    create(call, true, None).await
}

async fn lookup_self(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let caller = call.caller()?;
    Ok(LogicalResponse::data(shown(call, &caller.record, call.request.token.as_ref()).await?))
}

async fn lookup(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let Some(token) = given_token(call)? else { return lookup_self(call).await };
    match call.unsealed.tokens.find_shown(&token).await? {
        Some((_, record)) => Ok(LogicalResponse::data(shown(call, &record, Some(&token)).await?)),
        None => Err(RequestError::Forbidden("bad token".to_owned())),
    }
}

async fn lookup_accessor(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let (_, record) = by_accessor(call).await?.ok_or_else(invalid_accessor)?;
    Ok(LogicalResponse::data(shown(call, &record, None).await?))
}

async fn renew_self(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let token = call.request.token.clone();
    if call.caller()?.record.is_batch() {
        return Err(RequestError::invalid(NOT_RENEWED));
    }
    renew::renew(call, &call.caller()?.hash, token).await
}

async fn renew_given(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let token = given_token(call)?.ok_or_else(missing_token)?;
    let Some((hash, record)) = call.unsealed.tokens.find_shown(&token).await? else {
        return Err(RequestError::invalid("token not found"));
    };
    if record.is_batch() {
        return Err(RequestError::invalid(NOT_RENEWED));
    }
    renew::renew(call, &hash, Some(token)).await
}

async fn renew_accessor(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let (hash, _) = by_accessor(call).await?.ok_or_else(invalid_accessor)?;
    renew::renew(call, &hash, None).await
}

async fn revoke_self(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    if call.caller()?.record.is_batch() {
        return Err(RequestError::invalid(NOT_REVOKED));
    }
    end(call, &call.caller()?.hash, Children::AreRevoked).await
}

async fn revoke(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let token = given_token(call)?.ok_or_else(missing_token)?;
    match call.unsealed.tokens.find_shown(&token).await? {
        Some((_, record)) if record.is_batch() => Err(RequestError::invalid(NOT_REVOKED)),
        // Also one that has just expired: what hangs on it ends now.
        _ => end(call, &call.unsealed.tokens.hash(&token), Children::AreRevoked).await,
    }
}

async fn revoke_accessor(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    match by_accessor(call).await? {
        Some((hash, _)) => end(call, &hash, Children::AreRevoked).await,
        None => Ok(LogicalResponse::empty().warn("No token found with this accessor")),
    }
}

async fn revoke_orphan(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let token = given_token(call)?.ok_or_else(missing_token)?;
    // The ACL asks for no sudo here (only below this path), so the route does: cutting children loose takes them out of the
    // reach of whoever revokes their parent's parent.
    if !call.sudo {
        return Err(RequestError::invalid("root or sudo privileges required to revoke and orphan"));
    }
    let Some((hash, record)) = call.unsealed.tokens.find_shown(&token).await? else {
        return Err(RequestError::invalid("token to revoke not found"));
    };
    if record.is_batch() {
        return Err(RequestError::invalid(NOT_REVOKED));
    }
    end(call, &hash, Children::BecomeOrphans).await
}

async fn tidy(_: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(LogicalResponse::empty().warn(TIDYING).with_status(202))
}

async fn accessors(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let wanted = pages::Wanted::of(call, pages::NAMES_MAX);
    let keys = call.unsealed.tokens.accessors(wanted.after, wanted.most).await?;
    if keys.is_empty() {
        return Err(RequestError::NotFound);
    }
    Ok(wanted.told(keys.len(), LogicalResponse::json(json!({ "keys": keys })), "accessors"))
}

fn missing_token() -> RequestError {
    RequestError::invalid("missing token ID")
}

fn invalid_accessor() -> RequestError {
    RequestError::InvalidMulti("invalid accessor".to_owned())
}

/// Vault's words for work that is never needed here.
pub(crate) const TIDYING: &str =
    "Tidy operation successfully started. Any information from the operation will be printed to the server logs.";

const NOT_RENEWED: &str = "batch tokens cannot be renewed";
const NOT_REVOKED: &str = "batch tokens cannot be revoked";

/// TTLs that hold for tokens.
fn limits(call: &Call<'_>) -> TokenTtls {
    let entry = call.unsealed.mounts.by_path("auth/token/");
    let system = call.unsealed.engines.ttls;
    entry.map_or(TokenTtls { default_ttl: system.default_lease_ttl, max_ttl: system.max_lease_ttl }, |entry| {
        let ttls = call.unsealed.engines.ttls(&entry);
        TokenTtls { default_ttl: ttls.default_lease_ttl, max_ttl: ttls.max_lease_ttl }
    })
}

async fn create(call: &Call<'_>, orphan_route: bool, role: Option<&UsedRole>) -> Result<LogicalResponse, RequestError> {
    let wish = create::TokenRequest {
        parent: call.caller()?,
        path: &call.request.path,
        orphan_route,
        role,
        sudo: call.sudo,
        limits: limits(call),
        ceiling: call.ceiling,
    };
    let exists = |name: &str| call.unsealed.policies.find(name).is_some();
    let Unsealed { tokens, identities, .. } = &**call.unsealed;
    let made = create::create((tokens, identities), &*call.core.seams.clock, exists, &wish, &call.fields).await?;
    call.unsealed.leases.falls_due(made.record.expires_at.unwrap_or(Timestamp::NEVER));
    let cluster = &call.unsealed.installation.cluster_name;
    if let Some(mount) = call.unsealed.mounts.by_path("auth/token/") {
        if made.record.is_batch() {
            // It is stored nowhere: not handed out, it does not exist.
            call.unsealed.quotas.leases.refuse_if_full(&made.record.path, &mount.accessor, "").await?;
        }
        metrics::token_made(cluster, &mount, made.record.kind.as_str(), made.record.creation_ttl);
    }
    let (id, ttl) = (made.id, made.record.creation_ttl);
    let auth = auth_answer(&made.record, ttl, Some(id), true, made.identity);
    Ok(LogicalResponse { auth: Some(auth), warnings: made.warnings, ..LogicalResponse::default() })
}

/// The `auth` block of a token.
pub(crate) fn auth_answer(
    record: &TokenRecord,
    ttl: Ttl,
    client_token: Option<TokenId>,
    is_new: bool,
    identity: Option<CallerIdentity>,
) -> AuthAnswer {
    AuthAnswer {
        display_name: record.display_name.clone(),
        issued_at: record.created_at,
        client_token,
        accessor: record.accessor.as_str().to_owned(),
        policies: record.policies.clone(),
        metadata: record.meta.clone(),
        ttl,
        renewable: record.renewable,
        token_type: record.kind.as_str(),
        orphan: record.parent.is_none(),
        num_uses: u32::try_from(record.creation_uses.max(record.num_uses)).unwrap_or(0),
        is_new,
        identity: identity.map(|CallerIdentity { entity, identity_policies: mut policies, .. }| {
            policies.sort();
            AuthIdentity { entity_id: entity.id, policies }
        }),
    }
}

fn given_token(call: &Call<'_>) -> Result<Option<TokenId>, RequestError> {
    match call.request.data.get("token") {
        None => Ok(None),
        Some(Value::String(token)) if token.is_empty() => Ok(None),
        Some(Value::String(token)) if may_be_token(token) => Ok(Some(TokenId::new(token.as_str()))),
        Some(Value::String(_)) => Err(RequestError::Forbidden("bad token".to_owned())),
        // Also `null`: a script that lost its token must not act on its own.
        Some(_) => Err(RequestError::Forbidden("invalid token".to_owned())),
    }
}

async fn by_accessor(call: &Call<'_>) -> Result<Option<(TokenHash, TokenRecord)>, RequestError> {
    match call.fields.text("accessor") {
        // Accessors are short; a longer text cannot be one and must not become a storage key.
        Some(accessor) if accessor.len() > 64 => Ok(None),
        Some(accessor) if !accessor.is_empty() => {
            Ok(call.unsealed.tokens.find_by_accessor(&Accessor::new(accessor)).await?)
        }
        _ => Err(RequestError::InvalidMulti("missing accessor".to_owned())),
    }
}

async fn end(call: &Call<'_>, hash: &TokenHash, children: Children) -> Result<LogicalResponse, RequestError> {
    let cause = EndCause::Revoked { by: call.asker() };
    call.unsealed.leases.end_token(hash, children, &cause).await.map_err(lease_error)?;
    Ok(LogicalResponse::empty())
}

/// A look-up's data. The id stands in it only when the one who asked has shown it.
async fn shown(call: &Call<'_>, record: &TokenRecord, token: Option<&TokenId>) -> Result<Object, RequestError> {
    let identities = &call.unsealed.identities;
    let identity = identities.shown_of(record.entity.as_deref(), &record.policies).await?;
    let now = call.core.seams.clock.now();
    let mut data = Object::new();
    let mut put = |name: &str, value: Value| {
        data.insert(name.to_owned(), value);
    };
    put("accessor", record.accessor.as_str().into());
    if !record.bound_cidrs.is_empty() {
        put("bound_cidrs", json!(record.bound_cidrs));
    }
    put("creation_time", record.created_at.as_secs().into());
    put("creation_ttl", record.creation_ttl.as_secs().into());
    put("display_name", record.display_name.clone().into());
    put("entity_id", record.entity.clone().unwrap_or_default().into());
    put("expire_time", record.expires_at.map_or(Value::Null, |at| at.rfc3339().into()));
    put("explicit_max_ttl", record.longest().as_secs().into());
    if let Some(identity) = identity.filter(|identity| !identity.identity_policies.is_empty()) {
        put("identity_policies", json!(identity.identity_policies));
    }
    put("id", token.map_or("", TokenId::expose).into());
    put("issue_time", record.created_at.rfc3339().into());
    if let Some(at) = record.last_renewed_at {
        put("last_renewal", at.rfc3339().into());
        put("last_renewal_time", at.as_secs().into());
    }
    put("meta", json!(record.meta));
    put("num_uses", record.num_uses.into());
    put("orphan", record.parent.is_none().into());
    put("path", record.path.clone().into());
    if !record.period.is_zero() {
        put("period", record.period.as_secs().into());
    }
    put("policies", json!(record.policies));
    put("renewable", record.renewable.into());
    if let Some(role) = &record.role {
        put("role", role.clone().into());
    }
    put("ttl", record.ttl(now).as_secs().into());
    put("type", record.kind.as_str().into());
    Ok(data)
}
