//! Version 2 of the engine: a write makes a new version of a value, and older ones stay readable until there are too many.
//!
//! Must not know: HTTP, how leases are kept.
//!
//! Start with [`ROUTES`], then [`record`], which is what is stored of a key.
//!
//! Invariants: a version that the record of its key names, and that is not destroyed, has its data in the store; no data is there
//! that no record names. Both are written in one commit, on the condition that the record is still the one that was read: of two
//! writers with the same `cas` one is refused, on whichever servers they are.

mod config;
mod data;
mod lists;
mod metadata;
mod record;
pub(super) mod upgrade;
mod versions;

use leasehold_core::engine_handler;
use leasehold_core::fields::{Field, Kind};
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::engine::{EngineHandler, EngineRequest};
use leasehold_core::seams::error::RequestError;
use leasehold_model::Operation;

use super::{KvEngine, PAGE_FIELDS, unversioned};
pub(super) use record::record_at;

/// The rest of a path below `data/` and the others: the key.
const PATH: &str = "path";

const VERSION: Field = Field::visible("version", Kind::Int, "Which version; 0, or not given: the last one.");

/// The value may be in either.
const WRITE: &[Field] = &[
    Field::hidden("data", Kind::Map, "The value: an object.").required(),
    Field::hidden(
        "options",
        Kind::Map,
        "`cas`: the version that must be the last one for the write to happen; 0: there must be none.",
    ),
];

const VERSIONS: &[Field] = &[Field::visible("versions", Kind::CommaList, "The numbers of the versions.").required()];

/// What a read tells of a version, and a write of the one it made.
const OF_VERSION: &[Field] = &[
    Field::visible("created_time", Kind::Text, "When it was written."),
    Field::hidden("custom_metadata", Kind::Map, "What people noted on the key."),
    Field::visible("deletion_time", Kind::Text, "When it was deleted or will be; empty: never."),
    Field::visible("destroyed", Kind::Bool, "Its data is gone for good."),
    Field::visible("version", Kind::Int, "Its number."),
];

const METADATA: &[Field] = &[
    Field::visible("cas_required", Kind::Bool, "Whether writes must name the version that they replace."),
    Field::visible("max_versions", Kind::Int, "How many versions are kept; 0: as the mount's configuration has it."),
    Field::visible("delete_version_after", Kind::Text, "When a version deletes itself; 0: as the mount's."),
    Field::hidden(
        "custom_metadata",
        Kind::Map,
        "What people note on the key: at most 64 texts by name. No place for secrets.",
    ),
    Field::visible(
        "metadata_cas_required",
        Kind::Bool,
        "Whether changes of the metadata must name the state that they replace.",
    ),
    Field::visible(
        "metadata_cas",
        Kind::Int,
        "The `current_metadata_version` that must hold for the change to happen.",
    ),
];

const CONFIG: &[Field] = &[
    Field::visible("cas_required", Kind::Bool, "Whether writes to any key must name the version that they replace."),
    Field::visible("max_versions", Kind::Int, "How many versions of a key are kept at least; 0: ten."),
    Field::visible(
        "delete_version_after",
        Kind::Text,
        "When versions delete themselves; 0: never; negative: never, whatever a key says.",
    ),
    Field::visible(
        "metadata_cas_required",
        Kind::Bool,
        "Whether changes of metadata must name the state that they replace.",
    ),
];

