//! `sys/internal/specs/openapi`: the API as an OpenAPI 3.0.2 document, from the declarations of the routes.
//!
//! Must not know: any route in particular. What is wrong in the document is wrong in a declaration.
//!
//! Start with [`document`]; [`add_paths`] adds what one mount serves.

use leasehold_model::Operation;
use serde_json::{Value, json};

use super::ui;
use crate::api::call::{Call, SystemHandler, handler};
use crate::core::Unsealed;
use crate::fields::{Field, Kind};
use crate::mount::{MountEntry, Table};
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

pub const ROUTES: &[Route<SystemHandler>] = &[Route::new(
    "internal/specs/openapi",
    Access::Unauthenticated,
    "The API as an OpenAPI document.",
    &[Op::read("Shows the API of the mounts that the caller can reach.", handler!(show))
        // Accepted as in Vault; mounts are always named as they are mounted.
        .takes(&[Field::visible("generic_mount_paths", Kind::Bool, "Accepted.")])
        .answers(Answer::Plain(&[
            Field::visible("openapi", Kind::Text, "The version of OpenAPI."),
            Field::visible("info", Kind::Map, "What this is."),
            Field::visible("paths", Kind::Map, "All paths; none without a token."),
        ]))],
)];

async fn show(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let mut paths = Object::new();
    if let Some(caller) = call.caller {
        for entry in call.unsealed.mounts.all().iter() {
            if !ui::reaches(call, caller, entry).await? {
                continue;
            }
            add_mount(&mut paths, entry, call.unsealed);
        }
    }
    Ok(LogicalResponse::json(document(paths)).shaped(Shape::Plain))
}

fn add_mount(paths: &mut Object, entry: &MountEntry, unsealed: &Unsealed) {
    let prefix = entry.path.as_str();
    match entry.kind.as_str() {
        "system" => add_paths(paths, prefix, super::ROUTES),
        "token" => add_paths(paths, prefix, crate::api::token::ROUTES),
        "cubbyhole" => add_paths(paths, prefix, crate::api::cubbyhole::ROUTES),
        "identity" => add_paths(paths, prefix, crate::api::identity::ROUTES),
        _ if entry.table == Table::Auth => {
            if let Some(method) = unsealed.methods.of(entry) {
                add_paths(paths, prefix, method.routes());
            }
        }
        kind => {
            if let Some(engine) = unsealed.engines.of_kind(kind) {
                add_paths(paths, prefix, engine.routes_with(&entry.engine_options()));
            }
        }
    }
}

/// The document around the paths.
pub(crate) fn document(paths: Object) -> Value {
    json!({
        "openapi": "3.0.2",
        "info": {
            "title": "Leasehold",
            "description": "HTTP API of Leasehold, which speaks the API of Vault. Writes are also taken as PUT, and lists as LIST.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "servers": [{ "url": "/v1" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "apiKey", "in": "header", "name": "X-Vault-Token" } },
            "schemas": {
                "Errors": {
                    "type": "object",
                    "properties": { "errors": { "type": "array", "items": { "type": "string" } } },
                },
                "Auth": {
                    "type": "object",
                    "nullable": true,
                    "properties": {
                        "client_token": { "type": "string", "format": "password" },
                        "accessor": { "type": "string" },
                        "policies": { "type": "array", "items": { "type": "string" } },
                        "lease_duration": { "type": "integer" },
                        "renewable": { "type": "boolean" },
                        "num_uses": { "type": "integer" },
                        "orphan": { "type": "boolean" },
                        "token_type": { "type": "string" },
                    },
                },
                "Envelope": {
                    "type": "object",
                    "properties": {
                        "request_id": { "type": "string" },
                        "lease_id": { "type": "string" },
                        "lease_duration": { "type": "integer" },
                        "renewable": { "type": "boolean" },
                        "data": { "type": "object", "nullable": true },
                        "auth": { "$ref": "#/components/schemas/Auth" },
                        "warnings": { "type": "array", "nullable": true, "items": { "type": "string" } },
                    },
                },
            },
            "responses": {
                "Error": {
                    "description": "What went wrong.",
                    "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Errors" } } },
                },
            },
        },
    })
}

