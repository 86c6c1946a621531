//! The rules of `auth/token/create` and `create-orphan` (contract.md §3.2).

use std::collections::{BTreeMap, BTreeSet};

use leasehold_model::duration::{self, DurationError};
use leasehold_model::{Accessor, Timestamp, TokenId, Ttl, glob};

use super::mint::{MintError, NewToken};
use super::role::{PoliciesAsked, TokenRole, UsedRole};
use super::{Caller, TokenKind, TokenRecord, Tokens};
use crate::fields::{Field, Fields, Kind};
use crate::identity::entity::AliasName;
use crate::identity::login::LoginIdentity;
use crate::identity::{CallerIdentity, Entity, Identities};
use crate::mount::MountTokenType;
use crate::seams::error::RequestError;
use crate::seams::host::{Clock, Entropy};
use crate::ttl::{self, TtlBounds};

/// Zero durations and empty strings mean unset: Vault's clients send them always.
pub const FIELDS: &[Field] = &[
    Field::visible("policies", Kind::List, "Policies of the new token; the parent's when none are given."),
    Field::visible("ttl", Kind::Text, "Initial TTL."),
    Field::visible("lease", Kind::Text, "Old name of ttl."),
    Field::visible("explicit_max_ttl", Kind::Text, "No renewal passes this."),
    Field::visible("period", Kind::Text, "Every renewal resets the TTL to this; needs sudo."),
    Field::visible("num_uses", Kind::Int, "How many requests the token may make; 0 is without limit."),
    Field::visible("no_parent", Kind::Bool, "Makes an orphan; needs sudo."),
    Field::visible("no_default_policy", Kind::Bool, "Leaves the policy `default` out."),
    Field::visible("display_name", Kind::Text, "Shown in audit and in user names."),
    Field::visible("meta", Kind::KvPairs, "Shown in audit and in look-ups."),
    Field::visible("renewable", Kind::Bool, "Whether the token may be renewed."),
    Field::visible("type", Kind::Text, "`service`, or `batch`: not stored, renewed or revoked."),
    Field::hidden("id", Kind::Text, "The token itself, instead of a random one; needs sudo."),
    Field::visible("entity_alias", Kind::Text, "Whom it stands for, as `auth/token/` knows them; only with a role."),
];

/// TTLs that hold for tokens: of the `auth/token/` mount, else the system's.
#[derive(Clone, Copy, Debug)]
pub struct TokenTtls {
    pub default_ttl: Ttl,
    pub max_ttl: Ttl,
}

/// A token that was made, with what the client should know besides.
pub struct Created {
    pub id: TokenId,
    pub record: TokenRecord,
    /// Whom it stands for.
    pub identity: Option<CallerIdentity>,
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Created {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Created").field("accessor", &self.record.accessor).finish_non_exhaustive()
    }
}

/// What the rules need to know beyond the fields.
#[derive(Debug)]
pub struct TokenRequest<'a> {
    pub parent: &'a Caller,
    pub path: &'a str,
    pub orphan_route: bool,
    /// The token role by its name, where the path names one.
    pub role: Option<&'a UsedRole>,
    /// The parent has sudo on the path.
    pub sudo: bool,
    pub limits: TokenTtls,
    /// The least TTL ceiling that policy modules put on this request: the token's whole life keeps to it.
    pub ceiling: Option<Ttl>,
}

impl TokenRequest<'_> {
    /// What no renewal of the new token may pass. A token that lives under a ceiling makes none that lives longer, orphans
    /// included: whoever may make tokens could otherwise walk out of it.
    fn agreed_end(&self, now: Timestamp) -> Option<Timestamp> {
        [self.parent.record.agreed_end, self.ceiling.map(|ceiling| now + ceiling)].into_iter().flatten().min()
    }
}

fn refuse<T>(text: &str) -> Result<T, RequestError> {
    Err(RequestError::invalid(text))
}

