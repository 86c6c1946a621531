//! The engine's routes, and what they take.

use leasehold_core::engine_handler;
use leasehold_core::fields::{Field, Kind};
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::engine::EngineHandler;

use super::DatabaseEngine;

const FORCE: Field = Field::visible(
    "force",
    Kind::Bool,
    "If true, the connection is deleted, or leads to another server, although leases stand on it. Default false.",
);

const CONNECTION_FIELDS: &[Field] = &[
    Field::visible("plugin_name", Kind::Text, "The name of a builtin plugin: postgresql-database-plugin."),
    Field::visible("plugin_version", Kind::Text, "The version of the plugin to use."),
    Field::visible(
        "verify_connection",
        Kind::Bool,
        "If true, the connection is opened and tried before it is stored. Default true.",
    ),
    Field::visible(
        "allowed_roles",
        Kind::CommaList,
        "Names or globs of the roles that may use this connection; \"*\" for all.",
    ),
    Field::hidden("root_rotation_statements", Kind::List, "Statements that rotate the admin's own password."),
    Field::visible("password_policy", Kind::Text, "Password policy to use when generating passwords."),
    Field::hidden("connection_url", Kind::Text, "URL or key=value form; {{username}} and {{password}} are filled in."),
    Field::visible("username", Kind::Text, "The admin's name, for {{username}}."),
    Field::hidden("password", Kind::Text, "The admin's password, for {{password}}. Never read back."),
    Field::visible("max_open_connections", Kind::Int, "Most connections to the database at once. Default 4."),
    Field::visible("max_idle_connections", Kind::Int, "Most idle connections kept. Default: as many as may be open."),
    Field::visible("max_connection_lifetime", Kind::Any, "How long a connection may be used again. Default: for ever."),
    Field::visible(
        "username_template",
        Kind::Text,
        "How the names of leased roles are made. Default: v-, display name, role, 20 random characters, the time.",
    ),
    Field::visible(
        "password_authentication",
        Kind::Text,
        "scram-sha-256 (default): the server gets a verifier, never the password; or password.",
    ),
    Field::visible(
        "scram_iterations",
        Kind::Int,
        "Rounds of hashing in a verifier. Default 4096; fewer cost PostgreSQL less, but some clients then refuse to log in.",
    ),
    Field::visible("disable_escaping", Kind::Bool, "If true, username and password go into the URL as they are."),
    Field::hidden(
        "tls_ca",
        Kind::Text,
        "PEM certificates of the authority that the server's certificate must come from.",
    ),
    Field::hidden("tls_certificate", Kind::Text, "PEM certificate that we show to the server, with its chain."),
    Field::hidden("private_key", Kind::Text, "PEM key of tls_certificate. Never read back."),
    Field::hidden("tls_private_key", Kind::Text, "Another name of private_key."),
    Field::visible(
        "reassign_owned_to",
        Kind::Text,
        "The role that gets what leased roles owned; functions and views that they left run with its rights. Default: a role without \
         rights, one for each role here.",
    ),
    Field::visible(
        "creation_timeout",
        Kind::Any,
        "How long the creation statements of a role may take, unless the role says otherwise; at most 600s. Default 85s, a \
         little less than a request has.",
    ),
    Field::visible(
        "rotation_period",
        Kind::Duration,
        "How old the admin's password may get before it is changed as by rotate-root; at least 5s. Default: it is not changed by itself.",
    ),
    Field::visible(
        "rotation_schedule",
        Kind::Text,
        "When the admin's password is changed, as five cron fields in UTC; CRON_TZ=<zone> before them names another time zone.",
    ),
    Field::visible(
        "rotation_window",
        Kind::Duration,
        "How long after a scheduled moment it may still be changed; at least 1h. Default: until it was changed.",
    ),
    FORCE,
    Field::visible("disable_automated_rotation", Kind::Bool, "If true, nothing is changed by period or schedule."),
    // Everything else is kept with the connection and read back, as in Vault.
    Field::hidden("*", Kind::Any, "Kept as it is."),
    Field::visible("drop_owned", Kind::Bool, "If true, what leased roles owned is dropped instead."),
    Field::visible(
        "drop_orphans",
        Kind::Bool,
        "If true, roles that carry this installation's comment and have no lease are dropped, not only reported. Not where a \
         second server may run on a copy of the storage.",
    ),
];

