//! One record, as JSON (contract.md §7). Keys with zero values are left out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aws_lc_rs::digest;
use base64::Engine as _;
use leasehold_model::Timestamp;
use serde_json::{Value, json};

use super::hash::{self, Salt, Shown};
use crate::connection::ConnectionInfo;
use crate::mount::MountEntry;
use crate::policy::egp::Judgement;
use crate::request::{LogicalRequest, LogicalResponse, Object};
use crate::seams::sandbox::Verdict;
use crate::token::Caller;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Request,
    Response,
}

/// What is known of a request when its record is written.
#[derive(Debug)]
pub struct Entry<'a> {
    pub phase: Phase,
    pub at: Timestamp,
    pub request: &'a LogicalRequest,
    /// After the existence check.
    pub operation: leasehold_model::Operation,
    pub caller: Option<&'a Caller>,
    pub mount: Option<&'a MountEntry>,
    pub verdict: Option<&'a Verdict>,
    pub judgements: &'a [Judgement],
    /// Digest of the ACL component that decided.
    pub acl_digest: &'a str,
    pub response: Option<&'a LogicalResponse>,
    pub error: Option<&'a str>,
    /// Whether the record may show the request's body: not that of somebody whose token nobody knows.
    pub shows_data: bool,
    /// Request headers that the operator registered: name, values, whether to hash.
    pub headers: &'a [(String, Vec<String>, bool)],
}

/// Longer texts are cut: a path, an error, a warning, the value of a header.
const TEXT_MAX: usize = 8 << 10;
/// Of a token's policies, and of its metadata, in bytes.
const NAMES_MAX: usize = 32 << 10;
/// So many warnings, or values of one header.
const LIST_MAX: usize = 16;

/// How one device wants its lines.
#[derive(Debug)]
pub struct Style<'a> {
    pub salt: &'a Salt,
    pub raw: bool,
    pub hash_accessor: bool,
    pub elide_lists: bool,
}

/// Keys under which `sys/` and `auth/token/` answer with a moment.
const TIMES: [&str; 6] = ["expiration", "expire_time", "install_time", "issue_time", "last_renewal", "modified"];

