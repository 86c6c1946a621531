//! `?help=1`: what a path is for and what it takes.

use serde_json::json;

use super::openapi;
use crate::fields::{Field, Kind};
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Route};

/// What a mount as a whole is asked for: the list of its paths.
pub(crate) fn of_mount<H: Copy>(routes: &[Route<H>]) -> LogicalResponse {
    let mut text = "The paths of this mount:\n".to_owned();
    for route in routes.iter().filter(|route| !route.is_unlisted) {
        text.push_str(&format!("\n    {}\n        {}\n", route.pattern, route.summary));
    }
    answer(text, routes)
}

pub(crate) fn of_route<H: Copy>(routes: &[Route<H>], route: &Route<H>, path: &str) -> LogicalResponse {
    let mut text = format!("Request:        {path}\nMatching Route: {}\n\n{}\n", route.pattern, route.summary);
    text.push_str("\n## OPERATIONS\n");
    for op in route.operations {
        text.push_str(&format!("\n    {}\n        {}\n", op.operation.as_str(), op.summary));
    }
    let mut fields: Vec<&Field> = Vec::new();
    for field in route.operations.iter().flat_map(|op| op.fields) {
        if field.name != "*" && fields.iter().all(|known| known.name != field.name) {
            fields.push(field);
        }
    }
    if !fields.is_empty() {
        text.push_str("\n## PARAMETERS\n");
    }
    for field in fields {
        let required = if field.required { ", required" } else { "" };
        text.push_str(&format!("\n    {} ({}{required})\n        {}\n", field.name, kind(field.kind), field.help));
        if !field.one_of.is_empty() {
            text.push_str(&format!("        One of: {}.\n", field.one_of.join(", ")));
        }
        if !field.default.is_empty() {
            text.push_str(&format!("        Default: {}.\n", field.default));
        }
    }
    text.push_str(match route.access {
        Access::Sudo => "\nThis path needs the capability `sudo` besides the operation's own.\n",
        Access::SudoToWrite => "\nWrites to this path need the capability `sudo` besides the operation's own.\n",
        Access::Unauthenticated | Access::WhileSealed => "\nThis path needs no token.\n",
        Access::TokenUnlessLetIn => {
            "\nThis path needs a token, unless the configuration of the listener says otherwise.\n"
        }
        Access::Token => "",
    });
    answer(text, routes)
}

/// With the mount's part of the OpenAPI document, as in Vault.
fn answer<H: Copy>(text: String, routes: &[Route<H>]) -> LogicalResponse {
    let mut paths = Object::new();
    openapi::add_paths(&mut paths, "", routes);
    LogicalResponse::json(json!({ "help": text, "see_also": null, "openapi": openapi::document(paths) }))
        .shaped(Shape::Plain)
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Any => "string",
        Kind::Time => "time",
        Kind::Int => "int",
        Kind::Float => "float",
        Kind::Bool => "bool",
        Kind::Duration => "duration (sec)",
        Kind::CommaList | Kind::List => "list of strings",
        Kind::KvPairs | Kind::Map => "map",
    }
}
