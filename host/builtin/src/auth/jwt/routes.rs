//! The method's routes, and what they take.

use leasehold_core::auth_handler;
use leasehold_core::fields::{Field, Kind};
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::auth::AuthHandler;
use leasehold_core::seams::token_params::{FIELDS, with_token_fields};

use super::Jwt;
use crate::auth::PAGES;

const CONFIG: &[Field] = &[
    Field::visible("jwt_validation_pubkeys", Kind::List, "Public keys in PEM form that may sign tokens."),
    Field::visible("jwks_url", Kind::Text, "Where the provider publishes its keys (JSON Web Key Set)."),
    Field::visible("jwks_ca_pem", Kind::Text, "Who vouches for the server of jwks_url; empty: whom the system trusts."),
    Field::visible("jwks_pairs", Kind::Any, "Several key sets: a list of objects with jwks_url and jwks_ca_pem."),
    Field::visible(
        "oidc_discovery_url",
        Kind::Text,
        "The issuer, without `.well-known`, whose configuration names its keys.",
    ),
    Field::visible("oidc_discovery_ca_pem", Kind::Text, "Who vouches for the server of oidc_discovery_url."),
    Field::visible("bound_issuer", Kind::Text, "The `iss` that tokens must have; empty: any."),
    Field::visible("default_role", Kind::Text, "The role of a login that names none."),
    Field::visible(
        "jwt_supported_algs",
        Kind::CommaList,
        "Algorithms that tokens may be signed with; none: all that are known.",
    ),
    Field::visible("skip_jwks_validation", Kind::Bool, "Stores an address that does not answer now, with a warning."),
    Field::visible("provider_config", Kind::Map, "Not offered."),
    Field::visible("override_allowed_server_names", Kind::CommaList, "Not offered."),
    Field::visible("oidc_client_id", Kind::Text, "Of the browser flow, which is not offered."),
    Field::hidden("oidc_client_secret", Kind::Text, "Of the browser flow, which is not offered."),
];

const OWN: &[Field] = &[
    Field::visible("role_type", Kind::Text, "`jwt`. The default, `oidc`, is the browser flow, which is not offered.")
        .one_of(&["jwt"]),
    Field::visible("bound_audiences", Kind::CommaList, "The token's `aud` must name one of these."),
    Field::visible("bound_subject", Kind::Text, "The `sub` that the token must have."),
    Field::visible(
        "bound_claims",
        Kind::Map,
        "Claims by name or JSON pointer, each with the value or values it may have.",
    ),
    Field::visible("bound_claims_type", Kind::Text, "`string`, or `glob`: a `*` in a bound value stands for any text.")
        .default("string")
        .one_of(&["string", "glob"]),
    Field::visible("user_claim", Kind::Text, "The claim that names who logs in.").required(),
    Field::visible("user_claim_json_pointer", Kind::Bool, "Whether user_claim is a JSON pointer."),
    Field::visible("groups_claim", Kind::Text, "The claim that lists groups."),
    Field::visible("claim_mappings", Kind::KvPairs, "Claims, and the metadata of the token that they become."),
    Field::visible(
        "expiration_leeway",
        Kind::Any,
        "How long a token without `exp` is valid; default 150 s, less than 0: none.",
    ),
    Field::visible("not_before_leeway", Kind::Any, "The same before `exp`, for a token without `nbf`; default 150 s."),
    Field::visible("clock_skew_leeway", Kind::Any, "How far clocks may differ; default 60 s, less than 0: not at all."),
    Field::visible("token_policies_template_claims", Kind::Bool, "Not offered."),
    Field::visible("policies", Kind::CommaList, "Old name of token_policies."),
    Field::visible("ttl", Kind::Duration, "Old name of token_ttl."),
    Field::visible("max_ttl", Kind::Duration, "Old name of token_max_ttl."),
    Field::visible("period", Kind::Duration, "Old name of token_period."),
    Field::visible("bound_cidrs", Kind::CommaList, "Old name of token_bound_cidrs."),
];
const ROLE: [Field; OWN.len() + FIELDS.len()] = with_token_fields(OWN);

/// In the order in which they are tried.
pub(super) const ROUTES: &[Route<AuthHandler>] = &[
    Route::new(
        "config",
        Access::Token,
        "Who may sign tokens.",
        &[
            Op::read("Shows the configuration.", auth_handler!(Jwt, read_config)).answers(Answer::Data(CONFIG)),
            Op::update("Replaces the configuration.", auth_handler!(Jwt, write_config)).takes(CONFIG),
        ],
    ),
    Route::new(
        "role/",
        Access::Token,
        "The roles.",
        &[Op::list("Lists the roles.", auth_handler!(Jwt, list)).takes(PAGES)],
    ),
    Route::new(
        "role/:name",
        Access::Token,
        "A role: what it demands of tokens and what it gives for them.",
        &[
            Op::read("Shows a role.", auth_handler!(Jwt, read)).answers(Answer::Data(&ROLE)),
            Op::update("Writes a role.", auth_handler!(Jwt, write)).takes(&ROLE),
            Op::delete("Deletes a role; tokens that exist are not renewed any more.", auth_handler!(Jwt, delete)),
        ],
    )
    .with_existence_check(),
    Route::new(
        "login",
        Access::Unauthenticated,
        "Logs in with a token of an identity provider.",
        &[Op::update("Logs in with a token of an identity provider.", auth_handler!(Jwt, log_in))
            .takes(&[
                Field::visible("role", Kind::Text, "The role; default_role if there is none."),
                Field::hidden("jwt", Kind::Text, "The token.").required(),
            ])
            .answers(Answer::Auth)],
    ),
];