/// Checks every rule, then stores the token, or seals it.
///
/// # Errors
/// Vault's texts for each rule; `Conflict` where the token role has changed since it was read.
pub async fn create(
    (tokens, identities): (&Tokens, &Identities),
    clock: &dyn Clock,
    policy_exists: impl Fn(&str) -> bool,
    wish: &TokenRequest<'_>,
    fields: &Fields,
) -> Result<Created, RequestError> {
    let parent = &wish.parent.record;
    if parent.is_batch() {
        return refuse("batch tokens cannot create more tokens");
    }
    if parent.num_uses != 0 {
        return refuse("restricted use token cannot generate child tokens");
    }
    let role = wish.role.map(|used| &used.role);
    let kind = kind(fields, role)?;
    let is_batch = kind == TokenKind::Batch;
    let alias = entity_alias(fields, role)?;
    let explicit_max_ttl = length(fields, "explicit_max_ttl")?;
    let period = length(fields, "period")?;
    let num_uses = fields.int("num_uses").unwrap_or(0);
    for (name, is_set) in
        [("explicit_max_ttl", !explicit_max_ttl.is_zero()), ("num_uses", num_uses != 0), ("period", !period.is_zero())]
    {
        if is_batch && is_set {
            return Err(RequestError::Invalid(format!("batch tokens cannot have \"{name}\" set")));
        }
    }
    let num_uses = match i32::try_from(num_uses) {
        Ok(uses) if uses >= 0 => uses,
        Ok(_) => return refuse("number of uses cannot be negative"),
        Err(_) => return refuse("number of uses is too large"),
    };
    // A role says itself whether its tokens have a parent.
    let no_parent = role.is_none() && fields.bool("no_parent").unwrap_or(false);
    if no_parent && !wish.sudo {
        return refuse("root or sudo privileges required to create orphan token");
    }
    let orphan = no_parent || wish.orphan_route || role.is_some_and(|role| role.orphan);
    let id = custom_id(fields, wish.sudo)?;
    if !period.is_zero() && !wish.sudo {
        return refuse("root or sudo privileges required to create periodic token");
    }

    let mut warnings = Vec::new();
    let policies = policies(fields, wish.parent, role, wish.sudo)?;
    let is_root = policies == ["root"];
    if is_batch && is_root {
        return refuse("batch tokens cannot be root tokens");
    }
    if is_batch && id.is_some() {
        warnings.push("a batch token has no ID of its own: `id` was ignored".to_owned());
    }
    let now = clock.now();
    // Tokens that carry their own record cannot be renewed, nor counted.
    let role_of_stored = role.filter(|_| !is_batch);
    let (of_role, uses) = role_of_stored.map_or((Lengths::default(), 0), |role| {
        let (period, explicit_max_ttl) = (role.token.period, role.token.explicit_max_ttl);
        (Lengths { ttl: None, period, explicit_max_ttl }, role.token.num_uses)
    });
    let explicit_max_ttl = lesser("Explicit max TTL", explicit_max_ttl, of_role.explicit_max_ttl, &mut warnings);
    let period = lesser("Period", period, of_role.period, &mut warnings);
    let num_uses = [num_uses, uses].into_iter().filter(|uses| *uses > 0).min().unwrap_or(0);
    let asked = Lengths {
        ttl: length(fields, "ttl")?.if_set().or(length(fields, "lease")?.if_set()),
        period,
        explicit_max_ttl,
    };
    let (ttl, capped) = time_to_live(wish, &asked, is_root, now)?;
    warnings.extend(capped);
    warnings.extend(
        policies
            .iter()
            .filter(|name| *name != "root" && !policy_exists(name))
            .map(|name| format!("Policy \"{name}\" does not exist")),
    );

    let new = NewToken {
        kind,
        parent: (!orphan).then(|| wish.parent.hash.clone()),
        mount: None,
        policies,
        path: match role.map(|role| role.path_suffix.as_str()) {
            None | Some("") => wish.path.to_owned(),
            Some(suffix) => format!("{}/{suffix}", wish.path),
        },
        display_name: display_name(fields.text("display_name").unwrap_or_default()),
        meta: fields.pairs("meta").cloned(),
        role: wish.role.map(|used| (used.name.clone(), used.unchanged)),
        num_uses,
        created_at: now,
        ttl,
        explicit_max_ttl,
        period,
        agreed_end: wish.agreed_end(now),
        renewable: fields.bool("renewable").unwrap_or(true) && role.is_none_or(|role| role.renewable),
        // Nobody frees a token from its addresses by making another one with it, unless a role says from where.
        bound_cidrs: match role {
            Some(role) if !role.token.bound_cidrs.is_empty() => role.token.bound_cidrs.clone(),
            _ => parent.bound_cidrs.clone(),
        },
        wraps: None,
        entity: None,
        login: None,
        id: id.filter(|_| !is_batch),
    };
    // The last thing before: what is refused leaves no entity behind.
    let entity = match alias {
        Some(alias) => Some(lent(identities, tokens, &alias).await?),
        // Whoever is let go of stands for nobody.
        None => wish.parent.identity.as_ref().filter(|_| !orphan).map(|identity| identity.entity.clone()),
    };
    let new = NewToken { entity: entity.as_ref().map(|entity| entity.id.clone()), ..new };
    match tokens.mint(new).await {
        Ok((id, record)) => {
            let identity = entity.map(|entity| identities.seen(entity, &record.policies));
            Ok(Created { id, record, identity, warnings })
        }
        Err(error @ (MintError::TooLong | MintError::Duplicate)) => Err(RequestError::Invalid(error.to_string())),
        // The parent was revoked while this request was under way.
        Err(MintError::Orphaned) => Err(RequestError::BadToken),
        Err(MintError::Store(error)) => Err(error.into()),
    }
}

