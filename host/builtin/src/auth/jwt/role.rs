//! What a role demands of a token, and what it makes of one.

use std::collections::BTreeMap;

use leasehold_core::fields::Fields;
use leasehold_core::request::Object;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::token_params::TokenParams;
use leasehold_model::{duration, glob};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::jose::{Claims, Flaw, Leeways};
use crate::auth::old_names::{OldNames, Renamed};
use crate::auth::records::Record;

/// What Vault called these fields before all methods shared them.
pub(super) const RENAMED: &[Renamed] = &[
    ("policies", "token_policies"),
    ("ttl", "token_ttl"),
    ("max_ttl", "token_max_ttl"),
    ("period", "token_period"),
    ("bound_cidrs", "token_bound_cidrs"),
];

/// The metadata that every token has.
const ROLE: &str = "role";
/// The longest name of somebody, and the longest text that is taken over into a token's metadata.
const NAME_MAX: usize = 512;
const METADATA_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClaimsType {
    #[default]
    String,
    Glob,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Role {
    bound_audiences: Vec<String>,
    bound_subject: String,
    bound_claims: BTreeMap<String, Value>,
    bound_claims_type: ClaimsType,
    user_claim: String,
    user_claim_json_pointer: bool,
    groups_claim: String,
    claim_mappings: BTreeMap<String, String>,
    expiration_leeway: i64,
    not_before_leeway: i64,
    clock_skew_leeway: i64,
    pub token: TokenParams,
    old_names: OldNames,
}

/// Why a token that was verified is not good enough for a role. For the audit record: it names claims of the role, and quotes nothing
/// of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Flaw(#[from] Flaw),
    #[error("claim {0:?} not found in token")]
    NoClaim(String),
    #[error("claim {0:?} could not be converted to string")]
    NoText(String),
    #[error("claim {0:?} is empty or too long")]
    NoName(String),
    #[error("claim {0:?} is missing")]
    Missing(String),
    #[error("claim {0:?} is not a string, bool, number or a list of these")]
    NoValue(String),
    #[error("claim {0:?} does not match any associated bound claim values")]
    NoMatch(String),
    #[error("{0:?} claim could not be converted to string list")]
    NoGroups(String),
}

/// Who somebody is by their token.
#[derive(Debug)]
pub(super) struct Identity {
    pub name: String,
    pub metadata: BTreeMap<String, String>,
    /// None where the role looks at no groups: whoever logs in with it is in none.
    pub groups: Vec<String>,
}

fn no_user_claim() -> RequestError {
    let refused = RequestError::invalid("a user claim must be defined on the role");
    refused.with_help("user_claim names the claim that says who somebody is, as `sub`")
}

/// Seconds, which may be less than zero: no leeway at all.
fn signed(fields: &Fields, name: &str) -> Result<Option<i64>, RequestError> {
    let Some(given) = fields.any(name) else { return Ok(None) };
    let text = match given {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => String::from("?"),
    };
    let (is_negative, length) = text.strip_prefix('-').map_or((false, text.as_str()), |length| (true, length));
    let seconds = if length.is_empty() { Some(0) } else { duration::parse(length).ok().map(|ttl| ttl.as_secs()) };
    let seconds = seconds.and_then(|seconds| i64::try_from(seconds).ok());
    let seconds = seconds.ok_or_else(|| {
        RequestError::Invalid(format!(
            "error converting input for field {name:?}: it is no duration, write `30s` or 30"
        ))
    })?;
    Ok(Some(if is_negative { -seconds } else { seconds }))
}

/// A text, number or boolean, or a list of these.
fn values(value: &Value) -> Option<Vec<&Value>> {
    let is_plain = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    match value {
        Value::Array(items) => items.iter().all(is_plain).then(|| items.iter().collect()),
        value if is_plain(value) => Some(vec![value]),
        _ => None,
    }
}

/// Values of one type that are equal; a number is equal to the same number written otherwise.
fn are_equal(bound: &Value, claim: &Value) -> bool {
    match (bound, claim) {
        (Value::Number(bound), Value::Number(claim)) => {
            bound == claim || (bound.is_f64() != claim.is_f64() && bound.as_f64() == claim.as_f64())
        }
        _ => bound == claim,
    }
}

impl Record for Role {
    const FOLDER: &'static str = "role/";