impl Entry<'_> {
    /// The line, without the newline at its end.
    #[must_use]
    pub fn render(&self, style: &Style<'_>) -> String {
        let mut line = Object::new();
        line.insert("time".into(), self.at.rfc3339().into());
        line.insert("type".into(), (if self.phase == Phase::Request { "request" } else { "response" }).into());
        line.insert("auth".into(), self.auth(style));
        line.insert("request".into(), self.request(style));
        if self.phase == Phase::Response {
            line.insert("response".into(), self.response(style));
        }
        put(&mut line, "error", self.error.map(|error| cut(error, TEXT_MAX)).as_deref());
        Value::Object(line).to_string()
    }

    fn auth(&self, style: &Style<'_>) -> Value {
        let mut auth = Object::new();
        let Some(caller) = self.caller else {
            auth.insert("token_type".into(), "default".into());
            return auth.into();
        };
        let record = &caller.record;
        if let Some(token) = &self.request.token {
            auth.insert("client_token".into(), style.secret(token.expose()).into());
        }
        if !record.is_batch() {
            auth.insert("accessor".into(), style.accessor(record.accessor.as_str()).into());
        }
        auth.insert("display_name".into(), record.display_name.clone().into());
        auth.insert("policies".into(), json!(few(caller.policies())));
        auth.insert("token_policies".into(), json!(few(&record.policies)));
        // Also where it is disabled or gone, and the request refused for that.
        put(&mut auth, "entity_id", caller.entity_id().or(record.entity.as_deref()));
        if let Some(identity) = &caller.identity {
            put_names(&mut auth, "identity_policies", &identity.identity_policies);
        }
        if let Some(verdict) = self.verdict {
            auth.insert("policy_results".into(), self.policy_results(verdict));
        }
        if let Some(meta) = &record.meta {
            auth.insert("metadata".into(), metadata(meta));
        }
        if caller.uses_before != 0 {
            auth.insert("remaining_uses".into(), caller.uses_before.into());
        }
        auth.insert("token_type".into(), record.kind.as_str().into());
        if !record.creation_ttl.is_zero() {
            auth.insert("token_ttl".into(), record.creation_ttl.as_secs().into());
        }
        auth.insert("token_issue_time".into(), record.created_at.rfc3339().into());
        auth.into()
    }

    /// Vault's `granting_policies`, and besides them the rule, its position and the component that decided.
    fn policy_results(&self, verdict: &Verdict) -> Value {
        let allowed = verdict.allowed && !self.judgements.iter().any(refuses);
        let mut results = Object::new();
        results.insert("allowed".into(), allowed.into());
        if *verdict == Verdict::unasked() {
            return results.into();
        }
        if verdict.allowed {
            let granting: Vec<Value> = verdict
                .rules
                .iter()
                .map(|rule| json!({"name": rule.policy, "namespace_id": "root", "type": "acl"}))
                .collect();
            results.insert("granting_policies".into(), granting.into());
        }
        results.insert("rules".into(), json!(verdict.rules));
        if let Some(control) = &verdict.control_group {
            let factors = control
                .factors
                .iter()
                .map(|one| json!({"name": one.name, "approvals": one.approvals, "approved_by": one.given}));
            results.insert("control_group".into(), json!({"factors": factors.collect::<Vec<_>>()}));
        }
        // For root the host answers, and no component is asked.
        if !self.caller.is_some_and(Caller::is_root) && !self.acl_digest.is_empty() {
            results.insert("acl_module".into(), self.acl_digest.into());
        }
        if !self.judgements.is_empty() {
            results.insert("policy_modules".into(), json!(self.judgements));
        }
        results.into()
    }

    fn request(&self, style: &Style<'_>) -> Value {
        let asked = self.request;
        let mut request = Object::new();
        request.insert("id".into(), asked.id.clone().into());
        request.insert("operation".into(), self.operation.as_str().into());
        if let Some(mount) = self.mount {
            put_mount(&mut request, mount);
            request.insert("mount_running_version".into(), mount.running_version().into());
        }
        if let Some(token) = &asked.token {
            request.insert("client_token".into(), style.secret(token.expose()).into());
        }
        if let Some(caller) = self.caller {
            let entity = caller.record.entity.clone();
            request.insert("client_id".into(), entity.unwrap_or_else(|| client_id(&caller.record.policies)).into());
        }
        if let Some(caller) = self.caller
            && !caller.record.is_batch()
        {
            request.insert("client_token_accessor".into(), style.accessor(caller.record.accessor.as_str()).into());
        }
        request.insert("namespace".into(), json!({"id": "root"}));
        request.insert("path".into(), cut(&asked.path, TEXT_MAX).into_owned().into());
        if !asked.data.is_empty() && self.shows_data {
            let clear = self.mount.map(|m| m.audit_non_hmac_request_keys.as_slice()).unwrap_or_default();
            put_data(&mut request, &asked.data, style.object(&asked.data, clear), style);
        }
        if let Some(body) = &asked.raw_body {
            request.insert("body_bytes".into(), body.len().into());
        }
        if let Some(file) = &asked.upload {
            request.insert("body_bytes".into(), file.len().into());
        }
        if let Some(address) = asked.client.as_ref().and_then(ConnectionInfo::address) {
            request.insert("remote_address".into(), address.to_string().into());
        }
        if let Some(port) = asked.client.as_ref().and_then(ConnectionInfo::port) {
            request.insert("remote_port".into(), port.into());
        }
        if let Some(ttl) = asked.wrap_ttl {
            request.insert("wrap_ttl".into(), ttl.as_secs().into());
        }
        if !self.headers.is_empty() {
            let headers: Object = self
                .headers
                .iter()
                .map(|(name, values, hash)| {
                    let shown = |v: &String| if *hash { style.salt.text(v) } else { cut(v, TEXT_MAX).into_owned() };
                    let values: Vec<String> = values.iter().take(LIST_MAX).map(shown).collect();
                    (name.clone(), json!(values))
                })
                .collect();
            request.insert("headers".into(), headers.into());
        }
        request.into()
    }

    fn response(&self, style: &Style<'_>) -> Value {
        let mut response = Object::new();
        if let Some(mount) = self.mount {
            put_mount(&mut response, mount);
            response.insert("mount_running_plugin_version".into(), mount.running_version().into());
        }
        if let Some(error) = self.error {
            response.insert("data".into(), json!({ "error": style.secret(error) }));
        }
        let Some(answer) = self.response else { return response.into() };
        if let Some(auth) = &answer.auth {
            let mut shown = Object::new();
            if let Some(token) = &auth.client_token {
                shown.insert("client_token".into(), style.secret(token.expose()).into());
            }
            // A batch token has none.
            if !auth.accessor.is_empty() {
                shown.insert("accessor".into(), style.accessor(&auth.accessor).into());
            }
            shown.insert("display_name".into(), auth.display_name.clone().into());
            shown.insert("policies".into(), json!(few(&auth.all_policies())));
            shown.insert("token_policies".into(), json!(few(&auth.policies)));
            if let Some(identity) = &auth.identity {
                shown.insert("entity_id".into(), identity.entity_id.clone().into());
                put_names(&mut shown, "identity_policies", &identity.policies);
            }
            if let Some(meta) = &auth.metadata {
                shown.insert("metadata".into(), metadata(meta));
            }
            if auth.num_uses != 0 {
                shown.insert("num_uses".into(), auth.num_uses.into());
            }
            shown.insert("token_type".into(), auth.token_type.into());
            shown.insert("token_ttl".into(), auth.ttl.as_secs().into());
            if !auth.is_new {
                shown.insert("token_issue_time".into(), auth.issued_at.rfc3339().into());
            }
            response.insert("auth".into(), shown.into());
        }
        if let Some(lease) = &answer.lease {
            response.insert("secret".into(), json!({"lease_id": lease.id.as_str()}));
        }
        if let Some(data) = &answer.data {
            let clear = self.clear_in(data);
            match style.elided(data) {
                Some(elided) => put_data(&mut response, &elided, style.object(&elided, &clear), style),
                None => put_data(&mut response, data, style.object(data, &clear), style),
            }
        }
        if let Some(wrap) = &answer.wrap_info {
            let mut shown = Object::new();
            shown.insert("ttl".into(), wrap.ttl.as_secs().into());
            shown.insert("token".into(), style.secret(wrap.token.expose()).into());
            shown.insert("accessor".into(), style.accessor(wrap.accessor.as_str()).into());
            shown.insert("creation_time".into(), wrap.created_at.rfc3339().into());
            shown.insert("creation_path".into(), cut(&wrap.creation_path, TEXT_MAX).into_owned().into());
            if let Some(accessor) = &wrap.wrapped_accessor {
                shown.insert("wrapped_accessor".into(), style.accessor(accessor).into());
            }
            response.insert("wrap_info".into(), shown.into());
        }
        if !answer.warnings.is_empty() {
            let warnings: Vec<_> = answer.warnings.iter().take(LIST_MAX).map(|text| cut(text, TEXT_MAX)).collect();
            response.insert("warnings".into(), json!(warnings));
        }
        response.into()
    }

    /// What stays readable in an answer's data: what the mount exempts, and the times of our own answers.
    fn clear_in(&self, data: &Object) -> Vec<String> {
        let Some(mount) = self.mount else { return Vec::new() };
        let ours = matches!(mount.kind.as_str(), "system" | "token");
        let is_time = |(name, value): &(&String, &Value)| {
            TIMES.contains(&name.as_str()) && value.as_str().is_some_and(|at| Timestamp::parse_rfc3339(at).is_some())
        };
        let times = data.iter().filter(|entry| ours && is_time(entry)).map(|(name, _)| name.clone());
        mount.audit_non_hmac_response_keys.iter().cloned().chain(times).collect()
    }
}