fn kind(fields: &Fields, role: Option<&TokenRole>) -> Result<TokenKind, RequestError> {
    let asked = match fields.text("type").unwrap_or_default() {
        "" => None,
        "service" => Some(TokenKind::Service),
        "batch" => Some(TokenKind::Batch),
        _ => return refuse("invalid 'token_type' value"),
    };
    Ok(match role.map(|role| role.kind).unwrap_or_default() {
        MountTokenType::DefaultService => asked.unwrap_or(TokenKind::Service),
        MountTokenType::DefaultBatch => asked.unwrap_or(TokenKind::Batch),
        MountTokenType::Service => TokenKind::Service,
        MountTokenType::Batch => TokenKind::Batch,
    })
}

fn entity_alias(fields: &Fields, role: Option<&TokenRole>) -> Result<Option<LoginIdentity>, RequestError> {
    let Some(alias) = fields.text("entity_alias").filter(|alias| !alias.is_empty()) else { return Ok(None) };
    let Some(role) = role else {
        return refuse("'entity_alias' is only allowed in combination with token role");
    };
    let name = AliasName::new(alias, false);
    let allowed = role.allowed_entity_aliases.as_deref().unwrap_or_default();
    if allowed.iter().any(|pattern| glob::covers(pattern, &name.key)) {
        return Ok(Some(LoginIdentity { name, metadata: None, groups: None }));
    }
    refuse("invalid 'entity_alias' value")
}

/// The entity of an alias that a token role lends.
async fn lent(identities: &Identities, tokens: &Tokens, alias: &LoginIdentity) -> Result<Entity, RequestError> {
    identities.log_in(tokens.mount(), alias).await.map_err(|error| match error {
        RequestError::BadToken => RequestError::Forbidden("entity from given entity alias is disabled".to_owned()),
        other => other,
    })
}

