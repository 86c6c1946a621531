//! `cert`: clients log in with the certificate of their TLS connection.
//!
//! Must not know: TLS, how a token of this server is made.
//!
//! Start with `log_in`; [`entry`] says which certificates a stored one stands for, [`crls`] which were taken back.
//!
//! Invariants: a certificate counts only when its connection proved that the client holds its key. A token is renewed only over a
//! connection with the certificate that it was made for, unless the mount says otherwise. All refusals read alike; the audit record has
//! the reason.

mod crls;
mod entry;
mod routes;

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use aws_lc_rs::digest;
use leasehold_core::connection::ClientCertificate;
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::Route;
use leasehold_core::seams::auth::{
    AuthContext, AuthHandler, AuthMethod, AuthOutcome, AuthRequest, LoginLimits, LoginPlan, LoginToken, Refusal,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::Expect;
use leasehold_tls::{ClientFacts, client_facts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{OUTSIDE, check_policies, encode, listed, load, may_come_from};
use entry::Entry;

const REFUSED: &str = "invalid certificate or no client certificate supplied";
const CONFIG: &str = "config";

/// The method, for all its mounts.
#[derive(Debug, Default)]
pub struct Cert;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    disable_binding: bool,
}

/// A client's certificate, read.
struct Shown<'a> {
    chain: &'a [Vec<u8>],
    leaf: &'a [u8],
    facts: ClientFacts,
}

impl<'a> Shown<'a> {
    fn of(certificate: &'a ClientCertificate) -> Option<Self> {
        let leaf = certificate.chain.first()?;
        Some(Self { chain: &certificate.chain, leaf, facts: client_facts(leaf)? })
    }

    /// Names this very certificate for ever.
    fn fingerprint(&self) -> String {
        hex::encode(digest::digest(&digest::SHA256, self.leaf))
    }
}

/// With colons, as certificates are shown.
fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// A serial number in decimal digits, as Vault shows it.
fn decimal(bytes: &[u8]) -> String {
    // Base 1,000,000,000, least first.
    let mut digits: Vec<u64> = vec![0];
    for byte in bytes {
        let mut carry = u64::from(*byte);
        for digit in &mut digits {
            let value = *digit * 256 + carry;
            *digit = value % 1_000_000_000;
            carry = value / 1_000_000_000;
        }
        if carry > 0 {
            digits.push(carry);
        }
    }
    let mut text = digits.pop().unwrap_or_default().to_string();
    for digit in digits.iter().rev() {
        text.push_str(&format!("{digit:09}"));
    }
    text
}

async fn config(storage: &MountStorage) -> Result<Config, RequestError> {
    Ok(load(storage, CONFIG).await?.map(|(config, _)| config).unwrap_or_default())
}

/// Whether the authorities of an entry vouch for the client, by their text: many entries have the same, and a signature takes long.
type Vouched = HashMap<String, bool>;

/// Whether an entry takes a certificate now, else why not.
async fn judge(
    at: &AuthContext,
    entry: &Entry,
    shown: &Shown<'_>,
    vouched: &mut Vouched,
) -> Result<Result<(), String>, RequestError> {
    if let Err(why) = entry.check_names(&shown.facts) {
        return Ok(Err(why.to_owned()));
    }
    let now = at.clock.now();
    let vouches = || entry.vouches_for(shown.chain, now);
    if !*vouched.entry(entry.certificate.clone()).or_insert_with(vouches) {
        return Ok(Err("it does not vouch for the client's certificate, or one of them is not valid now".to_owned()));
    }
    // Last: only now is it known that somebody who is trusted made the certificate out.
    Ok(if crls::have_revoked(&at.storage, shown.chain).await? {
        Err("the certificate, or one that vouches for it, was revoked".to_owned())
    } else {
        Ok(())
    })
}

impl Cert {
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    async fn read_config(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        let config = config(&request.context.storage).await?;
        Ok(LogicalResponse::json(json!({
            "disable_binding": config.disable_binding, "enable_identity_alias_metadata": false, "ocsp_cache_size": 0,
        })))
    }

    async fn write_config(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        let storage = &request.context.storage;
        if request.fields.bool("enable_identity_alias_metadata") == Some(true) {
            return Err(RequestError::invalid("'enable_identity_alias_metadata' is not offered"));
        }
        let mut config = config(storage).await?;
        config.disable_binding = request.fields.bool("disable_binding").unwrap_or(config.disable_binding);
        storage.put(CONFIG, encode(&config)?, Expect::Anything).await?;
        Ok(LogicalResponse::empty())
    }

