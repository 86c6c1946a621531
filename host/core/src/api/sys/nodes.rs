//! `sys/leader`, `sys/ha-status`: the servers over one store (contract.md §2.1). All of them are active.

use serde_json::{Value, json};

use crate::api::call::{Call, SealedCall, SystemHandler, handler, sealed_handler};
use crate::fields::{Field, Kind};
use crate::nodes::Nodes;
use crate::request::{LogicalResponse, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::nodes::Node;

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "leader",
        Access::WhileSealed,
        "Which server leads: each for itself.",
        &[Op::read("Which server leads: each for itself.", sealed_handler!(leader)).answers(Answer::Plain(&[
            Field::visible("ha_enabled", Kind::Bool, "Whether several servers may share the storage."),
            Field::visible("is_self", Kind::Bool, "Whether this server leads: always, where there may be several."),
            Field::visible("leader_address", Kind::Text, "Where clients reach this server."),
            Field::visible("leader_cluster_address", Kind::Text, "Empty: servers meet in the storage alone."),
            Field::visible("active_time", Kind::Time, "Since when this server has been on the list."),
        ]))],
    ),
    Route::new(
        "ha-status",
        Access::Token,
        "The servers over this storage.",
        &[Op::read("Lists the servers over this storage.", handler!(ha_status))
            .answers(Answer::Data(&[Field::visible("nodes", Kind::Any, "One entry for each server.")]))],
    ),
];

async fn leader(call: &SealedCall<'_>) -> Result<LogicalResponse, RequestError> {
    call.core.unsealed()?;
    let nodes = &call.core.nodes;
    let answer = if nodes.may_be_several() {
        json!({
            "ha_enabled": true,
            "is_self": true,
            "active_time": nodes.joined_at().map(|at| at.rfc3339()).unwrap_or_default(),
            "leader_address": nodes.name().address,
            "leader_cluster_address": "",
        })
    } else {
        json!({ "ha_enabled": false })
    };
    Ok(LogicalResponse::json(answer).shaped(Shape::Plain))
}

async fn ha_status(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let nodes = &call.core.nodes;
    let shown: Vec<Value> = nodes.members().await?.iter().map(|node| shown(node, nodes)).collect();
    Ok(LogicalResponse::json(json!({ "nodes": shown })).shaped(Shape::Duplicated))
}

/// A server that is sealed, or that nobody hears of, is not active.
fn shown(node: &Node, nodes: &Nodes) -> Value {
    json!({
        "hostname": node.report.name,
        "api_address": node.report.address,
        "cluster_address": "",
        "active_node": node.report.applied.is_some() && !nodes.is_silent(node),
        "last_echo": (node.report.id != nodes.id()).then(|| node.heard_at.rfc3339()),
        "version": node.report.version,
    })
}
