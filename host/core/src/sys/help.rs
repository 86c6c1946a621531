//! `?help=1`: what a path is for and what it takes.

use serde_json::{Value, json};

use crate::fields::Kind;
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Route};

/// What a mount as a whole is asked for: the list of its paths.
pub(crate) const OF_A_MOUNT: Route = Route {
    pattern: "",
    operations: &[],
    fields: &[],
    access: Access::Token,
    existence_check: false,
    help: "The paths of this mount:",
};

pub(crate) fn answer(routes: &[Route], route: &Route, path: &str) -> LogicalResponse {
    let mut text = format!("Request:        {path}\nMatching Route: {}\n\n{}\n", route.pattern, route.help);
    if route.pattern.is_empty() {
        text = format!("{}\n", route.help);
        for route in routes {
            text.push_str(&format!("\n    {}\n        {}\n", route.pattern, route.help));
        }
    }
    if !route.fields.is_empty() {
        text.push_str("\n## PARAMETERS\n");
        for field in route.fields.iter().filter(|field| field.name != "*") {
            text.push_str(&format!("\n    {} ({})\n        {}\n", field.name, kind(field.kind), field.help));
        }
    }
    if route.access == Access::Sudo {
        text.push_str("\nThis path needs the capability `sudo` besides the operation's own.\n");
    }
    let paths: Object = routes
        .iter()
        .map(|route| (format!("/{}", openapi_path(route.pattern)), json!({ "description": route.help })))
        .collect();
    let openapi: Value = json!({
        "openapi": "3.0.2",
        "info": { "title": "Leasehold", "description": "HTTP API", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0" } },
        "paths": paths,
    });
    LogicalResponse::json(json!({ "help": text, "see_also": null, "openapi": openapi })).shaped(Shape::Plain)
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Any => "string",
        Kind::Time => "time",
        Kind::Int => "int",
        Kind::Bool => "bool",
        Kind::Duration => "duration (sec)",
        Kind::CommaList | Kind::List => "list of strings",
        Kind::KvPairs | Kind::Map => "map",
    }
}

fn openapi_path(pattern: &str) -> String {
    let segment = |s: &str| match s.strip_prefix([':', '*']) {
        Some(name) => format!("{{{name}}}"),
        None => s.to_owned(),
    };
    pattern.split('/').map(segment).collect::<Vec<_>>().join("/")
}