/// What a request and its role say, where both do.
fn lesser(what: &str, asked: Ttl, of_role: Ttl, warnings: &mut Vec<String>) -> Ttl {
    let least = ttl::least(&[asked, of_role]).unwrap_or(Ttl::ZERO);
    if !asked.is_zero() && !of_role.is_zero() {
        let seconds = least.as_secs();
        warnings.push(format!(
            "{what} specified both during creation call and in role; using the lesser value of {seconds} seconds"
        ));
    }
    least
}

/// The lengths that a request names.
#[derive(Default)]
struct Lengths {
    ttl: Option<Ttl>,
    period: Ttl,
    explicit_max_ttl: Ttl,
}

/// Zero: without an end. Warnings besides.
fn time_to_live(
    wish: &TokenRequest<'_>,
    asked: &Lengths,
    is_root: bool,
    now: Timestamp,
) -> Result<(Ttl, Vec<String>), RequestError> {
    let lasting = match asked.period.if_set() {
        Some(period) => Some(ttl::RequestedTtl::Period(period)),
        None if is_root => asked.ttl.or(wish.ceiling).map(ttl::RequestedTtl::Ttl),
        None => Some(ttl::RequestedTtl::Ttl(asked.ttl.unwrap_or(wish.limits.default_ttl))),
    };
    if let Some(lasting) = lasting {
        let bounds = TtlBounds {
            created_at: now,
            now,
            max: wish.limits.max_ttl,
            explicit_max: asked.explicit_max_ttl,
            agreed_end: wish.agreed_end(now).unwrap_or(Timestamp::NEVER),
            ceiling: wish.ceiling,
        };
        let end = ttl::end(lasting, &bounds).ok_or_else(|| match wish.parent.record.agreed_end {
            // The parent ends within this second, and nothing that it makes may live on.
            Some(end) if end.as_secs() <= now.as_secs() => RequestError::BadToken,
            _ => RequestError::Internal("max TTL must be greater than zero".to_owned()),
        })?;
        return Ok((end.ttl, end.warnings));
    }
    if asked.explicit_max_ttl.is_zero() && wish.parent.record.expires_at.is_some() {
        return refuse("expiring root tokens cannot create non-expiring root tokens");
    }
    Ok((asked.explicit_max_ttl, Vec::new()))
}

/// Vault reads these as texts, and says so when they are none. Zero is unset, and nothing else is.
fn length(fields: &Fields, name: &str) -> Result<Ttl, RequestError> {
    let text = fields.text(name).unwrap_or_default();
    duration::parse_set(text).map_err(|error| match error {
        DurationError::Negative(_) => RequestError::Invalid(format!("{name} must be positive")),
        other => RequestError::Invalid(other.to_string()),
    })
}

fn custom_id(fields: &Fields, sudo: bool) -> Result<Option<TokenId>, RequestError> {
    let Some(id) = fields.text("id").filter(|id| !id.is_empty()) else { return Ok(None) };
    if !sudo {
        return refuse("root or sudo privileges required to specify token id");
    }
    for prefix in ["s.", "hvs.", "b.", "hvb."] {
        if id.starts_with(prefix) {
            return Err(RequestError::Invalid(format!("custom token ID cannot have the '{prefix}' prefix")));
        }
    }
    if id.contains('.') {
        return refuse("custom token ID cannot have a '.' in the value");
    }
    if id.len() > super::store::TOKEN_LEN_MAX || id.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("custom token ID must be printable, without blanks, and at most 1024 bytes");
    }
    Ok(Some(TokenId::new(id)))
}