/// Names clients that are no entities by their policies, as Vault counts them.
fn client_id(policies: &[String]) -> String {
    let named = format!("{}\0root", policies.join("\x7f"));
    base64::engine::general_purpose::STANDARD.encode(digest::digest(&digest::SHA256, named.as_bytes()))
}

/// A judgement for which the request was refused.
fn refuses(judgement: &Judgement) -> bool {
    judgement.enforcement_level == crate::policy::egp::Enforcement::HardMandatory
        && matches!(judgement.verdict, "deny" | "failed")
}

impl Style<'_> {
    fn secret(&self, text: &str) -> String {
        if self.raw { text.to_owned() } else { self.salt.text(text) }
    }

    fn accessor(&self, text: &str) -> String {
        if self.hash_accessor { self.secret(text) } else { text.to_owned() }
    }

    fn object(&self, object: &Object, clear: &[String]) -> Shown {
        if self.raw { hash::raw(object) } else { self.salt.object(object, clear) }
    }

    /// A list answer with the number of its keys in place of them, if the device wants that.
    fn elided(&self, data: &Object) -> Option<Object> {
        if !self.elide_lists || !data.contains_key("keys") {
            return None;
        }
        let count = |value: &Value| match value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        };
        let elided = |(key, value): (&String, &Value)| match key.as_str() {
            "keys" | "key_info" => (key.clone(), count(value).into()),
            _ => (key.clone(), value.clone()),
        };
        Some(data.iter().map(elided).collect())
    }
}

