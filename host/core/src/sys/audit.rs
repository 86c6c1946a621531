//! Audit devices and audited headers (contract.md §2.6).

use leasehold_model::{MountPath, Operation};
use serde_json::{Value, json};

use crate::audit::broker::AuditedHeader;
use crate::audit::{DeviceEntry, Entry, Phase};
use crate::call::Call;
use crate::fields::{Field, Kind};
use crate::request::{LogicalRequest, LogicalResponse, Object, RequestError, Shape};
use crate::routes::{Access, Route};

const ENABLE: &[Field] = &[
    Field::visible("type", Kind::Text, "`file`."),
    Field::visible("description", Kind::Text, "For people."),
    Field::visible(
        "options",
        Kind::KvPairs,
        "file_path (not absolute: beneath the server's audit_directory), mode, log_raw, hmac_accessor, elide_list_responses.",
    ),
    Field::visible("local", Kind::Bool, "Accepted."),
];

pub const ROUTES: &[Route] = &[
    route("audit", &[Operation::Read], &[], Access::Sudo, "Lists the audit devices."),
    route(
        "audit/*path",
        &[Operation::Update, Operation::Delete],
        ENABLE,
        Access::Sudo,
        "Enables or disables an audit device.",
    ),
    route(
        "audit-hash/*path",
        &[Operation::Update],
        &[Field::hidden("input", Kind::Text, "The text to hash.")],
        Access::Token,
        "What a device writes in place of a text.",
    ),
    route(
        "config/auditing/request-headers",
        &[Operation::Read],
        &[],
        Access::Sudo,
        "Lists the audited request headers.",
    ),
    route(
        "config/auditing/request-headers/:header",
        &[Operation::Read, Operation::Update, Operation::Delete],
        &[Field::visible("hmac", Kind::Bool, "Whether to hash its values.")],
        Access::Sudo,
        "One audited request header.",
    ),
];

const fn route(
    pattern: &'static str,
    operations: &'static [Operation],
    fields: &'static [Field],
    access: Access,
    help: &'static str,
) -> Route {
    Route { pattern, operations, fields, access, existence_check: false, help }
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let broker = &call.unsealed.audit;
    match (call.pattern, call.operation) {
        ("audit", _) => {
            let data: Object = broker.entries().into_iter().map(|entry| (entry.path.clone(), shown(&entry))).collect();
            let shape = if data.is_empty() { Shape::Envelope } else { Shape::Duplicated };
            Ok(LogicalResponse::data(data).shaped(shape))
        }
        ("audit/*path", Operation::Update) => enable(call).await,
        ("audit/*path", Operation::Delete) => {
            broker.disable(&slashed(call.capture("path"))).await?;
            Ok(LogicalResponse::empty())
        }
        ("audit-hash/*path", _) => {
            let input = call.fields.text("input").unwrap_or_default();
            if input.is_empty() {
                return Err(RequestError::invalid("the \"input\" parameter is empty"));
            }
            let path = slashed(call.capture("path"));
            let hash = broker
                .hash(&path, input)
                .ok_or_else(|| RequestError::Invalid(format!("unknown audit backend \"{path}\"")))?;
            Ok(LogicalResponse::json(json!({ "hash": hash })).shaped(Shape::Duplicated))
        }
        ("config/auditing/request-headers", _) => {
            let headers: Object =
                broker.headers().iter().map(|(name, header)| (name.clone(), json!({ "hmac": header.hmac }))).collect();
            Ok(LogicalResponse::json(json!({ "headers": headers })).shaped(Shape::Duplicated))
        }
        (_, operation) => header(call, operation).await,
    }
}

fn slashed(path: &str) -> String {
    format!("{}/", path.trim_end_matches('/'))
}

fn shown(entry: &DeviceEntry) -> Value {
    json!({ "type": entry.kind, "description": entry.description, "options": entry.options, "local": entry.local, "path": entry.path })
}

async fn enable(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let path: MountPath =
        call.capture("path").parse().map_err(|_| RequestError::invalid("invalid audit device path"))?;
    let kind = call.fields.text("type").unwrap_or_default();
    let entry = DeviceEntry {
        path: path.as_str().to_owned(),
        kind: kind.to_owned(),
        description: call.fields.text("description").unwrap_or_default().to_owned(),
        options: call.fields.pairs("options").cloned().unwrap_or_default(),
        local: call.fields.bool("local").unwrap_or(false),
    };
    let request = LogicalRequest {
        id: call.request.id.clone(),
        operation: Operation::Update,
        path: "sys/audit/test".to_owned(),
        data: Object::new(),
        token: None,
        client: None,
        wrap_ttl: None,
        headers: std::collections::BTreeMap::new(),
        raw_body: None,
    };
    let test = Entry {
        phase: Phase::Request,
        at: call.core.seams.clock.now(),
        request: &request,
        operation: Operation::Update,
        caller: None,
        mount: None,
        verdict: None,
        judgements: &[],
        acl_digest: "",
        response: None,
        error: None,
        headers: &[],
    };
    call.unsealed.audit.enable(entry, &test).await?;
    Ok(LogicalResponse::empty())
}

async fn header(call: &Call<'_>, operation: Operation) -> Result<LogicalResponse, RequestError> {
    let name = call.capture("header");
    let broker = &call.unsealed.audit;
    match operation {
        Operation::Read => {
            let headers = broker.headers();
            let header = headers
                .get(&name.to_lowercase())
                .ok_or_else(|| RequestError::invalid("Could not find header in config"))?;
            let data = Object::from_iter([(name.to_owned(), json!({ "hmac": header.hmac }))]);
            Ok(LogicalResponse::data(data).shaped(Shape::Duplicated))
        }
        Operation::Delete => {
            broker.unset_header(name).await?;
            Ok(LogicalResponse::empty())
        }
        _ => {
            let lower = name.to_lowercase();
            if lower == "x-vault-token" || lower == "authorization" {
                return Err(RequestError::invalid("this header carries the token: audit has its HMAC already"));
            }
            broker
                .set_header(AuditedHeader { name: name.to_owned(), hmac: call.fields.bool("hmac").unwrap_or(false) })
                .await?;
            Ok(LogicalResponse::empty())
        }
    }
}
