//! Who may sign the tokens of a mount, as an operator configures it.

use leasehold_core::fields::Fields;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::auth::AuthRequest;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::Expect;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::jose::{Algorithm, Key, KeySet, Source, check_address, check_authorities};
use crate::auth::{encode, load};

const KEY: &str = "config";
/// Keys and key sets that one mount may name.
const KEYS_MAX: usize = 64;
const PAIRS_MAX: usize = 16;

const ONE_SOURCE: &str = "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs', 'oidc_discovery_url', or 'provider_config' must be set";

/// Fields of the browser flow and of what only it needs: they would be promises that nobody keeps.
const BROWSER_FLOW: &[&str] = &["oidc_client_id", "oidc_client_secret"];

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub bound_issuer: String,
    pub default_role: String,
    jwt_validation_pubkeys: Vec<String>,
    jwks_url: String,
    jwks_ca_pem: String,
    jwks_pairs: Vec<Pair>,
    oidc_discovery_url: String,
    oidc_discovery_ca_pem: String,
    jwt_supported_algs: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pair {
    jwks_url: String,
    #[serde(default)]
    jwks_ca_pem: String,
}

pub(super) async fn find(storage: &MountStorage) -> Result<Option<Config>, RequestError> {
    Ok(load(storage, KEY).await?.map(|(config, _)| config))
}

/// Stores a configuration that was checked, whatever was there before.
pub(super) async fn store(storage: &MountStorage, config: &Config) -> Result<(), RequestError> {
    Ok(storage.put(KEY, encode(config)?, Expect::Anything).await?)
}

pub(super) async fn read(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let config = find(&request.context.storage).await?.ok_or(RequestError::NotFound)?;
    let pairs: Vec<Value> = config
        .jwks_pairs
        .iter()
        .map(|pair| json!({ "jwks_url": pair.jwks_url, "jwks_ca_pem": pair.jwks_ca_pem }))
        .collect();
    Ok(LogicalResponse::json(json!({
        "bound_issuer": config.bound_issuer,
        "default_role": config.default_role,
        "jwks_ca_pem": config.jwks_ca_pem,
        "jwks_pairs": pairs,
        "jwks_url": config.jwks_url,
        "jwt_supported_algs": config.jwt_supported_algs,
        "jwt_validation_pubkeys": config.jwt_validation_pubkeys,
        "namespace_in_state": true,
        "oidc_client_id": "",
        "oidc_discovery_ca_pem": config.oidc_discovery_ca_pem,
        "oidc_discovery_url": config.oidc_discovery_url,
        "oidc_response_mode": "",
        "oidc_response_types": [],
        "provider_config": {},
    })))
}

fn is_given(fields: &Fields, name: &str) -> bool {
    fields.text(name).is_some_and(|text| !text.is_empty())
        || fields.list(name).is_some_and(|list| !list.is_empty())
        || fields.any(name).is_some_and(|value| match value {
            Value::Object(members) => !members.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Null => false,
            _ => true,
        })
}