/// Lower-cased, sorted, without doubles; `root` anywhere is `root` alone.
fn policies(
    fields: &Fields,
    caller: &Caller,
    role: Option<&TokenRole>,
    sudo: bool,
) -> Result<Vec<String>, RequestError> {
    let parent = &caller.record;
    let given: Vec<String> = fields.list("policies").unwrap_or_default().to_vec();
    if let Some(role) = role {
        let no_default_policy = fields.bool("no_default_policy").unwrap_or(false);
        let asked = PoliciesAsked { named: &given, parent: &parent.policies, no_default_policy };
        if let Some(policies) = role.policies(&asked)? {
            if policies.iter().any(|name| name == "response-wrapping") {
                return refuse("cannot assign policy \"response-wrapping\"");
            }
            if policies == ["root"] && !parent.is_root() {
                return refuse("root tokens may not be created without parent token being root");
            }
            return Ok(policies);
        }
    }
    let no_default_policy =
        fields.bool("no_default_policy").unwrap_or(false) || role.is_some_and(|role| role.token.no_default_policy);
    let source = if given.is_empty() { parent.policies.clone() } else { given };
    let mut wanted: BTreeSet<String> =
        source.iter().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect();
    if wanted.contains("response-wrapping") {
        return refuse("cannot assign policy \"response-wrapping\"");
    }
    if wanted.contains("root") {
        wanted = BTreeSet::from(["root".to_owned()]);
    } else if no_default_policy {
        wanted.remove("default");
    } else if sudo || parent.is_root() || parent.policies.iter().any(|name| name == "default") {
        // Nobody gives what he does not hold.
        wanted.insert("default".to_owned());
    }
    let wanted: Vec<String> = wanted.into_iter().collect();
    if wanted == ["root"] && !parent.is_root() {
        // Without sudo the subset rule below would say the same in other words.
        return refuse(if sudo {
            "root tokens may not be created without parent token being root"
        } else {
            "child policies must be subset of parent"
        });
    }
    // Not what its entity gives: the child would keep that when the entity has lost it.
    let held = |name: &String| parent.policies.contains(name);
    if !sudo && !parent.is_root() && !wanted.iter().all(held) {
        return refuse("child policies must be subset of parent");
    }
    Ok(wanted)
}

/// `token`, or `token-` and the name with everything else than letters, digits and `-` turned into `-`.
fn display_name(asked: &str) -> String {
    if asked.is_empty() {
        return "token".to_owned();
    }
    let clean: String = asked.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    format!("token-{clean}")
}

/// The first token of an installation.
#[derive(Debug)]
pub enum First {
    /// What init hands out.
    Root,
    /// As if it had been made with the root token: so a development server of Vault begins, and names its leased users.
    Development(Option<TokenId>),
}

impl First {
    /// Its id.
    #[must_use]
    pub fn token(&self, entropy: &dyn Entropy) -> TokenId {
        match self {
            Self::Development(Some(id)) => id.clone(),
            Self::Root | Self::Development(None) => super::store::new_id(entropy),
        }
    }

    /// What is kept of it.
    #[must_use]
    pub fn record(&self, accessor: Accessor, now: Timestamp) -> TokenRecord {
        let (path, display_name) = match self {
            Self::Root => ("auth/token/root", "root"),
            Self::Development(_) => ("auth/token/create", "token"),
        };
        TokenRecord {
            kind: TokenKind::Service,
            accessor,
            parent: None,
            policies: vec!["root".to_owned()],
            path: path.to_owned(),
            display_name: display_name.to_owned(),
            meta: None::<BTreeMap<_, _>>,
            num_uses: 0,
            creation_uses: 0,
            created_at: now,
            creation_ttl: Ttl::ZERO,
            explicit_max_ttl: Ttl::ZERO,
            period: Ttl::ZERO,
            renewable: false,
            expires_at: None,
            last_renewed_at: None,
            renewed_ttl: None,
            agreed_end: None,
            mount: None,
            bound_cidrs: Vec::new(),
            role: None,
            wraps: None,
            entity: None,
            login: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_keep_letters_digits_and_dashes() {
        assert_eq!(display_name("My Tok.en"), "token-My-Tok-en");
        assert_eq!(display_name(""), "token");
        assert_eq!(display_name("a\";DROP ROLE x;--"), "token-a--DROP-ROLE-x---");
    }
}
