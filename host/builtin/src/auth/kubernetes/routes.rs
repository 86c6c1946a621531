//! The method's routes, and what they take.

use leasehold_core::auth_handler;
use leasehold_core::fields::{Field, Kind};
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::auth::AuthHandler;
use leasehold_core::seams::token_params::{FIELDS, with_token_fields};

use super::Kubernetes;
use crate::auth::PAGES;

const CONFIG: &[Field] = &[
    Field::visible("kubernetes_host", Kind::Text, "The address of the cluster's API server.").required(),
    Field::visible(
        "kubernetes_ca_cert",
        Kind::Text,
        "Who vouches for that server; in a pod, the pod's own by default.",
    ),
    Field::hidden(
        "token_reviewer_jwt",
        Kind::Text,
        "A token that may review others; in a pod, the pod's own by default.",
    ),
    Field::visible("pem_keys", Kind::CommaList, "Public keys that must have signed the tokens, besides the review."),
    Field::visible("issuer", Kind::Text, "The `iss` that tokens must have, with disable_iss_validation=false."),
    Field::visible("disable_iss_validation", Kind::Bool, "Whether any `iss` will do.").default("true"),
    Field::visible("disable_local_ca_jwt", Kind::Bool, "Does not use the pod's own CA and token.").default("false"),
];

const OWN: &[Field] = &[
    Field::visible(
        "bound_service_account_names",
        Kind::CommaList,
        "Accounts that may log in; `*` stands for any text.",
    )
    .required(),
    Field::visible("bound_service_account_namespaces", Kind::CommaList, "Their namespaces; `*` stands for any text.")
        .required(),
    Field::visible("bound_service_account_namespace_selector", Kind::Text, "Not offered."),
    Field::visible("audience", Kind::Text, "The audience that the tokens must be for."),
    Field::visible("alias_name_source", Kind::Text, "What names an account for ever.")
        .default("serviceaccount_uid")
        .one_of(&["serviceaccount_uid", "serviceaccount_name"]),
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
        "The cluster.",
        &[
            Op::read("Shows the configuration, without the reviewer's token.", auth_handler!(Kubernetes, read_config))
                .answers(Answer::Data(CONFIG)),
            Op::update("Replaces the configuration.", auth_handler!(Kubernetes, write_config)).takes(CONFIG),
        ],
    ),
    Route::new(
        "role/",
        Access::Token,
        "The roles.",
        &[Op::list("Lists the roles.", auth_handler!(Kubernetes, list)).takes(PAGES)],
    ),
    Route::new(
        "role/:name",
        Access::Token,
        "A role: which service accounts it is for, and what it gives them.",
        &[
            Op::read("Shows a role.", auth_handler!(Kubernetes, read)).answers(Answer::Data(&ROLE)),
            Op::update("Writes a role.", auth_handler!(Kubernetes, write)).takes(&ROLE),
            Op::delete(
                "Deletes a role; tokens that exist are not renewed any more.",
                auth_handler!(Kubernetes, delete),
            ),
        ],
    )
    .with_existence_check(),
    Route::new(
        "login",
        Access::Unauthenticated,
        "Logs a service account in.",
        &[Op::update("Logs a service account in.", auth_handler!(Kubernetes, log_in))
            .takes(&[
                Field::visible("role", Kind::Text, "The role.").required(),
                Field::hidden("jwt", Kind::Text, "The token of the service account.").required(),
            ])
            .answers(Answer::Auth)],
    ),
];
