//! What is stored of a role, and the fields that change it.

use std::fmt;

use aws_lc_rs::hmac;
use leasehold_core::fields::Fields;
use leasehold_core::random;
use leasehold_core::request::Object;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::host::Entropy;
use leasehold_core::seams::token_params::ChosenKind;
use leasehold_core::seams::token_params::TokenParams;
use leasehold_model::{Cidr, Ttl};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::old_names::{OldNames, Renamed};

/// What Vault called these fields before all methods shared them.
pub(super) const RENAMED: &[Renamed] = &[("policies", "token_policies"), ("period", "token_period")];

/// Longer role ids and secret ids are refused, as in Vault.
pub(super) const ID_LEN_MAX: usize = 4_096;

/// What is stored of a role.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Role {
    /// Names this role for ever: another one that comes by the same name has another.
    pub uid: String,
    pub role_id: String,
    /// Hex of the key under which secret ids are hashed.
    hash_key: String,
    pub bind_secret_id: bool,
    /// As they were given.
    pub secret_id_bound_cidrs: Vec<String>,
    pub secret_id_num_uses: i64,
    pub secret_id_ttl: Ttl,
    pub local_secret_ids: bool,
    pub token: TokenParams,
    pub old_names: OldNames,
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role").field("uid", &self.uid).finish_non_exhaustive()
    }
}

impl Role {
    /// A new role with Vault's defaults.
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        Self {
            uid: random::hex_digits(entropy, 32),
            role_id: random::uuid(entropy),
            hash_key: random::hex_digits(entropy, 64),
            bind_secret_id: true,
            secret_id_bound_cidrs: Vec::new(),
            secret_id_num_uses: 0,
            secret_id_ttl: Ttl::ZERO,
            local_secret_ids: false,
            token: TokenParams::default(),
            old_names: OldNames::default(),
        }
    }

    /// Under what a secret id is stored: only its hash is.
    pub(super) fn hash(&self, secret_id: &str) -> String {
        hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.hash_key.as_bytes()), secret_id.as_bytes()))
    }

    /// Takes over what the fields name; warnings besides.
    pub(super) fn update(&mut self, fields: &Fields, is_new: bool, max_ttl: Ttl) -> Result<Vec<String>, RequestError> {
        let mut warnings = Vec::new();
        let kind = match fields.text("token_type") {
            None => None,
            Some(old @ ("default-service" | "default-batch")) => {
                let kind = if old == "default-batch" { ChosenKind::Batch } else { ChosenKind::Service };
                warnings.push(format!("{old} has no useful meaning; adjusting to {}", kind.as_str()));
                Some(kind)
            }
            Some(text) => Some(ChosenKind::parse(text)?),
        };
        self.token.update_with_kind(fields, kind)?;
        if let Some(local) = fields.bool("local_secret_ids") {
            if !is_new {
                return Err(RequestError::invalid("local_secret_ids can only be modified during role creation"));
            }
            self.local_secret_ids = local;
        }
        if let Some(id) = fields.text("role_id") {
            if id.is_empty() || id.len() > ID_LEN_MAX {
                return Err(RequestError::invalid("invalid role_id supplied, or failed to generate a role_id"));
            }
            id.clone_into(&mut self.role_id);
        }
        self.bind_secret_id = fields.bool("bind_secret_id").unwrap_or(self.bind_secret_id);
        if let Some(blocks) = fields.list("secret_id_bound_cidrs").or_else(|| fields.list("bound_cidr_list")) {
            check_blocks(blocks).map_err(RequestError::Engine)?;
            self.secret_id_bound_cidrs = blocks.to_vec();
        }
        if let Some(uses) = fields.int("secret_id_num_uses") {
            if uses < 0 {
                return Err(RequestError::invalid("secret_id_num_uses cannot be negative"));
            }
            self.secret_id_num_uses = uses;
        }
        self.secret_id_ttl = fields.ttl("secret_id_ttl").unwrap_or(self.secret_id_ttl);
        self.old_names.update(&mut self.token, fields, RENAMED)?;
        if fields.has("period") && self.token.period > max_ttl {
            return Err(RequestError::Invalid(format!(
                "period of \"{}\" is greater than the backend's maximum lease TTL of \"{max_ttl}\"",
                self.token.period
            )));
        }
        if self.token.max_ttl > max_ttl {
            warnings.push("token_max_ttl is greater than the backend mount's maximum TTL value; issued tokens' max TTL value will be truncated".to_owned());
        }
        Ok(warnings)
    }

    /// A role id is no secret: something else must be asked for as well.
    pub(super) fn check(&self) -> Result<(), RequestError> {
        let is_constrained =
            self.bind_secret_id || !self.secret_id_bound_cidrs.is_empty() || !self.token.bound_cidrs.is_empty();
        if is_constrained {
            return Ok(());
        }
        Err(RequestError::Engine("at least one constraint should be enabled on the role".to_owned()))
    }

    pub(super) fn shown(&self) -> Object {
        let mut data = Object::from_iter([
            ("bind_secret_id".to_owned(), self.bind_secret_id.into()),
            ("local_secret_ids".to_owned(), self.local_secret_ids.into()),
            ("secret_id_bound_cidrs".to_owned(), or_null(json!(self.secret_id_bound_cidrs))),
            ("secret_id_num_uses".to_owned(), self.secret_id_num_uses.into()),
            ("secret_id_ttl".to_owned(), self.secret_id_ttl.as_secs().into()),
        ]);
        self.token.show(&mut data);
        self.old_names.show(&mut data, RENAMED);
        data
    }
}

/// As Vault shows an empty list here.
pub(super) fn or_null(list: Value) -> Value {
    if list.as_array().is_some_and(Vec::is_empty) { Value::Null } else { list }
}

/// Only blocks are taken here, no bare addresses, as in Vault. The refusal's text is Vault's.
pub(super) fn check_blocks(given: &[String]) -> Result<(), String> {
    match given.iter().find(|text| !text.contains('/') || text.parse::<Cidr>().is_err()) {
        Some(wrong) => {
            let shown: String = wrong.chars().take(64).collect();
            Err(format!("failed to validate CIDR blocks: invalid CIDR address: {shown}"))
        }
        None => Ok(()),
    }
}

/// Blocks that were checked when they were written.
pub(super) fn parsed(blocks: &[String]) -> Vec<Cidr> {
    blocks.iter().filter_map(|block| block.parse().ok()).collect()
}

/// Blocks of a secret id must lie in those of its role, if that has any.
pub(super) fn check_subset(role: &[Cidr], secret_id: &[String]) -> Result<(), RequestError> {
    let covered = |block: &Cidr| role.iter().any(|outer| outer.covers(block));
    if role.is_empty() || parsed(secret_id).iter().all(covered) {
        return Ok(());
    }
    let role: Vec<String> = role.iter().map(ToString::to_string).collect();
    Err(RequestError::Engine(format!(
        "failed to verify subset relationship between CIDR blocks on the role {role:?} and CIDR blocks on the secret ID {secret_id:?}"
    )))
}
