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
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest;
use leasehold_core::connection::ClientCertificate;
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::Route;
use leasehold_core::seams::auth::{
    AuthContext, AuthHandler, AuthMethod, AuthOutcome, AuthRequest, LoginAlias, LoginLimits, LoginPlan, LoginToken,
    Refusal,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::Expect;
use leasehold_tls::{ClientFacts, RevocationList, client_facts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{OUTSIDE, check_policies, encode, listed, load, may_come_from, records};
use entry::Entry;

const REFUSED: &str = "invalid certificate or no client certificate supplied";
const CONFIG: &str = "config";

/// The method, for all its mounts.
pub struct Cert {
    /// How many certificates are looked at at once.
    places: Arc<Semaphore>,
    lists: Arc<crls::Lists>,
}

impl fmt::Debug for Cert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cert")
    }
}

impl Default for Cert {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    disable_binding: bool,
    enable_identity_alias_metadata: bool,
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

/// Why an entry does not take a certificate.
type Verdict = Result<(), &'static str>;

/// What one request has found out so far: many entries have the same authorities, and a signature takes long.
struct Judge<'a> {
    method: &'a Cert,
    at: &'a AuthContext,
    shown: &'a Shown<'a>,
    /// By the text of an entry's certificates.
    verdicts: HashMap<String, Verdict>,
    /// The mount's, once they were needed.
    lists: Option<Arc<[Arc<RevocationList>]>>,
}

impl<'a> Judge<'a> {
    fn new(method: &'a Cert, at: &'a AuthContext, shown: &'a Shown<'a>) -> Self {
        Self { method, at, shown, verdicts: HashMap::new(), lists: None }
    }

    /// Whether an entry takes the certificate now.
    async fn judge(&mut self, entry: &Entry) -> Result<Verdict, RequestError> {
        if let Err(why) = entry.check_names(&self.shown.facts) {
            return Ok(Err(why));
        }
        if let Some(known) = self.verdicts.get(&entry.certificate) {
            return Ok(*known);
        }
        let found = self.look(&entry.certificate).await?;
        self.verdicts.insert(entry.certificate.clone(), found);
        Ok(found)
    }

    async fn look(&mut self, certificate: &str) -> Result<Verdict, RequestError> {
        if !self.is_vouched_for(certificate, Arc::default()).await? {
            return Ok(Err("it does not vouch for the client's certificate, or one of them is not valid now"));
        }
        // Only now: the lists are long, and before that anybody could have them read.
        let lists = self.lists().await?;
        let is_revoked = self.shown.chain.iter().any(|one| lists.iter().any(|list| list.has_revoked(one)));
        // A stored authority may have been taken back as well; another of the entry may vouch all the same.
        if is_revoked || !lists.is_empty() && !self.is_vouched_for(certificate, lists).await? {
            return Ok(Err("the certificate, or one that vouches for it, was revoked"));
        }
        Ok(Ok(()))
    }

    async fn is_vouched_for(&self, certificate: &str, lists: Arc<[Arc<RevocationList>]>) -> Result<bool, RequestError> {
        let (certificate, chain) = (certificate.to_owned(), self.shown.chain.to_vec());
        let now = self.at.clock.now();
        self.method.work(move || entry::vouches(&certificate, &chain, now, &lists)).await
    }

    async fn lists(&mut self) -> Result<Arc<[Arc<RevocationList>]>, RequestError> {
        if let Some(known) = &self.lists {
            return Ok(Arc::clone(known));
        }
        let (texts, lists) = (crls::texts(&self.at.storage).await?, Arc::clone(&self.method.lists));
        let read: Arc<[_]> = self.method.work(move || lists.read(&texts)).await??.into();
        Ok(Arc::clone(self.lists.insert(read)))
    }
}

impl Cert {
    #[must_use]
    pub fn new() -> Self {
        // Half of the processors, so that the other half serves everything else.
        let places = std::thread::available_parallelism().map_or(1, |count| count.get() / 2).max(1);
        Self { places: Arc::new(Semaphore::new(places)), lists: Arc::default() }
    }