/// What of a body fits into a record. Of a longer one the record has the HMAC of the whole besides, as JSON
/// without blanks, so that an auditor who has the body can prove that it was this one.
fn put_data(object: &mut Object, whole: &Object, shown: Shown, style: &Style<'_>) {
    object.insert("data".into(), shown.value);
    if shown.is_cut {
        let whole = serde_json::to_string(whole).unwrap_or_default();
        object.insert("data_truncated".into(), style.salt.text(&whole).into());
    }
}

/// Without the key where there are none, as in Vault.
fn put_names(object: &mut Object, key: &str, names: &[String]) {
    if !names.is_empty() {
        object.insert(key.into(), json!(few(names)));
    }
}

/// As many policies as fit into a record.
fn few(policies: &[String]) -> &[String] {
    let mut length = 0_usize;
    let fits = policies.iter().take_while(|name| {
        length = length.saturating_add(name.len());
        length <= NAMES_MAX
    });
    policies.get(..fits.count()).unwrap_or_default()
}

/// As much of a token's metadata as fits into a record.
fn metadata(meta: &BTreeMap<String, String>) -> Value {
    let mut length = 0_usize;
    let fits = meta.iter().take_while(|(name, value)| {
        length = length.saturating_add(name.len()).saturating_add(value.len());
        length <= NAMES_MAX
    });
    Value::Object(fits.map(|(name, value)| (name.clone(), value.clone().into())).collect())
}

/// The beginning of a text that is too long for a record.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(most);
    Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
}

fn put_mount(object: &mut Object, mount: &MountEntry) {
    object.insert("mount_point".into(), mount.path.as_str().into());
    object.insert("mount_type".into(), mount.kind.clone().into());
    object.insert("mount_accessor".into(), mount.accessor.as_str().into());
    let class = if mount.table == crate::mount::Table::Auth { "auth" } else { "secret" };
    object.insert("mount_class".into(), class.into());
}

fn put(object: &mut Object, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}
