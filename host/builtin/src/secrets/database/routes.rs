//! The engine's routes, and what they take.

use leasehold_core::fields::{Field, Kind};
use leasehold_core::routes::{Access, Route};
use leasehold_model::Operation;

const WRITE: &[Operation] = &[Operation::Create, Operation::Update, Operation::Read, Operation::Delete];

const CONNECTION_FIELDS: &[Field] = &[
    Field::open("plugin_name", Kind::Text, "The name of a builtin plugin: postgresql-database-plugin."),
    Field::open("plugin_version", Kind::Text, "The version of the plugin to use."),
    Field::open(
        "verify_connection",
        Kind::Bool,
        "If true, the connection is opened and tried before it is stored. Default true.",
    ),
    Field::open(
        "allowed_roles",
        Kind::CommaList,
        "Names or globs of the roles that may use this connection; \"*\" for all.",
    ),
    Field::open("root_rotation_statements", Kind::List, "Statements that rotate the admin's own password."),
    Field::open("password_policy", Kind::Text, "Password policy to use when generating passwords."),
    Field::hidden("connection_url", Kind::Text, "URL or key=value form; {{username}} and {{password}} are filled in."),
    Field::open("username", Kind::Text, "The admin's name, for {{username}}."),
    Field::hidden("password", Kind::Text, "The admin's password, for {{password}}. Never read back."),
    Field::open("max_open_connections", Kind::Int, "Most connections to the database at once. Default 4."),
    Field::open("max_idle_connections", Kind::Int, "Most idle connections kept. Default: as many as may be open."),
    Field::open("max_connection_lifetime", Kind::Any, "How long a connection may be used again. Default: for ever."),
    Field::open("username_template", Kind::Text, "Not supported yet."),
    Field::open(
        "password_authentication",
        Kind::Text,
        "scram-sha-256 (default): the server gets a verifier, never the password; or password.",
    ),
    Field::open(
        "scram_iterations",
        Kind::Int,
        "Rounds of hashing in a verifier. Default 4096; fewer cost PostgreSQL less, but some clients then refuse to log in.",
    ),
    Field::open("disable_escaping", Kind::Bool, "If true, username and password go into the URL as they are."),
    Field::hidden(
        "tls_ca",
        Kind::Text,
        "PEM certificates of the authority that the server's certificate must come from.",
    ),
    Field::hidden("tls_certificate", Kind::Text, "Not supported yet."),
    Field::hidden("private_key", Kind::Text, "Not supported yet."),
    Field::open(
        "reassign_owned_to",
        Kind::Text,
        "The role that gets what leased roles owned; functions and views that they left run with its rights. Default: a role without \
         rights, one for each role here.",
    ),
    // Everything else is kept with the connection and read back, as in the field.
    Field::hidden("*", Kind::Any, "Kept as it is."),
    Field::open("drop_owned", Kind::Bool, "If true, what leased roles owned is dropped instead."),
    Field::open(
        "drop_orphans",
        Kind::Bool,
        "If true, roles that carry this installation's comment and have no lease are dropped, not only reported. Not where a \
         second server may run on a copy of the storage.",
    ),
];

const ROLE_FIELDS: &[Field] = &[
    Field::open("db_name", Kind::Text, "Name of the connection this role uses."),
    Field::open("creation_statements", Kind::List, "Statements that create the PostgreSQL role."),
    Field::open(
        "revocation_statements",
        Kind::List,
        "Statements that remove it. Default: everything it has, then the role.",
    ),
    Field::open("renew_statements", Kind::List, "Statements that move its end. Default: ALTER ROLE … VALID UNTIL."),
    Field::open("rollback_statements", Kind::List, "Kept; PostgreSQL rolls back by itself."),
    Field::open("default_ttl", Kind::Duration, "Default TTL of leases of this role."),
    Field::open("max_ttl", Kind::Duration, "Maximum TTL of leases of this role."),
    Field::open("credential_type", Kind::Text, "password; others cannot be issued."),
    Field::open("credential_config", Kind::KvPairs, "Options of the credential type."),
    Field::open("template_dialect", Kind::Text, "handlebars (default) or plain."),
];

const PAGE_FIELDS: &[Field] = &[
    Field::open("after", Kind::Text, "Begin after this name, which need not be there."),
    Field::open("limit", Kind::Int, "How many names at most; 0 for all."),
];

/// In the order in which they are tried.
pub(super) fn all() -> Vec<Route> {
    let route = |pattern, operations, fields, existence_check, help| Route {
        pattern,
        operations,
        fields,
        access: Access::Token,
        existence_check,
        help,
    };
    vec![
        route("config/", &[Operation::List], &[], false, "List the configured connections."),
        route("config/:name", WRITE, CONNECTION_FIELDS, true, "Configure connection details of a database."),
        route("roles/", &[Operation::List], PAGE_FIELDS, false, "List the roles."),
        route("roles/:name", WRITE, ROLE_FIELDS, true, "Manage the roles that can be created."),
        route("creds/:name", &[Operation::Read], &[], false, "Request database credentials for a certain role."),
        route(
            "reset/:name",
            &[Operation::Update, Operation::Create],
            &[],
            false,
            "Close a connection and open it again.",
        ),
    ]
}