    /// Does what takes long off the threads that serve requests.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, RequestError> {
        let ended = || RequestError::Internal("the look at a certificate ended early".to_owned());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| ended())?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await.map_err(|_| ended())
    }

    async fn read_config(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        let config = config(&request.context.storage).await?;
        Ok(LogicalResponse::json(json!({
            "disable_binding": config.disable_binding, "ocsp_cache_size": 0,
            "enable_identity_alias_metadata": config.enable_identity_alias_metadata,
        })))
    }

    async fn write_config(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        let storage = &request.context.storage;
        let mut config = config(storage).await?;
        for (name, setting) in [
            ("disable_binding", &mut config.disable_binding),
            ("enable_identity_alias_metadata", &mut config.enable_identity_alias_metadata),
        ] {
            *setting = request.fields.bool(name).unwrap_or(*setting);
        }
        storage.put(CONFIG, encode(&config)?, Expect::Anything).await?;
        Ok(LogicalResponse::empty())
    }

    async fn list(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        listed(request, "cert/").await
    }

    async fn read(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        records::read::<Entry>(request).await
    }

    async fn write(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        records::write::<Entry>(request).await
    }

    async fn delete(&self, request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
        records::delete::<Entry>(request).await
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
        let mut judge = Judge::new(self, at, &shown);
        let mut reason = "no stored certificate vouches for the client's".to_owned();
        for name in names {
            let Some(entry) = records::find::<Entry>(&at.storage, &name).await? else { continue };
            match judge.judge(&entry).await? {
                Ok(()) if may_come_from(request.client, &entry.token) => match entry.metadata(&shown.facts) {
                    Ok(more) => {
                        let vouches = config(&at.storage).await?.enable_identity_alias_metadata;
                        return Ok(AuthOutcome::Login(Box::new(plan(name, entry, &shown, more, vouches))));
                    }
                    Err(why) => reason = format!("{name:?}: {why}"),
                },
                Ok(()) => reason = format!("{name:?}: {OUTSIDE}"),
                // If there are several, the record has the last one.
                Err(why) => reason = format!("{name:?}: {why}"),
            }
        }
        Ok(refused(reason))
    }
}

/// `more` is what the certificate says besides; `vouches`: policies may be written about all of it.
fn plan(name: String, entry: Entry, shown: &Shown<'_>, more: BTreeMap<String, String>, vouches: bool) -> LoginPlan {
    let facts = &shown.facts;
    let mut metadata = BTreeMap::from([
        ("authority_key_id".to_owned(), colons(&facts.authority_key_id)),
        ("cert_name".to_owned(), name.clone()),
        ("common_name".to_owned(), facts.common_name.clone()),
        ("serial_number".to_owned(), decimal(&facts.serial)),
        ("subject_key_id".to_owned(), colons(&facts.subject_key_id)),
    ]);
    metadata.extend(more);
    let display_name = if entry.display_name.is_empty() { name.clone() } else { entry.display_name };
    let internal = json!({ "cert_name": name, "fingerprint": shown.fingerprint() });
    let of_alias = vouches.then(|| metadata.clone());
    let alias = LoginAlias { name: facts.common_name.clone(), metadata: of_alias, groups: None };
    LoginPlan { display_name, metadata, alias, token: entry.token, internal }
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
        records::exists::<Entry>(request).await
    }

    fn has_roles(&self) -> bool {
        true
    }

    /// Of a login that names no certificate it is not known before it is judged.
    async fn role_of_login(&self, request: &AuthRequest) -> Option<String> {
        request.fields.text("name").filter(|name| !name.is_empty()).map(str::to_lowercase)
    }

    fn role_of<'a>(&self, internal: &'a Value) -> Option<&'a str> {
        internal.get("cert_name")?.as_str()
    }

    async fn renew(&self, at: &AuthContext, token: &LoginToken<'_>) -> Result<LoginLimits, RequestError> {
        let said = |name: &str| token.internal.get(name).and_then(Value::as_str).unwrap_or_default();
        let refuse = |why: &str| RequestError::Engine(format!("failed to renew entry: {why}"));
        let found: Option<Entry> = records::find(&at.storage, said("cert_name")).await?;
        let entry = found.ok_or_else(|| refuse("the certificate is not stored any more, not renewing"))?;
        if !config(&at.storage).await?.disable_binding {
            // A token that was taken from its client is good for no longer than its TTL (CVE-2026-39388).
            let shown = token.certificate.and_then(Shown::of);
            let shown = shown.ok_or_else(|| refuse("no client certificate found"))?;
            if shown.fingerprint() != said("fingerprint") {
                return Err(refuse("client identity during renewal not matching client identity used during login"));
            }
            if let Err(why) = Judge::new(self, at, &shown).judge(&entry).await? {
                return Err(refuse(&format!("no certificate was matched by this request: {why}")));
            }
        }
        check_policies(&entry.token, token)?;
        Ok(LoginLimits::from(&entry.token))
    }
}

#[cfg(test)]
mod tests;