pub(super) const ROUTES: &[Route<EngineHandler>] = &[
    Route::new(
        "config",
        Access::Token,
        "What holds for all keys of the mount.",
        &[
            Op::read("Read the configuration.", engine_handler!(KvEngine, read_config)).answers(Answer::Data(CONFIG)),
            Op::update("Change the configuration.", engine_handler!(KvEngine, write_config)).takes(CONFIG),
        ],
    ),
    Route::new(
        "data/*path",
        Access::Token,
        "A value.",
        &[
            Op::read("Read a version of a value.", engine_handler!(KvEngine, read_data)).takes(&[VERSION]).answers(
                Answer::Data(&[
                    Field::hidden("data", Kind::Map, "The value; null where it is deleted."),
                    Field::visible("metadata", Kind::Map, "Of the version."),
                ]),
            ),
            Op::update("Write a new version of a value.", engine_handler!(KvEngine, write_data))
                .takes(WRITE)
                .answers(Answer::Data(OF_VERSION)),
            Op::patch(
                "Make a new version by a JSON merge patch of the last one.",
                engine_handler!(KvEngine, patch_data),
            )
            .takes(WRITE)
            .answers(Answer::Data(OF_VERSION)),
            Op::delete("Delete the last version; it can be undeleted.", engine_handler!(KvEngine, delete_data)),
        ],
    )
    .with_existence_check(),
    Route::new(
        "metadata/",
        Access::Token,
        "The keys at the top of the mount.",
        &[
            Op::list("List the keys at the top of the mount.", engine_handler!(KvEngine, list_metadata))
                .takes(PAGE_FIELDS),
            Op::scan("List all keys, those in folders too.", engine_handler!(KvEngine, scan_metadata))
                .takes(PAGE_FIELDS),
        ],
    ),
    Route::new(
        "metadata/*path",
        Access::Token,
        "What is known of a key, or the keys in a folder.",
        &[
            Op::read("Read a key's metadata.", engine_handler!(KvEngine, read_metadata))
                .answers(Answer::Data(METADATA)),
            Op::update("Change a key's metadata.", engine_handler!(KvEngine, write_metadata)).takes(METADATA),
            Op::patch("Change a key's metadata by a JSON merge patch.", engine_handler!(KvEngine, patch_metadata))
                .takes(METADATA),
            Op::delete("Delete a key with all its versions, for good.", engine_handler!(KvEngine, delete_metadata)),
            Op::list("List the keys in a folder.", engine_handler!(KvEngine, list_metadata)).takes(PAGE_FIELDS),
            Op::scan("List all keys below a folder.", engine_handler!(KvEngine, scan_metadata)).takes(PAGE_FIELDS),
        ],
    )
    .with_existence_check(),
    Route::new(
        "detailed-metadata/",
        Access::Token,
        "The keys at the top of the mount, with their metadata.",
        &[
            Op::list("List the keys at the top with their metadata.", engine_handler!(KvEngine, list_detailed))
                .takes(PAGE_FIELDS),
            Op::scan("List all keys with their metadata.", engine_handler!(KvEngine, scan_detailed)).takes(PAGE_FIELDS),
        ],
    ),
    Route::new(
        "detailed-metadata/*path",
        Access::Token,
        "The keys in a folder, with their metadata.",
        &[
            Op::list("List the keys in a folder with their metadata.", engine_handler!(KvEngine, list_detailed))
                .takes(PAGE_FIELDS),
            Op::scan("List all keys below a folder with their metadata.", engine_handler!(KvEngine, scan_detailed))
                .takes(PAGE_FIELDS),
        ],
    ),
    Route::new(
        "subkeys/*path",
        Access::Token,
        "The names in a value, without what they hold.",
        &[Op::read("Read the structure of a version.", engine_handler!(KvEngine, read_subkeys))
            .takes(&[VERSION, Field::visible("depth", Kind::Int, "How deep to look; 0: to the ground.")])
            .answers(Answer::Data(&[
                Field::visible("subkeys", Kind::Map, "The names; null where a value stands."),
                Field::visible("metadata", Kind::Map, "Of the version."),
            ]))],
    ),
    Route::new(
        "delete/*path",
        Access::Token,
        "Deletion of versions.",
        &[Op::update("Delete versions; they can be undeleted.", engine_handler!(KvEngine, delete_versions))
            .takes(VERSIONS)],
    ),
    Route::new(
        "undelete/*path",
        Access::Token,
        "Return of deleted versions.",
        &[Op::update("Undelete versions.", engine_handler!(KvEngine, undelete_versions)).takes(VERSIONS)],
    ),
    Route::new(
        "destroy/*path",
        Access::Token,
        "Destruction of versions.",
        &[Op::update("Destroy versions for good.", engine_handler!(KvEngine, destroy_versions)).takes(VERSIONS)],
    ),
    Route::new("metadata", Access::Token, "", ROOT_ASKED).unlisted(),
    Route::new("detailed-metadata", Access::Token, "", ASTRAY).unlisted(),
    Route::new("data", Access::Token, "", ROOT_ASKED).unlisted(),
    Route::new("delete", Access::Token, "", ROOT_ASKED).unlisted(),
    Route::new("undelete", Access::Token, "", ROOT_ASKED).unlisted(),
    Route::new("destroy", Access::Token, "", ROOT_ASKED).unlisted(),
    Route::new("", Access::Token, "", ASTRAY).unlisted(),
    Route::new("*path", Access::Token, "", ASTRAY).unlisted(),
];