    fn update(&mut self, fields: &Fields, is_new: bool) -> Result<(), RequestError> {
        let invalid = |text: String| Err(RequestError::Invalid(text));
        let shown = |text: &str| text.chars().take(64).collect::<String>();
        match fields.text("role_type") {
            Some("jwt") => {}
            // Vault's default, too.
            None | Some("" | "oidc") if is_new || fields.has("role_type") => {
                if fields.text("user_claim").unwrap_or_default().is_empty() && self.user_claim.is_empty() {
                    return Err(no_user_claim());
                }
                return invalid(
                    "'role_type' must be 'jwt': 'oidc', the default, is the browser flow of OpenID Connect, which is not offered".to_owned(),
                );
            }
            None => {}
            Some(other) => return invalid(format!("invalid 'role_type': {}", shown(other))),
        }
        self.token.update(fields)?;
        self.old_names.update(&mut self.token, fields, RENAMED)?;
        if fields.bool("token_policies_template_claims") == Some(true) {
            return invalid("'token_policies_template_claims' is not offered".to_owned());
        }
        for (name, list) in [("bound_audiences", &mut self.bound_audiences)] {
            if let Some(given) = fields.list(name) {
                *list = given.to_vec();
            }
        }
        for (name, text) in [
            ("bound_subject", &mut self.bound_subject),
            ("user_claim", &mut self.user_claim),
            ("groups_claim", &mut self.groups_claim),
        ] {
            if let Some(given) = fields.text(name) {
                given.clone_into(text);
            }
        }
        self.user_claim_json_pointer = fields.bool("user_claim_json_pointer").unwrap_or(self.user_claim_json_pointer);
        for (name, leeway) in [
            ("expiration_leeway", &mut self.expiration_leeway),
            ("not_before_leeway", &mut self.not_before_leeway),
            ("clock_skew_leeway", &mut self.clock_skew_leeway),
        ] {
            *leeway = signed(fields, name)?.unwrap_or(*leeway);
        }
        match fields.text("bound_claims_type") {
            None => {}
            Some("" | "string") => self.bound_claims_type = ClaimsType::String,
            Some("glob") => self.bound_claims_type = ClaimsType::Glob,
            Some(other) => return invalid(format!("invalid 'bound_claims_type': {}", shown(other))),
        }
        if let Some(given) = fields.any("bound_claims").and_then(Value::as_object) {
            self.bound_claims = given.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        }
        if let Some(given) = fields.pairs("claim_mappings") {
            self.claim_mappings.clone_from(given);
        }
        self.check()
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn shown(&self) -> Object {
        let claims_type = match self.bound_claims_type {
            ClaimsType::String => "string",
            ClaimsType::Glob => "glob",
        };
        let or_null = |value: Value, is_empty: bool| if is_empty { Value::Null } else { value };
        let mut data = Object::from_iter([
            ("bound_audiences".to_owned(), or_null(json!(self.bound_audiences), self.bound_audiences.is_empty())),
            ("bound_claims".to_owned(), or_null(json!(self.bound_claims), self.bound_claims.is_empty())),
            ("bound_claims_type".to_owned(), claims_type.into()),
            ("bound_subject".to_owned(), self.bound_subject.clone().into()),
            ("claim_mappings".to_owned(), or_null(json!(self.claim_mappings), self.claim_mappings.is_empty())),
            ("clock_skew_leeway".to_owned(), self.clock_skew_leeway.into()),
            ("expiration_leeway".to_owned(), self.expiration_leeway.into()),
            ("groups_claim".to_owned(), self.groups_claim.clone().into()),
            ("not_before_leeway".to_owned(), self.not_before_leeway.into()),
            ("role_type".to_owned(), "jwt".into()),
            ("user_claim".to_owned(), self.user_claim.clone().into()),
            ("user_claim_json_pointer".to_owned(), self.user_claim_json_pointer.into()),
        ]);
        self.token.show(&mut data);
        self.old_names.show(&mut data, RENAMED);
        data
    }

    fn token(&self) -> &TokenParams {
        &self.token
    }
}

impl Role {
    fn check(&self) -> Result<(), RequestError> {
        let invalid = |text: String| Err(RequestError::Invalid(text));
        if self.user_claim.is_empty() {
            return Err(no_user_claim());
        }
        for (name, bound) in &self.bound_claims {
            let Some(bound) = values(bound) else {
                return invalid(format!("the bound claim {name:?} is not a string, bool, number or a list of these"));
            };
            if self.bound_claims_type == ClaimsType::Glob
                && let Some(odd) = bound.iter().find(|value| !value.is_string())
            {
                return invalid(format!("claim is not a string: {odd}"));
            }
        }
        let mut targets: Vec<&String> = self.claim_mappings.values().collect();
        targets.sort();
        if let Some([twice, _]) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
            return invalid(format!("multiple keys are mapped to metadata key {twice:?}"));
        }
        if targets.iter().any(|target| *target == ROLE) {
            return invalid(format!("metadata key {ROLE:?} is reserved and may not be a mapping destination"));
        }
        let is_bound = !self.bound_audiences.is_empty()
            || !self.bound_subject.is_empty()
            || !self.bound_claims.is_empty()
            || !self.token.bound_cidrs.is_empty();
        if is_bound {
            return Ok(());
        }
        let refused = RequestError::invalid("must have at least one bound constraint when creating/updating a role");
        Err(refused.with_help("give bound_audiences, bound_subject, bound_claims or token_bound_cidrs"))
    }

