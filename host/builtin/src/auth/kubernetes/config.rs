//! The cluster of a mount, as an operator configures it.

use std::fmt;
use std::path::Path;

use leasehold_core::fields::Fields;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::auth::AuthRequest;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::Expect;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::auth::jose::{Key, KeySet, check_address, check_authorities};
use crate::auth::{encode, load};

const KEY: &str = "config";
const KEYS_MAX: usize = 64;
/// What Kubernetes puts into each pod.
const LOCAL_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const LOCAL_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Longer files there are not what they should be.
const LOCAL_MAX: u64 = 1 << 20;

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    kubernetes_host: String,
    kubernetes_ca_cert: String,
    /// A secret: it may ask the cluster who somebody is.
    token_reviewer_jwt: String,
    pem_keys: Vec<String>,
    issuer: String,
    disable_iss_validation: bool,
    disable_local_ca_jwt: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("kubernetes_host", &self.kubernetes_host).finish_non_exhaustive()
    }
}

pub(super) async fn find(storage: &MountStorage) -> Result<Option<Config>, RequestError> {
    Ok(load(storage, KEY).await?.map(|(config, _)| config))
}

pub(super) async fn read(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let config = find(&request.context.storage).await?.ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::json(json!({
        "disable_iss_validation": config.disable_iss_validation,
        "disable_local_ca_jwt": config.disable_local_ca_jwt,
        "issuer": config.issuer,
        "kubernetes_ca_cert": config.kubernetes_ca_cert,
        "kubernetes_host": config.kubernetes_host,
        "pem_keys": config.pem_keys,
        "token_reviewer_jwt_set": !config.token_reviewer_jwt.is_empty(),
    })))
}

/// Replaces the configuration: what a request does not name is empty again, as in Vault.
pub(super) async fn write(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let config = Config::of(&request.fields).await?;
    request.context.storage.put(KEY, encode(&config)?, Expect::Anything).await?;
    let answer = LogicalResponse::empty();
    Ok(match config.warning() {
        Some(warning) => answer.warn(warning),
        None => answer,
    })
}

/// A file of the pod that this server runs in; none outside of one.
async fn local(path: &'static str) -> Option<String> {
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(Path::new(path)).ok()?.take(LOCAL_MAX).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    });
    read.await.ok().flatten()
}

impl Config {
    async fn of(fields: &Fields) -> Result<Self, RequestError> {
        let text = |name: &str| fields.text(name).unwrap_or_default().trim().to_owned();
        let config = Self {
            kubernetes_host: text("kubernetes_host").trim_end_matches('/').to_owned(),
            kubernetes_ca_cert: text("kubernetes_ca_cert"),
            token_reviewer_jwt: text("token_reviewer_jwt"),
            pem_keys: fields.list("pem_keys").unwrap_or_default().to_vec(),
            issuer: text("issuer"),
            disable_iss_validation: fields.bool("disable_iss_validation").unwrap_or(true),
            disable_local_ca_jwt: fields.bool("disable_local_ca_jwt").unwrap_or_default(),
        };
        config.check()?;
        if config.kubernetes_ca_cert.is_empty() && config.kubernetes_host.starts_with("https:") {
            if config.disable_local_ca_jwt {
                return Err(RequestError::invalid(
                    "kubernetes_ca_cert must be given when disable_local_ca_jwt is true",
                ));
            }
            if local(LOCAL_CA).await.is_none() {
                return Err(RequestError::Invalid(format!(
                    "kubernetes_ca_cert must be given, because this server does not run in a pod: there is no {LOCAL_CA}"
                )));
            }
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), RequestError> {
        let invalid = |text: String| Err(RequestError::Invalid(text));
        if self.kubernetes_host.is_empty() {
            return invalid("no host provided".to_owned());
        }
        if let Err(why) = check_address(&self.kubernetes_host) {
            return invalid(format!("'kubernetes_host': {why}"));
        }
        if let Err(why) = check_authorities(&self.kubernetes_ca_cert) {
            return invalid(format!("'kubernetes_ca_cert' cannot be used: {why}"));
        }
        if !self.token_reviewer_jwt.bytes().all(|byte| byte.is_ascii_graphic()) {
            return invalid("'token_reviewer_jwt' has characters that no token has".to_owned());
        }
        if self.pem_keys.len() > KEYS_MAX {
            return invalid(format!("'pem_keys' has more than {KEYS_MAX} keys"));
        }
        if self.pem_keys.iter().any(|pem| Key::from_pem(pem).is_none()) {
            return invalid("data does not contain any valid public keys".to_owned());
        }
        Ok(())
    }

    /// Where the cluster says who a token is of.
    pub(super) fn review_address(&self) -> String {
        format!("{}/apis/authentication.k8s.io/v1/tokenreviews", self.kubernetes_host)
    }

    /// Who vouches for the cluster's server; empty for plain HTTP only.
    ///
    /// # Errors
    /// Nobody does. Whom the system trusts must not stand in: these can make out a certificate for any name.
    pub(super) async fn authorities(&self) -> Result<String, String> {
        if !self.kubernetes_ca_cert.is_empty() {
            return Ok(self.kubernetes_ca_cert.clone());
        }
        let own = if self.disable_local_ca_jwt { None } else { local(LOCAL_CA).await };
        match own {
            Some(own) => Ok(own),
            None if self.kubernetes_host.starts_with("http:") => Ok(String::new()),
            None => Err(format!(
                "nobody vouches for it: there is no kubernetes_ca_cert, and {LOCAL_CA} is not used or not there"
            )),
        }
    }

    /// As whom the cluster is asked: as the reviewer, as this server's own pod, or as whoever logs in.
    pub(super) async fn reviewer(&self, token: &str) -> Zeroizing<String> {
        if !self.token_reviewer_jwt.is_empty() {
            return Zeroizing::new(self.token_reviewer_jwt.clone());
        }
        let own = if self.disable_local_ca_jwt { None } else { local(LOCAL_TOKEN).await };
        Zeroizing::new(own.unwrap_or_else(|| token.to_owned()))
    }

    /// None: the cluster alone says whether a token is good.
    pub(super) fn keys(&self) -> Option<KeySet> {
        let keys: Vec<Key> = self.pem_keys.iter().filter_map(|pem| Key::from_pem(pem)).collect();
        if self.pem_keys.is_empty() { None } else { Some(KeySet::of_static(keys)) }
    }

    fn warning(&self) -> Option<&'static str> {
        (!self.disable_iss_validation && self.issuer.is_empty()).then_some(
            "'issuer' is empty: only tokens of the issuer \"kubernetes/serviceaccount\" can log in, which clusters before 1.21 made; set 'issuer' to that of the cluster",
        )
    }

    /// The `iss` that tokens must have; empty: any.
    pub(super) fn bound_issuer(&self) -> &str {
        match (self.disable_iss_validation, self.issuer.as_str()) {
            (true, _) => "",
            // Of the tokens that clusters before 1.21 made.
            (false, "") => "kubernetes/serviceaccount",
            (false, issuer) => issuer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_that_new_clusters_do_not_have_warns() {
        let warning = |disable_iss_validation, issuer: &str| {
            Config { disable_iss_validation, issuer: issuer.to_owned(), ..Config::default() }.warning()
        };
        assert!(warning(false, "").is_some_and(|text| text.contains("kubernetes/serviceaccount")));
        assert!(warning(true, "").is_none() && warning(false, "https://a").is_none());
    }

    #[test]
    fn the_reviewers_token_is_not_shown() {
        let config = Config { token_reviewer_jwt: "hush-hush".to_owned(), ..Config::default() };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