/// Adds the routes below a mount. `prefix` is the mount's path with the slash at its end, or empty.
pub(crate) fn add_paths<H: Copy>(paths: &mut Object, prefix: &str, routes: &[Route<H>]) {
    for route in routes.iter().filter(|route| !route.is_unlisted) {
        let bare = format!("/{prefix}{}", braced(route.pattern.trim_end_matches('/')));
        for op in route.operations {
            // A list is a read of the path with a slash at its end, as clients in a browser send it.
            let (path, method) = match op.operation {
                Operation::Read => (bare.clone(), "get"),
                Operation::List | Operation::Scan => (format!("{bare}/"), "get"),
                Operation::Patch => (bare.clone(), "patch"),
                Operation::Delete => (bare.clone(), "delete"),
                Operation::Create | Operation::Update => (bare.clone(), "post"),
                Operation::Help | Operation::Renew | Operation::Revoke => continue,
            };
            let item = paths.entry(path.clone()).or_insert_with(|| path_item(route));
            let Some(item) = item.as_object_mut() else { continue };
            // Where a path can be listed and scanned, its one GET is told by the list's declaration.
            item.entry(method.to_owned()).or_insert_with(|| operation(&path, route, op));
        }
    }
}

fn path_item<H: Copy>(route: &Route<H>) -> Value {
    let mut item = Object::new();
    item.insert("description".into(), route.summary.into());
    let captures = route.pattern.split('/').filter_map(|segment| {
        let (name, help) = match (segment.strip_prefix(':'), segment.strip_prefix('*')) {
            (Some(name), _) => (name, "A name."),
            (_, Some(name)) => (name, "A path, which may hold slashes."),
            _ => return None,
        };
        Some(json!({
            "name": name, "in": "path", "required": true, "description": help,
            "schema": { "type": "string", "minLength": 1 },
        }))
    });
    let captures: Vec<Value> = captures.collect();
    if !captures.is_empty() {
        item.insert("parameters".into(), captures.into());
    }
    // As in Vault's document.
    if matches!(route.access, Access::Sudo | Access::SudoToWrite) {
        item.insert("x-vault-sudo".into(), true.into());
    }
    if route.access.is_unauthenticated() {
        item.insert("x-vault-unauthenticated".into(), true.into());
    }
    if route.existence_check {
        item.insert("x-vault-createSupported".into(), true.into());
    }
    item.into()
}

fn operation<H: Copy>(path: &str, route: &Route<H>, op: &Op<H>) -> Value {
    let mut told = Object::new();
    told.insert("summary".into(), op.summary.into());
    told.insert("operationId".into(), operation_id(path, op.operation).into());
    told.insert("tags".into(), json!([path.split('/').nth(1).unwrap_or_default()]));
    if route.access.is_unauthenticated() {
        told.insert("security".into(), json!([]));
    }
    let mut parameters: Vec<Value> = Vec::new();
    if matches!(op.operation, Operation::List | Operation::Scan) {
        let scans = route.op(Operation::Scan).is_some();
        let flag = |name: &str, required: bool| json!({ "name": name, "in": "query", "required": required, "schema": { "type": "string", "enum": ["true"] } });
        parameters.push(flag("list", !scans));
        if scans {
            parameters.push(flag("scan", false));
        }
    }
    if matches!(op.operation, Operation::Create | Operation::Update | Operation::Patch) {
        if op.takes_file {
            let content = json!({ "application/gzip": { "schema": { "type": "string", "format": "binary" } } });
            told.insert("requestBody".into(), json!({ "required": true, "content": content }));
        } else if op.is_document {
            let any = json!({ "type": "object", "minProperties": 1 });
            let content = json!({ "application/json": { "schema": any } });
            told.insert("requestBody".into(), json!({ "required": true, "content": content }));
        } else if !op.fields.is_empty() {
            told.insert("requestBody".into(), body(op.fields));
        }
    } else {
        let named = op.fields.iter().filter(|field| field.name != "*");
        parameters.extend(named.map(|field| {
            json!({
                "name": field.name, "in": "query", "required": field.required, "description": field.help,
                "schema": schema(field, false),
            })
        }));
    }
    if !parameters.is_empty() {
        told.insert("parameters".into(), parameters.into());
    }
    told.insert("responses".into(), responses(op.answer));
    told.into()
}