    pub(super) fn leeways(&self) -> Leeways {
        Leeways {
            expiration: self.expiration_leeway,
            not_before: self.not_before_leeway,
            clock_skew: self.clock_skew_leeway,
        }
    }

    /// Who a token is of, when it meets everything that the role demands, times and issuer apart.
    ///
    /// # Errors
    /// What it does not meet.
    pub(super) fn admit(&self, claims: &Claims) -> Result<Identity, Unfit> {
        claims.check_subject(&self.bound_subject)?;
        claims.check_audience(&self.bound_audiences)?;
        self.check_claims(claims)?;
        let groups = self.groups(claims)?;
        Ok(Identity { name: self.user(claims)?, metadata: self.metadata(claims)?, groups })
    }

    fn user(&self, claims: &Claims) -> Result<String, Unfit> {
        let name = || self.user_claim.clone();
        let found =
            if self.user_claim_json_pointer { claims.get(&self.user_claim) } else { claims.named(&self.user_claim) };
        let user = found.ok_or_else(|| Unfit::NoClaim(name()))?.as_str().ok_or_else(|| Unfit::NoText(name()))?;
        if user.is_empty() || user.len() > NAME_MAX {
            return Err(Unfit::NoName(name()));
        }
        Ok(user.to_owned())
    }

    fn check_claims(&self, claims: &Claims) -> Result<(), Unfit> {
        for (name, bound) in &self.bound_claims {
            let claim = claims.get(name).ok_or_else(|| Unfit::Missing(name.clone()))?;
            let claimed = values(claim).ok_or_else(|| Unfit::NoValue(name.clone()))?;
            let fits = |bound: &Value| {
                claimed.iter().any(|claimed| match (self.bound_claims_type, bound, claimed) {
                    (ClaimsType::Glob, Value::String(pattern), Value::String(text)) => glob::covers(pattern, text),
                    (ClaimsType::Glob, ..) => false,
                    (ClaimsType::String, bound, claimed) => are_equal(bound, claimed),
                })
            };
            if !values(bound).unwrap_or_default().into_iter().any(fits) {
                return Err(Unfit::NoMatch(name.clone()));
            }
        }
        Ok(())
    }

    fn groups(&self, claims: &Claims) -> Result<Vec<String>, Unfit> {
        if self.groups_claim.is_empty() {
            return Ok(Vec::new());
        }
        let name = || self.groups_claim.clone();
        let claimed = match claims.get(&self.groups_claim).ok_or_else(|| Unfit::NoClaim(name()))? {
            one @ Value::String(_) => std::slice::from_ref(one),
            Value::Array(groups) => groups,
            _ => return Err(Unfit::NoGroups(name())),
        };
        let groups: Option<Vec<String>> = claimed.iter().map(|group| group.as_str().map(str::to_owned)).collect();
        groups.ok_or_else(|| Unfit::NoGroups(name()))
    }

    /// Claims that are not there are left out, as in Vault.
    fn metadata(&self, claims: &Claims) -> Result<BTreeMap<String, String>, Unfit> {
        let mut metadata = BTreeMap::new();
        for (source, target) in &self.claim_mappings {
            let Some(value) = claims.get(source) else { continue };
            let text = value.as_str().ok_or_else(|| Unfit::NoText(source.clone()))?;
            if text.len() > METADATA_MAX {
                return Err(Unfit::NoName(source.clone()));
            }
            metadata.insert(target.clone(), text.to_owned());
        }
        Ok(metadata)
    }
}

#[cfg(test)]
mod tests;