    async fn list(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        listed(request, "cert/").await
    }

    async fn read(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        entry::read(request).await
    }

    async fn write(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        entry::write(request).await
    }

    async fn delete(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        entry::delete(request).await
    }

    async fn list_crls(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        listed(request, "crl/").await
    }

    async fn read_crl(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        crls::read(request).await
    }

    async fn write_crl(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        crls::write(request).await
    }

    async fn delete_crl(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        crls::delete(request).await
    }

    async fn log_in(&self, request: &AuthRequest) -> Result<AuthOutcome, RequestError> {
        let at = &request.context;
        let Some(certificate) = &request.certificate else {
            return Err(RequestError::invalid("no client certificate found"));
        };
        let Some(shown) = Shown::of(certificate) else {
            return Ok(refused("the client's certificate is damaged".to_owned()));
        };
        let names = match request.fields.text("name").filter(|name| !name.is_empty()) {
            Some(name) => vec![name.to_lowercase()],
            None => at.storage.names("cert/", "", entry::ENTRIES_MAX).await?,
        };
        let mut vouched = Vouched::new();
        let mut reason = "no stored certificate vouches for the client's".to_owned();
        for name in names {
            let Some((entry, _)) = entry::find(&at.storage, &name).await? else { continue };
            match judge(at, &entry, &shown, &mut vouched).await? {
                Ok(()) if may_come_from(request.client, &entry.token) => {
                    return Ok(AuthOutcome::Login(Box::new(plan(name, entry, &shown))));
                }
                Ok(()) => reason = format!("{name:?}: {OUTSIDE}"),
                // If there are several, the record has the last one.
                Err(why) => reason = format!("{name:?}: {why}"),
            }
        }
        Ok(refused(reason))
    }
}

fn plan(name: String, entry: Entry, shown: &Shown<'_>) -> LoginPlan {
    let facts = &shown.facts;
    let metadata = BTreeMap::from([
        ("authority_key_id".to_owned(), colons(&facts.authority_key_id)),
        ("cert_name".to_owned(), name.clone()),
        ("common_name".to_owned(), facts.common_name.clone()),
        ("serial_number".to_owned(), decimal(&facts.serial)),
        ("subject_key_id".to_owned(), colons(&facts.subject_key_id)),
    ]);
    let display_name = if entry.display_name.is_empty() { name.clone() } else { entry.display_name };
    let internal = json!({ "cert_name": name, "fingerprint": shown.fingerprint() });
    LoginPlan { display_name, metadata, token: entry.token, internal }
}

fn refused(reason: String) -> AuthOutcome {
    AuthOutcome::Refused(Refusal { said: REFUSED, reason })
}

#[async_trait]
impl AuthMethod for Cert {
    fn routes(&self) -> &'static [Route<AuthHandler>] {
        routes::ROUTES
    }

    async fn exists(&self, request: &AuthRequest) -> Result<bool, RequestError> {
        Ok(entry::find(&request.context.storage, &entry::name_of(request)).await?.is_some())
    }

    async fn renew(&self, at: &AuthContext, token: &LoginToken<'_>) -> Result<LoginLimits, RequestError> {
        let said = |name: &str| token.internal.get(name).and_then(Value::as_str).unwrap_or_default();
        let refuse = |why: &str| RequestError::Engine(format!("failed to renew entry: {why}"));
        let found = entry::find(&at.storage, said("cert_name")).await?;
        let (entry, _) = found.ok_or_else(|| refuse("the certificate is not stored any more, not renewing"))?;
        if !config(&at.storage).await?.disable_binding {
            // A token that was taken from its client is good for no longer than its TTL (CVE-2026-39388).
            let shown = token.certificate.and_then(Shown::of);
            let shown = shown.ok_or_else(|| refuse("no client certificate found"))?;
            if shown.fingerprint() != said("fingerprint") {
                return Err(refuse("client identity during renewal not matching client identity used during login"));
            }
            if let Err(why) = judge(at, &entry, &shown, &mut Vouched::new()).await? {
                return Err(refuse(&format!("no certificate was matched by this request: {why}")));
            }
        }
        check_policies(&entry.token, token)?;
        Ok(LoginLimits::from(&entry.token))
    }
}

#[cfg(test)]
mod tests;