fn body(fields: &[Field]) -> Value {
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = object_of(fields, true);
    if let Some(schema) = schema.as_object_mut().filter(|_| !required.is_empty()) {
        schema.insert("required".into(), json!(required));
    }
    json!({ "required": !required.is_empty(), "content": { "application/json": { "schema": schema } } })
}

/// An object whose other properties are taken only where a field `*` says so; answers may always hold more.
fn object_of(fields: &[Field], is_request: bool) -> Value {
    let named = fields.iter().filter(|field| field.name != "*");
    let properties: Object = named.map(|field| (field.name.to_owned(), schema(field, is_request))).collect();
    let mut object = Object::from_iter([("type".to_owned(), "object".into())]);
    if !properties.is_empty() {
        object.insert("properties".into(), properties.into());
    }
    object.into()
}

fn schema(field: &Field, is_request: bool) -> Value {
    let mut schema = match field.kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Int => json!({ "type": "integer" }),
        Kind::Float => json!({ "type": "number" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Duration if is_request => json!({ "oneOf": [{ "type": "integer" }, { "type": "string" }] }),
        Kind::Duration => json!({ "type": "integer" }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::CommaList | Kind::List => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::KvPairs => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Map => json!({ "type": "object" }),
        Kind::Any => json!({}),
    };
    let Some(told) = schema.as_object_mut() else { return schema };
    told.insert("description".into(), field.help.into());
    if field.secret {
        // Tools mask such a value.
        if field.kind == Kind::Text {
            told.insert("format".into(), "password".into());
        }
        told.insert("x-vault-displayAttrs".into(), json!({ "sensitive": true }));
    }
    if !field.one_of.is_empty() {
        told.insert("enum".into(), json!(field.one_of));
    }
    if !field.default.is_empty() {
        let default = match field.kind {
            Kind::Int | Kind::Float | Kind::Bool | Kind::Duration => {
                serde_json::from_str(field.default).unwrap_or_else(|_| field.default.into())
            }
            _ => Value::from(field.default),
        };
        told.insert("default".into(), default);
    }
    // What is null where there is nothing to show.
    if !is_request {
        told.insert("nullable".into(), true.into());
    }
    schema
}

fn responses(answer: Answer) -> Value {
    let envelope = |data: Option<Value>| match data {
        None => json!({ "$ref": "#/components/schemas/Envelope" }),
        Some(data) => json!({
            "allOf": [{ "$ref": "#/components/schemas/Envelope" }, { "type": "object", "properties": { "data": data } }],
        }),
    };
    let content =
        |kind: &str, schema: Value| json!({ "description": "Done.", "content": { kind: { "schema": schema } } });
    let json = |schema| content("application/json", schema);
    let mut all = Object::new();
    let ok = match answer {
        Answer::Nothing => {
            all.insert("204".into(), json!({ "description": "Done; there is nothing to say." }));
            json!({ "description": "Done, with warnings.", "content": { "application/json": { "schema": envelope(None) } } })
        }
        Answer::Data(fields) => json(envelope(Some(object_of(fields, false)))),
        Answer::Plain(fields) => json(object_of(fields, false)),
        Answer::Keys => json(envelope(Some(json!({
            "type": "object",
            "properties": { "keys": { "type": "array", "items": { "type": "string" } } },
        })))),
        Answer::Auth | Answer::Lease => json(envelope(None)),
        Answer::File(kind) => content(kind, json!({ "type": "string", "format": "binary" })),
        Answer::Text(kind) => content(kind, json!({ "type": "string" })),
    };
    all.insert("200".into(), ok);
    all.insert("default".into(), json!({ "$ref": "#/components/responses/Error" }));
    all.into()
}

/// Unique in the document: the operation, then the path.
fn operation_id(path: &str, operation: Operation) -> String {
    let mut id = operation.as_str().to_owned();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match name {
            Some(name) => id.push_str(&format!("-by-{name}")),
            None => id.push_str(&format!("-{segment}")),
        }
    }
    id
}

/// `mounts/*path/tune` as `mounts/{path}/tune`.
fn braced(pattern: &str) -> String {
    let segment = |s: &str| match s.strip_prefix([':', '*']) {
        Some(name) => format!("{{{name}}}"),
        None => s.to_owned(),
    };
    pattern.split('/').map(segment).collect::<Vec<_>>().join("/")
}