const ROLE_FIELDS: &[Field] = &[
    Field::visible("db_name", Kind::Text, "Name of the connection this role uses."),
    Field::hidden("creation_statements", Kind::List, "Statements that create the PostgreSQL role."),
    Field::hidden(
        "revocation_statements",
        Kind::List,
        "Statements that remove it. Default: everything it has, then the role.",
    ),
    Field::hidden("renew_statements", Kind::List, "Statements that move its end. Default: ALTER ROLE … VALID UNTIL."),
    Field::hidden("rollback_statements", Kind::List, "Kept; PostgreSQL rolls back by itself."),
    Field::visible("default_ttl", Kind::Duration, "Default TTL of leases of this role."),
    Field::visible("max_ttl", Kind::Duration, "Maximum TTL of leases of this role."),
    Field::visible("credential_type", Kind::Text, "password; others cannot be issued."),
    Field::visible("credential_config", Kind::KvPairs, "Options of the credential type."),
    Field::visible("username_template", Kind::Text, "As that of the connection, for this role alone."),
    Field::visible("template_dialect", Kind::Text, "handlebars (default) or plain."),
    Field::visible(
        "creation_timeout",
        Kind::Duration,
        "How long the creation statements may take; at most 600s. Default: as the connection says.",
    ),
    Field::visible(
        "revocation_timeout",
        Kind::Duration,
        "How long one try of a revocation may take, 5s to 600s; what has taken longer is tried again. Default 30s.",
    ),
    Field::visible(
        "max_leases",
        Kind::Int,
        "How many leases of this role there may be at once; one more is refused with 429. Default: as many as anybody wants.",
    ),
    Field::visible(
        "verify",
        Kind::Bool,
        "If true, the statements are tried on the database before the role is stored, in a transaction that is rolled back: the answer \
         says what came of each, and a role whose statements fail is not stored. Default false.",
    ),
];

/// What is missing where Vault serves a path and this engine does not.
pub(super) fn not_offered(below: &str) -> Option<&'static str> {
    (below.split('/').next() == Some("reload"))
        .then_some("the plugin is part of this server and is not loaded anew: reset/:name opens one connection again")
}

const STATIC_ROLE_FIELDS: &[Field] = &[
    Field::visible("db_name", Kind::Text, "Name of the connection this role uses. It cannot be changed.").required(),
    Field::visible("username", Kind::Text, "The PostgreSQL role whose password is changed. It cannot be changed.")
        .required(),
    Field::visible("rotation_period", Kind::Duration, "How old a password may get; at least 5s. Or rotation_schedule."),
    Field::visible(
        "rotation_schedule",
        Kind::Text,
        "When the password is changed, as five cron fields in UTC; CRON_TZ=<zone> before them names another time zone.",
    ),
    Field::visible(
        "rotation_window",
        Kind::Duration,
        "How long after a scheduled moment the password may still be changed; at least 1h. Default: until it was changed.",
    ),
    Field::hidden(
        "rotation_statements",
        Kind::List,
        "Statements that set the password. Default: ALTER ROLE … PASSWORD.",
    ),
    Field::visible("credential_type", Kind::Text, "password; others are not supported."),
    Field::visible("credential_config", Kind::KvPairs, "Options of the credential type."),
    Field::visible(
        "template_dialect",
        Kind::Text,
        "How rotation_statements are rendered: handlebars (default) or plain.",
    ),
    Field::visible(
        "skip_import_rotation",
        Kind::Bool,
        "If true, the password is not changed when the static role is created. Default false.",
    ),
    Field::hidden(
        "password",
        Kind::Text,
        "The present password, where skip_import_rotation leaves it. Never read back.",
    ),
    Field::hidden(
        "self_managed_password",
        Kind::Text,
        "The present password, where the PostgreSQL role itself is to log in and change it. Never read back.",
    ),
];

const STATIC_ROLE_ANSWER: &[Field] = &[
    Field::visible("credential_type", Kind::Text, "password."),
    Field::visible("db_name", Kind::Text, "Name of the connection."),
    Field::visible("username", Kind::Text, "The PostgreSQL role."),
    Field::hidden("rotation_statements", Kind::List, "As they were written."),
    Field::visible("rotation_period", Kind::Int, "In seconds, where there is a period."),
    Field::visible("rotation_schedule", Kind::Text, "Where there is a schedule."),
    Field::visible("rotation_window", Kind::Int, "In seconds, where there is a schedule."),
    Field::visible("last_vault_rotation", Kind::Time, "When the password was changed last."),
];