/// A path that needs a key behind it.
const ROOT_ASKED: &[Op<EngineHandler>] = &[
    Op::read("Is not served.", engine_handler!(KvEngine, refuse_root)),
    Op::update("Is not served.", engine_handler!(KvEngine, refuse_root)).takes_document(),
    Op::patch("Is not served.", engine_handler!(KvEngine, refuse_root)).takes_document(),
    Op::delete("Is not served.", engine_handler!(KvEngine, refuse_root)),
];

/// A path as version 1 has it.
const ASTRAY: &[Op<EngineHandler>] = &[
    Op::read("Is not served.", engine_handler!(KvEngine, refuse_astray)),
    Op::update("Is not served.", engine_handler!(KvEngine, refuse_astray)).takes_document(),
    Op::patch("Is not served.", engine_handler!(KvEngine, refuse_astray)).takes_document(),
    Op::delete("Is not served.", engine_handler!(KvEngine, refuse_astray)),
    Op::list("Is not served.", engine_handler!(KvEngine, refuse_astray)),
    Op::scan("Is not served.", engine_handler!(KvEngine, refuse_astray)),
];

fn key_of(request: &EngineRequest) -> &str {
    request.captures.get(PATH).map_or("", String::as_str).trim_end_matches('/')
}

/// Whether the key that a write names is there, or the value of version 1 that it will take over.
pub(super) async fn is_there(request: &EngineRequest) -> Result<bool, RequestError> {
    let (storage, key) = (&request.context.storage, key_of(request));
    let (record, old) = (record_at(key), unversioned::stored_at(key));
    // The third read is for a value that was taken over between the first two.
    Ok(storage.get(&record).await?.is_some()
        || storage.get(&old).await?.is_some()
        || storage.get(&record).await?.is_some())
}

/// 404 without a body, as Vault answers a patch of what is not there.
fn nothing_there() -> LogicalResponse {
    LogicalResponse::empty().with_status(404)
}

/// The handlers of paths that clients of version 1 ask for.
impl KvEngine {
    async fn refuse_root(&self, _: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        Ok(LogicalResponse::empty()
            .warn("Non-listing operations on the root of a K/V v2 mount are not supported.")
            .with_status(404))
    }

    async fn refuse_astray(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let command = match request.operation {
            Operation::Create | Operation::Update => "put",
            Operation::Patch => "patch",
            Operation::Delete => "delete",
            Operation::List | Operation::Scan => "list",
            _ => "get",
        };
        Ok(LogicalResponse::empty()
            .warn(format!(
                "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. If using \
                 the Leasehold CLI, use 'leasehold kv {command}' for this operation."
            ))
            .with_status(404))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Policy modules see the values of visible fields.
    #[test]
    fn what_may_hold_a_secret_is_hidden_from_policy_modules() {
        let fields = ROUTES.iter().flat_map(|route| route.operations).flat_map(|op| op.fields);
        let may_hold: Vec<_> =
            fields.filter(|field| matches!(field.name, "data" | "options" | "custom_metadata")).collect();
        assert_eq!(may_hold.len(), 6);
        assert!(may_hold.iter().all(|field| field.secret && !field.visible));
    }
}