impl Config {
    /// The whole configuration as a request gives it: what it does not name is empty, as in Vault.
    ///
    /// # Errors
    /// What is wrong with it, in Vault's words where Vault has some.
    pub(super) fn of(fields: &Fields) -> Result<Self, RequestError> {
        let invalid = |text: &str| RequestError::invalid(text);
        if let Some(name) = BROWSER_FLOW.iter().find(|name| is_given(fields, name)) {
            return Err(RequestError::Invalid(format!(
                "'{name}' belongs to the browser flow of OpenID Connect, which is not offered; leave it out, logins with a token need none"
            )));
        }
        if is_given(fields, "override_allowed_server_names") {
            return Err(invalid(
                "'override_allowed_server_names' is not offered: a provider's certificate must be made out for the host of its address",
            ));
        }
        let sources = ["jwt_validation_pubkeys", "jwks_url", "jwks_pairs", "oidc_discovery_url", "provider_config"];
        if sources.iter().filter(|name| is_given(fields, name)).count() != 1 {
            return Err(invalid(ONE_SOURCE));
        }
        if is_given(fields, "provider_config") {
            return Err(invalid(
                "'provider_config' is not offered; name the provider's 'oidc_discovery_url' or 'jwks_url'",
            ));
        }
        let text = |name: &str| fields.text(name).unwrap_or_default().to_owned();
        let config = Self {
            bound_issuer: text("bound_issuer"),
            default_role: text("default_role").to_lowercase(),
            jwt_validation_pubkeys: fields.list("jwt_validation_pubkeys").unwrap_or_default().to_vec(),
            jwks_url: text("jwks_url"),
            jwks_ca_pem: text("jwks_ca_pem"),
            jwks_pairs: pairs(fields.any("jwks_pairs"))?,
            oidc_discovery_url: text("oidc_discovery_url"),
            oidc_discovery_ca_pem: text("oidc_discovery_ca_pem"),
            jwt_supported_algs: fields.list("jwt_supported_algs").unwrap_or_default().to_vec(),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), RequestError> {
        let invalid = |text: String| Err(RequestError::Invalid(text));
        if self.jwt_validation_pubkeys.len() > KEYS_MAX {
            return invalid(format!("'jwt_validation_pubkeys' has more than {KEYS_MAX} keys"));
        }
        if self.jwks_pairs.len() > PAIRS_MAX {
            return invalid(format!("'jwks_pairs' has more than {PAIRS_MAX} entries"));
        }
        if self.jwt_validation_pubkeys.iter().any(|pem| Key::from_pem(pem).is_none()) {
            return invalid(
                "error parsing public key: data does not contain any valid public keys (RSA of 2048 to 8192 bits, P-256, P-384, P-521 or Ed25519, \
                 as PUBLIC KEY or CERTIFICATE in PEM form)"
                    .to_owned(),
            );
        }
        if let Some(name) = self.jwt_supported_algs.iter().find(|name| Algorithm::parse(name).is_none()) {
            let shown: String = name.chars().take(64).collect();
            return invalid(format!("invalid jwt_supported_algs: unsupported signing algorithm {shown:?}"));
        }
        for (name, source) in self.sources() {
            let (Source::Jwks { url: address, ca_pem } | Source::Discovery { issuer: address, ca_pem }) = &source;
            if let Err(why) = check_address(address) {
                return invalid(format!("'{name}': {why}"));
            }
            if let Err(why) = check_authorities(ca_pem) {
                return invalid(format!("'{name}' has a CA certificate that cannot be used: {why}"));
            }
        }
        Ok(())
    }

    /// Where keys are fetched from, with the field that says so. Empty: the keys stand in the configuration.
    pub(super) fn sources(&self) -> Vec<(&'static str, Source)> {
        let jwks = |url: &str, ca_pem: &str| Source::Jwks { url: url.to_owned(), ca_pem: ca_pem.to_owned() };
        if !self.jwks_url.is_empty() {
            return vec![("jwks_url", jwks(&self.jwks_url, &self.jwks_ca_pem))];
        }
        if !self.oidc_discovery_url.is_empty() {
            let (issuer, ca_pem) = (self.oidc_discovery_url.clone(), self.oidc_discovery_ca_pem.clone());
            return vec![("oidc_discovery_url", Source::Discovery { issuer, ca_pem })];
        }
        self.jwks_pairs.iter().map(|pair| ("jwks_pairs", jwks(&pair.jwks_url, &pair.jwks_ca_pem))).collect()
    }

    /// The keys that stand in the configuration itself.
    pub(super) fn static_keys(&self) -> KeySet {
        KeySet::of_static(self.jwt_validation_pubkeys.iter().filter_map(|pem| Key::from_pem(pem)).collect())
    }

    /// Whether tokens may be signed with this algorithm; all of them may, where none is named.
    pub(super) fn takes(&self, algorithm: Algorithm) -> bool {
        self.jwt_supported_algs.is_empty() || self.jwt_supported_algs.iter().any(|name| name == algorithm.name())
    }
}

/// A list of objects, or their texts as JSON, as the command line sends them.
fn pairs(given: Option<&Value>) -> Result<Vec<Pair>, RequestError> {
    let wrong = || {
        RequestError::invalid(
            "'jwks_pairs' must be a list of objects with 'jwks_url' and, where it is needed, 'jwks_ca_pem'",
        )
    };
    let parsed;
    let items = match given {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) => {
            parsed = serde_json::from_str::<Value>(text).map_err(|_| wrong())?;
            parsed.as_array().ok_or_else(wrong)?
        }
        Some(value) => value.as_array().ok_or_else(wrong)?,
    };
    let read = |item: &Value| match item {
        Value::String(text) => serde_json::from_str(text).map_err(|_| wrong()),
        item => Pair::deserialize(item).map_err(|_| wrong()),
    };
    items.iter().map(read).collect()
}