const STATIC_CREDENTIALS_ANSWER: &[Field] = &[
    Field::visible("username", Kind::Text, "The PostgreSQL role."),
    Field::hidden("password", Kind::Text, "Its password."),
    Field::visible("ttl", Kind::Int, "Seconds until the password is changed next; at least 1."),
    Field::visible("rotation_period", Kind::Int, "In seconds, where there is a period."),
    Field::visible("rotation_schedule", Kind::Text, "Where there is a schedule."),
    Field::visible("rotation_window", Kind::Int, "In seconds, where there is a schedule."),
    Field::visible("last_vault_rotation", Kind::Time, "When the password was changed last."),
];

const CREDENTIALS_FIELDS: &[Field] = &[Field::visible(
    "ttl",
    Kind::Duration,
    "How long the lease is to last at first; at most the role's max_ttl. Default: the role's default_ttl.",
)];

const PAGE_FIELDS: &[Field] = &[
    Field::visible("after", Kind::Text, "Begin after this name, which need not be there."),
    Field::visible("limit", Kind::Int, "How many names at most; 0 for all."),
];

/// In the order in which they are tried.
pub(super) const ROUTES: &[Route<EngineHandler>] = &[
    Route::new(
        "config/",
        Access::Token,
        "The configured connections.",
        &[Op::list("List the configured connections.", engine_handler!(DatabaseEngine, list_connections))],
    ),
    Route::new(
        "config/:name",
        Access::Token,
        "Connection details of a database.",
        &[
            Op::read("Show a connection, without its password.", engine_handler!(DatabaseEngine, read_connection)),
            Op::update("Configure a connection.", engine_handler!(DatabaseEngine, write_connection))
                .takes(CONNECTION_FIELDS),
            Op::delete("Delete a connection.", engine_handler!(DatabaseEngine, delete_connection)).takes(&[FORCE]),
        ],
    )
    .with_existence_check(),
    Route::new(
        "roles/",
        Access::Token,
        "The roles.",
        &[Op::list("List the roles.", engine_handler!(DatabaseEngine, list_roles)).takes(PAGE_FIELDS)],
    ),
    Route::new(
        "roles/:name",
        Access::Token,
        "A role that credentials can be read for.",
        &[
            Op::read("Show a role.", engine_handler!(DatabaseEngine, show_role)).answers(Answer::Data(ROLE_FIELDS)),
            Op::update("Write a role.", engine_handler!(DatabaseEngine, write_role)).takes(ROLE_FIELDS),
            Op::delete("Delete a role.", engine_handler!(DatabaseEngine, delete_role)),
        ],
    )
    .with_existence_check(),
    Route::new(
        "creds/:name",
        Access::Token,
        "Database credentials of a role, on lease.",
        &[Op::read(
            "Request database credentials for a certain role.",
            engine_handler!(DatabaseEngine, read_credentials),
        )
        .takes(CREDENTIALS_FIELDS)
        .answers(Answer::Lease)],
    ),
    Route::new(
        "reset/:name",
        Access::Token,
        "Close a connection and open it again.",
        &[Op::update("Close a connection and open it again.", engine_handler!(DatabaseEngine, reset_connection))],
    ),
    Route::new(
        "rotate-root/:name",
        Access::Token,
        "Change the password of a connection's own user.",
        &[Op::update(
            "Change the password of a connection's own user to one that only this server knows.",
            engine_handler!(DatabaseEngine, rotate_connection),
        )],
    ),
    Route::new(
        "static-roles/",
        Access::Token,
        "The static roles.",
        &[Op::list("List the static roles.", engine_handler!(DatabaseEngine, list_static_roles)).takes(PAGE_FIELDS)],
    ),
    Route::new(
        "static-roles/:name",
        Access::Token,
        "A PostgreSQL role whose password is changed again and again.",
        &[
            Op::read("Show a static role.", engine_handler!(DatabaseEngine, show_static_role))
                .answers(Answer::Data(STATIC_ROLE_ANSWER)),
            Op::update("Write a static role.", engine_handler!(DatabaseEngine, write_static_role))
                .takes(STATIC_ROLE_FIELDS),
            Op::delete(
                "Forget a static role; the PostgreSQL role stays.",
                engine_handler!(DatabaseEngine, delete_static_role),
            ),
        ],
    )
    .with_existence_check(),
    Route::new(
        "static-creds/:name",
        Access::Token,
        "The present password of a static role.",
        &[Op::read(
            "Request the credentials of a static role.",
            engine_handler!(DatabaseEngine, read_static_credentials),
        )
        .answers(Answer::Data(STATIC_CREDENTIALS_ANSWER))],
    ),
    Route::new(
        "rotate-role/:name",
        Access::Token,
        "Change the password of a static role now.",
        &[Op::update("Change the password of a static role now.", engine_handler!(DatabaseEngine, rotate_static_role))],
    ),
];
