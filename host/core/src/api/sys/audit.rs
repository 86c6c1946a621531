//! Audit devices and audited headers (contract.md §2.6).

use leasehold_model::{MountPath, Operation};
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::audit::broker::AuditedHeader;
use crate::audit::{DeviceEntry, Entry, Phase};
use crate::fields::{Field, Kind};
use crate::request::{LogicalRequest, LogicalResponse, Object, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

const ENABLE: &[Field] = &[
    Field::visible("type", Kind::Text, "`file`."),
    Field::visible("description", Kind::Text, "For people."),
    Field::visible(
        "options",
        Kind::KvPairs,
        "file_path (not absolute: beneath the server's audit_directory), mode, hmac_accessor, elide_list_responses.",
    ),
    Field::visible("local", Kind::Bool, "Accepted."),
];

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new("audit", Access::Sudo, "The audit devices.", &[Op::read("Lists the audit devices.", handler!(list))]),
    Route::new(
        "audit/*path",
        Access::Sudo,
        "One audit device.",
        &[
            Op::update("Enables an audit device.", handler!(enable)).takes(ENABLE),
            Op::delete("Disables an audit device.", handler!(disable)),
        ],
    ),
    Route::new(
        "audit-hash/*path",
        Access::Token,
        "What a device writes in place of a text.",
        &[Op::update("Shows what a device writes in place of a text.", handler!(hash))
            .takes(&[Field::hidden("input", Kind::Text, "The text to hash.").required()])
            .answers(Answer::Data(&[Field::visible("hash", Kind::Text, "What stands in its records.")]))],
    ),
    Route::new(
        "config/auditing/request-headers",
        Access::Sudo,
        "The audited request headers.",
        &[Op::read("Lists the audited request headers.", handler!(headers)).answers(Answer::Data(&[Field::visible(
            "headers",
            Kind::Map,
            "By name in lower case.",
        )]))],
    ),
    Route::new(
        "config/auditing/request-headers/:header",
        Access::Sudo,
        "One audited request header.",
        &[
            Op::read("Shows whether a header's values are hashed.", handler!(header)),
            Op::update("Has a header recorded.", handler!(set_header)).takes(&[Field::visible(
                "hmac",
                Kind::Bool,
                "Whether to hash its values.",
            )
            .default("false")]),
            Op::delete("Has a header recorded no more.", handler!(unset_header)),
        ],
    ),
];

async fn list(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let entries = call.unsealed.audit.entries();
    let data: Object = entries.into_iter().map(|entry| (entry.path.clone(), shown(&entry))).collect();
    let shape = if data.is_empty() { Shape::Envelope } else { Shape::Duplicated };
    Ok(LogicalResponse::data(data).shaped(shape))
}

async fn disable(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.audit.disable(&slashed(call.capture("path"))).await?;
    Ok(LogicalResponse::empty())
}

async fn hash(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let input = call.fields.text("input").unwrap_or_default();
    if input.is_empty() {
        return Err(RequestError::invalid("the \"input\" parameter is empty"));
    }
    let path = slashed(call.capture("path"));
    let hash = call.unsealed.audit.hash(&path, input);
    let hash = hash.ok_or_else(|| RequestError::Invalid(format!("unknown audit backend \"{path}\"")))?;
    Ok(LogicalResponse::json(json!({ "hash": hash })).shaped(Shape::Duplicated))
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
        upload: None,
        body_withheld: false,
        is_let_in: false,
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
        shows_data: true,
        headers: &[],
    };
    call.unsealed.audit.enable(entry, &test).await?;
    Ok(LogicalResponse::empty())
}

async fn headers(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let headers = call.unsealed.audit.headers();
    let headers: Object = headers.iter().map(|(name, header)| (name.clone(), json!({ "hmac": header.hmac }))).collect();
    Ok(LogicalResponse::json(json!({ "headers": headers })).shaped(Shape::Duplicated))
}

async fn header(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = call.capture("header");
    let headers = call.unsealed.audit.headers();
    let header =
        headers.get(&name.to_lowercase()).ok_or_else(|| RequestError::invalid("Could not find header in config"))?;
    let data = Object::from_iter([(name.to_owned(), json!({ "hmac": header.hmac }))]);
    Ok(LogicalResponse::data(data).shaped(Shape::Duplicated))
}

async fn unset_header(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.audit.unset_header(call.capture("header")).await?;
    Ok(LogicalResponse::empty())
}

async fn set_header(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = call.capture("header");
    let lower = name.to_lowercase();
    if lower == "x-vault-token" || lower == "authorization" {
        return Err(RequestError::invalid("this header carries the token: audit has its HMAC already"));
    }
    let hmac = call.fields.bool("hmac").unwrap_or(false);
    call.unsealed.audit.set_header(AuditedHeader { name: name.to_owned(), hmac }).await?;
    Ok(LogicalResponse::empty())
}
