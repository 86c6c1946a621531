//! One record, as JSON (contract.md §7). Keys with zero values are left out.

use aws_lc_rs::digest;
use base64::Engine as _;
use leasehold_model::Timestamp;
use serde_json::{Value, json};

use super::hash::Salt;
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
    /// Request headers that the operator registered: name, values, whether to hash.
    pub headers: &'a [(String, Vec<String>, bool)],
}

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
        put(&mut line, "error", self.error);
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
        auth.insert("policies".into(), json!(record.policies));
        auth.insert("token_policies".into(), json!(record.policies));
        if let Some(verdict) = self.verdict {
            auth.insert("policy_results".into(), self.policy_results(verdict));
        }
        if let Some(meta) = &record.meta {
            auth.insert("metadata".into(), json!(meta));
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
            request.insert("client_id".into(), client_id(&caller.record.policies).into());
        }
        if let Some(caller) = self.caller
            && !caller.record.is_batch()
        {
            request.insert("client_token_accessor".into(), style.accessor(caller.record.accessor.as_str()).into());
        }
        request.insert("namespace".into(), json!({"id": "root"}));
        request.insert("path".into(), asked.path.clone().into());
        if !asked.data.is_empty() {
            let clear = self.mount.map(|m| m.audit_non_hmac_request_keys.as_slice()).unwrap_or_default();
            request.insert("data".into(), style.object(&asked.data, clear));
        }
        if let Some(body) = &asked.raw_body {
            request.insert("body_bytes".into(), body.len().into());
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
                    let values: Vec<String> =
                        values.iter().map(|v| if *hash { style.salt.text(v) } else { v.clone() }).collect();
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
            shown.insert("policies".into(), json!(auth.policies));
            shown.insert("token_policies".into(), json!(auth.policies));
            if let Some(metadata) = &auth.metadata {
                shown.insert("metadata".into(), json!(metadata));
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
            response.insert(
                "data".into(),
                style.elided(data).map_or_else(|| style.object(data, &clear), |data| style.object(&data, &clear)),
            );
        }
        if !answer.warnings.is_empty() {
            response.insert("warnings".into(), json!(answer.warnings));
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

    fn object(&self, object: &Object, clear: &[String]) -> Value {
        if self.raw { Value::Object(object.clone()) } else { self.salt.object(object, clear) }
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
